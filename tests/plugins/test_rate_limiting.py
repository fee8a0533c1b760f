"""plugins.rate_limiting: windows of the clock, several limits at once, headers and answers, in memory and in Redis."""

from __future__ import annotations

import calendar
import itertools
import json
from typing import Any

import pytest

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.words import answer
from hmac_gateway.counters import Counters, CounterStore, MemoryCounter, RedisCounter, RefusingCounter
from hmac_gateway.plugins import rate_limiting
from hmac_gateway.plugins.base import Facts, Quota, RedisServer
from hmac_gateway.stores import StoreUnavailable

from ..support.engine import credential

#: Sun, 06 Nov 1994 08:49:37.25 GMT
NOW = 784111777.25
ALICE = Identity(Consumer("1", "alice"), credential("k"))
scopes = (f"scope-{number}" for number in itertools.count())


class Lane:
    """One rate-limiting, with a clock and a store."""

    def __init__(self, store: CounterStore | None = None, **config: Any) -> None:
        self.config = rate_limiting.compile(config)
        self.store = store or MemoryCounter(now=lambda: self.now)
        self.now = NOW
        self.scope = next(scopes)

    def quotas(
        self, identity: Identity = ALICE, addr: str = "192.0.2.7", path: str = "/", **headers: str
    ) -> list[Quota]:
        message = Message(
            "GET", path, [(name.replace("_", "-"), text) for name, text in headers.items()], remote_addr=addr
        )
        found = rate_limiting.check(message, self.config, Facts(identity, "r", "s", self.scope), self.now)
        assert isinstance(found, list)
        return found

    def ask(self, **request: Any) -> tuple[int, dict[str, str]]:
        quotas = self.quotas(**request)
        try:
            spent = self.store.count(quotas)
        except StoreUnavailable:
            spent = None
        headers, refused = rate_limiting.counted(self.config, quotas, spent)
        return (200 if refused is None else answer(refused).status), dict(headers)


def test_headers_until_it_is_used_up() -> None:
    lane = Lane(minute=2)
    first = {
        "X-RateLimit-Limit-Minute": "2",
        "X-RateLimit-Remaining-Minute": "1",
        "RateLimit-Limit": "2",
        "RateLimit-Remaining": "1",
        "RateLimit-Reset": "23",
    }
    assert lane.ask() == (200, first)
    last = first | {"X-RateLimit-Remaining-Minute": "0", "RateLimit-Remaining": "0"}
    assert lane.ask() == (200, last)
    assert lane.ask() == lane.ask() == (429, last | {"Retry-After": "23"})
    lane.now += 22.5
    assert lane.ask()[0] == 429 and lane.ask()[1]["Retry-After"] == "1"
    lane.now += 0.5
    assert lane.ask() == (200, first | {"RateLimit-Reset": "60"}), "08:50:00.25: another minute"


@pytest.mark.parametrize(
    ("period", "began", "ends"),
    [
        ("second", "1994-11-06 08:49:37", "1994-11-06 08:49:38"),
        ("minute", "1994-11-06 08:49:00", "1994-11-06 08:50:00"),
        ("hour", "1994-11-06 08:00:00", "1994-11-06 09:00:00"),
        ("day", "1994-11-06 00:00:00", "1994-11-07 00:00:00"),
        ("month", "1994-11-01 00:00:00", "1994-12-01 00:00:00"),
        ("year", "1994-01-01 00:00:00", "1995-01-01 00:00:00"),
    ],
)
def test_windows_are_the_calendars(period: str, began: str, ends: str) -> None:
    def seconds(text: str) -> int:
        day, time = text.split(" ")
        year, month, number = map(int, day.split("-"))
        hour, minute, second = map(int, time.split(":"))
        return calendar.timegm((year, month, number, hour, minute, second))

    assert rate_limiting.window_of(period, NOW) == (seconds(began), seconds(ends))
    assert rate_limiting.window_of(period, seconds(ends) - 0.01) == (seconds(began), seconds(ends))
    assert rate_limiting.window_of(period, seconds(ends))[0] == seconds(ends)


def test_december_ends_in_january() -> None:
    december = calendar.timegm((1994, 12, 31, 23, 59, 59))
    for period in ("month", "year"):
        assert rate_limiting.window_of(period, december)[1] == december + 1


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield None
        return
    made = RedisCounter(request.getfixturevalue("redis_url"))
    yield made
    made._clients.blocking.close()


def test_what_one_limit_refuses_no_other_counts(store: Any) -> None:
    lane = Lane(store, second=1, minute=3, hour=10)
    assert lane.ask()[0] == 200
    for _ in range(5):
        status, headers = lane.ask()
        assert status == 429
        assert (headers["X-RateLimit-Remaining-Minute"], headers["X-RateLimit-Remaining-Hour"]) == ("2", "9")
        assert headers["RateLimit-Limit"] == "1" and headers["Retry-After"] == "1"
    for left in ("1", "0"):
        lane.now += 1
        status, headers = lane.ask()
        assert (status, headers["X-RateLimit-Remaining-Minute"]) == (200, left)
    lane.now += 1
    status, headers = lane.ask()
    assert status == 429 and headers["X-RateLimit-Remaining-Second"] == "1"
    assert headers["Retry-After"] == headers["RateLimit-Reset"] == "20", "the longest of those that are used up"


