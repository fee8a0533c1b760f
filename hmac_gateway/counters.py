"""How many requests a window has seen, for rules that limit them: in memory or in Redis, each count one atomic step.

Asked by adapters for the quotas that rules name. Windows are fixed and begin with their first request, or slide; where
they are those of the clock (Kong), their keys say so.
Imports `conf`, the quotas, and `stores` for Redis and its errors.
"""

from __future__ import annotations

import hashlib
import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from math import ceil
from typing import Any, Final, NamedTuple, Protocol

from .conf import conf
from .plugins.base import Quota, RedisServer, Spent
from .stores import REDIS_SCHEMES, RedisClients, StoreUnavailable, unavailable

#: Windows held at once; a full memory refuses to count rather than forgets.
MOST_WINDOWS: Final = 200_000
#: Of one rule: whoever can name keys at will, by a header say, must not use up the memory of other rules, which may let
#: everybody pass where nobody can count.
MOST_OF_A_RULE: Final = 50_000
#: Redis servers of configurations whose connections are kept.
MOST_SERVERS: Final = 64

#: What one request is counted under; at least one, all in the same store.
Quotas = Sequence[Quota]


def _full(quota: Quota, used: int) -> bool:
    return quota.limit is not None and used >= quota.limit


class Sliding:
    """How APISIX slides a window (its limit-count/sliding-window): two of the clock's windows, this one and the last.

    The last one's requests are taken as spread evenly, and count by the part of it that the sliding window holds.
    """

    def __init__(self, quota: Quota, now: float) -> None:
        self.limit, self.window = quota.limit or 0, quota.window
        number = int(now // self.window)
        #: Of which window there is a count under which key. Both end when the next window is over.
        self.key, self.key_before = (f"{quota.key}:{self.window}:{place}" for place in (number, number - 1))
        self.end = (number + 2) * self.window
        #: Seconds of this window that are left.
        self.left = self.window - now % self.window

    def passes(self, used: int, before: int) -> bool:
        """Whether one more request may be counted."""
        return used < self.limit and before / self.window * self.left + used < self.limit

    def spent(self, passed: bool, used: int, before: int) -> Spent:
        """What `count` answers, this request counted where it passed; `reset` has two decimals."""
        rate = before / self.window
        if passed:
            return Spent(min(self.limit, _whole(used + rate * self.left)), _hundredths(self.left))
        wait = self.left
        if used < self.limit:
            wait = max(0.0, self.left - (self.limit - used) / rate)
        return Spent(self.limit + 1, _hundredths(wait))


def _whole(number: float) -> int:
    """The next whole number; what floating point has added to one is not counted (1000.4 + 60 - 1000.4 > 60)."""
    return ceil(round(number, 6))


def _hundredths(seconds: float) -> float:
    return _whole(seconds * 100) / 100


class CounterStore(Protocol):
    """Counts requests in windows."""

    def count(self, quotas: Quotas) -> list[Spent]:
        """Count one request under each key, or under none where one is full; raises StoreUnavailable."""

    async def acount(self, quotas: Quotas) -> list[Spent]:
        """The same from an event loop, without blocking it."""


class MemoryCounter:
    """Windows of one process, at most `size`, and `share` of one rule.

    `now` gives seconds of any clock that does not go back.
    """

    def __init__(
        self, size: int = MOST_WINDOWS, now: Callable[[], float] = time.monotonic, share: int = MOST_OF_A_RULE
    ) -> None:
        self._size, self._share = size, share
        self._now = now
        self._windows: dict[str, tuple[float, int]] = {}
        #: How many of them each rule has.
        self._held: Counter[str] = Counter()
        #: (end, key, rule) of every window, the first to end in front. One that began anew may be there twice.
        self._ends: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()

    def count(self, quotas: Quotas) -> list[Spent]:
        """See CounterStore."""
        now = self._now()
        if quotas[0].sliding:
            with self._lock:
                return [self._slide(quotas[0], now)]
        with self._lock:
            found = [self._window(quota, now) for quota in quotas]
            full = any(_full(quota, used) for quota, (_, used) in zip(quotas, found, strict=True))
            spent = []
            for quota, (until, used) in zip(quotas, found, strict=True):
                if full:
                    used += _full(quota, used)
                else:
                    used += 1
                    if used == 1:
                        self._make_room(now, quota)
                        heapq.heappush(self._ends, (until, quota.key, quota.rule))
                    self._windows[quota.key] = (until, used)
                spent.append(Spent(used, _whole(until - now)))
        return spent

    async def acount(self, quotas: Quotas) -> list[Spent]:
        """See CounterStore."""
        return self.count(quotas)

    def _slide(self, quota: Quota, now: float) -> Spent:
        sliding = Sliding(quota, now)
        until, used = self._windows.get(sliding.key, (sliding.end, 0))
        _, before = self._windows.get(sliding.key_before, (0.0, 0))
        before = min(before, sliding.limit)
        passes = sliding.passes(used, before)
        if passes:
            used += 1
            if used == 1:
                cell = quota._replace(key=sliding.key)
                self._make_room(now, cell)
                heapq.heappush(self._ends, (until, cell.key, cell.rule))
            self._windows[sliding.key] = (until, used)
        return sliding.spent(passes, used, before)

    def _window(self, quota: Quota, now: float) -> tuple[float, int]:
        until, used = self._windows.get(quota.key, (0.0, 0))
        return (until, used) if until > now else (now + quota.window, 0)

    def _make_room(self, now: float, quota: Quota) -> None:
        """Drop windows that are over: two for one that begins, so that no request pays for all of them.

        More only where there is no room otherwise; raises StoreUnavailable where that frees nothing.
        """
        ends, windows, held = self._ends, self._windows, self._held
        dropped = 0
        while ends and ends[0][0] <= now and (dropped < 2 or self._full_for(quota)):
            until, key, rule = heapq.heappop(ends)
            if windows.get(key, (0.0, 0))[0] == until:
                del windows[key]
                held[rule] -= 1
                if not held[rule]:
                    del held[rule]
            dropped += 1
        if self._full_for(quota):
            most = self._size if len(windows) >= self._size else self._share
            raise StoreUnavailable(f"the counters are full ({most} windows)")
        held[quota.rule] += quota.key not in windows

    def _full_for(self, quota: Quota) -> bool:
        if len(self._windows) >= self._size:
            return True
        return self._held[quota.rule] >= self._share and quota.key not in self._windows


REDIS_PREFIX: Final = "hmacgw:count:"
#: One step on the server: count, and have a window that begins end by itself. Arguments are seconds and limit of each
#: key, -1 for none; gives of each what was counted and milliseconds.
_COUNT: Final = """
local full, found = false, {}
for i, key in ipairs(KEYS) do
  local used, limit = tonumber(redis.call('GET', key) or 0), tonumber(ARGV[2 * i])
  found[i] = used
  if limit >= 0 and used >= limit then
    full = true
    found[i] = used + 1
  end
end
local told = {}
for i, key in ipairs(KEYS) do
  if not full then
    found[i] = redis.call('INCR', key)
  end
  local left = redis.call('PTTL', key)
  if left < 0 then
    left = ARGV[2 * i - 1] * 1000
    redis.call('PEXPIRE', key, left)
  end
  told[2 * i - 1] = found[i]
  told[2 * i] = left
end
return told
"""
#: The same for a sliding window, see Sliding. Keys are those of this window and the last; arguments the limit, the
#: length of a window and what is left of this one; gives whether it was counted, and what both hold.
_SLIDE: Final = """
local limit, window, left = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local before = math.min(tonumber(redis.call('GET', KEYS[2]) or 0), limit)
local used = tonumber(redis.call('GET', KEYS[1]) or 0)
if used >= limit or before / window * left + used >= limit then
  return {0, used, before}
end
used = redis.call('INCR', KEYS[1])
if used == 1 then
  redis.call('EXPIRE', KEYS[1], 2 * window)
end
return {1, used, before}
"""
#: The names that Redis knows the scripts by, once it has seen them.
_SHAS: Final = {script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (_COUNT, _SLIDE)}


class RedisCounter:
    """Windows shared by all processes."""

    def __init__(self, url: str, now: Callable[[], float] = time.time, **options: Any) -> None:
        self._clients = RedisClients(url, **options)
        self._now = now

    def count(self, quotas: Quotas) -> list[Spent]:
        """See CounterStore."""
        client = self._clients.blocking
        asked = _asked(quotas, self._now)
        try:
            try:
                found = client.evalsha(_SHAS[asked.script], len(asked.keys), *asked.keys, *asked.numbers)
            except self._clients.unknown_script:
                found = client.eval(asked.script, len(asked.keys), *asked.keys, *asked.numbers)
        except self._clients.errors as error:
            raise unavailable("Redis counter store", error) from error
        return asked.told(found)

    async def acount(self, quotas: Quotas) -> list[Spent]:
        """See CounterStore."""
        client = self._clients.of_loop()
        asked = _asked(quotas, self._now)
        try:
            try:
                found = await client.evalsha(_SHAS[asked.script], len(asked.keys), *asked.keys, *asked.numbers)
            except self._clients.unknown_script:
                found = await client.eval(asked.script, len(asked.keys), *asked.keys, *asked.numbers)
        except self._clients.errors as error:
            raise unavailable("Redis counter store", error) from error
        return asked.told(found)


class _Asked(NamedTuple):
    """What a script is called with, and how its answer reads."""

    script: str
    keys: list[str]
    numbers: list[float]
    told: Callable[[Any], list[Spent]]


def _asked(quotas: Quotas, now: Callable[[], float]) -> _Asked:
    first = quotas[0]
    if first.sliding:
        sliding = Sliding(first, now())
        keys = [REDIS_PREFIX + sliding.key, REDIS_PREFIX + sliding.key_before]
        return _Asked(
            script=_SLIDE,
            keys=keys,
            numbers=[sliding.limit, sliding.window, sliding.left],
            told=lambda found: [sliding.spent(found[0] == 1, int(found[1]), int(found[2]))],
        )
    numbers: list[float] = []
    for quota in quotas:
        numbers += (quota.window, -1 if quota.limit is None else quota.limit)
    return _Asked(_COUNT, [REDIS_PREFIX + quota.key for quota in quotas], numbers, _told)


def _told(found: Any) -> list[Spent]:
    return [Spent(int(used), ceil(int(left) / 1000)) for used, left in zip(found[::2], found[1::2], strict=True)]


class RefusingCounter:
    """Stands where there is no store to count in: nothing is counted, with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def count(self, quotas: Quotas) -> list[Spent]:
        """Raises StoreUnavailable."""
        raise StoreUnavailable(self.reason)

    async def acount(self, quotas: Quotas) -> list[Spent]:
        """Raises StoreUnavailable."""
        raise StoreUnavailable(self.reason)


class Counters:
    """Quotas in the store that they name: this process's memory, the Redis of the settings, or one of their own."""

    def __init__(self, local: CounterStore, shared: CounterStore) -> None:
        self._stores: dict[str | RedisServer, CounterStore] = {"local": local, "redis": shared}

    def count(self, quotas: Quotas) -> list[Spent]:
        """See CounterStore."""
        return self._named(quotas[0].store).count(quotas)

    async def acount(self, quotas: Quotas) -> list[Spent]:
        """See CounterStore."""
        return await self._named(quotas[0].store).acount(quotas)

    def _named(self, name: str | RedisServer) -> CounterStore:
        found = self._stores.get(name)
        if found is None:
            assert isinstance(name, RedisServer)
            if len(self._stores) > MOST_SERVERS:
                # Those of configurations that were changed since; the first two are the settings'.
                del self._stores[next(islice(self._stores, 2, None))]
            found = self._stores[name] = _own(name)
        return found


def _own(server: RedisServer) -> CounterStore:
    if server.password is None:
        return RefusingCounter(f"the password of {server!r} cannot be had")
    host = f"[{server.host}]" if ":" in server.host else server.host
    options: dict[str, Any] = {
        "username": server.username or None,
        "password": server.password or None,
        "socket_connect_timeout": server.timeout,
        "socket_timeout": server.timeout,
    }
    if server.tls and not server.verify:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    try:
        return RedisCounter(f"redis{'s' * server.tls}://{host}:{server.port}/{server.database}", **options)
    except ImportError:
        return RefusingCounter("a limit names a Redis, but the package redis is not installed")


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
