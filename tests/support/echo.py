"""The demo's echo upstream, served by granian in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from tests.support.served import ROOT, free_port


class EchoUpstream:
    """`node` is its "host:port"."""

    def __init__(self) -> None:
        self.port = free_port()
        self.node = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "granian", "--interface", "asgi", "--no-ws", "--log-level", "error"]
            + ["--host", "127.0.0.1", "--port", str(self.port), "hmac_gateway.echo:echo"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        import socket

        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
