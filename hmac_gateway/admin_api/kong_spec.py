"""What a field of a Kong entity may hold, and what Kong says where it holds something else.

A `Spec` is one field. `clean` checks a value, fills in defaults and says what is wrong in the shape of the value itself
(`{"config": {"clock_skew": "value must be greater than 0"}}`). Used by the descriptions of entities beside this file,
for the admin API and for kong.yml alike; knows no HTTP, no model and no entity. Reasons are those of Kong's schemas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: A reason, or reasons by field or by place in a list (counted from one, others None).
Errors = str | dict[str, Any] | list[Any]

REQUIRED: Final = "required field missing"
UNKNOWN: Final = "unknown field"
NOT_UUID: Final = "expected a valid UUID"
NO_KEY: Final = "missing primary key"
NULL_ONLY: Final = "value must be null"
IMMUTABLE: Final = "immutable field cannot be updated"

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
#: Lists of reasons with more gaps than this are shown as a map.
_GAPS: Final = 20


def is_uuid(value: Any) -> bool:
    """Whether a value is the text of a UUID, hyphens included."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One field.

    `kind` is string, boolean, integer, number, array, set, map, record, foreign or any. `elements` is for lists and
    maps, `keys` for maps, `fields` for records. `reference` is the entity that a foreign field points at; its `fields`
    are that entity's, by a unique one of which it may be named instead of its id. `auto` fields are made by the server
    where they are absent. `check` returns the reason against a value of the right kind, or None. `secret` ones are
    masked in answers.
    """

    kind: str
    default: Any = None
    required: bool = False
    auto: bool = False
    unique: bool = False
    secret: bool = False
    one_of: tuple[Any, ...] = ()
    between: tuple[float, float] | None = None
    greater: float | None = None
    length: tuple[int | None, int | None] = (None, None)
    check: Callable[[Any], str | None] | None = None
    elements: Spec | None = None
    keys: Spec | None = None
    fields: Mapping[str, Spec] = field(default_factory=dict)
    reference: str = ""
    #: A record that takes fields it does not name.
    open: bool = False


def same_id(given: Any, key: Any) -> bool:
    """Whether a text is a row's id; letters of UUIDs have no case (RFC 9562 4)."""
    return isinstance(given, str) and (given == str(key) or (is_uuid(given) and given.lower() == str(key)))


def clean(spec: Spec, value: Any) -> tuple[Any, Errors | None]:
    """The value as it is stored (defaults filled in, sets without repetition), and what is wrong with it, or None."""
    if value is None:
        return None, REQUIRED if spec.required and not spec.auto else None
    match spec.kind:
        case "array" | "set":
            return _clean_list(spec, value)
        case "map":
            return _clean_map(spec, value)
        case "record":
            return _clean_record(spec, value)
        case "foreign":
            return _clean_foreign(spec, value)
    return _clean_scalar(spec, value)


