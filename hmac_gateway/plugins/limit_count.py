"""`limit-count`: so many requests in a time window.

    {"count": 100, "time_window": 60}       or  {"count": 100, "time_window": 60, "key": "consumer_name"}
    {"rules": [{"count": 10, "time_window": 1, "key": "${http_user}"}, …]}

on a route, a service, a plugin config, a consumer, a consumer group or everywhere. Windows are fixed and begin with
their first request, or slide. Fields, defaults and headers are APISIX's; what is not supported is refused where it is
written.
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
from .base import Facts, InTurn, Judgement, Quota, RedisServer, Spent

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
#: Each costs a step in a store.
MOST_RULES: Final = 32


def _number(most: int) -> dict[str, Any]:
    return {
        "oneOf": [{"type": "integer", "exclusiveMinimum": 0, "maximum": most}, {"type": "string", "maxLength": 256}],
        "description": f"a whole number from 1 to {most}, or text with variables such as ${{http_count ?? 10}}",
    }


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
        "rules": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_RULES,
            "items": {
                "type": "object",
                "properties": {
                    "count": _number(MOST),
                    "time_window": _number(LONGEST),
                    "key": {"type": "string", "minLength": 1},
                    "header_prefix": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 64,
                        # It becomes a part of headers' names.
                        "pattern": r"^[A-Za-z0-9_-]+\Z",
                        "description": "letters, digits, _ and -",
                    },
                },
                "required": ["count", "time_window", "key"],
            },
        },
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
_VARIABLE: Final = re.compile(r"\$(?:\{\s*(\w+)\s*(?:\?\?([^{}]*))?\}|(\w+))", re.A)
#: A key of this length or more is held as its digest: clients choose it.
_LONG: Final = 64

Reader = Callable[[Message, Facts], str]
#: A number that a configuration gives, or what reads it from a request: None where that has none.
Number = int | Callable[[Message, Facts], int | None]


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in a window of so many seconds.

    `key` reads what is counted by, "" for nothing, and `by` names it. `prefix` is a rule's: it stands in its headers.
    """

    count: Number
    window: Number
    key: Reader
    by: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """One `limit-count` as compiled from what stands on an object.

    `limits` are those of `rules`, or the only one; `store` is Quota's; `code` is the status of refusals and `message`
    their text, "" for ours; `degrade`: pass where the store is away; `headers`: say the quota.
    """

    limits: tuple[Limit, ...]
    rules: bool
    sliding: bool
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
    rules = values["rules"]
    if rules is None:
        limits = [
            Limit(
                count=_positive("count", values["count"], MOST),
                window=_positive("time_window", values["time_window"], LONGEST),
                key=_reader(values["key"], values["key_type"]),
                by=values["key"],
            )
        ]
    else:
        limits = [_rule(place, rule, rules[: place - 1]) for place, rule in enumerate(rules, 1)]
    return Config(
        limits=tuple(limits),
        rules=rules is not None,
        sliding=values["window_type"] == "sliding",
        group=shortened(values["group"] or ""),
        store=_store(values),
        code=int(values["rejected_code"]),
        message=values["rejected_msg"] or "",
        degrade=values["allow_degradation"],
        headers=values["show_limit_quota_header"],
        dialect=dialect,
    )


