"""What goes upstream, as a pure function of the request, the route and the identity. No I/O.

Called by the gateway lane and the embedded lane; built for by `compile.py`. Imports `hmac_gateway`, `.exchange` and
`.plan_kong`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hmac_gateway.core.arguments import without_arguments, without_cookies
from hmac_gateway.core.dialects import APISIX, LEGACY
from hmac_gateway.core.identity import Carrier, Identity
from hmac_gateway.core.message import Message, split_target
from hmac_gateway.core.paths import decoded
from hmac_gateway.gate import OutgoingSet, Rule
from hmac_gateway.routing import host_of
from hmac_gateway.routing_kong import Path

from .exchange import Keepalive, Target, Timeouts
from .plan_kong import FACTS, Rewrite, forwarded_lines
from .probes import Checks

#: RFC 9110 7.6.1 and what is left of older practice: these speak about one connection only.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
#: What only the gateway may say about the caller; stripped from every client, on every route.
IDENTITY_HEADERS: Final = frozenset(
    {
        "x-consumer-id",
        "x-consumer-username",
        "x-consumer-custom-id",
        "x-consumer-groups",
        "x-credential-identifier",
        "x-credential-username",
        "x-anonymous-consumer",
    }
)
#: Set by us from what we know of the connection.
_CONNECTION_FACTS: Final = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip"}
)
#: Framing and addressing are written anew; Expect was answered by the server in front of us.
_OURS: Final = frozenset({"host", "content-length", "expect", "x-request-id", "proxy"})
_DROPPED: Final = HOP_BY_HOP | IDENTITY_HEADERS | _CONNECTION_FACTS | _OURS
_DROPPED_BY_KONG: Final = _DROPPED | FACTS

#: Response headers that end here; the server in front of us frames the answer anew.
RESPONSE_DROPPED: Final = frozenset(name.encode() for name in HOP_BY_HOP - {"proxy-authenticate"}) | {
    b"x-request-id",
    b"server",
}

_UNSAFE: Final = str.maketrans("", "", "\r\n\x00")


@dataclass(frozen=True, slots=True)
class Node:
    """One address of an upstream. `key` is stable across snapshots; the balancer's state hangs on it."""

    key: str
    host: str
    port: int
    weight: int
    target: Target = field(compare=False)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A compiled upstream. `nodes` are those that may get traffic, higher priority first.

    `hash_on` and `key` say what chash hashes, `fallback` what else where that is nothing, and `captures` is the path
    that names parts of it (Kong). `again`: as Kong does it, nodes are tried once more when all were. `measured`: the
    balancer wants to hear when an exchange is over. `checks` say how nodes are found to be well; the gateway lane acts
    on them.
    """

    id: str
    nodes: tuple[Node, ...]
    scheme: str = "http"
    type: str = "roundrobin"
    hash_on: str = ""
    key: str = ""
    pass_host: str = "pass"
    upstream_host: str = ""
    retries: int = 0
    retry_timeout: float = 0.0
    timeouts: Timeouts = Timeouts(60.0, 60.0, 60.0)
    keepalive: Keepalive = Keepalive()
    again: bool = False
    fallback: tuple[str, str] | None = None
    captures: Path | None = None
    #: (name, path) of the cookie that chash gives to whoever comes without.
    cookie: tuple[str, str] | None = None
    checks: Checks | None = None
    measured: bool = field(init=False, compare=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "measured", len(self.nodes) > 1 and self.type in ("least_conn", "ewma"))


@dataclass(frozen=True, slots=True)
class Forward:
    """Where a route leads. `upstream` is None where none is configured: 503, or what `local` says.

    `local` is the rule `public-api`, whose route the gateway answers itself; such a route has no upstream here.
    `rewrite` is Kong's way from the request's path to the upstream's, on routes of its dialect.
    `outgoing` are what may sign what goes there, None where nothing does for anybody.
    """

    upstream: Upstream | None
    timeouts: Timeouts
    strip_prefix: str = ""
    local: Rule | None = None
    rewrite: Rewrite | None = None
    outgoing: OutgoingSet | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of the connection a request came by. `trusted`: its X-Forwarded-* are believed."""

    port: int
    trusted: bool = False


