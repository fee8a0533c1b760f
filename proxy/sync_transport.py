"""The embedded lane's HTTP/1.1 client: blocking connections to upstream nodes, kept alive, shared by threads.

`proxy.forwarding` takes a `SyncConnection` from a `SyncPool`, sends one request, streams the response and gives it
back. Imports the standard library, `.exchange`, `.reading`, `.tls`. Not `requests` or `http.client`: both rewrite or
refuse some request targets, and http.client takes for whole what was cut short.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Final

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
)
from .reading import ResponseReader
from .tls import Contexts

#: Bytes taken from a socket at once.
_BLOCK: Final = 64 * 1024
_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE
#: poll() where there is one: select() knows no descriptor above 1023, and epoll costs a descriptor more.
_Selector: Final[type[selectors.BaseSelector]] = getattr(selectors, "PollSelector", selectors.SelectSelector)
#: SO_LINGER, on and 0 seconds: closing resets.
_RESET: Final = struct.pack("ii", 1, 0)
#: Seconds between two looks for idle connections whose time is over.
_SWEEP: Final = 1.0


class SyncConnection(ResponseReader):
    """Lent by the pool for one exchange: `start`, `send`*, `finish`, `response`, `read`*, `release`.

    Every exchange ends with one `release` or `abort`. To be used by one thread at a time; `interrupt` alone may come
    from another.
    """

    __slots__ = (
        "_closed",
        "_failure",
        "_pool",
        "_sent",
        "_sock",
        "_timeouts",
        "idle_until",
        "keepalive",
        "over",
        "requests",
        "reused",
        "target",
    )

    _timeouts: Timeouts

    def __init__(self, pool: SyncPool, sock: socket.socket, target: Target, keepalive: Keepalive) -> None:
        super().__init__()
        self._pool = pool
        self._sock = sock
        self._closed = False
        self._failure: TransportError | None = None
        self._sent = False
        self.target = target
        self.keepalive = keepalive
        self.requests = 0
        #: Called once, when the exchange under way is over.
        self.over: Callable[[], None] | None = None
        self.reused = False
        self.idle_until = 0.0

    def start(self, head: bytes, *, method: str, timeouts: Timeouts, body_follows: bool) -> None:
        """Write the request head, blank line included, as it is.

        With `body_follows` the body comes by `send`, and `finish` says that it is whole. Raises SendTimeout; that the
        connection died is told by `response`.
        """
        self.begin(method)
        self._timeouts = timeouts
        self._sent = not body_follows
        self.requests += 1
        self.send(head)

    def send(self, data: bytes) -> bool:
        """Write bytes of the request body (framed by the caller), for as long as the upstream takes some.

        False when the final response head has arrived or the connection is gone: stop sending, `response` has the
        answer or the reason. Raises SendTimeout when the upstream takes nothing for `Timeouts.send` seconds.
        """
        if self._over():
            return False
        sock = self._sock
        sock.settimeout(0)
        if not self._sent and self._ready(_READ, 0) and not self._receive():
            return False
        view = memoryview(data)
        while view:
            wanted = _READ | _WRITE
            try:
                view = view[sock.send(view) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass
            except ssl.SSLWantReadError:
                wanted = _READ
            except OSError:
                return False  # what the upstream said before it hung up may still be there to be read
            ready = self._ready(wanted, self._timeouts.send)
            if not ready:
                self._failure = SendTimeout(f"nothing taken for {self._timeouts.send:g} s")
                raise self._failure
            if ready & _READ and not self._receive():
                return False
        return True

    def finish(self) -> None:
        """The request body is whole. Without this a connection with `body_follows` is never reused."""
        self._sent = True

    def response(self) -> Response:
        """Wait for the final response head; interim (1xx) responses are dropped.

        Raises ReadTimeout or UpstreamBroken.
        """
        self._sock.settimeout(self._timeouts.read)
        while not self._head_done:
            if self._failure is not None:
                raise self._failure
            self._receive()
        if not self._complete:
            return Response(self._status, self._headers, self._version, False, b"")
        return Response(self._status, self._headers, self._version, True, self._take())

    def read(self) -> bytes:
        """All body bytes that have arrived, or b"" at the end of a whole body.

        Raises ReadTimeout, or UpstreamBroken when the body was cut short: never a clean end for that.
        """
        self._sock.settimeout(self._timeouts.read)
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return b""
            self._receive()
        return self._take()

    def release(self) -> None:
        """Give the connection back: kept for reuse when that is safe, closed otherwise."""
        self._end()
        if self._keep_alive and self._sent and not (self._dirty or self._closed or self._chunks):
            self._parser = None
            if self._pool.put(self):
                return
        self.abort()

    def abort(self) -> None:
        """Close now, dropping what is unsent."""
        self._end()
        if self._closed:
            return
        self._closed = True
        if not (self._complete and self._sent):
            # By RST: after `interrupt` the kernel opens no window any more, and an upstream that waits for one would
            # not be told for a minute that nobody is there.
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()

    def interrupt(self) -> None:
        """Make whoever reads or writes in another thread end with UpstreamBroken. Closes nothing by itself."""
        # Not SSLSocket.shutdown: it takes TLS off under the other thread's hands.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def usable(self) -> bool:
        """Whether an idle connection is still open and silent: any byte that nobody asked for ends it."""
        return not self._ready(_READ, 0)

    # -- internals --------------------------------------------------------------------------------------

    def _end(self) -> None:
        over, self.over = self.over, None
        if over is not None:
            over()

    def _over(self) -> bool:
        return self._head_done or self._failure is not None

    def _ready(self, events: int, seconds: float) -> int:
        """Which of `events` the socket is ready for, waiting for at most so many seconds; 0: none."""
        if events & _READ and isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return _READ
        with _Selector() as selector:
            selector.register(self._sock, events)
            ready = selector.select(seconds)
        return ready[0][1] if ready else 0

    def _receive(self) -> bool:
        """Take in what arrives next, waiting as the socket's timeout says; False once nothing more should be sent."""
        try:
            data = self._sock.recv(_BLOCK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except TimeoutError as error:
            if error.errno is None:  # ours, not the kernel's
                self._failure = ReadTimeout(f"nothing received for {self._timeouts.read:g} s")
            else:
                self._failure = self.cut(error, self.reused)
        except OSError as error:
            self._failure = self.cut(error, self.reused)
        else:
            self._failure = self.feed(data) if data else self.cut(None, self.reused)
            if not data:
                self._dirty = True
        return not self._over()


class SyncPool:
    """Idle connections by target, for all threads of a process. Lent connections are as many as there are threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The last of a list is the one used last: the first to be reused, the last to be dropped.
        self._idle: dict[Target, list[SyncConnection]] = {}
        self._contexts = Contexts()
        self._swept = 0.0

    def take(self, target: Target, keepalive: Keepalive) -> SyncConnection | None:
        """The idle connection used last that is still open, or None."""
        while True:
            with self._lock:
                idle = self._idle.get(target)
                if not idle:
                    return None
                connection = idle.pop()
            if time.monotonic() < connection.idle_until and connection.usable():
                connection.reused = True
                connection.keepalive = keepalive
                return connection
            connection.abort()

    def connect(self, target: Target, timeouts: Timeouts, keepalive: Keepalive) -> SyncConnection:
        """A new connection, whatever is idle. Raises ConnectFailed or ConnectTimeout.

        Resolving the name is the system's, and has the system's time limit.
        """
        deadline = time.monotonic() + timeouts.connect
        where = f"{target.host}:{target.port}"
        try:
            sock = _connected(target, deadline)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if target.tls:
                    sock = self._secured(sock, target, deadline)
            except BaseException:
                sock.close()
                raise
        except TimeoutError as error:
            raise ConnectTimeout(f"{where}: no connection in time") from error
        except (socket.gaierror, UnicodeError) as error:  # UnicodeError: a name that IDNA cannot encode
            raise NameUnresolved(f"{where}: {error}") from error
        except (OSError, ValueError, OverflowError) as error:
            raise ConnectFailed(f"{where}: {error}") from error
        return SyncConnection(self, sock, target, keepalive)

    def put(self, connection: SyncConnection) -> bool:
        """Keep an idle connection; False when it has served its time. Of too many the oldest goes."""
        keepalive = connection.keepalive
        if keepalive.size < 1 or connection.requests >= keepalive.requests:
            return False
        now = time.monotonic()
        connection.idle_until = now + keepalive.idle_timeout
        with self._lock:
            idle = self._idle.setdefault(connection.target, [])
            gone = idle[: max(0, len(idle) + 1 - keepalive.size)]
            del idle[: len(gone)]
            idle.append(connection)
            if now - self._swept >= _SWEEP:
                self._swept = now
                gone += self._expired(now)
        for old in gone:
            old.abort()
        return True

    def idle_count(self, target: Target) -> int:
        """How many idle connections are kept for `target`."""
        return len(self._idle.get(target, ()))

    def close(self) -> None:
        """Close the idle connections. Takes no lock: a forked child may have inherited it locked."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.abort()

    def _expired(self, now: float) -> list[SyncConnection]:
        expired = []
        for target, idle in list(self._idle.items()):
            expired += [connection for connection in idle if connection.idle_until <= now]
            left = [connection for connection in idle if connection.idle_until > now]
            if left:
                self._idle[target] = left
            else:
                del self._idle[target]
        return expired

    def _secured(self, sock: socket.socket, target: Target, deadline: float) -> ssl.SSLSocket:
        context = self._contexts.of(target)
        name = target.server_name or target.host
        secured = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
        try:
            secured.settimeout(_left(deadline))
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connected(target: Target, deadline: float) -> socket.socket:
    """A socket to the first address of the target that accepts."""
    failed: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
    raise failed
