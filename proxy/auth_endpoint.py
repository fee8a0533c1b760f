"""The auth endpoint: a verdict over a request that another proxy will forward (nginx, Traefik, Caddy, Envoy).

Called by the gateway lane and by `auth_view`. Imports `hmac_gateway`, and this app's admission and plan. The route that
the original request means decides which plugins apply, as if it had come here itself; only its body never does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from hmac_gateway.adapters.auth_request import Originals, asked, refusal
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY, Identity, MacRule
from hmac_gateway.core.message import Message
from hmac_gateway.core.paths import decoded
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import Answer
from hmac_gateway.gate import NO_RULES, Admission, check, refuse
from hmac_gateway.routing import Route, host_of
from hmac_gateway.settling import Needs, steps_left
from hmac_gateway.snapshot import Snapshot

from .admission import elsewhere, find_route
from .plan import IDENTITY_HEADERS, identity_headers

#: A verdict is for one request: no cache of the proxy in front may keep it.
_NO_STORE: Final = ("cache-control", "no-store")
#: What no header value may hold; servers answer 500 to some of it.
_CONTROL: Final = dict.fromkeys((*range(32), 127))


class Judged(NamedTuple):
    """What became of a request. `message` is the original one, or the auth request where that cannot be told.

    `admission` still holds the replay marks that must be stored; `refused` is None where nothing else is missing.
    """

    message: Message
    route: Route | None
    admission: Admission | None
    refused: Rejected | None

    def left(self, snapshot: Snapshot | None, now: float) -> Needs | None:
        """The replay marks and rules that an admitted request still has to pass."""
        route, admission = self.route, self.admission
        assert snapshot is not None and admission is not None  # a request was admitted, and by that one
        rules, place = (NO_RULES, ("", "")) if route is None else (route.rules, (route.id, route.service_id))
        return steps_left(admission, self.message, snapshot, now, rules, *place)

    @property
    def identity(self) -> Identity:
        """Who the request comes from, as far as its head tells."""
        return NOBODY if self.admission is None else self.admission.identity


@dataclass(frozen=True, slots=True)
class AuthEndpoint:
    """The endpoint's settings. `speaks` and `trusted` are asked about peers' addresses.

    Whom `speaks` accepts may tell the original request as `names` says; the X-Real-IP of whom `trusted` accepts counts
    as the client's address. `dialect` is whose words are used before a route matched.
    """

    speaks: Callable[[str], bool]
    trusted: Callable[[str], bool]
    names: Originals = Originals()
    dialect: str = "apisix"

    def judge(self, received: Message, snapshot: Snapshot | None, now: float) -> Judged:
        """The verdict over the head, at `now` (Unix seconds). Plain code: no query, no await, no lock."""
        peer = received.remote_addr
        found = asked(received, self.names, self.speaks(peer), self.trusted(peer), self.dialect)
        if isinstance(found, Rejected):
            return Judged(received, None, None, found)
        message = found.message
        spoofed = _spoofed(received)
        if spoofed:
            return Judged(message, None, None, Rejected(Reason.MALFORMED, dialect=self.dialect, detail=spoofed))
        if snapshot is None:
            return Judged(message, None, None, Rejected(Reason.NOT_CONFIGURED, dialect=self.dialect))
        path = message.path
        # Beside what is told nothing else counts: X-Forwarded-Proto may then be the client's.
        believed = message is received and self.trusted(peer)
        route = find_route(message, path, snapshot, self.dialect, believed)
        if isinstance(route, Rejected):
            return Judged(message, None, None, route)
        if route is None and not found.told:
            # The reserved prefix is no route's, except for a request that stands for itself.
            route = snapshot.routes.match(host_of(message.authority), decoded(path), message)
        route = route or elsewhere(snapshot, self.dialect)
        outcome = check(message, route.pipeline, snapshot, now)
        if isinstance(outcome, Rejected):
            return Judged(message, route, None, outcome)
        if not route.id:
            return Judged(message, route, outcome, Rejected(Reason.NO_ROUTE, dialect=self.dialect))
        if not found.told and outcome.identity is NOBODY and not outcome.bodies:
            # A proxy that forgot to tell would otherwise let everything in by a route without a plugin.
            rejected = Rejected(Reason.NO_ROUTE, dialect=self.dialect, detail="no original URI was told")
            return Judged(message, route, None, rejected)
        if outcome.bodies:
            wrong = _without_body(message, outcome)
            if wrong is not None:
                return Judged(message, route, None, wrong)
        return Judged(message, route, outcome, None)


def _spoofed(received: Message) -> str:
    """Why its headers could be taken for ours, for a log; "" if they cannot.

    The proxy will forward what it got, and applications under WSGI or CGI read `X_Consumer_ID` like `X-Consumer-ID`.
    """
    for name, _ in received.headers:
        if "_" in name and name.replace("_", "-") in IDENTITY_HEADERS:
            return f"{name} could be taken for an identity header"
    return ""


def _without_body(message: Message, admission: Admission) -> Rejected | None:
    """What becomes of a request whose body must be checked, which never comes here; None: it may go on.

    Not even an empty one can be right: whether a body follows is not told, and anybody could add one to a signed head.
    But hmacproxy's signatures always go on into a body, and such a GET means the same with and without one (RFC 9110
    9.3.1): there the signature must be right for an empty one, as in the original.
    """
    whole = all(isinstance(rule, MacRule) for _, rule in admission.bodies)
    if whole and message.method in ("GET", "HEAD") and not message.may_have_body:
        return admission.finish(admission.digests())
    return refuse(admission.bodies[0][0], Reason.BODY_UNSEEN)


def accepted(judged: Judged, request_id: str, names: Originals) -> Answer:
    """202 without a body, with the headers that tell who calls; characters beyond latin-1 as their UTF-8 bytes.

    To Envoy 200, with the names of what must not reach the application: what only we may say of the caller and do not
    say, and the credentials that the route hides. Other proxies replace or remove as they are configured to.
    """
    headers = [_NO_STORE, ("x-request-id", request_id)]
    for name, value in identity_headers(judged.identity):
        if not value.isascii():
            value = value.encode().decode("latin-1")
        headers.append((name.lower(), value.translate(_CONTROL)))
    if names.prefix:
        removed = IDENTITY_HEADERS - {name for name, _ in headers}
        if judged.admission is not None:
            removed |= {name for place, name in judged.admission.hidden if place == "header"}
        headers.append(("x-envoy-auth-headers-to-remove", ",".join(sorted(removed))))
    return Answer(names.ok, b"", headers)


def refused(rejected: Rejected, request_id: str) -> Answer:
    """401 or 403, with the words that the other lanes give."""
    status, body, headers = refusal(rejected, request_id)
    return Answer(status, body, [*headers, _NO_STORE, ("x-request-id", request_id)])
