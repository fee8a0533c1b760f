"""Rows to routers: what is inherited, what overrides what, and what is left out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hmac_gateway.core.errors import ConfigError
from hmac_gateway.routing import Route
from proxy.balancers import Balancer
from proxy.compile import MODELS, Compiler, next_expiry
from proxy.plan import Upstream
from proxy.transport import Timeouts

NOW = 1_000_000.0
PAST, FUTURE = (datetime.fromtimestamp(NOW + off, UTC) for off in (-1, 1))
NO_TIMEOUTS: dict[str, Any] = {"timeout_connect": None, "timeout_send": None, "timeout_read": None}


class Rows(dict[str, dict[Any, dict[str, Any]]]):
    """Tables as the runtime keeps them; each method adds a row with a model's defaults and returns it."""

    def __init__(self) -> None:
        super().__init__({name: {} for name in MODELS})

    def _add(self, table: str, row: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
        row = {"enabled": True, "expires_at": None, "dialect": "apisix", "name": "", **row, **changed}
        self[table][row["id"]] = row
        return row

    def upstream(self, id: str = "u", **changed: Any) -> dict[str, Any]:
        row = {"id": id, "scheme": "http", "type": "roundrobin", "pass_host": "pass", "upstream_host": "", "tls": {}}
        more: dict[str, Any] = {
            "retries": None,
            "retry_timeout": None,
            "keepalive": {},
            "checks": {},
            "extra": {},
            **NO_TIMEOUTS,
        }
        return self._add("upstream", {**row, "hash_on": "", "key": "", **more}, changed)

    def node(self, host: str = "n", weight: int = 1, **changed: Any) -> dict[str, Any]:
        row = {"upstream_id": "u", "host": host, "port": 80, "weight": weight, "priority": 0}
        row["marked_unhealthy"] = False
        return self._add("node", {"id": f"{changed.get('upstream_id', 'u')}-{host}", **row}, changed)

    def service(self, id: str = "s", **changed: Any) -> dict[str, Any]:
        row = {"id": id, "upstream_id": None, "hosts": [], "path_prefix": "", "strip_path_prefix": True}
        row |= {"protocol": "", "host": "", "port": None, "path": "", "retries": None, "extra": {}}
        return self._add("service", {**row, **NO_TIMEOUTS}, changed)

    def bundle(self, id: str = "b", **changed: Any) -> dict[str, Any]:
        return self._add("pluginconfig", {"id": id, "is_global": False}, changed)

    def route(self, id: str = "r", **changed: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"id": id, "service_id": None, "upstream_id": None, "plugin_config_id": None}
        row |= {"this_site": False, "paths": ["/*"], "hosts": [], "methods": [], "vars": [], "remote_addrs": []}
        row |= {"headers": {}, "protocols": ["http", "https"], "regex_priority": 0, "strip_path": False, "extra": {}}
        row |= {"preserve_host": False, "path_handling": "v0"}
        return self._add("route", {**row, "priority": 0, "created_at": 0, **NO_TIMEOUTS}, changed)

    def plugin(self, place: str, config: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
        row = {"id": f"p-{place}", "name": "hmac-auth", "place": place, "config": config or {}, "priority": None}
        row |= {"protocols": [], "legacy": False}
        return self._add("plugin", row, changed)


def compiled(rows: Rows) -> Compiler:
    compiler = Compiler()
    compiler.update(rows, NOW)
    return compiler


def only(rows: Rows) -> Route:
    (route,) = compiled(rows).routes.routes
    return route


def realms(route: Route) -> list[str]:
    return [step.common.challenge.partition('"')[2].rstrip('"') for step in route.pipeline]


def realm(name: str, **more: Any) -> dict[str, Any]:
    return {"realm": name, **more}


@pytest.fixture
def rows() -> Rows:
    found = Rows()
    found.upstream()
    found.node()
    return found


# --- plugins ---


def test_route_goes_before_plugin_config_before_service(rows: Rows) -> None:
    rows.service()
    rows.bundle()
    rows.route(service_id="s", plugin_config_id="b")
    assert realms(only(rows)) == []
    rows.plugin("service:s", realm("service"))
    assert realms(only(rows)) == ["service"]
    rows.plugin("bundle:b", realm("bundle"))
    assert realms(only(rows)) == ["bundle"]
    rows.plugin("route:r", realm("route"))
    assert realms(only(rows)) == ["route"]


def test_plugins_of_other_objects_are_not_this_routes(rows: Rows) -> None:
    rows.service()
    rows.bundle()
    rows.route()
    for place in ("service:s", "bundle:b", "route:other", "consumer:x"):
        rows.plugin(place)
    assert realms(only(rows)) == []


@pytest.mark.parametrize("off", [{"config": {"_meta": {"disable": True}}}])
@pytest.mark.parametrize("place", ["bundle:b", "route:r"])
def test_switched_off_plugin_hides_the_less_specific_one(rows: Rows, off: dict[str, Any], place: str) -> None:
    rows.service()
    rows.bundle()
    rows.route(service_id="s", plugin_config_id="b")
    rows.plugin("service:s", realm("service"))
    rows.plugin(place, **off)
    assert realms(only(rows)) == []


def test_disabled_or_expired_plugin_row_hides_nothing(rows: Rows) -> None:
    rows.service()
    rows.route(service_id="s")
    rows.plugin("service:s", realm("service"))
    rows.plugin("route:r", realm("route"), enabled=False)
    assert realms(only(rows)) == ["service"]
    rows.plugin("route:r", realm("route"), expires_at=PAST)
    assert realms(only(rows)) == ["service"]
    rows.plugin("route:r", realm("route"), expires_at=FUTURE)
    assert realms(only(rows)) == ["route"]


def test_global_rules_run_in_addition_and_where_no_route_matches(rows: Rows) -> None:
    rows.bundle("g", is_global=True)
    rows.plugin("bundle:g", realm("everywhere"))
    rows.route()
    rows.plugin("route:r", realm("route"))
    compiler = compiled(rows)
    assert sorted(realms(compiler.routes.routes[0])) == ["everywhere", "route"]
    assert realms(compiler.elsewhere["apisix"]) == ["everywhere"]


@pytest.mark.parametrize("change", [{"enabled": False}, {"expires_at": PAST}, {"is_global": False}])
def test_global_rule_that_is_off_runs_nowhere(rows: Rows, change: dict[str, Any]) -> None:
    rows.bundle("g", **{"is_global": True, **change})
    rows.plugin("bundle:g", realm("everywhere"))
    rows.route()
    compiler = compiled(rows)
    assert realms(compiler.routes.routes[0]) == []
    assert compiler.elsewhere == {}


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({}, 2530),
        ({"config": {"_meta": {"priority": 7}}}, 7),
        ({"config": {"_meta": {"priority": 7}}, "priority": 9}, 9),
    ],
)
def test_priority_is_the_rows_then_metas_then_the_plugins(rows: Rows, route: dict[str, Any], expected: int) -> None:
    rows.route()
    rows.plugin("route:r", **route)
    assert [step.priority for step in only(rows).pipeline] == [expected]


