"""schemes.hmacproxy: hmacproxy's signature format, against published values, openssl and PyPI's hmac-authentication."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hmac_authentication import hmacauth
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.credential import Credential
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import answer
from hmac_gateway.gate import check, pipeline
from hmac_gateway.plugins import hmac_auth, multi_auth
from hmac_gateway.schemes import HmacProxy
from hmac_gateway.schemes.hmacproxy import DIGESTS
from tests.support.fuzz import examples

from ..support.engine import ALICE, BOB, DATE, GUEST, NOW, People, credential, directory, signed, step, vectors

CASES = vectors("hmacproxy/published.json")
#: Another hour than DATE's.
STALE = "Sun, 06 Nov 1994 07:49:37 GMT"


def header(string: str, body: bytes = b"", *, secret: bytes = b"s3cret", digest: str = "sha1") -> tuple[str, str]:
    """The signature header over what the test has written."""
    mac = hmac.new(secret, string.encode("latin-1") + body, digest).digest()
    return ("X-Signature", f"{digest} {base64.b64encode(mac).decode()}")


def get(target: str = "/a", *more: tuple[str, str], **how: Any) -> Message:
    """A GET that is signed with nothing but its target."""
    return Message("GET", target, [*more, header(f"GET\n{target}\n", **how)])


def outcome(
    message: Message, people: People | None = None, body: bytes = b"", also: Any = (), **config: Any
) -> Identity | Rejected:
    """What the gate makes of a request and its body, with hmacproxy in between."""
    given = {"scheme": "hmacproxy", **({} if "key_ids" in config else {"key_id": "key-1"}), **config}
    admission = check(message, pipeline([step(**given), *also]), people or directory(credential()), NOW)
    if isinstance(admission, Rejected):
        return admission
    digests = admission.digests()
    for digest in digests:
        for place in range(0, len(body), 3):
            digest.feed(body[place : place + 3])
    refused = admission.finish(digests)
    return refused or admission.identity


def reason(message: Message, people: People | None = None, body: bytes = b"", **config: Any) -> Reason | None:
    found = outcome(message, people, body, **config)
    return found.reason if isinstance(found, Rejected) else None


# --- vectors ---


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    digest, _, _ = case["signature"].partition(" ")
    scheme = HmacProxy(case["sign_header"], tuple(case["signed"]))
    headers = [tuple(pair) for pair in case["headers"]]
    body, secret = case["body"].encode("latin-1"), case["secret"].encode("latin-1")
    bare = Message(case["method"], case["target"], headers)
    assert scheme.head(bare) == case["string"].encode("latin-1")
    assert scheme.sign(bare, secret=secret, algorithm=digest, body=body) == [(case["sign_header"], case["signature"])]

    message = Message(case["method"], case["target"], [*headers, (case["sign_header"], case["signature"])])
    # The gateway lets nobody list Host, so it is taken out where it stands last, and is an empty line all the same.
    config: dict[str, Any] = {"sign_header": case["sign_header"], "digest": digest}
    config["headers"] = ["" if name == "Host" else name for name in case["signed"]]
    people = directory(credential("key-1", secret))
    assert reason(message, people, body, **config) is None
    assert reason(message, people, body + b" ", **config) is Reason.SIGNATURE_MISMATCH
    assert reason(message, directory(credential("key-1", secret + b"x")), body, **config) is Reason.SIGNATURE_MISMATCH


# --- another implementation ---

_TOKEN = st.text("abcXYZ09-._~!", min_size=1, max_size=8)
_VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PURGE"]),
    st.lists(_TOKEN, max_size=3),
    st.sampled_from(["", "a=b", "x=%20&y"]),
    st.dictionaries(st.sampled_from(["Date", "Content-Type", "X-One", "X-Two"]), _VALUE),
    st.binary(max_size=40),
    st.sampled_from(DIGESTS),
    st.text(min_size=1, max_size=20),
)
def test_hmac_authentication_signs_and_accepts(
    method: str, parts: list[str], query: str, sent: dict[str, str], body: bytes, digest: str, secret: str
) -> None:
    signed_names = ["Date", "Content-Type", "X-One"]
    target = "/" + "/".join(parts) + (f"?{query}" if query else "")
    theirs = hmacauth.HmacAuth(getattr(hashlib, digest), secret, "X-Signature", signed_names)
    environ: dict[str, Any] = {hmacauth.header_name_to_wsgi(name): value for name, value in sent.items()}
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": unquote(target.partition("?")[0]), "QUERY_STRING": query}

    def fresh() -> dict[str, Any]:
        return {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "wsgi.url_scheme": "http"}

    signature = theirs.request_signature(fresh())
    message = Message(method, target, [*sent.items(), ("X-Signature", signature)])
    people = directory(credential("key-1", secret.encode()))
    assert reason(message, people, body, headers=signed_names, digest=digest) is None

    ((name, ours),) = HmacProxy(headers=tuple(signed_names)).sign(
        Message(method, target, list(sent.items())), secret=secret.encode(), algorithm=digest, body=body
    )
    result = theirs.authenticate_request({**fresh(), "HTTP_X_SIGNATURE": ours})
    assert (name, result.result_code) == ("X-Signature", hmacauth.AuthenticationResultCodes.MATCH)


# --- round trips, and every byte counts ---


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=10), st.binary(max_size=200), st.binary(min_size=1, max_size=70))
def test_any_bytes_are_signed_and_told_apart(path: bytes, query: bytes, body: bytes, secret: bytes) -> None:
    target = "/" + quote(path, safe="/") + ("?" + quote(query, safe="") if query else "")
    value = body[:20].decode("latin-1").strip(" \t")
    scheme = HmacProxy("Sig", ("X-Any",))
    bare = Message("POST", target, [("X-Any", value)])
    ((name, signature),) = scheme.sign(bare, secret=secret, algorithm="hmac-sha256", body=body)

    def verdict(message: Message, body: bytes, secret: bytes = secret) -> Reason | None:
        config = {"sign_header": "sig", "headers": ["x-any"], "digest": "sha256"}
        return reason(message, directory(credential("key-1", secret)), body, **config)

    def sent(method: str = "POST", target: str = target, value: str = value) -> Message:
        return Message(method, target, [("X-Any", value), (name, signature)])

    ambiguous = any(sign in path for sign in b"?#\n")
    assert verdict(sent(), body) is (Reason.AMBIGUOUS_PATH if ambiguous else None)
    if not ambiguous:
        for message, changed, key in (
            (sent("PUT"), body, secret),
            (sent(target=target + "x"), body, secret),
            (sent(value=value + "x"), body, secret),
            (sent(), body + b"\n", secret),
            (sent(), body, secret[:-1] + bytes([secret[-1] ^ 1])),
        ):
            assert verdict(message, changed, key) is Reason.SIGNATURE_MISMATCH


# --- the header (what the original calls results) ---


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, Reason.MISSING),
        ("", Reason.MISSING),
        ("sha1", Reason.SIGNATURE_MALFORMED),
        ("sha1  {mac}", Reason.SIGNATURE_MALFORMED),
        ("sha1 {mac} x", Reason.SIGNATURE_MALFORMED),
        ("sha1\t{mac}", Reason.SIGNATURE_MALFORMED),
        ("sha999 {mac}", Reason.ALGORITHM_NOT_ALLOWED),
        ("SHA1 {mac}", Reason.ALGORITHM_NOT_ALLOWED),
        ("md5 {mac}", Reason.ALGORITHM_NOT_ALLOWED),
        ("sha1 {unpadded}", Reason.SIGNATURE_MISMATCH),
        ("sha1 {hex}", Reason.SIGNATURE_MISMATCH),
        ("sha1 \xff", Reason.SIGNATURE_MISMATCH),
        ("sha1 {mac},sha1 {mac}", Reason.DUPLICATE_HEADER),
    ],
)
def test_the_header_is_compared_as_text(value: str | None, why: Reason) -> None:
    raw = hmac.new(b"s3cret", b"GET\n/a\n", "sha1").digest()
    mac = base64.b64encode(raw).decode()
    assert mac.endswith("=")
    text = None if value is None else value.format(mac=mac, unpadded=mac.rstrip("="), hex=raw.hex())
    message = Message("GET", "/a", [] if text is None else [("x-signature", text)])
    assert reason(message) is why


def test_twice_is_refused() -> None:
    one = header("GET\n/a\n")
    found = outcome(Message("GET", "/a", [one, one]))
    assert isinstance(found, Rejected)
    assert answer(found).status == 400 and b"x-signature" in answer(found).body


def test_refusals_read_alike_and_tell_no_mac() -> None:
    unknown = outcome(get(), directory())
    disabled = outcome(get(), directory(credential(enabled=False)))
    wrong = outcome(get(secret=b"wrong"))
    for found in (unknown, disabled, wrong):
        assert isinstance(found, Rejected)
        assert answer(found).status == 401
        assert answer(found).body == b'{"message":"client request can\'t be validated"}\n'
        assert answer(found).headers[1] == ("www-authenticate", 'hmac realm="hmac"')
        assert header("GET\n/a\n")[1][5:] not in repr(vars(found))
    assert [f.reason for f in (unknown, disabled, wrong)] == [  # type: ignore[union-attr]
        Reason.UNKNOWN_KEY,
        Reason.CREDENTIAL_DISABLED,
        Reason.SIGNATURE_MISMATCH,
    ]


def test_the_digest_that_is_configured_or_any() -> None:
    message = get(digest="md5")
    assert reason(message) is Reason.ALGORITHM_NOT_ALLOWED
    assert reason(message, any_digest=True) is None
    assert reason(message, digest="md5") is None
    assert reason(get(digest="sha512"), any_digest=True) is None
    assert reason(get(digest="sha512"), digest="sha256") is Reason.ALGORITHM_NOT_ALLOWED


# --- ambiguous strings ---


def test_a_target_that_reads_like_another_is_refused() -> None:
    # The same string as `GET /a?b=1`, as another path, and as a body.
    for target, string in (
        ("/a%3Fb=1", "GET\n/a?b=1\n"),
        ("/a%23b", "GET\n/a#b\n"),
        ("/a%0Ab", "GET\n/a\nb\n"),
    ):
        message = Message("GET", target, [header(string)])
        found = outcome(message)
        assert isinstance(found, Rejected)
        assert (found.reason, answer(found).status) == (Reason.AMBIGUOUS_PATH, 400)
        loose = HmacProxy(strict=False)
        assert loose.head(message) == string.encode()
        assert not isinstance(loose.parse(message), Rejected | type(None))
    assert reason(get("/a?b=%0A%3F%23")) is None
    # A path that holds %2F signs as if it held a /, which the original's clients do.
    assert reason(Message("GET", "/a%2Fb", [header("GET\n/a/b\n")])) is None


# --- who signed ---


def two_people() -> People:
    return directory(credential("key-1", b"one"), credential("key-2", b"two", b"old-two", consumer=BOB))


@pytest.mark.parametrize(("secret", "name"), [(b"one", "alice"), (b"two", "bob"), (b"old-two", "bob")])
def test_each_named_key_is_tried(secret: bytes, name: str) -> None:
    message = Message("POST", "/a", [header("POST\n/a\n", b"body", secret=secret)])
    found = outcome(message, two_people(), b"body", key_ids=["key-1", "key-2"])
    assert isinstance(found, Identity) and found.consumer is not None and found.credential is not None
    assert (found.consumer.username, found.plugin) == (name, "hmac-auth")
    assert found.credential.consumer is found.consumer
    assert {"@request-target", "@body"} <= found.covered


def test_a_key_that_is_not_named_does_not_count() -> None:
    assert reason(get(secret=b"two"), two_people(), key_ids=["key-1"]) is Reason.SIGNATURE_MISMATCH
    # One that cannot be used does not keep the others from it.
    assert reason(get(secret=b"two"), two_people(), key_ids=["gone", "key-2"]) is None
    assert reason(get(secret=b"two"), two_people(), key_ids=["gone", "key-1"]) is Reason.SIGNATURE_MISMATCH


def test_nobody_is_named_before_the_body_is_whole() -> None:
    admission = check(get(), pipeline([step(scheme="hmacproxy", key_id="key-1")]), directory(credential()), NOW)
    assert not isinstance(admission, Rejected)
    assert admission.identity is NOBODY and len(admission.bodies) == 1
    assert "s3cret" not in repr(admission.bodies) and header("GET\n/a\n")[1] not in repr(admission.bodies)


def test_an_anonymous_consumer_stands_in() -> None:
    people = directory(credential(), guest=GUEST)
    for message in (Message("GET", "/a", []), get(secret=b"wrong")):
        found = outcome(message, people, anonymous_consumer="guest")
        assert isinstance(found, Identity)
        assert (found.consumer, found.anonymous, found.credential) == (GUEST, True, None)


def test_two_methods_must_name_one_consumer() -> None:
    """Whose key signed is known only at the end, and compared all the same."""
    both = signed("GET", "/a", header("GET\n/a\n", secret=b"two"), key_id="key-1", secret=b"one")
    other = step(priority=9999)
    for also in ([other], [step(priority=1)]):
        found = outcome(both, two_people(), also=also, key_ids=["key-1", "key-2"])
        assert isinstance(found, Rejected) and found.reason is Reason.DIFFERENT_CONSUMERS
    people = two_people()
    people.require_same_consumer = False
    assert isinstance(outcome(both, people, also=[other], key_ids=["key-2"]), Identity)
    same = signed("GET", "/a", header("GET\n/a\n", secret=b"one"), key_id="key-1", secret=b"one")
    agreed = outcome(same, two_people(), also=[other], key_ids=["key-1", "key-2"])
    assert isinstance(agreed, Identity) and agreed.consumer is ALICE


def test_among_several_methods() -> None:
    config = {"auth_plugins": [{"hmac-auth": {"scheme": "hmacproxy", "key_id": "key-1"}}, {"hmac-auth": {}}]}
    steps = pipeline([step(multi_auth, **config)])
    admission = check(get(), steps, directory(credential()), NOW)
    assert not isinstance(admission, Rejected)
    assert admission.finish(admission.digests()) is None
    assert (admission.identity.consumer, admission.identity.plugin) == (ALICE, "hmac-auth")


# --- freshness, replays, size ---


def dated(date: str | None, *, signs: bool = True) -> Message:
    headers = [] if date is None else [("Date", date)]
    return Message("POST", "/a", [*headers, header(f"POST\n{date or ''}\n/a\n" if signs else "POST\n\n/a\n")])


def test_age_counts_where_it_is_asked_for() -> None:
    assert reason(dated(STALE), headers=["date"]) is None
    config: dict[str, Any] = {"headers": ["Date"], "clock_skew": 300}
    assert reason(dated(DATE), **config) is None
    assert reason(dated(STALE), **config) is Reason.CLOCK_SKEW
    assert reason(dated(None), **config) is Reason.DATE_MISSING
    assert reason(dated("2015-09-28"), **config) is Reason.DATE_INVALID


def test_used_once() -> None:
    config: dict[str, Any] = {"headers": ["date"], "clock_skew": 300, "replay_protection": True}
    admission = check(
        dated(DATE), pipeline([step(scheme="hmacproxy", key_id="key-1", **config)]), directory(credential()), NOW
    )
    assert not isinstance(admission, Rejected)
    ((_, mark),) = admission.replays
    assert mark.ttl == 602


def test_too_large_before_and_while_it_is_read() -> None:
    announced = Message("POST", "/a", [("Content-Length", "6"), header("POST\n/a\n", b"abcdef")])
    chunked = Message("POST", "/a", [("Transfer-Encoding", "chunked"), header("POST\n/a\n", b"abcdef")])
    for message in (announced, chunked):
        assert reason(message, body=b"abcdef", max_req_body_size=5) is Reason.BODY_TOO_LARGE
        assert reason(message, body=b"abcdef", max_req_body_size=6) is None


# --- forged requests of browsers ---


@pytest.mark.parametrize("name", ["Cookie", "Origin", "Referer", "Sec-Fetch-Site", "Authorization"])
def test_what_comes_from_a_browser_needs_its_csrf_token(name: str) -> None:
    """A proxy signs for all of its visitors: their forged requests are signed, too."""
    plain, browser = outcome(get()), outcome(get("/a", (name, "x")))
    assert isinstance(plain, Identity) and plain.csrf_exempt
    assert isinstance(browser, Identity) and not browser.csrf_exempt


# --- configuration ---


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "key_id"),
        ({"key_id": "a", "key_ids": ["b"]}, "key_id"),
        ({"key_ids": []}, "key_ids"),
        ({"key_ids": [str(number) for number in range(9)]}, "key_ids"),
        ({"key_id": "a", "digest": "sha3"}, "digest"),
        ({"key_id": "a", "digest": "ripemd160"}, "digest"),
        ({"key_id": "a", "sign_header": "X Signature"}, "sign_header"),
        ({"key_id": "a", "sign_header": "Host"}, "sign_header"),
        ({"key_id": "a", "headers": ["Date", "x-signature"]}, "sign_header"),
        ({"key_id": "a", "headers": ["Host"]}, "headers"),
        ({"key_id": "a", "headers": ["transfer-encoding"]}, "headers"),
        ({"key_id": "a", "clock_skew": 60}, "clock_skew"),
        ({"key_id": "a", "headers": ["date"], "replay_protection": True}, "replay_protection"),
        ({"key_id": "a", "signed_headers": ["date"]}, "signed_headers"),
        ({"key_id": "a", "allowed_algorithms": ["hmac-sha256"]}, "allowed_algorithms"),
        ({"key_id": "a", "validate_request_body": False}, "validate_request_body"),
        ({"scheme": "other"}, "scheme"),
        ({"scheme": "apisix", "sign_header": "X-Signature"}, "sign_header"),
        ({"scheme": "apisix", "key_id": "a"}, "key_id"),
    ],
)
def test_configuration_that_is_refused(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hmac_auth.compile({"scheme": "hmacproxy", **config})
    assert caught.value.field.partition(".")[0] == field, caught.value


def test_hide_credentials_takes_the_signature_away() -> None:
    steps = pipeline([step(scheme="hmacproxy", key_id="key-1", sign_header="GAP-Signature", hide_credentials=True)])
    message = Message("GET", "/a", [("gap-signature", header("GET\n/a\n")[1])])
    admission = check(message, steps, directory(credential()), NOW)
    assert not isinstance(admission, Rejected)
    assert admission.hidden == {("header", "gap-signature")}


def test_a_key_id_beyond_ascii() -> None:
    """Directories know keys by the bytes that requests would send."""
    found: Credential = credential("clé".encode().decode("latin-1"))
    assert isinstance(outcome(get(), directory(found), key_ids=["clé"]), Identity)
