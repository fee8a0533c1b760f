"""plugins.basic_auth: configuration, what counts as user name and password, and refusals as a client reads them."""

from __future__ import annotations

import base64
from typing import Any

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
from hmac_gateway.plugins import PLUGINS, basic_auth, validate_config, validate_credential

from ..support.engine import ALICE, NOW, credential


def held(user: str, *passwords: bytes, **more: Any) -> Credential:
    return credential(user, *passwords, plugin="basic-auth", **more)


TABLE = {
    "alice": held("alice", b"alice-password"),
    "colon": held("colon", b"a:b:c"),
    "blank": held("blank", b" pass word\t"),
    "tight": held("tight", b"password"),
    "two words": held("two words", b"x"),
    "both": held("both", b"new", b"previous"),
    "j\xc3\xb6rg": held("j\xc3\xb6rg", "pässword".encode()),
    "off": held("off", b"secret", enabled=False),
    "old": held("old", b"secret", expires_at=float(NOW)),
    "soon": held("soon", b"secret", not_before=NOW + 1.0),
    "unopened": Credential("7", ALICE, "basic-auth", "unopened", lambda now: ()),
}


def basic(pair: str | bytes, word: str = "Basic ") -> Message:
    raw = pair.encode() if isinstance(pair, str) else pair
    return sent(word + base64.b64encode(raw).decode())


def sent(*values: str) -> Message:
    return Message("GET", "/ip", [("Authorization", value) for value in values])


def check(message: Message, **fields: Any) -> Verified | Rejected:
    return basic_auth.check(message, basic_auth.compile(fields), TABLE.get, NOW)


def refused(message: Message, **fields: Any) -> Rejected:
    result = check(message, **fields)
    assert isinstance(result, Rejected), result
    return result


# --- configuration ---


def test_defaults_are_the_originals() -> None:
    common = basic_auth.compile({}).common
    assert common.challenge == 'Basic realm="basic"'
    assert (common.dialect, common.anonymous, common.hide_credentials, common.expose_reason) == (
        "apisix",
        "",
        False,
        False,
    )
    assert common.carriers == {("header", "authorization")}
    assert basic_auth.priority["apisix"] == 2520
    assert PLUGINS["basic-auth"] is basic_auth  # type: ignore[comparison-overlap]


def test_every_field() -> None:
    config = {"hide_credentials": True, "realm": "my realm", "anonymous_consumer": "guest", "expose_reason": True}
    common = basic_auth.compile({**config, "unknown": "kept silently"}).common
    assert common.challenge == 'Basic realm="my realm"'
    assert (common.anonymous, common.hide_credentials, common.expose_reason) == ("guest", True, True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hide_credentials", "yes"),
        ("realm", ""),
        ("realm", "x" * 129),
        ("realm", 'a"b'),
        ("realm", "a\n"),
        ("anonymous_consumer", ""),
        ("anonymous_consumer", 5),
        ("expose_reason", 1),
    ],
)
def test_wrong_configuration_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        basic_auth.compile({field: value})
    assert (caught.value.field, caught.value.given) == (field, value)


def test_dialect_and_meta() -> None:
    with pytest.raises(ConfigError) as caught:
        basic_auth.compile({}, "unheard-of")
    assert caught.value.field == "dialect"
    with pytest.raises(ConfigError) as caught:
        validate_config("basic-auth", {"_meta": {"typo": 1}}, "apisix")
    assert caught.value.field == "_meta.typo"


def test_credentials() -> None:
    validate_credential("basic-auth", {"username": "a b", "password": "x:y z"})
    for wrong, field in (
        ({"password": "topsecret"}, "username"),
        ({"username": "u"}, "password"),
        ({"username": "", "password": "topsecret"}, "username"),
        ({"username": "a:b", "password": "topsecret"}, "username"),
        ({"username": "u" * 257, "password": "topsecret"}, "username"),
        ({"username": "u", "password": ""}, "password"),
        ({"username": "u", "password": ["topsecret"]}, "password"),
        ({"username": "u", "password": "topsecret" * 500}, "password"),
    ):
        with pytest.raises(ConfigError) as caught:
            validate_credential("basic-auth", wrong)
        assert caught.value.field == field
        assert "topsecret" not in repr(caught.value.args) + str(caught.value)


