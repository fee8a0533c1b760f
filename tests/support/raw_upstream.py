"""A scripted TCP server on 127.0.0.1, for tests that need an upstream to misbehave byte by byte.

    def script(peer: Peer) -> None:          # runs in its own thread, once per accepted connection
        peer.read_head()                     # the request head, up to and including the blank line
        peer.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhel")
        peer.reset()                         # RST; or peer.close() for FIN; returning closes too

    with RawUpstream(script) as upstream:
        ...connect to 127.0.0.1:upstream.port...
    assert upstream.peers[0].received.startswith(b"GET / ")

Several scripts serve the connections in order, the last one all that follow. `answer(...)` makes the usual
script: one canned response per request, then keep the connection open until the client leaves. An exception
in a script (other than the client's leaving) fails the test when the `with` block ends. Every blocking call
gives up after `PATIENCE` seconds. Pass `tls=` an ssl.SSLContext to speak TLS. Standard library only.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable

#: Seconds after which a blocked script gives up; far beyond what any test needs.
PATIENCE = 10.0


class Gone(Exception):
    """The client closed or reset the connection while the script was still reading or writing."""


class Peer:
    """The server's end of one connection. `received` collects all bytes read so far."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = bytearray()
        self._unread = b""
        self.closed_by_client = threading.Event()

    @property
    def received(self) -> bytes:
        """All bytes read so far."""
        return bytes(self._received)

    def read_some(self) -> bytes:
        """Whatever arrives next; raises Gone at the end."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise
        except OSError as error:
            self.closed_by_client.set()
            raise Gone from error
        if not data:
            self.closed_by_client.set()
            raise Gone
        self._received += data
        return data

    def read_until(self, end: bytes) -> bytes:
        """Everything up to and including `end`."""
        data = bytearray()
        while end not in data:
            data += self.read_some()
        cut = data.index(end) + len(end)
        self._unread = bytes(data[cut:])
        return bytes(data[:cut])

    def read_head(self) -> bytes:
        """One request head, blank line included."""
        return self.read_until(b"\r\n\r\n")

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes of body."""
        data = bytearray()
        while len(data) < size:
            data += self.read_some()
        self._unread = bytes(data[size:])
        return bytes(data[:size])

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises Gone if the client left."""
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            self.closed_by_client.set()
            raise Gone from error

    def wait_closed(self) -> None:
        """Read and keep whatever comes until the client closes."""
        with contextlib.suppress(Gone):
            while True:
                self.read_some()

    def shutdown(self) -> None:
        """Send FIN, and go on receiving."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close: FIN, or RST if unread bytes are waiting."""
        self.sock.close()

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], None]


def answer(*responses: bytes) -> Script:
    """One response per request head, the last one for all that follow, until the client leaves."""

    def script(peer: Peer) -> None:
        served = 0
        while True:
            peer.read_head()
            peer.send(responses[min(served, len(responses) - 1)])
            served += 1

    return script


class RawUpstream:
    """Listens on `port` of 127.0.0.1 inside a `with` block; `peers` are the connections in order."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:  # small, so that a client's unread bytes soon stay with the client
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._open = True

    def __enter__(self) -> RawUpstream:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open = False
        with contextlib.suppress(OSError):  # wakes accept()
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if kind is not None:
            for peer in self.peers:
                with contextlib.suppress(OSError):
                    peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE + 1)
        for peer in self.peers:
            peer.sock.close()
        if kind is None and self.errors:
            raise self.errors[0]

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while self._open:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            peer = Peer(sock)
            script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
            self.peers.append(peer)
            self._start(self._serve, peer, script)

    def _serve(self, peer: Peer, script: Script) -> None:
        try:
            if self._tls is not None:
                try:
                    peer.sock = self._tls.wrap_socket(peer.sock, server_side=True)
                except OSError:  # the client refused us: its side of the test tells
                    return
            script(peer)
        except Gone:
            pass
        except BaseException as error:  # raised again by __exit__
            self.errors.append(error)
        finally:
            peer.sock.close()
