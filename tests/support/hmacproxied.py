"""The command hmacproxy as users run it, and signatures made here with plain `hmac`.

    with Hmacproxy("-auth") as proxy:
        assert proxy.ask("GET", "/a", headers=[sign("GET\\n/a\\n")]).status == 202

Imports the harness only.
"""

from __future__ import annotations

import base64
import hmac
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.raw_client import Headers, RawAnswer, RawClient
from tests.support.served import ROOT, free_port

SECRET = "foobar"
HEADER = "X-Signature"
REFUSAL = b"unauthorized request\n"


def sign(
    string: str, body: bytes = b"", *, secret: str = SECRET, digest: str = "sha1", name: str = HEADER
) -> tuple[str, str]:
    """The signature header over a string that the test has written, and a body."""
    mac = hmac.new(secret.encode(), string.encode("latin-1") + body, digest).digest()
    return (name, f"{digest} {base64.b64encode(mac).decode()}")


class Hmacproxy:
    """`hmacproxy` with these arguments behind port, secret and signature header."""

    def __init__(
        self,
        *arguments: str,
        secret: str | None = SECRET,
        header: str = HEADER,
        environment: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="hmacproxy-test-")
        self.folder = Path(self._folder.name)
        self._log = self.folder / "log"
        self._tls = tls
        self._command = [sys.executable, "-W", "error", "-m", "hmac_gateway", "hmacproxy", "-port", str(self.port)]
        self._command += [*(["-secret", secret] if secret is not None else []), "-sign-header", header, *arguments]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "HMAC"))}
        self._environment = {**kept, "PYTHONPATH": str(ROOT), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything that was printed."""
        return self._log.read_text()

    @property
    def base(self) -> str:
        """Its address."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            # Not in the checkout: no settings and no .env are near.
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 30
        while f"port {self.port}: " not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                output = self.log
                self.__exit__(None, None, None)
                raise AssertionError(output)
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """End it; the exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def client(self) -> RawClient:
        """A connection."""
        return RawClient(self.port, tls=self._tls)

    def ask(
        self, method: str, target: str, headers: Headers = (), body: bytes | None = None, host: str = "proxy.test"
    ) -> RawAnswer:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(method, target, host, headers, body)
