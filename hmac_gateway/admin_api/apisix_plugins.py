"""APISIX's `plugins` map ↔ Plugin rows, and the words that refuse a plugin's configuration.

Used by `apisix_resources` (routes, services, bundles, groups, global rules) and `apisix_credentials`. A plugin's
configuration is stored as it was sent, its secrets sealed; a row keeps its key as long as the plugin stays attached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import models

from .. import sealing
from ..conf import conf
from ..core.credential import MASK
from ..core.errors import ConfigError
from ..plugins import META_SCHEMA, of_dialect, secret_fields, validate_config
from ..plugins.fields import Worded
from ..plugins.limit_count import MISMATCH
from ..schema import apisix_text, problem
from .errors import ApiError, refuse
from .fields import Doc, same
from .writing import Writer


def available(name: str) -> Any:
    """The plugin of that name. Raises ApiError for one that is unknown or not enabled in the settings."""
    allowed = conf.plugins_available
    known = of_dialect("apisix")
    if name not in known or (allowed is not None and name not in allowed):
        raise refuse(f"unknown plugin [{name}]")
    return known[name]


def is_auth(plugin: Any) -> bool:
    """Whether consumers can hold credentials for the plugin."""
    return getattr(plugin, "credential_schema", None) is not None


def schema_error(name: str, config: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a configuration, in APISIX's words and with `_meta` allowed; None when it is right."""
    with_meta = {**schema, "properties": {**schema.get("properties", {}), "_meta": META_SCHEMA}}
    found = problem(config, with_meta)
    if found is None:
        return None
    return f"failed to check the configuration of plugin {name} err: {apisix_text(found)}"


def check(name: str, config: Any) -> None:
    """Refuse (ApiError) what may not stand on a route, service, bundle, group, or globally."""
    plugin = available(name)
    if not isinstance(config, dict):
        given = json.dumps(MASK if secret_fields(name) else config)
        raise refuse(f"invalid plugin conf {given} for plugin [{name}]")
    if text := schema_error(name, config, plugin.config_schema["apisix"]):
        raise refuse(text)
    try:
        sealing.check(name, config)
        validate_config(name, config, "apisix")
    except ConfigError as error:
        if error.field == "_meta.filter":
            raise refuse(f"failed to validate the 'vars' expression: {error}") from None
        raise _refused(name, error) from None


def _refused(name: str, error: ConfigError) -> ApiError:
    why = error.text if isinstance(error, Worded) else str(error)
    return refuse(f"failed to check the configuration of plugin {name} err: {why}")


@dataclass(frozen=True)
class PluginsPart:
    """The `plugins` key of an object; `owner` is the Plugin column that refers to it.

    `rules` is given for global rules: what stands before their ids in the table.
    """

    owner: str
    rules: str | None = None
    keys: tuple[str, ...] = ("plugins",)

    def check(self, doc: Doc) -> None:
        """Refuse wrong configurations; needs no database."""
        for name, config in doc.get("plugins", {}).items():
            check(name, config)

    def before_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Nothing stands in the object's own columns."""

    def after_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Make the Plugin rows say what the document says."""
        wanted = doc.get("plugins", {})
        if self.rules is not None:
            self._refuse_twins(row, wanted)
        write_plugins(row, self.owner, wanted, writer)

    def _refuse_twins(self, row: Any, wanted: Mapping[str, Any]) -> None:
        """A plugin stands in one global rule only (APISIX). Raises ApiError naming the other."""
        others: Any = apps.get_model("hmac_proxy.Plugin")._default_manager.filter(bundle__is_global=True)
        twin = others.filter(name__in=list(wanted)).exclude(bundle=row).order_by("name").first()
        if twin is not None:
            other = twin.bundle_id.removeprefix(self.rules)
            raise refuse(f"plugin '{twin.name}' already exists in global rule with id '{other}'")

    def show(self, row: Any) -> Doc:
        """The `plugins` key; an empty map only where one was sent."""
        found = show_plugins(row)
        return {"plugins": found} if found or "plugins" in row.extra else {}


def write_plugins(row: models.Model, owner: str, wanted: Mapping[str, Any], writer: Writer) -> None:
    """Attach exactly `wanted` to `row`, besides plugins of another dialect. Raises ApiError, ValidationError.

    Sets `row.secret_changed` where a secret is another one than before.
    """
    model: Any = apps.get_model("hmac_proxy.Plugin")
    present = {plugin.name: plugin for plugin in writer.below("hmac_proxy.Plugin", row, **{owner: row})}
    for name in present.keys() - wanted.keys():
        if present[name].dialect == "apisix":
            present[name].delete()
    for name, config in wanted.items():
        plugin = present.get(name)
        stored = None if plugin is None else plugin.config
        try:
            config = sealing.taken(name, config, stored)
        except ConfigError as error:
            raise _refused(name, error) from None
        if not sealing.same(name, config, stored):
            row.secret_changed = True  # type: ignore[attr-defined]
        if plugin is not None and plugin.enabled and plugin.dialect == "apisix" and same(plugin.config, config):
            continue
        if plugin is None:
            plugin = model(name=name, **{owner: row})
        plugin.config, plugin.enabled, plugin.dialect = config, True, "apisix"
        try:
            writer.save(plugin)
        except ValidationError as error:
            if MISMATCH not in " ".join(error.messages):
                raise
            raise refuse(f"failed to check the configuration of plugin {name} err: {MISMATCH}") from None


def show_plugins(row: Any) -> Doc:
    """The configurations attached to `row`, by name, secrets masked.

    One that the console switched off says so in `_meta`.
    """
    found: Doc = {}
    for plugin in sorted(row.plugins.all(), key=lambda plugin: (plugin.created_at, plugin.name)):
        if plugin.dialect != "apisix":
            continue
        config = sealing.shown(plugin.name, plugin.config) if isinstance(plugin.config, dict) else {}
        if not plugin.enabled:
            meta = config.get("_meta")
            config = {**config, "_meta": {**(meta if isinstance(meta, dict) else {}), "disable": True}}
        found[plugin.name] = config
    return found
