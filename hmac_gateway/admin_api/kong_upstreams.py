"""Kong's upstreams and targets ↔ Upstream and Node rows.

`type` holds the algorithm, `hash_on` and `key` the first hash input; the fallback and what else has no column is kept
in `extra` under Kong's names. `checks` holds Kong's `healthchecks`, complete, where they differ from the defaults.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from .kong_entity import Child, Doc, Entity, Unique, common, keep, kept, key_of, reference
from .kong_errors import ENTITY
from .kong_formats import HEADER_NAME, ID, PATH, STAMP, TAGS, check_cookie_name, check_host, check_sni, foreign
from .kong_spec import REQUIRED, Spec, clean

_ALGORITHMS: Final = {
    "consistent-hashing": "chash",
    "least-connections": "least_conn",
    "round-robin": "roundrobin",
    "latency": "ewma",
}
_INPUTS: Final = ("none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture")
#: Where the name of what is hashed stands, for the inputs that have one.
_NAMED: Final = {
    "header": "hash_on_header",
    "cookie": "hash_on_cookie",
    "query_arg": "hash_on_query_arg",
    "uri_capture": "hash_on_uri_capture",
}


def check_upstream_name(value: str) -> str | None:
    """A name that a service's host can be: a host name."""
    if check_host(value) is not None:
        return "Invalid name; must be a valid hostname" if ":" not in value else "Invalid name; no port allowed"
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        return None
    return "Invalid name; no ip addresses allowed"


def _record(**fields: Spec) -> Spec:
    return Spec(kind="record", required=True, fields=fields)


def _count() -> Spec:
    return Spec(kind="integer", default=0, between=(0, 255))


def _statuses(*default: int) -> Spec:
    return Spec(kind="array", default=list(default), elements=Spec(kind="integer", required=True, between=(100, 999)))


_SECONDS: Final = Spec(kind="number", default=0, between=(0, 65535))
_CHECK_TYPE: Final = Spec(kind="string", default="http", one_of=("tcp", "http", "https", "grpc", "grpcs"))
HEALTHCHECKS: Final = _record(
    active=_record(
        type=_CHECK_TYPE,
        timeout=Spec(kind="number", default=1, between=(0, 65535)),
        concurrency=Spec(kind="integer", default=10, between=(1, 2**31)),
        http_path=Spec(kind="string", default="/", check=PATH.check, length=(1, 4096)),
        https_sni=Spec(kind="string", check=check_sni),
        https_verify_certificate=Spec(kind="boolean", required=True, default=True),
        headers=Spec(
            kind="map", keys=HEADER_NAME, elements=Spec(kind="array", elements=Spec(kind="string", required=True))
        ),
        healthy=_record(interval=_SECONDS, http_statuses=_statuses(200, 302), successes=_count()),
        unhealthy=_record(
            interval=_SECONDS,
            http_statuses=_statuses(429, 404, 500, 501, 502, 503, 504, 505),
            tcp_failures=_count(),
            timeouts=_count(),
            http_failures=_count(),
        ),
    ),
    passive=_record(
        type=_CHECK_TYPE,
        healthy=_record(
            http_statuses=_statuses(*range(200, 209), 226, *range(300, 309)),
            successes=_count(),
        ),
        unhealthy=_record(
            http_statuses=_statuses(429, 500, 503),
            tcp_failures=_count(),
            timeouts=_count(),
            http_failures=_count(),
        ),
    ),
    threshold=Spec(kind="number", default=0, between=(0, 100)),
)
#: What an upstream has that says nothing.
CHECKS_OFF: Final = clean(HEALTHCHECKS, {})[0]

_TEXT: Final = Spec(kind="string", length=(1, 256))
_INPUT: Final = Spec(kind="string", default="none", one_of=_INPUTS)
_COOKIE: Final = Spec(kind="string", check=check_cookie_name, length=(1, 256))

