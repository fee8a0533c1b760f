"""The middleware on Django's test client: what is protected, what a view sees, what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, override_settings

from tests.support.served import digest_of, signed

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "hmac_gateway.middleware.HmacGatewayMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
SECRET = "my-hmac-secret"
ONE = {"client-1": {"secret_key": SECRET, "username": "partner", "labels": {"tier": "gold"}}}
SITE = {
    "CREDENTIALS": ONE,
    "PROTECT": [
        r"^/api/",
        {"path": r"^/body/", "config": {"signed_headers": ["@request-target", "date"], "validate_request_body": True}},
        {"path": r"^/once/", "config": {"replay_protection": True}},
        {"path": r"^/guest/", "config": {"anonymous_consumer": "guest"}},
    ],
}

pytestmark = pytest.mark.urls("tests.site.urls")


@pytest.fixture(autouse=True)
def site() -> Any:
    with override_settings(MIDDLEWARE=MIDDLEWARE, HMAC_GATEWAY=SITE):
        yield


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


def test_without_a_credential_there_is_401(client: Client) -> None:
    response = client.get("/api/things")
    assert response.status_code == 401
    assert response.json() == {"message": "Missing authorization in request"}
    assert response["WWW-Authenticate"] == 'hmac realm="hmac"'
    assert response["Cache-Control"] == "private, no-store" and response["Vary"] == "Authorization"
    assert len(response["X-Request-Id"]) == 32


def test_a_signed_request_reaches_the_view(client: Client) -> None:
    response = client.get("/api/things?a=1", headers=signed("GET", "/api/things?a=1"))
    assert response.status_code == 200, response.content
    assert response.json() == {
        "consumer": "partner",
        "credential": "client-1",
        "covered": ["@request-target", "date"],
        "anonymous": False,
        "body": 0,
        "path": "/api/things",
    }
    assert response["Cache-Control"] == "private, no-store" and "Authorization" in response["Vary"]


def test_a_misspelt_key_keeps_the_server_from_starting() -> None:
    """Servers run no system checks, and a misspelt PROTECT protects nothing."""
    WSGIHandler()
    misspelt = {"CREDENTIALS": ONE, "PROTCT": ["^/api/"]}
    with override_settings(HMAC_GATEWAY=misspelt), pytest.raises(ImproperlyConfigured, match="key: 'PROTCT'"):
        WSGIHandler()


def test_what_is_not_protected_is_left_alone(client: Client) -> None:
    response = client.get("/public/")
    assert response["Cache-Control"] == "public, max-age=600" and "Vary" not in response
    assert client.get("/other").json()["consumer"] is None


@pytest.mark.parametrize("secret", ["wrong", ""])
def test_a_wrong_signature_is_refused(client: Client, secret: str) -> None:
    response = client.get("/api/x", headers=signed("GET", "/api/x", secret=secret))
    assert response.status_code == 401 and response.json() == {"message": "client request can't be validated"}


def test_a_signed_post_passes_csrf_and_its_body_is_unread(client: Client) -> None:
    body = b"x" * 3_000_000
    headers = signed(
        "POST", "/body/x", listed=["@request-target", "date", "digest"], headers={"digest": digest_of(body)}
    )
    response = client.post("/body/x", body, content_type="application/octet-stream", headers=headers)
    assert response.status_code == 200, response.content
    assert response.json()["body"] == 3_000_000
    response = client.post("/body/x", body[1:], content_type="application/octet-stream", headers=headers)
    assert response.status_code == 401


def test_an_anonymous_post_does_not_pass_csrf(client: Client) -> None:
    with override_settings(
        HMAC_GATEWAY={**SITE, "CREDENTIALS": {**ONE, "g": {"secret_key": "x", "username": "guest"}}}
    ):
        assert client.get("/guest/").json()["anonymous"] is True
        assert client.post("/guest/").status_code == 403
        assert client.post("/guest/", headers=signed("POST", "/guest/")).status_code == 200


def test_a_replay_is_refused(client: Client) -> None:
    headers = signed("POST", "/once/x")
    assert client.post("/once/x", headers=headers).status_code == 200
    response = client.post("/once/x", headers=headers)
    assert response.status_code == 401 and response.json()["message"].endswith("replayed")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/x", 401),
        ("//api/x", 401),
        ("/%61pi/x", 401),
        ("/x/..%2fapi/x", 400),
        ("/x/../api/x", 400),
        ("/x/%2e%2e/api/x", 400),
        ("/api/..%2fx", 400),
        ("/api/%5cx", 400),
        ("/api/%00", 400),
        ("/x/%252e%252e/api/x", 400),
        ("/x/;a/../api/x", 400),
        ("/x/..%2fy", 200),
        ("/apix", 200),
    ],
)
def test_paths_that_mean_a_protected_one(client: Client, target: str, status: int) -> None:
    # gunicorn's way to give the target as received; PATH_INFO is what Django resolves.
    assert client.get(target, RAW_URI=target).status_code == status


def test_a_body_without_length_is_refused_under_wsgi(client: Client) -> None:
    response = client.post(
        "/api/x", headers={**signed("POST", "/api/x"), "transfer-encoding": "chunked"}, CONTENT_LENGTH=""
    )
    assert response.status_code == 411


def test_a_clock_that_is_off_is_refused(client: Client) -> None:
    assert client.get("/api/x", headers=signed("GET", "/api/x", at=time.time() - 400)).status_code == 401
