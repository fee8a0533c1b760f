"""Between Django's requests and the engine: message, body, admission, answers.

Used by the middleware, the decorator, the DRF class, the embedded lane and the auth endpoint's view; knows WSGI and
ASGI requests. Imports `site`, the gate and Django.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import IO, Any, Final, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from .. import site
from ..conf import conf
from ..core.errors import Rejected
from ..core.identity import BodyDigest, Carrier, Identity
from ..core.message import Message
from ..core.paths import ambiguity
from ..core.reasons import Reason
from ..core.words import answer, wanted
from ..gate import NO_RULES, Admission, Pipeline, RuleSet, check, refuse
from ..settling import Needs, Stores, asettle, settle, steps_left
from ..site import Door
from ..snapshot import Snapshot
from ..stores import MemoryStore, RefusingStore
from .heads import Access, access_of, message_of, quoted, raw_target

#: How much of a body is read at once.
CHUNK: Final = 64 * 1024
#: Bodies from this size on are read and digested off the event loop.
_LARGE: Final = 256 * 1024
#: Nothing in front of the site may keep what a credential opened.
NO_STORE: Final = "private, no-store"
_CACHE_CONTROL: Final = ("Cache-Control", NO_STORE)
_NOT_SHARED: Final = RefusingStore(
    "REPLAY_STORE is memory, which the processes of this server do not share; set it to redis://… or database"
)

# --- what must be passed ---


def door_of(
    request: HttpRequest, snapshot: Snapshot | None, target: tuple[str, bool] | None = None
) -> Door | Rejected | None:
    """What this site's configuration demands of a request; None: nothing. `target` is `raw_target(request)`.

    Django resolves `path_info`, clients ask for `path`: they differ by a script name, which a server's or a site's
    settings put in front, and with some servers a header. Whichever of them is protected counts.
    """
    text = (target or raw_target(request))[0]
    raw = text.partition("?")[0] if text[:1] == "/" else message_of(request).path
    path, inner = request.path, request.path_info
    if inner != path:
        found = site.protection(snapshot, _bytes_text(inner), quoted(inner), message_of, request)
        if found is not None:
            return found
    return site.protection(snapshot, path if path.isascii() else _bytes_text(path), raw, message_of, request)


def _bytes_text(path: str) -> str:
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("latin-1")


def unreadable(request: HttpRequest) -> Rejected | None:
    """The refusal of a path that can be read in two ways; Django's resolver has already taken it as it stands."""
    why = ambiguity(message_of(request).path)
    return None if why is None else Rejected(Reason.AMBIGUOUS_PATH, dialect=conf.dialect, facts={"why": why})


def admit(
    request: HttpRequest,
    steps: Pipeline,
    directory: Snapshot,
    rules: RuleSet = NO_RULES,
    route_id: str = "",
    service_id: str = "",
    routed: Message | None = None,
) -> Admission | Rejected:
    """Run the gate over a request: head, body where a digest must be right, replay marks, rules.

    `routed` is the message by which a route was found, where that is not the one received. Afterwards the body is
    there unread. Sets `request.hmac` when it may go on. Raises ImproperlyConfigured when
    somebody consumed a body that must be checked.
    """
    access = access_of(request)
    admission = _head(request, access, steps, directory, routed)
    if isinstance(admission, Rejected):
        return admission
    if admission.bodies:
        refused = _body(request, admission)
        if refused is not None:
            return refused
    if access.verified and _different(access, admission, directory):
        return refuse(admission.held[-1], Reason.DIFFERENT_CONSUMERS)
    needs = _needs(access, admission, directory, rules, route_id, service_id, routed)
    if needs is not None:
        refused = settle(needs, _stores(request))
        access.headers.update(needs.headers)
        if refused is not None:
            return refused
    return _settled(request, access, admission)


