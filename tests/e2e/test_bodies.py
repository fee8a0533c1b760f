"""Request bodies through a served gateway: streamed where nobody checks them, spooled where a digest must be right."""

from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from proxy.lane import LINGER_SECONDS
from tests.support.certificates import Authority
from tests.support.proxied import OK, Proxied, Upstream, seen, wait_for
from tests.support.raw_client import RawAnswer, request_bytes
from tests.support.raw_upstream import Gone, Peer, answer
from tests.support.served import digest_of, signed

CHECKED = {"validate_request_body": True}


def take_body(peer: Peer) -> bytes:
    """Read one request; its body, unframed."""
    head = peer.read_head().lower()
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(peer.read_until(b"\r\n"), 16):
            body += peer.read(size)
            assert peer.read(2) == b"\r\n"
        assert peer.read(2) == b"\r\n"
        return body
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return peer.read(int(length or b"0"))


def sum_up(peer: Peer) -> None:
    """Answer every request with its body's length and SHA-256."""
    while True:
        body = take_body(peer)
        text = b"%d %b" % (len(body), hashlib.sha256(body).hexdigest().encode())
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))


def summed(body: bytes) -> bytes:
    return b"%d %b" % (len(body), hashlib.sha256(body).hexdigest().encode())


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# --- streamed ---


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
def test_body_with_a_length_goes_upstream_with_it(gateway: Proxied, size: int) -> None:
    body = os.urandom(size)
    with Upstream(sum_up) as upstream:
        found = gateway.ask("POST", "/", gateway.lead(upstream.port), body=body)
        assert (found.status, found.body) == (200, summed(body))
        assert seen(upstream.peer()).get("content-length") == str(size)


@pytest.mark.parametrize("pieces", [[], [b"one", b"two"], [os.urandom(100_000)] * 20], ids=["empty", "small", "large"])
def test_chunked_body_goes_upstream_chunked(gateway: Proxied, pieces: list[bytes]) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [("transfer-encoding", "chunked")]) + chunked(*pieces))
            assert client.answer().body == summed(b"".join(pieces))
            # Framed so that another request may follow on both connections.
            client.send(request_bytes("POST", "/", host, [("transfer-encoding", "chunked")]) + chunked(b"again"))
            assert client.answer().body == summed(b"again")
        assert seen(upstream.peer()).get("content-length") is None
        assert len(upstream.peers) == 1


@pytest.mark.parametrize("order", [("content-length", "transfer-encoding"), ("transfer-encoding", "content-length")])
def test_length_beside_chunked_cannot_smuggle(gateway: Proxied, order: tuple[str, str]) -> None:
    values = {"content-length": "4", "transfer-encoding": "chunked"}
    inner = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [(name, values[name]) for name in order]) + chunked(inner))
            found = client.answer()
            client.rest()
        assert found.status in (200, 400)
        if found.status == 200:
            assert found.body == summed(inner)
            framing = seen(upstream.peer())
            assert (framing.get("content-length"), framing.get("transfer-encoding")) == (None, "chunked")


@pytest.mark.parametrize("codings", [("gzip, chunked",), ("gzip", "chunked"), ("chunked", "chunked")])
def test_codings_that_nobody_undoes_are_refused(gateway: Proxied, codings: tuple[str, ...]) -> None:
    """The upstream would take the body for something else than was meant."""
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            headers = [("transfer-encoding", coding) for coding in codings]
            client.send(request_bytes("POST", "/", host, headers) + chunked(b"one"))
            assert client.answer().status == 400
        assert not upstream.peers


def test_get_with_a_body_is_forwarded_with_it(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        assert gateway.ask("GET", "/", gateway.lead(upstream.port), body=b"body").body == summed(b"body")


def test_body_is_streamed_before_it_is_whole(gateway: Proxied) -> None:
    arrived = Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        assert peer.read(5) == b"first"
        arrived.set()
        assert peer.read(6) == b"second"
        peer.send(OK)
        peer.wait_closed()

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [("content-length", "11")]) + b"first")
            assert arrived.wait(10)
            client.send(b"second")
            assert client.answer().status == 200


