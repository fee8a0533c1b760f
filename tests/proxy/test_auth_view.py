"""The auth endpoint as a Django view: the gateway lane's verdicts, by WSGI and ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path, re_path

from hmac_gateway import site
from hmac_gateway.adapters.heads import Access
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.message import Message
from hmac_gateway.counters import MemoryCounter
from hmac_gateway.settling import Stores
from hmac_gateway.snapshot import Snapshot
from hmac_gateway.stores import MemoryStore
from proxy.auth_view import auth_request_view
from tests.support.engine import NOW, signed

from .test_auth_endpoint import AUTH, CASES, Lane, snapshot

urlpatterns = [
    path(".hmac-gateway/auth", auth_request_view),
    re_path(r"^asked/by-envoy(?P<original>/.*)$", auth_request_view),
]

pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[Any]:
    """A site with the table's routes; what its log was told."""
    settings.ALLOWED_HOSTS = ["*"]
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
    settings.HMAC_GATEWAY = {"TRUSTED_PROXIES": ["127.0.0.1"]}
    store = MemoryStore(100)
    configure(monkeypatch, snapshot())
    stores = Stores(store, MemoryCounter())
    monkeypatch.setattr(site._State, "stores", property(lambda state: stores))
    monkeypatch.setattr("proxy.auth_view.time.time", lambda: NOW)
    told: list[Any] = []
    finished = site.finished

    def listening(access: Access, status: int, rejected: Rejected | None = None) -> None:
        told.append((access, rejected))
        finished(access, status, rejected)

    monkeypatch.setattr(site, "finished", listening)
    return told


def configure(monkeypatch: pytest.MonkeyPatch, found: Snapshot | None) -> None:
    monkeypatch.setattr(site, "runtime", lambda: SimpleNamespace(current=lambda: found))


def headers_of(message: Message) -> dict[str, str]:
    told = {"X-Original-Method": message.method, "X-Original-URI": message.target, "X-Real-IP": "192.0.2.1"}
    told["X-Original-Proto"] = "HTTP/" + message.http_version
    return {name.title(): value for name, value in [*message.headers, *told.items()]}


def ask(message: Message, peer: str = "127.0.0.1", method: str = "get") -> HttpResponse:
    call: Callable[..., HttpResponse] = getattr(Client(enforce_csrf_checks=True), method)
    return call(AUTH, headers=headers_of(message), REMOTE_ADDR=peer)


@pytest.mark.parametrize(
    # Django's test client has one of each header, and always a host.
    "case",
    [name for name in CASES if name not in ("two dates", "two hosts", "no host", "no host, HTTP/1.0")],
)
def test_the_verdict_is_the_gateway_lanes(case: str, seen: list[Any]) -> None:
    there = Lane(snapshot(), proxies=("127.0.0.1",)).auth(CASES[case], ("X-Real-IP", "192.0.2.1"))
    here = ask(CASES[case])
    assert here.status_code == there.status
    assert here.content == there.body
    ((access, rejected),) = seen
    assert (access.reason, access.route_id, access.path) == (there.reason, there.exchange.route_id, there.exchange.path)
    assert (rejected is None) == (there.status == 202)
    got = {name.lower(): value for name, value in here.items()}
    for name in there.headers.keys() - {"x-request-id", "server"}:
        assert got[name] == there.headers[name], name
    assert ("content-type" in got) == ("content-type" in there.headers)
    assert access.request_id == got["x-request-id"]
    assert access.status == there.status


async def ask_async(message: Message) -> Any:
    # The client brings a Host of its own, and would send both.
    headers = {name: value for name, value in headers_of(message).items() if name != "Host"}
    return await AsyncClient().get(AUTH, headers=headers)


def test_by_asgi() -> None:
    response = asyncio.run(ask_async(signed("GET", "/orders")))
    assert response.status_code == 202
    assert response["X-Consumer-Username"] == "alice"
    assert asyncio.run(ask_async(signed("GET", "/orders", secret=b"wrong"))).status_code == 401


def test_strangers_are_not_listened_to() -> None:
    assert ask(signed("GET", "/orders"), peer="192.0.2.1").status_code == 403
    assert ask(signed("GET", "/orders"), peer="").status_code == 403


def test_the_host_is_that_of_host_whatever_the_site_believes(settings: Any, seen: list[Any]) -> None:
    # nginx hands X-Forwarded-Host on from its client; the application gets Host.
    settings.USE_X_FORWARDED_HOST = True
    for host, forged, status in (("shop.test", "host.test", 403), ("host.test", "shop.test", 202)):
        message = Message("GET", "/only-there", [("host", host), ("x-forwarded-host", forged)])
        assert ask(message).status_code == status
        assert seen[-1][0].route_id == ("host" if status == 202 else "")


def test_a_signature_passes_once() -> None:
    assert ask(signed("POST", "/once")).status_code == 202
    assert ask(signed("POST", "/once")).status_code == 401


def test_without_a_configuration_nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, None)
    assert ask(signed("GET", "/orders")).status_code == 403


def test_a_uri_told_twice_is_refused(seen: list[Any]) -> None:
    message = signed("GET", "/orders")
    joined = {**headers_of(message), "X-Original-URI": "/open/x,/orders"}
    assert Client().get(AUTH, headers=joined, REMOTE_ADDR="127.0.0.1").status_code == 403
    assert seen[0][0].reason == "duplicate_header"


def test_any_method_may_ask() -> None:
    for method in ("get", "head", "post", "put"):
        assert ask(signed("GET", "/orders"), method=method).status_code == 202


def test_settings_count_when_they_change(settings: Any) -> None:
    settings.HMAC_GATEWAY = {"TRUSTED_PROXIES": ["192.0.2.1"], "ORIGINAL_HEADERS": {"uri": "X-Forwarded-Uri"}}
    message = signed("GET", "/orders", ("X-Forwarded-Uri", "/orders"))
    assert ask(message, peer="192.0.2.1").status_code == 202
    assert ask(signed("GET", "/orders"), peer="192.0.2.1").status_code == 403


def test_envoy_asks_by_the_path(settings: Any) -> None:
    def ask_as_envoy(target: str, message: Message, peer: str = "127.0.0.1") -> Any:
        headers = {name.title(): value for name, value in message.headers}
        raw = {"RAW_URI": target, "REMOTE_ADDR": peer}
        return Client().generic(message.method, target, headers=headers, **raw)

    settings.HMAC_GATEWAY = {"ORIGINAL_HEADERS": "envoy"}
    for target in ("/orders", "//orders", "/orders%2F1", "/orders?a=b"):
        right = ask_as_envoy("/asked/by-envoy" + target, signed("POST", target))
        assert (right.status_code, right["X-Consumer-Username"]) == (200, "alice"), target
        assert "X-Anonymous-Consumer".lower() in right["X-Envoy-Auth-Headers-To-Remove"]
    assert ask_as_envoy("/asked/by-envoy/orders", signed("GET", "/other")).status_code == 401
    assert ask_as_envoy("/asked/by-envoy/orders", signed("GET", "/orders"), "192.0.2.1").status_code == 403
    settings.HMAC_GATEWAY = {}
    assert ask_as_envoy("/asked/by-envoy/orders", signed("GET", "/orders")).status_code == 403
