"""The gateway lane: an ASGI application that matches, authenticates, balances and forwards.

What `hmac_serve` runs under granian; Django's request handler is not on the way. One `Gateway` per worker and event
loop. Every request goes: message → route → gate → (body's digest, replay marks) → plan → node → connection →
answer; up to the plan each step is a method below, in this order, and the rest is the `Lane`'s. Imports `hmac_gateway`
and this app's admission, auth endpoint, lane, plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Final

from hmac_gateway.adapters.auth_request import PATH as AUTH_PATH
from hmac_gateway.adapters.auth_request import speakers
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import Carrier
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import row
from hmac_gateway.counters import CounterStore, MemoryCounter
from hmac_gateway.gate import NO_RULES, Admission, Outgoing, check
from hmac_gateway.logs import AccessLog
from hmac_gateway.routing import Route
from hmac_gateway.settling import Stores, asettle, steps_left
from hmac_gateway.snapshot import Snapshot
from hmac_gateway.stores import ReplayStore

from .admission import elsewhere, find_route, local_answer, upstream_failure
from .auth_endpoint import AuthEndpoint, accepted, refused
from .exchange import ReadTimeout, SendTimeout, TransportError, status_of
from .hashing import newcomer
from .lane import CLIENT_SILENCE, SERVER, SPOOL_MEMORY, ClientLeft, Exchange, Lane, Observer, Scope, Send
from .plan import UPSTREAM_STATUS, BadTarget, Forward, Peer, forwarded_target, header_lines, upstream_status
from .plan_kong import proxied_headers
from .signing import Signature, signer_of, too_large
from .spool import Spool

_AUTH_PATH: Final = AUTH_PATH.encode()


class Gateway(Lane):
    """The ASGI application. Everything it depends on is given, so that it can be served at a frozen time.

    `snapshot` gives the current configuration or None; `now` is Unix seconds; `trusted` says whether a peer's
    X-Forwarded-* are believed; `dialect` whose words are used before a route matched; `client_silence` how many
    seconds a client may keep it waiting; `endpoint` answers for other proxies, loopback's without one; `own_cookies`
    are names that no upstream gets.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        store: ReplayStore,
        counters: CounterStore | None = None,
        *,
        now: Callable[[], float] = time.time,
        dialect: str = "apisix",
        trusted: Callable[[str], bool] = lambda address: False,
        endpoint: AuthEndpoint | None = None,
        log: AccessLog | None = None,
        observer: Observer | None = None,
        spool_memory: int = SPOOL_MEMORY,
        client_silence: float = CLIENT_SILENCE,
        started: Callable[[], None] | None = None,
        stopped: Callable[[], None] | None = None,
        own_cookies: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(
            now=now,
            dialect=dialect,
            trusted=trusted,
            log=log,
            observer=observer,
            spool_memory=spool_memory,
            client_silence=client_silence,
            started=started,
            stopped=stopped,
        )
        self._own_cookies = frozenset(Carrier("cookie", name) for name in own_cookies)
        self._snapshot = snapshot
        self._stores = Stores(store, counters or MemoryCounter())
        self._endpoint = endpoint or AuthEndpoint(speakers(()), trusted, dialect=dialect)
        prefix = self._endpoint.names.prefix
        self._auth_prefix = f"{prefix}/".encode() if prefix else b""
        self._upstreams: Mapping[str, object] = {}

    async def _handle(self, exchange: Exchange, scope: Scope, trusted: bool, send: Send) -> None:
        raw_path = scope["raw_path"]
        if raw_path == _AUTH_PATH or (self._auth_prefix and raw_path.startswith(self._auth_prefix)):
            await self._auth(exchange, send)
        elif isinstance(outcome := self._admit(exchange, trusted), Rejected):
            await self._refuse(exchange, outcome, send)
        else:
            server = scope.get("server")
            peer = Peer((server[1] if server else None) or 80, trusted)
            await self._authenticated(exchange, outcome, peer, send)

    def _current_upstreams(self) -> Mapping[str, object]:
        snapshot = self._snapshot()
        return {} if snapshot is None else snapshot.upstreams

    def _swept(self) -> None:
        snapshot = self._snapshot()
        if snapshot is not None and snapshot.upstreams is not self._upstreams:
            self._upstreams = snapshot.upstreams
            self._balancer.forget(snapshot.upstreams)

    # --- admission ---

    def _admit(self, exchange: Exchange, trusted: bool) -> tuple[Route, Admission] | Rejected:
        """Route and gate. Plain code: no query, no await, no lock."""
        message = exchange.message
        exchange.path = path = message.target.partition("?")[0] if message.target.startswith("/") else message.path
        snapshot = self._snapshot()
        if snapshot is None:
            return Rejected(Reason.NOT_CONFIGURED, dialect=self._dialect)
        route = find_route(message, path, snapshot, self._dialect, trusted) or elsewhere(snapshot, self._dialect)
        if isinstance(route, Rejected):
            return route
        exchange.route = route
        admission = check(message, route.pipeline, snapshot, self._now())
        if isinstance(admission, Rejected):
            return admission
        exchange.identity = admission.identity
        return route, admission

    async def _authenticated(
        self, exchange: Exchange, admitted: tuple[Route, Admission], peer: Peer, send: Send
    ) -> None:
        route, admission = admitted
        if not admission.bodies:
            refused = await self._settle(exchange, route, admission)
            if refused is not None:
                await self._refuse(exchange, refused, send)
            else:
                await self._forward(exchange, route, admission, peer, None, send)
            return
        digests = admission.digests()
        with Spool(digests, self._spool_memory) as spool:
            refused = await self._spool(exchange, admission, spool)
            if refused is None:
                refused = admission.finish(digests)
                exchange.identity = admission.identity
            if refused is None:
                refused = await self._settle(exchange, route, admission)
            if refused is not None:
                await self._refuse(exchange, refused, send)
            else:
                await self._forward(exchange, route, admission, peer, spool, send)

    async def _spool(self, exchange: Exchange, admission: Admission, spool: Spool) -> Rejected | None:
        """Read the whole body; nothing has gone upstream yet."""
        size = await self._read(exchange, spool, admission.limit)
        return admission.too_large(size) if size > admission.limit else None

    async def _settle(self, exchange: Exchange, route: Route | None, admission: Admission) -> Rejected | None:
        """Replay marks and rules."""
        snapshot = self._snapshot()
        assert snapshot is not None  # a request was admitted by one
        rules, place = (NO_RULES, ("", "")) if route is None else (route.rules, (route.id, route.service_id))
        needs = steps_left(admission, exchange.message, snapshot, self._now(), rules, *place)
        if needs is None:
            return None
        refused = await asettle(needs, self._stores)
        if needs.headers:
            exchange.headers = [(name.lower().encode(), value.encode()) for name, value in needs.headers.items()]
        return refused

    async def _auth(self, exchange: Exchange, send: Send) -> None:
        """Give the auth endpoint's verdict; what logs and the debugger see is the original request."""
        received = exchange.message
        judged = self._endpoint.judge(received, self._snapshot(), self._now())
        exchange.message, exchange.path = judged.message, judged.message.path
        exchange.route, exchange.identity = judged.route, judged.identity
        rejected = judged.refused
        if judged.admission is not None:
            rejected = await self._settle(exchange, judged.route, judged.admission) or rejected
        if rejected is None:
            status, body, pairs = accepted(judged, exchange.request_id, self._endpoint.names)
        else:
            status, body, pairs = refused(rejected, exchange.request_id)
            exchange.reason = str(rejected.reason)
        exchange.status, exchange.sent = status, len(body)
        if self._observer is not None and rejected is not None and row(rejected).status < 500:
            self._observer.rejected(exchange, rejected)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append(SERVER)
        headers += exchange.headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if received.method == "HEAD" else body
        await send({"type": "http.response.body", "body": body, "more_body": False})
        exchange.answered = True

    # --- forwarding ---

    async def _forward(
        self,
        exchange: Exchange,
        route: Route,
        admission: Admission,
        peer: Peer,
        spool: Spool | None,
        send: Send,
        signature: Signature | None = None,
    ) -> None:
        forward: Forward = route.target
        upstream = forward.upstream
        if upstream is None or not upstream.nodes:
            own = local_answer(exchange.message, route, self._snapshot(), self._now())
            if isinstance(own, Rejected):
                await self._refuse(exchange, own, send)
            else:
                await self._give(exchange, own, send)
            return
        message = exchange.message
        if forward.outgoing is not None and signature is None:
            snapshot = self._snapshot()
            assert snapshot is not None  # a request was admitted by one
            signer = signer_of(forward.outgoing, message, admission.identity, snapshot.outgoing)
            if signer is not None:
                await self._signed(exchange, route, admission, peer, spool, send, signer)
                return
        framing = await self._framing(exchange, spool)
        try:
            # The console's cookies come here too where it has the same host: cookies ignore ports.
            hidden = admission.hidden
            if self._own_cookies and message.get("cookie") is not None:
                hidden |= self._own_cookies
            target = forwarded_target(message, forward, hidden)
        except BadTarget as error:
            rejected = Rejected(Reason.AMBIGUOUS_PATH, dialect=route.dialect, facts={"why": str(error)})
            await self._refuse(exchange, rejected, send)
            return
        if upstream.cookie is not None:
            exchange.chooser, cookie = newcomer(upstream, message, admission.identity)
            if cookie:
                exchange.headers = [*exchange.headers, (b"set-cookie", cookie.encode("latin-1"))]
        lines = header_lines(message, admission.identity, hidden, peer, exchange.request_id, framing, forward.rewrite)
        began = time.perf_counter()
        failed: list[int] = []
        try:
            response = await self._exchange(
                exchange, upstream, forward.timeouts, target, lines, framing, spool, failed, signature
            )
        except TransportError as error:
            exchange.upstream_seconds = time.perf_counter() - began
            if exchange.turn is not None and (exchange.left or isinstance(error, ReadTimeout | SendTimeout)):
                exchange.turn.answered()
            if exchange.left:
                raise ClientLeft from None
            said = upstream_status(route.dialect, failed, status_of(error))
            if said:
                exchange.headers = [*exchange.headers, (UPSTREAM_STATUS.encode(), said.encode())]
            await self._refuse(exchange, upstream_failure(error, route.dialect), send)
            return
        exchange.upstream_seconds = time.perf_counter() - began
        if exchange.turn is not None:
            exchange.turn.answered()
        if upstream.checks is not None and exchange.node is not None:
            self._health.answered(upstream, exchange.node, response.status)
        if response.status >= 500 and (said := upstream_status(route.dialect, failed, response.status)):
            name = UPSTREAM_STATUS.encode()
            response.headers = [*(pair for pair in response.headers if pair[0] != name), (name, said.encode())]
        if forward.rewrite is not None:
            took = time.perf_counter() - exchange.began
            about = (response.http_version, response.headers)
            ours = proxied_headers(exchange.request_id, took, exchange.upstream_seconds, *about)
            exchange.headers = [*exchange.headers, *ours]
        await self._relay(exchange, response, send)

    async def _signed(
        self,
        exchange: Exchange,
        route: Route,
        admission: Admission,
        peer: Peer,
        spool: Spool | None,
        send: Send,
        signer: Outgoing | Rejected,
    ) -> None:
        """Go on with a signature; where it covers the body, that is read whole before anything is sent."""
        if isinstance(signer, Rejected):
            await self._refuse(exchange, signer, send)
            return
        if not signer.config.body:
            await self._forward(exchange, route, admission, peer, spool, send, Signature(signer, self._now))
            return
        with Spool([], self._spool_memory) if spool is None else nullcontext(spool) as whole:
            if spool is None:
                size = await self._read(exchange, whole, signer.config.max_body)
                if size > signer.config.max_body:
                    await self._refuse(exchange, too_large(signer, size), send)
                    return
            signature = Signature(signer, self._now, whole.pieces, whole.size)
            await self._forward(exchange, route, admission, peer, whole, send, signature)
