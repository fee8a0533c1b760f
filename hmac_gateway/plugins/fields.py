"""Configuration that every authentication plugin has, in one spelling. Imports `core` and `base` only.

Used by the plugins beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..core.errors import ConfigError
from ..core.identity import Carrier
from ..schema import check as check_schema
from .base import Common

ANONYMOUS_CONSUMER: Final[dict[str, Any]] = {"type": "string", "minLength": 1}
HIDE_CREDENTIALS: Final[dict[str, Any]] = {"type": "boolean", "default": False}
EXPOSE_REASON: Final[dict[str, Any]] = {"type": "boolean", "default": False}


class Worded(ConfigError):
    """Configuration that is refused, with the words that APISIX has for it: `text`, which quotes no value."""

    def __init__(self, field: str, given: Any, allowed: str, text: str) -> None:
        super().__init__(field, given, allowed)
        self.text = text


def realm(default: str) -> dict[str, Any]:
    """The schema of a realm, as it stands in WWW-Authenticate."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        # \Z, since `$` lets a final newline through, which would split the header it goes into.
        "pattern": r"^[\x20-\x21\x23-\x5B\x5D-\x7E]+\Z",
        "description": 'printable ASCII without " and \\',
        "default": default,
    }


def header(default: str) -> dict[str, Any]:
    """The schema of a header's name."""
    return {
        "type": "string",
        "maxLength": 128,
        # RFC 9110 5.6.2: what a header's name may consist of.
        "pattern": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z",
        "description": "a header's name: letters, digits and !#$%&'*+-.^_`|~",
        "default": default,
    }


def header_names(name: str) -> tuple[str, ...]:
    """The names a header may come under, in lower case, in the order they are looked at.

    As in APISIX, `-` stands in for `_` where no header of the very name came.
    """
    name = name.lower()
    return tuple(dict.fromkeys((name, name.replace("_", "-"))))


def checked(config: Mapping[str, Any], dialect: str, schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A configuration with its defaults filled in; raises ConfigError naming the field that is wrong."""
    if dialect not in schemas:
        raise ConfigError("dialect", dialect, f"one of {', '.join(schemas)}")
    check_schema(config, schemas[dialect])
    return {name: config.get(name, field.get("default")) for name, field in schemas[dialect]["properties"].items()}


def common(values: Mapping[str, Any], dialect: str, word: str, carriers: frozenset[Carrier]) -> Common:
    """What the gate needs of checked values; `word` is the challenge's scheme."""
    return Common(
        dialect=dialect,
        challenge=f'{word} realm="{values["realm"]}"',
        anonymous=values["anonymous_consumer"] or "",
        hide_credentials=values["hide_credentials"],
        expose_reason=values["expose_reason"],
        carriers=carriers,
    )
