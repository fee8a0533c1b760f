"""Which headers cross a served gateway, in both directions, and what it says of the connection."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.proxied import OK, Proxied, Upstream, seen
from tests.support.raw_client import Headers
from tests.support.raw_upstream import answer
from tests.support.served import signed

IDENTITY = [
    "X-Consumer-ID",
    "X-Consumer-Username",
    "X-Consumer-Custom-ID",
    "X-Consumer-Groups",
    "X-Credential-Identifier",
    "X-Credential-Username",
    "X-Anonymous-Consumer",
]
FORGED = [(name, "forged") for name in IDENTITY]
#: What the upstream gets of every request.
OURS = {
    "host",
    "x-forwarded-for",
    "x-real-ip",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-request-id",
}


def ask_signed(gateway: Proxied, host: str, headers: Headers = ()) -> int:
    return gateway.ask("GET", "/x", host, [*signed("GET", "/x").items(), *headers]).status


# --- identity ---


def test_identity_headers_are_set_and_forged_ones_stripped(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin={})
        assert ask_signed(gateway, host, FORGED) == 200
        found = seen(upstream.peer())
    values = {name: found.get(name.lower()) for name in IDENTITY}
    assert values.pop("X-Consumer-ID") not in (None, "forged")
    assert values == {
        "X-Consumer-Username": "hmac-auth-consumer",
        "X-Consumer-Custom-ID": "c-7",
        "X-Consumer-Groups": None,
        "X-Credential-Identifier": "cred",
        "X-Credential-Username": None,
        "X-Anonymous-Consumer": None,
    }


@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title])
def test_forged_identity_is_stripped_where_nobody_authenticates(gateway: Proxied, spelled: object) -> None:
    assert callable(spelled)
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        forged = [(spelled(name), "forged") for name in IDENTITY]
        kept = ("x-consumer-other", "mine")
        assert gateway.ask("GET", "/", host, [*forged, *forged, kept]).status == 200
        assert {name for name, _ in seen(upstream.peer()).headers} == OURS | {"x-consumer-other"}


def test_anonymous_consumer_is_marked(gateway: Proxied) -> None:
    gateway.put("/consumers/nobody", {"username": "nobody"})
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin={"anonymous_consumer": "nobody"})
        assert gateway.ask("GET", "/", host, FORGED).status == 200
        found = seen(upstream.peer())
    assert found.get("x-consumer-username") == "nobody"
    assert found.get("x-anonymous-consumer") == "true"
    assert found.get("x-credential-identifier") is None
    assert found.get("x-consumer-custom-id") is None


@pytest.mark.parametrize(
    "name", ["X_Consumer_Username", "x_forwarded_for", "X-Consumer_Username", "_x", "plain_name", "HTTP_HOST"]
)
def test_names_with_underscores_are_never_forwarded(gateway: Proxied, name: str) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        assert gateway.ask("GET", "/", host, [(name, "forged")]).status == 200
        assert {key for key, _ in seen(upstream.peer()).headers} == OURS


def test_connection_header_cannot_take_away_what_the_gateway_says(gateway: Proxied) -> None:
    listed = ", ".join([*IDENTITY, *OURS, "content-length", "X-Private"])
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin={})
        headers = [("connection", listed), ("x-private", "1"), ("x-public", "2")]
        assert ask_signed(gateway, host, headers) == 200
        found = seen(upstream.peer())
    assert found.get("x-consumer-username") == "hmac-auth-consumer"
    assert found.get("x-credential-identifier") == "cred"
    assert found.get("x-forwarded-for") == found.get("x-real-ip") == "127.0.0.1"
    assert found.get("host") == host
    assert found.get("x-private") is None
    assert found.get("x-public") == "2"


def test_cookies_of_the_console_are_not_the_upstreams(gateway: Proxied) -> None:
    sent = "theirs=1; hmac_gateway_sessionid=abc; sessionid=2; hmac_gateway_csrftoken=def"
    with Upstream(answer(OK)) as upstream:
        assert gateway.ask("GET", "/", gateway.lead(upstream.port), [("cookie", sent)]).status == 200
        assert seen(upstream.peer()).get("cookie") == "theirs=1; sessionid=2"


# --- hop by hop ---


def test_hop_by_hop_request_headers_end_here(gateway: Proxied) -> None:
    headers = [
        ("connection", "close, X-One"),
        ("Connection", "x-two"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eDp5"),
        ("te", "trailers"),
        ("trailer", "x-t"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("proxy", "http://evil.test"),
        ("x-end-to-end", "stays"),
        ("authorization", "Basic stays"),
    ]
    with Upstream(answer(OK)) as upstream:
        assert gateway.ask("GET", "/", gateway.lead(upstream.port), headers).status == 200
        found = seen(upstream.peer())
    assert {name for name, _ in found.headers} == OURS | {"x-end-to-end", "authorization"}


def test_hop_by_hop_response_headers_end_here(gateway: Proxied) -> None:
    response = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, X-One\r\nconnection: keep-alive\r\n"
        b"Connection: x-two\r\nx-one: 1\r\nx-two: 2\r\nkeep-alive: timeout=5\r\nproxy-connection: x\r\n"
        b"trailer: x-t\r\nupgrade: h2c\r\nx-request-id: theirs\r\n"
        b"x-end-to-end: stays\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nserver: theirs\r\n"
        b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nok"
    )
    with Upstream(answer(response)) as upstream:
        found = gateway.ask("GET", "/", gateway.lead(upstream.port))
        request_id = seen(upstream.peer()).get("x-request-id")
    assert found.headers.count(("set-cookie", "a=1")) == found.headers.count(("set-cookie", "b=2")) == 1
    assert found.get("x-request-id") == request_id
    assert found.get("date") == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert found.get("server") == "hmac-gateway"
    assert {name for name, _ in found.headers} == {
        "content-length",
        "x-end-to-end",
        "set-cookie",
        "server",
        "date",
        "x-request-id",
    }


def test_values_pass_byte_for_byte_and_in_order(gateway: Proxied) -> None:
    """The server groups the lines of one name; among themselves they keep their order."""
    sent = [("x-a", "1"), ("x-b", "caf\xc3\xa9 \xff"), ("X-A", "2"), ("x-empty", ""), ("x-tab", "a\tb"), ("x-a", "3")]
    response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nX-A: 1\r\nx-b: caf\xc3\xa9 \xff\r\nx-a: 2\r\nx-empty:\r\n\r\n"
    with Upstream(answer(response)) as upstream:
        found = gateway.ask("GET", "/", gateway.lead(upstream.port), sent)
        passed = [pair for pair in seen(upstream.peer()).headers if pair[0] not in OURS]
    assert sorted(passed, key=lambda pair: pair[0]) == sorted(
        ((name.lower(), value) for name, value in sent), key=lambda pair: pair[0]
    )
    back = [pair for pair in found.headers if pair[0] in ("x-a", "x-b", "x-empty")]
    assert sorted(back, key=lambda pair: pair[0]) == [
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-b", "caf\xc3\xa9 \xff"),
        ("x-empty", ""),
    ]


# --- facts about the connection ---

CLAIMED = [
    ("x-forwarded-for", "192.0.2.1, 192.0.2.2"),
    ("X-Forwarded-For", "192.0.2.3"),
    ("x-real-ip", "192.0.2.9"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "claimed.test"),
    ("x-forwarded-port", "8443"),
    ("forwarded", "for=192.0.2.1"),
    ("x-request-id", "0123-abc"),
]


def test_claims_of_an_untrusted_peer_are_replaced(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        with_port = f"{host}:8080"
        assert gateway.ask("GET", "/", with_port, CLAIMED).status == 200
        found = seen(upstream.peer())
    assert found.get("x-forwarded-for") == "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1"
    assert found.get("x-real-ip") == "127.0.0.1"
    assert found.get("x-forwarded-proto") == "http"
    assert found.get("x-forwarded-host") == host
    assert found.get("x-forwarded-port") == str(gateway.port)
    assert found.get("forwarded") is None
    assert found.get("x-request-id") != "0123-abc"
    assert found.get("host") == with_port


@pytest.fixture(scope="module")
def behind_proxy() -> Iterator[Proxied]:
    with Proxied(environment={"HMAC_GATEWAY_TRUSTED_PROXIES": "127.0.0.0/8"}) as served:
        yield served


def test_claims_of_a_trusted_peer_are_kept(behind_proxy: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        answered = behind_proxy.ask("GET", "/", behind_proxy.lead(upstream.port), [*CLAIMED, *FORGED])
        found = seen(upstream.peer())
    assert found.get("x-forwarded-for") == "192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1"
    assert found.get("x-real-ip") == "192.0.2.9"
    assert found.get("x-forwarded-proto") == "https"
    assert found.get("x-forwarded-host") == "claimed.test"
    assert found.get("x-forwarded-port") == "8443"
    assert found.get("x-request-id") == answered.get("x-request-id") == "0123-abc"
    # Who somebody is, no proxy may say.
    assert found.get("x-consumer-username") is None


def test_trusted_peer_that_claims_nothing_is_described_as_any_other(behind_proxy: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = behind_proxy.lead(upstream.port)
        assert behind_proxy.ask("GET", "/", host, [("x-request-id", "bad id\x7f" + "x" * 99)]).status in (200, 400)
        assert behind_proxy.ask("GET", "/", host, [("x-request-id", "x" * 65)]).status == 200
        found = seen(upstream.peer())
    assert found.get("x-real-ip") == found.get("x-forwarded-for") == "127.0.0.1"
    assert found.get("x-forwarded-host") == host
    assert len(found.get("x-request-id") or "") == 32


@pytest.mark.parametrize(
    ("pass_host", "expected"),
    [
        ({"pass_host": "pass"}, "{host}:8080"),
        ({"pass_host": "node"}, "127.0.0.1:{port}"),
        ({"pass_host": "rewrite", "upstream_host": "inner.test"}, "inner.test"),
    ],
    ids=["pass", "node", "rewrite"],
)
def test_pass_host(gateway: Proxied, pass_host: dict[str, str], expected: str) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, upstream=pass_host)
        assert gateway.ask("GET", "/", f"{host}:8080").status == 200
        found = seen(upstream.peer())
    assert found.get("host") == expected.format(host=host, port=upstream.port)
    assert found.get("x-forwarded-host") == host


# --- heads that are refused ---


@pytest.mark.parametrize(
    "name", ["Authorization", "Proxy-Authorization", "Date", "X-Date", "Digest", "Host", "authorization"]
)
@pytest.mark.parametrize("plugin", [None, {}], ids=["open", "hmac-auth"])
def test_header_that_must_come_once_is_refused_twice(
    gateway: Proxied, name: str, plugin: dict[str, object] | None
) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin=plugin)
        headers = signed("GET", "/x")
        headers |= {"host": host, "digest": "SHA-256=x", "x-date": headers["date"], "proxy-authorization": "Basic eDp5"}
        found = gateway.ask("GET", "/x", "", [*headers.items(), (name, headers[name.lower()])])
        assert (found.status, found.json()) == (400, {"message": f"duplicated header: {name.lower()}"})
        assert not upstream.peers


@pytest.mark.parametrize(
    "headers",
    [[("a", "b")] * 100_000, [("a", "b" * 200_000)], [("a" * 100_000, "b")]],
    ids=["100,000 headers", "a long value", "a long name"],
)
def test_head_without_end_is_refused_and_the_process_goes_on(gateway: Proxied, headers: Headers) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port)
        gateway.settle()
        before = gateway.worker_pids()
        found = gateway.ask("GET", "/", host, headers)
        assert 400 <= found.status < 500
        assert not upstream.peers
        assert gateway.ask("GET", "/", host).status == 200
        for pid in before:
            os.kill(pid, 0)
        gateway.settle()
        assert gateway.worker_pids() == before


def test_long_target_is_refused_and_the_process_goes_on(gateway: Proxied) -> None:
    assert 400 <= gateway.ask("GET", "/" + "a" * 100_000, "nobody.test").status < 500
    assert gateway.ask("GET", "/", "nobody.test").status == 404


def test_hide_credentials_takes_away_authorization_alone(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin={"hide_credentials": True})
        assert ask_signed(gateway, host, [("x-authorization", "stays")]) == 200
        found = seen(upstream.peer())
        assert found.get("authorization") is None
        assert found.get("date") is not None
        assert found.get("x-authorization") == "stays"
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin={})
        assert ask_signed(gateway, host) == 200
        assert (seen(upstream.peer()).get("authorization") or "").startswith("Signature ")
