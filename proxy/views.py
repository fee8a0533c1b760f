"""`ProxyView`: the embedded lane, an ordinary Django view that forwards to the routes of the console.

    path("gw/<path:path>", ProxyView.as_view())       routes match what `path` captures; upstreams get that
    re_path(r"^orders/", ProxyView.as_view())         routes match the whole path

For sites that run WSGI; works under ASGI in Django's threads. Same rules, plan, retries and words as the gateway lane.
Imports Django, `hmac_gateway` and this app's admission, plan, forwarding, answers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, cast
from urllib.parse import quote

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import View

from hmac_gateway import site
from hmac_gateway.adapters.django import admit, protect_response, refusal, spool_body
from hmac_gateway.adapters.heads import access_of, message_of, request_id_of
from hmac_gateway.conf import conf
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import Carrier
from hmac_gateway.core.message import Message, split_target
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import Answer
from hmac_gateway.gate import Admission, Outgoing
from hmac_gateway.routing import Route
from hmac_gateway.snapshot import Snapshot

from .admission import elsewhere, find_route, local_answer, upstream_failure
from .answers import Body, UpstreamResponse
from .exchange import TransportError, status_of
from .forwarding import Plan, forwarder
from .hashing import newcomer
from .plan import UPSTREAM_STATUS, BadTarget, Forward, Peer, forwarded_target, header_lines, upstream_status
from .plan_kong import RESPONSE_LATENCY, proxied_headers
from .signing import Signature, signer_of, too_large

#: How much of a request body is read at once, in bytes.
CHUNK: Final = 64 * 1024
#: Characters that URL patterns may hold and clients send as they are (RFC 3986 3.3, and what browsers leave alone).
_IN_PATH: Final = "/:@!$&'()*+,;=-._~[]|"
_LINE_BREAKS: Final = re.compile(r"[\r\n\x00]")


class BrokenOff(Exception):
    """The client's body ended before its length was reached."""


