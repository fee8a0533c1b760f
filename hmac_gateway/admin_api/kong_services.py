"""Kong's services ↔ Service rows. One of Kong's addresses stands in its own columns, without an upstream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from .kong_entity import Child, Doc, Entity, Unique, common, keep, kept
from .kong_errors import ENTITY
from .kong_formats import HOST, ID, NAME, PATH, PROTOCOL, STAMP, TAGS, TIMEOUT, flag, foreign
from .kong_spec import NULL_ONLY, Spec

FIELDS: Final[Mapping[str, Spec]] = {
    "id": ID,
    "created_at": STAMP,
    "updated_at": STAMP,
    "name": NAME,
    "retries": Spec(kind="integer", default=5, between=(0, 32767)),
    "protocol": replace(PROTOCOL, default="http"),
    "host": Spec(kind="string", required=True, check=HOST.check, length=(1, 253)),
    "port": Spec(kind="integer", required=True, default=80, between=(0, 65535)),
    "path": PATH,
    "connect_timeout": TIMEOUT,
    "write_timeout": TIMEOUT,
    "read_timeout": TIMEOUT,
    "tags": TAGS,
    "client_certificate": foreign("certificates"),
    "tls_verify": Spec(kind="boolean"),
    "tls_verify_depth": Spec(kind="integer", between=(0, 64)),
    "ca_certificates": Spec(kind="array", elements=Spec(kind="string", required=True, check=ID.check)),
    "enabled": flag(True),
}

#: Kept as sent; no column of ours says them.
_KEPT: Final = ("client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates")
_TIMEOUTS: Final = {
    "connect_timeout": "timeout_connect",
    "write_timeout": "timeout_send",
    "read_timeout": "timeout_read",
}
_PORTS: Final = {"http": 80, "grpc": 80, "https": 443, "grpcs": 443}


def prepare(given: Doc) -> Doc:
    """Take `url` apart into protocol, host, port and path, which it replaces."""
    if "url" not in given:
        return given
    url = given.pop("url")
    if not isinstance(url, str) or not url:
        # The host is missing then, which is said.
        return given
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return {**given, "host": url}
    protocol = parts.scheme or {443: "https"}.get(port or 80, "http")
    return {
        **given,
        "protocol": protocol,
        "host": parts.hostname if parts.netloc else None,
        "port": _PORTS.get(protocol, 80) if port is None else port,
        "path": parts.path or None,
    }


def check_protocol(doc: Doc) -> Mapping[str, Any] | None:
    """What only TLS has, and what gRPC has not."""
    wrong: dict[str, Any] = {}
    secure = doc["protocol"] in ("https", "grpcs")
    names = [name for name in _KEPT if not secure and doc[name] is not None and name != "tls_verify_depth"]
    if doc["protocol"] in ("grpc", "grpcs") and doc["path"] is not None:
        names.append("path")
    for name in names:
        wrong[name] = NULL_ONLY
    if wrong:
        wrong[ENTITY] = ["failed conditional validation given value of field 'protocol'"]
    return wrong


def fill(row: Any, doc: Doc) -> None:
    """Set the columns."""
    row.dialect = "kong"
    row.name = doc["name"] or ""
    for name in ("retries", "protocol", "host", "port", "enabled"):
        setattr(row, name, doc[name])
    if row.upstream is not None and row.upstream.name == doc["host"]:
        # The console lets a service refer to its upstream, which here is the host.
        row.host = ""
    else:
        row.upstream = None
    row.path = doc["path"] or ""
    for name, column in _TIMEOUTS.items():
        setattr(row, column, None if doc[name] is None else doc[name] / 1000)
    row.tags = doc["tags"] or []
    keep(row, doc, FIELDS, _KEPT)


def show(row: Any) -> Doc:
    """The document."""
    times = {name: getattr(row, column) for name, column in _TIMEOUTS.items()}
    return {
        **common(row),
        "name": row.name or None,
        "retries": row.retries,
        "protocol": row.protocol or "http",
        "host": row.host or (row.upstream.name or None if row.upstream is not None else None),
        "port": 80 if row.port is None else row.port,
        "path": row.path or None,
        **{name: None if value is None else round(value * 1000) for name, value in times.items()},
        **kept(row, FIELDS, _KEPT),
        "enabled": row.enabled,
    }


SERVICES: Final = Entity(
    name="services",
    path="services",
    model="hmac_proxy.Service",
    scope={"dialect": "kong"},
    fields=FIELDS,
    fill=fill,
    show=show,
    prepare=prepare,
    checks=(check_protocol,),
    key="name",
    by_key=lambda text: {"name_slot": f"kong:{text}"},
    unique=(Unique(("name",), lambda doc: {"name_slot": f"kong:{doc['name']}"} if doc["name"] else None),),
    children=(Child("routes", "hmac_proxy.Route", "service"),),
    columns={**{column: name for name, column in _TIMEOUTS.items()}, "name_slot": "name"},
)
