"""What a Django site's own requests must pass: PROTECT, CREDENTIALS, and the *this site* routes of the admin.

Used by the Django adapters (middleware, DRF class, decorator, embedded lane); one runtime per process, made on first
use. Imports `site_settings`, `runtime`, `stores`, `telemetry` and the gate. What settings say is compiled when first
used, and again when another dict stands in their place, so `override_settings` works.
"""

from __future__ import annotations

import logging
import posixpath
import threading
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, partial
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.core import mail

from .conf import ASKED, conf, setting
from .core.errors import ConfigError, Rejected
from .core.message import Message, host_of
from .core.paths import CACHED, ambiguity, decoded, stable
from .core.reasons import Reason
from .counters import counter_store
from .gate import NO_RULES, Pipeline, RuleSet, Step, compile_step, pipeline
from .runtime import Runtime
from .schemes import key_id_of
from .settling import Stores
from .site_settings import PROTECT_KEYS, Protected, compile_protect, credentials_snapshot, policy
from .snapshot import Snapshot
from .stores import replay_store
from .telemetry import Background, Finished, Telemetry
from .trust import trust

logger = logging.getLogger("hmac_gateway.verify")

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


class _State:
    """What one HMAC_GATEWAY dict means; each part is made when first asked for, and raises ConfigError if wrong."""

    def __init__(self, source: Any) -> None:
        self.source = source

    @cached_property
    def directory(self) -> Snapshot | None:
        """Settings-only mode's; None where the database is read."""
        if conf.credentials:
            return credentials_snapshot(conf.credentials)
        # Whoever has neither tables nor CREDENTIALS lets nobody in.
        return None if has_tables() else Snapshot(0)

    @cached_property
    def protected(self) -> tuple[Protected, ...]:
        return compile_protect(conf.protect)

    @cached_property
    def plain(self) -> Callable[[str, str], Pipeline | None]:
        """What PROTECT asks of a path that reads in one way only; None for any other. Kept for each path."""
        return lru_cache(maxsize=4096)(partial(_plain, self.protected))

    @cached_property
    def stores(self) -> Stores:
        return Stores(replay_store(), counter_store())

    @cached_property
    def trusted(self) -> Callable[[str], bool]:
        return trust(conf.trusted_proxies)

    @cached_property
    def telemetry(self) -> Background | None:
        wanted = conf.telemetry
        if wanted is None:
            # Set up by Django's test runner and pytest-django: a thread that writes would meet a test's transactions.
            wanted = not hasattr(mail, "outbox")
        return Background(Telemetry(runtime(), "site")) if wanted and self.directory is None else None


def has_tables() -> bool:
    """Whether the two apps are installed that hold consumers and routes."""
    return {"hmac_consumers", "hmac_proxy"} <= {config.label for config in apps.get_app_configs()}


_last = _State(object())


def state() -> _State:
    """What the HMAC_GATEWAY of this moment means."""
    global _last
    found = _last
    if found.source is ASKED.get("HMAC_GATEWAY"):  # `setting`, without the call
        return found
    source = setting("HMAC_GATEWAY")
    if found.source is not source:
        # Two threads may both make one: of the stores one is then soon forgotten, in the first moment of a process.
        with _lock:
            found = _last
            if found.source is not source:
                found = _last = _State(source)
    return found


def is_trusted(address: str) -> bool:
    """Whether a peer is one of TRUSTED_PROXIES."""
    return state().trusted(address)


def settings_only() -> Snapshot | None:
    """The directory of settings-only mode; None where the database is read."""
    return state().directory


def snapshot() -> Snapshot | None:
    """The current directory, after a look at the version row if one is due. None: nothing could be loaded yet."""
    return state().directory or (_runtime or runtime()).current()


class Policy:
    """What one view asks for: `{plugin, config, dialect}`, checked at once, compiled when settings can be read.

    Raises ConfigError naming the field.
    """

    __slots__ = ("_given", "_made")

    def __init__(self, given: Mapping[str, Any]) -> None:
        for field in given:
            if field not in PROTECT_KEYS[1:]:
                raise ConfigError(field, given[field], f"one of {', '.join(PROTECT_KEYS[1:])}")
        # Settings only fill in MAX_BODY: what is right without it is right with it.
        compile_step(given.get("plugin", "hmac-auth"), given.get("config", {}), given.get("dialect", "apisix"))
        self._given = given
        self._made: tuple[_State, Step] | None = None

    def step(self) -> Step:
        """The compiled step."""
        now, made = state(), self._made
        if made is None or made[0] is not now:
            made = self._made = (now, policy(self._given))
        return made[1]


