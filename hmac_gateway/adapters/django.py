"""Between Django's requests and the engine: message, body, admission, answers.

Used by the middleware, the decorator, the DRF class, the embedded lane and the auth endpoint's view; knows WSGI and
ASGI requests. Imports `site`, the gate and Django.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import IO, Any, Final, cast
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from .. import site
from ..conf import conf, setting
from ..core.errors import Rejected
from ..core.identity import NOBODY, BodyDigest, Carrier, Identity
from ..core.message import Message
from ..core.paths import ambiguity
from ..core.reasons import Reason
from ..core.words import answer
from ..gate import NO_RULES, Admission, Pipeline, RuleSet, check, refuse
from ..settling import Needs, Stores, asettle, settle, steps_left
from ..site import Door, is_trusted
from ..snapshot import Snapshot
from ..stores import MemoryStore, RefusingStore
from .rebuilt import tell_once

#: How much of a body is read at once.
CHUNK: Final = 64 * 1024
#: Bodies from this size on are read and digested off the event loop.
_LARGE: Final = 256 * 1024
#: Some servers set no limit. No client needs a tenth of it, and gunicorn refuses so much by itself.
MOST_HEADERS: Final = 1000
#: Nothing in front of the site may keep what a credential opened.
NO_STORE: Final = "private, no-store"
#: Where servers put the request target as received: gunicorn, then uWSGI and mod_wsgi.
_RAW_TARGETS: Final = ("RAW_URI", "REQUEST_URI")
#: How many commas a header has that came once, where more would matter.
_COMMAS: Final = (("date", 1), ("x-date", 1), ("digest", 0))
_NONE: Final[frozenset[str]] = frozenset()
_NOT_SHARED: Final = RefusingStore(
    "REPLAY_STORE is memory, which the processes of this server do not share; set it to redis://… or database"
)
#: A comma, a scheme's name, a blank and credentials (RFC 9110 11.6.2): parameters have `=` there.
_SCHEME_AGAIN: Final = re.compile(r",[ \t]*[A-Za-z][A-Za-z0-9-]*[ \t]+[^\s=,]")
_QUOTED: Final = re.compile(r'"[^"]*"')
_UNPREFIXED: Final = (("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length"))
#: What RFC 3986 lets stand in a path.
_IN_PATH: Final = "/~!$&'()*+,;=:@-._"


class Access:
    """What was found out about one request, kept on it as `_hmac_gateway` for all adapters that see it.

    `verified` are the steps that held; `stored` the keys of replay marks that this very request has set; `judged` the
    rules that have judged it, and for whom; `headers` what rules put on the answer; `asked` who refused it and by what,
    for the debugger.
    """

    __slots__ = (
        *("asked", "headers", "identity", "judged", "message", "reason"),
        *("request_id", "route_id", "status", "stored", "verified"),
    )

    def __init__(self, message: Message, request_id: str) -> None:
        self.message = message
        self.request_id = request_id
        self.route_id = ""
        self.status = 0
        self.reason = ""
        self.identity: Identity = NOBODY
        self.verified: Pipeline = ()
        self.headers: dict[str, str] = {}
        self.stored: set[str] = set()
        self.judged: set[str] = set()
        self.asked: Mapping[str, Any] | None = None

    @property
    def path(self) -> str:
        """The raw path, for logs and the debugger."""
        return self.message.path


def access_of(request: HttpRequest) -> Access:
    """The request's `Access`, made on first use."""
    found: Access | None = request.__dict__.get("_hmac_gateway")
    if found is None:
        message = _message(request)
        found = request.__dict__["_hmac_gateway"] = Access(message, _request_id(message))
    return found


def message_of(request: HttpRequest) -> Message:
    """The request's head as received, as far as the server has kept it (`target_exact`)."""
    return access_of(request).message


def request_id_of(request: HttpRequest) -> str:
    """The id under which logs and the debugger know this request."""
    return access_of(request).request_id


def raw_target(request: HttpRequest) -> tuple[str, bool]:
    """(request target, whether these are the bytes received); rebuilt by quoting where the server has lost them."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        raw = scope.get("raw_path")
        query = scope.get("query_string", b"")
        query = query.decode("latin-1") if isinstance(query, bytes) else query
        if raw:
            # uvicorn and others leave the query out of raw_path; one server keeps it there.
            path = raw.decode("latin-1").partition("?")[0]
            return (f"{path}?{query}" if query else path), True
    else:
        environ: dict[str, Any] = request.META
        for name in _RAW_TARGETS:
            raw = environ.get(name)
            if raw:
                return cast(str, raw), True
        query = environ.get("QUERY_STRING", "")
    path = _quoted(request.path)
    return (f"{path}?{query}" if query else path), False


#: Variables of WSGI environs and the headers in them. Clients choose names: what is kept is bounded.
_NAMES: Final[dict[str, str]] = {}


def _headers(environ: dict[str, Any]) -> dict[str, str]:
    """The headers that a WSGI environ holds, each once; empty CONTENT_… stand for absent ones (PEP 3333)."""
    headers = {}
    for variable, value in environ.items():
        if variable[:5] == "HTTP_":
            name = _NAMES.get(variable)
            if name is None:
                name = variable[5:].replace("_", "-").lower()
                if len(_NAMES) < 1024:
                    _NAMES[variable] = name
            headers[name] = value.strip(" \t")
    for variable, name in _UNPREFIXED:
        if value := environ.get(variable):
            headers[name] = value.strip(" \t")
    return headers


def _authority(meta: dict[str, Any]) -> str:
    """What Django calls the host (HttpRequest.get_host), unchecked: ALLOWED_HOSTS is the site's business."""
    if "HTTP_X_FORWARDED_HOST" in meta and setting("USE_X_FORWARDED_HOST"):
        return cast(str, meta["HTTP_X_FORWARDED_HOST"])
    return cast(str, meta.get("HTTP_HOST") or meta.get("SERVER_NAME") or "")


