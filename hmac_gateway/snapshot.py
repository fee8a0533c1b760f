"""The whole configuration as requests see it: frozen, compiled, swapped by one assignment.

Built by `runtime.py` from what `consumers.compile` and `proxy.compile` return; read by every adapter. Imports
`core`, `gate` and `routing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .core.credential import Consumer, Credential, Lookup
from .gate import Outgoing, Rule
from .routing import Route, Router


class Table(Protocol):
    """The credentials of one plugin; a dict by identifier is one."""

    def get(self, identifier: str, /) -> Credential | None:
        """The credential that a request names so, or None."""


def _nobody(identifier: str) -> None:
    return None


class _Lookups(dict[str, Lookup]):
    def __missing__(self, plugin: str) -> Lookup:
        # A plugin that no credential uses still runs, so that its refusals take as long.
        return _nobody


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of the configuration.

    `routes` are the gateway lane's, `site` the middleware's. `elsewhere` holds, per dialect, what runs on
    requests that match no route: a route without paths and id; routes have it in theirs already. `compiled_at` is Unix
    seconds.
    """

    version: int
    routes: Router = field(default_factory=Router)
    site: Router = field(default_factory=Router)
    lookups: Mapping[str, Lookup] = field(default_factory=_Lookups)
    consumers: Mapping[str, Consumer] = field(default_factory=dict)
    consumer_ids: Mapping[str, Consumer] = field(default_factory=dict)
    elsewhere: Mapping[str, Route] = field(default_factory=dict)
    require_same_consumer: bool = True
    #: Rules of consumers and consumer groups by plugin name, under `consumer:<id>` and `group:<id>`.
    overrides: Mapping[str, Mapping[str, Rule | None]] = field(default_factory=dict)
    #: What signs the requests of consumers and consumer groups, in the same way.
    outgoing: Mapping[str, Mapping[str, Outgoing | None]] = field(default_factory=dict)
    compiled_at: float = 0.0
    #: The proxy's compiled upstreams by id; opaque here.
    upstreams: Mapping[str, object] = field(default_factory=dict)


def lookups(tables: Mapping[str, Table]) -> Mapping[str, Lookup]:
    """Per plugin name the `get` of its table: identifier → Credential."""
    return _Lookups({plugin: table.get for plugin, table in tables.items()})
