"""Routes that the gateway answers itself: how they compile, and that the embedded lane answers them too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client

from consumers.models import Consumer, Credential
from hmac_gateway import site
from hmac_gateway.runtime import Runtime
from proxy.models import Plugin, Route, Service, Upstream
from tests.support.tokens import SECRET

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.support.embedded_site")]


def compiled() -> Any:
    view = Runtime()
    assert view.refresh(), view.problems
    return view.snapshot


def local(config: dict[str, Any] | None = None, **more: Any) -> Route:
    row = Route(id="sign", paths=["/apisix/plugin/jwt/sign"], **more)
    row.save()
    Plugin(name="public-api", route=row, config=config or {}).save()
    return row


def test_a_service_with_public_api_opens_its_routes() -> None:
    service = Service(id="jwt-auth-api", name="jwt-auth-api")
    service.save()
    Plugin(name="public-api", service=service, config={}).save()
    Route(id="a", paths=["/api7/plugin/jwt/sign"], service=service).save()
    (route,) = compiled().routes.routes
    assert set(route.paths) == {"/api7/plugin/jwt/sign", "/apisix/plugin/jwt/sign"}
    assert route.target.local is not None and route.target.upstream is None


def test_an_upstream_is_not_asked() -> None:
    upstream = Upstream(id="u", name="u")
    upstream.save()
    local(upstream=upstream)
    (route,) = compiled().routes.routes
    assert route.target.local is not None and route.target.upstream is None


def test_switched_off_it_is_an_ordinary_route() -> None:
    local({"_meta": {"disable": True}})
    (route,) = compiled().routes.routes
    assert (route.target.local, route.paths) == (None, ("/apisix/plugin/jwt/sign",))


def test_the_embedded_lane(client: Client, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.ALLOWED_HOSTS, settings.MIDDLEWARE = ["*"], []
    row = Consumer(username="joe")
    row.save()
    credential = Credential(consumer=row, plugin="jwt-auth", identifier="joe-key")
    credential.set_secret(SECRET)
    credential.save()
    local()
    found = compiled()
    monkeypatch.setattr(site, "runtime", lambda: SimpleNamespace(current=lambda: found, snapshot=found))
    for path in ("apisix", "api7"):
        answer = client.get(f"/gw/{path}/plugin/jwt/sign", {"key": "joe-key"})
        assert (answer.status_code, answer.content.count(b".")) == (200, 2)
        assert answer["Content-Type"] == "text/plain; charset=utf-8" and answer["X-Request-Id"]
        assert "no-store" in answer["Cache-Control"]
    for query, status, body in (
        ({}, 400, b'{"message":"missing key"}\n'),
        ({"key": "nobody"}, 404, b'{"message":"no usable credential has this key"}\n'),
    ):
        answer = client.get("/gw/apisix/plugin/jwt/sign", query)
        assert (answer.status_code, answer.content) == (status, body)
    assert client.post("/gw/apisix/plugin/jwt/sign?key=joe-key").status_code == 404
