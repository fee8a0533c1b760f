"""Proxies for a whole module, before an upstream that remembers what reached it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.support.hmacproxied import Hmacproxy
from tests.support.raw_upstream import Gone, Peer, RawUpstream

ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: there\r\nx-request-id: theirs\r\nx-two: 1\r\nx-two: 2\r\n\r\nok"
)


class Seen:
    """An upstream on `port`. `requests` are (head, body), the head's lines as received."""

    def __init__(self) -> None:
        self.requests: list[tuple[list[str], bytes]] = []
        self.answer = ANSWER
        self._raw = RawUpstream(self._serve)

    @property
    def port(self) -> int:
        return self._raw.port

    def _serve(self, peer: Peer) -> None:
        # The proxy keeps its connections, however long the tests between two requests take.
        peer.sock.settimeout(None)
        while True:
            lines = peer.read_head().decode("latin-1").split("\r\n")[:-2]
            lengths = [line.partition(": ")[2] for line in lines if line.startswith("content-length: ")]
            body = peer.read(int(lengths[0])) if lengths else b""
            self.requests.append((lines, body))
            peer.send(self.answer)

    def last(self) -> tuple[str, dict[str, str], bytes]:
        """Request line, headers and body of what came last; a header that came twice is an error."""
        (line, *rest), body = self.requests[-1]
        headers = dict(one.split(": ", 1) for one in rest)
        assert len(headers) == len(rest), rest
        return line, headers, body

    def __enter__(self) -> Seen:
        self._raw.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        # Connections are kept alive: the proxy would not hang up by itself.
        for peer in self._raw.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(Gone):
            self._raw.__exit__(None)


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    with Seen() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def signing(seen: Seen) -> Iterator[Hmacproxy]:
    """Signs, with two headers, a limit and spools that soon go to a file."""
    arguments = ("-upstream", f"http://127.0.0.1:{seen.port}", "-headers", "Date,X-Many", "-max-body", "3000000")
    with Hmacproxy(*arguments) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def guarding(seen: Seen) -> Iterator[Hmacproxy]:
    """Verifies for the upstream."""
    arguments = ("-auth", "-upstream", f"http://127.0.0.1:{seen.port}/", "-headers", "Date,X-Many", "-digest", "sha256")
    with Hmacproxy(*arguments) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def answering() -> Iterator[Hmacproxy]:
    """Answers for another proxy."""
    with Hmacproxy("-auth") as proxy:
        yield proxy
