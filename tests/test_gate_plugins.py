"""gate: key-auth and basic-auth beside others: all must hold, in their order, for one consumer."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from hmac_gateway.core.credential import Consumer, Credential
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import answer
from hmac_gateway.gate import Admission, Pipeline, check, pipeline
from hmac_gateway.plugins import PLUGINS
from hmac_gateway.snapshot import Snapshot, lookups

from .support.engine import ALICE, BOB, GUEST, NOW, People, credential, signed, step

KEY = ("apikey", "alice-key")
PASSWORD = ("Authorization", "Basic " + b64encode(b"alice:alice-password").decode())


def people(*, key: Consumer = ALICE, password: Consumer = ALICE, **more: Any) -> People:
    tables: dict[str, dict[str, Credential]] = {
        "key-auth": {"alice-key": credential("f", b"alice-key", plugin="key-auth", consumer=key)},
        "basic-auth": {"alice": credential("alice", b"alice-password", plugin="basic-auth", consumer=password)},
        "hmac-auth": {"key-1": credential()},
    }
    return People(lookups(tables), {"guest": GUEST}, **more)


def pipe(**configs: dict[str, Any]) -> Pipeline:
    return pipeline([step(PLUGINS[name.replace("_", "-")], **config) for name, config in configs.items()])


def message(*headers: tuple[str, str], target: str = "/ip") -> Message:
    return Message("GET", target, headers)


def admitted(sent: Message, steps: Pipeline, who: People | None = None) -> Admission:
    result = check(sent, steps, who or people(), NOW)
    assert isinstance(result, Admission), result
    return result


def refused(sent: Message, steps: Pipeline, who: People | None = None) -> Rejected:
    result = check(sent, steps, who or people(), NOW)
    assert isinstance(result, Rejected), result
    return result


def text(rejected: Rejected) -> tuple[int, bytes, str | None]:
    status, body, headers = answer(rejected)
    return status, body, dict(headers).get("www-authenticate")


# --- one of them ---


@pytest.mark.parametrize(
    ("name", "sent", "exempt"),
    [
        ("key_auth", message(KEY), True),
        ("key_auth", message(target="/?apikey=alice-key"), False),
        ("basic_auth", message(PASSWORD), False),
    ],
)
def test_who_it_is(name: str, sent: Message, exempt: bool) -> None:
    identity = admitted(sent, pipe(**{name: {}})).identity
    assert (identity.consumer, identity.anonymous, identity.csrf_exempt) == (ALICE, False, exempt)
    assert identity.plugin == name.replace("_", "-")


def test_a_plugin_that_nobody_has_a_credential_for_still_asks() -> None:
    nobody = Snapshot(1)
    for name, sent, body in (
        ("key_auth", message(KEY), b'{"message":"Invalid API key in request"}\n'),
        ("basic_auth", message(PASSWORD), b'{"message":"Invalid user authorization"}\n'),
    ):
        found = check(sent, pipe(**{name: {}}), nobody, NOW)
        assert isinstance(found, Rejected)
        assert text(found)[:2] == (401, body)


def test_an_authorization_header_that_comes_twice_is_a_bad_request() -> None:
    for anonymous in ({}, {"anonymous_consumer": "guest"}):
        found = refused(message(PASSWORD, PASSWORD), pipe(basic_auth=anonymous))
        assert text(found) == (400, b'{"message":"duplicated header: authorization"}\n', None)


# --- anonymous consumers ---


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("key_auth", message()),
        ("key_auth", message(("apikey", "wrong"))),
        ("key_auth", message(KEY, KEY)),
        ("key_auth", message(target="/?apikey")),
        ("basic_auth", message()),
        ("basic_auth", message(("Authorization", "Bearer x"))),
        ("basic_auth", message(("Authorization", "Basic x"))),
        ("basic_auth", message(("Authorization", "Basic YTpi"))),
    ],
)
def test_any_failure_falls_back(name: str, sent: Message) -> None:
    identity = admitted(sent, pipe(**{name: {"anonymous_consumer": "guest"}})).identity
    assert identity == Identity(GUEST, None, True, name.replace("_", "-"))
    found = refused(sent, pipe(**{name: {"anonymous_consumer": "nobody"}}))
    assert found.reason is Reason.ANONYMOUS_UNKNOWN
    challenge = {"key_auth": 'apikey realm="key"', "basic_auth": 'Basic realm="basic"'}[name]
    assert text(found) == (401, b'{"message":"Invalid user authorization"}\n', challenge)


# --- hidden ---


def test_what_is_hidden() -> None:
    header, query = ("header", "apikey"), ("query", "apikey")
    hiding = pipe(key_auth={"hide_credentials": True, "anonymous_consumer": "guest"})
    assert admitted(message(KEY), hiding).hidden == {header}
    assert admitted(message(KEY, target="/?apikey=another"), hiding).hidden == {header}
    assert admitted(message(KEY, target="/?apikey=alice-key"), hiding).hidden == {header, query}
    assert admitted(message(target="/?apikey=alice-key"), hiding).hidden == {query}
    assert admitted(message(("apikey", "wrong")), hiding).hidden == {header, query}
    assert admitted(message(), hiding).hidden == {header, query}
    assert admitted(message(KEY), pipe(key_auth={})).hidden == frozenset()
    assert admitted(message(PASSWORD), pipe(basic_auth={"hide_credentials": True})).hidden == {
        ("header", "authorization")
    }
    both = pipe(key_auth={"hide_credentials": True}, basic_auth={"hide_credentials": True})
    assert admitted(message(KEY, PASSWORD), both).hidden == {header, ("header", "authorization")}


# --- several ---


def test_order_is_hmac_basic_key() -> None:
    found = pipe(key_auth={}, hmac_auth={}, basic_auth={})
    assert [one.plugin.name for one in found] == ["hmac-auth", "basic-auth", "key-auth"]


def test_both_must_hold() -> None:
    both = pipe(key_auth={}, basic_auth={})
    identity = admitted(message(KEY, PASSWORD), both).identity
    # One of the two cannot have come from a browser by itself.
    assert (identity.consumer, identity.plugin, identity.csrf_exempt) == (ALICE, "key-auth", True)
    in_query = admitted(message(PASSWORD, target="/?apikey=alice-key"), both).identity
    assert not in_query.csrf_exempt
    assert text(refused(message(PASSWORD), both)) == (
        401,
        b'{"message":"Missing API key found in request"}\n',
        'apikey realm="key"',
    )
    assert text(refused(message(KEY), both)) == (
        401,
        b'{"message":"Missing authorization in request"}\n',
        'Basic realm="basic"',
    )


def test_a_signature_and_a_key() -> None:
    both = pipe(hmac_auth={}, key_auth={})
    identity = admitted(signed("GET", "/", KEY), both).identity
    assert (identity.consumer, identity.plugin) == (ALICE, "key-auth")
    assert refused(signed("GET", "/", ("apikey", "wrong")), both).plugin == "key-auth"
    assert refused(message(KEY), both).plugin == "hmac-auth"


def test_they_must_name_one_consumer() -> None:
    both = pipe(key_auth={}, basic_auth={})
    found = refused(message(KEY, PASSWORD), both, people(password=BOB))
    assert found.reason is Reason.DIFFERENT_CONSUMERS
    assert text(found)[:2] == (401, b'{"message":"the credentials name different consumers"}\n')
    loose = people(password=BOB, require_same_consumer=False)
    assert admitted(message(KEY, PASSWORD), both, loose).identity.consumer is ALICE


def test_one_with_an_anonymous_consumer_may_be_left_out() -> None:
    either = pipe(key_auth={"anonymous_consumer": "guest"}, basic_auth={"anonymous_consumer": "guest"})
    assert admitted(message(KEY), either).identity.consumer is ALICE
    assert admitted(message(PASSWORD), either).identity.consumer is ALICE
    assert admitted(message(), either).identity.consumer is GUEST
