"""core.paths: decoded paths, APISIX's signed form, and paths that must never pass."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core import paths
from hmac_gateway.core.paths import ambiguity, decoded, signed_form

bytes_as_text = st.text(st.characters(max_codepoint=255))
path_text = st.lists(
    st.sampled_from(
        ["/", "//", "a", "b", ".", "..", "%2e", "%2E", "%2f", "%25", "%252f", "%", "%zz", "%41", "\\", ";x"]
    )
).map("".join)


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("/", "/"),
        ("", "/"),
        ("/a/b", "/a/b"),
        ("/he%6Clo", "/hello"),
        ("/a%20b", "/a b"),
        ("/caf%C3%A9", "/caf\xc3\xa9"),
        ("//a///b//", "/a/b/"),
        ("/a%2F%2Fb", "/a/b"),
        ("/%zz%", "/%zz%"),
        ("/%2541", "/%41"),  # once, not twice
        ("/a+b", "/a+b"),
    ],
)
def test_decoded(path: str, result: str) -> None:
    assert decoded(path) == result


@pytest.mark.parametrize(
    ("path", "form"), [("/he%6Clo", "/hello"), ("/a b".replace(" ", "%20"), "/a b"), ("//a", "/a"), ("/a", "/a")]
)
def test_signed_form(path: str, form: str) -> None:
    assert signed_form(path) == form


@pytest.mark.parametrize(
    "escape",
    ["%2F", "%2f", "%3F", "%3f", "%23", "%0D", "%0d", "%0A", "%0a", "%00"],
)
def test_decoding_must_not_produce_what_changes_the_meaning(escape: str) -> None:
    assert signed_form(f"/a{escape}b") is None


@pytest.mark.parametrize("path", ["/a%252Fb", "/a%2520b", "/a%25%32Fb", "/a%2%46b", "/%%41B"])
def test_decoding_must_not_produce_another_escape(path: str) -> None:
    # Else a signature over the raw path `/a%2Fb` would hold for `/a%252Fb` too.
    assert signed_form(path) is None


def test_a_lone_percent_is_harmless() -> None:
    assert signed_form("/100%25") == "/100%"
    assert signed_form("/%25zz") == "/%zz"


@pytest.mark.parametrize(
    "path",
    [
        "/.",
        "/..",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/%2e%2e/b",
        "/%2E./b",
        "/a%2f..%2fb",
        "/a/%252e%252e/b",
        "/a/%25252e%25252e/b",
        "/a/..;x/b",
        "/a/..%3bx/b",
        "/a\\b",
        "/a%5cb",
        "/a%255Cb",
        "/a%00b",
        "/a%0db",
        "/a%0Ab",
        "/a%250ab",
        "/a b",
        "/a\tb",
        "/a\x7fb",
        "/a\x00b",
        "/a#b",
        "/#",
        "*",
        "",
        "a/b",
        "example.com:443",
        "/%" + "25" * 9 + "41",
    ],
)
def test_ambiguous(path: str) -> None:
    assert ambiguity(path) is not None
    assert signed_form(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/b/",
        "//a",
        "/a..b",
        "/..a",
        "/a/...",
        "/.well-known/x",
        "/a%2Fb",
        "/a%20b",
        "/a%3Fb",
        "/%zz",
        "/100%",
        "/caf\xe9",
        "/a;x=1/b",
    ],
)
def test_plain(path: str) -> None:
    assert ambiguity(path) is None


@pytest.mark.parametrize("path", ["/;/admin", "/;x=1/admin", "/a/;b", "/%3Bx/admin", "/%253b/admin"])
def test_segments_that_some_servers_drop(path: str) -> None:
    assert ambiguity(path) == "the path holds a segment of parameters only"


def test_reasons_are_words_for_the_client() -> None:
    assert ambiguity("/a/../b") == "the path holds a dot segment"
    assert ambiguity("/a#b") == "the request target holds a fragment"


@given(st.one_of(bytes_as_text, path_text))
def test_nothing_raises(path: str) -> None:
    decoded(path)
    ambiguity(path)
    signed_form(path)


@given(path_text.map(lambda rest: "/" + rest))
def test_plain_paths_have_no_dot_segment_however_often_they_are_decoded(path: str) -> None:
    if ambiguity(path) is not None:
        return
    seen = path
    for _ in range(20):
        assert not {".", ".."} & set(seen.split("/"))
        seen = unquote_to_bytes(seen.encode("latin-1")).decode("latin-1")


@given(path_text.map(lambda rest: "/" + rest), path_text.map(lambda rest: "/" + rest))
def test_a_signed_form_is_never_another_paths_raw_form_with_another_meaning(one: str, other: str) -> None:
    if signed_form(one) != other or one == other:
        return
    # They differ by escapes of plain characters and by repeated slashes only.
    assert decoded(other) == decoded(one)


@given(bytes_as_text)
def test_decoding_undoes_quoting(text: str) -> None:
    path = "/" + text.replace("/", "")
    assert decoded(quote(path.encode("latin-1"))) == path


def test_long_paths_are_not_kept() -> None:
    sizes = (paths._decoded.cache_info().currsize, paths._ambiguity.cache_info().currsize)
    for number in range(10):
        long = f"/{number}" + "%41" * 100
        assert decoded(long) == f"/{number}" + "A" * 100
        assert ambiguity(long) is None
    assert (paths._decoded.cache_info().currsize, paths._ambiguity.cache_info().currsize) == sizes
