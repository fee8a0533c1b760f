"""schemes.explain for hmacproxy's signatures: what was signed here, and which mistake gives what came."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.message import Message
from hmac_gateway.plugins import hmac_auth
from hmac_gateway.schemes.explain import Explanation, explain
from tests.support.fuzz import examples

from ..support.engine import DATE, NOW, credential

SECRET = b"s3cret+Key"
HEAD = f"POST\n{DATE}\n\n/a b?c=%20\n"
BODY = b'{"a": 1}\r\n'


def mac(string: str | bytes, secret: bytes = SECRET, digest: str = "sha256") -> str:
    data = string.encode("latin-1") if isinstance(string, str) else string
    return f"{digest} {base64.b64encode(hmac.new(secret, data, digest).digest()).decode()}"


def told(
    signature: str | None,
    body: bytes | None = BODY,
    *,
    more: tuple[tuple[str, str], ...] = (),
    string: bytes | None = None,
    secret: bytes = SECRET,
    name: str = "X-Signature",
    **config: Any,
) -> Explanation:
    """An explanation of one POST with Date, X-Tenant and a body."""
    headers = [("Host", "h"), ("Date", DATE), ("X-Other", "o"), ("Content-Length", str(len(BODY))), *more]
    headers += [(name, signature)] if signature is not None else []
    given = {"scheme": "hmacproxy", "key_id": "key-1", "headers": ["Date", "X-Absent"], "digest": "sha256", **config}
    compiled = hmac_auth.compile(given)
    message = Message("POST", "/a%20b?c=%20", headers)
    people = {"key-1": credential("key-1", secret)}
    return explain(message, compiled.scheme, compiled.policy, people.get, NOW, string, body)


def test_what_is_right() -> None:
    found = told(mac(HEAD.encode() + BODY))
    assert (found.verdict, found.reason, found.unseen) == ("accepted", "", False)
    assert [(step.name, step.ok) for step in found.steps] == [("digest", True), ("key", True), ("signature", True)]
    ((form, string),) = found.strings
    assert form == "with the body"
    assert string == f'POST\\n\n{DATE}\\n\n\\n\n/a b?c=%20\\n\n{{"a": 1}}\\r\\n\n'.removesuffix("\n")


def test_a_body_that_is_not_known() -> None:
    found = told(mac("anything"), None)
    assert found.unseen and found.reason == ""
    assert found.hints == ("the signature covers the body too, which is not known here: only the head was checked",)
    assert found.strings[0][0] == "before the body"
    bodiless = hmac_auth.compile({"scheme": "hmacproxy", "key_id": "key-1"})
    message = Message("GET", "/", [("X-Signature", mac("GET\n/\n", digest="sha1"))])
    sure = explain(message, bodiless.scheme, bodiless.policy, {"key-1": credential("key-1", SECRET)}.get, NOW)
    assert (sure.verdict, sure.unseen) == ("accepted", False)


@pytest.mark.parametrize(
    ("signature", "hint"),
    [
        (mac(HEAD), "the body was not signed"),
        (mac(HEAD.encode() + BODY.rstrip()), "without its final line end"),
        (mac(HEAD.encode() + BODY + b"\n"), "a line end after it"),
        (mac(HEAD.encode() + hashlib.sha256(BODY).hexdigest().encode()), "a hash of the body"),
        (mac(HEAD.removesuffix("\n").encode() + BODY), "a line end follows the target"),
        (mac(HEAD.replace("/a b", "/a%20b").encode() + BODY), "percent escapes"),
        (mac(HEAD.replace("?c=%20", "").encode() + BODY), "the query was left out"),
        (mac(HEAD.replace("/a b", "http://h/a b").encode() + BODY), "the whole URL"),
        (mac(HEAD.replace("POST", "post").encode() + BODY), "lower case"),
        (mac(HEAD.replace("\n\n", "\n").encode() + BODY), "absent headers have an empty line"),
        (mac(HEAD.replace(f"{DATE}\n", "").encode() + BODY), "date is signed here, but not by the client"),
        (mac(HEAD.replace("\n\n", "\n\no\n").encode() + BODY), "the client signs x-other too"),
        (mac(f"POST\n\n{DATE}\n/a b?c=%20\n".encode() + BODY), "another order"),
        (mac(f"POST\ndate: {DATE}\nx-absent: \n/a b?c=%20\n".encode() + BODY), "not their names"),
        (mac(HEAD.replace("\n", "\r\n").encode() + BODY), "CRLF"),
        (mac(HEAD.encode() + BODY, SECRET + b"\n"), "a newline was signed with as a part of the secret"),
        (mac(HEAD.encode() + BODY, digest="sha512").replace("sha512", "sha256"), "the MAC is sha512's"),
        (mac(HEAD, SECRET + b"\n"), "the body was not signed"),
        (mac(HEAD.encode() + BODY).rstrip("="), "compared with its padding"),
        ("sha256 " + hmac.new(SECRET, HEAD.encode() + BODY, "sha256").hexdigest(), "written in hex"),
        (mac(HEAD.encode() + BODY, b"another"), "none of the usual mistakes"),
        ("sha256 !!", "neither base64 nor hex"),
    ],
    ids=lambda value: value[:40] if " " in value and not value.startswith("sha") else "",
)
def test_the_mistake_is_named(signature: str, hint: str) -> None:
    found = told(signature)
    assert (found.verdict, found.reason) == ("refused", "signature_mismatch")
    assert any(hint in text for text in found.hints), found.hints
    right = mac(HEAD.encode() + BODY).split(" ")[1]
    assert right.rstrip("=") in signature or right not in repr(found)
    assert SECRET.decode() not in repr(found)


@pytest.mark.parametrize(
    ("signature", "options", "reason", "hint"),
    [
        (None, {}, "missing_credentials", "the request has no X-Signature header"),
        (None, {"more": (("GAP-Signature", mac("x")),)}, "missing_credentials", "a signature stands in gap-signature"),
        (None, {"more": (("Authorization", "Signature x"),)}, "missing_credentials", "is another format's"),
        ("K4Ir=", {}, "signature_malformed", "must begin with the digest's name"),
        ("sha256  K4Ir=", {}, "signature_malformed", "exactly one blank"),
        ("SHA256 K4Ir=", {}, "algorithm_not_allowed", "lower case"),
        ("hmac-sha256 K4Ir=", {}, "algorithm_not_allowed", "without hmac"),
        ("sha1 K4Ir=", {}, "algorithm_not_allowed", "the client signs with sha1"),
        (mac("x"), {"clock_skew": 300, "headers": ["X-Date", "Date"], "more": (("X-Date", "2015-09-28"),)}, "", ""),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value)[:30],
)
def test_what_can_be_read_off(signature: str | None, options: dict[str, Any], reason: str, hint: str) -> None:
    found = told(signature, **options)
    if reason:
        assert found.reason == reason and any(hint in text for text in found.hints), found
    else:
        assert found.reason == "signature_mismatch"


def test_where_the_clients_string_parts() -> None:
    theirs = HEAD.replace("c=%20", "c=+").encode() + BODY
    found = told(mac(theirs), string=theirs)
    assert found.parts_at is not None
    assert (found.parts_at.line, found.parts_at.column) == (4, 8)
    assert found.parts_at.ours.startswith("`%20") and found.parts_at.theirs.startswith("`+")


@settings(max_examples=examples(40), deadline=None)
@given(st.text(max_size=40), st.binary(max_size=40), st.sampled_from(["GET", "POST", "\x00"]), st.text(max_size=20))
def test_it_never_raises(signature: str, body: bytes, method: str, target: str) -> None:
    compiled = hmac_auth.compile({"scheme": "hmacproxy", "key_id": "key-1", "headers": ["date", ""]})
    message = Message(method, "/" + target, [("X-Signature", signature), ("X-Signature", f"sha1 {signature}")][:1])
    explain(message, compiled.scheme, compiled.policy, {"key-1": credential()}.get, NOW, body, body)
