"""What the checks share: whether settings can be read, suggestions, lists of places. Imports `conf` and Django."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from django.apps import apps
from django.conf import settings

from ..conf import DEFAULTS
from ..core.errors import ConfigError

#: Replay stores that several processes may use, as hints name them.
SHARED_STORES = "redis://HOST:PORT/DB, or database"


def given() -> Mapping[str, Any]:
    """HMAC_GATEWAY, empty where it is no dict."""
    found = getattr(settings, "HMAC_GATEWAY", {})
    return found if isinstance(found, Mapping) else {}


def value(key: str) -> Any:
    """A key as it stands there, or its default: unlike `conf`, never converted."""
    found = given().get(key)
    return DEFAULTS[key] if found is None else found


def tables_installed() -> bool:
    """Whether the two apps are there; a site in settings-only mode may leave them out."""
    return {"hmac_consumers", "hmac_proxy"} <= {config.label for config in apps.get_app_configs()}


def settings_only() -> bool:
    """Whether this site's requests are checked without a table."""
    return bool(value("CREDENTIALS")) or not tables_installed()


def did_you_mean(name: Any, known: Iterable[str], otherwise: str) -> str:
    """A hint that names the nearest of the known names, else `otherwise`."""
    close = get_close_matches(str(name), list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else otherwise


def told(error: ConfigError) -> str:
    """A ConfigError as a sentence. A dict is not shown: whoever mistakes its key may have put a secret there."""
    if isinstance(error.given, str | int | float):
        return f"{error}."
    return f"{error.field}: {type(error.given).__name__} was given; allowed: {error.allowed}."


def shortened(places: Iterable[str]) -> str:
    """The first five of a list of places."""
    found = sorted(set(places))
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
