"""The command's ASGI application: the gateway lane with one secret in place of routes, in four modes.

Made by `command`. Reading, spooling, forwarding and time-outs are `lane.Lane`'s; here stands what is the
command's own: what is signed or verified, what goes upstream, and which words refuse. Imports `hmac_gateway` and this
app's lane, plan, `files`.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable, MutableMapping
from copy import copy
from email.utils import formatdate
from typing import Any, Final, cast

from hmac_gateway.core.credential import Consumer, Credential
from hmac_gateway.core.dialects import HMACPROXY
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import BodyDigest
from hmac_gateway.core.message import Message
from hmac_gateway.core.paths import ambiguity
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import Answer
from hmac_gateway.gate import Admission, Step, check
from hmac_gateway.logs import AccessLog
from hmac_gateway.plugins import hmac_auth
from hmac_gateway.plugins.base import AuthPlugin, Common
from hmac_gateway.schemes.hmacproxy import HmacProxy, available
from hmac_gateway.schemes.verify import Policy
from hmac_gateway.snapshot import Snapshot, lookups

from ..admission import head_fault, upstream_failure
from ..exchange import Response, Target, Timeouts, TransportError
from ..lane import CLIENT_SILENCE, SERVER, SPOOL_MEMORY, ClientLeft, Exchange, Lane, Scope, Send
from ..plan import HOP_BY_HOP, Forward, Node, Upstream, forwarded_target, returned_headers
from ..spool import Spool
from .files import Files
from .options import Options

#: Framing and addressing are written anew; Expect was answered by the server in front of us.
_OURS: Final = frozenset({"host", "content-length", "expect", "x-forwarded-for"})
#: Seconds: to connect, between two writes, between two reads. The original has none.
_TIMEOUTS: Final = Timeouts(10.0, 60.0, 300.0)
#: A verdict is for one request. Go's server adds the type, and so does the example in the original's README.
_ACCEPTED: Final = Answer(202, b"", [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")])
#: What other proxies tell of the request that they were asked.
_ORIGINAL: Final = frozenset({"x-original-uri", "x-original-method"})
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
#: What is found where nothing asks for more.
_KEY: Final = "hmacproxy"


class App(Lane):
    """One of the four modes, by what the options hold. `now` is Unix seconds."""

    def __init__(
        self,
        options: Options,
        *,
        now: Callable[[], float] = time.time,
        log: AccessLog | None = None,
    ) -> None:
        credential = Credential(_KEY, Consumer(_KEY, _KEY), hmac_auth.name, _KEY, lambda now: (options.secret,))
        directory = Snapshot(0, lookups=lookups({hmac_auth.name: {_KEY: credential}}))
        super().__init__(
            now=now,
            dialect=HMACPROXY,
            trusted=lambda address: False,
            log=log,
            observer=None,
            spool_memory=SPOOL_MEMORY,
            client_silence=CLIENT_SILENCE,
            started=None if log is None else log.start,
            stopped=None if log is None else log.stop,
        )
        self._options = options
        self._directory = directory
        self._scheme = HmacProxy(options.sign_header, options.headers, (_KEY,), options.strict)
        self._step = _step(options, self._scheme)
        self._limit = options.max_body or float("inf")
        self._upstream = _upstream(options)
        self._forwarding = Forward(self._upstream, _TIMEOUTS)
        self._files = Files(options.file_root, options.listing, options.sign_header) if options.file_root else None
        # A name with an underscore is to many servers the same as one with a dash.
        self._underscored = {name.lower() for name in (*options.headers, options.sign_header) if "_" in name}

    async def _handle(self, exchange: Exchange, scope: Scope, trusted: bool, send: Send) -> None:
        options, message = self._options, _whole(exchange.message)
        told = message
        if options.auth and self._upstream is None and self._files is None:
            told = self._original(message)
        # Answered is what came, whatever was asked about.
        exchange.message, exchange.path = message, told.path
        fault = self._fault(message, told)
        if fault is not None:
            await self._refuse(exchange, Rejected(fault, dialect=HMACPROXY), send)
            return
        message = told
        if not options.auth:
            await self._sign(exchange, send)
            return
        why = ambiguity(message.path) if options.strict else None
        if why is not None:
            await self._refuse(exchange, Rejected(Reason.AMBIGUOUS_PATH, dialect=HMACPROXY, detail=why), send)
            return
        admission = check(message, (self._step,), self._directory, self._now())
        if isinstance(admission, Rejected):
            await self._refuse(exchange, admission, send)
            return
        digests = admission.digests()
        if self._upstream is not None:
            with Spool(digests, self._spool_memory) as spool:
                refused = await self._kept(exchange, spool) or self._judged(exchange, admission, digests)
                if refused is not None:
                    await self._refuse(exchange, refused, send)
                else:
                    await self._pass_on(exchange, spool, None, send)
            return
        async for chunk in self._body(exchange):
            for digest in digests:
                digest.feed(chunk)
        refused = self._judged(exchange, admission, digests)
        if refused is not None:
            await self._refuse(exchange, refused, send)
        elif self._files is not None:
            await self._file(exchange, self._files, send)
        else:
            await self._give(exchange, _ACCEPTED, send)

    def _fault(self, message: Message, told: Message) -> Reason | None:
        """What keeps a request from being judged, or from being forwarded at all."""
        if message.method == "CONNECT":
            return (
                Reason.MALFORMED
            )  # it asks for a tunnel (RFC 9110 9.3.6); the server cuts one that is answered with 2xx
        if self._upstream is not None:
            twice = "host" in message.duplicated
            # Of `GET a`, the server gives an empty path: nothing that could stand on a request line.
            nowhere = not message.path.startswith("/") and (message.method, message.target) != ("OPTIONS", "*")
            wrong = twice or nowhere or head_fault(message)
            return Reason.MALFORMED if wrong else None
        if told is message:
            return None
        if message.duplicated & _ORIGINAL:
            return Reason.DUPLICATE_HEADER
        # nginx asks by GET, with the headers of the request it is asked about and without its body: one that is
        # announced does not come. Else anybody could have added one, which means something to all but GET and HEAD.
        kept = message.method in ("GET", "HEAD") and message.may_have_body
        unknown = told.method not in ("GET", "HEAD") and not message.may_have_body
        return Reason.BODY_UNSEEN if kept or unknown else None

    def _original(self, message: Message) -> Message:
        """The request that a proxy asks about, where one may: its target and method, everything else as it came.

        As in the original, a text that is neither a path nor an absolute URI is passed over.
        """
        uri, method = message.get("x-original-uri") or "", message.get("x-original-method")
        if not (uri or method) or not self._options.trusted(message.remote_addr):
            return message
        told = copy(message)
        absolute = _ABSOLUTE.match(uri)
        if uri.startswith("/"):
            told.target = uri
        elif absolute is not None:
            rest = uri[absolute.end() :]
            told.target = rest if rest.startswith("/") else "/" + rest
        told.method = method or message.method
        return told

    def _judged(self, exchange: Exchange, admission: Admission, digests: list[BodyDigest]) -> Rejected | None:
        refused = admission.finish(digests)
        exchange.identity = admission.identity
        return refused

    async def _kept(self, exchange: Exchange, spool: Spool) -> Rejected | None:
        """Read the whole body; nothing has gone upstream yet."""
        size, limit = await self._read(exchange, spool, self._limit), self._limit
        if size <= limit:
            return None
        return Rejected(Reason.BODY_TOO_LARGE, dialect=HMACPROXY, facts={"size": size, "limit": limit})

    # --- signing ---

    async def _sign(self, exchange: Exchange, send: Send) -> None:
        options, message = self._options, exchange.message
        if options.add_date and message.get("date") is None:
            message = exchange.message = _with(message, ("date", formatdate(self._now(), usegmt=True)))
        # A length is signed as the upstream will see it: once it is known, and as it is written there.
        told = message.content_length is not None and message.get("content-length") == str(message.content_length)
        unknown = not told and "content-length" in map(str.lower, options.headers)
        running = self._mac_over(message)
        with Spool([] if unknown else [running], self._spool_memory) as spool:
            refused = await self._kept(exchange, spool)
            if refused is not None:
                await self._refuse(exchange, refused, send)
                return
            if unknown:
                framed = spool.size or message.get("transfer-encoding") is not None
                running = self._mac_over(_with(message, ("content-length", str(spool.size)) if framed else None))
                for piece in spool.pieces():
                    running.feed(piece)
            (signature,) = running.base64()
            await self._pass_on(exchange, spool, f"{options.digest} {signature}", send)

    def _mac_over(self, message: Message) -> BodyDigest:
        """The MAC over a head, to be fed with the body."""
        return BodyDigest(hmac.new(self._options.secret.reveal(), self._scheme.head(message), self._options.digest))

    # --- forwarding ---

    async def _pass_on(self, exchange: Exchange, spool: Spool, signature: str | None, send: Send) -> None:
        """Send the request on as it came, less what speaks about one connection; Host stays the client's."""
        message, upstream = exchange.message, self._upstream
        assert upstream is not None  # both modes have one
        framing = await self._framing(exchange, spool)
        lines = self._lines(message, signature, framing)
        target = forwarded_target(message, self._forwarding)
        began = time.perf_counter()
        try:
            response = await self._exchange(exchange, upstream, _TIMEOUTS, target, lines, framing, spool, [])
        except TransportError as error:
            exchange.upstream_seconds = time.perf_counter() - began
            if exchange.left:
                raise ClientLeft from None
            await self._refuse(exchange, upstream_failure(error, HMACPROXY), send)
            return
        exchange.upstream_seconds = time.perf_counter() - began
        await self._relay(exchange, response, send)

    def _lines(self, message: Message, signature: str | None, framing: str) -> str:
        """Everything behind the Host line, blank line included."""
        listed = {token.strip().lower() for value in message.get_all("connection") for token in value.split(",")}
        # What is signed must arrive: whoever sends Connection could take it away.
        dropped = HOP_BY_HOP | _OURS | (listed - {name.lower() for name in self._options.headers} - {self._name})
        if signature is not None:
            dropped |= {self._name}
        lines = [
            f"{name}: {value}\r\n"
            for name, value in message.headers
            if name not in dropped and ("_" not in name or name in self._underscored)
        ]
        forwarded = ", ".join([*message.get_all("x-forwarded-for"), message.remote_addr])
        lines.append(f"x-forwarded-for: {forwarded}\r\n")
        if signature is not None:
            lines.append(f"{self._options.sign_header}: {signature}\r\n")
        return "".join([*lines, framing, "\r\n"])

    @property
    def _name(self) -> str:
        return self._options.sign_header.lower()

    def _returned(self, exchange: Exchange, response: Response) -> list[tuple[bytes, bytes]]:
        """The upstream's headers; its Server and request id are not ours to change."""
        headers = returned_headers(response.headers)
        names = {name for name, _ in headers}
        own = [pair for pair in response.headers if pair[0] in (b"server", b"x-request-id") and pair[0] not in names]
        return [*headers, *own] if any(name == b"server" for name, _ in own) else [*headers, *own, SERVER]

    # --- files ---

    async def _file(self, exchange: Exchange, files: Files, send: Send) -> None:
        """Answer with a file, or with what stands for one."""
        exchange.task = exchange.task or asyncio.current_task()
        head: MutableMapping[str, Any] | None = None

        async def counted(event: MutableMapping[str, Any]) -> None:
            nonlocal head
            if event["type"] == "http.response.start":
                # Held back until the file is open, which may fail.
                head = event
                return
            if exchange.left:
                raise ClientLeft
            if head is not None:
                own = [SERVER, (b"x-request-id", exchange.request_id.encode())]
                exchange.status = head["status"]
                await send({**head, "headers": [*head["headers"], *own]})
                head = None
            exchange.sent += len(event["body"])
            exchange.client_deadline = time.perf_counter() + self._client_silence
            await send(event)
            exchange.client_deadline = float("inf")

        try:
            found = await files.answer(exchange.message, counted)
        except OSError:
            if exchange.status:
                return  # without its end: the server cuts the connection
            found = False
        if found:
            exchange.answered = True
        else:
            await self._refuse(exchange, Rejected(Reason.NO_ROUTE, dialect=HMACPROXY), send)


