"""API7's guide "Configure HMAC Authentication", run as a reader would: its own commands, its own ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.echo import EchoUpstream
from tests.support.served import Served, signed
from tests.support.services import missing
from tests.walkthroughs.guide import curls, run_curl, script, text_of

TEXT = text_of("seed_000.txt")
SCRIPT = script(TEXT, "hmac-request.py", "Run the script:")
GATEWAY, CONSOLE = 9080, 7443


def run_script(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "hmac-request.py"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture(scope="module")
def configured() -> Iterator[list[str]]:
    """A gateway on the guide's ports, set up by the guide's curl commands; what they printed."""
    for port in (GATEWAY, CONSOLE):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                missing(f"the guide's port {port} is taken on this machine: {error}")
    served = Served(arguments=["--admin-tls-self-signed"])
    served.port, served.console_port = GATEWAY, CONSOLE
    served.base = f"http://127.0.0.1:{GATEWAY}"
    with EchoUpstream() as echo, served:
        setup = [command for command in curls(TEXT) if "/apisix/admin/" in command]
        host, port_text = echo.node.split(":")
        printed = []
        for command in setup:
            filled = command.replace("{group_id}", "default")
            filled = filled.replace('"httpbin.org"', f'"{host}"').replace('"port": 80,', f'"port": {port_text},')
            printed.append(run_curl(filled))
        # "Wait a few seconds for the latest configuration to reach the gateway": one is promised.
        deadline = time.monotonic() + 1.0
        target = "/anything/hmac-auth"
        while (served.get(target).status, served.get(target, signed("GET", target)).status) != (401, 200):
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.02)
        yield printed


def test_the_guide_has_the_pieces_we_run() -> None:
    commands = curls(TEXT)
    assert [command.split('"')[1].split("?")[0].rsplit("/", 2)[1:] for command in commands] == [
        ["services", "hmac-auth-httpbin-service"],
        ["routes", "hmac-auth-route"],
        ["consumers", "hmac-auth-consumer"],
        ["credentials", "hmac-auth-consumer-cred"],
        ["anything", "hmac-auth"],
    ]
    assert SCRIPT.startswith("import base64\n") and SCRIPT.endswith("    print(response.read().decode())\n")
    # Indentation is all that was added.
    assert all(line.strip() in TEXT.splitlines() for line in SCRIPT.splitlines())


def test_every_setup_command_is_accepted(configured: list[str]) -> None:
    assert len(configured) == 4
    for printed in configured:
        assert "key" in json.loads(printed) or "value" in json.loads(printed), printed


def test_the_secret_is_not_printed(configured: list[str]) -> None:
    assert "my-hmac-secret" not in "".join(configured)


def test_unsigned_request_is_refused(configured: list[str]) -> None:
    printed = run_curl(curls(TEXT)[-1])
    assert printed.startswith("HTTP/1.1 401 ")
    assert "Unauthorized" in printed.splitlines()[0]


def test_signed_request_is_answered(configured: list[str], tmp_path: Path) -> None:
    result = run_script(SCRIPT, tmp_path)
    assert result.returncode == 0, result.stderr
    status, _, body = result.stdout.partition("\n")
    assert status == "200"
    headers = json.loads(body)["headers"]
    assert headers["X-Consumer-Username"] == "hmac-auth-consumer"
    assert headers["X-Credential-Identifier"] == "hmac-auth-consumer-cred"
    # As the guide prints them.
    assert headers["Authorization"].startswith(
        'Signature keyId="client-1",algorithm="hmac-sha256",headers="@request-target date",signature="'
    )
    assert headers["Date"].endswith(" GMT")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('request_path = "/anything/hmac-auth"', 'request_path = "/anything/hmac-auths"'),
        ('"http://127.0.0.1:9080/anything/hmac-auth"', '"http://127.0.0.1:9080/anything/hmac-auth?more=1"'),
        ('"Date": date_header,', '"Date": formatdate(0, localtime=False, usegmt=True),'),
        ('"Date": date_header,', '"Date": formatdate(__import__("time").time() + 1, usegmt=True),'),
        ('signature="{signature}"', 'signature="{signature[::-1]}"'),
        ('b"my-hmac-secret"', 'b"my-hmac-secreT"'),
        ('key_id = "client-1"', 'key_id = "client-2"'),
    ],
    ids=["path signed", "path sent", "old date", "other date", "signature", "secret", "key"],
)
def test_changed_request_is_refused(configured: list[str], tmp_path: Path, old: str, new: str) -> None:
    assert SCRIPT.count(old) == 1
    result = run_script(SCRIPT.replace(old, new), tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("HTTP Error 401: Unauthorized")
