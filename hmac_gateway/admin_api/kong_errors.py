"""What Kong's admin API refuses, as a value that knows its answer: `{code, name, message, fields}` and a status.

Raised by the parts beside this file, HTTP or not; turned into a response by the view. Source: Kong's `db/errors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError

#: Reasons that concern an entity as a whole stand under this name, as a list.
ENTITY: Final = "@entity"


class KongError(Exception):
    """A refusal: an HTTP status and its JSON body; None for an empty one."""

    def __init__(self, status: int, body: dict[str, Any] | None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def plain(status: int, message: str) -> KongError:
    """A refusal without a code: `{"message": …}`."""
    return KongError(status, {"message": message})


def not_found() -> KongError:
    """What is not there."""
    return plain(404, "Not found")


def schema_violation(errors: Mapping[str, Any]) -> KongError:
    """Code 2: what is wrong, field by field; reasons about the whole under ENTITY."""
    said = [str(reason) for reason in errors.get(ENTITY, ())]
    for name in sorted(errors):
        if name != ENTITY:
            said += _said(name, errors[name])
    return _coded(400, 2, "schema violation", _counted("schema violation", said), errors)


def _counted(what: str, said: list[str]) -> str:
    joined = "; ".join(said)
    return f"{what} ({joined})" if len(said) == 1 else f"{len(said)} {what}s ({joined})"


def _said(name: str, error: Any) -> Iterator[str]:
    if isinstance(error, Mapping):
        for key in sorted(error):
            if key == ENTITY and isinstance(error[key], list):
                yield from (f"{name}: {reason}" for reason in error[key])
            else:
                yield from _said(f"{name}.{key}", error[key])
    elif isinstance(error, list):
        for place, item in enumerate(error, 1):
            if item is not None:
                yield from _said(f"{name}.{place}", item)
    else:
        yield f"{name}: {error}"


def unique_violation(keys: Mapping[str, Any]) -> KongError:
    """Code 5: another entity has these values."""
    message = f"UNIQUE violation detected on '{pretty(keys)}'"
    return _coded(409, 5, "unique constraint violation", message, keys)


def primary_key_violation(key: str) -> KongError:
    """Code 3: the id is taken."""
    keys = {"id": key}
    return _coded(400, 3, "primary key violation", f"primary key violation on key '{pretty(keys)}'", keys)


def invalid_reference(field: str, key: Mapping[str, Any], parent: str) -> KongError:
    """Code 4: a foreign key that leads to nothing."""
    message = f"the foreign key '{pretty(key)}' does not reference an existing '{parent}' entity."
    return _coded(400, 4, "foreign key violation", message, {field: dict(key)})


def unresolved(field: str, key: str, value: Any, parent: str) -> KongError:
    """Code 13: a reference by another key than the id that leads to nothing."""
    reason = f"the foreign key cannot be resolved with '{pretty({key: value})}' for an existing '{parent}' entity"
    message = f"foreign key unresolved ({field}.{key}: {reason})"
    return _coded(400, 13, "foreign keys unresolved", message, {field: {key: reason}})


def referenced(child: str, parent: str) -> KongError:
    """Code 4: what others refer to cannot be deleted."""
    message = f"an existing '{child}' entity references this '{parent}' entity"
    return _coded(400, 4, "foreign key violation", message, {"@referenced_by": child})


def invalid_offset(offset: str, why: str) -> KongError:
    """Code 7: a page that no list gave."""
    return _coded(400, 7, "invalid offset", f"'{offset}' is not a valid offset: {why}")


def invalid_size(why: str) -> KongError:
    """Code 9: a page size that is none."""
    return _coded(400, 9, "invalid size", why)


def invalid_unique(name: str, why: str) -> KongError:
    """Code 10: a text that cannot be the key that is asked for."""
    return _coded(400, 10, f"invalid unique {name}", why)


def invalid_option(name: str, why: str) -> KongError:
    """Code 11: an argument of the address that is wrong."""
    error = _coded(400, 11, "invalid options", f"invalid option ({name}: {why})")
    assert error.body is not None
    error.body["options"] = {name: why}
    return error


def _coded(status: int, code: int, name: str, message: str, fields: Mapping[str, Any] | None = None) -> KongError:
    body: dict[str, Any] = {"code": code, "name": name, "message": message}
    if fields is not None:
        body["fields"] = dict(fields)
    return KongError(status, body)


def pretty(value: Any) -> str:
    """A value as Lua would write it, names sorted: `{consumer={id="…"},name="x",route=null}`."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_word(key)}={pretty(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "{" + ",".join(pretty(item) for item in value) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f'"{value}"' if isinstance(value, str) else str(value)


def _word(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else f'["{name}"]'


def from_model(error: ValidationError, names: Mapping[str, str]) -> KongError:
    """A model's refusal as a schema violation. `names` are Kong's names of the model's columns.

    What no field of the entity stands for is said of the entity.
    """
    found = error.message_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.messages}
    errors: dict[str, Any] = {}
    for column, messages in found.items():
        said = " ".join(_bare(message, column) for message in messages)
        name = names.get(column)
        if name is None:
            errors.setdefault(ENTITY, []).append(said)
            continue
        *parents, last = name.split(".")
        place = errors
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = said
    return schema_violation(errors)


def _bare(message: str, column: str) -> str:
    # The models name their column in front, which is not Kong's.
    return message.removeprefix(f"`{column}`: ")
