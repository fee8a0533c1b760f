"""PROTECT and @hmac_required: every entry can be compiled, matches what it seems to, and asks for enough.

Imports `site_settings`, which compiles entries; `middleware` asks here whether bodies are checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning
from django.urls import URLPattern, get_resolver

from ..core.errors import ConfigError
from ..plugins import PLUGINS
from ..site_settings import PROTECT_KEYS, Protected, compile_protect, place, policy
from . import policies
from .common import did_you_mean, told, value
from .credentials import nobody
from .policies import Placed
from .values import readable

_FORM: Final = "Write a regular expression, or {'path': r'^/api/', 'plugin': 'hmac-auth', 'config': {…}}."
_REGEX: Final = (
    r"Correct the regular expression. Before a character that stands for itself write a backslash: r'^/a\(b\)/'."
)
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
            found.append((number, entry, compile_protect([entry], number)[0]))
        except (ConfigError, TypeError) as error:
            found.append((number, entry, error))
    return found


def placed() -> list[Placed]:
    """The policies of the entries that can be used."""
    return [
        Placed(place(number, entry), step)
        for number, entry, outcome in compiled()
        if isinstance(outcome, Protected)
        for step in outcome.pipeline
    ]


def check_protect(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Entries that cannot be used, or that protect something else than they seem to."""
    for number, entry, outcome in compiled():
        where = place(number, entry)
        given = {"path": entry} if isinstance(entry, str) else entry
        if isinstance(outcome, Protected):
            yield from policies.misspelt(f"{where}: config", given)
            yield from _seeming(where, outcome.path.pattern)
        else:
            yield _unusable(where, given, outcome)


def _unusable(where: str, given: Any, error: Exception) -> CheckMessage:
    text = told(error) if isinstance(error, ConfigError) else f"{where} cannot be used."
    hint = _FORM
    if isinstance(given, Mapping):
        unknown = [field for field in given if field not in PROTECT_KEYS]
        plugin, dialect = given.get("plugin", "hmac-auth"), given.get("dialect", "apisix")
        if unknown:
            text = f"{where} has an unknown key: {unknown[0]!r}."
            hint = did_you_mean(unknown[0], PROTECT_KEYS, f"Known keys: {', '.join(PROTECT_KEYS)}.")
        elif not isinstance(given.get("path"), str):
            pass
        elif not _is_regex(given["path"]):
            hint = _REGEX
        elif not isinstance(plugin, str) or plugin not in PLUGINS:
            text = f"{where}: plugin is {plugin!r}."
            hint = did_you_mean(plugin, PLUGINS, f"Allowed: {', '.join(PLUGINS)}.")
        elif not isinstance(dialect, str) or dialect not in PLUGINS[plugin].config_schema:
            text = f"{where}: dialect is {dialect!r}."
            dialects = list(PLUGINS[plugin].config_schema)
            hint = did_you_mean(dialect, dialects, f"Allowed: {', '.join(dialects)}. Without it apisix is meant.")
        elif not isinstance(given.get("config", {}), Mapping):
            hint = "Write 'config': {…}, or leave it out for the defaults."
        else:
            hint = f"Correct this field of 'config'; docs/{plugin}.md lists the fields, with what each may hold."
    elif isinstance(given, str):
        hint = _REGEX
    return Error(text, hint=hint, id="hmac_gateway.E008")


def _is_regex(pattern: str) -> bool:
    try:
        re.compile(pattern, re.DOTALL)
    except re.error:
        return False
    return True


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


def decorated() -> list[tuple[str, Mapping[str, Any]]]:
    """The views under @hmac_required that the URLconf leads to, each with its policy."""
    found = {}
    try:
        for view in _callbacks(get_resolver().url_patterns):
            given = getattr(view, "hmac_policy", None)
            if isinstance(given, Mapping):
                named = getattr(view, "view_class", view)
                found[id(given)] = f"{named.__module__}.{named.__qualname__}", given
    except Exception:
        return []  # a URLconf that cannot be imported is for Django to tell
    return [*found.values()]


def _callbacks(patterns: Iterable[Any]) -> Iterator[Any]:
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            yield pattern.callback
        else:
            yield from _callbacks(pattern.url_patterns)


def check_policies(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """What the entries, and decorated views, ask for is weaker than it could be."""
    views = decorated() if readable("PROTECT", "MAX_BODY") else []
    if views and not value("PROTECT"):
        yield from nobody("@hmac_required")
    for where, given in views:
        yield from policies.misspelt(f"{where}: config", given)
    found = [*placed(), *(Placed(where, policy(given)) for where, given in views)]
    yield from policies.weak(found)
    yield from policies.targets(found)
    yield from policies.forgotten(found)
    yield from policies.unheld(found)


def check_policies_deployed(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """The same for what only matters outside of one's own machine. With `check --deploy`."""
    found = placed()
    yield from policies.bodies(found)
    yield from policies.skews(found)
