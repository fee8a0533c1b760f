"""What a client gets when the upstream fails, and what an upstream gets when the client does."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from threading import Barrier, Event
from typing import Any

import pytest

from tests.support.proxied import OK, Proxied, Upstream, seen, wait_for
from tests.support.raw_client import RawClient, request_bytes
from tests.support.raw_upstream import Peer, Script, answer
from tests.support.served import digest_of, free_port, signed
from tests.support.small import SmallGateway

BROKEN = (502, {"message": "the upstream answer could not be read"})
UNREACHABLE = (502, {"message": "no upstream node could be reached"})
LATE = (504, {"message": "the upstream did not answer in time"})
NO_NODE = (503, {"message": "no upstream node is configured"})

SLOW: dict[str, Any] = {"timeout": {"connect": 0.3, "send": 0.3, "read": 0.3}}


def outcome(gateway: Proxied, host: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
    found = gateway.ask(method, "/x", host, body=body)
    assert found.whole
    return found.status, found.json()


# --- truncated answers ---


def truncated(response: bytes, reset: bool) -> Script:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(response)
        # The gateway has begun to pass it on before it ends.
        assert passed_on.wait(10)
        if reset:
            peer.reset()

    return script


passed_on = Event()


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ],
    ids=["length, no body", "chunked, no body", "length", "between chunks", "inside a chunk", "before the last line"],
)
def test_truncated_answer_is_never_finished(gateway: Proxied, response: bytes, reset: bool) -> None:
    passed_on.clear()
    with Upstream(truncated(response, reset)) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("GET", "/", host))
            found = client.head()
            passed_on.set()
            client.body_of(found)
        body = b"abc" if b"abc" in response else b""
        assert (found.status, found.body, found.whole) == (200, body, False)
        line = gateway.access_line(host)
        assert (line["status"], line["reason"], line["bytes"]) == (200, "upstream_broken", len(body))


def test_answer_until_the_close_that_is_reset_is_never_finished(gateway: Proxied) -> None:
    passed_on.clear()
    with Upstream(truncated(b"HTTP/1.1 200 OK\r\n\r\nabc", reset=True)) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("GET", "/", host))
            found = client.head()
            passed_on.set()
            client.body_of(found)
        assert (found.status, found.body, found.whole) == (200, b"abc", False)


def test_answer_that_stops_is_ended_by_the_read_timeout(gateway: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        peer.wait_closed()

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port, upstream=SLOW)
        found = gateway.ask("GET", "/", host)
        assert (found.status, found.body, found.whole) == (200, b"abc", False)
        assert gateway.access_line(host)["reason"] == "upstream_timeout"
        assert upstream.peer().closed_by_client.wait(10)


def test_malformed_chunk_in_an_answer_is_never_finished(gateway: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert passed_on.wait(10)
        peer.send(b"zz\r\n")
        peer.wait_closed()

    passed_on.clear()
    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("GET", "/", host))
            found = client.head()
            passed_on.set()
            client.body_of(found)
        assert (found.body, found.whole) == (b"abc", False)


# --- no answer ---


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"<html>",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nna me: x\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
    ids=[
        "nothing", "half a line", "half a head", "SSH", "HTML", "status", "version", "length", "both framings",
        "two lengths", "coding", "blank in a name", "endless head", "endless interim",
    ],
)  # fmt: skip
def test_answer_that_is_none_is_502(gateway: Proxied, response: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(response)

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        assert outcome(gateway, host) == BROKEN
        assert len(upstream.peers) == 1
        assert gateway.access_line(host)["reason"] == "upstream_broken"


def test_refused_connection_is_502(gateway: Proxied) -> None:
    host = gateway.lead(free_port())
    assert outcome(gateway, host) == UNREACHABLE
    assert gateway.access_line(host)["reason"] == "upstream_unreachable"


def test_unknown_host_name_is_502(gateway: Proxied) -> None:
    host = gateway.lead(upstream={"nodes": {"nowhere.invalid:80": 1}})
    assert outcome(gateway, host) == UNREACHABLE


def test_tls_that_is_none_is_502(gateway: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.read_some()
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Upstream(script) as upstream:
        assert outcome(gateway, gateway.lead(upstream.port, upstream={"scheme": "https"})) == UNREACHABLE


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


def test_connection_that_takes_too_long_is_504(gateway: Proxied, deaf_port: int) -> None:
    host = gateway.lead(deaf_port, upstream=SLOW)
    assert outcome(gateway, host) == LATE
    assert gateway.access_line(host)["reason"] == "upstream_timeout"


def test_answer_that_takes_too_long_is_504(gateway: Proxied) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as upstream:
        assert outcome(gateway, gateway.lead(upstream.port, upstream=SLOW)) == LATE
        assert upstream.peer().closed_by_client.wait(10)
        assert len(upstream.peers) == 1


def test_route_timeouts_go_before_the_upstreams(gateway: Proxied) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as upstream:
        patient = {"timeout": {"connect": 60, "send": 60, "read": 60}}
        assert outcome(gateway, gateway.lead(upstream.port, upstream=patient, route=SLOW)) == LATE


def test_upload_that_nobody_takes_is_504(gateway: Proxied) -> None:
    stop = Event()

    def script(peer: Peer) -> None:
        stop.wait(10)

    with Upstream(script, receive_buffer=4096) as upstream:
        host = gateway.lead(upstream.port, upstream=SLOW)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [("content-length", str(1 << 30))]))
            assert client.send_until_refused(b"x" * 65536, 400) <= 400
            found = client.answer()
        stop.set()
        assert (found.status, found.json()) == LATE


@pytest.mark.parametrize("nodes", [{}, [{"host": "127.0.0.1", "port": 9, "weight": 0}]], ids=["none", "weight 0"])
def test_upstream_without_nodes_is_503(gateway: Proxied, nodes: Any) -> None:
    host = gateway.lead(upstream={"nodes": nodes})
    # A node of weight 0 is used where there is no other.
    assert outcome(gateway, host) == (UNREACHABLE if nodes else NO_NODE)


# --- other nodes ---


def test_next_node_is_tried_when_one_refuses(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(free_port(), free_port(), upstream.port)
        for _ in range(6):
            assert gateway.ask("GET", "/", host).status == 200
        assert len(upstream.peers) == 1


def test_next_node_is_tried_after_a_connect_timeout_and_gets_the_whole_body(gateway: Proxied, deaf_port: int) -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.read_head()
            assert peer.read(4) == b"body"
            peer.send(OK)

    with Upstream(script) as upstream:
        host = gateway.lead(deaf_port, upstream.port, upstream=SLOW)
        for _ in range(2):
            assert gateway.ask("POST", "/", host, body=b"body").status == 200


def test_without_retries_the_first_node_decides(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(free_port(), upstream.port, upstream={"retries": 0})
        statuses = [gateway.ask("GET", "/", host).status for _ in range(4)]
    assert sorted(statuses) == [200, 200, 502, 502]


def test_no_node_is_tried_twice(gateway: Proxied) -> None:
    """Each node accepts and then refuses TLS, so that tries can be counted."""

    def refuse(peer: Peer) -> None:
        peer.read_some()
        peer.close()

    with Upstream(refuse) as one, Upstream(refuse) as two, Upstream(refuse) as three:
        host = gateway.lead(one.port, two.port, three.port, upstream={"scheme": "https", "retries": 10})
        assert outcome(gateway, host) == UNREACHABLE
        assert [len(upstream.peers) for upstream in (one, two, three)] == [1, 1, 1]
        host = gateway.lead(one.port, two.port, three.port, upstream={"scheme": "https", "retries": 1})
        assert outcome(gateway, host) == UNREACHABLE
        assert sum(len(upstream.peers) for upstream in (one, two, three)) == 5


def swallow(peer: Peer) -> None:
    peer.read_head()


def test_request_that_was_sent_is_sent_to_another_node_where_that_changes_nothing(gateway: Proxied) -> None:
    """nginx, `proxy_next_upstream error timeout`, its default and so APISIX's; PUT and DELETE are not repeated here."""
    with Upstream(swallow) as one, Upstream(swallow) as two:
        host = gateway.lead(one.port, two.port)
        for method, peers in [("GET", 2), ("OPTIONS", 2), ("POST", 1), ("PUT", 1), ("DELETE", 1), ("PATCH", 1)]:
            before = len(one.peers) + len(two.peers)
            assert outcome(gateway, host, method) == BROKEN
            assert len(one.peers) + len(two.peers) - before == peers, method
        before = len(one.peers) + len(two.peers)
        assert outcome(gateway, gateway.lead(one.port, two.port, upstream={"retries": 0})) == BROKEN
        assert len(one.peers) + len(two.peers) - before == 1


