"""`HmacGatewayMiddleware`: protects the site's own addresses in PROTECT and in the *this site* routes of the admin.

Right after SecurityMiddleware in MIDDLEWARE, before anything that answers from a cache or reads bodies. One class for
sync and async; both paths call the same functions of `adapters.django`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import site
from .adapters.django import (
    aadmit,
    acurrent,
    admit,
    door_of,
    exempt_from_csrf,
    protect_others,
    protect_response,
    refusal,
)
from .adapters.heads import access_of, raw_target
from .conf import refuse_unknown_keys
from .core.errors import Rejected
from .core.identity import NOBODY
from .gate import Pipeline

Sync = Callable[[HttpRequest], HttpResponseBase]
Async = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class HmacGatewayMiddleware:
    """Sets `request.hmac` (an Identity: consumer, credential, what was covered), or answers in the site's stead.

    On addresses that need nothing, `request.hmac` is the identity of nobody.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Sync | Async) -> None:
        refuse_unknown_keys()
        self.get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._async:
            return self.__acall__(request)
        get_response: Sync = self.get_response  # type: ignore[assignment]
        target = raw_target(request)
        door = door_of(request, site.snapshot(), target)
        if door is None:
            request.hmac = NOBODY  # type: ignore[attr-defined]
            return protect_others(request, get_response(request))
        if isinstance(door, Rejected):
            return _refused(request, door)
        access = access_of(request, target)
        access.route_id = door.route_id
        admission = admit(request, *door)
        if isinstance(admission, Rejected):
            return _refused(request, admission, door.pipeline)
        exempt_from_csrf(request, admission.identity)
        response = get_response(request)
        site.finished(access, response.status_code)
        return protect_response(access, response, door.pipeline)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        get_response: Async = self.get_response  # type: ignore[assignment]
        target = raw_target(request)
        door = door_of(request, await acurrent(), target)
        if door is None:
            request.hmac = NOBODY  # type: ignore[attr-defined]
            return protect_others(request, await get_response(request))
        if isinstance(door, Rejected):
            return _refused(request, door)
        access = access_of(request, target)
        access.route_id = door.route_id
        admission = await aadmit(request, *door)
        if isinstance(admission, Rejected):
            return _refused(request, admission, door.pipeline)
        exempt_from_csrf(request, admission.identity)
        response = await get_response(request)
        site.finished(access, response.status_code)
        return protect_response(access, response, door.pipeline)


def _refused(request: HttpRequest, rejected: Rejected, steps: Pipeline = ()) -> HttpResponseBase:
    access_of(request).asked = {"by": "PROTECT", "paths": list(dict.fromkeys((request.path_info, request.path)))}
    return refusal(request, rejected, steps)
