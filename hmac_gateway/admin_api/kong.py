"""Kong's admin API over HTTP: the key, the address, the body, the answer. The work is `kong_store`'s.

Mounted at /kong/, and by `hmac_serve --kong-admin-bind` at the root of a port of its own. Statuses and words are those
of Kong 3's admin API.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

from django.core.exceptions import BadRequest, DisallowedHost, ImproperlyConfigured, SuspiciousOperation
from django.db import DataError, IntegrityError, OperationalError
from django.http import HttpRequest, HttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from .. import crypto
from . import kong_absent as absent
from . import kong_info as info
from . import kong_legacy as legacy
from . import kong_lookup as lookup
from . import kong_store as store
from .apisix import AlwaysJson
from .kong_auth import caller_of
from .kong_body import read_body
from .kong_entities import BY_PATH, ENTITIES, below
from .kong_entity import Doc, Entity
from .kong_errors import KongError, not_found, plain, schema_violation
from .kong_spec import infer_fields

logger = logging.getLogger("hmac_gateway.admin_api")

#: Key of an ASGI scope under which a listener of its own says what it is: `{"open": bool}`.
LISTENER: Final = "hmac_gateway.kong_admin"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as handlers see it: who asks, with which arguments, and where this API is mounted."""

    request: HttpRequest
    call: store.Call
    base: str

    @property
    def method(self) -> str:
        """The method; HEAD is answered as GET is."""
        return "GET" if self.request.method == "HEAD" else str(self.request.method)

    @property
    def query(self) -> Mapping[str, str]:
        """The address's arguments; of repeated ones the first, as in Kong."""
        return {name: values[0] for name, values in self.request.GET.lists()}

    def document(self, entity: Entity, row: Any = None) -> Doc:
        """The body as the entity's fields mean it; `row` is what a change is about."""
        sent = read_body(self.request)
        if not sent.form:
            return sent.doc
        known = {} if row is None else entity.show(row)
        return infer_fields(entity.fields_for({**known, **sent.doc}), sent.doc)


Answer = tuple[int, Any]
Handlers = Mapping[str, Callable[[Ask], Answer]]


class KongView(APIView):
    """Every address below the mount. A host's REST_FRAMEWORK settings do not reach in here."""

    authentication_classes = []
    permission_classes = []
    throttle_classes = []
    parser_classes = []
    renderer_classes = [JSONRenderer]
    content_negotiation_class = AlwaysJson
    versioning_class = None
    schema = None

    def _serve(self, request: Request, rest: str = "") -> HttpResponse:
        plain_request = request._request
        listener = getattr(plain_request, "scope", {}).get(LISTENER)
        # The Host header must be one of ours: another name that leads here is a trick on a browser (DNS rebinding).
        plain_request.get_host()
        caller = caller_of(plain_request, bool(listener and listener["open"]))
        base = "" if listener is not None else plain_request.path.removesuffix(rest).rstrip("/")
        ask = Ask(plain_request, store.Call(actor=caller.name, key=caller.key), base)
        found = handlers(segments_of(plain_request, rest))
        handler = found.get(ask.method)
        if handler is None:
            response = answer(405, {"message": "Method not allowed"})
            response["Allow"] = _allow(found)
            return response
        return answer(*handler(ask))

    get = post = put = patch = delete = _serve

    def options(self, request: Any, rest: str = "") -> HttpResponse:  # type: ignore[override]
        """What can be done at an address; asked without a key, as browsers do."""
        response = HttpResponse(status=204)
        response["Allow"] = _allow(handlers(segments_of(request._request, rest)))
        return response

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        raise plain(405, "Method not allowed")

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]
        """Turn any failure into an answer; one that nobody foresaw is logged and tells the caller nothing."""
        return failure(exc)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response["Cache-Control"] = "no-store"
        response["X-Content-Type-Options"] = "nosniff"
        if response.status_code == 401:
            # A client with a URL of `http://user:KEY@…` sends the key when it is asked for.
            response["WWW-Authenticate"] = 'Basic realm="kong admin"'
        return response


