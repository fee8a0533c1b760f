"""System checks: every wrong or risky setting is named with its id, and a hint says what to do.

Registered by `HmacGatewayConfig.ready()`. Those that look into the database run with `check --database` and before
`migrate`, as Django has it. Imports `conf`, `crypto`, `trust`, `stores` and, by label, models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from . import crypto, plugins
from .conf import DEFAULTS, conf
from .core.errors import ConfigError
from .entities import DIALECTS
from .stores import REDIS_SCHEMES, processes
from .trust import trust

#: Shorter admin keys may be guessed. 24 characters of base64 are 144 bits.
MIN_ADMIN_KEY: Final = 24
#: Keys that are printed in manuals (APISIX's admin and viewer).
KNOWN_ADMIN_KEYS: Final = frozenset({"edd1c9f034335f136f87ad84b625c8f1", "4054f7cf07e344346cd3f287985e76a2"})
#: Still verified where a configuration allows them; nothing new should use them.
WEAK_ALGORITHMS: Final = frozenset({"hmac-sha1", "hmac-md5"})

_MAKE_KEY: Final = (
    "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())' "
    "and keep it: without it stored secrets cannot be read."
)
_SHARED_STORES: Final = "redis://HOST:PORT/DB, or database"


def register_checks() -> None:
    """Connect every check of this module to Django's check framework."""
    register(check_keys_of_settings)
    register(check_values)
    register(check_encryption_keys, Tags.security)
    register(check_replay_store, Tags.security)
    register(check_admin_key, Tags.security, deploy=True)
    register(check_stored_plugins, Tags.database)


def _given() -> Mapping[str, Any]:
    given = getattr(settings, "HMAC_GATEWAY", {})
    return given if isinstance(given, Mapping) else {}


def check_keys_of_settings(app_configs: object, **kwargs: Any) -> Iterable[CheckMessage]:
    """HMAC_GATEWAY is a dict and holds nothing but known keys."""
    given = getattr(settings, "HMAC_GATEWAY", {})
    if not isinstance(given, Mapping):
        text = f"HMAC_GATEWAY is {type(given).__name__}; allowed: a dict."
        return [Error(text, hint="Write HMAC_GATEWAY = {…}.", id="hmac_gateway.E001")]
    problems = []
    for key in given:
        if key in DEFAULTS:
            continue
        close = get_close_matches(str(key).upper(), DEFAULTS, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(sorted(DEFAULTS))}."
        problems.append(Error(f"HMAC_GATEWAY has an unknown key: {key!r}.", hint=hint, id="hmac_gateway.E002"))
    return problems


