"""Rows of Kong's dialect to routers: which plugin runs for whom, where a service leads, and marks on targets."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.identity import Identity
from hmac_gateway.core.message import Message
from hmac_gateway.gate import Rule, effective
from hmac_gateway.routing import Route
from hmac_gateway.snapshot import Snapshot
from proxy.compile import Compiler
from proxy.plan import Upstream
from tests.proxy.test_compile import Rows, compiled, realms

ALICE, BOB = Consumer("a", "alice"), Consumer("b", "bob")


@pytest.fixture
def rows() -> Rows:
    found = Rows()
    found.service("s", dialect="kong", host="up.test")
    found.route("r", dialect="kong", service_id="s", paths=["/r"])
    return found


def only(rows: Rows) -> Route:
    compiler = compiled(rows)
    (route,) = compiler.routes.routes
    match = compiler.routes.match("h", "/r", Message("GET", "/r", []))
    assert match is not None and match.id == route.id
    return match


def upstream(rows: Rows) -> Upstream:
    found = only(rows).target.upstream
    assert isinstance(found, Upstream)
    return found


# --- plugins ---

#: Of two that both apply the former runs (Kong's plugin precedence).
PLACES = [
    "route:r service:s consumer:a",
    "route:r consumer:a",
    "service:s consumer:a",
    "route:r service:s",
    "consumer:a",
    "route:r",
    "service:s",
    "global",
]


def runs(compiler: Compiler, consumer: Consumer | None) -> list[str]:
    """The places whose rule runs for a caller."""
    (route,) = compiler.routes.routes
    directory = Snapshot(1, overrides=compiler.overrides)
    rules = effective(route.rules, directory, Identity(consumer, None, False, ""))
    assert all(isinstance(rule, Rule) for rule in rules)
    return [rule.scope.partition(":limit-count:")[0] for rule in rules]


def limit(rows: Rows, place: str, **changed: Any) -> None:
    rows.plugin(place, {"count": 1, "time_window": 60}, name="limit-count", **changed)


@pytest.mark.parametrize("places", list(combinations(PLACES, 2)), ids=" over ".join)
def test_the_most_specific_runs(rows: Rows, places: tuple[str, str]) -> None:
    for place in places:
        limit(rows, place)
    compiler = compiled(rows)
    assert runs(compiler, ALICE) == [places[0]]
    for stranger in (BOB, None):
        open_to_all = [place for place in places if "consumer" not in place]
        assert runs(compiler, stranger) == open_to_all[:1]


def test_the_most_specific_of_all(rows: Rows) -> None:
    for number in range(len(PLACES)):
        rows["plugin"].clear()
        for place in PLACES[number:]:
            limit(rows, place)
        assert runs(compiled(rows), ALICE) == [PLACES[number]]


def test_what_is_disabled_is_as_if_absent(rows: Rows) -> None:
    limit(rows, "global")
    limit(rows, "consumer:a", enabled=False)
    limit(rows, "route:r", enabled=False)
    assert runs(compiled(rows), ALICE) == ["global"]


def test_of_other_routes_and_services_nothing_runs(rows: Rows) -> None:
    for place in ("route:r service:x", "route:x service:s", "service:x", "route:x consumer:a"):
        limit(rows, place)
    assert runs(compiled(rows), ALICE) == []


def test_authentication_follows_the_same_order(rows: Rows) -> None:
    seen = []
    for place in ("global", "service:s", "route:r", "route:r service:s"):
        rows.plugin(place, {"realm": place})
        seen.append(realms(only(rows)))
    assert seen == [["global"], ["service:s"], ["route:r"], ["route:r service:s"]]


def test_a_route_without_a_service_has_no_plugins_of_services(rows: Rows) -> None:
    rows["route"]["r"]["service_id"] = None
    limit(rows, "route:r")
    limit(rows, "route:r service:s")
    assert runs(compiled(rows), ALICE) == ["route:r"]


def test_plugins_for_streams_do_not_run(rows: Rows) -> None:
    limit(rows, "global", protocols=["http"])
    limit(rows, "route:r", protocols=["tcp", "tls"])
    limit(rows, "service:s", protocols=["tcp", "grpc"])
    assert runs(compiled(rows), None) == ["service:s"]


def test_global_plugins_run_on_routes_of_their_dialect_only(rows: Rows) -> None:
    limit(rows, "global")
    rows["route"].clear()
    rows.route("apisix", service_id="s")
    compiler = compiled(rows)
    assert runs(compiler, None) == [] and compiler.elsewhere == {}


def test_global_rules_of_apisix_do_not_run(rows: Rows) -> None:
    rows.bundle("g", is_global=True)
    limit(rows, "bundle:g")
    assert runs(compiled(rows), None) == []


# --- routes ---


def test_routes_for_streams_are_not_asked(rows: Rows) -> None:
    rows["route"]["r"]["protocols"] = ["tcp"]
    assert compiled(rows).routes.routes == ()


def test_routes_of_a_disabled_service_do_not_exist(rows: Rows) -> None:
    rows["service"]["s"]["enabled"] = False
    assert compiled(rows).routes.routes == ()


@pytest.mark.parametrize(
    ("protocols", "extra", "status"),
    [
        (["http", "https"], {}, 0),
        (["http"], {}, 0),
        (["https"], {}, 426),
        (["https", "grpcs"], {"https_redirect_status_code": 308}, 308),
        (["grpcs", "http"], {"https_redirect_status_code": 308}, 0),
    ],
)
def test_which_routes_want_tls(rows: Rows, protocols: list[str], extra: dict[str, Any], status: int) -> None:
    rows["route"]["r"] |= {"protocols": protocols, "extra": extra}
    assert only(rows).tls_status == status


def test_routes_of_this_site_are_the_middlewares(rows: Rows) -> None:
    rows["route"]["r"] |= {"this_site": True, "service_id": None, "methods": ["GET"]}
    compiler = compiled(rows)
    assert compiler.routes.routes == ()
    for method in ("GET", "HEAD"):
        assert compiler.site.match("h", "/r/x", Message(method, "/r/x", [])) is not None


def test_addresses_are_a_criterion(rows: Rows) -> None:
    rows["route"]["r"]["remote_addrs"] = ["192.0.2.0/24"]
    router = compiled(rows).routes
    assert router.match("h", "/r", Message("GET", "/r", [], remote_addr="192.0.2.7")) is not None
    assert router.match("h", "/r", Message("GET", "/r", [], remote_addr="192.0.3.7")) is None


# --- where a service leads ---


@pytest.mark.parametrize(
    ("protocol", "port", "expected", "tls"),
    [("", None, 80, False), ("http", 8080, 8080, False), ("https", None, 443, True), ("grpcs", 9, 9, True)],
)
def test_a_host(rows: Rows, protocol: str, port: int | None, expected: int, tls: bool) -> None:
    rows["service"]["s"] |= {"protocol": protocol, "port": port}
    found = upstream(rows)
    (node,) = found.nodes
    assert (node.host, node.port, node.target.tls, node.target.verify) == ("up.test", expected, tls, True)
    assert (found.retries, found.pass_host) == (5, "node")


def test_retries_timeouts_and_certificates_are_the_services(rows: Rows) -> None:
    rows["service"]["s"] |= {"protocol": "https", "retries": 0, "timeout_connect": 1.5, "extra": {"tls_verify": False}}
    found = only(rows).target
    assert found.upstream.retries == 0 and not found.upstream.nodes[0].target.verify
    assert (found.timeouts.connect, found.timeouts.send, found.timeouts.read) == (1.5, 60.0, 60.0)


def test_the_clients_host_is_preserved_where_the_route_says_so(rows: Rows) -> None:
    rows["route"]["r"]["preserve_host"] = True
    assert upstream(rows).pass_host == "pass"


def named(rows: Rows, *nodes: tuple[str, int], **changed: Any) -> None:
    rows.upstream(dialect="kong", name="up.test", **changed)
    for host, weight in nodes:
        rows.node(host, weight, port=8000)


def test_a_host_that_is_an_upstreams_name(rows: Rows) -> None:
    named(rows, ("a", 100), ("b", 50), ("c", 0), upstream_host="virtual.test:81", type="least_conn")
    rows["service"]["s"] |= {"retries": 2, "port": 9}
    found = upstream(rows)
    assert [(node.key, node.weight) for node in found.nodes] == [("a:8000", 100), ("b:8000", 50)]
    assert (found.id, found.type, found.retries) == ("u", "least_conn", 2)
    assert (found.pass_host, found.upstream_host) == ("rewrite", "virtual.test:81")


def test_an_upstream_of_apisix_has_no_name_that_a_host_could_be(rows: Rows) -> None:
    rows.upstream(name="up.test")
    assert upstream(rows).nodes[0].host == "up.test"


def test_over_tls_targets_are_others(rows: Rows) -> None:
    named(rows, ("a", 1), ("b", 1), upstream_host="virtual.test:81")
    rows.service("t", dialect="kong", host="up.test", protocol="https")
    rows.route("t", dialect="kong", service_id="t", paths=["/t"])
    compiler = compiled(rows)
    plain, secure = (route.target.upstream for route in compiler.routes.routes)
    assert plain.id != secure.id and {plain.id, secure.id} <= compiler.upstreams.keys()
    assert [node.target.tls for node in (*plain.nodes, *secure.nodes)] == [False, False, True, True]
    assert {node.target.server_name for node in secure.nodes} == {"virtual.test"}


@pytest.mark.parametrize("change", [{"enabled": False}, {"weights": 0}])
def test_without_a_usable_target(rows: Rows, change: dict[str, Any]) -> None:
    named(rows, ("a", change.pop("weights", 1)), **change)
    assert upstream(rows).nodes == ()


# --- marks ---


@pytest.mark.parametrize(
    ("threshold", "marked", "left"),
    [
        (0, "", "abc"),
        (0, "a", "bc"),
        (0, "ab", "c"),
        (0, "abc", ""),
        (50, "c", "ab"),
        (50, "a", ""),  # 50 of 100 are left: as much as the threshold is not enough
        (49, "a", "bc"),
        (100, "", ""),
    ],
)
def test_marked_targets_get_nothing(rows: Rows, threshold: float, marked: str, left: str) -> None:
    named(rows, ("a", 50), ("b", 30), ("c", 20), ("off", 0), checks={"threshold": threshold})
    for name in marked:
        rows["node"][f"u-{name}"]["marked_unhealthy"] = True
    assert "".join(node.host for node in upstream(rows).nodes) == left


def test_marks_hold_for_nodes_of_apisix_too(rows: Rows) -> None:
    rows.upstream()
    rows.node("a")
    rows.node("b", marked_unhealthy=True)
    assert [node.host for node in compiled(rows).upstreams["u"].nodes] == ["a"]


@pytest.mark.parametrize(("legacy", "dialect"), [(True, "kong-legacy"), (False, "kong")])
def test_what_kong_0_x_wrote_answers_as_kong_0_x(rows: Rows, legacy: bool, dialect: str) -> None:
    rows.plugin("route:r", dialect="kong", legacy=legacy)
    (step,) = only(rows).pipeline
    assert step.common.dialect == dialect
