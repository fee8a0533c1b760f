"""Replay stores: one True per key, whoever asks; a store that cannot say refuses. On real services."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import environ
import psycopg
import pytest
from django.core import mail
from django.db import connections
from django.test import override_settings

from hmac_gateway.models import ReplayMark
from hmac_gateway.stores import (
    REDIS_PREFIX,
    DatabaseStore,
    MemoryStore,
    RedisStore,
    RefusingStore,
    ReplayStore,
    StoreUnavailable,
    replay_store,
)
from tests.settings import HMAC_GATEWAY
from tests.support.served import free_port

ALIAS = "replay_marks"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def trues(store: ReplayStore, key: str, threads: int = 50) -> int:
    """How many of `threads` that add one key at the same moment are told it was new."""
    barrier = threading.Barrier(threads)

    def add() -> bool:
        barrier.wait()
        try:
            return store.add(key, 60)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return sum(future.result() for future in [pool.submit(add) for _ in range(threads)])


# --- memory ---


def test_memory_tells_a_mark_once_until_it_expires() -> None:
    clock = Clock()
    store = MemoryStore(10, clock)
    assert store.add("a", 60)
    assert store.add("b", 60)
    assert not store.add("a", 60)
    clock.now += 59.9
    assert not store.add("a", 60)
    clock.now += 0.1
    assert store.add("a", 60)
    assert asyncio.run(store.aadd("a", 60)) is False


def test_memory_that_is_full_refuses_and_forgets_nothing() -> None:
    clock = Clock()
    store = MemoryStore(3, clock)
    assert [store.add(key, 60) for key in "abc"] == [True, True, True]
    with pytest.raises(StoreUnavailable, match="full"):
        store.add("d", 60)
    assert not store.add("a", 60), "a full store still knows what it holds"
    clock.now += 60
    assert store.add("d", 60)


def test_memory_with_different_times_to_live_never_forgets_early() -> None:
    clock = Clock()
    store = MemoryStore(10, clock)
    assert store.add("long", 100)
    assert store.add("short", 1)
    clock.now += 50
    assert store.add("short", 100), "expired behind a longer one"
    clock.now += 60
    assert store.add("long", 1)
    assert not store.add("short", 100), "the second life of a key ends by its own time"


def test_memory_keeps_a_mark_longer_for_who_set_it() -> None:
    clock = Clock()
    store = MemoryStore(10, clock)
    assert store.add("a", 60) and store.add("a", 600, longer=True)
    clock.now += 599
    assert store.add("b", 60), "what is over leaves"
    assert not store.add("a", 60)
    clock.now += 1
    assert store.add("a", 60)


def test_memory_with_many_threads() -> None:
    assert trues(MemoryStore(1000), "key") == 1


# --- database ---


@pytest.fixture(scope="module", params=["sqlite", "postgres", "mariadb"])
def database_store(
    request: pytest.FixtureRequest, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., DatabaseStore]]:
    """Makes stores on a database that holds nothing but the table of marks."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('marks') / 'db.sqlite3'}"
        options: dict[str, Any] = {"transaction_mode": "IMMEDIATE", "timeout": 20}
    else:
        url = request.getfixturevalue(f"{request.param}_url")
        options = {}
    given: dict[str, Any] = {**environ.Env.db_url_config(url), "OPTIONS": options}
    connections.settings[ALIAS] = connections.configure_settings({"default": {}, ALIAS: given})[ALIAS]
    with django_db_blocker.unblock():
        with connections[ALIAS].schema_editor() as editor:
            editor.create_model(ReplayMark)
        yield lambda *args: DatabaseStore(ALIAS, *args)
        connections[ALIAS].close()
    del connections[ALIAS]
    del connections.settings[ALIAS]


def test_database_tells_a_mark_once_until_it_expires(database_store: Callable[..., DatabaseStore]) -> None:
    clock = Clock()
    store, other = database_store(clock), database_store(clock)
    assert store.add("a", 60)
    assert not store.add("a", 60)
    assert not other.add("a", 60)
    clock.now += 59
    assert not other.add("a", 60)
    clock.now += 3
    assert other.add("a", 60), "taken over"
    assert not store.add("a", 60)
    assert store.add("b", 60)


def test_database_keeps_a_mark_longer_for_who_set_it(database_store: Callable[..., DatabaseStore]) -> None:
    clock = Clock()
    store = database_store(clock)
    assert store.add("both", 60) and store.add("both", 600, longer=True)
    clock.now += 599
    assert not store.add("both", 60)
    clock.now += 3
    assert store.add("both", 60)


def test_database_prunes_what_is_over_and_nothing_else(database_store: Callable[..., DatabaseStore]) -> None:
    clock = Clock()
    clock.now = 5000.0
    database_store(clock).add("over", 60)
    database_store(clock).add("lives", 600)
    clock.now += 120
    database_store(clock).add("new", 60)
    keys = set(ReplayMark.objects.using(ALIAS).values_list("key", flat=True))
    assert "over" not in keys and {"lives", "new"} <= keys


def test_database_with_many_threads(database_store: Callable[..., DatabaseStore]) -> None:
    store = database_store()
    assert trues(store, "contested") == 1
    # An expired mark that all of them want to take over.
    ReplayMark.objects.using(ALIAS).filter(key="contested").update(expires_at=1)
    assert trues(store, "contested") == 1


