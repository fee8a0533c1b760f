"""Rules through a served gateway: exact counts over two workers with Redis, per worker without; what clients see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.load import raw, storm
from tests.support.nodes import Node
from tests.support.proxied import Upstream
from tests.support.raw_client import RawClient
from tests.support.raw_upstream import answer
from tests.support.served import Served

LIMIT: dict[str, Any] = {"count": 10, "time_window": 600, "rejected_code": 429}
KEYS = {name: {"apikey": f"{name}-key"} for name in ("alice", "bob", "carol")}


@pytest.fixture(scope="module")
def served(redis_url: str) -> Iterator[Served]:
    environment = {"HMAC_GATEWAY_COUNTER_STORE": redis_url}
    with Node() as node, Served(workers=2, environment=environment) as gateway:
        gateway.put("/upstreams/node", {"nodes": {node.address: 1}})
        gateway.put("/consumer_groups/gold", {"plugins": {"consumer-restriction": {"whitelist": ["alice", "bob"]}}})
        for name, headers in KEYS.items():
            consumer = {"username": name, "plugins": {"key-auth": {"key": headers["apikey"]}}}
            gateway.put(f"/consumers/{name}", consumer)
        gateway.put(
            "/consumers/bob", {"username": "bob", "group_id": "gold", "plugins": {"key-auth": {"key": "bob-key"}}}
        )
        yield gateway


def route(served: Served, name: str, **plugins: Any) -> str:
    configs = {plugin.replace("_", "-"): config for plugin, config in plugins.items()}
    served.put(f"/routes/{name}", {"uri": f"/{name}", "plugins": configs, "upstream_id": "node"})
    served.settle()
    return f"/{name}"


def test_of_a_hundred_at_once_exactly_ten_pass(served: Served) -> None:
    target = route(served, "exact", limit_count={**LIMIT, "policy": "redis"})
    assert len(served.worker_pids()) == 2
    assert storm(served.port, [raw("GET", target, {})] * 100) == {200: 10, 429: 90}
    # A change of something else resets nothing.
    route(served, "elsewhere")
    found = served.get(target)
    assert found.status == 429 and found.headers["x-ratelimit-remaining"] == "0"


def test_memory_counts_in_each_worker(served: Served) -> None:
    target = route(served, "each", limit_count=LIMIT)
    passed = storm(served.port, [raw("GET", target, {})] * 200)[200]
    assert 10 <= passed <= 20


def test_each_consumer_its_own_with_headers_and_words(served: Served) -> None:
    limit = {**LIMIT, "count": 1, "policy": "redis", "key": "consumer_name", "rejected_msg": "slow"}
    target = route(served, "named", key_auth={}, limit_count=limit)
    for name in ("alice", "carol"):
        first, second = served.get(target, KEYS[name]), served.get(target, KEYS[name])
        assert (first.status, first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]) == (
            200,
            "1",
            "0",
        )
        assert (second.status, second.body) == (429, b'{"error_msg":"slow"}\n')
        assert 590 < int(second.headers["x-ratelimit-reset"]) <= 600
    # Who was not let in is not counted.
    assert [served.get(target).status for _ in range(3)] == [401] * 3


def test_rules_with_numbers_that_requests_give(served: Served) -> None:
    # t/plugin/limit-count-rules.t, tests 3 to 9 and 12.
    user = {"key": "${http_user}", "count": "${http_jack_count ?? 1}", "time_window": 600, "header_prefix": "jack"}
    project = {"key": "${http_project}", "count": "${http_apisix_count}", "time_window": 600}
    limit = {"policy": "redis", "rejected_msg": "rejected", "rules": [user, project]}
    target = route(served, "rules", limit_count=limit)
    assert [served.get(target, {"user": "jack", "jack-count": "2"}).status for _ in range(3)] == [200, 200, 503]
    first, second = served.get(target, {"user": "jill"}), served.get(target, {"user": "jill"})
    assert (first.status, first.headers["x-jack-ratelimit-remaining"]) == (200, "0")
    assert (second.status, second.body) == (503, b'{"error_msg":"rejected"}\n')
    by_project = [served.get(target, {"project": "a", "apisix-count": "1"}) for _ in range(2)]
    assert [found.status for found in by_project] == [200, 503]
    assert by_project[0].headers["x-2-ratelimit-limit"] == "1"
    nothing = served.get(target)
    assert (nothing.status, nothing.body) == (503, b'{"error_msg":"failed to limit count"}\n')


@pytest.mark.parametrize("policy", ["redis", "local"])
def test_a_sliding_window(served: Served, policy: str) -> None:
    limit = {**LIMIT, "window_type": "sliding", "policy": policy, "time_window": 86400}
    target = route(served, f"sliding-{policy}", limit_count=limit)
    passed = storm(served.port, [raw("GET", target, {})] * 100)[200]
    assert passed == 10 if policy == "redis" else 10 <= passed <= 20
    found = [served.get(target) for _ in range(20)][-1]
    assert (found.status, found.headers["x-ratelimit-remaining"]) == (429, "0")
    assert 0 < float(found.headers["x-ratelimit-reset"]) <= 86400


def test_a_limit_with_a_redis_of_its_own(served: Served, redis_url: str) -> None:
    own = {"redis_host": "127.0.0.1", "redis_port": 6379, "redis_database": int(redis_url.rpartition("/")[2])}
    limit = {**LIMIT, "count": 1, "policy": "redis", **own}
    target = route(served, "own", limit_count=limit)
    assert [served.get(target).status for _ in range(6)] == [200, *[429] * 5]
    wrong = {**limit, "redis_username": "nobody", "redis_password": "hush"}
    target = route(served, "wrong", limit_count=wrong)
    refused = served.get(target)
    assert (refused.status, refused.body) == (503, b'{"error_msg":"failed to limit count"}\n')
    assert served.get(route(served, "wrong", limit_count={**wrong, "allow_degradation": True})).status == 200
    assert "hush" not in served.log.read_text()


def test_restrictions_of_route_group_and_consumer(served: Served) -> None:
    target = route(served, "members", key_auth={}, consumer_restriction={"blacklist": ["bob", "carol"]})
    assert [served.get(target, KEYS[name]).status for name in KEYS] == [200, 200, 403]
    assert served.get(target, KEYS["carol"]).body == b'{"message":"The consumer_name is forbidden."}\n'
    assert served.get(target).status == 401
    open_to_all = route(served, "nobody", consumer_restriction={"whitelist": ["alice"]})
    found = served.get(open_to_all)
    words = b'{"message":"The request is rejected, please check the consumer_name for this request"}\n'
    assert (found.status, found.body) == (401, words)


def test_a_global_rule_counts_besides(served: Served) -> None:
    target = route(served, "both", limit_count={**LIMIT, "count": 5, "policy": "redis"})
    everywhere = {**LIMIT, "count": 2, "policy": "redis", "rejected_code": 418}
    served.put("/global_rules/1", {"plugins": {"limit-count": everywhere}})
    served.settle()
    try:
        assert [served.get(target).status for _ in range(3)] == [200, 200, 418]
        # Where no route fits as well, and in the one count.
        lost = served.get("/no-such-route")
        assert (lost.status, lost.headers["x-ratelimit-limit"]) == (418, "2")
        served.put("/global_rules/1", {"plugins": {"limit-count": {**everywhere, "key": "http_x"}}})
        served.settle()
        found = [served.get("/no-such-route", {"X": "lost"}) for _ in range(3)]
        assert [said.status for said in found] == [404, 404, 418]
        assert found[0].body == b'{"error_msg":"404 Route Not Found"}\n'
        assert [said.headers["x-ratelimit-remaining"] for said in found] == ["1", "0", "0"]
        asked = {"X": "other", "X-Original-URI": "/no-such-route"}
        assert [served.get("/.hmac-gateway/auth", asked).headers["x-ratelimit-remaining"] for _ in "ab"] == ["1", "0"]
    finally:
        served.admin("DELETE", "/global_rules/1")
        served.settle()
    assert served.get(target).headers["x-ratelimit-remaining"] == "2"


def test_the_auth_endpoint_says_403_with_the_quota(served: Served) -> None:
    target = route(served, "asked", key_auth={}, limit_count={**LIMIT, "count": 1, "policy": "redis"})
    headers = {**KEYS["alice"], "X-Original-URI": target, "X-Original-Method": "GET"}
    found = [served.get("/.hmac-gateway/auth", headers) for _ in range(2)]
    assert [said.status for said in found] == [202, 403]
    assert [said.headers["x-ratelimit-limit"] for said in found] == ["1", "1"]


def test_statuses_without_a_body(served: Served) -> None:
    target = route(served, "silent", key_auth={}, consumer_restriction={"blacklist": ["alice"], "rejected_code": 204})
    found = served.get(target, KEYS["alice"])
    assert (found.status, found.body) == (204, b"")


def test_the_quota_is_ours_where_the_upstream_tells_one_too(served: Served) -> None:
    own = b"HTTP/1.1 200 OK\r\nx-ratelimit-limit: 99\r\nX-RateLimit-Limit: 98\r\ncontent-length: 2\r\n\r\nok"
    with Upstream(answer(own)) as upstream:
        plugins = {"limit-count": {**LIMIT, "policy": "redis"}}
        nodes = {f"127.0.0.1:{upstream.port}": 1}
        served.put("/routes/theirs", {"uri": "/theirs", "plugins": plugins, "upstream": {"nodes": nodes}})
        served.settle()
        with RawClient(served.port) as client:
            found = client.ask("GET", "/theirs", "gateway.test")
    limits = [value for name, value in found.headers if name.lower() == "x-ratelimit-limit"]
    assert (found.status, limits) == (200, ["10"])
