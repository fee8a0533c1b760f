"""The site that `benchmarks.embedded` measures: as `startproject` makes it, two views, protected and not.

Served as `gunicorn benchmarks.embedded_site:application`; its database is BENCHMARK_DATABASE. Run as a module it makes
the tables and one consumer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import django
from django.conf import settings

from hmac_gateway import EMBED

KEY_ID, SECRET = "client-1", "my-hmac-secret"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
OURS = "hmac_gateway.middleware.HmacGatewayMiddleware"

settings.configure(
    SECRET_KEY="benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BENCHMARK_DATABASE"]}},
    USE_TZ=True,
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "rest_framework",
        *EMBED,
    ],
    MIDDLEWARE=MIDDLEWARE,
    HMAC_GATEWAY={
        "ENCRYPTION_KEYS": ["dGVzdC1rZXktdGVzdC1rZXktdGVzdC1rZXktdGVzdDE="],
        "PROTECT": ["^/protected/"],
    },
)
django.setup()

# The rest needs settings and apps.
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from hmac_gateway.drf import HmacAuthentication  # noqa: E402


def view(request: HttpRequest) -> HttpResponse:
    """The least a view can do."""
    return HttpResponse("ok")


class Api(APIView):
    """The least an APIView can do, with DRF's default classes."""

    def get(self, request: Request) -> Response:
        """Answer."""
        return Response({"ok": True})


urlpatterns = [
    path("view/", view),
    path("protected/view/", view),
    path("api/", Api.as_view()),
    path("signed/api/", Api.as_view(authentication_classes=[HmacAuthentication])),
]

_plain = WSGIHandler()
settings.MIDDLEWARE = [MIDDLEWARE[0], OURS, *MIDDLEWARE[1:]]
_protected = WSGIHandler()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Both sites in one process, so that what else the machine does meets both alike."""
    return (_protected if environ["PATH_INFO"].startswith("/protected/") else _plain)(environ, start_response)


def make() -> None:
    """Tables, a consumer and its key."""
    from django.apps import apps
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    consumer = apps.get_model("hmac_consumers.Consumer")(username="partner")
    consumer.save()
    credential = apps.get_model("hmac_consumers.Credential")(
        consumer=consumer, plugin="hmac-auth", identifier=KEY_ID, public_id=KEY_ID
    )
    credential.set_secret(SECRET)
    credential.save()


if __name__ == "__main__":
    make()
