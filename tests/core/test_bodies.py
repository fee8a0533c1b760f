"""core.bodies: Kong's error bodies in the form that Accept asks for, with nothing that breaks out of it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.bodies import preferred, rendered
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import answer
from tests.support.fuzz import examples

JSON = "application/json"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("image/png", JSON),
        ("text/html", "text/html"),
        ("TEXT/HTML; charset=utf-8", "text/html"),
        ("text/*", "text/plain"),
        ("application/*", JSON),
        ("application/xml", "application/xml"),
        # A browser's.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text/html"),
        ("text/plain;q=0.5, application/json;q=0.9", JSON),
        ("text/plain;q=0.9, application/json;q=0.5", "text/plain"),
        ("text/plain, text/html", "text/plain"),
        ("text/plain;q=0, text/html;q=0", JSON),
        ("text/plain;q=x, text/html;q=0.1", "text/html"),
        ("text/html;q=nan", JSON),
        ("text/plain;level=1;q=0.3,text/html;q=0.4", "text/html"),
        (", ,;;,text/plain", "text/plain"),
        ("," * 100_000 + "text/plain", JSON),
    ],
)
def test_what_is_preferred(accept: str | None, kind: str) -> None:
    assert preferred(accept) == kind


def test_the_four_forms() -> None:
    def told(accept: str) -> tuple[str, str]:
        found = answer(Rejected(Reason.MISSING, plugin="hmac-auth", dialect="kong", challenge="hmac"), "id-1", accept)
        headers = dict(found.headers)
        assert (found.status, headers["www-authenticate"]) == (401, "hmac")
        return headers["content-type"], found.body.decode()

    assert told("*/*") == (
        "application/json; charset=utf-8",
        '{\n  "message": "Unauthorized",\n  "request_id": "id-1"\n}\n',
    )
    assert told("text/plain") == ("text/plain; charset=utf-8", "Unauthorized\nrequest_id: id-1\n")
    kind, html = told("text/html")
    assert kind == "text/html; charset=utf-8" and html.startswith("<!doctype html>")
    assert "<p>Unauthorized.</p>" in html and "<p>request_id: id-1</p>" in html
    kind, xml = told("application/xml")
    assert kind == "application/xml; charset=utf-8"
    root = ElementTree.fromstring(xml.encode())
    assert [(child.tag, child.text) for child in root] == [("message", "Unauthorized"), ("requestid", "id-1")]


def test_the_code_goes_along_where_asked_for() -> None:
    rejected = Rejected(Reason.UNKNOWN_KEY, plugin="key-auth", dialect="kong", expose=True)
    assert answer(rejected, "i", "text/plain").body == b"Unauthorized\ncode: unknown_key\nrequest_id: i\n"
    found = json.loads(answer(rejected, "i").body)
    assert found == {"message": "Unauthorized", "code": "unknown_key", "request_id": "i"}


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FFF, exclude_characters="\x7f"), max_size=30)


@settings(max_examples=examples(60), deadline=None)
@given(printable)
def test_no_value_breaks_out(text: str) -> None:
    _, plain = rendered({"message": text}, text, None)
    assert json.loads(plain) == {"message": text, "request_id": text}
    _, xml = rendered({"message": text}, text, "application/xml")
    assert [child.text or "" for child in ElementTree.fromstring(xml.encode())] == [text, text]
    _, html = rendered({"message": text}, text, "text/html")
    tags = Tags()
    tags.feed(html)
    assert tags.names == ["html", "head", "meta", "title", "body", "h1", "p", "p"]


@settings(max_examples=examples(100), deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_accept_is_read(accept: str) -> None:
    assert preferred(accept) in (JSON, "text/plain", "text/html", "application/xml")
