"""Authentication methods and request rules: one file each, all in one dict.

Called by the gate, the compilers and the models' `clean()`. Imports `core`, `schemes`, `schema`, `expr`,
cryptography and jwt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from ..core.credential import MASK, is_reference
from ..core.dialects import APISIX, LEGACY
from ..core.errors import ConfigError
from ..expr import compile_expr
from ..schema import check
from . import (
    acl,
    basic_auth,
    consumer_restriction,
    fields,
    hmac_auth,
    jwt_auth,
    jwt_keys,
    key_auth,
    kong_jwt,
    limit_count,
    multi_auth,
    public_api,
    rate_limiting,
    sign_request,
)
from .base import AuthPlugin, OutgoingPlugin, RulePlugin

#: Every plugin by the name that configuration uses.
PLUGINS: Final[dict[str, AuthPlugin]] = {
    hmac_auth.name: cast(AuthPlugin, hmac_auth),
    basic_auth.name: cast(AuthPlugin, basic_auth),
    key_auth.name: cast(AuthPlugin, key_auth),
    jwt_auth.name: cast(AuthPlugin, jwt_auth),
    kong_jwt.name: cast(AuthPlugin, kong_jwt),
    multi_auth.name: cast(AuthPlugin, multi_auth),
}

#: Rules for requests whose caller is known.
RULES: Final[dict[str, RulePlugin]] = {
    consumer_restriction.name: cast(RulePlugin, consumer_restriction),
    limit_count.name: cast(RulePlugin, limit_count),
    public_api.name: cast(RulePlugin, public_api),
    acl.name: cast(RulePlugin, acl),
    rate_limiting.name: cast(RulePlugin, rate_limiting),
}

#: What edits a request last, on its way to the upstream.
OUTGOING: Final[dict[str, OutgoingPlugin]] = {
    sign_request.name: cast(OutgoingPlugin, sign_request),
}
#: Everything that configuration may name.
ALL: Final[Mapping[str, AuthPlugin | RulePlugin | OutgoingPlugin]] = {**PLUGINS, **RULES, **OUTGOING}

#: `_meta` of APISIX, which any plugin's configuration may hold.
META_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "disable": {"type": "boolean"},
        "priority": {"type": "integer"},
        "error_response": {"oneOf": [{"type": "string"}, {"type": "object"}], "description": "text or an object"},
        "filter": {"type": "array"},
        "pre_function": {"type": "string"},
    },
    "additionalProperties": False,
}


def of_dialect(dialect: str) -> dict[str, AuthPlugin | RulePlugin | OutgoingPlugin]:
    """The plugins that a dialect has, by name."""
    return {name: plugin for name, plugin in ALL.items() if dialect in plugin.config_schema}


def spoken(name: str, dialect: str, legacy: bool) -> str:
    """The dialect in which a plugin answers: its row's, or Kong 0.x where the row says so and the plugin has it."""
    return LEGACY if legacy and name in ALL and LEGACY in ALL[name].config_schema else dialect


def is_mandatory(config: Any, dialect: str) -> bool:
    """Whether a method of authentication must hold beside others: in Kong's dialect not with an anonymous consumer."""
    return dialect == APISIX or not (isinstance(config, Mapping) and config.get("anonymous"))


def filled(name: str, config: Mapping[str, Any], dialect: str) -> dict[str, Any]:
    """A configuration with the dialect's defaults written into it: every field, null where there is none (Kong)."""
    return fields.filled(fields.without_nulls(config), ALL[name].config_schema[dialect])


def get(name: str) -> AuthPlugin:
    """The authentication method of that name; ConfigError naming the known plugins."""
    plugin = PLUGINS.get(name)
    if plugin is None:
        raise ConfigError("name", name, f"one of {', '.join(sorted(ALL))}")
    return plugin


def secret_fields(name: str) -> tuple[str, ...]:
    """The fields of a plugin's configuration that are kept sealed and shown masked; none for most plugins.

    A field of a record is dotted: `redis.password`.
    """
    found: tuple[str, ...] = getattr(ALL.get(name), "secret_fields", ())
    return found


def validate_config(name: str, config: Mapping[str, Any], dialect: str) -> None:
    """Check what stands on a route, service, group, bundle or globally; raises ConfigError naming the field.

    A mask in place of a secret passes, since it has a secret's shape; no secret is in the error.
    """
    here = of_dialect(dialect) or ALL
    if name not in here:
        raise ConfigError("name", name, f"one of {', '.join(sorted(here))}")
    plugin = here[name]
    hidden = secret_fields(name)
    if not isinstance(config, Mapping):
        raise ConfigError("config", MASK if hidden else config, "an object")
    if "_meta" in config:
        try:
            check(config["_meta"], META_SCHEMA)
        except ConfigError as error:
            raise ConfigError(f"_meta.{error.field}", error.given, error.allowed) from None
        try:
            compile_expr(config["_meta"].get("filter", []))
        except ConfigError as error:
            raise ConfigError("_meta.filter", error.given, error.allowed) from None
    try:
        plugin.compile(config, dialect)
    except ConfigError as error:
        records = {field.partition(".")[0] for field in hidden}
        known = plugin.config_schema.get(dialect, {}).get("properties", {}).keys() - records
        if not hidden or error.given is None or error.field.partition(".")[0] in known:
            raise
        if isinstance(error, fields.Worded):
            raise fields.Worded(error.field, MASK, error.allowed, error.text, error.reasons) from None
        # A misspelt field may hold what the right one should.
        raise ConfigError(error.field, MASK, error.allowed) from None


def validate_credential(name: str, config: Mapping[str, Any]) -> None:
    """Check what stands on a credential; raises ConfigError naming the field, never with the secret."""
    plugin = get(name)
    if plugin.credential_schema is None:
        raise ConfigError("name", name, f"one of {', '.join(holders())}")
    try:
        check(config, plugin.credential_schema)
    except ConfigError as error:
        shown = error.field == plugin.identifier_field != plugin.secret_field
        if error.given is None or shown:
            raise
        raise ConfigError(error.field, MASK, error.allowed) from None
    found = credential_problem(name, config, config.get(sealed_field(name, config), ""))
    if found is not None:
        raise ConfigError(found.field, MASK if found.field in config else None, found.allowed)


def holders() -> list[str]:
    """Names of the methods that consumers hold credentials for."""
    return [name for name, plugin in PLUGINS.items() if plugin.credential_schema is not None]


def sealed_field(name: str, config: Mapping[str, Any]) -> str:
    """The field of a method's credential that must stay secret; with jwt-auth it depends on the algorithm."""
    return jwt_keys.sealed_field(config) if name == jwt_auth.name else get(name).secret_field


def credential_problem(name: str, config: Mapping[str, Any], secret: str | None) -> jwt_keys.Problem | None:
    """What no schema says about a credential, or None.

    `secret` is the text of its sealed field, "" for none; None where there is one that cannot be looked at.
    """
    if secret is not None and is_reference(secret):
        secret = None
    return jwt_keys.problem(config, secret) if name == jwt_auth.name else None
