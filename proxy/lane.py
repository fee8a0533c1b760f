"""What lies between one client and one upstream: requests are read, forwarded, answered and watched.

The base of `gateway.Gateway` and of the command `hmacproxy.app.App`, which decide what a request may do and what goes
upstream. One lane per worker and event loop; it knows no routes, no configuration and no keys. Imports `hmac_gateway`
and this app's plan, balancer, transport.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol

from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import Answer, answer, wanted
from hmac_gateway.logs import AccessLog
from hmac_gateway.routing import Route
from hmac_gateway.schemes import key_id_of

from .admission import failure_reason
from .balancers import Balancer, Turn
from .health import Health
from .plan import Node, Upstream, host_header, request_head, returned_headers
from .plan_kong import RESPONSE_LATENCY
from .retrying import Retries, may_repeat
from .signing import Signature
from .spool import Spool
from .transport import (
    ConnectFailed,
    Connection,
    ConnectTimeout,
    Pool,
    ReadTimeout,
    Response,
    SendTimeout,
    Timeouts,
    TransportError,
    UpstreamBroken,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Seconds a client may be silent in the middle of a body, or take nothing of an answer (nginx's 60).
CLIENT_SILENCE: Final = 60.0
#: What a client that was answered early may still send, in seconds and bytes: closing on it could cost it the answer.
LINGER_SECONDS: Final = 5.0
LINGER_BYTES: Final = 16 * 1024 * 1024
#: How often running exchanges are looked at: who is slow gets a watcher for its client, who is silent is ended.
SWEEP_SECONDS: Final = 0.2
#: nginx's status, in logs, for a client that left before its answer.
CLIENT_LEFT: Final = 499
#: Bytes of a body that is read whole before it goes on: more lie in a file.
SPOOL_MEMORY: Final = 1024 * 1024
#: Framing lines: the one for an unknown length, and those that no body follows.
_CHUNKED: Final = "transfer-encoding: chunked\r\n"
_NO_BODY: Final = ("", "content-length: 0\r\n")
SERVER: Final = (b"server", b"hmac-gateway")


class Observer(Protocol):
    """Told about every finished request; must not block."""

    def finished(self, exchange: Exchange) -> None:
        """Count it."""

    def rejected(self, exchange: Exchange, rejected: Rejected) -> None:
        """Keep it for the debugger."""


class ClientLeft(Exception):
    """The client disconnected."""


class Exchange:
    """One request on its way; what logs and the sweeper read."""

    __slots__ = (
        "answered",
        "asked",
        "began",
        "body_read",
        "body_whole",
        "chooser",
        "client_deadline",
        "connection",
        "first",
        "headers",
        "identity",
        "left",
        "message",
        "node",
        "path",
        "receive",
        "reason",
        "request_id",
        "route",
        "sent",
        "status",
        "task",
        "turn",
        "upstream_seconds",
        "watcher",
    )

    def __init__(self, message: Message, request_id: str, receive: Receive, began: float) -> None:
        self.message = message
        # What decides on the node, where hashing does.
        self.chooser = message
        self.request_id = request_id
        self.receive = receive
        self.began = began
        self.path = ""
        self.route: Route | None = None
        self.identity: Identity = NOBODY
        self.node: Node | None = None
        # What must be given back to the balancer.
        self.turn: Turn | None = None
        self.status = 0
        self.sent = 0
        self.reason = ""
        self.upstream_seconds = 0.0
        self.connection: Connection | None = None
        # Whether the whole body was received; HTTP/2 need not announce one.
        self.body_whole = not message.may_have_body and (
            message.http_version[0] == "1" or message.content_length is not None
        )
        # Whether nothing of it is left that anybody wants: until then only `_body` may receive.
        self.body_read = self.body_whole
        # Whether any of it was asked for, which is what a client with Expect waits for.
        self.asked = False
        # Whether an answer was given to its end.
        self.answered = False
        # What rules put on the answer.
        self.headers: list[tuple[bytes, bytes]] = []
        self.first: MutableMapping[str, Any] | None = None
        self.left = False
        self.client_deadline = float("inf")
        self.task: asyncio.Task[Any] | None = None
        self.watcher: asyncio.Task[None] | None = None

    @property
    def route_id(self) -> str:
        """The matched route's id, "" for none."""
        return "" if self.route is None else self.route.id

    def leave(self) -> None:
        """The client is gone: give up the upstream, which wakes whoever waits for it."""
        self.left = True
        if self.connection is not None:
            self.connection.abort()


