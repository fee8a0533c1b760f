"""`consumer-restriction`: which of the known callers may go on, and with which methods.

    {"whitelist": ["alice"]}        or  {"allowed_by_methods": [{"user": "alice", "methods": ["GET"]}]}

on a route, a service, a plugin config, a consumer, a consumer group or everywhere, beside a plugin that says who calls.
Fields, defaults and texts are APISIX's. Imports `core` and `schema`; called by the gate, behind authentication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core.errors import Rejected
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields
from .base import Facts, Judgement, Quota, Spent

name: Final = "consumer-restriction"
priority: Final = {"apisix": 2400}

TYPES: Final = ("consumer_name", "service_id", "route_id", "consumer_group_id")
#: APISIX's list of methods.
METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE")

_NAMES: Final[dict[str, Any]] = {"type": "array", "minItems": 1, "items": {"type": "string"}}

#: Unknown fields are accepted, as in APISIX.
APISIX_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": list(TYPES), "default": "consumer_name"},
        "blacklist": _NAMES,
        "whitelist": _NAMES,
        "allowed_by_methods": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "user": {"type": "string"},
                    "methods": {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(METHODS)}},
                },
                # APISIX takes an entry without them, and then answers 500.
                "required": ["user", "methods"],
            },
        },
        # APISIX sets no upper end; a status has three digits.
        "rejected_code": {"type": "integer", "minimum": 200, "maximum": 599, "default": 403},
        "rejected_msg": {"type": "string"},
    },
    "anyOf": [{"required": ["blacklist"]}, {"required": ["whitelist"]}, {"required": ["allowed_by_methods"]}],
    "description": "an object with blacklist, whitelist or allowed_by_methods",
}
config_schema: Final = {"apisix": APISIX_SCHEMA}


@dataclass(frozen=True, slots=True)
class Config:
    """One `consumer-restriction` as compiled from what stands on an object.

    `methods` are those of each user; `whitelist` is None where there is none. `code` is the status of refusals and
    `message` their text, "" for APISIX's.
    """

    type: str
    blacklist: frozenset[str]
    whitelist: frozenset[str] | None
    methods: Mapping[str, frozenset[str]]
    code: int
    message: str
    dialect: str


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    whitelist = values["whitelist"]
    methods: dict[str, frozenset[str]] = {}
    for entry in values["allowed_by_methods"] or ():
        # Of two entries for one user the first counts.
        methods.setdefault(entry["user"], frozenset(entry["methods"]))
    return Config(
        type=values["type"],
        blacklist=frozenset(values["blacklist"] or ()),
        whitelist=None if whitelist is None else frozenset(whitelist),
        methods=methods,
        code=int(values["rejected_code"]),
        message=values["rejected_msg"] or "",
        dialect=dialect,
    )


def check(message: Message, config: Config, facts: Facts, now: float, trace: Trace | None = None) -> Judgement:
    """Judge who calls, or which route or service is called; `now` does not matter.

    The blacklist comes first. Who is on the whitelist passes, with any method; where there is one, nobody else does.
    Without one, the methods of those who have an entry are looked at.
    """
    found = _subject(config.type, facts)
    wanted = _wanted(config, found, message.method)
    if trace is not None:
        received = f"{config.type} {found}, {message.method}" if found else f"no {config.type}"
        trace.step(name, wanted is None, wanted or "", received)
    if wanted is None:
        return None
    return _reject(config, Reason.CONSUMER_FORBIDDEN if found else Reason.CONSUMER_REQUIRED)


def _wanted(config: Config, found: str, method: str) -> str | None:
    """What a request would have to be, in words; None where it is that."""
    if not found:
        return f"a {config.type}"
    if found in config.blacklist:
        return "one that is not on the blacklist"
    if config.whitelist is not None:
        return None if found in config.whitelist else f"one of the whitelist: {_some(config.whitelist)}"
    allowed = config.methods.get(found)
    return None if allowed is None or method in allowed else f"for this one {_some(allowed)}"


def _some(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")


def counted(
    config: Config, quotas: list[Quota], spent: Sequence[Spent] | None
) -> tuple[list[tuple[str, str]], Rejected | None]:
    """Nothing is counted."""
    return [], None


def _subject(kind: str, facts: Facts) -> str:
    if kind == "route_id":
        return facts.route_id
    if kind == "service_id":
        return facts.service_id
    consumer = facts.identity.consumer
    if consumer is None:
        return ""
    return consumer.username if kind == "consumer_name" else consumer.group_id


def _reject(config: Config, reason: Reason) -> Rejected:
    told = reason is Reason.CONSUMER_FORBIDDEN
    return Rejected(
        reason,
        plugin=name,
        dialect=config.dialect,
        facts={"type": config.type},
        status=config.code if told else 0,
        text=config.message if told else "",
    )
