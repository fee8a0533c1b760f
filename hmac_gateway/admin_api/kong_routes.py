"""Kong's routes ↔ Route rows. Which fields one may have depends on its protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from .kong_entity import Doc, Entity, Fields, Unique, common, keep, kept, key_of, reference
from .kong_errors import ENTITY
from .kong_formats import (
    HEADER_NAME,
    ID,
    METHOD,
    NAME,
    STAMP,
    TAGS,
    check_header_name,
    check_host_pattern,
    check_pattern,
    check_route_path,
    check_sni,
    flag,
    foreign,
    protocols,
)
from .kong_services import FIELDS as SERVICE_FIELDS
from .kong_spec import Spec


def _check_route_header(name: str) -> str | None:
    if name.lower() == "host":
        return "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
    return check_header_name(name)


def _check_header_value(value: str) -> str | None:
    return check_pattern(value[2:]) if value.startswith("~*") else None


def _text(check: Any, most: int = 4096) -> Spec:
    return Spec(kind="string", required=True, check=check, length=(1, most))


_STREAM: Final = Spec(
    kind="set",
    elements=Spec(kind="record", fields={"ip": Spec(kind="string"), "port": Spec(kind="integer", between=(0, 65535))}),
)

FIELDS: Final[Mapping[str, Spec]] = {
    "id": ID,
    "created_at": STAMP,
    "updated_at": STAMP,
    "name": NAME,
    "protocols": protocols(("http", "https")),
    "methods": Spec(kind="set", elements=replace(METHOD, required=True)),
    "hosts": Spec(kind="array", elements=_text(check_host_pattern, 260)),
    "paths": Spec(kind="array", elements=_text(check_route_path)),
    "headers": Spec(
        kind="map",
        keys=replace(HEADER_NAME, required=True, check=_check_route_header),
        elements=Spec(
            kind="array", required=True, length=(1, None), elements=Spec(kind="string", check=_check_header_value)
        ),
    ),
    "https_redirect_status_code": Spec(kind="integer", required=True, default=426, one_of=(426, 301, 302, 307, 308)),
    "regex_priority": Spec(kind="integer", default=0, between=(-(2**31), 2**31 - 1)),
    "strip_path": flag(True),
    "path_handling": Spec(kind="string", default="v0", one_of=("v0", "v1")),
    "preserve_host": flag(False),
    "request_buffering": flag(True),
    "response_buffering": flag(True),
    "snis": Spec(kind="set", elements=_text(check_sni, 260)),
    "sources": _STREAM,
    "destinations": _STREAM,
    "tags": TAGS,
    "service": foreign("services", SERVICE_FIELDS),
}
#: gRPC has one method and no path to strip.
_GRPC: Final = {**FIELDS, "strip_path": flag(False)}

_KEPT: Final = ("https_redirect_status_code", "request_buffering", "response_buffering", "snis")
_LISTS: Final = ("methods", "hosts", "paths")


def _is_grpc(doc: Mapping[str, Any]) -> bool:
    wanted = doc.get("protocols")
    return isinstance(wanted, list) and bool(wanted) and wanted[0] in ("grpc", "grpcs")


def fields_of(doc: Doc) -> Fields:
    """The fields of a route with the document's protocols."""
    return _GRPC if _is_grpc(doc) else FIELDS


def check_protocols(doc: Doc) -> Mapping[str, Any] | None:
    """What goes with which protocols."""
    wanted = doc["protocols"]
    if "protocols" in doc["@errors"] or not wanted:
        return None
    wrong: dict[str, Any] = {}
    grpc = _is_grpc(doc)
    if any((item in ("grpc", "grpcs")) != grpc for item in wanted):
        sets = ["('grpc', 'grpcs')", "('http', 'https')"] if grpc else ["('http', 'https')", "('grpc', 'grpcs')"]
        return {"protocols": f"these sets are mutually exclusive: {', '.join(sets)}"}
    words = "'grpc' or 'grpcs'" if grpc else "'http' or 'https'"
    for name in ("sources", "destinations", *(("methods",) if grpc else ())):
        if doc[name]:
            wrong[name] = f"cannot set '{name}' when 'protocols' is {words}"
    if grpc and doc["strip_path"]:
        wrong["strip_path"] = f"cannot set 'strip_path' when 'protocols' is {words}"
    secure = "grpcs" if grpc else "https"
    if doc["snis"] and secure not in wanted:
        wrong["snis"] = "length must be 0"
        wrong[ENTITY] = ["'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"]
    return wrong


def check_criteria(doc: Doc) -> Mapping[str, Any] | None:
    """A route matches by something."""
    wanted = doc["protocols"]
    if "protocols" in doc["@errors"] or not wanted:
        return None
    grpc = _is_grpc(doc)
    names = ["hosts", "headers", "paths"] if grpc else ["methods", "hosts", "headers", "paths"]
    secure, clear = ("grpcs", "grpc") if grpc else ("https", "http")
    if secure in wanted:
        names.append("snis")
    if any(name in doc["@errors"] or doc[name] for name in names):
        return None
    listed = ", ".join(f"'{name}'" for name in names)
    return {ENTITY: [f"must set one of {listed} when 'protocols' is '{secure if secure in wanted else clear}'"]}


def fill(row: Any, doc: Doc) -> None:
    """Set the columns."""
    row.dialect = "kong"
    row.name = doc["name"] or ""
    row.service_id = key_of(doc, "service")
    for name in _LISTS:
        setattr(row, name, doc[name] or [])
    row.headers = doc["headers"] or {}
    for name in ("protocols", "strip_path", "preserve_host"):
        setattr(row, name, doc[name])
    row.regex_priority = doc["regex_priority"] or 0
    row.path_handling = doc["path_handling"] or "v0"
    row.tags = doc["tags"] or []
    # An empty list is shown as one, though it asks for as little as none does.
    keep(row, doc, FIELDS, (*_KEPT, *(name for name in _LISTS if doc[name] == [])))


def show(row: Any) -> Doc:
    """The document."""
    return {
        **common(row),
        "name": row.name or None,
        "protocols": row.protocols,
        **{name: getattr(row, name) or empty for name, empty in kept(row, FIELDS, _LISTS).items()},
        "headers": row.headers or None,
        "regex_priority": row.regex_priority,
        "strip_path": row.strip_path,
        "path_handling": row.path_handling,
        "preserve_host": row.preserve_host,
        **kept(row, FIELDS, _KEPT),
        "sources": None,
        "destinations": None,
        "service": reference(row.service_id),
    }


ROUTES: Final = Entity(
    name="routes",
    path="routes",
    model="hmac_proxy.Route",
    # Routes for this site itself are the console's: nothing of Kong's says what they are.
    scope={"dialect": "kong", "this_site": False},
    fields=FIELDS,
    fields_of=fields_of,
    fill=fill,
    show=show,
    checks=(check_protocols, check_criteria),
    key="name",
    by_key=lambda text: {"name_slot": f"kong:{text}"},
    unique=(Unique(("name",), lambda doc: {"name_slot": f"kong:{doc['name']}"} if doc["name"] else None),),
    columns={"name_slot": "name"},
)
