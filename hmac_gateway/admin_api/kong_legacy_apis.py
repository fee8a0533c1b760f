"""Kong 0.x's APIs: each is a service and a route of Kong's dialect with one id, both with `api` in their `extra`.

The handlers of `kong_legacy`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..entities import one_version
from . import kong_lookup as lookup
from . import kong_store as store
from .kong_entity import Doc, examine
from .kong_errors import KongError, not_found, plain
from .kong_legacy_shapes import as_old, page, reason, refused, sent
from .kong_routes import ROUTES
from .kong_services import SERVICES, prepare

if TYPE_CHECKING:
    from .kong import Ask

#: Key of `extra` on both rows; on the service it holds the address as it was sent.
API: Final = "api"
KINDS: Final[Mapping[str, str]] = {
    "name": "string",
    "request_host": "string",
    "request_path": "string",
    "strip_request_path": "boolean",
    "preserve_host": "boolean",
    "upstream_url": "url",
}
_NEITHER: Final = "At least a 'request_host' or a 'request_path' must be specified"
_NAME: Final = "name must only contain alphanumeric and '., -, _, ~' characters"

Rows = tuple[Any, Any]


def _apis() -> list[Rows]:
    services = list(lookup.rows_of(SERVICES).filter(extra__has_key=API).order_by("created_at", "pk"))
    routes = {row.pk: row for row in lookup.rows_of(ROUTES).filter(extra__has_key=API)}
    return [(service, routes[service.pk]) for service in services if service.pk in routes]


def api(text: str) -> Rows:
    """The service and the route of an API by id or name. Raises KongError 404."""
    service = lookup.find(SERVICES, text)
    route = None if service is None else lookup.rows_of(ROUTES).filter(pk=service.pk, extra__has_key=API).first()
    if route is None or API not in service.extra:
        raise not_found()
    return service, route


def show_api(service: Any, route: Any) -> Doc:
    """An API as Kong 0.5 shows it: absent fields are left out."""
    kept = service.extra[API]
    url = kept if isinstance(kept, str) and _means(kept, service) else _url(service)
    doc = {
        "id": str(service.pk),
        "name": service.name or None,
        "request_host": next(iter(route.hosts), None),
        "request_path": next(iter(route.paths), None),
        "strip_request_path": route.strip_path,
        "preserve_host": route.preserve_host,
        "upstream_url": url,
        "created_at": int(service.created_at.timestamp() * 1000),
    }
    return {name: item for name, item in doc.items() if item is not None}


def _means(url: str, service: Any) -> bool:
    """Whether the address that was sent is still where the service goes."""
    parts = prepare({"url": url})
    now = (service.protocol, service.host, service.port, service.path or None)
    return (parts.get("protocol"), parts.get("host"), parts.get("port"), parts.get("path")) == now


def _url(service: Any) -> str:
    host = f"[{service.host}]" if ":" in service.host else service.host
    return f"{service.protocol}://{host}:{service.port}{service.path}"


def list_apis(ask: Ask) -> tuple[int, Any]:
    """GET /apis."""
    return page(ask, _apis(), lambda rows: show_api(*rows), "/")


def create_api(ask: Ask) -> tuple[int, Any]:
    """POST /apis."""
    given, _ = sent(ask, KINDS)
    with one_version():
        return 201, _write_api(ask, given, None)


def put_api(ask: Ask) -> tuple[int, Any]:
    """PUT /apis: replaces the API with the body's id, or makes a new one where there is none."""
    given, own = sent(ask, KINDS)
    with one_version():
        if "id" not in own:
            return 201, _write_api(ask, given, None)
        return 200, _write_api(ask, given, api(str(own["id"])))


def change_api(ask: Ask, key: str) -> tuple[int, Any]:
    """PATCH /apis/{a}."""
    given, _ = sent(ask, KINDS)
    if not given:
        raise plain(400, "empty body")
    with one_version():
        rows = api(key)
        return 200, _write_api(ask, {**{name: show_api(*rows).get(name) for name in KINDS}, **given}, rows)


def delete_api(ask: Ask, key: str) -> tuple[int, Any]:
    """DELETE /apis/{a}."""
    with one_version():
        service, route = api(key)
        store.delete(ROUTES, route, ask.call)
        store.delete(SERVICES, service, ask.call)
    return 204, None


def _write_api(ask: Ask, given: Doc, rows: Rows | None) -> Doc:
    """Write both rows. Raises KongError 400 or 409."""
    doc = {**dict.fromkeys(KINDS), **given}
    errors: dict[str, str] = {}
    if doc["upstream_url"] is None:
        errors["upstream_url"] = "upstream_url is required"
    elif urlsplit(doc["upstream_url"]).scheme.lower() not in ("http", "https"):
        errors["upstream_url"] = "Supported protocols are HTTP and HTTPS"
    if doc["request_host"] is None and doc["request_path"] is None:
        errors |= {"request_host": _NEITHER, "request_path": _NEITHER}
    if doc["request_path"] not in (None, "/"):
        doc["request_path"] = doc["request_path"].rstrip("/") or "/"
    if doc["name"] is None and not errors:
        doc["name"] = re.sub(r"[^\w.~-]", "-", doc["request_host"] or doc["request_path"][1:], flags=re.ASCII) or "-"
    if doc["name"] is not None and re.search(r"[^\w.~-]", doc["name"], re.ASCII):
        errors["name"] = _NAME
    if errors:
        raise refused(errors)
    key = str(uuid.uuid4()) if rows is None else rows[0].pk
    service, found = examine(SERVICES, {"name": doc["name"], "url": doc["upstream_url"]})
    errors |= {"name" if name == "name" else "upstream_url": reason(item) for name, item in found.items()}
    route, found = examine(
        ROUTES,
        {
            "name": doc["name"],
            "hosts": None if doc["request_host"] is None else [doc["request_host"]],
            "paths": None if doc["request_path"] is None else [doc["request_path"]],
            "strip_path": bool(doc["strip_request_path"]),
            "preserve_host": bool(doc["preserve_host"]),
            "service": {"id": key},
        },
    )
    names = {"hosts": "request_host", "paths": "request_path"}
    errors |= {names.get(name, "name"): reason(item) for name, item in found.items()}
    if errors:
        raise refused(errors)
    _refuse_taken(doc, key)
    for entity, complete, kept in ((SERVICES, service, doc["upstream_url"]), (ROUTES, route, True)):
        row = None if rows is None else rows[entity is ROUTES]
        complete["id"] = key if rows is None else None

        def finish(row: Any, kept: Any = kept) -> None:
            row.extra = {**row.extra, API: kept}

        try:
            store.write(entity, row, complete, ask.call, finish)
        except KongError as error:
            raise as_old(error, "upstream_url") from None
    return show_api(*api(key))


def _refuse_taken(doc: Doc, key: str) -> None:
    """Refuse (KongError 409) a name, host or path that another API has."""
    errors: dict[str, str] = {}
    for service, route in _apis():
        if service.pk == key:
            continue
        shown = show_api(service, route)
        for name in ("name", "request_host", "request_path"):
            if doc[name] is not None and doc[name] == shown.get(name):
                errors[name] = f"{name} already exists with value '{doc[name]}'"
    for entity in (SERVICES, ROUTES):
        other = lookup.find(entity, doc["name"])
        if other is not None and other.pk != key and other.name == doc["name"]:
            errors["name"] = f"name already exists with value '{doc['name']}'"
    if errors:
        raise refused(errors, 409)