class BadTarget(Exception):
    """The target cannot be forwarded as this route demands: answered with 400."""


#: Nothing is taken away: most requests.
NOTHING_HIDDEN: Final[frozenset[Carrier]] = frozenset()


def forwarded_target(message: Message, forward: Forward, hidden: frozenset[Carrier] = NOTHING_HIDDEN) -> str:
    """The request target for the upstream: the raw bytes as they came, less a prefix where the route says so.

    Query arguments in `hidden` are taken out; the others keep their order and spelling. Raises BadTarget when the
    prefix, matched in decoded form, is spelled otherwise in the raw path, or what is left of a path is ambiguous.
    """
    prefix, rewrite = forward.strip_prefix, forward.rewrite
    if not prefix and not hidden and message.target.startswith("/") and (rewrite is None or rewrite.same):
        return message.target
    path, query = split_target(message.target)
    if rewrite is not None:
        made = rewrite.apply(path)
        if made is None:
            raise BadTarget("the path without its prefix could be read in two ways")
        path = made
    elif prefix:
        if not path.startswith(prefix) or decoded(path[: len(prefix)]) != prefix:
            raise BadTarget("the path's prefix is percent-encoded or holds repeated slashes")
        path = path[len(prefix) :]
        if not path.startswith("/"):
            path = "/" + path
    if hidden and query:
        left = without_arguments(query, {name for place, name in hidden if place == "query"})
        if not left:
            return path
        query = left
    return f"{path}?{query}" if "?" in message.target else path


def host_header(message: Message, upstream: Upstream, node: Node) -> str:
    """The Host for a node, per `pass_host`: the client's, the node's (port only when unusual), or a fixed one."""
    if upstream.pass_host == "pass":
        return message.authority or _node_host(node)
    if upstream.pass_host == "rewrite":
        return upstream.upstream_host
    return _node_host(node)


def _node_host(node: Node) -> str:
    host = f"[{node.host}]" if ":" in node.host else node.host
    return host if node.port == (443 if node.target.tls else 80) else f"{host}:{node.port}"


def header_lines(
    message: Message,
    identity: Identity,
    hidden: frozenset[Carrier],
    peer: Peer,
    request_id: str,
    body: str,
    rewrite: Rewrite | None = None,
) -> str:
    """Everything behind the Host line, blank line included; the same for every node that is tried.

    `hidden` are the places that `hide_credentials` empties; `body` is the framing line ("" for none); `rewrite` is that
    of the route.
    """
    dropped = _DROPPED if rewrite is None else _DROPPED_BY_KONG
    listed = message.get("connection")
    if listed is not None or hidden:
        # What was signed must arrive: an unsigned Connection could take it away.
        emptied = {name for place, name in hidden if place == "header"}
        dropped = dropped | emptied | (_listed(message) - identity.covered)
    headers = message.headers
    if "cookie" in message.duplicated and message.http_version[0] != "1":
        # HTTP/2 may split it; HTTP/1.1 knows one line (RFC 9113 8.2.3).
        whole = "; ".join(message.get_all("cookie"))
        headers = [*(pair for pair in headers if pair[0] != "cookie"), ("cookie", whole)]
    if hidden:
        cookies = {name for place, name in hidden if place == "cookie"}
        if cookies:
            headers = _without_cookies(headers, cookies)
    lines = [f"{name}: {value}\r\n" for name, value in headers if name not in dropped and "_" not in name]
    remote = message.remote_addr
    before = ", ".join(message.get_all("x-forwarded-for"))
    lines.append(f"x-forwarded-for: {before}, {remote}\r\n" if before else f"x-forwarded-for: {remote}\r\n")
    real, scheme, host, port = remote, message.scheme, host_of(message.authority), str(peer.port)
    if peer.trusted:
        real = message.get("x-real-ip") or real
        scheme = message.get("x-forwarded-proto") or scheme
        host = message.get("x-forwarded-host") or host
        port = message.get("x-forwarded-port") or port
    lines.append(
        f"x-real-ip: {real}\r\nx-forwarded-proto: {scheme}\r\nx-forwarded-host: {host}\r\n"
        f"x-forwarded-port: {port}\r\nx-request-id: {request_id}\r\n"
    )
    if rewrite is not None:
        lines.append(forwarded_lines(message, rewrite, peer.trusted, request_id))
    if identity.consumer is not None:
        lines.append(identity_lines(identity))
    lines.append(body)
    lines.append("\r\n")
    return "".join(lines)


