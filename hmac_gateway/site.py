"""What a Django site's own requests must pass: PROTECT, CREDENTIALS, and the *this site* routes of the admin.

Used by the Django adapters (middleware, DRF class, decorator, embedded lane); one runtime and one replay store per
process, made on first use. Imports `conf`, `runtime`, `stores` and the gate. Settings are compiled when first used, and
again when another object stands in their place, so `override_settings` works.
"""

from __future__ import annotations

import logging
import posixpath
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from django.apps import apps
from django.conf import settings
from django.core import mail

from .conf import conf
from .core.credential import Consumer, Credential, Secret, is_reference
from .core.errors import ConfigError, Rejected
from .core.message import Message, host_of
from .core.paths import ambiguity, decoded, stable
from .core.reasons import Reason
from .gate import Pipeline, Step, compile_step, pipeline
from .runtime import Runtime
from .snapshot import Snapshot, lookups
from .stores import ReplayStore, replay_store
from .telemetry import Background, Finished, Telemetry

T = TypeVar("T")

#: What an entry of PROTECT and one of CREDENTIALS may hold.
PROTECT_KEYS: Final = ("path", "plugin", "config", "dialect")
CREDENTIAL_KEYS: Final = ("secret_key", "previous_secret_key", "username", "custom_id", "groups", "labels")


class Door(NamedTuple):
    """What a request must pass, where its credentials are looked up, and which route asks for it ("" for PROTECT)."""

    pipeline: Pipeline
    directory: Snapshot
    route_id: str = ""


class _Kept(Generic[T]):
    """What a function made of an object, for as long as the same object is asked about."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._last: tuple[Any, T] | None = None

    def of(self, source: Any) -> T:
        last = self._last
        if last is None or last[0] is not source:
            # Two threads may both make it: the same, twice.
            last = self._last = (source, self._make(source))
        return last[1]


def _settings() -> Any:
    return getattr(settings, "HMAC_GATEWAY", None)


# --- one of each per process ---

_lock: Final = threading.Lock()
_runtime: Runtime | None = None


def runtime() -> Runtime:
    """This process's runtime. Made on first use: in a worker, not in the server that forks it."""
    global _runtime
    if _runtime is None:
        with _lock:
            if _runtime is None:
                _runtime = Runtime()
    return _runtime


_store: Final = _Kept[ReplayStore](lambda given: replay_store())


def store() -> ReplayStore:
    """This process's replay store, as REPLAY_STORE names it."""
    return _store.of(_settings())


# --- the directory ---


def _settings_snapshot(given: Any) -> Snapshot | None:
    entries = conf.credentials
    if entries:
        return credentials_snapshot(entries)
    # Without the two apps there are no tables: whoever has neither them nor CREDENTIALS lets nobody in.
    labels = {config.label for config in apps.get_app_configs()}
    return None if {"hmac_consumers", "hmac_proxy"} <= labels else Snapshot(0)


_from_settings: Final = _Kept(_settings_snapshot)


def settings_only() -> Snapshot | None:
    """The directory of settings-only mode; None where the database is read."""
    return _from_settings.of(_settings())


def snapshot() -> Snapshot | None:
    """The current directory, after a look at the version row if one is due. None: nothing could be loaded yet."""
    return settings_only() or runtime().current()