def _allow(found: Handlers) -> str:
    return ", ".join([*sorted(found), "OPTIONS"])


def segments_of(request: HttpRequest, rest: str) -> list[str]:
    """The parts of the address, decoded one by one where the server tells its bytes: a name may hold a slash."""
    raw = getattr(request, "scope", {}).get("raw_path")
    if raw is None:
        return [part for part in rest.split("/") if part]
    base = request.path.removesuffix(rest)
    parts = raw.decode("latin-1").split("/")[base.count("/") :]
    return [unquote(part) for part in parts if part]


def handlers(parts: Sequence[str]) -> Handlers:
    """What can be done at an address, by method. Raises KongError 404."""
    match list(parts):
        case [*known] if (found := info.HANDLERS.get("/".join(known))) is not None:
            return found
        case ["tags", tag]:
            return {"GET": lambda ask: info.tags(ask, tag)}
        case ["plugins", "schema", name]:
            return {"GET": lambda ask: (200, info.old_plugin_schema(name))}
        case ["schemas", *names]:
            return info.schema_handlers(names)
        case ["apis", *names]:
            return legacy.handlers(names)
        case [*known] if (nothing := absent.handlers(known)) is not None:
            return nothing
        case ["upstreams", key, *names] if names and (special := info.upstream_handlers(key, names)) is not None:
            return special
        case [name] if name in BY_PATH:
            return _collection(BY_PATH[name])
        case [name, key] if name in BY_PATH:
            return _single(BY_PATH[name], key)
        case [name, key, inner] if name in BY_PATH:
            entity = BY_PATH[name]
            if inner in entity.parents:
                return _parent(entity, key, inner)
            if inner in below(entity):
                return _collection(*below(entity)[inner], (entity, key))
        case [name, key, inner, text] if name in BY_PATH and inner in below(BY_PATH[name]):
            entity, field = below(BY_PATH[name])[inner]
            return _single(entity, text, field, (BY_PATH[name], key))
    raise not_found()


Parent = tuple[Entity, str]


def _within(field: str, parent: Parent | None) -> lookup.Within | None:
    return None if parent is None else lookup.Within(field, lookup.get(*parent))


def _collection(entity: Entity, field: str = "", parent: Parent | None = None) -> Handlers:
    """A list of entities, all or those below a parent."""

    def listing(ask: Ask) -> Answer:
        page = lookup.page(entity, ask.query, _within(field, parent))
        body: Doc = {"data": page.data, "next": None}
        if page.offset is not None:
            arguments = {"offset": page.offset}
            arguments |= {name: ask.query[name] for name in ("tags", "size") if name in ask.query}
            body["offset"] = page.offset
            body["next"] = f"{ask.base}{_address(entity, parent)}?{urlencode(arguments, quote_via=quote, safe=',')}"
        return 200, body

    def create(ask: Ask) -> Answer:
        within = _within(field, parent)
        return 201, store.create(entity, ask.document(entity), ask.call, within)

    def put(ask: Ask) -> Answer:
        # As in Kong 0.x: with the id of what is there it is replaced, else it is new.
        within = _within(field, parent)
        given = ask.document(entity)
        key = given.get("id")
        if isinstance(key, str) and lookup.find(entity, key, within) is not None:
            return 200, store.upsert(entity, key, given, ask.call, within)
        return 201, store.create(entity, given, ask.call, within)

    made: dict[str, Callable[[Ask], Answer]] = {"GET": listing, "POST": create}
    if entity.name == "consumers" or (parent is not None and parent[0].name == "consumers"):
        made["PUT"] = put
    return made


def _address(entity: Entity, parent: Parent | None) -> str:
    if parent is None:
        return f"/{entity.path}"
    return f"/{parent[0].path}/{quote(parent[1], safe='')}/{entity.nested or entity.path}"


