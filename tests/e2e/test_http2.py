"""HTTP/2 and HTTP/1.1 over TLS through a served gateway; curl is the HTTP/2 client."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.support.certificates import Authority
from tests.support.proxied import OK, Proxied, Upstream, seen, wait_for
from tests.support.raw_client import request_bytes
from tests.support.raw_upstream import Peer, answer
from tests.support.served import digest_of, signed


def _has_http2() -> bool:
    try:
        return b"HTTP2" in subprocess.run(["curl", "--version"], capture_output=True).stdout
    except FileNotFoundError:
        return False


needs_curl = pytest.mark.skipif(not _has_http2(), reason="curl with HTTP/2 is not installed")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def gateway(authority: Authority) -> Iterator[Proxied]:
    cert, key = authority.issue("127.0.0.1")
    tls = ssl.create_default_context(cafile=authority.ca_file)
    with Proxied(arguments=["--tls-cert", cert, "--tls-key", key], tls=tls) as served:
        yield served


class Curl:
    """A running curl: `--http2` to one host of the gateway, its answer's status line and body in one text."""

    def __init__(self, authority: Authority, gateway: Proxied, host: str, target: str, *arguments: str) -> None:
        base = ["curl", "-sS", "--http2", "--noproxy", "*", "--max-time", "15", "--cacert", authority.ca_file]
        asked = ["-H", f"Host: {host}", "-w", r"\n%{http_version} %{http_code}"]
        url = f"https://127.0.0.1:{gateway.port}{target}"
        self.process = subprocess.Popen(
            [*base, *asked, *arguments, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end(self, stdin: bytes = b"") -> tuple[str, bytes, int]:
        """(version and status, body, exit code)"""
        out, _ = self.process.communicate(stdin, 20)
        body, _, last = out.rpartition(b"\n")
        return last.decode(), body, self.process.returncode


def sum_up(peer: Peer) -> None:
    """Answer with the length and SHA-256 of a body in either framing."""
    head = peer.read_head().lower()
    body = b""
    if b"transfer-encoding: chunked" in head:
        while size := int(peer.read_until(b"\r\n"), 16):
            body += peer.read(size)
            peer.read(2)
        peer.read(2)
    else:
        body = peer.read(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0"))
    text = summed(body)
    peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
    peer.wait_closed()


def summed(body: bytes) -> bytes:
    return b"%d %b" % (len(body), hashlib.sha256(body).hexdigest().encode())


@needs_curl
def test_request_without_a_body(gateway: Proxied, authority: Authority) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        forged = ["-H", "X-Consumer-Username: forged", "-H", "x_a: b", "-H", "x-c: d"]
        found = Curl(authority, gateway, host, "/a%2fb?c=%zz", "--path-as-is", *forged).end()
        assert found == ("2 200", b"ok", 0)
        request = seen(upstream.peer())
        names = {name for name, _ in request.headers}
    assert request.line == "GET /a%2fb?c=%zz HTTP/1.1"
    assert request.all("host") == [host]
    assert request.get("x-forwarded-proto") == "https"
    assert request.get("x-forwarded-host") == host
    assert request.get("x-forwarded-port") == str(gateway.port)
    assert request.get("x-c") == "d"
    assert not names & {"x-consumer-username", "x_a", "content-length", "transfer-encoding"}


@needs_curl
@pytest.mark.parametrize("size", [0, 5, 1_000_000])
def test_body_with_a_length(gateway: Proxied, authority: Authority, size: int, tmp_path: Path) -> None:
    body = os.urandom(size)
    (tmp_path / "body").write_bytes(body)
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port)
        found = Curl(authority, gateway, host, "/", "--data-binary", f"@{tmp_path}/body").end()
        assert found == ("2 200", summed(body), 0)
        assert seen(upstream.peer()).get("content-length") == str(size)


@needs_curl
@pytest.mark.parametrize("size", [0, 5, 1_000_000])
def test_body_without_a_length(gateway: Proxied, authority: Authority, size: int) -> None:
    body = os.urandom(size)
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port)
        found = Curl(authority, gateway, host, "/", "-T", "-").end(body)
        assert found == ("2 200", summed(body), 0)


@needs_curl
def test_late_body_is_not_lost(gateway: Proxied, authority: Authority) -> None:
    """It comes after the gateway has begun to look whether its clients are still there."""
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port)
        curl = Curl(authority, gateway, host, "/", "-T", "-", "-H", "Expect:")
        with pytest.raises(subprocess.TimeoutExpired):
            curl.process.wait(0.6)
        assert curl.end(b"late") == ("2 200", summed(b"late"), 0)


@needs_curl
def test_signed_body(gateway: Proxied, authority: Authority) -> None:
    with Upstream(sum_up) as upstream:
        host = gateway.lead(upstream.port, plugin={"validate_request_body": True})
        headers = signed(
            "POST", "/x", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(b"body")}
        )
        given = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        assert Curl(authority, gateway, host, "/x", *given, "-d", "evil").end()[0] == "2 401"
        assert not upstream.peers
        assert Curl(authority, gateway, host, "/x", *given, "-d", "body").end() == ("2 200", summed(b"body"), 0)


