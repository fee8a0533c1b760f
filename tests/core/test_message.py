"""core.message: what a request head is once it was received."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.message import SINGLETONS, Message, split_target


def message(*headers: tuple[str | bytes, str | bytes], target: str | bytes = "/") -> Message:
    return Message("GET", target, headers)


def test_bytes_and_text_make_the_same_message() -> None:
    text = message(("X-A", "caf\xe9"), target="/p\xff")
    raw = message((b"X-A", b"caf\xe9"), target=b"/p\xff")
    assert text.headers == raw.headers == [("x-a", "caf\xe9")]
    assert text.target == raw.target == "/p\xff"


def test_names_are_lower_case_and_values_lose_only_surrounding_blanks() -> None:
    assert message(("X-ABC", " \t a \t b \t ")).headers == [("x-abc", "a \t b")]
    assert message(("X-A", "\xa0a\x0b")).get("x-a") == "\xa0a\x0b"  # not blanks of HTTP


def test_first_and_all_values() -> None:
    found = message(("A", "1"), ("b", "2"), ("a", "3"), ("A", "4"))
    assert found.get("a") == "1"
    assert found.get_all("a") == ["1", "3", "4"]
    assert found.get_all("b") == ["2"]
    assert found.get("c") is None
    assert found.get_all("c") == []
    assert found.duplicated == {"a"}


def test_what_is_not_said() -> None:
    plain = Message("GET", "/", [])
    assert (plain.scheme, plain.authority, plain.http_version, plain.remote_addr) == ("http", "", "1.1", "")
    assert plain.target_exact


def test_nothing_is_duplicated_in_an_ordinary_head() -> None:
    assert message(("a", "1"), ("b", "1")).duplicated == frozenset()


def test_which_headers_may_come_once() -> None:
    assert {"authorization", "proxy-authorization", "date", "x-date", "digest", "host"} <= SINGLETONS


def test_authority_is_the_host_header_unless_given() -> None:
    assert message(("Host", "a.test:8080")).authority == "a.test:8080"
    assert message().authority == ""
    assert Message("GET", "/", [("host", "a.test")], authority="b.test").authority == "b.test"
    assert Message("GET", "/", [("host", "a.test")], authority="").authority == ""


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("0", 0),
        ("12", 12),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("0x10", None),
        ("\xb2", None),  # a digit to Python, not to HTTP
        ("9" * 18, 10**18 - 1),
        ("9" * 19, sys.maxsize),
        ("9" * 100_000, sys.maxsize),  # int() would raise
    ],
)
def test_content_length(value: str, length: int | None) -> None:
    assert message(("content-length", value)).content_length == length


def test_body_is_announced_by_a_length_or_a_coding() -> None:
    assert not message().may_have_body
    assert not message(("content-length", "0")).may_have_body
    assert message(("content-length", "1")).may_have_body
    assert message(("transfer-encoding", "chunked")).may_have_body
    assert message().content_length is None


def test_repr_shows_no_header_and_no_query() -> None:
    shown = repr(message(("authorization", "topsecret"), target="/path?api_key=topsecret"))
    assert "topsecret" not in shown
    assert "GET /path" in shown


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/", ("/", "")),
        ("/a?b?c", ("/a", "b?c")),
        ("/a?", ("/a", "")),
        ("http://example.com/a?b", ("/a", "b")),
        ("HTTPS://example.com:8443/a", ("/a", "")),
        ("http://example.com", ("/", "")),
        ("http://example.com?b", ("/", "b")),
        ("http:///a", ("/a", "")),
        ("*", ("*", "")),
        ("", ("", "")),
        # Not absolute forms, however much they look like one.
        ("/http://example.com/a", ("/http://example.com/a", "")),
        ("x?u=http://example.com/a", ("x", "u=http://example.com/a")),
        ("ftp://example.com/a", ("ftp://example.com/a", "")),
        ("example.com:443", ("example.com:443", "")),
        # A fragment stays, so that it can be refused.
        ("/a#b?c", ("/a#b", "c")),
        ("http://example.com#/a", ("/#/a", "")),
        ("/a?b#c", ("/a", "b#c")),
    ],
)
def test_split_target(target: str, parts: tuple[str, str]) -> None:
    assert split_target(target) == parts
    found = message(target=target)
    assert (found.path, found.query) == parts


@given(st.text(st.characters(max_codepoint=255)))
def test_an_origin_form_is_never_changed(rest: str) -> None:
    path, query = split_target("/" + rest)
    assert "/" + rest in (f"{path}?{query}", path)


@given(
    st.binary(), st.lists(st.tuples(st.binary(), st.binary())), st.text(st.characters(max_codepoint=255), max_size=5)
)
def test_no_bytes_raise(target: bytes, headers: list[tuple[bytes, bytes]], method: str) -> None:
    found = Message(method, target, headers)
    assert isinstance(found.path, str)
    assert isinstance(found.query, str)
    assert found.may_have_body in (True, False)
    assert len(found.headers) == len(headers)
    repr(found)
