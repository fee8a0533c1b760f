"""What the gateway says in Kong's words before a route has matched, where the setting DIALECT says so."""

from __future__ import annotations

import json

import pytest

from hmac_gateway.core.message import Message
from hmac_gateway.stores import MemoryStore
from proxy.gateway import Gateway
from tests.proxy.test_auth_endpoint import Lane, snapshot
from tests.support.engine import NOW


@pytest.mark.parametrize(
    ("target", "headers", "status", "message"),
    [
        ("/nowhere", [("host", "x")], 404, "no Route matched with those values"),
        ("/open/../x", [("host", "x")], 400, "Bad request"),
        ("/open/x", [("host", "a@b")], 400, "Bad request"),
        ("/open/x", [], 400, "Bad request"),
        ("/.hmac-gateway/other", [("host", "x")], 404, "no Route matched with those values"),
    ],
)
def test_before_a_route_has_matched(target: str, headers: list[tuple[str, str]], status: int, message: str) -> None:
    lane = Lane(None)
    found = snapshot()
    lane.gateway = Gateway(lambda: found, MemoryStore(9), now=lambda: NOW, observer=lane.observer, dialect="kong")
    got = lane.ask(Message("GET", target, headers), version="1.1")
    body = json.loads(got.body)
    assert (got.status, body["message"]) == (status, message)
    assert body["request_id"] == got.headers["x-kong-request-id"] == got.headers["x-request-id"]
    assert got.headers["x-kong-response-latency"].isdigit()
    assert got.headers["server"] == "hmac-gateway"


def test_apisix_answers_have_none_of_kongs_headers() -> None:
    got = Lane(snapshot()).ask(Message("GET", "/nowhere", [("host", "x")]), version="1.1")
    assert got.status == 404 and not any(name.startswith("x-kong") or name == "via" for name in got.headers)
