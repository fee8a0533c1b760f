"""Signing on the way upstream in both lanes: the head, checked with plain `hmac`; bodies; whose signature holds."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.gate import Outgoing
from proxy.signing import signer_of
from tests.proxy.test_compile import Rows, compiled
from tests.proxy.test_views import Got, Headers, ask, ask_gateway, configure, fresh
from tests.support.embedded import HOST, snapshot
from tests.support.engine import mac64
from tests.support.proxied import OK, Seen, Upstream, seen
from tests.support.raw_upstream import Peer, answer
from tests.support.served import free_port

__all__ = ["configure", "fresh"]
pytestmark = pytest.mark.urls("tests.support.embedded_site")
SIGN: dict[str, Any] = {"key_id": "key-1", "secret_key": "s3cret", "headers": ["@request-target", "host", "date"]}
ALICE = Consumer("1", "alice", group_id="gold")
BOB = Consumer("2", "bob", group_id="gold")

Lane = Callable[..., Got]


def takes_all(peer: Peer) -> None:
    """One answer for each request, its body read."""
    while True:
        length = re.search(rb"content-length: (\d+)", peer.read_head())
        peer.read(int(length[1]) if length else 0)
        peer.send(OK)


@pytest.fixture(params=["gateway", "view"])
def lane(request: pytest.FixtureRequest, configure: Any) -> Lane:
    def through(
        to: int | list[int], method: str, target: str, headers: Headers = (), body: bytes | None = None, **config: Any
    ) -> Got:
        ports = to if isinstance(to, list) else [to]
        if request.param == "gateway":
            (got,) = ask_gateway(snapshot(ports, **config), (method, target, headers, body))
            return got
        configure(*ports, **config)
        length = [] if body is None else [("content-length", str(len(body)))]
        return ask(method, target, [*headers, *length], body)

    return through


def holds(sent: Seen, method: str, *names: str) -> bool:
    string = f"key-1\n{method} {sent.target}\n" + "".join(f"{name}: {sent.get(name)}\n" for name in names)
    return f'signature="{mac64(string)}"' in (sent.get("authorization") or "")


def test_the_head_that_goes_out_is_what_was_signed(lane: Lane) -> None:
    with Upstream(answer(OK)) as upstream:
        sent = [("Authorization", "Bearer x"), ("Connection", "X-Gone, close"), ("X-Gone", "1"), ("X-A", "1")]
        assert lane(upstream.port, "GET", "/base/%7Ea?b=%2F", sent, sign=SIGN, strip="/base").status == 200
        found = seen(upstream.peer())
    assert found.target == "/%7Ea?b=%2F" and found.get("host") == HOST
    assert holds(found, "GET", "host", "date")
    assert found.get("x-a") == "1" and found.get("x-gone") is None


@pytest.mark.parametrize("size", [0, 10, 2_000_001])
def test_a_covered_body(lane: Lane, size: int, settings: Any) -> None:
    body = os.urandom(size)
    sign = {**SIGN, "sign_body": True}
    with Upstream(takes_all) as upstream:
        assert lane(upstream.port, "POST", "/x", [("Digest", "forged")], body, sign=sign).status == 200
        found = seen(upstream.peer())
    assert found.body == body and found.get("content-length") == str(size)
    assert found.get("digest") == "SHA-256=" + b64encode(hashlib.sha256(body).digest()).decode()
    assert holds(found, "POST", "host", "date", "digest")


@pytest.mark.parametrize("size", [0, 10, 2_000_001])
def test_hmacproxys_signature_goes_over_head_and_body(lane: Lane, size: int) -> None:
    body = os.urandom(size)
    sign = {"scheme": "hmacproxy", "secret_key": "s3cret", "headers": ["content-length", "x-a"], "digest": "sha1"}
    with Upstream(takes_all) as upstream:
        assert lane(upstream.port, "POST", "/a%20b?c", [("X-A", "1")], body, sign=sign).status == 200
        found = seen(upstream.peer())
    mac = hmac.new(b"s3cret", f"POST\n{size}\n1\n/a b?c\n".encode() + body, "sha1").digest()
    assert found.body == body and found.get("x-signature") == f"sha1 {b64encode(mac).decode()}"


def test_a_caller_cannot_have_a_line_of_its_own_signed_for_the_request_line(lane: Lane) -> None:
    # Kong signs a header called Request-Line in the request line's place: spec/kong.md 1.5.
    sign = {**SIGN, "scheme": "kong", "headers": ["request-line", "date"]}
    sent = [("Request-Line", "GET /other HTTP/1.1"), ("X-A", "1")]
    with Upstream(answer(OK)) as upstream:
        assert lane(upstream.port, "GET", "/x?y", sent, sign=sign).status == 200
        found = seen(upstream.peer())
    string = f"GET /x?y HTTP/1.1\ndate: {found.get('date')}"
    assert f'signature="{mac64(string)}"' in (found.get("authorization") or "")
    assert (found.get("request-line"), found.get("x-a")) == (None, "1")
    # Where it is not listed it is a header like others.
    with Upstream(answer(OK)) as upstream:
        assert lane(upstream.port, "GET", "/x?y", sent, sign=SIGN).status == 200
        assert seen(upstream.peer()).get("request-line") == "GET /other HTTP/1.1"


def test_the_next_node_gets_a_signature_of_its_own(lane: Lane) -> None:
    with Upstream(answer(OK)) as upstream:
        more = {"pass_host": "node", "retries": 1, "sign": SIGN}
        assert lane([free_port(), upstream.port], "GET", "/x", weights=[5, 1], **more).status == 200
        found = seen(upstream.peer())
    assert found.get("host") == f"127.0.0.1:{upstream.port}" and holds(found, "GET", "host", "date")


def test_a_body_that_is_too_large_is_refused(lane: Lane) -> None:
    with Upstream(takes_all) as upstream:
        sign = {**SIGN, "sign_body": True, "max_req_body_size": 9}
        found = lane(upstream.port, "POST", "/x", body=b"0123456789", sign=sign)
        words = b'{"message":"request size 10 is greater than the maximum size 9 allowed"}\n'
        assert (found.status, found.body) == (413, words)
        assert lane(upstream.port, "POST", "/x", body=b"012345678", sign=sign).status == 200
        assert len(upstream.peers) == 1


# --- whose signature holds ---


def signers(*places: str, **config: Any) -> Callable[[Consumer | None], Any]:
    rows = Rows()
    rows.upstream()
    rows.service(upstream_id="u")
    rows.bundle()
    rows.bundle("everywhere", is_global=True)
    rows.route(service_id="s", plugin_config_id="b")
    for place in places:
        off = place.endswith("!")
        own = {"secret_key": "s", "key_id": place, **({"_meta": {"disable": True}} if off else {}), **config}
        rows.plugin(place.removesuffix("!"), own, name="sign-request", id=place)
    compiler = compiled(rows)
    (route,) = compiler.routes.routes

    def who(consumer: Consumer | None) -> Any:
        identity = NOBODY if consumer is None else Identity(consumer)
        if route.target.outgoing is None:
            return None
        found = signer_of(route.target.outgoing, Message("GET", "/", []), identity, compiler.outgoing)
        return found.config.key_id if isinstance(found, Outgoing) else found

    return who


PLACES = ["bundle:everywhere", "service:s", "bundle:b", "route:r", "group:gold", "consumer:1"]


@pytest.mark.parametrize("number", range(len(PLACES) + 1))
def test_the_most_specific_signs(number: int) -> None:
    who = signers(*PLACES[:number])
    held = [None, *PLACES]
    assert who(ALICE) == held[number]
    assert who(BOB) == held[min(number, 5)]
    assert who(None) == who(Consumer("3", "carol")) == held[min(number, 4)]


def test_in_kongs_dialect_the_combinations_are_more_specific() -> None:
    rows = Rows()
    rows.upstream()
    rows.service(dialect="kong", upstream_id="u", protocol="http", host="", port=None, path="", retries=None, extra={})
    kong = {"dialect": "kong", "protocols": [], "headers": {}, "extra": {}, "regex_priority": 0, "strip_path": True}
    rows.route(service_id="s", preserve_host=False, path_handling="v0", paths=["/"], **kong)
    places = ["global", "service:s", "route:r", "consumer:1", "route:r service:s", "service:s consumer:1"]
    places += ["route:r consumer:1", "route:r service:s consumer:1"]
    for number, place in enumerate(places, start=1):
        own = {"secret_key": "s", "key_id": place}
        rows.plugin(place, own, name="sign-request", id=place, dialect="kong")
        compiler = compiled(rows)
        route = compiler.routes.match("x", "/", Message("GET", "/", [], "http", "x"))
        assert route is not None
        found = route.target.outgoing
        ours, others = (found.of("sign-request", compiler.outgoing, Identity(who)) for who in (ALICE, BOB))
        assert ours.config.key_id == place, place
        assert others is None or others.config.key_id == places[min(number, 3) - 1 if number < 5 else 4]


def test_one_that_is_off_hides_the_less_specific_ones() -> None:
    who = signers("service:s", "route:r!", "group:gold", "consumer:1!")
    assert (who(None), who(BOB), who(ALICE)) == (None, "group:gold", None)


def test_a_filter_decides_whether_it_signs() -> None:
    assert signers("route:r", _meta={"filter": [["request_method", "==", "GET"]]})(None) == "route:r"
    assert signers("route:r", _meta={"filter": [["request_method", "==", "POST"]]})(None) is None


def test_without_its_secret_nothing_goes_out() -> None:
    found = signers("route:r", secret_key="$env://GATEWAY_SECRET_NOT_SET")(None)
    assert isinstance(found, Rejected) and found.reason is Reason.SIGNING_UNAVAILABLE
