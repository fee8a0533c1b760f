"""schemes.explain for Kong's format: mistakes are named, nothing secret is told, nothing raises."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.macs import ALGORITHMS
from hmac_gateway.core.message import Message
from hmac_gateway.schemes import kong
from hmac_gateway.schemes.explain import Explanation, explain
from hmac_gateway.schemes.verify import Policy
from tests.support.fuzz import examples

from ..support.engine import DATE, NOW, credential, mac64

SECRET = "s3cret+Key/0123456789ABCDEF"
STALE = "Sat, 05 Nov 1994 08:49:37 GMT"
TARGET = "/api/v1/orders?b=2&a=%2F+1"
LISTED = "date @request-target x-tenant"
RIGHT = f"date: {DATE}\n@request-target: get {TARGET}\nx-tenant: 7"
HELLO = "SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # openssl dgst -sha256 of "hello"
Pair = tuple[str, str]


def sign(string: str, secret: bytes = SECRET.encode(), algorithm: str = "hmac-sha256") -> str:
    return mac64(string, secret, algorithm)


def header(signature: str, listed: str = LISTED, user: str = "bob", algorithm: str = "hmac-sha256") -> str:
    return f'hmac username="{user}", algorithm="{algorithm}", headers="{listed}", signature="{signature}"'


def sent(text: str | None, *extra: Pair, date: str = DATE, version: str = "1.1") -> Message:
    dates = [("Date", date)] if date else []
    own = [] if text is None else [("Authorization", text)]
    headers = [("Host", "api.test"), *dates, ("X-Tenant", "7"), *extra, *own]
    return Message("GET", TARGET, headers, "https", http_version=version, remote_addr="192.0.2.1")


def told(
    message: Message, string: bytes | None = None, body: bytes | None = None, form: kong.Kong = kong.KONG, **rules: Any
) -> Explanation:
    order = {"clock_first": True, "either_date": True, "digest_optional": True}
    policy = Policy(**{"algorithms": frozenset(ALGORITHMS), "required": (), **order, **rules})
    found = {"bob": credential("bob", SECRET.encode())}
    return explain(message, form, policy, found.get, NOW, string, body)


def test_accepted() -> None:
    result = told(sent(header(sign(RIGHT))))
    assert (result.verdict, result.reason, result.hints) == ("accepted", "", ())
    assert [step.name for step in result.steps] == ["key", "algorithm", "date", "signed headers", "signature"]
    assert result.strings[0] == ("raw", f"date: {DATE}\\n\n@request-target: get {TARGET}\\n\nx-tenant: 7")


GET = "@request-target: get "
MISTAKES = {
    "a final newline": ("no newline may follow the last line", sent(header(sign(RIGHT + "\n")))),
    "CRLF": ("CRLF", sent(header(sign(RIGHT.replace("\n", "\r\n"))))),
    "base64 of hex": (
        "base64 of hex digits",
        sent(header(base64.b64encode(base64.b64decode(sign(RIGHT)).hex().encode()).decode())),
    ),
    "hex": ("written in hex", sent(header(base64.b64decode(sign(RIGHT)).hex()))),
    "upper case method": (
        "signed in lower case, as get",
        sent(header(sign(RIGHT.replace(GET, "@request-target: GET ")))),
    ),
    "no name": ("the line begins with its name", sent(header(sign(RIGHT.replace(GET, "get "))))),
    "APISIX's line": ("the line begins with its name", sent(header(sign(RIGHT.replace(GET, "GET "))))),
    "a version": (
        "no HTTP version is signed with @request-target",
        sent(header(sign(RIGHT.replace(TARGET, TARGET + " HTTP/1.1")))),
    ),
    "brackets": ("draft-cavage", sent(header(sign(RIGHT.replace("@request-target", "(request-target)"))))),
    "no version": (
        "ends in the HTTP version",
        sent(header(sign(f"date: {DATE}\nGET {TARGET}"), "date request-line")),
    ),
    "request-line in lower case": (
        "the method of request-line is signed as it is sent",
        sent(header(sign(f"date: {DATE}\nget {TARGET} HTTP/1.1"), "date request-line")),
    ),
    "request-line with a name": (
        "the request line has no name in front",
        sent(header(sign(f"date: {DATE}\nrequest-line: GET {TARGET} HTTP/1.1"), "date request-line")),
    ),
    "another version": (
        "HTTP/1.1 is signed, but HTTP/1.0 arrives",
        sent(header(sign(f"date: {DATE}\nGET {TARGET} HTTP/1.1"), "date request-line"), version="1.0"),
    ),
    "APISIX's string": (
        "the string is APISIX's",
        sent(header(sign(f"bob\ndate: {DATE}\nGET {TARGET}\nx-tenant: 7\n"))),
    ),
    "cavage's string": (
        "draft-cavage",
        sent(header(sign(f"(request-target): get {TARGET}\ndate: {DATE}"), "(request-target) date")),
    ),
    "query dropped": ("query is left out", sent(header(sign(RIGHT.replace(TARGET, TARGET.partition("?")[0]))))),
    "stripped": ("a prefix of the path is missing", sent(header(sign(RIGHT.replace("/api/v1", ""))))),
    "no blank": ("a blank follows the colon", sent(header(sign(RIGHT.replace(": ", ":"))))),
    "names capitalised": (
        "capitalised",
        sent(header(sign(RIGHT.replace("date:", "Date:").replace("x-tenant", "X-Tenant")))),
    ),
    "another order": ("another order", sent(header(sign(f"x-tenant: 7\n{RIGHT[: -len('x-tenant: 7') - 1]}")))),
    "absent left out": (
        "has a line, which is its name and a colon",
        sent(header(sign(f"date: {DATE}"), "date x-none")),
    ),
    "absent with a blank": (
        "without a blank",
        sent(header(sign(f"date: {DATE}\nx-none: "), "date x-none")),
    ),
    "target not listed": (
        "@request-target is not in headers=",
        sent(header(sign(f"date: {DATE}\n@request-target: get {TARGET}"), "date")),
    ),
    "secret with a newline": ("a newline was signed with", sent(header(sign(RIGHT, SECRET.encode() + b"\n")))),
    "another hash": ("hmac-sha1's, but algorithm= says", sent(header(sign(RIGHT, algorithm="hmac-sha1")))),
    "listed with commas": (
        "with commas they are one name",
        sent(header(sign(f"date: {DATE}\nx-tenant: 7"), "date, x-tenant")),
    ),
    "commas alone": ("with commas they are one name", sent(header(sign(f"date: {DATE}"), "date,x-tenant"))),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    words, message = MISTAKES[name]
    result = told(message, require_signed_date=False)
    assert result.verdict == "refused"
    assert any(words in hint for hint in result.hints), result.hints
    assert not any("usual mistakes" in hint for hint in result.hints) or "commas" in words


GRAMMAR = {
    "nothing": (None, "neither Proxy-Authorization nor Authorization"),
    "case": (header("x").replace("hmac", "HMAC", 1), "hmac or Hmac, in no other case"),
    "glued": (header("x").replace("hmac ", "hmac", 1), "a blank must follow the word hmac"),
    "quote in front": ('"' + header("x"), "must begin with the word hmac"),
    "cavage": ('Signature keyId="bob",algorithm="hmac-sha256",signature="x"', "this is another format (Signature)"),
    "basic": ("Basic YTpi", "Basic credentials are not what this route asks for"),
    "key id": (header("x").replace("username", "keyId"), "the field is called username, not keyId"),
    "missing": (header("x").replace('algorithm="hmac-sha256", ', ""), "algorithm= is missing"),
    "order": (
        'hmac algorithm="hmac-sha256", username="bob", headers="date", signature="x"',
        "in this order: username, algorithm, headers, signature",
    ),
    "single quotes": (header("x").replace('"', "'"), "double quotes, not in single ones"),
    "no quotes": (header("x").replace('"bob"', "bob"), "values stand in double quotes"),
    "blank around =": (header("x").replace('="', '= "'), "no blank may stand around ="),
    "no comma": (header("x").replace('", h', '" h'), "fields are separated by commas"),
    "empty": (header(""), "no value may be empty"),
    "quotes in a value": (header("x", user='b"o"b'), "a value may not hold double quotes"),
    "nonce": (header("x") + ', nonce="1"', "nothing may follow the signature"),
}


@pytest.mark.parametrize("name", GRAMMAR)
def test_the_header_is_read_for_mistakes(name: str) -> None:
    text, words = GRAMMAR[name]
    result = told(sent(text))
    assert result.verdict != "accepted"
    assert any(words in hint for hint in result.hints), result.hints
    proxied = [(name, value) for name, value in sent(None).headers] + ([("proxy-authorization", text)] if text else [])
    assert any(words in hint for hint in told(Message("GET", TARGET, proxied)).hints)


@pytest.mark.parametrize(
    ("message", "rules", "words"),
    [
        (sent(header(sign(f"date: {STALE}"), "date"), ("X-Date", DATE), date=STALE), {}, "x-date is in time, but"),
        (sent(header(sign("x-tenant: 7"), "x-tenant")), {}, "add date to headers="),
        (sent(header("x"), date=""), {}, "send a Date header"),
        (sent("junk", date="1994-11-06T08:49:37Z"), {}, "in ISO 8601, not an HTTP date; write " + DATE),
        (sent("junk", date="Sun, 06 Nov 1994 11:49:37 GMT"), {}, "off by about +3 h"),
        (sent(header("x", user="Bob")), {}, "there is one in lower case: bob"),
        (sent(header("x", algorithm="sha256")), {}, "write hmac-sha256"),
        (sent(header("x", "date @Request-Target")), {}, "@request-target is written in lower case"),
        (
            sent(header("x", "date (request-target)")),
            {},
            "the request line is listed as @request-target or request-line",
        ),
        (sent(header("x", "date  x-tenant")), {}, "one blank stands between two names"),
        (sent(header("x", "date x-none")), {}, "it is signed as its name and a colon"),
        (
            sent(header("x", "date request-line"), ("Request-Line", "y")),
            {},
            "which is signed in place of the request line",
        ),
        (
            sent(header(sign(f"date: {DATE}"), "date"), ("Digest", HELLO)),
            {"validate_body": True},
            "add digest to headers=",
        ),
    ],
)
def test_what_else_can_be_seen(message: Message, rules: dict[str, Any], words: str) -> None:
    result = told(message, **rules)
    assert result.verdict == "refused"
    assert any(words in hint for hint in result.hints), result.hints


@pytest.mark.parametrize(
    ("digest", "words"),
    [
        (hmac.new(SECRET.encode(), b"hello", "sha256").digest(), "Digest is an HMAC of the body"),
        (hashlib.sha256(b"hello").hexdigest().encode(), "Digest is written in hex"),
        (hashlib.sha256(b"").digest(), "Digest is that of an empty body"),
    ],
)
def test_digests(digest: bytes, words: str) -> None:
    text = "SHA-256=" + base64.b64encode(digest).decode()
    signature = sign(f"date: {DATE}\ndigest: {text}")
    result = told(sent(header(signature, "date digest"), ("Digest", text)), body=b"hello", validate_body=True)
    assert (result.verdict, result.reason) == ("refused", "digest_mismatch")
    assert any(words in hint for hint in result.hints), result.hints


def test_kong_0_x() -> None:
    rules: dict[str, Any] = {"form": kong.LEGACY, "algorithms": frozenset({"hmac-sha1"})}
    string = f"date: {DATE}\nGET {TARGET} HTTP/1.1"
    right = sent(header(sign(string, algorithm="hmac-sha1"), "date request-line"))
    assert told(right, **rules).verdict == "accepted"
    for signed, listed, algorithm, words in (
        (string, "date request-line", "hmac-sha256", "Kong 0.x computes HMAC-SHA1"),
        (RIGHT, LISTED, "hmac-sha1", "the request line is listed as request-line"),
    ):
        result = told(sent(header(sign(signed, algorithm=algorithm), listed)), **rules)
        assert any(words in hint for hint in result.hints), result.hints


def test_the_clients_own_string() -> None:
    theirs = RIGHT.replace("x-tenant: 7", "x-tenant: 8")
    result = told(sent(header(sign(theirs))), theirs.encode())
    assert "x-tenant" not in result.difference and "line 3" in result.difference
    assert any("the string is what differs" in hint for hint in result.hints)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.text(st.characters(max_codepoint=0x20AC), max_size=60) | st.sampled_from([header("x"), header("x", user="eve")]),
    st.lists(st.tuples(st.sampled_from(["date", "x-date", "digest", "a b", ""]), st.text(max_size=20)), max_size=3),
)
def test_nothing_raises_and_no_secret_is_told(text: str, extra: list[Pair]) -> None:
    result = told(sent(text, *extra, date=""), b"x", b"y", validate_body=True)
    assert result.verdict in ("refused", "no credentials")
    assert SECRET not in repr(result)
