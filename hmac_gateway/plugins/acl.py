"""`acl`: which of the known callers may go on, by the groups they are in.

    {"allow": ["partners"]}        or  {"deny": ["suspended"]}

on a route, a service or everywhere, beside a plugin that says who calls; `{"group": "partners"}` on a consumer. Fields,
defaults and texts are Kong's. Upstreams are told the groups, as X-Consumer-Groups. Imports `core` and `fields`; called
by the gate, behind authentication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core.dialects import KONG
from ..core.errors import Rejected
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields
from .base import Facts, Judgement, Quota, Spent

name: Final = "acl"
priority: Final = {KONG: 950}

_GROUPS: Final[dict[str, Any]] = {"type": "array", "items": {"type": "string"}}
KONG_SCHEMA: Final = fields.kong(
    {
        "allow": _GROUPS,
        "deny": _GROUPS,
        "hide_groups_header": {"type": "boolean", "default": False},
        "include_consumer_groups": {"type": "boolean", "default": False},
        # Kong knows groups of plugins such as ldap-auth, which there are none of here: the consumer's always count.
        "always_use_authenticated_groups": {"type": "boolean", "default": False},
    }
)
config_schema: Final = {KONG: KONG_SCHEMA}


@dataclass(frozen=True, slots=True)
class Config:
    """One `acl` as compiled from what stands on an object. `groups` are let in, or, with `deny`, kept out."""

    groups: frozenset[str]
    deny: bool
    tell: bool
    consumer_groups: bool
    dialect: str


def compile(config: Mapping[str, Any], dialect: str = KONG) -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    allow, deny = values["allow"], values["deny"]
    if bool(allow) == bool(deny):
        listed = "of these fields must be non-empty: 'config.allow', 'config.deny'"
        said = [f"exactly one {listed}"] if allow else [f"exactly one {listed}", f"at least one {listed}"]
        allowed = "either allow or deny, with at least one group"
        raise fields.Worded(fields.WHOLE, dict(config), allowed, said[-1], {"@entity": said})
    return Config(
        groups=frozenset(allow or deny),
        deny=bool(deny),
        tell=not values["hide_groups_header"],
        consumer_groups=values["include_consumer_groups"],
        dialect=dialect,
    )


def check(message: Message, config: Config, facts: Facts, now: float, trace: Trace | None = None) -> Judgement:
    """Judge who calls; whoever passes takes along the groups that upstreams are told."""
    consumer = facts.identity.consumer
    if consumer is None:
        if trace is not None:
            trace.step(name, False, "a consumer", "none")
        return Rejected(Reason.CONSUMER_REQUIRED, plugin=name, dialect=config.dialect)
    groups = consumer.groups
    if config.consumer_groups and consumer.group_id:
        groups += (consumer.group_id,)
    refused = config.groups.isdisjoint(groups) is not config.deny
    if trace is not None:
        wanted = f"{'none' if config.deny else 'one'} of {', '.join(sorted(config.groups))}"
        trace.step(name, not refused, wanted, ", ".join(groups) or "no group")
    if refused:
        return Rejected(Reason.CONSUMER_FORBIDDEN, plugin=name, dialect=config.dialect, detail=f"in {list(groups)}")
    return facts.identity._replace(groups=groups if config.tell else None)


def counted(
    config: Config, quotas: list[Quota], spent: Sequence[Spent] | None
) -> tuple[list[tuple[str, str]], Rejected | None]:
    """Nothing is counted."""
    return [], None
