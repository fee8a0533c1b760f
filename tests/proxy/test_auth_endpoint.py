"""The auth endpoint's verdicts: the gateway lane's, in the three statuses that nginx understands."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.adapters.auth_request import STYLES, speakers
from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.routing import Route, Router
from hmac_gateway.snapshot import Snapshot, lookups
from hmac_gateway.stores import MemoryStore, RefusingStore
from hmac_gateway.trust import trust
from proxy.auth_endpoint import AuthEndpoint
from proxy.compile import Compiler
from proxy.gateway import Gateway
from proxy.plan import IDENTITY_HEADERS, Forward
from proxy.transport import Timeouts
from tests.proxy.test_compile import Rows
from tests.support.engine import ALICE, DATE, GUEST, NOW, credential, signed, steps
from tests.support.fuzz import examples

AUTH = "/.hmac-gateway/auth"
NOWHERE = Forward(None, Timeouts(1, 1, 1))
TARGET = ("@request-target", "date")


def route(name: str, *paths: str, pipeline: Any = (), **more: Any) -> Route:
    return Route(name, paths, pipeline, NOWHERE, **{"methods": frozenset(), **more})


def snapshot(**more: Any) -> Snapshot:
    routes = [
        route("open", "/open/*"),
        route("orders", "/orders*", pipeline=steps(signed_headers=list(TARGET))),
        route("dated", "/dated*", pipeline=steps()),
        route("once", "/once*", pipeline=steps(replay_protection=True)),
        route("bodies", "/bodies*", pipeline=steps(validate_request_body=True)),
        route("guests", "/guests*", pipeline=steps(anonymous_consumer="guest")),
        route("says", "/says*", pipeline=steps(expose_reason=True)),
        route("host", "/*", hosts=("host.test",)),
        route("post", "/method", methods=frozenset({"POST"})),
        route("near", "/near", networks=(ip_network("127.0.0.0/8"),)),
        route("far", "/far", networks=(ip_network("203.0.113.0/24"),)),
    ]
    table = {
        "key-1": credential(),
        "key-2": credential("key-2", consumer=Consumer("4", "Zo\xeb\u2603\x07", "c\r\n4", groups=("a", "b"))),
    }
    people = {"guest": GUEST}
    return Snapshot(
        1, **{"routes": Router(routes), "lookups": lookups({"hmac-auth": table}), "consumers": people, **more}
    )


@dataclass
class Got:
    """An answer, and what the log was told."""

    status: int
    headers: dict[str, str]
    body: bytes
    reason: str
    exchange: Any


class Observer:
    last: Any = None
    refused: Any = None

    def finished(self, exchange: Any) -> None:
        self.last = exchange

    def rejected(self, exchange: Any, rejected: Any) -> None:
        self.refused = rejected


class Lane:
    """A gateway without a network."""

    def __init__(
        self, found: Snapshot | None, store: Any = None, proxies: tuple[str, ...] = (), style: str = "nginx"
    ) -> None:
        self.observer = Observer()
        endpoint = AuthEndpoint(speakers(proxies), trust(proxies), STYLES[style])
        self.gateway = Gateway(
            lambda: found, store or MemoryStore(100), now=lambda: NOW, observer=self.observer, endpoint=endpoint
        )

    def ask(
        self, message: Message, peer: str = "127.0.0.1", version: str = "1.0", raw_path: bytes | None = None
    ) -> Got:
        sent: list[Any] = []
        path, _, query = message.target.partition("?")
        scope = {
            "type": "http",
            "method": message.method,
            "raw_path": raw_path or path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in message.headers],
            "scheme": "http",
            "http_version": version,
            "client": (peer, 1) if peer else None,
            "server": ("192.0.2.2", 80),
        }

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(event: Any) -> None:
            sent.append(event)

        asyncio.run(self.gateway(scope, receive, send))
        start, body = sent
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        assert len(headers) == len(start["headers"])
        return Got(start["status"], headers, body["body"], self.observer.last.reason, self.observer.last)

    def auth(self, message: Message, *more: tuple[str, str], peer: str = "127.0.0.1") -> Got:
        """What the endpoint says of a message that a proxy got."""
        told = [
            ("X-Original-Method", message.method),
            ("X-Original-URI", message.target),
            ("X-Original-Proto", "HTTP/" + message.http_version),
        ]
        return self.ask(Message("GET", AUTH, [*message.headers, *told, *more]), peer)


def as_traefik(message: Message) -> Message:
    """What Traefik's ForwardAuth and Caddy's forward_auth ask, as documented; Traefik under a Host of its own."""
    told = [
        ("X-Forwarded-Method", message.method),
        ("X-Forwarded-Proto", message.scheme),
        ("X-Forwarded-Host", message.authority),
        ("X-Forwarded-Uri", message.target),
        ("X-Forwarded-For", "192.0.2.1"),
    ]
    kept = [pair for pair in message.headers if pair[0] not in ("host", "content-length")]
    return Message("GET", AUTH, [("Host", "gateway.internal:9080"), *kept, *told])


def as_nginx(message: Message) -> Message:
    """What nginx asks with the configuration of docs/nginx.md."""
    told = [
        ("X-Original-Method", message.method),
        ("X-Original-URI", message.target),
        ("X-Original-Proto", f"{message.scheme} HTTP/{message.http_version}"),
    ]
    return Message("GET", AUTH, [*message.headers, *told])


def as_envoy(message: Message) -> Message:
    """What Envoy's ext_authz asks over HTTP, as documented, with path_prefix /.hmac-gateway/auth."""
    kept = [pair for pair in message.headers if pair[0] != "content-length"]
    return Message(message.method, AUTH + message.target, [*kept, ("Content-Length", "0")])


