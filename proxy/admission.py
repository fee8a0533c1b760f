"""Which route a request means, or why it means none; and what a failed exchange is called.

And what the gateway answers itself. The part of admission that the gateway lane and the embedded lane share. Plain
code: no query, no await, no lock.
Imports `hmac_gateway` and `.exchange`.
"""

from __future__ import annotations

import re
from typing import Final

from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.message import Message
from hmac_gateway.core.paths import ambiguity, decoded
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import Answer
from hmac_gateway.gate import check
from hmac_gateway.plugins import public_api
from hmac_gateway.routing import Route, host_of
from hmac_gateway.snapshot import Snapshot

from .exchange import ConnectFailed, ConnectTimeout, ReadTimeout, SendTimeout, TransportError

#: Answered by the gateway itself, before any route.
RESERVED_PREFIX: Final = "/.hmac-gateway/"
#: `host` or `host:port`; an address of IPv6 in brackets. Bytes beyond ASCII pass, since some clients send names so.
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&*+=\x80-\xff-]+)(?::[0-9]*)?")


def find_route(message: Message, path: str, snapshot: Snapshot, dialect: str) -> Route | Rejected | None:
    """The route for a request whose raw path is `path`; None where there is none.

    `dialect` is whose words refuse what can be read in two ways.
    """
    if not message.authority and message.http_version == "1.1":
        # RFC 9112 3.2; where a request without one went would be a guess.
        return Rejected(Reason.MALFORMED, dialect=dialect, detail="no Host")
    if message.authority and not _AUTHORITY.fullmatch(message.authority):
        # Matched as one host here, it could be read as another behind us: `open.example:80@admin.example`.
        return Rejected(Reason.MALFORMED, dialect=dialect, detail="Host is not host:port")
    why = ambiguity(path)
    if why is not None:
        return Rejected(Reason.AMBIGUOUS_PATH, dialect=dialect, facts={"why": why})
    route = snapshot.routes.match(host_of(message.authority), decoded(path), message)
    return None if path.startswith(RESERVED_PREFIX) else route


def unrouted(message: Message, snapshot: Snapshot, dialect: str, now: float) -> Rejected:
    """The refusal where no route matched. Global rules run there too (APISIX)."""
    admission = check(message, snapshot.global_pipelines.get(dialect, ()), snapshot, now)
    return admission if isinstance(admission, Rejected) else Rejected(Reason.NO_ROUTE, dialect=dialect)


def local_answer(message: Message, route: Route, snapshot: Snapshot | None, now: float) -> Answer | Rejected:
    """What the gateway itself answers at `now` (Unix seconds) on a route that leads to no upstream."""
    local = route.target.local
    if local is None:
        return Rejected(Reason.NO_UPSTREAM, dialect=route.dialect)
    if snapshot is None or (local.when is not None and not local.when(message)):
        return Rejected(Reason.NO_ROUTE, dialect=route.dialect)
    return public_api.respond(message, local.config, snapshot.lookups, now)


def failure_reason(error: TransportError) -> Reason:
    """What logs and clients are told of an exchange that failed."""
    if isinstance(error, ConnectTimeout | SendTimeout | ReadTimeout):
        return Reason.UPSTREAM_TIMEOUT
    return Reason.UPSTREAM_UNREACHABLE if isinstance(error, ConnectFailed) else Reason.UPSTREAM_BROKEN


def upstream_failure(error: TransportError, dialect: str) -> Rejected:
    """The refusal for an exchange that failed before an answer had begun."""
    return Rejected(failure_reason(error), dialect=dialect, detail=str(error))
