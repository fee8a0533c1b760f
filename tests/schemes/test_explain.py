"""schemes.explain: every mistake that people make is named, nothing secret is told, nothing raises."""

from __future__ import annotations

import base64
import hashlib
import hmac
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.credential import Credential
from hmac_gateway.core.identity import Failure
from hmac_gateway.core.macs import ALGORITHMS
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.schemes import SCHEMES
from hmac_gateway.schemes.explain import Explanation, explain, visible
from hmac_gateway.schemes.verify import Policy, check_head
from tests.support.fuzz import examples

from ..support.engine import DATE, NOW, authorization, credential, mac64, signed

SCHEME = SCHEMES["apisix"]
SECRET = "s3cret+Key/0123456789ABCDEF"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
TARGET = "/api/v1/caf%C3%A9/x?b=2&a=%2F+1"
LISTED = "@request-target date x-Tenant-id"


def told(
    message: Message,
    *credentials: Credential,
    now: float = NOW,
    string: bytes | None = None,
    body: bytes | None = None,
    **rules: Any,
) -> Explanation:
    found = {one.identifier: one for one in credentials or (credential("key-1", SECRET.encode()),)}
    policy = Policy(**{"algorithms": frozenset(ALGORITHMS), "validate_body": body is not None, **rules})
    result = explain(message, SCHEME, policy, found.get, now, string, body)
    assert isinstance(result.hints, tuple)
    return result


def request(
    signature: str,
    listed: str = LISTED,
    *,
    algorithm: str = "hmac-sha256",
    method: str = "GET",
    target: str = TARGET,
    extra: tuple[tuple[str, str], ...] = (),
) -> Message:
    text = f'Signature keyId="key-1",algorithm="{algorithm}",headers="{listed}",signature="{signature}"'
    headers = [("Host", "api.test"), ("Date", DATE), ("X-Tenant-Id", "7"), *extra, ("Authorization", text)]
    return Message(method, target, headers, "https", remote_addr="192.0.2.1")


def right(target: str = TARGET, method: str = "GET") -> str:
    return f"key-1\n{method} {target}\ndate: {DATE}\nx-Tenant-id: 7\n"


def sign(string: str, secret: bytes = SECRET.encode(), algorithm: str = "hmac-sha256") -> str:
    return mac64(string, secret, algorithm)


def test_accepted() -> None:
    result = told(request(sign(right())))
    assert (result.verdict, result.reason, result.hints, result.difference) == ("accepted", "", (), "")
    assert [step.name for step in result.steps] == ["key", "algorithm", "date", "signed headers", "signature"]
    assert result.strings == (("raw", f"key-1\\n\nGET {TARGET}\\n\ndate: {DATE}\\n\nx-Tenant-id: 7\\n"),)


# --- mistakes in the signing string, the secret or the encoding ---

RAW = base64.b64decode(sign(right()))
URL_SAFE = next(  # a signature that has both - and _
    f"/{n}" for n in range(10**6) if {"+", "/"} <= set(sign(right(f"/{n}")))
)

