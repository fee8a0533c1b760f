"""A real nginx in front, on loopback, with files of its own in a temporary folder.

    with Nginx(servers, {"8080": port}) as nginx: ...

Skips with a reason where nginx is missing. Imports the harness only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.raw_client import RawClient
from tests.support.served import free_port
from tests.support.services import missing

_MAIN = """\
{user} worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
access_log off;
client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{servers}
}}
"""


class Nginx:
    """An nginx with the given contents of `http { }`, in which `LISTEN` stands for its port."""

    def __init__(self, servers: str) -> None:
        self.port = free_port()
        self._servers = servers.replace("LISTEN", str(self.port))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            missing("nginx is not installed")
        self._folder = tempfile.TemporaryDirectory(prefix="hmac-gateway-nginx-")
        folder = Path(self._folder.name)
        config = folder / "nginx.conf"
        # Its workers must be able to write into a folder that only we can enter.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(_MAIN.format(user=user, folder=folder, servers=self._servers))
        self.log = folder / "error.log"
        output = folder / "output"
        with output.open("wb") as said:
            self._process = subprocess.Popen(
                [program, "-p", str(folder), "-c", str(config)], stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = output.read_text()
                    self.__exit__(None, None, None)
                    raise AssertionError(f"nginx does not listen:\n{text}") from None
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
        self._folder.cleanup()

    def client(self) -> RawClient:
        """A connection to it."""
        return RawClient(self.port)
