"""A small site for the tests of the Django adapters."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path, re_path


def seen(request: HttpRequest) -> JsonResponse:
    """What a view sees."""
    identity: Any = getattr(request, "hmac", None)
    body = request.read()
    return JsonResponse(
        {
            "consumer": identity.consumer.username if identity and identity.consumer else None,
            "credential": identity.credential.identifier if identity and identity.credential else None,
            "covered": sorted(identity.covered) if identity else [],
            "anonymous": bool(identity and identity.anonymous),
            "body": len(body),
            "path": request.path,
        }
    )


async def aseen(request: HttpRequest) -> JsonResponse:
    """The same, as an async view."""
    return seen(request)


def public(request: HttpRequest) -> HttpResponse:
    """A page that anyone may cache."""
    response = HttpResponse("public")
    response["Cache-Control"] = "public, max-age=600"
    return response


urlpatterns = [
    path("public/", public),
    path("async/api/seen/", aseen),
    re_path(r"^", seen),
]