MISTAKES: dict[str, tuple[str, Message]] = {
    "no final newline": ("the final newline is missing", request(sign(right()[:-1]))),
    "two final newlines": ("one newline too many", request(sign(right() + "\n"))),
    "CRLF": ("CRLF", request(sign(right().replace("\n", "\r\n")))),
    "backslash n": ("backslash", request(sign(right().replace("\n", "\\n")))),
    "hex": ("written in hex", request(RAW.hex())),
    "upper hex": ("written in hex", request(RAW.hex().upper())),
    "base64 of hex": ("base64 of hex digits", request(base64.b64encode(RAW.hex().encode()).decode())),
    "twice base64": ("encoded twice", request(base64.b64encode(base64.b64encode(RAW)).decode())),
    "url alphabet": (
        "URL alphabet",
        request(sign(right(URL_SAFE)).replace("+", "-").replace("/", "_"), target=URL_SAFE),
    ),
    "percent-encoded": (
        "percent-encoded",
        request(sign(right()).replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")),
    ),
    "plus lost": ("become a blank", request(sign(right(URL_SAFE)).replace("+", " "), target=URL_SAFE)),
    "no key id": ("line of the key id is missing", request(sign(right().removeprefix("key-1\n")))),
    "secret with newline": ("a newline was signed with", request(sign(right(), SECRET.encode() + b"\n"))),
    "secret with CRLF": ("a line end was signed with", request(sign(right(), SECRET.encode() + b"\r\n"))),
    "secret with a blank": ("a blank after the secret", request(sign(right(), SECRET.encode() + b" "))),
    "secret in quotes": ("quotes around the secret", request(sign(right(), b'"' + SECRET.encode() + b'"'))),
    "secret base64-encoded": ("base64-encoded first", request(sign(right(), base64.b64encode(SECRET.encode())))),
    "secret in hex": ("hex-encoded first", request(sign(right(), SECRET.encode().hex().encode()))),
    "key id as secret": ("key id was used as the secret", request(sign(right(), b"key-1"))),
    "hashed secret": ("hashed first", request(sign(right(), hashlib.sha256(SECRET.encode()).digest()))),
    "empty secret": ("secret was empty", request(sign(right(), b""))),
    "other algorithm": (
        "hmac-sha512's, but algorithm= says hmac-sha256",
        request(sign(right(), algorithm="hmac-sha512")),
    ),
    "md5": (
        "HMAC-MD5",
        request(base64.b64encode(hmac.new(SECRET.encode(), right().encode(), "md5").digest()).decode()),
    ),
    "plain hash": (
        "a plain hash",
        request(base64.b64encode(hashlib.sha256(SECRET.encode() + right().encode()).digest()).decode()),
    ),
    "swapped": (
        "swapped",
        request(base64.b64encode(hmac.new(right().encode(), SECRET.encode(), "sha256").digest()).decode()),
    ),
    "names in lower case": (
        "in lower case, but not in headers=",
        request(sign(right().replace("x-Tenant-id", "x-tenant-id"))),
    ),
    "names capitalised": (
        "capitalised",
        request(sign(right().replace("x-Tenant-id", "X-Tenant-Id").replace("date:", "Date:"))),
    ),
    "values alone": ("not the value alone", request(sign(f"key-1\nGET {TARGET}\n{DATE}\n7\n"))),
    "no blank after the colon": ("a blank follows the colon", request(sign(right().replace(": ", ":")))),
    "method in lower case": ("method is signed in lower case", request(sign(right().replace("GET", "get")))),
    "Kong's line": (
        "Kong's; here it is METHOD target",
        request(sign(right().replace("GET ", "@request-target: get "))),
    ),
    "named line": ("has no name in front", request(sign(right().replace("GET ", "@request-target: GET ")))),
    "HTTP version": ("HTTP version is no part", request(sign(right().replace(TARGET, TARGET + " HTTP/1.1")))),
    "Kong's string": (
        "the string is Kong's",
        request(sign(f"@request-target: get {TARGET}\ndate: {DATE}\nx-Tenant-id: 7")),
    ),
    "Kong's request-line": (
        "the string is Kong's",
        request(sign(f"GET {TARGET} HTTP/1.1\ndate: {DATE}\nx-Tenant-id: 7")),
    ),
    "cavage": (
        "draft-cavage",
        request(
            sign(f"(request-target): get {TARGET}\ndate: {DATE}\nx-tenant-id: 7"), "(request-target) date x-Tenant-id"
        ),
    ),
    "cavage's line": (
        "(request-target) is draft-cavage's",
        request(sign(right().replace("GET ", "(request-target): get "))),
    ),
    "request line listed otherwise": (
        "listed as @request-target",
        request(sign(right()), "(request-target) date x-Tenant-id"),
    ),
    "method missing": ("method is missing", request(sign(right().replace("GET ", "")))),
    "method on its own line": ("stand on one line", request(sign(right().replace("GET ", "GET\n")))),
    "decoded query": ("query is percent-decoded", request(sign(right("/api/v1/caf%C3%A9/x?b=2&a=/ 1")))),
    "decoded path": ("path is percent-decoded", request(sign(right("/a/b")), target="/a%2Fb")),
    "encoded path": ("percent-encoded otherwise", request(sign(right("/a%3Ab")), target="/a:b")),
    "encoded twice": ("path is encoded once more", request(sign(right("/a%2520b")), target="/a%20b")),
    "case of escapes": (
        "case of their digits",
        request(sign(right(TARGET.replace("%2F", "%2f").replace("%C3%A9", "%c3%a9")))),
    ),
    "query dropped": ("query is left out", request(sign(right(TARGET.partition("?")[0])))),
    "query sorted": ("are sorted", request(sign(right("/api/v1/caf%C3%A9/x?a=%2F+1&b=2")))),
    "plus as %20": ("%20 in another", request(sign(right(TARGET.replace("+", "%20"))))),
    "no leading slash": ("begins with a /", request(sign(right(TARGET[1:])))),
    "prefix stripped": ("a prefix of the path is missing", request(sign(right(TARGET.removeprefix("/api"))))),
    "two prefixes stripped": ("a prefix of the path is missing", request(sign(right(TARGET.removeprefix("/api/v1"))))),
    "trailing slash": ("a / ends the path", request(sign(right("/a/")), target="/a")),
    "full URL": ("whole URL is signed", request(sign(right("https://api.test" + TARGET)))),
    "full URL, http": ("whole URL is signed", request(sign(right("http://api.test" + TARGET)))),
    "another date": ("another Date is signed", request(sign(right().replace(DATE, BEFORE)))),
    "date rounded": ("another Date is signed", request(sign(right().replace(DATE, DATE.replace(":37", ":00"))))),
    "X-Date in the line": (
        "the value of X-Date",
        request(
            sign(right().replace(DATE, "Sun, 06 Nov 1994 08:40:00 GMT")),
            extra=(("X-Date", "Sun, 06 Nov 1994 08:40:00 GMT"),),
        ),
    ),
    "another order": ("another order", request(sign(f"key-1\ndate: {DATE}\nGET {TARGET}\nx-Tenant-id: 7\n"))),
    "a line forgotten": ("line of x-Tenant-id is missing", request(sign(right().replace("x-Tenant-id: 7\n", "")))),
    "a line unlisted": (
        "@request-target is not in headers=",
        request(sign(right().replace("x-Tenant-id: 7\n", "")), "date"),
    ),
    "an absent header signed empty": (
        "have no line at all",
        request(sign(right() + "x-none:\n"), LISTED + " x-none"),
    ),
}
MISTAKES["secret base64-decoded"] = (
    "base64-decoded first",
    request(sign(right(), base64.b64decode("c2VjcmV0LWtleS0x"))),
)
MISTAKES["secret hex-decoded"] = ("hex-decoded first", request(sign(right(), bytes.fromhex("deadbeef"))))
OTHER_SECRETS = {
    "secret base64-decoded": b"c2VjcmV0LWtleS0x",
    "secret hex-decoded": b"deadbeef",
    "secret trimmed": b" padded \n",
}
MISTAKES["secret trimmed"] = ("blanks around the secret were cut off", request(sign(right(), b"padded")))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    hint, message = MISTAKES[name]
    secret = OTHER_SECRETS.get(name, SECRET.encode())
    result = told(message, credential("key-1", secret))
    assert result.verdict == "refused"
    assert any(hint in text for text in result.hints), result.hints
    assert_tells_no_secret(result, message, secret)


def assert_tells_no_secret(result: Explanation, message: Message, secret: bytes) -> None:
    shown = repr(result)
    assert secret.decode().strip() not in shown
    sent = message.get("authorization") or ""
    for algorithm in ALGORITHMS:
        for string in (right(), right()[:-1]):
            computed = hmac.new(secret, string.encode(), algorithm[5:]).digest()
            for text in (base64.b64encode(computed).decode().rstrip("="), computed.hex()):
                assert text not in shown or text in sent


def test_combined_mistakes_are_all_named() -> None:
    string = right()[:-1].replace("GET", "get")
    signature = base64.b64decode(sign(string)).hex()
    hints = told(request(signature)).hints
    assert any("final newline is missing" in hint for hint in hints)
    assert any("lower case" in hint for hint in hints)
    assert any("written in hex" in hint for hint in hints)


def test_the_fewest_mistakes_are_named() -> None:
    hints = told(request(sign(right()[:-1]))).hints
    assert hints == ("the final newline is missing",)


@pytest.mark.parametrize("name", ["Kong's string", "Kong's request-line", "cavage"])
def test_another_formats_string_is_one_mistake(name: str) -> None:
    hints = told(MISTAKES[name][1]).hints
    assert len([hint for hint in hints if "the string is" in hint]) == 1
    assert not any("final newline is missing" in hint or "HTTP version is no part" in hint for hint in hints)


def test_many_lines_sorted() -> None:
    extra = tuple((f"X-{name}", name) for name in "cab")
    listed = f"{LISTED} x-c x-a x-b"
    lines = right().splitlines(keepends=True)[1:] + [f"x-{name}: {name}\n" for name in "cab"]
    by_name = sorted(zip(listed.split(), lines, strict=True))
    hints = told(request(sign("key-1\n" + "".join(line for _, line in by_name)), listed, extra=extra)).hints
    assert hints == ("the lines are sorted; they stand in the order of headers=",)


def test_a_header_found_by_its_underscore_is_not_absent() -> None:
    message = request(sign(right() + "x_a: 1\n"), LISTED + " x_a", extra=(("X-A", "1"),))
    assert told(message).verdict == "accepted"
    wrong = request(sign((right() + "x_a: 1\n")[:-1]), LISTED + " x_a", extra=(("X-A", "1"),))
    assert told(wrong).hints == ("the final newline is missing",)


def test_the_previous_secret_is_tried_too() -> None:
    both = credential("key-1", b"new", SECRET.encode())
    assert told(request(sign(right()[:-1])), both).hints == ("the final newline is missing",)


def test_no_mistake_that_is_known() -> None:
    for signature in (sign("something else"), "AAAA"):
        (hint,) = told(request(signature)).hints
        assert "none of the usual mistakes" in hint
    assert told(request("!")).hints == ("the signature is neither base64 nor hex",)


def test_an_unknown_secret_gives_no_hint_on_it() -> None:
    closed = Credential("1", credential().consumer, "hmac-auth", "key-1", lambda now: ())
    result = told(request(sign(right())), closed)
    assert (result.verdict, result.reason) == ("refused", "secret_unavailable")


# --- mistakes that can be read off ---


def sent(text: str | None, *headers: tuple[str, str]) -> Message:
    credentials = [("Authorization", text)] if text is not None else []
    return Message("GET", "/", [("Date", DATE), *headers, *credentials])


GOOD = 'keyId="key-1",algorithm="hmac-sha256",headers="date",signature="AAAA"'


@pytest.mark.parametrize(
    ("message", "reason", "hint"),
    [
        (sent(None), Reason.MISSING, "has no Authorization header"),
        (sent(None, ("X-HMAC-SIGNATURE", "x")), Reason.MISSING, "before 3.11"),
        (sent(None, ("Proxy-Authorization", "hmac x")), Reason.MISSING, "Proxy-Authorization"),
        (sent('hmac username="u"'), Reason.WRONG_SCHEME, "Kong's format"),
        (sent("hmac-auth-v1#ak#sig"), Reason.WRONG_SCHEME, "before 3.11"),
        (sent("Basic YTpi"), Reason.WRONG_SCHEME, "Basic credentials"),
        (sent("Bearer abc"), Reason.WRONG_SCHEME, "Bearer credentials"),
        (sent("signature " + GOOD), Reason.WRONG_SCHEME, "compared with its case"),
        (sent("something"), Reason.WRONG_SCHEME, "must begin with the word Signature"),
        (sent("Signature" + GOOD), Reason.MALFORMED_AUTHORIZATION, "a blank must follow"),
        (
            sent("Signature " + GOOD.replace("keyId", "username")),
            Reason.INCOMPLETE,
            "called keyId (with this case), not username",
        ),
        (
            sent("Signature " + GOOD.replace("keyId", "keyid")),
            Reason.INCOMPLETE,
            "called keyId (with this case), not keyid",
        ),
        (sent("Signature " + GOOD.replace("keyId", "key_id")), Reason.INCOMPLETE, "not key_id"),
        (sent("Signature " + GOOD.replace("algorithm", "alg")), Reason.ALGORITHM_MISSING, "called algorithm"),
        (sent("Signature " + GOOD.replace("headers", "signedHeaders")), Reason.DATE_NOT_SIGNED, "called headers"),
        (sent("Signature " + GOOD.replace("signature=", "Signature=")), Reason.INCOMPLETE, "called signature"),
        (sent("Signature " + GOOD.replace('"', "'")), Reason.INCOMPLETE, "not in single ones"),
        (sent("Signature " + GOOD.replace('"', "")), Reason.INCOMPLETE, "double quotes"),
        (sent("Signature " + GOOD.replace('"', "\xe2\x80\x9c")), Reason.INCOMPLETE, "typographic"),
        (sent("Signature " + GOOD.replace("=", " = ")), Reason.INCOMPLETE, "no blank may stand around ="),
        (sent("Signature " + GOOD.replace(",", ";")), Reason.INCOMPLETE, "separated by commas"),
        (sent("Signature " + GOOD.replace(",", " ")), Reason.INCOMPLETE, "separated by commas"),
        (sent("Signature " + GOOD.replace('"date"', '"host, date"')), Reason.DATE_NOT_SIGNED, "a comma ends the field"),
        (sent("Signature " + GOOD.replace('"date"', '"host;date"')), Reason.DATE_NOT_SIGNED, "not by semicolons"),
        (
            sent("Signature " + GOOD.replace("hmac-sha256", "HMAC-SHA256")),
            Reason.ALGORITHM_NOT_ALLOWED,
            "write hmac-sha256",
        ),
        (sent("Signature " + GOOD.replace("hmac-sha256", "sha256")), Reason.ALGORITHM_NOT_ALLOWED, "write hmac-sha256"),
        (
            sent("Signature " + GOOD.replace("hmac-sha256", "HmacSHA256")),
            Reason.ALGORITHM_NOT_ALLOWED,
            "write hmac-sha256",
        ),
        (
            sent("Signature " + GOOD.replace("hmac-sha256", "hs2019")),
            Reason.ALGORITHM_NOT_ALLOWED,
            "does not say which hash",
        ),
        (
            sent("Signature " + GOOD.replace("hmac-sha256", "rot13")),
            Reason.ALGORITHM_NOT_ALLOWED,
            "must be hmac-sha1 or",
        ),
        (sent("Signature " + GOOD.replace("key-1", "key-1 ")), Reason.UNKNOWN_KEY, "without surrounding blanks: key-1"),
        (sent("Signature " + GOOD.replace("key-1", "KEY-1")), Reason.UNKNOWN_KEY, "in lower case: key-1"),
        (sent("Signature " + GOOD.replace("key-1", "key%2D1")), Reason.UNKNOWN_KEY, "percent-decoded: key-1"),
        (sent("Signature " + GOOD.replace("key-1", "nobody")), Reason.UNKNOWN_KEY, "nobody has this key id"),
        (sent("Signature " + GOOD.replace('"date"', '""')), Reason.DATE_NOT_SIGNED, "can be replaced"),
        (Message("GET", "/", [("Authorization", "Signature " + GOOD)]), Reason.DATE_MISSING, "send a Date header"),
        (
            Message("GET", "/", [("X-Date", DATE), ("Authorization", "Signature " + GOOD)]),
            Reason.DATE_MISSING,
            "only when x-date is in headers=",
        ),
        (sent("Signature " + GOOD.replace('"date"', '"date x-none"')), Reason.SIGNATURE_MISMATCH, "lists x-none, but"),
        (sent("Signature " + GOOD.replace('"date"', '"date (created)"')), Reason.SIGNATURE_MISMATCH, "sign date"),
        (
            sent("Signature " + GOOD.replace('"date"', '"date request-line"')),
            Reason.SIGNATURE_MISMATCH,
            "listed as @request-target",
        ),
        (
            sent("Signature " + GOOD.replace('"date"', '"date @Request-Target"')),
            Reason.SIGNATURE_MISMATCH,
            "in lower case",
        ),
    ],
)
def test_read_off(message: Message, reason: Reason, hint: str) -> None:
    result = told(message)
    assert result.reason == reason
    assert result.verdict == ("no credentials" if reason is Reason.MISSING else "refused")
    assert any(hint in text for text in result.hints), result.hints


@pytest.mark.parametrize(
    ("date", "hint"),
    [
        ("784111777", "in Unix seconds, not an HTTP date; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("784111777000", "in milliseconds, not an HTTP date; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("784111777.5", "in Unix seconds, not an HTTP date; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("1994-11-06T08:49:37Z", "in ISO 8601, not an HTTP date; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("1994-11-06T09:49:37+01:00", "in ISO 8601, not an HTTP date; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("19941106T084937Z", "in ISO 8601, not an HTTP date; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("1994-11-06 08:49:37", "in ISO 8601, not an HTTP date"),
        ("Sun, 06 Nov 1994 16:49:37 +0800", "in another zone than GMT; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Sun, 06 Nov 1994 03:49:37 EST", "in another zone than GMT; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Sun, 6 Nov 1994 08:49:37 GMT", "not exactly in HTTP's form; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("06 Nov 1994 08:49:37 GMT", "not exactly in HTTP's form; write Sun, 06 Nov 1994 08:49:37 GMT"),
        ("yesterday", "not an HTTP date (Sun, 06 Nov 1994 08:49:37 GMT)"),
        ("1994-99-06T08:49:37Z", "not an HTTP date (Sun, 06 Nov 1994 08:49:37 GMT)"),
        ("99999999999", "in Unix seconds, not an HTTP date"),
        ("Sun, 99 Nov 1994 08:49:37 +0800", "not an HTTP date"),
    ],
)
def test_dates(date: str, hint: str) -> None:
    result = told(signed(date=date, secret=SECRET.encode()))
    assert result.reason == Reason.DATE_INVALID
    assert any(text.startswith("date is ") and hint in text for text in result.hints), result.hints
    assert "the signature itself is right" in result.hints


@pytest.mark.parametrize(
    ("off", "hint"),
    [
        (8 * 3600, "about -8 h: it may be a local time"),
        (-5.5 * 3600 + 20, "about +5.5 h"),
        (400, "the server's clock says Sun, 06 Nov 1994 08:56:17 GMT"),
        (86400 * 30, "the server's clock says"),
    ],
)
def test_clocks(off: float, hint: str) -> None:
    result = told(signed(secret=SECRET.encode()), now=NOW + off)
    assert result.reason == Reason.CLOCK_SKEW
    assert any(hint in text for text in result.hints), result.hints


def test_a_key_that_cannot_be_used_says_nothing_of_the_signature() -> None:
    off = credential("key-1", SECRET.encode(), enabled=False)
    result = told(request(sign(right())), off)
    assert result.reason == Reason.CREDENTIAL_DISABLED
    (step,) = [step for step in result.steps if step.name == "signature"]
    assert step.note == "not compared: the key cannot be used"
    assert "the signature itself is right" in result.hints
    assert told(request(sign(right()[:-1])), off).hints == ("the final newline is missing",)


# --- bodies ---


def digested(text: str) -> Message:
    return signed("POST", "/", ("Digest", text), listed=["date", "digest"], secret=SECRET.encode())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


BODY = b'{"a": 1}\n'
LF = b"\n"
SHA = hashlib.sha256(BODY).digest()


@pytest.mark.parametrize(
    ("digest", "reason", "hint"),
    [
        (f"SHA-256={b64(SHA)}", "", ""),
        (f"SHA-512={b64(hashlib.sha512(BODY).digest())}", "", ""),
        (
            f"SHA-256={b64(hmac.digest(SECRET.encode(), BODY, 'sha256'))}",
            Reason.DIGEST_MISMATCH,
            "is an HMAC of the body",
        ),
        (
            f"SHA-256={hmac.digest(SECRET.encode(), BODY, 'sha256').hex()}",
            Reason.DIGEST_MISMATCH,
            "is an HMAC of the body",
        ),
        (f"SHA-256={SHA.hex()}", Reason.DIGEST_MISMATCH, "in hex"),
        (f"SHA-256={b64(SHA.hex().encode())}", Reason.DIGEST_MISMATCH, "in hex"),
        (f"SHA-256={b64(SHA).rstrip('=')}", Reason.DIGEST_MISMATCH, "padding"),
        (f"SHA-256={b64(hashlib.sha256(b'').digest())}", Reason.DIGEST_MISMATCH, "an empty body"),
        (f"SHA-256={b64(hashlib.sha256(BODY + LF).digest())}", Reason.DIGEST_MISMATCH, "with a final newline"),
        (f"SHA-256={b64(hashlib.sha256(BODY[:-1]).digest())}", Reason.DIGEST_MISMATCH, "without its final newline"),
        (f"SHA-256={b64(hashlib.sha256(b'x').digest())}", Reason.DIGEST_MISMATCH, "not that of the bytes sent"),
        (f"sha-256={b64(SHA)}", Reason.DIGEST_MALFORMED, "in capitals"),
    ],
)
def test_bodies(digest: str, reason: str, hint: str) -> None:
    result = told(digested(digest), body=BODY)
    assert result.reason == reason
    assert result.verdict == ("refused" if reason else "accepted")
    assert any(hint in text for text in result.hints) or not hint
    assert SECRET not in repr(result)


def test_an_unknown_body_is_not_judged() -> None:
    result = told(digested("SHA-256=x"), validate_body=True)
    assert result.verdict == "accepted"


# --- the client's own string ---


def test_where_the_strings_part() -> None:
    theirs = right().replace("x-Tenant-id: 7\n", "x-tenant-id: 7\n").encode()
    result = told(request(sign(theirs.decode())), string=theirs)
    parts = result.parts_at
    assert parts is not None
    assert theirs[: parts.offset] == right().encode()[: parts.offset]
    assert (parts.line, parts.column, parts.form) == (4, 3, "raw")
    assert (parts.ours, parts.theirs) == (r"`Tenant-id: 7\n`", r"`tenant-id: 7\n`")
    assert result.difference == (
        rf"byte {parts.offset}, line 4, column 3: the server has `Tenant-id: 7\n`, the client `tenant-id: 7\n`"
    )
    assert "the signature is right for the client's string: the string is what differs" in result.hints


@pytest.mark.parametrize(
    ("theirs", "ours_shown", "theirs_shown", "place"),
    [
        (b"", "`key-1\\nGET /api/v1/caf%C3…`", "", (0, 1, 1)),
        (b"key-2", "`1\\nGET /api/v1/caf%C3%A9/…`", "`2`", (4, 1, 5)),
        (b"key-1", "`\\nGET /api/v1/caf%C3%A9/x…`", "", (5, 1, 6)),
        (b"key-1\r\n", "`\\nGET /api/v1/caf%C3%A9/x…`", "`\\r\\n`", (5, 1, 6)),
        (b"key-1\nget /", "`GET /api/v1/caf%C3%A9/x?…`", "`get /`", (6, 2, 1)),
        (right().encode()[:-1], "`\\n`", "", (len(right()) - 1, 4, 15)),
        (right().encode() + b"x", "", "`x`", (len(right()), 5, 1)),
        (b"key-1\n\xff\x00'\"", "`GET /api/v1/caf%C3%A9/x?…`", "`\\xff\\x00'\"`", (6, 2, 1)),
    ],
)
def test_places(theirs: bytes, ours_shown: str, theirs_shown: str, place: tuple[int, int, int]) -> None:
    parts = told(request(sign("x")), string=theirs).parts_at
    assert parts is not None
    assert (parts.offset, parts.line, parts.column) == place
    assert (parts.ours, parts.theirs) == (ours_shown, theirs_shown)
    assert ("the end" in str(parts)) is ("" in (ours_shown, theirs_shown))


def test_the_nearest_of_the_servers_strings_is_compared() -> None:
    message = signed("GET", "/he%6Clo?", secret=b"x")
    parts = told(message, string=f"key-1\nGET /hello\ndate: {BEFORE}\n".encode()).parts_at
    assert parts is not None
    assert (parts.form, parts.line) == ("decoded, without ?", 3)


def test_the_same_string() -> None:
    result = told(request(sign("x")), string=right().encode())
    assert (result.parts_at, result.difference) == (None, "")
    same = "the client's string is the server's, byte for byte: the secret differs, or the MAC's encoding"
    assert result.hints == (same,)


def test_the_clients_string_with_another_secret() -> None:
    theirs = b"something of its own"
    hints = told(request(sign(theirs.decode(), SECRET.encode() + b"\n")), string=theirs).hints
    assert any("a newline was signed with" in hint for hint in hints)
    assert any("right for the client's string" in hint for hint in hints)


def test_strings_show_even_where_the_check_stopped_before() -> None:
    result = told(request(sign(right())), now=NOW + 10_000, string=right().encode())
    assert result.reason == Reason.CLOCK_SKEW
    assert result.strings[0][0] == "raw"
    assert result.parts_at is None


def test_visible() -> None:
    assert visible(b"") == ""
    assert visible(b"a\nb\n") == "a\\n\nb\\n"
    assert visible(b"a\r\n") == "a\\r\\n"
    assert visible(b"a\\nb") == "a\\\\nb"
    assert visible(b'it\'s "q" \t\xe9') == 'it\'s "q" \\t\\xe9'


# --- other schemes, and no end to it ---


def test_other_schemes_get_what_is_common_to_all() -> None:
    other = SimpleNamespace(**{name: getattr(SCHEME, name) for name in dir(SCHEME) if not name.startswith("_")})
    other.name = "other"
    policy = Policy(frozenset(ALGORITHMS))
    lookup = {"key-1": credential("key-1", SECRET.encode())}.get
    for string, hint in ((right()[:-1], "final newline"), (right().replace("\n", "\r\n"), "CRLF")):
        result = explain(request(sign(string)), other, policy, lookup, NOW)  # type: ignore[arg-type]
        assert any(hint in text for text in result.hints), result.hints
    result = explain(request(sign(right(), b"key-1")), other, policy, lookup, NOW)  # type: ignore[arg-type]
    assert any("key id was used" in text for text in result.hints)


def test_the_search_is_bounded() -> None:
    # 100 headers of 60 KB: a search without a limit would sign gigabytes.
    extra = tuple((f"x-{n}", "v" * 60_000) for n in range(90))
    message = request(sign("x"), " ".join(["date", *(name for name, _ in extra)]), extra=extra)
    with mock.patch.object(hmac, "digest", wraps=hmac.digest) as counted:
        assert told(message).verdict == "refused"
    assert counted.call_count < 20


def test_what_no_server_lets_in() -> None:
    result = told(Message("GET", "/\u20ac", [("Date", DATE), authorization("x\n", ["@request-target", "date"])]))
    assert (result.verdict, result.reason) == ("refused", "malformed")


text = st.text(st.characters(max_codepoint=0x2000), max_size=30)
raw = st.text(st.characters(max_codepoint=255), max_size=30)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.one_of(
        raw,
        raw.map("Signature ".__add__),
        st.builds(
            'Signature keyId="key-1",algorithm="{}",headers="{}",signature="{}"'.format,
            st.sampled_from(["hmac-sha256", "x", ""]),
            raw,
            raw,
        ),
    ),
    st.one_of(st.sampled_from([DATE, BEFORE, "0"]), raw),
    st.one_of(raw, text, st.just("/a%62?c=d")),
    st.one_of(st.none(), st.binary(max_size=30)),
    st.one_of(st.none(), st.binary(max_size=30)),
)
def test_nothing_raises(header: str, date: str, target: str, string: bytes | None, body: bytes | None) -> None:
    message = Message("GET", target, [("Date", date), ("X-Date", date), ("Digest", header), ("Authorization", header)])
    result = told(message, string=string, body=body)
    assert result.verdict in ("accepted", "refused", "no credentials")
    assert not any("no further explanation" in hint for hint in result.hints)
    assert SECRET not in repr(result)
    if max(target, default="") > "\xff":
        assert result.reason == Reason.MALFORMED
        return
    policy = Policy(frozenset(ALGORITHMS), validate_body=body is not None)
    found = check_head(message, SCHEME, policy, {"key-1": credential("key-1", SECRET.encode())}.get, NOW)
    if isinstance(found, Failure):
        assert result.reason == found.reason