@pytest.fixture
def lane() -> Lane:
    return Lane(snapshot())


def test_a_signed_request_is_202_with_its_identity(lane: Lane) -> None:
    got = lane.auth(signed("POST", "/orders?id=7"))
    assert got.status == 202
    assert got.body == b""
    request_id = got.headers.pop("x-request-id")
    assert request_id == got.exchange.request_id
    assert got.headers == {
        "content-length": "0",
        "cache-control": "no-store",
        "server": "hmac-gateway",
        "x-consumer-id": "1",
        "x-consumer-username": "alice",
    }
    assert got.exchange.route_id == "orders"
    assert (got.exchange.message.method, got.exchange.path) == ("POST", "/orders")
    assert got.exchange.identity.consumer == ALICE
    assert got.reason == ""


def test_values_that_a_header_cannot_hold(lane: Lane) -> None:
    got = lane.auth(signed("GET", "/orders", key_id="key-2"))
    assert got.status == 202
    assert got.headers["x-consumer-username"].encode("latin-1").decode() == "Zo\xeb\u2603"
    assert got.headers["x-consumer-custom-id"] == "c4"
    assert got.headers["x-consumer-groups"] == "a, b"


def test_an_anonymous_consumer_says_so(lane: Lane) -> None:
    got = lane.auth(Message("GET", "/guests", [("Host", "gateway.test")]))
    assert got.status == 202
    assert got.headers["x-consumer-username"] == "guest"
    assert got.headers["x-anonymous-consumer"] == "true"


def test_an_unsigned_request_is_401_with_the_challenge(lane: Lane) -> None:
    got = lane.auth(Message("GET", "/orders", [("Host", "gateway.test")]))
    assert got.status == 401
    assert got.headers["www-authenticate"] == 'hmac realm="hmac"'
    assert got.headers["cache-control"] == "no-store"
    assert json.loads(got.body) == {"message": "Missing authorization in request"}
    assert got.headers["content-length"] == str(len(got.body))
    assert got.reason == "missing_credentials"
    assert lane.observer.refused.reason is Reason.MISSING


def with_(*headers: tuple[str, str], method: str = "GET", target: str = "/open/a", version: str = "1.1") -> Message:
    return Message(method, target, headers, http_version=version)


HOST = ("Host", "gateway.test")

