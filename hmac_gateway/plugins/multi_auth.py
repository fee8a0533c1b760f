"""`multi-auth`: requests that satisfy one of several authentication methods.

    {"auth_plugins": [{"key-auth": {}}, {"basic-auth": {"hide_credentials": true}}]}

on a route, a service or a plugin config. The methods are tried in this order and the first that holds is the request's;
credentials are those of the methods themselves. Fields are APISIX's; `max_req_body_size` and `expose_reason` are ours.
Imports `core` and the plugins beside it; called by the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..core.credential import Lookup
from ..core.errors import ConfigError, Rejected
from ..core.identity import Verified
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from ..schema import apisix_text, problem
from . import fields
from .base import AuthPlugin, Common

name: Final = "multi-auth"
priority: Final = {"apisix": 2600}
holder: Final = name
#: Nobody has credentials for it.
credential_schema: Final = None
identifier_field: Final = ""
secret_field: Final = ""

#: What the console puts into a new one.
PROPOSED: Final[dict[str, Any]] = {"auth_plugins": [{"key-auth": {}}, {"basic-auth": {}}]}

#: Unknown fields are accepted, as in APISIX.
APISIX_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "auth_plugins": {
            "type": "array",
            "minItems": 2,
            # APISIX takes several methods in one object and tries them in no certain order.
            "items": {"type": "object", "minProperties": 1, "maxProperties": 1},
        },
        "max_req_body_size": {"type": "integer", "minimum": 1},
        "expose_reason": fields.EXPOSE_REASON,
    },
    "required": ["auth_plugins"],
}
config_schema: Final = {"apisix": APISIX_SCHEMA}

#: What says that a method's credential did not come: another method's failure tells more.
_NOT_MEANT: Final = frozenset({Reason.MISSING, Reason.WRONG_SCHEME})


class Member(NamedTuple):
    """One method with its compiled configuration."""

    plugin: AuthPlugin
    config: Any
    common: Common


@dataclass(frozen=True, slots=True)
class Config:
    """One `multi-auth` as compiled from what stands on an object."""

    members: tuple[Member, ...]
    common: Common


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration and its members'; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    limit = values["max_req_body_size"]
    members = tuple(
        _member(f"auth_plugins.{number}", method, given, dialect, limit)
        for number, entry in enumerate(values["auth_plugins"], start=1)
        for method, given in entry.items()
    )
    return Config(
        members,
        Common(
            dialect=dialect,
            # One challenge, and that the last one's.
            challenge=members[-1].common.challenge,
            # Asked only where no method holds: an anonymous consumer hides no later method, as it does in APISIX.
            anonymous=next((member.common.anonymous for member in members if member.common.anonymous), ""),
            hide_credentials=any(member.common.hide_credentials for member in members),
            expose_reason=values["expose_reason"],
            carriers=frozenset().union(*(member.common.carriers for member in members)),
        ),
    )


def _member(field: str, method: str, given: Any, dialect: str, limit: int | None) -> Member:
    # Imported late: the dict of all plugins holds this one.
    from . import PLUGINS, of_dialect, validate_config

    here = of_dialect(dialect)
    plugin = PLUGINS.get(method) if method in here else None
    others = ", ".join(sorted(known for known in PLUGINS if known in here and known != name))
    if plugin is None or method == name:
        known = "is not supported" if method in here else "did not found"
        raise fields.Worded(field, method, f"one of {others}", f"{method} plugin {known}")
    try:
        validate_config(method, given, dialect)
    except ConfigError as error:
        found = problem(given, plugin.config_schema[dialect])
        text = f"plugin {method} check schema failed: {error if found is None else apisix_text(found)}"
        raise fields.Worded(f"{field}.{method}.{error.field}", error.given, error.allowed, text) from None
    if limit is not None and "max_req_body_size" in plugin.config_schema[dialect]["properties"]:
        given = {"max_req_body_size": limit, **given}
    compiled = plugin.compile(given, dialect)
    return Member(plugin, compiled, plugin.common(compiled))


def methods(config: Mapping[str, Any]) -> list[str]:
    """The names of the methods in a configuration that was checked."""
    return [method for entry in config["auth_plugins"] for method in entry]


def common(config: Config) -> Common:
    """What the gate needs of a configuration: its challenge is the last member's, its anonymous consumer the first."""
    return config.common


def attempt(
    message: Message, config: Config, lookups: Mapping[str, Lookup], now: float, trace: Trace | None = None
) -> tuple[Member | None, Verified | Rejected]:
    """Try the methods in their order at `now` (Unix seconds): (the one that held, what it found), or (None, refusal).

    `lookups` are those of all plugins, by name. A member's own anonymous consumer is left to the gate.
    """
    failures: list[Rejected] = []
    for member in config.members:
        plugin = member.plugin
        result = plugin.check(message, member.config, lookups[plugin.holder], now, trace)
        if isinstance(result, Verified):
            return member, result
        failures.append(result)
    told = next((failure for failure in failures if failure.reason not in _NOT_MEANT), failures[-1])
    detail = "; ".join(f"{one.plugin}: {one.reason}{one.detail and f' ({one.detail})'}" for one in failures)
    return None, reject(config, told.reason, detail)


def check(
    message: Message, config: Config, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Rejected:
    """`attempt` where one lookup serves all members."""
    return attempt(message, config, {member.plugin.holder: lookup for member in config.members}, now, trace)[1]


def reject(config: Config, reason: Reason, detail: str = "") -> Rejected:
    """This plugin's refusal; `detail` names each method's reason."""
    return Rejected(
        reason,
        plugin=name,
        dialect=config.common.dialect,
        challenge=config.common.challenge,
        detail=detail,
        expose=config.common.expose_reason,
    )
