"""gate: which plugins must hold, who a request then comes from, and what is left for the adapter."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY
from hmac_gateway.core.message import SINGLETONS, Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import answer
from hmac_gateway.gate import Admission, Step, check, pipeline
from hmac_gateway.plugins import hmac_auth
from hmac_gateway.snapshot import Snapshot, lookups

from .support.engine import ALICE, BOB, DATE, GUEST, NOW, People, credential, directory, signed, step, steps

HELLO = "SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # openssl dgst -sha256 of "hello"


def second(name: str = "second-auth", **config: Any) -> Step:
    """The same plugin under another name, so that two can be required at once."""
    made = step(**config)
    plugin = SimpleNamespace(**{key: getattr(hmac_auth, key) for key in dir(hmac_auth)})
    plugin.name = plugin.holder = name
    return replace(made, plugin=plugin, priority=1)


def two(people: People, other: Consumer, **more: Any) -> People:
    """A directory whose key-1 belongs to `other` for the second plugin."""
    table = {"key-1": credential(consumer=other)}
    first = {"key-1": people.lookups["hmac-auth"]("key-1")}
    return replace(people, lookups=lookups({"hmac-auth": first, "second-auth": table}), **more)


def admitted(message: Message, *args: Any) -> Admission:
    result = check(message, *args, NOW)
    assert isinstance(result, Admission), result
    return result


def refused(message: Message, *args: Any) -> Rejected:
    result = check(message, *args, NOW)
    assert isinstance(result, Rejected), result
    return result


def body_right(admission: Admission, body: bytes) -> Rejected | None:
    digests = admission.digests()
    for digest in digests:
        digest.feed(body)
    return admission.finish(digests)


# --- one plugin ---


def test_no_plugin_no_question() -> None:
    admission = admitted(Message("GET", "/", []), (), directory())
    assert admission.identity is NOBODY
    assert (admission.hidden, admission.bodies, admission.replays) == (frozenset(), (), ())


def test_who_it_is() -> None:
    identity = admitted(signed(), steps(), directory(credential())).identity
    assert identity.consumer is ALICE
    assert identity.credential is not None
    assert identity.credential.identifier == "key-1"
    assert (identity.anonymous, identity.plugin) == (False, "hmac-auth")
    assert identity.covered == {"date", "@request-target"}


def test_who_it_is_not() -> None:
    found = refused(signed(secret=b"wrong"), steps(), directory(credential()))
    assert (found.reason, found.plugin) == (Reason.SIGNATURE_MISMATCH, "hmac-auth")


def test_a_plugin_that_nobody_has_a_key_for_still_runs() -> None:
    assert refused(signed(), steps(), Snapshot(1)).reason is Reason.UNKNOWN_KEY


# --- the short way for one plugin ---

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hides credentials": {"hide_credentials": True},
    "falls back": {"anonymous_consumer": "guest", "hide_credentials": True},
    "falls back to nobody": {"anonymous_consumer": "no-such"},
    "checks bodies": {"validate_request_body": True},
    "keeps marks": {"replay_protection": True},
}


def everything(result: Admission | Rejected) -> list[Any]:
    if isinstance(result, Rejected):
        return [vars(result)]
    left = [result.identity, result.hidden, result.bodies, result.replays, result.held]
    for_body = body_right(result, b"hello")
    return [*left, for_body and vars(for_body), result.identity, result.replays]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(
    "message",
    [
        Message("GET", "/", []),
        signed(),
        signed(secret=b"wrong"),
        signed("POST", "/", ("Digest", HELLO), listed=("@request-target", "date", "digest")),
        signed("POST", "/", ("Digest", "SHA-256=" + "A" * 43 + "="), listed=("@request-target", "date", "digest")),
    ],
    ids=["nothing", "right", "wrong", "right body", "wrong body"],
)
def test_one_plugin_is_judged_as_by_the_general_way(message: Message, config: dict[str, Any]) -> None:
    people = directory(credential(), guest=GUEST)
    (short,) = steps(**config)
    general = replace(short, when=lambda message: True)
    assert everything(check(message, (short,), people, NOW)) == everything(check(message, (general,), people, NOW))


# --- duplicated headers ---


@pytest.mark.parametrize("name", sorted(SINGLETONS))
@pytest.mark.parametrize("guarded", [True, False])
def test_duplicated_headers_are_a_bad_request(name: str, guarded: bool) -> None:
    message = signed("GET", "/", (name.title(), "x"), (name.upper(), "x"))
    for anonymous in ({}, {"anonymous_consumer": "guest"}):
        found = refused(message, steps(**anonymous) if guarded else (), directory(credential(), guest=GUEST))
        assert (found.reason, found.plugin) == (Reason.DUPLICATE_HEADER, "hmac-auth" if guarded else "")
        status, body, headers = answer(found)
        assert status == 400
        assert name in body.decode()
        assert "www-authenticate" not in dict(headers)


def test_other_headers_may_come_twice() -> None:
    admitted(signed("GET", "/", ("X-A", "1"), ("X-A", "2")), steps(), directory(credential()))


# --- anonymous consumers ---

FAILURES = {
    "nothing": Message("GET", "/", []),
    "scheme": Message("GET", "/", [("Authorization", "Basic YTpi")]),
    "garbage": Message("GET", "/", [("Authorization", "Signature \xff")]),
    "unknown": signed(key_id="nobody"),
    "disabled": signed(key_id="off"),
    "wrong": signed(secret=b"wrong"),
    "stale": signed(date="Sat, 05 Nov 1994 08:49:37 GMT"),
    "algorithm": signed(algorithm="hmac-sha384"),
    "unsigned": signed(listed=["@request-target"]),
}


@pytest.mark.parametrize("name", FAILURES)
def test_any_failure_of_authentication_falls_back(name: str) -> None:
    people = directory(credential(), credential("off", enabled=False), guest=GUEST)
    identity = admitted(FAILURES[name], steps(anonymous_consumer="guest"), people).identity
    assert (identity.consumer, identity.credential, identity.anonymous) == (GUEST, None, True)
    assert identity.covered == frozenset()


def test_a_right_signature_is_not_anonymous() -> None:
    people = directory(credential(), guest=GUEST)
    assert admitted(signed(), steps(anonymous_consumer="guest"), people).identity.consumer is ALICE


@pytest.mark.parametrize(
    "guest",
    [None, replace(GUEST, enabled=False), replace(GUEST, expires_at=float(NOW))],
    ids=["none", "off", "expired"],
)
def test_an_anonymous_consumer_that_is_not_there(guest: Consumer | None) -> None:
    people = directory(credential(), **({"guest": guest} if guest else {}))
    found = refused(signed(secret=b"wrong"), steps(anonymous_consumer="guest"), people)
    assert found.reason is Reason.ANONYMOUS_UNKNOWN
    status, body, headers = answer(found)
    assert (status, body) == (401, b'{"message":"Invalid user authorization"}\n')
    assert ("www-authenticate", 'hmac realm="hmac"') in headers


def test_an_anonymous_consumer_that_has_not_expired_yet() -> None:
    people = directory(guest=replace(GUEST, expires_at=NOW + 0.5))
    assert admitted(signed(), steps(anonymous_consumer="guest"), people).identity.anonymous


def test_a_body_too_large_does_not_fall_back() -> None:
    pipe = steps(anonymous_consumer="guest", validate_request_body=True, max_req_body_size=10)
    message = signed("POST", "/", ("Digest", HELLO), ("Content-Length", "11"), listed=["date", "digest"])
    assert refused(message, pipe, directory(credential(), guest=GUEST)).reason is Reason.BODY_TOO_LARGE


# --- bodies ---


def body_steps(**config: Any) -> tuple[Step, ...]:
    return steps(validate_request_body=True, **config)


def posted(digest: str = HELLO) -> Message:
    return signed("POST", "/", ("Digest", digest), listed=["date", "digest"])


def test_a_right_body() -> None:
    admission = admitted(posted(), body_steps(max_req_body_size=5), directory(credential()))
    assert admission.limit == 5
    assert len(admission.digests()) == 1
    assert body_right(admission, b"hello") is None
    assert admission.identity.consumer is ALICE


def test_a_wrong_body() -> None:
    found = body_right(admitted(posted(), body_steps(), directory(credential())), b"hellO")
    assert found is not None
    assert (found.reason, found.plugin) == (Reason.DIGEST_MISMATCH, "hmac-auth")
    assert answer(found)[:2] == (401, b'{"message":"client request can\'t be validated"}\n')


def test_an_empty_body_has_a_digest_too() -> None:
    empty = "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # openssl dgst -sha256 of nothing
    assert body_right(admitted(posted(empty), body_steps(), directory(credential())), b"") is None
    found = refused(signed("GET", "/"), body_steps(), directory(credential()))
    assert found.reason is Reason.DIGEST_MISSING


def test_a_body_that_grows_too_large_while_it_is_read() -> None:
    admission = admitted(
        posted(), body_steps(max_req_body_size=4, anonymous_consumer="guest"), directory(credential(), guest=GUEST)
    )
    for found in (body_right(admission, b"hello"), admission.too_large(5)):
        assert found is not None
        assert answer(found) == (
            413,
            b'{"message":"request size 5 is greater than the maximum size 4 allowed"}\n',
            [("content-type", "application/json")],
        )


def test_a_wrong_body_falls_back_and_leaves_no_replay_mark() -> None:
    pipe = body_steps(anonymous_consumer="guest", replay_protection=True)
    admission = admitted(posted(), pipe, directory(credential(), guest=GUEST))
    assert len(admission.replays) == 1
    assert body_right(admission, b"hellO") is None
    assert (admission.identity.consumer, admission.identity.anonymous) == (GUEST, True)
    assert admission.replays == ()


def test_a_fallback_after_the_body_looks_at_the_clock_too() -> None:
    people = directory(credential(), guest=replace(GUEST, expires_at=float(NOW)))
    found = body_right(admitted(posted(), body_steps(anonymous_consumer="guest"), people), b"hellO")
    assert found is not None
    assert found.reason is Reason.ANONYMOUS_UNKNOWN


def test_the_smallest_limit_counts() -> None:
    pipe = pipeline(
        [step(validate_request_body=True, max_req_body_size=9), second(validate_request_body=True, max_req_body_size=4)]
    )
    admission = admitted(posted(), pipe, two(directory(credential()), ALICE))
    assert admission.limit == 4
    assert len(admission.digests()) == 2
    found = body_right(admission, b"hello")
    assert found is not None
    assert found.facts == {"size": 5, "limit": 4}


# --- replays ---


def test_marks_and_their_refusals() -> None:
    pipe = steps(replay_protection=True, clock_skew=60, anonymous_consumer="guest")
    admission = admitted(signed("POST"), pipe, directory(credential(), guest=GUEST))
    ((found, mark),) = admission.replays
    assert mark.ttl == 122
    again = admission.replayed(found)
    assert answer(again)[:2] == (401, b'{"message":"client request can\'t be validated: replayed"}\n')
    away = admission.replays_unknown(found, "connection refused")
    assert answer(away)[:2] == (503, b'{"message":"replay protection is not available"}\n')
    assert away.detail == "connection refused"
    assert admitted(signed("GET"), pipe, directory(credential(), guest=GUEST)).replays == ()


# --- several plugins ---


def test_all_must_hold() -> None:
    people = two(directory(credential()), ALICE)
    assert admitted(signed(), pipeline([step(), second()]), people).identity.consumer is ALICE
    away = replace(people, lookups=lookups({"hmac-auth": {"key-1": credential()}}))
    found = refused(signed(), pipeline([step(), second(realm="other")]), away)
    assert (found.reason, found.challenge) == (Reason.UNKNOWN_KEY, 'hmac realm="other"')


def test_higher_priority_runs_first_and_answers() -> None:
    assert [found.priority for found in pipeline([second(), step()])] == [2530, 1]
    found = refused(
        signed(secret=b"wrong"), pipeline([second(realm="low"), step(realm="high")]), directory(credential())
    )
    assert found.challenge == 'hmac realm="high"'


def test_different_consumers_are_refused() -> None:
    pipe = pipeline([step(), second()])
    found = refused(signed(), pipe, two(directory(credential()), BOB))
    assert found.reason is Reason.DIFFERENT_CONSUMERS
    assert answer(found)[:2] == (401, b'{"message":"the credentials name different consumers"}\n')
    assert ("www-authenticate", 'hmac realm="hmac"') in answer(found).headers


def test_the_switch_lets_the_last_one_name_the_consumer() -> None:
    pipe = pipeline([step(), second()])
    identity = admitted(signed(), pipe, two(directory(credential()), BOB, require_same_consumer=False)).identity
    assert (identity.consumer, identity.plugin) == (BOB, "second-auth")


def test_a_consumer_is_the_same_however_often_it_was_read() -> None:
    again = replace(ALICE)
    assert again is not ALICE
    admitted(signed(), pipeline([step(), second()]), two(directory(credential()), again))


def test_an_identity_beats_an_anonymous_one_in_any_order() -> None:
    people = replace(two(directory(credential()), BOB), consumers={"guest": GUEST})
    wrong_second = replace(people, lookups=lookups({"hmac-auth": {"key-1": credential()}}))
    pipe = pipeline([step(anonymous_consumer="guest"), second(anonymous_consumer="guest")])
    assert admitted(signed(), pipe, wrong_second).identity.consumer is ALICE
    wrong_first = replace(people, lookups=lookups({"second-auth": {"key-1": credential(consumer=BOB)}}))
    assert admitted(signed(), pipe, wrong_first).identity.consumer is BOB
    assert admitted(signed(secret=b"wrong"), pipe, people).identity.consumer is GUEST


def test_hidden_headers_of_all() -> None:
    people = two(directory(credential()), ALICE)
    assert admitted(signed(), pipeline([step(hide_credentials=True), second()]), people).hidden == {
        ("header", "authorization")
    }
    assert admitted(signed(), pipeline([step(), second()]), people).hidden == frozenset()


def test_hidden_also_when_anonymous() -> None:
    pipe = steps(hide_credentials=True, anonymous_consumer="guest")
    assert admitted(
        Message("GET", "/", [("Authorization", "Basic x"), ("Date", DATE)]), pipe, directory(guest=GUEST)
    ).hidden
