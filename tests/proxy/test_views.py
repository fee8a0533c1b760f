"""ProxyView: what crosses it, what it refuses, and that it says what the gateway lane says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection as database
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import Client

from hmac_gateway import site
from hmac_gateway.snapshot import Snapshot
from hmac_gateway.stores import MemoryStore
from proxy import forwarding
from proxy.exchange import Keepalive, Target, Timeouts, TransportError
from proxy.gateway import Gateway
from proxy.sync_transport import SyncPool
from tests.support.certificates import Authority
from tests.support.embedded import HOST, Embedded, Fixed, lead, snapshot
from tests.support.proxied import OK, Upstream, seen
from tests.support.raw_client import RawAnswer, request_bytes
from tests.support.raw_upstream import Peer, Script, answer
from tests.support.served import digest_of, free_port, signed

pytestmark = pytest.mark.urls("tests.support.embedded_site")

Headers = Sequence[tuple[str, str]]
CHECKED = {"validate_request_body": True}
DIGESTED = ("@request-target", "date", "digest")


@dataclass
class Got:
    """An answer: header names in lower case; `whole` where it ended as it should."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool = True

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) < 2, found
        return found[0] if found else None


Ask = Callable[..., Got]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """Connections, rotations and replay marks of its own for each test, and no middleware."""
    settings.ALLOWED_HOSTS = ["*"]
    settings.MIDDLEWARE = []
    monkeypatch.setattr(forwarding, "_forwarder", None)
    # Replay marks live as long as the dict that the settings hold.
    settings.HMAC_GATEWAY = dict(settings.HMAC_GATEWAY)
    yield
    forwarding.forwarder().pool.close()


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Snapshot]:
    """Puts a configuration in force."""

    def configured(*ports: int, **more: Any) -> Snapshot:
        made: Snapshot = snapshot(ports, **more)
        monkeypatch.setattr(site, "runtime", lambda: Fixed(made))
        return made

    return configured


def ask(
    method: str, target: str, headers: Headers = (), body: bytes | None = None, *, mounted: str = "/gw", **environ: Any
) -> Got:
    """One request through the view, as gunicorn would give it."""
    joined: dict[str, str] = {"HTTP_HOST": HOST}
    for name, value in headers:
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        joined[key] = f"{joined[key]},{value}" if key in joined and key != "HTTP_HOST" else value
    raw = mounted + target
    path, _, query = raw.partition("?")
    client = Client(enforce_csrf_checks=True)
    response: Any = client.generic(
        method, path, b"" if body is None else body, **{"RAW_URI": raw, "QUERY_STRING": query, **joined, **environ}
    )
    pairs = [(name.lower(), value) for name, value in response.items()]
    got = Got(response.status_code, pairs, b"")
    if not response.streaming:
        got.body = response.content
        return got
    try:
        for piece in response.streaming_content:
            got.body += piece
    except TransportError:
        got.whole = False
    return got


def ask_gateway(found: Snapshot, *requests: tuple[str, str, Headers, bytes | None]) -> list[Got]:
    """Requests through the gateway lane, in this process."""

    async def main() -> list[Got]:
        gateway = Gateway(lambda: found, MemoryStore(100))
        got = [await one(gateway, *request) for request in requests]

        async def shutdown() -> Any:
            return {"type": "lifespan.shutdown"}

        async def ignored(event: Any) -> None:
            """Nobody waits for it."""

        await gateway({"type": "lifespan"}, shutdown, ignored)
        await asyncio.sleep(0.01)  # for sockets that are being closed
        return got

    async def one(gateway: Gateway, method: str, target: str, headers: Headers, body: bytes | None) -> Got:
        path, _, query = target.partition("?")
        given = {name for name, _ in headers}
        pairs = [*([] if "host" in given else [("host", HOST)]), *headers]
        if body is not None:
            pairs.append(("content-length", str(len(body))))
        scope = {
            "type": "http", "method": method, "raw_path": path.encode("latin-1"), "http_version": "1.1",
            "query_string": query.encode("latin-1"), "scheme": "http", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80), "headers": [(n.encode(), v.encode("latin-1")) for n, v in pairs],
        }  # fmt: skip
        events = [{"type": "http.request", "body": body or b"", "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if events:
                return events.pop()
            await asyncio.sleep(3600)

        async def send(event: Any) -> None:
            sent.append(event)

        await gateway(scope, receive, send)
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
        whole = not sent[-1].get("more_body", False)
        return Got(sent[0]["status"], pairs, b"".join(event["body"] for event in sent[1:]), whole)

    return asyncio.run(main())


def take_body(peer: Peer) -> bytes:
    head = peer.read_head().lower()
    assert b"transfer-encoding" not in head
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return peer.read(int(length or b"0"))


def summed(body: bytes) -> bytes:
    return b"%d %b" % (len(body), hashlib.sha256(body).hexdigest().encode())


def sum_up(peer: Peer) -> None:
    while True:
        text = summed(take_body(peer))
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))


