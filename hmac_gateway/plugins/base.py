"""What every plugin offers. Implemented by the files beside this one, called by the gate and by `clean()`.

Imports `core` and `schemes` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.credential import Lookup
from ..core.errors import Rejected
from ..core.identity import Carrier, Verified
from ..core.message import Message
from ..core.trace import Trace


@dataclass(frozen=True, slots=True)
class Common:
    """What the gate needs of every authentication plugin's configuration."""

    dialect: str
    challenge: str
    anonymous: str
    hide_credentials: bool
    expose_reason: bool
    #: Everywhere a credential may stand: what answers vary on, and what `hide_credentials` takes away.
    carriers: frozenset[Carrier]


class AuthPlugin(Protocol):
    """A way to authenticate: one file, one configuration, one check."""

    name: str
    #: Higher runs earlier; per dialect, as in the originals.
    priority: Mapping[str, int]
    #: JSON Schema of what stands on a route, service or bundle, per dialect; and of what a credential holds.
    config_schema: Mapping[str, Mapping[str, Any]]
    credential_schema: Mapping[str, Any]
    #: The credential's field that a request names, and the one that must stay secret.
    identifier_field: str
    secret_field: str

    def compile(self, config: Mapping[str, Any], dialect: str) -> Any:
        """The frozen configuration that `check` takes; ConfigError where it is wrong."""

    def common(self, config: Any) -> Common:
        """What the gate needs of it."""

    def check(
        self, message: Message, config: Any, lookup: Lookup, now: float, trace: Trace | None = None
    ) -> Verified | Rejected:
        """Verify a request's head at `now` (Unix seconds)."""
