"""Who may use Kong's admin API: the same keys as for APISIX's, in the places where Kong's clients put one.

The header X-API-KEY or Kong-Admin-Token, `?api_key=`, or the user or password of the URL (`http://kong:KEY@host:8001/`).
An open listener asks for none. What a browser may send by itself, to an open listener or with a remembered password, is
refused when another site's page made it do so.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import urlsplit

from django.http import HttpRequest

from .auth import Caller, find_caller
from .kong_errors import KongError, plain

#: Kong Enterprise's words for a token that is missing or wrong.
_WRONG: Final = "Invalid RBAC credentials"
_READING: Final = ("GET", "HEAD", "OPTIONS")
#: Who writes on an open listener, in the audit.
_ANYONE: Final = "anyone (open listener)"


def caller_of(request: HttpRequest, open_to_all: bool) -> Caller:
    """The owner of the key. Raises KongError 401, and 403 for what this caller may not do."""
    given, by_header = _key(request)
    if not by_header:
        _refuse_foreign(request)
    if open_to_all and not given:
        return Caller(_ANYONE, may_write=True)
    caller = find_caller(given) if given else None
    if caller is None:
        raise plain(401, _WRONG)
    if not caller.may_write and request.method not in _READING:
        raise _denied(f"{caller.name}, you do not have permissions to change this resource")
    return caller


def _key(request: HttpRequest) -> tuple[str, bool]:
    """The key, or "", and whether it stands where only a program puts it."""
    for name in ("X-API-KEY", "Kong-Admin-Token"):
        if given := request.headers.get(name):
            return given, True
    if given := request.GET.get("api_key"):
        return given, True
    word, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if word.lower() != "basic":
        return "", False
    try:
        user, _, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", False
    return password or user, False


def _refuse_foreign(request: HttpRequest) -> None:
    """A form or script of another site's page is not the administrator's doing."""
    if request.method in _READING:
        return
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    if site not in ("none", "same-origin") or (origin and urlsplit(origin).netloc != request.get_host()):
        raise _denied("requests made by other sites' pages are not accepted without an admin key in a header")


def _denied(why: str) -> KongError:
    return plain(403, why)
