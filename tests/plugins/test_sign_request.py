"""`sign-request`: what it adds, what it covers, and what it refuses where it is written, never with the secret."""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from typing import Any

import pytest

from hmac_gateway.core.credential import MASK, Secret
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.core.message import Message
from hmac_gateway.gate import Outgoing, compile_plugin, compile_step
from hmac_gateway.plugins import ALL, sign_request, validate_config
from hmac_gateway.plugins.multi_auth import compile as compile_multi
from tests.support.engine import DATE, NOW, mac64, vectors

SIGN: dict[str, Any] = {"key_id": "key-1", "secret_key": "s3cret"}
LEFT_OUT = object()
PROXY: dict[str, Any] = {"scheme": "hmacproxy", "key_id": LEFT_OUT}


def sign(message: Message, *pieces: bytes, **more: Any) -> dict[str, str]:
    config = {name: value for name, value in {**SIGN, **more}.items() if value is not None}
    made = sign_request.sign(message, sign_request.compile(config), NOW, lambda: pieces)
    found = dict(made)
    assert len(found) == len(made) and all(name == name.lower() for name in found)
    return found


def outgoing(*headers: tuple[str, str], method: str = "GET", target: str = "/a%2Fb?x=1") -> Message:
    return Message(method, target, [("host", "b.test"), *headers])


def test_target_and_a_fresh_date_by_default() -> None:
    found = sign(outgoing(("Authorization", "Bearer x"), ("Date", "yesterday")))
    string = f"key-1\nGET /a%2Fb?x=1\ndate: {DATE}\n"
    text = f'keyId="key-1",algorithm="hmac-sha256",headers="@request-target date",signature="{mac64(string)}"'
    assert found == {"date": DATE, "authorization": f"Signature {text}"}


def test_what_is_listed_is_signed_in_its_order() -> None:
    found = sign(outgoing(("x-a", "1")), headers=["Host", "X-Absent", "x-a", "X-Date"], algorithm="hmac-sha512")
    string = f"key-1\nHost: b.test\nx-a: 1\nX-Date: {DATE}\n"
    assert f'signature="{mac64(string, algorithm="hmac-sha512")}"' in found["authorization"]
    assert found.keys() == {"x-date", "authorization"}


def test_without_a_date_in_the_list_the_callers_stays() -> None:
    assert sign(outgoing(("date", "x")), headers=["host"]).keys() == {"authorization"}


def test_body_and_nonce_are_covered_even_where_the_list_has_them_not() -> None:
    found = sign(outgoing(("digest", "forged")), b"he", b"llo", sign_body=True, nonce=True)
    # RFC 3230's header; SHA-256 of "hello".
    digest = "SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
    assert found["digest"] == digest and len(found["x-nonce"]) == 24
    string = f"key-1\nGET /a%2Fb?x=1\ndate: {DATE}\ndigest: {digest}\nx-nonce: {found['x-nonce']}\n"
    assert mac64(string) in found["authorization"]
    assert sign(outgoing(), nonce=True)["x-nonce"] != found["x-nonce"]


def test_kongs_format() -> None:
    found = sign(outgoing(("x-a", "1")), scheme="kong", headers=["Date", "x-a", "@request-target", "request-line"])
    string = f"Date: {DATE}\nx-a: 1\n@request-target: get /a%2Fb?x=1\nGET /a%2Fb?x=1 HTTP/1.1"
    listed = 'headers="Date x-a @request-target request-line"'
    text = f'hmac username="key-1", algorithm="hmac-sha256", {listed}, signature="{mac64(string)}"'
    assert found == {"date": DATE, "authorization": text}


@pytest.mark.parametrize("case", [case for case in vectors("hmacproxy/published.json") if not case["signed"]])
def test_hmacproxys_vectors(case: dict[str, Any]) -> None:
    digest = case["signature"].partition(" ")[0]
    message = Message(case["method"], case["target"], [("host", "b.test")])
    found = sign(message, scheme="hmacproxy", key_id=None, secret_key=case["secret"], digest=digest)
    assert found == {"x-signature": case["signature"]}


def test_hmacproxy_signs_a_date_that_is_set_and_every_body() -> None:
    more = {"scheme": "hmacproxy", "key_id": None, "digest": "sha256", "headers": ["Date", "X-A", "Authorization"]}
    found = sign(outgoing(("x-signature", "old"), ("Authorization", "Bearer x")), b"bo", b"dy", **more)
    string = f"GET\n{DATE}\n\nBearer x\n/a/b?x=1\nbody"
    mac = b64encode(hmac.new(b"s3cret", string.encode(), "sha256").digest()).decode()
    assert found == {"date": DATE, "x-signature": f"sha256 {mac}"}