def test_expect_is_answered_here_and_not_passed_on(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [("expect", "100-continue"), ("content-length", "4")]))
            assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
            client.send(b"body")
            assert client.answer().body == summed(b"body")
        assert seen(upstream.peer()).get("expect") is None


def test_body_of_a_refused_request_is_neither_asked_for_nor_waited_for(gateway: Proxied) -> None:
    host = gateway.lead(plugin={})
    with gateway.client() as client:
        client.send(request_bytes("POST", "/", host, [("expect", "100-continue"), ("content-length", "4")]))
        found = client.answer()
        assert (found.status, found.interim) == (401, [])
        assert gateway.access_line(host)["duration_ms"] < LINGER_SECONDS * 1000


def test_refusal_reaches_a_client_that_is_still_sending(gateway: Proxied) -> None:
    with gateway.client() as client:
        client.send(request_bytes("POST", "/", "nobody.test", [("content-length", str(1 << 30))]))
        assert client.answer().status == 404
        # The connection cannot be used any more: the server closes it sooner or later.
        assert client.send_until_refused(b"x" * 65536, 10_000) < 10_000


def test_slow_connection_to_the_upstream_loses_no_body(gateway: Proxied, tmp_path: Path) -> None:
    """TLS that takes its time: the body waits for it, unread."""
    context = Authority(tmp_path).server("127.0.0.1")
    go_on = Event()

    def script(peer: Peer) -> None:
        go_on.wait(10)
        try:
            peer.sock = context.wrap_socket(peer.sock, server_side=True)
        except ssl.SSLError as error:
            raise Gone from error
        sum_up(peer)

    tls = {"scheme": "https", "tls": {"verify": False}}
    body = os.urandom(300_000)
    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port, upstream=tls)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, body=body))
            upstream.peer()
            # Longer than the gateway waits before it looks whether a client is still there.
            assert not go_on.wait(0.5)
            go_on.set()
            assert client.answer().body == summed(body)


# --- uploads that do not come to their end ---


@pytest.mark.parametrize("whole", [True, False], ids=["answer with a length", "answer without end"])
def test_early_answer_ends_the_upload(gateway: Proxied, whole: bool) -> None:
    finish = Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.read(10)
        if whole:
            peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nstop")
        else:
            peer.send(b"HTTP/1.1 413 Too Large\r\ntransfer-encoding: chunked\r\n\r\n2\r\nst\r\n")
            assert finish.wait(10)
            peer.send(b"2\r\nop\r\n0\r\n\r\n")
        # Nothing more is taken from the socket: it must be the gateway that gives up.
        peer.wait_closed()

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [("content-length", str(1 << 30))]) + b"x" * 100_000)
            found = client.head()
            finish.set()
            client.body_of(found)
            assert (found.status, found.body, found.whole) == (413, b"stop", True)
            assert upstream.peer().closed_by_client.wait(10)
        # Its connection is not lent to anybody else.
        assert len(upstream.peers) == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_upload_that_the_client_breaks_off_is_not_finished_upstream(gateway: Proxied, framing: str, how: str) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as upstream:
        host = gateway.lead(upstream.port)
        header = ("transfer-encoding", "chunked") if framing == "chunked" else ("content-length", "11")
        client = gateway.client()
        client.send(request_bytes("POST", "/", host, [header]))
        client.send(b"5\r\nfirst\r\n" if framing == "chunked" else b"first")
        peer = upstream.peer()
        wait_for(lambda: b"first" in peer.received)
        getattr(client, how)()
        assert peer.closed_by_client.wait(10)
        assert not peer.received.endswith(b"0\r\n\r\n")
        assert gateway.access_line(host)["status"] == 499


def test_malformed_chunk_is_not_finished_upstream(gateway: Proxied) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/", host, [("transfer-encoding", "chunked")]) + b"5\r\nfirst\r\n")
            peer = upstream.peer()
            wait_for(lambda: b"first" in peer.received)
            client.send(b"zzzz\r\n")
            assert peer.closed_by_client.wait(10)
            found = client.answer()
        assert (found.status, found.body) == (400, b'{"message":"bad request"}\n')
        assert not peer.received.endswith(b"0\r\n\r\n")


