"""A Django request's head as the engine sees it, under WSGI and ASGI, and what was found out about the request.

Used by `adapters.django` and by whoever stands on it. Imports `site`, `core` and Django. Every protected request comes
through here: a header is looked at once, and nothing is made that is not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import count
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest

from ..conf import setting
from ..core.identity import NOBODY, Identity
from ..core.message import Headers, Message
from ..gate import Pipeline
from ..site import is_trusted
from .rebuilt import tell_once

#: Some servers set no limit. No client needs a tenth of it, and gunicorn refuses so much by itself.
MOST_HEADERS: Final = 1000
_NONE: Final[frozenset[str]] = frozenset()
#: A comma, a scheme's name, a blank and credentials (RFC 9110 11.6.2): parameters have `=` there.
_SCHEME_AGAIN: Final = re.compile(r",[ \t]*[A-Za-z][A-Za-z0-9-]*[ \t]+[^\s=,]")
_ID: Final = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9-]{1,64}")
_QUOTED: Final = re.compile(r'"[^"]*"')
#: What RFC 3986 lets stand in a path.
_IN_PATH: Final = "/~!$&'()*+,;=:@-._"


class Access:
    """What was found out about one request, kept on it as `_hmac_gateway` for all adapters that see it.

    `verified` are the steps that held; `stored` the replay marks that this very request has set, with their seconds;
    `judged` the rules that have judged it, and for whom; `headers` what rules put on the answer; `asked` who refused it
    and by what, for the debugger.
    """

    # What most requests leave as it is costs nothing where it stands on the class.
    route_id = ""
    status = 0
    reason = ""
    identity: Identity = NOBODY
    verified: Pipeline = ()
    stored: Mapping[str, int] = MappingProxyType({})
    judged: set[str] | None = None
    asked: Mapping[str, Any] | None = None

    def __init__(self, message: Message, request_id: str = "") -> None:
        self.message = message
        self._request_id = request_id
        self.headers: dict[str, str] = {}

    @property
    def request_id(self) -> str:
        """Under which logs and the debugger know the request; made on first use, as most requests need none."""
        if not self._request_id:
            self._request_id = _request_id(self.message)
        return self._request_id

    @property
    def path(self) -> str:
        """The raw path, for logs and the debugger."""
        return self.message.path


def access_of(request: Any, target: tuple[str, bool] | None = None) -> Access:
    """The request's `Access`, made on first use; `target` is `raw_target(request)`, where that is known."""
    found: Access | None = getattr(request, "_hmac_gateway", None)
    if found is None:
        message = _message(request, *(target or raw_target(request)))
        found = request._hmac_gateway = Access(message)
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


#: Headers and the variables of WSGI environs that hold them. Clients choose names: what is kept is bounded.
_VARIABLES: Final[dict[str, str]] = {}
#: Where it is otherwise (PEP 3333).
_UNPREFIXED: Final = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


class _WsgiHeaders(Headers):
    """The headers of a WSGI environ: of a copy, since what a site writes into META later nobody has sent.

    Looked up when asked for: most requests carry headers that nobody here reads.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ.copy()

    def get(self, name: str, /) -> str | None:
        variable = _VARIABLES.get(name)
        if variable is None:
            return self._unusual(name)
        value: str | None = self._environ.get(variable)
        return None if value is None else value.strip(" \t")

    def _unusual(self, name: str) -> str | None:
        if name in _UNPREFIXED or "_" in name or not name.isascii() or len(_VARIABLES) >= 1024:
            return dict(self.items()).get(name)
        _VARIABLES[name] = f"HTTP_{name.replace('-', '_').upper()}"
        return self.get(name)

    def items(self) -> Iterable[tuple[str, str]]:
        found = {}
        for variable, value in self._environ.items():
            if variable[:5] == "HTTP_":
                found[variable[5:].replace("_", "-").lower()] = value.strip(" \t")
        for name, variable in _UNPREFIXED.items():
            if value := self._environ.get(variable):  # an empty one stands for none
                found[name] = value.strip(" \t")
        return found.items()


def _joined(environ: dict[str, Any]) -> frozenset[str]:
    """Headers that came twice, which WSGI servers join with a comma."""
    found = []
    if "HTTP_DATE" in environ and environ["HTTP_DATE"].count(",") > 1:  # a date itself has one
        found.append("date")
    if "HTTP_X_DATE" in environ and environ["HTTP_X_DATE"].count(",") > 1:
        found.append("x-date")
    if "HTTP_DIGEST" in environ and "," in environ["HTTP_DIGEST"]:
        found.append("digest")
    credentials = environ.get("HTTP_AUTHORIZATION")
    if credentials and "," in credentials and _again(credentials):
        found.append("authorization")
    return frozenset(found) if found else _NONE


def _again(credentials: str) -> bool:
    # The last value is another in each request of a client, what stands before it the same: looked through once. Where
    # no comma follows, nothing can begin again. The closing quote is left out: base64 may end in `=`, too.
    before, mark, last = credentials[:-1].rpartition('="')
    if mark and "," not in last and len(before) <= 256 and before.count('"') % 2 == 0:
        return _searched(before)
    return _searched.__wrapped__(credentials)


@lru_cache(maxsize=1024)
def _searched(credentials: str) -> bool:
    return bool(_SCHEME_AGAIN.search(credentials) and _SCHEME_AGAIN.search(_QUOTED.sub("", credentials)))


def _authority(meta: dict[str, Any]) -> str:
    """What Django calls the host (HttpRequest.get_host), unchecked: ALLOWED_HOSTS is the site's business."""
    if "HTTP_X_FORWARDED_HOST" in meta and setting("USE_X_FORWARDED_HOST"):
        return str(meta["HTTP_X_FORWARDED_HOST"])
    return meta.get("HTTP_HOST") or meta.get("SERVER_NAME") or ""


def _message(request: HttpRequest, target: str, exact: bool) -> Message:
    scope = getattr(request, "scope", None)
    environ: dict[str, Any] = request.META
    if not exact:
        tell_once(environ)
    if len(environ if scope is None else scope["headers"]) > MOST_HEADERS:
        raise SuspiciousOperation("The request has too many headers.")  # Django answers 400
    method, remote = request.method or "", environ.get("REMOTE_ADDR") or ""
    if scope is not None:
        version = scope.get("http_version", "1.1")
        return Message(
            method, target, scope["headers"], str(request.scheme), _authority(environ), version, remote, exact
        )
    # `request.scheme` asks two settings; without SECURE_PROXY_SSL_HEADER the server's word is the answer.
    scheme = None if setting("SECURE_PROXY_SSL_HEADER") else environ.get("wsgi.url_scheme")
    message = Message(
        method,
        target,
        _WsgiHeaders(environ),
        scheme or str(request.scheme),
        _authority(environ),
        environ.get("SERVER_PROTOCOL", "HTTP/1.1")[5:],
        remote,
        exact,
    )
    message.duplicated = _joined(environ)
    return message


def _request_id(message: Message) -> str:
    given = message.get("x-request-id")
    if given is not None and is_trusted(message.remote_addr) and _ID.fullmatch(given):
        return given
    return f"{_process}{next(_numbers):012x}"


#: What the ids begin with that this process gives. Random, but not anew for each: where a system call is made, another
#: thread takes the interpreter's lock, and the request waits to get it back.
_process = os.urandom(10).hex()
_numbers: Final = count()


def _forked() -> None:
    global _process
    _process = os.urandom(10).hex()


os.register_at_fork(after_in_child=_forked)
