"""What a gateway worker tells the console: its state, how many requests had which outcome, who was refused.

Fed on the request's path (counting and appending only), flushed about once a second by the refresher's thread into
small tables. Imports `models`, `runtime` and `crypto`; called by `proxy.worker`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections, models, transaction
from django.utils import timezone

from . import crypto
from .core.credential import Credential
from .core.errors import Rejected
from .core.identity import Identity
from .core.message import Message
from .models import MinuteCounter, Rejection, Tombstone, WorkerStatus
from .runtime import TOMBSTONE_LIFE, Runtime
from .schemes import key_id_of
from .serving import WORKER

logger = logging.getLogger("hmac_gateway.telemetry")

#: Refusals kept per flush: the debugger needs examples, a flood needs no more rows.
KEPT_REJECTIONS: Final = 50
REJECTION_LIFE: Final = timedelta(days=1)
#: Refusals kept at all, and characters of a head: who is refused must not be able to fill the database.
MOST_REJECTIONS: Final = 10_000
MOST_HEAD: Final = 16 * 1024
COUNTER_LIFE: Final = timedelta(days=7)
#: A worker that said nothing for this long is in trouble, and for this long: gone.
HEARTBEAT_LATE: Final = timedelta(seconds=10)
HEARTBEAT_LIFE: Final = timedelta(seconds=30)
#: Never kept, not even sealed: they are not needed to explain a signature.
_NOT_KEPT: Final = frozenset({"cookie", "proxy-authorization"})


#: A site's thread ends after so many seconds without a request to tell of.
IDLE_SECONDS: Final = 60
#: How often the last use of credentials is written, in seconds.
USED_SECONDS: Final = 5.0
#: Outcomes by the hundreds of a status.
_CLASSES: Final = tuple(f"{hundreds}xx" for hundreds in range(10))


class Finished(Protocol):
    """What the gateway lane says of a request."""

    message: Message
    status: int
    reason: str
    identity: Identity

    @property
    def request_id(self) -> str:
        """Its id in the log and for the debugger."""

    @property
    def path(self) -> str:
        """The raw path."""

    @property
    def route_id(self) -> str:
        """The matched route's id, "" for none."""


