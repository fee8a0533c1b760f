"""plugins.acl: who passes by the groups of a consumer, and what upstreams are told of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.words import answer
from hmac_gateway.counters import MemoryCounter
from hmac_gateway.gate import Admission, Rule, RuleSet, compile_plugin
from hmac_gateway.plugins import acl
from hmac_gateway.plugins.base import Facts
from hmac_gateway.settling import Stores, settle, steps_left
from hmac_gateway.snapshot import Snapshot
from hmac_gateway.stores import MemoryStore
from proxy.plan import identity_headers

PARTNER = Identity(Consumer("1", "alice", groups=("gold", "partners"), group_id="eu"), dialect="kong")
LONER = Identity(Consumer("2", "bob"), dialect="kong")
GUEST = Identity(Consumer("3", "guest", groups=("public",)), anonymous=True, dialect="kong")


def judged(identity: Identity, **config: Any) -> Any:
    return acl.check(Message("GET", "/", []), acl.compile(config), Facts(identity, "r", "s", "here"), 0.0)


@pytest.mark.parametrize(
    ("identity", "config", "passes"),
    [
        (PARTNER, {"allow": ["partners"]}, True),
        (PARTNER, {"allow": ["silver", "gold"]}, True),
        (PARTNER, {"allow": ["Gold"]}, False),
        (PARTNER, {"deny": ["gold"]}, False),
        (PARTNER, {"deny": ["silver"]}, True),
        (LONER, {"allow": ["gold"]}, False),
        (LONER, {"deny": ["gold"]}, True),
        (GUEST, {"allow": ["public"]}, True),
        (PARTNER, {"allow": ["eu"]}, False),
        (PARTNER, {"allow": ["eu"], "include_consumer_groups": True}, True),
        (PARTNER, {"allow": ["gold"], "always_use_authenticated_groups": True}, True),
    ],
)
def test_who_passes(identity: Identity, config: dict[str, Any], passes: bool) -> None:
    found = judged(identity, **config)
    assert isinstance(found, Identity) is passes
    if not passes:
        status, body, headers = answer(found, "id-1")
        assert (status, json.loads(body)["message"]) == (403, "You cannot consume this service")
        assert "www-authenticate" not in dict(headers)


def test_nobody_is_asked_to_say_who_it_is() -> None:
    for config in ({"allow": ["gold"]}, {"deny": ["gold"]}):
        found = judged(NOBODY, **config)
        assert isinstance(found, Rejected)
        status, body, _ = answer(found, "id-1")
        assert (status, json.loads(body)["message"]) == (401, "Unauthorized")


def told(identity: Identity, *rules: dict[str, Any]) -> str | None:
    """X-Consumer-Groups after these acls, as an adapter runs them."""
    made = [compile_plugin("acl", config, "kong", place=f"route:{n}") for n, config in enumerate(rules)]
    own = {f"acl-{n}": rule for n, rule in enumerate(made) if isinstance(rule, Rule)}
    admission = Admission(identity)
    needs = steps_left(admission, Message("GET", "/", []), Snapshot(1), 0.0, RuleSet.of((), own))
    if needs is not None:
        assert settle(needs, Stores(MemoryStore(10), MemoryCounter())) is None
    return dict(identity_headers(admission.identity)).get("X-Consumer-Groups")


def test_groups_are_told_by_acl_alone() -> None:
    assert told(PARTNER) is None
    assert told(PARTNER, {"allow": ["gold"]}) == "gold, partners"
    assert told(PARTNER, {"allow": ["gold"], "hide_groups_header": True}) is None
    assert told(LONER, {"deny": ["gold"]}) is None
    assert told(GUEST, {"allow": ["public"]}) == "public"
    assert told(PARTNER._replace(dialect="apisix")) == "gold, partners"
