"""A relay between two gateways that may tamper with what passes: raw sockets, so that nothing is repaired on the way.

    with Relay(port) as relay:                # forwards to 127.0.0.1:port
        relay.edit = lambda request: request.replace(b"x-amount: 1", b"x-amount: 9")

`seen` are the requests as they arrived, bodies included. Imports the harness only.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.proxied import Upstream
from tests.support.raw_upstream import Gone, Peer


class Relay:
    """Listens on `port`; every request goes on over a connection of its own, edited by `edit`."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._upstream = Upstream(self._pass)
        self._lock = threading.Lock()
        self.port = self._upstream.port
        self.edit: Callable[[bytes], bytes] = lambda request: request
        self.seen: list[bytes] = []

    def __enter__(self) -> Self:
        self._upstream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._upstream.__exit__(kind, error, trace)

    def _pass(self, peer: Peer) -> None:
        while True:
            try:
                request = _request(peer)
            except OSError as error:
                raise Gone from error
            with self._lock:
                self.seen.append(request)
            with socket.create_connection(("127.0.0.1", self._to), 10) as onward:
                onward.settimeout(10)
                onward.sendall(self.edit(request))
                peer.send(_answer(onward))


def _request(peer: Peer) -> bytes:
    head = peer.read_head()
    length = _length(head)
    if b"transfer-encoding: chunked" in head.lower():
        return head + peer.read_until(b"0\r\n\r\n")
    return head + peer.read(length)


def _answer(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    while len(body) < _length(head + b"\r\n"):
        piece = sock.recv(65536)
        assert piece, data
        body += piece
    return head + b"\r\n\r\n" + body


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
