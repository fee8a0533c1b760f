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


def test_a_request_from_before_a_change_does_not_bring_it_back() -> None:
    def told(scene: Scene) -> None:
        before, now = scene.upstream, Upstream("u", scene.upstream.nodes, checks=checks(active={}, passive={}))
        scene.upstream = now
        scene.statuses("a", 500, 500, 500, 500, 500)
        assert scene.chosen() == {"b"}
        scene.health.answered(before, scene.nodes["b"], 500)
        assert scene.chosen() == {"b"}

    run(Scene(), told)


class Drip:
    """A node whose answer's head does not end; `asked` are its probes."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nx: ")
            while not reader.at_eof():
                writer.write(b"y")
                await asyncio.sleep(0.02)
        finally:
            writer.close()


def test_a_head_that_does_not_end_is_a_timeout() -> None:
    async def whole() -> None:
        drip = Drip()
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        nodes = tuple(Node(key, "127.0.0.1", port, 1, Target("127.0.0.1", port)) for key in "ab")
        found = checks(active={"timeout": 0.2, "healthy": {"interval": 10_000}, "unhealthy": {"timeouts": 1}})
        upstream = Upstream("u", nodes, checks=found)
        health = Health(Balancer(), Pool(), lambda: {"u": upstream})
        try:
            health.choose(upstream)
            async with asyncio.timeout(5):
                while not all(mark.ill for mark in health._states["u"].marks.values()):
                    await asyncio.sleep(0.05)
        finally:
            await health.close()
            server.close()

    asyncio.run(whole())


def test_probing_outlives_what_was_not_foreseen() -> None:
    async def whole() -> None:
        drip = Drip()
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        upstream = Upstream(
            "u", (Node("a", "127.0.0.1", port, 1, Target("127.0.0.1", port)),), checks=checks(active={})
        )
        failures = iter([RuntimeError("not foreseen")])

        def upstreams() -> dict[str, object]:
            for failure in failures:
                raise failure
            return {"u": upstream}

        health = Health(Balancer(), Pool(), upstreams)
        try:
            health.choose(upstream)
            async with asyncio.timeout(5):
                while not drip.asked:
                    await asyncio.sleep(0.05)
        finally:
            await health.close()
            server.close()

    asyncio.run(whole())


def test_nodes_that_never_answer_keep_no_other_from_being_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        monkeypatch.setattr("proxy.health.MOST_PROBES", 2)
        slow, other = Drip(), Drip()
        servers = [await asyncio.start_server(each, "127.0.0.1", 0) for each in (slow, other)]
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        quick = {"timeout": 0.2, "healthy": {"interval": 0.1}, "unhealthy": {"interval": 0.1}}
        found = checks(active=quick)
        upstreams: dict[str, object] = {}
        for name, port, keys in (("u", ports[0], "abcd"), ("v", ports[1], "e")):
            target = Target("127.0.0.1", port)
            nodes = tuple(Node(key, "127.0.0.1", port, 1, target) for key in keys)
            upstreams[name] = Upstream(name, nodes, checks=found)
        health = Health(Balancer(), Pool(), lambda: upstreams)
        try:
            for upstream in upstreams.values():
                assert isinstance(upstream, Upstream)
                health.choose(upstream)
            async with asyncio.timeout(5):
                while other.asked < 2:
                    await asyncio.sleep(0.05)
        finally:
            await health.close()
            for server in servers:
                server.close()

    asyncio.run(whole())
