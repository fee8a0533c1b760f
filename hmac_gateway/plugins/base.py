"""What every plugin offers: authentication methods, and rules for who is known. Called by the gate and by `clean()`.

Imports `core` and `schemes` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..core.credential import Lookup, Secret
from ..core.dialects import APISIX
from ..core.errors import Rejected
from ..core.identity import Carrier, Identity, Verified
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
    #: The credential's attribute that upstreams are told as X-Credential-Identifier, "" for none.
    told: str = "public_id"
    #: Kong: whether OPTIONS requests are asked for credentials too.
    run_on_preflight: bool = True

    @property
    def optional(self) -> bool:
        """Kong: whether somebody whom another plugin has recognised need not be asked again."""
        return bool(self.anonymous) and self.dialect != APISIX


class AuthPlugin(Protocol):
    """A way to authenticate: one file, one configuration, one check."""

    name: str
    #: Higher runs earlier; per dialect, as in the originals.
    priority: Mapping[str, int]
    #: JSON Schema of what stands on a route, service or bundle, per dialect; and of what a credential holds, None for
    #: a method that has no credentials of its own.
    config_schema: Mapping[str, Mapping[str, Any]]
    credential_schema: Mapping[str, Any] | None
    #: The credential's field that a request names, and the one that must stay secret.
    identifier_field: str
    secret_field: str
    #: Under which plugin's name its credentials are kept: its own, or that of the plugin whose credentials it shares.
    holder: str

    def compile(self, config: Mapping[str, Any], dialect: str) -> Any:
        """The frozen configuration that `check` takes; ConfigError where it is wrong."""

    def common(self, config: Any) -> Common:
        """What the gate needs of it."""

    def check(
        self, message: Message, config: Any, lookup: Lookup, now: float, trace: Trace | None = None
    ) -> Verified | Rejected:
        """Verify a request's head at `now` (Unix seconds)."""


class Facts(NamedTuple):
    """What a rule judges by, besides the request's head.

    `scope` names where the rule stands and what it says: counts of different rules must not meet.
    """

    identity: Identity
    route_id: str
    service_id: str
    scope: str


class RedisServer(NamedTuple):
    """A Redis that a plugin's configuration names. `timeout` is in seconds, for connecting and for each answer.

    `password` is None where it cannot be had: nobody may count there.
    """

    host: str
    port: int
    database: int
    username: str
    password: str | None
    tls: bool
    verify: bool
    timeout: float

    def __repr__(self) -> str:
        return f"RedisServer({self.host}:{self.port}/{self.database})"


class Quota(NamedTuple):
    """One more request to be counted under `key`, in windows of `window` seconds, in the store named `store`.

    `store` is `local`, `redis` for the one that the settings name for all processes, or a Redis of the configuration's;
    the adapter counts and asks the plugin what it means. A request that would be more than `limit` is not counted,
    under none of the keys it was to be counted under; None: it always is. `rule` names what asks: of memory each has
    a share. `told` is what the plugin calls this one. `sliding`: windows are those of the clock, and what the one
    before has seen counts for as long as it reaches into the last `window` seconds; such a quota has a limit, and
    stands alone.
    """

    key: str
    window: int
    store: str | RedisServer = "local"
    limit: int | None = None
    rule: str = ""
    told: str = ""
    sliding: bool = False


class InTurn(NamedTuple):
    """Quotas to be counted one after the other, each only where the plugin let the one before it pass."""

    quotas: list[Quota]


class Spent(NamedTuple):
    """How many requests a window has seen, and seconds until it is over.

    This request is among them, or is one more than the limit of this window; where another one's limit kept it from
    being counted, it is not.
    """

    used: int
    reset: float


#: What a rule says of a request: refused, to be counted first, passed as somebody of whom more is known, or passed.
Judgement = Rejected | list[Quota] | InTurn | Identity | None


class RulePlugin(Protocol):
    """A rule for requests whose caller is known, or that need none: one file, one configuration, one check."""

    name: str
    priority: Mapping[str, int]
    config_schema: Mapping[str, Mapping[str, Any]]

    def compile(self, config: Mapping[str, Any], dialect: str) -> Any:
        """The frozen configuration that `check` takes; ConfigError where it is wrong."""

    def check(self, message: Message, config: Any, facts: Facts, now: float, trace: Trace | None = None) -> Judgement:
        """Judge a request at `now` (Unix seconds). All quotas of one judgement name the same store."""

    def counted(
        self, config: Any, quotas: list[Quota], spent: Sequence[Spent] | None
    ) -> tuple[list[tuple[str, str]], Rejected | None]:
        """Response headers, and the refusal if there is one; `spent` is None where the store is away."""


class OutgoingPlugin(Protocol):
    """The last edit of what goes upstream: one file, one configuration, one signature."""

    name: str
    priority: Mapping[str, int]
    config_schema: Mapping[str, Mapping[str, Any]]
    #: Fields of the configuration that are kept sealed and shown masked.
    secret_fields: tuple[str, ...]

    def compile(
        self, config: Mapping[str, Any], dialect: str, secrets: Mapping[str, Secret | None] | None = None
    ) -> Any:
        """The frozen configuration; ConfigError where it is wrong. `secrets` are the opened ones, by field."""

    def sign(
        self, message: Message, config: Any, now: float, pieces: Callable[[], Iterable[bytes]] | None = None
    ) -> list[tuple[str, str]]:
        """Headers, names in lower case, that take the place of the message's; `pieces` gives the body."""
