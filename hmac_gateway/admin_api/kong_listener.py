"""Kong's admin API at the root of an address of its own, as Kong has it on port 8001. Called by `serving`.

The process serves this API and nothing else: none of the site's middleware, sessions or pages.
"""

from __future__ import annotations

from django.conf import settings
from django.core.asgi import get_asgi_application

from ..status import App, Receive, Scope, Send, answered, lifespan
from .kong import LISTENER


def build(*, open_to_all: bool) -> App:
    """The ASGI application; `open_to_all` asks nobody for a key, which only a loopback address may do."""
    settings.ROOT_URLCONF = "hmac_gateway.admin_api.kong_urls"
    settings.MIDDLEWARE = []
    django: App = get_asgi_application()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await answered(django, {**scope, LISTENER: {"open": open_to_all}}, receive, send)

    return serve
