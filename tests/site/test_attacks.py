"""Ways around protection that were found by trying, each as it was tried."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path, re_path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway import site
from hmac_gateway.adapters.django import _stores
from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HasConsumer, HmacAuthentication
from hmac_gateway.stores import MemoryStore, RefusingStore
from tests.settings import HMAC_GATEWAY
from tests.support.served import digest_of, signed

OURS = "hmac_gateway.middleware.HmacGatewayMiddleware"
PEOPLE = {
    "client-1": {"secret_key": "my-hmac-secret", "username": "alice"},
    "client-2": {"secret_key": "my-hmac-secret", "username": "bob"},
}
POLICY = {"signed_headers": ["@request-target", "date"]}
FILTERED = {**POLICY, "_meta": {"filter": [["arg_ver", "==", "2"]]}}
ONCE = {**POLICY, "replay_protection": True}
ONCE_MORE = {**ONCE, "realm": "other"}

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]


def ok(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("inside")


decorated = hmac_required(config=POLICY)(ok)
first, second = hmac_required(config=ONCE)(ok), hmac_required(config=ONCE_MORE)(ok)


def either(request: HttpRequest) -> HttpResponse:
    """Asks twice: what the one refuses, the other may not let in."""
    answer = first(request)
    return answer if answer.status_code == 200 else second(request)


class Signed(APIView):
    authentication_classes = [HmacAuthentication]
    permission_classes: Any = [HasConsumer]
    hmac_policy: Any = {"config": POLICY}

    def get(self, request: Request) -> Response:
        return Response("inside")

    post = get


class Open(Signed):
    authentication_classes: Any = []


urlpatterns = [
    path("filtered/dec", decorated),
    path("filtered/drf", Signed.as_view()),
    path("either/", either),
    path("drf/", Signed.as_view()),
    path("drf-open/", Open.as_view()),
    path("any/", Signed.as_view(permission_classes=[AllowAny])),
    path("mixed/", decorated),
    path("accounts/<str:pk>/secret", ok),
    re_path(r"^", ok),
]


@pytest.fixture(autouse=True)
def a_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(site, "_runtime", None)
    with override_settings(MIDDLEWARE=[OURS], HMAC_GATEWAY={"CREDENTIALS": PEOPLE, "PROTECT": [r"^/reports/"]}):
        yield


def protect(*entries: Any, **more: Any) -> Any:
    return override_settings(HMAC_GATEWAY={"CREDENTIALS": PEOPLE, "PROTECT": list(entries), **more})


def raw(target: str, script: str = "", **more: Any) -> int:
    """A GET as gunicorn hands it over: what stands behind `script` is PATH_INFO."""
    started: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET", "RAW_URI": target, "SCRIPT_NAME": script, "SERVER_NAME": "testserver",
        "PATH_INFO": unquote_to_bytes(target[len(script) :]).decode("latin-1"), "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "wsgi.input": BytesIO(), "wsgi.url_scheme": "http",
        **more,
    }  # fmt: skip
    response = WSGIHandler()(environ, lambda status, headers: started.append(status))
    response.close()
    return int(started[0][:3])


@pytest.mark.parametrize("target", ["/x/reports/1", "/x//reports/1"])
def test_a_script_name_does_not_lead_past_a_pattern(target: str) -> None:
    assert raw("/reports/1") == 401
    assert raw(target, "/x") == 401
    with protect(r"^/x/reports/"):
        assert raw("/x/reports/1", "/x") == 401


def test_a_line_end_does_not_lead_past_a_dot() -> None:
    with protect(r"^/accounts/.+/secret"):
        assert raw("/accounts/42/secret") == 401
        assert raw("/accounts/42%0A/secret") == 400


@pytest.mark.parametrize("view", ["dec", "drf"])
def test_a_filter_that_passes_a_request_by_is_no_verification(view: str) -> None:
    with protect({"path": "^/filtered/", "config": FILTERED}):
        assert Client().get(f"/filtered/{view}").status_code == 401
        assert Client().get(f"/filtered/{view}?ver=2").status_code == 401
        target = f"/filtered/{view}"
        assert Client().get(target, headers=signed("GET", target)).status_code == 200


def test_a_refused_replay_stays_refused_in_the_same_request() -> None:
    headers = signed("POST", "/either/")
    assert Client().post("/either/", headers=headers).status_code == 200
    assert Client().post("/either/", headers=headers).status_code == 401


def keys() -> None:
    consumers, credentials = apps.get_model("hmac_consumers.Consumer"), apps.get_model("hmac_consumers.Credential")
    for name in ("alice", "bob"):
        consumer = consumers.objects.create(username=name)
        for plugin, identifier, secret in (
            ("hmac-auth", f"{name}-1", "my-hmac-secret"),
            ("key-auth", "", f"{name}-api-key"),
            ("basic-auth", name, "password"),
        ):
            row = credentials(consumer=consumer, plugin=plugin, identifier=identifier)
            row.set_secret(secret)
            row.save()


def with_tables(*entries: Any) -> Any:
    return override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "PROTECT": list(entries)})


def test_consumers_of_middleware_and_decorator_must_be_one() -> None:
    with with_tables({"path": "^/mixed/", "plugin": "key-auth"}):
        keys()
        for name, status in (("alice", 200), ("bob", 401)):
            headers = {**signed("GET", "/mixed/", key_id=f"{name}-1"), "apikey": "alice-api-key"}
            assert Client().get("/mixed/", headers=headers).status_code == status


def test_a_views_own_policy_is_not_met_by_the_middlewares() -> None:
    with with_tables({"path": "^/", "plugin": "key-auth"}):
        keys()
        headers = {"apikey": "alice-api-key"}
        assert Client().get("/drf/", headers=headers).status_code == 401
        assert Client().get("/drf-open/", headers=headers).status_code == 200


def test_what_browsers_send_by_themselves_needs_a_token_in_drf() -> None:
    client = Client(enforce_csrf_checks=True)
    with with_tables({"path": "^/", "plugin": "basic-auth"}):
        keys()
        headers = {"authorization": "Basic YWxpY2U6cGFzc3dvcmQ="}
        assert client.get("/drf-open/", headers=headers).status_code == 200
        assert client.post("/drf-open/", headers=headers).status_code == 403


def test_an_inactive_user_stops_the_consumer(django_user_model: Any) -> None:
    user = django_user_model.objects.create(username="u")
    with with_tables():
        keys()
        apps.get_model("hmac_consumers.Consumer").objects.filter(username="alice").update(user=user)
        headers = signed("GET", "/drf/", key_id="alice-1")
        assert Client().get("/drf/", headers=headers).status_code == 200
        django_user_model.objects.update(is_active=False)
        assert Client().get("/drf/", headers=headers).status_code == 401


@pytest.mark.parametrize("narrowed", [HasConsumer.named, HasConsumer.in_group, HasConsumer.labelled])
def test_nobody_is_not_everybody(narrowed: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="at least one"):
        narrowed()


def test_get_protects_head() -> None:
    route = apps.get_model("hmac_proxy.Route").objects.create(id="r", paths=["/page"], methods=["GET"], this_site=True)
    apps.get_model("hmac_proxy.Plugin").objects.create(name="hmac-auth", route=route, config={})
    with with_tables():
        assert Client().get("/page").status_code == 401
        assert Client().head("/page").status_code == 401


def test_memory_is_no_store_where_several_processes_serve() -> None:
    def of(**meta: Any) -> Any:
        return _stores(SimpleNamespace(META=meta)).replays  # type: ignore[arg-type]

    assert isinstance(of(**{"wsgi.multiprocess": True, "SERVER_SOFTWARE": "gunicorn/23"}), RefusingStore)
    assert isinstance(of(**{"wsgi.multiprocess": False, "SERVER_SOFTWARE": "gunicorn/23"}), MemoryStore)
    assert isinstance(of(**{"wsgi.multiprocess": True, "SERVER_SOFTWARE": "WSGIServer/0.2"}), MemoryStore)


def test_a_body_that_breaks_off_is_400() -> None:
    listed = ["@request-target", "date", "digest"]
    headers = signed("GET", "/reports/1", listed=listed, headers={"digest": digest_of(b"hello")})

    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("connection reset")

    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    with protect({"path": "^/reports/", "config": {"validate_request_body": True}}):
        assert raw("/reports/1", **{**environ, "CONTENT_LENGTH": "5", "wsgi.input": Broken()}) == 400
