"""plugins.hmac_auth: configuration, and refusals as a client reads them."""

from __future__ import annotations

from typing import Any

import pytest

from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.identity import Verified
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import answer
from hmac_gateway.plugins import PLUGINS, get, hmac_auth, validate_config, validate_credential

from ..support.engine import DATE, NOW, credential, signed

LOOKUP = {"key-1": credential(), "off": credential("off", enabled=False), "old": credential("old", expires_at=1.0)}.get


def config(**fields: Any) -> hmac_auth.Config:
    return hmac_auth.compile(fields)


def refused(message: Message, **fields: Any) -> Rejected:
    result = hmac_auth.check(message, config(**fields), LOOKUP, NOW)
    assert isinstance(result, Rejected)
    return result


# --- configuration ---


def test_defaults_are_the_originals() -> None:
    found = config()
    policy, common = found.policy, found.common
    assert policy.algorithms == {"hmac-sha1", "hmac-sha256", "hmac-sha512"}  # sha384 only where asked for
    assert (policy.clock_skew, policy.required, policy.max_body) == (300, ("date",), 67108864)
    assert (policy.validate_body, policy.replay_methods) == (False, None)
    assert (policy.require_signed_date, policy.require_signed_digest) == (True, True)
    assert common.challenge == 'hmac realm="hmac"'
    assert (common.dialect, common.anonymous, common.hide_credentials, common.expose_reason) == (
        "apisix",
        "",
        False,
        False,
    )
    assert hmac_auth.priority["apisix"] == 2530


def test_fields_of_hmacproxy_mean_nothing_elsewhere() -> None:
    assert config(key_id="my-access-key3", secret_key="my-secret-key3") == config()
    with pytest.raises(ConfigError, match="key_id"):
        hmac_auth.compile({"key_id": "k"}, "kong")


def test_every_field() -> None:
    found = config(
        allowed_algorithms=["hmac-sha384"],
        clock_skew=1,
        signed_headers=["Date", "@request-target", "X-A"],
        validate_request_body=True,
        max_req_body_size=10,
        hide_credentials=True,
        realm="my realm",
        anonymous_consumer="guest",
        require_signed_date=False,
        require_signed_digest=False,
        replay_protection=True,
        expose_reason=True,
        _meta={"disable": False},
        unknown="kept silently",
    )
    policy, common = found.policy, found.common
    assert policy.algorithms == {"hmac-sha384"}
    assert (policy.clock_skew, policy.required, policy.max_body) == (1, ("date", "@request-target", "x-a"), 10)
    assert (policy.validate_body, policy.require_signed_date, policy.require_signed_digest) == (True, False, False)
    assert policy.replay_methods == {"POST", "PUT", "PATCH", "DELETE"}
    assert common.challenge == 'hmac realm="my realm"'
    assert (common.anonymous, common.hide_credentials, common.expose_reason) == ("guest", True, True)


def test_an_empty_list_switches_the_requirement_off() -> None:
    assert config(signed_headers=[]).policy.required == ()


def test_replay_methods_need_the_option() -> None:
    assert config(replay_methods=["GET"]).policy.replay_methods is None
    assert config(replay_protection=True, replay_methods=["GET"]).policy.replay_methods == {"GET"}


