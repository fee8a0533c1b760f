"""The embedded lane beside a served gateway: a Django site with a ProxyView at /gw/, on the gateway's own database.

with Beside(gateway) as site:
    site.ask("GET", "/gw/x", "host.test")
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from tests.support.raw_client import Headers, RawAnswer, RawClient
from tests.support.served import ROOT, Served, free_port

if __name__ != "__main__" and os.environ.get("BESIDE"):
    import django
    from django.conf import settings

    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["*"]
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "TELEMETRY": False}
    django.setup()

    from django.core.wsgi import get_wsgi_application
    from django.urls import path

    from proxy.views import ProxyView

    urlpatterns = [path("gw/<path:path>", ProxyView.as_view()), path("gw/", ProxyView.as_view(), {"path": ""})]
    wsgi = get_wsgi_application()


class Beside:
    """A site under gunicorn that reads what `served` is configured with."""

    def __init__(self, served: Served) -> None:
        self.port = free_port()
        self._environment = {**served.environment, "BESIDE": "1", "PYTHONPATH": str(ROOT)}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "8", "--no-control-socket"]
        command += ["-b", f"127.0.0.1:{self.port}", "--log-level", "critical", "tests.support.beside:wsgi"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment)
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

    def ask(
        self, method: str, target: str, host: str = "", headers: Headers = (), body: bytes | None = None
    ) -> RawAnswer:
        """One request on a connection of its own."""
        with RawClient(self.port) as client:
            return client.ask(method, target, host, headers, body)
