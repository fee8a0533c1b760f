"""What goes upstream, byte for byte, as a function of the request, the route and the identity."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.credential import Consumer, Credential
from hmac_gateway.core.identity import NOBODY, Carrier, Identity
from hmac_gateway.core.message import Message
from proxy.plan import (
    HOP_BY_HOP,
    IDENTITY_HEADERS,
    BadTarget,
    Forward,
    Node,
    Peer,
    Upstream,
    forwarded_target,
    header_lines,
    host_header,
    identity_headers,
    request_head,
)
from proxy.transport import Target, Timeouts

PEER = Peer(9080)
TRUSTED = Peer(9080, trusted=True)
NOTHING: frozenset[Carrier] = frozenset()
FORWARD = Forward(None, Timeouts(1, 1, 1))

CONSUMER = Consumer(id="c-1", username="john", custom_id="", groups=("a", "b"), labels={"custom_id": "label"})
CREDENTIAL = Credential("cred-1", CONSUMER, "hmac-auth", "k", lambda now: (), public_id="cred")


def message(*headers: tuple[str, str], target: str = "/x", scheme: str = "http", method: str = "GET") -> Message:
    return Message(method, target, headers, scheme, remote_addr="192.0.2.7")


def lines(
    *headers: tuple[str, str],
    identity: Identity = NOBODY,
    hidden: frozenset[Carrier] = NOTHING,
    peer: Peer = PEER,
    body: str = "",
    scheme: str = "http",
) -> list[tuple[str, str]]:
    text = header_lines(message(*headers, scheme=scheme), identity, hidden, peer, "id-1", body)
    assert text.endswith("\r\n\r\n")
    assert "\r\n\r\n" not in text[:-4]
    pairs = [line.split(": ", 1) for line in text[:-4].split("\r\n")]
    return [(name.lower(), value) for name, value in pairs]


OURS = [
    ("x-forwarded-for", "192.0.2.7"),
    ("x-real-ip", "192.0.2.7"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "a.test"),
    ("x-forwarded-port", "9080"),
    ("x-request-id", "id-1"),
]
HOST = ("host", "a.test:8080")


# --- targets ---


@pytest.mark.parametrize(
    "target", ["/", "/a%2fb", "/[1]", "/a?", "/a?x=%zz", "//a//b", "/a?b?c", "/caf\xc3\xa9", "/a#b", "/%61%2F?%2f"]
)
def test_target_is_untouched(target: str) -> None:
    assert forwarded_target(message(target=target), FORWARD) == target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://a.test/b?c", "/b?c"),
        ("HTTPS://a.test:80/b%2fc", "/b%2fc"),
        ("http://a.test", "/"),
        ("http://a.test?b", "/?b"),
        ("http://a.test/b?", "/b?"),
    ],
)
def test_absolute_form_becomes_origin_form(target: str, expected: str) -> None:
    assert forwarded_target(message(target=target), FORWARD) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/api/v1/x", "/v1/x"),
        ("/api", "/"),
        ("/api?x", "/?x"),
        ("/api/", "/"),
        ("/api/a%2fb?c=%zz", "/a%2fb?c=%zz"),
        ("/api//x", "//x"),
        ("/api/v1?", "/v1?"),
        ("http://a.test/api/v1", "/v1"),
    ],
)
def test_prefix_is_taken_away(target: str, expected: str) -> None:
    assert forwarded_target(message(target=target), Forward(None, Timeouts(1, 1, 1), "/api")) == expected


@pytest.mark.parametrize("target", ["/%61pi/x", "//api/x", "/other", "/ap", "/a%70i?x"])
def test_prefix_in_another_spelling_is_refused(target: str) -> None:
    with pytest.raises(BadTarget):
        forwarded_target(message(target=target), Forward(None, Timeouts(1, 1, 1), "/api"))


# --- hosts ---


def node(host: str, port: int, tls: bool = False) -> Node:
    return Node(f"{host}:{port}", host, port, 1, Target(host, port, tls=tls))


@pytest.mark.parametrize(
    ("how", "at", "expected"),
    [
        ({"pass_host": "pass"}, node("n.test", 80), "a.test:8080"),
        ({"pass_host": "node"}, node("n.test", 80), "n.test"),
        ({"pass_host": "node"}, node("n.test", 443), "n.test:443"),
        ({"pass_host": "node"}, node("n.test", 443, tls=True), "n.test"),
        ({"pass_host": "node"}, node("n.test", 80, tls=True), "n.test:80"),
        ({"pass_host": "node"}, node("::1", 8080), "[::1]:8080"),
        ({"pass_host": "node"}, node("::1", 80), "[::1]"),
        ({"pass_host": "rewrite", "upstream_host": "r.test:1"}, node("n.test", 80), "r.test:1"),
    ],
)
def test_host_header(how: dict[str, Any], at: Node, expected: str) -> None:
    assert host_header(message(HOST), Upstream("u", (at,), **how), at) == expected


def test_request_without_a_host_gets_the_nodes() -> None:
    at = node("n.test", 8080)
    assert host_header(message(), Upstream("u", (at,)), at) == "n.test:8080"


def test_head_is_one_request() -> None:
    head = request_head(message(method="PURGE"), "/caf\xc3\xa9?x", "h:1", "a: b\r\n\r\n")
    assert head == b"PURGE /caf\xc3\xa9?x HTTP/1.1\r\nhost: h:1\r\na: b\r\n\r\n"


# --- headers ---


def test_ours_are_all_there_is_for_a_bare_request() -> None:
    assert lines(HOST) == OURS


def test_order_repetition_and_bytes_are_kept() -> None:
    sent = [("x-b", "2"), ("x-a", "1"), ("x-b", "caf\xe9"), ("x-c", "")]
    assert lines(HOST, *sent) == [*sent, *OURS]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | IDENTITY_HEADERS))
def test_what_ends_here(name: str) -> None:
    assert lines(HOST, (name.title(), "x"), ("X-Stays", "1")) == [("x-stays", "1"), *OURS]


def test_identity_headers_are_a_closed_list() -> None:
    """Exactly these: other X-Consumer names belong to the application."""
    assert {
        "x-consumer-id",
        "x-consumer-username",
        "x-consumer-custom-id",
        "x-consumer-groups",
        "x-credential-identifier",
        "x-credential-username",
        "x-anonymous-consumer",
    } == IDENTITY_HEADERS
    assert ("x-consumer-other", "1") in lines(HOST, ("X-Consumer-Other", "1"))


def test_framing_is_ours() -> None:
    sent = [("content-length", "99"), ("transfer-encoding", "chunked"), ("expect", "100-continue"), ("proxy", "x")]
    assert lines(HOST, *sent, body="content-length: 5\r\n") == [*OURS, ("content-length", "5")]


@pytest.mark.parametrize("name", ["x_a", "X_Consumer_Username", "x-consumer_username", "_", "HTTP_X_REAL_IP"])
def test_underscores_go_nowhere(name: str) -> None:
    assert lines(HOST, (name, "1")) == OURS


@pytest.mark.parametrize(
    "connection",
    [
        [("connection", "x-a, X-B ,close")],
        [("connection", "close"), ("Connection", "X-A"), ("connection", "\tx-b")],
        [("connection", ",,x-a,,x-b,")],
    ],
)
def test_connection_listed_names_end_here(connection: list[tuple[str, str]]) -> None:
    assert lines(HOST, *connection, ("x-a", "1"), ("X-B", "2"), ("x-c", "3")) == [("x-c", "3"), *OURS]


def test_connection_cannot_list_what_we_set() -> None:
    listed = ", ".join([*IDENTITY_HEADERS, "x-real-ip", "x-forwarded-for", "host", "content-length", "x-request-id"])
    identity = Identity(CONSUMER, CREDENTIAL)
    plain = lines(HOST, identity=identity, body="content-length: 5\r\n")
    assert lines(HOST, ("connection", listed), identity=identity, body="content-length: 5\r\n") == plain


def test_hidden_headers_go_nowhere() -> None:
    hidden = frozenset({Carrier("header", "authorization")})
    assert lines(HOST, ("Authorization", "x"), ("date", "d"), hidden=hidden) == [("date", "d"), *OURS]


@given(st.lists(st.tuples(st.sampled_from(sorted(IDENTITY_HEADERS)), st.text("abc, -", max_size=5))))
def test_no_client_says_who_it_is(sent: list[tuple[str, str]]) -> None:
    spelled = [(name.upper(), value) for name, value in sent]
    connection = ("connection", ",".join(value for _, value in sent) or "close")
    assert lines(HOST, *spelled, connection) == OURS


# --- facts about the connection ---

CLAIMS = [
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-for", "192.0.2.2"),
    ("x-real-ip", "192.0.2.3"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "claimed.test"),
    ("x-forwarded-port", "443"),
    ("forwarded", "for=192.0.2.4"),
    ("x-request-id", "claimed"),
]


def test_claims_of_others_are_replaced_except_the_chain() -> None:
    expected = dict(OURS) | {"x-forwarded-for": "192.0.2.1, 192.0.2.2, 192.0.2.7"}
    assert dict(lines(HOST, *CLAIMS)) == expected
    assert len(lines(HOST, *CLAIMS)) == len(expected)


def test_claims_of_trusted_peers_are_kept() -> None:
    assert dict(lines(HOST, *CLAIMS, peer=TRUSTED)) == {
        "x-forwarded-for": "192.0.2.1, 192.0.2.2, 192.0.2.7",
        "x-real-ip": "192.0.2.3",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "claimed.test",
        "x-forwarded-port": "443",
        "x-request-id": "id-1",
    }
    assert lines(HOST, peer=TRUSTED) == OURS


@pytest.mark.parametrize(
    ("host", "expected"),
    [("a.test", "a.test"), ("A.test:1", "A.test"), ("[::1]:80", "[::1]"), ("a.test.:80", "a.test")],
)
def test_forwarded_host_has_no_port(host: str, expected: str) -> None:
    assert dict(lines(("host", host)))["x-forwarded-host"] == expected


def test_scheme_is_the_connections() -> None:
    assert dict(lines(HOST, scheme="https"))["x-forwarded-proto"] == "https"


# --- identity ---


def names(identity: Identity) -> dict[str, str]:
    return {name.lower(): value for name, value in lines(HOST, identity=identity) if (name, value) not in OURS}


def test_identity_of_a_credential() -> None:
    expected = {
        "x-consumer-id": "c-1",
        "x-consumer-username": "john",
        "x-consumer-custom-id": "label",
        "x-consumer-groups": "a, b",
        "x-credential-identifier": "cred",
    }
    identity = Identity(CONSUMER, CREDENTIAL, credential_identifier=CREDENTIAL.public_id)
    assert names(identity) == expected
    assert {name.lower(): value for name, value in identity_headers(identity)} == expected


def test_custom_id_goes_before_the_label() -> None:
    consumer = Consumer(id="c", username="j", custom_id="own", groups=(), labels={"custom_id": "label"})
    assert names(Identity(consumer))["x-consumer-custom-id"] == "own"


def test_empty_values_are_not_sent() -> None:
    consumer = Consumer(id="c", username="", custom_id="", groups=(), labels={})
    assert names(Identity(consumer)) == {"x-consumer-id": "c"}


def test_anonymous_identity() -> None:
    assert names(Identity(CONSUMER, None, anonymous=True)) == {
        "x-consumer-id": "c-1",
        "x-consumer-username": "john",
        "x-anonymous-consumer": "true",
        "x-consumer-groups": "a, b",
    }


def test_values_cannot_split_a_line() -> None:
    consumer = Consumer(id="c", username="a\r\nx-evil: 1\x00\n", custom_id="", groups=("g\r\n",), labels={})
    assert names(Identity(consumer)) == {
        "x-consumer-id": "c",
        "x-consumer-username": "ax-evil: 1",
        "x-consumer-groups": "g",
    }


def test_values_beyond_latin_1_go_out_as_utf_8() -> None:
    consumer = Consumer(id="c", username="Jörg 株", custom_id="", groups=(), labels={})
    text = header_lines(message(HOST), Identity(consumer), NOTHING, PEER, "id", "")
    assert "X-Consumer-Username: Jörg 株\r\n".encode() in text.encode("latin-1")