# --- spooled ---


def ask_checked(
    gateway: Proxied,
    host: str,
    body: bytes,
    listed: tuple[str, ...] = ("@request-target", "date", "digest"),
    **sent: str,
) -> RawAnswer:
    headers = signed("POST", "/x", listed=listed, headers=sent)
    return gateway.ask("POST", "/x", host, list(headers.items()), body)


UNVERIFIED = {"message": "client request can't be validated"}


def test_right_digest_is_forwarded(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin=CHECKED)
        for body in (b"body", b""):
            found = ask_checked(gateway, host, body, digest=digest_of(body))
            assert (found.status, found.body) == (200, summed(body))
        assert seen(upstream.peer()).get("digest") == digest_of(b"body")


@pytest.mark.parametrize(
    ("sent", "listed"),
    [
        ({"digest": digest_of(b"other")}, ("@request-target", "date", "digest")),
        ({"digest": digest_of(b"")}, ("@request-target", "date", "digest")),
        ({"digest": "SHA-1=xxxx"}, ("@request-target", "date", "digest")),
        ({"digest": digest_of(b"body").lower()}, ("@request-target", "date", "digest")),
        ({"digest": digest_of(b"body")}, ("@request-target", "date")),
        ({}, ("@request-target", "date")),
    ],
    ids=["wrong", "of nothing", "algorithm", "spelling", "unsigned", "missing"],
)
def test_digest_that_is_not_right_reaches_nobody(
    gateway: Proxied, sent: dict[str, str], listed: tuple[str, ...]
) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin=CHECKED)
        found = ask_checked(gateway, host, b"body", listed, **sent)
        assert (found.status, found.json()) == (401, UNVERIFIED)
        assert found.get("www-authenticate") == 'hmac realm="hmac"'
        assert not upstream.peers


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_nothing_goes_upstream_before_the_digest_is_right(gateway: Proxied, framing: str) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin=CHECKED)
        body = os.urandom(200_000)
        headers = signed(
            "POST", "/x", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(body)}
        )
        kind = ("transfer-encoding", "chunked") if framing == "chunked" else ("content-length", str(len(body)))
        data = chunked(body) if framing == "chunked" else body
        with gateway.client() as client:
            client.send(request_bytes("POST", "/x", host, [*headers.items(), kind]) + data[:-1])
            # Another request through the same worker, so that it had its time with this one.
            for _ in range(20):
                assert gateway.ask("GET", "/", "nobody.test").status == 404
            assert not upstream.peers
            client.send(data[-1:])
            found = client.answer()
        assert (found.status, found.body) == (200, summed(body))
        # Once it is whole, its length is known.
        assert seen(upstream.peer()).get("content-length") == str(len(body))
        assert seen(upstream.peer()).get("transfer-encoding") is None


def too_large(size: int, limit: int) -> dict[str, Any]:
    return {"message": f"request size {size} is greater than the maximum size {limit} allowed"}


def test_body_over_the_limit_is_refused_by_its_length(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin={**CHECKED, "max_req_body_size": 10})
        assert ask_checked(gateway, host, b"x" * 10, digest=digest_of(b"x" * 10)).status == 200
        headers = signed("POST", "/x", headers={"digest": "SHA-256=x"}, listed=("@request-target", "date", "digest"))
        with gateway.client() as client:
            # No byte of the body is sent: its length is enough.
            client.send(request_bytes("POST", "/x", host, [*headers.items(), ("content-length", "11")]))
            found = client.answer()
        assert (found.status, found.json()) == (413, too_large(11, 10))
        assert found.get("www-authenticate") is None
        assert len(upstream.peers) == 1


def test_body_over_the_limit_is_refused_while_it_comes(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin={**CHECKED, "max_req_body_size": 100_000})
        headers = signed("POST", "/x", headers={"digest": "SHA-256=x"}, listed=("@request-target", "date", "digest"))
        with gateway.client() as client:
            client.send(request_bytes("POST", "/x", host, [*headers.items(), ("transfer-encoding", "chunked")]))
            piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
            for _ in range(4):
                client.send(piece)
            # It goes on without end, and is answered in its middle.
            found = client.answer()
        assert found.status == 413
        size = int(found.json()["message"].split()[2])
        assert 100_000 < size <= 4 * 0x8000
        assert not upstream.peers


