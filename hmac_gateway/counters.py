"""How many requests a window has seen, for rules that limit them: in memory or in Redis, each count one atomic step.

Asked by adapters for the quotas that rules name. Windows are fixed and begin with their first request (APISIX).
Imports `stores` for its errors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from .plugins.base import Quota, Spent
from .stores import StoreUnavailable

#: Windows held at once; a full memory refuses to count rather than forgets.
MOST_WINDOWS: Final = 100_000


class CounterStore(Protocol):
    """Counts requests in windows."""

    def count(self, quota: Quota) -> Spent:
        """Count one request; raises StoreUnavailable."""

    async def acount(self, quota: Quota) -> Spent:
        """The same from an event loop, without blocking it."""


class MemoryCounter:
    """Windows of one process."""

    def __init__(self, size: int = MOST_WINDOWS, now: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._now = now
        self._windows: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def count(self, quota: Quota) -> Spent:
        now = self._now()
        with self._lock:
            until, used = self._windows.get(quota.key, (0.0, 0))
            if until <= now:
                if len(self._windows) >= self._size:
                    self._forget(now)
                until, used = now + quota.window, 0
            self._windows[quota.key] = (until, used + 1)
        return Spent(used + 1, max(0, round(until - now)))

    async def acount(self, quota: Quota) -> Spent:
        return self.count(quota)

    def _forget(self, now: float) -> None:
        """Drop the windows that are over; raises StoreUnavailable where that frees nothing."""
        for key in [key for key, (until, _) in self._windows.items() if until <= now]:
            del self._windows[key]
        if len(self._windows) >= self._size:
            raise StoreUnavailable(f"the counters are full ({self._size} windows)")
