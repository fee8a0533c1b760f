"""`rate-limiting`: so many requests a second, minute, hour, day, month or year.

    {"minute": 100, "hour": 1000, "limit_by": "consumer"}

on a route, a service, a consumer or everywhere. Windows are fixed and begin where the clock (UTC) begins a second, a
minute and so on. A request that one window refuses is counted in none. Fields, defaults, headers and texts are Kong's.
Counting is that of `limit_count`: in the process, or in Redis. Imports `core`, `fields` and `limit_count`; called by
the gate, which has the adapter count.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final

from ..core.credential import MASK
from ..core.dialects import KONG
from ..core.errors import ConfigError, Rejected
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields
from .base import Facts, Judgement, Quota, RedisServer, Spent
from .limit_count import MOST, REDIS_HOST, shortened

name: Final = "rate-limiting"
priority: Final = {KONG: 910}
#: Kept sealed and shown masked.
secret_fields: Final = ("redis.password", "redis_password")

#: From short to long, as windows are counted.
PERIODS: Final = ("second", "minute", "hour", "day", "month", "year")
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
LIMIT_BY: Final = ("consumer", "credential", "ip", "service", "header", "path")

_LIMIT: Final[dict[str, Any]] = {"type": "number", "exclusiveMinimum": 0, "maximum": MOST}
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_REDIS: Final[dict[str, Any]] = {
    "host": REDIS_HOST,
    "port": {"type": "integer", "minimum": 0, "maximum": 65535, "default": 6379},
    "timeout": {"type": "integer", "minimum": 0, "maximum": 2**31 - 2, "default": 2000},
    "username": {"type": "string", "maxLength": 256},
    "password": {"type": "string", "maxLength": 1024},
    "database": {"type": "integer", "minimum": 0, "maximum": 2**31, "default": 0},
    "ssl": {"type": "boolean", "default": False},
    "ssl_verify": {"type": "boolean", "default": False},
    "server_name": {"type": "string"},
}


def _without_default(kind: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kind.items() if key != "default"}


KONG_SCHEMA: Final = fields.kong(
    {
        **dict.fromkeys(PERIODS, _LIMIT),
        "limit_by": {"type": "string", "enum": list(LIMIT_BY), "default": "consumer"},
        "header_name": fields.HEADER,
        "path": {"type": "string", "pattern": "^/", "description": "a path, which begins with /"},
        "policy": {"type": "string", "enum": ["local", "cluster", "redis"], "default": "local"},
        "fault_tolerant": {"type": "boolean", "default": True},
        "redis": {"type": "object", "properties": _REDIS, "additionalProperties": False},
        **{f"redis_{field}": _without_default(kind) for field, kind in _REDIS.items()},
        "hide_client_headers": {"type": "boolean", "default": False},
        "error_code": {"type": "number", "minimum": 200, "maximum": 599, "default": 429},
        "error_message": {"type": "string", "default": "API rate limit exceeded"},
        "sync_rate": {"type": "number", "default": -1},
    }
)
config_schema: Final = {KONG: KONG_SCHEMA}

Reader = Callable[[Message, Facts], str]


@dataclass(frozen=True, slots=True)
class Config:
    """One `rate-limiting` as compiled from what stands on an object.

    `limits` are (period, requests), short periods first; `key` reads what is counted by, "" for nothing; `store` is
    Quota's; `tolerant`: pass where the store is away; `headers`: say the limits.
    """

    limits: tuple[tuple[str, float], ...]
    key: Reader
    store: str | RedisServer
    tolerant: bool
    headers: bool
    code: int
    message: str
    dialect: str


def compile(config: Mapping[str, Any], dialect: str = KONG) -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    limits = [(period, values[period]) for period in PERIODS if values[period] is not None]
    if not limits:
        listed = ", ".join(f"'config.{period}'" for period in PERIODS)
        text = f"at least one of these fields must be non-empty: {listed}"
        raise fields.Worded(fields.WHOLE, dict(config), f"at least one of {', '.join(PERIODS)}", text)
    for place, (short, less) in enumerate(limits):
        for long, more in limits[place + 1 :]:
            if more < less:
                text = f"The limit for {long}({more:.1f}) cannot be lower than the limit for {short}({less:.1f})"
                allowed = f"at least {less}, the limit for {short}"
                raise fields.Worded(long, more, allowed, text, {"config": text})
    for kind, field in (("header", "header_name"), ("path", "path")):
        if values["limit_by"] == kind and not values[field]:
            text = "required field missing"
            reasons = fields.conditional(field, text, "limit_by")
            raise fields.Worded(field, None, f"a value, by which limit_by {kind} counts", text, reasons)
    # As Kong's configurations before 3.6 have them.
    older = {field: value for field in _REDIS if (value := values[f"redis_{field}"]) is not None}
    server = values["redis"] | older
    if server["server_name"] and server["server_name"] != server["host"]:
        raise ConfigError("redis.server_name", server["server_name"], "nothing: the host's name is what TLS asks for")
    return Config(
        limits=tuple(limits),
        key=_reader(values),
        store=_store(values["policy"], server),
        tolerant=values["fault_tolerant"],
        headers=not values["hide_client_headers"],
        code=int(values["error_code"]),
        message=values["error_message"],
        dialect=dialect,
    )


def _store(policy: str, server: Mapping[str, Any]) -> str | RedisServer:
    """Where it is counted. `cluster` is the Redis of the settings: what all workers share, as Kong's database is."""
    if policy == "redis" and server["host"]:
        password = server["password"] or ""
        return RedisServer(
            host=server["host"],
            port=int(server["port"]),
            database=int(server["database"]),
            username=server["username"] or "",
            # The mask is left where the secret could not be opened.
            password=None if password == MASK else password,
            tls=server["ssl"],
            verify=server["ssl_verify"],
            timeout=server["timeout"] / 1000,
        )
    return "local" if policy == "local" else "redis"