def request_head(message: Message, target: str, host: str, lines: str) -> bytes:
    """The bytes of a request head for one node."""
    return f"{message.method} {target} HTTP/1.1\r\nhost: {host}\r\n{lines}".encode("latin-1")


def returned_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The response headers that go on to the client, in their order; names are in lower case."""
    dropped = RESPONSE_DROPPED
    for name, value in headers:
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            dropped |= {token.strip().lower() for token in value.split(b",")}  # RFC 9110 7.6.1
    return [pair for pair in headers if pair[0] not in dropped]


#: Tells where a 5xx comes from: there is none on those of the gateway itself (APISIX).
UPSTREAM_STATUS: Final = "x-apisix-upstream-status"


def upstream_status(dialect: str, failed: Sequence[int], last: int) -> str:
    """The value of UPSTREAM_STATUS: the statuses of all attempts, oldest first; "" where there is no such header."""
    if dialect != "apisix" or not 500 <= last <= 599:
        return ""
    return ", ".join(map(str, (*failed, last)))


def identity_headers(identity: Identity) -> list[tuple[str, str]]:
    """The headers that tell an application who calls (decisions on identity): only those that have a value."""
    consumer = identity.consumer
    if consumer is None:
        return []
    # In Kong's dialect an anonymous consumer is told like any other, and groups are told by acl.
    kong = identity.dialect != APISIX
    headers = [("X-Consumer-ID", consumer.id), ("X-Consumer-Username", consumer.username)]
    if kong or not identity.anonymous:
        headers.append(("X-Consumer-Custom-ID", consumer.custom_id or consumer.labels.get("custom_id", "")))
    if identity.anonymous:
        headers.append(("X-Anonymous-Consumer", "true" if identity.dialect != LEGACY else ""))
    else:
        headers.append(("X-Credential-Identifier", identity.credential_identifier))
    groups = identity.groups or (() if kong else consumer.groups)
    headers.append(("X-Consumer-Groups", ", ".join(groups)))
    return [(name, value) for name, value in headers if value]


def identity_lines(identity: Identity) -> str:
    """`identity_headers` as header lines; characters beyond latin-1 go out as their UTF-8 bytes."""
    lines = []
    for name, value in identity_headers(identity):
        if not value.isascii():
            value = value.encode().decode("latin-1")
        lines.append(f"{name}: {value.translate(_UNSAFE)}\r\n")
    return "".join(lines)


def _without_cookies(headers: list[tuple[str, str]], names: set[str]) -> list[tuple[str, str]]:
    """The headers less these cookies, and less a Cookie header that held nothing else."""
    kept = []
    for name, value in headers:
        if name == "cookie":
            value = without_cookies(value, names)
            if not value:
                continue
        kept.append((name, value))
    return kept


def _listed(message: Message) -> frozenset[str]:
    """Names in `Connection`: they end here (RFC 9110 7.6.1), before ours are set."""
    return frozenset(token.strip().lower() for value in message.get_all("connection") for token in value.split(","))