@pytest.mark.parametrize("priority", [1, 9999])
def test_global_rules_run_first_whatever_their_priority(rows: Rows, priority: int) -> None:
    rows.bundle("g", is_global=True)
    rows.plugin("bundle:g", realm("everywhere", _meta={"priority": priority}))
    rows.route()
    rows.plugin("route:r", realm("route"))
    assert realms(only(rows)) == ["everywhere", "route"]


def test_steps_are_kept_while_their_row_is_the_same_object(rows: Rows) -> None:
    rows.route()
    rows.plugin("route:r", realm("one"))
    compiler = compiled(rows)
    first = compiler.routes.routes[0].pipeline[0]
    rows.node("other")
    compiler.update(rows, NOW)
    assert compiler.routes.routes[0].pipeline[0] is first
    # An equal row that was read anew may differ in what is not compared: it is compiled again.
    rows["plugin"]["p-route:r"] = dict(rows["plugin"]["p-route:r"])
    compiler.update(rows, NOW)
    again = compiler.routes.routes[0].pipeline[0]
    assert again is not first
    rows.plugin("route:r", realm("two"))
    compiler.update(rows, NOW)
    assert realms(compiler.routes.routes[0]) == ["two"]


def test_step_of_a_plugin_that_went_is_forgotten(rows: Rows) -> None:
    rows.route()
    rows.plugin("route:r")
    compiler = compiled(rows)
    rows["plugin"].clear()
    compiler.update(rows, NOW)
    assert compiler._plugins == {}
    assert compiler.routes.routes[0].pipeline == ()


