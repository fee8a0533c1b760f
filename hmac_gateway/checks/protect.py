"""PROTECT: every entry can be compiled, matches what it seems to, and asks for enough.

Imports `site_settings`, which compiles entries; `middleware` asks here whether bodies are checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning

from ..core.errors import ConfigError
from ..plugins import PLUGINS
from ..site_settings import PROTECT_KEYS, Protected, compile_protect
from . import policies
from .common import did_you_mean, told, value
from .policies import Placed
from .values import readable

_FORM: Final = "Write a regular expression, or {'path': r'^/api/', 'plugin': 'hmac-auth', 'config': {…}}."
#: An anchored pattern whose first letter is none that a path begins with, and which has no other branch.
_NO_SLASH: Final = re.compile(r"(?:\(\?[a-z]+\))?(?:\^|\\A)[\w%~-](?![?*{])[^|]*\Z")
#: What is written for "everything below" by who thinks of file names: slashes, any number of them, and then the end.
_SLASHES: Final = re.compile(r".*/\*(?:\$|\\Z)\Z")


def compiled() -> list[tuple[int, Any, Protected | Exception]]:
    """Every entry with its number and what came of it."""
    found: list[tuple[int, Any, Protected | Exception]] = []
    if not readable("PROTECT", "MAX_BODY"):
        return found
    for number, entry in enumerate(value("PROTECT"), 1):
        try:
            found.append((number, entry, compile_protect([entry])[0]))
        except (ConfigError, TypeError) as error:
            found.append((number, entry, error))
    return found


def placed() -> list[Placed]:
    """The policies of the entries that can be used."""
    return [
        Placed(f"PROTECT[{number}]", step)
        for number, _, outcome in compiled()
        if isinstance(outcome, Protected)
        for step in outcome.pipeline
    ]


def check_protect(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Entries that cannot be used, or that protect something else than they seem to."""
    for number, entry, outcome in compiled():
        where = f"PROTECT[{number}]"
        given = {"path": entry} if isinstance(entry, str) else entry
        if isinstance(outcome, Protected):
            yield from policies.misspelt(f"{where}.config", given)
            yield from _seeming(where, outcome.path.pattern)
        else:
            yield _unusable(where, given, outcome)


def _unusable(where: str, given: Any, error: Exception) -> CheckMessage:
    text, hint = f"{where} cannot be used.", _FORM
    if isinstance(given, Mapping):
        unknown = [field for field in given if field not in PROTECT_KEYS]
        plugin = given.get("plugin", "hmac-auth")
        if unknown:
            text = f"{where} has an unknown key: {unknown[0]!r}."
            hint = did_you_mean(unknown[0], PROTECT_KEYS, f"Known keys: {', '.join(PROTECT_KEYS)}.")
        elif not isinstance(plugin, str) or plugin not in PLUGINS:
            text = f"{where}.plugin is {plugin!r}."
            hint = did_you_mean(plugin, PLUGINS, f"Allowed: {', '.join(PLUGINS)}.")
        elif isinstance(error, ConfigError):
            text = _numbered(error, where)
    elif isinstance(error, ConfigError):
        text = _numbered(error, where)
    return Error(text, hint=hint, id="hmac_gateway.E008")


def _numbered(error: ConfigError, where: str) -> str:
    # Entries are compiled one by one, so that all problems are told at once.
    field = error.field.replace("PROTECT[1]", where, 1)
    return told(ConfigError(field, error.given, error.allowed))


def _seeming(where: str, pattern: str) -> Iterator[CheckMessage]:
    if _NO_SLASH.match(pattern):
        yield Warning(
            f"{where} never matches: {pattern!r} has no slash where a path begins.",
            hint="Paths are matched with their first slash: ^/api/.",
            id="hmac_gateway.W011",
        )
    elif _SLASHES.match(pattern):
        yield Warning(
            f"{where} does not match what is below it: in {pattern!r} the asterisk repeats the slash.",
            hint="For everything below write ^/api/, without an end.",
            id="hmac_gateway.W011",
        )


def check_policies(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """What the entries ask for is weaker than it could be."""
    found = placed()
    yield from policies.weak(found)
    yield from policies.targets(found)
    yield from policies.forgotten(found)


def check_policies_deployed(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """The same for what only matters outside of one's own machine. With `check --deploy`."""
    found = placed()
    yield from policies.bodies(found)
    yield from policies.skews(found)
