"""How a document's keys and a row's columns stand for each other.

The columns are the truth. `extra` keeps only what they cannot say: keys that have no column, and a sent form that
differs from the one we would choose (`uris` with one item, `"priority": 0`). When a document is read, a kept form
is shown as long as it still means what the columns hold; after an edit in the console it does not, and the columns
are shown. So GET gives back what was sent, and never what is no longer true. Knows no dialect and no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Doc = dict[str, Any]
Values = tuple[Any, ...]

#: Keys of `extra` that are ours: the version that created the row, and the end that `?ttl=` gave it. No schema lets a
#: document have them.
CREATED_INDEX: Final = "createdIndex"
TTL_END: Final = "ttl"


@dataclass(frozen=True, slots=True)
class Field:
    """Keys of a document that together fill columns of a row.

    `parse` gives the columns' values for a document (defaults where keys are absent); `render` gives the form we
    choose for values, leaving defaults out. `render(parse(doc))` need not be `doc`, but `parse(render(v)) == v`.
    """

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], Values]
    render: Callable[[Values], Doc]
    #: Takes away what documents do not show, before two values are compared.
    normal: Callable[[Values], Values] = lambda values: values

    def of(self, row: Any) -> Values:
        """The columns' present values."""
        return tuple(getattr(row, column) for column in self.columns)


def _number(value: Any) -> Any:
    # A column makes 6.0 of 6 or 1 of 1.0; of both the whole number is our form, and the other one is kept.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain(key: str, column: str = "", default: Any = "") -> Field:
    """A key whose value is a column's."""

    def parse(doc: Mapping[str, Any]) -> Values:
        return (doc.get(key, default),)

    def render(values: Values) -> Doc:
        return {} if values[0] == default else {key: _number(values[0])}

    return Field((key,), (column or key,), parse, render)


def one_or_many(column: str, one: str, many: str, *also: str) -> Field:
    """A list column written as one value or as a list (`uri` or `uris`); `also` are other names of the list."""
    keys = (one, many, *also)

    def parse(doc: Mapping[str, Any]) -> Values:
        found: list[Any] = []
        for key in keys:
            if key in doc:
                found.extend([doc[key]] if key == one else doc[key])
        return (found,)

    def render(values: Values) -> Doc:
        items = values[0]
        if not items:
            return {}
        return {one: items[0]} if len(items) == 1 else {many: items}

    return Field(keys, (column,), parse, render)


def flag(key: str, column: str) -> Field:
    """A boolean column written as 1 or 0, 1 by default."""
    return Field((key,), (column,), lambda doc: (bool(doc.get(key, 1)),), lambda values: {} if values[0] else {key: 0})


def reference(key: str, column: str, prefix: str = "") -> Field:
    """An id, the row's own or another's: documents may hold a number, columns hold texts.

    With a prefix, columns may have it before the id; documents never do.
    """

    def parse(doc: Mapping[str, Any]) -> Values:
        return (str(doc[key]) if key in doc else None,)

    def normal(values: Values) -> Values:
        return (None if values[0] is None else str(values[0]).removeprefix(prefix),)

    def render(values: Values) -> Doc:
        return {} if values[0] is None else {key: normal(values)[0]}

    return Field((key,), (column,), parse, render, normal)


def labels(hidden: str) -> Field:
    """The `labels` map; the label named `hidden` is ours and shows only where the document itself had it."""

    def normal(values: Values) -> Values:
        given = values[0]
        return ({key: text for key, text in given.items() if key != hidden} if isinstance(given, dict) else given,)

    def render(values: Values) -> Doc:
        shown = normal(values)[0]
        return {"labels": shown} if shown else {}

    return Field(("labels",), ("labels",), lambda doc: (doc.get("labels", {}),), render, normal)


_PHASES = ("connect", "send", "read")


def timeout() -> Field:
    """`timeout: {connect, send, read}`, in seconds, as three columns."""

    def parse(doc: Mapping[str, Any]) -> Values:
        given = doc.get("timeout") or {}
        return tuple(given.get(phase) for phase in _PHASES)

    def render(values: Values) -> Doc:
        given = {phase: _number(value) for phase, value in zip(_PHASES, values, strict=True) if value is not None}
        return {"timeout": given} if given else {}

    return Field(("timeout",), tuple(f"timeout_{phase}" for phase in _PHASES), parse, render)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are written alike: 1, 1.0 and true differ, the order of an object's keys does not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def fill(row: Any, fields: Iterable[Field], doc: Mapping[str, Any]) -> None:
    """Set a row's columns from a document that passed its schema. Saves nothing."""
    for field in fields:
        for column, value in zip(field.columns, field.parse(doc), strict=True):
            setattr(row, column, value)


def kept(fields: Sequence[Field], doc: Mapping[str, Any], elsewhere: Iterable[str] = ()) -> Doc:
    """What of a document goes into `extra`; keys in `elsewhere` never do (they have rows of their own)."""
    extra: Doc = {}
    known = set(elsewhere)
    for field in fields:
        known.update(field.keys)
        sent = {key: doc[key] for key in field.keys if key in doc}
        if not same(sent, field.render(field.parse(doc))):
            extra.update(sent)
    extra.update({key: value for key, value in doc.items() if key not in known})
    return extra


def show(fields: Sequence[Field], row: Any, elsewhere: Iterable[str] = ()) -> Doc:
    """The document that a row's columns stand for, in the form it was sent in where that still holds."""
    extra = row.extra if isinstance(row.extra, dict) else {}
    value: Doc = {}
    known = {CREATED_INDEX, TTL_END, *elsewhere}
    for field in fields:
        known.update(field.keys)
        sent = {key: extra[key] for key in field.keys if key in extra}
        values = field.of(row)
        value.update(sent if sent and _means(field, sent, values) else field.render(values))
    value.update({key: item for key, item in extra.items() if key not in known})
    return value


def _means(field: Field, sent: Doc, values: Values) -> bool:
    try:
        return field.normal(field.parse(sent)) == field.normal(values)
    except (TypeError, ValueError, AttributeError, KeyError):
        # `extra` can be edited by hand.
        return False
