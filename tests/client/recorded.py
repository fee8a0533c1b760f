"""A server that records requests byte by byte and answers what a test wants; both verifiers' verdicts on a request.

Used by the tests of the client kit. A recorded request's target and headers are what stood on the wire.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.message import Message
from hmac_gateway.gate import check
from tests.support import engine, naive_verifier
from tests.support.raw_upstream import Peer, RawUpstream

KEY_ID = "client-1"
SECRET = b"my-hmac-secret"


@dataclass
class Recorded:
    """One request as it came over the wire: text is bytes-as-text, `body` is without its chunk framing."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def value(self, name: str) -> str:
        (found,) = self.values(name)
        return found

    @property
    def listed(self) -> list[str]:
        return self.value("authorization").split('headers="')[1].partition('"')[0].split(" ")


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


def redirect(location: str, status: int = 307) -> bytes:
    return f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


class Recorder(RawUpstream):
    """Keeps `requests`; `respond(request)` gives the bytes to answer with, None to hang up."""

    def __init__(self, respond: Callable[[Recorded], bytes | None] = lambda request: OK, **more: Any) -> None:
        self.requests: list[Recorded] = []
        self.respond = respond
        super().__init__(self._script, **more)

    def __exit__(self, *how: Any) -> None:
        for peer in self.peers:  # clients keep connections open
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        super().__exit__(*how)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Recorded:
        return self.requests[-1]

    def _script(self, peer: Peer) -> None:
        while True:
            request = read_request(peer)
            self.requests.append(request)
            answer = self.respond(request)
            if answer is None:
                return
            peer.send(answer)


def read_request(peer: Peer) -> Recorded:
    """Head and body of the next request on a connection."""
    first, *lines = peer.read_head().decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    given = {name.lower(): value for name, value in headers}
    body = b""
    if "chunked" in given.get("transfer-encoding", ""):
        while size := int(peer.read_until(b"\r\n"), 16):
            body += peer.read(size)
            assert peer.read(2) == b"\r\n"
        assert peer.read(2) == b"\r\n"
    else:
        body = peer.read(int(given.get("content-length", "0")))
    return Recorded(method, target, headers, body)


#: What the strictest route asks for.
STRICT: dict[str, Any] = {"signed_headers": ["@request-target", "date"], "validate_request_body": True}


def accepted(request: Recorded, secret: bytes = SECRET, key_id: str = KEY_ID, **config: Any) -> bool:
    """Whether the product accepts a request, body included; the independent verifier must say the same."""
    config = STRICT | config
    now = time.time()
    naive = naive_verifier.accepts(
        request.method,
        request.target,
        request.headers,
        {key_id: [secret]},
        now,
        required=config["signed_headers"],
        body=request.body if config["validate_request_body"] else None,
    )
    ours = product_accepts(request, secret, key_id, now, config)
    assert ours == naive, request
    return ours


def product_accepts(request: Recorded, secret: bytes, key_id: str, now: float, config: dict[str, Any]) -> bool:
    message = Message(request.method, request.target, request.headers)
    people = engine.directory(engine.credential(key_id, secret))
    admission = check(message, engine.steps(**config), people, now)
    if isinstance(admission, Rejected):
        return False
    digests = admission.digests()
    for digest in digests:
        digest.feed(request.body)
    return admission.finish(digests) is None
