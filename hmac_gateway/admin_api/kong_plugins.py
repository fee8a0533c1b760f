"""Kong's plugins ↔ Plugin rows of Kong's dialect. Each plugin's own schema says what its `config` may hold.

The schemas are the engine's (`config_schema["kong"]`, JSON Schema); `spec_of` reads one as Kong's admin API would
declare it, so that refusals have Kong's reasons. What no schema says, the plugin's `compile` does. Secrets inside of a
configuration are stored sealed and shown masked; the mask sent back leaves them as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from .. import sealing
from ..conf import conf
from ..core.dialects import KONG
from ..core.errors import ConfigError
from ..plugins import PLUGINS, filled, of_dialect, spoken, validate_config
from ..plugins.fields import HEADER, WHOLE, Worded
from .kong_consumers import FIELDS as CONSUMER_FIELDS
from .kong_entity import Doc, Entity, Fields, Unique, common, key_of, reference
from .kong_errors import ENTITY, schema_violation
from .kong_formats import HTTP_PROTOCOLS, ID, NAME, STAMP, TAGS, check_header_name, flag, foreign, protocols
from .kong_routes import FIELDS as ROUTE_FIELDS
from .kong_services import FIELDS as SERVICE_FIELDS
from .kong_spec import NULL_ONLY, Spec, default_of, placed

_NOT_ENABLED: Final = "plugin '{}' not enabled; add it to the 'plugins' configuration property"
#: What may have a plugin, and the column that says so.
SCOPES: Final = ("route", "service", "consumer")


def available() -> dict[str, Any]:
    """The plugins that Kong's dialect has here and the settings allow, by name."""
    allowed = conf.plugins_available
    return {name: plugin for name, plugin in sorted(of_dialect(KONG).items()) if allowed is None or name in allowed}


def has_no_consumer(name: str) -> bool:
    """Whether a plugin cannot stand on a consumer: it finds out who calls, or judges what that has shown."""
    return name in PLUGINS or name == "acl"


def config_spec(name: str, legacy: bool = False) -> Spec:
    """The `config` record of an available plugin; `legacy` is what it holds in Kong 0.x, where that differs."""
    return _spec(json.dumps(available()[name].config_schema[spoken(name, KONG, legacy)]))


@lru_cache(maxsize=64)
def _spec(frozen: str) -> Spec:
    return replace(spec_of(json.loads(frozen)), required=True)


def _check_header(value: str) -> str | None:
    # Kong's words, for what is no header's name at all: it knows fewer of them.
    return None if re.search(HEADER["pattern"], value) else check_header_name(value)


def spec_of(schema: Mapping[str, Any], required: bool = False) -> Spec:
    """A JSON Schema as a Spec. What a Spec cannot say (`pattern`, `oneOf`, …) is left to the plugin itself."""
    kinds = schema.get("type", [])
    kind = next((one for one in ([kinds] if isinstance(kinds, str) else kinds) if one != "null"), "any")
    default = schema.get("default")
    made: dict[str, Any] = {"default": default, "required": required, "one_of": tuple(schema.get("enum", ()))}
    if "minimum" in schema or "maximum" in schema:
        least = schema.get("minimum", schema.get("exclusiveMinimum", -(2**63)))
        made["between"] = (least, schema.get("maximum", 2**63 - 1))
    if "exclusiveMinimum" in schema:
        made["greater"] = schema["exclusiveMinimum"]
    match kind:
        case "string":
            made["length"] = (schema.get("minLength", 1), schema.get("maxLength"))
            if schema.get("pattern") == HEADER["pattern"] and "cookie" not in schema["description"]:
                made["check"] = _check_header
        case "array":
            kind = "set" if schema.get("uniqueItems") else "array"
            made["length"] = (schema.get("minItems"), schema.get("maxItems"))
            if isinstance(items := schema.get("items"), dict):
                made["elements"] = spec_of(items, required=True)
        case "object" if "properties" in schema:
            kind = "record"
            needed = schema.get("required", ())
            made["fields"] = {name: spec_of(item, name in needed) for name, item in schema["properties"].items()}
        case "object":
            kind = "map"
            if isinstance(items := schema.get("additionalProperties"), dict):
                made["elements"] = spec_of(items)
    return Spec(kind=kind, **made)


FIELDS: Final[Mapping[str, Spec]] = {
    "id": ID,
    "created_at": STAMP,
    "updated_at": STAMP,
    "name": Spec(kind="string", required=True, length=(1, 64)),
    "instance_name": NAME,
    "route": foreign("routes", ROUTE_FIELDS),
    "service": foreign("services", SERVICE_FIELDS),
    "consumer": foreign("consumers", CONSUMER_FIELDS),
    "config": Spec(kind="record", required=True, open=True),
    "protocols": protocols(HTTP_PROTOCOLS, Spec(kind="string", required=True, one_of=HTTP_PROTOCOLS)),
    "enabled": flag(True),
    "tags": TAGS,
}


