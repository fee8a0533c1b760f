"""A served gateway for many small scenes: every route has a host name of its own.

    with Proxied() as gateway, Upstream(answer(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/x", host).status == 204

Imports the harness only.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

from tests.support.raw_client import Headers, RawAnswer, RawClient
from tests.support.raw_upstream import Peer, RawUpstream
from tests.support.served import Served

#: Seconds that a condition in another process may take.
PATIENCE = 10.0

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Upstream(RawUpstream):
    """A scripted upstream that hangs up when its block ends: the gateway would keep its connections idle."""

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        super().__exit__(kind, *rest)

    def peer(self, number: int = 0) -> Peer:
        """A connection by its number, once it is there."""
        wait_for(lambda: len(self.peers) > number)
        return self.peers[number]


class Proxied(Served):
    """A served gateway that takes configuration in at once. `tls` is what its clients need to speak TLS."""

    def __init__(
        self, *, environment: dict[str, str] | None = None, tls: ssl.SSLContext | None = None, **more: Any
    ) -> None:
        super().__init__(environment={"HMAC_GATEWAY_REFRESH_SECONDS": "0.02", **(environment or {})}, **more)
        self._made = 0
        self._tls = tls

    def start(self) -> None:
        super().start()
        self.put("/upstreams/nowhere", {"type": "roundrobin", "nodes": {}})
        self.put("/consumers/hmac-auth-consumer", {"username": "hmac-auth-consumer", "labels": {"custom_id": "c-7"}})
        self.put(
            "/consumers/hmac-auth-consumer/credentials/cred",
            {"plugins": {"hmac-auth": {"key_id": "client-1", "secret_key": "my-hmac-secret"}}},
        )

    def lead(
        self,
        *ports: int,
        plugin: dict[str, Any] | None = None,
        upstream: dict[str, Any] | None = None,
        route: dict[str, Any] | None = None,
    ) -> str:
        """A new host name whose requests go to these ports, once it is in force; with hmac-auth where given."""
        self._made += 1
        name = f"r{self._made}"
        nodes = [{"host": "127.0.0.1", "port": port, "weight": 1} for port in ports]
        self.put(f"/upstreams/{name}", {"type": "roundrobin", "nodes": nodes, **(upstream or {})})
        plugins = {} if plugin is None else {"hmac-auth": plugin}
        body = {"uri": "/*", "host": f"{name}.test", "upstream_id": name, "plugins": plugins}
        self.put(f"/routes/{name}", {**body, **(route or {})})
        self.enforce()
        return f"{name}.test"

    def enforce(self) -> None:
        """Wait until everything written so far is in force."""
        self._made += 1
        path = f"/made-{self._made}"
        self.put("/routes/made", {"uri": path, "host": "made.test", "upstream_id": "nowhere"})
        with self.client() as client:
            wait_for(lambda: client.ask("GET", path, "made.test").status == 503)

    def ask(
        self, method: str, target: str, host: str = "", headers: Headers = (), body: bytes | None = None
    ) -> RawAnswer:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(method, target, host, headers, body)

    def client(self, **more: Any) -> RawClient:
        """A connection to the gateway."""
        return RawClient(self.port, tls=self._tls, **more)

    def access_lines(self, host: str = "") -> list[dict[str, Any]]:
        """The access log so far; with `host` only what its route answered."""
        whole = self.log.read_text().rpartition("\n")[0]  # a line may be half written
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith('{"time"')]
        return [line for line in lines if not host or line["route"] == host.partition(".")[0]]

    def access_line(self, host: str) -> dict[str, Any]:
        """The only access line of a route, once it is written."""
        wait_for(lambda: bool(self.access_lines(host)))
        (line,) = self.access_lines(host)
        return line


def wait_for(condition: Any) -> None:
    """Wait until a condition in another process holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@dataclass
class Seen:
    """A request as the upstream got it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) < 2, found
        return found[0] if found else None


def seen(peer: Peer) -> Seen:
    """The first request on an upstream's connection; header names in lower case."""
    head, _, body = peer.received.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    pairs = (entry.split(": ", 1) for entry in rest)
    return Seen(line, [(name.lower(), value) for name, value in pairs], body)