def _reader(values: Mapping[str, Any]) -> Reader:
    match values["limit_by"]:
        case "consumer":
            return lambda message, facts: _consumer(facts) or _credential(facts)
        case "credential":
            return lambda message, facts: _credential(facts)
        case "service":
            return lambda message, facts: facts.service_id
        case "header":
            name = values["header_name"].lower()
            return lambda message, facts: message.get(name) or ""
        case "path":
            path = values["path"].encode().decode("latin-1")
            return lambda message, facts: path if message.path == path else ""
    return lambda message, facts: ""


def _consumer(facts: Facts) -> str:
    consumer = facts.identity.consumer
    return "" if consumer is None else consumer.id


def _credential(facts: Facts) -> str:
    credential = facts.identity.credential
    return "" if credential is None else credential.id


def check(message: Message, config: Config, facts: Facts, now: float, trace: Trace | None = None) -> Judgement:
    """What to count this request under, one window for each period."""
    if trace is not None:
        limits = ", ".join(f"{limit:g} per {period}" for period, limit in config.limits)
        trace.step(name, True, note=f"{limits}; how many there were is not asked here")
    # What nobody can be named for is counted by address, as in Kong. The kind of key stands before it: a client must
    # not reach another's count by a header that holds an address.
    named = config.key(message, facts)
    key = shortened(f"by:{named}" if named else f"ip:{message.remote_addr}")
    quotas = []
    for period, limit in config.limits:
        began, ends = window_of(period, now)
        window = max(1, ceil(ends - now))
        quotas.append(Quota(f"{facts.scope}:{period}:{began}:{key}", window, config.store, ceil(limit), facts.scope))
    return quotas


def window_of(period: str, now: float) -> tuple[int, int]:
    """When the window of a period that `now` lies in begins and ends (Unix seconds), by the calendar of UTC."""
    length = _SECONDS.get(period)
    if length is not None:
        began = int(now) // length * length
        return began, began + length
    today = datetime.fromtimestamp(int(now), UTC)
    year, month = today.year, today.month if period == "month" else 1
    began = calendar.timegm((year, month, 1, 0, 0, 0))
    year, month = (year, month + 1) if period == "month" and month < 12 else (year + 1, 1)
    return began, calendar.timegm((year, month, 1, 0, 0, 0))


def counted(
    config: Config, quotas: list[Quota], spent: Sequence[Spent] | None
) -> tuple[list[tuple[str, str]], Rejected | None]:
    """The limits' headers, and the refusal where one is used up, or where nobody could count.

    The `RateLimit-` headers and `Retry-After` speak of the window with the fewest requests left, of equals the longest.
    """
    if spent is None:
        unknown = Rejected(Reason.COUNTER_STORE_UNAVAILABLE, plugin=name, dialect=config.dialect)
        return [], None if config.tolerant else unknown
    headers: list[tuple[str, str]] = []
    nearest = limit = wait = 0
    full = False
    for place, ((period, _), quota, (used, _)) in enumerate(zip(config.limits, quotas, spent, strict=True)):
        most = quota.limit or 0
        full = full or used > most
        left = max(0, most - used)
        if not place or left <= nearest:
            nearest, limit, wait = left, most, quota.window
        headers.append((f"X-RateLimit-Limit-{period.title()}", str(most)))
        headers.append((f"X-RateLimit-Remaining-{period.title()}", str(left)))
    headers += [("RateLimit-Limit", str(limit)), ("RateLimit-Remaining", str(nearest)), ("RateLimit-Reset", str(wait))]
    if full:
        headers.append(("Retry-After", str(wait)))
    if not config.headers:
        headers = []
    if not full:
        return headers, None
    refused = Rejected(
        Reason.RATE_LIMITED, plugin=name, dialect=config.dialect, status=config.code, text=config.message
    )
    return headers, refused
