"""Who may use an admin API: the key of the settings, or one of the AdminKey rows.

Called by the views as their DRF authentication class. No session, so nothing a browser sends by itself opens the
API; the one exception, APISIX's cookie, cannot be used for a cross-site form (see `AdminKeyAuthentication`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from ..conf import conf
from ..models import AdminKey
from .errors import ApiError

#: `last_used_at` of a key is written at most this often.
_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for the audit, and whether they may write."""

    name: str
    may_write: bool
    #: `settings`, or the AdminKey's primary key: names can be given anew.
    key: str = ""
    #: DRF asks its user whether it is one.
    is_authenticated: bool = True


class AdminKeyAuthentication(BaseAuthentication):
    """The key in `?api_key=`, else the header X-API-KEY, else the cookie x_api_key (APISIX's order).

    Raises ApiError 401 `missing apikey`, `wrong apikey`, `invalid method for role viewer`. A cookie's key lets
    nothing be written by a request that a foreign page's form could send.
    """

    def authenticate(self, request: Request) -> tuple[Caller, Caller]:
        given = request.query_params.get("api_key")
        if given is None:
            given = request.headers.get("X-API-KEY")
        if given is None:
            given = request.COOKIES.get("x_api_key")
            if given is not None and request.method == "POST" and not _is_json(request):
                given = None
        if given is None:
            raise denied("missing apikey")
        caller = find_caller(given)
        if caller is None:
            raise denied("wrong apikey")
        if not caller.may_write and request.method not in ("GET", "HEAD"):
            raise denied("invalid method for role viewer")
        return caller, caller

    def authenticate_header(self, request: Request) -> str:
        return "X-API-KEY"


def find_caller(given: str) -> Caller | None:
    """The owner of a key in clear, or None. Compares digests, so time tells nothing of a key."""
    digest = AdminKey.digest_of(given)
    # Both places are always looked at.
    row = AdminKey._default_manager.filter(digest=digest, enabled=True).first()
    master = conf.admin_key
    if master and hmac.compare_digest(digest, AdminKey.digest_of(master)):
        return Caller("admin key", may_write=True, key="settings")
    if row is None:
        return None
    now = timezone.now()
    if row.last_used_at is None or now - row.last_used_at > _USED_EVERY:
        AdminKey._default_manager.filter(pk=row.pk).update(last_used_at=now)
    return Caller(row.name, may_write=row.role == AdminKey.Role.ADMIN, key=str(row.pk))


def denied(why: str) -> ApiError:
    """APISIX's 401."""
    return ApiError(401, {"error_msg": "failed to check token", "description": why})


def _is_json(request: Request) -> bool:
    return str(request.META.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower() == "application/json"
