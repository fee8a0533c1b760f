"""Django REST framework: order of authenticators, policies of views, the cache of throttles."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.test import override_settings
from django.urls import include, path
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from hmac_gateway.checks import rest
from hmac_gateway.drf import ConsumerThrottle, HmacAuthentication
from tests.checks.test_protect import GOOD
from tests.support.checks import found, with_settings

HERE = "tests.checks.test_rest"


class Partners(HmacAuthentication):
    """Who sends orders."""

    policy = {"config": GOOD}


class Orders(APIView):
    """A view as the documentation has it."""

    authentication_classes = [HmacAuthentication]
    hmac_policy = {"config": GOOD}

    def get(self, request: Any) -> Response:
        return Response({})


class Throttle(ConsumerThrottle):
    """A site's own."""

    rate = "1/min"


def view(**attributes: Any) -> Any:
    return type("Shown", (Orders,), attributes)


def said(*views: Any, deploy: bool = True) -> dict[str, Any]:
    """The messages about a site with these views."""
    patterns = [path(f"{number}/", shown.as_view()) for number, shown in enumerate(views)]
    namespace: Any = type(sys)("site_urls")
    namespace.urlpatterns = [path("deep/", include((patterns, "deep")))]
    with override_settings(ROOT_URLCONF=namespace):
        return {name.partition(".")[2]: message for name, message in found(deploy=deploy).items()}


def test_views_as_they_should_be() -> None:
    both = [HmacAuthentication, SessionAuthentication]
    assert said(Orders, view(authentication_classes=both), view(throttle_classes=[Throttle])) == {}
    assert said(view(authentication_classes=[Partners], hmac_policy=None)) == {}


def test_a_first_class_without_a_challenge() -> None:
    messages = said(Orders, view(authentication_classes=[SessionAuthentication, Partners]))
    assert list(messages) == ["W020"]
    assert "Shown" in messages["W020"].msg and "Orders" not in messages["W020"].msg
    # Its challenge is another one, but refusals stay 401.
    assert said(view(authentication_classes=[BasicAuthentication, HmacAuthentication])) == {}
    assert said(view(authentication_classes=[SessionAuthentication])) == {}


def test_defaults_of_the_framework() -> None:
    rest.used()  # imports the views, which take the defaults of that moment
    classes = ["rest_framework.authentication.SessionAuthentication", "hmac_gateway.drf.HmacAuthentication"]
    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": classes}):
        messages = found()
    assert list(messages) == ["hmac_gateway.W020"]
    assert "REST_FRAMEWORK" in messages["hmac_gateway.W020"].msg
    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["site.Gone"]}):
        assert found() == {}, "DRF itself complains"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("hmac-auth", "str was given"),
        ({"plugins": "hmac-auth"}, "plugins"),
        ({"plugin": "hmac"}, "allowed: one of basic-auth"),
        ({"plugin": ["hmac-auth"]}, "cannot be used"),
        ({"config": {"clock_skew": 0}}, "clock_skew: 0 was given"),
        ({"config": {"realm": {"secret": "hunter2"}}}, "realm: dict was given"),
    ],
)
def test_a_policy_that_cannot_be_used(policy: Any, words: str) -> None:
    for shown in (
        view(hmac_policy=policy),
        view(authentication_classes=[type("Own", (HmacAuthentication,), {"policy": policy})], hmac_policy=None),
    ):
        message = said(shown)["E014"]
        text = f"{message.msg} {message.hint}"
        assert message.level == 40 and words in text and HERE in text and "hunter2" not in text


def test_methods_that_settings_hold_no_keys_for() -> None:
    with with_settings(CREDENTIALS={"client-1": {"secret_key": "0123456789abcdef"}}):
        assert said(Orders) == {}
        assert list(said(Orders, view(hmac_policy={"plugin": "basic-auth"}))) == ["W024"]


def test_what_a_property_says_only_a_request_can_tell() -> None:
    own = property(lambda self: {"config": GOOD})
    assert said(view(hmac_policy=own, throttle_classes=property(lambda self: [Throttle]))) == {}
    assert said(view(authentication_classes=property(lambda self: [Partners]))) == {}


class Things(ViewSet):
    """Actions with policies of their own."""

    authentication_classes = (SessionAuthentication,)
    hmac_policy: Any = None

    def list(self, request: Any) -> Response:
        return Response({})

    @action(detail=False, authentication_classes=[Partners], hmac_policy={"config": {"clock_skew": 0}})
    def wrong(self, request: Any) -> Response:
        return Response({})


def test_policies_of_actions_and_of_as_view() -> None:
    router = SimpleRouter()
    router.register("things", Things, basename="thing")
    namespace: Any = type(sys)("site_urls")
    namespace.urlpatterns = router.urls
    with override_settings(ROOT_URLCONF=namespace):
        message = found(deploy=True)["hmac_gateway.E014"]
    assert f"{HERE}.Things" in message.msg and "clock_skew" in message.msg
    namespace.urlpatterns = [path("", Orders.as_view(hmac_policy={"config": {"clock_skew": -1}}))]
    with override_settings(ROOT_URLCONF=namespace):
        assert list(found(deploy=True)) == ["hmac_gateway.E014"]


def test_policies_of_views_ask_for_enough() -> None:
    config = {"allowed_algorithms": ["hmac-sha1"], "signed_headers": ["date"], "replay_protection": True, "reallm": "x"}
    messages = said(view(hmac_policy={"config": config}))
    assert sorted(messages) == ["W004", "W006", "W010", "W012"]
    assert "Did you mean 'realm'?" in messages["W010"].hint
    assert sorted(said(view(hmac_policy=None))) == ["W004", "W012"], "the defaults are APISIX's"


@pytest.mark.parametrize(
    ("backend", "alone", "several"),
    [
        ("dummy.DummyCache", ["W016"], ["W016"]),
        ("locmem.LocMemCache", [], ["W016"]),
        ("filebased.FileBasedCache", [], ["W016"]),
        ("db.DatabaseCache", [], ["W016"]),
        ("redis.RedisCache", [], []),
    ],
)
def test_the_cache_of_throttles(
    backend: str, alone: list[str], several: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    place = {"redis.RedisCache": "redis://127.0.0.1:1/0", "db.DatabaseCache": "cache"}.get(backend, str(tmp_path))
    caches = {"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": place}}
    with override_settings(CACHES=caches):
        throttled = view(throttle_classes=[Throttle])
        assert [name for name in said(throttled) if name != "W001"] == alone
        monkeypatch.setenv("WEB_CONCURRENCY", "2")
        messages = said(throttled)
        assert [name for name in messages if name != "W001"] == several
        assert all("Shown" in messages[name].msg for name in several)
        assert [name for name in said(Orders) if name != "W001"] == [], "nobody throttles"


def test_a_site_that_nobody_can_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmac_gateway.checks.credentials.tables_installed", lambda: False)
    assert list(said(Orders)) == ["E010"]
    assert said(view(authentication_classes=[SessionAuthentication])) == {}


def test_urls_that_cannot_be_imported_are_left_to_django() -> None:
    with override_settings(ROOT_URLCONF="site.gone"):
        assert rest.used() == []
        assert list(rest.check_throttles(None)) == [] and list(rest.check_authenticators(None)) == []
