"""One HTTP/1.1 connection to an upstream node, streaming both ways with back-pressure.

Used through `proxy.transport`, whose `Pool` makes, lends and takes back connections; the gateway lane is
the only caller. Imports the standard library, `.exchange` and `.reading`, nothing of Django or the gateway.
The common exchange (no body out, one block back) costs one write, one future and no timer.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, cast

from .exchange import (
    Keepalive,
    ReadTimeout,
    Response,
    SendTimeout,
    Target,
    Timeouts,
    TransportError,
    UpstreamBroken,
)
from .reading import ResponseReader

if TYPE_CHECKING:
    from .transport import Pool

#: Bytes of unread response body above which the socket is no longer read; `read` takes all and resumes.
READ_HIGH = 256 * 1024
#: Bytes of unsent request body above which `send` waits, and below which it goes on.
WRITE_HIGH = 64 * 1024
WRITE_LOW = 16 * 1024
#: Seconds by which a loop's timer may come early: uvloop counts whole milliseconds.
TICK = 0.001


class Connection(ResponseReader, asyncio.Protocol):
    """Lent by the pool for one exchange: `start`, `send`*, `finish`, `response`, `read`*, `release`.

    Every exchange ends with exactly one `release` or `abort`, also after an error or a cancellation; the
    object must not be touched afterwards. `send` may run in another task than `response` and `read`.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_failure",
        "_loop",
        "_pool",
        "_read_deadline",
        "_reader",
        "_reading_paused",
        "_send_deadline",
        "_sent",
        "_started",
        "_timeouts",
        "_timer",
        "_timer_at",
        "_transport",
        "_writer",
        "_writing_paused",
        "idle",
        "idle_until",
        "keepalive",
        "requests",
        "reused",
        "target",
    )

    _transport: asyncio.Transport
    _timeouts: Timeouts

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop, target: Target, keepalive: Keepalive) -> None:
        self._pool = pool
        self._loop = loop
        self.target = target
        self.keepalive = keepalive
        self.reused = False  # by the pool: this exchange is not the connection's first
        self.requests = 0
        self.idle = False  # in the pool's keeping
        self.idle_until = inf
        super().__init__()
        self._closed = True  # until connection_made
        self._failure: TransportError | None = None
        self._started = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._read_deadline = inf
        self._send_deadline = inf

    # -- the caller's side ------------------------------------------------------------------------------

    @property
    def response_started(self) -> bool:
        """Whether the final response head has arrived or the connection is gone: more body is pointless."""
        return self._head_done or self._closed

    def start(self, head: bytes, *, method: str, timeouts: Timeouts, body_follows: bool) -> None:
        """Write the request head, blank line included; a small body may be appended to it.

        The bytes go out as they are. `method` tells how the response is framed (HEAD has no body). With
        `body_follows` the body comes by `send`, and `finish` says that it is whole. Never raises for a
        connection that died meanwhile: `response` does.
        """
        self.begin(method)
        self._timeouts = timeouts
        self._sent = not body_follows
        self._started = True
        self.requests += 1
        if self._closed:
            self._failure = UpstreamBroken("the connection was closed before the request", stale=self.reused)
        else:
            self._transport.write(head)

    async def send(self, data: bytes) -> bool:
        """Write request body bytes (framed by the caller) and wait while too many are unsent.

        False when the final response head has arrived or the connection is gone: stop sending, `response`
        has the answer or the reason. Raises SendTimeout when the upstream takes nothing for too long.
        """
        if len(data) <= WRITE_HIGH:
            return await self._send(data)
        # In pieces, because only a drained buffer counts as progress for the timeout.
        view = memoryview(data)
        for at in range(0, len(data), WRITE_HIGH):
            if not await self._send(view[at : at + WRITE_HIGH]):
                return False
        return True

    async def _send(self, data: bytes | memoryview) -> bool:
        # A write that fails closes the transport at once, but `connection_lost` is only called by the loop, which a
        # caller with all its data at hand never gives a turn.
        gone = self._head_done or self._closed or self._transport.is_closing()
        if gone:
            return False
        self._transport.write(data)
        if self._writing_paused:
            writer = self._writer = self._loop.create_future()
            deadline = self._send_deadline = self._loop.time() + self._timeouts.send
            if deadline < self._timer_at:
                self._arm(deadline)
            try:
                await writer
            finally:
                self._writer = None
                self._send_deadline = inf
            if isinstance(self._failure, SendTimeout):
                raise self._failure
        return not (self._head_done or self._closed or self._transport.is_closing())

    def finish(self) -> None:
        """The request body is whole: from now on the upstream's silence counts against `Timeouts.read`.

        Without this a connection with `body_follows` is never reused, and `response` waits without limit.
        """
        self._sent = True
        if self._reader is not None:
            self._await_bytes()

    async def response(self) -> Response:
        """Wait for the final response head; interim (1xx) responses are dropped.

        May run while another task sends the body. Raises ReadTimeout, SendTimeout (from that other task's
        `send`) or UpstreamBroken.
        """
        if not self._head_done and self._failure is None:
            reader = self._reader = self._loop.create_future()
            if self._sent:  # until then it is the client who keeps everybody waiting
                self._await_bytes()
            try:
                await reader
            finally:
                self._reader = None
                self._read_deadline = inf
        if not self._head_done:
            raise self._error()
        if not self._complete:
            return Response(self._status, self._headers, self._version, False, b"")
        return Response(self._status, self._headers, self._version, True, self._take())

    async def read(self) -> bytes:
        """All body bytes that have arrived, or b"" at the end of a whole body.

        Raises ReadTimeout, or UpstreamBroken when the body was cut short: never a clean end for that.
        """
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return b""
            reader = self._reader = self._loop.create_future()
            self._await_bytes()
            try:
                await reader
            finally:
                self._reader = None
                self._read_deadline = inf
        return self._take()

    def release(self) -> None:
        """Give the connection back: kept for reuse when that is safe, closed otherwise."""
        if self._keep_alive and self._sent and not self._dirty and not self._closed:
            self._started = False
            self._parser = None
            if not (self._writing_paused or self._chunks) and self._pool.put(self):
                return
        self.abort()

    def abort(self) -> None:
        """Close now, dropping what is unsent. Whoever still waits in another task gets UpstreamBroken."""
        if self._failure is None and not self._complete:
            self._failure = UpstreamBroken("the exchange was aborted")
        self._close()

    # -- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
        self._closed = False

    def data_received(self, data: bytes) -> None:
        complete = self._complete
        if self._parser is None or complete:
            # Nothing was asked: whatever this answers, it is not the next request.
            self._dirty = True
            if not self._started:
                self._close()
            return
        broken = self.feed(data)
        if broken is not None:
            self._fail(broken)
            return
        if self._head_done:
            if self._buffered > READ_HIGH and not self._complete and not self._reading_paused:
                self._reading_paused = True
                self._transport.pause_reading()
            reader = self._reader
            if reader is not None and not reader.done():
                reader.set_result(None)
            writer = self._writer
            if writer is not None and not writer.done():
                writer.set_result(None)
        elif self._reader is not None and self._sent:
            self._read_deadline = self._loop.time() + self._timeouts.read

    def eof_received(self) -> None:
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # -- internals --------------------------------------------------------------------------------------

    def _error(self) -> TransportError:
        return self._failure or UpstreamBroken("no response")

    def _take(self) -> bytes:
        data = super()._take()
        if self._reading_paused and not self._closed:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def _lost(self, exc: Exception | None) -> None:
        if self._closed:
            return
        if self._started and not self._complete and self._failure is None:
            self._failure = self.cut(exc, self.reused)
        self._close()

    def _fail(self, failure: TransportError) -> None:
        self._failure = failure
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._parser = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.idle:
            self._pool.drop(self)
        self._transport.abort()
        # Results only, never exceptions: a waiter that was cancelled leaves nothing unretrieved.
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _await_bytes(self) -> None:
        """The upstream has `Timeouts.read` from now to send something. The timer is seldom touched."""
        deadline = self._read_deadline = self._loop.time() + self._timeouts.read
        if deadline < self._timer_at:
            self._arm(deadline)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        """The connection's only timer: deadlines move on without it, and it finds out when it fires."""
        self._timer = None
        self._timer_at = inf
        now = self._loop.time() + TICK
        if self._read_deadline <= now:
            self._fail(ReadTimeout(f"nothing received for {self._timeouts.read:g} s"))
        elif self._send_deadline <= now:
            self._fail(SendTimeout(f"nothing taken for {self._timeouts.send:g} s"))
        else:
            deadline = min(self._read_deadline, self._send_deadline)
            if deadline < inf:
                self._arm(deadline)