def _rule(place: int, rule: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> Limit:
    key, field = rule["key"], f"rules.{place}"
    if any(key == other["key"] for other in before):
        raise fields.Worded(f"{field}.key", key, "a key that no other rule has", f"duplicate key '{key}' in rules")
    return Limit(
        count=_positive(f"{field}.count", rule["count"], MOST),
        window=_positive(f"{field}.time_window", rule["time_window"], LONGEST),
        key=_reader(key, "var_combination", f"{field}.key"),
        by=key,
        prefix=rule.get("header_prefix") or str(place),
    )


#: APISIX's words where that is not so.
MISMATCH: Final = "group conf mismatched"


def same_group(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations may share a group: all that is about counting is alike, `_meta` aside.

    Of secrets nobody can tell: each may be sealed in its own way.
    """
    names = APISIX_SCHEMA["properties"].keys() - {*secret_fields}
    return all(one.get(name) == other.get(name) for name in names)


def check(message: Message, config: Config, facts: Facts, now: float, trace: Trace | None = None) -> Judgement:
    """What to count this request under; its window begins when the store sees the first one."""
    quotas = []
    for place, limit in enumerate(config.limits, 1):
        # A rule with nothing to count by is passed over; what is no rule counts the address instead.
        key = limit.key(message, facts) or ("" if config.rules else message.remote_addr)
        count, window = (
            number if isinstance(number, int) else number(message, facts) for number in (limit.count, limit.window)
        )
        if (config.rules and not key) or count is None or window is None:
            continue
        # No place is called `shared`: a group's counts meet those of no single object.
        scope = f"shared:{config.group}" if config.group else facts.scope
        rule = f"{scope}:{place}" if config.rules else scope
        quotas.append(
            Quota(f"{rule}:{shortened(key)}", window, config.store, count, scope, limit.prefix, config.sliding)
        )
        if trace is not None:
            note = f"{count} in {window} s for each {limit.by}; how many there were is not asked here"
            trace.step(name, True, note=note)
    if not quotas:
        if trace is not None:
            trace.step(name, config.degrade, "a number for each variable, and a key of one rule at least", "neither")
        if config.degrade:
            return None
        return Rejected(Reason.LIMIT_UNKNOWN, plugin=name, dialect=config.dialect)
    return InTurn(quotas) if config.rules else quotas


def counted(
    config: Config, quotas: list[Quota], spent: Sequence[Spent] | None
) -> tuple[list[tuple[str, str]], Rejected | None]:
    """The quota's headers, and the refusal where it is used up, or where nobody could count."""
    if spent is None:
        unknown = Rejected(Reason.COUNTER_STORE_UNAVAILABLE, plugin=name, dialect=config.dialect)
        return [], None if config.degrade else unknown
    ((used, reset),), (quota,) = spent, quotas
    count = quota.limit or 0
    said = f"X-{quota.told}-RateLimit" if quota.told else "X-RateLimit"
    headers = [
        (f"{said}-Limit", str(count)),
        (f"{said}-Remaining", str(max(0, count - used))),
        (f"{said}-Reset", _seconds(reset)),
    ]
    if not config.headers:
        headers = []
    if used <= count:
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


def _seconds(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}".rstrip("0").rstrip(".")


def shortened(key: str) -> str:
    """A key as stores take it: short and ASCII, whatever a client sent."""
    if len(key) < _LONG and key.isascii():
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _refuse_unsupported(config: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    if values["policy"] in ("redis-cluster", "redis-sentinel"):
        raise ConfigError("policy", values["policy"], "local or redis; no clusters and sentinels")
    for field in config:
        # What is misspelt, or of a kind that there is not, may hold a password and would be stored as it is.
        if field.startswith(("redis_", "sentinel_")) and field not in _REDIS:
            raise ConfigError(field, "(not shown)", f"one of {', '.join(_REDIS)}")


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


def _positive(field: str, value: int | str, most: int) -> Number:
    """A number, from a number, from digits, or from text with variables; raises ConfigError naming `field`."""
    if not isinstance(value, str):
        return int(value)
    if not _VARIABLE.search(value):
        number = _digits(value, most)
        if number is None:
            raise ConfigError(field, value, f"a whole number from 1 to {most}, or text with variables")
        return number
    parts = _parts(value, field)

    def read(message: Message, facts: Facts) -> int | None:
        return _digits("".join(part if isinstance(part, str) else part(message, facts) for part in parts), most)

    return read


def _digits(text: str, most: int) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0
    return number if 0 < number <= most else None


def _reader(key: str, kind: str, field: str = "key") -> Reader:
    if kind == "constant":
        return lambda message, facts: key
    if kind == "var":
        return _variable(key, field)
    if not _VARIABLE.search(key):
        raise ConfigError(field, key, "text with variables, as in $remote_addr $consumer_name")
    parts = _parts(key, field)

    def combined(message: Message, facts: Facts) -> str:
        # With each its length: `a b` and `c` must not read like `a` and `b c`.
        found = [part if isinstance(part, str) else part(message, facts) for part in parts]
        if not any(found[1::2]):
            return ""
        return "".join(text if number % 2 == 0 else f"{len(text)}:{text}" for number, text in enumerate(found))

    return combined


def _parts(text: str, field: str) -> list[str | Reader]:
    """A text cut at its variables: every other one is a variable's."""
    parts: list[str | Reader] = []
    end = 0
    for found in _VARIABLE.finditer(text):
        braced, default, plain = found.groups()
        parts += [text[end : found.start()], _variable(braced or plain, field, (default or "").strip())]
        end = found.end()
    parts.append(text[end:])
    return parts


def _variable(name: str, field: str, default: str = "") -> Reader:
    fact = _FACTS.get(name)
    if fact is not None:
        return lambda message, facts: fact(facts) or default
    try:
        read = value_of(name)
    except ConfigError:
        raise ConfigError(field, name, f"{NAMES}, {', '.join(_FACTS)}") from None

    def value(message: Message, facts: Facts) -> str:
        found = read(message)
        return found if found and isinstance(found, str) else str(found or default)

    return value
