"""The line about targets that were rebuilt: once, where it matters, with what to do."""

from __future__ import annotations

import logging

import pytest
from django.core import mail
from django.test import AsyncRequestFactory, RequestFactory

from hmac_gateway.adapters import rebuilt
from hmac_gateway.adapters.heads import message_of, raw_target


@pytest.fixture(autouse=True)
def production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilt, "_told", False)
    monkeypatch.delattr(mail, "outbox")


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert not message_of(RequestFactory().get("/a%2fb", SERVER_SOFTWARE="Granian")).target_exact
    [record] = caplog.records
    assert record.name == "hmac_gateway.verify" and record.levelno == logging.WARNING
    text = record.getMessage()
    assert text.startswith("Granian does not keep") and "ASGI" in text and "REQUEST_URI" in text and "%2F" in text


def test_it_is_said_of_asgi_servers_too(caplog: pytest.LogCaptureFixture) -> None:
    assert not message_of(AsyncRequestFactory().get("/a")).target_exact
    assert "this server does not keep" in caplog.text


@pytest.mark.parametrize("server", ["WSGIServer/0.2 CPython/3.11.7"])
def test_not_under_runserver(caplog: pytest.LogCaptureFixture, server: str) -> None:
    message_of(RequestFactory().get("/a", SERVER_SOFTWARE=server))
    assert not caplog.records


def test_not_in_test_runs(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    message_of(RequestFactory().get("/a", SERVER_SOFTWARE="Granian"))
    assert not caplog.records


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize(
    ("target", "path"),
    # As gunicorn 27, uWSGI 2.0.30 and waitress 3.0 were seen to give them, absolute form and empty query included.
    [("/a%20b/%2F..x?q=%41&r", "/a%20b/%2F..x"), ("http://h/a%2fb?x", "/a%2fb"), ("/a?", "/a"), ("//a", "//a")],
)
def test_servers_that_keep_the_target(caplog: pytest.LogCaptureFixture, name: str, target: str, path: str) -> None:
    request = RequestFactory().get("/decoded", **{name: target})
    assert raw_target(request) == (target, True)
    message = message_of(request)
    assert message.target_exact and message.path == path and not caplog.records
