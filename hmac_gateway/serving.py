"""One listening process: a granian server around one of our ASGI applications.

Run by the supervisor as `python -m hmac_gateway.serving`, with what it serves as JSON in the environment; several
processes listen on one address (SO_REUSEPORT) and the kernel spreads connections. One process is one event loop:
killing it takes nobody else along.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import threading
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

#: Environment variable that carries a `Listener` as JSON.
LISTENER: Final = "HMAC_GATEWAY_LISTENER"
#: Environment variable with the name under which the process reports; the one that replaces it has the same.
WORKER: Final = "HMAC_GATEWAY_WORKER"

#: Seconds that a client may take for a request's head.
HEAD_TIMEOUT: Final = 30
#: Connections of one process, if it may have so many files open.
MAX_CONNECTIONS: Final = 10_000
#: Requests at a time on one HTTP/2 connection (granian: 200).
MAX_STREAMS: Final = 50
#: Largest request head in bytes; granian answers 431 beyond it.
MAX_HEAD: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Listener:
    """What a process serves and where. `app` is a key of `APPS`; `cert` and `key` are PEM files."""

    app: str
    host: str
    port: int
    cert: str = ""
    key: str = ""

    def to_json(self) -> str:
        """The text for the environment."""
        return json.dumps(asdict(self))

    @property
    def url(self) -> str:
        """The address as a person would type it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.cert else 'http'}://{host}:{self.port}"


def _gateway() -> Any:
    from django.apps import apps

    # The proxy app is relocatable: its import name is only known to Django.
    return import_module(f"{apps.get_app_config('hmac_proxy').name}.assembly").build()


def _console() -> Any:
    from django.core.asgi import get_asgi_application

    from .status import StatusApp

    return StatusApp(get_asgi_application())


def _kong_admin() -> Any:
    from .admin_api.kong_listener import build

    return build(open_to_all=False)


def _kong_admin_open() -> Any:
    from .admin_api.kong_listener import build

    return build(open_to_all=True)


def _status() -> Any:
    from .status import StatusApp

    return StatusApp(None)


def _echo() -> Any:
    from .echo import echo

    return echo


#: The applications a process can serve.
APPS: Final = {
    "gateway": _gateway,
    "console": _console,
    "status": _status,
    "kong-admin": _kong_admin,
    "kong-admin-open": _kong_admin_open,
    "echo": _echo,
}


def _connections() -> int:
    """How many connections a process takes: a third of its files, which leaves room for upstreams and spools."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(256, min(MAX_CONNECTIONS, files // 3))


async def serve(app: Any, listener: Listener, stopping: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM, SIGINT, or `stopping` is set; requests that were read are finished first."""
    from granian.constants import HTTPModes, Interfaces, SSLProtocols
    from granian.http import HTTP1Settings, HTTP2Settings
    from granian.log import LogLevels
    from granian.server.embed import Server

    server = Server(
        app,
        address=listener.host,
        port=listener.port,
        interface=Interfaces.ASGI,
        # Telling HTTP/1.1 and HTTP/2 apart waits without limit for a first byte; browsers speak HTTP/2 by TLS only.
        http=HTTPModes.auto if listener.cert else HTTPModes.http1,
        websockets=False,
        backlog=1024,
        # Of connections, idle ones included; by default as many as the backlog, and then nobody else gets in.
        backpressure=_connections(),
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_TIMEOUT * 1000, max_buffer_size=MAX_HEAD),
        # Granian's default for heads is 16 MiB. Pings end what is dead; the interval is in ms, the time-out in s.
        http2_settings=HTTP2Settings(
            max_headers_size=MAX_HEAD,
            keep_alive_interval=HEAD_TIMEOUT * 1000,
            keep_alive_timeout=HEAD_TIMEOUT,
            # Each may hold megabytes for a client that does not read.
            max_concurrent_streams=MAX_STREAMS,
        ),
        log_level=LogLevels.error,
        ssl_cert=Path(listener.cert) if listener.cert else None,
        ssl_key=Path(listener.key) if listener.key else None,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    if stopping is not None:
        waiter = loop.create_task(stopping.wait())
        waiter.add_done_callback(lambda _: server.stop())
    await server.serve()


def _end_with_parent() -> None:
    """A listener whose supervisor was killed must not go on holding the address."""
    # The supervisor keeps the other end of our standard input open as long as it lives. Not by sys.stdin: a
    # daemon thread inside its buffer would be in the way when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """The process's entry point."""
    listener = Listener(**json.loads(os.environ.pop(LISTENER)))
    threading.Thread(target=_end_with_parent, name="hmac-gateway-parent", daemon=True).start()
    if listener.app != "echo":
        import django

        django.setup()
    app = APPS[listener.app]()
    # What is loaded stays; requests make garbage without cycles, which the collector need not look for so often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    try:
        import uvloop

        uvloop.run(serve(app, listener))
    except ImportError:
        asyncio.run(serve(app, listener))


if __name__ == "__main__":
    main()