# --- accepted ---


@pytest.mark.parametrize(
    ("message", "user"),
    [
        (basic("alice:alice-password"), "alice"),
        (basic("alice:alice-password", "basic "), "alice"),
        (basic("alice:alice-password", "BASIC "), "alice"),
        (basic("alice:alice-password", "Basic  \t"), "alice"),
        (sent("Basic YWxpY2U6YWxpY2UtcGFzc3dvcmQ"), "alice"),  # without padding
        # White space goes, as in APISIX.
        (basic("alice:alice-password\n"), "alice"),
        (basic("al ice : alice-pass\tword\r\n"), "alice"),
        (basic("colon:a:b:c"), "colon"),
        (basic("colon:a:b: c"), "colon"),
        (basic("blank: pass word\t"), "blank"),
        (basic("tight:pass word"), "tight"),
        (basic("two words:x"), "two words"),
        (basic("both:new"), "both"),
        (basic("both:previous"), "both"),
        (basic("jörg:pässword"), "j\xc3\xb6rg"),
    ],
)
def test_what_holds(message: Message, user: str) -> None:
    found = check(message)
    assert isinstance(found, Verified), found
    assert found.credential is TABLE[user]
    assert (found.csrf_exempt, found.covered, found.replay) == (False, frozenset(), None)
    assert found.carrier == ("header", "authorization")


# --- refusals ---

MISSING = b'{"message":"Missing authorization in request"}\n'
INVALID = b'{"message":"Invalid authorization in request"}\n'
WRONG = b'{"message":"Invalid user authorization"}\n'


