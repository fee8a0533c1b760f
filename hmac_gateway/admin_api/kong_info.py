"""What Kong's admin API tells besides entities: itself, its state, its schemas, tags, and the health of targets.

Called by the view; handlers get an `Ask` and return a status and a body.
"""

from __future__ import annotations

import platform
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.db.models import Sum

from .. import __version__
from ..entities import one_version
from ..models import MinuteCounter
from . import audit
from . import kong_lookup as lookup
from .kong_absent import ABSENT
from .kong_config import replace_config, show_config
from .kong_entities import BY_PATH, ENTITIES, below
from .kong_entity import Doc, Entity, examine
from .kong_errors import invalid_unique, not_found, plain, schema_violation
from .kong_formats import check_tag
from .kong_plugins import PLUGINS_ENTITY, available, config_spec, has_no_consumer
from .kong_spec import NULL_ONLY, Spec
from .kong_upstreams import TARGETS, UPSTREAMS

if TYPE_CHECKING:
    from .kong import Ask, Handlers

#: The Kong whose admin API this is like; its clients choose their ways by it.
KONG_VERSION: Final = "3.10.0"


def node_id() -> str:
    """A stable id of this machine."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, socket.gethostname()))


def root(ask: Ask) -> tuple[int, Any]:
    """GET /."""
    rows = apps.get_model(PLUGINS_ENTITY.model)._default_manager.filter(**PLUGINS_ENTITY.scope)
    return 200, {
        "tagline": "Welcome to kong",
        "version": KONG_VERSION,
        "edition": "community",
        "gateway": f"hmac_gateway {__version__}",
        "hostname": socket.gethostname(),
        "node_id": node_id(),
        "lua_version": f"none, Python {platform.python_version()}",
        "plugins": {
            "available_on_server": {
                name: {"version": KONG_VERSION, "priority": plugin.priority["kong"]}
                for name, plugin in available().items()
            },
            "enabled_in_cluster": sorted(set(rows.filter(enabled=True).values_list("name", flat=True))),
        },
        "configuration": {
            # Where Kong keeps its configuration when it has a database; clients then write entity by entity.
            "database": "postgres",
            "router_flavor": "traditional_compatible",
            "plugins": ["bundled"],
            "loaded_plugins": dict.fromkeys(available(), True),
        },
    }


def status(ask: Ask) -> tuple[int, Any]:
    """GET /status: the database was asked, so it can be reached."""
    total = MinuteCounter._default_manager.aggregate(total=Sum("count"))["total"]
    return 200, {"database": {"reachable": True}, "server": {"total_requests": total or 0}}


def endpoints(ask: Ask) -> tuple[int, Any]:
    """GET /endpoints: every address there is."""
    found = {"/", "/status", "/endpoints", "/tags", "/tags/{tags}", "/plugins/enabled", "/config"}
    found |= {"/schemas/{name}", "/schemas/{db_entity_name}/validate", "/schemas/plugins/{name}"}
    found |= {"/schemas/plugins/validate", "/plugins/schema/{name}", "/upstreams/{upstreams}/health"}
    found |= {f"/upstreams/{{upstreams}}/targets/{{targets}}/{mark}" for mark in ("healthy", "unhealthy")}
    found |= {"/apis", "/apis/{apis}", "/apis/{apis}/plugins", "/apis/{apis}/plugins/{plugins}"}
    found |= {f"/{name}" for name in ABSENT} | {f"/{name}/{{{name}}}" for name in ABSENT}
    for path, entity in BY_PATH.items():
        one = f"/{path}/{{{entity.name}}}"
        found |= {f"/{path}", one}
        found |= {f"{one}/{field}" for field, name in entity.parents.items() if name in ENTITIES}
        for inner, (child, _) in below(entity).items():
            found |= {f"{one}/{inner}", f"{one}/{inner}/{{{child.name}}}"}
    return 200, {"data": sorted(found, key=lambda path: path.replace("/", "\0"))}


def enabled(ask: Ask) -> tuple[int, Any]:
    """GET /plugins/enabled."""
    return 200, {"enabled_plugins": list(available())}


def tags(ask: Ask, tag: str = "") -> tuple[int, Any]:
    """GET /tags and /tags/{tag}, paged by the number of those that went before."""
    if tag and (reason := check_tag(tag)) is not None:
        raise invalid_unique("tag", reason)
    wanted = lookup.Tags(frozenset([tag]), all=True) if tag else None
    data, offset = lookup.page_of_tags(wanted, ask.query)
    body: Doc = {"data": data, "next": None}
    if offset is not None:
        body |= {"offset": offset, "next": f"{ask.base}/tags{'/' + tag if tag else ''}?offset={offset}"}
    return 200, body


# --- schemas ---


def shown(spec: Spec) -> Doc:
    """A field as Kong's /schemas shows it."""
    found: Doc = {"type": spec.kind if spec.kind != "any" else "string"}
    for name in ("required", "auto", "unique"):
        if getattr(spec, name):
            found[name] = True
    if spec.default is not None:
        found["default"] = spec.default
    if spec.one_of:
        found["one_of"] = list(spec.one_of)
    if spec.between is not None:
        found["between"] = list(spec.between)
    if spec.greater is not None:
        found["gt"] = spec.greater
    least, most = spec.length
    if least is not None and (spec.kind != "string" or least != 1):
        found["len_min"] = least
    if most is not None:
        found["len_max"] = most
    if spec.elements is not None:
        found["elements" if spec.kind != "map" else "values"] = shown(spec.elements)
    if spec.keys is not None:
        found["keys"] = shown(spec.keys)
    if spec.kind == "foreign":
        found["reference"] = spec.reference
    if spec.kind == "record":
        found["fields"] = fields_shown(spec.fields)
    if spec.secret:
        found |= {"encrypted": True, "referenceable": True}
    return found