class Telemetry:
    """One worker's memory of what happened since its last flush."""

    def __init__(self, runtime: Runtime, role: str = "gateway") -> None:
        self._runtime = runtime
        self._id = os.environ.get(WORKER) or uuid.uuid4().hex
        self._role = role
        self._started = timezone.now()
        # Appending is atomic, so nothing on the request's path waits for the thread that counts.
        self._seen: deque[tuple[float, str, str, int, Credential | None]] = deque()
        self._used: set[str] = set()
        self._counts: Counter[tuple[int, str, str]] = Counter()
        self._rejections: deque[tuple[float, Finished, Rejected]] = deque(maxlen=KEPT_REJECTIONS)
        self._pruned = self._marked = float("-inf")

    # --- on the request's path ---

    def finished(self, exchange: Finished) -> None:
        """Count a request by minute, route and outcome: here only what is known of it is kept."""
        self._seen.append(
            (time.time(), exchange.route_id, exchange.reason, exchange.status, exchange.identity.credential)
        )

    def rejected(self, exchange: Finished, rejected: Rejected) -> None:
        """Keep a refused request's head for the debugger."""
        self._rejections.append((time.time(), exchange, rejected))

    # --- in the refresher's thread ---

    def flush(self) -> None:
        """Write heartbeat, counters and refusals. Raises DatabaseError; what was not written is tried again."""
        self._beat()
        self.write()

    @property
    def pending(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._seen or self._rejections or self._counts or self._used)

    def write(self) -> None:
        """`flush` without the heartbeat, for processes that do not look at the configuration by themselves."""
        counts = self._counts
        for _ in range(len(self._seen)):
            now, route_id, reason, status, credential = self._seen.popleft()
            counts[int(now) // 60, route_id, reason or _CLASSES[status // 100]] += 1
            if credential is not None:
                self._used.add(credential.id)
        while counts:
            (minute, route_id, outcome), count = next(iter(counts.items()))
            _add(datetime.fromtimestamp(minute * 60, UTC), route_id, outcome, count)
            del counts[minute, route_id, outcome]
        self._keep_rejections()
        if time.monotonic() - self._marked > USED_SECONDS:
            self._marked = time.monotonic()
            self._mark_used()
        if time.monotonic() - self._pruned > 60:
            self._pruned = time.monotonic()
            prune()

    def _mark_used(self) -> None:
        """Note when credentials were last used. Not configuration: no version is bumped, no worker reads anything."""
        rows = apps.get_model("hmac_consumers.Credential")._default_manager
        # Settings-only credentials have ids that are no keys of rows.
        keys = [key for key in self._used if _is_uuid(key)]
        for start in range(0, len(keys), 500):
            rows.filter(pk__in=keys[start : start + 500]).quiet_update(last_used_at=timezone.now())
        self._used.clear()

    def gone(self) -> None:
        """This worker ends: it leaves no stale heartbeat behind."""
        WorkerStatus._default_manager.filter(pk=self._id).delete()

    def _beat(self) -> None:
        snapshot = self._runtime.snapshot
        WorkerStatus._default_manager.update_or_create(
            pk=self._id,
            defaults={
                "host": socket.gethostname()[:255],
                "pid": os.getpid(),
                "role": self._role,
                "started_at": self._started,
                "heartbeat_at": timezone.now(),
                "snapshot_version": None if snapshot is None else snapshot.version,
                "problems": list(self._runtime.problems),
            },
        )

    def _keep_rejections(self) -> None:
        taken = []
        while self._rejections:
            taken.append(self._rejections.popleft())
        if not taken:
            return
        try:
            rows = [self._rejection(*one) for one in taken]
            Rejection._default_manager.bulk_create(rows, ignore_conflicts=True)
        except BaseException:
            self._rejections.extendleft(reversed(taken))
            raise

    def _rejection(self, at: float, exchange: Finished, rejected: Rejected) -> Rejection:
        return Rejection(
            request_id=exchange.request_id,
            at=datetime.fromtimestamp(at, UTC),
            lane=self._role,
            route_id=exchange.route_id[:80],
            plugin=rejected.plugin,
            reason=str(rejected.reason),
            status=exchange.status,
            method=exchange.message.method[:32],
            path=exchange.path[:2048].replace("\x00", ""),
            key_id=key_id_of(exchange.message),
            remote_addr=exchange.message.remote_addr[:64],
            sealed_request=_sealed(at, exchange.message, getattr(exchange, "asked", None)),
        )


#: How often this process was forked from another: threads do not come along.
_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class Background:
    """Writes a Django site's telemetry about once a second, in a thread that starts with the first event.

    On a request's way there is no query for it. The thread ends when nothing comes any more, and is made anew in a
    process that was forked.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        #: In which process the thread runs, by the count of forks; -1 for none.
        self._running = -1
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Make sure that what was noted will be written."""
        if self._running != _forks:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._running != _forks:
                threading.Thread(target=self._run, name="hmac-gateway-telemetry", daemon=True).start()
                self._running = _forks

    def _ended(self) -> bool:
        with self._lock:
            # In this order: whoever notes something from here on finds no thread, and makes one.
            self._running = -1
            if self.telemetry.pending:
                self._running = _forks
            return self._running < 0

    def _run(self) -> None:
        idle = 0
        while idle < IDLE_SECONDS or not self._ended():
            time.sleep(1.0)
            if not self.telemetry.pending:
                idle += 1
                continue
            idle = 0
            try:
                self.telemetry.write()
            except Exception as error:
                # Not with a traceback each second: a database that is away is the site's own trouble, and it shows.
                logger.warning("writing counters and refusals failed: %s", type(error).__name__)
            finally:
                connections.close_all()


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _sealed(at: float, message: Message, asked: Mapping[str, Any] | None = None) -> str:
    """A request's head for the debugger; "" for a very long one, and where no key is configured to seal it with.

    `asked` says what a site demanded of it, where that is not the gateway's routes.
    """
    headers: Sequence[tuple[str, str]] = [pair for pair in message.headers if pair[0] not in _NOT_KEPT]
    head: dict[str, Any] = {
        "at": at,
        "method": message.method,
        "target": message.target,
        "headers": headers[:100],
        "scheme": message.scheme,
        "http_version": message.http_version,
        "remote_addr": message.remote_addr,
        "authority": message.authority,
        "duplicated": sorted(message.duplicated),
        "target_exact": message.target_exact,
    }
    text = json.dumps(head)
    if len(text) > MOST_HEAD:
        return ""
    if asked is not None:
        # A policy in code may hold what is no JSON; without it the head is still worth having.
        with suppress(TypeError, ValueError):
            longer = json.dumps({**head, "asked": asked}, default=_plain)
            text = longer if len(longer) <= MOST_HEAD else text
    try:
        return crypto.seal(text)
    except ImproperlyConfigured:
        return ""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError


def _add(minute: datetime, route_id: str, outcome: str, count: int) -> None:
    counters = MinuteCounter._default_manager.filter(minute=minute, route_id=route_id, outcome=outcome)
    if counters.update(count=models.F("count") + count):
        return
    try:
        with transaction.atomic():
            MinuteCounter._default_manager.create(minute=minute, route_id=route_id, outcome=outcome, count=count)
    except IntegrityError:
        # Another worker made the row in between.
        counters.update(count=models.F("count") + count)


#: The minute under which counts older than COUNTER_LIFE are summed up, so that totals never fall.
EPOCH: Final = datetime.fromtimestamp(0, UTC)


def prune() -> None:
    """Forget what is too old to be of use; counts are summed up, not lost."""
    now = timezone.now()
    Rejection._default_manager.filter(at__lt=now - REJECTION_LIFE).delete()
    newest = Rejection._default_manager.order_by("-at").values_list("at", flat=True)
    for at in newest[MOST_REJECTIONS : MOST_REJECTIONS + 1]:
        Rejection._default_manager.filter(at__lte=at).delete()
    WorkerStatus._default_manager.filter(heartbeat_at__lt=now - 2 * HEARTBEAT_LIFE).delete()
    Tombstone._default_manager.filter(created_at__lt=now - timedelta(seconds=TOMBSTONE_LIFE)).delete()
    old = MinuteCounter._default_manager.filter(minute__gt=EPOCH, minute__lt=now - COUNTER_LIFE)
    for counter in old[:10_000]:
        with transaction.atomic():
            # Whoever deletes the row adds its count: of two workers, one.
            if MinuteCounter._default_manager.filter(pk=counter.pk).delete()[0]:
                _add(EPOCH, counter.route_id, counter.outcome, counter.count)
