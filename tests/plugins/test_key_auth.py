"""plugins.key_auth: configuration, where a key is looked for, and refusals as a client reads them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.credential import Credential
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.identity import Verified
from hmac_gateway.core.macs import DUMMY_SECRET
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.trace import Trace
from hmac_gateway.core.words import answer
from hmac_gateway.plugins import PLUGINS, key_auth, validate_config, validate_credential

from ..support.engine import ALICE, NOW, credential

KEY = "alice-primary-key"
#: The key in bytes as text: `é` in UTF-8.
ACCENT = "cl\xc3\xa9"


def held(key: str, **more: Any) -> Credential:
    return credential("a-fingerprint", key.encode("latin-1"), plugin="key-auth", **more)


TABLE = {
    KEY: held(KEY),
    "a b&c": held("a b&c"),
    ACCENT: held(ACCENT),
    "off": held("off", enabled=False),
    "old": held("old", expires_at=float(NOW)),
    "soon": held("soon", not_before=NOW + 1.0),
    "changed": held("something else"),
    "unopened": Credential("7", ALICE, "key-auth", "f", lambda now: ()),
}


def message(*headers: tuple[str, str], target: str = "/ip") -> Message:
    return Message("GET", target, headers)


def check(sent: Message, **fields: Any) -> Verified | Rejected:
    return key_auth.check(sent, key_auth.compile(fields), TABLE.get, NOW)


def accepted(sent: Message, **fields: Any) -> Verified:
    result = check(sent, **fields)
    assert isinstance(result, Verified), result
    return result


def refused(sent: Message, **fields: Any) -> Rejected:
    result = check(sent, **fields)
    assert isinstance(result, Rejected), result
    return result


# --- configuration ---


def test_defaults_are_the_originals() -> None:
    config = key_auth.compile({})
    common = config.common
    assert config.places == (("header", "apikey"), ("query", "apikey"))
    assert common.challenge == 'apikey realm="key"'
    assert (common.dialect, common.anonymous, common.hide_credentials, common.expose_reason) == (
        "apisix",
        "",
        False,
        False,
    )
    assert common.carriers == {("header", "apikey"), ("query", "apikey")}
    assert key_auth.priority["apisix"] == 2500
    assert PLUGINS["key-auth"] is key_auth  # type: ignore[comparison-overlap]


def test_every_field() -> None:
    config = key_auth.compile(
        {
            "header": "X-Api_Key",
            "query": "clé",
            "hide_credentials": True,
            "realm": "my realm",
            "anonymous_consumer": "guest",
            "expose_reason": True,
            "_meta": {"priority": 1},
            "unknown": "kept silently",
        }
    )
    assert config.places == (("header", "x-api_key"), ("header", "x-api-key"), ("query", ACCENT))
    common = config.common
    assert common.challenge == 'apikey realm="my realm"'
    assert (common.anonymous, common.hide_credentials, common.expose_reason) == ("guest", True, True)
    assert common.carriers == {("header", "x-api_key"), ("header", "x-api-key"), ("query", ACCENT)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("header", ""),
        ("header", 5),
        ("header", None),
        ("header", "api key"),
        ("header", "apikey\r\nx: y"),
        ("header", "apikey\n"),
        ("header", "api:key"),
        ("header", "clé"),
        ("header", "x" * 129),
        ("query", ""),
        ("query", ["apikey"]),
        ("hide_credentials", "yes"),
        ("realm", ""),
        ("realm", 'a"b'),
        ("realm", "a\r\nb"),
        ("anonymous_consumer", ""),
        ("expose_reason", 1),
    ],
)
def test_wrong_configuration_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        key_auth.compile({field: value})
    assert (caught.value.field, caught.value.given) == (field, value)


def test_an_unknown_dialect() -> None:
    with pytest.raises(ConfigError) as caught:
        key_auth.compile({}, "unheard-of")
    assert caught.value.field == "dialect"


def test_meta_is_checked() -> None:
    validate_config("key-auth", {"_meta": {"disable": True}}, "apisix")
    with pytest.raises(ConfigError) as caught:
        validate_config("key-auth", {"_meta": {"disable": 1}}, "apisix")
    assert caught.value.field == "_meta.disable"


def test_credentials() -> None:
    validate_credential("key-auth", {"key": "k"})
    for wrong in ({}, {"key": ""}, {"key": ["topsecret"]}, {"key": "topsecret" * 500}, {"key": None}):
        with pytest.raises(ConfigError) as caught:
            validate_credential("key-auth", wrong)
        assert caught.value.field == "key"
        # The key is what names the credential, and still must not show.
        assert "topsecret" not in repr(caught.value.args) + str(caught.value)


# --- where the key is ---


@pytest.mark.parametrize(
    "sent",
    [
        message(("apikey", KEY)),
        message(("APIKEY", KEY)),
        message(("apikey", f"\t {KEY} ")),
        message(("apikey", KEY), target="/ip?apikey=wrong"),
        message(("apikey", KEY), target="/ip?apikey"),
        message(target=f"/ip?apikey={KEY}"),
        message(target=f"/ip?a=1&apikey={KEY}&b"),
        message(target=f"http://gateway.test/ip?apikey={KEY}"),
        message(target="/ip?apikey=%61lice%2Dprimary-key"),
        message(target=f"/ip?%61pikey={KEY}"),
        message(target=f"/ip?&&apikey={KEY}&"),
        message(target=f"/ip?APIKEY=other&apikey={KEY}"),
    ],
)
def test_a_key_that_is_found(sent: Message) -> None:
    assert accepted(sent).credential is TABLE[KEY]


def test_values_are_decoded_as_nginx_does() -> None:
    for spelled in ("a+b%26c", "a%20b%26c", "%61%20b%26c"):
        assert accepted(message(target=f"/ip?apikey={spelled}")).credential is TABLE["a b&c"]
    assert accepted(message(target="/ip?apikey=cl%C3%A9")).credential is TABLE[ACCENT]
    assert accepted(message(("apikey", ACCENT))).credential is TABLE[ACCENT]
    # A header's value stands for itself.
    assert refused(message(("apikey", "a%20b%26c"))).reason is Reason.UNKNOWN_KEY


def test_other_names() -> None:
    fields = {"header": "X-Key", "query": "the key"}
    assert accepted(message(("x-key", KEY)), **fields)
    for target in (f"/?the+key={KEY}", f"/?the%20key={KEY}"):
        assert accepted(message(target=target), **fields)
    assert refused(message(("apikey", KEY), target=f"/?apikey={KEY}"), **fields).reason is Reason.MISSING


def test_a_dash_stands_in_for_an_underscore() -> None:
    assert accepted(message(("x_key", KEY)), header="x_key").carrier == ("header", "x_key")
    assert accepted(message(("x-key", KEY)), header="x_key").carrier == ("header", "x-key")
    assert refused(message(("x_key", "wrong"), ("x-key", KEY)), header="x_key").reason is Reason.UNKNOWN_KEY
    assert refused(message(("x_key", KEY)), header="x-key").reason is Reason.MISSING


def test_what_it_says_of_the_place() -> None:
    found = accepted(message(("apikey", KEY)))
    assert (found.carrier, found.csrf_exempt) == (("header", "apikey"), True)
    found = accepted(message(target=f"/?apikey={KEY}"))
    assert (found.carrier, found.csrf_exempt) == (("query", "apikey"), False)
    assert (found.covered, found.body, found.replay) == (frozenset(), None, None)


@pytest.mark.parametrize(
    ("query", "everywhere"),
    [("", False), ("?apikey=mine-to-the-service", False), (f"?apikey={KEY}", True), (f"?a&%61pikey={KEY}", True)],
)
def test_the_same_key_in_the_query_is_hidden_too(query: str, everywhere: bool) -> None:
    sent = message(("apikey", KEY), target=f"/ip{query}")
    found = accepted(sent, hide_credentials=True)
    assert (found.carrier, found.csrf_exempt) == (None if everywhere else ("header", "apikey"), True)
    assert accepted(sent).carrier == ("header", "apikey")


# --- refusals ---

MISSING = b'{"message":"Missing API key found in request"}\n'
INVALID = b'{"message":"Invalid API key in request"}\n'


@pytest.mark.parametrize(
    ("sent", "reason", "body"),
    [
        (message(), Reason.MISSING, MISSING),
        (message(target="/ip?a=1"), Reason.MISSING, MISSING),
        (message(target="/ip?APIKEY=x"), Reason.MISSING, MISSING),
        (message(target="/apikey=x"), Reason.MISSING, MISSING),
        (message(("authorization", KEY)), Reason.MISSING, MISSING),
        (message(("apikey", "wrongkey")), Reason.UNKNOWN_KEY, INVALID),
        # A header that is there is final, also an empty one.
        (message(("apikey", "wrongkey"), target=f"/ip?apikey={KEY}"), Reason.UNKNOWN_KEY, INVALID),
        (message(("apikey", ""), target=f"/ip?apikey={KEY}"), Reason.UNKNOWN_KEY, INVALID),
        (message(("apikey", KEY.upper())), Reason.UNKNOWN_KEY, INVALID),
        (message(("apikey", f"Bearer {KEY}")), Reason.UNKNOWN_KEY, INVALID),
        (message(("apikey", KEY), ("apikey", KEY)), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(("apikey", f"{KEY},{KEY}")), Reason.UNKNOWN_KEY, INVALID),
        (message(target="/ip?apikey"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(target="/ip?apikey="), Reason.UNKNOWN_KEY, INVALID),
        (message(target=f"/ip?apikey={KEY}&apikey={KEY}"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(target=f"/ip?apikey={KEY}&%61pikey"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(target="/ip?apikey=%zz"), Reason.UNKNOWN_KEY, INVALID),
        (message(("apikey", "off")), Reason.CREDENTIAL_DISABLED, INVALID),
        (message(("apikey", "old")), Reason.CREDENTIAL_EXPIRED, INVALID),
        (message(("apikey", "soon")), Reason.CREDENTIAL_NOT_YET_VALID, INVALID),
        # What was found is held against the key itself.
        (message(("apikey", "changed")), Reason.UNKNOWN_KEY, INVALID),
        (message(("apikey", "unopened")), Reason.SECRET_UNAVAILABLE, INVALID),
        (message(("apikey", DUMMY_SECRET.decode("latin-1"))), Reason.UNKNOWN_KEY, INVALID),
    ],
)
def test_what_clients_read(sent: Message, reason: Reason, body: bytes) -> None:
    found = refused(sent)
    assert (found.reason, found.plugin, found.dialect) == (reason, "key-auth", "apisix")
    assert answer(found) == (
        401,
        body,
        [("content-type", "application/json"), ("www-authenticate", 'apikey realm="key"')],
    )


def test_the_realm_and_the_code_are_configured() -> None:
    found = answer(refused(message(("apikey", "off")), realm="x y", expose_reason=True))
    assert ("www-authenticate", 'apikey realm="x y"') in found.headers
    assert found.body == b'{"message":"Invalid API key in request","code":"credential_disabled"}\n'


def test_refusals_and_explanations_hold_no_key() -> None:
    targets = [f"/ip?apikey={KEY}&apikey=x", f"/ip?apikey={KEY}x", f"/ip?x={KEY}"]
    sent = [message(target=target) for target in targets]
    sent += [message(("apikey", text)) for text in (KEY, f"{KEY}x", "changed", "unopened")]
    for one in sent:
        trace = Trace()
        found = key_auth.check(one, key_auth.compile({"expose_reason": True}), TABLE.get, NOW, trace)
        said = repr(trace)
        if isinstance(found, Rejected):
            said += repr(found) + str(found) + found.detail + repr(found.facts) + answer(found).body.decode()
            assert not trace.steps[-1].ok
        else:
            assert all(step.ok for step in trace.steps)
        assert trace.steps
        for key in (KEY, "changed", "unopened"):
            assert key not in said


# --- any bytes ---

BYTES = st.binary(max_size=40)


@given(BYTES, BYTES, st.sampled_from(["header", "query"]))
def test_of_any_two_keys_only_the_same_one_is_let_in(key: bytes, sent: bytes, place: str) -> None:
    stored = key.decode("latin-1")
    table = {stored: held(stored)}
    if place == "header":
        # A message strips blanks around a header's value.
        text = sent.decode("latin-1").strip(" \t")
        one, same = message(("apikey", sent.decode("latin-1"))), text == stored
    else:
        one, same = message(target=f"/?apikey={quote_from_bytes(sent)}"), sent == key
    result = key_auth.check(one, key_auth.compile({}), table.get, NOW)
    assert isinstance(result, Verified) == same


@given(st.binary(max_size=200))
def test_no_query_is_an_error(query: bytes) -> None:
    result = check(message(target="/?" + query.decode("latin-1")))
    assert isinstance(result, Rejected)
    assert answer(result).status == 401
