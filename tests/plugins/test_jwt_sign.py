"""plugins.public_api and jwt_sign: who gets which token, and what the others are told."""

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

from hmac_gateway.core.credential import Credential, Lookup, Secret
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.identity import Verified
from hmac_gateway.core.message import Message
from hmac_gateway.core.words import Answer, answer
from hmac_gateway.plugins import jwt_auth, public_api, validate_config

from ..support.engine import ALICE, NOW, credential
from ..support.tokens import PAIRS, PUBLIC, SECRET, SYMMETRIC, pair, private_pem

PATH = "/apisix/plugin/jwt/sign"


def held(key: str, secret: str, **settings: Any) -> Credential:
    return credential(key, secret.encode(), plugin="jwt-auth", settings=settings)


def paired(algorithm: str, *secrets: str) -> Credential:
    live = tuple(Secret(secret.encode()) for secret in secrets)
    settings = {"algorithm": algorithm, "public_key": PUBLIC(algorithm)}
    return Credential("7", ALICE, "jwt-auth", algorithm, lambda now: live, settings=settings)


TABLE = {
    "john-jwt-key": held("john-jwt-key", SECRET, exp=30),
    "gr\xc3\xbcn": held("grün", SECRET),
    "encoded": held("encoded", b64encode(SECRET.encode()).decode(), base64_secret=True),
    "off": credential("off", b"s", plugin="jwt-auth", enabled=False),
    "broken": held("broken", "s", algorithm="RS256", public_key="no key"),
    "unopened": Credential("7", ALICE, "jwt-auth", "unopened", lambda now: ()),
    "no-private": Credential(
        "7", ALICE, "jwt-auth", "n", lambda now: (), settings={"algorithm": "RS256", "public_key": PUBLIC("RS256")}
    ),
    "other-private": Credential(
        "7",
        ALICE,
        "jwt-auth",
        "o",
        lambda now: (Secret(private_pem(pair("RS256", 1)).encode()),),
        settings={"algorithm": "RS256", "public_key": PUBLIC("RS256")},
    ),
    **{algorithm: held(algorithm, SECRET, algorithm=algorithm) for algorithm in SYMMETRIC},
    **{algorithm: paired(algorithm, private_pem(pair(algorithm))) for algorithm in PAIRS},
}
LOOKUPS: dict[str, Lookup] = {"jwt-auth": TABLE.get}


def ask(query: str, path: str = PATH, method: str = "GET", **config: Any) -> tuple[int, str]:
    target = f"{path}?{query}" if query else path
    given = public_api.respond(Message(method, target, []), public_api.compile(config), LOOKUPS, NOW)
    if isinstance(given, Rejected):
        given = answer(given)
    assert isinstance(given, Answer)
    return given.status, given.body.decode()


def signed(query: str) -> str:
    status, text = ask(query)
    assert status == 200, text
    return text


def told(text: str) -> tuple[Any, Any]:
    header, claims = (jwt_auth.decode(one) for one in text.split(".")[:2])
    assert header is not None and claims is not None
    return json.loads(header), json.loads(claims)


def test_a_token_as_apisix_made_it() -> None:
    header, claims = told(signed("key=john-jwt-key"))
    assert header == {"typ": "JWT", "alg": "HS256"}
    assert claims == {"key": "john-jwt-key", "exp": NOW + 30}
    assert told(signed("key=HS512"))[1]["exp"] == NOW + 86400


def test_the_answer_is_the_bare_token() -> None:
    given = public_api.respond(Message("GET", f"{PATH}?key=john-jwt-key", []), public_api.compile({}), LOOKUPS, NOW)
    assert isinstance(given, Answer)
    assert not given.body.endswith(b"\n")
    assert dict(given.headers) == {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}


@pytest.mark.parametrize("algorithm", [*SYMMETRIC, *PAIRS])
def test_every_algorithm_is_accepted_and_expires(algorithm: str) -> None:
    text = signed(f"key={algorithm}")
    sent = Message("GET", "/", [("authorization", text)])
    config = jwt_auth.compile({})
    assert isinstance(jwt_auth.check(sent, config, TABLE.get, NOW + 86399), Verified)
    assert isinstance(jwt_auth.check(sent, config, TABLE.get, NOW + 86400), Rejected)
    if algorithm == "EdDSA":
        return
    # Another implementation agrees.
    if algorithm in SYMMETRIC:
        key: Any = OctKey.import_key(SECRET)
    else:
        key = (ECKey if algorithm[0] == "E" else RSAKey).import_key(PUBLIC(algorithm))
    assert jose.decode(text, key, algorithms=[algorithm]).claims["key"] == algorithm