def credentials_snapshot(entries: Any) -> Snapshot:
    """A directory made of CREDENTIALS; raises ConfigError naming the key id and the field, never with a secret."""
    if not isinstance(entries, Mapping):
        raise ConfigError("CREDENTIALS", type(entries).__name__, "a dict: {key id: {secret_key, username}}")
    table: dict[str, Credential] = {}
    consumers: dict[str, Consumer] = {}
    for key_id, entry in entries.items():
        where = f"CREDENTIALS[{key_id!r}]"
        if not isinstance(key_id, str) or not key_id:
            raise ConfigError("CREDENTIALS", key_id, "key ids that are texts")
        if not isinstance(entry, Mapping):
            raise ConfigError(where, type(entry).__name__, "a dict with secret_key and username")
        for field in entry:
            if field not in CREDENTIAL_KEYS:
                raise ConfigError(f"{where}.{field}", "(not shown)", f"one of {', '.join(CREDENTIAL_KEYS)}")
        secrets = []
        for field in ("secret_key", "previous_secret_key"):
            text = entry.get(field)
            if text is None and field != "secret_key":
                continue
            if not isinstance(text, str) or not text or is_reference(text):
                raise ConfigError(f"{where}.{field}", "(not shown)", "a text that is not empty and no reference")
            secrets.append(Secret(text.encode()))
        username = entry.get("username", key_id)
        if not isinstance(username, str) or not username:
            raise ConfigError(f"{where}.username", username, "a text")
        labels, groups = entry.get("labels", {}), entry.get("groups", ())
        if not isinstance(labels, Mapping):
            raise ConfigError(f"{where}.labels", labels, "a dict of texts")
        if isinstance(groups, str):
            raise ConfigError(f"{where}.groups", groups, "a list of texts")
        consumer = Consumer(
            id=username,
            username=username,
            custom_id=entry.get("custom_id", ""),
            groups=tuple(groups),
            labels=dict(labels),
        )
        if consumers.setdefault(username, consumer) != consumer:
            raise ConfigError(f"{where}.username", username, "one consumer: entries of a username must agree otherwise")
        live = tuple(secrets)
        table[key_id if key_id.isascii() else key_id.encode().decode("latin-1")] = Credential(
            id=f"settings:{key_id}",
            consumer=consumers[username],
            plugin="hmac-auth",
            identifier=key_id,
            public_id=key_id,
            open_secrets=lambda now, live=live: live,  # type: ignore[misc]
            labels=dict(labels),
        )
    return Snapshot(
        0,
        lookups=lookups({"hmac-auth": table}),
        consumers=consumers,
        require_same_consumer=conf.require_same_consumer,
    )


# --- what the console and the log are told ---

logger = logging.getLogger("hmac_gateway.verify")


def _make_telemetry(given: Any) -> Background | None:
    wanted = conf.telemetry
    if wanted is None:
        # Django's test runner and pytest-django set it up: a thread that writes would meet a test's transactions.
        wanted = not hasattr(mail, "outbox")
    if not wanted or settings_only() is not None:
        return None
    return Background(Telemetry(runtime(), "site"))


_telemetry: Final = _Kept[Background | None](_make_telemetry)


def observe(seen: Finished, rejected: Rejected | None) -> None:
    """Count a protected request; of a refused one, log the reason and keep the head for the debugger.

    Neither log line nor row holds a secret or a computed signature. No query here: a thread writes.
    """
    if rejected is not None:
        logger.warning(
            "%s %r refused with %s: %s%s, request %s",
            seen.message.method,
            seen.path,
            seen.status,
            rejected.reason,
            f" ({rejected.detail})" if rejected.detail else "",
            seen.request_id,
            extra={"reason": str(rejected.reason), "plugin": rejected.plugin, "request_id": seen.request_id},
        )
    background = _telemetry.of(_settings())
    if background is not None:
        background.telemetry.finished(seen)
        if rejected is not None and seen.status < 500:
            background.telemetry.rejected(seen, rejected)
        background.wake()


# --- PROTECT ---


class Protected(NamedTuple):
    """One entry of PROTECT."""

    path: re.Pattern[str]
    step: Step


def compile_protect(entries: Any) -> tuple[Protected, ...]:
    """PROTECT as requests use it; raises ConfigError naming the entry by its number and the field."""
    if isinstance(entries, str | Mapping):
        raise ConfigError("PROTECT", entries, "a list of regexes or dicts")
    compiled = []
    for number, entry in enumerate(entries, 1):
        where = f"PROTECT[{number}]"
        given = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(given, Mapping) or not isinstance(given.get("path"), str):
            raise ConfigError(where, entry, "a regex, or a dict with path, plugin and config")
        for field in given:
            if field not in PROTECT_KEYS:
                raise ConfigError(f"{where}.{field}", given[field], f"one of {', '.join(PROTECT_KEYS)}")
        try:
            path = re.compile(given["path"])
        except re.error as error:
            raise ConfigError(f"{where}.path", given["path"], f"a regular expression; {error}") from None
        compiled.append(Protected(path, policy(given, where)))
    return tuple(compiled)


