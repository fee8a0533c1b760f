"""The debugger on key-auth and basic-auth, and what of a refused request is kept: never a key or password in clear."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from django.db import connection

from consumers.models import Consumer, Credential
from hmac_gateway import crypto
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.debugger import Report, as_text, explain_kept, explain_request
from hmac_gateway.gate import check
from hmac_gateway.models import Rejection
from hmac_gateway.runtime import Runtime
from hmac_gateway.telemetry import Telemetry
from proxy.models import Plugin, PluginConfig, Route

from .support.hmacproxied import sign as sign_whole
from .support.served import signed

pytestmark = pytest.mark.django_db

NOW = 784111777.0


@pytest.fixture(autouse=True)
def alice() -> None:
    row = Consumer(username="alice")
    row.save()
    Consumer(username="guest").save()
    for plugin, identifier, secret in (
        ("key-auth", "", "alice-primary-key"),
        ("basic-auth", "alice", "alice-password"),
        ("hmac-auth", "client-1", "my-hmac-secret"),
    ):
        credential = Credential(consumer=row, plugin=plugin, identifier=identifier)
        credential.set_secret(secret)
        credential.save()


def guard(**configs: dict[str, Any]) -> Runtime:
    route = Route(id="r", paths=["/ip"])
    route.save()
    for name, config in configs.items():
        Plugin(name=name.replace("_", "-"), route=route, config=config).save()
    view = Runtime()
    assert view.refresh(), view.problems
    return view


def ruled(*rules: tuple[str, dict[str, Any]]) -> Runtime:
    """A route with key-auth and rules; one that is named `consumer …` stands on alice."""
    route = Route(id="r", paths=["/ip"])
    route.save()
    Plugin(name="key-auth", route=route).save()
    for name, config in rules:
        place = {"consumer": Consumer.objects.get(username="alice")} if " " in name else {"route": route}
        Plugin(name=name.rpartition(" ")[2], config=config, **place).save()
    view = Runtime()
    assert view.refresh(), view.problems
    return view


def message(*headers: tuple[str, str], target: str = "/ip") -> Message:
    return Message("GET", target, [("Host", "x"), *headers])


def basic(pair: str) -> tuple[str, str]:
    return "Authorization", "Basic " + b64encode(pair.encode()).decode()


def explain(view: Runtime, sent: Message) -> Report:
    assert view.snapshot is not None
    return explain_request(view.snapshot, sent, None, NOW)


def said(report: Report) -> str:
    return as_text(report) + repr(report)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (message(("apikey", "alice-primary-key")), ""),
        (message(target="/ip?apikey=alice-primary-key"), ""),
        (message(), "missing_credentials"),
        (message(("apikey", "alice-primary-kez")), "unknown_key"),
        (message(target="/ip?apikey=alice-primary-key&apikey"), "malformed_authorization"),
    ],
)
def test_key_auth(sent: Message, reason: str) -> None:
    report = explain(guard(key_auth={}), sent)
    assert (report.accepted, report.reason, report.route, report.plugin) == (not reason, reason, "r", "key-auth")
    assert report.steps and report.steps[-1].ok == (not reason)
    assert "alice-primary" not in said(report)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (message(basic("alice:alice-password")), ""),
        (message(), "missing_credentials"),
        (message(basic("alice:topsecret")), "wrong_password"),
        (message(basic("nobody:topsecret")), "unknown_key"),
        (message(("Authorization", "Bearer topsecret")), "wrong_scheme"),
        (message(("Authorization", "Basic topsecret!")), "malformed_authorization"),
    ],
)
def test_basic_auth(sent: Message, reason: str) -> None:
    report = explain(guard(basic_auth={}), sent)
    assert (report.accepted, report.reason, report.plugin) == (not reason, reason, "basic-auth")
    text = said(report)
    assert "topsecret" not in text and "alice-password" not in text
    assert ("user alice" in text) == ("alice" in reason or reason in ("", "wrong_password"))


def test_several_plugins() -> None:
    view = guard(hmac_auth={}, key_auth={})
    report = explain(view, message(("apikey", "alice-primary-key")))
    assert (report.reason, report.plugin) == ("missing_credentials", "hmac-auth")
    assert "this route asks for all of: hmac-auth, key-auth" in report.hints
    headers = signed("GET", "/ip", at=NOW)
    report = explain(view, message(*headers.items()))
    assert (report.reason, report.plugin) == ("missing_credentials", "key-auth")
    assert report.strings and [step.name for step in report.steps][-1] == "key sent"
    report = explain(view, message(("apikey", "alice-primary-key"), *headers.items()))
    assert report.accepted and report.plugin == "hmac-auth, key-auth"


def test_an_anonymous_consumer() -> None:
    report = explain(guard(key_auth={"anonymous_consumer": "guest"}), message(("apikey", "wrong")))
    assert report.accepted and any("anonymous consumer" in hint for hint in report.hints)
    assert not report.steps[-1].ok


def test_who_is_known_is_not_asked_again_in_kongs_dialect() -> None:
    Route(id="r", dialect="kong", paths=["/ip"]).save()
    guest = str(Consumer.objects.get(username="guest").id)
    for name, anonymous in (("key-auth", "guest"), ("hmac-auth", guest)):
        Plugin(name=name, route_id="r", dialect="kong", config={"anonymous": anonymous}).save()
    view = Runtime()
    assert view.refresh() and view.snapshot is not None, view.problems

    def told(*headers: tuple[str, str]) -> Report:
        assert view.snapshot is not None
        return explain_request(view.snapshot, Message("GET", "/ip", [("Host", "h"), *headers]), b"", NOW)

    known = told(("apikey", "alice-primary-key"))
    assert known.accepted and [step.name for step in known.steps] == ["key sent", "key"]
    unknown = told(("apikey", "nobody"))
    assert unknown.accepted and "authorization" in [step.name for step in unknown.steps]


def test_kong_0_x_is_explained_as_such() -> None:
    Route(id="r", dialect="kong", paths=["/ip"]).save()
    Plugin(name="hmac-auth", route_id="r", dialect="kong", legacy=True, config={}).save()
    view = Runtime()
    assert view.refresh() and view.snapshot is not None, view.problems
    text = 'hmac username="client-1", algorithm="x", headers="date @request-target", signature="eA=="'
    pairs = [("Host", "h"), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Authorization", text)]
    report = explain_request(view.snapshot, Message("GET", "/ip", pairs), b"", NOW)
    assert report.reason == Reason.SIGNATURE_MISMATCH
    assert any("the request line is listed as request-line" in hint for hint in report.hints)


def test_an_open_route() -> None:
    report = explain(guard(), message())
    assert report.accepted and report.hints == ["this route asks for no credentials"]


class Exchange:
    """What the gateway lane says of a request."""

    def __init__(self, sent: Message) -> None:
        self.message, self.request_id, self.path, self.status = sent, "abc123", sent.path, 401
        self.reason, self.route_id, self.identity = "", "r", NOBODY


@pytest.mark.parametrize(
    ("plugin", "sent"),
    [
        ("key_auth", message(("apikey", "the-typed-secret"))),
        ("key_auth", message(target="/ip?apikey=the-typed-secret")),
        ("key_auth", message(target="/ip?a=the-typed-secret")),
        ("basic_auth", message(basic("alice:the-typed-secret"))),
        ("basic_auth", message(basic("the-typed-secret:"))),
        ("basic_auth", message(("Authorization", "Bearer the-typed-secret"))),
        ("basic_auth", message(("Authorization", "the-typed-secret"))),
    ],
)
def test_a_refused_request_is_kept_without_its_secret(plugin: str, sent: Message, admin_client: Any) -> None:
    view = guard(**{plugin: {}})
    assert view.snapshot is not None
    route = view.snapshot.routes.match("x", "/ip", sent)
    assert route is not None
    rejected = check(sent, route.pipeline, view.snapshot, NOW)
    assert isinstance(rejected, Rejected)
    telemetry = Telemetry(view)
    telemetry.rejected(Exchange(sent), rejected)
    telemetry.flush()
    row = Rejection.objects.get()
    assert (row.plugin, row.reason, row.key_id) == (plugin.replace("_", "-"), str(rejected.reason), "")
    secrets = ["the-typed-secret", basic("alice:the-typed-secret")[1][6:], basic("the-typed-secret:")[1][6:]]
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            rows = str(cursor.fetchall())
            assert not any(secret in rows for secret in secrets), table
    assert crypto.open_sealed(row.sealed_request)
    report = explain_kept(view.snapshot, "abc123")
    assert report.reason == str(rejected.reason)
    page = admin_client.get(f"/admin/hmac_gateway/rejection/{row.pk}/change/").content.decode()
    assert str(rejected.reason) in page
    assert not any(secret in page + said(report) for secret in secrets)


KEY = ("apikey", "alice-primary-key")


@pytest.mark.parametrize(
    ("rule", "config", "step"),
    [
        (
            "consumer-restriction",
            {"whitelist": ["joe", "bob"]},
            ("one of the whitelist: bob, joe", "consumer_name alice, GET"),
        ),
        (
            "consumer consumer-restriction",
            {"blacklist": ["alice"]},
            ("one that is not on the blacklist", "consumer_name alice, GET"),
        ),
        (
            "consumer-restriction",
            {"allowed_by_methods": [{"user": "alice", "methods": ["PUT", "POST"]}]},
            ("for this one POST, PUT", "consumer_name alice, GET"),
        ),
        ("consumer-restriction", {"type": "service_id", "whitelist": ["s"]}, ("a service_id", "no service_id")),
    ],
)
def test_a_rule_that_refuses_is_explained(rule: str, config: dict[str, Any], step: tuple[str, str]) -> None:
    view = ruled((rule, config))
    report = explain(view, message(KEY))
    reason = "consumer_required" if step[0] == "a service_id" else "consumer_forbidden"
    assert (report.accepted, report.reason, report.plugin) == (False, reason, "consumer-restriction")
    last = report.steps[-1]
    assert (last.name, last.ok, last.expected, last.received) == ("consumer-restriction", False, *step)
    # Whoever is not let in at all meets no rule.
    unknown = explain(view, message())
    assert unknown.reason == "missing_credentials" and unknown.plugin == "key-auth"


def test_a_limit_is_told_and_not_counted() -> None:
    view = ruled(("limit-count", {"count": 1, "time_window": 60, "key": "consumer_name"}))
    for _ in range(3):
        report = explain(view, message(KEY))
        assert report.accepted and report.steps[-1].name == "limit-count"
        assert "1 in 60 s for each consumer_name" in as_text(report)


def test_a_refusal_by_a_rule_is_found_again_by_its_id() -> None:
    view = ruled(("consumer-restriction", {"whitelist": ["joe"]}))
    assert view.snapshot is not None
    sent = message(KEY)
    telemetry = Telemetry(view)
    telemetry.rejected(Exchange(sent), Rejected(Reason.CONSUMER_FORBIDDEN, plugin="consumer-restriction"))
    telemetry.flush()
    report = explain_kept(view.snapshot, "abc123")
    assert (report.reason, report.plugin) == ("consumer_forbidden", "consumer-restriction") and not report.hints
    assert "one of the whitelist: joe" in as_text(report)


def test_global_rules_speak_where_no_route_fits() -> None:
    rule = PluginConfig(id="global.1", is_global=True)
    rule.save()
    Plugin(name="key-auth", bundle=rule).save()
    view = guard()
    unknown = explain(view, message(target="/elsewhere"))
    assert (unknown.reason, unknown.plugin) == ("missing_credentials", "key-auth")
    known = explain(view, message(KEY, target="/elsewhere"))
    assert (known.accepted, known.reason) == (False, "no_route") and "no route has a path" in as_text(known)


# --- hmacproxy's signatures, whose body decides ---


def whole(method: str, body: bytes, secret: str = "my-hmac-secret", length: int | None = None) -> Message:
    size = len(body) if length is None else length
    headers = [("Host", "x"), *([("Content-Length", str(size))] if size else [])]
    return Message(method, "/ip", [*headers, sign_whole(f"{method}\n/ip\n", body, secret=secret)])


def test_who_signed_the_body_is_who_rules_are_about() -> None:
    view = guard(hmac_auth={"scheme": "hmacproxy", "key_id": "client-1"}, consumer_restriction={"whitelist": ["alice"]})
    assert view.snapshot is not None
    for method, body in (("GET", b""), ("POST", b"hello")):
        report = explain_request(view.snapshot, whole(method, body), body or None, NOW)
        assert (report.accepted, report.unseen) == (True, False), as_text(report)
    wrong = explain_request(view.snapshot, whole("POST", b"hello"), b"hallo", NOW)
    assert (wrong.accepted, wrong.reason, wrong.plugin) == (False, "signature_mismatch", "hmac-auth")
    unknown = explain_request(view.snapshot, whole("POST", b"hello"), None, NOW)
    assert unknown.unseen and "the signature covers the body too" in as_text(unknown)


def test_a_kept_request_whose_body_is_not() -> None:
    view = guard(hmac_auth={"scheme": "hmacproxy", "key_id": "client-1"})
    assert view.snapshot is not None
    telemetry = Telemetry(view)
    telemetry.rejected(Exchange(whole("POST", b"hello")), Rejected(Reason.SIGNATURE_MISMATCH, plugin="hmac-auth"))
    telemetry.flush()
    report = explain_kept(view.snapshot, "abc123")
    assert (report.accepted, report.reason) == (False, "signature_mismatch")
    assert "bodies are not kept, and the signature covers this one" in as_text(report)
    without = explain_request(view.snapshot, whole("GET", b"", "my-hmac-secret\n"), None, NOW)
    assert "a newline was signed with as a part of the secret" in as_text(without)
