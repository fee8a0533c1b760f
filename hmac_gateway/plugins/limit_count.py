"""`limit-count`: so many requests in a time window.

    {"count": 100, "time_window": 60}       or  {"count": 100, "time_window": 60, "key": "consumer_name"}

on a route, a service, a plugin config, a consumer, a consumer group or everywhere. Windows are fixed and begin with
their first request. Fields, defaults and headers are APISIX's; what is not supported is refused where it is written.
Imports `core`, `schema` and `expr`; called by the gate, which has the adapter count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core.credential import MASK
from ..core.errors import ConfigError, Rejected
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from ..expr import NAMES, value_of
from . import fields
from .base import Facts, Judgement, Quota, RedisServer, Spent

name: Final = "limit-count"
priority: Final = {"apisix": 1002}

#: Kept sealed and shown masked.
secret_fields: Final = ("redis_password",)
#: APISIX's policies, and those of its window types that there are here.
POLICIES: Final = ("local", "redis", "redis-cluster", "redis-sentinel")
KEY_TYPES: Final = ("var", "var_combination", "constant")
#: The largest numbers: Redis counts with 64 bits, and takes no later end of a window.
MOST: Final = 2**53
LONGEST: Final = 10 * 366 * 86_400


def _number(most: int) -> dict[str, Any]:
    # APISIX takes text too, with variables in it; of that, `compile` takes digits.
    return {"type": ["integer", "string"], "exclusiveMinimum": 0, "maximum": most}


REDIS_HOST: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 2,
    "maxLength": 253,
    "pattern": r"^[A-Za-z0-9._:-]+\Z",
    "description": "a host name or an IP address",
}
#: A Redis of this limit's own. APISIX's pool is per connection, and accepted only.
_REDIS: Final[dict[str, Any]] = {
    "redis_host": REDIS_HOST,
    "redis_port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 6379},
    "redis_username": {"type": "string", "minLength": 1, "maxLength": 256},
    "redis_password": {"type": "string", "maxLength": 1024},
    "redis_database": {"type": "integer", "minimum": 0, "maximum": 2**31, "default": 0},
    "redis_timeout": {"type": "integer", "minimum": 1, "maximum": 60_000, "default": 1000},
    "redis_ssl": {"type": "boolean", "default": False},
    "redis_ssl_verify": {"type": "boolean", "default": False},
    "redis_keepalive_timeout": {"type": "integer", "minimum": 1000},
    "redis_keepalive_pool": {"type": "integer", "minimum": 1},
}
#: Unknown fields are accepted, as in APISIX, but for those that a Redis might have.
APISIX_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "count": _number(MOST),
        "time_window": _number(LONGEST),
        "rules": {"type": "array"},
        "group": {"type": "string", "minLength": 1},
        "key": {"type": "string", "minLength": 1, "default": "remote_addr"},
        "key_type": {"type": "string", "enum": list(KEY_TYPES), "default": "var"},
        "rejected_code": {"type": "integer", "minimum": 200, "maximum": 599, "default": 503},
        "rejected_msg": {"type": "string", "minLength": 1},
        "policy": {"type": "string", "enum": list(POLICIES), "default": "local"},
        "window_type": {"type": "string", "enum": ["fixed", "sliding"], "default": "fixed"},
        "allow_degradation": {"type": "boolean", "default": False},
        "show_limit_quota_header": {"type": "boolean", "default": True},
        **_REDIS,
    },
    "oneOf": [{"required": ["count", "time_window"]}, {"required": ["rules"]}],
    "description": "an object with count and time_window",
}
config_schema: Final = {"apisix": APISIX_SCHEMA}

#: Variables that are no part of a request's head.
_FACTS: Final[dict[str, Callable[[Facts], str]]] = {
    "consumer_name": lambda facts: facts.identity.consumer.username if facts.identity.consumer else "",
    "consumer_group_id": lambda facts: facts.identity.consumer.group_id if facts.identity.consumer else "",
    "route_id": lambda facts: facts.route_id,
    "service_id": lambda facts: facts.service_id,
}
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.A)
#: A key of this length or more is held as its digest: clients choose it.
_LONG: Final = 64

Reader = Callable[[Message, Facts], str]


@dataclass(frozen=True, slots=True)
class Config:
    """One `limit-count` as compiled from what stands on an object.

    `window` is in seconds; `key` reads what is counted by, "" for nothing, and `by` names it; `store` is Quota's;
    `code` is the status of refusals and `message` their text, "" for ours; `degrade`: pass where the store is away;
    `headers`: say the quota.
    """

    count: int
    window: int
    key: Reader
    by: str
    group: str
    store: str | RedisServer
    code: int
    message: str
    degrade: bool
    headers: bool
    dialect: str


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    _refuse_unsupported(config, values)
    return Config(
        count=_positive("count", values["count"], MOST),
        window=_positive("time_window", values["time_window"], LONGEST),
        key=_reader(values["key"], values["key_type"]),
        by=values["key"],
        group=shortened(values["group"] or ""),
        store=_store(values),
        code=int(values["rejected_code"]),
        message=values["rejected_msg"] or "",
        degrade=values["allow_degradation"],
        headers=values["show_limit_quota_header"],
        dialect=dialect,
    )


def same_group(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations may share a group: all that is about counting is alike, `_meta` aside.

    Of secrets nobody can tell: each may be sealed in its own way.
    """
    names = APISIX_SCHEMA["properties"].keys() - {*secret_fields}
    return all(one.get(name) == other.get(name) for name in names)


