"""Which route a request means, APISIX's way: host first, then path, then priority; else another dialect's way.

Built by `proxy.compile`, asked by the gateway and the middleware. Imports `core` and `gate` only. The cost of a match
does not grow with the number of routes: exact hosts and paths are dictionary lookups, prefixes one lookup per distinct
length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, Protocol

from .core.message import Message, host_of
from .gate import NO_RULES, Pipeline, RuleSet

__all__ = ["Network", "Route", "Router", "host_of"]

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Route:
    """One compiled route. `paths` and `hosts` are patterns (`/a*`, `*.example.com`); empty sets do not restrict.

    `target` is what the route leads to, as its lane compiled it; the router never looks at it. `order` breaks
    ties: the row created first wins.
    """

    id: str
    paths: tuple[str, ...]
    pipeline: Pipeline
    target: Any
    name: str = ""
    service_id: str = ""
    dialect: str = "apisix"
    hosts: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    condition: Callable[[Message], bool] | None = field(default=None, compare=False)
    priority: int = 0
    order: Any = 0
    rules: RuleSet = field(default=NO_RULES, compare=False)
    #: What plaintext is answered with where a route wants TLS: 426, or a redirect's status; 0 where it does not.
    tls_status: int = 0

    def accepts(self, message: Message) -> bool:
        """Whether the request fits what is not host and path."""
        if self.methods and message.method not in self.methods:
            return False
        if self.networks:
            try:
                address = ip_address(message.remote_addr)
            except ValueError:
                return False
            if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped  # what a socket for both families calls an IPv4 peer
            if not any(address in network for network in self.networks):
                return False
        return self.condition is None or self.condition(message)


class _Paths:
    """The routes of one host, by path: exact before prefixes, the longest prefix first."""

    __slots__ = ("_exact", "_lengths", "_prefixes")

    def __init__(self, entries: Iterable[tuple[str, Route]]) -> None:
        exact: dict[str, list[Route]] = {}
        prefixes: dict[str, list[Route]] = {}
        for pattern, route in entries:
            table, key = (prefixes, pattern[:-1]) if pattern.endswith("*") else (exact, pattern)
            table.setdefault(key, []).append(route)
        # Priority orders only routes of the same path; then the one created first.
        self._exact = {key: _ranked(routes) for key, routes in exact.items()}
        self._prefixes = {key: _ranked(routes) for key, routes in prefixes.items()}
        self._lengths = sorted({len(key) for key in prefixes}, reverse=True)

    def match(self, path: str, message: Message) -> Route | None:
        for route in self._exact.get(path, ()):
            if route.accepts(message):
                return route
        size = len(path)
        for length in self._lengths:
            if length <= size:
                for route in self._prefixes.get(path[:length], ()):
                    if route.accepts(message):
                        return route
        return None


def _ranked(routes: Sequence[Route]) -> tuple[Route, ...]:
    return tuple(sorted(routes, key=lambda route: (-route.priority, route.order)))


class Matcher(Protocol):
    """Another dialect's routes."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """All of them, for lists."""

    def match(self, host: str, path: str, message: Message) -> Route | None:
        """As `Router.match`."""


class Router:
    """All routes of one lane: APISIX's, and in `otherwise` those that are asked where none of them fits.

    A route that fails on method, address or condition is passed over and shorter prefixes, less specific hosts
    and routes without a host are tried: a wrong method ends in 404, never in 405.
    """

    __slots__ = ("_anywhere", "_hosts", "_otherwise", "_suffix_lengths", "_suffixes", "routes")

    def __init__(self, routes: Iterable[Route] = (), otherwise: Matcher | None = None) -> None:
        own = tuple(routes)
        self._otherwise = otherwise if otherwise is not None and otherwise.routes else None
        self.routes: Final = own if self._otherwise is None else own + self._otherwise.routes
        hosts: dict[str, list[tuple[str, Route]]] = {}
        suffixes: dict[str, list[tuple[str, Route]]] = {}
        anywhere: list[tuple[str, Route]] = []
        for route in own:
            for pattern in route.paths:
                if not route.hosts:
                    anywhere.append((pattern, route))
                for host in route.hosts:
                    host = host.lower()
                    table, key = (suffixes, host[1:]) if host.startswith("*") else (hosts, host)
                    table.setdefault(key, []).append((pattern, route))
        self._hosts = {host: _Paths(entries) for host, entries in hosts.items()}
        self._suffixes = {suffix: _Paths(entries) for suffix, entries in suffixes.items()}
        self._suffix_lengths = sorted({len(suffix) for suffix in suffixes}, reverse=True)
        self._anywhere = _Paths(anywhere)

    def match(self, host: str, path: str, message: Message) -> Route | None:
        """The route for a host (no port, any case) and a decoded path; None where none fits."""
        if self._hosts or self._suffixes:
            host = host.lower()
            found = self._hosts.get(host)
            route = None if found is None else found.match(path, message)
            if route is not None:
                return route
            for length in self._suffix_lengths:
                found = self._suffixes.get(host[len(host) - length :]) if length <= len(host) else None
                route = None if found is None else found.match(path, message)
                if route is not None:
                    return route
        route = self._anywhere.match(path, message)
        if route is None and self._otherwise is not None:
            return self._otherwise.match(host, path, message)
        return route