class ProxyView(View):
    """Matches, authenticates, balances and forwards, as the gateway lane does, for every method there is.

    Exempt from CSRF (a proxied application has its own rules), from LoginRequiredMiddleware and from ATOMIC_REQUESTS:
    no transaction stays open while an upstream takes its time.
    """

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """The view, exempted."""
        view = csrf_exempt(login_not_required(super().as_view(**initkwargs)))
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer one request: message, route, gate, plan, exchange."""
        began = time.perf_counter()
        found = _routed(request, kwargs.get("path"))
        if isinstance(found, Rejected):
            return _refused(request, found, kwargs.get("path"), began)
        route, message, snapshot = found
        access_of(request).route_id = route.id
        admission = admit(request, route.pipeline, snapshot, route.rules, route.id, route.service_id, message)
        if isinstance(admission, Rejected):
            return _refused(request, admission, kwargs.get("path"), began, route)
        answer = _forwarded(request, route, admission, message, snapshot, began)
        if isinstance(answer, Rejected):
            return _refused(request, answer, kwargs.get("path"), began, route)
        site.finished(access_of(request), answer.status_code)
        return answer


def _refused(
    request: HttpRequest, rejected: Rejected, captured: str | None, began: float, route: Route | None = None
) -> HttpResponse:
    if rejected.dialect == "kong":
        access_of(request).headers[RESPONSE_LATENCY] = str(int((time.perf_counter() - began) * 1000))
    received = message_of(request)
    message = None if captured is None else _inside(request, received, captured)
    access_of(request).asked = {"by": "ProxyView", "target": (message or received).target}
    return refusal(request, rejected, () if route is None else route.pipeline)


def _routed(request: HttpRequest, captured: str | None) -> tuple[Route, Message, Snapshot] | Rejected:
    """The route, with the message as the upstream is to get it and the configuration that it was found in."""
    received, dialect = message_of(request), conf.dialect
    snapshot = site.runtime().current()
    if snapshot is None:
        return Rejected(Reason.NOT_CONFIGURED, dialect=dialect)
    if any(_LINE_BREAKS.search(value) for _, value in received.headers):
        # Servers see to that. It costs little not to depend on all of them.
        return Rejected(Reason.MALFORMED, dialect=dialect, detail="a header holds a line break")
    message = received if captured is None else _inside(request, received, captured)
    if message is None:
        # Of two things wrong with a path, the gateway lane's word comes first.
        refused = find_route(received, received.path, snapshot, dialect)
        why = "the path's prefix is percent-encoded or holds repeated slashes"
        return refused if isinstance(refused, Rejected) else _ambiguous(why, dialect)
    forwarder().forget(snapshot.upstreams)
    route = find_route(message, message.path, snapshot, dialect, site.is_trusted(message.remote_addr))
    route = route or elsewhere(snapshot, dialect)
    return route if isinstance(route, Rejected) else (route, message, snapshot)


def _own_cookies() -> frozenset[Carrier]:
    return frozenset(Carrier("cookie", name) for name in _own_cookie_names())


def _own_cookie_names() -> tuple[str, ...]:
    return settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME


def _forwarded(
    request: HttpRequest, route: Route, admission: Admission, message: Message, snapshot: Snapshot, began: float
) -> HttpResponseBase | Rejected:
    """Send the request on; the upstream's answer, its body still to come. Or the gateway's own answer."""
    forward: Forward = route.target
    upstream = forward.upstream
    if upstream is None or not upstream.nodes:
        own = local_answer(message, route, snapshot, time.time())
        return own if isinstance(own, Rejected) else _given(request, own, route)
    asynchronous = hasattr(request, "scope")
    if not asynchronous and message.content_length is None and message.get("transfer-encoding") is not None:
        return Rejected(Reason.LENGTH_REQUIRED, dialect=conf.dialect)
    upload = _Upload(request, message)
    signature: Signature | None = None
    if forward.outgoing is not None:
        signer = signer_of(forward.outgoing, message, admission.identity, snapshot.outgoing)
        found = _signature(signer, upload) if isinstance(signer, Outgoing) else signer
        if isinstance(found, Rejected):
            return found
        signature = found
    try:
        # What makes somebody a user of this site is not the upstream's business.
        hidden = admission.hidden | _own_cookies() if message.get("cookie") is not None else admission.hidden
        target = forwarded_target(message, forward, hidden)
    except BadTarget as error:
        return _ambiguous(str(error), route.dialect)
    port = request.META.get("SERVER_PORT", "")
    peer = Peer(int(port) if port.isascii() and port.isdigit() else 80, site.is_trusted(message.remote_addr))
    request_id = request_id_of(request)
    lines = header_lines(message, admission.identity, hidden, peer, request_id, upload.framing, forward.rewrite)
    chooser, cookie = message, ""
    if upstream.cookie is not None:
        chooser, cookie = newcomer(upstream, message, admission.identity)
    plan = Plan(upstream, forward.timeouts, target, lines, admission.identity, signature, chooser)
    failed: list[int] = []
    sent = time.perf_counter()
    try:
        connection, response = forwarder().exchange(message, plan, upload, failed)
    except TransportError as error:
        if statuses := upstream_status(route.dialect, failed, status_of(error)):
            access_of(request).headers[UPSTREAM_STATUS] = statuses
        return upstream_failure(error, route.dialect)
    except (BrokenOff, UnreadablePostError):
        return Rejected(Reason.MALFORMED, dialect=route.dialect, detail="the body broke off")
    took = time.perf_counter() - sent
    if forward.rewrite is not None:
        ours = proxied_headers(request_id, time.perf_counter() - began, took, response.http_version, response.headers)
        names = {name for name, _ in ours}
        response.headers = [*(pair for pair in response.headers if pair[0] not in names), *ours]
    answer = UpstreamResponse(
        Body(connection, response), response, asynchronous=asynchronous, own_cookies=_own_cookie_names()
    )
    if cookie:
        answer.add_cookie(cookie)
    answer["X-Request-Id"] = request_id
    if statuses := upstream_status(route.dialect, failed, response.status):
        answer[UPSTREAM_STATUS] = statuses
    if route.pipeline:
        # An upstream that says what caches may do knows better than we.
        said = answer.get("Cache-Control")
        protect_response(access_of(request), answer, route.pipeline)
        if said is not None:
            answer["Cache-Control"] = said
    for name, value in access_of(request).headers.items():
        answer[name] = value
    return answer


def _signature(signer: Outgoing, upload: _Upload) -> Signature | Rejected:
    """How a request is to be signed; a body that the signature covers is read whole."""
    if not signer.config.body:
        return Signature(signer, time.time)
    limit = signer.config.max_body
    size = upload.size if upload.size > limit else upload.spool(limit)
    if isinstance(size, Rejected):
        return size
    if size > limit:
        return too_large(signer, size)
    return Signature(signer, time.time, upload.pieces)


def _given(request: HttpRequest, own: Answer, route: Route) -> HttpResponseBase:
    status, body, headers = own
    response = HttpResponse(body, status=status, headers=dict(headers))
    response["X-Request-Id"] = request_id_of(request)
    return protect_response(access_of(request), response, route.pipeline)


def _inside(request: HttpRequest, received: Message, captured: str) -> Message | None:
    """The message with the prefix that the view is mounted under taken from its target; None where it is not there.

    Only Django knows the prefix, and only decoded; it is taken from the raw path where it stands there as it is written
    in the URL pattern. A slash at its end stays, as the first of what is left.
    """
    path, query = split_target(received.target)
    # Whether SCRIPT_NAME is part of what the server calls raw differs by server.
    for decoded in (request.path, request.path_info):
        prefix = quote(decoded.removesuffix(captured), safe=_IN_PATH)
        if decoded.endswith(captured) and path.startswith(prefix):
            break
    else:
        return None
    path = path[len(prefix) :]
    if prefix.endswith("/") or not path.startswith("/"):
        path = "/" + path
    target = f"{path}?{query}" if "?" in received.target else path
    return Message(
        received.method,
        target,
        received.headers,
        received.scheme,
        received.authority,
        received.http_version,
        received.remote_addr,
        received.target_exact,
    )


def _ambiguous(why: str, dialect: str) -> Rejected:
    return Rejected(Reason.AMBIGUOUS_PATH, dialect=dialect, facts={"why": why})


class _Upload:
    """The request's body, read in chunks and only where it is sent: `request.body` would hold it whole."""

    def __init__(self, request: HttpRequest, message: Message) -> None:
        self._request = request
        stream = cast(Any, request)._stream
        if cast(Any, request)._read_started and "_body" not in request.__dict__:
            raise ImproperlyConfigured(
                "The body of this request was consumed before ProxyView could forward it: middleware in front of it "
                "must not read request.POST, request.FILES or the stream."
            )
        # Where it was read to be checked, or by somebody's `request.body`, or by ASGI, it is a file or lies in memory.
        self.repeatable = stream.seekable()
        if self.repeatable:
            self.size = stream.seek(0, 2)
            announced = self.size > 0 or message.content_length is not None
        else:
            self.size = message.content_length or 0
            announced = message.content_length is not None
        self._stream = stream
        self.framing = f"content-length: {self.size}\r\n" if announced else ""

    def spool(self, limit: int) -> int | Rejected:
        """Have the whole body at hand, at most `limit` bytes of it; its size, or why it is not there."""
        if self.repeatable:
            return int(self.size)
        size = spool_body(self._request, limit)
        if isinstance(size, Rejected) or size > limit:
            return size
        self._stream, self.repeatable = cast(Any, self._request)._stream, True
        if size < self.size:
            return Rejected(Reason.MALFORMED, dialect=conf.dialect, detail="the body broke off")
        return size

    def pieces(self) -> Iterator[bytes]:
        """The body's chunks; raises BrokenOff, or Django's UnreadablePostError, when the client breaks off."""
        if self.repeatable:
            self._stream.seek(0)
        left = self.size
        while left:
            piece = self._request.read(min(CHUNK, left))
            if not piece:
                raise BrokenOff
            left -= len(piece)
            yield piece
