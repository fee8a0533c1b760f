"""Which route a request means, Kong's way: of all routes whose every criterion holds, the one that asks for most.

Built by `proxy.compile_kong`, asked by `routing.Router` where no route of APISIX's dialect fits. Imports `core`,
`regex` and `routing`. A route takes part once for each of its paths, sorted by rank when it is compiled; a match is the
lowest number among those found by host and by path prefix, so that its cost does not grow with the number of routes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from .core.errors import ConfigError
from .core.message import Message, host_of
from .core.paths import decoded
from .regex import compile_regex, literal_prefix
from .routing import Route

#: What a pattern spells as paths on the wire do; what it is held against is decoded.
_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
#: More header criteria than this do not rank higher (Kong has eight bits for them).
_MOST_HEADERS: Final = 255


def _literally(escape: re.Match[str]) -> str:
    return re.escape(chr(int(escape[1], 16)))


@dataclass(frozen=True, slots=True)
class Path:
    """A path that routes name. Every path that it matches starts with `prefix`: decoded, bytes as text.

    Without `regex` that is all; a prefix need not end at a slash. A regular expression is held to the path's start.
    `text` is what configuration says.
    """

    prefix: str = ""
    regex: Any = field(default=None, compare=False)
    text: str = ""

    @classmethod
    @lru_cache(maxsize=16384)
    def of(cls, text: str) -> Path:
        """A path as configuration writes it: `/prefix` or `~/regex`. ConfigError("paths", …) where it is neither.

        Kept, since a change of one route compiles all.
        """
        wire = text if text.isascii() else text.encode().decode("latin-1")
        if wire.startswith("~/"):
            regex = compile_regex(_ESCAPE.sub(_literally, wire[1:]), "paths", text)
            return cls(literal_prefix(regex), regex, text)
        if not wire.startswith("/"):
            raise ConfigError("paths", text, "/ (a fixed path) or ~/ (a regular expression) at the start")
        return cls(decoded(wire), None, text)

    def end(self, path: str) -> int:
        """Where the match ends in a decoded path that this matches."""
        if self.regex is None:
            return len(self.prefix)
        found = self.regex.match(path.encode("latin-1"))
        return 0 if found is None else int(found.end())

    def capture(self, path: str, name: str) -> str:
        """What a group, by name or number, holds in a decoded path; "" where there is none, or nothing in it."""
        found = None if self.regex is None else self.regex.match(path.encode("latin-1"))
        if found is None:
            return ""
        held = found.groupdict().get(name.encode())
        if held is None and name.isascii() and name.isdigit() and 0 < int(name) <= self.regex.groups:
            held = found.group(int(name))
        return (held or b"").decode("latin-1")


class Variant(NamedTuple):
    """A route as it is when one of its paths has matched."""

    path: Path
    route: Route


@dataclass(frozen=True, slots=True)
class Entry:
    """One route in the competition. `route` has hosts, methods, networks and condition; the rest is what ranks it.

    `variants` hold one route for each path, none where the path is no criterion; `headers` and `snis` count what the
    condition asks for.
    """

    route: Route
    variants: tuple[Variant, ...] = ()
    headers: int = 0
    snis: int = 0
    regex_priority: int = 0

    def ranks(self) -> list[tuple[Any, ...]]:
        """The rank of each variant, smallest first in the competition."""
        route = self.route
        criteria = (route.methods, route.hosts, self.headers, self.variants, self.snis, route.networks)
        plain_hosts = bool(route.hosts) and not any("*" in host for host in route.hosts)
        first = (-sum(map(bool, criteria)), not plain_hosts, -min(self.headers, _MOST_HEADERS))
        ranks = []
        for path, _ in self.variants or (Variant(Path(), route),):
            regex = path.regex is not None
            kind = (False, -self.regex_priority, 0) if regex else (True, 0, -len(path.prefix))
            ranks.append((*first, *kind, route.order))
        return ranks


class _Item(NamedTuple):
    """One variant in a table: its place in the competition, the route, and what is left to ask of the path."""

    number: int
    route: Route
    match: Callable[[bytes], Any] | None


class _Table:
    """The variants that one host pattern leads to, by path prefix; in each list the best come first."""

    __slots__ = ("lengths", "prefixes")

    def __init__(self) -> None:
        self.prefixes: dict[str, list[_Item]] = {}
        self.lengths: list[int] = []

    def add(self, prefix: str, item: _Item) -> None:
        found = self.prefixes.get(prefix)
        if found is None:
            found = self.prefixes[prefix] = []
            if len(prefix) not in self.lengths:
                # The longest first: it is the likeliest to win, and the others are then passed over sooner.
                self.lengths = sorted([*self.lengths, len(prefix)], reverse=True)
        # A route may name one host in two ways.
        if not found or found[-1] != item:
            found.append(item)


class KongRouter:
    """All routes of Kong's dialect of one lane."""

    __slots__ = (
        "_anywhere",
        "_hosts",
        "_ported",
        "_prefix_lengths",
        "_prefixes",
        "_suffix_lengths",
        "_suffixes",
        "routes",
    )

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        self.routes: Final = tuple(entry.route for entry in entries)
        self._anywhere = _Table()
        self._hosts: dict[str, _Table] = {}
        self._suffixes: dict[str, _Table] = {}
        self._prefixes: dict[str, _Table] = {}
        self._ported = any(_split(host)[1] for route in self.routes for host in route.hosts)
        competing: list[tuple[tuple[Any, ...], int, Path, Route]] = []
        for entry in entries:
            variants = entry.variants or (Variant(Path(), entry.route),)
            for place, (rank, (path, route)) in enumerate(zip(entry.ranks(), variants, strict=True)):
                competing.append((rank, place, path, route))
        competing.sort(key=lambda one: one[:2])
        for number, (_, _, path, route) in enumerate(competing):
            item = _Item(number, route, None if path.regex is None else path.regex.match)
            for table in self._tables(route.hosts):
                table.add(path.prefix, item)
        self._suffix_lengths = sorted({len(key) for key in self._suffixes}, reverse=True)
        self._prefix_lengths = sorted({len(_split(key)[0]) for key in self._prefixes}, reverse=True)

    def _tables(self, hosts: Sequence[str]) -> list[_Table]:
        if not hosts:
            return [self._anywhere]
        tables = []
        for host in hosts:
            name, port = _split(host.lower())
            if name.startswith("*"):
                found = self._suffixes.setdefault(name[1:] + port, _Table())
            elif name.endswith("*"):
                found = self._prefixes.setdefault(name[:-1] + port, _Table())
            else:
                found = self._hosts.setdefault(name + port, _Table())
            tables.append(found)
        return tables

    def match(self, host: str, path: str, message: Message) -> Route | None:
        """The route for a host (no port, any case) and a decoded path; None where none fits.

        The port is the one in the request's Host, or its scheme's own.
        """
        tables = [self._anywhere]
        if self._hosts or self._suffixes or self._prefixes:
            self._by_host(host.lower(), message, tables)
        best, found = -1, None
        size = len(path)
        data: bytes | None = None
        for table in tables:
            prefixes = table.prefixes
            for length in table.lengths:
                if length > size:
                    continue
                for number, route, match in prefixes.get(path[:length], ()):
                    if found is not None and number >= best:
                        break
                    if not route.accepts(message):
                        continue
                    if match is not None:
                        if data is None:
                            data = path.encode("latin-1")
                        if match(data) is None:
                            continue
                    best, found = number, route
                    break
        return found

    def _by_host(self, host: str, message: Message, tables: list[_Table]) -> None:
        """Add the tables that a host leads to."""
        forms = [(host, "")]
        if self._ported:
            forms.append((host, f":{port_of(message)}"))
        for name, port in forms:
            full = name + port
            found = self._hosts.get(full)
            if found is not None:
                tables.append(found)
            for length in self._suffix_lengths:
                found = self._suffixes.get(full[-length:]) if length <= len(full) else None
                if found is not None:
                    tables.append(found)
            for length in self._prefix_lengths:
                found = self._prefixes.get(name[:length] + port) if length <= len(name) else None
                if found is not None:
                    tables.append(found)


