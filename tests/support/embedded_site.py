"""What `embedded.Embedded` serves: the test settings with two ProxyViews, and a snapshot from the environment."""

from __future__ import annotations

import json
import os
from dataclasses import replace

from tests.support.embedded import CONFIG, ByHost, Fixed, snapshot

if CONFIG in os.environ:
    import django
    from django.conf import settings

    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["*"]
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "TELEMETRY": False}
    django.setup()

from django.urls import path, re_path
from django.views.generic import View

from proxy.views import ProxyView

urlpatterns = [
    path("gw/<path:path>", ProxyView.as_view()),
    path("gw/", ProxyView.as_view(), {"path": ""}),
    re_path(r"^orders/", ProxyView.as_view()),
    re_path(r"^plain(?P<path>/.*)$", ProxyView.as_view()),
    path("größe/<path:path>", ProxyView.as_view()),
    path("other/", View.as_view()),
]

if CONFIG in os.environ:
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    from hmac_gateway import site

    _config = json.loads(os.environ[CONFIG])
    _fixed = Fixed(snapshot(**_config) if _config else replace(snapshot(), routes=ByHost()))
    site.runtime = lambda: _fixed
    wsgi = get_wsgi_application()
    asgi = get_asgi_application()
