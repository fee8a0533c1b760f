"""The OpenAPI document against a served console: Schemathesis calls everything it names, and a browser shows it.

Schemathesis runs for half a minute here, and longer in script/fuzz.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fuzz import FACTOR
from tests.support.served import ADMIN_KEY, Served, request
from tests.support.services import missing

CHROMIUM = Path("/usr/bin/chromium")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        served.put("/upstreams/u", {"nodes": {"127.0.0.1:9": 1}})
        served.put("/consumers/c", {"username": "c"})
        yield served


def test_nothing_that_the_document_allows_breaks_the_server(served: Served, tmp_path: Path) -> None:
    seconds = min(20 * FACTOR, 900)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{served.console}/api/schema/?format=json"),
            *("--url", served.console, "--header", f"X-API-KEY: {ADMIN_KEY}", "--checks", CHECKS),
            *("--max-time", str(seconds), "--phases", "examples,coverage,fuzzing", "--no-color"),
            *("--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert "unforeseen" not in served.log.read_text()
    assert request(f"{served.console}/healthz").status == 200


def test_the_page_in_a_browser(served: Served, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        missing("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.on("request", lambda sent: asked.append(sent.url))
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(f"{served.console}/api/docs/")
            page.wait_for_selector(".opblock-tag", timeout=20_000)
            tags = page.locator(".opblock-tag").all_inner_texts()
            page.locator("#operations-tag-routes, [data-tag='routes']").first.click()
            page.wait_for_selector("#operations-routes-putRoute")
            shown = page.locator(".opblock-summary-path").all_inner_texts()
            page.locator("#operations-routes-putRoute .opblock-summary-control").click()
            page.wait_for_selector("#operations-routes-putRoute .opblock-body")
            body = page.locator("#operations-routes-putRoute").inner_text()
            picture = tmp_path / "docs.png"
            page.screenshot(path=str(picture))
        finally:
            browser.close()
    names = [text.split("\n")[0].strip() for text in tags]
    assert {"routes", "services", "upstreams", "consumers", "credentials", "plugins", "schema", "health"} <= set(names)
    assert any("/apisix/admin/routes/" in text.replace("\u200b", "") for text in shown)
    assert "Make or replace a route" in body and "plugins" in body
    assert not faults
    assert asked and all(url.startswith((served.console, "data:")) for url in asked), asked
    # A blank page of this size compresses to a few kilobytes.
    assert picture.stat().st_size > 20_000