#: Requests, each as a client sends it.
CASES: dict[str, Message] = {
    "signed": signed("GET", "/orders"),
    "signed with a query": signed("GET", "/orders?a=b&c=%2F"),
    "signed, POST": signed("POST", "/orders"),
    "signed for another method": Message("POST", "/orders", signed("GET", "/orders").headers),
    "signed for another path": Message("GET", "/orders/2", signed("GET", "/orders/1").headers),
    "signed, merged slashes": signed("GET", "//orders"),
    "signed, escaped slash": signed("GET", "/orders%2F1"),
    "signed for the decoded form": Message("GET", "/orders/%61", signed("GET", "/orders/a").headers),
    "signed, bare ?": signed("GET", "/orders?"),
    "unsigned": with_(HOST, target="/orders"),
    "unknown key": signed("GET", "/orders", key_id="nobody"),
    "wrong secret": signed("GET", "/orders", secret=b"wrong"),
    "stale": signed("GET", "/orders", date="Sat, 05 Nov 1994 08:49:37 GMT"),
    "no date": signed("GET", "/orders", date=""),
    "basic": with_(HOST, ("Authorization", "Basic YTpi"), target="/orders"),
    "says why": with_(HOST, target="/says"),
    "two dates": Message("GET", "/orders", [*signed("GET", "/orders").headers, ("Date", DATE)]),
    "two hosts": with_(HOST, HOST),
    "no plugin": with_(HOST),
    "no host": with_(),
    "no host, HTTP/1.0": with_(version="1.0"),
    "host of another": with_(("Host", "HOST.test:80"), target="/x"),
    "host with userinfo": with_(("Host", "open.example:80@admin.example")),
    "dot segments": with_(HOST, target="/open/../orders"),
    "encoded dot segments": with_(HOST, target="/open/%2e%2e/orders"),
    "encoded twice": with_(HOST, target="/open/%252e%252e/orders"),
    "backslash": with_(HOST, target="/open/a%5cb"),
    "NUL": with_(HOST, target="/open/%00"),
    "parameters only": with_(HOST, target="/open/;a"),
    "broken escape": with_(HOST, target="/open/%zz"),
    "bytes": with_(HOST, target="/open/caf\xc3\xa9"),
    "no route": with_(HOST, target="/nowhere"),
    "a method that no route has": with_(HOST, target="/method"),
    "a method that a route has": with_(HOST, target="/method", method="POST"),
    "odd method": with_(HOST, method="PROPFIND"),
    "the reserved prefix": with_(HOST, target="/.hmac-gateway/x"),
    "the endpoint itself": with_(("Host", "host.test"), target="/.hmac-gateway/other"),
    "anonymous": with_(HOST, target="/guests"),
    "anonymous, wrong": Message("GET", "/guests", signed("GET", "/guests", secret=b"wrong").headers),
    "a body's length": Message("POST", "/orders", [*signed("POST", "/orders").headers, ("Content-Length", "0")]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_the_gateway_lanes(case: str) -> None:
    message = CASES[case]
    direct, auth = Lane(snapshot()), Lane(snapshot(), proxies=("127.0.0.1",))
    there = direct.ask(message, peer="192.0.2.1", version=message.http_version)
    here = auth.auth(message, ("X-Real-IP", "192.0.2.1"))
    assert here.exchange.route_id == there.exchange.route_id
    if there.reason == Reason.NO_UPSTREAM:
        assert here.status == 202
        assert here.exchange.identity.consumer == there.exchange.identity.consumer
    else:
        assert here.reason == there.reason
        assert here.status == (401 if there.status == 401 else 403)
        assert here.body == there.body
        assert here.headers.get("www-authenticate") == there.headers.get("www-authenticate")


#: What these proxies' requests cannot say: the version of the client's request, and that it had no Host, or two.
UNSAID = ("no host", "no host, HTTP/1.0", "two hosts")


@pytest.mark.parametrize(("style", "shape"), [("traefik", as_traefik), ("caddy", as_traefik), ("envoy", as_envoy)])
@pytest.mark.parametrize("case", [case for case in CASES if case not in UNSAID])
def test_the_verdict_is_the_same_for_every_proxy(case: str, style: str, shape: Any) -> None:
    message = CASES[case]
    there = Lane(snapshot(), proxies=("127.0.0.1",)).auth(message)
    here = Lane(snapshot(), proxies=("127.0.0.1",), style=style).ask(shape(message), version="1.1")
    assert (here.exchange.route_id, here.reason) == (there.exchange.route_id, there.reason)
    assert here.status == (200 if there.status == 202 and style == "envoy" else there.status)
    own = ("x-request-id", "x-envoy-auth-headers-to-remove")
    assert {k: v for k, v in here.headers.items() if k not in own} == {
        k: v for k, v in there.headers.items() if k not in own
    }
    # Whoever is not trusted is judged as it came: such a path is nobody's.
    stranger = Lane(snapshot(), style=style).ask(shape(message), peer="192.0.2.1", version="1.1")
    assert stranger.status in (401, 403)


def test_envoy_is_told_what_to_remove() -> None:
    hiding = route("hiding", "/hiding*", pipeline=steps(hide_credentials=True))
    lane = Lane(snapshot(routes=Router([hiding, route("open", "/open")])), style="envoy")
    got = lane.ask(as_envoy(signed("GET", "/hiding")), version="1.1")
    removed = set(got.headers["x-envoy-auth-headers-to-remove"].split(","))
    assert {"authorization", "x-anonymous-consumer", "x-credential-username"} <= removed
    assert not removed & {"x-consumer-username", "x-consumer-id"}
    nobody = lane.ask(as_envoy(with_(HOST, target="/open")), version="1.1")
    assert set(nobody.headers["x-envoy-auth-headers-to-remove"].split(",")) == IDENTITY_HEADERS
    assert "x-envoy-auth-headers-to-remove" not in Lane(snapshot()).auth(signed("GET", "/orders")).headers


def test_envoys_addresses_are_no_endpoint_for_others(lane: Lane) -> None:
    everywhere = Lane(Snapshot(1, Router([route("all", "/*")])))
    for found in (lane, everywhere):
        assert found.ask(with_(HOST, target=AUTH + "/open/a")).status == 404


def proxied(method: str, target: str, body: bytes = b"", *more: tuple[str, str], secret: bytes = b"s3cret") -> Message:
    """A request as hmacproxy signs it, with no header covered."""
    path, _, query = target.partition("?")
    string = f"{method}\n{path}{'?' + query if query else ''}\n".encode() + body
    made = base64.b64encode(hmac.new(secret, string, "sha256").digest()).decode()
    return Message(method, target, [HOST, ("X-Signature", f"sha256 {made}"), *more])


@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [
        (proxied("GET", "/proxied?a=b"), 202, ""),
        (proxied("HEAD", "/proxied"), 202, ""),
        (proxied("GET", "/proxied", secret=b"wrong"), 401, "signature_mismatch"),
        (Message("GET", "/proxied/2", proxied("GET", "/proxied").headers), 401, "signature_mismatch"),
        # Signed over a body, which never comes here; and methods that mean something else with another body.
        (proxied("GET", "/proxied", b"body"), 401, "signature_mismatch"),
        (proxied("GET", "/proxied", b"", ("Content-Length", "4")), 403, "body_unseen"),
        (proxied("GET", "/proxied", b"", ("Transfer-Encoding", "chunked")), 403, "body_unseen"),
        (proxied("POST", "/proxied"), 403, "body_unseen"),
        (proxied("DELETE", "/proxied"), 403, "body_unseen"),
        (with_(HOST, target="/proxied"), 401, "missing_credentials"),
    ],
)
def test_hmacproxys_signatures(message: Message, status: int, reason: str) -> None:
    config = {"scheme": "hmacproxy", "key_id": "key-1", "digest": "sha256"}
    got = Lane(snapshot(routes=Router([route("proxied", "/proxied*", pipeline=steps(**config))]))).auth(message)
    assert (got.status, got.reason) == (status, reason)
    assert (got.headers.get("x-consumer-username") == "alice") == (status == 202)


def test_the_table_has_all_kinds() -> None:
    reasons = {Lane(snapshot()).ask(m, version=m.http_version).reason for m in CASES.values()}
    assert len(reasons) >= 9


def test_headers_of_strangers_are_ignored(lane: Lane) -> None:
    # Where they counted, each of these would be 202.
    for message in (with_(HOST), signed("GET", "/orders")):
        for peer in ("192.0.2.1", "::ffff:192.0.2.1", ""):
            assert lane.auth(message, peer=peer).status == 403
    everywhere = Snapshot(
        1, Router([route("all", "/*", pipeline=steps(signed_headers=list(TARGET)))]), lookups=snapshot().lookups
    )
    strict = Lane(everywhere)
    assert strict.auth(signed("GET", "/orders")).status == 202
    refused = strict.auth(signed("GET", "/orders"), peer="192.0.2.1")
    assert (refused.status, refused.reason) == (401, "signature_mismatch")
    # The request itself, as it came: its own method and target.
    assert strict.ask(signed("GET", AUTH), "192.0.2.1").status == 202
    assert strict.ask(signed("GET", AUTH + "?a=b"), "192.0.2.1").status == 202
    assert strict.ask(signed("HEAD", AUTH), "192.0.2.1").status == 202


def test_trusted_proxies_may_tell() -> None:
    lane = Lane(snapshot(), proxies=("192.0.2.0/24",))
    assert lane.auth(signed("GET", "/orders"), peer="192.0.2.1").status == 202
    assert lane.auth(signed("GET", "/orders"), peer="198.51.100.1").status == 403


def test_a_proxy_that_tells_no_target_opens_nothing() -> None:
    lane = Lane(Snapshot(1, Router([route("all", "/*")])))
    assert lane.auth(with_(HOST)).status == 202
    for headers in ([HOST], [HOST, ("X-Original-Method", "GET"), ("X-Original-Proto", "HTTP/1.1")]):
        got = lane.ask(Message("GET", AUTH, headers))
        assert (got.status, got.reason) == (403, "no_route")


@pytest.mark.parametrize(
    ("target", "proxies", "real", "status"),
    [
        ("/near", (), (), 403),  # not the proxy's address
        ("/near", (), ("127.0.0.1",), 403),
        ("/near", ("127.0.0.1",), ("127.0.0.1",), 202),
        ("/near", ("127.0.0.1",), (), 403),
        ("/near", ("127.0.0.1",), ("203.0.113.7",), 403),
        ("/far", ("127.0.0.1",), ("203.0.113.7",), 202),
        ("/far", (), ("203.0.113.7",), 403),
        ("/far", ("127.0.0.1",), ("203.0.113.7", "203.0.113.7"), 403),
    ],
)
def test_routes_for_addresses_mean_the_clients(
    target: str, proxies: tuple[str, ...], real: tuple[str, ...], status: int
) -> None:
    lane = Lane(snapshot(), proxies=proxies)
    assert lane.auth(with_(HOST, target=target), *[("X-Real-IP", text) for text in real]).status == status


def test_a_body_that_must_be_checked_is_never_taken_for_right(lane: Lane) -> None:
    empty = ("Digest", "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
    listed = ("date", "digest")
    for more in ([], [("Content-Length", "0")], [("Content-Length", "5")]):
        # The proxy drops the length; whoever holds a signed head without a body could add one.
        message = signed("GET", "/bodies", empty, *more, listed=listed)
        got = lane.auth(message)
        assert (got.status, got.reason) == (403, "body_unseen")
        assert "x-consumer-username" not in got.headers
    # What the head alone shows comes first.
    assert lane.auth(with_(HOST, target="/bodies")).status == 401
    # Where bodies are not checked, their length is of no interest.
    assert lane.auth(signed("POST", "/orders", ("Content-Length", "5"))).status == 202


def test_a_signature_passes_once_where_replays_are_refused() -> None:
    lane = Lane(snapshot())
    message = signed("POST", "/once")
    assert lane.auth(Message("POST", "/once", signed("POST", "/once", secret=b"no").headers)).status == 401
    assert lane.auth(message).status == 202
    again = lane.auth(message)
    assert (again.status, again.reason) == (401, "replayed")
    # One store for all ways in.
    direct = lane.ask(message, version="1.1")
    assert (direct.status, direct.reason) == (401, "replayed")
    # What the body decides first does not use up a mark.
    away = Lane(snapshot(), RefusingStore("away")).auth(message)
    assert (away.status, away.reason) == (403, "replay_store_unavailable")


def test_a_refusal_for_the_body_stores_no_mark() -> None:
    both = steps(validate_request_body=True, replay_protection=True)
    lane = Lane(snapshot(routes=Router([route("both", "/*", pipeline=both)])))
    digest = ("Digest", "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
    message = signed("POST", "/both", digest, ("Content-Length", "0"), listed=("date", "digest"))
    assert lane.auth(message).status == 403
    assert lane.ask(message, version="1.1").reason == Reason.NO_UPSTREAM


def test_without_a_configuration_nothing_passes() -> None:
    got = Lane(None).auth(with_(HOST))
    assert (got.status, got.reason) == (403, "not_configured")


def test_global_rules_come_before_no_route() -> None:
    nowhere = Route("", (), steps(), Forward(None, Timeouts(1.0, 1.0, 1.0)))
    lane = Lane(snapshot(elsewhere={"apisix": nowhere}))
    assert lane.auth(with_(HOST, target="/nowhere")).status == 401
    assert lane.auth(signed("GET", "/nowhere")).reason == "no_route"


def test_a_question_by_head_gets_no_body_whatever_the_original(lane: Lane) -> None:
    unsigned = [HOST, ("X-Original-URI", "/orders")]
    for asked, original, empty in (("HEAD", "GET", True), ("GET", "HEAD", False)):
        got = lane.ask(Message(asked, AUTH, [*unsigned, ("X-Original-Method", original)]))
        assert got.status == 401
        assert (got.body == b"") is empty
        assert int(got.headers["content-length"]) > 0


def test_only_this_path_is_the_endpoint(lane: Lane) -> None:
    for target in (AUTH + "/", AUTH + "x", "/.hmac-gateway/", "/.hmac-gateway/Auth", "/.hmac-gateway//auth"):
        got = lane.ask(Message("GET", target, [HOST, ("X-Original-URI", "/open/a")]))
        assert got.status == 404, target


HEADER = st.sampled_from(
    ["X-Original-Method", "X-Original-URI", "X-Original-Proto", "X-Real-IP", "Host", "Authorization", "Date", "Digest"]
)
BYTES = st.text(st.characters(max_codepoint=255))


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(st.tuples(HEADER | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), BYTES)),
    st.sampled_from(["GET", "POST", "HEAD"]) | BYTES,
    st.sampled_from(["127.0.0.1", "192.0.2.1", "", "::1"]),
    st.sampled_from(["1", "1.0", "1.1", "2"]),
)
def test_nothing_gets_another_status(headers: list[tuple[str, str]], method: str, peer: str, version: str) -> None:
    lane = Lane(snapshot(), proxies=("127.0.0.0/30",))
    got = lane.ask(Message(method, AUTH, headers), peer, version)
    assert got.status in (202, 401, 403)
    assert (got.status == 202) == (got.reason == "")


@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(sorted(CASES)),
    st.sampled_from(["X-Original-Method", "X-Original-URI", "X-Original-Proto", "Host", "Authorization", "Date"]),
    BYTES,
    st.booleans(),
)
def test_one_wrong_header_never_does_either(case: str, name: str, value: str, replaced: bool) -> None:
    message = CASES[case]
    told = {"X-Original-Method": message.method, "X-Original-URI": message.target, "X-Original-Proto": "HTTP/1.1"}
    headers = [*message.headers, *told.items()]
    if replaced:
        headers = [pair for pair in headers if pair[0].lower() != name.lower()]
    headers.append((name, value))
    assert Lane(snapshot()).ask(Message("GET", AUTH, headers)).status in (202, 401, 403)


