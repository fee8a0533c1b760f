"""Behind a site's page cache: what a credential opened is never given to a caller without a good one of its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_page
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HasConsumer, HmacAuthentication
from tests.support.served import signed

MIDDLEWARE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "hmac_gateway.middleware.HmacGatewayMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
]
KEYS = {"client-1": {"secret_key": "my-hmac-secret", "username": "partner"}}
OTHER = {"client-2": {"secret_key": "my-hmac-secret", "username": "other"}}
POLICY = {"config": {"signed_headers": ["@request-target", "date"]}}
ONCE = {"config": {**POLICY["config"], "replay_protection": True, "replay_methods": ["GET", "HEAD"]}}
SITE = {
    "CREDENTIALS": KEYS | OTHER,
    "PROTECT": [{"path": "^/middleware/", **POLICY}, {"path": "^/once/middleware/", **ONCE}],
}
PUBLIC = "public, max-age=600"
_count = itertools.count()


def text() -> str:
    return f"confidential {next(_count)}"


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(text())


def public(request: HttpRequest) -> HttpResponse:
    return HttpResponse(text(), headers={"Cache-Control": PUBLIC})


class Api(APIView):
    authentication_classes = [HmacAuthentication]
    permission_classes = [HasConsumer]
    hmac_policy: dict[str, Any] = POLICY

    def get(self, request: Any) -> Response:
        return Response(text())


class Public(Api):
    def get(self, request: Any) -> Response:
        return Response(text(), headers={"Cache-Control": PUBLIC})


@method_decorator(cache_page(600), name="dispatch")
class CachedDispatch(Api):
    pass


class CachedGet(Api):
    @method_decorator(cache_page(600))
    def get(self, request: Any) -> Response:
        return super().get(request)


class CachedAnswer(Api):
    @method_decorator(cache_page(600))
    def get(self, request: Any) -> Any:
        # Nothing of DRF's is added to it once it is rendered: it is rendered already.
        return HttpResponse(text())


def variants(policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "middleware/plain": plain,
        "middleware/public": public,
        "middleware/cached": cache_page(600)(plain),
        "decorator/plain": hmac_required(**policy)(plain),
        "decorator/public": hmac_required(**policy)(public),
        "decorator/cached-inside": hmac_required(**policy)(cache_page(600)(plain)),
        "decorator/cached-outside": cache_page(600)(hmac_required(**policy)(plain)),
        "drf/plain": Api.as_view(hmac_policy=policy),
        "drf/public": Public.as_view(hmac_policy=policy),
        "drf/cached-outside": cache_page(600)(Api.as_view(hmac_policy=policy)),
        "drf/cached-dispatch": CachedDispatch.as_view(hmac_policy=policy),
        "drf/cached-get": CachedGet.as_view(hmac_policy=policy),
        "drf/cached-answer": CachedAnswer.as_view(hmac_policy=policy),
    }


urlpatterns = [
    path("open/", plain),
    *(path(name, view) for name, view in variants(POLICY).items()),
    *(path(f"once/{name}", view) for name, view in variants(ONCE).items()),
]
pytestmark = pytest.mark.urls(__name__)
NAMES = list(variants(POLICY))


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with override_settings(MIDDLEWARE=MIDDLEWARE, HMAC_GATEWAY=SITE, CACHE_MIDDLEWARE_SECONDS=600):
        cache.clear()
        yield
        cache.clear()


def get(where: str, headers: dict[str, str] | None = None) -> HttpResponse:
    response: Any = Client().get(where, headers=headers or {})
    return response  # type: ignore[no-any-return]


def opened(response: HttpResponse) -> bool:
    assert response.status_code in (200, 401), response.content
    assert (b"confidential" in response.content) == (response.status_code == 200)
    return response.status_code == 200


def test_the_page_cache_works_for_what_is_open() -> None:
    assert get("/open/").content == get("/open/").content


@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_served_from_the_cache_without_a_good_credential(name: str) -> None:
    where = f"/{name}"
    headers = signed("GET", where)
    for _ in range(2):
        response = get(where, headers)
        assert opened(response)
        assert response["Cache-Control"] == "private, no-store" and "Authorization" in response["Vary"]
        for wrong in ({}, {"authorization": "Basic YTpi"}, signed("GET", where, secret="wrong"), {"date": "x"}):
            assert not opened(get(where, wrong)), wrong
        assert Client().head(where).status_code == 401
    late = signed("GET", where, at=time.time() - 400)
    assert not opened(get(where, late))
    with override_settings(HMAC_GATEWAY={**SITE, "CREDENTIALS": OTHER}):
        assert not opened(get(where, headers)), "revoked"
        assert opened(get(where, signed("GET", where, key_id="client-2")))


@pytest.mark.parametrize("name", NAMES)
def test_replays_are_not_served_from_the_cache(name: str) -> None:
    where = f"/once/{name}"
    headers = signed("GET", where)
    assert opened(get(where, headers))
    assert not opened(get(where, headers))
    assert opened(get(where, signed("GET", where, at=time.time() - 2)))
    assert not opened(get(where, headers))
