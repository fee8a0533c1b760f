"""Where used signatures are remembered: memory, Redis or the database. Each `add` is one atomic step.

Called by adapters after a signature and its body were found right. Imports `conf` and `models`. A store that is
full or away raises `StoreUnavailable`, and the request is refused: a replay store that forgets is none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from asgiref.sync import sync_to_async
from django.core import mail
from django.db import Error, IntegrityError, connections, router, transaction

from .conf import conf

logger = logging.getLogger("hmac_gateway.replay")


class StoreUnavailable(Exception):
    """The store cannot say whether a mark was there, or how many requests there were."""


#: Seconds between two lines about a store that fails: every request may meet it.
_COMPLAIN_SECONDS: Final = 5.0
_complained = float("-inf")


def unavailable(name: str, error: Exception) -> StoreUnavailable:
    """What to raise for an error of the store's own; now and then it is logged as well."""
    global _complained
    if time.monotonic() - _complained >= _COMPLAIN_SECONDS:
        _complained = time.monotonic()
        logger.error("the %s failed: %s: %s", name, type(error).__name__, error)
    return StoreUnavailable(f"the {name} failed: {type(error).__name__}")


class ReplayStore(Protocol):
    """Remembers marks for a time."""

    def add(self, key: str, ttl: int, longer: bool = False) -> bool:
        """Remember `key` for `ttl` seconds. True if it was new; raises StoreUnavailable.

        `longer`: whoever asks has added it just now, and it is to be remembered for so long from now on.
        """

    async def aadd(self, key: str, ttl: int, longer: bool = False) -> bool:
        """The same from an event loop, without blocking it."""


