"""Rows of Kong's dialect → what takes part in its router, and the upstreams of its services. Called by `compile`.

Imports `hmac_gateway` and this app's plain values. What Kong has and no column holds (SNIs, the redirect's status,
`tls_verify`) stands in `extra`, as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import quote

from hmac_gateway.core.errors import ConfigError
from hmac_gateway.gate import OutgoingSet, Pipeline, RuleSet
from hmac_gateway.routing import Route
from hmac_gateway.routing_kong import Entry, Path, Variant, condition

from .exchange import Keepalive, Target, Timeouts
from .plan import Forward, Node, Upstream
from .plan_kong import Rewrite

Row = Mapping[str, Any]

#: Seconds for connecting, sending and reading, and further tries, where a service says nothing.
DEFAULT_TIMEOUT: Final = 60.0
DEFAULT_RETRIES: Final = 5
#: What this gateway serves. Routes and plugins for nothing but streams (tcp, tls, udp) are kept and never asked.
HTTP_PROTOCOLS: Final = frozenset({"http", "https", "grpc", "grpcs"})
_TLS: Final = frozenset({"https", "grpcs"})
#: Characters that a service's path may hold as they are (RFC 3986 3.3); escapes stay what they are.
_IN_PATH: Final = "/:@!$&'()*+,;=-._~%"


def serves_http(protocols: Iterable[str]) -> bool:
    """Whether what is limited to these protocols (none: all) has anything to do with HTTP."""
    return not protocols or not HTTP_PROTOCOLS.isdisjoint(protocols)


class Upstreams:
    """The upstreams of one compilation as services of Kong's dialect reach them: by name, or one host.

    `known` are all upstreams by id, None for one that is switched off or has expired; what is made here is added to
    `made`, under ids of its own.
    """

    def __init__(
        self, rows: Mapping[Any, Row], known: Mapping[str, Upstream | None], made: dict[str, Upstream]
    ) -> None:
        self._names = {row["name"]: key for key, row in rows.items() if row["dialect"] == "kong" and row["name"]}
        self._known = known
        self._made = made
        self._kept: dict[tuple[str, bool], Upstream | None] = {}

    def of(self, service: Row | None, route: Row) -> Upstream | None:
        """Where a route leads; None where nothing is configured. Retries and Host are the service's and the route's."""
        preserve = bool(route["preserve_host"])
        if service is None:
            found = self._by_id(route["upstream_id"]) if route["upstream_id"] else None
            return None if found is None else _hosted(found, preserve)
        kept = (service["id"], preserve)
        if kept not in self._kept:
            self._kept[kept] = self._made_for(service, preserve)
        return self._kept[kept]

    def _by_id(self, key: str) -> Upstream | None:
        if key not in self._known:
            raise ConfigError("upstream", key, "the id of an existing upstream")
        return self._known[key]

    def _made_for(self, service: Row, preserve: bool) -> Upstream | None:
        retries = DEFAULT_RETRIES if service["retries"] is None else service["retries"]
        tls = service["protocol"] in _TLS
        verify = service["extra"].get("tls_verify") is not False
        key = service["upstream_id"] or self._names.get(service["host"])
        if key:
            found = self._by_id(key)
            if found is None:
                # Switched off: there is no peer, rather than no service.
                return Upstream(key, ())
            if tls and not any(node.target.tls for node in found.nodes):
                found = self._over_tls(found, verify)
            return replace(_hosted(found, preserve), retries=retries)
        if not service["host"]:
            return None
        port = service["port"] or (443 if tls else 80)
        host = service["host"].removeprefix("[").removesuffix("]")
        node = Node(f"{host}:{port}", host, port, 1, Target(host, port, tls=tls, verify=verify))
        made = Upstream(
            f"host:{service['id']}", (node,), scheme="https" if tls else "http", retries=retries, again=True
        )
        return _hosted(made, preserve)

    def _over_tls(self, upstream: Upstream, verify: bool) -> Upstream:
        """The same targets for services of protocol https; the balancer keeps them apart, since connections differ."""
        key = f"{upstream.id}:tls:{verify}"
        found = self._made.get(key)
        if found is None:
            name = upstream.upstream_host.partition(":")[0] or None
            nodes = tuple(
                replace(node, target=replace(node.target, tls=True, verify=verify, server_name=name))
                for node in upstream.nodes
            )
            found = self._made[key] = replace(upstream, id=key, scheme="https", nodes=nodes)
        return found


def _hosted(upstream: Upstream, preserve: bool) -> Upstream:
    """With the Host that the route demands: the client's, else the upstream's, else each target's own."""
    return replace(upstream, pass_host="pass" if preserve else "rewrite" if upstream.upstream_host else "node")


