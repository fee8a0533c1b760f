"""API7's guide "Set Up API Authentication", word for word: its plugins enabled in the console, its curls, its answers.

What the guide leaves to other pages (an API on /ip, consumers with credentials) is made first; a token lives shorter.
"""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.browser import Browser
from tests.support.echo import EchoUpstream
from tests.support.served import Served, request
from tests.support.services import missing
from tests.walkthroughs.guide import curls, run_curl, script, text_of

TEXT = text_of("seed_001.txt")
GATEWAY = 9080
LIFE = 2
METHODS = {"Key": "key-auth", "Basic": "basic-auth", "JWT": "jwt-auth", "HMAC": "hmac-auth"}


def section(name: str) -> str:
    """What the guide says of a method."""
    return TEXT.split(f"Enable {name} Authentication for APIs\n")[1].split("\nEnable ")[0].split("\nAdditional ")[0]


def editor(text: str) -> set[str]:
    """What is to be typed into the JSON editor, wherever the section says so."""
    return {re.sub(r"\s", "", found) for found in re.findall(r"JSON Editor:\n\n(.*?)\n *• Click Enable\.", text, re.S)}


class Step(NamedTuple):
    """A curl of the guide, with the status line and the body that it promises ("": none in words)."""

    command: str
    status: str
    body: str


def steps(text: str) -> list[Step]:
    found = []
    for command in curls(text):
        after = text.split(command, 1)[1]
        status = re.search(r"HTTP/1\.1 \d{3} \w+", after)
        assert status is not None
        body = re.search(r'^\{"message":.*$', after.split("\n  1. ")[0], re.M)
        promised = body[0] if body and "following request body" in after.split("{")[0] else ""
        found.append(Step(command, status[0], promised))
    return found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A gateway on the guide's port with a published API on /ip and /headers, and consumers with credentials."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", GATEWAY))
        except OSError as error:
            missing(f"the guide's port {GATEWAY} is taken on this machine: {error}")
    served = Served()
    served.port, served.base = GATEWAY, f"http://127.0.0.1:{GATEWAY}"
    with EchoUpstream() as echo, served:
        upstream = {"type": "roundrobin", "nodes": {echo.node: 1}}
        served.put("/services/httpbin", {"name": "httpbin", "version": "1.0.0", "upstream": upstream})
        served.put("/routes/get-ip", {"name": "get-ip", "paths": ["/ip", "/headers"], "service_id": "httpbin"})
        for name in ("alice", "John"):
            served.put(f"/consumers/{name}", {"username": name})
        for place, plugins in {
            "alice/credentials/key": {"key-auth": {"key": "alice-primary-key"}},
            "alice/credentials/basic": {"basic-auth": {"username": "alice", "password": "alice-password"}},
            "John/credentials/jwt": {"jwt-auth": {"key": "john-jwt-key", "secret": "j" * 32, "exp": LIFE}},
            "John/credentials/hmac": {"hmac-auth": {"key_id": "john-key", "secret_key": "john-hmac-key"}},
        }.items():
            served.put(f"/consumers/{place}", {"plugins": plugins})
        served.put("/services/jwt-auth-api", {"name": "jwt-auth-api", "upstream": upstream})
        sign = {"name": "jwt-auth-api", "paths": ["/api7/plugin/jwt/sign"], "service_id": "jwt-auth-api"}
        served.put("/routes/jwt-auth-api", sign)
        yield served


@pytest.fixture(scope="module")
def browser(served: Served) -> Iterator[Browser]:
    with Browser(served) as browser:
        yield browser
    assert not browser.faults


PLACES = ["services/httpbin", "routes/get-ip"]


@contextmanager
def enabled(served: Served, browser: Browser, place: str, plugin: str, config: str) -> Iterator[None]:
    """The plugin, enabled in the console with what the guide has typed there, and taken away again."""
    route = place.partition("routes/")[2]
    # The guide's way: to the published service, and on to one of its routes.
    browser.open("Services", "jwt-auth-api" if route == "jwt-auth-api" else "httpbin")
    if route:
        browser.to_row("routes", route)
    browser.enable_plugin(plugin, config)
    assert "was changed successfully" in " ".join(browser.said)
    served.settle()
    try:
        yield
    finally:
        assert served.admin("PATCH", f"/{place}/plugins", {}).status == 200
        served.settle()


