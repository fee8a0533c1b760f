"""The Kong lab "HMAC Authentication", at its own frozen time: set up by Kong's admin API, and again in a browser.

The lab's signing string, its Base64 and its Authorization line are taken from its text and sent as they stand.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.console import PASSWORD, USER, Console
from tests.support.echo import EchoUpstream
from tests.support.served import ADMIN_KEY, Answer, Served, request
from tests.support.services import missing
from tests.walkthroughs.guide import text_of

TEXT = text_of("seed_002.txt")
LINES = TEXT.splitlines()
CHROMIUM = Path("/usr/bin/chromium")


def after(line: str, number: int = 1) -> list[str]:
    """The lines of the page behind one of its lines."""
    place = LINES.index(line)
    return LINES[place + 1 : place + 1 + number]


SIGNING_STRING = "\n".join(after("In the message field, enter:", 5)[2:])
MAC = next(line for line in LINES if line.endswith("=") and "/" not in line[:1] and len(line) == 44)
AUTHORIZATION = next(line for line in LINES if line.startswith('hmac username="'))
DATE = next(line for line in LINES if line.startswith("date: ")).removeprefix("date: ")
SECRET, USERNAME = "!Qwaszxerdfcv", "johnsmith"
NOW = parsedate_to_datetime(DATE).timestamp()
PLUGIN: dict[str, Any] = {
    "name": "hmac-auth",
    "instance_name": "hmac-authentication",
    "config": {
        "validate_request_body": True,
        "algorithms": ["hmac-sha256"],
        "clock_skew": 3600,
        "enforce_headers": ["date", "dummy"],
    },
}
HEADERS = {"Date": DATE, "Dummy": "Kong", "Authorization": AUTHORIZATION}


def test_the_page_s_string_and_its_base64_belong_together() -> None:
    assert f"date: {DATE}\ndummy: Kong\n@request-target: get /kong/healthy" == SIGNING_STRING
    assert base64.b64encode(hmac.digest(SECRET.encode(), SIGNING_STRING.encode(), "sha256")).decode() == MAC
    listed = 'headers="date dummy @request-target"'
    assert f'hmac username="{USERNAME}", algorithm="hmac-sha256", {listed}, signature="{MAC}"' == AUTHORIZATION


class Lab:
    """A served gateway whose clock stands at the page's time, and its admin API."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def kong(self, method: str, path: str, body: Any = None) -> Any:
        """A call of Kong's admin API that must be accepted."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Kong-Admin-Token": ADMIN_KEY, "Content-Type": "application/json"}
        answer = request(f"{self.served.console}/kong{path}", method, headers, content)
        assert answer.status in (200, 201, 204), (path, answer.status, answer.body)
        return json.loads(answer.body) if answer.body else None

    def get(self, change: dict[str, str | None] | None = None, target: str = "/kong/healthy") -> Answer:
        """The page's request, with changed headers; None leaves one out."""
        headers = {**HEADERS, **(change or {})}
        return self.served.get(target, {name: value for name, value in headers.items() if value is not None})

    def until(self, status: int, change: dict[str, str | None] | None = None, target: str = "/kong/healthy") -> Answer:
        """The page's request, sent until a change is in force."""
        deadline = time.monotonic() + 20
        while (answer := self.get(change, target)).status != status:
            assert time.monotonic() < deadline, (answer.status, answer.body, self.served.log.read_text())
            time.sleep(0.05)
        return answer

    def route(self, node: str) -> None:
        """What the page takes for granted: a service, and a route at /kong."""
        self.kong("POST", "/services", {"name": "fastapi", "url": f"http://{node}"})
        self.kong("POST", "/services/fastapi/routes", {"name": "kong", "paths": ["/kong"]})
        self.until(200, {"Authorization": None})


def by_api(lab: Lab) -> None:
    """The page's steps over Kong's admin API."""
    made = lab.kong("POST", "/plugins", PLUGIN)
    assert {made["config"][name] == value for name, value in PLUGIN["config"].items()} == {True}
    lab.kong("POST", "/consumers", {"username": "john"})
    lab.kong("POST", "/consumers/john/hmac-auth", {"username": USERNAME, "secret": SECRET})