def upstream(row: Row, node_rows: Iterable[Row], timeouts: Timeouts) -> Upstream:
    """An upstream of Kong's dialect. Targets that are marked unhealthy, or of weight 0, get nothing, whatever is left.

    None does where no more than `threshold` percent of all weight is left (Kong).
    """
    weighted = [node for node in node_rows if node["enabled"] and node["weight"]]
    healthy = [node for node in weighted if not node["marked_unhealthy"]]
    available, total = (sum(node["weight"] for node in some) for some in (healthy, weighted))
    if available * 100 <= total * float((row["checks"] or {}).get("threshold") or 0):
        healthy = []
    nodes = [
        Node(
            key=f"{node['host']}:{node['port']}",
            host=node["host"],
            port=node["port"],
            weight=node["weight"],
            target=Target(node["host"], node["port"]),
        )
        for node in healthy
    ]
    nodes.sort(key=lambda node: node.key)
    extra = row["extra"]
    first = (row["hash_on"] or "none", row["key"])
    on = extra.get("hash_fallback") or "none"
    # A cookie is the same in both places.
    second = (on, extra.get("hash_on_cookie" if on == "cookie" else f"hash_fallback_{on}") or "")
    cookie = next((key for kind, key in (first, second) if kind == "cookie" and key), None)
    return Upstream(
        id=row["id"],
        nodes=tuple(nodes),
        type=row["type"],
        hash_on=first[0],
        key=first[1],
        fallback=second,
        cookie=(cookie, extra.get("hash_on_cookie_path") or "/") if cookie and row["type"] == "chash" else None,
        again=True,
        upstream_host=row["upstream_host"],
        retries=DEFAULT_RETRIES if row["retries"] is None else row["retries"],
        timeouts=timeouts,
        keepalive=Keepalive(),
    )


def entry(
    row: Row,
    service: Row | None,
    steps: Pipeline,
    rules: RuleSet,
    leads_to: Upstream | None,
    timeouts: Timeouts,
    methods: frozenset[str],
    outgoing: OutgoingSet | None,
) -> Entry | None:
    """A route's part in the competition; None for one that only streams could match."""
    if not serves_http(row["protocols"]):
        return None
    extra = row["extra"]
    snis = extra.get("snis") or ()
    protocols = HTTP_PROTOCOLS.intersection(row["protocols"])
    captured = leads_to is not None and "uri_capture" in (leads_to.hash_on, *(leads_to.fallback or ())[:1])
    base = _base("/" if service is None else service["path"] or "/")
    common: dict[str, Any] = {
        "name": row["name"],
        "service_id": row["service_id"] or "",
        "dialect": "kong",
        "paths": tuple(row["paths"]),
        "hosts": tuple(row["hosts"]),
        "methods": methods,
        "networks": tuple(ip_network(address, strict=False) for address in row["remote_addrs"]),
        "condition": condition(row["headers"], snis),
        "order": (row["created_at"], row["id"]),
        "pipeline": steps,
        "rules": rules,
        "tls_status": (extra.get("https_redirect_status_code") or 426) if protocols and protocols <= _TLS else 0,
    }

    def leading(path: Path) -> Route:
        rewrite = Rewrite(base, row["strip_path"], path, row["path_handling"] == "v1")
        upstream = replace(leads_to, captures=path) if captured and leads_to is not None else leads_to
        return Route(row["id"], target=Forward(upstream, timeouts, rewrite=rewrite, outgoing=outgoing), **common)

    variants = tuple(Variant(path, leading(path)) for path in map(Path.of, row["paths"]))
    # A route that is matched without a path is treated as one whose path is a slash.
    return Entry(
        variants[0].route if variants else leading(Path("/")),
        variants,
        headers=len(row["headers"]),
        snis=len(snis),
        regex_priority=row["regex_priority"],
    )


@lru_cache(maxsize=4096)
def _base(path: str) -> str:
    """A service's path as it is sent: what a request line cannot hold goes in percent-encoded."""
    return quote(path, safe=_IN_PATH)