def check(message: Message, config: Config, facts: Facts, now: float, trace: Trace | None = None) -> Judgement:
    """What to count this request under; its window begins when the store sees the first one."""
    if trace is not None:
        limit = f"{config.count} in {config.window} s for each {config.by}"
        trace.step(name, True, note=f"{limit}; how many there were is not asked here")
    key = config.key(message, facts) or message.remote_addr
    # No place is called `shared`: a group's counts meet those of no single object.
    scope = f"shared:{config.group}" if config.group else facts.scope
    return [Quota(f"{scope}:{shortened(key)}", config.window, config.store, rule=scope)]


def counted(
    config: Config, quotas: list[Quota], spent: Sequence[Spent] | None
) -> tuple[list[tuple[str, str]], Rejected | None]:
    """The quota's headers, and the refusal where it is used up, or where nobody could count."""
    if spent is None:
        unknown = Rejected(Reason.COUNTER_STORE_UNAVAILABLE, plugin=name, dialect=config.dialect)
        return [], None if config.degrade else unknown
    ((used, reset),) = spent
    headers = [
        ("X-RateLimit-Limit", str(config.count)),
        ("X-RateLimit-Remaining", str(max(0, config.count - used))),
        ("X-RateLimit-Reset", str(reset)),
    ]
    if not config.headers:
        headers = []
    if used <= config.count:
        return headers, None
    refused = Rejected(
        Reason.RATE_LIMITED,
        plugin=name,
        dialect=config.dialect,
        status=config.code,
        text=config.message,
        response={"error_msg": config.message} if config.message else None,
    )
    return headers, refused


def shortened(key: str) -> str:
    """A key as stores take it: short and ASCII, whatever a client sent."""
    if len(key) < _LONG and key.isascii():
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _refuse_unsupported(config: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    if "rules" in config:
        raise ConfigError("rules", config["rules"], "count and time_window instead: a plugin holds one limit here")
    if values["policy"] in ("redis-cluster", "redis-sentinel"):
        raise ConfigError("policy", values["policy"], "local or redis; no clusters and sentinels")
    for field in config:
        # What is misspelt, or of a kind that there is not, may hold a password and would be stored as it is.
        if field.startswith(("redis_", "sentinel_")) and field not in _REDIS:
            raise ConfigError(field, "(not shown)", f"one of {', '.join(_REDIS)}")
    if values["window_type"] != "fixed":
        raise ConfigError("window_type", values["window_type"], "fixed")


def _store(values: Mapping[str, Any]) -> str | RedisServer:
    if values["policy"] != "redis" or values["redis_host"] is None:
        # Without an address: the Redis of the settings.
        return str(values["policy"])
    password = values["redis_password"] or ""
    return RedisServer(
        host=values["redis_host"],
        port=int(values["redis_port"]),
        database=int(values["redis_database"]),
        username=values["redis_username"] or "",
        # The mask is left where the secret could not be opened.
        password=None if password == MASK else password,
        tls=values["redis_ssl"],
        verify=values["redis_ssl_verify"],
        timeout=values["redis_timeout"] / 1000,
    )


def _positive(field: str, value: int | str, most: int) -> int:
    if isinstance(value, str):
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= 16 else 0
        if not 0 < number <= most:
            raise ConfigError(field, value, f"a whole number from 1 to {most}, without variables")
        return number
    return int(value)


def _reader(key: str, kind: str) -> Reader:
    if kind == "constant":
        return lambda message, facts: key
    if kind == "var":
        return _variable(key)
    if not _VARIABLE.search(key):
        raise ConfigError("key", key, "text with variables, as in $remote_addr $consumer_name")
    parts: list[str | Reader] = []
    end = 0
    for found in _VARIABLE.finditer(key):
        parts += [key[end : found.start()], _variable(found[1] or found[2])]
        end = found.end()
    parts.append(key[end:])

    def combined(message: Message, facts: Facts) -> str:
        # With each its length: `a b` and `c` must not read like `a` and `b c`.
        found = [part if isinstance(part, str) else part(message, facts) for part in parts]
        if not any(found[1::2]):
            return ""
        return "".join(text if number % 2 == 0 else f"{len(text)}:{text}" for number, text in enumerate(found))

    return combined


def _variable(name: str) -> Reader:
    fact = _FACTS.get(name)
    if fact is not None:
        return lambda message, facts: fact(facts)
    try:
        read = value_of(name)
    except ConfigError:
        raise ConfigError("key", name, f"{NAMES}, {', '.join(_FACTS)}") from None

    def value(message: Message, facts: Facts) -> str:
        found = read(message)
        return found if isinstance(found, str) else str(found or "")

    return value
