"""Plugins below Kong 0.x's `/apis/{api}/plugins`: they stand on the API's service, marked `legacy`.

The handlers of `kong_legacy`, which finds the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ..core.dialects import KONG
from ..core.errors import ConfigError
from ..entities import one_version
from ..plugins import spoken, validate_config
from ..plugins.fields import Worded
from . import kong_lookup as lookup
from . import kong_store as store
from .kong_consumers import CONSUMERS
from .kong_entity import Doc
from .kong_errors import ENTITY, KongError, not_found, plain
from .kong_legacy_apis import api
from .kong_legacy_shapes import as_old, page, reason, refused, sent
from .kong_plugins import PLUGINS_ENTITY, available, config_spec, has_no_consumer, shown_config, stored
from .kong_spec import UNKNOWN, Spec, clean, infer, is_uuid

if TYPE_CHECKING:
    from .kong import Ask

KINDS: Final[Mapping[str, str]] = {
    "name": "string",
    "consumer_id": "string",
    "config": "table",
    "enabled": "boolean",
}


def _rows(service: Any) -> Any:
    return lookup.rows_of(PLUGINS_ENTITY).filter(service=service, route=None)


def plugin(key: str, text: str) -> Any:
    """The plugin of that id below an API. Raises KongError 404."""
    service, _ = api(key)
    row = _rows(service).filter(pk=text).first() if is_uuid(text) else None
    if row is None:
        raise not_found()
    return row


def show_plugin(row: Any) -> Doc:
    """A plugin as Kong 0.5 shows it."""
    doc = {
        "id": str(row.pk),
        "api_id": str(row.service_id),
        "consumer_id": str(row.consumer_id) if row.consumer_id else None,
        "name": row.name,
        "config": stored(shown_config(row)),
        "enabled": row.enabled,
        "created_at": int(row.created_at.timestamp() * 1000),
    }
    return {name: item for name, item in doc.items() if item is not None}


def list_plugins(ask: Ask, key: str) -> tuple[int, Any]:
    """GET /apis/{a}/plugins."""
    service, _ = api(key)
    path = f"/{quote(key, safe='')}/plugins/"
    return page(ask, list(_rows(service).order_by("created_at", "pk")), show_plugin, path)


def create_plugin(ask: Ask, key: str) -> tuple[int, Any]:
    """POST /apis/{a}/plugins."""
    given, _ = sent(ask, KINDS)
    with one_version():
        return 201, _write_plugin(ask, api(key)[0], given, None)


def put_plugin(ask: Ask, key: str) -> tuple[int, Any]:
    """PUT /apis/{a}/plugins: replaces the plugin with the body's id, or makes a new one."""
    given, own = sent(ask, KINDS)
    with one_version():
        service, _ = api(key)
        if "id" not in own:
            return 201, _write_plugin(ask, service, given, None)
        return 200, _write_plugin(ask, service, given, plugin(key, str(own["id"])))


def change_plugin(ask: Ask, key: str, text: str) -> tuple[int, Any]:
    """PATCH /apis/{a}/plugins/{p}; the configuration is merged."""
    given, _ = sent(ask, KINDS)
    if not given:
        raise plain(400, "empty body")
    with one_version():
        service, _ = api(key)
        row = plugin(key, text)
        old = {name: show_plugin(row).get(name) for name in KINDS}
        config = {**(old["config"] or {}), **(given.get("config") or {})}
        return 200, _write_plugin(ask, service, {**old, **given, "config": config}, row)


def delete_plugin(ask: Ask, key: str, text: str) -> tuple[int, Any]:
    """DELETE /apis/{a}/plugins/{p}."""
    with one_version():
        store.delete(PLUGINS_ENTITY, plugin(key, text), ask.call)
    return 204, None


def _write_plugin(ask: Ask, service: Any, given: Doc, row: Any) -> Doc:
    """Write the row. Raises KongError 400 or 409."""
    name = given.get("name")
    if not name:
        raise refused({"name": "name is required"})
    if name not in available():
        raise refused({"config": f'Plugin "{name}" not found'})
    consumer = None
    if text := given.get("consumer_id"):
        if has_no_consumer(name):
            raise plain(400, "No consumer can be configured for that plugin")
        consumer = lookup.find(CONSUMERS, text) if is_uuid(text) else None
        if consumer is None or str(consumer.pk) != text:
            raise refused({"consumer_id": f"consumer_id {text} does not exist"})
    config = _config(name, given.get("config") or {})
    doc = {
        **dict.fromkeys(PLUGINS_ENTITY.fields),
        "name": name,
        "enabled": given.get("enabled") is not False,
        "config": config,
        "protocols": PLUGINS_ENTITY.fields["protocols"].default,
        "service": {"id": str(service.pk)},
        "consumer": None if consumer is None else {"id": str(consumer.pk)},
    }

    def finish(row: Any) -> None:
        row.legacy = True

    try:
        saved = store.write(PLUGINS_ENTITY, row, doc, ask.call, finish)
    except KongError as error:
        if error.status == 409:
            raise plain(409, "Plugin configuration already exists") from None
        raise as_old(error, "config") from None
    return show_plugin(lookup.get(PLUGINS_ENTITY, saved["id"]))


def _config(name: str, given: Doc) -> Doc:
    """A plugin's configuration, complete. Lists may be texts with commas. Raises KongError 400."""
    spec = config_spec(name, legacy=True)
    sent = {key: _old_value(spec.fields[key], item) if key in spec.fields else item for key, item in given.items()}
    value, errors = clean(spec, {key: item for key, item in sent.items() if item is not None})
    if errors is None:
        try:
            validate_config(name, stored(value), spoken(name, KONG, legacy=True))
        except ConfigError as error:
            errors = {error.field: error.text if isinstance(error, Worded) else f"expected {error.allowed}"}
    if isinstance(errors, dict):
        said = {key: _old_reason(spec, key, sent.get(key), reason(item)) for key, item in errors.items()}
        raise refused({"config" if key == ENTITY else f"config.{key}": text for key, text in said.items()})
    return dict(value)


def _old_value(spec: Spec, value: Any) -> Any:
    if spec.kind in ("array", "set") and isinstance(value, str):
        value = [item.strip() for item in value.split(",")] if value.strip() else []
    return infer(spec, value)


def _old_reason(spec: Spec, key: str, value: Any, reason: str) -> str:
    if key not in spec.fields:
        return f"{key} is an unknown field" if reason == UNKNOWN else reason
    if key == "clock_skew" and isinstance(value, int | float) and value < 0:
        return "Clock Skew should be positive"
    if reason.startswith("expected a") and "one of" not in reason:
        kind = {"integer": "number", "set": "array", "map": "table", "record": "table"}
        word = kind.get(spec.fields[key].kind, spec.fields[key].kind)
        return f"{key} is not {'an' if word == 'array' else 'a'} {word}"
    return reason