def check_values(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Values that requests would otherwise stumble over."""
    names = [name for name, _ in DIALECTS]
    if conf.dialect not in names:
        close = get_close_matches(conf.dialect.lower(), names, n=1)
        yield Error(
            f"HMAC_GATEWAY['DIALECT'] is {conf.dialect!r}.",
            hint=f"Did you mean {close[0]!r}?" if close else f"Allowed: {', '.join(names)}.",
            id="hmac_gateway.E003",
        )
    proxies = _given().get("TRUSTED_PROXIES") or []
    if isinstance(proxies, str):
        yield Error(
            "HMAC_GATEWAY['TRUSTED_PROXIES'] is a text.",
            hint=f"Write a list: [{proxies!r}].",
            id="hmac_gateway.E004",
        )
    else:
        try:
            trust(proxies)
        except (ConfigError, TypeError) as error:
            yield Error(
                f"HMAC_GATEWAY['TRUSTED_PROXIES'] cannot be used: {error}",
                hint="List IP addresses and networks of the proxies in front, as in ['10.0.0.0/8'].",
                id="hmac_gateway.E004",
            )
    if not settings.USE_TZ:
        yield Warning(
            "USE_TZ is False: expiry times become ambiguous when the clock is set back an hour.",
            hint="Set USE_TZ = True.",
            id="hmac_gateway.W005",
        )


def check_encryption_keys(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Keys are there and are Fernet keys; never shown."""
    if not conf.encryption_keys:
        yield Warning(
            "HMAC_GATEWAY['ENCRYPTION_KEYS'] is empty: secrets cannot be stored, and none that are can be read.",
            hint=_MAKE_KEY,
            id="hmac_gateway.W002",
        )
        return
    try:
        crypto.seal("")
    except ImproperlyConfigured as error:
        # The first sentence names the key by its number.
        yield Error(str(error).partition(". ")[0] + ".", hint=_MAKE_KEY, id="hmac_gateway.E005")


def check_replay_store(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """The replay store exists and is shared by all who must share it."""
    name = conf.replay_store
    if name == "memory":
        if processes() > 1:
            yield Warning(
                f"HMAC_GATEWAY['REPLAY_STORE'] is memory, which {processes()} processes do not share: requests that "
                "need replay protection are answered with 503.",
                hint=f"Set REPLAY_STORE to {_SHARED_STORES}, or serve with one process.",
                id="hmac_gateway.W001",
            )
    elif name.startswith(REDIS_SCHEMES):
        if find_spec("redis") is None:
            yield Error(
                "HMAC_GATEWAY['REPLAY_STORE'] names Redis, but the package redis is not installed.",
                hint="pip install 'django-hmac-gateway[redis]'",
                id="hmac_gateway.E006",
            )
    elif name != "database":
        # Only what stands before ://, since an address may hold a password.
        yield Error(
            f"HMAC_GATEWAY['REPLAY_STORE'] is {name.partition('://')[0]!r}.",
            hint=f"Allowed: memory, {_SHARED_STORES}.",
            id="hmac_gateway.E006",
        )


def check_admin_key(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """The admin APIs' key is not one that can be guessed. With `check --deploy`."""
    key = conf.admin_key
    if key and (len(key) < MIN_ADMIN_KEY or key in KNOWN_ADMIN_KEYS or len(set(key)) < 8):
        yield Warning(
            "HMAC_GATEWAY['ADMIN_KEY'] can be guessed: it is short, repetitive, or printed in a manual.",
            hint="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
            id="hmac_gateway.W003",
        )


def check_stored_plugins(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[CheckMessage]:
    """What stored configuration allows, and whether the settings can keep what it promises."""
    model = apps.get_model("hmac_proxy", "Plugin")
    for alias in databases or ():
        if model._meta.db_table not in connections[alias].introspection.table_names():
            continue  # before the first migrate
        rows = model._default_manager.using(alias).filter(enabled=True, name__in=plugins.PLUGINS)
        places = Counter(row.place for row in rows if not _switched_off(row.config))
        several = [place.replace(":", " ") for place, count in places.items() if count > 1]
        if several:
            yield Warning(
                f"Several authentication plugins stand at: {_shortened(several)}. All must hold, for one consumer.",
                hint="Keep one of them, unless callers are meant to send several credentials at a time.",
                id="hmac_gateway.W007",
            )
        weak, protected = [], []
        for row in model._default_manager.using(alias).filter(enabled=True, name="hmac-auth"):
            try:
                policy = plugins.get(row.name).compile(row.config, row.dialect).policy
            except ConfigError:
                continue  # the runtime tells, with the row's name
            where = row.place.replace(":", " ")
            if policy.algorithms & WEAK_ALGORITHMS:
                weak.append(where)
            if policy.replay_methods:
                protected.append(where)
        if weak:
            yield Warning(
                f"SHA-1 or MD5 signatures are accepted by hmac-auth at: {_shortened(weak)}.",
                hint='Set "allowed_algorithms": ["hmac-sha256", "hmac-sha512"]; APISIX allows SHA-1 where none is set.',
                id="hmac_gateway.W004",
            )
        if protected and conf.replay_store == "memory":
            yield Warning(
                "HMAC_GATEWAY['REPLAY_STORE'] is memory, which forgets used signatures at a restart; replay protection "
                f"is asked for at: {_shortened(protected)}.",
                hint=f"Set REPLAY_STORE to {_SHARED_STORES}.",
                id="hmac_gateway.W006",
            )


def _switched_off(config: Any) -> bool:
    # A row that no validation saw may hold anything.
    meta = config.get("_meta") if isinstance(config, dict) else None
    return bool(meta.get("disable")) if isinstance(meta, dict) else False


def _shortened(places: list[str]) -> str:
    places = sorted(places)
    return ", ".join(places[:5]) + (f" and {len(places) - 5} more" if len(places) > 5 else "")