FIELDS: Final[Mapping[str, Spec]] = {
    "id": ID,
    "created_at": STAMP,
    "updated_at": STAMP,
    "name": Spec(kind="string", required=True, unique=True, check=check_upstream_name, length=(1, 253)),
    "algorithm": Spec(kind="string", default="round-robin", one_of=tuple(_ALGORITHMS)),
    "hash_on": _INPUT,
    "hash_fallback": _INPUT,
    "hash_on_header": HEADER_NAME,
    "hash_fallback_header": HEADER_NAME,
    "hash_on_cookie": _COOKIE,
    "hash_on_cookie_path": Spec(kind="string", default="/", check=PATH.check),
    "hash_on_query_arg": _TEXT,
    "hash_fallback_query_arg": _TEXT,
    "hash_on_uri_capture": _TEXT,
    "hash_fallback_uri_capture": _TEXT,
    "slots": Spec(kind="integer", default=10000, between=(10, 65536)),
    "healthchecks": HEALTHCHECKS,
    "tags": TAGS,
    "host_header": Spec(kind="string", check=lambda value: check_host(re.sub(r":[0-9]{1,5}\Z", "", value))),
    "client_certificate": foreign("certificates"),
    "use_srv_name": Spec(kind="boolean", default=False),
}

_KEPT: Final = tuple(
    name for name in FIELDS if name.startswith("hash_") or name in ("slots", "use_srv_name", "client_certificate")
)


def check_hash(doc: Doc) -> Mapping[str, Any] | None:
    """What an input needs, and which two may go together."""
    wrong: dict[str, Any] = {}
    said: list[str] = []
    first, second = (doc[name] if isinstance(doc[name], str) else None for name in ("hash_on", "hash_fallback"))
    for end, chosen in (("on", first), ("fallback", second)):
        name = "hash_on_cookie" if chosen == "cookie" else f"hash_{end}_{chosen}"
        if chosen in _NAMED and doc[name] is None:
            wrong[name] = REQUIRED
            said.append(f"failed conditional validation given value of field 'hash_{end}'")
    allowed: tuple[str, ...] = _INPUTS
    if first in ("none", "cookie"):
        allowed = ("none",)
    elif first in ("consumer", "ip", "path"):
        allowed = tuple(item for item in _INPUTS if item != first)
    if allowed != _INPUTS and second not in (*allowed, None):
        wrong["hash_fallback"] = "expected one of: " + ", ".join(allowed)
        said.append("failed conditional validation given value of field 'hash_on'")
    for kind in ("header", "query_arg", "uri_capture"):
        names = (f"hash_on_{kind}", f"hash_fallback_{kind}")
        if doc[names[0]] is not None and doc[names[0]] == doc[names[1]]:
            said.append(f"values of these fields must be distinct: '{names[0]}', '{names[1]}'")
    return {**wrong, ENTITY: said} if said else None


def fill(row: Any, doc: Doc) -> None:
    """Set the columns. An input to hash on asks for consistent hashing, whatever the algorithm says (Kong)."""
    row.dialect = "kong"
    row.name = doc["name"]
    hash_on = doc["hash_on"] or "none"
    row.type = "chash" if hash_on != "none" else _ALGORITHMS[doc["algorithm"] or "round-robin"]
    row.hash_on = hash_on
    row.key = (doc[_NAMED[hash_on]] or "") if hash_on in _NAMED else ""
    row.upstream_host = doc["host_header"] or ""
    row.pass_host = "rewrite" if row.upstream_host else "node"
    row.checks = {} if doc["healthchecks"] == CHECKS_OFF else doc["healthchecks"]
    row.tags = doc["tags"] or []
    keep(row, doc, FIELDS, _KEPT)


def show(row: Any) -> Doc:
    """The document."""
    algorithms = {ours: kong for kong, ours in _ALGORITHMS.items()}
    doc = {
        **common(row),
        "name": row.name,
        "algorithm": algorithms[row.type],
        **kept(row, FIELDS, _KEPT),
        "hash_on": row.hash_on or "none",
        "healthchecks": clean(HEALTHCHECKS, row.checks or {})[0],
        "host_header": row.upstream_host or None,
    }
    if row.hash_on in _NAMED:
        # The console may have changed it.
        doc[_NAMED[row.hash_on]] = row.key or None
    return doc


