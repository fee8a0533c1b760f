"""Counters: exact under many threads and loops, fixed windows from the first request, bounded, away where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import override_settings

from hmac_gateway import counters
from hmac_gateway.counters import REDIS_PREFIX, Counters, MemoryCounter, RedisCounter, RefusingCounter, counter_store
from hmac_gateway.plugins.base import Quota, RedisServer, Spent
from hmac_gateway.stores import StoreUnavailable
from tests.support.served import free_port


def one(store: Any, quota: Quota) -> Spent:
    (spent,) = store.count([quota])
    assert isinstance(spent, Spent)
    return spent


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_window_begins_with_its_first_request_and_does_not_move() -> None:
    clock = Clock()
    store = MemoryCounter(now=clock)
    quota = Quota("k", 10)
    assert one(store, quota) == Spent(1, 10)
    clock.now += 9.5
    assert one(store, quota) == Spent(2, 1)
    assert one(store, Quota("other", 10)) == Spent(1, 10)
    clock.now += 0.5
    assert one(store, quota) == Spent(1, 10)


def test_a_window_is_never_longer_than_it_is() -> None:
    clock = Clock()
    store = MemoryCounter(now=clock)
    clock.now = 1000.4
    assert clock.now + 60 - clock.now > 60, "so floating point has it"
    assert one(store, Quota("k", 60)) == Spent(1, 60)
    clock.now = 1000.01
    assert (6 - clock.now % 6) * 100 > 199
    assert one(store, Quota("k", 6, limit=2, sliding=True)) == Spent(1, 1.99)


def test_a_full_memory_refuses_and_forgets_only_what_is_over() -> None:
    clock = Clock()
    store = MemoryCounter(3, now=clock)
    for number in range(3):
        one(store, Quota(f"{number}", 10 + number))
    assert one(store, Quota("0", 10)).used == 2, "known windows count on"
    with pytest.raises(StoreUnavailable, match="full"):
        one(store, Quota("new", 10))
    clock.now += 10
    assert one(store, Quota("new", 10)).used == 1
    assert one(store, Quota("1", 11)).used == 2 and one(store, Quota("2", 12)).used == 2


def test_a_rule_has_a_share_of_memory_and_no_more() -> None:
    clock = Clock()
    store = MemoryCounter(100, now=clock, share=2)
    for number in range(2):
        one(store, Quota(f"{number}", 10, rule="by header"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"full \(2 windows\)"):
            one(store, Quota("another", 10, rule="by header"))
    assert one(store, Quota("bob", 10, rule="by consumer")).used == 1
    clock.now += 10
    for _ in range(3):  # what is over makes room, for a window that begins anew and for a new one
        assert one(store, Quota("0", 10, rule="by header")).used == 1
        assert one(store, Quota("another", 10, rule="by header")).used == 1
        with pytest.raises(StoreUnavailable):
            one(store, Quota("1", 10, rule="by header"))
        clock.now += 10


def test_no_request_pays_for_all_windows_and_none_stays() -> None:
    clock = Clock()
    store = MemoryCounter(10_000, now=clock)
    for number in range(10_000):
        one(store, Quota(f"{number}", 1))
    clock.now += 1
    before = len(store._windows)
    one(store, Quota("x", 1))
    assert before - len(store._windows) <= 2
    for _ in range(30):
        clock.now += 1
        for number in range(1000):
            one(store, Quota(f"{number}", 1))
    assert len(store._windows) <= 1001 and len(store._ends) <= 1001


def counts(store: Any, quota: Quota, number: int = 400) -> list[int]:
    with ThreadPoolExecutor(16) as threads:
        return sorted(threads.map(lambda _: one(store, quota).used, range(number)))


def test_memory_with_many_threads() -> None:
    assert counts(MemoryCounter(), Quota("k", 60)) == [*range(1, 401)]


def test_redis_with_many_threads_and_its_window(redis_url: str) -> None:
    store = RedisCounter(redis_url)
    assert counts(store, Quota("k", 60, "redis")) == [*range(1, 401)]
    client = store._clients.blocking
    assert 50 < client.ttl(REDIS_PREFIX + "k") <= 60
    client.pexpire(REDIS_PREFIX + "k", 2500)
    assert one(store, Quota("k", 60, "redis")) == Spent(401, 3), "later requests do not prolong it"
    client.persist(REDIS_PREFIX + "k")
    assert one(store, Quota("k", 60, "redis")) == Spent(402, 60), "one without an end gets one"
    client.script_flush()
    assert one(store, Quota("k", 60, "redis")).used == 403
    client.close()


def test_redis_from_event_loops(redis_url: str) -> None:
    store = RedisCounter(redis_url)

    async def count_all() -> list[int]:
        told = await asyncio.gather(*(store.acount([Quota("loop", 60, "redis")]) for _ in range(200)))
        await store._clients._async.pop(asyncio.get_running_loop()).aclose()
        return sorted(spent.used for (spent,) in told)

    assert asyncio.run(count_all()) == [*range(1, 201)]
    assert asyncio.run(count_all()) == [*range(201, 401)]


#: A limit of 2 in 10 s: when it is asked, and what its store says, by the formulas of APISIX's
#: limit-count/sliding-window and hand.
SLID = [
    (1000.0, Spent(1, 10)),
    (1004.995, Spent(2, 5.01)),
    (1006.0, Spent(3, 4)),  # used up: until the clock's window is over
    (1010.0, Spent(3, 0)),  # 2 × 10/10 from before
    (1011.0, Spent(2, 9)),  # 2 × 9/10 from before, and this one
    (1012.5, Spent(3, 2.5)),  # 2 × 7.5/10 + 1; at 1015 it is 2 × 5/10 + 1
    (1015.0, Spent(3, 0)),
    (1015.1, Spent(2, 4.9)),
    (1030.0, Spent(1, 10)),
]


def test_a_sliding_window(redis_url: str) -> None:
    clock = Clock()
    memory, shared = MemoryCounter(now=clock), RedisCounter(redis_url, now=clock)
    asked = Quota("slid", 10, limit=2, rule="r", sliding=True)
    for now, spent in SLID:
        clock.now = now
        assert one(memory, asked) == one(shared, asked) == pytest.approx(spent), now
    assert len(memory._windows) <= 2
    client = shared._clients.blocking
    assert 0 < client.ttl(f"{REDIS_PREFIX}slid:10:103") <= 20
    assert one(shared, asked._replace(window=20)).used == 1, "another length is another window"

    async def from_a_loop() -> list[Spent]:
        client.script_flush()
        found = await shared.acount([asked])
        await shared._clients._async.pop(asyncio.get_running_loop()).aclose()
        return found

    assert asyncio.run(from_a_loop()) == [Spent(2, 10)]
    client.close()


def test_sliding_windows_are_exact_and_bounded() -> None:
    store = MemoryCounter(3, now=Clock())
    assert counts(store, Quota("k", 60, limit=50, sliding=True), 100) == [*range(1, 51), *[51] * 50]
    for number in range(2):
        one(store, Quota(f"{number}", 60, limit=1, sliding=True))
    with pytest.raises(StoreUnavailable, match="full"):
        one(store, Quota("new", 60, limit=1, sliding=True))


@pytest.fixture
def own(redis_url: str) -> Iterator[RedisServer]:
    """The same Redis, as a user with a password of its own."""
    import redis

    client = redis.Redis.from_url(redis_url)
    client.acl_setuser("limits", enabled=True, passwords=["+hush"], keys=["hmacgw:count:*"], commands=["+@all"])
    yield RedisServer("127.0.0.1", 6379, int(redis_url.rpartition("/")[2]), "limits", "hush", False, False, 2.0)
    client.acl_deluser("limits")
    client.close()


def test_a_redis_that_the_configuration_names(own: RedisServer) -> None:
    workers = [Counters(MemoryCounter(), RefusingCounter("not this one")) for _ in range(2)]
    assert [one(store, Quota("own", 60, own)).used for store in workers * 2] == [1, 2, 3, 4]
    assert one(workers[0], Quota("own", 60)).used == 1

    async def from_a_loop() -> list[Spent]:
        found = await workers[0].acount([Quota("own", 60, own)])
        store = workers[0]._stores[own]
        assert isinstance(store, RedisCounter)
        await store._clients._async.pop(asyncio.get_running_loop()).aclose()
        return found

    assert asyncio.run(from_a_loop()) == [Spent(5, 60)]
    for other in (own._replace(password="hash"), own._replace(password=None), own._replace(port=free_port())):
        with pytest.raises(StoreUnavailable) as found:
            one(workers[0], Quota("own", 60, other))
        assert "hush" not in str(found.value) and "hash" not in str(found.value)


def test_servers_that_are_no_longer_named_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "MOST_SERVERS", 3)
    store = Counters(MemoryCounter(), RefusingCounter("the settings'"))
    for number in range(9):
        with pytest.raises(StoreUnavailable):
            one(store, Quota("k", 1, RedisServer(f"{number}", 1, 0, "", None, False, False, 1.0)))
        assert len(store._stores) <= 4 and one(store, Quota(f"{number}", 60)).used == 1
    with pytest.raises(StoreUnavailable, match="the settings'"):
        one(store, Quota("k", 1, "redis"))


def test_redis_that_is_away() -> None:
    store = RedisCounter(f"redis://:hush@127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailable, match="Redis counter store failed") as found:
        one(store, Quota("k", 1, "redis"))
    assert "hush" not in str(found.value)
    with pytest.raises(StoreUnavailable):
        asyncio.run(store.acount([Quota("k", 1, "redis")]))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "neither"),
        ({"REPLAY_STORE": "database"}, "neither"),
        ({"COUNTER_STORE": "memcached://h:hush@x"}, "'memcached'; allowed"),
        ({"COUNTER_STORE": "redis://h:notaport/x"}, "not an address"),
        ({"REPLAY_STORE": "redis://127.0.0.1:1/0"}, "Redis counter store failed"),
        ({"REPLAY_STORE": "memory", "COUNTER_STORE": "redis://127.0.0.1:1/0"}, "Redis counter store failed"),
    ],
)
def test_the_store_that_settings_name(settings: dict[str, Any], why: str) -> None:
    with override_settings(HMAC_GATEWAY=settings):
        store = counter_store()
    assert one(store, Quota("k", 1)).used == 1, "memory is always there"
    with pytest.raises(StoreUnavailable, match=why) as found:
        one(store, Quota("k", 1, "redis"))
    assert "hush" not in str(found.value)


def test_each_quota_in_its_store() -> None:
    store = Counters(MemoryCounter(), RefusingCounter("away"))
    assert asyncio.run(store.acount([Quota("k", 1)]))[0].used == 1
    with pytest.raises(StoreUnavailable, match="away"):
        asyncio.run(store.acount([Quota("k", 1, "redis")]))
