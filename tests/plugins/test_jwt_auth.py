"""plugins.jwt_auth: configuration, where tokens are looked for, what they must say, refusals as clients read them."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt as jose
from joserfc.jwk import ECKey, OctKey, RSAKey

from hmac_gateway.core.credential import Credential
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.identity import Verified
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.trace import Trace
from hmac_gateway.core.words import answer
from hmac_gateway.plugins import PLUGINS, credential_problem, jwt_auth, validate_config, validate_credential

from ..support.engine import ALICE, NOW, VECTORS, credential
from ..support.tokens import (
    PAIRS,
    PUBLIC,
    SECRET,
    SYMMETRIC,
    encode,
    pair,
    part,
    private_pem,
    public_pem,
    signature,
    token,
)


def held(key: str, *secrets: str, algorithm: str = "HS256", **more: Any) -> Credential:
    settings = {"algorithm": algorithm, **more.pop("settings", {})}
    return credential(key, *[secret.encode() for secret in secrets], plugin="jwt-auth", settings=settings, **more)


def paired(key: str, algorithm: str, **more: Any) -> Credential:
    return Credential(
        "7", ALICE, "jwt-auth", key, lambda now: (), settings={"algorithm": algorithm, "public_key": PUBLIC(algorithm)}
    )


TABLE = {
    "joe": held("joe", SECRET),
    "gr\xc3\xbcn": held("grün", SECRET),
    "rotated": held("rotated", "the new secret", SECRET),
    "graced": held("graced", SECRET, settings={"lifetime_grace_period": 30}),
    "encoded": held("encoded", b64encode(SECRET.encode()).decode(), settings={"base64_secret": True}),
    "off": held("off", SECRET, enabled=False),
    "old": held("old", SECRET, expires_at=float(NOW)),
    "soon": held("soon", SECRET, not_before=NOW + 1.0),
    "unopened": Credential("7", ALICE, "jwt-auth", "unopened", lambda now: ()),
    "broken": held("broken", SECRET, algorithm="RS256", settings={"public_key": "no key"}),
    "odd": held("odd", SECRET, settings={"exp": "soon", "lifetime_grace_period": None}),
    "new": held("new", SECRET, algorithm="HS1024"),
    "rsa-as-secret": held("rsa-as-secret", PUBLIC("RS256")),
    **{algorithm: held(algorithm, SECRET, algorithm=algorithm) for algorithm in SYMMETRIC},
    **{algorithm: paired(algorithm, algorithm) for algorithm in PAIRS},
}

GOOD = token("HS256", {"key": "joe"})


def message(*headers: tuple[str, str], target: str = "/ip") -> Message:
    return Message("GET", target, headers)


def bearer(text: str) -> Message:
    return message(("Authorization", f"Bearer {text}"))


def check(sent: Message, **fields: Any) -> Verified | Rejected:
    return jwt_auth.check(sent, jwt_auth.compile(fields), TABLE.get, NOW)


def accepted(sent: Message, **fields: Any) -> Verified:
    result = check(sent, **fields)
    assert isinstance(result, Verified), (result, result.detail)
    return result


def refused(sent: Message, **fields: Any) -> Rejected:
    result = check(sent, **fields)
    assert isinstance(result, Rejected), result
    return result


# --- configuration ---


def test_defaults_are_the_originals() -> None:
    config = jwt_auth.compile({})
    assert (config.headers, config.queries, config.cookies) == (("authorization",), ("jwt",), ("jwt",))
    assert (config.key_claim, config.claims, config.every_time, config.keep_claims) == ("key", (), True, False)
    common = config.common
    assert common.challenge == 'Bearer realm="jwt"'
    assert (common.anonymous, common.hide_credentials, common.expose_reason) == ("", False, False)
    assert common.carriers == {("header", "authorization"), ("query", "jwt"), ("cookie", "jwt")}
    assert jwt_auth.priority["apisix"] == 2510
    assert PLUGINS["jwt-auth"] is jwt_auth  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("header", "a b"),
        ("query", ""),
        ("cookie", "a;b"),
        ("cookie", "a=b"),
        ("cookie", ""),
        ("key_claim_name", ""),
        ("key_claim_name", 5),
        ("claims_to_verify", ["exp", "exp"]),
        ("claims_to_verify", "exp"),
        ("hide_credentials", 1),
        ("store_in_ctx", "yes"),
        ("realm", 'a"b'),
        ("anonymous_consumer", ""),
        ("expose_reason", None),
    ],
)
def test_wrong_configuration_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config("jwt-auth", {field: value}, "apisix")
    assert (caught.value.field, caught.value.given) == (field, value)


def test_an_unknown_claim_to_verify() -> None:
    with pytest.raises(ConfigError) as caught:
        jwt_auth.compile({"claims_to_verify": ["exp", "aud"]})
    assert (caught.value.field, caught.value.allowed) == ("claims_to_verify.2", "one of exp, nbf")


# --- credentials ---

RSA_1024 = (
    "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdlatRjRjogo3WojgGHFHYLugd\n"
    "UWAY9iR3fy4arWNA1KoS8kVw33cJibXr8bvwUAUparCwlvdbH6dvEOfou0/gCFQs\n"
    "HUfQrSDv+MuSUMAe8jzKE4qW+jK+xQU9a03GUnKHkkle+Q0pX/g6jXZ7r1/xAK5D\no2kQ+X5xK9cipRgEKwIDAQAB\n"
    "-----END PUBLIC KEY-----\n"
)


@pytest.mark.parametrize("algorithm", PAIRS)
def test_key_pairs(algorithm: str) -> None:
    good = {"key": "k", "algorithm": algorithm, "public_key": PUBLIC(algorithm)}
    validate_credential("jwt-auth", good)
    validate_credential("jwt-auth", {**good, "private_key": private_pem(pair(algorithm))})
    # One-line fields of forms lose line ends.
    flat = private_pem(pair(algorithm)).replace("\n", "")
    validate_credential("jwt-auth", {**good, "private_key": flat, "public_key": PUBLIC(algorithm).replace("\n", " ")})


OTHER_KIND = "ES384"


@pytest.mark.parametrize(
    ("config", "field", "text"),
    [
        ({}, "secret", 'property "secret" is required when using HS based algorithms'),
        ({"algorithm": "HS512"}, "secret", 'property "secret" is required when using HS based algorithms'),
        (
            {"secret": "not base64!", "base64_secret": True},
            "secret",
            "base64_secret required but the secret is not in base64 format",
        ),
        (
            {"secret": "abcde", "base64_secret": True},
            "secret",
            "base64_secret required but the secret is not in base64 format",
        ),
        ({"secret": "=", "base64_secret": True}, "secret", None),
        ({"secret": PUBLIC("RS256")}, "secret", None),
        ({"secret": PUBLIC("ES256")}, "secret", None),
        ({"secret": "s", "private_key": "p"}, "private_key", 'property "private_key" is not used with algorithm HS256'),
        (
            {"algorithm": "RS256", "public_key": PUBLIC("RS256"), "secret": "s"},
            "secret",
            'property "secret" is not used with algorithm RS256',
        ),
        *(
            (
                {"algorithm": algorithm},
                "public_key",
                'failed to validate dependent schema for "algorithm": '
                "value should match only one schema, but matches none",
            )
            for algorithm in PAIRS
        ),
        ({"algorithm": "RS256", "public_key": "no PEM"}, "public_key", None),
        ({"algorithm": "RS256", "public_key": RSA_1024}, "public_key", None),
        *(
            ({"algorithm": algorithm, "public_key": PUBLIC(OTHER_KIND)}, "public_key", None)
            for algorithm in PAIRS
            if algorithm != OTHER_KIND
        ),
        ({"algorithm": "ES384", "public_key": PUBLIC("EdDSA")}, "public_key", None),
        # A private key in the place that is shown.
        ({"algorithm": "RS256", "public_key": private_pem(pair("RS256"))}, "public_key", None),
        ({"secret": SECRET, "public_key": private_pem(pair("RS256"))}, "public_key", None),
        (
            {"algorithm": "RS256", "public_key": PUBLIC("RS256"), "private_key": private_pem(pair("RS256", 1))},
            "private_key",
            None,
        ),
        ({"algorithm": "RS256", "public_key": PUBLIC("RS256"), "private_key": "no PEM"}, "private_key", None),
    ],
)
def test_credentials_that_nobody_could_use(config: dict[str, Any], field: str, text: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_credential("jwt-auth", {"key": "k", **config})
    assert caught.value.field == field
    assert caught.value.given in (None, "********")
    sealed = config.get("private_key") or config.get("secret") or ""
    found = credential_problem("jwt-auth", config, sealed)
    assert found is not None and found.field == field
    assert text is None or found.text == text
    for value in config.values():
        assert isinstance(value, bool) or len(value) < 8 or value not in found.text + found.allowed


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"secret": "s"}, "key"),
        ({"key": "", "secret": "s"}, "key"),
        ({"key": "k" * 257, "secret": "s"}, "key"),
        ({"key": "k", "secret": ""}, "secret"),
        ({"key": "k", "secret": ["topsecret"]}, "secret"),
        ({"key": "k", "secret": "s", "algorithm": "none"}, "algorithm"),
        ({"key": "k", "secret": "s", "algorithm": "ES256K"}, "algorithm"),
        ({"key": "k", "secret": "s", "exp": 0}, "exp"),
        ({"key": "k", "secret": "s", "exp": "30"}, "exp"),
        ({"key": "k", "secret": "s", "lifetime_grace_period": -1}, "lifetime_grace_period"),
        ({"key": "k", "secret": "s", "base64_secret": "yes"}, "base64_secret"),
    ],
)
def test_the_schema_of_credentials(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_credential("jwt-auth", config)
    assert caught.value.field == field
    assert "topsecret" not in str(caught.value)


# --- known answers ---

RFC = json.loads((VECTORS / "jose" / "rfc.json").read_text())
LOADERS: dict[str, Any] = {"oct": OctKey, "RSA": RSAKey, "EC": ECKey}


@pytest.mark.parametrize("case", RFC["cases"], ids=[case["name"] for case in RFC["cases"]])
def test_the_tokens_of_the_rfcs(case: dict[str, Any]) -> None:
    key = LOADERS[case["jwk"]["kty"]].import_key(case["jwk"])
    if case["algorithm"] == "HS256":
        joe = held("joe", case["jwk"]["k"], settings={"base64_secret": True})
    else:
        settings = {"algorithm": case["algorithm"], "public_key": key.as_pem(private=False).decode()}
        joe = Credential("7", ALICE, "jwt-auth", "joe", lambda now: (), settings=settings)
    config = jwt_auth.compile({"key_claim_name": "iss", "store_in_ctx": True})
    text = f"{case['header']}.{RFC['payload']}.{case['signature']}"
    result = jwt_auth.check(bearer(text), config, {"joe": joe}.get, 1300819379.9)
    assert isinstance(result, Verified)
    assert result.claims == {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
    late = jwt_auth.check(bearer(text), config, {"joe": joe}.get, 1300819380.0)
    assert isinstance(late, Rejected) and late.reason is Reason.TOKEN_EXPIRED


def test_the_signature_of_rfc_8037() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from hmac_gateway.plugins import jwt_keys

    case = RFC["ed25519"]
    raw = jwt_auth.decode(case["x"])
    assert raw is not None
    settings = {"algorithm": "EdDSA", "public_key": public_pem(Ed25519PublicKey.from_public_bytes(raw))}
    keys = jwt_keys.keys(Credential("7", ALICE, "jwt-auth", "k", lambda now: (), settings=settings))
    made = jwt_auth.decode(case["signature"])
    assert keys is not None and made is not None
    signed = case["signed"].encode()
    assert jwt_keys.holds(TABLE["joe"], keys, signed, made, NOW) is True
    assert jwt_keys.holds(TABLE["joe"], keys, signed + b"x", made, NOW) is False


@pytest.mark.parametrize("algorithm", [name for name in (*SYMMETRIC, *PAIRS) if name != "EdDSA"])
def test_tokens_of_another_implementation(algorithm: str) -> None:
    if algorithm in SYMMETRIC:
        key: Any = OctKey.import_key(SECRET)
    else:
        key = LOADERS["EC" if algorithm[0] == "E" else "RSA"].import_key(private_pem(pair(algorithm)))
    text = jose.encode({"alg": algorithm}, {"key": algorithm, "exp": NOW + 1}, key, algorithms=[algorithm])
    assert accepted(bearer(text)).credential is TABLE[algorithm]


@pytest.mark.parametrize("algorithm", [*SYMMETRIC, *PAIRS])
def test_every_algorithm(algorithm: str) -> None:
    claims = {"key": algorithm}
    good = token(algorithm, claims)
    assert accepted(bearer(good)).credential is TABLE[algorithm]
    wrong = "another secret" if algorithm in SYMMETRIC else pair(algorithm, 1)
    assert refused(bearer(token(algorithm, claims, key=wrong))).reason is Reason.SIGNATURE_MISMATCH
    head, body, sign = good.split(".")
    for changed in (f"{head}.{part({**claims, 'a': 1})}.{sign}", f"{part({'alg': algorithm})}.{body}.{sign}"):
        assert refused(bearer(changed)).reason is Reason.SIGNATURE_MISMATCH
    raw = jwt_auth.decode(sign)
    assert raw is not None
    for bad in (b"", raw[:-1], raw + b"\0", bytes(len(raw)), b"\xff" * len(raw), raw[:1]):
        assert refused(bearer(f"{head}.{body}.{encode(bad)}")).reason is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize("algorithm", [*SYMMETRIC, *PAIRS])
@pytest.mark.parametrize("other", [*SYMMETRIC, *PAIRS, "none", "None", "hs256", "", None, 5, ["HS256"], "dir"])
def test_the_credentials_algorithm_counts(algorithm: str, other: Any) -> None:
    if other == algorithm:
        return
    # Signed rightly in the credential's way, and as the header says where that can be done.
    texts = [token(algorithm, {"key": algorithm}, {"alg": other})]
    if other in SYMMETRIC and algorithm in PAIRS:
        # The confusion that made libraries famous: the public key as an HMAC secret.
        texts.append(token(other, {"key": algorithm}, key=PUBLIC(algorithm)))
        texts.append(token(other, {"key": algorithm}, key=PUBLIC(algorithm).strip()))
    head, body, sign = texts[0].split(".")
    texts.append(f"{head}.{body}.")
    for text in texts:
        found = refused(bearer(text))
        assert (found.reason, answer(found).body) == (Reason.ALGORITHM_NOT_ALLOWED, VERIFY)


def test_a_public_key_is_nobodys_hmac_secret() -> None:
    # Not even where a row says so that no validation saw.
    found = refused(bearer(token("HS256", {"key": "rsa-as-secret"}, key=PUBLIC("RS256"))))
    assert found.reason is Reason.SECRET_UNAVAILABLE


@pytest.mark.parametrize(
    "extra",
    [
        {"jwk": {"kty": "oct", "k": encode(b"mine")}},
        {"jku": "https://attacker.test/keys"},
        {"x5u": "https://attacker.test/cert"},
        {"x5c": [public_pem(pair("RS256", 1))]},
        {"kid": "../../dev/null"},
        {"b64": False},
    ],
)
def test_keys_in_headers_are_not_believed(extra: dict[str, Any]) -> None:
    text = token("HS256", {"key": "joe"}, {"alg": "HS256", **extra}, key="mine")
    assert refused(bearer(text)).reason is Reason.SIGNATURE_MISMATCH
    text = token("RS256", {"key": "RS256"}, {"alg": "RS256", **extra}, key=pair("RS256", 1))
    assert refused(bearer(text)).reason is Reason.SIGNATURE_MISMATCH
    assert accepted(bearer(token("HS256", {"key": "joe"}, {"alg": "HS256", **extra})))


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], "exp", None])
def test_critical_headers_are_not_understood(crit: Any) -> None:
    text = token("HS256", {"key": "joe"}, {"alg": "HS256", "crit": crit, "b64": True})
    assert refused(bearer(text)).reason is Reason.CRITICAL_HEADER


def test_both_secrets_of_a_rotation() -> None:
    for secret in ("the new secret", SECRET):
        assert accepted(bearer(token("HS256", {"key": "rotated"}, key=secret)))
    assert refused(bearer(token("HS256", {"key": "rotated"}, key="a third"))).reason is Reason.SIGNATURE_MISMATCH


def test_secrets_in_base64() -> None:
    assert accepted(bearer(token("HS256", {"key": "encoded"})))
    text = token("HS256", {"key": "encoded"}, key=b64encode(SECRET.encode()).decode())
    assert refused(bearer(text)).reason is Reason.SIGNATURE_MISMATCH


def test_keys_are_read_once() -> None:
    opened = []
    one = paired("one", "RS256")
    config, text = jwt_auth.compile({}), token("RS256", {"key": "one"})

    class Settings(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            opened.append(name)
            return super().__getitem__(name)

    one = Credential("7", ALICE, "jwt-auth", "one", lambda now: (), settings=Settings(one.settings))
    for _ in range(3):
        assert isinstance(jwt_auth.check(bearer(text), config, {"one": one}.get, NOW), Verified)
    assert opened == ["public_key"]


# --- where the token is ---


@pytest.mark.parametrize(
    "sent",
    [
        bearer(GOOD),
        message(("authorization", f"bearer {GOOD}")),
        message(("AUTHORIZATION", GOOD)),
        message(("authorization", f"  {GOOD}\t")),
        message(("authorization", GOOD), target="/?jwt=wrong"),
        message(("authorization", GOOD), ("cookie", "jwt=wrong")),
        message(target=f"/?jwt={GOOD}"),
        message(target=f"/?a=1&jwt=Bearer%20{GOOD}&b"),
        message(("cookie", "jwt=wrong"), target=f"/?%6awt={GOOD}"),
        message(("cookie", f"jwt={GOOD}")),
        message(("cookie", f"a=b; JWT=x; jwt={GOOD}; c=d")),
        message(("cookie", "a=b"), ("cookie", f"jwt={GOOD}")),
    ],
)
def test_a_token_that_is_found(sent: Message) -> None:
    assert accepted(sent).credential is TABLE["joe"]


def test_other_names() -> None:
    fields = {"header": "X_Token", "query": "the token", "cookie": "session", "key_claim_name": "iss"}
    text = token("HS256", {"iss": "joe", "key": "nobody"})
    sent = [message(("x_token", text)), message(("x-token", f"Bearer {text}")), message(target=f"/?the+token={text}")]
    for one in (*sent, message(("cookie", f"session={text}"))):
        assert accepted(one, **fields).credential is TABLE["joe"]
    for one in (bearer(text), message(target=f"/?jwt={text}"), message(("cookie", f"jwt={text}"))):
        assert refused(one, **fields).reason is Reason.MISSING


def test_keys_beyond_ascii() -> None:
    for spelled in ('{"key": "grün"}', '{"key": "gr\\u00fcn"}'):
        assert accepted(bearer(token("HS256", spelled.encode()))).credential is TABLE["gr\xc3\xbcn"]


@pytest.mark.parametrize(
    ("sent", "carrier", "exempt"),
    [
        (bearer(GOOD), ("header", "authorization"), True),
        (message(target=f"/?jwt={GOOD}"), ("query", "jwt"), False),
        (message(("cookie", f"jwt={GOOD}")), ("cookie", "jwt"), False),
    ],
)
def test_what_it_says_of_the_place(sent: Message, carrier: tuple[str, str], exempt: bool) -> None:
    found = accepted(sent)
    assert (found.carrier, found.csrf_exempt, found.claims) == (carrier, exempt, None)
    assert (found.covered, found.body, found.replay) == (frozenset(), None, None)


def test_a_cookie_header_exempts_nobody() -> None:
    assert not accepted(message(("cookie", GOOD)), header="Cookie").csrf_exempt


def test_a_second_copy_is_hidden_too() -> None:
    hide = {"hide_credentials": True}
    for sent in (
        message(("authorization", GOOD), target=f"/?jwt={GOOD}"),
        message(("authorization", f"Bearer {GOOD}"), ("cookie", f"jwt={GOOD}")),
        message(("cookie", f"a=b; jwt={GOOD}"), target=f"/?jwt={GOOD}"),
    ):
        assert accepted(sent, **hide).carrier is None
    assert accepted(message(("authorization", GOOD), target="/?jwt=x"), **hide).carrier == ("header", "authorization")


def test_claims_are_kept_where_that_is_asked() -> None:
    claims = {"key": "joe", "sub": "7", "roles": ["a"]}
    assert accepted(bearer(token("HS256", claims)), store_in_ctx=True).claims == claims


# --- times ---


@pytest.mark.parametrize(
    ("fields", "claims", "reason"),
    [
        ({}, {"exp": NOW + 1}, None),
        ({}, {"exp": NOW + 0.5}, None),
        ({}, {"exp": NOW}, Reason.TOKEN_EXPIRED),
        ({}, {"exp": -(10**30)}, Reason.TOKEN_EXPIRED),
        ({}, {"exp": 10**400}, None),
        ({}, {"nbf": NOW}, Reason.TOKEN_NOT_YET_VALID),
        ({}, {"nbf": NOW - 1}, None),
        ({}, {"nbf": 10**400}, Reason.TOKEN_NOT_YET_VALID),
        ({}, {"iat": NOW + 9, "aud": "x", "iss": "y"}, None),
        ({}, {"exp": str(NOW + 9)}, Reason.CLAIM_INVALID),
        ({}, {"exp": True}, Reason.CLAIM_INVALID),
        ({}, {"exp": None}, Reason.CLAIM_INVALID),
        ({}, {"nbf": [1]}, Reason.CLAIM_INVALID),
        ({"claims_to_verify": []}, {"exp": NOW}, Reason.TOKEN_EXPIRED),
        ({"claims_to_verify": ["exp"]}, {}, Reason.CLAIM_INVALID),
        ({"claims_to_verify": ["nbf"]}, {"exp": NOW + 9}, Reason.CLAIM_INVALID),
        # Only those that are asked for (APISIX).
        ({"claims_to_verify": ["nbf"]}, {"exp": NOW - 9, "nbf": NOW - 9}, None),
        ({"claims_to_verify": ["exp"]}, {"exp": NOW + 9, "nbf": NOW + 9}, None),
        ({"claims_to_verify": ["exp", "nbf"]}, {"exp": NOW + 9}, Reason.CLAIM_INVALID),
        ({"claims_to_verify": ["exp", "nbf"]}, {"exp": NOW + 9, "nbf": NOW - 9}, None),
        # Both of `graced`'s bounds are open by 30 seconds.
        ({}, {"key": "graced", "exp": NOW - 29}, None),
        ({}, {"key": "graced", "exp": NOW - 30}, Reason.TOKEN_EXPIRED),
        ({}, {"key": "graced", "nbf": NOW + 29}, None),
        ({}, {"key": "graced", "nbf": NOW + 30}, Reason.TOKEN_NOT_YET_VALID),
    ],
)
def test_times(fields: dict[str, Any], claims: dict[str, Any], reason: Reason | None) -> None:
    result = check(bearer(token("HS256", {"key": "joe", **claims})), **fields)
    assert (None if isinstance(result, Verified) else result.reason) is reason
    if isinstance(result, Rejected):
        assert answer(result).body == VERIFY


# --- refusals ---

MISSING = b'{"message":"Missing authorization in request"}\n'
INVALID = b'{"message":"JWT token invalid"}\n'
NO_KEY = b'{"message":"missing user key in JWT token"}\n'
WRONG_KEY = b'{"message":"Invalid user key in JWT token"}\n'
VERIFY = b'{"message":"failed to verify jwt"}\n'
HEAD, BODY, SIGN = GOOD.split(".")
DEEP = b'{"key":"joe","a":' + b"[" * 5000


@pytest.mark.parametrize(
    ("sent", "reason", "body"),
    [
        (message(), Reason.MISSING, MISSING),
        (message(("cookie", "a=b; jwt"), target="/?JWT=x&a=jwt"), Reason.MISSING, MISSING),
        # A present header is final; then the query.
        (message(("authorization", ""), target=f"/?jwt={GOOD}"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(("authorization", "Basic eDp5"), target=f"/?jwt={GOOD}"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(("cookie", f"jwt={GOOD}"), target="/?jwt=x"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(target="/?jwt"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(target=f"/?jwt={GOOD}&jwt={GOOD}"), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(("cookie", f"jwt={GOOD}; jwt={GOOD}")), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(("cookie", f"jwt={GOOD}"), ("cookie", "jwt=x")), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(("cookie", "jwt=")), Reason.MALFORMED_AUTHORIZATION, INVALID),
        (message(("cookie", f'jwt="{GOOD}"')), Reason.MALFORMED_AUTHORIZATION, INVALID),
        # Two spellings and one blank.
        *[
            (message(("authorization", text)), Reason.MALFORMED_AUTHORIZATION, INVALID)
            for text in (
                f"BEARER {GOOD}",
                f"Bearer  {GOOD}",
                f"Bearer\t{GOOD}",
                f"Bearer:{GOOD}",
                f"JWT {GOOD}",
                "Bearer",
            )
        ],
        # Three parts, the first two JSON objects in base64url.
        *[
            (bearer(text), Reason.MALFORMED_AUTHORIZATION, INVALID)
            for text in (
                "",
                ".",
                "..",
                "...",
                "x",
                f"{HEAD}.{BODY}",
                f"{GOOD}.",
                f"{GOOD}.x.y",
                f"{HEAD}=.{BODY}.{SIGN}",
                f"{HEAD}.{BODY}=.{SIGN}",
                f"{HEAD}.{BODY[:-1]}+.{SIGN}",
                f"{HEAD} .{BODY}.{SIGN}",
                f"{HEAD[:-3]}.{BODY}.{SIGN}",
                f"\xe9{HEAD}.{BODY}.{SIGN}",
                f"{part([])}.{BODY}.{SIGN}",
                f"{HEAD}.{part(5)}.{SIGN}",
                *(
                    token("HS256", claims)
                    for claims in (
                        [{"key": "joe"}],
                        "joe",
                        None,
                        True,
                        b"",
                        b"{",
                        b"\xff",
                        b'\xef\xbb\xbf{"key":"joe"}',
                        '{"key":"joe"}'.encode("utf-16"),
                        b'{"key":"joe"} {}',
                        b'{"key":"joe","key":"joe"}',
                        b'{"key":"joe","a":{"b":1,"b":2}}',
                        b'{"key":"joe","exp":NaN}',
                        b'{"key":"joe","exp":-Infinity}',
                        b'{"key":"joe","exp":1e999}',
                        b'{"key":"joe","exp":' + b"9" * 5000 + b"}",
                        b"{'key':'joe'}",
                        DEEP + b"]" * 5000 + b"}",
                        DEEP,
                        b'{"a":' * 2000,
                    )
                ),
                token("HS256", {"key": "joe"}, b'{"alg":"HS256","alg":"HS256"}'),
                token("HS256", {"key": "joe"}, b'{"alg":"none","alg":"HS256"}'),
                token("HS256", {"key": "joe"}, b"[]"),
                token("HS256", {"key": "joe", "a": "x" * jwt_auth.MAX_TOKEN}),
            )
        ],
        # No key.
        (bearer(token("HS256", {})), Reason.INCOMPLETE, NO_KEY),
        (bearer(token("HS256", {"Key": "joe", "sub": "joe"}, key="wrong")), Reason.INCOMPLETE, NO_KEY),
        # Nobody's.
        *[
            (bearer(token("HS256", {"key": key})), Reason.UNKNOWN_KEY, WRONG_KEY)
            for key in ("nobody", "", "JOE", 5, None, True, ["joe"], {"joe": 1}, "\ud800", "\x00", 10**400)
        ],
        (bearer(token("HS256", {"key": "off"})), Reason.CREDENTIAL_DISABLED, WRONG_KEY),
        (bearer(token("HS256", {"key": "old"})), Reason.CREDENTIAL_EXPIRED, WRONG_KEY),
        (bearer(token("HS256", {"key": "soon"})), Reason.CREDENTIAL_NOT_YET_VALID, WRONG_KEY),
        # The algorithm, then the signature.
        (bearer(token("HS256", {"key": "joe"}, {})), Reason.ALGORITHM_NOT_ALLOWED, VERIFY),
        (bearer(f"{HEAD}.{BODY}.!"), Reason.SIGNATURE_MALFORMED, VERIFY),
        (bearer(f"{HEAD}.{BODY}.{SIGN}="), Reason.SIGNATURE_MALFORMED, VERIFY),
        (bearer(f"{HEAD}.{BODY}.{SIGN[:-2]}"), Reason.SIGNATURE_MALFORMED, VERIFY),
        (bearer(f"{HEAD}.{BODY}."), Reason.SIGNATURE_MISMATCH, VERIFY),
        (bearer(token("HS256", {"key": "joe", "exp": NOW - 9}, key="wrong")), Reason.SIGNATURE_MISMATCH, VERIFY),
        (bearer(token("HS256", {"key": "joe", "exp": NOW - 9})), Reason.TOKEN_EXPIRED, VERIFY),
        # Rows that cannot be used.
        (bearer(token("HS256", {"key": "unopened"})), Reason.SECRET_UNAVAILABLE, VERIFY),
        *[
            (bearer(token("HS256", {"key": key})), Reason.SECRET_UNAVAILABLE, VERIFY)
            for key in ("broken", "odd", "new")
        ],
    ],
)
def test_what_clients_read(sent: Message, reason: Reason, body: bytes) -> None:
    found = refused(sent)
    assert (found.reason, found.plugin, found.dialect) == (reason, "jwt-auth", "apisix")
    assert answer(found) == (
        401,
        body,
        [("content-type", "application/json"), ("www-authenticate", 'Bearer realm="jwt"')],
    )


def test_the_realm_and_the_code_are_configured() -> None:
    found = answer(refused(bearer(token("HS256", {"key": "joe", "exp": 1})), realm="x y", expose_reason=True))
    assert ("www-authenticate", 'Bearer realm="x y"') in found.headers
    assert found.body == b'{"message":"failed to verify jwt","code":"token_expired"}\n'


def test_a_header_twice_under_another_name() -> None:
    sent = message(("x-token", GOOD), ("x-token", GOOD))
    assert refused(sent, header="x-token").reason is Reason.MALFORMED_AUTHORIZATION


def test_refusals_and_explanations_hold_no_token() -> None:
    for sent in (
        *(bearer(text) for text in (GOOD, f"{HEAD}.{BODY}.{SIGN[:-4]}AAAA", f"{HEAD}.{BODY}", f"{HEAD}..{SIGN}")),
        message(target=f"/?jwt={quote(GOOD)}&jwt=x"),
        message(("cookie", f"jwt={GOOD}")),
        *(bearer(token("HS256", {"key": key, "exp": 1})) for key in ("joe", "off", "unopened")),
    ):
        trace = Trace()
        config = jwt_auth.compile({"expose_reason": True})
        found = jwt_auth.check(sent, config, TABLE.get, NOW, trace)
        said = repr(trace) + repr(found)
        if isinstance(found, Rejected):
            said += str(found) + found.detail + repr(found.facts) + answer(found).body.decode()
            assert not trace.steps[-1].ok
        else:
            assert all(step.ok for step in trace.steps)
        for secret in (HEAD, BODY, SIGN, SECRET, encode(signature("HS256", f"{HEAD}.{BODY}".encode()))):
            assert secret not in said


# --- any bytes ---

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(max_size=200), st.sampled_from(["header", "query", "cookie"]))
def test_no_bytes_are_an_error(data: bytes, place: str) -> None:
    text = data.decode("latin-1")
    if place == "header":
        sent = message(("authorization", text))
    elif place == "query":
        sent = message(target=f"/?jwt={quote(data)}")
    else:
        sent = message(("cookie", f"jwt={text}"))
    assert answer(refused(sent)).status == 401


@given(VALUES, VALUES, st.binary(max_size=70))
def test_no_parts_are_an_error(header: Any, claims: Any, sign: bytes) -> None:
    text = f"{part(header)}.{part(claims)}.{encode(sign)}"
    assert answer(refused(bearer(text))).status == 401


@given(
    st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.dictionaries(st.text(max_size=4), VALUES, max_size=4)
)
def test_what_is_signed_comes_back(header: dict[str, Any], claims: dict[str, Any]) -> None:
    claims = {name: value for name, value in claims.items() if name not in ("exp", "nbf", "key")}
    header = {name: value for name, value in header.items() if name != "crit"} | {"alg": "HS256"}
    text = token("HS256", {**claims, "key": "joe"}, header)
    result = check(bearer(text), store_in_ctx=True)
    if isinstance(result, Verified):
        assert json.dumps(result.claims) == json.dumps({**claims, "key": "joe"})
    else:
        # JSON has no such numbers, though Python writes them.
        written = json.dumps([header, claims])
        assert result.reason is Reason.MALFORMED_AUTHORIZATION and ("NaN" in written or "Infinity" in written)


@given(st.binary(min_size=1, max_size=60), st.binary(min_size=1, max_size=60))
def test_of_any_two_secrets_only_the_same_one_is_let_in(mine: bytes, his: bytes) -> None:
    table = {"joe": credential("joe", mine, plugin="jwt-auth")}
    result = jwt_auth.check(bearer(token("HS256", {"key": "joe"}, key=his)), jwt_auth.compile({}), table.get, NOW)
    # RFC 2104: a key shorter than the block is filled up with zeros, so these are the same.
    assert isinstance(result, Verified) == (mine.rstrip(b"\0") == his.rstrip(b"\0"))