UPSTREAMS: Final = Entity(
    name="upstreams",
    path="upstreams",
    model="hmac_proxy.Upstream",
    scope={"dialect": "kong", "inline": False},
    fields=FIELDS,
    fill=fill,
    show=show,
    checks=(check_hash,),
    key="name",
    by_key=lambda text: {"name_slot": f"kong:{text}"},
    unique=(Unique(("name",), lambda doc: {"name_slot": f"kong:{doc['name']}"}),),
    columns={
        "name_slot": "name",
        "type": "algorithm",
        "key": "hash_on",
        "upstream_host": "host_header",
        "checks": "healthchecks",
    },
    # Routes and services that the console lets refer to one directly.
    children=(Child("services", "hmac_proxy.Service", "upstream"), Child("routes", "hmac_proxy.Route", "upstream")),
)


# --- targets ---

DEFAULT_PORT: Final = 8000


def place(text: str) -> tuple[str, int] | None:
    """Host and port of a target; the port is 8000 where none is given. None for what is no target."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", text)
    if found is None:
        try:
            return str(ipaddress.IPv6Address(text)), DEFAULT_PORT
        except ValueError:
            return None
    host, port = found[1].strip("[]"), int(found[2] or DEFAULT_PORT)
    return (host, port) if check_host(host) is None and 0 < port < 65536 else None


def check_target(value: str) -> str | None:
    """`host:port`."""
    if place(value) is None:
        return f"Invalid target ('{value}'); not a valid hostname or ip address"
    return None


TARGET_FIELDS: Final[Mapping[str, Spec]] = {
    "id": ID,
    "created_at": replace(STAMP, kind="number"),
    "updated_at": replace(STAMP, kind="number"),
    "upstream": foreign("upstreams", FIELDS, required=True),
    "target": Spec(kind="string", required=True, check=check_target),
    "weight": Spec(kind="integer", default=100, between=(0, 65535)),
    "tags": TAGS,
}


def prepare_target(given: Doc) -> Doc:
    """A target with its port, as Kong writes it back."""
    found = place(given["target"]) if isinstance(given.get("target"), str) else None
    if found is not None:
        host = f"[{found[0]}]" if ":" in found[0] else found[0]
        given["target"] = f"{host}:{found[1]}"
    return given


def fill_target(row: Any, doc: Doc) -> None:
    """Set the columns."""
    row.upstream_id = key_of(doc, "upstream")
    found = place(doc["target"])
    assert found is not None
    row.host, row.port = found
    row.weight = 100 if doc["weight"] is None else doc["weight"]
    row.tags = doc["tags"] or []


def show_target(row: Any) -> Doc:
    """The document; its stamps have fractions."""
    return {
        **common(row),
        "created_at": round(row.created_at.timestamp(), 3),
        "updated_at": round(row.updated_at.timestamp(), 3),
        "upstream": reference(row.upstream_id),
        "target": str(row),
        "weight": row.weight,
    }


def _where(text: str) -> Mapping[str, Any] | None:
    found = place(text)
    return None if found is None else {"host": found[0], "port": found[1]}


def _target_clash(doc: Doc) -> Mapping[str, Any] | None:
    return {"upstream_id": key_of(doc, "upstream"), **(_where(doc["target"]) or {})}


TARGETS: Final = Entity(
    name="targets",
    nested="targets",
    model="hmac_proxy.Node",
    scope={"upstream__dialect": "kong", "upstream__inline": False},
    fields=TARGET_FIELDS,
    prepare=prepare_target,
    fill=fill_target,
    show=show_target,
    key="target",
    by_key=_where,
    key_in_parent=True,
    unique=(Unique(("target", "upstream"), _target_clash),),
    columns={"host": "target", "port": "target"},
)
