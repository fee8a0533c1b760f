"""limit-count: what is counted by which key, headers and refusals, and which configurations are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.words import TABLE, answer
from hmac_gateway.plugins import limit_count
from hmac_gateway.plugins.base import Facts, InTurn, Quota, RedisServer, Spent
from tests.test_docs import read, table

from .test_consumer_restriction import JSON

ALICE = Identity(Consumer("1", "alice", group_id="gold"))
MINUTE = {"count": 2, "time_window": 60}
RULE = {"count": 1, "time_window": 1, "key": "${http_company}"}


def quota(target: str = "/a?x=1&flag", identity: Identity = ALICE, addr: str = "192.0.2.7", **config: Any) -> Quota:
    headers = [("host", "Shop.test"), ("x-tenant", "acme"), ("cookie", "c=1")]
    message = Message("GET", target, headers, remote_addr=addr)
    compiled = limit_count.compile({**MINUTE, **config})
    found = limit_count.check(message, compiled, Facts(identity, "r1", "s1", "here"), 0.0)
    assert isinstance(found, list)
    (only,) = found
    return only


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, "here:192.0.2.7"),
        ({"key": "consumer_name"}, "here:alice"),
        ({"key": "consumer_group_id"}, "here:gold"),
        ({"key": "route_id"}, "here:r1"),
        ({"key": "service_id"}, "here:s1"),
        ({"key": "http_x_tenant"}, "here:acme"),
        ({"key": "arg_x"}, "here:1"),
        ({"key": "cookie_c"}, "here:1"),
        ({"key": "host"}, "here:shop.test"),
        # Empty or not there: the client's address.
        ({"key": "http_x_none"}, "here:192.0.2.7"),
        ({"key": "arg_none"}, "here:192.0.2.7"),
        ({"key": "consumer_name", "identity": NOBODY}, "here:192.0.2.7"),
        ({"key": "$http_x_none-$arg_none", "key_type": "var_combination"}, "here:192.0.2.7"),
        ({"key": "$consumer_name ${http_x_tenant}", "key_type": "var_combination"}, "here:5:alice 4:acme"),
        ({"key": "$consumer_name", "key_type": "constant"}, "here:$consumer_name"),
        ({"group": "shop", "key": "consumer_name"}, "shared:shop:alice"),
    ],
)
def test_keys(config: dict[str, Any], key: str) -> None:
    rule = "shared:shop" if key.startswith("shared:") else "here"
    assert quota(**config) == Quota(key, 60, "local", limit=2, rule=rule)


def test_parts_of_a_combination_cannot_be_shifted() -> None:
    both = {"key": "$arg_a$arg_b", "key_type": "var_combination"}
    assert quota("/?a=1&b=23", **both) != quota("/?a=12&b=3", **both)
    assert quota("/?a=1%202:x&b=y", **both) != quota("/?a=1&b=2:x%20y", **both)


def test_a_key_is_short_and_ascii_whatever_a_client_sends() -> None:
    for value in ("x" * 63, "x" * 64, "x" * 10_000, "%ff%00", "%C3%A9"):
        found = quota(f"/?a={value}", key="arg_a").key
        assert len(found) < 90 and found.isascii()
    assert quota("/?a=" + "x" * 64, key="arg_a") != quota("/?a=" + "x" * 65, key="arg_a")
    assert quota("/", group="\udc80" * 200).key.isascii()


def told(spent: Spent | None, **config: Any) -> tuple[list[str], tuple[int, bytes] | None]:
    compiled = limit_count.compile({**MINUTE, **config})
    (limit,) = compiled.limits
    assert isinstance(limit.count, int)
    quotas = [Quota("k", 60, limit=limit.count)]
    headers, rejected = limit_count.counted(compiled, quotas, None if spent is None else [spent])
    shown = None if rejected is None else answer(rejected)
    assert [name for name, _ in headers] in ([], ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"])
    return [value for _, value in headers], None if shown is None else (shown.status, shown.body)


def test_headers_and_refusals() -> None:
    assert told(Spent(1, 60)) == (["2", "1", "60"], None)
    assert told(Spent(2, 59)) == (["2", "0", "59"], None)
    assert told(Spent(3, 58)) == (["2", "0", "58"], (503, b'{"message":"too many requests"}\n'))
    assert told(Spent(9, 1), rejected_code=429)[1] == (429, b'{"message":"too many requests"}\n')
    assert told(Spent(9, 1), rejected_code=429, rejected_msg="slow {down}")[1] == (
        429,
        b'{"error_msg":"slow {down}"}\n',
    )
    assert told(Spent(3, 58), show_limit_quota_header=False)[0] == []
    assert told(None) == ([], (503, b'{"error_msg":"failed to limit count"}\n'))
    assert told(None, allow_degradation=True) == ([], None)


def test_digits_as_text_are_numbers() -> None:
    assert quota(time_window="30").window == 30
    assert told(Spent(11, 1), count="10")[1] is not None and told(Spent(10, 1), count="10")[1] is None


def judged(config: dict[str, Any], **headers: str) -> Any:
    message = Message("GET", "/", [(name.replace("_", "-"), value) for name, value in headers.items()])
    return limit_count.check(message, limit_count.compile(config), Facts(NOBODY, "r", "s", "here"), 0.0)


# Statuses, keys and headers of the rest are those of APISIX's t/plugin/limit-count-rules.t and limit-count-variable.t.


def test_numbers_may_be_variables() -> None:
    config = {"count": "${http_count ?? 2}", "time_window": "$http_tw"}
    (found,) = judged(config, tw="5")
    assert (found.limit, found.window) == (2, 5)
    (found,) = judged(config, tw="5", count="7")
    assert found.limit == 7
    for headers in ({}, {"tw": "x"}, {"tw": "0"}, {"tw": "-1"}, {"tw": "5", "count": "1e3"}, {"tw": "9" * 40}):
        refused = judged(config, **headers)
        assert answer(refused).status == 503 and answer(refused).body == b'{"error_msg":"failed to limit count"}\n'
        assert judged({**config, "allow_degradation": True}, **headers) is None


def test_rules_are_asked_in_turn_where_they_have_a_key() -> None:
    user = {"key": "${http_user}", "count": "${http_jack_count}", "time_window": 60, "header_prefix": "jack"}
    project = {"key": "${http_project}_p", "count": 3, "time_window": 5}
    config = {"rules": [user, project], "rejected_msg": "rejected"}
    both = judged(config, user="a", jack_count="2", project="b")
    assert isinstance(both, InTurn)
    assert both.quotas == [
        Quota("here:1:1:a", 60, "local", 2, "here", "jack"),
        Quota("here:2:1:b_p", 5, "local", 3, "here", "2"),
    ]
    compiled = limit_count.compile(config)
    headers, refused = limit_count.counted(compiled, both.quotas[:1], [Spent(1, 60)])
    assert refused is None
    assert headers == [
        ("X-jack-RateLimit-Limit", "2"),
        ("X-jack-RateLimit-Remaining", "1"),
        ("X-jack-RateLimit-Reset", "60"),
    ]
    headers, refused = limit_count.counted(compiled, both.quotas[1:], [Spent(4, 3)])
    assert headers[0] == ("X-2-RateLimit-Limit", "3") and refused is not None
    assert (answer(refused).status, answer(refused).body) == (503, b'{"error_msg":"rejected"}\n')
    # A rule whose key or number is not there is passed over; where none is left, nobody can tell.
    assert [found.told for found in judged(config, user="a", project="b").quotas] == ["2"]
    assert answer(judged(config)).status == 503


def test_rules_with_like_keys_count_for_themselves() -> None:
    rules = [{**RULE, "key": "${http_a}"}, {**RULE, "key": "${http_b}"}]
    first, second = judged({"rules": rules}, a="x", b="x").quotas
    assert first.key != second.key


def test_a_sliding_window() -> None:
    found = quota(window_type="sliding")
    assert found.sliding and found.limit == 2
    assert told(Spent(1, 3.42))[0] == ["2", "1", "3.42"]
    assert told(Spent(3, 1.5))[0] == ["2", "0", "1.5"]
    assert told(Spent(3, 12.0))[0] == ["2", "0", "12"]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"count": 1}, "configuration"),
        ({"time_window": 1}, "configuration"),
        ({}, "configuration"),
        ({**MINUTE, "count": 0}, "count"),
        ({**MINUTE, "count": -1}, "count"),
        ({**MINUTE, "count": 1.5}, "count"),
        ({**MINUTE, "count": True}, "count"),
        ({**MINUTE, "count": "0"}, "count"),
        ({**MINUTE, "count": "$no_such"}, "count"),
        ({**MINUTE, "count": "http_x"}, "count"),
        ({**MINUTE, "count": "9" * 17}, "count"),
        ({**MINUTE, "count": 2**53 + 1}, "count"),
        ({**MINUTE, "time_window": "1 "}, "time_window"),
        ({**MINUTE, "time_window": "٣"}, "time_window"),
        ({"rules": []}, "rules"),
        ({"rules": [{"count": 1, "time_window": 1, "key": "remote_addr"}]}, "rules.1.key"),
        ({"rules": [RULE, {**RULE, "key": "$host", "count": "0"}]}, "rules.2.count"),
        ({"rules": [{**RULE, "time_window": "$no_such"}]}, "rules.1.time_window"),
        ({"rules": [RULE, {**RULE, "count": 5}]}, "rules.2.key"),
        ({"rules": [{**RULE, "header_prefix": "a: b"}]}, "rules.1.header_prefix"),
        ({**MINUTE, "rules": [RULE]}, "configuration"),
        ({**MINUTE, "key": "no_such"}, "key"),
        ({**MINUTE, "key": ""}, "key"),
        ({**MINUTE, "key": "uri_param_x"}, "key"),
        ({**MINUTE, "key": "$no_such", "key_type": "var_combination"}, "key"),
        ({**MINUTE, "key": "text", "key_type": "var_combination"}, "key"),
        ({**MINUTE, "key_type": "vars"}, "key_type"),
        ({**MINUTE, "policy": "redis-cluster"}, "policy"),
        ({**MINUTE, "policy": "redis-sentinel"}, "policy"),
        ({**MINUTE, "policy": "database"}, "policy"),
        ({**MINUTE, "policy": "redis", "redis_host": "h"}, "redis_host"),
        ({**MINUTE, "policy": "redis", "redis_host": "redis://h"}, "redis_host"),
        ({**MINUTE, "policy": "redis", "redis_host": "h.test", "redis_port": 65536}, "redis_port"),
        ({**MINUTE, "policy": "redis", "redis_host": "h.test", "redis_timeout": 0}, "redis_timeout"),
        ({**MINUTE, "policy": "redis", "redis_host": "h.test", "redis_password": 5}, "redis_password"),
        ({**MINUTE, "policy": "redis", "redis_host": "h.test", "redis_pasword": "s3cret"}, "redis_pasword"),
        ({**MINUTE, "sentinel_password": "s3cret"}, "sentinel_password"),
        ({**MINUTE, "window_type": "rolling"}, "window_type"),
        ({**MINUTE, "rejected_code": 600}, "rejected_code"),
        ({**MINUTE, "rejected_msg": ""}, "rejected_msg"),
        ({**MINUTE, "group": ""}, "group"),
    ],
)
def test_what_is_wrong_or_not_there_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as found:
        limit_count.compile(config)
    assert found.value.field == field
    assert "s3cret" not in str(found.value)


@given(st.dictionaries(st.sampled_from(list(limit_count.APISIX_SCHEMA["properties"])), JSON, max_size=4))
def test_any_configuration_is_taken_or_refused_by_name(config: dict[str, Any]) -> None:
    try:
        compiled = limit_count.compile({**MINUTE, **config})
    except ConfigError:
        return
    found = limit_count.check(Message("GET", "/", ()), compiled, Facts(NOBODY, "r", "s", "x"), 0.0)
    assert isinstance(found, list)
    (quota,) = found
    assert quota.window >= 1 and quota.key.isascii()
    assert quota.limit is not None and quota.limit >= 1


def test_groups_must_agree_in_what_counts() -> None:
    one = {**MINUTE, "group": "g"}
    assert limit_count.same_group(one, {**one, "_meta": {"priority": 1}, "unknown": 1})
    assert not limit_count.same_group(one, {**one, "count": 3})
    assert not limit_count.same_group(one, {**one, "key": "consumer_name"})


def test_the_page_knows_every_field_answer_and_variable() -> None:
    rows, page = table("docs/limit-count.md"), read("docs/limit-count.md")
    for name, schema in limit_count.APISIX_SCHEMA["properties"].items():
        assert rows[name][1].strip("`") == json.dumps(schema.get("default", "none")).replace('"none"', "none"), name
    for (_, name, _), row in TABLE.items():
        if name == limit_count.name:
            assert f'| {row.status} | `{{"{row.key}":"{row.text}"}}` |' in page
    for name in (*limit_count._FACTS, *limit_count.NAMES.split(", ")):
        assert f"`{name}`" in page, name


def test_a_redis_of_its_own() -> None:
    named = {"policy": "redis", "redis_host": "limits.test", "redis_password": "s3cret"}
    full = RedisServer("limits.test", 6379, 0, "", "s3cret", False, False, 1.0)
    assert quota(**named).store == full and "s3cret" not in repr(quota(**named))
    more = {"redis_port": 7000, "redis_username": "u", "redis_database": 3, "redis_timeout": 250}
    tls = {"redis_ssl": True, "redis_ssl_verify": True, "redis_keepalive_pool": 10, "redis_keepalive_timeout": 5000}
    assert quota(**named, **more, **tls).store == RedisServer("limits.test", 7000, 3, "u", "s3cret", True, True, 0.25)
    # A password that could not be opened stands as its mask.
    assert quota(**{**named, "redis_password": "********"}).store == full._replace(password=None)
    assert quota(policy="redis").store == "redis"
    assert quota(redis_host="limits.test").store == "local"
    assert limit_count.same_group({**MINUTE, **named}, {**MINUTE, **named, "redis_password": "$sealed://x"})
    assert not limit_count.same_group({**MINUTE, **named}, {**MINUTE, **named, "redis_database": 1})
