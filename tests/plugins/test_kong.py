"""Kong's plugins as their clients see them: configurations, statuses, words, challenges, one table for each plugin."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.credential import Credential
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.message import Message
from hmac_gateway.core.words import answer
from hmac_gateway.gate import Admission, Pipeline, Step, check, compile_plugin, pipeline
from hmac_gateway.plugins import ALL, PLUGINS, filled, of_dialect, spoken, validate_config
from hmac_gateway.plugins.fields import Worded
from hmac_gateway.snapshot import lookups
from tests.support.fuzz import examples
from tests.support.tokens import token

from ..support.engine import ALICE, BOB, DATE, GUEST, NOW, People, credential, mac64
from .test_consumer_restriction import JSON

Pair = tuple[str, str]
STALE = "Sat, 05 Nov 1994 08:49:37 GMT"
UNVERIFIED = "HMAC signature cannot be verified"
DATED = UNVERIFIED + ", a valid date or x-date header is required for HMAC Authentication"
NOT_DATED = UNVERIFIED + ", a valid date field is required for HMAC Authentication"
MISMATCH = "HMAC signature does not match"


def people(*more: Credential, **settings: Any) -> People:
    """alice by every method, bob by some; `off` is switched off."""
    found: dict[str, dict[str, Credential]] = {}
    for one in (
        credential("alice"),
        credential("off", enabled=False),
        credential("bob", consumer=BOB),
        credential("k-alice", b"k-alice", plugin="key-auth"),
        credential("k-bob", b"k-bob", plugin="key-auth", consumer=BOB),
        credential("alice", b"pass:word", plugin="basic-auth"),
        credential("bob", b"hush", plugin="basic-auth", consumer=BOB),
        credential("alice", b"0123456789abcdef0123456789abcdef", plugin="jwt-auth"),
        credential("b64", b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", plugin="jwt-auth"),
        *more,
    ):
        found.setdefault(one.plugin, {})[one.identifier] = one
    ids = {one.id: one for one in (ALICE, BOB, GUEST)}
    return People(lookups(found), {"guest": GUEST}, consumer_ids=ids, **settings)


def steps(dialect: str = "kong", **plugins: Mapping[str, Any]) -> Pipeline:
    made = [compile_plugin(name.replace("_", "-"), config, dialect) for name, config in plugins.items()]
    return pipeline(step for step in made if isinstance(step, Step))


def asked(message: Message, pipe: Pipeline, who: People | None = None) -> Admission | Rejected:
    return check(message, pipe, who or people(), NOW)


def told(outcome: Admission | Rejected, accept: str | None = None) -> tuple[int, Any, str | None]:
    """Status, body (its message where it has one) and challenge."""
    if isinstance(outcome, Admission):
        return 200, outcome.identity.consumer and outcome.identity.consumer.username, None
    status, body, headers = answer(outcome, "id-1", accept)
    found = json.loads(body)
    return status, found.get("message", found), dict(headers).get("www-authenticate")


def signature(string: str, listed: str, user: str = "alice", algorithm: str = "hmac-sha256", **more: Any) -> str:
    made = mac64(string, algorithm=algorithm, **more)
    return f'hmac username="{user}", algorithm="{algorithm}", headers="{listed}", signature="{made}"'


def message(*headers: Pair, method: str = "GET", target: str = "/") -> Message:
    return Message(method, target, headers, remote_addr="192.0.2.1")


def hmac(*more: Pair, date: str = DATE, header: str = "Authorization", target: str = "/", **how: Any) -> Message:
    listed = how.pop("listed", "date")
    dates = [("Date", date)] if date else []
    string = "\n".join(f"date: {date}" if item == "date" else f"{item}:" for item in listed.split(" "))
    return message(*dates, (header, signature(string, listed, **how)), *more, target=target)


# --- hmac-auth ---

HMAC_CASES = {
    "right": (hmac(), {}, 200, "alice"),
    "in the other header": (hmac(header="Proxy-Authorization"), {}, 200, "alice"),
    "nothing": (message(("Date", DATE)), {}, 401, "Unauthorized"),
    "garbage without a date": (message(("Authorization", "x")), {}, 401, DATED),
    "garbage": (message(("Authorization", "x"), ("Date", DATE)), {}, 401, UNVERIFIED),
    "stale": (hmac(date=STALE), {}, 401, DATED),
    "a date nobody signed": (hmac(("X-Date", DATE), date=STALE), {}, 401, DATED),
    "the original's way": (hmac(("X-Date", DATE), date=STALE), {"require_signed_date": False}, 200, "alice"),
    "unknown": (hmac(user="eve"), {}, 401, UNVERIFIED),
    "switched off": (hmac(user="off"), {}, 401, UNVERIFIED),
    "algorithm": (hmac(algorithm="hmac-sha1"), {"algorithms": ["hmac-sha256"]}, 401, UNVERIFIED),
    "no algorithm": (hmac(), {"algorithms": []}, 401, UNVERIFIED),
    "enforced": (hmac(), {"enforce_headers": ["date", "dummy"]}, 401, UNVERIFIED),
    "wrong": (hmac(secret=b"wrong"), {}, 401, MISMATCH),
    "no base64": (message(("Date", DATE), ("Authorization", signature("", "date")[:-2] + '*"')), {}, 401, MISMATCH),
    "digest": (hmac(("Digest", "SHA-256=x")), {"validate_request_body": True}, 401, MISMATCH),
    "no digest, no body": (hmac(), {"validate_request_body": True}, 200, "alice"),
    "twice": (hmac(("Date", DATE)), {}, 400, "Bad request"),
    "skew": (hmac(date=STALE), {"clock_skew": 86_400.5}, 200, "alice"),
    "null is the default": (hmac(date=STALE), {"clock_skew": None, "algorithms": None}, 401, DATED),
}


@pytest.mark.parametrize("name", HMAC_CASES)
def test_hmac_auth(name: str) -> None:
    sent, config, status, words = HMAC_CASES[name]
    for realm, challenge in ((None, "hmac"), ("x y", 'hmac realm="x y"')):
        pipe = steps(hmac_auth={**config, "realm": realm})
        assert told(asked(sent, pipe)) == (status, words, challenge if status == 401 else None)


LEGACY_CASES = {
    "right": (hmac(algorithm="hmac-sha1"), {}, 200, "alice"),
    "nothing": (message(("Date", DATE)), {}, 401, "Unauthorized"),
    "garbage": (message(("Authorization", "x"), ("Date", DATE)), {}, 403, UNVERIFIED),
    "no date": (message(("Authorization", "x")), {}, 403, NOT_DATED),
    "x-date": (
        message(("X-Date", DATE), ("Authorization", signature(f"x-date: {DATE}", "x-date", algorithm="hmac-sha1"))),
        {},
        200,
        "alice",
    ),
    "unknown": (hmac(algorithm="hmac-sha1", user="eve"), {}, 403, UNVERIFIED),
    "wrong": (hmac(algorithm="hmac-sha1", secret=b"wrong"), {}, 403, MISMATCH),
    "sha256 for once": (hmac(), {}, 403, MISMATCH),
    "no skew at all": (hmac(algorithm="hmac-sha1"), {"clock_skew": 0}, 200, "alice"),
}


@pytest.mark.parametrize("name", LEGACY_CASES)
def test_hmac_auth_of_0_x(name: str) -> None:
    sent, config, status, words = LEGACY_CASES[name]
    found = asked(sent, steps(spoken("hmac-auth", "kong", legacy=True), hmac_auth=config))
    assert told(found) == (status, words, None)
    if isinstance(found, Rejected):
        _, body, headers = answer(found, "id-1", "text/html")
        assert body == b'{"message":"%s"}\n' % words.encode()
        assert headers == [("content-type", "application/json; charset=utf-8")]


def test_the_scheme_is_a_setting_of_its_own() -> None:
    made = mac64(f"alice\ndate: {DATE}\n")
    apisix = f'Signature keyId="alice",algorithm="hmac-sha256",headers="date",signature="{made}"'
    other = message(("Date", DATE), ("Authorization", apisix))
    assert told(asked(other, steps(hmac_auth={"scheme": "apisix"}))) == (200, "alice", None)
    assert told(asked(hmac(), steps(hmac_auth={"scheme": "apisix"}))) == (401, UNVERIFIED, "hmac")
    kong = steps("apisix", hmac_auth={"scheme": "kong"})
    assert told(asked(hmac(), kong)) == (200, "alice", None)
    words = "client request can't be validated: Authorization header does not start with 'hmac'"
    assert told(asked(other, kong))[:2] == (401, words)


def test_what_hmac_auth_hides() -> None:
    pipe = steps(hmac_auth={"hide_credentials": True})
    for sent, hidden in (
        (hmac(), "authorization"),
        (hmac(("Authorization", "Bearer x"), header="Proxy-Authorization"), "proxy-authorization"),
        (hmac(("Proxy-Authorization", "junk")), "authorization"),
    ):
        found = asked(sent, pipe)
        assert isinstance(found, Admission) and found.hidden == {("header", hidden)}


# --- key-auth ---

NO_KEY = "No API key found in request"
KEY_CASES = {
    "header": (message(("apikey", "k-alice")), {}, 200, "alice"),
    "query": (message(target="/?apikey=k-alice"), {}, 200, "alice"),
    "second name": (message(target="/?k=k-alice"), {"key_names": ["apikey", "k"]}, 200, "alice"),
    "nothing": (message(), {}, 401, NO_KEY),
    "empty": (message(("apikey", "")), {}, 401, NO_KEY),
    "an argument without a value": (message(target="/?apikey"), {}, 401, NO_KEY),
    "unknown": (message(("apikey", "nobody")), {}, 401, "Unauthorized"),
    "a header is final": (message(("apikey", "nobody"), target="/?apikey=k-alice"), {}, 401, "Unauthorized"),
    "twice": (message(("apikey", "k-alice"), ("apikey", "k-bob")), {}, 401, "Duplicate API key found"),
    "argument twice": (message(target="/?apikey=a&apikey=a"), {}, 401, "Duplicate API key found"),
    "not in headers": (message(("apikey", "k-alice")), {"key_in_header": False}, 401, NO_KEY),
    "not in the query": (
        message(target="/?apikey=k-alice"),
        {"key_in_query": False},
        401,
        "No API key found in request",
    ),
    "names in their order": (
        message(("k", "nobody"), target="/?apikey=k-alice"),
        {"key_names": ["apikey", "k"]},
        200,
        "alice",
    ),
}


@pytest.mark.parametrize("name", KEY_CASES)
def test_key_auth(name: str) -> None:
    sent, config, status, words = KEY_CASES[name]
    for realm, challenge in ((None, "Key"), ("x", 'Key realm="x"')):
        found = asked(sent, steps(key_auth={**config, "realm": realm}))
        assert told(found) == (status, words, challenge if status == 401 else None)


def test_key_auth_hides_the_key_wherever_it_is() -> None:
    pipe = steps(key_auth={"hide_credentials": True, "key_names": ["apikey", "k"]})
    found = asked(message(("apikey", "k-alice"), target="/?k=other"), pipe)
    assert isinstance(found, Admission) and found.hidden == {("header", "apikey")}
    found = asked(message(target="/?apikey=k-alice&k=k-alice"), pipe)
    assert isinstance(found, Admission) and found.hidden == pipe[0].common.carriers


# --- basic-auth ---


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


BASIC_CASES: dict[str, tuple[list[Pair], Any]] = {
    "right": ([("Authorization", basic("alice", "pass:word"))], "alice"),
    "proxy first": ([("Proxy-Authorization", basic("bob", "hush")), ("Authorization", basic("alice", "x"))], "bob"),
    "proxy junk": ([("Proxy-Authorization", "junk"), ("Authorization", basic("alice", "pass:word"))], "alice"),
    "proxy unknown": (
        [("Proxy-Authorization", basic("eve", "x")), ("Authorization", basic("alice", "pass:word"))],
        "alice",
    ),
    "proxy wrong is final": (
        [("Proxy-Authorization", basic("bob", "x")), ("Authorization", basic("alice", "pass:word"))],
        None,
    ),
    "nothing": ([], None),
    "bearer": ([("Authorization", "Bearer x")], None),
    "no base64": ([("Authorization", "Basic *")], None),
    "wrong": ([("Authorization", basic("alice", "x"))], None),
    "unknown": ([("Authorization", basic("eve", "x"))], None),
    # APISIX takes white space away; Kong does not.
    "white space": ([("Authorization", basic("al ice", "pass:word"))], None),
}


@pytest.mark.parametrize("name", BASIC_CASES)
def test_basic_auth(name: str) -> None:
    sent, who = BASIC_CASES[name]
    found = told(asked(message(*sent), steps(basic_auth={})))
    assert found == ((200, who, None) if who else (401, "Unauthorized", 'Basic realm="service"'))


def test_basic_auth_hides_what_held() -> None:
    pipe = steps(basic_auth={"hide_credentials": True})
    found = asked(message(("Authorization", basic("alice", "pass:word"))), pipe)
    assert isinstance(found, Admission) and found.hidden == {("header", "authorization")}


# --- jwt ---

SECRET = b"0123456789abcdef0123456789abcdef"


def made(claims: dict[str, Any], algorithm: str = "HS256", key: bytes = SECRET, **header: str) -> str:
    return token(algorithm, {"iss": "alice", **claims}, {"typ": "JWT", "alg": algorithm, **header}, key)


def bearer(text: str, *more: Pair, target: str = "/") -> Message:
    return message(("Authorization", f"Bearer {text}"), *more, target=target)


GOOD = made({"exp": NOW + 100})
OTHER = made({"exp": NOW + 200})
JWT_CASES: dict[str, tuple[Message, dict[str, Any], int, Any]] = {
    "header": (bearer(GOOD), {}, 200, "alice"),
    "query": (message(target=f"/?jwt={GOOD}"), {}, 200, "alice"),
    "cookie": (message(("Cookie", f"t={GOOD}")), {"cookie_names": ["t"]}, 200, "alice"),
    "no cookie by default": (message(("Cookie", f"jwt={GOOD}")), {}, 401, "Unauthorized"),
    "another header": (message(("X-Token", f"bearer {GOOD}")), {"header_names": ["x-token"]}, 200, "alice"),
    "the same twice": (bearer(GOOD, target=f"/?jwt={GOOD}"), {}, 200, "alice"),
    "two": (bearer(GOOD, target=f"/?jwt={OTHER}"), {}, 401, "Multiple tokens provided"),
    "nothing": (message(), {}, 401, "Unauthorized"),
    "basic": (message(("Authorization", "Basic x")), {}, 401, "Unauthorized"),
    "without the word": (message(("Authorization", GOOD)), {}, 401, "Unauthorized"),
    "no token": (bearer("a.b.c"), {}, 401, "Bad token; invalid JSON"),
    "alg none": (bearer(token("HS256", {"iss": "alice"}, {"alg": "none"}, SECRET)), {}, 401, "Bad token; invalid alg"),
    "no iss": (bearer(token("HS256", {"key": "alice"}, None, SECRET)), {}, 401, "No mandatory 'iss' in claims"),
    "no such claim": (bearer(GOOD), {"key_claim_name": "kid"}, 401, "No mandatory 'kid' in claims"),
    "key in the header": (bearer(made({}, kid="alice")), {"key_claim_name": "kid"}, 200, "alice"),
    "unknown": (bearer(made({"iss": "eve"})), {}, 401, "No credentials found for given 'iss'"),
    "another algorithm": (bearer(made({}, "HS512", SECRET * 2)), {}, 401, "Invalid algorithm"),
    "wrong": (bearer(made({}, key=b"x" * 32)), {}, 401, "Invalid signature"),
    "base64": (bearer(made({"iss": "b64"})), {"secret_is_base64": True}, 200, "alice"),
    "not base64": (bearer(made({"iss": "b64"})), {}, 401, "Invalid signature"),
    "expired": (bearer(made({"exp": NOW - 1})), {"claims_to_verify": ["exp"]}, 401, {"exp": "token expired"}),
    "expired, unasked": (bearer(made({"exp": NOW - 1})), {}, 401, {"exp": "token expired"}),
    "early": (bearer(made({"nbf": NOW + 9})), {"claims_to_verify": ["nbf"]}, 401, {"nbf": "token not valid yet"}),
    "no exp": (bearer(made({})), {"claims_to_verify": ["exp"]}, 401, {"exp": "must be a number"}),
    "exp as text": (bearer(made({"exp": "1"})), {"claims_to_verify": ["exp"]}, 401, {"exp": "must be a number"}),
    "both times": (
        bearer(made({})),
        {"claims_to_verify": ["exp", "nbf"]},
        401,
        {"exp": "must be a number", "nbf": "must be a number"},
    ),
    "two faults": (
        bearer(made({"exp": NOW - 1, "nbf": NOW + 9})),
        {"claims_to_verify": ["exp", "nbf"]},
        401,
        {"exp": "token expired", "nbf": "token not valid yet"},
    ),
    "from now on": (bearer(made({"nbf": NOW})), {"claims_to_verify": ["nbf"]}, 200, "alice"),
    "a header twice: the first": (
        message(("X-Token", f"Bearer {GOOD}"), ("X-Token", "Bearer other")),
        {"header_names": ["x-token"]},
        200,
        "alice",
    ),
    "no exp, none asked": (bearer(made({})), {}, 200, "alice"),
    "long life": (
        bearer(made({"exp": NOW + 101})),
        {"claims_to_verify": ["exp"], "maximum_expiration": 100},
        401,
        {"exp": "exceeds maximum allowed expiration"},
    ),
    "just not": (bearer(GOOD), {"claims_to_verify": ["exp"], "maximum_expiration": 100}, 200, "alice"),
}


@pytest.mark.parametrize("name", JWT_CASES)
def test_jwt(name: str) -> None:
    sent, config, status, words = JWT_CASES[name]
    for realm, challenge in ((None, "Bearer"), ("x", 'Bearer realm="x"')):
        found = asked(sent, steps(jwt={**config, "realm": realm}))
        if words != "Unauthorized":
            challenge += ', error="invalid_token"' if realm else ' error="invalid_token"'
        assert told(found) == (status, words, challenge if status == 401 else None)
        if isinstance(found, Rejected):
            _, body, headers = answer(found, "id-1", "text/html")
            assert b"\n" not in body[:-1] and b"id-1" not in body, "jwt answers without the error template"
            assert ("content-type", "application/json; charset=utf-8") in headers


def test_jwt_hides_every_copy() -> None:
    pipe = steps(jwt={"hide_credentials": True})
    found = asked(bearer(GOOD, target=f"/?jwt={GOOD}"), pipe)
    assert isinstance(found, Admission) and found.hidden == pipe[0].common.carriers


# --- several plugins, anonymous consumers ---


def test_all_must_hold_in_the_order_of_their_priorities() -> None:
    pipe = steps(hmac_auth={}, basic_auth={}, key_auth={}, jwt={})
    assert [step.plugin.name for step in pipe] == ["jwt", "key-auth", "basic-auth", "hmac-auth"]
    assert told(asked(message(), pipe)) == (401, "Unauthorized", "Bearer")
    assert told(asked(bearer(GOOD), pipe)) == (401, "No API key found in request", "Key")
    two = steps(hmac_auth={}, key_auth={})
    assert told(asked(hmac(("apikey", "k-alice")), two)) == (200, "alice", None)
    assert told(asked(hmac(("apikey", "k-bob")), two)) == (401, "Unauthorized", "hmac")
    assert told(asked(hmac(("apikey", "k-bob")), two, people(require_same_consumer=False))) == (200, "alice", None)


def test_one_is_enough_where_each_has_an_anonymous_consumer() -> None:
    either = steps(hmac_auth={"anonymous": "guest"}, key_auth={"anonymous": GUEST.id})
    key, nobody = ("apikey", "k-bob"), ("apikey", "x")
    # Who is known by the first is not asked again, not even for what is wrong.
    for sent, who, name in (
        (message(key), "bob", "key-auth"),
        (hmac(key), "bob", "key-auth"),
        (hmac(key, secret=b"wrong"), "bob", "key-auth"),
        (hmac(), "alice", "hmac-auth"),
        (hmac(nobody), "alice", "hmac-auth"),
        (message(), "guest", "hmac-auth"),
        (hmac(nobody, secret=b"wrong"), "guest", "hmac-auth"),
    ):
        found = asked(sent, either)
        assert isinstance(found, Admission) and found.identity.consumer is not None
        assert (found.identity.consumer.username, found.identity.plugin) == (who, name)
        assert found.identity.anonymous is (who == "guest")
    assert told(asked(hmac(("Date", DATE)), either))[0] == 400, "what is wrong with a request no guest covers"


def test_without_one_a_plugin_stays_mandatory() -> None:
    first = steps(hmac_auth={"anonymous": "guest"}, key_auth={})
    assert told(asked(hmac(), first)) == (401, "No API key found in request", "Key")
    assert told(asked(message(("apikey", "k-bob")), first)) == (200, "bob", None)
    last = steps(hmac_auth={}, key_auth={"anonymous": "guest"})
    assert told(asked(message(("apikey", "k-bob")), last)) == (401, "Unauthorized", "hmac")
    assert told(asked(hmac(), last)) == (200, "alice", None)


def test_credentials_that_nobody_looked_at_go_on() -> None:
    either = steps(
        hmac_auth={"anonymous": "guest", "hide_credentials": True},
        key_auth={"anonymous": "guest", "hide_credentials": True},
    )
    found = asked(hmac(("apikey", "k-bob")), either)
    assert isinstance(found, Admission) and found.hidden == {("header", "apikey")}


@pytest.mark.parametrize("plugin", ["hmac_auth", "key_auth", "basic_auth", "jwt"])
def test_an_anonymous_consumer_that_is_not_there(plugin: str) -> None:
    pipe = steps(**{plugin: {"anonymous": "ghost"}})
    words = "anonymous consumer ghost is configured but doesn't exist"
    assert told(asked(message(), pipe)) == (500, words, None)


@pytest.mark.parametrize("plugin", ["key_auth", "jwt"])
def test_preflight(plugin: str) -> None:
    sent = message(method="OPTIONS")
    assert told(asked(sent, steps(**{plugin: {}})))[0] == 401
    found = asked(sent, steps(**{plugin: {"run_on_preflight": False}}))
    assert isinstance(found, Admission) and found.identity.consumer is None
    assert told(asked(message(), steps(**{plugin: {"run_on_preflight": False}})))[0] == 401


@pytest.mark.parametrize(
    ("sent", "plugin", "told_as"),
    [
        (hmac(), "hmac_auth", "alice"),
        (message(("apikey", "k-alice")), "key_auth", "credential-k-alice"),
        (message(("Authorization", basic("alice", "pass:word"))), "basic_auth", "alice"),
        (bearer(GOOD), "jwt", "alice"),
    ],
)
def test_what_upstreams_are_told_of_a_credential(sent: Message, plugin: str, told_as: str) -> None:
    found = asked(sent, steps(**{plugin: {}}))
    assert isinstance(found, Admission) and found.identity.credential_identifier == told_as


# --- configurations ---

KONG = {name: plugin for name, plugin in of_dialect("kong").items() if name != "sign-request"}


def refused(name: str, config: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        validate_config(name, config, "kong")
    return caught.value


@pytest.mark.parametrize(
    ("name", "config", "field"),
    [
        ("hmac-auth", {"clock_skew": 0}, "clock_skew"),
        ("hmac-auth", {"clock_skew": -0.5}, "clock_skew"),
        ("hmac-auth", {"clock_skew": "x"}, "clock_skew"),
        ("hmac-auth", {"clock_skew": True}, "clock_skew"),
        ("hmac-auth", {"clock_skew": float("inf")}, "clock_skew"),
        ("hmac-auth", {"anonymous": ""}, "anonymous"),
        ("hmac-auth", {"algorithms": ["hmac-sha1", "hmac-md5"]}, "algorithms.2"),
        ("hmac-auth", {"realm": 'a"b'}, "realm"),
        ("hmac-auth", {"allowed_algorithms": ["hmac-sha1"]}, "allowed_algorithms"),
        ("hmac-auth", {"scheme": "x"}, "scheme"),
        ("hmac-auth", {"_meta": {}}, "_meta"),
        ("key-auth", {"key_names": []}, "key_names"),
        ("key-auth", {"key_names": ["a b"]}, "key_names.1"),
        ("key-auth", {"key_in_body": True}, "key_in_body"),
        ("key-auth", {"key_in_header": False, "key_in_query": False}, "key_in_header"),
        ("key-auth", {"header": "x"}, "header"),
        ("basic-auth", {"realm": ""}, "realm"),
        ("jwt", {"claims_to_verify": ["aud"]}, "claims_to_verify.1"),
        ("jwt", {"maximum_expiration": 60}, "claims_to_verify"),
        ("jwt", {"maximum_expiration": 31_536_001}, "maximum_expiration"),
        ("jwt", {"cookie_names": ["a;b"]}, "cookie_names.1"),
        ("acl", {}, "configuration"),
        ("acl", {"allow": []}, "configuration"),
        ("acl", {"allow": ["a"], "deny": ["b"]}, "configuration"),
        ("acl", {"allow": "a"}, "allow"),
        ("rate-limiting", {}, "configuration"),
        ("rate-limiting", {"minute": 0}, "minute"),
        ("rate-limiting", {"minute": 5, "hour": 4}, "hour"),
        ("rate-limiting", {"second": 5, "year": 4}, "year"),
        ("rate-limiting", {"minute": 1, "limit_by": "x"}, "limit_by"),
        ("rate-limiting", {"minute": 1, "limit_by": "header"}, "header_name"),
        ("rate-limiting", {"minute": 1, "limit_by": "path"}, "path"),
        ("rate-limiting", {"minute": 1, "limit_by": "path", "path": "x"}, "path"),
        ("rate-limiting", {"minute": 1, "error_code": 99}, "error_code"),
        ("rate-limiting", {"minute": 1, "redis": {"host": "a b", "password": "hush"}}, "redis.host"),
        ("rate-limiting", {"minute": 1, "redis": {"password": ["hush"]}}, "redis.password"),
        ("rate-limiting", {"minute": 1, "redis": "hush"}, "redis"),
        ("rate-limiting", {"minute": 1, "redis_password": ["hush"]}, "redis_password"),
        ("rate-limiting", {"minute": 1, "redis": {"host": "ab", "server_name": "x"}}, "redis.server_name"),
        ("rate-limiting", {"minute": 1, "redis": {"x": 1}}, "x"),
    ],
)
def test_wrong_configuration_names_the_field(name: str, config: Any, field: str) -> None:
    found = refused(name, config)
    assert found.field == field and "hush" not in f"{found} {found.args}"


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("acl", {}, "at least one of these fields must be non-empty: 'config.allow', 'config.deny'"),
        (
            "acl",
            {"allow": ["a"], "deny": ["b"]},
            "exactly one of these fields must be non-empty: 'config.allow', 'config.deny'",
        ),
        (
            "rate-limiting",
            {"minute": 5, "hour": 4},
            "The limit for hour(4.0) cannot be lower than the limit for minute(5.0)",
        ),
        ("rate-limiting", {"minute": 5, "limit_by": "path"}, "required field missing"),
        ("jwt", {"maximum_expiration": 60}, "expected to contain: exp"),
    ],
)
def test_what_no_schema_says_is_in_kongs_words(name: str, config: Any, words: str) -> None:
    found = refused(name, config)
    assert isinstance(found, Worded) and found.text == words


def test_each_dialect_has_its_plugins() -> None:
    assert sorted(KONG) == ["acl", "basic-auth", "hmac-auth", "jwt", "key-auth", "rate-limiting"]
    assert [ALL[name].priority["kong"] for name in sorted(KONG)] == [950, 1100, 1030, 1450, 1250, 910]
    assert PLUGINS["jwt"].holder == "jwt-auth" and PLUGINS["jwt"].credential_schema is None
    for name, dialect in (("jwt", "apisix"), ("acl", "apisix"), ("jwt-auth", "kong"), ("multi-auth", "kong")):
        with pytest.raises(ConfigError) as caught:
            validate_config(name, {}, dialect)
        assert caught.value.field == "name" and ("jwt" in caught.value.allowed)


def test_kong_0_x_is_a_form_of_hmac_auth_alone() -> None:
    assert spoken("hmac-auth", "kong", True) == "kong-legacy"
    assert spoken("hmac-auth", "kong", False) == spoken("key-auth", "kong", True) == spoken("x", "kong", True) == "kong"


def test_a_configuration_with_its_defaults() -> None:
    assert filled("key-auth", {"hide_credentials": True, "realm": None}, "kong") == {
        "key_names": ["apikey"],
        "hide_credentials": True,
        "anonymous": None,
        "key_in_header": True,
        "key_in_query": True,
        "key_in_body": False,
        "run_on_preflight": True,
        "realm": None,
        "expose_reason": False,
    }
    full = filled("rate-limiting", {"minute": 5, "redis": {"port": 1}}, "kong")
    assert full["redis"]["port"] == 1 and full["redis"]["timeout"] == 2000 and full["second"] is None


@pytest.mark.parametrize("name", sorted(KONG))
def test_defaults_written_out_mean_the_same(name: str) -> None:
    least: dict[str, Any] = {"acl": {"allow": ["a"]}, "rate-limiting": {"minute": 5}}.get(name, {})
    plain: Any = KONG[name]
    one, other = plain.compile(least, "kong"), plain.compile(filled(name, least, "kong"), "kong")
    assert repr(one).partition(" at 0x")[0] == repr(other).partition(" at 0x")[0]


@settings(max_examples=examples(40), deadline=None)
@given(st.sampled_from(sorted(KONG)), st.data())
def test_any_configuration_is_taken_or_refused_by_name(name: str, data: st.DataObject) -> None:
    plugin: Any = KONG[name]
    known = st.sampled_from(list(plugin.config_schema["kong"]["properties"]))
    config = data.draw(st.dictionaries(known, JSON, max_size=4))
    try:
        validate_config(name, config, "kong")
    except ConfigError as error:
        assert error.field


def test_weak_defaults_are_seen_as_such() -> None:
    step = compile_plugin("hmac-auth", {}, "kong")
    assert isinstance(step, Step) and "hmac-sha1" in step.config.policy.algorithms