# --- routes of Kong's dialect ---


def kong(**route: Any) -> Snapshot:
    """A global plugin of Kong's dialect, one that a route has for itself, and routes of both dialects."""
    rows = Rows()
    rows.service("s", dialect="kong", host="up.test")
    rows.route("all", dialect="kong", service_id="s", paths=["/"], **route)
    rows.route("own", dialect="kong", service_id="s", paths=[r"~/own/\d+"], **route)
    rows.route("apisix", paths=["/apisix"])
    rows.plugin("global", {"realm": "all"})
    rows.plugin("route:own", {"realm": "own", "signed_headers": ["x-more"]})
    compiler = Compiler()
    compiler.update(rows, NOW)
    return snapshot(routes=compiler.routes)


def test_the_route_decides_which_of_kongs_plugins_applies() -> None:
    lane = Lane(kong())
    assert lane.auth(signed("GET", "/x")).status == 202
    assert lane.auth(signed("GET", "/own/12")).reason == "signed_header_absent"
    assert lane.auth(signed("GET", "/own/x")).status == 202
    refused = [lane.auth(Message("GET", path, [("host", "x")])) for path in ("/x", "/own/12")]
    assert [got.headers["www-authenticate"] for got in refused] == ['hmac realm="all"', 'hmac realm="own"']
    # Global plugins of Kong's dialect are for its own routes.
    assert lane.auth(Message("GET", "/apisix", [("host", "x")])).status == 202