def fields_shown(fields: Mapping[str, Spec]) -> list[Doc]:
    """Fields as Kong's /schemas lists them."""
    return [{name: shown(spec)} for name, spec in fields.items()]


def entity_schema(name: str) -> Doc:
    """GET /schemas/{entity}."""
    entity = _entity(name)
    return {
        "name": entity.name,
        "primary_key": ["id"],
        **({"endpoint_key": entity.key} if entity.key else {}),
        "fields": fields_shown(entity.fields),
    }


def plugin_schema(name: str) -> Doc:
    """GET /schemas/plugins/{name}."""
    if name not in available():
        raise plain(404, f"No plugin named '{name}'")
    fields: dict[str, Spec] = {"protocols": PLUGINS_ENTITY.fields["protocols"]}
    listed = fields_shown(fields)
    if has_no_consumer(name):
        listed.append({"consumer": {"type": "foreign", "reference": "consumers", "eq": None, "description": NULL_ONLY}})
    return {"fields": [*listed, {"config": shown(config_spec(name))}]}


def old_plugin_schema(name: str) -> Doc:
    """GET /plugins/schema/{name}: the configuration alone."""
    if name not in available():
        raise plain(404, f"No plugin named '{name}'")
    return shown(config_spec(name))


def _entity(name: str) -> Entity:
    if name not in ENTITIES:
        raise plain(404, f"No entity named '{name}'")
    return ENTITIES[name]


def validate(ask: Ask, name: str) -> tuple[int, Any]:
    """POST /schemas/{entity}/validate: whether a document could be written, by itself."""
    entity = _entity(name)
    _, errors = examine(entity, ask.document(entity))
    if errors:
        raise schema_violation(errors)
    return 200, {"message": "schema validation successful"}


def schema_handlers(names: Sequence[str]) -> Handlers:
    """What can be done below /schemas."""
    match list(names):
        case ["plugins", "validate"]:
            return {"POST": lambda ask: validate(ask, "plugins")}
        case ["plugins", name]:
            return {"GET": lambda ask: (200, plugin_schema(name))}
        case [name]:
            return {"GET": lambda ask: (200, entity_schema(name))}
        case [name, "validate"]:
            return {"POST": lambda ask: validate(ask, name)}
    raise not_found()


# --- upstreams ---


def upstream_handlers(key: str, names: Sequence[str]) -> Handlers | None:
    """What stands below an upstream besides its targets."""
    match list(names):
        case ["health"]:
            return {"GET": lambda ask: health(ask, key)}
        case ["targets", "all"]:
            return {"GET": lambda ask: every_target(ask, key)}
        case ["targets", text, *_, ("healthy" | "unhealthy") as state] if len(names) <= 4:
            # The address of a single machine behind a name may stand in between; a mark is the target's.
            healthy = state == "healthy"
            made = {"PUT": lambda ask: mark(ask, key, text, healthy)}
            return {**made, "POST": made["PUT"]}
    return None


def every_target(ask: Ask, key: str) -> tuple[int, Any]:
    """GET /upstreams/{u}/targets/all."""
    within = lookup.Within("upstream", lookup.get(UPSTREAMS, key))
    page = lookup.page(TARGETS, ask.query, within)
    return 200, {"data": page.data, "next": None, **({"offset": page.offset} if page.offset else {})}


def health(ask: Ask, key: str) -> tuple[int, Any]:
    """GET /upstreams/{u}/health."""
    upstream = lookup.get(UPSTREAMS, key)
    page = lookup.page(TARGETS, ask.query, lookup.Within("upstream", upstream))
    rows = lookup.rows_of(TARGETS).select_related("upstream").in_bulk([target["id"] for target in page.data])
    states = {str(key): row.health for key, row in rows.items()}
    data = [{**target, "health": states.get(target["id"], "HEALTHCHECKS_OFF")} for target in page.data]
    return 200, {"data": data, "next": None, "node_id": node_id()}


def mark(ask: Ask, key: str, text: str, healthy: bool) -> tuple[int, Any]:
    """PUT /upstreams/{u}/targets/{t}/healthy or unhealthy."""
    within = lookup.Within("upstream", lookup.get(UPSTREAMS, key))
    with one_version():
        row = lookup.get(TARGETS, text, within)
        before = {"marked_unhealthy": row.marked_unhealthy}
        row.mark(healthy=healthy)
        more = audit.values(before, before, {"marked_unhealthy": row.marked_unhealthy})
        audit.record(ask.call.actor, "changed", row, ask.call.via, before, {**more, **ask.call.who})
    return 204, None


HANDLERS: Final[Mapping[str, Mapping[str, Callable[[Any], tuple[int, Any]]]]] = {
    "": {"GET": root},
    "status": {"GET": status},
    "endpoints": {"GET": endpoints},
    "tags": {"GET": tags},
    "plugins/enabled": {"GET": enabled},
    "config": {"GET": show_config, "POST": replace_config},
}