def policy(given: Mapping[str, Any], where: str = "") -> Step:
    """The step of `{plugin, config, dialect}`: hmac-auth in APISIX's dialect where nothing else is said.

    Raises ConfigError; `where` is put before the field's name.
    """
    try:
        return compile_step(
            given.get("plugin", "hmac-auth"),
            given.get("config", {}),
            given.get("dialect", "apisix"),
            max_body=conf.max_body,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}.{error.field}" if where else error.field, error.given, error.allowed) from None


class Policy:
    """What one view asks for: `{plugin, config, dialect}`, checked at once, compiled when settings can be read."""

    __slots__ = ("_kept", "given")

    def __init__(self, given: Mapping[str, Any]) -> None:
        for field in given:
            if field not in PROTECT_KEYS[1:]:
                raise ConfigError(field, given[field], f"one of {', '.join(PROTECT_KEYS[1:])}")
        # MAX_BODY only fills in what the configuration leaves out: any number shows whether the rest is right.
        compile_step(given.get("plugin", "hmac-auth"), given.get("config", {}), given.get("dialect", "apisix"))
        self.given = given
        self._kept = _Kept[Step](lambda settings: policy(given))

    def step(self) -> Step:
        """The compiled step."""
        return self._kept.of(_settings())


_protect: Final = _Kept(lambda given: compile_protect(conf.protect))


def protection(found: Snapshot | None, path: str, raw: str, message: Callable[[], Message]) -> Door | Rejected | None:
    """What a request of this site must pass; None where it needs nothing.

    `path` is what Django resolves (decoded, bytes as text), `raw` the path as received. Django resolves `//a` and
    `/a/../b` as they stand, servers and caches before it may not: a request is protected when the plain or the
    normalised path is, and a protected path that can be read in two ways is refused. `message` is called only where
    routes need it.
    """
    entries = _protect.of(_settings())
    why = ambiguity(raw)
    normal = decoded(raw)
    paths: tuple[str, ...] = (path,) if path == normal else (path, normal)
    if why is not None:
        paths += (_resolved(normal), _resolved(stable(raw)))
    if found is None:
        if settings_only() is None:
            # Whether a route of the admin protects it is not known.
            return Rejected(Reason.NOT_CONFIGURED, dialect=conf.dialect)
        return None
    for candidate in paths:
        door = _at(found, entries, candidate, message)
        if door is not None:
            if why is not None:
                return Rejected(Reason.AMBIGUOUS_PATH, dialect=conf.dialect, facts={"why": why})
            return door
    return None


def _at(found: Snapshot, entries: tuple[Protected, ...], path: str, message: Callable[[], Message]) -> Door | None:
    steps: dict[str, Step] = {}
    if entries:
        text = path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")
        for entry in entries:
            if entry.path.search(text):
                # The first that fits speaks for its plugin.
                steps.setdefault(entry.step.plugin.name, entry.step)
    if found.site.routes:
        asked = message()
        route = found.site.match(host_of(asked.authority), path, asked)
        if route is not None and route.pipeline:
            if not steps:
                return Door(route.pipeline, found, route.id)
            # Who edits the admin may change what settings ask of a plugin, not take the plugin away.
            steps |= {step.plugin.name: step for step in route.pipeline}
            return Door(pipeline(steps.values()), found, route.id)
    return Door(pipeline(steps.values()), found) if steps else None


def _resolved(path: str) -> str:
    """A path as a server that resolves dot segments, backslashes and parameters would read it."""
    segments = [segment.partition(";")[0] for segment in path.replace("\\", "/").split("/")]
    return posixpath.normpath("/" + "/".join(segments)).replace("//", "/")
