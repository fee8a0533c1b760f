"""Requests of strangers and eavesdroppers against a served gateway."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
import time
from collections.abc import Iterator

import pytest

from hmac_gateway import serving
from hmac_gateway.echo import echo
from tests.support.certificates import Authority
from tests.support.proxied import OK, Proxied, Upstream, seen
from tests.support.raw_client import Ended, RawClient
from tests.support.raw_upstream import answer
from tests.support.served import free_port, signed


def test_a_signature_is_not_used_again_under_another_spelling_of_its_method(gateway: Proxied) -> None:
    # Many upstreams read `post` as POST; here the method is not signed.
    with Upstream(answer(OK), answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin={"replay_protection": True})
        headers = list(signed("POST", "/x", listed=("date",)).items())
        assert gateway.ask("POST", "/x", host, headers).status == 200
        for method in ("POST", "post", "PosT"):
            assert gateway.ask(method, "/x", host, headers).status == 401, method


def test_a_route_that_expired_and_was_written_again_is_in_force(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        closed = {"uri": "/admin*", "host": host, "upstream_id": "nowhere", "plugins": {"hmac-auth": {}}}
        gateway.put("/routes/closed?ttl=1", closed)
        time.sleep(1.2)
        gateway.put("/routes/closed", closed)
        gateway.enforce()
        assert gateway.ask("GET", "/admin", host).status == 401
        assert not upstream.peers


def test_an_upstream_that_expired_can_be_written_again_while_routes_use_it(gateway: Proxied) -> None:
    nodes = {"type": "roundrobin", "nodes": {"127.0.0.1:1": 1}}
    gateway.put("/upstreams/brief?ttl=1", {**nodes, "desc": "old"})
    gateway.put("/routes/brief", {"uri": "/", "host": "brief.test", "upstream_id": "brief"})
    time.sleep(1.2)
    found = gateway.admin("PUT", "/upstreams/brief", nodes)
    assert found.status == 201 and "desc" not in found.json()["value"]
    gateway.enforce()
    assert gateway.ask("GET", "/", "brief.test").status == 502


@pytest.mark.parametrize(
    "tail",
    [":80@evil.test", ":,evil.test", "@evil.test", ",evil.test", ": x", " evil.test", "/evil", "#", "?", ":x", '"'],
)
def test_a_host_that_could_be_read_as_another_is_refused(gateway: Proxied, tail: str) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        found = gateway.ask("GET", "/", host + tail)
        assert (found.status, found.body) == (400, b'{"message":"bad request"}\n')
        assert not upstream.peers


@pytest.mark.parametrize("tail", ["", ".", ":80", ":", ".:9080"])
def test_a_usual_host_passes(gateway: Proxied, tail: str) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/", host + tail).status == 200
        assert seen(upstream.peer()).get("host") == host + tail


# --- HTTP/2 ---


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + (1 if kind in (1, 9) else 0).to_bytes(4) + payload


def _field(name: bytes, value: bytes) -> bytes:
    # A literal that is not indexed; names and values of at most 126 bytes.
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _http2_status(client: RawClient, fields: bytes) -> bytes:
    """Send one request by HTTP/2; the HPACK bytes of its answer's first field."""
    parts = [fields[at : at + 16384] for at in range(0, len(fields), 16384)]
    frames = [_frame(9, 4 * (part is parts[-1]), part) for part in parts]
    frames[0] = _frame(1, 1 | 4 * (len(parts) == 1), parts[0])
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, b"") + b"".join(frames))
    data = bytearray()
    while True:
        data += client.some()
        at = 0
        while len(data) >= at + 9 and len(data) >= at + 9 + int.from_bytes(data[at : at + 3]):
            size = int.from_bytes(data[at : at + 3])
            if data[at + 3] == 1:
                return bytes(data[at + 9 : at + 9 + size])
            at += 9 + size


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxied, ssl.SSLContext]]:
    """A gateway with TLS, and what a client of HTTP/2 needs to speak to it."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    cert, key = authority.issue("127.0.0.1")
    usual, second = (ssl.create_default_context(cafile=authority.ca_file) for _ in range(2))
    second.set_alpn_protocols(["h2"])
    with Proxied(arguments=["--tls-cert", cert, "--tls-key", key], tls=usual) as served:
        yield served, second


def test_a_head_by_http2_is_not_larger_than_one_by_http1(tls: tuple[Proxied, ssl.SSLContext]) -> None:
    gateway, context = tls
    usual = _field(b":method", b"GET") + _field(b":path", b"/") + _field(b":scheme", b"https")
    usual += _field(b":authority", b"unknown.test")
    many = b"".join(_field(b"x%05d" % number, b"") * 2 for number in range(3_000))
    with RawClient(gateway.port, tls=context) as client:
        assert _http2_status(client, usual)[0] == 0x8D  # 404
    with RawClient(gateway.port, tls=context) as client:
        began = time.monotonic()
        with contextlib.suppress(Ended):
            assert _http2_status(client, usual + many)[0] != 0x8D
        assert time.monotonic() - began < 1


# --- connections that cost nothing ---


def test_silent_connections_keep_nobody_out(gateway: Proxied) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.enter_context(gateway.client())
        assert gateway.ask("GET", "/", "unknown.test").status == 404


def test_a_silent_connection_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_TIMEOUT", 1)
    port = free_port()

    async def run() -> None:
        stopping = asyncio.Event()
        served = asyncio.ensure_future(serving.serve(echo, serving.Listener("echo", "127.0.0.1", port), stopping))
        for beginning in (b"", b"GET / HT"):
            while True:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                await asyncio.sleep(0.05)
            writer.write(beginning)
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
        stopping.set()
        await served

    asyncio.run(run())
