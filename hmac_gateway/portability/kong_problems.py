"""What is wrong with a kong.yml, in three forms: lines with the place, Kong's tree of fields, and its flattened errors.

Made by `kong_read` and `kong_import`; the command prints the lines, `POST /config` answers with the other two. Imports
the admin API's descriptions of Kong's entities, for their names only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..admin_api.kong_errors import ENTITY
from ..admin_api.kong_spec import Errors

#: Where something stands: names of fields, and numbers of list items, counted from one.
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One entity, or the file itself, and what is wrong with it: a reason, or reasons by field.

    `where` is the place in words. `kind` is the entity's name, `sent` what the file says of it; None for the file.
    """

    path: Path
    errors: Errors
    where: str = ""
    kind: str = ""
    sent: Mapping[str, Any] | None = None

    def lines(self) -> Iterator[str]:
        """`services 2 (name orders): port: value should be between 0 and 65535`."""
        where = self.where or ".".join(map(str, self.path))
        for field, reason in flat(self.errors):
            line = f"{where}: {field}: {reason}" if field and field != ENTITY else f"{where}: {reason}"
            # What a file quotes must not move the cursor of who reads it.
            yield "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def flat(errors: Errors, name: str = "") -> Iterator[tuple[str, str]]:
    """Each reason with the path of its field, dots between names and numbers; reasons about a whole under its name."""
    if isinstance(errors, Mapping):
        for key, item in errors.items():
            if key == ENTITY:
                yield from ((name or ENTITY, str(reason)) for reason in item)
            else:
                yield from flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(errors, list):
        for place, item in enumerate(errors, 1):
            if item is not None:
                yield from flat(item, f"{name}.{place}" if name else str(place))
    else:
        yield name, str(errors)


def tree(problems: Sequence[Problem]) -> dict[str, Any]:
    """All of them as Kong's `fields`: maps by name, lists by number with null where nothing is wrong."""
    root: dict[str | int, Any] = {}
    for problem in problems:
        place = root
        for part in problem.path[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                # A reason about the whole stands there already.
                inner = place[part] = {ENTITY: [inner]}
            place = inner
        last = problem.path[-1]
        old = place.get(last)
        if old is None:
            place[last] = _branches(problem.errors)
        else:
            place[last] = _merged(old, _branches(problem.errors))
    return {str(name): _listed(item) for name, item in root.items()}


def _branches(errors: Errors) -> Any:
    return dict(errors) if isinstance(errors, Mapping) else errors


def _merged(old: Any, new: Any) -> Any:
    old = old if isinstance(old, dict) else {ENTITY: [old]}
    new = new if isinstance(new, dict) else {ENTITY: [new]}
    return {**old, **new, **({ENTITY: [*old.get(ENTITY, ()), *new.get(ENTITY, ())]} if ENTITY in {*old, *new} else {})}


def _listed(value: Any) -> Any:
    """Maps by number as lists, as Lua has only one kind of table."""
    if not isinstance(value, dict):
        return value
    found = {key: _listed(item) for key, item in value.items()}
    numbers = [key for key in found if isinstance(key, int)]
    # Thin lists are maps in Kong, too; here so that one wrong entry of a million makes no million nulls.
    if len(numbers) == len(found) and max(numbers) <= len(numbers) + 1000:
        return [found.get(place) for place in range(1, max(numbers) + 1)]
    return {str(key): item for key, item in found.items()}


def flattened(problems: Sequence[Problem]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Kong's `flattened_errors`, one item for each entity, and the tree of what concerns no entity."""
    items: dict[Path, dict[str, Any]] = {}
    rest = []
    for problem in problems:
        if problem.sent is None:
            rest.append(problem)
            continue
        item = items.setdefault(problem.path, _item(problem))
        for field, reason in flat(problem.errors):
            whole = not field or field == ENTITY
            item["errors"].append(
                {"type": "entity", "message": reason} if whole else {"type": "field", "field": field, "message": reason}
            )
    return list(items.values()), tree(rest)


def _item(problem: Problem) -> dict[str, Any]:
    sent = problem.sent or {}
    found: dict[str, Any] = {"entity_type": problem.kind.removesuffix("s"), "entity": dict(sent), "errors": []}
    for name in ("id", "name", "tags"):
        if sent.get(name) is not None:
            found[f"entity_{name}"] = sent[name]
    return found