def test_of_equals_the_longest_window_is_told() -> None:
    lane = Lane(second=1, minute=1)
    assert lane.ask()[1]["RateLimit-Reset"] == "23"
    lane = Lane(second=1, minute=2)
    assert lane.ask()[1]["RateLimit-Reset"] == "1"


BOB = Identity(Consumer("2", "bob"), credential("k2"))


@pytest.mark.parametrize(
    ("config", "same", "other"),
    [
        ({}, {"addr": "192.0.2.8"}, {"identity": BOB}),
        ({}, {"identity": NOBODY, "addr": "1"}, {"identity": NOBODY, "addr": "2"}),
        ({"limit_by": "credential"}, {"addr": "192.0.2.8"}, {"identity": ALICE._replace(credential=credential("k3"))}),
        ({"limit_by": "ip"}, {"identity": BOB}, {"addr": "192.0.2.8"}),
        ({"limit_by": "service"}, {"identity": BOB, "addr": "192.0.2.8"}, None),
        ({"limit_by": "header", "header_name": "X-Tenant"}, {"x_tenant": "a", "identity": BOB}, {"x_tenant": "b"}),
        ({"limit_by": "path", "path": "/a"}, {"path": "/a?x", "addr": "192.0.2.8"}, {"path": "/b"}),
    ],
)
def test_what_is_counted_by(config: dict[str, Any], same: dict[str, Any], other: dict[str, Any] | None) -> None:
    lane = Lane(minute=5, **config)
    base = {key: value for key, value in same.items() if key not in ("identity", "addr")}
    base |= {"identity": NOBODY, "addr": "1"} if same.get("identity") is NOBODY else {}
    assert lane.quotas(**base) == lane.quotas(**same)
    if other is not None:
        assert lane.quotas(**base) != lane.quotas(**other)


def test_a_header_cannot_reach_what_is_counted_by_address() -> None:
    lane = Lane(minute=5, limit_by="header", header_name="x-tenant")
    assert lane.quotas(addr="192.0.2.7") != lane.quotas(addr="192.0.2.9", x_tenant="192.0.2.7")
    assert lane.quotas(addr="192.0.2.7") != lane.quotas(addr="192.0.2.9", x_tenant="ip:192.0.2.7")
    for text in ("x" * 10_000, "\xff"):
        (quota,) = lane.quotas(x_tenant=text)
        assert len(quota.key) < 120 and quota.key.isascii()


def test_answers() -> None:
    def refusal(accept: str | None = None, **config: Any) -> tuple[int, bytes, str]:
        lane = Lane(minute=1, **config)
        quotas = lane.quotas()
        lane.store.count(quotas)
        _, refused = rate_limiting.counted(lane.config, quotas, lane.store.count(quotas))
        assert refused is not None
        status, body, headers = answer(refused, "id-1", accept)
        return status, body, dict(headers)["content-type"]

    status, body, kind = refusal()
    assert (status, json.loads(body)) == (429, {"message": "API rate limit exceeded", "request_id": "id-1"})
    assert kind == "application/json; charset=utf-8"
    assert refusal("text/plain") == (429, b"API rate limit exceeded\nrequest_id: id-1\n", "text/plain; charset=utf-8")
    status, body, _ = refusal(error_code=503, error_message="slow {down}")
    assert (status, json.loads(body)["message"]) == (503, "slow {down}")


def test_headers_may_be_hidden() -> None:
    lane = Lane(minute=1, hide_client_headers=True)
    assert [lane.ask(), lane.ask()] == [(200, {}), (429, {})]


def test_where_nobody_can_count() -> None:
    away = Counters(MemoryCounter(), RefusingCounter("away"))
    for policy in ("redis", "cluster"):
        assert Lane(away, minute=1, policy=policy).ask() == (200, {})
        assert Lane(away, minute=1, policy=policy, fault_tolerant=False).ask() == (500, {})
    assert Lane(away, minute=1).ask()[0] == 200


@pytest.mark.parametrize(
    ("config", "store"),
    [
        ({}, "local"),
        ({"policy": "redis"}, "redis"),
        ({"policy": "cluster"}, "redis"),
        ({"policy": "local", "redis": {"host": "other"}}, "local"),
        (
            {"policy": "redis", "redis": {"host": "other", "password": "hush", "ssl": True, "timeout": 500}},
            RedisServer("other", 6379, 0, "", "hush", True, False, 0.5),
        ),
        (
            {"policy": "redis", "redis_host": "other", "redis_port": 7, "redis_database": 3, "redis_username": "u"},
            RedisServer("other", 7, 3, "u", "", False, False, 2.0),
        ),
        ({"policy": "redis", "redis_host": "other", "redis_password": "********"}, None),
    ],
)
def test_where_it_counts(config: dict[str, Any], store: Any) -> None:
    (quota,) = Lane(minute=1, **config).quotas()
    if store is None:
        assert isinstance(quota.store, RedisServer) and quota.store.password is None
    else:
        assert quota.store == store


def test_fractions_of_requests_are_rounded_up() -> None:
    lane = Lane(minute=1.5)
    assert [lane.ask()[0] for _ in range(3)] == [200, 200, 429]