@pytest.mark.parametrize(
    ("message", "reason", "body"),
    [
        (Message("GET", "/", []), Reason.MISSING, MISSING),
        (Message("GET", "/", [("Proxy-Authorization", "Basic YTpi")]), Reason.MISSING, MISSING),
        (sent(""), Reason.WRONG_SCHEME, INVALID),
        (sent("Bearer YTpi"), Reason.WRONG_SCHEME, INVALID),
        (sent("YTpi"), Reason.WRONG_SCHEME, INVALID),
        (sent("BasicYTpi"), Reason.WRONG_SCHEME, INVALID),
        (sent("Basics YTpi"), Reason.WRONG_SCHEME, INVALID),
        (sent("\xc2\xa0Basic YTpi"), Reason.WRONG_SCHEME, INVALID),
        (sent("Basic"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (sent("Basic ="), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (sent("Basic alice:alice-password"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (sent("Basic YTpi YTpi"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (sent("Basic YTpi,Basic YTpi"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (sent("Basic YTpi\xe9"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (sent("Basic YTp_"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (basic("alice"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (basic(""), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (basic("alice:wrong-password"), Reason.WRONG_PASSWORD, WRONG),
        (basic("alice:"), Reason.WRONG_PASSWORD, WRONG),
        (basic("alice:Alice-password"), Reason.WRONG_PASSWORD, WRONG),
        (basic("alice:alice-password:"), Reason.WRONG_PASSWORD, WRONG),
        (basic("alice:alice-password\0"), Reason.WRONG_PASSWORD, WRONG),
        (basic("colon:a"), Reason.WRONG_PASSWORD, WRONG),
        (basic("colon:b"), Reason.WRONG_PASSWORD, WRONG),
        # Only what was sent loses its white space, never what is stored.
        (basic("blank:password"), Reason.WRONG_PASSWORD, WRONG),
        (basic("twowords:x"), Reason.UNKNOWN_KEY, WRONG),
        (basic("alice:wrong password"), Reason.WRONG_PASSWORD, WRONG),
        (basic("al ice:wrong"), Reason.WRONG_PASSWORD, WRONG),
        (basic("two words:wrong"), Reason.WRONG_PASSWORD, WRONG),
        (basic("nobody:x y"), Reason.UNKNOWN_KEY, WRONG),
        (basic("Alice:alice-password"), Reason.UNKNOWN_KEY, WRONG),
        (basic(":"), Reason.UNKNOWN_KEY, WRONG),
        (basic("nobody:alice-password"), Reason.UNKNOWN_KEY, WRONG),
        (basic(b"nobody:" + DUMMY_SECRET), Reason.UNKNOWN_KEY, WRONG),
        (basic(b"off:" + DUMMY_SECRET), Reason.CREDENTIAL_DISABLED, WRONG),
        (basic("off:secret"), Reason.CREDENTIAL_DISABLED, WRONG),
        (basic("old:secret"), Reason.CREDENTIAL_EXPIRED, WRONG),
        (basic("soon:secret"), Reason.CREDENTIAL_NOT_YET_VALID, WRONG),
        (basic("unopened:"), Reason.SECRET_UNAVAILABLE, WRONG),
        (basic(b"j\xf6rg:p\xe4ssword"), Reason.UNKNOWN_KEY, WRONG),
    ],
)
def test_what_clients_read(message: Message, reason: Reason, body: bytes) -> None:
    found = refused(message)
    assert (found.reason, found.plugin, found.dialect) == (reason, "basic-auth", "apisix")
    assert answer(found) == (
        401,
        body,
        [("content-type", "application/json"), ("www-authenticate", 'Basic realm="basic"')],
    )


def test_the_realm_and_the_code_are_configured() -> None:
    found = answer(refused(basic("alice:x"), realm="x y", expose_reason=True))
    assert ("www-authenticate", 'Basic realm="x y"') in found.headers
    assert found.body == b'{"message":"Invalid user authorization","code":"wrong_password"}\n'


def test_refusals_and_explanations_hold_no_password() -> None:
    for message in (
        basic("alice:topsecret"),
        basic("nobody:topsecret"),
        basic("off:topsecret"),
        basic("topsecret"),
        sent("Bearer topsecret"),
        sent("Basic topsecret!"),
        sent("topsecret"),
    ):
        trace = Trace()
        found = basic_auth.check(message, basic_auth.compile({"expose_reason": True}), TABLE.get, NOW, trace)
        assert isinstance(found, Rejected) and not trace.steps[-1].ok
        said = repr(trace) + repr(found) + str(found) + found.detail + repr(found.facts)
        assert "topsecret" not in said + answer(found).body.decode()
        assert "alice-password" not in said


def test_an_explanation_names_the_user() -> None:
    trace = Trace()
    basic_auth.check(basic("jörg:pässword"), basic_auth.compile({}), TABLE.get, NOW, trace)
    assert [(step.name, step.ok, step.received) for step in trace.steps] == [
        ("authorization", True, "user jörg"),
        ("password", True, ""),
    ]


# --- any bytes ---

PASSWORDS = st.binary(min_size=1, max_size=20)


@given(PASSWORDS, PASSWORDS)
def test_of_any_two_passwords_only_the_same_one_is_let_in(stored: bytes, given_: bytes) -> None:
    table = {"u": held("u", stored)}
    result = basic_auth.check(basic(b"u:" + given_), basic_auth.compile({}), table.get, NOW)
    without = given_.translate(None, b" \t\n\r\x0b\x0c")
    assert isinstance(result, Verified) == (stored in (given_, without))


@given(st.binary(max_size=60))
def test_no_header_is_an_error(value: bytes) -> None:
    for message in (sent(value.decode("latin-1")), sent("Basic " + value.decode("latin-1")), basic(value)):
        result = check(message)
        assert isinstance(result, Rejected)
        assert answer(result).status == 401
