"""The example without a database, as a user runs it: only `hmac_gateway` is installed, CREDENTIALS say who may call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "drf_api"

ASK = """
from django.test import Client
from hmac_gateway.client import sign_headers
client, url = Client(), "http://testserver/orders/"
signed = sign_headers("GET", url, key_id="shop-1", secret="a-secret")
print([client.get("/orders/", headers=headers).status_code for headers in ({}, signed)])
print([client.get("/orders/?a=1", headers=signed).status_code, client.get("/orders/", headers=signed).json()])
"""


def manage(*arguments: str, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=EXAMPLE,
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "SHOP_SECRET": "a-secret"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.mark.parametrize("arguments", [[], ["--database", "default"]])
def test_checks_are_silent(arguments: list[str]) -> None:
    assert manage("check", *arguments) == "System check identified no issues (0 silenced).\n"


def test_signed_and_unsigned() -> None:
    lines = manage("shell", "--no-imports", "-c", ASK).splitlines()
    assert lines == ["[401, 200]", "[401, {'for': 'shop', 'key': 'shop-1'}]"]


def test_hmac_sign_finds_the_key_in_the_settings() -> None:
    for arguments in ([], ["--key-id", "shop-1"]):
        assert 'keyId="shop-1"' in manage("hmac_sign", "GET", "http://127.0.0.1:8000/orders/", *arguments)


def test_hmac_sign_names_the_keys_that_there_are() -> None:
    said = manage("hmac_sign", "GET", "http://127.0.0.1:8000/orders/", "--key-id", "shop-2", code=1)
    assert "'shop-2' was given; allowed: a key of CREDENTIALS (shop-1)" in said and "--secret-env" in said
    assert "a-secret" not in said