async def aadmit(
    request: HttpRequest,
    steps: Pipeline,
    directory: Snapshot,
    rules: RuleSet = NO_RULES,
    route_id: str = "",
    service_id: str = "",
    routed: Message | None = None,
) -> Admission | Rejected:
    """`admit` from an event loop: neither a large body nor a store blocks it."""
    access = access_of(request)
    admission = _head(request, access, steps, directory, routed)
    if isinstance(admission, Rejected):
        return admission
    if admission.bodies:
        length = access.message.content_length
        if length is not None and length < _LARGE:
            refused = _body(request, admission)
        else:
            refused = await asyncio.to_thread(_body, request, admission)
        if refused is not None:
            return refused
    if access.verified and _different(access, admission, directory):
        return refuse(admission.held[-1], Reason.DIFFERENT_CONSUMERS)
    needs = _needs(access, admission, directory, rules, route_id, service_id, routed)
    if needs is not None:
        if hasattr(request, "scope"):
            refused = await asettle(needs, _stores(request))
        else:
            # Under WSGI each request has an event loop of its own: connections kept for it would never be used again.
            # In the thread that serves it, whose database connection Django looks after.
            refused = await sync_to_async(settle)(needs, _stores(request))
        access.headers.update(needs.headers)
        if refused is not None:
            return refused
    return _settled(request, access, admission)


def _stores(request: HttpRequest) -> Stores:
    """Where marks and counts are kept; no memory where the server says that other processes serve beside this one."""
    stores = site.state().stores
    if not isinstance(stores.replays, MemoryStore) or "gunicorn" not in request.META.get("SERVER_SOFTWARE", ""):
        return stores
    # Its configuration file, which nobody else reads, may ask for several workers. Others say it without meaning it.
    return replace(stores, replays=_NOT_SHARED) if request.META.get("wsgi.multiprocess") else stores


def _needs(
    access: Access,
    admission: Admission,
    directory: Snapshot,
    rules: RuleSet,
    route_id: str,
    service_id: str,
    routed: Message | None,
) -> Needs | None:
    if not (admission.replays or rules.all or directory.overrides):
        return None
    if access.stored:
        # Marks that this very request has set, for another adapter that saw it, are there: at most for too short.
        stored = access.stored
        admission.replays = tuple(
            (step, replace(replay, longer=replay.key in stored))
            for step, replay in admission.replays
            if stored.get(replay.key, 0) < replay.ttl
        )
    if access.judged is None:
        access.judged = set()
    return steps_left(
        admission, routed or access.message, directory, time.time(), rules, route_id, service_id, access.judged
    )


async def acurrent() -> Snapshot | None:
    """`site.snapshot()` from an event loop: a look at the version row happens in a thread, as Django's ORM demands."""
    found = site.settings_only()
    if found is not None:
        return found
    runtime = site.runtime()
    return await sync_to_async(runtime.current)() if runtime.due() else runtime.snapshot


def _head(
    request: HttpRequest, access: Access, steps: Pipeline, directory: Snapshot, routed: Message | None
) -> Admission | Rejected:
    message = access.message
    unframed = "HTTP_TRANSFER_ENCODING" in request.META and message.content_length is None
    if unframed and steps and not hasattr(request, "scope"):
        # PEP 3333 knows no body without a length: the view would see an empty one.
        return Rejected(Reason.LENGTH_REQUIRED, dialect=conf.dialect)
    return check(message, steps, directory, time.time(), None, routed)


def _different(access: Access, admission: Admission, directory: Snapshot) -> bool:
    """Adapters of one request are like plugins on one object: all must name the same consumer."""
    before, found = access.identity, admission.identity
    if before.consumer is None or found.consumer is None or before.anonymous or found.anonymous:
        return False
    return directory.require_same_consumer and before.consumer != found.consumer


def _settled(request: HttpRequest, access: Access, admission: Admission) -> Admission:
    if admission.replays:
        # Only now: what was not stored, since it was there already, must be asked for again by whoever asks next.
        access.stored = {**access.stored, **{replay.key: replay.ttl for _, replay in admission.replays}}
    access.identity = admission.identity
    access.verified += admission.held
    request.hmac = admission.identity  # type: ignore[attr-defined]
    return admission


# --- bodies ---


def _body(request: HttpRequest, admission: Admission) -> Rejected | None:
    """Read the whole body in chunks, judge it, and put it back as if nobody had read it."""
    digests = admission.digests()
    if request._read_started:  # type: ignore[attr-defined]
        whole: bytes | None = request.__dict__.get("_body")
        if whole is None:
            raise ImproperlyConfigured(
                "The body of this request was consumed before its digest could be checked. Whatever reads it must come "
                "later: put hmac_gateway.middleware.HmacGatewayMiddleware before middleware that reads request.POST, "
                "request.FILES or the stream, and HmacAuthentication first in authentication_classes."
            )
        for digest in digests:
            digest.feed(whole)
        return admission.finish(digests)
    size = spool_body(request, admission.limit, digests)
    if isinstance(size, Rejected):
        return size
    return admission.too_large(size) if size > admission.limit else admission.finish(digests)


