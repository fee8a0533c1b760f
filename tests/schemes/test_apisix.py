"""schemes.apisix and schemes.verify: the APISIX signature format, checked against vectors and a naive verifier."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hmac_gateway.core.credential import Consumer, Credential, Lookup
from hmac_gateway.core.identity import Failure, Verified
from hmac_gateway.core.macs import ALGORITHMS, DUMMY_SECRET
from hmac_gateway.core.message import SINGLETONS, Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.trace import Trace
from hmac_gateway.schemes import SCHEMES, apisix, verify
from hmac_gateway.schemes.base import Claim, signing_strings
from hmac_gateway.schemes.verify import Policy, check_head
from tests.support.fuzz import examples

from ..support.engine import ALICE, DATE, NOW, authorization, credential, signed, vectors
from ..support.naive_verifier import accepts

SCHEME = SCHEMES["apisix"]
ALL = frozenset(ALGORITHMS)
CASES = [*vectors("apisix/documented.json"), *vectors("apisix/openssl.json")]


def policy(**changes: Any) -> Policy:
    return Policy(**{"algorithms": ALL, **changes})


def knows(*credentials: Credential) -> Lookup:
    return {found.identifier: found for found in credentials or (credential(),)}.get


def verdict(message: Message, *, lookup: Lookup | None = None, now: float = NOW, **changes: Any) -> Reason | None:
    """The reason of a refusal; None for a signature that holds."""
    result = check_head(message, SCHEME, policy(**changes), lookup or knows(), now)
    assert result is not None
    return result.reason if isinstance(result, Failure) else None


def verified(message: Message, *, lookup: Lookup | None = None, now: float = NOW, **changes: Any) -> Verified:
    result = check_head(message, SCHEME, policy(**changes), lookup or knows(), now)
    assert isinstance(result, Verified), result
    return result


def sent(text: str, *headers: tuple[str, str], target: str = "/") -> Message:
    return Message("GET", target, [("Date", DATE), ("Authorization", text), *headers])


# --- vectors ---


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    bare = Message(case["method"], case["target"], [tuple(header) for header in case["headers"]])
    claim = Claim(case["key_id"], case["algorithm"], tuple(case["signed"]), "")
    strings = [string for _, string in signing_strings(apisix, bare, claim, apisix.cover(bare, claim))]
    assert case["string"].encode("latin-1") in strings

    text = (
        f'keyId="{case["key_id"]}",algorithm="{case["algorithm"]}",'
        f'headers="{" ".join(case["signed"])}",signature="{case["signature"]}"'
    )
    headers = [*map(tuple, case["headers"]), ("Authorization", f"Signature {text}")]
    message = Message(case["method"], case["target"], headers)
    secret = case["secret"].encode("latin-1")
    lookup = knows(credential(case["key_id"], secret))
    assert verdict(message, lookup=lookup, now=case["at"]) is None
    assert verdict(message, lookup=knows(credential(case["key_id"], secret + b"x")), now=case["at"])
    assert accepts(case["method"], case["target"], headers, {case["key_id"]: [secret]}, case["at"], allowed=sorted(ALL))


def test_the_documented_example_is_signed_alike() -> None:
    (case,) = vectors("apisix/documented.json")
    message = Message("GET", "/get", [("Date", case["headers"][0][1])])
    ((name, value),) = apisix.sign(message, key_id="john-key", secret=b"john-secret-key")
    assert name == "Authorization"
    assert value == (
        'Signature keyId="john-key",algorithm="hmac-sha256",headers="@request-target date",'
        f'signature="{case["signature"]}"'
    )


# --- parsing Authorization ---


def claim_of(text: str) -> Claim | Failure | None:
    return apisix.parse(Message("GET", "/", [("Authorization", text)]))


def test_no_authorization_is_no_claim() -> None:
    assert apisix.parse(Message("GET", "/", [])) is None
    assert check_head(Message("GET", "/", []), SCHEME, policy(), knows(), NOW) is None


@pytest.mark.parametrize("text", ["", "Basic YTpi", 'signature keyId="k"', "SIGNATURE", 'hmac username="k"', " "])
def test_another_scheme(text: str) -> None:
    found = claim_of(text)
    assert isinstance(found, Failure)
    assert found.reason is Reason.WRONG_SCHEME


@pytest.mark.parametrize("text", ['SignaturekeyId="k"', 'Signature,keyId="k"', "Signature\xa0", "Signatures"])
def test_the_word_must_end(text: str) -> None:
    found = claim_of(text)
    assert isinstance(found, Failure)
    assert found.reason is Reason.MALFORMED_AUTHORIZATION


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("Signature", Claim("", "", (), "")),
        (
            'Signature keyId="k",algorithm="a",headers="x y",signature="s"',
            Claim("k", "a", ("x", "y"), "s"),
        ),
        (
            'Signature \t signature="s" , headers="x" ,\talgorithm="a" ,  keyId="k"  ',
            Claim("k", "a", ("x",), "s"),
        ),
        ('Signature keyId="k1",keyId="k2"', Claim("k2", "", (), "")),  # the last of equal names
        ('Signature keyId="k1" keyId="k2"', Claim("k1", "", (), "")),  # the first of a piece
        ('Signature keyId="a,b"', Claim("", "", (), "")),  # commas cut inside quotes too
        ('Signature headers="date, host",keyId="k"', Claim("k", "", (), "")),
        ('Signature keyid="k",KeyId="k",KEYID="k",username="k"', Claim("", "", (), "")),
        ('Signature keyId = "k"', Claim("", "", (), "")),
        ("Signature keyId='k'", Claim("", "", (), "")),
        ("Signature keyId=k", Claim("", "", (), "")),
        ('Signature keyId="k', Claim("", "", (), "")),
        ('Signature keyId=""', Claim("", "", (), "")),
        ('Signature -keyId="k"', Claim("k", "", (), "")),
        ('Signature x keyId="k" y', Claim("k", "", (), "")),
        ('Signature _="v" keyId="k"', Claim("k", "", (), "")),
        ('Signature a="keyId="k"', Claim("", "", (), "")),
        ('Signature created=1,keyId="k",opaque="x"', Claim("k", "", (), "")),
        ('Signature keyId="a b/c=d\xe9"', Claim("a b/c=d\xe9", "", (), "")),
    ],
)
def test_parse(text: str, claim: Claim) -> None:
    assert claim_of(text) == claim


@pytest.mark.parametrize(
    ("listed", "items"),
    [("a b", {"a", "b"}), ("  a   b  ", {"a", "b"}), ("", set()), ("a\tb", {"a\tb"}), ("a\xa0b", {"a\xa0b"})],
)
def test_the_list_is_cut_at_blanks_only(listed: str, items: set[str]) -> None:
    found = claim_of(f'Signature headers="{listed}"')
    assert isinstance(found, Claim)
    assert {item for item in found.headers if item} == items


def test_empty_items_of_the_list_are_harmless() -> None:
    message = Message(
        "GET",
        "/",
        [("Date", DATE), authorization(f"key-1\ndate: {DATE}\nGET /\n", ["", "date", "", "", "@request-target", ""])],
    )
    assert verified(message).covered == {"date", "@request-target"}


@pytest.mark.parametrize("joint", [",", ", ", " ,\t"])
def test_two_headers_that_a_server_has_joined(joint: str) -> None:
    one = authorization(f"key-1\ndate: {DATE}\n")[1]
    found = claim_of(f"{one}{joint}{one}")
    assert isinstance(found, Failure)
    assert (found.reason, found.facts) == (Reason.DUPLICATE_HEADER, {"header": "authorization"})
    assert isinstance(claim_of('Signature keyId="Signature x",algorithm="a"'), Claim)


def test_not_more_components_than_apisix_sees_headers() -> None:
    assert isinstance(claim_of(f'Signature headers="{" ".join(["x"] * 100)}"'), Claim)
    found = claim_of(f'Signature headers="{" ".join(["x"] * 101)}"')
    assert isinstance(found, Failure)
    assert found.reason is Reason.MALFORMED_AUTHORIZATION


@pytest.mark.parametrize("filler", ["a", 'a="', "=", '="', ",", '"', " ", 'a="b"', "Signature ", "\xe9="])
def test_reading_takes_time_in_proportion(filler: str) -> None:
    # A quadratic reader would need minutes for these.
    claim_of("Signature " + filler * 200_000)


# --- what must be there ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Signature", Reason.INCOMPLETE),
        ('Signature algorithm="hmac-sha256",signature="AA=="', Reason.INCOMPLETE),
        ('Signature keyId="key-1",algorithm="hmac-sha256"', Reason.INCOMPLETE),
        ('Signature keyId="key-1",signature="AA=="', Reason.ALGORITHM_MISSING),
        ('Signature keyId="nobody",signature="AA=="', Reason.ALGORITHM_MISSING),
        ('Signature keyId="nobody",algorithm="none",signature="AA=="', Reason.UNKNOWN_KEY),
        ('Signature keyId="KEY-1",algorithm="hmac-sha256",signature="AA=="', Reason.UNKNOWN_KEY),
        ('Signature keyId="key-1",algorithm="hmac-md5",signature="AA=="', Reason.ALGORITHM_NOT_ALLOWED),
        ('Signature keyId="key-1",algorithm="HMAC-SHA256",signature="AA=="', Reason.ALGORITHM_NOT_ALLOWED),
        ('Signature keyId="key-1",algorithm="hmac-sha256",signature="AA=="', Reason.DATE_NOT_SIGNED),
        ('Signature keyId="key-1",algorithm="hmac-sha256",headers="date",signature="AA=="', Reason.SIGNATURE_MISMATCH),
        ('Signature keyId="key-1",algorithm="hmac-sha256",headers="date",signature="A"', Reason.SIGNATURE_MALFORMED),
        ('Signature keyId="key-1",algorithm="hmac-sha256",headers="date",signature="A_=="', Reason.SIGNATURE_MALFORMED),
    ],
)
def test_order_of_the_checks(text: str, reason: Reason) -> None:
    assert verdict(sent(text)) is reason


def test_the_algorithm_is_the_policys_to_choose() -> None:
    message = signed(algorithm="hmac-sha1")
    assert verdict(message, algorithms=frozenset({"hmac-sha256"})) is Reason.ALGORITHM_NOT_ALLOWED
    assert verdict(message, algorithms=frozenset({"hmac-sha1"})) is None


@pytest.mark.parametrize("algorithm", sorted(ALL))
def test_a_mac_of_another_algorithm_does_not_match(algorithm: str) -> None:
    other = "hmac-sha1" if algorithm != "hmac-sha1" else "hmac-sha256"
    header = authorization(f"key-1\ndate: {DATE}\n", algorithm=other)
    header = (header[0], header[1].replace(f'"{other}"', f'"{algorithm}"'))
    assert verdict(Message("GET", "/", [("Date", DATE), header])) is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "change", [str.lower, lambda text: text + ",", lambda text: "x" + text, lambda text: text + text]
)
def test_nothing_may_follow_a_signature(change: Callable[[str], str]) -> None:
    signature = authorization(f"key-1\ndate: {DATE}\n")[1].rpartition('signature="')[2][:-1]
    text = f'Signature keyId="key-1",algorithm="hmac-sha256",headers="date",signature="{change(signature)}"'
    assert verdict(sent(text)) in (Reason.SIGNATURE_MALFORMED, Reason.SIGNATURE_MISMATCH, Reason.INCOMPLETE)
    unpadded = f'Signature keyId="key-1",algorithm="hmac-sha256",headers="date",signature="{signature.rstrip("=")}"'
    assert verdict(sent(unpadded)) is None


# --- dates ---


@pytest.mark.parametrize("off", [0, 1, 299, 300, -299, -300])
def test_within_the_skew_equality_included(off: int) -> None:
    assert verdict(signed(), now=NOW + off) is None
    assert verdict(signed(), now=NOW + off + (0.999 if off >= 0 else 0.0)) is None


@pytest.mark.parametrize("off", [301, -301, 86400, -86400, 10**9])
def test_outside_the_skew(off: int) -> None:
    assert verdict(signed(), now=NOW + off) is Reason.CLOCK_SKEW


def test_the_skew_is_the_policys() -> None:
    assert verdict(signed(), now=NOW + 10, clock_skew=9) is Reason.CLOCK_SKEW
    assert verdict(signed(), now=NOW + 10, clock_skew=10) is None


@pytest.mark.parametrize(
    "date", ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 +0000"]
)
def test_other_forms_of_a_date(date: str) -> None:
    assert verdict(signed(date=date)) is None


@pytest.mark.parametrize("date", ["Sun, 06 Nov 1994 08:49:37 +0100", "784111777", "1994-11-06T08:49:37Z", "now"])
def test_no_date(date: str) -> None:
    assert verdict(signed(date=date)) is Reason.DATE_INVALID


def test_a_date_must_be_there_and_signed() -> None:
    assert verdict(signed(date="")) is Reason.DATE_MISSING
    assert verdict(signed(listed=["@request-target"])) is Reason.DATE_NOT_SIGNED
    assert verdict(signed(listed=["@request-target"]), required=()) is Reason.DATE_NOT_SIGNED
    assert verdict(signed(listed=[]), required=()) is Reason.DATE_NOT_SIGNED


def test_the_switch_restores_the_original() -> None:
    loose = {"require_signed_date": False, "required": ()}
    assert verdict(signed(listed=["@request-target"]), **loose) is None
    assert verdict(signed(listed=[]), **loose) is None  # the string is the key id alone
    assert verdict(signed(listed=["@request-target"], date=""), **loose) is Reason.DATE_MISSING
    assert verdict(signed(listed=["@request-target"]), now=NOW + 301, **loose) is Reason.CLOCK_SKEW


def test_x_date_counts_when_signed_only() -> None:
    x_date = ("X-Date", DATE)
    assert verdict(signed("GET", "/", x_date, listed=["x-date"], date="")) is None  # and satisfies `date`
    assert verdict(signed("GET", "/", x_date, listed=["@request-target"], date="")) is Reason.DATE_MISSING
    loose = {"require_signed_date": False, "required": ()}
    assert verdict(signed("GET", "/", x_date, listed=["@request-target"], date=""), **loose) is Reason.DATE_MISSING
    stale = "Sat, 05 Nov 1994 08:49:37 GMT"
    assert verdict(signed("GET", "/", x_date, listed=["date"], date=stale)) is Reason.CLOCK_SKEW
    assert verdict(signed("GET", "/", x_date, listed=["date", "x-date"], date=stale)) is None
    assert verdict(signed("GET", "/", ("X-Date", stale), listed=["x-date"], date=DATE)) is Reason.CLOCK_SKEW


def test_two_dates_that_a_server_has_joined() -> None:
    for name in ("date", "x-date"):
        message = signed("GET", "/", (name, f"{DATE}, {DATE}"), listed=[name], date="")
        result = check_head(message, SCHEME, policy(), knows(), NOW)
        assert isinstance(result, Failure)
        assert (result.reason, result.facts) == (Reason.DUPLICATE_HEADER, {"header": name})


# --- required headers ---


def test_required_names_are_compared_without_case() -> None:
    message = signed("GET", "/", ("X-Tenant", "7"), listed=["DATE", "X-TENANT", "@request-target"])
    assert verified(message, required=("date", "x-tenant", "@request-target")).covered == {
        "date",
        "x-tenant",
        "@request-target",
    }


def test_a_required_header_must_be_signed_and_present() -> None:
    required = {"required": ("date", "x-tenant")}
    unsigned = signed("GET", "/", ("X-Tenant", "7"), listed=["date"])
    assert verdict(unsigned, **required) is Reason.HEADER_NOT_SIGNED
    assert verdict(signed(listed=["date", "x-tenant"]), **required) is Reason.HEADER_ABSENT
    assert verdict(signed(listed=["date"]), **required) is Reason.HEADER_ABSENT
    assert verdict(signed(listed=["date"]), required=("@request-target",)) is Reason.HEADER_NOT_SIGNED


def test_an_empty_list_requires_nothing_but_the_date() -> None:
    assert verdict(signed(listed=["date"]), required=()) is None


def test_a_repeated_header_is_signed_once_and_covered_never() -> None:
    extra = [("X-A", "first"), ("X-A", "second")]
    header = authorization(f"key-1\ndate: {DATE}\nx-a: first\n", ["date", "x-a"])
    message = Message("GET", "/", [("Date", DATE), *extra, header])
    assert verified(message).covered == {"date"}
    assert verdict(message, required=("date", "x-a")) is Reason.HEADER_NOT_SIGNED


def test_cavage_and_kong_components_are_absent_headers() -> None:
    header = authorization(f"key-1\ndate: {DATE}\n", ["(request-target)", "(created)", "request-line", "date"])
    assert verified(Message("GET", "/", [("Date", DATE), header])).covered == {"date"}
    header = authorization(f"key-1\nGET /\ndate: {DATE}\n", ["@Request-Target", "date"])
    assert verdict(Message("GET", "/", [("Date", DATE), header])) is Reason.SIGNATURE_MISMATCH


# --- request target ---


def over(target: str, sent_target: str) -> Reason | None:
    """Sign one target, send another."""
    header = authorization(f"key-1\nGET {target}\ndate: {DATE}\n", ["@request-target", "date"])
    return verdict(Message("GET", sent_target, [("Date", DATE), header]))


@pytest.mark.parametrize(
    ("target", "sent_target"),
    [
        ("/a?x=1", "/a?x=1"),
        ("/he%6Clo", "/he%6Clo"),
        ("/hello", "/he%6Clo"),
        ("/a b", "/a%20b"),
        ("/a?%6C", "/a?%6C"),
        ("/a?x=1", "//a?x=1"),
        ("/a", "/a?"),
        ("/a?", "/a?"),
        ("/a?", "/a"),
        ("/a?", "/%61"),
        ("/100%", "/100%25"),
    ],
)
def test_targets_that_are_the_same(target: str, sent_target: str) -> None:
    assert over(target, sent_target) is None


@pytest.mark.parametrize(
    ("target", "sent_target"),
    [
        ("/a/b", "/a%2Fb"),
        ("/a?b", "/a%3Fb"),
        ("/a", "/a%23b"),
        ("/a#b", "/a%23b"),
        ("/a\nb", "/a%0Ab"),
        ("/a\rb", "/a%0Db"),
        ("/a\0b", "/a%00b"),
        ("/b", "/a/../b"),
        ("/b", "/a/%2e%2e/b"),
        ("/a%2Fb", "/a%252Fb"),
        ("/a%20b", "/a%2520b"),
        ("/a?l", "/a?%6C"),
        ("/a?x=1&y=2", "/a?y=2&x=1"),
        ("/a?x", "/a"),
        ("/a", "/a?x"),
        ("/a", "/a/"),
        ("/A", "/a"),
        ("/a", "/a#b"),
        ("/a?c", "/a#b?c"),
        ("/a", "x?u=http://h/a"),
        ("http://h/a", "/a"),
        ("http://h/a", "http://h/a"),
    ],
)
def test_targets_that_are_not(target: str, sent_target: str) -> None:
    assert over(target, sent_target) is Reason.SIGNATURE_MISMATCH


def test_the_method_is_signed_as_received() -> None:
    header = authorization(f"key-1\nGET /\ndate: {DATE}\n", ["@request-target", "date"])
    for method in ("POST", "get", "HEAD"):
        assert verdict(Message(method, "/", [("Date", DATE), header])) is Reason.SIGNATURE_MISMATCH


def test_raw_is_tried_first() -> None:
    message = signed("GET", "/he%6Clo?")
    claim = Claim("k", "a", ("@request-target",), "s")
    forms = [name for name, _ in signing_strings(apisix, message, claim, apisix.cover(message, claim))]
    assert forms == ["raw", "without ?", "decoded, without ?", "decoded, with a bare ?"]


def test_one_string_where_the_target_is_not_signed() -> None:
    message = signed("GET", "/he%6Clo?")
    claim = Claim("k", "a", ("date",), "s")
    assert len(list(signing_strings(apisix, message, claim, apisix.cover(message, claim)))) == 1


# --- keys: who may, and no telling who exists ---


def macs_computed(message: Message, lookup: Lookup) -> int:
    with mock.patch.object(verify, "mac", wraps=verify.mac) as counted:
        check_head(message, SCHEME, policy(), lookup, NOW)
    return counted.call_count


@pytest.mark.parametrize("target", ["/", "/?", "/he%6Clo?", "/he%6Clo?x"])
def test_unknown_unusable_and_wrong_take_the_same_work(target: str) -> None:
    message = signed("GET", target, secret=b"wrong")
    counts = {
        macs_computed(message, knows(found))
        for found in (
            credential("another"),
            credential(),
            credential(enabled=False),
            credential(expires_at=NOW - 1),
            credential(not_before=NOW + 1),
            credential(consumer=Consumer("1", "a", enabled=False)),
        )
    }
    assert len(counts) == 1
    assert counts != {0}


def test_reasons_of_unusable_keys() -> None:
    for change, reason in (
        ({"enabled": False}, Reason.CREDENTIAL_DISABLED),
        ({"expires_at": NOW}, Reason.CREDENTIAL_EXPIRED),
        ({"not_before": NOW + 1}, Reason.CREDENTIAL_NOT_YET_VALID),
        ({"consumer": Consumer("1", "a", expires_at=NOW)}, Reason.CREDENTIAL_EXPIRED),
    ):
        lookup = knows(credential(**change))  # type: ignore[arg-type]
        # A right signature does not help, and a wrong one does not hide the reason.
        assert verdict(signed(), lookup=lookup) is reason
        assert verdict(signed(secret=b"wrong"), lookup=lookup) is reason
        assert verdict(signed(), lookup=lookup, now=NOW + 10_000) in (
            reason,
            Reason.CREDENTIAL_EXPIRED,
            Reason.CLOCK_SKEW,
        )


def test_the_dummy_secret_opens_nothing() -> None:
    assert verdict(signed(secret=DUMMY_SECRET), lookup=knows(credential("another"))) is Reason.UNKNOWN_KEY
    assert verdict(signed(secret=DUMMY_SECRET), lookup=knows(credential(enabled=False))) is Reason.CREDENTIAL_DISABLED
    assert verdict(signed(secret=DUMMY_SECRET)) is Reason.SIGNATURE_MISMATCH


def test_the_previous_secret_still_opens() -> None:
    lookup = knows(credential("key-1", b"new", b"old"))
    assert verdict(signed(secret=b"new"), lookup=lookup) is None
    assert verdict(signed(secret=b"old"), lookup=lookup) is None
    assert verdict(signed(secret=b"older"), lookup=lookup) is Reason.SIGNATURE_MISMATCH


def test_secrets_are_asked_for_at_the_time_of_the_request() -> None:
    asked: list[float] = []

    def open_secrets(now: float) -> tuple[()]:
        asked.append(now)
        return ()

    lookup = knows(Credential("1", ALICE, "hmac-auth", "key-1", open_secrets))
    assert verdict(signed(), lookup=lookup, now=NOW + 7) is Reason.SECRET_UNAVAILABLE
    assert asked == [NOW + 7]


# --- bodies ---

HELLO = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # openssl dgst -sha256 of "hello"


def with_digest(digest: str | None, *headers: tuple[str, str], listed: tuple[str, ...] = ("date", "digest")) -> Message:
    more = [("Digest", digest)] if digest is not None else []
    return signed("POST", "/", *more, *headers, listed=listed)


def test_the_promise_is_read_from_the_digest_header() -> None:
    rule = verified(with_digest(f"SHA-256={HELLO}"), validate_body=True, max_body=9).body
    assert rule is not None
    assert (rule.algorithm, rule.promised, rule.limit) == ("SHA-256", HELLO, 9)
    rule = verified(with_digest("SHA-512=abc"), validate_body=True).body
    assert rule is not None
    assert (rule.algorithm, rule.promised, rule.limit) == ("SHA-512", "abc", 64 * 1024 * 1024)
    assert verified(with_digest(f"SHA-256={HELLO}")).body is None  # not asked for


@pytest.mark.parametrize(
    ("digest", "reason"),
    [
        (None, Reason.DIGEST_MISSING),
        ("", Reason.DIGEST_MALFORMED),
        (HELLO, Reason.DIGEST_MALFORMED),
        (f"sha-256={HELLO}", Reason.DIGEST_MALFORMED),
        (f"SHA256={HELLO}", Reason.DIGEST_MALFORMED),
        (f"MD5={HELLO}", Reason.DIGEST_MALFORMED),
        (f"SHA-1={HELLO}", Reason.DIGEST_MALFORMED),
        (f"SHA-256 ={HELLO}", Reason.DIGEST_MALFORMED),
    ],
)
def test_what_is_no_promise(digest: str | None, reason: Reason) -> None:
    assert verdict(with_digest(digest), validate_body=True) is reason


def test_a_promise_must_be_signed() -> None:
    message = with_digest(f"SHA-256={HELLO}", listed=("date",))
    assert verdict(message, validate_body=True) is Reason.DIGEST_NOT_SIGNED
    assert verdict(message, validate_body=True, require_signed_digest=False) is None


def test_a_body_too_large_is_known_from_its_length() -> None:
    message = with_digest(f"SHA-256={HELLO}", ("Content-Length", "11"))
    result = check_head(message, SCHEME, policy(validate_body=True, max_body=10), knows(), NOW)
    assert isinstance(result, Failure)
    assert (result.reason, result.facts) == (Reason.BODY_TOO_LARGE, {"size": 11, "limit": 10})
    assert verdict(message, validate_body=True, max_body=11) is None
    assert verdict(message, max_body=10) is None  # limits apply only where a body is checked
    wrong = with_digest(None, ("Content-Length", "11"))
    assert verdict(wrong, validate_body=True, max_body=10) is Reason.BODY_TOO_LARGE  # before the digest


def test_a_wrong_signature_is_said_before_a_wrong_body() -> None:
    message = Message("POST", "/", [("Date", DATE), ("Content-Length", "11"), authorization("no\n")])
    assert verdict(message, validate_body=True, max_body=10) is Reason.SIGNATURE_MISMATCH


# --- replay marks ---

POSTS = frozenset({"POST"})


def test_marks_only_for_the_methods_asked_for() -> None:
    assert verified(signed("POST")).replay is None
    assert verified(signed("GET"), replay_methods=POSTS).replay is None
    mark = verified(signed("POST"), replay_methods=POSTS, clock_skew=30).replay
    assert mark is not None
    assert mark.ttl == 2 * 30 + 2


def test_a_mark_names_credential_and_mac() -> None:
    def mark(message: Message, found: Credential | None = None) -> str:
        replay = verified(message, lookup=knows(found or credential()), replay_methods=POSTS).replay
        assert replay is not None
        return replay.key

    one = mark(signed("POST"))
    assert mark(signed("POST")) == one
    assert mark(signed("POST", "/other")) != one
    assert mark(signed("POST", "/", ("X-Nonce", "1"), listed=["date", "x-nonce"])) != mark(
        signed("POST", "/", ("X-Nonce", "2"), listed=["date", "x-nonce"])
    )
    same = Credential("another", ALICE, "hmac-auth", "key-1", credential().open_secrets)
    assert mark(signed("POST"), same) != one
    # The text of a signature may vary, its bytes not.
    name, value = authorization(f"key-1\nPOST /\ndate: {DATE}\n", ["@request-target", "date"])
    assert value.endswith('="')
    unpadded = value.removesuffix('="') + '"'
    assert mark(Message("POST", "/", [("Date", DATE), (name, unpadded)])) == one


def test_a_mark_does_not_show_the_mac() -> None:
    message = signed("POST")
    replay = verified(message, replay_methods=POSTS).replay
    assert replay is not None
    signature = base64.b64decode((message.get("authorization") or "").rpartition('signature="')[2][:-1])
    assert signature.hex() not in replay.key


# --- the recorder ---


def test_a_recorder_changes_nothing_and_tells_each_step() -> None:
    lookup = knows()
    for message in (signed(), signed(secret=b"wrong"), signed(date=""), sent("Basic YTpi"), sent("Signature")):
        trace = Trace()
        told = check_head(message, SCHEME, policy(), lookup, NOW, trace)
        silent = check_head(message, SCHEME, policy(), lookup, NOW)
        assert told == silent
        assert trace.steps
        assert all(step.ok for step in trace.steps) is isinstance(told, Verified)
    trace = Trace()
    check_head(signed(), SCHEME, policy(), knows(), NOW, trace)
    assert [step.name for step in trace.steps] == ["key", "algorithm", "date", "signed headers", "signature"]
    assert trace.strings == [("raw", f"key-1\nGET /\ndate: {DATE}\n".encode())]


def test_the_recorder_says_which_way_a_clock_is_off() -> None:
    for now, note in ((NOW + 301, "date is 301 s behind the"), (NOW - 301, "date is 301 s ahead of the"), (NOW, "")):
        trace = Trace()
        check_head(signed(), SCHEME, policy(), knows(), now, trace)
        (step,) = [step for step in trace.steps if step.name == "date"]
        assert step.note == (f"{note} server's clock" if note else "")


@pytest.mark.parametrize(
    "text", ["Basic YWxpY2U6dG9wc2VjcmV0", "Bearer topsecret.token", "topsecret", "top=secret topsecret"]
)
def test_the_recorder_does_not_keep_other_schemes_secrets(text: str) -> None:
    trace = Trace()
    check_head(sent(text), SCHEME, policy(), knows(), NOW, trace)
    assert not any(word in repr(trace) for word in ("topsecret", "YWxpY2U6dG9wc2VjcmV0"))


# --- against the naive verifier ---

token = st.text(st.sampled_from("abcXYZ019-_"), min_size=1, max_size=8)
value = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=12)
query = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="#\x7f"), max_size=12)
segment = st.text(st.sampled_from("ab.~!$&'()*+,;=:@-_"), max_size=5)
escaped = st.lists(
    st.one_of(segment, st.integers(0, 255).map("%{:02x}".format), st.just("%"), st.just("%25"), st.just("/"))
).map("".join)
target = st.one_of(
    st.builds(lambda path: "/" + path, escaped),
    st.builds(lambda path, rest: f"/{path}?{rest}", escaped, query),
)
names = st.sampled_from(
    ["date", "Date", "x-date", "@request-target", "host", "x-a", "X-A", "x_b", "x-none", "digest", "", "(created)"]
)
key_text = st.text(st.characters(max_codepoint=255, exclude_characters='",\r\n\0'), min_size=1, max_size=8).filter(
    lambda text: text.strip(" \t") == text
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, str]], list[str], str, bytes, str]:
    headers = [("Date", DATE)]
    for name in draw(
        st.lists(st.sampled_from(["X-A", "x-b", "X-B", "x_b", "Host", "X-Date"]), unique_by=str.lower, max_size=4)
    ):
        headers.append((name, DATE if name == "X-Date" else draw(value)))
    listed = ["date", *draw(st.lists(names, max_size=5))]
    random.Random(draw(st.integers(0, 9))).shuffle(listed)
    return (
        draw(st.sampled_from(["GET", "POST", "PURGE", "get", "M-SEARCH"])),
        draw(target),
        headers,
        listed,
        draw(key_text),
        draw(st.binary(min_size=1, max_size=80)),
        draw(st.sampled_from(sorted(ALL))),
    )


def both(
    method: str,
    target: str,
    headers: list[tuple[str, str]],
    keys: dict[str, list[bytes]],
    body: bytes | None = None,
    **rules: Any,
) -> tuple[bool, bool]:
    """(ours, the naive one's) verdict on a request."""
    message = Message(method, target, headers)
    lookup = knows(*(credential(key_id, *secrets) for key_id, secrets in keys.items()))
    result = check_head(message, SCHEME, policy(validate_body=body is not None, **rules), lookup, NOW)
    ours = isinstance(result, Verified)
    if isinstance(result, Verified) and result.body is not None and body is not None:
        digest = result.body.start()
        digest.feed(body)
        ours = result.body.verdict(digest) is None
    ours = ours and not message.duplicated & SINGLETONS  # the gate's part
    return ours, accepts(method, target, headers, keys, NOW, allowed=sorted(ALL), body=body, **rules)


@settings(max_examples=examples(150), deadline=None)
@given(requests())
def test_what_is_signed_is_accepted_by_both(
    request_: tuple[str, str, list[tuple[str, str]], list[str], str, bytes, str],
) -> None:
    method, target, headers, listed, key_id, secret, algorithm = request_
    bare = Message(method, target, headers)
    made = apisix.sign(bare, key_id=key_id, secret=secret, algorithm=algorithm, headers=listed)
    assert both(method, target, [*headers, *made], {key_id: [secret], "other": [b"x"]}) == (True, True)
    assert both(method, target, [*headers, *made], {key_id: [b"new", secret]}) == (True, True)
    assert both(method, target, [*headers, *made], {key_id: [secret + b"x"]}) == (False, False)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, str]]]:
    """A rightly signed request of key-1, then bent in one to three places."""
    more = [("X-A", "1"), ("X-A-B", "2")]
    body = b"hello"
    if draw(st.booleans()):
        more.append(("Digest", "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode()))
    listed = draw(
        st.lists(st.sampled_from(["@request-target", "x-a", "x_a_b", "digest", "date"]), unique=True).map(
            lambda items: items if "date" in items else ["date", *items]
        )
    )
    start = signed(
        draw(st.sampled_from(["GET", "POST"])),
        draw(st.sampled_from(["/", "/a/b?c=d", "/he%6Clo?", "/a%2Fb", "/a%252Fb", "//a%20b"])),
        *more,
        listed=listed,
    )
    method, target, headers = start.method, start.target, list(start.headers)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(headers) - 1))
        name, text = headers[place]
        match draw(
            st.sampled_from(["cut", "insert", "replace", "drop", "twice", "swap", "case", "target", "method", "name"])
        ):
            case "cut" if text:
                at = draw(st.integers(0, len(text) - 1))
                headers[place] = (name, text[:at] + text[at + 1 :])
            case "insert":
                at = draw(st.integers(0, len(text)))
                headers[place] = (
                    name,
                    text[:at]
                    + draw(st.sampled_from([" ", ",", '"', "=", "A", "\t", "\xe9", "Signature "]))
                    + text[at:],
                )
            case "replace" if text:
                at = draw(st.integers(0, len(text) - 1))
                headers[place] = (name, text[:at] + draw(st.sampled_from('Aa0=," -_+/')) + text[at + 1 :])
            case "drop" if len(headers) > 1:
                del headers[place]
            case "twice":
                headers.insert(draw(st.integers(0, len(headers))), headers[place])
            case "swap":
                other = draw(st.integers(0, len(headers) - 1))
                headers[place], headers[other] = headers[other], headers[place]
            case "case":
                headers[place] = (name.upper(), draw(st.sampled_from([text, text.upper(), text.lower()])))
            case "target":
                target = draw(
                    st.sampled_from(
                        [
                            "/",
                            "/?",
                            "/a/b",
                            "/a%2Fb",
                            "/a%252Fb",
                            "/hello",
                            "/he%6Clo",
                            "/a b",
                            "//a b",
                            "/#",
                            "/a/b?c=d#e",
                            "http://h/a/b?c=d",
                            "/a%62",
                            "/%2561",
                        ]
                    )
                )
            case "method":
                method = draw(st.sampled_from(["GET", "POST", "get"]))
            case "name":
                headers[place] = (
                    draw(st.sampled_from(["date", "x-date", "X-A", "digest", "authorization", "x_a"])),
                    text,
                )
    return method, target, headers