class Door(NamedTuple):
    """What a request must pass, where its credentials are looked up, and which route asks for it ("" for PROTECT)."""

    pipeline: Pipeline
    directory: Snapshot
    rules: RuleSet = NO_RULES
    route_id: str = ""
    service_id: str = ""


def protection(
    found: Snapshot | None, path: str, raw: str, message_of: Callable[[Any], Message], request: Any
) -> Door | Rejected | None:
    """What a request of this site must pass; None where it needs nothing.

    `path` is what Django resolves (decoded, bytes as text), `raw` the path as received. Django resolves `//a` and
    `/a/../b` as they stand, servers and caches before it may not: a request is protected when the plain or the
    normalised path is, and a protected path that can be read in two ways is refused. `message_of` is asked for the
    request's message only where routes need it.
    """
    if found is None:
        # Nobody can be let in. Whom to keep out is known if PROTECT alone says so.
        needed = not runtime().no_site_routes or protection(Snapshot(0), path, raw, message_of, request) is not None
        return Rejected(Reason.NOT_CONFIGURED, dialect=conf.dialect) if needed else None
    now = state()
    if not found.site.routes and len(path) <= CACHED:
        steps = now.plain(path, raw)
        if steps is not None:
            return tuple.__new__(Door, (steps, found, NO_RULES, "", "")) if steps else None
    why = ambiguity(raw)
    normal = decoded(raw)
    entries = now.protected
    if path == normal and why is None:
        return _at(found, entries, path, message_of, request)
    paths = [path, normal]
    if why is not None:
        paths += _resolved(normal), _resolved(stable(raw))
    for candidate in paths:
        door = _at(found, entries, candidate, message_of, request)
        if door is not None:
            if why is None:
                return door
            return Rejected(Reason.AMBIGUOUS_PATH, dialect=conf.dialect, facts={"why": why})
    return None


def _plain(entries: tuple[Protected, ...], path: str, raw: str) -> Pipeline | None:
    if path != decoded(raw) or ambiguity(raw) is not None:
        return None
    return _steps(_asked(entries, path))


def _asked(entries: tuple[Protected, ...], path: str) -> list[Protected]:
    text = path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")
    return [entry for entry in entries if entry.path.search(text)]


def _at(
    found: Snapshot, entries: tuple[Protected, ...], path: str, message_of: Callable[[Any], Message], request: Any
) -> Door | None:
    asked = _asked(entries, path)
    if found.site.routes:
        seen = message_of(request)
        route = found.site.match(host_of(seen.authority), path, seen)
        if route is not None and (route.pipeline or route.rules.all):
            # Who edits the admin may change what settings ask of a plugin, not take the plugin away.
            steps = _merged(asked, route.pipeline) if asked else route.pipeline
            return Door(steps, found, route.rules, route.id, route.service_id)
    return Door(_steps(asked), found) if asked else None


def _steps(asked: list[Protected]) -> Pipeline:
    return asked[0].pipeline if len(asked) == 1 else _merged(asked, ())


def _merged(entries: list[Protected], steps: Pipeline) -> Pipeline:
    """One step for each plugin: the route's, else that of the first entry of PROTECT."""
    by_name: dict[str, Step] = {}
    for step in (*steps, *(step for entry in entries for step in entry.pipeline)):
        by_name.setdefault(step.plugin.name, step)
    return pipeline(by_name.values())


def _resolved(path: str) -> str:
    """A path as a server that resolves dot segments, backslashes and parameters would read it."""
    segments = [segment.partition(";")[0] for segment in path.replace("\\", "/").split("/")]
    return posixpath.normpath("/" + "/".join(segments)).replace("//", "/")


def finished(seen: Finished, status: int, rejected: Rejected | None = None) -> None:
    """Count a protected request; of a refused one, log the reason and keep the head for the debugger.

    Neither log line nor row holds a secret or a computed signature. No query here: a thread writes.
    """
    seen.status = status
    if rejected is not None:
        seen.reason = str(rejected.reason)
        detail, key_id = rejected.detail, key_id_of(seen.message)
        # As text in quotes with escapes: a key id may hold anything that a header may.
        named = f"key {key_id!r}"
        if key_id and named not in detail:
            detail = f"{named}; {detail}" if detail else named
        logger.warning(
            "%s %r refused with %s: %s%s, request %s",
            seen.message.method,
            seen.path,
            seen.status,
            rejected.reason,
            f" ({detail})" if detail else "",
            seen.request_id,
            extra={
                "reason": str(rejected.reason),
                "plugin": rejected.plugin,
                "request_id": seen.request_id,
                "key_id": key_id,
            },
        )
    background = state().telemetry
    if background is not None:
        background.telemetry.finished(seen)
        if rejected is not None and seen.status < 500:
            background.telemetry.rejected(seen, rejected)
        background.wake()
