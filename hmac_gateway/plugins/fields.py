"""Configuration that every authentication plugin has, in one spelling. Imports `core` and `base` only.

Used by the plugins beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..core.dialects import APISIX, KONG, LEGACY
from ..core.errors import ConfigError
from ..core.identity import Carrier
from ..schema import check as check_schema
from .base import Common

ANONYMOUS_CONSUMER: Final[dict[str, Any]] = {"type": "string", "minLength": 1}
HIDE_CREDENTIALS: Final[dict[str, Any]] = {"type": "boolean", "default": False}
EXPOSE_REASON: Final[dict[str, Any]] = {"type": "boolean", "default": False}


#: Kong's fields of the same meaning. It knows no unknown field, and takes null for "not set".
KONG_ANONYMOUS: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "description": "the id or the user name of a consumer",
}
RUN_ON_PREFLIGHT: Final[dict[str, Any]] = {"type": "boolean", "default": True}


#: What is wrong with a configuration as a whole is said of this field.
WHOLE: Final = "configuration"


class Worded(ConfigError):
    """Configuration that is refused, with the words that the dialect has for it: `text`, which quotes no value.

    `reasons` is what Kong's admin API says, by field, where that is more than `text` about `field`.
    """

    def __init__(
        self, field: str, given: Any, allowed: str, text: str, reasons: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(field, given, allowed)
        self.text = text
        self.reasons = reasons


def conditional(field: str, text: str, condition: str) -> dict[str, Any]:
    """What Kong says of a field that is wrong because of another one's value."""
    said = f"failed conditional validation given value of field 'config.{condition}'"
    return {"config": {field: text}, "@entity": [said]}


#: A realm, as it stands in WWW-Authenticate.
REALM: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    # \Z, since `$` lets a final newline through, which would split the header it goes into. As APISIX writes it: a
    # refusal quotes it.
    "pattern": r"^[ -!#-[\]-~]+\Z",
    "description": 'printable ASCII without " and \\',
}
#: A header's name.
HEADER: Final[dict[str, Any]] = {
    "type": "string",
    "maxLength": 128,
    # RFC 9110 5.6.2: what a header's name may consist of.
    "pattern": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z",
    "description": "a header's name: letters, digits and !#$%&'*+-.^_`|~",
}
#: A cookie's name (RFC 6265 4.1.1: a token).
COOKIE: Final[dict[str, Any]] = {**HEADER, "description": "a cookie's name: letters, digits and !#$%&'*+-.^_`|~"}


def realm(default: str) -> dict[str, Any]:
    """The schema of a realm that is never absent."""
    return {**REALM, "default": default}


def header(default: str) -> dict[str, Any]:
    """The schema of a header's name, with a default."""
    return {**HEADER, "default": default}


def kong(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of a configuration in Kong's dialect: unknown fields are refused."""
    return {"type": "object", "properties": dict(properties), "additionalProperties": False, **more}


def header_names(name: str) -> tuple[str, ...]:
    """The names a header may come under, in lower case, in the order they are looked at.

    As in APISIX, `-` stands in for `_` where no header of the very name came.
    """
    name = name.lower()
    return tuple(dict.fromkeys((name, name.replace("_", "-"))))


def checked(config: Mapping[str, Any], dialect: str, schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A configuration with its defaults filled in; raises ConfigError naming the field that is wrong.

    In Kong's dialect null is "not set", and takes the default.
    """
    if dialect not in schemas:
        raise ConfigError("dialect", dialect, f"one of {', '.join(schemas)}")
    schema = schemas[dialect]
    if dialect != APISIX and isinstance(config, Mapping):
        config = without_nulls(config)
    check_schema(config, schema)
    return filled(config, schema)


def without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration less what is null, in records inside it too."""
    return {
        name: without_nulls(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if value is not None
    }


def filled(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a schema: as configured, else its default, else None; records inside it likewise."""
    found: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        value = config.get(name, field.get("default"))
        if field.get("type") == "object" and "properties" in field:
            value = filled(value or {}, field)
        found[name] = value
    return found


def value_at(config: Mapping[str, Any], field: str) -> Any:
    """What stands at a field, dotted where it is in a record; None where nothing does."""
    found: Any = config
    for name in field.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def with_fields(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with other values at some fields, dotted where they are in a record."""
    new = dict(config)
    for field, value in values.items():
        name, _, inner = field.partition(".")
        new[name] = with_fields(new.get(name) or {}, {inner: value}) if inner else value
    return new


def common(
    values: Mapping[str, Any], dialect: str, word: str, carriers: frozenset[Carrier], told: str = "identifier"
) -> Common:
    """What the gate needs of checked values; `word` is the challenge's scheme.

    `told` is the credential's attribute that upstreams are told in Kong's dialect.
    """
    realm = values.get("realm")
    challenge = word if realm is None else f'{word} realm="{realm}"'
    return Common(
        dialect=dialect,
        challenge="" if dialect == LEGACY else challenge,
        anonymous=values.get("anonymous_consumer" if dialect == APISIX else "anonymous") or "",
        hide_credentials=values.get("hide_credentials", False),
        expose_reason=values["expose_reason"],
        carriers=carriers,
        told={APISIX: "public_id", KONG: told}.get(dialect, ""),
        run_on_preflight=values.get("run_on_preflight", True),
    )