def once(response: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(response)

    return script


# --- targets and mounts ---


@pytest.mark.parametrize(
    "target",
    [
        "/a%2fb", "/a%2Fb%41", "/[1]", "/%zz", "/100%", "//a///b/", "/a;b=c,d", "/a|b", "/caf\xc3\xa9", "/a?",
        "/a??", "/a?x=%zz&&y", "/a?b?c=/../d", "/a?x=[1]&y={2}'", "/a+b?c+d=%2B", "/...", "/.well-known/x", "/",
        "/" + "a" * 8000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("mounted", ["/gw", "/orders", "/plain"])
def test_target_is_forwarded_untouched(configure: Any, target: str, mounted: str) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", target, mounted=mounted).body == b"ok"
        expected = "/orders" + target if mounted == "/orders" else target
        assert seen(upstream.peer()).line == f"GET {expected} HTTP/1.1"


def test_route_matches_what_the_pattern_captures(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port, path="/v1/*")
        assert ask("GET", "/v1/x").status == 200
        assert ask("GET", "/v2/x").status == 404
        assert ask("GET", "/v1/x", mounted="/orders").status == 404
        configure(upstream.port, path="/orders/*")
        assert ask("GET", "/v1/x", mounted="/orders").status == 200


def test_mount_in_another_spelling_is_refused(configure: Any) -> None:
    configure(free_port())
    for raw in ("/%67w/x", "/g%77/x", "/gw%2Fx"):
        found = ask("GET", "/x", RAW_URI=raw)
        assert found.status == 400
        assert b"percent-encoded" in found.body


def test_mount_beyond_ascii_is_found_as_clients_encode_it(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/x", mounted="/größe", RAW_URI="/gr%C3%B6%C3%9Fe/x%2fy").status == 200
        assert seen(upstream.peer()).target == "/x%2fy"
        assert ask("GET", "/x", mounted="/größe", RAW_URI="/gr%c3%b6%c3%9fe/x").status == 400


@pytest.mark.parametrize("raw", ["/app/gw/a%2fb?c", "/gw/a%2fb?c"], ids=["raw with SCRIPT_NAME", "raw without"])
def test_script_name_is_no_part_of_what_is_forwarded(configure: Any, raw: str) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/a/b?c", SCRIPT_NAME="/app", PATH_INFO="/gw/a/b", RAW_URI=raw).status == 200
        assert seen(upstream.peer()).target == "/a%2fb?c"


def test_absolute_form_is_forwarded_in_origin_form(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/a/b?c", RAW_URI=f"http://{HOST}/gw/a%2fb?c").status == 200
        assert seen(upstream.peer()).target == "/a%2fb?c"


def test_service_prefix_is_taken_from_what_is_left(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port, strip="/api")
        assert ask("GET", "/api/v1/a%2fb?c").status == 200
        assert seen(upstream.peer()).target == "/v1/a%2fb?c"
        assert ask("GET", "/%61pi/x").status == 400


def test_signature_is_over_what_the_client_sent(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port, plugin={})
        whole = list(signed("GET", "/gw/a%2fb?x=[1]").items())
        assert ask("GET", "/a%2fb?x=[1]", whole).status == 200
        assert ask("GET", "/a%2fb?x=[1]", list(signed("GET", "/a%2fb?x=[1]").items())).status == 401
        found = seen(upstream.peer())
        assert (found.target, found.get("x-consumer-username")) == ("/a%2fb?x=[1]", "alice")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "PROPFIND", "TRACE"])
def test_every_method_is_forwarded(configure: Any, method: str) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask(method, "/m").body == b"ok"
        assert seen(upstream.peer()).line == f"{method} /m HTTP/1.1"


# --- the same case table, the same verdict ---


def closed(peer: Peer) -> None:
    peer.read_head()


def half(peer: Peer) -> None:
    peer.read_head()
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")


def no_tls(peer: Peer) -> None:
    peer.read_some()
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def silent(peer: Peer) -> None:
    peer.wait_closed()


BROKEN = [
    b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", b"SSH-2.0-OpenSSH\r\n", b"<html>",
    b"HTTP/1.1 99 Low\r\n\r\n", b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nna me: x\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\x01b\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: a\r\n y\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
]  # fmt: skip

#: Name: what the upstream does, the configuration, method, target, headers, body.
TABLE: dict[str, tuple[Script | None, dict[str, Any], str, str, Headers, bytes | None]] = {
    "forwarded": (answer(OK), {}, "GET", "/gw/x", (), None),
    "signed": (answer(OK), {"plugin": {}}, "GET", "/gw/x", list(signed("GET", "/gw/x").items()), None),
    "no route": (answer(OK), {"path": "/nowhere"}, "GET", "/gw/x", (), None),
    "reserved": (answer(OK), {}, "GET", "/.hmac-gateway/x", (), None),
    "dot segment": (answer(OK), {}, "GET", "/gw/a/%2e%2e/b", (), None),
    "backslash": (answer(OK), {}, "GET", "/gw/a%5cb", (), None),
    "parameters": (answer(OK), {}, "GET", "/gw/;x/b", (), None),
    "Host": (answer(OK), {}, "GET", "/gw/x", [("host", "a@b")], None),
    "unsigned": (answer(OK), {"plugin": {}}, "GET", "/gw/x", (), None),
    "kong": (answer(OK), {"plugin": {}, "dialect": "kong"}, "GET", "/gw/x", (), None),
    "wrong scheme": (answer(OK), {"plugin": {}}, "GET", "/gw/x", [("authorization", "Basic eDp5")], None),
    "wrong signature": (
        answer(OK), {"plugin": {}}, "GET", "/gw/x", list(signed("GET", "/gw/x", secret="other").items()), None,
    ),
    "stale date": (answer(OK), {"plugin": {}}, "GET", "/gw/x", list(signed("GET", "/gw/x", at=1).items()), None),
    "anonymous": (answer(OK), {"plugin": {"anonymous_consumer": "guest"}}, "GET", "/gw/x", (), None),
    "right digest": (
        sum_up, {"plugin": CHECKED}, "POST", "/gw/x",
        list(signed("POST", "/gw/x", listed=DIGESTED, headers={"digest": digest_of(b"body")}).items()), b"body",
    ),
    "wrong digest": (
        sum_up, {"plugin": CHECKED}, "POST", "/gw/x",
        list(signed("POST", "/gw/x", listed=DIGESTED, headers={"digest": digest_of(b"x")}).items()), b"body",
    ),
    "body over the limit": (
        sum_up, {"plugin": {**CHECKED, "max_req_body_size": 3}}, "POST", "/gw/x",
        list(signed("POST", "/gw/x", listed=DIGESTED, headers={"digest": digest_of(b"body")}).items()), b"body",
    ),
    "body over a limit that does not count": (
        sum_up, {"plugin": {"max_req_body_size": 3}}, "POST", "/gw/x", list(signed("POST", "/gw/x").items()), b"body",
    ),
    "no node": (None, {}, "GET", "/gw/x", (), None),
    "upstream down": (None, {"ports": 1}, "GET", "/gw/x", (), None),
    "upstream down, kong": (None, {"ports": 1, "dialect": "kong"}, "GET", "/gw/x", (), None),
    "no TLS": (no_tls, {"tls": True}, "GET", "/gw/x", (), None),
    "upstream hangs up": (closed, {}, "GET", "/gw/x", (), None),
    "upstream truncated": (half, {}, "GET", "/gw/x", (), None),
    "upstream truncated in a chunk": (
        once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc"), {}, "GET", "/gw/x", (), None,
    ),
    "upstream truncated before the last line": (
        once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"), {}, "GET", "/gw/x", (), None,
    ),
    "upstream slow": (silent, {"seconds": 0.2}, "GET", "/gw/x", (), None),
    "upstream slow, kong": (silent, {"seconds": 0.2, "dialect": "kong"}, "GET", "/gw/x", (), None),
    "odd status": (answer(b"HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n"), {}, "GET", "/gw/x", (), None),
    **{f"broken {number}": (once(raw), {}, "GET", "/gw/x", (), None) for number, raw in enumerate(BROKEN)},
}  # fmt: skip
#: What a refusal says: these of its headers, its status and its body.
TOLD = ("content-type", "www-authenticate")


@pytest.mark.parametrize("case", TABLE)
def test_both_lanes_give_the_same_verdict(configure: Any, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, config, method, target, headers, body = TABLE[case]
    with contextlib.ExitStack() as stack:
        config = dict(config)
        ports: list[int] = [free_port()] * config.pop("ports", 0)
        if script is not None:
            ports = [stack.enter_context(Upstream(script)).port]
        found = configure(*ports, **config)
        (gateway,) = ask_gateway(found, (method, target, headers, body))
        forwarding.forwarder().pool.close()
        # Through the mount that captures nothing, so that both lanes match the same path.
        environ = {"PATH_INFO": "/orders/", "RAW_URI": target}
        view = ask(method, target, headers, body, **environ)
    ids = [found.get("x-request-id") or "" for found in (gateway, view)]
    assert all(len(text) == 32 for text in ids)
    assert gateway.body.replace(ids[0].encode(), b"ID") == view.body.replace(ids[1].encode(), b"ID")
    assert (gateway.status, gateway.whole) == (view.status, view.whole)
    for name in TOLD:
        assert gateway.get(name) == view.get(name)


def test_both_lanes_weigh_nodes_alike(configure: Any) -> None:
    with contextlib.ExitStack() as stack:
        ports = []
        for name in (b"a", b"b", b"c"):
            ok = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + name
            ports.append(stack.enter_context(Upstream(answer(ok))).port)
        found = configure(*ports, weights=(3, 0, 1))
        gateway = b"".join(got.body for got in ask_gateway(found, *[("GET", "/gw/x", (), None)] * 16))
        view = b"".join(ask("GET", "/x").body for _ in range(16))
    assert gateway == view
    assert [view.count(name) for name in (b"a", b"b", b"c")] == [12, 0, 4]


def test_threads_share_one_rotation(configure: Any) -> None:
    with contextlib.ExitStack() as stack:
        upstreams = [stack.enter_context(Upstream(answer(OK))) for _ in range(3)]
        configure(*(upstream.port for upstream in upstreams), weights=(3, 0, 1))
        threads = [Thread(target=lambda: [ask("GET", "/x") for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asked = [sum(peer.received.count(b"GET /x ") for peer in upstream.peers) for upstream in upstreams]
    assert asked == [60, 0, 20]


# --- bodies ---


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
@pytest.mark.parametrize("plugin", [None, CHECKED], ids=["streamed", "spooled"])
def test_body_goes_upstream_whole(configure: Any, settings: Any, size: int, plugin: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 10
    body = os.urandom(size)
    headers = signed("POST", "/gw/x", listed=DIGESTED, headers={"digest": digest_of(body)})
    with Upstream(sum_up) as upstream:
        configure(upstream.port, plugin=plugin)
        found = ask("POST", "/x", [*headers.items(), ("content-length", str(size))], body)
        assert (found.status, found.body) == (200, summed(body))
        assert seen(upstream.peer()).get("content-length") == str(size)


def test_get_with_a_body_is_forwarded_with_it(configure: Any) -> None:
    with Upstream(sum_up) as upstream:
        configure(upstream.port)
        assert ask("GET", "/x", body=b"body").body == summed(b"body")
        assert ask("GET", "/x").body == summed(b"")


@pytest.mark.parametrize("plugin", [None, {}], ids=["open", "signed"])
def test_chunked_body_without_a_length_is_411(configure: Any, plugin: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port, plugin=plugin)
        headers = [*signed("POST", "/gw/x").items(), ("transfer-encoding", "chunked")]
        assert ask("POST", "/x", headers).status == 411
        assert not upstream.peers


def test_body_that_middleware_has_read_is_forwarded_all_the_same(configure: Any, settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.reads_body"]
    with Upstream(sum_up) as upstream:
        configure(upstream.port)
        assert ask("POST", "/x", body=b"a=1&b=2", CONTENT_TYPE="text/plain").body == summed(b"a=1&b=2")


def test_body_that_middleware_has_used_up_is_a_configuration_error(configure: Any, settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.uses_up_body"]
    configure(free_port())
    with pytest.raises(ImproperlyConfigured, match="must not read"):
        ask("POST", "/x", body=b"a=1&b=2")


def reads_body(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        assert request.body
        return get_response(request)

    return middleware


def uses_up_body(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        assert request.read()
        return get_response(request)

    return middleware


def test_replay_is_refused_and_a_wrong_digest_uses_nothing_up(configure: Any) -> None:
    with Upstream(sum_up) as upstream:
        configure(upstream.port, plugin={**CHECKED, "replay_protection": True})
        headers = list(signed("POST", "/gw/x", listed=DIGESTED, headers={"digest": digest_of(b"once")}).items())
        assert ask("POST", "/x", headers, b"evil").status == 401
        assert ask("POST", "/x", headers, b"once").status == 200
        assert ask("POST", "/x", headers, b"once").status == 401
        assert upstream.peer().received.count(b"POST ") == 1


# --- answers ---

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


@pytest.mark.parametrize(
    "script",
    [
        answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nx-trailer: t\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nx-kind: eof\r\n\r\nhello"),
        answer(b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        answer(INTERIM + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
    ],
    ids=["length", "chunked", "trailer", "until the close", "HTTP/1.0", "interim"],
)  # fmt: skip
def test_body_arrives_whole_in_every_framing(configure: Any, script: Script) -> None:
    with Upstream(script) as upstream:
        configure(upstream.port)
        found = ask("GET", "/x")
    assert (found.body, found.whole) == (b"hello", True)
    assert found.get("x-trailer") is found.get("link") is None


@pytest.mark.parametrize(
    ("method", "response", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n", 200, "12345"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, None),
        ("GET", b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n", 204, None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\ncontent-length: 7\r\n\r\n', 304, "7"),
        ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "0"),
        ("POST", b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", 205, "0"),
    ],
)
def test_answer_without_a_body_ends_at_once(
    configure: Any, method: str, response: bytes, status: int, length: str | None
) -> None:
    with Upstream(answer(response, OK), answer(OK)) as upstream:
        configure(upstream.port)
        found = ask(method, "/1")
        assert (found.status, found.body, found.get("content-length")) == (status, b"", length)
        assert ask("GET", "/2").body == b"ok"


def test_more_than_a_hundred_headers_pass(configure: Any) -> None:
    lines = b"".join(b"x-%d: %d\r\n" % (number, number) for number in range(500))
    with Upstream(answer(b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 0\r\n\r\n")) as upstream:
        configure(upstream.port)
        found = ask("GET", "/x")
    assert [found.get(f"x-{number}") for number in range(500)] == [str(number) for number in range(500)]


COOKIES = ["a=1; Path=/; HttpOnly", "b=2; Expires=Wed, 21 Oct 2037 07:28:00 GMT; SameSite=Lax; Partitioned", "a=3"]
REPEATED = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-A: 1\r\nx-b: caf\xc3\xa9 \xff\r\nx-a: 2, 3\r\n"
    b"vary: Origin\r\nVary: Accept\r\n"
    + b"".join(b"Set-Cookie: %b\r\n" % cookie.encode() for cookie in COOKIES)
    + b"\r\nok"
)


def test_repeated_headers_survive_in_their_order(configure: Any) -> None:
    with Upstream(answer(REPEATED)) as upstream:
        configure(upstream.port)
        found = ask("GET", "/x")
    assert found.all("set-cookie") == COOKIES
    assert found.all("x-a") == ["1", "2, 3"]
    assert found.all("vary") == ["Origin", "Accept"]
    assert found.get("x-b") == "caf\xc3\xa9 \xff"
    assert found.get("content-type") is None


def meddles(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Any:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        assert response["X-A"] == "1, 2, 3"
        response["X-A"] = "mine"
        response["Vary"] = response["Vary"] + ", Cookie"
        response.set_cookie("site", "4")
        return response

    return middleware


def test_middleware_changes_headers_and_adds_cookies(configure: Any, settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.meddles"]
    with Upstream(answer(REPEATED)) as upstream:
        configure(upstream.port)
        found = ask("GET", "/x")
        response = Client().get("/gw/x", HTTP_HOST=HOST, RAW_URI="/gw/x")
    assert (found.get("x-a"), found.get("vary"), found.all("set-cookie")) == ("mine", "Origin, Accept, Cookie", COOKIES)
    assert response.cookies["site"].value == "4"


def test_hop_by_hop_headers_end_here_both_ways(configure: Any) -> None:
    response = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, X-One\r\nx-one: 1\r\n"
        b"keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\ntrailer: x\r\nupgrade: h2c\r\n"
        b"x-request-id: theirs\r\nserver: theirs\r\nx-two: stays\r\n\r\nok"
    )
    sent = [
        ("connection", "close, X-Private"), ("x-private", "1"), ("keep-alive", "5"), ("te", "trailers"),
        ("upgrade", "x"), ("proxy-authorization", "Basic eDp5"), ("expect", "100-continue"),
        ("x-consumer-username", "forged"), ("x-credential-identifier", "forged"), ("x-stays", "2"),
        ("proxy", "http://evil"),
    ]  # fmt: skip
    with Upstream(answer(response)) as upstream:
        configure(upstream.port)
        found = ask("GET", "/x", sent)
        got = {name for name, _ in seen(upstream.peer()).headers}
        request_id = seen(upstream.peer()).get("x-request-id")
    assert {name for name, _ in found.headers} == {"content-length", "x-two", "x-request-id"}
    assert found.get("x-request-id") == request_id
    ours = {"host", "x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"}
    assert got - {"cookie"} == ours | {"x-request-id", "x-stays"}


def test_cookies_of_the_site_are_not_the_upstreams(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        sent = "theirs=1; hmac_gateway_sessionid=abc; x=2; hmac_gateway_csrftoken=def"
        assert ask("GET", "/x", [("cookie", sent)]).status == 200
        found = seen(upstream.peer())
    assert found.get("cookie") == "theirs=1; x=2"


def test_request_id_of_a_trusted_peer_is_kept(configure: Any, settings: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/x", [("x-request-id", "abc-1")]).get("x-request-id") != "abc-1"
        settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "TRUSTED_PROXIES": ["127.0.0.1"]}
        assert ask("GET", "/x", [("x-request-id", "abc-1")]).get("x-request-id") == "abc-1"


@pytest.mark.parametrize("header", ["x-a: 1", "cache-control: public, max-age=60"])
def test_protected_answers_are_not_for_shared_caches(configure: Any, header: str) -> None:
    """Unless the upstream itself says what caches may do."""
    with Upstream(answer(f"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{header}\r\n\r\n".encode())) as upstream:
        configure(upstream.port, plugin={})
        found = ask("GET", "/x", list(signed("GET", "/gw/x").items()))
        expected = "private, no-store" if header.startswith("x-a") else "public, max-age=60"
        assert (found.get("cache-control"), found.get("vary")) == (expected, "Authorization")
        configure(upstream.port)
        assert ask("GET", "/x").get("vary") is None


def test_line_break_in_a_header_is_refused(configure: Any) -> None:
    configure(free_port())
    assert ask("GET", "/x", [("x-a", "b\r\nx-consumer-username: forged")]).status == 400


# --- inside a site ---


def test_view_is_exempt_from_what_forms_and_logins_need(configure: Any, settings: Any) -> None:
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    with Upstream(sum_up) as upstream:
        configure(upstream.port)
        assert ask("POST", "/x", body=b"body").body == summed(b"body")


def test_no_transaction_is_open_around_a_forward(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Any use of the database would fail in this test.
    monkeypatch.setitem(database.settings_dict, "ATOMIC_REQUESTS", True)
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/x").body == b"ok"


def test_gzip_middleware_packs_what_is_plain_and_leaves_what_is_packed(configure: Any, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware"]
    plain, packed = b"x" * 5000, gzip.compress(b"y" * 5000)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b"
    scripts = [answer(head % (len(plain), b"", plain), head % (len(packed), b"content-encoding: gzip\r\n", packed))]
    with Upstream(*scripts) as upstream:
        configure(upstream.port)
        one, two = (ask("GET", "/x", [("accept-encoding", "gzip")]) for _ in range(2))
    assert (gzip.decompress(one.body), one.get("content-length")) == (plain, None)
    assert (two.body, two.get("content-length"), two.get("content-encoding")) == (packed, str(len(packed)), "gzip")


def test_gzip_middleware_does_not_finish_what_was_cut(configure: Any, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware"]
    with Upstream(half) as upstream:
        configure(upstream.port)
        assert not ask("GET", "/x", [("accept-encoding", "gzip")]).whole


def test_conditional_get_in_front_leaves_no_connection_open(configure: Any, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.http.ConditionalGetMiddleware"]

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b'HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: "1"\r\n\r\nabc')
        peer.wait_closed()

    with Upstream(script) as upstream:
        configure(upstream.port)
        assert ask("GET", "/x", [("if-none-match", '"1"')]).status == 304
        assert upstream.peer().closed_by_client.wait(10)


def test_without_a_snapshot_the_answer_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "runtime", lambda: Fixed(None))
    found = ask("GET", "/x")
    assert (found.status, found.body) == (503, b'{"message":"configuration not loaded"}\n')


# --- connections, retries, time ---


def stale(peer: Peer) -> None:
    peer.read_head()
    peer.send(OK)
    peer.read_head()


def with_body(peer: Peer) -> None:
    peer.read_head()
    assert peer.read(4) == b"body"
    peer.send(OK)
    peer.wait_closed()


def test_connection_is_reused(configure: Any) -> None:
    with Upstream(sum_up) as upstream:
        configure(upstream.port)
        for number in range(5):
            assert ask("POST", f"/{number}", body=b"x").status == 200
        assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    "response",
    [
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother",
        OK + b"x",
        b"HTTP/1.1 204 No Content\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
    ids=["a second answer", "one byte", "body of a 204", "close", "HTTP/1.0"],
)
def test_connection_that_says_too_much_or_ends_is_not_reused(configure: Any, response: bytes) -> None:
    with Upstream(answer(response), answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/1").status in (200, 204)
        assert ask("GET", "/2").body == b"ok"
        assert len(upstream.peers) == 2
        assert upstream.peers[0].closed_by_client.wait(10)


def test_bytes_on_an_idle_connection_reach_nobody(configure: Any) -> None:
    late = Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        assert late.wait(10)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        spoken.set()
        peer.wait_closed()

    spoken = Event()
    with Upstream(script, answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/1").body == b"ok"
        late.set()
        assert spoken.wait(10)
        assert ask("GET", "/2").body == b"ok"


def test_body_of_a_head_answer_reaches_nobody(configure: Any) -> None:
    with Upstream(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("HEAD", "/1").status == 200
        assert ask("GET", "/2").body == b"ok"


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("when", ["idle", "asked"])
def test_stale_connection_is_replaced_for_a_get(configure: Any, when: str, reset: bool) -> None:
    gone = Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(OK)
        if when == "asked":
            peer.read_head()
        else:
            assert answered.wait(10)
        if reset:
            peer.reset()
        else:
            peer.close()
        gone.set()

    answered = Event()
    with Upstream(script, answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/1").status == 200
        answered.set()
        if when == "idle":
            assert gone.wait(10)
        assert ask("GET", "/2").body == b"ok"
        assert len(upstream.peers) == 2


def test_stale_connection_is_replaced_for_a_spooled_body_alone(configure: Any) -> None:
    headers = signed("POST", "/gw/2", listed=DIGESTED, headers={"digest": digest_of(b"body")})
    with Upstream(stale, with_body) as upstream:
        configure(upstream.port, plugin={**CHECKED, "anonymous_consumer": "guest"})
        assert ask("GET", "/1").status == 200
        assert ask("POST", "/2", list(headers.items()), b"body").body == b"ok"
        assert len(upstream.peers) == 2
    with Upstream(stale, with_body) as upstream:
        configure(upstream.port)
        assert ask("GET", "/1").status == 200
        assert ask("POST", "/2", body=b"body").status == 502
        assert len(upstream.peers) == 1


def test_fresh_connection_that_closes_is_not_tried_again(configure: Any) -> None:
    with Upstream(stale, lambda peer: peer.close()) as upstream:
        configure(upstream.port)
        assert ask("GET", "/1").status == 200
        assert ask("GET", "/2").status == 502
        assert len(upstream.peers) == 2


def test_answer_that_breaks_after_its_first_byte_is_not_tried_again(configure: Any) -> None:
    def script(peer: Peer) -> None:
        stale(peer)
        peer.send(b"H")

    with Upstream(script, answer(OK)) as upstream:
        configure(upstream.port)
        assert [ask("GET", "/x").status for _ in range(2)] == [200, 502]
        assert len(upstream.peers) == 1


def test_next_node_is_tried_when_one_refuses_and_none_twice(configure: Any) -> None:
    with Upstream(sum_up) as upstream:
        ports = (free_port(), free_port(), upstream.port)
        configure(*ports, retries=2)
        for _ in range(6):
            assert ask("POST", "/x", body=b"body").body == summed(b"body")
        configure(*ports, retries=0)
        assert sorted({ask("GET", "/x").status for _ in range(6)}) == [200, 502]
    refused: list[int] = []

    def refuse(peer: Peer) -> None:
        peer.read_some()
        refused.append(1)

    with Upstream(refuse) as one, Upstream(refuse) as two:
        configure(one.port, two.port, retries=10, tls=True)
        assert ask("GET", "/x").status == 502
    assert len(refused) == 2


def test_request_that_was_sent_is_sent_to_another_node_where_that_changes_nothing(configure: Any) -> None:
    with Upstream(closed) as one, Upstream(closed) as two:
        configure(one.port, two.port, retries=1)
        assert ask("GET", "/x").status == 502
        assert len(one.peers) + len(two.peers) == 2
        assert ask("POST", "/x").status == ask("PUT", "/x", body=b"x").status == 502
        assert len(one.peers) + len(two.peers) == 4


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port where connecting neither succeeds nor fails: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


def test_connection_that_takes_too_long_is_504(configure: Any, deaf_port: int) -> None:
    configure(deaf_port, seconds=0.2)
    assert ask("GET", "/x").status == 504


def test_upload_that_nobody_takes_is_504(configure: Any) -> None:
    stop = Event()
    with Upstream(lambda peer: stop.wait(10) and None, receive_buffer=4096) as upstream:
        configure(upstream.port, seconds=0.3)
        assert ask("POST", "/x", body=b"x" * 20_000_000).status == 504
        stop.set()


def test_answer_that_stops_is_cut_by_the_read_timeout(configure: Any) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        peer.wait_closed()

    with Upstream(script) as upstream:
        configure(upstream.port, seconds=0.2)
        found = ask("GET", "/x")
        assert (found.body, found.whole) == (b"abc", False)
        assert upstream.peer().closed_by_client.wait(10)


@pytest.mark.parametrize("tls", [False, True])
def test_early_answer_ends_the_upload(configure: Any, tmp_path: Path, tls: bool) -> None:
    """The upstream takes no more: without looking for an answer while writing, the send would time out."""

    def script(peer: Peer) -> None:
        peer.read_head()
        # Until nothing more goes into the connection.
        assert not over.wait(0.5)
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nstop")
        assert over.wait(10)

    over = Event()
    context = Authority(tmp_path).server("127.0.0.1") if tls else None
    with Upstream(script, tls=context, receive_buffer=4096) as upstream:
        configure(upstream.port, seconds=5.0, tls=tls)
        found = ask("POST", "/x", body=b"x" * 20_000_000)
        over.set()
        assert (found.status, found.body) == (413, b"stop")
        # Never lent to anybody else.
        assert sum(len(idle) for idle in forwarding.forwarder().pool._idle.values()) == 0


def test_answer_is_seen_in_the_middle_of_a_write_that_nobody_takes() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        assert not over.wait(0.5)
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nstop")
        assert over.wait(10)

    over = Event()
    timeouts = Timeouts(5.0, 5.0, 5.0)
    with Upstream(script, receive_buffer=4096) as upstream:
        connection = SyncPool().connect(Target("127.0.0.1", upstream.port), timeouts, Keepalive())
        connection.start(b"POST / HTTP/1.1\r\n\r\n", method="POST", timeouts=timeouts, body_follows=True)
        assert not connection.send(b"x" * 20_000_000)
        assert not over.is_set()
        assert connection.response().status == 413
        connection.release()
        over.set()


def test_idle_connections_are_bounded_and_end(configure: Any) -> None:
    together = Barrier(3)

    def script(peer: Peer) -> None:
        peer.read_head()
        together.wait(10)
        peer.send(OK)
        peer.wait_closed()

    with Upstream(script, script, script, answer(OK)) as upstream:
        configure(upstream.port, keepalive={"size": 2, "idle_timeout": 0.1})
        threads = [Thread(target=lambda: ask("GET", "/x")) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool = forwarding.forwarder().pool
        assert [len(idle) for idle in pool._idle.values()] == [2]
        time.sleep(0.15)
        assert ask("GET", "/x").body == b"ok"
        assert len(upstream.peers) == 4


def test_connections_end_after_so_many_requests(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port, keepalive={"requests": 2})
        for _ in range(4):
            assert ask("GET", "/x").status == 200
        assert len(upstream.peers) == 2


def test_forked_process_does_not_speak_on_its_parents_connections(configure: Any) -> None:
    with Upstream(answer(OK)) as upstream:
        configure(upstream.port)
        assert ask("GET", "/x").status == 200
        before = forwarding._forwarder
        forwarding._forked()
        assert forwarding._forwarder is None
        assert before is not None and not before.pool._idle


def test_tls_upstream_is_spoken_to(configure: Any, tmp_path: Path) -> None:
    body = os.urandom(1_000_000)
    with Upstream(sum_up, tls=Authority(tmp_path).server("127.0.0.1")) as upstream:
        configure(upstream.port, tls=True)
        for _ in range(2):
            assert ask("POST", "/x", body=body).body == summed(body)
        assert len(upstream.peers) == 1


# --- served by gunicorn, and by granian under ASGI ---

SERVERS = ["gunicorn", "granian"]


@pytest.fixture(scope="module")
def gunicorn() -> Iterator[Embedded]:
    with Embedded("gunicorn") as site:
        yield site


@pytest.fixture(scope="module")
def granian() -> Iterator[Embedded]:
    with Embedded("granian") as site:
        yield site


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest) -> Embedded:
    """A served site: the host name `lead` says which port a request goes to."""
    found: Embedded = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("server", SERVERS)
def test_served_target_and_headers_arrive_untouched(server: str) -> None:
    with Upstream(answer(REPEATED)) as upstream, Embedded(server, ports=[upstream.port], plugin={}) as served:
        # Django's ASGI handler refuses bytes beyond ASCII in a path; the bare question mark is lost to ASGI.
        target = "/gw/a%2fb/[1]/%zz//c" + ("?" if server == "gunicorn" else "?x=%zz&&[1]")
        found = served.ask("GET", target, list(signed("GET", target).items()))
        assert (found.status, found.body, found.framing) == (200, b"ok", "length")
        assert [value for name, value in found.headers if name == "set-cookie"] == COOKIES
        assert len([name for name, _ in found.headers if name in ("date", "server")]) <= 2
        assert seen(upstream.peer()).target == target.removeprefix("/gw")
        assert seen(upstream.peer()).get("x-consumer-username") == "alice"
        assert seen(upstream.peer()).get("x-forwarded-port") == str(served.port)


def test_served_answers_are_framed_and_the_connection_goes_on(served: Embedded) -> None:
    scripts = [
        answer(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n",
        ),
        # No connection is used again after the head of a body that did not come.
        answer(b"HTTP/1.1 204 No Content\r\n\r\n", b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\n\r\n', OK),
    ]
    with Upstream(*scripts) as upstream, served.client() as client:
        host = lead(upstream.port)
        found = client.ask("GET", "/gw/1", host)
        assert (found.body, found.whole, found.framing) == (b"hello", True, "chunked")
        found = client.ask("HEAD", "/gw/2", host)
        assert (found.status, found.get("content-length")) == (200, "12345")
        for status in (204, 304):
            assert client.ask("GET", "/gw/3", host).status == status
        assert client.ask("GET", "/gw/4", host).body == b"ok"
        assert client.ask("PURGE", "/gw/5", host).body == b"ok"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["length, no body", "length", "chunked, no body", "chunked"],
)
def test_served_truncated_answer_is_never_finished(served: Embedded, response: bytes) -> None:
    passed_on = Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(response)
        assert passed_on.wait(10)

    with Upstream(script) as upstream:
        with served.client() as client:
            client.send(request_bytes("GET", "/gw/x", lead(upstream.port)))
            # The head comes before there is a body.
            found: RawAnswer = client.head()
            passed_on.set()
            client.body_of(found)
        assert (found.status, found.whole) == (200, False)
        assert found.body == (b"abc" if b"abc" in response else b"")


def test_served_answer_is_passed_on_piece_by_piece(served: Embedded) -> None:
    first_seen = Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        assert first_seen.wait(10)
        peer.send(b"3\r\ntwo\r\n0\r\n\r\n")
        peer.wait_closed()

    with Upstream(script) as upstream, served.client() as client:
        client.send(request_bytes("GET", "/gw/x", lead(upstream.port)))
        found = client.head()
        assert client.until(b"one\r\n") == b"3\r\none\r\n"
        first_seen.set()
        client.body_of(found)
        assert (found.body, found.whole) == (b"two", True)


def test_served_client_that_leaves_a_download_ends_it(served: Embedded) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:  # until Gone
            peer.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    with Upstream(script) as upstream:
        client = served.client()
        client.send(request_bytes("GET", "/gw/x", lead(upstream.port)))
        client.head()
        client.close()
        assert upstream.peer().closed_by_client.wait(10)


def test_asgi_client_that_leaves_a_silent_stream_ends_it(granian: Embedded) -> None:
    """The thread waits for the upstream's next word; it must not wait for long."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        peer.wait_closed()

    with Upstream(script) as upstream:
        client = granian.client()
        client.send(request_bytes("GET", "/gw/x", lead(upstream.port)))
        client.until(b"one\r\n")
        client.close()
        assert upstream.peer().closed_by_client.wait(10)


def test_asgi_chunked_body_goes_upstream_with_its_length(granian: Embedded) -> None:
    with Upstream(sum_up) as upstream, granian.client() as client:
        client.send(request_bytes("POST", "/gw/x", lead(upstream.port), [("transfer-encoding", "chunked")]))
        client.send(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        assert client.answer().body == summed(b"onetwo")
        assert seen(upstream.peer()).get("content-length") == "6"


def test_wsgi_chunked_body_is_411(gunicorn: Embedded) -> None:
    with Upstream(answer(OK)) as upstream, gunicorn.client() as client:
        head = request_bytes("POST", "/gw/x", lead(upstream.port), [("transfer-encoding", "chunked")])
        client.send(head + b"3\r\none\r\n0\r\n\r\n")
        assert client.answer().status == 411
        assert not upstream.peers


@pytest.mark.parametrize("how", ["close", "reset"])
def test_upload_that_the_client_breaks_off_is_not_finished_upstream(gunicorn: Embedded, how: str) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as upstream:
        client = gunicorn.client()
        head = request_bytes("POST", "/gw/x", lead(upstream.port), [("content-length", "200000")])
        client.send(head + b"x" * 70_000)
        peer = upstream.peer()
        getattr(client, how)()
        assert peer.closed_by_client.wait(10)
        head, _, body = peer.received.partition(b"\r\n\r\n")
        assert b"content-length: 200000" in head and len(body) < 200_000


MIB = 1024 * 1024


def peak(pids: list[int]) -> int:
    """The most memory in bytes that any of these processes ever had."""
    found = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                found = max(found, int(line.split()[1]) * 1024)
    return found


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("plugin", [None, CHECKED], ids=["streamed", "spooled"])
def test_served_memory_is_bounded(server: str, plugin: Any) -> None:
    piece = os.urandom(MIB)

    def hashed(mebibytes: int) -> bytes:
        whole = hashlib.sha256()
        for _ in range(mebibytes):
            whole.update(piece)
        return whole.digest()

    def script(peer: Peer) -> None:
        while True:
            length = int(peer.read_head().lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            taken, left = hashlib.sha256(), length
            while left:
                data = peer.read_some()
                left -= len(data)
                taken.update(data)
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length)
            assert taken.digest() == hashed(length // MIB)
            for _ in range(length // MIB):
                peer.send(piece)

    with Upstream(script) as upstream, Embedded(server, ports=[upstream.port], plugin=plugin) as served:

        def there_and_back(mebibytes: int) -> None:
            promised = "SHA-256=" + base64.b64encode(hashed(mebibytes)).decode()
            headers = signed("POST", "/gw/x", listed=DIGESTED, headers={"digest": promised})
            length = ("content-length", str(mebibytes * MIB))
            with served.client() as client:
                client.send(request_bytes("POST", "/gw/x", HOST, [*headers.items(), length]))
                for _ in range(mebibytes):
                    client.send(piece)
                assert client.head().status == 200
                got, left = hashlib.sha256(), mebibytes * MIB
                while left:
                    data = client.some()
                    left -= len(data)
                    got.update(data)
            assert got.digest() == hashed(mebibytes)

        # gunicorn reads ahead by a mebibyte and copies it more than once: four to eight for a thread, whatever we do.
        there_and_back(4)
        before = peak(served.pids())
        there_and_back(64)
        grown = peak(served.pids()) - before
        assert grown < 8 * MIB, grown
