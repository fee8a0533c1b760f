"""A stranger embeds the wheel: the example outside the checkout, in an environment of what the wheel declares."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.hmacproxied import sign
from tests.support.installed import IGNORED, Site, make_key
from tests.support.served import ROOT, free_port, request

#: In one process: each pays for Django's start.
CHECKS = """
from django.core.management import call_command
call_command("check", databases=["default"])
call_command("makemigrations", check_changes=True)
"""
QUIET = "System check identified no issues (0 silenced).\nNo changes detected\n"


def test_checks_and_migrations_are_quiet(embedded: Site) -> None:
    names = "from hmac_gateway import EMBED; import consumers, hmac_gateway.consumers; print(EMBED)"
    shown = embedded.shell(CHECKS + names)
    assert shown == QUIET + "['hmac_gateway', 'hmac_gateway.consumers', 'hmac_gateway.proxy']\n"


def test_on_djangos_test_clients(embedded: Site) -> None:
    assert "\nOK\n" in embedded.manage("test", "more_tests", "-v0")


def test_queries_and_a_revocation_elsewhere(embedded: Site) -> None:
    lanes = ("/seen/x", "/decorated/", "/drf/", "/gw/echo/1")
    with embedded.spawn(["-W", "error", "watch.py", *lanes]) as watching:
        assert watching.stdout is not None
        line = watching.stdout.readline()
        assert line, (embedded.folder / "log").read_text()
        for where, (looking, *between) in json.loads(line).items():
            assert len(looking) == 1 and "hmac_gateway_configversion" in looking[0], (where, looking)
            assert between == [[], []], where
        revoked = embedded.shell(
            "import time; from django.apps import apps;"
            "key = apps.get_model('hmac_consumers.Credential').objects.get(identifier='client-2');"
            "key.enabled = False; key.save(); print(time.time())"
        )
        status, refused = json.loads(watching.stdout.readline())
    assert status == 401
    assert 0 < refused - float(revoked) < 1.0


VENDORED = """
from more_settings import *
from more_settings import EMBED, INSTALLED_APPS

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in EMBED]
INSTALLED_APPS += ["consumers", "hmac_gateway", "vendor.hmac_consumers", "vendor.hmac_proxy"]
"""


def test_the_apps_may_lie_anywhere(tmp_path: Path) -> None:
    """Copied into a site that has apps of their names, without a wheel."""
    with Site(Path(sys.executable), "existing_site", overlay=True) as site:
        for package, place in (
            ("hmac_gateway", "hmac_gateway"),
            ("consumers", "vendor/hmac_consumers"),
            ("proxy", "vendor/hmac_proxy"),
        ):
            shutil.copytree(ROOT / package, site.folder / place, ignore=IGNORED)
        (site.folder / "vendor" / "__init__.py").touch()
        (site.folder / "vendored.py").write_text(VENDORED)
        site.environment["DJANGO_SETTINGS_MODULE"] = "vendored"
        make_key(site)
        shown = site.shell(CHECKS.replace('databases=["default"]', "") + "import consumers; print(consumers.__file__)")
        assert shown == f"{QUIET}{site.folder / 'consumers' / '__init__.py'}\n"
        assert "\nOK\n" in site.manage("test", "more_tests", "-v0")


def test_hmacproxy_runs_without_a_project(installed: Path, tmp_path: Path) -> None:
    command, port = installed.parent / "hmacproxy", str(free_port())
    (tmp_path / "a").write_text("a file\n")
    options = [command, "-port", port, "-secret", "foobar", "-sign-header", "X-Signature", "-auth", "-file-root", "."]
    with subprocess.Popen(options, cwd=tmp_path, stdout=subprocess.PIPE, env={"PYTHONWARNINGS": "error"}) as process:
        try:
            assert process.stdout is not None
            started = f"port {port}: serving files from . for authenticated requests\n"
            assert process.stdout.readline().decode() == started
            answer = request(f"http://127.0.0.1:{port}/a", headers=dict([sign("GET\n/a\n")]))
            assert (answer.status, answer.body) == (200, b"a file\n")
        finally:
            process.terminate()
    assert process.returncode == 0


# --- what is in the wheel ---


def packages() -> set[str]:
    """Every package of the tree under the name that it has in the wheel."""
    found = set()
    for top in ("hmac_gateway", "consumers", "proxy"):
        for file in (ROOT / top).rglob("__init__.py"):
            name = ".".join(file.parent.relative_to(ROOT).parts)
            found.add(name if top == "hmac_gateway" else f"hmac_gateway.{name}")
    return found


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages()
    assert len(listed) == len(set(listed))


def test_every_directory_with_modules_is_a_package() -> None:
    for top in ("hmac_gateway", "consumers", "proxy"):
        for file in (ROOT / top).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file.relative_to(ROOT)


def test_contents(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source, wanted = wheel.parent / "source", set()
    for top in ("hmac_gateway", "consumers", "proxy"):
        for file in (source / top).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                name = str(file.relative_to(source))
                wanted.add(name if top == "hmac_gateway" else f"hmac_gateway/{name}")
    assert names == wanted
    assert {"hmac_gateway/py.typed", "hmac_gateway/templates/hmac_gateway/shown_once.html"} <= names
    assert {
        "hmac_gateway/static/hmac_gateway/console.css",
        "hmac_gateway/consumers/migrations/0001_initial.py",
    } <= names
    assert {name.partition("/")[0] for name in names} == {"hmac_gateway"}


# --- other versions of Python, and the Django that is the newest there ---


def others() -> dict[str, str]:
    """Interpreters besides this one, by version, that are fit for the wheel."""
    found = {}
    roots = [Path.home() / ".pyenv" / "versions"]
    candidates = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12)]
    candidates += [
        str(path) for root in roots for minor in (14, 13, 12) for path in root.glob(f"3.{minor}.*/bin/python")
    ]
    for candidate in candidates:
        if candidate is None:
            continue
        shown = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version_info[1])"], capture_output=True, text=True
        )
        if shown.returncode == 0:
            found.setdefault(shown.stdout.strip(), candidate)
    return found


def test_on_another_python(wheel: Path, tmp_path: Path) -> None:
    found = others()
    if not found:
        pytest.skip("no Python 3.12, 3.13 or 3.14 was found beside this one")
    newest = found[max(found, key=int)]
    subprocess.run([newest, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=120)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    # What is imported is compiled then, once; all of Django would take longer.
    options = ["install", "--quiet", "--no-compile", str(wheel)]
    done = subprocess.run([*pip, *options], capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"the requirements cannot be installed for {newest}: {done.stderr[-300:]}")
    with Site(python, "existing_site", overlay=True) as made:
        make_key(made)
        del made.environment["PYTHONDONTWRITEBYTECODE"]
        assert made.shell(CHECKS.replace('databases=["default"]', "")) == QUIET
        assert "\nOK\n" in made.manage("test", "more_tests", "-v0")