def by_browser(lab: Lab) -> None:
    """The page's steps in the console, by a browser. What is wrong is said at its field."""
    if not CHROMIUM.exists():
        missing("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    root = lab.served.console
    # Makes the user.
    Console(lab.served)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(f"{root}/admin/login/?next=/admin/")
            page.fill("#id_username", USER)
            page.fill("#id_password", PASSWORD)
            page.click("[type=submit]")
            page.wait_for_url(f"{root}/admin/")
            # Plugins > New Plugin > HMAC Authentication, global.
            page.goto(f"{root}/admin/hmac_proxy/plugin/add/")
            page.select_option("#id_name", "hmac-auth")
            page.select_option("#id_dialect", "kong")
            page.fill("#id_instance_name", "hmac-authentication")
            page.fill("#id_config", json.dumps({**PLUGIN["config"], "clock_skew": 0}))
            page.click("[name=_save]")
            said = page.locator(".field-config .errorlist").inner_text()
            assert "clock_skew" in said and "greater than 0" in said
            assert page.input_value("#id_instance_name") == "hmac-authentication"
            page.fill("#id_config", json.dumps(PLUGIN["config"]))
            page.click("[name=_save]")
            page.wait_for_selector(".messagelist .success")
            # The consumer, and Credentials > New HMAC Credential.
            page.goto(f"{root}/admin/hmac_consumers/consumer/add/")
            page.fill("#id_username", "john")
            page.select_option("#id_dialect", "kong")
            page.click("[name=_save]")
            page.wait_for_selector(".messagelist .success")
            page.goto(f"{root}/admin/hmac_consumers/credential/add/")
            page.click(".field-consumer .select2-selection")
            page.locator(".select2-results__option", has_text="john").click()
            page.select_option("#id_plugin", "hmac-auth")
            page.click("[name=_save]")
            page.wait_for_selector(".field-identifier .errorlist")
            page.fill("#id_identifier", USERNAME)
            page.fill("#id_secret", SECRET)
            page.click("[name=_save]")
            page.wait_for_url("**/shown-once/")
            assert SECRET in page.content()
            assert not faults
        finally:
            browser.close()


@pytest.fixture(scope="module", params=[by_api, by_browser], ids=["api", "browser"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    configure: Callable[[Lab], None] = request.param
    with EchoUpstream() as echo, Served(frozen_at=NOW) as served:
        lab = Lab(served)
        lab.route(echo.node)
        configure(lab)
        lab.until(401, {"Authorization": None})
        yield lab


def test_the_page_s_request_is_answered_as_it_stands(lab: Lab) -> None:
    answer = lab.until(200)
    seen = answer.json()
    # "It should return the Healthy status": the upstream is asked for /healthy.
    assert (seen["method"], seen["url"].rpartition(":")[2].partition("/")[2]) == ("GET", "healthy")
    assert seen["headers"]["X-Consumer-Username"] == "john"
    assert seen["headers"]["X-Credential-Identifier"] == USERNAME
    assert seen["headers"]["X-Forwarded-Prefix"] == "/kong"


def signed(string: str, listed: str, secret: str = SECRET) -> str:
    mac = base64.b64encode(hmac.digest(secret.encode(), string.encode(), "sha256")).decode()
    return f'hmac username="{USERNAME}", algorithm="hmac-sha256", headers="{listed}", signature="{mac}"'


DATE_ONLY = signed(f"date: {DATE}\n@request-target: get /kong/healthy", "date @request-target")
DOES_NOT, CANNOT = "HMAC signature does not match", "HMAC signature cannot be verified"
NO_DATE = f"{CANNOT}, a valid date or x-date header is required for HMAC Authentication"
REFUSED: list[tuple[str, dict[str, str | None], str]] = [
    ("no signature", {"Authorization": None}, "Unauthorized"),
    ("without dummy", {"Dummy": None}, CANNOT),
    ("dummy not signed", {"Authorization": DATE_ONLY}, CANNOT),
    ("another dummy", {"Dummy": "kong"}, DOES_NOT),
    ("an hour and a second late", {"Date": "Mon, 02 Dec 2024 15:23:53 GMT"}, NO_DATE),
    ("another algorithm", {"Authorization": AUTHORIZATION.replace("hmac-sha256", "hmac-sha512")}, CANNOT),
    ("another secret", {"Authorization": signed(SIGNING_STRING, "date dummy @request-target", "x")}, DOES_NOT),
]


@pytest.mark.parametrize(("case", "change", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_not_the_page_s_request_is_refused(
    lab: Lab, case: str, change: dict[str, str | None], message: str
) -> None:
    answer = lab.get(change)
    assert (answer.status, answer.json()["message"]) == (401, message)
    assert answer.headers["www-authenticate"] == "hmac"


def test_the_skew_is_an_hour(lab: Lab) -> None:
    date = "Mon, 02 Dec 2024 15:23:54 GMT"
    string = SIGNING_STRING.replace(DATE, date)
    assert lab.get({"Date": date, "Authorization": signed(string, "date dummy @request-target")}).status == 200


def test_two_global_methods_are_both_demanded_and_scoped_ones_are_not(lab: Lab) -> None:
    """The page's section "Conflicting Global Authentication Methods"."""
    lab.kong("POST", "/consumers/john/basic-auth", {"username": "john", "password": "p"})
    basic = "Basic " + base64.b64encode(b"john:p").decode()
    plugin = lab.kong("POST", "/plugins", {"name": "basic-auth"})
    refused = lab.until(401)
    assert refused.headers["www-authenticate"] == 'Basic realm="service"'
    assert lab.get({"Authorization": basic}).headers["www-authenticate"] == "hmac"
    # Kong's plugins look at Proxy-Authorization first, each for its own kind.
    assert lab.get({"Proxy-Authorization": basic}).status == 200
    # "Configure each plugin to be scoped and specify the specific service or routes that will be using it."
    lab.kong("POST", "/services/fastapi/routes", {"name": "basic", "paths": ["/basic"]})
    route = lab.kong("GET", "/routes/kong")["id"]
    other = lab.kong("GET", "/routes/basic")["id"]
    hmac_auth = lab.kong("GET", "/plugins/hmac-authentication")
    lab.kong("PATCH", f"/plugins/{hmac_auth['id']}", {"route": {"id": route}})
    lab.kong("PATCH", f"/plugins/{plugin['id']}", {"route": {"id": other}})
    assert lab.until(200).json()["headers"]["X-Consumer-Username"] == "john"
    answer = lab.until(200, {"Authorization": basic, "Date": None}, "/basic/healthy")
    assert answer.json()["headers"]["X-Credential-Identifier"] == "john"
    assert lab.get({}, "/basic/healthy").status == 401