def test_whole_numbers_may_be_written_with_a_point() -> None:
    policy = config(clock_skew=30.0, max_req_body_size=10.0).policy
    assert (type(policy.clock_skew), type(policy.max_body)) == (int, int)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clock_skew", 0),
        ("clock_skew", -1),
        ("clock_skew", "300"),
        ("clock_skew", 1.5),
        ("clock_skew", True),
        ("clock_skew", None),
        ("allowed_algorithms", []),
        ("allowed_algorithms", "hmac-sha256"),
        ("signed_headers", "date"),
        ("max_req_body_size", 0),
        ("hide_credentials", "yes"),
        ("realm", ""),
        ("realm", "x" * 129),
        ("realm", 'a"b'),
        ("realm", "a\\b"),
        ("realm", "a\r\nSet-Cookie: x"),
        ("realm", "a\n"),
        ("realm", "\xe9"),
        ("anonymous_consumer", ""),
        ("replay_methods", []),
        ("replay_methods", ["POST", "POST"]),
        ("validate_request_body", 1),
        ("allowed_algorithms", {}),
        ("signed_headers", {}),
        ("max_req_body_size", "1"),
        ("realm", 5),
        ("anonymous_consumer", 5),
        ("require_signed_date", "no"),
        ("require_signed_digest", "no"),
        ("replay_protection", "yes"),
        ("replay_methods", "POST"),
        ("expose_reason", 1),
    ],
)
def test_wrong_configuration_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{field: value})
    assert caught.value.field == field
    assert caught.value.given == value
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("allowed_algorithms", ["hmac-sha256", "hmac-md5"], "allowed_algorithms.2"),
        ("signed_headers", ["date", ""], "signed_headers.2"),
        ("signed_headers", ["x" * 51], "signed_headers.1"),
        ("signed_headers", ["date, host"], "signed_headers.1"),
        ("signed_headers", ["date", "(request-target)"], "signed_headers.2"),
        ("replay_methods", ["post"], "replay_methods.1"),
    ],
)
def test_wrong_items_are_counted_from_one(field: str, value: Any, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{field: value})
    assert caught.value.field == place


def test_an_unknown_dialect() -> None:
    with pytest.raises(ConfigError) as caught:
        hmac_auth.compile({}, "unheard-of")
    assert caught.value.field == "dialect"


def test_validate_config_checks_meta_too() -> None:
    validate_config("hmac-auth", {"_meta": {"priority": 1, "error_response": {"message": "no"}}}, "apisix")
    validate_config("hmac-auth", {"_meta": {"error_response": "no", "filter": [], "pre_function": "return"}}, "apisix")
    for name in ("disable", "priority", "error_response", "filter", "pre_function"):
        with pytest.raises(ConfigError) as caught:
            validate_config("hmac-auth", {"_meta": {name: 1.5}}, "apisix")
        assert caught.value.field == f"_meta.{name}"
    for meta, field in (({"disable": 1}, "_meta.disable"), ({"typo": 1}, "_meta.typo"), ([], "_meta.configuration")):
        with pytest.raises(ConfigError) as caught:
            validate_config("hmac-auth", {"_meta": meta}, "apisix")
        assert caught.value.field == field
    with pytest.raises(ConfigError) as caught:
        validate_config("hmac-auth", [], "apisix")  # type: ignore[arg-type]
    assert caught.value.field == "config"
    with pytest.raises(ConfigError) as caught:
        validate_config("hmac-auth", {"clock_skew": 0}, "apisix")
    assert caught.value.field == "clock_skew"


def test_unknown_plugins() -> None:
    with pytest.raises(ConfigError) as caught:
        get("hmac_auth")
    assert "hmac-auth" in caught.value.allowed


def test_credentials() -> None:
    validate_credential("hmac-auth", {"key_id": "k", "secret_key": "s"})
    validate_credential("hmac-auth", {"key_id": "k" * 256, "secret_key": "s" * 256, "clock_skew": 5})
    for wrong, field in (
        ({"secret_key": "topsecret"}, "key_id"),
        ({"key_id": "k"}, "secret_key"),
        ({"key_id": "", "secret_key": "topsecret"}, "key_id"),
        ({"key_id": "k", "secret_key": ""}, "secret_key"),
        ({"key_id": "k", "secret_key": ["topsecret"]}, "secret_key"),
        ({"key_id": "k", "secret_key": "topsecret" * 29}, "secret_key"),
        ([{"key_id": "k", "secret_key": "topsecret"}], "configuration"),
    ):
        with pytest.raises(ConfigError) as caught:
            validate_credential("hmac-auth", wrong)  # type: ignore[arg-type]
        assert caught.value.field == field
        assert "topsecret" not in str(caught.value)
        assert "topsecret" not in repr(caught.value.args)
    for wrong, given in (
        ({"key_id": "", "secret_key": "s"}, ""),
        ({"key_id": "k"}, None),
        ({"key_id": "k", "secret_key": "s" * 257}, "********"),
    ):
        with pytest.raises(ConfigError) as caught:
            validate_credential("hmac-auth", wrong)
        assert caught.value.given == given


