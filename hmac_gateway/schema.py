"""Configuration checked against JSON Schema, with errors in our words or in APISIX's.

Used by plugins (their Config), models' `clean()` and the admin APIs. The checking is the `jsonschema` library's;
ours are the two ways of saying what is wrong. Imports `core` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft7Validator

from .core.errors import ConfigError

Schema = Mapping[str, Any]
#: jsonschema's ValidationError; its attributes are untyped unions, so it is read as Any.
Problem = Any


@lru_cache(maxsize=256)
def _validator(frozen: str) -> Draft7Validator:
    return Draft7Validator(json.loads(frozen))


def problem(value: Any, schema: Schema) -> Problem | None:
    """The first thing wrong with a value, in the order of the schema's properties; None when it is right."""
    validator = _validator(json.dumps(schema))
    order = {name: place for place, name in enumerate(schema.get("properties", {}))}

    def rank(found: Problem) -> tuple[int, int]:
        if found.validator == "type" and not found.absolute_path:
            return (-1, 0)
        name = found.absolute_path[0] if found.absolute_path else _missing(found)
        return (order.get(str(name), len(order)), len(found.absolute_path))

    return min(validator.iter_errors(value), key=rank, default=None)


def check(value: Any, schema: Schema) -> None:
    """Raise `ConfigError` that names the field, what was given and what is allowed."""
    found = problem(value, schema)
    if found is None:
        return
    if found.validator == "required":
        field = ".".join([*map(str, found.absolute_path), _missing(found)])
        raise ConfigError(field, None, "a value; it is required")
    if found.validator == "additionalProperties":
        extra = _extra(found)
        raise ConfigError(extra, found.instance[extra], f"one of {', '.join(found.schema['properties'])}")
    field = ".".join(str(part + 1 if isinstance(part, int) else part) for part in found.absolute_path)
    raise ConfigError(field or "configuration", found.instance, _allowed(found))


def _missing(found: Problem) -> str:
    if found.validator != "required":
        return ""
    return str(next(name for name in found.validator_value if name not in found.instance))


def _extra(found: Problem) -> str:
    return str(next(name for name in found.instance if name not in found.schema.get("properties", {})))


def _allowed(found: Problem) -> str:
    limit = found.validator_value
    match found.validator:
        case "type":
            return "a value of type " + (limit if isinstance(limit, str) else " or ".join(limit))
        case "enum":
            return "one of " + ", ".join(map(str, limit))
        case "minimum":
            return f"a number of at least {limit}"
        case "exclusiveMinimum":
            return f"a number greater than {limit}"
        case "maximum":
            return f"a number of at most {limit}"
        case "minLength":
            return f"text of at least {limit} character{'s' if limit > 1 else ''}"
        case "maxLength":
            return f"text of at most {limit} characters"
        case "pattern":
            return str(found.schema.get("description") or f"text that matches {limit}")
        case "minItems":
            return f"a list of at least {limit} item{'s' if limit > 1 else ''}"
        case "uniqueItems":
            return "a list without repetition"
        case "minProperties":
            return f"an object with at least {limit} entries"
        case "not" | "oneOf" | "anyOf":
            return str(found.schema.get("description") or json.dumps(limit))
    return json.dumps(limit)


# --- APISIX's grammar of schema errors (its jsonschema library's) ---


def _lua_type(value: Any) -> str:
    if value is None:
        return "userdata"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "table"


def _number(value: float) -> str:
    # Lua knows one kind of number. An int may be too large for a float.
    return str(value) if isinstance(value, int) or not value.is_integer() else str(int(value))


def apisix_text(found: Problem) -> str:
    """The error as APISIX's admin API would word it, without its `invalid configuration: `."""
    text = _apisix_inner(found)
    path = list(found.absolute_path)
    for part in reversed(path):
        if isinstance(part, int):
            text = f"failed to validate item {part + 1}: {text}"
        else:
            text = f'property "{part}" validation failed: {text}'
    return text


def _apisix_inner(found: Problem) -> str:
    limit, value = found.validator_value, found.instance
    match found.validator:
        case "required":
            return f'property "{_missing(found)}" is required'
        case "additionalProperties":
            return f"additional properties forbidden, found {_extra(found)}"
        case "type":
            wanted = limit if isinstance(limit, str) else limit[0]
            return f"wrong type: expected {wanted}, got {_lua_type(value)}"
        case "enum":
            return "matches none of the enum values"
        case "minimum":
            return f"expected {_number(value)} to be at least {limit}"
        case "exclusiveMinimum":
            return f"expected {_number(value)} to be greater than {limit}"
        case "maximum":
            return f"expected {_number(value)} to be at most {limit}"
        case "minLength":
            return f"string too short, expected at least {limit}, got {len(value.encode())}"
        case "maxLength":
            return f"string too long, expected at most {limit}, got {len(value.encode())}"
        case "pattern":
            return f'failed to match pattern "{limit}" with "{value}"'
        case "minItems":
            return f"expect array to have at least {limit} items"
        case "maxItems":
            return f"expect array to have at most {limit} items"
        case "uniqueItems":
            first, second = _equal_items(value)
            return f"expected unique items but items {first} and {second} are equal"
        case "minProperties":
            return f"expect object to have at least {limit} properties"
        case "maxProperties":
            return f"expect object to have at most {limit} properties"
        case "anyOf":
            if all("required" in option for option in limit):
                return "object matches none of the required"
            return "object matches none of the requireds"
        case "oneOf":
            count = sum(Draft7Validator(option).is_valid(value) for option in limit)
            return f"value should match only one schema, but matches {'both schemas' if count > 1 else 'none'}"
        case "not":
            return "value wasn't supposed to match schema"
    return "failed to validate"


def _equal_items(items: list[Any]) -> tuple[int, int]:
    for second, item in enumerate(items):
        if item in items[:second]:
            return items.index(item) + 1, second + 1
    return 1, 1
