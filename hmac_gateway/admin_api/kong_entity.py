"""What an entity of Kong is: its fields, the rows it stands for, and how each becomes the other.

The descriptions are in `kong_services`, `kong_routes`, …, all in `kong_entities.ENTITIES`. `kong_store` works on any of
them, and so does whatever reads or writes kong.yml; nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from .kong_errors import ENTITY, schema_violation
from .kong_spec import Spec, clean_fields, default_of

Doc = dict[str, Any]
Fields = Mapping[str, Spec]
#: Whether a text may be the id of a new row, for entities whose keys are texts.
STAMPS: Final = ("created_at", "updated_at")
_YEAR_9999: Final = 253402300799


@dataclass(frozen=True, slots=True)
class Unique:
    """Fields that no two entities share. `where` selects the rows that a document would clash with, or is None."""

    names: tuple[str, ...]
    where: Callable[[Doc], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Child:
    """Entities that keep this one from being deleted: rows of `model` whose `column` points at it."""

    entity: str
    model: str
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One kind of entity.

    `path` is its collection in addresses ("" without one) and `nested` its name below a parent where that differs.
    `key` is the field that stands for the id in addresses, `by_key` the rows that a text there may mean. `fill` sets a
    row's columns from a complete document, without saving; `show` gives the complete document of a row, secrets masked.
    `fields_of` gives the fields that a given document has, where they depend on it; `prepare` rewrites what was sent
    (shorthands). `checks` look at the whole and return further reasons by field. `columns` are Kong's names of columns
    that are called otherwise.
    """

    name: str
    model: str
    fields: Fields
    fill: Callable[[Any, Doc], None]
    show: Callable[[Any], Doc]
    path: str = ""
    nested: str = ""
    scope: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    by_key: Callable[[str], Mapping[str, Any] | None] | None = None
    #: The key means nothing without its parent.
    key_in_parent: bool = False
    fields_of: Callable[[Doc], Fields] | None = None
    prepare: Callable[[Doc], Doc] | None = None
    checks: tuple[Callable[[Doc], Mapping[str, Any] | None], ...] = ()
    unique: tuple[Unique, ...] = ()
    children: tuple[Child, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    related: tuple[str, ...] = ()
    #: Fields whose secret is made where none is given.
    generate: Callable[[Doc], tuple[str, ...]] | None = None

    def fields_for(self, doc: Doc) -> Fields:
        """The fields that a document has."""
        return self.fields if self.fields_of is None else self.fields_of(doc)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The fields that are masked."""
        return tuple(name for name, spec in self.fields.items() if spec.secret)

    @property
    def parents(self) -> Mapping[str, str]:
        """The entities that the foreign fields point at."""
        return {name: spec.reference for name, spec in self.fields.items() if spec.kind == "foreign"}


def examine(entity: Entity, given: Mapping[str, Any]) -> tuple[Doc, dict[str, Any]]:
    """A complete document of what was given, and what is wrong with it by field; no database.

    An empty map of reasons says that the document may be written, as far as it can be judged by itself.
    """
    sent = dict(given) if entity.prepare is None else entity.prepare(dict(given))
    doc, errors = clean_fields(entity.fields_for(sent), sent)
    if ENTITY in errors:
        # Somebody sent a field of that name.
        errors[ENTITY] = [f"{ENTITY}: {errors[ENTITY]}"]
    for check in entity.checks:
        for name, reason in (check({**doc, "@errors": errors}) or {}).items():
            if name == ENTITY:
                errors.setdefault(ENTITY, []).extend(reason)
            else:
                # As in Kong, where the last word on a field counts.
                errors[name] = reason
    return doc, errors


def read(entity: Entity, given: Mapping[str, Any]) -> Doc:
    """The complete document. Raises KongError 400 that names every wrong field."""
    doc, errors = examine(entity, given)
    if errors:
        raise schema_violation(errors)
    return doc


# --- helpers of the descriptions ---


def keep(row: Any, doc: Doc, fields: Fields, names: Iterable[str]) -> None:
    """Put fields that have no column into `extra`, where they differ from their default. Saves nothing."""
    extra = row.extra if isinstance(row.extra, dict) else {}
    rest = {name: item for name, item in extra.items() if name not in fields}
    row.extra = {**rest, **{name: doc[name] for name in names if doc[name] != default_of(fields[name])}}


def kept(row: Any, fields: Fields, names: Iterable[str]) -> Doc:
    """Those fields again."""
    extra = row.extra if isinstance(row.extra, dict) else {}
    return {name: extra.get(name, default_of(fields[name])) for name in names}


def common(row: Any) -> Doc:
    """What every entity shows: id, stamps, tags."""
    return {
        "id": str(row.pk),
        "created_at": seconds(row.created_at),
        "updated_at": seconds(row.updated_at),
        "tags": row.tags or None,
    }


def seconds(at: datetime) -> int:
    """A time as Kong shows it."""
    return int(at.timestamp())


def moment(stamp: float) -> datetime:
    """A time that a document says."""
    # Kong before 1.0 wrote milliseconds.
    return datetime.fromtimestamp(stamp / 1000 if stamp > _YEAR_9999 else stamp, UTC)


def reference(key: Any) -> Doc | None:
    """A foreign key as a document has it."""
    return None if key is None else {"id": str(key)}


def key_of(doc: Doc, name: str) -> str | None:
    """The id in a foreign field."""
    value = doc[name]
    return None if value is None else value["id"]
