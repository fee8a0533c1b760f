"""The OpenAPI document of a site's own views, as drf-spectacular makes it."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.settings import patched_settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway.drf import HmacAuthentication

POLICIES: dict[str, Any] = {
    "plain": {},
    "bodies": {"config": {"validate_request_body": True}},
    "kong": {"dialect": "kong"},
    "tenants": {"config": {"scheme": "hmacproxy", "key_id": "a", "sign_header": "X-Signature"}},
    "keys": {"plugin": "key-auth"},
    "other": {"plugin": "key-auth", "config": {"header": "X-Key"}},
    "basic": {"plugin": "basic-auth"},
    "tokens": {"plugin": "jwt-auth"},
}


class Base(APIView):
    schema = AutoSchema()
    authentication_classes = (HmacAuthentication,)

    @extend_schema(responses=str)
    def get(self, request: Request) -> Response:
        return Response()


class Own(HmacAuthentication):
    policy = POLICIES["bodies"]


def test_each_view_is_told_how_its_callers_authenticate(capsys: pytest.CaptureFixture[str]) -> None:
    views = {name: type(name, (Base,), {"hmac_policy": policy}) for name, policy in POLICIES.items()}
    views["own"] = type("own", (Base,), {"authentication_classes": (Own,)})
    patterns = [path(f"{name}/", view.as_view()) for name, view in views.items()]
    with patched_settings({"POSTPROCESSING_HOOKS": []}):  # the admin API's
        document = SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)
    asked = {where.strip("/"): item["get"]["security"][0] for where, item in document["paths"].items()}
    schemes = document["components"]["securitySchemes"]
    told = {name: schemes[scheme] for name, found in asked.items() for scheme in found}
    assert told["plain"] == told["bodies"] == told["own"]
    assert (told["plain"]["in"], told["plain"]["name"]) == ("header", "Authorization")
    assert "Signature keyId=" in told["plain"]["description"] and "hmac username=" in told["kong"]["description"]
    assert told["tenants"]["name"] == "X-Signature"
    assert (told["keys"]["name"].lower(), told["other"]["name"].lower()) == ("apikey", "x-key")
    assert told["basic"] == {"type": "http", "scheme": "basic"}
    assert told["tokens"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    assert {"hmac-auth", "key-auth", "basic-auth", "jwt-auth"} <= set(schemes)
    assert capsys.readouterr().err == ""