def _whole(message: Message) -> Message:
    """The message with one Cookie header: HTTP/2 may split it (RFC 9113 8.2.3)."""
    if "cookie" not in message.duplicated or message.http_version[0] == "1":
        return message
    return _with(message, ("cookie", "; ".join(message.get_all("cookie"))))


def _with(message: Message, header: tuple[str, str] | None) -> Message:
    """The message with this one in place of all headers of its name; None: the message."""
    if header is None:
        return message
    return Message(
        message.method,
        message.target,
        [*(pair for pair in message.headers if pair[0] != header[0]), header],
        message.scheme,
        message.authority,
        message.http_version,
        message.remote_addr,
    )


def _step(options: Options, scheme: HmacProxy) -> Step:
    """What verifies, as a route would have it."""
    policy = Policy(
        algorithms=frozenset(available() if options.any_digest else [options.digest]),
        clock_skew=options.max_skew,
        required=(),
        require_date=bool(options.max_skew),
        # For what is kept there is `Options.max_body`; the rest is only hashed.
        max_body=2**63,
    )
    common = Common(HMACPROXY, "", "", False, False, frozenset())
    return Step(cast(AuthPlugin, hmac_auth), hmac_auth.Config(scheme, policy, common), common, 0)


def _upstream(options: Options) -> Upstream | None:
    url = options.url
    if not url.hostname:
        return None
    tls = url.scheme == "https"
    port = url.port or (443 if tls else 80)
    node = Node(f"{url.hostname}:{port}", url.hostname, port, 1, Target(url.hostname, port, tls))
    return Upstream("upstream", (node,))