class MemoryStore:
    """Marks of one process. Bounded: a full store refuses rather than forgets.

    Expired marks leave from the front; times to live differ by policy, so a long one may hold shorter ones behind
    it, which only makes the store fuller, never wrong.
    """

    def __init__(self, size: int, now: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._now = now
        self._marks: dict[str, float] = {}
        self._queue: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def add(self, key: str, ttl: int, longer: bool = False) -> bool:
        now = self._now()
        with self._lock:
            queue, marks = self._queue, self._marks
            while queue and queue[0][0] <= now:
                until, old = queue.popleft()
                if marks.get(old) == until:
                    del marks[old]
            seen = marks.get(key)
            if seen is not None and seen > now and not longer:
                return False
            if len(queue) >= self._size:
                raise StoreUnavailable(f"the memory replay store is full ({self._size} marks)")
            marks[key] = now + ttl
            queue.append((now + ttl, key))
            return True

    async def aadd(self, key: str, ttl: int, longer: bool = False) -> bool:
        return self.add(key, ttl, longer)


#: Seconds for connecting to Redis and for one answer: a store that does not answer refuses requests.
REDIS_TIMEOUT = 2.0
#: Connections of one process (sync) and of each event loop.
REDIS_CONNECTIONS = 32
REDIS_PREFIX = "hmacgw:replay:"
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class RedisClients:
    """Clients of one Redis: a blocking one, and one for each event loop. Raises ImportError or ValueError.

    `more` are options of its connections. `errors` are what they raise where Redis does not answer as it should,
    `unknown_script` one of them.
    """

    def __init__(self, url: str, **more: Any) -> None:
        # Optional extra: only who configures Redis needs the package.
        import redis
        import redis.asyncio
        import redis.asyncio.retry
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.errors: tuple[type[Exception], ...] = (redis.RedisError, OSError, TimeoutError)
        self.unknown_script: type[Exception] = redis.exceptions.NoScriptError
        options: dict[str, Any] = {
            "socket_connect_timeout": REDIS_TIMEOUT,
            "socket_timeout": REDIS_TIMEOUT,
            # Whoever finds all of them busy waits: the plain pool refuses.
            "max_connections": REDIS_CONNECTIONS,
            "timeout": REDIS_TIMEOUT,
            **more,
        }
        # Once more, at once, since Redis may have closed an idle connection. If the first try arrived after all, the
        # second finds its mark and the request is refused, or is counted twice: the safe side.
        pool = redis.BlockingConnectionPool.from_url(url, retry=Retry(NoBackoff(), 1), **options)
        self.blocking: Any = redis.Redis.from_pool(pool)
        again = redis.asyncio.retry.Retry(NoBackoff(), 1)
        self._make_async: Callable[[], Any] = lambda: redis.asyncio.Redis.from_pool(
            redis.asyncio.BlockingConnectionPool.from_url(url, retry=again, **options)
        )
        # Connections belong to the loop that made them.
        self._async: dict[asyncio.AbstractEventLoop, Any] = {}

    def of_loop(self) -> Any:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._async.get(loop)
        if client is None:
            client = self._async[loop] = self._make_async()
        return client


class RedisStore:
    """Marks shared by all processes: SET NX EX, atomic on the server."""

    def __init__(self, url: str) -> None:
        self._clients = RedisClients(url)

    def add(self, key: str, ttl: int, longer: bool = False) -> bool:
        try:
            return self._clients.blocking.set(REDIS_PREFIX + key, b"1", nx=not longer, ex=ttl) is not None
        except self._clients.errors as error:
            raise unavailable("Redis replay store", error) from error

    async def aadd(self, key: str, ttl: int, longer: bool = False) -> bool:
        try:
            return await self._clients.of_loop().set(REDIS_PREFIX + key, b"1", nx=not longer, ex=ttl) is not None
        except self._clients.errors as error:
            raise unavailable("Redis replay store", error) from error


class DatabaseStore:
    """Marks in the table ReplayMark: the primary key is the lock, an expired mark is taken over."""

    def __init__(self, using: str | None = None, now: Callable[[], float] = time.time) -> None:
        self._using = using
        self._now = now
        self._threads: ThreadPoolExecutor | None = None
        self._pruned = 0.0

    def add(self, key: str, ttl: int, longer: bool = False) -> bool:
        from .models import ReplayMark

        using = self._using or router.db_for_write(ReplayMark)
        if connections[using].in_atomic_block and not hasattr(mail, "outbox"):
            # In a view's own transaction (ATOMIC_REQUESTS) the mark would be rolled back with it, and the signature be
            # good again. Not in test runs, which are one transaction.
            return self._elsewhere().submit(self._add, using, key, ttl, longer).result()
        return self._add(using, key, ttl, longer)

    def _add(self, using: str, key: str, ttl: int, longer: bool) -> bool:
        from .models import ReplayMark

        connection = connections[using]
        before = connection.connection
        now = self._now()
        until = int(now) + ttl + 1
        marks = ReplayMark._default_manager.using(using)
        try:
            if now - self._pruned > 60:
                self._pruned = now
                marks.filter(expires_at__lt=int(now)).delete()
            try:
                with transaction.atomic(using=using):
                    marks.create(key=key, expires_at=until)
                return True
            except IntegrityError:
                # One statement: of two that want an expired mark, one finds it no longer expired.
                known = marks.filter(key=key) if longer else marks.filter(key=key, expires_at__lt=int(now))
                return bool(known.update(expires_at=until))
        except Error as error:
            lost = before is not None and (connection.connection is not before or not connection.is_usable())
            if lost and not connection.in_atomic_block:
                # Once more, since the server may have closed an idle connection. If the first try arrived after all,
                # the second finds its mark and the request is refused: the safe side.
                connection.close()
                return self._add(using, key, ttl, longer)
            connection.close_if_unusable_or_obsolete()
            raise unavailable("database replay store", error) from error

    async def aadd(self, key: str, ttl: int, longer: bool = False) -> bool:
        if hasattr(mail, "outbox"):
            # A test is one transaction, and that is one thread's: where Django takes what must not block a loop.
            return await sync_to_async(self.add)(key, ttl, longer)
        return await asyncio.get_running_loop().run_in_executor(self._elsewhere(), self.add, key, ttl, longer)

    def _elsewhere(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(4, thread_name_prefix="hmac-gateway-replay")
        return self._threads


class RefusingStore:
    """Stands where the configured store cannot do what is asked: every mark is refused, with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def add(self, key: str, ttl: int, longer: bool = False) -> bool:
        raise StoreUnavailable(self.reason)

    async def aadd(self, key: str, ttl: int, longer: bool = False) -> bool:
        raise StoreUnavailable(self.reason)


#: Servers whose own options say how many processes they start.
_SERVERS: Final = frozenset({"gunicorn", "uvicorn", "granian", "hypercorn"})


def processes() -> int:
    """How many processes serve this configuration, as far as they can know; the most that anybody says.

    hmac_serve, gunicorn and others say it in WEB_CONCURRENCY, whatever a host's own settings say; gunicorn and granian
    take options from the environment, and all of them from the command line that their workers share.
    """
    said = [os.environ.get(name, "") for name in ("WEB_CONCURRENCY", "GRANIAN_WORKERS")]
    with suppress(ValueError):  # quotes that do not end
        said += _workers(shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")))
    called = Path(sys.argv[0]) if sys.argv else Path()
    if _SERVERS & {called.name, called.parent.name if called.name == "__main__.py" else ""}:
        said += _workers(sys.argv[1:])
    return max(conf.workers, *(int(text) for text in said if text.isascii() and text.isdigit()), 1)


def _workers(options: list[str]) -> Iterator[str]:
    """What a server's options give for `--workers N` or `-w N`."""
    for option, following in zip(options, [*options[1:], ""], strict=True):
        name, equals, text = option.partition("=")
        if name in ("-w", "--workers"):
            yield text if equals else following
        elif option.startswith("-w") and not option.startswith("--"):
            yield option[2:]


def replay_store(workers: int | None = None) -> ReplayStore:
    """The store that REPLAY_STORE names, for a configuration served by `workers` processes.

    Several processes do not share memory: with the memory store each would let the same signature pass once, so
    then every request that asks for replay protection is refused.
    """
    name = conf.replay_store
    workers = processes() if workers is None else workers
    if name == "memory":
        if workers > 1:
            return RefusingStore(
                f"REPLAY_STORE is memory, which {workers} workers do not share; set it to redis://… or database"
            )
        return MemoryStore(conf.replay_memory_entries)
    if name == "database":
        return DatabaseStore()
    if name.startswith(REDIS_SCHEMES):
        try:
            return RedisStore(name)
        except ImportError:
            return RefusingStore("REPLAY_STORE names Redis, but the package redis is not installed")
        except ValueError:
            # Not with its text: the address may hold a password.
            return RefusingStore("REPLAY_STORE is not an address that redis can use")
    return RefusingStore(f"REPLAY_STORE is {name.partition('://')[0]!r}; allowed: memory, database, redis://…")