@pytest.mark.parametrize("script", [swallow, lambda peer: peer.wait_closed()], ids=["hangs up", "is silent"])
def test_next_node_is_tried_when_one_does_not_answer(gateway: Proxied, script: Script) -> None:
    with Upstream(script) as bad, Upstream(answer(OK)) as good:
        host = gateway.lead(bad.port, good.port, upstream=SLOW)
        assert [gateway.ask("GET", "/", host).status for _ in range(4)] == [200] * 4
        assert len(bad.peers) == 2


# --- idle connections that went stale ---


def stale(peer: Peer) -> None:
    """Answer one request, then close when the second one comes: the client cannot know."""
    peer.read_head()
    peer.send(OK)
    peer.read_head()


def with_body(peer: Peer) -> None:
    peer.read_head()
    assert peer.read(4) == b"body"
    peer.send(OK)
    peer.wait_closed()


def test_stale_connection_is_replaced_for_a_get(gateway: Proxied) -> None:
    with Upstream(stale, answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/1", host).status == 200
        assert gateway.ask("GET", "/2", host).body == b"ok"
        assert len(upstream.peers) == 2
        assert seen(upstream.peers[1]).target == "/2"


def test_stale_connection_is_replaced_by_a_new_one_not_by_another_idle_one(gateway: Proxied) -> None:
    both = Barrier(2)

    def script(peer: Peer) -> None:
        peer.read_head()
        both.wait(10)  # so that there are two connections
        peer.send(OK)
        peer.read_head()

    with Upstream(script, script, answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as one, gateway.client() as two:
            for client in (one, two):
                client.send(request_bytes("GET", "/1", host))
            assert one.answer().status == two.answer().status == 200
            assert one.ask("GET", "/2", host).status == 200
        assert sum(b"GET /2 " in peer.received for peer in upstream.peers[:2]) == 1
        assert seen(upstream.peers[2]).target == "/2"


def test_stale_connection_is_replaced_for_a_spooled_body(gateway: Proxied) -> None:
    with Upstream(stale, with_body) as upstream:
        host = gateway.lead(upstream.port, plugin={"validate_request_body": True, "anonymous_consumer": "nobody"})
        gateway.put("/consumers/nobody", {"username": "nobody"})
        gateway.enforce()
        assert gateway.ask("GET", "/1", host).status == 200
        headers = signed(
            "POST", "/2", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(b"body")}
        )
        assert gateway.ask("POST", "/2", host, list(headers.items()), b"body").body == b"ok"
        assert len(upstream.peers) == 2


def test_stale_connection_is_not_replaced_for_a_streamed_body(gateway: Proxied) -> None:
    with Upstream(stale, with_body) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/1", host).status == 200
        assert outcome(gateway, host, "POST", b"body") == BROKEN
        assert len(upstream.peers) == 1


def test_fresh_connection_that_closes_is_not_tried_again(gateway: Proxied) -> None:
    with Upstream(stale, lambda peer: peer.close()) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/1", host).status == 200
        assert outcome(gateway, host) == BROKEN
        assert len(upstream.peers) == 2


def test_answer_that_breaks_after_its_first_byte_is_not_tried_again(gateway: Proxied) -> None:
    def script(peer: Peer) -> None:
        stale(peer)
        peer.send(b"H")

    with Upstream(script, answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/1", host).status == 200
        assert outcome(gateway, host) == BROKEN
        assert len(upstream.peers) == 1


# --- clients that leave ---


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("body", [None, b"body"], ids=["GET", "POST"])
def test_client_that_leaves_before_the_answer_ends_the_exchange(gateway: Proxied, how: str, body: bytes | None) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as upstream:
        host = gateway.lead(upstream.port)
        client = gateway.client()
        client.send(request_bytes("POST" if body else "GET", "/", host, body=body))
        peer = upstream.peer()
        wait_for(lambda: peer.received.endswith(body or b"\r\n\r\n"))
        getattr(client, how)()
        assert peer.closed_by_client.wait(10)
        assert gateway.access_line(host)["status"] == 499


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves_during_the_answer_ends_the_exchange(gateway: Proxied, how: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        peer.wait_closed()

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        client = gateway.client()
        client.send(request_bytes("GET", "/", host))
        client.until(b"abc\r\n")
        getattr(client, how)()
        assert upstream.peer().closed_by_client.wait(10)
        line = gateway.access_line(host)
        assert (line["status"], line["reason"], line["bytes"]) == (200, "client_left", 3)


def test_client_that_leaves_a_download_ends_it(gateway: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:  # until Gone
            peer.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        client = gateway.client()
        client.send(request_bytes("GET", "/", host))
        client.head()
        client.close()
        assert upstream.peer().closed_by_client.wait(10)


def test_client_that_left_is_found_while_connecting(gateway: Proxied, deaf_port: int) -> None:
    host = gateway.lead(deaf_port, upstream={"timeout": {"connect": 1, "send": 1, "read": 1}})
    client = gateway.client()
    client.send(request_bytes("GET", "/", host))
    # Until the head was read: of a connection that ends in the same moment, the server may drop the request unseen.
    time.sleep(0.3)
    client.close()
    assert gateway.access_line(host)["status"] == 499


# --- clients that fall silent ---

SILENCE = 0.4
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


def test_silent_clients() -> None:
    """One gateway that is not patient, for everything a silent client can do."""

    def script(peer: Peer) -> None:
        head = peer.read_head()
        if head.startswith(b"GET /download "):
            peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                peer.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        elif head.startswith(b"GET /slow "):
            assert not wait.wait(3 * SILENCE)
            peer.send(LAST)
        elif head.startswith(b"GET /pause ") or head.startswith(b"POST /early "):
            peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
            assert not wait.wait(3 * SILENCE)
            peer.send(b"0\r\n\r\n")
        elif head.startswith(b"POST /trickle "):
            assert peer.read(6) == b"abcdef"
            peer.send(LAST)
        peer.wait_closed()

    wait = Event()
    with Upstream(script) as upstream, SmallGateway(upstream.port, SILENCE) as gateway:

        def ask(data: bytes) -> RawClient:
            client = RawClient(gateway.port)
            client.send(data)
            return client

        # In the middle of a body: 408, and the upstream is given up.
        with ask(request_bytes("POST", "/body", "a", [("content-length", "10")]) + b"abc") as client:
            found = client.answer()
            assert (found.status, found.json()) == (408, {"message": "the request body did not arrive in time"})
            assert upstream.peer(0).closed_by_client.wait(10)
            assert upstream.peer(0).received.endswith(b"abc")
        # Before the first byte of one.
        with ask(request_bytes("POST", "/body", "a", [("transfer-encoding", "chunked")])) as client:
            assert client.answer().status == 408
        # A download that nobody takes: cut off, never finished.
        with RawClient(gateway.port, receive_buffer=4096) as client:
            client.send(request_bytes("GET", "/download", "a"))
            assert upstream.peer(2).closed_by_client.wait(10)
            assert not client.rest().endswith(b"\r\n0\r\n\r\n")
        # Slow is not silent: each byte in time.
        with ask(request_bytes("POST", "/trickle", "a", [("content-length", "6")])) as client:
            for byte in b"abcdef":
                assert not wait.wait(SILENCE / 2)
                client.send(bytes([byte]))
            assert client.answer().body == b"ok"
        # The upstream's silence is not the client's.
        with ask(request_bytes("GET", "/slow", "a")) as client:
            assert client.answer().body == b"ok"
        with ask(request_bytes("GET", "/pause", "a")) as client:
            found = client.answer()
            assert (found.status, found.whole) == (200, True)
        # Nor is a body that nobody wants any more.
        with ask(request_bytes("POST", "/early", "a", [("content-length", "10")])) as client:
            found = client.answer()
            assert (found.status, found.whole) == (200, True)
