"""APISIX `vars`: conditions on a request, compiled to a predicate when configuration is compiled.

    [["arg_version", "==", "2"], ["http_x_tenant", "!", "in", ["a", "b"]]]
    ["OR", ["remote_addr", "ipmatch", ["10.0.0.0/8"]], ["cookie_beta", "~~", "^[0-9]+$"]]

Used by `proxy.compile` and the models' `clean()`; `variable` by the balancer's hashing. Imports `core`
and `regex` only.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from .core.errors import ConfigError
from .core.message import Message, host_of
from .core.paths import decoded
from .regex import compile_regex

Predicate = Callable[[Message], bool]
#: What a request has under a name: text, True for an argument without `=`, None for nothing.
Value = str | bool | None

#: How deep AND and OR may nest.
MAX_DEPTH: Final = 32

_FORM: Final = '[name, operator, value] or [name, "!", operator, value]'
_LOGIC: Final = {"AND": (all, False), "!AND": (all, True), "OR": (any, False), "!OR": (any, True)}
_ORDER: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_OPERATORS: Final = ("==", "~=", *_ORDER, "~~", "~*", "in", "has", "ipmatch")
_NUMBER: Final = re.compile(r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*", re.A)


def compile_expr(expr: list[Any]) -> Predicate:
    """The predicate of a `vars` list; an empty list holds for every request.

    The meaning is lua-resty-expr's: conditions side by side must all hold; operators and AND, OR, !AND, !OR are
    read without case; a value is compared as a number when the expected one is a number; a name that the request
    does not have fails everything but `~=` and what is negated by `!`.

    ConfigError("vars", …) for all that cannot be evaluated, and for what could never hold (a number in a list: what
    a request brings is text), so that no condition is silently true.
    """
    if not isinstance(expr, list):
        raise ConfigError("vars", expr, "a list of conditions")
    if not expr:
        return lambda message: True
    if not isinstance(expr[0], list) and _logic(expr[0]) is None:
        raise ConfigError("vars", expr, f"a list of conditions, each of them {_FORM}")
    return _compile(expr, 0)


def _logic(head: Any) -> str | None:
    name = head.upper() if isinstance(head, str) else ""
    return name if name in _LOGIC else None


def _compile(rule: Any, depth: int) -> Predicate:
    if not isinstance(rule, list) or not rule:
        raise ConfigError("vars", rule, f"{_FORM}, or a list of such")
    if depth > MAX_DEPTH:
        raise ConfigError("vars", "…", f"conditions nested at most {MAX_DEPTH} deep")
    name = _logic(rule[0])
    if name is None and not isinstance(rule[0], list):
        return _condition(rule)
    parts = rule if name is None else rule[1:]
    if name is not None and len(parts) < 2:
        raise ConfigError("vars", rule, f"at least two conditions after {name}")
    conditions = tuple(_compile(part, depth + 1) for part in parts)
    combine, negated = _LOGIC[name or "AND"]
    return lambda message: combine(condition(message) for condition in conditions) is not negated


def _condition(rule: list[Any]) -> Predicate:
    if len(rule) == 4 and rule[1] == "!":
        (name, _, op, expected), negated = rule, True
    elif len(rule) == 3 and rule[1] != "!":
        (name, op, expected), negated = rule, False
    else:
        raise ConfigError("vars", rule, _FORM)
    op = op.lower() if isinstance(op, str) else op
    if not isinstance(name, str) or op not in _OPERATORS:
        raise ConfigError("vars", rule, f"{_FORM}, where operator is one of {' '.join(_OPERATORS)}")
    if op == "has":
        values = _all_of(name, rule)
        wanted = _text(expected, rule)
        return lambda message: (wanted in values(message)) is not negated
    value = _first_of(name, rule)
    holds = _test(op, expected, rule)
    return lambda message: holds(value(message)) is not negated


# --- what a request has ---


def _bytes_text(text: str) -> str:
    """Configuration's Unicode as the bytes-as-text that a Message holds."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _unescape(text: str) -> str:
    text = text.replace("+", " ")
    return unquote_to_bytes(text.encode("latin-1")).decode("latin-1") if "%" in text else text


def _arguments(message: Message, name: str) -> list[Value]:
    found: list[Value] = []
    for piece in message.query.split("&"):
        key, mark, value = piece.partition("=")
        # Broken escapes and names in another case do not match, as in OpenResty.
        if piece and _unescape(key) == name:
            found.append(_unescape(value) if mark else True)
    return found


def _cookies(message: Message, name: str) -> list[Value]:
    found: list[Value] = []
    for header in message.get_all("cookie"):
        for piece in header.split(";"):
            key, mark, value = piece.partition("=")
            if mark and key.strip(" \t") == name:
                found.append(value.strip(" \t"))
    return found


def _remote_addr(message: Message) -> Value:
    return message.remote_addr or None