def _joined(headers: dict[str, str]) -> frozenset[str]:
    """Headers that came twice, which WSGI servers join with a comma."""
    found = [name for name, commas in _COMMAS if headers.get(name, "").count(",") > commas]
    given = headers.get("authorization", "")
    if "," in given and _SCHEME_AGAIN.search(given) and _SCHEME_AGAIN.search(_QUOTED.sub("", given)):
        found.append("authorization")
    return frozenset(found) if found else _NONE


def _message(request: HttpRequest) -> Message:
    target, exact = raw_target(request)
    scope = getattr(request, "scope", None)
    meta = request.META
    if not exact:
        tell_once(meta)
    # `request.scheme` asks two settings; without SECURE_PROXY_SSL_HEADER the server's word is the answer.
    scheme = None
    if scope is not None:
        headers: Sequence[tuple[str | bytes, str | bytes]] | dict[str, str] = scope["headers"]
        version = scope.get("http_version", "1.1")
    else:
        headers = _headers(meta)
        version = meta.get("SERVER_PROTOCOL", "HTTP/1.1")[5:]
        scheme = None if setting("SECURE_PROXY_SSL_HEADER") else meta.get("wsgi.url_scheme")
    if len(headers) > MOST_HEADERS:
        raise SuspiciousOperation("The request has too many headers.")  # Django answers 400
    remote = meta.get("REMOTE_ADDR") or ""
    message = Message(
        cast(str, request.method),
        target,
        headers,
        scheme or str(request.scheme),
        _authority(meta),
        version,
        remote,
        exact,
    )
    if isinstance(headers, dict):
        message.duplicated = _joined(headers)
    return message


def _request_id(message: Message) -> str:
    given = message.get("x-request-id")
    if given is None or not is_trusted(message.remote_addr):
        return os.urandom(16).hex()
    if len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum():
        return given
    return os.urandom(16).hex()


# --- what must be passed ---


def door_of(request: HttpRequest, snapshot: Snapshot | None) -> Door | Rejected | None:
    """What this site's configuration demands of a request; None: nothing.

    Django resolves `path_info`, clients ask for `path`: they differ by a script name, which a server's or a site's
    settings put in front, and with some servers a header. Whichever of them is protected counts.
    """
    target, _ = raw_target(request)
    raw = target.partition("?")[0] if target[:1] == "/" else message_of(request).path
    inner = request.path_info
    if inner != request.path:
        found = site.protection(snapshot, _bytes_text(inner), _quoted(inner), lambda: message_of(request))
        if found is not None:
            return found
    return site.protection(snapshot, _bytes_text(request.path), raw, lambda: message_of(request))


def _quoted(path: str) -> str:
    return quote(path, safe=_IN_PATH, encoding="utf-8", errors="surrogateescape")


def _bytes_text(path: str) -> str:
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("latin-1")


def unreadable(request: HttpRequest) -> Rejected | None:
    """The refusal of a path that can be read in two ways; Django's resolver has already taken it as it stands."""
    target, _ = raw_target(request)
    why = ambiguity(target.partition("?")[0] if target[:1] == "/" else message_of(request).path)
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
    admission = _head(request, steps, directory, routed)
    if isinstance(admission, Rejected):
        return admission
    refused = _body(request, admission) if admission.bodies else None
    refused = refused or _different(request, admission, directory)
    if refused is not None:
        return refused
    needs = _needs(request, admission, directory, rules, route_id, service_id, routed)
    refused = None if needs is None else settle(needs, _stores(request))
    return _settled(request, admission, needs, refused)


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
    admission = _head(request, steps, directory, routed)
    if isinstance(admission, Rejected):
        return admission
    if admission.bodies:
        length = message_of(request).content_length
        if length is not None and length < _LARGE:
            refused = _body(request, admission)
        else:
            refused = await asyncio.to_thread(_body, request, admission)
        if refused is not None:
            return refused
    different = _different(request, admission, directory)
    if different is not None:
        return different
    needs = _needs(request, admission, directory, rules, route_id, service_id, routed)
    if needs is None:
        refused = None
    elif hasattr(request, "scope"):
        refused = await asettle(needs, _stores(request))
    else:
        # Under WSGI each request has an event loop of its own: connections kept for it would never be used again.
        refused = await asyncio.to_thread(settle, needs, _stores(request))
    return _settled(request, admission, needs, refused)


