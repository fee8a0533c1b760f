"""The command's auth mode: 202 or 401, about the request itself or about one that another proxy tells of."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import MutableMapping
from typing import Any

import pytest

from proxy.hmacproxy.app import App
from proxy.hmacproxy.options import read
from tests.support.hmacproxied import REFUSAL, Hmacproxy, sign
from tests.support.proxied import wait_for
from tests.support.raw_client import RawAnswer, request_bytes


def accepted(answer: RawAnswer) -> bool:
    if answer.status == 401:
        assert answer.body == REFUSAL
        return False
    assert (answer.status, answer.body, answer.get("content-length")) == (202, b"", "0")
    return True


def test_accepted_and_unauthorized(answering: Hmacproxy) -> None:
    assert accepted(answering.ask("GET", "/a", [sign("GET\n/a\n")]))
    assert accepted(answering.ask("POST", "/a", [sign("POST\n/a\n", b"body")], b"body"))
    assert accepted(answering.ask("HEAD", "/a", [sign("HEAD\n/a\n")]))
    assert not accepted(answering.ask("GET", "/a", [sign("GET\n/b\n")]))
    assert not accepted(answering.ask("GET", "/a", [sign("GET\n/a\n", digest="sha256")]))
    assert not accepted(answering.ask("POST", "/a", [sign("POST\n/a\n", b"body")], b"bodY"))
    assert not accepted(answering.ask("GET", "/a"))
    head = answering.ask("HEAD", "/a")
    assert (head.status, head.body, head.get("content-length")) == (401, b"", str(len(REFUSAL)))


@pytest.mark.parametrize(("target", "path"), [("shop.test:443", ""), ("/a", "/a"), ("http://shop.test/a", "/a")])
def test_who_wants_a_tunnel_gets_an_answer(answering: Hmacproxy, target: str, path: str) -> None:
    for headers in ([sign(f"CONNECT\n{path}\n")], []):
        answer = answering.ask("CONNECT", target, headers)
        assert (answer.status, answer.body) == (400, b"bad request\n")


def test_bodies_of_any_size_are_read_and_not_kept(answering: Hmacproxy) -> None:
    piece = b"x" * 1_000_000
    with answering.client() as client:
        headers = [sign("POST\n/a\n", piece * 100), ("Content-Length", str(100 * len(piece)))]
        client.send(request_bytes("POST", "/a", "h", headers))
        for _ in range(100):
            client.send(piece)
        assert accepted(client.answer())


@pytest.mark.parametrize(
    ("uri", "signed"),
    [
        ("/a", "GET\n/a\n"),
        ("/a?b=c", "GET\n/a?b=c\n"),
        ("http://other.test/a?b=c", "GET\n/a?b=c\n"),
        ("ftp://other.test", "GET\n/\n"),
        ("//other.test/a", "GET\n//other.test/a\n"),
        ("/a%2Fb%3F", "GET\n/a/b?\n"),
        ("/a%0Ab", "GET\n/a\nb\n"),
        ("/%zz", "GET\n/%zz\n"),
        # What is no request URI is passed over, and the request stands for itself.
        ("", "GET\n/auth\n"),
        ("a", "GET\n/auth\n"),
        ("?a", "GET\n/auth\n"),
        ("*", "GET\n/auth\n"),
    ],
)
def test_the_original_uri(answering: Hmacproxy, uri: str, signed: str) -> None:
    told = [("X-Original-URI", uri)]
    assert accepted(answering.ask("GET", "/auth", [*told, sign(signed)]))
    if "/auth" not in signed:
        assert not accepted(answering.ask("GET", "/auth", [*told, sign("GET\n/auth\n")]))


def test_the_original_method(answering: Hmacproxy) -> None:
    told = [("X-Original-URI", "/a"), ("X-Original-Method", "HEAD")]
    assert accepted(answering.ask("GET", "/auth", [*told, sign("HEAD\n/a\n")]))
    assert not accepted(answering.ask("GET", "/auth", [*told, sign("GET\n/a\n")]))


def test_methods_whose_body_is_not_shown(answering: Hmacproxy) -> None:
    """Anybody could add a body to what was signed without one."""
    told = [("X-Original-URI", "/a"), ("X-Original-Method", "POST")]
    assert not accepted(answering.ask("GET", "/auth", [*told, sign("POST\n/a\n")]))
    # A proxy that shows it is told the truth about it.
    assert accepted(answering.ask("POST", "/auth", [*told, sign("POST\n/a\n", b"body")], b"body"))
    assert not accepted(answering.ask("POST", "/auth", [*told, sign("POST\n/a\n")], b"body"))


def test_what_is_told_twice_is_not_believed(answering: Hmacproxy) -> None:
    told = [("X-Original-URI", "/a"), ("X-Original-URI", "/b")]
    for target in ("/a", "/b", "/auth"):
        assert not accepted(answering.ask("GET", "/auth", [*told, sign(f"GET\n{target}\n")]))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_that_is_not_sent_along_is_not_waited_for(answering: Hmacproxy, method: str) -> None:
    """nginx asks by GET, with the Content-Length of a POST that it keeps to itself."""
    with answering.client() as client:
        headers = [("X-Original-URI", "/a"), ("Content-Length", "5"), sign(f"{method}\n/a\n")]
        client.send(request_bytes(method, "/auth", "h", headers, version="1.0"))
        assert client.answer(method).status == 401


@pytest.mark.parametrize(
    ("peer", "told"), [("127.0.0.1", True), ("::1", True), ("10.1.2.3", True), ("192.0.2.1", False), ("", False)]
)
def test_whoever_is_not_trusted_speaks_for_itself(peer: str, told: bool) -> None:
    arguments = ["-port=1", "-secret=foobar", "-sign-header=X-Signature", "-auth", "-trusted-proxies=10.0.0.0/8"]
    app = App(read(arguments, {})[0])
    for target, right in (("/a", told), ("/auth", not told)):
        headers = [("x-original-uri", "/a"), sign(f"GET\n{target}\n")]
        assert asyncio.run(status(app, "/auth", headers, peer)) == (202 if right else 401)


async def status(app: App, path: str, headers: list[tuple[str, str]], peer: str) -> int:
    """What the application answers to a GET from `peer`, without a server."""
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "scheme": "http",
        "http_version": "1.1",
        "client": (peer, 1) if peer else None,
    }
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    await app(scope, receive, send)
    return int(sent[0]["status"])


def test_other_modes_do_not_look_at_the_original_uri(guarding: Hmacproxy) -> None:
    told = [("X-Original-URI", "/a")]
    assert guarding.ask("GET", "/b", [*told, sign("GET\n\n\n/a\n", digest="sha256")]).status == 401
    assert guarding.ask("GET", "/b", [*told, sign("GET\n\n\n/b\n", digest="sha256")]).status == 200


def test_lines_of_the_log_tell_why(answering: Hmacproxy) -> None:
    answering.ask("GET", "/why?secret=1", [sign("GET\n/why\n")])
    wait_for(lambda: '"path":"/why"' in answering.log)
    line = next(json.loads(one) for one in answering.log.splitlines() if '"path":"/why"' in one)
    assert (line["status"], line["reason"], line["remote"]) == (401, "signature_mismatch", "127.0.0.1")
    assert "secret=1" not in answering.log and sign("GET\n/why\n")[1] not in answering.log


def test_it_ends_when_it_is_told_to_and_lets_requests_finish() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with Hmacproxy("-auth", "-access-log=false") as proxy:
            with proxy.client() as client:
                headers = [sign("POST\n/a\n", b"body"), ("Content-Length", "4"), ("Expect", "100-continue")]
                client.send(request_bytes("POST", "/a", "h", headers))
                assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
                assert proxy.process is not None
                proxy.process.send_signal(number)
                wait_for(lambda: not listens(proxy.port))  # noqa: B023
                client.send(b"body")
                assert accepted(client.answer())
            assert proxy.process.wait(20) == 0
            assert proxy.log.splitlines() == [f"port {proxy.port}: responding Accepted/Unauthorized for auth queries"]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    time.sleep(0.02)
    return True


def test_secrets_from_elsewhere() -> None:
    with Hmacproxy("-auth", secret=None, environment={"HMACPROXY_SECRET": "kept"}) as proxy:
        assert accepted(proxy.ask("GET", "/", [sign("GET\n/\n", secret="kept")]))
        assert not accepted(proxy.ask("GET", "/", [sign("GET\n/\n")]))