_SINGLE: Final[dict[str, Callable[[Message], Value]]] = {
    "request_method": lambda message: message.method,
    "remote_addr": _remote_addr,
    "uri": lambda message: decoded(message.path),
    "request_uri": lambda message: message.target,
    "host": lambda message: host_of(message.authority).lower() or None,
    "scheme": lambda message: message.scheme,
    "query_string": lambda message: message.query or None,
    "args": lambda message: message.query or None,
}
NAMES: Final = "arg_…, http_…, cookie_…, " + ", ".join(_SINGLE)


def value_of(name: str) -> Callable[[Message], Value]:
    """What reads a variable of a request; raises ConfigError("vars", …) for a name that there is not."""
    return _first_of(name, name)


def _all_of(name: str, rule: Any) -> Callable[[Message], Sequence[Value]]:
    """Every value of a name, in the order received."""
    single = _SINGLE.get(name)
    if single is not None:
        return lambda message: [] if (value := single(message)) is None else [value]
    prefix, mark, rest = name.partition("_")
    rest = _bytes_text(rest)
    if prefix == "arg" and rest:
        return lambda message: _arguments(message, rest)
    if prefix == "cookie" and rest:
        return lambda message: _cookies(message, rest)
    if prefix == "http" and rest:
        header = rest.lower().replace("_", "-")
        return lambda message: message.get_all(header)
    if name.startswith("uri_param_"):
        raise ConfigError("vars", rule, f"{NAMES}; paths have no named parameters")
    if name.startswith(("post_arg_", "graphql_")):
        raise ConfigError("vars", rule, f"{NAMES}; a route is chosen before the body is read")
    raise ConfigError("vars", rule, NAMES)


def variable(name: str) -> Callable[[Message], Value]:
    """What a request has under a name, `arg_version` or `remote_addr` say. ConfigError("vars", …) for unknown names."""
    return _first_of(name, name)


def _first_of(name: str, rule: Any) -> Callable[[Message], Value]:
    """The one value of a name: the first argument, the last cookie; repeated headers are joined, as by nginx."""
    single = _SINGLE.get(name)
    if single is not None:
        return single
    values = _all_of(name, rule)
    if name.startswith("http_"):
        return lambda message: ", ".join(map(str, found)) if (found := values(message)) else None
    place = -1 if name.startswith("cookie_") else 0
    return lambda message: found[place] if (found := values(message)) else None


# --- what it must be ---


def _text(expected: Any, rule: Any) -> str:
    if not isinstance(expected, str):
        raise ConfigError("vars", rule, f"text as the value of {rule[-2]}")
    return _bytes_text(expected)


def _number_of(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if len(value) <= 400 and _NUMBER.fullmatch(value) else None
    return None


def _test(op: str, expected: Any, rule: Any) -> Callable[[Value], bool]:
    if op in ("==", "~="):
        equal = _equal(expected, rule)
        return equal if op == "==" else lambda value: not equal(value)
    if op in _ORDER:
        return _compare(_ORDER[op], expected, rule)
    if op in ("~~", "~*"):
        return _matches(expected, op == "~~", rule)
    if op == "in":
        if not isinstance(expected, list) or not expected or not all(isinstance(item, str) for item in expected):
            raise ConfigError("vars", rule, "a list of text as the value of in")
        members: frozenset[Value] = frozenset(map(_bytes_text, expected))
        return lambda value: value in members
    return _ipmatch(expected, rule)


def _equal(expected: Any, rule: Any) -> Callable[[Value], bool]:
    if expected is None or isinstance(expected, bool):
        return lambda value: value is expected
    if isinstance(expected, int | float):
        number = _finite(expected, rule)
        return lambda value: _number_of(value) == number
    text = _text(expected, rule)
    return lambda value: value == text


def _finite(expected: float, rule: Any) -> float:
    try:
        number = float(expected)
    except OverflowError:
        number = float("inf")
    if number - number != 0:
        raise ConfigError("vars", rule, "a finite number")
    return number


def _compare(order: Callable[[float, float], bool], expected: Any, rule: Any) -> Callable[[Value], bool]:
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        number: float | None = _finite(expected, rule)
    else:
        number = _number_of(expected)
    if number is None:
        raise ConfigError("vars", rule, f"a number as the value of {rule[-2]}")
    limit = number
    return lambda value: (found := _number_of(value)) is not None and order(found, limit)


def _matches(expected: Any, case_sensitive: bool, rule: Any) -> Callable[[Value], bool]:
    pattern = _text(expected, rule)
    search = compile_regex(pattern, "vars", rule, case_sensitive=case_sensitive).search
    return lambda value: isinstance(value, str) and search(value.encode("latin-1")) is not None


def _ipmatch(expected: Any, rule: Any) -> Callable[[Value], bool]:
    items: Iterable[Any] = [expected] if isinstance(expected, str) else expected
    allowed = "an IP address, a network (10.0.0.0/8), or a list of them"
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise ConfigError("vars", rule, allowed)
    try:
        networks = tuple(ip_network(item, strict=False) for item in items)
    except ValueError:
        raise ConfigError("vars", rule, allowed) from None

    def holds(value: Value) -> bool:
        try:
            address = ip_address(value) if isinstance(value, str) else None
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address is not None and any(address in network for network in networks)

    return holds
