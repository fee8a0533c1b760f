"""Refusals of a Django site explained: by the request id, by the request itself, in every lane that a site has."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.core.management import call_command
from django.core.management.base import CommandError
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path, re_path
from django.utils.decorators import method_decorator
from django.views.generic import View
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from hmac_gateway import crypto, site
from hmac_gateway.admin import RejectionAdmin
from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HmacAuthentication
from hmac_gateway.logs import AccessLog
from hmac_gateway.models import Rejection
from proxy.views import ProxyView
from tests.settings import HMAC_GATEWAY
from tests.support.served import digest_of, signed

from .test_database import credential, site_route
from .test_settings_only import EXAMPLE, ROOT

STRICT = {"signed_headers": ["@request-target", "date", "x-strict"]}
BODY = {"signed_headers": ["@request-target", "date", "digest"], "validate_request_body": True}


@hmac_required(config=STRICT)
def decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@hmac_required(config=STRICT)
async def later(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@hmac_required(config=BODY)
def bodies(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


class Orders(APIView):
    authentication_classes = [HmacAuthentication]
    permission_classes = [IsAuthenticated]
    hmac_policy = MappingProxyType({"config": STRICT})

    def get(self, request: Any) -> Response:
        return Response({})


class Plain(Orders):
    hmac_policy = None  # type: ignore[assignment]


class Asks(Orders):
    """Decides by the request."""

    def get_authenticators(self) -> Any:
        return super().get_authenticators() if self.request.method == "GET" else []


class Things(ViewSet):
    authentication_classes = (HmacAuthentication,)
    permission_classes = (IsAuthenticated,)

    @property
    def hmac_policy(self) -> Any:
        return {"config": {} if self.action == "lightly" else STRICT}

    def list(self, request: Any) -> Response:
        return Response({})

    @action(detail=False)
    def lightly(self, request: Any) -> Response:
        return Response({})


@method_decorator(hmac_required(config=STRICT), name="dispatch")
class Reports(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok")


router = SimpleRouter()
router.register("things", Things, basename="thing")

urlpatterns = [
    *router.urls,
    path("class/", Reports.as_view()),
    path("asks/", Asks.as_view()),
    path("decorated/", decorated),
    path("later/", later),
    path("bodies/", bodies),
    path("drf/", Orders.as_view()),
    path("drf-plain/", Plain.as_view()),
    path("gw/<path:path>", ProxyView.as_view()),
    path("api/decorated/", decorated),
    re_path(r"^", lambda request: HttpResponse("anyone")),
]

SITE = {
    **HMAC_GATEWAY,
    "PROTECT": [{"path": "^/api/", "config": {"allowed_algorithms": ["hmac-sha256", "hmac-sha512"]}}],
    "TELEMETRY": True,
}
pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(site, "_runtime", None)
    # What is noted is written by the tests, in their own transaction.
    monkeypatch.setattr("hmac_gateway.telemetry.Background.wake", lambda self: None)
    with override_settings(
        MIDDLEWARE=["hmac_gateway.middleware.HmacGatewayMiddleware"], ROOT_URLCONF=__name__, HMAC_GATEWAY=dict(SITE)
    ):
        credential()
        yield


def kept() -> Rejection:
    background = site.state().telemetry
    assert background is not None
    background.telemetry.write()
    return Rejection._default_manager.get()


def run(*arguments: str) -> tuple[dict[str, Any], str, int]:
    """(the report, the text, the exit code)"""
    told, code = [], 0
    for more in (("--json",), ()):
        out = io.StringIO()
        try:
            call_command("hmac_explain", *arguments, *more, stdout=out)
        except SystemExit as end:
            code = int(end.code or 0)
        told.append(out.getvalue())
    return json.loads(told[0]), told[1], code


def refused(target: str, **more: Any) -> dict[str, str]:
    """Headers of a signature over another target."""
    return signed("GET", target + "-not", **more)


def failed(report: dict[str, Any]) -> list[str]:
    return [step["name"] for step in report["steps"] if not step["ok"]]


def gateway_route() -> None:
    route = apps.get_model("hmac_proxy.Route").objects.create(id="inside", paths=["/files/*"])
    apps.get_model("hmac_proxy.Plugin").objects.create(name="hmac-auth", route=route, config={})


LANES = [
    ("/api/x", "PROTECT", "", "signature_mismatch", "signature"),
    ("/admin-made/x", "this site", "made", "signature_mismatch", "signature"),
    ("/decorated/", "@hmac_required", "", "signed_header_absent", "signed headers"),
    ("/api/decorated/", "PROTECT", "", "signature_mismatch", "signature"),
    ("/drf/", "HmacAuthentication", "", "signed_header_absent", "signed headers"),
    ("/drf-plain/", "HmacAuthentication", "", "signature_mismatch", "signature"),
    ("/gw/files/x", "ProxyView", "inside", "signature_mismatch", "signature"),
]


@pytest.mark.parametrize(("target", "asked", "route", "reason", "step"), LANES)
def test_every_lane_is_explained_by_what_it_asked(target: str, asked: str, route: str, reason: str, step: str) -> None:
    site_route("made", "/admin-made/*")
    gateway_route()
    answer = Client().get(target + "?a=1", headers=refused(target))
    assert answer.status_code == 401
    row = kept()
    assert (row.lane, row.reason, row.route_id) == ("site", reason, route)
    report, text, code = run("--request-id", row.request_id)
    assert code == 1
    assert (report["reason"], report["route"], report["plugin"]) == (reason, route, "hmac-auth")
    assert asked in report["asked"] and asked in text
    assert step in failed(report)
    assert f"GET {target}?a=1" in text
    shown = RejectionAdmin(Rejection, admin.site).explanation(row)
    assert f"refused: {reason}" in shown and asked in shown


def test_a_policy_behind_the_middleware_is_the_one_that_is_told() -> None:
    answer = Client().get("/api/decorated/", headers=signed("GET", "/api/decorated/"))
    assert answer.status_code == 401
    report, _, _ = run("--request-id", kept().request_id)
    assert (report["reason"], "@hmac_required" in report["asked"]) == ("signed_header_absent", True)


@pytest.mark.django_db(transaction=True)
def test_async_views() -> None:
    async def ask(target: str) -> Any:
        return await AsyncClient().get(target, headers=refused(target))

    for target, reason in (("/later/", "signed_header_absent"), ("/api/x", "signature_mismatch")):
        answer = asyncio.run(ask(target))
        assert answer.status_code == 401
        row = kept()
        assert run("--request-id", answer["X-Request-Id"])[0]["reason"] == row.reason == reason
        row.delete()


def test_a_prefix_in_several_spellings() -> None:
    answer = Client().get("/api/./x", headers=signed("GET", "/api/./x"))
    assert answer.status_code == 400 and kept().reason == "ambiguous_path"
    report, _, _ = run("--request-id", answer["X-Request-Id"])
    assert (report["reason"], failed(report)) == ("ambiguous_path", ["path"])


def test_what_cannot_be_made_again_is_said_beside_the_stored_reason() -> None:
    headers = signed(
        "POST", "/bodies/", listed=("@request-target", "date", "digest"), headers={"digest": "SHA-256=AAAA"}
    )
    answer = Client().post("/bodies/", b"body", content_type="text/plain", headers=headers)
    assert answer.status_code == 401 and kept().reason == "digest_mismatch"
    report, text, code = run("--request-id", answer["X-Request-Id"])
    assert (report["reason"], report["accepted"], code) == ("digest_mismatch", False, 1)
    assert "bodies are not kept" in text


@pytest.mark.parametrize("target", ["/api/x", "/admin-made/x", "/gw/files/x"])
def test_never_no_route_for_another_reason(target: str) -> None:
    route = site_route("made", "/admin-made/*")
    gateway_route()
    answer = Client().get(target, headers=refused(target))
    assert answer.status_code == 401
    kept()
    apps.get_model("hmac_proxy.Route").objects.all().delete()
    assert route is not None
    with override_settings(HMAC_GATEWAY={**SITE, "PROTECT": []}):
        report, text, code = run("--request-id", answer["X-Request-Id"])
    assert (report["reason"], code) == ("signature_mismatch", 1)
    assert text.startswith("refused: signature_mismatch") and "could not be made again" in text


def test_no_route_of_a_proxy_view() -> None:
    answer = Client().get("/gw/nowhere")
    assert answer.status_code == 404 and kept().reason == "no_route"
    report, text, _ = run("--request-id", answer["X-Request-Id"])
    assert report["reason"] == "no_route" and "covers /nowhere" in text


def test_a_rebuilt_target_is_said() -> None:
    answer = Client().get("/api/a%2Fb", headers=signed("GET", "/api/a%2Fb"))
    assert answer.status_code == 401
    kept()
    _, text, _ = run("--request-id", answer["X-Request-Id"])
    assert "the server has not kept the request target; %2F and unusual escapes are lost" in text


def test_the_host_that_django_saw_is_kept() -> None:
    site_route("made", "/admin-made/*", hosts=["testserver"])
    answer = Client().get("/admin-made/x", headers=refused("/admin-made/x"))
    assert answer.status_code == 401
    kept()
    assert run("--request-id", answer["X-Request-Id"])[0]["route"] == "made"


def test_a_policy_is_sealed_with_the_head_and_its_secrets_are_not_there() -> None:
    Client().get("/decorated/", headers=refused("/decorated/"))
    head = json.loads(crypto.open_sealed(kept().sealed_request))
    assert head["asked"] == {
        "by": "@hmac_required",
        "policy": {"plugin": "hmac-auth", "config": STRICT, "dialect": "apisix"},
    }
    assert "my-hmac-secret" not in str(head)


def test_a_head_without_its_policy_is_not_held_against_the_gateway() -> None:
    long = "/api/" + "x" * 10_000
    Client().get(long, headers=refused(long))
    report, text, _ = run("--request-id", kept().request_id)
    assert report["reason"] == "signature_mismatch" and "what the site asked for was not kept" in text
    assert "no_route" not in text


# --- a request that was pasted ---


def pasted(tmp_path: Path, target: str, headers: dict[str, str], host: str = "testserver") -> str:
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    file = tmp_path / "raw"
    file.write_text("\r\n".join([*lines, "", ""]))
    return str(file)


@pytest.mark.parametrize(
    ("target", "asked", "route"),
    [("/api/x", "PROTECT", ""), ("/admin-made/x", "this site", "made"), ("/files/x", "gateway", "inside")],
)
def test_a_pasted_request(tmp_path: Path, target: str, asked: str, route: str) -> None:
    site_route("made", "/admin-made/*")
    gateway_route()
    report, _, code = run("--raw", pasted(tmp_path, target, refused(target)))
    assert (report["reason"], report["route"], code) == ("signature_mismatch", route, 1)
    assert asked in (report["asked"] or "gateway")
    report, _, code = run("--raw", pasted(tmp_path, target, signed("GET", target)))
    assert (report["accepted"], code) == (True, 0)


@pytest.mark.parametrize(
    ("target", "asked", "reason"),
    [
        ("/decorated/", "@hmac_required", "signed_header_absent"),
        ("/later/", "@hmac_required", "signed_header_absent"),
        ("/class/", "@hmac_required", "signed_header_absent"),
        ("/api/decorated/", "@hmac_required", "signed_header_absent"),
        ("/drf/", "HmacAuthentication", "signed_header_absent"),
        ("/drf-plain/", "HmacAuthentication", ""),
        ("/things/", "HmacAuthentication", "signed_header_absent"),
        ("/things/lightly/", "HmacAuthentication", ""),
    ],
)
def test_a_pasted_request_to_a_view_with_its_own_policy(tmp_path: Path, target: str, asked: str, reason: str) -> None:
    report, _, code = run("--raw", pasted(tmp_path, target, signed("GET", target)))
    assert (report["asked"], report["reason"], code) == (asked, reason, int(bool(reason)))
    report, _, code = run("--raw", pasted(tmp_path, target, refused(target)))
    mismatch = "signature_mismatch" if not reason or target.startswith("/api/") else reason
    assert (report["reason"], code) == (mismatch, 1)


def test_a_pasted_body_is_held_against_the_policy_of_its_view(tmp_path: Path) -> None:
    listed = ("@request-target", "date", "digest")
    for body, reason in ((b"body", ""), (b"bode", "digest_mismatch")):
        headers = signed("POST", "/bodies/", listed=listed, headers={"digest": digest_of(b"body")})
        lines = ["POST /bodies/ HTTP/1.1", "Host: testserver", *(f"{name}: {value}" for name, value in headers.items())]
        file = tmp_path / "raw"
        file.write_bytes("\r\n".join([*lines, "", ""]).encode() + body)
        assert run("--raw", str(file))[0]["reason"] == reason


@pytest.mark.parametrize("target", ["/gw/nowhere", "/asks/", "/other/"])
def test_a_pasted_request_of_which_only_the_site_can_tell(tmp_path: Path, target: str) -> None:
    with pytest.raises(CommandError, match="@hmac_required.*ProxyView.*--request-id") as error:
        run("--raw", pasted(tmp_path, target, signed("GET", target)))
    assert error.value.returncode == 2


# --- without tables ---


def test_settings_only(tmp_path: Path) -> None:
    code = (
        "import os, runpy, sys; from django.conf import settings; import django; django.setup();"
        "settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, 'PROTECT': ['^/orders/']};"
        "from django.core.management import call_command; call_command('hmac_explain', *sys.argv[1:])"
    )

    def explain(*arguments: str) -> tuple[str, str, int]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "SHOP_SECRET": "a-secret"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *arguments],
            cwd=EXAMPLE,
            env={**environment, "DJANGO_SETTINGS_MODULE": "orders_api.settings"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout, done.stderr, done.returncode

    good = signed("GET", "/orders/", key_id="shop-1", secret="a-secret")
    # PROTECT lets it pass, and then the view's own policy.
    out, err, status = explain("--raw", pasted(tmp_path, "/orders/", good))
    told = "accepted   route (none)   plugin hmac-auth   asked by HmacAuthentication"
    assert (out.splitlines()[:1], status) == ([told], 0), err
    out, err, status = explain("--raw", pasted(tmp_path, "/orders/?a=1", good))
    assert out.startswith("refused: signature_mismatch") and "asked by PROTECT" in out and status == 1, err
    _, err, status = explain("--request-id", "abc")
    assert status != 0 and "EMBED" in err and "--raw" in err and "LookupError" not in err
    _, err, _ = explain("--raw", pasted(tmp_path, "/elsewhere/", good))
    assert "@hmac_required" in err and "LookupError" not in err


# --- the log ---


@pytest.mark.parametrize(
    ("key_id", "reason", "at"),
    [("client-1", "signature_mismatch", None), ("client-1", "clock_skew", 1000.0), ("nobody", "unknown_key", None)],
)
def test_log_lines_name_the_key_once(
    key_id: str, reason: str, at: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    headers = refused("/api/x", key_id=key_id, at=at or time.time())
    with caplog.at_level(logging.WARNING, "hmac_gateway.verify"):
        Client().get("/api/x", headers=headers)
    (line,) = [record.getMessage() for record in caplog.records if "refused with" in record.getMessage()]
    assert line.count(f"key '{key_id}'") == 1 and reason in line
    assert "my-hmac-secret" not in line and headers["authorization"].split('signature="')[1][:10] not in line


def test_a_key_id_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    headers = signed("GET", "/api/x")
    headers["authorization"] = headers["authorization"].replace("client-1", "a\x1b[31m\x85b")
    with caplog.at_level(logging.WARNING, "hmac_gateway.verify"):
        Client().get("/api/x", headers=headers)
    (line,) = [record.getMessage() for record in caplog.records if "refused with" in record.getMessage()]
    assert "key 'a\\x1b[31m\\x85b'" in line


def test_access_lines_of_the_gateway_name_the_key_of_a_refusal() -> None:
    log = AccessLog()
    at: dict[str, Any] = {"at": 0, "sent": 0, "seconds": 0, "upstream_seconds": 0, "status": 401}
    words: dict[str, Any] = dict.fromkeys(
        ("request_id", "remote", "method", "path", "route", "consumer", "upstream", "reason"), ""
    )
    log.write(**at, **words, key='a"\x1b\nb')
    log.write(**at, **words)
    first, second = map(json.loads, log._lines)
    assert first["key"] == 'a"\x1b\nb' and "key" not in second
    assert log._lines[0].count("\n") == 1
