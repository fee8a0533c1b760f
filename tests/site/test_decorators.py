"""@hmac_required on plain views, sync and async."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.vary import vary_on_cookie
from django.views.generic import View
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway import decorators
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.decorators import hmac_required
from hmac_gateway.models import ReplayMark
from tests.support.served import digest_of, signed

SITE: dict[str, Any] = {
    "CREDENTIALS": {
        "client-1": {"secret_key": "my-hmac-secret", "username": "partner"},
        "guest": {"secret_key": "x", "username": "guest"},
    }
}
BODY = {"signed_headers": ["@request-target", "date", "digest"], "validate_request_body": True}


@hmac_required
def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.hmac.consumer.username)  # type: ignore[attr-defined]


@hmac_required(config=BODY)
def bodies(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


@hmac_required(config={"anonymous_consumer": "guest"})
def guests(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.POST.get("a", "none"))


@hmac_required(config={**BODY, "replay_protection": True})
async def later(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body)


class AsyncReports(View):
    async def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.body)


class Reports(View):
    def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.body)


@api_view(["POST"])
@authentication_classes([])
@permission_classes([])
@hmac_required(config=BODY)
def rest_function(request: Request) -> Response:
    if "missing" in request.data:
        raise NotFound
    return Response({"for": request.hmac.consumer.username, "data": request.data})  # type: ignore[attr-defined]


class RestMethod(APIView):
    authentication_classes = ()
    permission_classes = ()

    @method_decorator(hmac_required(config=BODY))
    def post(self, request: Request) -> Response:
        return Response({"for": request.hmac.consumer.username, "data": request.data})  # type: ignore[attr-defined]


@hmac_required
def nowhere(request: HttpRequest) -> HttpResponse:
    raise Http404


as_a_whole = method_decorator([vary_on_cookie, hmac_required(config=BODY)], name="dispatch")
urlpatterns = [
    path("plain/", plain),
    path("bodies/", bodies),
    path("guests/", guests),
    path("later/", later),
    path("class/", as_a_whole(Reports).as_view()),
    path("class/async/", as_a_whole(AsyncReports).as_view()),
    path("nowhere/", nowhere),
    path("rest/function/", rest_function),
    path("rest/method/", RestMethod.as_view()),
]
pytestmark = pytest.mark.urls(__name__)
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with override_settings(MIDDLEWARE=MIDDLEWARE, HMAC_GATEWAY=SITE):
        yield


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


def test_plain(client: Client) -> None:
    assert client.get("/plain/").status_code == 401
    response = client.post("/plain/", headers=signed("POST", "/plain/"))
    assert response.content == b"partner"
    assert response["Cache-Control"] == "private, no-store" and response["Vary"] == "Authorization"


def body_headers(where: str, body: bytes) -> dict[str, str]:
    return signed("POST", where, listed=BODY["signed_headers"], headers={"digest": digest_of(body)})  # type: ignore[arg-type]


def test_bodies(client: Client) -> None:
    headers = body_headers("/bodies/", b"hello")
    assert client.post("/bodies/", b"hello", content_type="text/plain", headers=headers).content == b"hello"
    assert client.post("/bodies/", b"hallo", content_type="text/plain", headers=headers).status_code == 401


def test_csrf_is_checked_for_anonymous_callers(client: Client) -> None:
    assert client.get("/guests/").content == b"none"
    assert client.post("/guests/", {"a": "1"}).status_code == 403
    assert client.post("/guests/", {"a": "1"}, headers=signed("POST", "/guests/")).content == b"1"
    client.cookies[settings.CSRF_COOKIE_NAME] = token = "a" * 32
    assert client.post("/guests/", {"a": "1", "csrfmiddlewaretoken": token}).content == b"1"


def test_async() -> None:
    async_to_sync(ask_the_async_view)()


@pytest.mark.django_db
def test_an_async_view_under_wsgi_stores_its_mark_by_the_connection_of_its_thread() -> None:
    """Each request has an event loop of its own there: whatever belongs to that is left behind with it."""
    headers = body_headers("/later/", b"stored")
    with override_settings(HMAC_GATEWAY={**SITE, "REPLAY_STORE": "database"}):
        with CaptureQueriesContext(connection) as queries:
            response = Client().post("/later/", b"stored", content_type="text/plain", headers=headers)
        assert response.content == b"stored" and any("hmac_gateway_replaymark" in each["sql"] for each in queries)
        assert Client().post("/later/", b"stored", content_type="text/plain", headers=headers).status_code == 401


@pytest.mark.django_db
def test_an_async_view_in_the_transaction_of_a_test() -> None:
    """Whatever the test has written: its database is not locked for the mark, which goes with the test."""
    ReplayMark.objects.create(key="written by the test", expires_at=int(time.time()) + 60)
    headers = body_headers("/later/", b"tested")

    async def ask() -> list[int]:
        client = AsyncClient()
        post = {"content_type": "text/plain", "headers": headers}
        return [(await client.post("/later/", b"tested", **post)).status_code for _ in range(2)]

    with override_settings(HMAC_GATEWAY={**SITE, "REPLAY_STORE": "database"}):
        assert async_to_sync(ask)() == [200, 401]
    assert ReplayMark.objects.count() == 2


def test_where_no_token_is_needed_no_thread_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        headers = body_headers("/later/", b"once")
        response = await AsyncClient().post("/later/", b"once", content_type="text/plain", headers=headers)
        assert response.content == b"once"

    monkeypatch.delattr(decorators, "_csrf")
    async_to_sync(ask)()


@pytest.mark.parametrize("where", ["/class/", "/class/async/"])
def test_class_based_views(where: str) -> None:
    headers = body_headers(where, b"hello")
    sync = Client(enforce_csrf_checks=True)
    assert sync.post(where, b"hallo", content_type="text/plain", headers=headers).status_code == 401
    assert sync.post(where, b"hello", content_type="text/plain", headers=headers).content == b"hello"

    async def ask() -> None:
        client = AsyncClient(enforce_csrf_checks=True)
        assert (await client.post(where, b"hallo", content_type="text/plain", headers=headers)).status_code == 401
        response = await client.post(where, b"hello", content_type="text/plain", headers=headers)
        assert response.content == b"hello" and response["Cache-Control"] == "private, no-store"
        assert response["Vary"] == "Authorization, Cookie" or response["Vary"] == "Cookie, Authorization"

    async_to_sync(ask)()


@pytest.mark.parametrize("where", ["/rest/function/", "/rest/method/"])
def test_within_a_view_of_django_rest_framework(client: Client, where: str) -> None:
    headers = body_headers(where, b'{"a": 1}')
    assert client.post(where, b'{"a": 2}', content_type="application/json", headers=headers).status_code == 401
    response = client.post(where, b'{"a": 1}', content_type="application/json", headers=headers)
    assert response.json() == {"for": "partner", "data": {"a": 1}}
    assert response["Cache-Control"] == "private, no-store" and "Authorization" in response["Vary"]
    form = b"a=1&b=2"
    kind = "application/x-www-form-urlencoded"
    response = client.post(where, form, content_type=kind, headers=body_headers(where, form))
    assert response.json()["data"] == {"a": "1", "b": "2"}


def test_what_such_a_view_raises_is_not_stored_either() -> None:
    body, middleware = b'{"missing": 1}', ["hmac_gateway.middleware.HmacGatewayMiddleware", *MIDDLEWARE]
    headers = body_headers("/rest/function/", body)
    with override_settings(MIDDLEWARE=middleware):
        found = Client().post("/rest/function/", body, content_type="application/json", headers=headers)
    assert found.status_code == 404 and found["Cache-Control"] == "private, no-store"


def test_the_answer_to_what_a_view_raises_is_not_stored_either() -> None:
    middleware = ["hmac_gateway.middleware.HmacGatewayMiddleware", *MIDDLEWARE]
    with override_settings(MIDDLEWARE=middleware):
        found = Client().get("/nowhere/", headers=signed("GET", "/nowhere/"))
        unsigned = Client().get("/missing/")
    assert (found.status_code, unsigned.status_code) == (404, 404)
    assert found["Cache-Control"] == "private, no-store" and found["Vary"] == "Authorization"
    assert not unsigned.has_header("Cache-Control")


async def ask_the_async_view() -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    headers = body_headers("/later/", b"hello")
    assert (await client.post("/later/", b"hello", content_type="text/plain")).status_code == 401
    response = await client.post("/later/", b"hello", content_type="text/plain", headers=headers)
    assert response.content == b"hello"
    response = await client.post("/later/", b"hello", content_type="text/plain", headers=headers)
    assert response.status_code == 401


def test_wrong_configuration_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match="clock_skew"):
        hmac_required(config={"clock_skew": 0})
    with pytest.raises(ConfigError, match="hmac-aut"):
        hmac_required(plugin="hmac-aut")