# --- routes and services ---


def test_upstream_of_the_route_goes_before_the_services(rows: Rows) -> None:
    rows.upstream("own")
    rows.service(upstream_id="u")
    rows.route(service_id="s")
    assert only(rows).target.upstream.id == "u"
    rows.route(service_id="s", upstream_id="own")
    assert only(rows).target.upstream.id == "own"
    rows.service(upstream_id=None)
    rows.route(service_id="s")
    assert only(rows).target.upstream is None


def test_hosts_are_inherited_unless_the_route_names_its_own(rows: Rows) -> None:
    rows.service(hosts=["s.test"])
    rows.route(service_id="s")
    assert only(rows).hosts == ("s.test",)
    rows.route(service_id="s", hosts=["r.test", "*.r.test"])
    assert only(rows).hosts == ("r.test", "*.r.test")


@pytest.mark.parametrize(
    ("prefix", "strip", "paths", "stripped"),
    [
        ("", True, ("/a", "/b*"), ""),
        ("/api", True, ("/api/a", "/api/b*"), "/api"),
        ("/api/", True, ("/api/a", "/api/b*"), "/api"),
        ("/api", False, ("/api/a", "/api/b*"), ""),
        ("/", True, ("/a", "/b*"), ""),
    ],
)
def test_path_prefix_of_a_service(rows: Rows, prefix: str, strip: bool, paths: tuple[str, ...], stripped: str) -> None:
    rows.service(path_prefix=prefix, strip_path_prefix=strip)
    rows.route(service_id="s", paths=["/a", "/b*"])
    route = only(rows)
    assert (route.paths, route.target.strip_prefix) == (paths, stripped)


@pytest.mark.parametrize("change", [{"enabled": False}, {"expires_at": PAST}])
def test_route_of_a_service_that_is_off_does_not_exist(rows: Rows, change: dict[str, Any]) -> None:
    rows.service(upstream_id="u", **change)
    rows.route(service_id="s")
    assert compiled(rows).routes.routes == ()


@pytest.mark.parametrize("change", [{"enabled": False}, {"expires_at": PAST}])
def test_route_that_is_off_does_not_exist(rows: Rows, change: dict[str, Any]) -> None:
    rows.route(**change)
    rows.route("other", expires_at=FUTURE)
    assert [route.id for route in compiled(rows).routes.routes] == ["other"]


def test_routes_of_this_site_are_the_middlewares(rows: Rows) -> None:
    rows.route("gateway")
    rows.route("site", this_site=True)
    compiler = compiled(rows)
    assert [route.id for route in compiler.routes.routes] == ["gateway"]
    assert [route.id for route in compiler.site.routes] == ["site"]


def test_timeouts_go_one_by_one_from_route_over_service_to_upstream(rows: Rows) -> None:
    rows.service(upstream_id="u")
    rows.route(service_id="s")
    assert only(rows).target.timeouts == Timeouts(60, 60, 60)
    rows.upstream(timeout_connect=1, timeout_send=2, timeout_read=3)
    assert only(rows).target.timeouts == Timeouts(1, 2, 3)
    rows.service(upstream_id="u", timeout_send=20, timeout_read=30)
    assert only(rows).target.timeouts == Timeouts(1, 20, 30)
    rows.route(service_id="s", timeout_read=300)
    assert only(rows).target.timeouts == Timeouts(1, 20, 300)
    rows["upstream"].clear()
    rows.service(upstream_id=None, timeout_send=20)
    assert only(rows).target.timeouts == Timeouts(60, 20, 300)