def spool_body(request: HttpRequest, limit: int, digests: Sequence[BodyDigest] = ()) -> int | Rejected:
    """Read a whole body that nobody has begun to read, feed it to the digests, and put it back unread; its size.

    Reading stops where more than `limit` bytes have come; refused where the body broke off.
    """
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(conf.spool_memory, prefix="hmac-gateway-")  # noqa: SIM115
    # Closed with the request, whoever holds it last: views may go on reading while they stream.
    weakref.finalize(request, spool.close)
    size = 0
    while chunk := _piece(request):
        if isinstance(chunk, Rejected):
            return chunk
        size += len(chunk)
        if size > limit:
            return size
        for digest in digests:
            digest.feed(chunk)
        spool.write(chunk)
    spool.seek(0)
    unread: Any = request
    unread._stream = spool
    unread._read_started = False
    if "wsgi.input" in request.META:
        request.META["wsgi.input"] = spool
    return size


def _piece(request: HttpRequest) -> bytes | Rejected:
    try:
        return request.read(CHUNK)
    except UnreadablePostError:
        return Rejected(Reason.MALFORMED, dialect=conf.dialect, detail="the body broke off")


# --- answers ---


def refusal(request: HttpRequest, rejected: Rejected, steps: Pipeline = ()) -> HttpResponse:
    """The answer of a refusal, in the words of whoever refused."""
    access = access_of(request)
    request_id = access.request_id
    kinds = wanted(rejected, request.META.get("HTTP_ACCEPT"), request.META.get("CONTENT_TYPE"))
    status, body, headers = answer(rejected, request_id, kinds)
    response = HttpResponse(body, status=status)
    for name, value in headers:
        # These are the server's own; under WSGI an application must not set them (PEP 3333).
        if name not in ("connection", "upgrade"):
            response[name] = value
    response["X-Request-Id"] = request_id
    site.finished(access, status, rejected)
    return cast(HttpResponse, protect_response(access, response, steps))


def protect_response(access: Access, response: HttpResponseBase, steps: Pipeline) -> HttpResponseBase:
    """Keep an answer out of every shared cache: no-store, and Vary on each header that may carry a credential."""
    headers: Any = response.headers
    # Django's own way in converts and checks each text again, which for these two takes a thirtieth of a small view's
    # time. So: straight to where it keeps them, under lower-case names.
    kept = getattr(headers, "_store", None) or _Kept(headers)
    kept["cache-control"] = _CACHE_CONTROL
    vary = _vary(_carriers(steps))
    if "vary" in kept:
        patch_vary_headers(response, vary[1].split(", "))
    else:
        kept["vary"] = vary
    if access.headers:
        for name, value in access.headers.items():
            headers[name] = value
    return response


def protect_others(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """`protect_response` where a view's own check let a request through and the view raised: Http404 and the like.

    Of the answer that Django makes of it, the check does not hear.
    """
    access: Access | None = getattr(request, "_hmac_gateway", None)
    if access is None or not access.verified or response.status_code < 400 or response.has_header("Cache-Control"):
        return response
    return protect_response(access, response, access.verified)


class _Kept:
    """Headers of a Django that keeps them elsewhere."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def __contains__(self, name: str) -> bool:
        return name in self._headers

    def __setitem__(self, name: str, line: tuple[str, str]) -> None:
        self._headers[line[0]] = line[1]


def varies_on(carriers: frozenset[Carrier]) -> list[str]:
    """The headers that may carry these credentials."""
    return _vary(carriers)[1].split(", ")


def _carriers(steps: Pipeline) -> frozenset[Carrier]:
    if len(steps) == 1:
        return steps[0].common.carriers
    return frozenset(carrier for step in steps for carrier in step.common.carriers)


@lru_cache(maxsize=256)
def _vary(carriers: frozenset[Carrier]) -> tuple[str, str]:
    names = {"Cookie" if place == "cookie" else name.title() for place, name in carriers if place != "query"}
    return "Vary", ", ".join(sorted(names)) or "Authorization"


def exempt_from_csrf(request: HttpRequest, identity: Identity) -> None:
    """Let a request pass CsrfViewMiddleware that no browser can have been made to send."""
    if identity.csrf_exempt:
        # The attribute by which Django's own test client says the same.
        request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
