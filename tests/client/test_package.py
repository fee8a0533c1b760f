"""What the client kit needs to be imported, and that it is in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_signing_needs_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "from hmac_gateway.client import sign_headers; import hmac_gateway.client.signer;"
        "print({n.partition('.')[0] for n in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    assert run(code).strip() == "{'hmac_gateway'}"


def test_auth_for_requests_is_imported_when_asked_for() -> None:
    code = (
        "import sys, hmac_gateway.client as client; print('requests' in sys.modules);"
        "from hmac_gateway.client import HmacAuth; from hmac_gateway.client.requests import HmacAuth as same;"
        "print('requests' in sys.modules, HmacAuth is same, 'httpx' in sys.modules, 'django' in sys.modules)"
    )
    assert run(code).split() == ["False", "True", "True", "False", "False"]


def test_unknown_names_are_unknown() -> None:
    import hmac_gateway.client

    with pytest.raises(AttributeError, match="no attribute 'Hmac'"):
        _ = hmac_gateway.client.Hmac


def test_every_package_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = set(project["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "hmac_gateway").rglob("__init__.py")}
    for app in ("consumers", "proxy"):
        inside = (path.parent.relative_to(ROOT).parts for path in (ROOT / app).rglob("__init__.py"))
        found |= {".".join(("hmac_gateway", *parts)) for parts in inside}
    assert named == found
