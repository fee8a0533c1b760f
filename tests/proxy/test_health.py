"""health and probes: what reports make of nodes, which nodes get requests, what configurations mean."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hmac_gateway.core.errors import ConfigError
from proxy.balancers import Balancer
from proxy.exchange import ConnectFailed, ReadTimeout, Target, UpstreamBroken
from proxy.health import Health
from proxy.plan import Node, Upstream
from proxy.probes import Checks, compile_checks
from proxy.transport import Pool

#: APISIX's defaults, from its `health_checker` schema.
DEFAULTS: dict[str, Any] = {"active": {}, "passive": {}}


def checks(**sides: Any) -> Checks:
    found = compile_checks(sides)
    assert found is not None
    return found


def test_defaults_are_the_originals() -> None:
    found = checks(**DEFAULTS)
    active, passive = found.active, found.passive
    assert (active.kind, active.timeout, active.method, active.path, active.body) == ("http", 1, "GET", "/", b"")
    assert (active.host, active.port, active.verify, active.headers) == ("", 0, True, ())
    assert (active.seconds_well, active.seconds_ill) == (1, 1)
    limits = active.limits
    assert limits.well == {200, 302} and limits.ill == {429, 404, 500, 501, 502, 503, 504, 505}
    assert (limits.successes, limits.http_failures, limits.tcp_failures, limits.timeouts) == (2, 5, 2, 3)
    assert passive is not None
    assert passive.well == {*range(200, 209), 226, *range(300, 309)} and passive.ill == {429, 500, 503}
    assert (passive.successes, passive.http_failures, passive.tcp_failures, passive.timeouts) == (5, 5, 2, 7)


def test_without_probes_nothing_is_looked_at() -> None:
    assert compile_checks({}) is compile_checks({"passive": {}}) is None
    assert checks(active={}).passive is None


@pytest.mark.parametrize(
    "active",
    [
        {"timeout": 0},
        {"timeout": "x"},
        {"healthy": {"interval": 0}},
        {"unhealthy": {"interval": -1}},
        {"unhealthy": {"http_statuses": 5}},
        {"healthy": []} | {"unhealthy": [1]},
        {"http_path": "/\r\nX: y"},
        {"host": "a\nb"},
        {"req_headers": ["A: b\r\n\r\n"]},
        {"http_path": 5},
    ],
)
def test_what_cannot_be_done_is_refused(active: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="checks"):
        compile_checks({"active": active})


class Scene:
    """An upstream of nodes `a`, `b`, …, whose requests are reported; probes are a long way off."""

    def __init__(self, nodes: str = "ab", **passive: Any) -> None:
        found = tuple(Node(key, "127.0.0.1", 1, 1, Target("127.0.0.1", 1)) for key in nodes)
        quiet = {"healthy": {"interval": 10_000}, "unhealthy": {"interval": 10_000}}
        self.upstream = Upstream("u", found, checks=checks(active=quiet, passive=passive))
        self.nodes = {node.key: node for node in found}
        self.current: dict[str, object] = {"u": self.upstream}
        self.health = Health(Balancer(), Pool(), lambda: self.current)

    def chosen(self) -> set[str]:
        found = [self.health.choose(self.upstream) for _ in range(6)]
        return {node.key for node in found if node is not None}

    def statuses(self, key: str, *statuses: int) -> None:
        for status in statuses:
            self.health.answered(self.upstream, self.nodes[key], status)


def run(scene: Scene, told: Any) -> None:
    async def whole() -> None:
        try:
            told(scene)
        finally:
            await scene.health.close()

    asyncio.run(whole())


def test_failures_take_a_node_out_and_successes_bring_it_back() -> None:
    def told(scene: Scene) -> None:
        scene.statuses("a", 500, 500)
        assert scene.chosen() == {"a", "b"}
        scene.statuses("a", 404, 503)  # 404 says nothing
        assert scene.chosen() == {"b"}
        scene.statuses("a", 200)
        assert scene.chosen() == {"b"}
        scene.statuses("a", 201)
        assert scene.chosen() == {"a", "b"}

    run(Scene(healthy={"successes": 2}, unhealthy={"http_failures": 3}), told)


def test_successes_in_between_make_it_well_again() -> None:
    def told(scene: Scene) -> None:
        scene.statuses("a", 500, 500, 200, 200, 500, 500)
        assert scene.chosen() == {"a", "b"}
        scene.statuses("a", 500)
        assert scene.chosen() == {"b"}

    run(Scene(healthy={"successes": 2}, unhealthy={"http_failures": 3}), told)


def test_each_kind_of_failure_has_its_own_limit_and_none_says_nothing() -> None:
    def told(scene: Scene) -> None:
        health, upstream, nodes = scene.health, scene.upstream, scene.nodes
        for _ in range(9):
            health.failed(upstream, nodes["a"], ReadTimeout("late"))
        assert scene.chosen() == {"a", "b", "c"}
        health.failed(upstream, nodes["a"], ConnectFailed("refused"))
        health.failed(upstream, nodes["b"], UpstreamBroken("cut"))
        assert scene.chosen() == {"a", "b", "c"}
        health.failed(upstream, nodes["b"], ConnectFailed("refused"))
        assert scene.chosen() == {"a", "c"}

    run(Scene("abc", unhealthy={"tcp_failures": 2, "timeouts": 0}), told)


def test_when_all_are_ill_all_are_used() -> None:
    def told(scene: Scene) -> None:
        scene.statuses("a", 500)
        assert scene.chosen() == {"b"}
        assert scene.health.choose(scene.upstream, ["b"]) is None, "a retry does not go to one that is ill"
        scene.statuses("b", 500)
        assert scene.chosen() == {"a", "b"}

    run(Scene(unhealthy={"http_failures": 1}), told)


def test_a_change_of_nodes_keeps_what_is_known_and_a_change_of_checks_does_not() -> None:
    def told(scene: Scene) -> None:
        scene.statuses("a", 500)
        more = (*scene.upstream.nodes, Node("c", "127.0.0.1", 1, 1, Target("127.0.0.1", 1)))
        scene.upstream = Upstream("u", more, checks=scene.upstream.checks)
        assert scene.chosen() == {"b", "c"}
        scene.upstream = Upstream("u", more, checks=checks(active={}, passive={}))
        assert scene.chosen() == {"a", "b", "c"}

    run(Scene(unhealthy={"http_failures": 1}), told)
