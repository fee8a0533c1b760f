"""Secrets inside the configuration of plugins: sealed where it is stored, masked where it is shown.

    {"secret_key": "$sealed://gAAAA…"}      in the database
    {"secret_key": "********"}              in answers, the console and exports; written back it means "unchanged"
    {"secret_key": "$env://GATEWAY_SECRET"} everywhere: the secret stands in the environment

Which fields these are says `plugins.secret_fields`. Whatever takes configuration in calls `taken`, whatever shows it
`shown`; the Plugin model calls `sealed` before each write, so that nothing can store clear text. Imports `crypto`,
`references` and `plugins`; knows no model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from . import crypto, references
from .core.credential import MASK, Secret, is_reference
from .core.errors import ConfigError
from .plugins import secret_fields
from .plugins.fields import value_at, with_fields

logger = logging.getLogger("hmac_gateway.runtime")

#: What a sealed text begins with. Nobody may give one: it would be taken from a copy of the database.
SEALED: Final = "$sealed://"
#: Stands in comparisons for a secret that is not the stored one.
ANOTHER: Final = f"{MASK} (another)"
_A_SECRET: Final = "the secret itself, or $env://NAME"


def is_sealed(value: Any) -> bool:
    """Whether a value is a secret in its stored form."""
    return isinstance(value, str) and value.startswith(SEALED)


def _found(name: str, config: Any) -> dict[str, Any]:
    """The secret fields that a configuration has, dotted where they are in a record; none of one that is no object."""
    if not isinstance(config, Mapping):
        return {}
    return {field: value for field in secret_fields(name) if (value := value_at(config, field)) is not None}


def shown(name: str, config: Any) -> Any:
    """The configuration as people and machines may see it. Opens nothing."""
    found = _found(name, config)
    masks = {field: MASK for field, value in found.items() if not (isinstance(value, str) and is_reference(value))}
    return with_fields(config, masks) if masks else config


def checkable(name: str, config: Any) -> Any:
    """A row's configuration as `validate_config` can judge it: a mask has a secret's shape, a sealed text has not.

    Refuses (ConfigError) what no row may hold: masks, and references that may not be stored. ImproperlyConfigured where
    a secret could not be sealed.
    """
    found = _found(name, config)
    if MASK in found.values():
        raise ConfigError(next(field for field, value in found.items() if value == MASK), MASK, _A_SECRET)
    masks = {field: MASK for field, value in found.items() if is_sealed(value)}
    config = with_fields(config, masks) if masks else config
    check(name, config)
    if any(value != MASK and not is_reference(str(value)) for value in _found(name, config).values()):
        crypto.require_keys()
    return config


def check(name: str, config: Any) -> None:
    """Refuse (ConfigError, without the value) what may not be given as a secret; a mask passes."""
    for field, value in _found(name, config).items():
        if is_sealed(value):
            raise ConfigError(field, MASK, _A_SECRET)
        if isinstance(value, str) and (why := references.problem(value)):
            raise ConfigError(field, MASK, f"{_A_SECRET}; this is {why}")


def taken(name: str, given: Any, stored: Any) -> Any:
    """A configuration that was given, with the secrets of the stored one (None: there is none) where they are the same.

    Raises ConfigError, without the value, for what may not be given, and for a mask that stands for nothing.
    """
    check(name, given)
    before = _found(name, stored)
    kept = {}
    for field, value in _found(name, given).items():
        old = before.get(field)
        if value == MASK:
            if old is None:
                raise ConfigError(field, MASK, "a secret; the mask stands for one that is stored already")
            kept[field] = old
        elif old is not None and _is(old, value):
            # Sealing it again would look like a change.
            kept[field] = old
    return with_fields(given, kept) if kept else given


def same(name: str, given: Any, stored: Any) -> bool:
    """Whether two stored forms have the same secrets. A sealed text that is not the same is another secret."""
    return _found(name, given) == _found(name, stored)


def sealed(name: str, config: Any) -> Any:
    """The configuration as it is stored; the same object where nothing is to be done.

    Raises ImproperlyConfigured without encryption keys, ConfigError for a mask.
    """
    new = {}
    for field, value in _found(name, config).items():
        if value == MASK:
            raise ConfigError(field, MASK, _A_SECRET)
        if isinstance(value, str) and value and not is_sealed(value) and not is_reference(value):
            new[field] = SEALED + crypto.seal(value)
    return with_fields(config, new) if new else config


def resealed(config: Any) -> dict[str, Any] | None:
    """The configuration with its secrets under the newest key, None where it has none. Raises CannotOpen."""
    if not isinstance(config, Mapping):
        return None
    new: dict[str, Any] = {}
    for field, value in config.items():
        if is_sealed(value):
            new[field] = SEALED + crypto.reseal(value.removeprefix(SEALED))
        elif (inner := resealed(value)) is not None:
            new[field] = inner
    return {**config, **new} if new else None


def secrets_of(name: str, config: Any) -> dict[str, str]:
    """The secrets in clear by field, references as they are: for who asked for them. Raises CannotOpen."""
    return {field: _opened(value) for field, value in _found(name, config).items()}


def compared(name: str, given: Any, stored: Any) -> Any:
    """A configuration that was given in the way that `shown` has the stored one: MASK where a secret is the same.

    ANOTHER where it is not. Raises CannotOpen.
    """
    before, visible = _found(name, stored), _found(name, shown(name, stored))
    new = {}
    for field, value in _found(name, given).items():
        if field not in before:
            new[field] = MASK
        elif value != visible[field]:
            alike = value in (MASK, _opened(before[field]))
            new[field] = visible[field] if alike else ANOTHER
    return with_fields(given, new) if new else given


def opened(name: str, config: Any, where: str) -> tuple[Any, dict[str, Secret | None] | None]:
    """For the compile step: the configuration with masks, and its secrets; (config, None) where it has none.

    A secret that cannot be had is None and an error in the log, which names `where`.
    """
    found = _found(name, config)
    if not found:
        return config, None
    secrets: dict[str, Secret | None] = {}
    for field, value in found.items():
        try:
            text = _opened(value)
            secrets[field] = Secret((references.resolve(text) if is_reference(text) else text).encode())
        except crypto.CannotOpen as error:
            logger.error("%s: `%s` cannot be opened: %s", where, field, error)
            secrets[field] = None
        except references.Unresolved as error:
            logger.error("%s: `%s` is a reference that cannot be used: %s", where, field, error)
            secrets[field] = None
    return with_fields(config, dict.fromkeys(found, MASK)), secrets


def _is(stored: str, text: str) -> bool:
    try:
        return _opened(stored) == text
    except crypto.CannotOpen:
        return False


def _opened(value: str) -> str:
    return crypto.open_sealed(value.removeprefix(SEALED)) if is_sealed(value) else value