def _split(pattern: str) -> tuple[str, str]:
    """(host, ":port" or "") of a host pattern; a bare IPv6 address has no port."""
    name, mark, port = pattern.rpartition(":")
    if mark and port.isdigit() and (":" not in name or name.endswith("]")):
        return name, mark + port
    return pattern, ""


def port_of(message: Message) -> int:
    """The port that a request was addressed to: the one in its Host, else its scheme's."""
    port = message.authority.rpartition(":")[2]
    if port.isascii() and port.isdigit() and len(port) <= 5:
        return int(port)
    return 443 if message.scheme == "https" else 80


def condition(headers: Mapping[str, Sequence[str]], snis: Sequence[str]) -> Callable[[Message], bool] | None:
    """What holds when every header has one of its values, and a TLS request names one of `snis`; None for neither.

    Values are compared without case; `~*` introduces a regular expression that may match anywhere. The name that TLS
    was asked for is not known behind a server: the Host stands for it, and without TLS it is no criterion (Kong).
    ConfigError("headers", …) for a regular expression that is none.
    """
    tests = [_header(name, values) for name, values in headers.items()]
    names = frozenset(name.lower().removesuffix(".") for name in snis)
    if names:
        tests.append(lambda message: message.scheme != "https" or host_of(message.authority).lower() in names)
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda message: all(test(message) for test in tests)


def _header(name: str, values: Sequence[str]) -> Callable[[Message], bool]:
    wire = [value if value.isascii() else value.encode().decode("latin-1") for value in values]
    plain = frozenset(value.lower() for value in wire if not value.startswith("~*"))
    patterns = [
        compile_regex(value[2:], "headers", {name: value}, case_sensitive=False).search
        for value in wire
        if value.startswith("~*")
    ]
    # Kong takes the two characters for one, and names with an underscore never come so far.
    key = name.lower().replace("_", "-")

    def holds(message: Message) -> bool:
        for value in message.get_all(key):
            if value.lower() in plain or any(search(value.encode("latin-1")) for search in patterns):
                return True
        return False

    return holds