def test_addresses_and_order(rows: Rows) -> None:
    rows.route(remote_addrs=["10.0.0.1/8", "::1"], methods=["GET"], priority=3, created_at=5)
    route = only(rows)
    assert [str(network) for network in route.networks] == ["10.0.0.0/8", "::1/128"]
    assert (route.methods, route.priority, route.order) == (frozenset({"GET"}), 3, (5, "r"))


# --- upstreams ---


def upstream_of(rows: Rows) -> Upstream:
    return compiled(rows).upstreams["u"]


def hosts(upstream: Upstream) -> list[str]:
    return [node.host for node in upstream.nodes]


def test_nodes_without_weight_get_nothing(rows: Rows) -> None:
    rows.node("idle", weight=0)
    rows.node("busy", weight=2)
    assert hosts(upstream_of(rows)) == ["busy", "n"]


def test_nodes_without_weight_are_alike_where_there_are_no_others(rows: Rows) -> None:
    rows.node("n", weight=0)
    rows.node("m", weight=0)
    found = upstream_of(rows)
    assert [(node.host, node.weight) for node in found.nodes] == [("m", 1), ("n", 1)]
    balancer = Balancer()
    assert {node.host for node in (balancer.choose(found), balancer.choose(found)) if node} == {"m", "n"}


def test_disabled_nodes_are_not_there_at_all(rows: Rows) -> None:
    rows.node("n", weight=0)
    rows.node("off", enabled=False)
    rows.node("elsewhere", upstream_id="other")
    assert hosts(upstream_of(rows)) == ["n"]
    rows.node("n", enabled=False)
    assert hosts(upstream_of(rows)) == []


def test_better_nodes_stand_first(rows: Rows) -> None:
    rows.node("z", priority=10)
    rows.node("a", priority=-1)
    assert hosts(upstream_of(rows)) == ["z", "n", "a"]


@pytest.mark.parametrize(("retries", "expected"), [(None, 2), (0, 0), (7, 7)])
def test_retries_are_one_per_further_node_unless_given(rows: Rows, retries: int | None, expected: int) -> None:
    rows.upstream(retries=retries)
    rows.node("m")
    rows.node("o")
    rows.node("idle", weight=0)
    assert upstream_of(rows).retries == expected


def test_node_keys_do_not_depend_on_the_snapshot(rows: Rows) -> None:
    compiler = compiled(rows)
    before = compiler.upstreams["u"].nodes
    rows.upstream(timeout_read=5)
    compiler.update(rows, NOW)
    assert compiler.upstreams["u"].nodes == before
    assert [node.key for node in before] == ["n:80"]


def test_tls_of_an_upstream(rows: Rows) -> None:
    assert upstream_of(rows).nodes[0].target.tls is False
    rows.upstream(scheme="https")
    target = upstream_of(rows).nodes[0].target
    assert (target.tls, target.verify, target.server_name, target.ca_file) == (True, True, None, None)
    rows.upstream(
        scheme="https", pass_host="rewrite", upstream_host="r.test:444", tls={"verify": False, "ca_file": "/ca"}
    )
    target = upstream_of(rows).nodes[0].target
    assert (target.tls, target.verify, target.server_name, target.ca_file) == (True, False, "r.test", "/ca")
    assert target.client_cert is None
    rows.upstream(
        scheme="grpcs",
        pass_host="rewrite",
        upstream_host="[::1]:444",
        tls={"client_cert_file": "/c", "client_key_file": "/k"},
    )
    target = upstream_of(rows).nodes[0].target
    assert (target.tls, target.server_name, target.client_cert) == (True, "::1", ("/c", "/k"))


def test_hash_of_an_upstream(rows: Rows) -> None:
    rows.upstream(type="chash", hash_on="header", key="x-id")
    found = upstream_of(rows)
    assert (found.type, found.hash_on, found.key) == ("chash", "header", "x-id")


def test_keepalive_of_an_upstream(rows: Rows) -> None:
    keepalive = upstream_of(rows).keepalive
    assert (keepalive.size, keepalive.idle_timeout, keepalive.requests) == (320, 60.0, 1000)
    rows.upstream(keepalive={"size": 1, "idle_timeout": 2, "requests": 3})
    keepalive = upstream_of(rows).keepalive
    assert (keepalive.size, keepalive.idle_timeout, keepalive.requests) == (1, 2.0, 3)