@needs_curl
def test_refusals(gateway: Proxied, authority: Authority) -> None:
    assert Curl(authority, gateway, "nobody.test", "/").end()[0] == "2 404"
    assert Curl(authority, gateway, "nobody.test", "/a/../b", "--path-as-is").end()[0] == "2 400"


@needs_curl
@pytest.mark.parametrize("size", [1000, 3_000_000, 30_000_000])
@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
@pytest.mark.parametrize("expect", [(), ("-H", "Expect:")], ids=["expect", "at once"])
def test_refusal_reaches_a_client_that_sends_its_body(
    gateway: Proxied, authority: Authority, size: int, version: str, expect: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "body").write_bytes(bytes(size))
    for _ in range(3):
        upload = ["--data-binary", f"@{tmp_path}/body", version, *expect]
        answered, body, code = Curl(authority, gateway, "nobody.test", "/", *upload).end()
        assert answered.split()[1] == "404"
        assert (body, code) == (b'{"error_msg":"404 Route Not Found"}\n', 0)


@needs_curl
@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
@pytest.mark.parametrize("expect", [(), ("-H", "Expect:")], ids=["expect", "at once"])
def test_early_answer_reaches_a_client_that_sends_its_body(
    gateway: Proxied, authority: Authority, version: str, expect: tuple[str, ...], tmp_path: Path
) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 4\r\n\r\nstop")
        peer.wait_closed()

    (tmp_path / "body").write_bytes(bytes(10_000_000))
    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        for _ in range(3):
            upload = ["--data-binary", f"@{tmp_path}/body", version, *expect]
            answered, body, code = Curl(authority, gateway, host, "/", *upload).end()
            assert (answered.split()[1], body, code) == ("413", b"stop", 0)


@needs_curl
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
    ids=["length", "chunked", "no body"],
)
def test_truncated_answer_is_never_finished(gateway: Proxied, authority: Authority, response: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(response)

    with Upstream(script) as upstream:
        code = Curl(authority, gateway, gateway.lead(upstream.port), "/").end()[2]
    assert code in (18, 92), code  # partial file, stream not closed cleanly


@needs_curl
def test_hop_by_hop_headers_of_an_answer_do_not_break_the_stream(gateway: Proxied, authority: Authority) -> None:
    response = (
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-one\r\nx-one: 1\r\nkeep-alive: timeout=5\r\n"
        b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    with Upstream(answer(response)) as upstream:
        assert Curl(authority, gateway, gateway.lead(upstream.port), "/").end() == ("2 200", b"ok", 0)


@needs_curl
@pytest.mark.parametrize("arguments", [(), ("-T", "-", "-H", "Expect:")], ids=["GET", "upload"])
def test_client_that_leaves_ends_the_exchange(
    gateway: Proxied, authority: Authority, arguments: tuple[str, ...]
) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as upstream:
        host = gateway.lead(upstream.port)
        curl = Curl(authority, gateway, host, "/", *arguments)
        if arguments:
            assert curl.process.stdin is not None
            curl.process.stdin.write(b"begun")
            curl.process.stdin.flush()
        peer = upstream.peer()
        wait_for(lambda: b"begun" in peer.received if arguments else peer.received.endswith(b"\r\n\r\n"))
        curl.process.kill()
        curl.process.communicate()
        assert peer.closed_by_client.wait(10)
        if arguments:
            # The upload was cut off, not finished. (A head may end in 0, too.)
            assert not peer.received.endswith(b"0\r\n\r\n")
        assert gateway.access_line(host)["status"] == 499


@needs_curl
def test_client_that_leaves_before_its_body_reaches_nobody(gateway: Proxied, authority: Authority) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        curl = Curl(authority, gateway, host, "/", "-T", "-", "-H", "Expect:")
        with pytest.raises(subprocess.TimeoutExpired):
            curl.process.wait(0.5)
        curl.process.kill()
        curl.process.communicate()
        assert gateway.access_line(host)["status"] == 499
        assert not upstream.peers


def test_http_1_1_over_tls(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            for _ in range(2):
                client.send(request_bytes("GET", "/", host))
                assert client.answer().body == b"ok"
        assert seen(upstream.peer()).get("x-forwarded-proto") == "https"


def test_truncated_answer_over_tls_is_never_finished(gateway: Proxied) -> None:
    go_on = Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert go_on.wait(10)

    with Upstream(script) as upstream:
        host = gateway.lead(upstream.port)
        with gateway.client() as client:
            client.send(request_bytes("GET", "/", host))
            found = client.head()
            go_on.set()
            client.body_of(found)
    assert (found.body, found.whole) == (b"abc", False)
