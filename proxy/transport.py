"""The gateway lane's HTTP/1.1 client: connections to upstream nodes, kept alive and reused.

`proxy.gateway` takes a `Connection` from a `Pool`, sends one request, streams the response, and gives it
back. Imports the standard library, `.connection`, `.exchange`, `.tls`. One pool belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import socket
from math import inf

from .connection import TICK, Connection
from .exchange import (
    ConnectFailed,
    ConnectTimeout,
    Keepalive,
    NameUnresolved,
    ReadTimeout,
    Response,
    SendTimeout,
    Target,
    Timeouts,
    TransportError,
    UpstreamBroken,
)
from .tls import Contexts

__all__ = [
    "ConnectFailed",
    "ConnectTimeout",
    "Connection",
    "Keepalive",
    "Pool",
    "ReadTimeout",
    "Response",
    "SendTimeout",
    "Target",
    "Timeouts",
    "TransportError",
    "UpstreamBroken",
]


class Pool:
    """Connections by target. Not thread-safe; bound to `loop`, or to the first loop that connects."""

    __slots__ = ("_closed", "_contexts", "_idle", "_loop", "_sweep_at", "_sweeper")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._closed = False
        # Insertion order is the order of release: the last is the one to reuse, the first the one to drop.
        self._idle: dict[Target, dict[Connection, None]] = {}
        self._contexts = Contexts()
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = inf

    def idle_now(self, target: Target, keepalive: Keepalive | None = None) -> Connection | None:
        """The idle connection used last, without waiting, or None."""
        idle = self._idle.get(target)
        if not idle:
            return None
        connection = idle.popitem()[0]
        connection.idle = False
        connection.reused = True
        if keepalive is not None:
            connection.keepalive = keepalive
        return connection

    async def acquire(
        self,
        target: Target,
        timeouts: Timeouts,
        keepalive: Keepalive = Keepalive(),  # noqa: B008 - immutable
    ) -> Connection:
        """An idle connection, or a new one. Raises ConnectFailed or ConnectTimeout."""
        connection = self.idle_now(target, keepalive)
        if connection is not None:
            return connection
        return await self.connect(target, timeouts, keepalive)

    async def connect(
        self,
        target: Target,
        timeouts: Timeouts,
        keepalive: Keepalive = Keepalive(),  # noqa: B008 - immutable
    ) -> Connection:
        """A new connection, whatever is idle: for the retry after a stale one. Raises as `acquire` does."""
        if self._closed:
            raise ConnectFailed("the pool is closed")
        loop = self._bound()
        connection = Connection(self, loop, target, keepalive)
        try:
            async with asyncio.timeout(timeouts.connect):
                if target.tls:
                    await loop.create_connection(
                        lambda: connection,
                        target.host,
                        target.port,
                        ssl=self._contexts.of(target),
                        server_hostname=target.server_name or target.host,
                        ssl_handshake_timeout=timeouts.connect,
                        ssl_shutdown_timeout=1.0,
                    )
                else:
                    await loop.create_connection(lambda: connection, target.host, target.port)
        except TimeoutError as error:  # ours, or the kernel's
            connection.abort()
            raise ConnectTimeout(f"{target.host}:{target.port}: no connection in time") from error
        except (socket.gaierror, UnicodeError) as error:  # UnicodeError: a name that IDNA cannot encode
            connection.abort()
            raise NameUnresolved(f"{target.host}:{target.port}: {error}") from error
        except (OSError, ValueError, OverflowError) as error:
            connection.abort()
            raise ConnectFailed(f"{target.host}:{target.port}: {error}") from error
        except BaseException:
            connection.abort()
            raise
        return connection

    def idle_count(self, target: Target) -> int:
        """How many idle connections are kept for `target`."""
        return len(self._idle.get(target, ()))

    async def close(self) -> None:
        """Close the idle connections now, and the lent ones when they are released."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.abort()
        await asyncio.sleep(0)  # let the transports close their sockets

    # -- for Connection ---------------------------------------------------------------------------------

    def put(self, connection: Connection) -> bool:
        """Keep an idle connection; False when it has served its time. Of too many the oldest goes."""
        keepalive = connection.keepalive
        if self._closed or keepalive.size < 1 or connection.requests >= keepalive.requests:
            return False
        idle = self._idle.get(connection.target)
        if idle is None:
            idle = self._idle[connection.target] = {}
        while len(idle) >= keepalive.size:
            next(iter(idle)).abort()
        connection.idle = True
        until = connection.idle_until = self._bound().time() + keepalive.idle_timeout
        idle[connection] = None
        if until < self._sweep_at:
            self._arm(until)
        return True

    def drop(self, connection: Connection) -> None:
        """Forget an idle connection that has closed."""
        connection.idle = False
        idle = self._idle.get(connection.target)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.target]

    # -- internals --------------------------------------------------------------------------------------

    def _bound(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return loop

    def _arm(self, when: float) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweep_at = when
        self._sweeper = self._bound().call_at(when, self._sweep)

    def _sweep(self) -> None:
        """The pool's only timer: closes what idled too long and sleeps until the next one is due."""
        self._sweeper = None
        self._sweep_at = due = inf
        now = self._bound().time() + TICK
        for target, idle in list(self._idle.items()):
            for connection in list(idle):
                if connection.idle_until <= now:
                    connection.abort()
                elif connection.idle_until < due:
                    due = connection.idle_until
            if not idle:
                self._idle.pop(target, None)
        if due < inf:
            self._arm(due)