def printed(command: str) -> tuple[str, str]:
    """The status line and the body that `curl -i` prints."""
    head, _, body = run_curl(command).replace("\r\n", "\n").partition("\n\n")
    return head.split("\n")[0], body


def test_the_guide_has_the_pieces_we_run() -> None:
    assert {name: len(steps(section(name))) for name in METHODS} == {"Key": 3, "Basic": 3, "JWT": 2, "HMAC": 2}
    assert all(editor(section(name)) == {"{}"} for name in METHODS)
    assert [step.body for step in steps(section("Key"))] == [
        '{"message":"Missing API key found in request"}',
        '{"message":"Invalid API key in request"}',
        "",
    ]
    assert [step.status for step in steps(section("Basic"))] == ["HTTP/1.1 401 Unauthorized"] * 2 + ["HTTP/1.1 200 OK"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["Key", "Basic"])
def test_key_and_basic_authentication(served: Served, browser: Browser, name: str, place: str) -> None:
    with enabled(served, browser, place, METHODS[name], "{\n    }"):
        for command, status, body in steps(section(name)):
            line, answered = printed(command)
            assert line == status, command
            assert not body or answered == body + "\n", command
    assert printed('curl -i "http://127.0.0.1:9080/ip"')[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("place", PLACES)
def test_jwt_authentication(served: Served, browser: Browser, place: str) -> None:
    text = section("JWT")
    [sign] = re.findall(r"^jwt_token=\$\(.*$", text, re.M)
    without, with_token = steps(text)
    with (
        enabled(served, browser, "routes/jwt-auth-api", "public-api", "{\n    }"),
        enabled(served, browser, place, "jwt-auth", "{\n    }"),
    ):
        line, answered = printed(without.command)
        assert (line, answered) == (without.status, without.body + "\n")
        # One shell, as a reader has it; "in 30 seconds, the token should expire".
        shell = f"{sign} && {with_token.command} && sleep {LIFE + 1} && {with_token.command}"
        token, first, *_, last = run_curl(shell).replace("\r\n", "\n").splitlines()
        assert token.count(".") == 2 and first == "HTTP/1.1 200 OK"
        expired = re.findall(r'^\{"message":.*$', text, re.M)[-1]
        assert last == expired == '{"message":"failed to verify jwt"}'


@pytest.mark.parametrize("place", PLACES)
def test_hmac_authentication(served: Served, browser: Browser, place: str, tmp_path: Path) -> None:
    text = section("HMAC")
    path = tmp_path / "hmac-sig-header-gen.py"
    path.write_text(script(text, "hmac-sig-header-gen.py", "Run the Script:"))
    without, with_headers = steps(text)
    with enabled(served, browser, place, "hmac-auth", "{\n    }"):
        assert printed(without.command) == (without.status, without.body + "\n")
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=30, check=True)
        headers = ast.literal_eval(done.stdout)
        # The script signs /headers.
        answer = request(f"{served.base}/headers", headers=headers)
        assert answer.status == 200
        got = json.loads(answer.body)["headers"]
        assert got["X-Consumer-Username"] == "John" and got["X-Credential-Identifier"] == "hmac"
        assert got["X-Forwarded-Host"] == "127.0.0.1" and got["Authorization"] == headers["Authorization"]
        # The headers that the page shows are of 2024, and another consumer's.
        assert run_curl(with_headers.command) == '{"message":"client request can\'t be validated"}\n'


def test_the_note_about_several_plugins_and_a_slip_of_the_pen(served: Served, browser: Browser) -> None:
    with enabled(served, browser, "services/httpbin", "key-auth", "{}"):
        browser.open("Services", "httpbin")
        browser.enable_plugin("basic-auth", '{"realm": "staff",')
        assert any("not valid JSON" in text for text in browser.said), browser.said
        browser.open("Services", "httpbin")
        browser.enable_plugin("basic-auth", '{"realm": "staff"}')
        assert any("callers must pass all of them" in text for text in browser.said), browser.said