@settings(max_examples=examples(300), deadline=None)
@given(
    mutated(),
    st.sampled_from([None, b"hello", b""]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([("date",), (), ("date", "x-a"), ("@request-target",)]),
)
@example(("GET", "/a%252Fb", signed("GET", "/a%2Fb").headers), None, True, True, ())
def test_whatever_we_accept_the_naive_one_accepts(
    request_: tuple[str, str, list[tuple[str, str]]],
    body: bytes | None,
    dated: bool,
    digested: bool,
    required: tuple[str, ...],
) -> None:
    ours, naive = both(
        *request_,
        {"key-1": [b"s3cret"], "key-2": [b"other"]},
        body,
        required=required,
        require_signed_date=dated,
        require_signed_digest=digested,
    )
    assert ours <= naive


@settings(max_examples=examples(200), deadline=None)
@given(
    st.one_of(
        st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)).map("Signature ".__add__)
    ),
    st.binary(),
    st.binary(),
)
def test_arbitrary_bytes_are_refused_and_never_raise(text: str, target: bytes, date: bytes) -> None:
    message = Message("GET", target, [("authorization", text), (b"date", date), ("date-x", DATE)])
    result = check_head(message, SCHEME, policy(validate_body=True), knows(), NOW)
    assert isinstance(result, Failure)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["keyId", "algorithm", "headers", "signature", "x"]).flatmap(
            lambda name: st.text(st.characters(max_codepoint=255, exclude_characters='"'), max_size=10).map(
                lambda text: f'{name}="{text}"'
            )
        ),
        max_size=6,
    ),
    st.sampled_from([",", ", ", " , ", " "]),
)
def test_fields_in_any_order_never_raise(fields: list[str], joint: str) -> None:
    result = check_head(sent("Signature " + joint.join(fields)), SCHEME, policy(), knows(), NOW)
    assert isinstance(result, Failure)


quoted = st.text(st.characters(max_codepoint=255, exclude_characters='",'), max_size=10)


@settings(deadline=None)
@given(quoted, quoted, quoted, quoted, st.sampled_from([",", ", ", ",\t"]))
def test_the_usual_form_is_read_as_any_other(
    key_id: str, algorithm: str, listed: str, signature: str, joint: str
) -> None:
    fields = [f'keyId="{key_id}"', f'algorithm="{algorithm}"', f'headers="{listed}"', f'signature="{signature}"']
    usual = claim_of("Signature " + joint.join(fields))
    assert usual == claim_of("Signature " + joint.join(reversed(fields)))
    assert usual == claim_of("Signature x=1," + joint.join(fields) + ",")
