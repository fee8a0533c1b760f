"""Who may POST without a CSRF token: who proves a key that no browser sends by itself, and nobody else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway import site
from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HasConsumer, HmacAuthentication
from hmac_gateway.snapshot import Snapshot, lookups
from tests.support.engine import ALICE, GUEST, credential
from tests.support.served import signed

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "hmac_gateway.middleware.HmacGatewayMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
POLICIES: dict[str, dict[str, Any]] = {
    "hmac": {},
    "basic": {"plugin": "basic-auth"},
    "key": {"plugin": "key-auth"},
    "guest": {"config": {"anonymous_consumer": "guest"}},
}
KNOWN = Snapshot(
    1,
    lookups=lookups(
        {
            "hmac-auth": {"client-1": credential("client-1", b"my-hmac-secret", consumer=ALICE)},
            "basic-auth": {"alice": credential("alice", b"pass", consumer=ALICE, plugin="basic-auth")},
            "key-auth": {"the-key": credential("", b"the-key", consumer=ALICE, plugin="key-auth")},
        }
    ),
    consumers={"guest": GUEST},
)


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("done")


class Api(APIView):
    authentication_classes = [HmacAuthentication]
    permission_classes = [HasConsumer]
    hmac_policy: dict[str, Any] = {}

    def post(self, request: Any) -> Response:
        return Response("done")

    get = post


urlpatterns = [
    *(path(f"middleware/{name}/", view) for name in POLICIES),
    *(path(f"decorator/{name}/", hmac_required(**policy)(view)) for name, policy in POLICIES.items()),
    *(path(f"drf/{name}/", Api.as_view(hmac_policy=policy)) for name, policy in POLICIES.items()),
]
PROTECT = [{"path": f"^/middleware/{name}/", **policy} for name, policy in POLICIES.items()]
pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with override_settings(MIDDLEWARE=MIDDLEWARE, HMAC_GATEWAY={"PROTECT": PROTECT, "TELEMETRY": False}):
        # CREDENTIALS know hmac-auth only.
        monkeypatch.setattr(site.state(), "directory", KNOWN)
        yield


BASIC = {"authorization": "Basic " + base64.b64encode(b"alice:pass").decode()}


@pytest.mark.parametrize("lane", ["middleware", "decorator", "drf"])
@pytest.mark.parametrize(
    ("name", "query", "headers", "status"),
    [
        ("hmac", "", "signed", 200),
        ("key", "", {"apikey": "the-key"}, 200),
        ("key", "?apikey=the-key", {}, 403),
        ("basic", "", BASIC, 403),
    ],
)
def test_post(lane: str, name: str, query: str, headers: Any, status: int) -> None:
    where = f"/{lane}/{name}/"
    given = signed("POST", where) if headers == "signed" else headers
    client = Client(enforce_csrf_checks=True)
    assert client.post(where + query, headers=given).status_code == status
    if status == 403:
        assert client.get(where + query, headers=given).status_code == 200
        # What a page of the site itself can send.
        token = "a" * 32
        client.cookies[settings.CSRF_COOKIE_NAME] = token
        assert client.post(where + query, headers={**given, "x-csrftoken": token}).status_code == 200


@pytest.mark.parametrize(("lane", "status"), [("middleware", 403), ("decorator", 403), ("drf", 403)])
def test_anonymous_post(lane: str, status: int) -> None:
    where = f"/{lane}/guest/"
    client = Client(enforce_csrf_checks=True)
    assert client.post(where).status_code == status
    assert client.post(where, headers=signed("POST", where)).status_code == 200
