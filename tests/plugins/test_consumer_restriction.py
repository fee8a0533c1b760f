"""consumer-restriction: every list, their order, what has nothing to compare, and which configurations are refused.

Texts and statuses are APISIX's, written out here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.words import TABLE, answer
from hmac_gateway.plugins import consumer_restriction
from hmac_gateway.plugins.base import Facts
from tests.test_docs import read, table

ALICE = Consumer("1", "alice", group_id="gold")
FORBIDDEN = (403, b'{"message":"The consumer_name is forbidden."}\n')


def judged(
    consumer: Consumer | None = ALICE, method: str = "GET", route: str = "r1", service: str = "s1", **config: Any
) -> tuple[int, bytes] | None:
    identity = NOBODY if consumer is None else Identity(consumer)
    compiled = consumer_restriction.compile(config)
    found = consumer_restriction.check(
        Message(method, "/", ()), compiled, Facts(identity, route, service, "scope"), 0.0
    )
    if found is None:
        return None
    assert isinstance(found, Rejected)
    status, body, _ = answer(found)
    return status, body


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"whitelist": ["alice"]}, None),
        ({"whitelist": ["bob"]}, FORBIDDEN),
        ({"whitelist": ["Alice"]}, FORBIDDEN),
        ({"blacklist": ["alice"]}, FORBIDDEN),
        ({"blacklist": ["bob"]}, None),
        # The blacklist comes first.
        ({"blacklist": ["alice"], "whitelist": ["alice"]}, FORBIDDEN),
        ({"allowed_by_methods": [{"user": "alice", "methods": ["GET"]}]}, None),
        ({"allowed_by_methods": [{"user": "alice", "methods": ["POST"]}]}, FORBIDDEN),
        ({"allowed_by_methods": [{"user": "bob", "methods": ["POST"]}]}, None),
        # Of two entries for one user the first counts.
        (
            {"allowed_by_methods": [{"user": "alice", "methods": ["POST"]}, {"user": "alice", "methods": ["GET"]}]},
            FORBIDDEN,
        ),
        # Who is on the whitelist may use any method; nobody else comes in by one.
        ({"whitelist": ["alice"], "allowed_by_methods": [{"user": "alice", "methods": ["POST"]}]}, None),
        ({"whitelist": ["bob"], "allowed_by_methods": [{"user": "alice", "methods": ["GET"]}]}, FORBIDDEN),
        ({"type": "route_id", "whitelist": ["r1"]}, None),
        ({"type": "route_id", "blacklist": ["r1"]}, (403, b'{"message":"The route_id is forbidden."}\n')),
        ({"type": "service_id", "whitelist": ["s2"]}, (403, b'{"message":"The service_id is forbidden."}\n')),
        ({"type": "consumer_group_id", "whitelist": ["gold"]}, None),
        (
            {"type": "consumer_group_id", "blacklist": ["gold"]},
            (403, b'{"message":"The consumer_group_id is forbidden."}\n'),
        ),
        ({"blacklist": ["alice"], "rejected_code": 451}, (451, FORBIDDEN[1])),
        ({"blacklist": ["alice"], "rejected_msg": "not {you}"}, (403, b'{"message":"not {you}"}\n')),
        ({"blacklist": ["alice"], "rejected_code": 204}, (204, b"")),
    ],
)
def test_lists(config: dict[str, Any], expected: tuple[int, bytes] | None) -> None:
    assert judged(**config) == expected


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ({}, {"consumer": None}),
        ({}, {"consumer": Consumer("2", "")}),
        ({"type": "consumer_group_id"}, {"consumer": Consumer("2", "bob")}),
        ({"type": "service_id"}, {"service": ""}),
        ({"type": "route_id"}, {"route": ""}),
    ],
)
def test_nothing_to_compare_is_401_whatever_the_lists_say(config: dict[str, Any], missing: dict[str, Any]) -> None:
    kind = config.get("type", "consumer_name")
    words = f"The request is rejected, please check the {kind} for this request"
    body = json.dumps({"message": words}, separators=(",", ":")).encode() + b"\n"
    for lists in ({"blacklist": ["x"]}, {"whitelist": [""]}):
        assert judged(**missing, **config, **lists, rejected_code=418, rejected_msg="no") == (401, body)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "configuration"),
        ({"whitelist": []}, "whitelist"),
        ({"blacklist": [1]}, "blacklist.1"),
        ({"whitelist": "alice"}, "whitelist"),
        ({"whitelist": ["a"], "type": "consumer"}, "type"),
        ({"whitelist": ["a"], "rejected_code": 199}, "rejected_code"),
        ({"whitelist": ["a"], "rejected_code": 600}, "rejected_code"),
        ({"whitelist": ["a"], "rejected_code": True}, "rejected_code"),
        ({"whitelist": ["a"], "rejected_msg": 1}, "rejected_msg"),
        ({"allowed_by_methods": []}, "allowed_by_methods"),
        ({"allowed_by_methods": [{"user": "a"}]}, "allowed_by_methods.0.methods"),
        ({"allowed_by_methods": [{"methods": ["GET"]}]}, "allowed_by_methods.0.user"),
        ({"allowed_by_methods": [{"user": "a", "methods": ["get"]}]}, "allowed_by_methods.1.methods.1"),
    ],
)
def test_what_is_wrong_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as found:
        consumer_restriction.compile(config)
    assert found.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(list(consumer_restriction.APISIX_SCHEMA["properties"])), JSON, max_size=4))
def test_any_configuration_is_taken_or_refused_by_name(config: dict[str, Any]) -> None:
    try:
        compiled = consumer_restriction.compile(config)
    except ConfigError:
        return
    found = consumer_restriction.check(Message("GET", "/", ()), compiled, Facts(Identity(ALICE), "r", "s", "x"), 0.0)
    assert found is None or 200 <= answer(found).status <= 599  # type: ignore[arg-type]


def test_the_page_knows_every_field_and_answer() -> None:
    rows = table("docs/consumer-restriction.md")
    for name, schema in consumer_restriction.APISIX_SCHEMA["properties"].items():
        assert rows[name][1].strip("`") == json.dumps(schema.get("default", "none")).replace('"none"', "none"), name
    for (_, name, _), row in TABLE.items():
        if name == consumer_restriction.name:
            assert f'| {row.status} | `{{"{row.key}":"{row.text}"}}` |' in read("docs/consumer-restriction.md")
