"""core.arguments: query arguments and cookies by name, found and taken away."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.arguments import arguments, decoded, without_arguments, without_cookies

#: Text as queries hold it, with a name often enough that looks like `k` in one spelling or another.
QUERIES = st.text(st.sampled_from("k&=+%6bB;\xe9/? "), max_size=30)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("a", "a"), ("a+b", "a b"), ("%41%2b%2B", "A++"), ("%zz%4", "%zz%4"), ("%C3%A9\xc3\xa9", "\xc3\xa9\xc3\xa9")],
)
def test_decoded(text: str, meant: str) -> None:
    assert decoded(text) == meant


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", []),
        ("k", [None]),
        ("k=", [""]),
        ("k=1", ["1"]),
        ("k=1=2", ["1=2"]),
        ("a=1&k=%31+2&b", ["1 2"]),
        ("%6B=1&k&%6b=3", ["1", None, "3"]),
        ("K=1&kk=1&ak=1", []),
        ("a=k", []),
        ("a;k=1", []),
    ],
)
def test_arguments(query: str, values: list[str | None]) -> None:
    assert arguments(query, "k") == values


def pairs(query: str) -> list[tuple[str, str]]:
    """As the standard library reads a query, which has no valueless arguments."""
    return parse_qsl(query, keep_blank_values=True, encoding="latin-1")


@given(QUERIES)
def test_arguments_as_another_reader_finds_them(query: str) -> None:
    found = [value or "" for value in arguments(query, "k")]
    assert found == [value for name, value in pairs(query) if name == "k"]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("k=1", ""),
        ("k", ""),
        ("a=1&k=2&b=3", "a=1&b=3"),
        ("k=1&a=%zz+%2f&k&%6b=2", "a=%zz+%2f"),
        ("b=2&a=1&b=1", "b=2&a=1&b=1"),
        ("a&&k=1&", "a&&"),
        ("K=1&kk=2&x=k", "K=1&kk=2&x=k"),
    ],
)
def test_without_arguments(query: str, left: str) -> None:
    assert without_arguments(query, {"k"}) == left


@given(QUERIES)
def test_what_is_left_is_what_others_read(query: str) -> None:
    left = without_arguments(query, {"k"})
    assert pairs(left) == [pair for pair in pairs(query) if pair[0] != "k"]
    if not arguments(query, "k"):
        assert left == query


@pytest.mark.parametrize(
    ("header", "left"),
    [
        ("jwt=1", ""),
        (" jwt = 1", ""),
        ("a=1; jwt=2; b=3", "a=1; b=3"),
        ("a=1;jwt=2;b=3", "a=1; b=3"),
        ("jwt=1; jwt=2;", ""),
        ("a=1;b=2", "a=1;b=2"),
        ("JWT=1; xjwt=2; a=jwt", "JWT=1; xjwt=2; a=jwt"),
        ("jwt", ""),
    ],
)
def test_without_cookies(header: str, left: str) -> None:
    assert without_cookies(header, {"jwt"}) == left
