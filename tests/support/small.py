"""A gateway with one open route and no database: `python -m tests.support.small PORT UPSTREAM_PORT SILENCE`.

Served as the real one is, for what no setting reaches: `SILENCE` is how long a client may keep it waiting, in seconds.
`SmallGateway` runs it in a process of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from tests.support.served import ROOT, free_port


class SmallGateway:
    """The process, inside a `with` block; it listens on `port`."""

    def __init__(self, upstream_port: int, silence: float) -> None:
        self.port = free_port()
        self._arguments = [str(self.port), str(upstream_port), str(silence)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.small", *self._arguments],
            cwd=ROOT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(15)


def main(port: int, upstream_port: int, silence: float) -> None:
    """Serve until SIGTERM."""
    import django
    import uvloop

    django.setup()
    from hmac_gateway.routing import Route, Router
    from hmac_gateway.serving import Listener, serve
    from hmac_gateway.snapshot import Snapshot
    from hmac_gateway.stores import MemoryStore
    from proxy.gateway import Gateway
    from proxy.plan import Forward, Node, Upstream
    from proxy.transport import Target, Timeouts

    node = Node("node", "127.0.0.1", upstream_port, 1, Target("127.0.0.1", upstream_port))
    timeouts = Timeouts(10.0, 10.0, 10.0)
    route = Route("r", ("/*",), (), Forward(Upstream("u", (node,), timeouts=timeouts), timeouts))
    snapshot = Snapshot(1, Router([route]))
    gateway = Gateway(lambda: snapshot, MemoryStore(10), client_silence=silence)
    uvloop.run(serve(gateway, Listener("gateway", "127.0.0.1", port)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