def test_the_payload_is_taken_over_but_for_key_and_exp() -> None:
    payload = {"sub": "7", "exp": 1, "key": "somebody else", "nested": {"a": [1, "ü"]}, "nbf": 5}
    claims = told(signed(f"key=john-jwt-key&payload={quote(json.dumps(payload))}"))[1]
    assert claims == {**payload, "key": "john-jwt-key", "exp": NOW + 30}
    assert told(signed("payload=%7B%7D&key=gr%C3%BCn"))[1]["key"] == "grün"


def test_secrets_in_base64_are_decoded() -> None:
    assert jose.decode(signed("key=encoded"), OctKey.import_key(SECRET)).claims["key"] == "encoded"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, "missing key"),
        ("key", 400, "missing key"),
        ("key=", 400, "missing key"),
        ("Key=john-jwt-key", 400, "missing key"),
        ("key=john-jwt-key&key=HS512", 400, "missing key"),
        ("key=nobody", 404, "no usable credential has this key"),
        ("key=off", 404, "no usable credential has this key"),
        ("key=john-jwt-key&payload", 400, "payload is not a JSON object, or too long"),
        *(
            (f"key=john-jwt-key&payload={text}", 400, "payload is not a JSON object, or too long")
            for text in (
                "",
                "x",
                "[]",
                "5",
                "%7B%22a%22:NaN%7D",
                "%7B%22a%22:1,%22a%22:2%7D",
                "%FF",
                "%7B%7D&payload=%7B%7D",
                "[" * 5000,
                "%7B%22a%22:%22" + "x" * 13000 + "%22%7D",
            )
        ),
        ("key=broken", 503, "failed to sign jwt"),
        ("key=unopened", 503, "failed to sign jwt"),
        ("key=no-private", 503, "failed to sign jwt"),
        ("key=other-private", 503, "failed to sign jwt"),
    ],
)
def test_refusals(query: str, status: int, message: str) -> None:
    assert ask(query) == (status, json.dumps({"message": message}, separators=(",", ":")) + "\n")


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS"])
def test_other_methods(method: str) -> None:
    assert ask("key=john-jwt-key", method=method)[0] == 404


def test_which_interface() -> None:
    for path in (*public_api.SIGN_PATHS, "/api7/plugin/jwt/%73ign"):
        assert ask("key=john-jwt-key", path=path)[0] == 200
    for path in ("/", "/apisix/plugin/jwt/sign/", "/apisix/plugin/jwt"):
        assert ask("key=john-jwt-key", path=path)[0] == 404
    assert ask("key=john-jwt-key", path="/login", uri=PATH)[0] == 200
    assert ask("key=john-jwt-key", path=PATH, uri="/nothing")[0] == 404


@pytest.mark.parametrize(
    ("own", "uri", "both"),
    [
        ((PATH,), "", True),
        (("/api7/plugin/jwt/sign",), "", True),
        (("/apisix/plugin/*",), "", True),
        (("/*",), "", True),
        (("/login",), PATH, False),
        (("/login",), "", False),
        ((PATH,), "/nothing", False),
    ],
)
def test_a_route_for_one_path_is_one_for_both(own: tuple[str, ...], uri: str, both: bool) -> None:
    config = public_api.compile({"uri": uri} if uri else {})
    assert set(public_api.paths(config, own)) == {*own, *(public_api.SIGN_PATHS if both else ())}


def test_configuration() -> None:
    validate_config("public-api", {}, "apisix")
    with pytest.raises(ConfigError) as caught:
        validate_config("public-api", {"uri": 5}, "apisix")
    assert caught.value.field == "uri"


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_query_is_an_error(key: bytes, payload: bytes) -> None:
    status, text = ask(f"key={quote(key)}&payload={quote(payload)}")
    assert status in (400, 404)
    assert ask(key.decode("latin-1"))[0] in (400, 404)
