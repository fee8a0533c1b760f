"""A Django request's head as the engine sees it, under WSGI and ASGI, and what was found out about the request.

Used by `adapters.django` and by whoever stands on it. Imports `site`, `core` and Django. Every protected request comes
through here: a header is looked at once, and nothing is made that is not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest

from ..conf import setting
from ..core.identity import NOBODY, Identity
from ..core.message import Message
from ..gate import Pipeline
from ..site import is_trusted
from .rebuilt import tell_once

#: Some servers set no limit. No client needs a tenth of it, and gunicorn refuses so much by itself.
MOST_HEADERS: Final = 1000
_NONE: Final[frozenset[str]] = frozenset()
#: How many commas a header has that came once, where more would matter.
_COMMAS: Final = (("date", 1), ("x-date", 1), ("digest", 0))
#: A comma, a scheme's name, a blank and credentials (RFC 9110 11.6.2): parameters have `=` there.
_SCHEME_AGAIN: Final = re.compile(r",[ \t]*[A-Za-z][A-Za-z0-9-]*[ \t]+[^\s=,]")
_QUOTED: Final = re.compile(r'"[^"]*"')
#: What RFC 3986 lets stand in a path.
_IN_PATH: Final = "/~!$&'()*+,;=:@-._"


class Access:
    """What was found out about one request, kept on it as `_hmac_gateway` for all adapters that see it.

    `verified` are the steps that held; `stored` the keys of replay marks that this very request has set; `judged` the
    rules that have judged it, and for whom; `headers` what rules put on the answer; `asked` who refused it and by what,
    for the debugger.
    """

    # What most requests leave as it is costs nothing where it stands on the class.
    route_id = ""
    status = 0
    reason = ""
    identity: Identity = NOBODY
    verified: Pipeline = ()
    asked: Mapping[str, Any] | None = None

    def __init__(self, message: Message, request_id: str) -> None:
        self.message = message
        self.request_id = request_id
        self.headers: dict[str, str] = {}
        self.stored: set[str] = set()
        self.judged: set[str] = set()

    @property
    def path(self) -> str:
        """The raw path, for logs and the debugger."""
        return self.message.path


def access_of(request: HttpRequest, target: tuple[str, bool] | None = None) -> Access:
    """The request's `Access`, made on first use; `target` is `raw_target(request)`, where that is known."""
    found: Access | None = request.__dict__.get("_hmac_gateway")
    if found is None:
        message = _message(request, *(target or raw_target(request)))
        found = request.__dict__["_hmac_gateway"] = Access(message, _request_id(message))
    return found


def message_of(request: HttpRequest) -> Message:
    """The request's head as received, as far as the server has kept it (`target_exact`)."""
    return access_of(request).message


def request_id_of(request: HttpRequest) -> str:
    """The id under which logs and the debugger know this request."""
    return access_of(request).request_id


def raw_target(request: HttpRequest) -> tuple[str, bool]:
    """(request target, whether these are the bytes received); rebuilt by quoting where the server has lost them."""
    environ: dict[str, Any] = request.META
    # gunicorn, then uWSGI and mod_wsgi; no header's variable has such a name.
    given: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if given:
        return given, True
    scope = getattr(request, "scope", None)
    if scope is None:
        query = environ.get("QUERY_STRING", "")
    else:
        raw = scope.get("raw_path")
        query = scope.get("query_string", b"")
        query = query.decode("latin-1") if isinstance(query, bytes) else query
        if raw:
            # uvicorn and others leave the query out of raw_path; one server keeps it there.
            path = raw.decode("latin-1").partition("?")[0]
            return (f"{path}?{query}" if query else path), True
    path = quoted(request.path)
    return (f"{path}?{query}" if query else path), False


def quoted(path: str) -> str:
    """A path that Django has decoded, quoted as most clients would."""
    return quote(path, safe=_IN_PATH, encoding="utf-8", errors="surrogateescape")


class _Names(dict[str, str]):
    """Variables of WSGI environs and the headers in them. Clients choose names: what is kept is bounded."""

    def __missing__(self, variable: str) -> str:
        name = variable[5:].replace("_", "-").lower()
        if len(self) < 1024:
            self[variable] = name
        return name


_names: Final = _Names()


def _headers(environ: dict[str, Any]) -> dict[str, str]:
    """The headers that a WSGI environ holds, each once; empty CONTENT_… stand for absent ones (PEP 3333)."""
    headers = {_names[key]: value.strip(" \t") for key, value in environ.items() if key[:5] == "HTTP_"}
    if value := environ.get("CONTENT_TYPE"):
        headers["content-type"] = value.strip(" \t")
    if value := environ.get("CONTENT_LENGTH"):
        headers["content-length"] = value.strip(" \t")
    return headers


def _joined(headers: dict[str, str]) -> frozenset[str]:
    """Headers that came twice, which WSGI servers join with a comma."""
    found = [name for name, commas in _COMMAS if name in headers and headers[name].count(",") > commas]
    given = headers.get("authorization", "")
    if "," in given and _SCHEME_AGAIN.search(given) and _SCHEME_AGAIN.search(_QUOTED.sub("", given)):
        found.append("authorization")
    return frozenset(found) if found else _NONE


def _authority(meta: dict[str, Any]) -> str:
    """What Django calls the host (HttpRequest.get_host), unchecked: ALLOWED_HOSTS is the site's business."""
    if "HTTP_X_FORWARDED_HOST" in meta and setting("USE_X_FORWARDED_HOST"):
        return str(meta["HTTP_X_FORWARDED_HOST"])
    return meta.get("HTTP_HOST") or meta.get("SERVER_NAME") or ""


def _message(request: HttpRequest, target: str, exact: bool) -> Message:
    scope = getattr(request, "scope", None)
    meta: dict[str, Any] = request.META
    if not exact:
        tell_once(meta)
    # `request.scheme` asks two settings; without SECURE_PROXY_SSL_HEADER the server's word is the answer.
    scheme = None
    duplicated = None
    headers: Sequence[tuple[str | bytes, str | bytes]] | dict[str, str]
    if scope is not None:
        headers = scope["headers"]
        version = scope.get("http_version", "1.1")
    else:
        headers = _headers(meta)
        duplicated = _joined(headers)
        version = meta.get("SERVER_PROTOCOL", "HTTP/1.1")[5:]
        scheme = None if setting("SECURE_PROXY_SSL_HEADER") else meta.get("wsgi.url_scheme")
    if len(headers) > MOST_HEADERS:
        raise SuspiciousOperation("The request has too many headers.")  # Django answers 400
    message = Message(
        request.method or "",
        target,
        headers,
        scheme or str(request.scheme),
        _authority(meta),
        version,
        meta.get("REMOTE_ADDR") or "",
        exact,
    )
    if duplicated:
        message.duplicated = duplicated
    return message


def _request_id(message: Message) -> str:
    given = message.get("x-request-id")
    if given is None or not is_trusted(message.remote_addr):
        return os.urandom(16).hex()
    if len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum():
        return given
    return os.urandom(16).hex()
