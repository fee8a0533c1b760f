"""The `HMAC_GATEWAY` settings dict, one typed property per key, read at use time.

Called by adapters, runtime, checks and the console; never by `core` or `schemes`. Reading at use time is what
makes Django's `override_settings` work without a reload hook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

#: Every key that `HMAC_GATEWAY` may have, with its default. `checks.values` refuses any other.
DEFAULTS: dict[str, Any] = {
    "DIALECT": "apisix",
    "TRUSTED_PROXIES": [],
    "REPLAY_STORE": "memory",
    "REPLAY_MEMORY_ENTRIES": 100_000,
    "COUNTER_STORE": None,
    "PLUGINS_AVAILABLE": None,
    "PROTECT": [],
    "CREDENTIALS": {},
    "ORIGINAL_HEADERS": "nginx",
    "TELEMETRY": None,
    "REQUIRE_SAME_CONSUMER": True,
    "MAX_BODY": 64 * 1024 * 1024,
    "SPOOL_MEMORY": 1024 * 1024,
    "ENCRYPTION_KEYS": [],
    "ADMIN_KEY": None,
    "ENV_PREFIX": "GATEWAY_SECRET_",
    "REFRESH_SECONDS": 0.25,
    "ACCESS_LOG": True,
    "WORKERS": 1,
}


#: Where Django's LazySettings keeps what was asked for before; it empties it when settings are overridden. An attribute
#: of it costs twenty times as much, and requests ask several times.
ASKED: Final[dict[str, Any]] = object.__getattribute__(settings, "__dict__")


def setting(name: str, default: Any = None) -> Any:
    """A setting of the site, `default` where it has none."""
    value = ASKED.get(name, ASKED)
    return getattr(settings, name, default) if value is ASKED else value


def refuse_unknown_keys() -> None:
    """Raise ImproperlyConfigured where HMAC_GATEWAY has a key that nobody reads.

    Servers run no system checks, and a misspelt PROTECT would protect nothing.
    """
    for key in setting("HMAC_GATEWAY", {}):
        if key not in DEFAULTS:
            raise ImproperlyConfigured(f"HMAC_GATEWAY has an unknown key: {key!r}; manage.py check names the nearest.")


class Conf:
    """`conf.dialect`, `conf.replay_store`, …: the setting if given, else its default."""

    def _get(self, key: str) -> Any:
        given: Mapping[str, Any] = setting("HMAC_GATEWAY", {})
        value = given.get(key)
        return DEFAULTS[key] if value is None else value

    @property
    def dialect(self) -> str:
        """Whose words answer before any route matched: `apisix` or `kong`."""
        return str(self._get("DIALECT"))

    @property
    def trusted_proxies(self) -> list[str]:
        """Addresses and networks whose X-Forwarded-*, X-Real-IP and X-Request-Id are believed."""
        return list(self._get("TRUSTED_PROXIES"))

    @property
    def replay_store(self) -> str:
        """`memory`, `database` or a `redis://` address."""
        return str(self._get("REPLAY_STORE"))

    @property
    def replay_memory_entries(self) -> int:
        """How many signatures the memory store holds before it refuses (a full store never forgets)."""
        return int(self._get("REPLAY_MEMORY_ENTRIES"))

    @property
    def counter_store(self) -> str:
        """The `redis://` address where `policy: redis` counts: the setting, else the replay store's; "" for none."""
        name = str(self._get("COUNTER_STORE") or self.replay_store)
        return name if name not in ("memory", "database") else ""

    @property
    def plugins_available(self) -> list[str] | None:
        """Names of the plugins that may be enabled; None means all."""
        return self._get("PLUGINS_AVAILABLE")  # type: ignore[no-any-return]

    @property
    def protect(self) -> list[Any]:
        """Addresses of this site that need a credential: regexes, or {path, plugin, config, dialect}."""
        return self._get("PROTECT")  # type: ignore[no-any-return]

    @property
    def credentials(self) -> dict[str, Any]:
        """Settings-only mode: {key id: {secret_key, username, …}}; then no table is read for this site's requests."""
        return self._get("CREDENTIALS")  # type: ignore[no-any-return]

    @property
    def original_headers(self) -> str | dict[str, str]:
        """How a proxy tells the auth endpoint of the original request: its name, or headers for method, uri, …"""
        return self._get("ORIGINAL_HEADERS")  # type: ignore[no-any-return]

    @property
    def telemetry(self) -> bool | None:
        """Whether this site's processes write counters, refusals and last uses; None: yes, except in test runs."""
        return self._get("TELEMETRY")  # type: ignore[no-any-return]

    @property
    def require_same_consumer(self) -> bool:
        """Whether several authentication plugins on one object must all name the same consumer."""
        return bool(self._get("REQUIRE_SAME_CONSUMER"))

    @property
    def max_body(self) -> int:
        """Largest body, in bytes, that is read to be checked, unless a plugin says otherwise."""
        return int(self._get("MAX_BODY"))

    @property
    def spool_memory(self) -> int:
        """How many bytes of a body that must be checked stay in memory before a temporary file is used."""
        return int(self._get("SPOOL_MEMORY"))

    @property
    def encryption_keys(self) -> list[str]:
        """Fernet keys, newest first."""
        return list(self._get("ENCRYPTION_KEYS"))

    @property
    def admin_key(self) -> str | None:
        """The X-API-KEY of the admin APIs with the admin role; None: only keys in the database count."""
        return self._get("ADMIN_KEY")  # type: ignore[no-any-return]

    @property
    def env_prefix(self) -> str:
        """How the names of variables begin that a stored secret may refer to by `$env://NAME`."""
        return str(self._get("ENV_PREFIX"))

    @property
    def refresh_seconds(self) -> float:
        """How often a worker looks whether the configuration changed, in seconds."""
        return float(self._get("REFRESH_SECONDS"))

    @property
    def access_log(self) -> bool:
        """Whether the gateway writes one JSON line per request."""
        return bool(self._get("ACCESS_LOG"))

    @property
    def workers(self) -> int:
        """How many processes serve this configuration; the memory replay store is only right for one."""
        return int(self._get("WORKERS"))


conf = Conf()
