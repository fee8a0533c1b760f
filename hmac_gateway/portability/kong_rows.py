"""The rows that entities of a kong.yml may be, or collide with, looked for many at a time. Used by `kong_match`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from django.apps import apps

from ..admin_api.kong_entity import Entity
from ..admin_api.kong_lookup import rows_of
from ..admin_api.kong_spec import is_uuid

_CHUNK: Final = 400
#: Columns and values that no two rows share.
Where = tuple[tuple[str, str], ...]


def _by_key(entity: Entity, keys: Collection[str]) -> dict[str, Any]:
    model: Any = apps.get_model(entity.model)
    if model._meta.pk.get_internal_type() == "UUIDField":
        keys = [key for key in keys if is_uuid(key)]
    return {str(row.pk): row for chunk in _chunks(keys) for row in model._default_manager.filter(pk__in=chunk)}


def key_outside(entity: Entity, text: str, by: str | None) -> str | None:
    """The id of the row that a reference names: by its key, by its id, or (None) by either, the key first (Kong)."""
    rows = rows_of(entity)
    if by != "id" and entity.by_key is not None and (where := entity.by_key(text)) is not None:
        row = rows.filter(**where).first()
        if row is not None:
            return str(row.pk)
    if by in (None, "id"):
        keys = list(_by_key(entity, [text.lower() if is_uuid(text) else text]))
        return next((str(row.pk) for row in rows.filter(pk__in=keys)), None)
    return None


class Rows:
    """Rows of one entity that items of a file may be, or collide with."""

    def __init__(self, entity: Entity) -> None:
        self.by_key: dict[str, Any] = {}
        self.by_place: dict[Where, Any] = {}
        self._entity = entity
        self._model: Any = apps.get_model(entity.model)
        self._shown: set[str] = set()

    def look_for_keys(self, keys: Collection[str]) -> None:
        """Find the rows with these ids, whatever they are."""
        self._take(_by_key(self._entity, keys))

    def look_for_places(self, places: Collection[Where]) -> None:
        """Find the rows that have one of these values already, whatever they are."""
        shapes: dict[tuple[str, ...], list[Where]] = {}
        for place in places:
            shapes.setdefault(tuple(name for name, _ in place), []).append(place)
        found: dict[str, Any] = {}
        for names, alike in shapes.items():
            for chunk in _chunks(alike):
                values = {f"{name}__in": {place[at][1] for place in chunk} for at, name in enumerate(names)}
                for row in self._model._default_manager.filter(**values):
                    row = found.setdefault(str(row.pk), self.by_key.get(str(row.pk), row))
                    self.by_place[tuple((name, str(getattr(row, name))) for name in names)] = row
        self._take(found)

    def _take(self, found: Mapping[str, Any]) -> None:
        for key, row in found.items():
            self.by_key.setdefault(key, row)
        for chunk in _chunks(found):
            shown = self._model._default_manager.filter(**self._entity.scope, pk__in=chunk)
            self._shown.update(map(str, shown.values_list("pk", flat=True)))

    def shows(self, row: Any) -> bool:
        """Whether the admin API shows the row as such an entity; its end does not matter."""
        return str(row.pk) in self._shown


def _chunks(values: Collection[Any]) -> Iterator[list[Any]]:
    unique = list(dict.fromkeys(values))
    for start in range(0, len(unique), _CHUNK):
        yield unique[start : start + _CHUNK]
