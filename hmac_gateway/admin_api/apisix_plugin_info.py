"""What the admin API tells about plugins: /plugins/list, /plugins/P, /schema/plugins/P, and /schema/validate/R.

Read-only; called by the view of `apisix`. Names, statuses and words are APISIX's.
"""

from __future__ import annotations

from typing import Any, Final

from ..conf import conf
from ..plugins import ALL, of_dialect
from .apisix_plugins import is_auth
from .apisix_resources import CREDENTIALS, RESOURCES
from .apisix_store import check
from .errors import INVALID, ApiError, refuse

#: Where APISIX has plugins; here, all that there are serve HTTP.
SUBSYSTEMS: Final = ("http", "stream")


def listed(subsystem: str) -> list[str]:
    """The answer to /plugins/list. Raises ApiError 400, a text, for an unknown subsystem."""
    if subsystem not in SUBSYSTEMS:
        raise ApiError(400, "invalid subsystem passed")
    return names(subsystem)


def names(subsystem: str = "http") -> list[str]:
    """Enabled plugins, those that run first at the front. Raises ApiError 400 for an unknown subsystem."""
    if subsystem not in SUBSYSTEMS:
        raise refuse(f"unsupported subsystem: {subsystem}")
    if subsystem == "stream":
        return []
    allowed = conf.plugins_available
    found = [name for name in of_dialect("apisix") if allowed is None or name in allowed]
    return sorted(found, key=lambda name: -ALL[name].priority["apisix"])


def plugin_schema(name: str, schema_type: str | None = None, subsystem: str = "http") -> Any:
    """A plugin's JSON Schema; that of its credentials for `schema_type=consumer`. Raises ApiError 404 or 400."""
    if name not in names(subsystem):
        raise refuse(f"plugin not found in subsystem {subsystem}", 404)
    plugin = ALL[name]
    if schema_type == "consumer":
        found = getattr(plugin, "credential_schema", None)
    else:
        found = plugin.config_schema["apisix"]
    if found is None:
        raise refuse("not found schema")
    return found


def everything(subsystem: str) -> dict[str, Any]:
    """Enabled plugins with their priorities, kinds and schemas. Raises ApiError 400."""
    found = {}
    for name in names(subsystem):
        plugin: Any = ALL[name]
        entry = {
            "version": 0.1,
            "priority": plugin.priority["apisix"],
            "schema": plugin.config_schema["apisix"],
        }
        if is_auth(plugin):
            entry |= {"type": "auth", "consumer_schema": plugin.credential_schema}
        found[name] = entry
    return found


def resource_schema(kind: str) -> Any:
    """A resource's JSON Schema by its kind (`route`) or name (`routes`), else a plugin's. Raises ApiError 404."""
    for resource in (*RESOURCES.values(), CREDENTIALS):
        if kind in (resource.name, resource.kind.replace(" ", "_")):
            return resource.schema
    return plugin_schema(kind)


def validate(name: str, doc: Any) -> None:
    """Check a document as a write would, but for other objects and ids. Raises ApiError 400."""
    resource = CREDENTIALS if name == "credentials" else RESOURCES.get(name)
    if resource is None:
        raise refuse(f"Unsupported resource type: {name}", 404)
    if not isinstance(doc, dict):
        raise ApiError(400, {"error_msg": "missing configurations"})
    try:
        check(resource, doc)
    except ApiError as error:
        # APISIX leaves out here what it says before a schema's error elsewhere.
        text = error.body["error_msg"] if isinstance(error.body, dict) else error.body
        raise refuse(str(text).removeprefix(INVALID), error.status) from None