def _stores(request: HttpRequest) -> Stores:
    """Where marks and counts are kept; no memory where the server says that other processes serve beside this one."""
    stores = site.state().stores
    if not isinstance(stores.replays, MemoryStore) or "gunicorn" not in request.META.get("SERVER_SOFTWARE", ""):
        return stores
    # Its configuration file, which nobody else reads, may ask for several workers. Others say it without meaning it.
    return replace(stores, replays=_NOT_SHARED) if request.META.get("wsgi.multiprocess") else stores


def _needs(
    request: HttpRequest,
    admission: Admission,
    directory: Snapshot,
    rules: RuleSet,
    route_id: str,
    service_id: str,
    routed: Message | None,
) -> Needs | None:
    access = access_of(request)
    if access.stored and admission.replays:
        # Marks that this very request has set, for another adapter that saw it.
        admission.replays = tuple(pair for pair in admission.replays if pair[1].key not in access.stored)
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


def _head(request: HttpRequest, steps: Pipeline, directory: Snapshot, routed: Message | None) -> Admission | Rejected:
    message = message_of(request)
    unframed = message.content_length is None and message.get("transfer-encoding") is not None
    if steps and unframed and not hasattr(request, "scope"):
        # PEP 3333 knows no body without a length: the view would see an empty one.
        return Rejected(Reason.LENGTH_REQUIRED, dialect=conf.dialect)
    return check(message, steps, directory, time.time(), None, routed)


def _different(request: HttpRequest, admission: Admission, directory: Snapshot) -> Rejected | None:
    """Adapters of one request are like plugins on one object: all must name the same consumer."""
    before, found = access_of(request).identity, admission.identity
    known = before.consumer is not None and found.consumer is not None
    if not directory.require_same_consumer or not known or before.anonymous or found.anonymous:
        return None
    return refuse(admission.held[-1], Reason.DIFFERENT_CONSUMERS) if before.consumer != found.consumer else None


def _settled(
    request: HttpRequest, admission: Admission, needs: Needs | None, refused: Rejected | None
) -> Admission | Rejected:
    access = access_of(request)
    if needs is not None:
        access.headers.update(needs.headers)
    if refused is not None:
        return refused
    # Only now: what was not stored, since it was there already, must be asked for again by whoever asks next.
    access.stored.update(replay.key for _, replay in admission.replays)
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
    request_id = request_id_of(request)
    status, body, headers = answer(rejected, request_id, request.META.get("HTTP_ACCEPT"))
    response = HttpResponse(body, status=status)
    for name, value in headers:
        # These are the server's own; under WSGI an application must not set them (PEP 3333).
        if name not in ("connection", "upgrade"):
            response[name] = value
    response["X-Request-Id"] = request_id
    finished(request, status, rejected)
    return cast(HttpResponse, protect_response(request, response, steps))


def finished(request: HttpRequest, status: int, rejected: Rejected | None = None) -> None:
    """Tell log and console how a protected request ended."""
    access = access_of(request)
    access.status = status
    access.reason = "" if rejected is None else str(rejected.reason)
    site.observe(access, rejected)


def protect_response(request: HttpRequest, response: HttpResponseBase, steps: Pipeline) -> HttpResponseBase:
    """Keep an answer out of every shared cache: no-store, and Vary on each header that may carry a credential."""
    headers = response.headers
    headers["Cache-Control"] = NO_STORE
    names = varies_on(steps)
    if "Vary" in headers:
        patch_vary_headers(response, names)
    else:
        headers["Vary"] = ", ".join(names)
    access = access_of(request)
    headers.setdefault("X-Request-Id", access.request_id)
    for name, value in access.headers.items():
        headers[name] = value
    return response


def varies_on(steps: Pipeline) -> tuple[str, ...]:
    """The headers that may carry the credentials of these steps."""
    if len(steps) == 1:
        return _headers_of(steps[0].common.carriers)
    return tuple(sorted({name for step in steps for name in _headers_of(step.common.carriers)})) or ("Authorization",)


@lru_cache(maxsize=256)
def _headers_of(carriers: frozenset[Carrier]) -> tuple[str, ...]:
    names = {"Cookie" if place == "cookie" else name.title() for place, name in carriers if place != "query"}
    return tuple(sorted(names))


def exempt_from_csrf(request: HttpRequest, identity: Identity) -> None:
    """Let a request pass CsrfViewMiddleware that no browser can have been made to send."""
    if identity.csrf_exempt:
        # The attribute by which Django's own test client says the same.
        request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