class Lane:
    """An ASGI application. Everything it depends on is given, so that it can be served at a frozen time.

    `now` is Unix seconds; `trusted` says whether a peer's X-Forwarded-* are believed; `dialect` is whose words are used
    before anything else says; `client_silence` how many seconds a client may keep it waiting.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        dialect: str,
        trusted: Callable[[str], bool],
        log: AccessLog | None,
        observer: Observer | None,
        spool_memory: int,
        client_silence: float,
        started: Callable[[], None] | None,
        stopped: Callable[[], None] | None,
    ) -> None:
        self._now = now
        self._dialect = dialect
        self._trusted = trusted
        self._log = log
        self._observer = observer
        self._spool_memory = spool_memory
        self._client_silence = client_silence
        self._started, self._stopped = started, stopped
        self._balancer = Balancer()
        self._pool = Pool()
        self._health = Health(self._balancer, self._pool, self._current_upstreams)
        self._running: set[Exchange] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._worker = os.urandom(10).hex()
        self._count = 0

    # --- what the two lanes decide ---

    async def _handle(self, exchange: Exchange, scope: Scope, trusted: bool, send: Send) -> None:
        """Answer a request; `trusted` is said of the peer."""
        raise NotImplementedError

    def _current_upstreams(self) -> Mapping[str, object]:
        """Upstreams by id, for those that have checks."""
        return {}

    def _swept(self) -> None:
        """Called a few times a second while there are requests."""

    # --- the application ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                if self._started is not None:
                    self._started()
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._stopped is not None:
                    await asyncio.get_running_loop().run_in_executor(None, self._stopped)
                if self._sweeper is not None:
                    self._sweeper.cancel()
                await self._health.close()
                await self._pool.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        client = scope["client"]
        query = scope["query_string"]
        message = Message(
            scope["method"],
            scope["raw_path"] + b"?" + query if query else scope["raw_path"],
            scope["headers"],
            scope["scheme"],
            None,
            scope["http_version"],
            client[0] if client else "",
        )
        trusted = self._trusted(message.remote_addr)
        exchange = Exchange(message, self._request_id(message, trusted), receive, began)
        self._enter(exchange)
        try:
            await self._handle(exchange, scope, trusted, send)
            if exchange.answered and not exchange.body_whole:
                await self._linger(exchange)
        except ClientLeft:
            if not exchange.status:
                await self._broken_off(exchange, send)
        except asyncio.CancelledError:
            # Only the sweeper cancels: the client was silent for too long. Where an answer has begun, returning
            # without its final part makes the server close the connection.
            if not exchange.status:
                await self._refuse(exchange, Rejected(Reason.REQUEST_TIMEOUT, dialect=self._dialect), send)
        finally:
            self._leave(exchange)

    async def _broken_off(self, exchange: Exchange, send: Send) -> None:
        """Answer a client that is said to have left: nobody reads it then.

        The server says the same of a body whose framing is broken (RFC 9112 7.1), and answers 500 where we do not.
        """
        dialect = self._dialect if exchange.route is None else exchange.route.dialect
        refused = Rejected(Reason.MALFORMED, dialect=dialect)
        await self._give(exchange, answer(refused, exchange.request_id, exchange.message.get("accept")), send)
        exchange.status, exchange.sent = CLIENT_LEFT, 0

    async def _linger(self, exchange: Exchange) -> None:
        """Take in what a client still sends that was answered early, and drop it."""
        if not exchange.asked and exchange.message.get("expect") is not None:
            return  # receiving would ask for a body that nobody has sent
        if exchange.watcher is not None:
            exchange.watcher.cancel()
        exchange.task = exchange.task or asyncio.current_task()
        exchange.client_deadline = time.perf_counter() + LINGER_SECONDS
        left = LINGER_BYTES
        while left > 0:
            event = await exchange.receive()
            if event["type"] == "http.disconnect" or not event.get("more_body"):
                return
            left -= len(event["body"])

    def _request_id(self, message: Message, trusted: bool) -> str:
        if trusted:
            given = message.get("x-request-id")
            if given is not None and len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum():
                return given
        self._count += 1
        return f"{self._worker}{self._count:012x}"

    # --- running exchanges ---

    def _enter(self, exchange: Exchange) -> None:
        self._running.add(exchange)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _leave(self, exchange: Exchange) -> None:
        self._running.discard(exchange)
        if exchange.connection is not None:
            # Whoever finished well gave the connection back; what is left here is broken.
            exchange.connection.abort()
        if exchange.turn is not None:
            exchange.turn.end()
        if exchange.watcher is not None:
            exchange.watcher.cancel()
        if self._log is not None:
            consumer, node = exchange.identity.consumer, exchange.node
            self._log.write(
                at=self._now(),
                request_id=exchange.request_id,
                remote=exchange.message.remote_addr,
                method=exchange.message.method,
                path=exchange.path,
                status=exchange.status,
                sent=exchange.sent,
                seconds=time.perf_counter() - exchange.began,
                upstream_seconds=exchange.upstream_seconds,
                route=exchange.route_id,
                consumer=consumer.username if consumer is not None else "",
                upstream=node.key if node is not None else "",
                reason=exchange.reason,
                key=key_id_of(exchange.message) if exchange.reason else "",
            )
        if self._observer is not None:
            self._observer.finished(exchange)

    def _sweep(self) -> None:
        """The one timer for all clients of this worker; the server has none for bodies."""
        self._sweeper = None
        now = time.perf_counter()
        for exchange in self._running:
            if now >= exchange.client_deadline:
                if exchange.task is not None:
                    exchange.task.cancel()
            elif exchange.watcher is None and exchange.body_read and now - exchange.began >= SWEEP_SECONDS:
                # `send` succeeds silently after the client left; only `receive` tells.
                exchange.watcher = asyncio.ensure_future(self._watch(exchange))
        self._swept()
        if self._running:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    @staticmethod
    async def _watch(exchange: Exchange) -> None:
        while True:
            event = await exchange.receive()
            if event["type"] == "http.disconnect":
                exchange.leave()
                return
            exchange.body_whole = not event.get("more_body")

    # --- bodies ---

    async def _read(self, exchange: Exchange, spool: Spool, limit: float) -> int:
        """Read the whole body into a spool. Its size; one above `limit` says where reading stopped, or never began."""
        size = exchange.message.content_length or 0
        if size > limit:
            return size
        async for chunk in self._body(exchange):
            spool.write(chunk)
            if spool.size > limit:
                break
        return spool.size

    async def _body(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """The request body's chunks; raises ClientLeft, and lets the sweeper end a silent client."""
        while True:
            event, exchange.first = exchange.first, None
            if event is None:
                event = await self._event(exchange)
            if event["type"] == "http.disconnect":
                exchange.left = True
                raise ClientLeft
            more = event.get("more_body", False)
            if event["body"]:
                yield event["body"]
            if not more:
                exchange.body_read = exchange.body_whole = True
                return

    async def _event(self, exchange: Exchange) -> MutableMapping[str, Any]:
        """What the client says next; the sweeper cancels `exchange.task` when that takes too long."""
        exchange.asked = True
        exchange.task = exchange.task or asyncio.current_task()
        exchange.client_deadline = time.perf_counter() + self._client_silence
        try:
            return await exchange.receive()
        finally:
            exchange.client_deadline = float("inf")

    # --- forwarding ---

    async def _exchange(
        self,
        exchange: Exchange,
        upstream: Upstream,
        timeouts: Timeouts,
        target: str,
        lines: str,
        framing: str,
        spool: Spool | None,
        failed: list[int],
        signature: Signature | None = None,
    ) -> Response:
        """Send the request and wait for the response head, on another node or connection where that is safe.

        Nothing was sent when connecting failed: the next node may be tried, and `failed` gets the status that stands
        for the one before. A reused connection that closed without a byte of answer is tried once more on a new one,
        if the body can be sent again.
        """
        began = time.perf_counter()
        retries: Retries | None = None
        message, chooser, identity = exchange.message, exchange.chooser, exchange.identity
        body = framing not in _NO_BODY
        fresh = False
        choose = self._balancer.choose if upstream.checks is None else self._health.choose
        first = choose(upstream, (), chooser, identity)
        assert first is not None  # upstreams without nodes do not come so far
        node = first
        while True:
            exchange.node = node
            if upstream.measured and not fresh:
                exchange.turn = Turn(self._balancer, upstream, node)
            connection = None if fresh else self._pool.idle_now(node.target, upstream.keepalive)
            if connection is None:
                try:
                    connection = await self._pool.connect(node.target, timeouts, upstream.keepalive)
                except (ConnectFailed, ConnectTimeout) as error:
                    if upstream.checks is not None:
                        self._health.failed(upstream, node, error)
                    if exchange.turn is not None:
                        exchange.turn.end()
                        exchange.turn = None
                    if retries is None:
                        retries = Retries(upstream, failed, chooser, identity)
                    node = retries.after(node, error, time.perf_counter() - began, choose)
                    fresh = False
                    continue
            exchange.connection = connection
            if exchange.left:
                raise ClientLeft
            host = host_header(message, upstream, node)
            if signature is None:
                head = request_head(message, target, host, lines)
            elif not signature.slow:
                head = signature.head(message, target, host, lines)
            else:
                head = await asyncio.to_thread(signature.head, message, target, host, lines)
            connection.start(head, method=message.method, timeouts=timeouts, body_follows=body)
            try:
                if not body:
                    return await connection.response()
                if spool is not None:
                    return await self._with_spool(connection, spool)
                return await self._with_body(exchange, connection, chunked=framing is _CHUNKED)
            except (UpstreamBroken, ReadTimeout, SendTimeout) as error:
                repeatable = not body or spool is not None
                if isinstance(error, UpstreamBroken):
                    exchange.connection = None
                    connection.abort()
                    if error.stale and repeatable and not fresh and not exchange.left:
                        fresh = True
                        continue
                if upstream.checks is not None and not exchange.left:
                    self._health.failed(upstream, node, error)
                if not may_repeat(message.method, repeatable, error) or exchange.left:
                    raise
                exchange.connection = None
                connection.abort()
                if exchange.turn is not None:
                    if not isinstance(error, UpstreamBroken):
                        exchange.turn.answered()
                    exchange.turn.end()
                    exchange.turn = None
                if retries is None:
                    retries = Retries(upstream, failed, chooser, identity)
                node = retries.after(node, error, time.perf_counter() - began, choose)
                fresh = False

    async def _framing(self, exchange: Exchange, spool: Spool | None) -> str:
        """The header line that frames the body upstream (RFC 9112 6.3); "" for a request without one."""
        message = exchange.message
        length = message.content_length
        if spool is not None:
            # None where none was announced: a signed Content-Length may be one that is absent.
            announced = length is not None or message.get("transfer-encoding") is not None
            return f"content-length: {spool.size}\r\n" if spool.size or announced else ""
        if length is not None:
            return f"content-length: {length}\r\n"
        if message.get("transfer-encoding") is not None:
            return _CHUNKED
        if message.http_version[0] == "1":
            return ""
        # HTTP/2 announces no body: the first event tells.
        exchange.first = event = await self._event(exchange)
        if event["type"] == "http.disconnect":
            exchange.left = True
            raise ClientLeft
        if event["body"] or event.get("more_body"):
            return _CHUNKED
        exchange.body_read = exchange.body_whole = True
        return ""

    async def _with_spool(self, connection: Connection, spool: Spool) -> Response:
        for piece in spool.pieces():
            if not await connection.send(piece):
                break
        else:
            connection.finish()
        return await connection.response()

    async def _with_body(self, exchange: Exchange, connection: Connection, chunked: bool) -> Response:
        """Stream the client's body while waiting for the answer: an early one ends the upload."""
        pump = asyncio.ensure_future(self._pump(exchange, connection, chunked))
        exchange.task = asyncio.current_task()
        try:
            response = await connection.response()
        finally:
            if not pump.done():
                pump.cancel()
            elif not pump.cancelled():
                pump.exception()  # looked at, so that it is not reported as never retrieved
        # Of an upload that goes on, the watcher reads and drops the rest.
        exchange.body_read = True
        return response

    async def _pump(self, exchange: Exchange, connection: Connection, chunked: bool) -> None:
        try:
            async for chunk in self._body(exchange):
                data = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk
                if not await connection.send(data):
                    return
            if chunked:
                await connection.send(b"0\r\n\r\n")
            connection.finish()
        except ClientLeft:
            connection.abort()
            raise

    # --- answers ---

    def _returned(self, exchange: Exchange, response: Response) -> list[tuple[bytes, bytes]]:
        """The upstream's headers for the client, and ours."""
        headers = returned_headers(response.headers)
        headers.append(SERVER)
        headers.append((b"x-request-id", exchange.request_id.encode()))
        return headers

    async def _relay(self, exchange: Exchange, response: Response, send: Send) -> None:
        """Pass the response on as it comes; a truncated one is never finished cleanly."""
        connection = exchange.connection
        assert connection is not None
        headers = self._returned(exchange, response)
        if exchange.headers:
            # Clients read one quota, and it is ours that refuses them. Cookies are each their own.
            ours = {name for name, _ in exchange.headers if name != b"set-cookie"}
            headers = [pair for pair in headers if pair[0] not in ours] + exchange.headers
        exchange.status = response.status
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if response.complete:
            # Given back before the client has its answer: the next request of the same client finds it idle.
            exchange.connection = None
            connection.release()
            exchange.sent = len(response.body)
            await send({"type": "http.response.body", "body": response.body, "more_body": False})
            exchange.answered = True
            return
        exchange.task = exchange.task or asyncio.current_task()
        # The server holds the head back until it has a piece of body, and answers 500 in its place if none comes.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        while True:
            try:
                data = await connection.read()
            except TransportError as error:
                exchange.reason = "client_left" if exchange.left else str(failure_reason(error))
                return
            if not data:
                break
            exchange.sent += len(data)
            exchange.client_deadline = time.perf_counter() + self._client_silence
            await send({"type": "http.response.body", "body": data, "more_body": True})
            exchange.client_deadline = float("inf")
            if exchange.left:
                return
        exchange.connection = None
        connection.release()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        exchange.answered = True

    async def _refuse(self, exchange: Exchange, rejected: Rejected, send: Send) -> None:
        if exchange.left:
            return
        kinds = wanted(rejected, exchange.message.get("accept"), exchange.message.get("content-type"))
        given = answer(rejected, exchange.request_id, kinds)
        exchange.status, exchange.reason = given.status, str(rejected.reason)
        if rejected.dialect == "kong":
            took = (time.perf_counter() - exchange.began) * 1000
            exchange.headers = [*exchange.headers, (RESPONSE_LATENCY.encode(), b"%d" % took)]
        if self._observer is not None and given.status < 500:
            self._observer.rejected(exchange, rejected)
        await self._give(exchange, given, send)

    async def _give(self, exchange: Exchange, given: Answer, send: Send) -> None:
        """Send an answer of our own."""
        status, body, pairs = given
        exchange.status, exchange.sent = status, len(body)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"x-request-id", exchange.request_id.encode()))
        headers.append(SERVER)
        headers += exchange.headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if exchange.message.method == "HEAD" else body
        await send({"type": "http.response.body", "body": body, "more_body": False})
        exchange.answered = True