def test_key_ids_beyond_ascii_go_out_as_their_bytes() -> None:
    authorization = sign(outgoing(), key_id="schlüssel")["authorization"]
    assert 'keyId="schlüssel"'.encode() in authorization.encode("latin-1")


@pytest.mark.parametrize("dialect", ["apisix", "kong"])
@pytest.mark.parametrize(
    ("wrong", "field", "shown"),
    [
        ({"scheme": "aws4"}, "scheme", "'aws4'"),
        ({"key_id": 'a"b'}, "key_id", "'a\"b'"),
        ({"key_id": None}, "key_id", "None"),
        ({"key_id": LEFT_OUT}, "key_id", "None"),
        ({"algorithm": "hmac-md5"}, "algorithm", "'hmac-md5'"),
        ({"headers": []}, "headers", "[]"),
        ({"headers": ["Connection"]}, "headers", "'connection'"),
        ({"headers": ["authorization"]}, "headers", "'authorization'"),
        ({"headers": ["x_a"]}, "headers.1", "'x_a'"),
        ({"headers": ["date\r\nx: y"]}, "headers.1", "'date"),
        ({"sign_body": "yes"}, "sign_body", "'yes'"),
        ({"secret_key": 5}, "secret_key", MASK),
        ({"secret_key": ""}, "secret_key", MASK),
        ({"secret_key": "x" * 1025}, "secret_key", MASK),
        ({"secret": "hunter2"}, "secret", MASK),
        ({"sign_header": "X-S"}, "sign_header", "'X-S'"),
        ({"digest": "sha1"}, "digest", "'sha1'"),
        ({"scheme": "hmacproxy"}, "key_id", "'key-1'"),
        ({**PROXY, "algorithm": "hmac-sha256"}, "algorithm", "'hmac-sha256'"),
        ({**PROXY, "headers": ["Host"]}, "headers", "'host'"),
        ({**PROXY, "headers": ["@request-target"]}, "headers", "'@request-target'"),
        ({**PROXY, "headers": ["authorization"], "sign_header": "Authorization"}, "sign_header", "'Authorization'"),
        ({**PROXY, "headers": ["x-s"], "sign_header": "X-S"}, "sign_header", "'X-S'"),
        ({**PROXY, "sign_header": "Connection"}, "sign_header", "'Connection'"),
        ({**PROXY, "sign_header": "Host"}, "sign_header", "'Host'"),
        ({**PROXY, "sign_header": "content-length"}, "sign_header", "'content-length'"),
        ({**PROXY, "headers": ["x-signature"]}, "sign_header", "'X-Signature'"),
        ({"headers": ["X-A", "x-a"]}, "headers", "'x-a'"),
        ({**PROXY, "nonce": True}, "nonce", "True"),
        ({**PROXY, "digest": "md4"}, "digest", "'md4'"),
    ],
)
def test_wrong_configurations_are_named_without_the_secret(
    wrong: dict[str, Any], field: str, shown: str, dialect: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{field}: ")) as caught:
        given = {name: value for name, value in {**SIGN, **wrong}.items() if value is not LEFT_OUT}
        validate_config("sign-request", given, dialect)
    assert caught.value.field == field and shown in str(caught.value)
    assert "hunter2" not in str(caught.value) and "xxx" not in str(caught.value)


@pytest.mark.parametrize("given", ["hunter2", ["hunter2"], 5])
def test_what_is_no_object_is_not_shown(given: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config("sign-request", given, "apisix")
    assert caught.value.given == MASK


def test_compiled_beside_its_secret() -> None:
    made = compile_plugin("sign-request", {**SIGN, "secret_key": MASK}, secrets={"secret_key": Secret(b"s3cret")})
    assert isinstance(made, Outgoing)
    assert made.config == sign_request.compile(SIGN) or made.config.secret.reveal() == b"s3cret"
    assert "s3cret" not in repr(made)
    limited = compile_plugin("sign-request", SIGN, max_body=10)
    assert isinstance(limited, Outgoing) and limited.config.max_body == 10


def test_it_is_no_way_to_authenticate() -> None:
    with pytest.raises(ConfigError):
        compile_step("sign-request", SIGN)
    with pytest.raises(ConfigError, match="is not supported|one of"):
        compile_multi({"auth_plugins": [{"sign-request": SIGN}, {"key-auth": {}}]}, "apisix")
    assert "sign-request" in ALL
