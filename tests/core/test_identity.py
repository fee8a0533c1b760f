"""core.identity and core.credential: verdicts, body rules, and what may be used when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.credential import Consumer, Credential, Secret
from hmac_gateway.core.identity import NOBODY, BodyRule, Identity, Replay
from hmac_gateway.core.reasons import NEVER_ANONYMOUS, Reason

# `printf '' | openssl dgst -sha256 -binary | base64`, and the same of "hello" and with -sha512.
EMPTY_256 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
HELLO_256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
HELLO_512 = "m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw=="


def judged(rule: BodyRule, *chunks: bytes) -> Reason | None:
    digest = rule.start()
    for chunk in chunks:
        digest.feed(chunk)
    return rule.verdict(digest)


@pytest.mark.parametrize(
    ("algorithm", "promised", "chunks"),
    [
        ("SHA-256", EMPTY_256, []),
        ("SHA-256", HELLO_256, [b"hello"]),
        ("SHA-256", HELLO_256, [b"he", b"", b"llo"]),
        ("SHA-512", HELLO_512, [b"hel", b"lo"]),
        ("SHA-256", None, []),
        ("SHA-256", None, [b""]),
    ],
)
def test_a_right_body(algorithm: str, promised: str | None, chunks: list[bytes]) -> None:
    assert judged(BodyRule(algorithm, promised, 5), *chunks) is None


@pytest.mark.parametrize(
    ("rule", "body", "reason"),
    [
        (BodyRule("SHA-256", HELLO_256, 100), b"hello\n", Reason.DIGEST_MISMATCH),
        (BodyRule("SHA-256", HELLO_256, 100), b"", Reason.DIGEST_MISMATCH),
        (BodyRule("SHA-512", HELLO_256, 100), b"hello", Reason.DIGEST_MISMATCH),
        (BodyRule("SHA-256", HELLO_256.rstrip("="), 100), b"hello", Reason.DIGEST_MISMATCH),  # exact text
        (BodyRule("SHA-256", "", 100), b"", Reason.DIGEST_MISMATCH),
        (BodyRule("SHA-256", None, 100), b"x", Reason.DIGEST_MISSING),
        (BodyRule("SHA-256", HELLO_256, 4), b"hello", Reason.BODY_TOO_LARGE),
    ],
)
def test_a_wrong_body(rule: BodyRule, body: bytes, reason: Reason) -> None:
    assert judged(rule, body) is reason


@given(st.lists(st.binary(max_size=20)))
def test_chunking_does_not_matter(chunks: list[bytes]) -> None:
    rule = BodyRule("SHA-256", None, 10**9)
    one, many = rule.start(), rule.start()
    one.feed(b"".join(chunks))
    for chunk in chunks:
        many.feed(chunk)
    assert one.base64() == many.base64()
    assert one.size == many.size == sum(map(len, chunks))


def usable(now: float, **more: object) -> Reason | None:
    consumer = {name.removeprefix("consumer_"): value for name, value in more.items() if name.startswith("consumer_")}
    own = {name: value for name, value in more.items() if not name.startswith("consumer_")}
    found = Credential("1", Consumer("1", "a", **consumer), "hmac-auth", "k", lambda now: (), **own)  # type: ignore[arg-type]
    return found.unusable(now)


def test_when_a_credential_may_be_used() -> None:
    assert usable(5) is None
    assert usable(5, not_before=5.0, expires_at=5.1, consumer_expires_at=5.1) is None
    assert usable(5, enabled=False) is Reason.CREDENTIAL_DISABLED
    assert usable(5, consumer_enabled=False) is Reason.CREDENTIAL_DISABLED
    assert usable(4.9, not_before=5.0) is Reason.CREDENTIAL_NOT_YET_VALID
    assert usable(5, expires_at=5.0) is Reason.CREDENTIAL_EXPIRED
    assert usable(5, consumer_expires_at=5.0) is Reason.CREDENTIAL_EXPIRED


def test_secrets_do_not_show() -> None:
    secret = Secret(b"topsecret")
    credential = Credential(
        "1", Consumer("1", "a"), "hmac-auth", "k", lambda now: (secret,), settings={"p": "topsecret"}
    )
    for shown in (repr(secret), str(secret), f"{secret}", repr(credential), repr(Identity(credential=credential))):
        assert "topsecret" not in shown
    assert secret.reveal() == b"topsecret"


def test_verdicts_are_frozen() -> None:
    for value, field in ((NOBODY, "anonymous"), (Replay("k", 1), "ttl"), (Consumer("1", "a"), "username")):
        with pytest.raises(AttributeError):
            setattr(value, field, "x")


def test_nobody_is_nobody() -> None:
    assert (NOBODY.consumer, NOBODY.credential, NOBODY.anonymous, NOBODY.covered) == (None, None, False, frozenset())


def test_what_no_anonymous_consumer_covers() -> None:
    assert {Reason.DUPLICATE_HEADER, Reason.BODY_TOO_LARGE, Reason.REPLAYED, Reason.AMBIGUOUS_PATH} <= NEVER_ANONYMOUS
    assert not {Reason.MISSING, Reason.SIGNATURE_MISMATCH, Reason.DIGEST_MISMATCH, Reason.UNKNOWN_KEY} & NEVER_ANONYMOUS
