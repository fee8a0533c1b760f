"""HmacAuthentication, HasConsumer and ConsumerThrottle on Django's test client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.test import Client, override_settings
from django.urls import path
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView

from hmac_gateway.core.credential import Consumer
from hmac_gateway.drf import ConsumerThrottle, ConsumerUser, HasConsumer, HmacAuthentication
from hmac_gateway.models import ReplayMark
from tests.support.served import digest_of, signed

SECRET = "my-hmac-secret"
SITE: dict[str, Any] = {
    "CREDENTIALS": {
        "client-1": {"secret_key": SECRET, "username": "partner", "labels": {"tier": "gold"}, "groups": ["ops"]},
        "client-2": {"secret_key": SECRET, "username": "other"},
        "guest": {"secret_key": "x", "username": "guest"},
    }
}
MIDDLEWARE = ["hmac_gateway.middleware.HmacGatewayMiddleware"]


class Base(APIView):
    authentication_classes = [HmacAuthentication]
    permission_classes: Any = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        auth = request.auth
        return Response({"user": str(request.user), "labels": auth.labels if auth else None})

    def post(self, request: Request) -> Response:
        return Response({"user": str(request.user), "data": request.data})


class Explicit(HmacAuthentication):
    policy = {"config": {"expose_reason": True}}


class Bodies(Base):
    hmac_policy = {"config": {"signed_headers": ["@request-target", "date", "digest"], "validate_request_body": True}}


class Once(Base):
    hmac_policy = {"config": {"replay_protection": True}}


class Shortly(Base):
    hmac_policy = {"config": {"replay_protection": True, "clock_skew": 10}}


class Open(Base):
    permission_classes = [AllowAny]


class Guests(Base):
    permission_classes = [AllowAny]
    hmac_policy = {"config": {"anonymous_consumer": "guest"}}


class Told(Base):
    hmac_policy = {"config": {"expose_reason": True}}


class Codes(Base):
    def get_exception_handler(self) -> Any:
        return lambda error, context: Response({"codes": error.get_codes()}, error.status_code)


class Slow(ConsumerThrottle):
    rate = "3/hour"


class Throttled(Base):
    throttle_classes = [Slow]


class Rest(UserRateThrottle):
    rate = "3/hour"


urlpatterns = [
    path("plain/", Base.as_view()),
    path("bodies/", Bodies.as_view()),
    path("once/", Once.as_view()),
    path("once/300/", Once.as_view()),
    path("once/10/", Shortly.as_view()),
    path("open/", Open.as_view()),
    path("guests/", Guests.as_view()),
    path("told/", Told.as_view()),
    path("codes/", Codes.as_view()),
    path("codes/told/", Codes.as_view(authentication_classes=[Explicit])),
    path("throttled/", Throttled.as_view()),
    path("rest/throttled/", Base.as_view(throttle_classes=[Rest])),
    path("named/", Base.as_view(permission_classes=[HasConsumer.named("partner")])),
    path("group/", Base.as_view(permission_classes=[HasConsumer.in_group("ops", "x")])),
    path("label/", Base.as_view(permission_classes=[HasConsumer.labelled(tier="gold")])),
    path("both/", Base.as_view(permission_classes=[HasConsumer.named("other") | HasConsumer.in_group("ops")])),
    path("anyone/", Guests.as_view(permission_classes=[HasConsumer])),
]
pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with override_settings(MIDDLEWARE=[], HMAC_GATEWAY=SITE):
        cache.clear()
        yield


def get(where: str, key_id: str = "client-1", **more: Any) -> Any:
    return Client().get(where, headers=signed("GET", where, key_id=key_id, **more))


def test_signed() -> None:
    response = get("/plain/")
    assert response.status_code == 200, response.content
    assert response.json() == {"user": "partner", "labels": {"tier": "gold"}}
    assert response["Cache-Control"] == "private, no-store"
    assert response["Vary"] == "Accept, Authorization"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Token abc"}])
def test_nothing_presented(headers: dict[str, str]) -> None:
    response = Client().get("/plain/", headers=headers)
    assert response.status_code == 401 and response["WWW-Authenticate"] == 'hmac realm="hmac"'
    assert "detail" in response.json()
    response = Client().get("/open/", headers=headers)
    assert response.status_code == 200 and "Authorization" in response["Vary"]


@pytest.mark.parametrize("key_id", ["client-1", "nobody"])
def test_bad_signatures_and_unknown_keys_read_alike(key_id: str) -> None:
    for where in ("/plain/", "/open/"):
        response = get(where, key_id, secret="wrong")
        assert response.status_code == 401
        assert response.json() == {"detail": "client request can't be validated", "code": "authentication_failed"}
        assert response["WWW-Authenticate"] == 'hmac realm="hmac"'
        assert response["Cache-Control"] == "private, no-store"


def test_the_reason_where_it_is_asked_for() -> None:
    assert get("/told/", secret="wrong").json()["code"] == "signature_mismatch"


@pytest.mark.parametrize(
    ("where", "headers", "code"),
    [
        ("/codes/", {"secret": "wrong"}, "authentication_failed"),
        ("/codes/told/", {"secret": "wrong"}, "signature_mismatch"),
        ("/codes/", {"target": "/codes/./"}, "ambiguous_path"),
    ],
)
def test_exception_handlers_of_a_site_find_the_code(where: str, headers: dict[str, str], code: str) -> None:
    target = headers.pop("target", where)
    response = Client().get(where, headers=signed("GET", target, **headers), RAW_URI=target)
    assert response.status_code in (400, 401)
    assert set(response.json()["codes"].values()) == {code}


def test_bodies() -> None:
    body = b'{"a": 1}'
    listed = ["@request-target", "date", "digest"]
    headers = signed("POST", "/bodies/", listed=listed, headers={"digest": digest_of(body)})
    response = Client().post("/bodies/", body, content_type="application/json", headers=headers)
    assert response.status_code == 200 and response.json()["data"] == {"a": 1}
    response = Client().post("/bodies/", b'{"a": 2}', content_type="application/json", headers=headers)
    assert response.status_code == 401


def test_replays() -> None:
    headers = signed("POST", "/once/")
    assert Client().post("/once/", headers=headers).status_code == 200
    response = Client().post("/once/", headers=headers)
    assert response.status_code == 401 and response.json()["detail"].endswith("replayed")


@pytest.mark.parametrize(
    ("where", "first", "second"),
    [("/named/", 200, 403), ("/group/", 200, 403), ("/label/", 200, 403), ("/both/", 200, 200), ("/anyone/", 200, 200)],
)
def test_has_consumer(where: str, first: int, second: int) -> None:
    assert get(where).status_code == first
    assert get(where, "client-2").status_code == second
    assert Client().get(where).status_code == (403 if where == "/anyone/" else 401)


def test_a_consumer_without_a_user_is_asked_for_groups_and_permissions_like_one() -> None:
    """As permission classes and signals of a site ask anybody who calls. Nothing is there, and nothing is queried."""
    user: Any = ConsumerUser(Consumer("1", "partner"))
    assert not user.groups.filter(name="editors").exists() and not user.user_permissions.all()
    assert not user.get_all_permissions() | user.get_group_permissions() | user.get_user_permissions()
    missing = {name for name in dir(AnonymousUser) if not name.startswith(("_", "a")) and not hasattr(user, name)}
    assert missing <= {"check_password", "set_password", "save", "delete"}


def test_anonymous_consumers_are_not_authenticated() -> None:
    assert Client().get("/guests/").json() == {"user": "guest", "labels": None}


@pytest.mark.parametrize("name", ["Acme Corp", "x" * 256, "Größe"])
def test_throttles_count_consumers_of_any_name(name: str) -> None:
    """Keys are such that memcached takes them; other caches warn, which is an error here."""
    entry = {"secret_key": SECRET, "username": name}
    with override_settings(HMAC_GATEWAY={"CREDENTIALS": {"client-1": entry, "client-2": {**entry, "username": "y"}}}):
        for where in ("/throttled/", "/rest/throttled/"):
            assert [get(where).status_code for _ in range(4)] == [200, 200, 200, 429]
            assert get(where, "client-2").status_code == 200


def test_throttle() -> None:
    assert [get("/throttled/").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert int(get("/throttled/")["Retry-After"]) <= 3600
    assert get("/throttled/", "client-2").status_code == 200


@override_settings(MIDDLEWARE=MIDDLEWARE)
def test_with_the_middleware_nothing_is_verified_twice() -> None:
    with override_settings(HMAC_GATEWAY={**SITE, "PROTECT": [{"path": "^/", "config": {"replay_protection": True}}]}):
        for where in ("/once/", "/plain/"):
            assert Client().post(where, headers=signed("POST", where)).status_code == 200
        headers = signed("POST", "/once/", at=time.time() - 5)
        assert Client().post("/once/", headers=headers).status_code == 200
        assert Client().post("/once/", headers=headers).status_code == 401


@pytest.mark.django_db
@pytest.mark.parametrize(("middleware", "view"), [(10, 300), (300, 10)])
def test_of_two_policies_the_longer_time_is_kept(middleware: int, view: int) -> None:
    """Else a signature that the one view still takes could be repeated where the other is not asked."""
    config = {"replay_protection": True, "clock_skew": middleware}
    site = {**SITE, "REPLAY_STORE": "database", "PROTECT": [{"path": "^/", "config": config}]}
    with override_settings(MIDDLEWARE=MIDDLEWARE, HMAC_GATEWAY=site):
        headers = signed("POST", f"/once/{view}/")
        assert Client().post(f"/once/{view}/", headers=headers).status_code == 200
        mark = ReplayMark.objects.get()
        assert abs(mark.expires_at - time.time() - 602) < 10
        assert Client().post(f"/once/{view}/", headers=headers).status_code == 401


@override_settings(MIDDLEWARE=MIDDLEWARE)
def test_a_stricter_view_is_not_satisfied_by_the_middleware() -> None:
    with override_settings(HMAC_GATEWAY={**SITE, "PROTECT": ["^/"]}):
        assert get("/bodies/", listed=("date",)).status_code == 401
        assert get("/plain/", listed=("date",)).status_code == 200


@pytest.mark.parametrize("target", ["/plain/..%2f", "/plain/%00"])
def test_paths_that_can_be_read_in_two_ways(target: str) -> None:
    response = Client().get("/plain/", headers=signed("GET", target), RAW_URI=target)
    assert response.status_code == 400 and response.json()["code"] == "ambiguous_path"