def _single(entity: Entity, text: str, field: str = "", parent: Parent | None = None) -> Handlers:
    """One entity, by id or key."""

    def get(ask: Ask) -> Answer:
        return 200, entity.show(lookup.get(entity, text, _within(field, parent)))

    def put(ask: Ask) -> Answer:
        within = _within(field, parent)
        return 200, store.upsert(entity, text, ask.document(entity), ask.call, within)

    def patch(ask: Ask) -> Answer:
        within = _within(field, parent)
        row = lookup.get(entity, text, within)
        return 200, store.change(entity, text, ask.document(entity, row), ask.call, within)

    def delete(ask: Ask) -> Answer:
        row = lookup.find(entity, text, _within(field, parent))
        if row is not None:
            store.delete(entity, row, ask.call)
            return 204, None
        lookup.check_key(entity, text)
        if parent is not None:
            raise not_found()
        return 204, None

    return {"GET": get, "PUT": put, "PATCH": patch, "DELETE": delete}


def _parent(entity: Entity, text: str, field: str) -> Handlers:
    """What an entity refers to by `field`, such as /routes/R/service."""
    name = entity.parents[field]
    if name not in ENTITIES:
        raise not_found()
    parent = ENTITIES[name]

    def key(ask: Ask) -> str | None:
        row = lookup.get(entity, text)
        found = getattr(row, f"{field}_id")
        return None if found is None else str(found)

    def get(ask: Ask) -> Answer:
        return 200, parent.show(lookup.get(parent, key(ask) or ""))

    def put(ask: Ask) -> Answer:
        there = key(ask)
        if there is not None:
            return 200, store.upsert(parent, there, ask.document(parent), ask.call)
        made = store.create(parent, ask.document(parent), ask.call)
        store.change(entity, text, {field: {"id": made["id"]}}, ask.call)
        return 200, made

    def patch(ask: Ask) -> Answer:
        there = key(ask) or ""
        return 200, store.change(parent, there, ask.document(parent, lookup.get(parent, there)), ask.call)

    def delete(ask: Ask) -> Answer:
        # What is referred to stays; what is not there is told first (Kong).
        if key(ask) is None:
            raise not_found()
        raise plain(405, "Method not allowed")

    return {"GET": get, "PUT": put, "PATCH": patch, "DELETE": delete}


# --- answers ---


def answer(status: int, body: Any) -> HttpResponse:
    """A response: JSON, or an empty one for None."""
    if body is None:
        return HttpResponse(status=status)
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate, quoted from a hostile address, becomes a JSON escape.
    content = text.encode("utf-8", "backslashreplace")
    return HttpResponse(content, status=status, content_type="application/json; charset=utf-8")


def failure(error: Exception) -> HttpResponse:
    """The answer to a failure."""
    if isinstance(error, KongError):
        return answer(error.status, error.body)
    if isinstance(error, DisallowedHost):
        return answer(400, {"message": "Invalid Host header: ALLOWED_HOSTS does not have this name"})
    if isinstance(error, BadRequest | SuspiciousOperation):
        # Django's limits, such as on the number of arguments.
        return answer(400, {"message": "Bad request"})
    if isinstance(error, IntegrityError):
        return answer(409, {"message": "the entity conflicts with another that was written at the same time"})
    if isinstance(error, DataError):
        refused = schema_violation({"@entity": ["a value does not fit into its column"]})
        return answer(refused.status, refused.body)
    if isinstance(error, OperationalError):
        logger.warning("admin API: the database is not available: %s", type(error).__name__)
        return answer(503, {"message": "the database is not available"})
    if isinstance(error, ImproperlyConfigured | crypto.CannotOpen):
        # Their texts name settings, never a secret.
        return answer(503, {"message": str(error)})
    # Where it happened and its type, but not its text, which may quote a secret.
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("admin API: unforeseen %s\n%s", type(error).__name__, places)
    return answer(500, {"message": "An unexpected error occurred"})