def fields_of(doc: Doc) -> Fields:
    """The fields of a plugin of the document's name."""
    name = doc.get("name")
    if not isinstance(name, str) or not name:
        return FIELDS
    if name not in available():
        return {**FIELDS, "name": replace(FIELDS["name"], check=lambda given: _NOT_ENABLED.format(given))}
    fields = {**FIELDS, "config": config_spec(name)}
    if has_no_consumer(name):
        fields["consumer"] = Spec(kind="foreign", reference="consumers", check=lambda given: NULL_ONLY)
    return fields


def prepare(given: Doc) -> Doc:
    """Null in a configuration stands for the default, where there is one."""
    name, config = given.get("name"), given.get("config")
    if isinstance(name, str) and name in available() and isinstance(config, dict):
        fields = config_spec(name).fields
        given["config"] = {
            key: item
            for key, item in config.items()
            if item is not None or key not in fields or default_of(fields[key]) is None
        }
    return given


def check_config(doc: Doc) -> Mapping[str, Any] | None:
    """What the plugin itself says of its configuration."""
    if {"name", "config"} & doc["@errors"].keys():
        return None
    config = stored(doc["config"])
    try:
        sealing.check(doc["name"], config)
        validate_config(doc["name"], config, KONG)
    except ConfigError as error:
        return _reasons(error)
    return None


def _reasons(error: ConfigError) -> dict[str, Any]:
    if isinstance(error, Worded) and error.reasons is not None:
        return dict(error.reasons)
    reason: Any = error.text if isinstance(error, Worded) else f"expected {error.allowed}"
    if error.field == WHOLE:
        return {ENTITY: [reason]}
    for part in reversed(error.field.split(".")):
        reason = placed({int(part): reason}) if part.isdecimal() else {part: reason}
    return {"config": reason}


def stored(config: Mapping[str, Any]) -> dict[str, Any]:
    """A complete configuration as rows have it: without what is unset."""
    return {name: stored(item) if isinstance(item, dict) else item for name, item in config.items() if item is not None}


def place_of(doc: Doc) -> str:
    """The row's `place`: what it is attached to."""
    parts = [f"{scope}:{key}" for scope in SCOPES if (key := key_of(doc, scope))]
    return " ".join(parts) or "global"


def fill(row: Any, doc: Doc) -> None:
    """Set the columns. Raises KongError for a mask that stands for no stored secret."""
    row.dialect = "kong"
    before = row.config if row.name == doc["name"] else None
    for name in ("name", "instance_name", "enabled"):
        setattr(row, name, doc[name])
    for scope in SCOPES:
        setattr(row, f"{scope}_id", key_of(doc, scope))
    config = _legacy(doc) if row.legacy else stored(doc["config"])
    try:
        row.config = sealing.taken(row.name, config, before)
    except ConfigError as error:
        raise schema_violation(_reasons(error)) from None
    row.secret_changed = not sealing.same(row.name, row.config, before)
    row.protocols = [] if set(doc["protocols"]) == set(HTTP_PROTOCOLS) else doc["protocols"]
    row.tags = doc["tags"] or []


def _legacy(doc: Doc) -> dict[str, Any]:
    """The configuration of a plugin that answers as Kong 0.x did: without what that did not know."""
    here, known = config_spec(doc["name"]).fields, config_spec(doc["name"], legacy=True).fields
    foreign = {name for name, item in doc["config"].items() if name not in known and item != default_of(here[name])}
    if foreign:
        raise schema_violation({"config": dict.fromkeys(foreign, "not known to the plugins of Kong 0.x")})
    return stored({name: item for name, item in doc["config"].items() if name in known})


def shown_config(row: Any) -> Doc:
    """A row's configuration with its defaults, its secrets masked."""
    config = sealing.shown(row.name, row.config) if isinstance(row.config, dict) else {}
    if row.name not in available():
        return dict(config)
    return filled(row.name, config, spoken(row.name, KONG, row.legacy))


def show(row: Any) -> Doc:
    """The document, with the configuration's defaults, its secrets masked."""
    return {
        **common(row),
        "name": row.name,
        "instance_name": row.instance_name,
        **{scope: reference(getattr(row, f"{scope}_id")) for scope in SCOPES},
        "config": shown_config(row),
        "protocols": row.protocols or list(HTTP_PROTOCOLS),
        "enabled": row.enabled,
    }


PLUGINS_ENTITY: Final = Entity(
    name="plugins",
    path="plugins",
    model="hmac_proxy.Plugin",
    scope={"dialect": "kong", "group__isnull": True, "bundle__isnull": True},
    fields=FIELDS,
    fields_of=fields_of,
    prepare=prepare,
    fill=fill,
    show=show,
    checks=(check_config,),
    key="instance_name",
    by_key=lambda text: {"instance_name": text},
    unique=(
        Unique(("name", *SCOPES), lambda doc: {"name": doc["name"], "place": place_of(doc)}),
        Unique(
            ("instance_name",), lambda doc: {"instance_name": doc["instance_name"]} if doc["instance_name"] else None
        ),
    ),
    columns={"place": "name"},
)
