"""Django admin over HTTP as a browser uses it: a session, CSRF tokens, and the forms as the pages hold them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import requests

from tests.support.served import Served

USER, PASSWORD = "operator", "a long enough password"


class _Form(HTMLParser):
    """The fields of the page's POST forms, with the values a browser would send."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._in_form = False
        self._area: str | None = None
        self._select: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        # A browser leaves out what is disabled.
        name = "" if "disabled" in given else given.get("name", "")
        if tag == "form":
            self._in_form = given.get("method", "").lower() == "post" and given.get("id") != "logout-form"
        elif not self._in_form:
            return
        elif tag == "input" and name:
            kind = given.get("type", "text")
            if kind in ("checkbox", "radio"):
                if "checked" in given:
                    self.fields[name] = given.get("value", "on")
            elif kind not in ("submit", "file"):
                self.fields[name] = given.get("value", "")
        elif tag == "textarea" and name:
            self._area = name
            self.fields[name] = ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in given or self._select not in self.fields):
            self.fields[self._select] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._in_form = False
        elif tag == "textarea" and self._area is not None:
            # A browser drops the first newline, and sends CRLF.
            self.fields[self._area] = self.fields[self._area].removeprefix("\n").replace("\n", "\r\n")
            self._area = None
        elif tag == "select":
            self._select = None

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self.fields[self._area] += data


class Console:
    """A logged-in operator of a served console."""

    def __init__(self, served: Served) -> None:
        self._root = served.console
        self._session = requests.Session()
        self._session.trust_env = False
        if served.operators:
            return
        served.operators = True
        served.python(
            "from django.contrib.auth import get_user_model\n"
            "users = get_user_model().objects\n"
            f"users.create_superuser({USER!r}, '', {PASSWORD!r})"
        )

    def __enter__(self) -> Self:
        answer = self.submit("/admin/login/?next=/admin/", {"username": USER, "password": PASSWORD})
        assert answer.url.endswith("/admin/"), answer.text
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def form(self, path: str) -> dict[str, str]:
        """The fields of the form on a page."""
        answer = self._session.get(self._root + path, timeout=20)
        assert answer.status_code == 200, (path, answer.status_code)
        parser = _Form()
        parser.feed(answer.text)
        assert "csrfmiddlewaretoken" in parser.fields, path
        return parser.fields

    def submit(self, path: str, changes: dict[str, str | None]) -> requests.Response:
        """Fill in a page's form and send it; None unticks a box. Must be accepted; the page that follows."""
        url = self._root + path
        fields = self.form(path)
        for name, value in changes.items():
            if value is None:
                fields.pop(name, None)
            else:
                fields[name] = value
        headers = {"Referer": url}
        answer = self._session.post(url, data=fields, headers=headers, allow_redirects=False, timeout=20)
        errors = re.findall(r'<ul class="errorlist.*?</ul>', answer.text, re.S)
        assert answer.status_code == 302, (path, answer.status_code, errors or answer.text)
        return self._session.get(urljoin(url, answer.headers["Location"]), timeout=20)