def test_database_from_an_event_loop(
    database_store: Callable[..., DatabaseStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(mail, "outbox")  # by which a test run is known, where another thread sees nothing
    store = database_store()

    async def add_all() -> list[bool]:
        return await asyncio.gather(*(store.aadd("loop", 60) for _ in range(20)))

    assert sorted(asyncio.run(add_all())) == [False] * 19 + [True]
    pool = store._threads
    assert pool is not None
    every = threading.Barrier(len(pool._threads))

    def close() -> None:
        every.wait()  # so that each of the pool's threads closes its own
        connections.close_all()

    for _ in range(every.parties):
        pool.submit(close)
    pool.shutdown()


def test_database_that_is_away_refuses(tmp_path: Path, django_db_blocker: Any) -> None:
    given = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "missing" / "db.sqlite3")}
    connections.settings["away"] = connections.configure_settings({"default": {}, "away": given})["away"]
    try:
        with django_db_blocker.unblock(), pytest.raises(StoreUnavailable, match="database replay store failed"):
            DatabaseStore("away").add("a", 60)
    finally:
        del connections["away"]
        del connections.settings["away"]


def test_database_whose_connection_was_cut_comes_back(postgres_url: str, django_db_blocker: Any) -> None:
    given: dict[str, Any] = dict(environ.Env.db_url_config(postgres_url))
    connections.settings["cut"] = connections.configure_settings({"default": {}, "cut": given})["cut"]
    try:
        with django_db_blocker.unblock():
            store = DatabaseStore("cut")
            with connections["cut"].schema_editor() as editor:
                if ReplayMark._meta.db_table not in connections["cut"].introspection.table_names():
                    editor.create_model(ReplayMark)
            assert store.add("before the cut", 60)
            with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [connections["cut"].connection.info.backend_pid])
            assert store.add("after", 60), "what the server has closed is opened again"
            assert not store.add("before the cut", 60)
            connections["cut"].close()
    finally:
        del connections["cut"]
        del connections.settings["cut"]


# --- Redis ---


def test_redis_tells_a_mark_once(redis_url: str) -> None:
    store = RedisStore(redis_url)
    assert store.add("a", 60)
    assert not store.add("a", 60)
    assert not RedisStore(redis_url).add("a", 60)
    assert 0 < store._clients.blocking.ttl(REDIS_PREFIX + "a") <= 60
    store._clients.blocking.close()


def test_redis_keeps_a_mark_longer_for_who_set_it(redis_url: str) -> None:
    store = RedisStore(redis_url)

    async def longer() -> bool:
        told = await store.aadd("later", 6000, longer=True)
        await store._clients._async.pop(asyncio.get_running_loop()).aclose()
        return told

    assert store.add("both", 60) and store.add("both", 600, longer=True)
    assert not store.add("both", 60)
    assert 60 < store._clients.blocking.ttl(REDIS_PREFIX + "both") <= 600
    assert store.add("later", 60) and asyncio.run(longer())
    assert 600 < store._clients.blocking.ttl(REDIS_PREFIX + "later") <= 6000
    store._clients.blocking.close()


def test_redis_with_many_threads(redis_url: str) -> None:
    store = RedisStore(redis_url)
    assert trues(store, "contested") == 1
    store._clients.blocking.close()


def test_redis_from_event_loops(redis_url: str) -> None:
    store = RedisStore(redis_url)

    async def add_all() -> list[bool]:
        told = await asyncio.gather(*(store.aadd("loop", 60) for _ in range(500)))
        await store._clients._async.pop(asyncio.get_running_loop()).aclose()
        return told

    assert sum(asyncio.run(add_all())) == 1
    assert sum(asyncio.run(add_all())) == 0, "another loop has connections of its own and sees the same marks"


def test_redis_whose_connection_was_cut_is_reached_again(redis_url: str) -> None:
    store = RedisStore(redis_url)
    assert store.add("first", 60)
    own = store._clients.blocking.client_id()
    RedisStore(redis_url)._clients.blocking.client_kill_filter(_id=own)
    assert store.add("second", 60)
    assert not store.add("first", 60)
    store._clients.blocking.close()


def test_redis_that_is_away_refuses() -> None:
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailable, match="Redis replay store failed"):
        store.add("a", 60)

    async def add() -> None:
        await store.aadd("a", 60)

    with pytest.raises(StoreUnavailable, match="Redis replay store failed"):
        asyncio.run(add())


# --- which store ---


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("memory", MemoryStore),
        ("database", DatabaseStore),
        ("redis://127.0.0.1/0", RedisStore),
        ("memcache://user:hunter2@host", RefusingStore),
        ("redis://:hunter2@host:port/0", RefusingStore),
    ],
)
def test_the_setting_names_the_store(name: str, kind: type[Any]) -> None:
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "REPLAY_STORE": name}):
        store = replay_store()
    assert type(store) is kind
    if isinstance(store, RefusingStore):
        assert "REPLAY_STORE" in store.reason and "hunter2" not in store.reason
        with pytest.raises(StoreUnavailable):
            store.add("a", 60)


@pytest.mark.parametrize("said_by", ["argument", "setting", "server"])
def test_processes_do_not_share_memory(said_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**HMAC_GATEWAY, "REPLAY_STORE": "memory"}
    if said_by == "setting":
        settings["WORKERS"] = 2
    elif said_by == "server":
        monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with override_settings(HMAC_GATEWAY=settings):
        store = replay_store(2) if said_by == "argument" else replay_store()
    with pytest.raises(StoreUnavailable, match="REPLAY_STORE is memory, which 2 workers do not share"):
        store.add("a", 60)