def test_it_is_registered_under_its_name() -> None:
    assert PLUGINS["hmac-auth"] is hmac_auth  # type: ignore[comparison-overlap]


# --- refusals ---


def test_verified() -> None:
    result = hmac_auth.check(signed(), config(), LOOKUP, NOW)
    assert isinstance(result, Verified)
    assert result.credential.consumer.username == "alice"


@pytest.mark.parametrize(
    ("message", "reason", "body"),
    [
        (Message("GET", "/", []), Reason.MISSING, b'{"message":"Missing authorization in request"}\n'),
        (
            Message("GET", "/", [("Authorization", "Basic YTpi")]),
            Reason.WRONG_SCHEME,
            b'{"message":"client request can\'t be validated:'
            b" Authorization header does not start with 'Signature'\"}\n",
        ),
        (signed(key_id="nobody"), Reason.UNKNOWN_KEY, None),
        (signed(key_id="off"), Reason.CREDENTIAL_DISABLED, None),
        (signed(key_id="old"), Reason.CREDENTIAL_EXPIRED, None),
        (signed(secret=b"wrong"), Reason.SIGNATURE_MISMATCH, None),
        (signed(listed=["@request-target"]), Reason.DATE_NOT_SIGNED, None),
        (signed(date=""), Reason.DATE_MISSING, None),
        (signed(date="yesterday"), Reason.DATE_INVALID, None),
        (signed(algorithm="hmac-sha384"), Reason.ALGORITHM_NOT_ALLOWED, None),
    ],
)
def test_what_clients_read(message: Message, reason: Reason, body: bytes | None) -> None:
    found = refused(message)
    assert found.reason is reason
    assert (found.plugin, found.dialect) == ("hmac-auth", "apisix")
    status, text, headers = answer(found)
    assert status == 401
    assert text == body if body else text == b'{"message":"client request can\'t be validated"}\n'
    assert headers == [("content-type", "application/json"), ("www-authenticate", 'hmac realm="hmac"')]


def test_unknown_disabled_expired_and_wrong_read_alike() -> None:
    found = [refused(signed(key_id=key_id, secret=b"wrong")) for key_id in ("nobody", "off", "old", "key-1")]
    assert len({found.reason for found in found}) == 4
    assert len({answer(found)[:2] for found in found}) == 1
    assert len({str(answer(found).headers) for found in found}) == 1


def test_the_realm_and_the_code_are_configured() -> None:
    status, body, headers = answer(refused(signed(secret=b"wrong"), realm="x y", expose_reason=True))
    assert ("www-authenticate", 'hmac realm="x y"') in headers
    assert body == b'{"message":"client request can\'t be validated","code":"signature_mismatch"}\n'


def test_a_body_too_large() -> None:
    message = signed("POST", "/", ("Digest", "SHA-256=x"), ("Content-Length", "11"), listed=["date", "digest"])
    status, body, headers = answer(refused(message, validate_request_body=True, max_req_body_size=10))
    assert (status, body) == (413, b'{"message":"request size 11 is greater than the maximum size 10 allowed"}\n')
    assert headers == [("content-type", "application/json")]


def test_refusals_hold_no_secret_and_no_mac() -> None:
    computed = [(signed("GET", path).get("authorization") or "")[-45:-1] for path in ("/", "/elsewhere")]
    elsewhere = Message("GET", "/elsewhere", signed().headers)
    for message in (signed(secret=b"wrong"), elsewhere, signed(date=DATE.lower())):
        found = refused(message, expose_reason=True)
        for shown in (repr(found), str(found), found.detail, repr(found.facts), answer(found).body.decode()):
            assert not any(text in shown for text in ("s3cret", *computed))


def test_the_credential_stands_in_one_header() -> None:
    assert config().common.carriers == {("header", "authorization")}
