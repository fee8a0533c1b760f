"""schemes.kong, and schemes.verify in Kong's order: vectors, a naive verifier, and other people's clients."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import httpie_kong_hmac
import kong_hmac
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hmac_gateway.client import sign_headers
from hmac_gateway.core.credential import Credential, Lookup
from hmac_gateway.core.dates import parse_http_date
from hmac_gateway.core.identity import Failure, Verified
from hmac_gateway.core.macs import ALGORITHMS
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.schemes import SCHEMES, kong
from hmac_gateway.schemes.base import Claim, signing_strings
from hmac_gateway.schemes.verify import Policy, check_head
from tests.support.fuzz import examples

from ..support.engine import DATE, NOW, credential, mac64, vectors
from ..support.naive_kong import accepts

CASES = [*vectors("kong/published.json"), *vectors("kong/openssl.json")]
HELLO = "SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # openssl dgst -sha256 of "hello"
STALE = "Sat, 05 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
Pair = tuple[str, str]


def policy(**changes: Any) -> Policy:
    own: dict[str, Any] = {"algorithms": frozenset(ALGORITHMS), "required": ()}
    return Policy(**own | {"clock_first": True, "either_date": True, "digest_optional": True, **changes})


def knows(*credentials: Credential) -> Lookup:
    return {found.identifier: found for found in credentials or (credential("bob"),)}.get


def outcome(
    message: Message, *, lookup: Lookup | None = None, now: float = NOW, form: kong.Kong = kong.KONG, **changes: Any
) -> Verified | Failure | None:
    return check_head(message, form, policy(**changes), lookup or knows(), now)


def verdict(message: Message, **more: Any) -> Reason | None:
    """The reason of a refusal; None for a signature that holds."""
    result = outcome(message, **more)
    assert result is not None
    return result.reason if isinstance(result, Failure) else None


def value(string: str, listed: str, *, user: str = "bob", algorithm: str = "hmac-sha256", **more: Any) -> str:
    signature = mac64(string, algorithm=algorithm, **more)
    return f'hmac username="{user}", algorithm="{algorithm}", headers="{listed}", signature="{signature}"'


def signed(*more: Pair, string: str = f"date: {DATE}", listed: str = "date", date: str = DATE, **how: Any) -> Message:
    dates = [("Date", date)] if date else []
    return Message("GET", "/", [*dates, ("Authorization", value(string, listed, **how)), *more])


# --- vectors ---


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    headers = [tuple(header) for header in case["headers"]]
    bare = Message(case["method"], case["target"], headers, http_version=case["version"])
    claim = Claim(case["key_id"], case["algorithm"], tuple(case["signed"]), "")
    name, string = next(signing_strings(kong.KONG, bare, claim, kong.KONG.cover(bare, claim)))
    assert (name, string) == ("raw", case["string"].encode("latin-1"))

    text = (
        f'hmac username="{case["key_id"]}", algorithm="{case["algorithm"]}", '
        f'headers="{" ".join(case["signed"])}", signature="{case["signature"]}"'
    )
    sent = Message(case["method"], case["target"], [*headers, ("Authorization", text)], http_version=case["version"])
    lookup = knows(credential(case["key_id"], case["secret"].encode("latin-1")))
    assert verdict(sent, lookup=lookup, now=case["at"]) is None
    added = kong.KONG.sign(
        bare,
        key_id=case["key_id"],
        secret=case["secret"].encode("latin-1"),
        algorithm=case["algorithm"],
        headers=case["signed"],
    )
    assert added == [("Authorization", text)]


def test_the_published_lab_by_the_client_helper() -> None:
    lab = CASES[0]
    added = sign_headers(
        "GET",
        "http://localhost:8000/kong/healthy",
        key_id="johnsmith",
        secret="!Qwaszxerdfcv",
        headers={"Dummy": "Kong"},
        signed=["date", "dummy", "@request-target"],
        scheme="kong",
        now=lab["at"],
    )
    assert added == {
        "Date": "Mon, 02 Dec 2024 16:23:54 GMT",
        "Authorization": 'hmac username="johnsmith", algorithm="hmac-sha256", headers="date dummy @request-target", '
        'signature="lmCENhBAr+WhCzoL21aqRU44Y0C5HjS5sAU8zkmAoPE="',
    }


# --- other people's clients ---


def test_kong_hmac_from_pypi() -> None:
    client = kong_hmac.HmacAuth(hmac_user="bob", hmac_secret="s3cret")
    headers = client.get_auth_headers(body='{"quantity": 3}')
    now = parse_http_date(headers["Date"])
    assert now is not None
    message = Message("POST", "/orders", [*headers.items(), ("content-length", "15")])
    found = outcome(message, now=now, validate_body=True, required=("date", "digest"))
    assert isinstance(found, Verified) and found.body is not None
    digest = found.body.start()
    digest.feed(b'{"quantity": 3}')
    assert found.body.verdict(digest) is None
    assert verdict(message, now=now, lookup=knows(credential("bob", b"other"))) is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [("GET", "/orders?x=%2F&y", None), ("POST", "/orders", '{"quantity": 3}'), ("PUT", "/a//b/", b"\xff")],
)
def test_httpie_kong_hmac_from_pypi(method: str, url: str, body: Any) -> None:
    auth = httpie_kong_hmac.KongHMAC("bob", "s3cret", headers=["request-line", "date"])
    sent = requests.Request(method, f"http://gateway.test{url}", data=body, auth=auth).prepare()
    now = parse_http_date(sent.headers["Date"])
    assert now is not None
    covered = {"request-line", "date"} | ({"digest"} if body else set())
    found = outcome(Message(method, sent.path_url, sent.headers.items()), now=now, required=tuple(covered))
    assert isinstance(found, Verified) and found.covered == covered
    other = Message(method, sent.path_url + "/x", sent.headers.items())
    assert verdict(other, now=now) is Reason.SIGNATURE_MISMATCH


# --- what a header may look like ---

RIGHT = value(f"date: {DATE}", "date")
MAC = mac64(f"date: {DATE}")


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        RIGHT.replace("hmac", "Hmac", 1),
        f"  {RIGHT}\t",
        RIGHT.replace(", ", ","),
        RIGHT.replace(", ", " \t, \t"),
        RIGHT.replace("hmac ", "hmac  \t", 1),
        RIGHT.replace(MAC, MAC.rstrip("=")),
    ],
)
def test_spellings_that_are_read(text: str) -> None:
    assert verdict(Message("GET", "/", [("Date", DATE), ("Authorization", text)])) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.WRONG_SCHEME),
        ("Basic YTpi", Reason.WRONG_SCHEME),
        (RIGHT.replace("hmac", "HMAC", 1), Reason.MALFORMED_AUTHORIZATION),
        # Kong searches for its form anywhere, and does not ask for a blank behind the word.
        (f'"{RIGHT}', Reason.WRONG_SCHEME),
        (RIGHT.replace("hmac ", "hmac", 1), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT + ', nonce="1"', Reason.MALFORMED_AUTHORIZATION),
        (RIGHT + " x", Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace('"', "'"), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace('"bob"', '"bo"b"'), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace('"bob"', '""'), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace('="', '= "'), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace('"date"', '""'), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace(MAC, ""), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace("username", "keyId"), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace("username", "Username"), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace('algorithm="hmac-sha256", ', ""), Reason.MALFORMED_AUTHORIZATION),
        (RIGHT.replace('username="bob", ', "").replace('="date"', '="date", username="bob"'), "order"),
        (RIGHT.replace('"date"', '"date' + " x" * 100 + '"'), Reason.MALFORMED_AUTHORIZATION),
        (f"{RIGHT}, {RIGHT}", Reason.DUPLICATE_HEADER),
        (RIGHT.replace("hmac-sha256", "sha256"), Reason.ALGORITHM_NOT_ALLOWED),
        (RIGHT.replace(MAC, "a" + MAC), Reason.SIGNATURE_MALFORMED),
        (RIGHT.replace(MAC, MAC + "x"), Reason.SIGNATURE_MALFORMED),
        (RIGHT.replace(MAC, MAC.replace("=", "-")), Reason.SIGNATURE_MALFORMED),
        (RIGHT.replace("bob", "eve"), Reason.UNKNOWN_KEY),
        (RIGHT.replace("bob", "Bob"), Reason.UNKNOWN_KEY),
    ],
)
def test_spellings_that_are_refused(text: str, reason: Any) -> None:
    reason = Reason.MALFORMED_AUTHORIZATION if reason == "order" else reason
    assert verdict(Message("GET", "/", [("Date", DATE), ("Authorization", text)])) is reason


def test_names_with_commas_are_one_name() -> None:
    # Kong/kong#4321: nothing is signed that any header has.
    message = signed(string=f"date, host: {DATE}", listed="date, host")
    assert verdict(message) is Reason.DATE_NOT_SIGNED
    assert verdict(message, require_signed_date=False) is Reason.SIGNATURE_MISMATCH


def test_a_short_request_buys_no_endless_string() -> None:
    long = [("X-Long", "x" * 30_000)]
    assert verdict(signed(*long, listed="date x-long x-long" + " a" * 6)) is Reason.SIGNATURE_MISMATCH
    assert verdict(signed(*long, listed="date x-long x-long x-long" + " a" * 6)) is Reason.MALFORMED_AUTHORIZATION
    target = "/" + "x" * 30_000
    text = value("", "date" + " @request-target" * 2 + " request-line" + " a" * 6)
    assert verdict(Message("GET", target, [("Date", DATE), ("Authorization", text)])) is Reason.MALFORMED_AUTHORIZATION


def test_proxy_authorization_comes_first_and_nothing_is_mixed() -> None:
    right, wrong = RIGHT, RIGHT.replace(MAC, mac64("other"))

    def asked(proxy: str | None, own: str | None) -> Verified | Failure | None:
        pairs = [("Proxy-Authorization", proxy), ("Authorization", own)]
        return outcome(
            Message("GET", "/", [("Date", DATE), *((name, text) for name, text in pairs if text is not None)])
        )

    for proxy, own, header in (
        (right, None, "proxy-authorization"),
        (right, "Bearer x", "proxy-authorization"),
        (right, wrong, "proxy-authorization"),
        (None, right, "authorization"),
        ("Basic x", right, "authorization"),
        ("", right, "authorization"),
    ):
        found = asked(proxy, own)
        assert isinstance(found, Verified) and found.carrier == ("header", header)
    refused = asked(wrong, right)
    assert isinstance(refused, Failure) and refused.reason is Reason.SIGNATURE_MISMATCH
    halves = right.partition(", headers")
    refused = asked(halves[0], "headers" + halves[2])
    assert isinstance(refused, Failure) and refused.reason is Reason.MALFORMED_AUTHORIZATION
    assert asked(None, None) is None


# --- what is covered ---


def covered(*headers: Pair, listed: str, method: str = "GET") -> frozenset[str]:
    message = Message(method, "/", headers)
    return kong.KONG.cover(message, Claim("", "", tuple(listed.split(" ")), "")).names


def test_only_what_is_there_once_is_covered() -> None:
    assert covered(("Date", DATE), ("X-A", "1"), listed="Date x-a @request-target") == {
        "date",
        "x-a",
        "@request-target",
    }
    assert covered(("X-A", "1"), ("X-A", "2"), listed="x-a") == frozenset()
    assert covered(listed="x-a (request-target) ") == frozenset()
    assert covered(("X-A-B", "1"), listed="x_a_b") == {"x-a-b"}


@pytest.mark.parametrize("listed", ["request-line", "Request-Line"])
def test_a_header_called_request_line_covers_no_request_line(listed: str) -> None:
    message = signed(("Request-Line", "mine"), string=f"date: {DATE}\n{listed}: mine", listed=f"date {listed}")
    assert verdict(message) is None
    assert verdict(message, required=("request-line",)) is Reason.HEADER_NOT_SIGNED


@pytest.mark.parametrize("listed", ["@Request-Target", "Request-Line"])
def test_components_are_written_exactly(listed: str) -> None:
    message = signed(string=f"date: {DATE}\n{listed}:", listed=f"date {listed}")
    assert verdict(message) is None
    assert verdict(message, required=(listed.lower(),)) is not None


def test_a_question_mark_that_a_server_dropped() -> None:
    for target, own, holds in (("/a", "/a?", True), ("/a?", "/a", False), ("/a?b", "/a?b?", False), ("/a", "/a", True)):
        for string, item in (
            (f"date: {DATE}\n@request-target: get {own}", "@request-target"),
            (f"date: {DATE}\nGET {own} HTTP/1.1", "request-line"),
        ):
            text = value(string, f"date {item}")
            message = Message("GET", target, [("Date", DATE), ("Authorization", text)])
            assert (verdict(message) is None) is holds, (target, own, item)


def test_required_headers() -> None:
    message = signed(("X-A", "1"), string=f"date: {DATE}\nx-a: 1", listed="date x-a")
    assert verdict(message, required=("date", "x-a")) is None
    assert verdict(message, required=("date", "x-b")) is Reason.HEADER_ABSENT
    assert verdict(message, required=("@request-target",)) is Reason.HEADER_NOT_SIGNED
    # Kong takes a listed name for a signed one, whether the header came or not.
    absent = signed(string=f"date: {DATE}\nx-b:", listed="date x-b")
    assert verdict(absent) is None
    assert verdict(absent, required=("x-b",)) is Reason.HEADER_ABSENT


# --- dates ---


def dated(date: str, x_date: str, listed: str, **more: Any) -> Reason | None:
    dates = {"date": date, "x-date": x_date}
    string = "\n".join(f"{name}: {dates[name]}" for name in listed.split(" "))
    pairs = [(name, text) for name, text in dates.items() if text]
    return verdict(Message("GET", "/", [*pairs, ("Authorization", value(string, listed))]), **more)


@pytest.mark.parametrize(
    ("date", "x_date", "listed", "reason"),
    [
        (DATE, "", "date", None),
        ("", DATE, "x-date", None),
        (STALE, DATE, "date x-date", None),
        (DATE, STALE, "date x-date", None),
        ("junk", DATE, "date x-date", None),
        # The known hole: an old signed date, and a fresh one that nobody signed.
        (STALE, DATE, "date", Reason.CLOCK_SKEW),
        (DATE, STALE, "x-date", Reason.CLOCK_SKEW),
        ("junk", DATE, "date", Reason.DATE_INVALID),
        (STALE, STALE, "date x-date", Reason.CLOCK_SKEW),
        (STALE, "", "date", Reason.CLOCK_SKEW),
        ("junk", "", "date", Reason.DATE_INVALID),
    ],
)
def test_one_signed_date_in_time_is_enough(date: str, x_date: str, listed: str, reason: Reason | None) -> None:
    assert dated(date, x_date, listed) is reason


def test_the_originals_way_is_a_switch() -> None:
    for date, x_date, listed in ((STALE, DATE, "date"), (DATE, STALE, "x-date"), ("junk", DATE, "date")):
        assert dated(date, x_date, listed, require_signed_date=False) is None
    assert dated(STALE, STALE, "date", require_signed_date=False) is Reason.CLOCK_SKEW


def test_a_signed_x_date_is_no_date() -> None:
    assert dated("", DATE, "x-date", required=("date",)) is Reason.HEADER_ABSENT
    assert dated(STALE, DATE, "x-date", required=("date",)) is Reason.HEADER_NOT_SIGNED
    assert dated(STALE, DATE, "date x-date", required=("date",)) is None


@pytest.mark.parametrize(("skew", "off", "holds"), [(1, 1, True), (1, 2, False), (0.5, 0, True), (0.5, 1, False)])
def test_skews_may_be_fractions(skew: float, off: int, holds: bool) -> None:
    for now in (NOW + off, NOW - off, NOW + off + 0.9):
        assert (verdict(signed(), now=now, clock_skew=skew) is None) is holds
    message = Message("POST", "/", signed().headers)
    found = outcome(message, clock_skew=skew, replay_methods=frozenset({"POST"}))
    assert isinstance(found, Verified) and found.replay is not None
    assert found.replay.ttl == {1: 4, 0.5: 3}[skew]


# --- the order in which clients see the checks ---


def junk(*headers: Pair) -> Message:
    return Message("GET", "/", [("Authorization", "junk"), *headers])


def test_the_clock_is_looked_at_first() -> None:
    assert outcome(Message("GET", "/", [("Date", STALE)])) is None, "but for whether there are credentials at all"
    assert verdict(junk()) is Reason.DATE_MISSING
    assert verdict(junk(("Date", STALE))) is Reason.CLOCK_SKEW
    assert verdict(junk(("X-Date", "junk"))) is Reason.DATE_INVALID
    assert verdict(junk(("Date", STALE), ("X-Date", DATE))) is Reason.WRONG_SCHEME
    assert verdict(junk(("Date", STALE)), clock_first=False) is Reason.WRONG_SCHEME


def test_then_the_key_then_the_rest() -> None:
    unknown = signed(string=f"date: {DATE}", user="eve", algorithm="hmac-sha1")
    more: dict[str, Any] = {"algorithms": frozenset({"hmac-sha256"}), "required": ("x-a",)}
    assert verdict(unknown, **more) is Reason.UNKNOWN_KEY
    known = signed(algorithm="hmac-sha1", secret=b"wrong")
    assert verdict(known, **more) is Reason.ALGORITHM_NOT_ALLOWED
    assert verdict(known, required=("x-a",)) is Reason.HEADER_ABSENT
    assert verdict(known) is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"enabled": False}, Reason.CREDENTIAL_DISABLED),
        ({"expires_at": 1.0}, Reason.CREDENTIAL_EXPIRED),
        ({"not_before": NOW + 1.0}, Reason.CREDENTIAL_NOT_YET_VALID),
    ],
)
def test_credentials_that_cannot_be_used(more: dict[str, Any], reason: Reason) -> None:
    assert verdict(signed(), lookup=knows(credential("bob", **more))) is reason


def test_two_secrets_while_one_is_replaced() -> None:
    assert verdict(signed(), lookup=knows(credential("bob", b"new", b"s3cret"))) is None


# --- bodies ---


def body_verdict(body: bytes, *headers: Pair, listed: str = "date digest", **more: Any) -> Reason | None:
    first = {"date": DATE, **{name.lower(): text for name, text in reversed(headers)}}
    string = "\n".join(f"{name}: {first[name]}" if name in first else f"{name}:" for name in listed.split(" "))
    length = ("Content-Length", str(len(body)))
    message = Message("PUT", "/", [("Date", DATE), ("Authorization", value(string, listed)), length, *headers])
    found = outcome(message, validate_body=True, **more)
    if isinstance(found, Failure):
        return found.reason
    assert isinstance(found, Verified) and found.body is not None
    digest = found.body.start()
    digest.feed(body)
    return found.body.verdict(digest)


def test_a_body_must_have_its_digest_signed() -> None:
    assert body_verdict(b"hello", ("Digest", HELLO)) is None
    assert body_verdict(b"hellO", ("Digest", HELLO)) is Reason.DIGEST_MISMATCH
    assert body_verdict(b"hello", ("Digest", HELLO), listed="date") is Reason.DIGEST_NOT_SIGNED
    assert body_verdict(b"hello", ("Digest", HELLO), listed="date", require_signed_digest=False) is None
    assert body_verdict(b"hello") is Reason.DIGEST_MISSING
    for wrong in (HELLO.lower(), "MD5=XUFAKrxLKna5cZ2REBfFkg==", f"MD5=x,{HELLO}"):
        assert body_verdict(b"hello", ("Digest", wrong)) is Reason.DIGEST_MALFORMED
    long = "SHA-512=" + base64.b64encode(hashlib.sha512(b"hello").digest()).decode()
    assert body_verdict(b"hello", ("Digest", long)) is None
    large = b"x" * 100_000  # Kong reads no body that nginx has put into a file
    right = "SHA-256=" + base64.b64encode(hashlib.sha256(large).digest()).decode()
    assert body_verdict(large, ("Digest", right)) is None


def test_without_body_and_digest_nothing_is_to_be_checked() -> None:
    assert body_verdict(b"", listed="date") is None
    assert body_verdict(b"", ("Digest", HELLO)) is Reason.DIGEST_MISMATCH
    assert body_verdict(b"", ("Digest", HELLO), listed="date") is Reason.DIGEST_NOT_SIGNED
    assert body_verdict(b"", listed="date", digest_optional=False) is Reason.DIGEST_MISSING


def test_an_announced_body_that_is_too_large() -> None:
    assert body_verdict(b"hello", ("Digest", HELLO), max_body=4) is Reason.BODY_TOO_LARGE


# --- Kong 0.x ---


def legacy(message: Message, **more: Any) -> Reason | None:
    return verdict(message, form=kong.LEGACY, algorithms=frozenset({"hmac-sha1"}), **more)


def test_legacy_is_sha1_whatever_is_said() -> None:
    for said in ("hmac-sha1", "hmac-sha256", "rsa", "x"):
        text = RIGHT.replace("hmac-sha256", said).replace(MAC, mac64(f"date: {DATE}", algorithm="hmac-sha1"))
        assert legacy(Message("GET", "/", [("Date", DATE), ("Authorization", text)])) is None
        assert legacy(Message("GET", "/", [("Date", DATE), ("Proxy-Authorization", text)])) is None
    assert legacy(signed()) is Reason.SIGNATURE_MISMATCH


def test_legacy_knows_the_request_line_but_not_the_target() -> None:
    string = f"date: {DATE}\nGET / HTTP/1.1"
    message = signed(string=string, listed="date request-line", algorithm="hmac-sha1")
    assert legacy(message) is None
    string = f"date: {DATE}\n@request-target: get /"
    message = signed(string=string, listed="date @request-target", algorithm="hmac-sha1")
    assert legacy(message) is Reason.SIGNATURE_MISMATCH


# --- properties ---

text = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters='"\x7f'), min_size=1, max_size=20)
targets = st.text(st.sampled_from("/ab%2F?&=~.;"), max_size=20).map(lambda rest: "/" + rest)
names = st.sampled_from(["x-a", "X-A", "x_a_b", "host", "@request-target", "request-line", "x-none", ""])
values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=10)


@st.composite
def sendings(draw: st.DrawFn) -> tuple[str, str, list[Pair], list[str]]:
    headers = [("Date", DATE)]
    headers += [(name, draw(values)) for name in draw(st.lists(st.sampled_from(["X-A", "x-a-b", "Host"]), unique=True))]
    listed = draw(st.permutations(["date", *draw(st.lists(names, max_size=6))]))
    return draw(st.sampled_from(["GET", "POST", "get"])), draw(targets), headers, list(listed)


@settings(max_examples=examples(80), deadline=None)
@given(sendings(), text, st.binary(min_size=1, max_size=40), st.sampled_from(sorted(ALGORITHMS)))
def test_what_is_signed_is_accepted_by_both(
    sending: tuple[str, str, list[Pair], list[str]], user: str, secret: bytes, algorithm: str
) -> None:
    method, target, headers, listed = sending
    made = kong.KONG.sign(
        Message(method, target, headers), key_id=user, secret=secret, algorithm=algorithm, headers=listed
    )
    sent = [*headers, *made]
    assert verdict(Message(method, target, sent), lookup=knows(credential(user, secret))) is None
    assert accepts(method, target, sent, {user: secret.decode("latin-1")}, NOW)
    assert verdict(Message(method, target, sent), lookup=knows(credential(user, secret + b"x"))) is not None


def _spoil(pair: Pair, place: int, char: str) -> Pair:
    name, text = pair
    place %= len(text) + 1
    return name, text[:place] + char + text[place + 1 :]


@settings(max_examples=examples(120), deadline=None)
@given(sendings(), st.integers(0, 9), st.integers(0, 200), st.sampled_from('" ,=:;a1%\xff'), st.booleans())
def test_both_agree_on_what_was_bent(
    sending: tuple[str, str, list[Pair], list[str]], which: int, place: int, char: str, enforce: bool
) -> None:
    method, target, headers, listed = sending
    made = kong.KONG.sign(Message(method, target, headers), key_id="bob", secret=b"s3cret", headers=listed)
    sent = [*headers, *made]
    sent[which % len(sent)] = _spoil(sent[which % len(sent)], place, char)
    enforced = ["date", "@request-target"] if enforce else []
    ours = verdict(Message(method, target, sent), required=tuple(enforced)) is None
    assert ours == accepts(method, target, sent, {"bob": "s3cret"}, NOW, enforced=enforced)


@settings(max_examples=examples(150), deadline=None)
@given(st.text(st.characters(max_codepoint=255)) | st.sampled_from([RIGHT, f"{RIGHT},{RIGHT}"]), st.booleans())
@example('hmac username="' + '",' * 40, False)
def test_any_header_is_read_or_refused(given_text: str, proxy: bool) -> None:
    header = "Proxy-Authorization" if proxy else "Authorization"
    found = kong.KONG.parse(Message("GET", "/", [(header, given_text)]))
    assert isinstance(found, Claim | Failure)
    if isinstance(found, Claim):
        assert found.key_id and found.headers and found.signature and '"' not in found.key_id


def _many(piece: str) -> Callable[[], object]:
    return lambda: kong.KONG.parse(Message("GET", "/", [("Authorization", piece * 4000)]))


@pytest.mark.parametrize("piece", ['hmac username="', ' , hmac username="', ",", '="a", ', " \t", "hmac "])
def test_no_header_takes_long(piece: str) -> None:
    # Quadratic time would take minutes for 60,000 characters.
    _many(piece)()


def test_registered() -> None:
    assert SCHEMES["kong"] is kong.KONG and "kong-legacy" not in SCHEMES
