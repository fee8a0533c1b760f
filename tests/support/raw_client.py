"""A client that sends bytes as they are and says how an answer ended. Standard library only.

    with RawClient(port) as client:
        client.send(b"GET / HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n")
        answer = client.answer()
    assert answer.whole          # False where the connection ended inside the answer

Every blocking call gives up after `PATIENCE` seconds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

PATIENCE = 15.0

Headers = Iterable[tuple[str, str]]


@dataclass
class RawAnswer:
    """One answer. `headers` in the order received, names in lower case; `whole`: it ended as it announced.

    `framing` is "none", "length", "chunked" or "close"; an answer that lasts until the close is never `whole`.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = False
    framing: str = "none"
    interim: list[int] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """The only value of a header, or None; twice is an error."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, found
        return found[0] if found else None

    def json(self) -> Any:
        import json

        return json.loads(self.body)


class Ended(Exception):
    """The server closed or reset the connection."""


def request_bytes(
    method: str, target: str, host: str = "", headers: Headers = (), body: bytes | None = None, version: str = "1.1"
) -> bytes:
    """A request; `body` brings a Content-Length."""
    lines = [f"{method} {target} HTTP/{version}", *([f"host: {host}"] if host else [])]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class RawClient:
    """One connection to 127.0.0.1:`port`. `receive_buffer` bounds what the kernel takes for a slow reader."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        self.sock: socket.socket = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(("127.0.0.1", port))
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.sock.sendall(data)

    def send_until_refused(self, data: bytes, times: int) -> int:
        """Send `data` again and again; how often it went before the server would take no more."""
        for count in range(times):
            try:
                self.sock.sendall(data)
            except OSError:
                return count
        return times

    def ask(
        self, method: str, target: str, host: str = "", headers: Headers = (), body: bytes | None = None
    ) -> RawAnswer:
        """Send a request and read its answer."""
        self.send(request_bytes(method, target, host, headers, body))
        return self.answer(method)

    def close(self) -> None:
        """Close: FIN."""
        self.sock.close()

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # --- reading ---

    def some(self) -> bytes:
        """What arrives next; Ended at the end."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise
        except OSError as error:
            raise Ended from error
        if not data:
            raise Ended
        return data

    def until(self, end: bytes) -> bytes:
        """Everything up to and including `end`."""
        data = bytearray()
        while end not in data:
            data += self.some()
        cut = data.index(end) + len(end)
        self._unread = bytes(data[cut:])
        return bytes(data[:cut])

    def exactly(self, size: int, into: bytearray) -> None:
        """`size` bytes onto `into`; what came before an end is kept."""
        while size:
            data = self.some()
            into += data[:size]
            self._unread = data[size:]
            size -= len(data[:size])

    def head(self) -> RawAnswer:
        """The head of a final answer; interim ones are noted."""
        interim: list[int] = []
        while True:
            lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            pairs = [line.split(":", 1) for line in lines[1:] if line]
            if status >= 200:
                return RawAnswer(status, [(n.lower(), v.strip()) for n, v in pairs], interim=interim)
            interim.append(status)

    def answer(self, method: str = "GET") -> RawAnswer:
        """A final answer, as far as it comes."""
        found = self.head()
        self.body_of(found, method)
        return found

    def body_of(self, found: RawAnswer, method: str = "GET") -> None:
        """Read the body that belongs to a head."""
        body = bytearray(found.body)
        length = found.get("content-length")
        with contextlib.suppress(Ended):
            if method == "HEAD" or found.status in (204, 304):
                found.whole = True
            elif found.get("transfer-encoding") == "chunked":
                found.framing = "chunked"
                while size := int(self.until(b"\r\n").split(b";")[0], 16):
                    self.exactly(size, body)
                    assert self.until(b"\r\n") == b"\r\n"
                assert self.until(b"\r\n") == b"\r\n"
                found.whole = True
            elif length is not None:
                found.framing = "length"
                self.exactly(int(length), body)
                found.whole = True
            else:
                found.framing = "close"
                while True:
                    body += self.some()
        found.body = bytes(body)

    def rest(self) -> bytes:
        """Everything until the server closes."""
        data = bytearray()
        with contextlib.suppress(Ended):
            while True:
                data += self.some()
        return bytes(data)
