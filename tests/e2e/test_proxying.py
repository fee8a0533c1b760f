"""What goes through a served gateway, seen from both ends: framing, targets, methods, connections."""

from __future__ import annotations

from threading import Event

import pytest

from tests.support.proxied import OK, Proxied, Upstream, seen
from tests.support.raw_client import request_bytes
from tests.support.raw_upstream import Peer, Script, answer

# --- answers ---


def until_close(peer: Peer) -> None:
    peer.read_head()
    peer.send(b"HTTP/1.1 200 OK\r\nx-kind: eof\r\n\r\nhel")
    peer.send(b"lo")


@pytest.mark.parametrize(
    "script",
    [
        answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"),
        answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nx-trailer: t\r\n\r\n"),
        until_close,
        answer(b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
    ],
    ids=["length", "chunked", "chunked with trailer", "until the close", "HTTP/1.0"],
)
def test_body_arrives_whole_in_every_framing(gateway: Proxied, script: Script) -> None:
    with Upstream(script) as upstream:
        found = gateway.ask("GET", "/", gateway.lead(upstream.port))
    assert (found.status, found.body, found.whole) == (200, b"hello", True)
    assert found.get("x-trailer") is None


@pytest.mark.parametrize(
    ("method", "response", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n", 200, "12345"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, None),
        ("GET", b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n", 204, None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\ncontent-length: 7\r\n\r\n', 304, None),
        ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "0"),
        ("POST", b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", 205, "0"),
    ],
    ids=["HEAD", "HEAD chunked", "204", "304", "empty", "205"],
)
def test_answer_without_a_body_ends_at_once(
    gateway: Proxied, method: str, response: bytes, status: int, length: str | None
) -> None:
    with Upstream(answer(response, OK), answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            found = client.ask(method, "/", host)
            # The next answer on the same connection is not mistaken for a body.
            after = client.ask("GET", "/after", host)
    assert (found.status, found.body, found.whole) == (status, b"", True)
    if status == 200:
        assert found.get("content-length") == length
    assert (after.status, after.body) == (200, b"ok")


def test_interim_answers_are_dropped(gateway: Proxied) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    with Upstream(answer(b"HTTP/1.1 100 Continue\r\n\r\n" + early + early + OK)) as upstream:
        found = gateway.ask("GET", "/", gateway.lead(upstream.port))
    assert (found.status, found.body, found.interim, found.get("link")) == (200, b"ok", [], None)


def test_answer_is_passed_on_piece_by_piece(gateway: Proxied) -> None:
    """What the upstream has said reaches the client before the upstream has finished."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        peer.send(b"3\r\none\r\n")
        assert first_seen.wait(10)
        peer.send(b"3\r\ntwo\r\n0\r\n\r\n")
        peer.wait_closed()

    first_seen = Event()
    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("GET", "/", host))
            found = client.head()
            assert client.until(b"one\r\n") == b"3\r\none\r\n"
            first_seen.set()
            client.body_of(found)
    assert (found.body, found.whole) == (b"two", True)


def test_head_is_passed_on_before_there_is_a_body(gateway: Proxied) -> None:
    """Who opens a stream of events wants to know at once that it is open."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        assert head_seen.wait(10)
        peer.send(b"3\r\none\r\n0\r\n\r\n")
        peer.wait_closed()

    head_seen = Event()
    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("GET", "/", host))
            found = client.head()
            head_seen.set()
            client.body_of(found)
    assert (found.get("content-type"), found.body, found.whole) == ("text/event-stream", b"one", True)


# --- connections ---


def test_upstream_connection_is_reused(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert [gateway.ask("GET", f"/{n}", host).body for n in range(5)] == [b"ok"] * 5
        assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    "response",
    [
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother",
        OK + b"x",
        b"HTTP/1.1 204 No Content\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["a second answer", "one byte", "body of a 204", "behind the last chunk"],
)
def test_leftover_bytes_reach_nobody(gateway: Proxied, response: bytes) -> None:
    with Upstream(answer(response), answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/1", host).status in (200, 204)
        found = gateway.ask("GET", "/2", host)
        assert (found.status, found.body) == (200, b"ok")
        assert len(upstream.peers) == 2
        assert upstream.peers[0].closed_by_client.wait(10)


def test_body_of_a_head_answer_reaches_nobody(gateway: Proxied) -> None:
    with Upstream(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("HEAD", "/1", host).whole
        assert gateway.ask("GET", "/2", host).body == b"ok"
        assert len(upstream.peers) == 2


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nconnection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
def test_connection_that_ends_is_not_reused(gateway: Proxied, head: bytes) -> None:
    with Upstream(answer(head + b"content-length: 2\r\n\r\nok")) as upstream:
        host = gateway.lead(upstream.port)
        for _ in range(2):
            found = gateway.ask("GET", "/", host)
            assert (found.body, found.get("connection")) == (b"ok", None)
        assert len(upstream.peers) == 2


def test_pipelined_requests_are_answered_in_their_order(gateway: Proxied) -> None:
    def script(peer: Peer) -> None:
        while True:
            target = peer.read_head().split(b" ")[1]
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(b"".join(request_bytes("GET", f"/{n}", host) for n in range(4)))
            assert [client.answer().body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]


def test_one_client_connection_serves_many_requests(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            assert client.ask("GET", "/", host).status == 200
            assert client.ask("GET", "/", "nobody.test").status == 404
            assert client.ask("POST", "/", host, body=b"").status == 200
            assert client.ask("GET", "/", host, [("connection", "close")]).status == 200
            assert client.rest() == b""


# --- targets ---


@pytest.mark.parametrize(
    "target",
    [
        "/a%2fb",
        "/a%2Fb%41",
        "/[1]",
        "/%zz",
        "/100%",
        "//a///b/",
        "/a;b=c,d",
        "/a|b",
        "/caf\xc3\xa9",
        "/a?x=%zz&&y",
        "/a?b?c=/../d",
        "/a??",
        "/a?x=[1]&y={2}'",
        "/a+b?c+d=%2B",
        "/...",
        "/.well-known/x",
        "/" + "a" * 8000,
    ],
)
def test_target_is_forwarded_untouched(gateway: Proxied, target: str) -> None:
    with Upstream(answer(OK)) as upstream:
        assert gateway.ask("GET", target, gateway.lead(upstream.port)).status == 200
        assert seen(upstream.peer()).target == target


def test_bare_question_mark_is_lost_by_the_server(gateway: Proxied) -> None:
    """ASGI has no place for it; signatures are tried both ways."""
    with Upstream(answer(OK)) as upstream:
        assert gateway.ask("GET", "/a?", gateway.lead(upstream.port)).status == 200
        assert seen(upstream.peer()).target == "/a"


@pytest.mark.parametrize(
    "target",
    [
        "/a/../b",
        "/a/%2e%2E/b",
        "/a/.%2e/b",
        "/a/..%2fb",
        "/a/%252e%252e/b",
        "/a/..;x=1/b",
        "/./a",
        "/a/..",
        "/a\\b",
        "/a%5cb",
        "/a%255Cb",
        "/a%00b",
        "/a%0d%0aX-Evil:1",
        "/a%250ab",
        "/a/%25252525252525252525252e%2e/",
    ],
)
def test_ambiguous_path_is_refused(gateway: Proxied, target: str) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        found = gateway.ask("GET", target, host)
        assert found.status == 400
        assert list(found.json()) == ["message"]
        # The same on a host that no route has: the rule comes first.
        assert gateway.ask("GET", target, "nobody.test").status == 400
        assert not upstream.peers


def test_absolute_form_is_forwarded_in_origin_form(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", f"http://{host}/a%2fb?c=%zz", host).status == 200
        assert seen(upstream.peer()).target == "/a%2fb?c=%zz"
        assert seen(upstream.peer()).get("host") == host


def test_path_prefix_of_a_service_is_taken_away(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        name = host.partition(".")[0]
        gateway.put(
            "/services/prefixed", {"name": "prefixed", "upstream_id": name, "path_prefix": "/api", "hosts": [host]}
        )
        gateway.put("/routes/prefixed", {"uri": "/v1/*", "service_id": "prefixed", "priority": 1})
        gateway.enforce()
        assert gateway.ask("GET", "/api/v1/a%2fb?c", host).status == 200
        assert seen(upstream.peer()).target == "/v1/a%2fb?c"
        # The prefix in another spelling matches, but cannot be taken away without touching the rest.
        assert gateway.ask("GET", "/%61pi/v1/x", host).status == 400


# --- methods and forms ---


@pytest.mark.parametrize("method", ["GET", "get", "Post", "PURGE", "PROPFIND", "TRACE", "OPTIONS", "X-MINE"])
def test_method_is_forwarded_as_it_is(gateway: Proxied, method: str) -> None:
    with Upstream(answer(OK)) as upstream:
        assert gateway.ask(method, "/m", gateway.lead(upstream.port)).status == 200
        assert seen(upstream.peer()).line == f"{method} /m HTTP/1.1"


def test_method_of_a_route_is_compared_exactly(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, route={"methods": ["GET", "POST"]})
        statuses = [gateway.ask(method, "/", host).status for method in ("GET", "get", "POST", "PUT")]
    assert statuses == [200, 404, 200, 404]


@pytest.mark.parametrize(
    "line", ["OPTIONS *", "CONNECT nobody.test:80", "GET a", "GET http://", "GET ://x", "GET ?a", "GET ", "GET /a b"]
)
def test_odd_target_forms_are_refused(gateway: Proxied, line: str) -> None:
    with gateway.client() as client:
        client.send(f"{line} HTTP/1.1\r\nhost: nobody.test\r\n\r\n".encode())
        assert client.answer().status in (400, 404)
    assert gateway.ask("GET", "/", "nobody.test").status == 404


def test_connect_is_refused_on_a_route_too(gateway: Proxied) -> None:
    with Upstream() as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("CONNECT", "/a", host).status == 400
        assert not upstream.peers


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nna me: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
    ],
    ids=["TLS", "version", "folded", "blank in a name", "negative", "two lengths", "coding", "NUL"],
)
def test_malformed_request_is_refused_and_the_gateway_goes_on(gateway: Proxied, data: bytes) -> None:
    with gateway.client() as client:
        client.send(data)
        reply = client.rest()
    assert reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ", b"HTTP/1.1 505 ")) or not reply
    assert gateway.ask("GET", "/", "nobody.test").status == 404


def test_http_1_0_needs_no_host_and_1_1_does(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        name = host.partition(".")[0]
        gateway.put("/routes/anyhost", {"uri": "/any-host", "upstream_id": name})
        gateway.enforce()
        with gateway.client() as client:
            client.send(b"GET /any-host HTTP/1.0\r\n\r\n")
            assert client.answer().status == 200
            assert client.rest() == b""
        assert seen(upstream.peer()).get("host") == f"127.0.0.1:{upstream.port}"
        with gateway.client() as client:
            client.send(b"GET /any-host HTTP/1.1\r\n\r\n")
            assert client.answer().status == 400


def test_unknown_route_is_404_in_apisix_words(gateway: Proxied) -> None:
    found = gateway.ask("GET", "/x", "nobody.test")
    assert (found.status, found.body) == (404, b'{"error_msg":"404 Route Not Found"}\n')
    assert found.get("content-type") == "application/json"
    found = gateway.ask("HEAD", "/x", "nobody.test")
    assert (found.status, found.body, found.get("content-length")) == (404, b"", "36")


def test_nothing_is_served_below_the_reserved_prefix(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/.hmac-gateway/x", host).status == 404
        assert not upstream.peers


UPGRADE = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


def test_websocket_upgrade_is_forwarded_as_a_plain_request(gateway: Proxied) -> None:
    with Upstream(
        answer(b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n")
    ) as upstream:
        found = gateway.ask("GET", "/ws", gateway.lead(upstream.port), UPGRADE)
        assert (found.status, found.whole) == (426, True)
        assert seen(upstream.peer()).get("upgrade") is None
        assert seen(upstream.peer()).get("connection") is None


def test_upstream_that_switches_protocols_unasked_is_refused(gateway: Proxied) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    with Upstream(answer(switch)) as upstream:
        found = gateway.ask("GET", "/ws", gateway.lead(upstream.port), UPGRADE)
    assert (found.status, found.json()) == (502, {"message": "the upstream answer could not be read"})
