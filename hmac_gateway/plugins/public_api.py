"""`public-api`: a route that the gateway answers itself, with one of its own interfaces.

    {}        or  {"uri": "/apisix/plugin/jwt/sign"}

on a route or a service. Without `uri` the interface is the one under the request's own path. The only one is the
endpoint that signs tokens (`jwt_sign`). Fields are APISIX's. Imports `core` and `jwt_sign`; called by the gate, as a
rule that lets everybody pass, and by the proxy, which gives the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core.credential import Lookup
from ..core.errors import Rejected
from ..core.message import Message
from ..core.paths import decoded
from ..core.reasons import Reason
from ..core.trace import Trace
from ..core.words import Answer
from . import fields, jwt_auth, jwt_sign
from .base import Facts, Judgement, Quota, Spent

name: Final = "public-api"
priority: Final = {"apisix": 501}

#: Unknown fields are accepted, as in APISIX.
APISIX_SCHEMA: Final[dict[str, Any]] = {"type": "object", "properties": {"uri": {"type": "string"}}}
config_schema: Final = {"apisix": APISIX_SCHEMA}

#: APISIX's path and API7's. A route for one of them is a route for both: API7's guide makes one and calls the other.
SIGN_PATHS: Final = ("/apisix/plugin/jwt/sign", "/api7/plugin/jwt/sign")


@dataclass(frozen=True, slots=True)
class Config:
    """One `public-api`. `uri` names the interface; "": the one under the request's path."""

    uri: str
    dialect: str


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    return Config(fields.checked(config, dialect, config_schema)["uri"] or "", dialect)


def check(message: Message, config: Config, facts: Facts, now: float, trace: Trace | None = None) -> Judgement:
    """Nobody is refused: who may ask is for the other plugins of the route."""
    return None


def counted(
    config: Config, quotas: list[Quota], spent: Sequence[Spent] | None
) -> tuple[list[tuple[str, str]], Rejected | None]:
    """Nothing is counted."""
    return [], None


def paths(config: Config, own: tuple[str, ...]) -> tuple[str, ...]:
    """The paths of a route with this plugin: its own (patterns), and both of an interface's where one is among them."""
    if config.uri or not any(_covers(pattern, path) for pattern in own for path in SIGN_PATHS):
        return own
    return tuple(dict.fromkeys((*own, *SIGN_PATHS)))


def _covers(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def respond(message: Message, config: Config, lookups: Mapping[str, Lookup], now: float) -> Answer | Rejected:
    """The interface's answer to a request at `now` (Unix seconds); `lookups` are those of all plugins, by name."""
    path = config.uri.partition("?")[0] or decoded(message.path)
    if path not in SIGN_PATHS or message.method != "GET":
        return Rejected(Reason.NO_ROUTE, dialect=config.dialect)
    signed = jwt_sign.sign(message.query, lookups[jwt_auth.name], now)
    if isinstance(signed, Reason):
        return Rejected(signed, plugin=name, dialect=config.dialect)
    headers = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]
    return Answer(200, signed.encode("ascii"), headers)
