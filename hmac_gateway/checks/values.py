"""HMAC_GATEWAY holds known keys with values of the right type. Imports `common` and what knows the names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from ..adapters.auth_request import NAMED, STYLES
from ..conf import DEFAULTS
from ..core.errors import ConfigError
from ..entities import DIALECTS
from ..plugins import ALL
from ..trust import trust
from .common import did_you_mean, given, value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _list_of_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


#: What each key may hold. None stands for the default everywhere; what is inside PROTECT, CREDENTIALS and
#: TRUSTED_PROXIES has checks of its own.
TYPES: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "DIALECT": (_of(str), "a text"),
    "TRUSTED_PROXIES": (lambda value: True, ""),
    "REPLAY_STORE": (_of(str), "a text"),
    "REPLAY_MEMORY_ENTRIES": (_count, "a whole number of at least 1"),
    "COUNTER_STORE": (_of(str), "None, or a text"),
    "PLUGINS_AVAILABLE": (_list_of_texts, f"None, or a list of {', '.join(ALL)}"),
    "PROTECT": (_of(list, tuple), "a list of regular expressions or dicts"),
    "CREDENTIALS": (_of(Mapping), "a dict: {key id: {secret_key, username}}"),
    "ORIGINAL_HEADERS": (_of(str, Mapping), f"one of {', '.join(STYLES)}, or a dict of {', '.join(NAMED)}"),
    "TELEMETRY": (_of(bool), "None, True or False"),
    "REQUIRE_SAME_CONSUMER": (_of(bool), "True or False"),
    "MAX_BODY": (_count, "a whole number of at least 1"),
    "SPOOL_MEMORY": (_count, "a whole number of at least 1"),
    "ENCRYPTION_KEYS": (_list_of_texts, "a list of texts"),
    "ADMIN_KEY": (_of(str), "None, or a text"),
    "ENV_PREFIX": (lambda value: isinstance(value, str) and bool(value), "a text that is not empty"),
    "REFRESH_SECONDS": (lambda value: _number(value) and 0 < value < float("inf"), "a number above 0"),
    "ACCESS_LOG": (_of(bool), "True or False"),
    "WORKERS": (_count, "a whole number of at least 1"),
}


def readable(*keys: str) -> bool:
    """Whether these keys have values that `conf` can convert; else `check_values` says what is wrong."""
    if not isinstance(getattr(settings, "HMAC_GATEWAY", {}), Mapping):
        return False
    return all(TYPES[key][0](value(key)) for key in keys if value(key) is not None)


def check_keys(app_configs: object, **kwargs: Any) -> Iterable[CheckMessage]:
    """HMAC_GATEWAY is a dict and holds nothing but known keys."""
    found = getattr(settings, "HMAC_GATEWAY", {})
    if not isinstance(found, Mapping):
        text = f"HMAC_GATEWAY is {type(found).__name__}; allowed: a dict."
        return [Error(text, hint="Write HMAC_GATEWAY = {…}.", id="hmac_gateway.E001")]
    return [
        Error(
            f"HMAC_GATEWAY has an unknown key: {key!r}.",
            hint=did_you_mean(str(key).upper(), DEFAULTS, f"Known keys: {', '.join(sorted(DEFAULTS))}."),
            id="hmac_gateway.E002",
        )
        for key in found
        if key not in DEFAULTS
    ]


def _originals(given: str | Mapping[str, Any]) -> Iterator[CheckMessage]:
    if isinstance(given, str):
        if given not in STYLES:
            yield _unknown("ORIGINAL_HEADERS", given, STYLES)
        return
    found: dict[str, str] = {}
    for name, header in given.items():
        if name not in NAMED:
            yield _unknown("ORIGINAL_HEADERS", name, NAMED)
        elif not isinstance(header, str):
            yield _wrong(f"ORIGINAL_HEADERS'][{name!r}", header, "the name of a header, or an empty text")
        elif header and found.setdefault(header.lower(), name) != name:
            yield _wrong(f"ORIGINAL_HEADERS'][{name!r}", header, f"another header than that of {found[header.lower()]}")


def check_values(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Values that requests would otherwise stumble over."""
    for key, found in given().items():
        if key in TYPES and found is not None and not TYPES[key][0](found):
            yield _wrong(key, found, TYPES[key][1])
    if readable("PLUGINS_AVAILABLE"):
        for name in value("PLUGINS_AVAILABLE") or ():
            if name not in ALL:
                yield _unknown("PLUGINS_AVAILABLE", name, ALL)
    if readable("ORIGINAL_HEADERS"):
        yield from _originals(value("ORIGINAL_HEADERS"))
    dialects = [name for name, _ in DIALECTS]
    if readable("DIALECT") and value("DIALECT") not in dialects:
        yield Error(
            f"HMAC_GATEWAY['DIALECT'] is {value('DIALECT')!r}.",
            hint=did_you_mean(value("DIALECT").lower(), dialects, f"Allowed: {', '.join(dialects)}."),
            id="hmac_gateway.E003",
        )
    yield from _proxies(value("TRUSTED_PROXIES"))
    if not settings.USE_TZ:
        yield Warning(
            "USE_TZ is False: expiry times become ambiguous when the clock is set back an hour.",
            hint="Set USE_TZ = True.",
            id="hmac_gateway.W005",
        )


def _wrong(key: str, found: Any, allowed: str) -> CheckMessage:
    # Texts are not shown: they may be secrets.
    shown = repr(found) if _number(found) else type(found).__name__
    converted = " What comes from the environment is a text until it is converted." if isinstance(found, str) else ""
    return Error(f"HMAC_GATEWAY['{key}'] is {shown}.", hint=f"Allowed: {allowed}.{converted}", id="hmac_gateway.E007")


def _unknown(key: str, name: Any, known: Iterable[str]) -> CheckMessage:
    return Error(
        f"HMAC_GATEWAY['{key}'] has an unknown name: {name!r}.",
        hint=did_you_mean(name, known, f"Allowed: {', '.join(known)}."),
        id="hmac_gateway.E007",
    )


def _proxies(proxies: Any) -> Iterator[CheckMessage]:
    if isinstance(proxies, str):
        yield Error(
            "HMAC_GATEWAY['TRUSTED_PROXIES'] is a text.",
            hint=f"Write a list: [{proxies!r}].",
            id="hmac_gateway.E004",
        )
        return
    try:
        trust(proxies)
    except (ConfigError, TypeError) as error:
        yield Error(
            f"HMAC_GATEWAY['TRUSTED_PROXIES'] cannot be used: {error}",
            hint="List IP addresses and networks of the proxies in front, as in ['10.0.0.0/8'].",
            id="hmac_gateway.E004",
        )