def clean_fields(fields: Mapping[str, Spec], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record's complete value (every field, unset ones None), and what is wrong, by field."""
    value: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for name, spec in fields.items():
        item = given[name] if name in given else default_of(spec)
        value[name], error = clean(spec, item)
        if error is not None:
            errors[name] = error
    for name in given:
        if name not in fields:
            errors[name] = UNKNOWN
    return value, errors


def default_of(spec: Spec) -> Any:
    """What an absent field holds. A record's own defaults count where it has no default itself."""
    if spec.kind == "record" and spec.default is None and (spec.required or spec.fields):
        return {}
    return _copied(spec.default)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _clean_list(spec: Spec, value: Any) -> tuple[Any, Errors | None]:
    # An empty Lua table is an empty list and an empty map.
    if value == {}:
        value = []
    if not isinstance(value, list):
        return value, "expected an array" if spec.kind == "array" else "expected a set"
    items: list[Any] = []
    seen: set[str] = set()
    wrong: dict[int, Any] = {}
    for place, item in enumerate(value, 1):
        cleaned, error = (item, None) if spec.elements is None else clean(spec.elements, item)
        if item is None:
            error = REQUIRED
        if error is not None:
            wrong[place] = error
        elif spec.kind == "array" or repr(cleaned) not in seen:
            seen.add(repr(cleaned))
            items.append(cleaned)
    if wrong:
        return value, placed(wrong)
    return items, _wrong_length(spec, len(items)) or _checked(spec, items)


def placed(wrong: dict[int, Any]) -> Errors:
    """What is wrong with items of a list, by their places from 1: a list; where it would be mostly empty, a map."""
    last = max(wrong)
    if last > len(wrong) + _GAPS:
        return {str(place): error for place, error in wrong.items()}
    return [wrong.get(place) for place in range(1, last + 1)]


def _clean_map(spec: Spec, value: Any) -> tuple[Any, Errors | None]:
    if value == []:
        value = {}
    if not isinstance(value, dict):
        return value, "expected a map"
    items: dict[str, Any] = {}
    for key, item in value.items():
        error: Errors | None = None
        if spec.keys is not None:
            _, error = clean(spec.keys, key)
        if error is None and spec.elements is not None:
            items[key], error = clean(spec.elements, item)
        if error is not None:
            # Kong says it of the whole map.
            return value, error
    return items, _wrong_length(spec, len(items)) or _checked(spec, items)


def _clean_record(spec: Spec, value: Any) -> tuple[Any, Errors | None]:
    if value == []:
        value = {}
    if not isinstance(value, dict):
        return value, "expected a record"
    given = {name: item for name, item in value.items() if name in spec.fields} if spec.open else value
    cleaned, errors = clean_fields(spec.fields, given)
    if spec.open:
        cleaned.update({name: item for name, item in value.items() if name not in spec.fields})
    return (value, errors) if errors else (cleaned, _checked(spec, cleaned))


def _clean_foreign(spec: Spec, value: Any) -> tuple[Any, Errors | None]:
    reason = _checked(spec, value)
    if reason is not None or not isinstance(value, dict):
        return value, reason or "expected a record"
    key = value.get("id")
    if key is not None:
        # A whole entity will do; its id says which.
        return {"id": key}, None if isinstance(key, str) else {"id": "expected a string"}
    wrong: dict[str, Any] = {}
    for name, item in value.items():
        if item is None:
            continue
        known = spec.fields.get(name)
        error = UNKNOWN if known is None else clean(known, item)[1]
        if error is None and known is not None and known.unique:
            return {name: item}, None
        if error is not None:
            wrong[name] = error
    return value, wrong or {"id": NO_KEY}


_KINDS: Final[Mapping[str, tuple[Any, str]]] = {
    "string": (str, "expected a string"),
    "boolean": (bool, "expected a boolean"),
    "integer": (int, "expected an integer"),
    "number": (int | float, "expected a number"),
}


def _clean_scalar(spec: Spec, value: Any) -> tuple[Any, Errors | None]:
    if spec.kind in _KINDS:
        if spec.kind == "integer" and isinstance(value, float) and value.is_integer():
            # Lua and JSON know one kind of number.
            value = int(value)
        kind, reason = _KINDS[spec.kind]
        if not isinstance(value, kind) or (isinstance(value, bool) and spec.kind != "boolean"):
            return value, reason
    if spec.one_of and value not in spec.one_of:
        return value, "expected one of: " + ", ".join(map(str, spec.one_of))
    if spec.greater is not None and not value > spec.greater:
        return value, f"value must be greater than {spec.greater:g}"
    if spec.between is not None and not spec.between[0] <= value <= spec.between[1]:
        return value, f"value should be between {spec.between[0]} and {spec.between[1]}"
    if isinstance(value, str) and (reason := _wrong_length(spec, len(value.encode("utf-8", "replace"))) or ""):
        return value, reason
    return value, _checked(spec, value)


def _checked(spec: Spec, value: Any) -> str | None:
    return None if spec.check is None else spec.check(value)


def _wrong_length(spec: Spec, length: int) -> str | None:
    least, most = spec.length
    # Kong refuses an empty text wherever nothing else is said.
    if spec.kind == "string" and least is None:
        least = 1
    if least is not None and length < least:
        return f"length must be at least {least}"
    if most is not None and length > most:
        return f"length must be at most {most}"
    return None


# --- values of forms, which are all texts ---


def infer(spec: Spec, value: Any) -> Any:
    """A value of a form as the field's kind would have it; what does not fit is left as it is, to be refused."""
    if value == "":
        return None
    match spec.kind:
        case "number" | "integer" if isinstance(value, str):
            return _number(value)
        case "boolean" if value in ("true", "false"):
            return value == "true"
        case "array" | "set":
            items = value if isinstance(value, list) else [value]
            if isinstance(value, dict):
                return value
            return items if spec.elements is None else [infer(spec.elements, item) for item in items]
        case "map" if isinstance(value, dict) and spec.elements is not None:
            return {key: infer(spec.elements, item) for key, item in value.items()}
        case "record" | "foreign" if isinstance(value, dict):
            return infer_fields(spec.fields, value)
    return value


def infer_fields(fields: Mapping[str, Spec], given: Mapping[str, Any]) -> dict[str, Any]:
    """A form's values, field by field."""
    return {name: infer(fields[name], item) if name in fields else item for name, item in given.items()}


def _number(text: str) -> Any:
    try:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else float(text)
    except ValueError:
        return text


# --- a change on top of what is there ---


def merged(fields: Mapping[str, Spec], old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` over `old`: records merge field by field, everything else is replaced (PATCH)."""
    result = {**old, **new}
    for name, spec in fields.items():
        before, after = old.get(name), new.get(name)
        if spec.kind == "record" and isinstance(before, dict) and isinstance(after, dict):
            result[name] = merged(spec.fields, before, after)
    return result
