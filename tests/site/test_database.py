"""The middleware with consumers and *this site* routes in the database: queries, changes, faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import OperationalError, connection
from django.test import AsyncClient, Client, TestCase, TransactionTestCase, override_settings
from django.test.utils import CaptureQueriesContext

from hmac_gateway import site
from tests.settings import HMAC_GATEWAY
from tests.support.served import signed

MIDDLEWARE = ["hmac_gateway.middleware.HmacGatewayMiddleware"]
SITE = {**HMAC_GATEWAY, "PROTECT": ["^/api/"], "REFRESH_SECONDS": 0.25}

pytestmark = [pytest.mark.urls("tests.site.urls"), pytest.mark.django_db]


def model(label: str) -> Any:
    return apps.get_model(label)


def credential(key_id: str = "client-1", secret: str = "my-hmac-secret", name: str = "partner") -> Any:
    consumer, _ = model("hmac_consumers.Consumer").objects.get_or_create(username=name)
    row = model("hmac_consumers.Credential")(consumer=consumer, plugin="hmac-auth", identifier=key_id, public_id=key_id)
    row.set_secret(secret)
    row.save()
    return row


def site_route(key: str, *paths: str, plugin: str = "hmac-auth", config: Any = None, **more: Any) -> Any:
    route = model("hmac_proxy.Route").objects.create(id=key, paths=list(paths), this_site=True, **more)
    model("hmac_proxy.Plugin").objects.create(name=plugin, route=route, config=config or {})
    return route


@pytest.fixture(autouse=True)
def settings_of_the_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A runtime of the test's own.
    monkeypatch.setattr(site, "_runtime", None)
    with override_settings(MIDDLEWARE=MIDDLEWARE, HMAC_GATEWAY=SITE):
        yield


def get(path: str, **more: Any) -> int:
    return int(Client().get(path, headers=signed("GET", path, **more)).status_code)


def test_a_route_of_the_admin_protects_at_once_and_by_method_and_host() -> None:
    credential()
    assert Client().get("/orders/1").status_code == 200
    site_route("orders", "/orders/*", methods=["GET"], hosts=["testserver"])
    assert Client().get("/orders/1").status_code == 401
    assert get("/orders/1") == 200
    assert Client().post("/orders/1").status_code == 200
    assert Client(headers={"host": "localhost"}).get("/orders/1").status_code == 200
    model("hmac_proxy.Route").objects.filter(pk="orders").update(enabled=False)
    assert Client().get("/orders/1").status_code == 200


def test_routes_of_the_gateway_do_not_protect_this_site() -> None:
    route = model("hmac_proxy.Route").objects.create(id="r", paths=["/orders/*"])
    model("hmac_proxy.Plugin").objects.create(name="hmac-auth", route=route, config={})
    assert Client().get("/orders/1").status_code == 200


def test_routes_beyond_ascii() -> None:
    site_route("umlaut", "/größe/*")
    for path in ("/größe/x", "/gr%C3%B6%C3%9Fe/x", "/%67r%C3%B6%C3%9Fe//x"):
        assert Client().get(path).status_code == 401, path


def test_routes_of_kongs_dialect_protect_too() -> None:
    credential()
    site_route("k", "~/orders/[0-9]+$", dialect="kong", methods=["GET"], headers={"x-version": ["2"]})
    two = {"X-Version": "2"}
    assert Client(headers=two).get("/orders/1").status_code == 401
    assert Client(headers=two).get("/orders/%31").status_code == 401
    assert Client().get("/orders/1", headers={**two, **signed("GET", "/orders/1")}).status_code == 200
    assert Client().get("/orders/1").status_code == 200
    assert Client(headers=two).post("/orders/1").status_code == 200
    assert Client(headers=two).get("/orders/1/x").status_code == 200


def test_the_admin_may_tighten_what_settings_ask_but_not_take_it_away() -> None:
    credential()
    assert get("/api/x", listed=("date",)) == 200
    route = site_route("strict", "/api/*", config={"signed_headers": ["@request-target", "date"]})
    assert get("/api/x", listed=("date",)) == 401
    assert get("/api/x") == 200
    route.plugins.all().delete()
    assert Client().get("/api/x").status_code == 401


def test_queries() -> None:
    credential()
    assert get("/api/x") == 200
    with CaptureQueriesContext(connection) as queries:
        assert get("/api/x") == 200
    assert len(queries) == 0
    time.sleep(0.3)
    with CaptureQueriesContext(connection) as queries:
        assert get("/api/x") == 200
        assert get("/api/x") == 200
    assert len(queries) == 1 and "configversion" in queries[0]["sql"]


def test_a_revocation_made_here_is_enforced_by_the_next_request() -> None:
    row = credential()
    assert get("/api/x") == 200
    row.enabled = False
    row.save()
    assert get("/api/x") == 401
    row.delete()
    assert get("/api/x") == 401


def test_nothing_is_served_while_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr("django.db.backends.utils.CursorWrapper.execute", away)
        for path in ("/api/x", "/other"):
            response = Client().get(path)
            assert response.status_code == 503 and response.json() == {"message": "configuration not loaded"}
    site.runtime().refresh()
    assert Client().get("/other").status_code == 200


@pytest.mark.parametrize("route", [False, True])
def test_with_wrong_keys_nobody_is_let_in_where_a_credential_is_needed(route: bool) -> None:
    credential()
    if route:
        site_route("orders", "/orders/*")
    keys = ["d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3I="]
    with override_settings(HMAC_GATEWAY={**SITE, "ENCRYPTION_KEYS": keys}):
        assert get("/api/x") == get("/other/%2e%2e/api/x") == 503
        # Of a route nothing is known but that there is one.
        assert get("/orders/1") == get("/other") == (503 if route else 200)


@pytest.mark.django_db(transaction=True)
def test_before_migrate_only_what_the_settings_name_is_closed() -> None:
    tables = connection.introspection.table_names()
    ours = [table for table in tables if table.startswith("hmac_")]
    with connection.schema_editor() as editor:
        for table in ours:
            editor.execute(f"ALTER TABLE {table} RENAME TO away_{table}")
    try:
        assert get("/api/x") == 503
        assert get("/other") == 200
    finally:
        with connection.schema_editor() as editor:
            for table in ours:
                editor.execute(f"ALTER TABLE away_{table} RENAME TO {table}")
    site.runtime().refresh()
    assert Client().get("/api/x").status_code == 401


def test_the_last_configuration_serves_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(using: str) -> Any:
        raise OperationalError("connection refused")

    credential()
    assert get("/api/x") == 200
    monkeypatch.setattr("hmac_gateway.runtime._version", away)
    site.runtime().refresh()
    assert get("/api/x") == 200
    assert Client().get("/api/x").status_code == 401


@pytest.mark.django_db(transaction=True)
def test_async() -> None:
    credential()
    site_route("orders", "/async/api/*")

    async def ask() -> list[int]:
        client = AsyncClient()
        path = "/async/api/seen/"
        unsigned = await client.get(path)
        response = await client.get(path, headers=signed("GET", path))
        return [unsigned.status_code, response.status_code, (await client.get("/public/")).status_code]

    assert asyncio.run(ask()) == [401, 200, 200]


class HostsOwnTests:
    """A host's tests run in transactions that are rolled back: the same version number, another content."""

    def check(self, secret: str) -> None:
        assert get("/api/x", secret=secret) == 401
        credential(secret=secret)
        assert get("/api/x", secret=secret) == 200
        assert get("/api/x", secret="another") == 401

    def test_one(self) -> None:
        self.check("one")

    def test_three(self) -> None:
        self.check("three")

    def test_two(self) -> None:
        self.check("two")


class TestInTransactions(HostsOwnTests, TestCase):
    pass


class TestWithFlushes(HostsOwnTests, TransactionTestCase):
    pass