@pytest.mark.parametrize("proxies", [("127.0.0.1",), ()], ids=["trusted", "loopback"])
@pytest.mark.parametrize(
    ("style", "told", "status"),
    [
        ("nginx", [("X-Original-Proto", "https HTTP/1.1")], 202),
        ("nginx", [("X-Original-Proto", "http HTTP/1.1")], 403),
        # That header is the client's: nginx hands it on.
        ("nginx", [("X-Original-Proto", "http HTTP/1.1"), ("X-Forwarded-Proto", "https")], 403),
        ("nginx", [("X-Original-Proto", "HTTP/1.1"), ("X-Forwarded-Proto", "https")], 403),
        ("nginx", [("X-Forwarded-Proto", "https")], 403),
        ("nginx", [("X-Original-Proto", "https"), ("X-Forwarded-Proto", "http")], 202),
        ("traefik", [("X-Forwarded-Proto", "https")], 202),
        ("traefik", [("X-Forwarded-Proto", "wss")], 202),
        ("traefik", [("X-Forwarded-Proto", "ws")], 403),
    ],
)
def test_a_route_that_wants_tls_goes_by_what_is_told(
    style: str, told: list[tuple[str, str]], status: int, proxies: tuple[str, ...]
) -> None:
    lane = Lane(kong(protocols=["https"]), proxies=proxies, style=style)
    original = signed("GET", "/x")
    names = STYLES[style]
    said = [(names.uri, "/x"), (names.method, "GET"), *told]
    got = lane.ask(Message("GET", AUTH, [*original.headers, *said]))
    assert (got.status, got.reason) == (status, "" if status == 202 else "tls_required")


@pytest.mark.parametrize("name", sorted(IDENTITY_HEADERS))
@pytest.mark.parametrize("style", ["nginx", "traefik", "envoy"])
def test_identity_headers_cannot_be_spelled_otherwise(name: str, style: str) -> None:
    """The proxy would hand them on; applications under WSGI and CGI cannot tell `_` from `-`."""
    lane = Lane(snapshot(), style=style)
    shape = {"nginx": as_nginx, "traefik": as_traefik, "envoy": as_envoy}[style]
    for spelled in (name.replace("-", "_"), name[::-1].replace("-", "_", 1)[::-1]):
        original = Message("GET", "/open/x", [("Host", "shop.test"), (spelled.title(), "admin")])
        got = lane.ask(shape(original))
        assert (got.status, got.reason) == (403, "malformed")
    ordinary = Message("GET", "/open/x", [("Host", "shop.test"), ("X_Own", "1"), (name, "admin")])
    assert lane.ask(shape(ordinary)).status in (200, 202)