# --- what cannot be compiled, and what is over ---


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda rows: rows.plugin("route:r", {"clock_skew": "x"}), "plugin hmac-auth at route:r"),
        (lambda rows: rows.plugin("route:r", name="no-such"), "plugin no-such at route:r"),
        (lambda rows: rows.route(upstream_id="gone"), "route r"),
        (lambda rows: rows.route(remote_addrs=["x"]), "route r"),
        (lambda rows: rows.route(dialect="other"), "route r"),
        (lambda rows: rows.route(timeout_read=-1.0), "route r"),
        (lambda rows: rows.upstream(timeout_read=0), "upstream u"),
        (lambda rows: rows.upstream(keepalive={"size": "many"}), "upstream u"),
        (lambda rows: rows.upstream(keepalive=3), "upstream u"),
        (lambda rows: rows.node(port="x", weight=None), "upstream u"),
    ],
)
def test_bad_row_is_named(rows: Rows, spoil: Any, named: str) -> None:
    rows.route()
    compiler = compiled(rows)
    before = compiler.routes
    spoil(rows)
    with pytest.raises(ConfigError, match=named):
        compiler.update(rows, NOW)
    assert compiler.routes is before
    # Once it is put right, all is well again.
    good = Rows()
    good.upstream()
    good.node()
    good.route()
    compiler.update(good, NOW)
    assert compiler.routes is not before


def test_next_expiry_is_the_earliest_that_lies_ahead(rows: Rows) -> None:
    assert next_expiry(rows, NOW) is None
    rows.route(expires_at=FUTURE)
    rows.route("later", expires_at=datetime.fromtimestamp(NOW + 9, UTC))
    rows.service(expires_at=PAST)
    assert next_expiry(rows, NOW) == NOW + 1
    assert next_expiry(rows, NOW + 1) == NOW + 9


def test_what_expires_is_gone_at_its_second(rows: Rows) -> None:
    rows.route(expires_at=FUTURE)
    compiler = compiled(rows)
    assert len(compiler.routes.routes) == 1
    compiler.update(rows, NOW + 1)
    assert compiler.routes.routes == ()


def test_expired_upstream_does_not_stop_everything_else(rows: Rows) -> None:
    """Its routes have no upstream any more; other changes go on being taken in."""
    rows.upstream(expires_at=PAST)
    rows.route(upstream_id="u")
    rows.route("other")
    assert {route.id: route.target.upstream for route in compiled(rows).routes.routes} == {"r": None, "other": None}


def test_route_of_an_expired_plugin_config_does_not_exist(rows: Rows) -> None:
    """Without those plugins it would stand open."""
    rows.bundle(expires_at=PAST)
    rows.plugin("bundle:b", realm("bundle"))
    rows.route(plugin_config_id="b")
    assert compiled(rows).routes.routes == ()


@pytest.mark.parametrize(("config", "expected"), [({}, 1000), ({"max_req_body_size": 7}, 7)])
def test_sites_body_limit_stands_in_for_the_plugins(
    rows: Rows, settings: Any, config: dict[str, Any], expected: int
) -> None:
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "MAX_BODY": 1000}
    rows.upstream()
    rows.route(upstream_id="u")
    rows.plugin("route:r", {"validate_request_body": True, **config})
    (step,) = only(rows).pipeline
    assert step.config.policy.max_body == expected


def test_switched_off_upstream_gets_no_traffic(rows: Rows) -> None:
    rows.upstream(enabled=False)
    rows.node()
    rows.route(upstream_id="u")
    assert only(rows).target.upstream is None


def test_switched_off_plugin_config_does_not_open_its_routes(rows: Rows) -> None:
    rows.upstream()
    rows.bundle("b", enabled=False)
    rows.plugin("bundle:b")
    rows.route(upstream_id="u", plugin_config_id="b")
    assert compiled(rows).routes.routes == ()