def test_limit_counts_only_where_a_body_is_checked(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin={"max_req_body_size": 10})
        found = ask_checked(gateway, host, b"x" * 11, ("@request-target", "date"))
        assert (found.status, found.body) == (200, summed(b"x" * 11))


def deleted_files(pid: int) -> list[str]:
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return [link for link in links if link.endswith(" (deleted)")]


def test_large_checked_body_waits_in_a_file_and_arrives_whole(gateway: Proxied) -> None:
    body = os.urandom(5_000_000)
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin=CHECKED)
        gateway.settle()
        (pid,) = gateway.worker_pids()
        headers = signed(
            "POST", "/x", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(body)}
        )
        before = deleted_files(pid)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/x", host, [*headers.items(), ("content-length", str(len(body)))]))
            client.send(body[:-1])
            wait_for(lambda: len(deleted_files(pid)) > len(before))
            assert not upstream.peers
            client.send(body[-1:])
            assert client.answer().body == summed(body)
        wait_for(lambda: len(deleted_files(pid)) == len(before))


def test_malformed_chunk_of_a_checked_body_is_a_fault_of_the_client(gateway: Proxied) -> None:
    with Upstream() as upstream:
        host = gateway.lead(upstream.port, plugin=CHECKED)
        headers = signed("POST", "/x", listed=("@request-target", "date", "digest"), headers={"digest": "SHA-256=x"})
        with gateway.client() as client:
            client.send(request_bytes("POST", "/x", host, [*headers.items(), ("transfer-encoding", "chunked")]))
            client.send(b"5\r\nfirst\r\nzzzz\r\n")
            assert client.answer().status == 400
        assert not upstream.peers


def test_file_of_a_body_that_breaks_off_goes_away(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin=CHECKED)
        gateway.settle()
        (pid,) = gateway.worker_pids()
        before = deleted_files(pid)
        headers = signed("POST", "/x", listed=("@request-target", "date", "digest"), headers={"digest": "SHA-256=x"})
        client = gateway.client()
        client.send(request_bytes("POST", "/x", host, [*headers.items(), ("content-length", "9000000")]))
        client.send(b"x" * 3_000_000)
        wait_for(lambda: len(deleted_files(pid)) > len(before))
        client.close()
        wait_for(lambda: len(deleted_files(pid)) == len(before))
        assert gateway.access_line(host)["status"] == 499
        assert not upstream.peers


def test_spooled_body_is_taken_back_when_an_early_answer_comes(gateway: Proxied) -> None:
    body = os.urandom(8_000_000)

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
        peer.wait_closed()

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port, plugin=CHECKED)
        found = ask_checked(gateway, host, body, digest=digest_of(body))
        assert (found.status, found.body) == (403, b"no")
        assert upstream.peer().closed_by_client.wait(10)


def test_replayed_upload_is_refused(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin={**CHECKED, "replay_protection": True})
        body = b"once"
        headers = signed(
            "POST", "/x", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(body)}
        )
        wrong = gateway.ask("POST", "/x", host, list(headers.items()), b"evil")
        assert wrong.status == 401  # and the signature is not used up by it
        assert gateway.ask("POST", "/x", host, list(headers.items()), body).status == 200
        again = gateway.ask("POST", "/x", host, list(headers.items()), body)
        assert (again.status, again.json()) == (401, {"message": "client request can't be validated: replayed"})
        assert len(upstream.peers) == 1


def test_replay_of_a_request_whose_body_nobody_checks_is_refused(gateway: Proxied) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin={"replay_protection": True})
        headers = list(signed("POST", "/x").items())
        statuses = [gateway.ask("POST", "/x", host, headers, b"once").status for _ in range(2)]
        assert statuses == [200, 401]
        assert len(upstream.peers) == 1
