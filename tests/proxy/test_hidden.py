"""hide_credentials: what plans take out of a request, and that nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.identity import NOBODY, Carrier
from hmac_gateway.core.message import Message
from proxy.plan import BadTarget, Forward, Peer, forwarded_target, header_lines

from .test_plan import FORWARD, OURS

KEY = frozenset({Carrier("query", "apikey")})
ALL = KEY | {Carrier("header", "apikey"), Carrier("cookie", "jwt")}
STRIPPING = Forward(None, FORWARD.timeouts, "/base")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/ip?apikey=k", "/ip"),
        ("/ip?apikey", "/ip"),
        ("/ip?b=%2f+%zz&apikey=k&a=1", "/ip?b=%2f+%zz&a=1"),
        ("/ip?%61pikey=k&a=?", "/ip?a=?"),
        ("/ip?apikey=1&apikey=2", "/ip"),
        ("/ip?APIKEY=k", "/ip?APIKEY=k"),
        ("/ip?a=1", "/ip?a=1"),
        ("/ip", "/ip"),
        ("/ip?", "/ip?"),
        ("/apikey=k?a=1", "/apikey=k?a=1"),
        ("http://gateway.test/ip?apikey=k&a=1", "/ip?a=1"),
        ("http://gateway.test?apikey=k", "/"),
        ("/%61?a=1&apikey=k", "/%61?a=1"),
    ],
)
def test_query_arguments(target: str, expected: str) -> None:
    assert forwarded_target(Message("GET", target, []), FORWARD, KEY) == expected
    assert forwarded_target(Message("GET", target, []), FORWARD, ALL) == expected


def test_a_prefix_is_stripped_as_well() -> None:
    assert forwarded_target(Message("GET", "/base/a?apikey=k&b", []), STRIPPING, KEY) == "/a?b"
    with pytest.raises(BadTarget):
        forwarded_target(Message("GET", "/b%61se/a?apikey=k", []), STRIPPING, KEY)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="#"), max_size=30))
def test_other_queries_are_untouched(query: str) -> None:
    message = Message("GET", f"/?{query}", [])
    assert forwarded_target(message, FORWARD, frozenset({Carrier("query", "not there ever, of 40 letters or more")}))
    assert forwarded_target(message, FORWARD, frozenset({Carrier("header", query)})) == f"/?{query}"
    assert forwarded_target(message, FORWARD) == f"/?{query}"


def lines(hidden: frozenset[Carrier], *headers: tuple[str, str], version: str = "1.1") -> list[str]:
    message = Message("GET", "/", [("host", "a.test:8080"), *headers], http_version=version, remote_addr="192.0.2.7")
    text = header_lines(message, NOBODY, hidden, Peer(9080), "id-1", "")
    ours = [f"{name}: {value}" for name, value in OURS]
    found = text.removesuffix("\r\n\r\n").split("\r\n")
    assert found[-len(ours) :] == ours
    return found[: -len(ours)]


def test_headers_and_cookies() -> None:
    sent = [("ApiKey", "k"), ("cookie", "a=1;jwt=t;b=2"), ("apikey2", "x"), ("apikey", "twice")]
    assert lines(ALL, *sent) == ["cookie: a=1; b=2", "apikey2: x"]
    assert lines(KEY, *sent) == ["apikey: k", "cookie: a=1;jwt=t;b=2", "apikey2: x", "apikey: twice"]


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [(["jwt=t"], []), (["jwt=t", "a=1"], ["cookie: a=1"]), (["a=1;b", "b=2"], ["cookie: a=1;b", "cookie: b=2"])],
)
def test_cookie_headers(cookies: list[str], expected: list[str]) -> None:
    assert lines(ALL, *(("cookie", cookie) for cookie in cookies)) == expected


def test_cookies_of_http_2_are_joined_first() -> None:
    assert lines(ALL, ("cookie", "a=1"), ("cookie", "jwt=t"), ("cookie", "b=2"), version="2") == ["cookie: a=1; b=2"]
