"""The embedded lane without a database: routes made by hand, in this process or served by gunicorn or granian.

    with Upstream(answer(OK)) as upstream, Embedded(ports=[upstream.port]) as site:
        site.ask("GET", "/gw/x")            # a RawAnswer

Without arguments the host name of a request says which port it goes to: `lead(port)`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tests.support.raw_client import Headers, RawAnswer, RawClient
from tests.support.served import ROOT, free_port

#: Environment variable with the arguments of `snapshot`, as JSON.
CONFIG = "EMBEDDED_SITE"
HOST = "site.test"


def snapshot(
    ports: Sequence[int] = (),
    *,
    weights: Sequence[int] = (),
    plugin: dict[str, Any] | None = None,
    seconds: float = 10.0,
    path: str = "/*",
    dialect: str = "apisix",
    strip: str = "",
    tls: bool = False,
    sign: dict[str, Any] | None = None,
    **upstream: Any,
) -> Any:
    """A configuration of one route to these ports of 127.0.0.1, with hmac-auth where `plugin` is given.

    `sign` is a `sign-request`.
    """
    from hmac_gateway.gate import Outgoing, OutgoingSet, compile_plugin
    from hmac_gateway.routing import Route, Router
    from hmac_gateway.snapshot import Snapshot, lookups
    from proxy.exchange import Keepalive, Target, Timeouts
    from proxy.plan import Forward, Node, Upstream
    from tests.support.engine import GUEST, credential, steps

    timeouts = Timeouts(seconds, seconds, seconds)
    nodes = tuple(
        Node(f"n{number}", "127.0.0.1", port, weight, Target("127.0.0.1", port, tls=tls, verify=not tls))
        for number, (port, weight) in enumerate(zip(ports, weights or [1] * len(ports), strict=True))
    )
    if "keepalive" in upstream:
        upstream["keepalive"] = Keepalive(**upstream["keepalive"])
    if any(node.weight for node in nodes):
        nodes = tuple(node for node in nodes if node.weight)
    outgoing = None
    if sign is not None:
        signer = compile_plugin("sign-request", sign, dialect)
        assert isinstance(signer, Outgoing)
        outgoing = OutgoingSet({"sign-request": signer})
    target = Forward(Upstream("u", nodes, timeouts=timeouts, **upstream), timeouts, strip, outgoing=outgoing)
    route = Route("r", (path,), () if plugin is None else steps(**plugin), target, dialect=dialect)
    table = {"client-1": credential("client-1", b"my-hmac-secret")}
    return Snapshot(1, Router([route]), lookups=lookups({"hmac-auth": table}), consumers={"guest": GUEST})


def lead(port: int) -> str:
    """The host name that leads to a port, where a site was configured with nothing."""
    return f"p{port}.test"


class ByHost:
    """Stands for a router: host names are ports."""

    def match(self, host: str, path: str, message: Any) -> Any:
        """A route to the port in a host name."""
        return snapshot([int(host.split(".")[0][1:])]).routes.match(host, path, message)


class Fixed:
    """Stands for the process's runtime."""

    def __init__(self, found: Any) -> None:
        self.snapshot = found

    def current(self) -> Any:
        """The snapshot."""
        return self.snapshot


class Embedded:
    """A Django site with a ProxyView, in a process of its own; arguments are those of `snapshot`."""

    def __init__(self, server: str = "gunicorn", **config: Any) -> None:
        self.port = free_port()
        self._config = config
        address = f"127.0.0.1:{self.port}"
        commands = {
            "gunicorn": ["gunicorn", "-k", "gthread", "--threads", "8", "-b", address, "--log-level", "critical"]
            + ["--no-control-socket", "tests.support.embedded_site:wsgi"],
            "granian": ["granian", "--interface", "asgi", "--no-ws", "--log-level", "critical"]
            + ["--host", "127.0.0.1", "--port", str(self.port), "tests.support.embedded_site:asgi"],
        }
        self._command = [sys.executable, "-m", *commands[server]]

    def __enter__(self) -> Self:
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", CONFIG: json.dumps(self._config)}
        self._process = subprocess.Popen(self._command, cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)})
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(15)

    def client(self, **more: Any) -> RawClient:
        """A connection to the site."""
        return RawClient(self.port, **more)

    def ask(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> RawAnswer:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(method, target, HOST, headers, body)

    def pids(self) -> list[int]:
        """The process and its children."""
        children = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True).stdout
        return [self._process.pid, *(int(line) for line in children.split())]
