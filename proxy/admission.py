"""Which route a request means, or why it means none; and what a failed exchange is called.

And what the gateway answers itself. The part of admission that the gateway lane and the embedded lane share. Plain
code: no query, no await, no lock.
Imports `hmac_gateway` and `.exchange`.
"""

from __future__ import annotations

import re
from typing import Final

from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.message import Message, split_target
from hmac_gateway.core.paths import ambiguity, decoded
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import Answer
from hmac_gateway.plugins import public_api
from hmac_gateway.routing import Route, host_of
from hmac_gateway.snapshot import Snapshot

from .exchange import (
    ConnectFailed,
    ConnectTimeout,
    NameUnresolved,
    ReadTimeout,
    SendTimeout,
    Timeouts,
    TransportError,
)
from .plan import Forward

#: Answered by the gateway itself, before any route.
RESERVED_PREFIX: Final = "/.hmac-gateway/"
#: `host` or `host:port`; an address of IPv6 in brackets. Bytes beyond ASCII pass, since some clients send names so.
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&*+=\x80-\xff-]+)(?::[0-9]*)?")


_NOWHERE: Final = {
    dialect: Route("", (), (), Forward(None, Timeouts(1.0, 1.0, 1.0)), dialect=dialect)
    for dialect in ("apisix", "kong")
}


def head_fault(message: Message) -> str:
    """What is wrong with a request's method, Host or framing, for a log; "" for nothing."""
    if message.method == "CONNECT":
        return "CONNECT"  # RFC 9110 9.3.6: a tunnel to the host that is its target, which is not what routes are for
    if not message.authority and message.http_version == "1.1":
        return "no Host"  # RFC 9112 3.2; where a request without one went would be a guess
    if message.authority and not _AUTHORITY.fullmatch(message.authority):
        # Matched as one host here, it could be read as another behind us: `open.example:80@admin.example`.
        return "Host is not host:port"
    coding = message.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or "transfer-encoding" in message.duplicated):
        # Servers take `gzip, chunked` for chunked (RFC 9112 6.1), and the upstream would not hear of the gzip.
        return "a transfer coding beside chunked"
    return ""


def find_route(
    message: Message, path: str, snapshot: Snapshot, dialect: str, trusted: bool = False
) -> Route | Rejected | None:
    """The route for a request whose raw path is `path`; None where there is none.

    `dialect` is whose words refuse what can be read in two ways; `trusted`: the peer's X-Forwarded-Proto is believed.
    """
    fault = head_fault(message)
    if fault:
        return Rejected(Reason.MALFORMED, dialect=dialect, detail=fault)
    why = ambiguity(path)
    if why is not None:
        return Rejected(Reason.AMBIGUOUS_PATH, dialect=dialect, facts={"why": why})
    route = snapshot.routes.match(host_of(message.authority), decoded(path), message)
    if route is None or path.startswith(RESERVED_PREFIX):
        return None
    if route.tls_status and ((trusted and message.get("x-forwarded-proto")) or message.scheme) != "https":
        return _over_tls(message, route)
    return route


def _over_tls(message: Message, route: Route) -> Rejected:
    """The refusal of plaintext on a route that wants TLS: an upgrade, or the way there. No plugin has run (Kong)."""
    headers: tuple[tuple[str, str], ...] = ()
    if route.tls_status != 426:
        path, query = split_target(message.target)
        target = f"{path}?{query}" if "?" in message.target else path
        headers = (("location", f"https://{host_of(message.authority)}{target}"),)
    elif message.http_version[0] == "1":
        headers = (("connection", "Upgrade"), ("upgrade", "TLS/1.2, HTTP/1.1"))
    return Rejected(Reason.TLS_REQUIRED, dialect=route.dialect, status=route.tls_status, headers=headers)


def elsewhere(snapshot: Snapshot, dialect: str) -> Route:
    """What a request meets that no route fits: global rules run there too (APISIX), and `local_answer` then refuses."""
    return snapshot.elsewhere.get(dialect) or _NOWHERE[dialect]


def local_answer(message: Message, route: Route, snapshot: Snapshot | None, now: float) -> Answer | Rejected:
    """What the gateway itself answers at `now` (Unix seconds) on a route that leads to no upstream."""
    local = route.target.local
    if not route.id:
        return Rejected(Reason.NO_ROUTE, dialect=route.dialect)
    if local is None:
        served = route.dialect != "kong" or route.service_id or route.target.upstream is not None
        return Rejected(Reason.NO_UPSTREAM if served else Reason.NO_SERVICE, dialect=route.dialect)
    if snapshot is None or (local.when is not None and not local.when(message)):
        return Rejected(Reason.NO_ROUTE, dialect=route.dialect)
    return public_api.respond(message, local.config, snapshot.lookups, now)


def failure_reason(error: TransportError, dialect: str = "apisix") -> Reason:
    """What logs and clients are told of an exchange that failed."""
    if dialect == "kong" and isinstance(error, NameUnresolved):
        return Reason.NAME_UNRESOLVED
    if isinstance(error, ConnectTimeout | SendTimeout | ReadTimeout):
        return Reason.UPSTREAM_TIMEOUT
    return Reason.UPSTREAM_UNREACHABLE if isinstance(error, ConnectFailed) else Reason.UPSTREAM_BROKEN


def upstream_failure(error: TransportError, dialect: str) -> Rejected:
    """The refusal for an exchange that failed before an answer had begun."""
    return Rejected(failure_reason(error, dialect), dialect=dialect, detail=str(error))
