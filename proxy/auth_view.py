r"""The auth endpoint as a Django view, for sites that answer another proxy's questions themselves.

    path(".hmac-gateway/auth", auth_request_view)
    re_path(r"^\.hmac-gateway/auth(?P<original>/.*)$", auth_request_view)       Envoy's, which tells by the path

Called by a site's URL configuration. Imports `hmac_gateway` and the endpoint. Verdicts, statuses and headers are the
gateway lane's.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from hmac_gateway import site
from hmac_gateway.adapters.auth_request import Originals, originals, speakers
from hmac_gateway.adapters.heads import Access, message_of, request_id_of
from hmac_gateway.conf import conf
from hmac_gateway.settling import settle
from hmac_gateway.trust import trust

from .auth_endpoint import AuthEndpoint, accepted, refused

#: Two URIs in one header, as WSGI servers join what comes twice: which of them the proxy asked about is not known.
_JOINED: Final = re.compile(r",[ \t]*(?:/|https?://)", re.I)


@csrf_exempt
@login_not_required
@transaction.non_atomic_requests
def auth_request_view(request: HttpRequest, original: str = "") -> HttpResponse:
    """202 (Envoy: 200) with the identity's headers, 401 with the challenge, or 403.

    The routes are those of the gateway, and whoever asks from loopback or TRUSTED_PROXIES tells the original request as
    ORIGINAL_HEADERS says. No body is read.
    """
    names = originals(conf.original_headers)
    if names.prefix:
        # Wherever the site's URLs have it, before what Envoy has appended.
        names = names._replace(prefix=request.path.removesuffix(original) if original else "")
    endpoint = _endpoint(tuple(conf.trusted_proxies), names, conf.dialect)
    snapshot = site.runtime().current()
    message = message_of(request)
    if not hasattr(request, "scope") and _JOINED.search(message.get(endpoint.names.uri) or ""):
        message.duplicated |= {endpoint.names.uri}
    judged = endpoint.judge(message, snapshot, time.time())
    rejected = judged.refused
    told: dict[str, str] = {}
    if judged.admission is not None:
        needs = judged.left(snapshot, time.time())
        rejected = (needs and settle(needs, site.state().stores)) or rejected
        told = {} if needs is None else needs.headers
    # What logs and the debugger see is the original request.
    seen = Access(judged.message, request_id_of(request))
    seen.route_id = "" if judged.route is None else judged.route.id
    seen.identity = judged.identity
    if rejected is None:
        status, body, headers = accepted(judged, seen.request_id, names)
    else:
        status, body, headers = refused(rejected, seen.request_id)
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    for name, value in (*headers, *told.items(), ("content-length", str(len(body)))):
        response[name.title()] = value
    site.finished(seen, status, rejected)
    return response


@lru_cache(maxsize=8)
def _endpoint(proxies: tuple[str, ...], names: Originals, dialect: str) -> AuthEndpoint:
    return AuthEndpoint(speakers(proxies), trust(proxies), names, dialect)
