"""Rules from rows to verdicts: which of several holds, in which order, for whom, and what each lane answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.apps import apps
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path, re_path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway import site
from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.words import answer
from hmac_gateway.counters import Counters, MemoryCounter, RefusingCounter
from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HmacAuthentication
from hmac_gateway.gate import Admission, Rule, compile_plugin, compile_step, effective
from hmac_gateway.settling import Stores, asettle, settle, steps_left
from hmac_gateway.site_settings import compile_protect
from hmac_gateway.snapshot import Snapshot
from hmac_gateway.stores import MemoryStore
from proxy import forwarding
from proxy.auth_view import auth_request_view
from proxy.views import ProxyView
from tests.proxy.test_compile import NOW, Rows, compiled
from tests.settings import HMAC_GATEWAY
from tests.support.proxied import Upstream
from tests.support.raw_upstream import answer as answered

ALICE = Consumer("1", "alice", group_id="gold")
BOB = Consumer("2", "bob", group_id="gold")
CAROL = Consumer("3", "carol")


class Lane:
    """Requests to the route `r` of some rows, judged by its rules."""

    def __init__(self, rows: Rows, counters: Any = None) -> None:
        self.counters = counters or MemoryCounter()
        self.use(rows)

    def use(self, rows: Rows) -> None:
        compiler = compiled(rows)
        self.snapshot = Snapshot(1, routes=compiler.routes, overrides=compiler.overrides)
        route = compiler.routes.match("x", "/", Message("GET", "/", ()))
        assert route is not None
        self.route = route

    def ask(
        self, consumer: Consumer | None = ALICE, method: str = "GET", judged: set[str] | None = None
    ) -> tuple[Rejected | None, dict[str, str]]:
        admission = Admission(NOBODY if consumer is None else Identity(consumer))
        message = Message(method, "/", (), remote_addr="192.0.2.1")
        route = self.route
        needs = steps_left(admission, message, self.snapshot, NOW, route.rules, route.id, route.service_id, judged)
        if needs is None:
            return None, {}
        return settle(needs, Stores(MemoryStore(10), self.counters)), needs.headers

    def status(self, consumer: Consumer | None = ALICE, **more: Any) -> int:
        refused, _ = self.ask(consumer, **more)
        return 200 if refused is None else answer(refused).status


def names(lane: Lane, consumer: Consumer | None) -> list[Any]:
    identity = NOBODY if consumer is None else Identity(consumer)
    return [rule.scope.partition(":limit")[0] for rule in effective(lane.route.rules, lane.snapshot, identity)]


def limit(rows: Rows, place: str, count: int = 1, **more: Any) -> None:
    rows.plugin(place, {"count": count, "time_window": 60, **more}, name="limit-count", id=f"l-{place}")


def restrict(rows: Rows, place: str, **config: Any) -> None:
    rows.plugin(place, config, name="consumer-restriction", id=f"c-{place}")


def full() -> Rows:
    rows = Rows()
    rows.service()
    rows.bundle()
    rows.bundle("everywhere", is_global=True)
    rows.route(service_id="s", plugin_config_id="b")
    return rows


PLACES = ["service:s", "bundle:b", "route:r", "group:gold", "consumer:1"]


@pytest.mark.parametrize("number", range(1, 6))
def test_the_most_specific_holds_as_a_whole_and_global_ones_besides(number: int) -> None:
    rows = full()
    limit(rows, "bundle:everywhere", 1000)
    for place in PLACES[:number]:
        limit(rows, place)
    lane = Lane(rows)
    assert names(lane, ALICE) == ["bundle:everywhere", PLACES[number - 1]]
    assert names(lane, BOB) == ["bundle:everywhere", PLACES[min(number, 4) - 1]]
    assert names(lane, CAROL) == names(lane, None) == ["bundle:everywhere", PLACES[min(number, 3) - 1]]


def test_higher_priority_first_but_global_ones_before() -> None:
    rows = full()
    limit(rows, "bundle:everywhere")
    restrict(rows, "route:r", blacklist=["alice"])
    limit(rows, "route:r")
    assert [rule.plugin.name for rule in Lane(rows).route.rules.all] == [
        "limit-count",
        "consumer-restriction",
        "limit-count",
    ]
    rows.plugin(
        "route:r",
        {"count": 1, "time_window": 60, "_meta": {"priority": 9999}},
        name="limit-count",
        id="l-route:r",
    )
    assert [rule.priority for rule in Lane(rows).route.rules.all] == [1002, 9999, 2400]


def test_each_consumer_with_a_rule_has_a_count_of_its_own_and_a_group_has_one() -> None:
    rows = full()
    limit(rows, "consumer:1")
    limit(rows, "consumer:3")
    lane = Lane(rows)
    assert [lane.status(who) for who in (ALICE, CAROL, ALICE, CAROL, BOB, BOB)] == [200, 200, 503, 503, 200, 200]
    rows = full()
    limit(rows, "group:gold")
    lane = Lane(rows)
    assert [lane.status(who) for who in (ALICE, BOB, CAROL)] == [200, 503, 200]


def test_routes_of_a_service_share_the_services_count_and_groups_of_limits_share_theirs() -> None:
    rows = full()
    limit(rows, "service:s")
    first, second = Lane(rows), Lane(rows)
    second.counters = first.counters
    second.route = next(iter([first.route]))
    assert [first.status(), second.status()] == [200, 503]
    rows = full()
    limit(rows, "route:r", group="shop")
    other = full()
    limit(other, "service:s", group="shop")
    one, two = Lane(rows), Lane(other)
    two.counters = one.counters
    assert [one.status(), two.status()] == [200, 503]


def test_counts_outlive_a_new_configuration_but_not_a_new_rule() -> None:
    rows = full()
    limit(rows, "route:r")
    lane = Lane(rows)
    assert [lane.status(), lane.status()] == [200, 503]
    restrict(rows, "service:s", blacklist=["nobody"])
    lane.use(rows)
    assert lane.status() == 503
    limit(rows, "route:r", 2)
    lane.use(rows)
    assert [lane.status(), lane.status(), lane.status()] == [200, 200, 503]


def test_disable_switches_off_what_is_less_specific() -> None:
    rows = full()
    restrict(rows, "service:s", blacklist=["alice", "bob"])
    restrict(rows, "consumer:1", blacklist=["x"], _meta={"disable": True})
    lane = Lane(rows)
    assert [lane.status(ALICE), lane.status(BOB)] == [200, 403]
    rows["plugin"]["c-consumer:1"]["enabled"] = False
    lane.use(rows)
    assert lane.status(ALICE) == 403, "what the console switched off is not there"
    restrict(rows, "route:r", blacklist=["x"], _meta={"disable": True})
    lane.use(rows)
    assert lane.status(ALICE) == 200


def test_filter_and_error_response() -> None:
    rows = full()
    restrict(
        rows,
        "route:r",
        blacklist=["alice"],
        _meta={"filter": [["request_method", "==", "POST"]], "error_response": {"oops": 1}},
    )
    lane = Lane(rows)
    assert lane.status() == 200
    refused, _ = lane.ask(method="POST")
    assert refused is not None and answer(refused).body == b'{"oops":1}\n'
    restrict(rows, "route:r", blacklist=["alice"], rejected_code=200, _meta={"error_response": "gone"})
    lane.use(rows)
    refused, _ = lane.ask()
    assert refused is not None and answer(refused).body == b'{"message":"The consumer_name is forbidden."}\n'
    limit(rows, "service:s", 1, rejected_msg="slow", _meta={"error_response": "mine"})
    restrict(rows, "route:r", blacklist=["bob"])
    lane.use(rows)
    lane.ask()
    refused, _ = lane.ask()
    assert refused is not None and answer(refused).body == b"mine\n"


def test_headers_are_those_of_the_last_and_of_no_other_request() -> None:
    rows = full()
    limit(rows, "bundle:everywhere", 100)
    limit(rows, "route:r", 2)
    lane = Lane(rows)
    assert lane.ask(None)[1] == {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "60"}
    assert lane.ask(None)[1]["X-RateLimit-Remaining"] == "0"
    refused, headers = lane.ask(None)
    assert refused is not None and headers["X-RateLimit-Remaining"] == "0"
    # Nothing sticks to what requests without a pipeline share.
    lane.use(full())
    assert lane.ask(None) == (None, {})


def test_rules_are_counted_until_one_is_used_up() -> None:
    rows = full()
    rule: dict[str, Any] = {"time_window": 60, "key": "$request_method"}
    rules = [{**rule, "count": 2}, {**rule, "count": 1, "key": "$remote_addr"}, {**rule, "count": 9, "key": "$scheme"}]
    rows.plugin("route:r", {"rules": rules, "rejected_code": 429}, name="limit-count", id="l")
    lane = Lane(rows)

    def left() -> tuple[bool, dict[str, str]]:
        refused, headers = lane.ask(None)
        said = {name: value for name, value in headers.items() if name.endswith("Remaining")}
        return refused is None, said

    said = [f"X-{place}-RateLimit-Remaining" for place in (1, 2, 3)]
    assert left() == (True, dict(zip(said, "108", strict=True)))
    # The first has counted what the second refuses; the third is not asked.
    assert left() == (False, dict(zip(said, "00", strict=False)))
    assert left() == (False, {said[0]: "0"})


def test_where_nobody_can_count() -> None:
    rows = full()
    limit(rows, "route:r", policy="redis")
    away = Counters(MemoryCounter(), RefusingCounter("away"))
    assert Lane(rows, away).status() == 503
    limit(rows, "route:r", policy="redis", allow_degradation=True)
    assert Lane(rows, away).ask() == (None, {})


def test_nothing_is_made_where_nothing_is_asked() -> None:
    lane = Lane(full())
    admission = Admission(Identity(ALICE))
    assert steps_left(admission, Message("GET", "/", ()), lane.snapshot, NOW, lane.route.rules) is None


def test_one_request_is_judged_once_for_one_caller() -> None:
    rows = full()
    limit(rows, "group:gold", 2)
    lane = Lane(rows)
    judged: set[str] = set()
    assert [lane.status(ALICE, judged=judged) for _ in range(5)] == [200] * 5
    assert [lane.status(BOB, judged=judged), lane.status(BOB), lane.status(BOB)] == [200, 503, 503]


def test_the_loop_gives_the_same() -> None:
    rows = full()
    limit(rows, "route:r")
    lane = Lane(rows)

    async def ask() -> bool:
        admission = Admission(NOBODY)
        needs = steps_left(admission, Message("GET", "/", ()), lane.snapshot, NOW, lane.route.rules, "r", "s")
        assert needs is not None
        refused = await asettle(needs, Stores(MemoryStore(10), lane.counters))
        assert set(needs.headers) == {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
        return refused is None

    assert [asyncio.run(ask()), asyncio.run(ask())] == [True, False]


@pytest.mark.parametrize("name", ["consumer-restriction", "limit-count"])
def test_a_rule_is_no_way_to_authenticate(name: str) -> None:
    config = {"whitelist": ["a"], "count": 1, "time_window": 1}
    made = compile_plugin(name, config, place="route:r")
    assert isinstance(made, Rule) and made.scope.startswith(f"route:r:{name}:")
    for refused in (
        lambda: compile_step(name, config),
        lambda: compile_protect([{"path": "^/", "plugin": name, "config": config}]),
        lambda: site.Policy({"plugin": name, "config": config}),
        lambda: hmac_required(plugin=name, config=config),
    ):
        with pytest.raises(ConfigError, match="key-auth"):
            refused()
    with pytest.raises(ConfigError, match="one of acl, basic-auth"):
        compile_plugin(name, config, "kong")


# --- the site's own addresses ---

KEY = {"apikey": "alice-key"}
PROXIED = (path(".hmac-gateway/auth", auth_request_view), re_path("", ProxyView.as_view()))


class Read(APIView):
    authentication_classes = [HmacAuthentication]
    hmac_policy = {"plugin": "key-auth", "config": {"header": "apikey"}}

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user)})


@hmac_required(plugin="key-auth", config={"query": "k"})
def guarded(request: HttpRequest) -> HttpResponse:
    return HttpResponse("guarded")


@hmac_required(plugin="key-auth")
async def aguarded(request: HttpRequest) -> HttpResponse:
    return HttpResponse("guarded")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


urlpatterns = [
    path("drf", Read.as_view()),
    path("guarded", guarded),
    path("aguarded", aguarded),
    re_path("", plain),
]


@pytest.fixture
def in_the_site(db: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(site, "_runtime", None)
    middleware = ["hmac_gateway.middleware.HmacGatewayMiddleware"]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware, HMAC_GATEWAY=dict(HMAC_GATEWAY)):
        made: Any = apps.get_model("hmac_consumers.Consumer").objects.create(username="alice")
        credential: Any = apps.get_model("hmac_consumers.Credential")(consumer=made, plugin="key-auth", public_id="k")
        credential.set_secret("alice-key")
        credential.save()
        yield made


def attach(name: str, config: dict[str, Any], **place: Any) -> None:
    row: Any = apps.get_model("hmac_proxy.Plugin")(name=name, config=config, **place)
    row.full_clean()
    row.save()


def site_route(*paths: str) -> Any:
    return apps.get_model("hmac_proxy.Route").objects.create(id="own", paths=list(paths), this_site=True)


def test_a_route_of_this_site_may_have_rules_only(in_the_site: Any) -> None:
    attach("limit-count", {"count": 1, "time_window": 60, "rejected_code": 429}, route=site_route("/shop*"))
    for client in (Client(),):
        first, second = client.get("/shop"), client.get("/shop/1")
        assert (first.status_code, first["X-RateLimit-Remaining"]) == (200, "0")
        assert (second.status_code, second["X-RateLimit-Limit"]) == (429, "1")
        assert second.content == b'{"message":"too many requests"}\n'
        assert "X-RateLimit-Limit" not in client.get("/else")

    async def ask() -> Any:
        return await AsyncClient().get("/shop")

    assert asyncio.run(ask()).status_code == 429


def test_restriction_behind_authentication_in_the_site(in_the_site: Any) -> None:
    route = site_route("/shop*")
    attach("key-auth", {}, route=route)
    attach("consumer-restriction", {"blacklist": ["alice"]}, route=route)
    assert Client().get("/shop").status_code == 401
    found = Client().get("/shop", headers=KEY)
    assert (found.status_code, found.json()) == (403, {"message": "The consumer_name is forbidden."})


@pytest.mark.parametrize("address", ["/drf", "/guarded", "/aguarded"])
def test_a_consumers_rules_reach_single_views_and_count_once(in_the_site: Any, address: str) -> None:
    attach("limit-count", {"count": 2, "time_window": 60, "rejected_code": 429}, consumer=in_the_site)
    # The middleware asks by a policy of its own: both see the request.
    attach("key-auth", {"query": "other"}, route=site_route("/*"))
    client = Client()
    found = [client.get(address, headers=KEY) for _ in range(3)]
    assert [answer.status_code for answer in found] == [200, 200, 429]
    assert [answer["X-RateLimit-Remaining"] for answer in found] == ["1", "0", "0"]


@pytest.mark.parametrize("address", ["/drf", "/guarded", "/aguarded"])
def test_a_consumers_rules_without_the_middleware(in_the_site: Any, address: str) -> None:
    attach("limit-count", {"count": 1, "time_window": 60, "rejected_msg": "slow"}, consumer=in_the_site)
    with override_settings(MIDDLEWARE=[]):
        found = [Client().get(address, headers=KEY) for _ in range(2)]
    assert [answer.status_code for answer in found] == [200, 503]
    assert [answer["X-RateLimit-Remaining"] for answer in found] == ["0", "0"]
    told = {"detail": "slow", "code": "rate_limited"} if address == "/drf" else {"error_msg": "slow"}
    assert found[1].json() == told


def test_a_rule_that_has_nothing_to_compare_refuses_in_drf_too(in_the_site: Any) -> None:
    attach("consumer-restriction", {"type": "service_id", "whitelist": ["s"]}, consumer=in_the_site)
    with override_settings(MIDDLEWARE=[]):
        assert Client().get("/drf", headers=KEY).status_code == 401
        assert Client().get("/guarded", headers=KEY).status_code == 401


def test_groups_of_limits_must_agree_where_they_are_written(in_the_site: Any) -> None:
    from django.core.exceptions import ValidationError

    config = {"count": 1, "time_window": 60, "group": "shop"}
    attach("limit-count", config, route=site_route("/a"))
    with pytest.raises(ValidationError, match="group conf mismatched"):
        attach("limit-count", {**config, "count": 2}, consumer=in_the_site)
    attach("limit-count", config, consumer=in_the_site)


def test_a_proxied_view_counts_and_tells_our_quota(in_the_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_forwarder", None)
    own = b"HTTP/1.1 200 OK\r\nx-ratelimit-limit: 99\r\nX-RateLimit-Limit: 98\r\ncontent-length: 2\r\n\r\nok"
    with Upstream(answered(own)) as upstream, override_settings(ROOT_URLCONF=PROXIED, MIDDLEWARE=[]):
        nodes: Any = apps.get_model("hmac_proxy.Upstream").objects.create(id="u")
        apps.get_model("hmac_proxy.Node").objects.create(upstream=nodes, host="127.0.0.1", port=upstream.port)
        route: Any = apps.get_model("hmac_proxy.Route").objects.create(id="r", paths=["/*"], upstream=nodes)
        attach("limit-count", {"count": 1, "time_window": 60, "rejected_code": 429}, route=route)
        first, second = Client().get("/any"), Client().get("/any")
        assert first.status_code == 200 and first.getvalue() == b"ok"
        limits = [value for name, value in first.items() if name.lower() == "x-ratelimit-limit"]
        assert limits == ["1"]
        assert (second.status_code, second["X-RateLimit-Remaining"]) == (429, "0")
        forwarding.forwarder().pool.close()


def test_the_django_auth_endpoint_tells_the_quota(in_the_site: Any) -> None:
    with override_settings(ROOT_URLCONF=PROXIED, MIDDLEWARE=[]):
        route: Any = apps.get_model("hmac_proxy.Route").objects.create(id="r", paths=["/*"])
        attach("key-auth", {}, route=route)
        attach("limit-count", {"count": 1, "time_window": 60, "rejected_code": 429}, route=route)
        found = [Client().get("/.hmac-gateway/auth", headers={**KEY, "X-Original-URI": "/x"}) for _ in range(2)]
    assert [answer.status_code for answer in found] == [202, 403]
    assert [answer["X-RateLimit-Remaining"] for answer in found] == ["0", "0"]
