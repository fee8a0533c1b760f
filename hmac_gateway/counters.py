"""How many requests a window has seen, for rules that limit them: in memory or in Redis, each count one atomic step.

Asked by adapters for the quotas that rules name. Windows are fixed and begin with their first request (APISIX).
Imports `conf`, the quotas, and `stores` for Redis and its errors.
"""

from __future__ import annotations

import hashlib
import heapq
import threading
import time
from collections.abc import Callable
from math import ceil
from typing import Any, Final, Protocol

from .conf import conf
from .plugins.base import Quota, Spent
from .stores import REDIS_SCHEMES, RedisClients, StoreUnavailable, unavailable

#: Windows held at once; a full memory refuses to count rather than forgets.
MOST_WINDOWS: Final = 100_000


class CounterStore(Protocol):
    """Counts requests in windows."""

    def count(self, quota: Quota) -> Spent:
        """Count one request; raises StoreUnavailable."""

    async def acount(self, quota: Quota) -> Spent:
        """The same from an event loop, without blocking it."""


class MemoryCounter:
    """Windows of one process. `now` gives seconds of any clock that does not go back."""

    def __init__(self, size: int = MOST_WINDOWS, now: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._now = now
        self._windows: dict[str, tuple[float, int]] = {}
        #: (end, key) of every window, the first to end in front. One that began anew may be there twice.
        self._ends: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def count(self, quota: Quota) -> Spent:
        """See CounterStore."""
        now = self._now()
        with self._lock:
            until, used = self._windows.get(quota.key, (0.0, 0))
            if until <= now:
                self._make_room(now)
                until, used = now + quota.window, 0
                heapq.heappush(self._ends, (until, quota.key))
            self._windows[quota.key] = (until, used + 1)
        return Spent(used + 1, ceil(until - now))

    async def acount(self, quota: Quota) -> Spent:
        """See CounterStore."""
        return self.count(quota)

    def _make_room(self, now: float) -> None:
        """Drop windows that are over: two for one that begins, so that no request pays for all of them.

        More only where there is no room otherwise; raises StoreUnavailable where that frees nothing.
        """
        ends, windows = self._ends, self._windows
        dropped = 0
        while ends and ends[0][0] <= now and (dropped < 2 or len(windows) >= self._size):
            until, key = heapq.heappop(ends)
            if windows.get(key, (0.0, 0))[0] == until:
                del windows[key]
            dropped += 1
        if len(windows) >= self._size:
            raise StoreUnavailable(f"the counters are full ({self._size} windows)")


REDIS_PREFIX: Final = "hmacgw:count:"
#: One step on the server: count, and have a window that begins end by itself. Gives what was counted and milliseconds.
_COUNT: Final = """
local used = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  left = ARGV[1] * 1000
  redis.call('PEXPIRE', KEYS[1], left)
end
return {used, left}
"""
#: The name that Redis knows a script by, once it has seen it.
_SHA: Final = hashlib.sha1(_COUNT.encode(), usedforsecurity=False).hexdigest()


class RedisCounter:
    """Windows shared by all processes."""

    def __init__(self, url: str) -> None:
        self._clients = RedisClients(url)

    def count(self, quota: Quota) -> Spent:
        """See CounterStore."""
        client = self._clients.blocking
        try:
            try:
                found = client.evalsha(_SHA, 1, REDIS_PREFIX + quota.key, quota.window)
            except self._clients.unknown_script:
                found = client.eval(_COUNT, 1, REDIS_PREFIX + quota.key, quota.window)
        except self._clients.errors as error:
            raise unavailable("Redis counter store", error) from error
        return self._spent(found)

    async def acount(self, quota: Quota) -> Spent:
        """See CounterStore."""
        client = self._clients.of_loop()
        try:
            try:
                found = await client.evalsha(_SHA, 1, REDIS_PREFIX + quota.key, quota.window)
            except self._clients.unknown_script:
                found = await client.eval(_COUNT, 1, REDIS_PREFIX + quota.key, quota.window)
        except self._clients.errors as error:
            raise unavailable("Redis counter store", error) from error
        return self._spent(found)

    @staticmethod
    def _spent(found: Any) -> Spent:
        used, left = found
        return Spent(int(used), ceil(int(left) / 1000))


class RefusingCounter:
    """Stands where there is no store to count in: nothing is counted, with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def count(self, quota: Quota) -> Spent:
        """Raises StoreUnavailable."""
        raise StoreUnavailable(self.reason)

    async def acount(self, quota: Quota) -> Spent:
        """Raises StoreUnavailable."""
        raise StoreUnavailable(self.reason)


class Counters:
    """Each quota in the store that it names: `local` is this process's memory, all others are shared."""

    def __init__(self, local: CounterStore, shared: CounterStore) -> None:
        self._local = local
        self._shared = shared

    def count(self, quota: Quota) -> Spent:
        """See CounterStore."""
        return (self._local if quota.store == "local" else self._shared).count(quota)

    async def acount(self, quota: Quota) -> Spent:
        """See CounterStore."""
        return await (self._local if quota.store == "local" else self._shared).acount(quota)


def counter_store() -> CounterStore:
    """The stores that the settings name: memory, and the Redis of COUNTER_STORE or, without one, of REPLAY_STORE."""
    return Counters(MemoryCounter(), _shared(conf.counter_store))


def _shared(name: str) -> CounterStore:
    if not name:
        return RefusingCounter("neither COUNTER_STORE nor REPLAY_STORE names a Redis")
    if not name.startswith(REDIS_SCHEMES):
        return RefusingCounter(f"COUNTER_STORE is {name.partition('://')[0]!r}; allowed: redis://…")
    try:
        return RedisCounter(name)
    except ImportError:
        return RefusingCounter("COUNTER_STORE names Redis, but the package redis is not installed")
    except ValueError:
        # Not with its text: the address may hold a password.
        return RefusingCounter("COUNTER_STORE is not an address that redis can use")
