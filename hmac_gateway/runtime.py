"""Keeps a process's snapshot current: reads what changed, compiles it, swaps it in one assignment.

A gateway worker runs `Refresher` in a thread of its own (Django's ORM refuses to run in an event loop); Django
hosts call `current()`, which looks by itself when its last look is too old. Imports `snapshot`, `models` and, by
label, the compile modules of the two apps. If anything goes wrong, the last good snapshot stays and `problems`
says why.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from typing import Any

from django.apps import apps
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, close_old_connections, connections, router
from django.db.models import Model

from . import crypto
from .conf import conf
from .core.errors import ConfigError
from .entities import Writes
from .models import ConfigVersion, Tombstone
from .snapshot import Snapshot, lookups

logger = logging.getLogger("hmac_gateway.runtime")

#: Tombstones are forgotten after this many seconds; a reader that slept longer reads everything anew.
TOMBSTONE_LIFE = 24 * 3600
#: How often a read is repeated when writers commit in its middle, before the next round takes over.
_READ_TRIES = 5


#: How SQLite, PostgreSQL and MariaDB say that a table is missing.
_NO_TABLE = re.compile(r"no such table|relation .* does not exist|doesn't exist")


class Unreadable(Exception):
    """The rows kept changing while they were read."""


def _compile_module(label: str) -> Any:
    return import_module(f"{apps.get_app_config(label).name}.compile")


class Mirror:
    """The configuration's rows as last read, by model name, and which of them changed since the last compile.

    Versions are committed in their order (the version row is locked by each writer until it commits), so rows newer
    than the last version seen, plus tombstones, are all that changed. Reading is not one transaction: where the
    version moved meanwhile, it is done again. `fields` names the columns to read, by model; without an entry: all.
    """

    def __init__(self, app_label: str, names: tuple[str, ...], fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = fields
        self.models: dict[str, type[Model]] = {name: apps.get_model(app_label, name) for name in names}
        self.rows: dict[str, dict[Any, dict[str, Any]]] = {name: {} for name in names}
        self.changes: dict[str, set[Any]] = {name: set() for name in names}
        self._fresh = True

    def read(self, since: int, using: str) -> None:
        """Take in what was written and deleted after version `since`; below zero: everything."""
        for name, model in self.models.items():
            fields = self._fields.get(name) or [field.attname for field in model._meta.concrete_fields]
            rows = self.rows[name]
            changed = model._base_manager.using(using).values(*fields)
            if since < 0:
                self.changes[name].update(rows)
                rows.clear()
            else:
                changed = changed.filter(changed_at_version__gt=since)
            for row in changed.iterator(chunk_size=2000):
                rows[row["id"]] = row
                self.changes[name].add(row["id"])
        if since < 0:
            return
        by_label = {model._meta.label_lower: name for name, model in self.models.items()}
        gone = Tombstone._default_manager.using(using).filter(version__gt=since, label__in=by_label)
        for label, text, version in gone.values_list("label", "object_pk", "version"):
            name = by_label[label]
            key = self.models[name]._meta.pk.to_python(text)
            rows = self.rows[name]
            # A key that was deleted and made again is alive: its row is newer than the tombstone, or as new where both
            # happened in one transaction, since what was read was there at its end.
            if key in rows and rows[key]["changed_at_version"] < version:
                del rows[key]
                self.changes[name].add(key)

    @property
    def changed(self) -> bool:
        """Whether there is something to compile; a mirror that never was compiled is itself a change."""
        return self._fresh or any(self.changes.values())

    def forget_changes(self) -> None:
        """What changed so far is compiled."""
        self._fresh = False
        for keys in self.changes.values():
            keys.clear()


class Runtime:
    """One process's view of the configuration.

    `snapshot` is None until the first good one. `problems` are sentences for `/readyz` and the console, empty when
    all is well. `refresh` may be called from any thread, one at a time. `no_site_routes` says, while there is no
    snapshot, that the database is known to hold no *this site* routes: what then needs a credential, settings say.
    """

    def __init__(self, using: str | None = None, now: Callable[[], float] = time.time) -> None:
        self._using = using
        self._now = now
        self._lock = threading.Lock()
        self._next_look = float("-inf")
        self._writes = -1
        self._provisional = False
        self._next_expiry: float | None = None
        self._apart: ThreadPoolExecutor | None = None
        self.snapshot: Snapshot | None = None
        self.problems: list[str] = []
        self.no_site_routes = False
        #: Called with every new snapshot, in the refreshing thread.
        self.listeners: list[Callable[[Snapshot], None]] = []
        self._start_over()

    def _start_over(self) -> None:
        self._version = -1
        self._read_at = 0.0
        self._canary = ""
        people, ways = _compile_module("hmac_consumers"), _compile_module("hmac_proxy")
        self._people = Mirror("hmac_consumers", people.MODELS, people.FIELDS)
        self._ways = Mirror("hmac_proxy", ways.MODELS, {})
        self._people_compiler = people.Compiler()
        self._ways_compiler = ways.Compiler()
        self._ways_module = ways

    def due(self) -> bool:
        """Whether `current` would look: REFRESH_SECONDS are over, or this process itself has written."""
        return self._writes != Writes.count or time.monotonic() >= self._next_look

    def current(self) -> Snapshot | None:
        """The snapshot, after a look at the version row if one is due.

        Another thread's look serves everyone, and nobody waits for it, unless there is no snapshot yet.
        """
        # `due`, without the call: every request of a Django site comes this way.
        if self._writes == Writes.count and time.monotonic() < self._next_look:
            return self.snapshot
        if self._lock.acquire(blocking=self.snapshot is None):
            try:
                if self.due():
                    self._refresh()
            finally:
                self._lock.release()
        return self.snapshot

    def refresh(self) -> bool:
        """Look for changes and take them in. True when the snapshot is current; never raises."""
        with self._lock:
            return self._refresh()

    def _refresh(self) -> bool:
        transaction = any(connection.in_atomic_block for connection in connections.all(initialized_only=True))
        if not transaction or hasattr(mail, "outbox"):
            return self._refresh_here()
        # In a view's own transaction (ATOMIC_REQUESTS) what is read stays locked until its end: SQLite then lets nobody
        # else write, not even this request's replay mark. Not in test runs, which are one transaction.
        if self._apart is None:
            self._apart = ThreadPoolExecutor(1, thread_name_prefix="hmac-gateway-refresh")
        return self._apart.submit(self._refresh_apart).result()

    def _refresh_apart(self) -> bool:
        try:
            return self._refresh_here()
        finally:
            close_old_connections()

    def _refresh_here(self) -> bool:
        wrote, self._writes = self._writes != Writes.count, Writes.count
        try:
            self._look(wrote)
        except Error as error:
            # Not only DatabaseError: a connection that was cut may give InterfaceError.
            hint = "; run manage.py migrate" if _NO_TABLE.search(str(error)) else ""
            self._fail(f"the database cannot be read: {first_line(error)}{hint}")
        except Unreadable as error:
            self._fail(str(error))
        except (ConfigError, ImproperlyConfigured, crypto.CannotOpen) as error:
            self._fail(f"the configuration cannot be compiled: {error}")
        except Exception as error:
            # A bug of ours must not end the thread that enforces revocations.
            logger.exception("refreshing the configuration failed")
            self._fail(f"refreshing failed: {type(error).__name__}")
        else:
            if self.problems:
                logger.info("the configuration is current again, version %s", self._version)
            self.problems = []
        if self.snapshot is None:
            self.no_site_routes = self._has_no_site_routes()
        self._next_look = time.monotonic() + conf.refresh_seconds
        return not self.problems

    def _has_no_site_routes(self) -> bool:
        route = apps.get_model("hmac_proxy", "Route")
        using = self._using or router.db_for_read(ConfigVersion)
        try:
            if route._meta.db_table not in connections[using].introspection.table_names():
                return True  # before the first migrate
            return not route._default_manager.using(using).filter(this_site=True).exists()
        except Error:
            return False

    def _fail(self, problem: str) -> None:
        if self.problems != [problem]:
            logger.error("%s; %s", problem, "the last good one keeps serving" if self.snapshot else "nobody is let in")
        self.problems = [problem]

    def _look(self, wrote: bool) -> None:
        using = self._using or router.db_for_read(ConfigVersion)
        version, canary = _version(using)
        if self._provisional and wrote:
            # What was read then may have been rolled back, and its number given to another change.
            self._start_over()
        self._provisional = Writes.open.get(using) == version
        # By the wall clock, which is also what tombstones go by: the monotonic one stands still while a machine sleeps.
        if self._version >= 0 and (version < self._version or time.time() - self._read_at > TOMBSTONE_LIFE / 2):
            # Another database, a restored backup, or a sleep longer than tombstones live.
            self._start_over()
        now = self._now()
        expired = self._next_expiry is not None and now >= self._next_expiry
        if version != self._version:
            for _ in range(_READ_TRIES):
                before = version
                self._people.read(self._version, using)
                self._ways.read(self._version, using)
                version, canary = _version(using)
                self._version = before
                if version == before:
                    break
            else:
                raise Unreadable("the configuration changes faster than it can be read")
        self._read_at = time.time()
        self._check_keys(canary)
        pending = self._people.changed or self._ways.changed
        if self.snapshot is not None and not pending and not expired and self.snapshot.version == self._version:
            return
        self._compile(now)

    def _check_keys(self, canary: str) -> None:
        """Raise ConfigError when the configured keys are not those that sealed the secrets; once per canary."""
        if canary != self._canary:
            if canary and not crypto.check_canary(canary):
                raise ConfigError(
                    "HMAC_GATEWAY['ENCRYPTION_KEYS'] (HMAC_GATEWAY_ENCRYPTION_KEYS)",
                    "(not shown)",
                    "the keys that sealed the stored secrets",
                )
            self._canary = canary

    def _compile(self, now: float) -> None:
        people, ways, last = self._people, self._ways, self.snapshot
        if last is None or people.changed:
            self._people_compiler.update(people.rows, people.changes)
            found, consumers = lookups(self._people_compiler.credentials()), self._people_compiler.consumers()
            ids = self._people_compiler.consumer_ids()
            people.forget_changes()
            if last is not None:
                # Who may call is taken in before where calls go: a row that keeps the routes from being compiled
                # must not keep a revocation from being enforced. The version stays, so it shows as not current.
                last = replace(last, lookups=found, consumers=consumers, consumer_ids=ids)
                self._publish(last)
        else:
            found, consumers, ids = last.lookups, last.consumers, last.consumer_ids
        expired = self._next_expiry is not None and now >= self._next_expiry
        if last is None or expired or ways.changed:
            self._ways_compiler.update(ways.rows, now)
            self._next_expiry = self._ways_module.next_expiry(ways.rows, now)
            ways.forget_changes()
        compiler = self._ways_compiler
        self._publish(
            Snapshot(
                version=self._version,
                routes=compiler.routes,
                site=compiler.site,
                lookups=found,
                consumers=consumers,
                consumer_ids=ids,
                elsewhere=compiler.elsewhere,
                require_same_consumer=conf.require_same_consumer,
                compiled_at=now,
                upstreams=compiler.upstreams,
                overrides=compiler.overrides,
                outgoing=compiler.outgoing,
            )
        )

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        for listener in self.listeners:
            try:
                listener(snapshot)
            except Exception:
                # The snapshot is in place; who could not take note of it must not keep others from it.
                logger.exception("a listener failed on version %s", snapshot.version)


def _version(using: str) -> tuple[int, str]:
    row = ConfigVersion._default_manager.using(using).filter(pk=1).values_list("version", "canary").first()
    return (0, "") if row is None else row


def first_line(error: Exception) -> str:
    """What a database error says, fit for one line of a log."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Refresher(threading.Thread):
    """Refreshes a runtime every `conf.refresh_seconds` in a thread with a database connection of its own.

    `every_second` is called about once a second in the same thread, for what processes tell each other, and
    `at_end` once when the thread ends. `first_look` is set after the first attempt, good or not.
    """

    def __init__(
        self,
        runtime: Runtime,
        every_second: Callable[[], None] | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name="hmac-gateway-refresh", daemon=True)
        self.runtime = runtime
        self.first_look = threading.Event()
        self._every_second = every_second
        self._at_end = at_end
        # Not `_stop`: that is the name of a method of Thread.
        self._stopping = threading.Event()

    def run(self) -> None:
        told = float("-inf")
        while not self._stopping.is_set():
            self.runtime.refresh()
            self.first_look.set()
            if self.runtime.problems:
                # A connection that broke is thrown away; the next round opens a new one.
                close_old_connections()
            if self._every_second is not None and time.monotonic() - told >= 1.0:
                told = time.monotonic()
                try:
                    self._every_second()
                except Error as error:
                    logger.warning("telling other processes failed: %s", first_line(error))
                    close_old_connections()
                except Exception:
                    logger.exception("telling other processes failed")
            self._stopping.wait(conf.refresh_seconds)
        for last in (self._every_second, self._at_end):
            try:
                if last is not None:
                    last()
            except Error as error:
                logger.warning("saying goodbye failed: %s", first_line(error))
            except Exception:
                logger.exception("saying goodbye failed")
        connections.close_all()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread and wait for it, at most `timeout` seconds."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout)
