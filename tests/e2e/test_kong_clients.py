"""Clients that others wrote for Kong, over sockets, against a gateway whose configuration is one kong.yml.

`httpie-kong-hmac` is used as its readers use it, by HTTPie's command; `kong-hmac` with requests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import kong_hmac
import pytest
import requests

from tests.support.echo import EchoUpstream
from tests.support.served import ADMIN_KEY, Served, request

FILE = """
_format_version: "3.0"
services:
- name: echo
  url: http://NODE
  routes:
  - name: signed
    paths: [/signed]
    strip_path: false
    plugins:
    - name: hmac-auth
      config: {validate_request_body: true, enforce_headers: [date], hide_credentials: true}
consumers:
- username: partner
  custom_id: "4711"
  hmacauth_credentials:
  - {username: bob, secret: "s3cret!Q"}
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with EchoUpstream() as echo, Served() as served:
        headers = {"Kong-Admin-Token": ADMIN_KEY, "Content-Type": "application/yaml"}
        answer = request(f"{served.console}/kong/config", "POST", headers, FILE.replace("NODE", echo.node).encode())
        assert answer.status == 201, answer.body
        deadline = time.monotonic() + 5
        while served.get("/signed").status != 401:
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.05)
        yield served


def httpie(gateway: Served, *words: str, secret: str = "s3cret!Q", standard_input: bytes | None = None) -> Any:
    """Run HTTPie's command; the status, and the answer's JSON."""
    method, target, *rest = words
    ignore = [] if standard_input is not None else ["--ignore-stdin"]
    done = subprocess.run(
        [sys.executable, "-m", "httpie", *ignore, "--print=hb", "--pretty=none", "--timeout=10"]
        + ["--auth-type=kong-hmac", f"--auth=bob:{secret}", method, gateway.base + target, *rest],
        env={**os.environ, "HTTPIE_CONFIG_DIR": str(gateway.folder / "httpie"), "PYTHONWARNINGS": "ignore"},
        input=standard_input,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    head, _, body = done.stdout.decode().replace("\r\n", "\n").partition("\n\n")
    return int(head.split()[1]), json.loads(body)


def test_httpies_command(gateway: Served) -> None:
    for words in (("GET", "/signed/orders?x=%2F&y"), ("POST", "/signed/orders", "quantity:=3")):
        status, seen = httpie(gateway, *words)
        assert (status, seen["method"]) == (200, words[0]), seen
        assert seen["headers"]["X-Consumer-Username"] == "partner"
        assert seen["headers"]["X-Consumer-Custom-Id"] == "4711"
        assert "Authorization" not in seen["headers"]
    status, seen = httpie(gateway, "PUT", "/signed/raw", standard_input=b"\x00\xff" * 5000)
    assert (status, seen["size"]) == (200, 10_000), seen
    status, refused = httpie(gateway, "GET", "/signed", secret="wrong")
    assert (status, refused["message"]) == (401, "HMAC signature does not match")


def test_kong_hmac(gateway: Served) -> None:
    client = kong_hmac.HmacAuth("bob", "s3cret!Q")
    with requests.Session() as session:
        session.trust_env = False
        for method, body in (("GET", ""), ("POST", '{"größe": 3}'), ("DELETE", "")):
            headers = client.get_auth_headers(body=body)
            answer = session.request(method, f"{gateway.base}/signed/x", headers=headers, data=body.encode() or None)
            assert answer.status_code == 200, answer.text
            assert answer.json()["headers"]["X-Credential-Identifier"] == "bob"
        headers = client.get_auth_headers(body="what was signed")
        answer = session.post(f"{gateway.base}/signed/x", headers=headers, data="what was sent")
        assert (answer.status_code, answer.json()["message"]) == (401, "HMAC signature does not match")
        answer = session.get(f"{gateway.base}/signed/x", headers=client.get_auth_headers("mallory", "s3cret!Q"))
        assert (answer.status_code, answer.json()["message"]) == (401, "HMAC signature cannot be verified")
