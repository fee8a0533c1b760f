"""multi-auth: one of several methods is enough. Its configuration, and what the gate makes of it."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from hmac_gateway.core.credential import Consumer, Credential
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import answer
from hmac_gateway.gate import Admission, Pipeline, check, compile_step, pipeline
from hmac_gateway.plugins import multi_auth, validate_config
from hmac_gateway.plugins.fields import Worded
from hmac_gateway.snapshot import lookups

from ..support.engine import ALICE, BOB, GUEST, NOW, People, credential, signed
from ..support.tokens import SECRET, token

KEY = ("apikey", "alice-key")
PASSWORD = ("authorization", "Basic " + b64encode(b"alice:alice-password").decode())
TOKEN = token("HS256", {"key": "joe", "sub": "7"})
BEARER = ("authorization", f"Bearer {TOKEN}")

TABLES: dict[str, dict[str, Credential]] = {
    "key-auth": {"alice-key": credential("f", b"alice-key", plugin="key-auth")},
    "basic-auth": {"alice": credential("alice", b"alice-password", plugin="basic-auth")},
    "jwt-auth": {"joe": credential("joe", SECRET.encode(), plugin="jwt-auth", consumer=BOB)},
    "hmac-auth": {"key-1": credential()},
}
PEOPLE = People(lookups(TABLES), {"guest": GUEST, "other": Consumer("9", "other")})


def multi(*methods: tuple[str, dict[str, Any]], **more: Any) -> Pipeline:
    config = {"auth_plugins": [{name: given} for name, given in methods], **more}
    return pipeline([compile_step("multi-auth", config, max_body=1000)])


def run(steps: Pipeline, *headers: tuple[str, str], target: str = "/ip", sent: Message | None = None) -> Any:
    return check(sent or Message("GET", target, headers), steps, PEOPLE, NOW)


def admitted(steps: Pipeline, *headers: tuple[str, str], **more: Any) -> Admission:
    result = run(steps, *headers, **more)
    assert isinstance(result, Admission), (result, result.detail)
    return result


def refused(steps: Pipeline, *headers: tuple[str, str], **more: Any) -> Rejected:
    result = run(steps, *headers, **more)
    assert isinstance(result, Rejected), result
    return result


BOTH = multi(("key-auth", {}), ("basic-auth", {}))
ALL = multi(("hmac-auth", {}), ("key-auth", {}), ("basic-auth", {}), ("jwt-auth", {"store_in_ctx": True}))


# --- configuration ---


@pytest.mark.parametrize(
    ("config", "field", "text"),
    [
        ({}, "auth_plugins", None),
        ({"auth_plugins": []}, "auth_plugins", None),
        ({"auth_plugins": [{"key-auth": {}}]}, "auth_plugins", None),
        ({"auth_plugins": [{"key-auth": {}}, {}]}, "auth_plugins.2", None),
        ({"auth_plugins": [{"key-auth": {}, "jwt-auth": {}}, {"key-auth": {}}]}, "auth_plugins.1", None),
        ({"auth_plugins": [{"key-auth": {}}, {"nope": {}}]}, "auth_plugins.2", "nope plugin did not found"),
        (
            {"auth_plugins": [{"public-api": {}}, {"key-auth": {}}]},
            "auth_plugins.1",
            "public-api plugin is not supported",
        ),
        (
            {"auth_plugins": [{"multi-auth": {}}, {"key-auth": {}}]},
            "auth_plugins.1",
            "multi-auth plugin is not supported",
        ),
        ({"auth_plugins": [{"key-auth": {"header": 5}}, {"key-auth": {}}]}, "auth_plugins.1.key-auth.header", None),
        ({"auth_plugins": [{"key-auth": []}, {"key-auth": {}}]}, "auth_plugins.1.key-auth.config", None),
    ],
)
def test_wrong_configuration_names_the_field(config: dict[str, Any], field: str, text: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config("multi-auth", config, "apisix")
    assert caught.value.field == field
    if text is not None:
        assert isinstance(caught.value, Worded) and caught.value.text == text


def test_what_the_gate_sees_of_it() -> None:
    config = multi_auth.compile(
        {"auth_plugins": [{"key-auth": {"hide_credentials": True}}, {"basic-auth": {"anonymous_consumer": "guest"}}]}
    )
    common = config.common
    assert (common.challenge, common.anonymous, common.hide_credentials) == ('Basic realm="basic"', "guest", True)
    assert common.carriers == {("header", "apikey"), ("query", "apikey"), ("header", "authorization")}
    assert multi_auth.priority["apisix"] == 2600


# --- any of them ---


@pytest.mark.parametrize(
    ("headers", "plugin", "consumer", "exempt"),
    [
        ([KEY], "key-auth", ALICE, True),
        ([PASSWORD], "basic-auth", ALICE, False),
        ([BEARER], "jwt-auth", BOB, True),
        # The first that holds counts, in the order of the configuration.
        ([KEY, BEARER], "key-auth", ALICE, True),
        ([("apikey", "wrong"), BEARER], "jwt-auth", BOB, True),
    ],
)
def test_one_is_enough(headers: list[tuple[str, str]], plugin: str, consumer: Consumer, exempt: bool) -> None:
    identity = admitted(ALL, *headers).identity
    assert (identity.plugin, identity.consumer, identity.csrf_exempt) == (plugin, consumer, exempt)
    assert (identity.claims is not None) == (plugin == "jwt-auth")
    assert not identity.anonymous


def test_a_signature_with_its_body_and_mark() -> None:
    steps = multi(("key-auth", {}), ("hmac-auth", {"validate_request_body": True, "replay_protection": True}))
    digest = ("Digest", "SHA-256=" + b64encode(b"x" * 32).decode())
    sent = signed("POST", "/", digest, ("Content-Length", "3"), listed=("@request-target", "date", "digest"))
    found = admitted(steps, sent=sent)
    assert found.identity.plugin == "hmac-auth" and "digest" in found.identity.covered
    assert len(found.replays) == 1
    # The site's own limit reaches the methods inside.
    assert found.limit == 1000
    digests = found.digests()
    digests[0].feed(b"abc")
    wrong = found.finish(digests)
    assert isinstance(wrong, Rejected)
    assert (wrong.reason, answer(wrong).status, answer(wrong).body) == (Reason.DIGEST_MISMATCH, 401, FAILED)
    assert answer(found.too_large(2000)).body == answer(found.replayed(found.replays[0][0])).body == FAILED


FAILED = b'{"message":"Authorization Failed"}\n'


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], Reason.MISSING),
        ([("apikey", "guessed")], Reason.UNKNOWN_KEY),
        ([("apikey", "guessed"), ("authorization", "Basic eDp5")], Reason.UNKNOWN_KEY),
        # Nothing came for the first; the second's reason tells more.
        ([("authorization", "Basic " + b64encode(b"alice:x").decode())], Reason.WRONG_PASSWORD),
        ([BEARER], Reason.WRONG_SCHEME),
    ],
)
def test_all_fail_in_one_voice(headers: list[tuple[str, str]], reason: Reason) -> None:
    found = refused(BOTH, *headers)
    assert (found.reason, found.plugin) == (reason, "multi-auth")
    assert answer(found) == (
        401,
        FAILED,
        [("content-type", "application/json"), ("www-authenticate", 'Basic realm="basic"')],
    )
    assert found.detail.startswith("key-auth: ") and "; basic-auth: " in found.detail
    for secret in ("guessed", "eDp5", "alice-key"):
        assert secret not in found.detail


def test_the_code_where_that_is_asked() -> None:
    steps = multi(("key-auth", {}), ("basic-auth", {}), expose_reason=True)
    body = answer(refused(steps, ("apikey", "x"))).body
    assert body == b'{"message":"Authorization Failed","code":"unknown_key"}\n'


def test_a_body_that_is_too_large_is_one_failure_among_others() -> None:
    steps = multi(("hmac-auth", {"validate_request_body": True}), ("key-auth", {}))
    digest = ("Digest", "SHA-256=" + b64encode(b"x" * 32).decode())
    listed = ("@request-target", "date", "digest")
    sent = signed("POST", "/", digest, ("Content-Length", "1001"), listed=listed)
    assert answer(refused(steps, sent=sent))[:2] == (401, FAILED)
    with_key = signed("POST", "/", digest, ("Content-Length", "1001"), KEY, listed=listed)
    assert admitted(steps, sent=with_key).identity.plugin == "key-auth"


def test_two_authorization_headers() -> None:
    found = refused(BOTH, PASSWORD, PASSWORD)
    assert (found.reason, answer(found).status) == (Reason.DUPLICATE_HEADER, 400)


# --- hidden, anonymous ---


def test_only_what_let_it_in_is_hidden() -> None:
    steps = multi(("key-auth", {}), ("jwt-auth", {"hide_credentials": True}), ("basic-auth", {}))
    assert admitted(steps, BEARER).hidden == {("header", "authorization")}
    assert admitted(steps, target=f"/?jwt={TOKEN}").hidden == {("query", "jwt")}
    assert admitted(steps, KEY, BEARER).hidden == frozenset()
    # A method before it that reads the same header finds it as it came, and so does the service.
    assert admitted(steps, PASSWORD).hidden == frozenset()


def test_an_anonymous_consumer_hides_no_later_method() -> None:
    steps = multi(("key-auth", {"anonymous_consumer": "guest", "hide_credentials": True}), ("basic-auth", {}))
    assert admitted(steps, PASSWORD).identity.consumer == ALICE
    found = admitted(steps, ("apikey", "wrong"))
    assert (found.identity.consumer, found.identity.anonymous, found.identity.csrf_exempt) == (GUEST, True, False)
    assert found.hidden == {("header", "apikey"), ("query", "apikey")}
    steps = multi(("key-auth", {}), ("basic-auth", {"anonymous_consumer": "nobody"}))
    found_none = refused(steps)
    assert found_none.reason is Reason.ANONYMOUS_UNKNOWN
    assert answer(found_none).body == b'{"message":"Invalid user authorization"}\n'


def test_beside_another_plugin_both_must_hold() -> None:
    config = {"auth_plugins": [{"jwt-auth": {"store_in_ctx": True}}, {"basic-auth": {}}]}
    steps = pipeline([compile_step("multi-auth", config), compile_step("key-auth", {})])
    assert admitted(steps, KEY, PASSWORD).identity.plugin == "key-auth"
    assert refused(steps, PASSWORD).plugin == "key-auth"
    assert refused(steps, KEY).plugin == "multi-auth"
    assert refused(steps, KEY, BEARER).reason is Reason.DIFFERENT_CONSUMERS


def test_claims_outlive_a_later_plugin() -> None:
    table = {"joe": credential("joe", SECRET.encode(), plugin="jwt-auth")}
    people = People(lookups({**TABLES, "jwt-auth": table}), {})
    steps = pipeline([compile_step("jwt-auth", {"store_in_ctx": True}), compile_step("key-auth", {})])
    found = check(Message("GET", "/", [KEY, BEARER]), steps, people, NOW)
    assert isinstance(found, Admission)
    assert (found.identity.plugin, found.identity.claims) == ("key-auth", {"key": "joe", "sub": "7"})
