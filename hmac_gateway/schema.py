"""Configuration checked against JSON Schema, with errors in our words or in APISIX's.

Used by plugins (their Config), models' `clean()` and the admin APIs. The checking is the `jsonschema` library's;
ours are the two ways of saying what is wrong. Imports `core` only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from jsonschema import Draft7Validator

from .core.errors import ConfigError

Schema = Mapping[str, Any]
#: jsonschema's ValidationError; its attributes are untyped unions, so it is read as Any.
Problem = Any


@lru_cache(maxsize=256)
def _validator(frozen: str) -> Draft7Validator:
    return Draft7Validator(json.loads(frozen))


def problem(value: Any, schema: Schema) -> Problem | None:
    """The first thing wrong with a value, in the order in which APISIX looks; None when it is right."""
    validator = _validator(json.dumps(schema))
    return min(validator.iter_errors(value), key=lambda found: _rank(found, schema), default=None)


#: A schema's keywords in the order in which APISIX's library looks at them.
_KEYWORDS: Final = (
    *("type", "properties", "patternProperties", "additionalProperties", "minProperties", "maxProperties"),
    *("minItems", "maxItems", "items", "uniqueItems", "minLength", "maxLength", "pattern"),
    *("minimum", "exclusiveMinimum", "maximum", "enum", "allOf", "anyOf", "oneOf", "not"),
)
_PLACES: Final = {keyword: place for place, keyword in enumerate(_KEYWORDS)}


class _Step(NamedTuple):
    """One level on the way from a whole value to what is wrong with it.

    `name` is a property's, a pattern or a number from 0 within the schema; `key` names the part of the value.
    """

    keyword: str
    name: str | int
    key: str | int


def _steps(found: Problem) -> Iterator[_Step]:
    """The levels above the keyword that is broken."""
    inner, path = iter(list(found.absolute_schema_path)[:-1]), iter(found.absolute_path)
    for keyword in inner:
        match keyword:
            case "items":
                place = next(path)
                yield _Step(keyword, place, place)
            case "additionalProperties":
                yield _Step(keyword, "", next(path))
            case "properties" | "patternProperties":
                yield _Step(keyword, next(inner), next(path))
            case _:  # allOf; what stands below anyOf, oneOf and not is no problem by itself
                yield _Step(keyword, next(inner), "")


def _rank(found: Problem, schema: Schema) -> list[tuple[int, int]]:
    """Where APISIX's library would come upon a problem. It looks at required properties among the others."""
    ranks: list[tuple[int, int]] = []
    within: Any = schema
    for keyword, name, _ in _steps(found):
        if keyword == "properties":
            ranks.append(_property(within, name))
        else:
            ranks.append((_PLACES[keyword], name if isinstance(name, int) else 0))
        within = within[keyword] if keyword in ("items", "additionalProperties") else within[keyword][name]
    if found.validator == "required":
        return [*ranks, _property(within, _missing(found))]
    return [*ranks, (_PLACES[found.validator], 0)]


def _property(schema: Schema, name: str | int) -> tuple[int, int]:
    known = list(schema.get("properties", ()))
    return _PLACES["properties"], known.index(name) if name in known else len(known)


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
        # A name may be empty: what it stands in is named then.
        raise ConfigError(
            extra or _place(found), found.instance[extra], f"one of {', '.join(found.schema['properties'])}"
        )
    raise ConfigError(_place(found), found.instance, _allowed(found))


def _place(found: Problem) -> str:
    parts = (str(part + 1 if isinstance(part, int) else part) for part in found.absolute_path)
    return ".".join(parts) or "configuration"


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


def lua_type(value: Any) -> str:
    """What Lua calls the type of a JSON value."""
    if value is None:
        return "userdata"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "table"


def _number(value: float) -> str:
    # Lua knows one kind of number, and shows 14 digits of it.
    return str(value) if abs(value) > 1e300 else f"{value:.14g}"


def quoted(text: str) -> str:
    """Text as Lua's %q writes it."""
    shown = {'"': '\\"', "\\": "\\\\", "\n": "\\\n"}
    return '"' + "".join(shown.get(char, char if char >= " " else f"\\{ord(char)}") for char in text) + '"'


def apisix_text(found: Problem) -> str:
    """The error as APISIX's admin API would word it, without its `invalid configuration: `."""
    text = ""
    for keyword, name, key in _steps(found):
        match keyword:
            case "items":
                text += f"failed to validate item {int(key) + 1}: "
            case "properties":
                text += f"property {quoted(str(name))} validation failed: "
            case "patternProperties":
                text += f"failed to validate {key} (matching {quoted(str(name))}): "
            case "additionalProperties":
                text += f"failed to validate additional property {key}: "
            case _:
                text += f"{keyword} {int(name) + 1} failed: "
    return text + _apisix_inner(found)


def _apisix_inner(found: Problem) -> str:
    limit, value = found.validator_value, found.instance
    match found.validator:
        case "required":
            return f"property {quoted(_missing(found))} is required"
        case "additionalProperties":
            return f"additional properties forbidden, found {_extra(found)}"
        case "type":
            wanted = limit if isinstance(limit, str) else f"one of {', '.join(limit)}"
            return f"wrong type: expected {wanted}, got {lua_type(value)}"
        case "enum":
            return "matches none of the enum values"
        case "minimum":
            return f"expected {_number(value)} to be at least {_number(limit)}"
        case "exclusiveMinimum":
            return f"expected {_number(value)} to be greater than {_number(limit)}"
        case "maximum":
            return f"expected {_number(value)} to be at most {_number(limit)}"
        case "minLength":
            return f"string too short, expected at least {limit}, got {len(value)}"
        case "maxLength":
            return f"string too long, expected at most {limit}, got {len(value)}"
        case "pattern":
            # Ours end with Python's \Z where theirs end with $.
            pattern = limit.removesuffix(r"\Z") + "$" * limit.endswith(r"\Z")
            return f"failed to match pattern {quoted(pattern)} with {quoted(value)}"
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
            wanted = " or ".join(_compact(option["required"]) for option in limit if "required" in option)
            return "object matches none of the required" + (f": {wanted}" if wanted else "")
        case "oneOf":
            matching = [place for place, option in enumerate(limit, 1) if Draft7Validator(option).is_valid(value)]
            if not matching:
                return "value should match only one schema, but matches none"
            return f"value should match only one schema, but matches both schemas {matching[0]} and {matching[1]}"
        case "not":
            return "value wasn't supposed to match schema"
    return "failed to validate"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _equal_items(items: list[Any]) -> tuple[int, int]:
    for second, item in enumerate(items):
        if item in items[:second]:
            return items.index(item) + 1, second + 1
    return 1, 1
