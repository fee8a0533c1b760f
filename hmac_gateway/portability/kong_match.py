"""Which row each entity of a kong.yml is: by its id, else by its name, else a new one with an id made of its name.

Derived ids are Kong's own (uuid v5 of the natural key), so they are the same at each load. Called by `kong_import`
under the version lock; resolves references, and finds what collides, in the file and with rows that are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from django.apps import apps

from ..admin_api.body import unstorable
from ..admin_api.kong_entities import ENTITIES
from ..admin_api.kong_entity import Doc, Entity, key_of
from ..admin_api.kong_errors import ENTITY, unique_violation
from ..admin_api.kong_lookup import rows_of
from ..admin_api.kong_plugins import PLUGINS_ENTITY, SCOPES
from ..admin_api.kong_spec import is_uuid
from ..core.credential import MASK
from ..models import ConfigVersion
from .kong_problems import Problem
from .kong_read import Item
from .kong_rows import Rows, Where, key_outside

#: Kong's namespace of derived ids.
_NAMESPACE: Final = UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")


def derived_id(entity: str, key: str) -> str:
    """The id that Kong gives to an entity without one."""
    return str(uuid5(uuid5(_NAMESPACE, entity), key))


class Matcher:
    """The rows of a file's items. `items` has them by entity, parents first; `rows` a row by the item's identity."""

    def __init__(self, items: list[Item], now: datetime, prune: bool, select_tags: frozenset[str]) -> None:
        self.items: dict[str, list[Item]] = {name: [] for name in ENTITIES}
        for item in items:
            self.items[item.entity.name].append(item)
        self.rows: dict[int, Any] = {}
        self.gone: dict[str, list[Any]] = {name: [] for name in ENTITIES}
        self.labels: dict[str, str] = {}
        self._now = now
        self._prune = prune
        self._tags = select_tags
        self._keys: dict[str, dict[str, Item]] = {name: {} for name in ENTITIES}
        self._outside: dict[tuple[str, str, str | None], str | None] = {}
        self._ordinals: Counter[tuple[str, ...]] = Counter()
        self._parked: dict[tuple[str, str], Any] = {}
        #: Rows whose end is over: as if they were not there.
        self.over: list[tuple[Entity, Any]] = []

    def match(self) -> list[Problem]:
        """Find all rows; what is wrong with the file."""
        problems: list[Problem] = []
        for entity in ENTITIES.values():
            problems += self._match(entity)
        return problems

    def _match(self, entity: Entity) -> Iterator[Problem]:
        items = self.items[entity.name]
        good = []
        for item in items:
            wrong = self._resolve(item)
            if wrong:
                yield item.problem(wrong)
            else:
                good.append(item)
        if good and _is_secret(entity):
            # Keys are compared by their fingerprints.
            ConfigVersion.sealed()
        rows = Rows(entity)
        keys = {id(item): self._key_of(item) for item in good}
        rows.look_for_keys(list(keys.values()))
        places = {id(item): _places(item) for item in good}
        rows.look_for_places([place for found in places.values() for place in found])
        used: dict[str, Item] = {}
        for item in good:
            yield from self._identify(item, keys[id(item)], places[id(item)], rows, used)
        yield from self._alike(entity, good, places)
        self._find_gone(entity)
        yield from self._collisions(entity, good, places, rows)

    # --- references ---

    def _resolve(self, item: Item) -> dict[str, Any]:
        wrong: dict[str, Any] = {}
        for name, link in item.links.items():
            above = item.entity.parents[name]
            key: str | None = str(link.doc["id"]) if isinstance(link, Item) else self._key(above, *link)
            if key is None:
                text = link[0] if isinstance(link, tuple) else ""
                wrong[name] = f"invalid reference '{name}: {text}' (no such entry in '{above}')"
            else:
                item.doc[name] = {"id": key}
        return wrong

    def _key(self, above: str, text: str, by: str | None) -> str | None:
        """The id of the entity that a text names, in the file or among the rows that stay."""
        for spelling in (text, text.lower()) if is_uuid(text) else (text,):
            if (item := self._keys[above].get(spelling)) is not None:
                return str(item.doc["id"])
        place = (above, text, by)
        if place not in self._outside:
            gone = self._prune and not self._tags
            self._outside[place] = None if gone or unstorable(text) else key_outside(ENTITIES[above], text, by)
        return self._outside[place]

    # --- ids ---

    def _key_of(self, item: Item) -> str:
        """The id that an item says, or the one that it has as a new row."""
        entity = item.entity
        if item.doc["id"] is not None:
            return str(item.beyond.get("key") or item.doc["id"])
        if _is_secret(entity):
            # An id is no secret; one made of a secret would tell it to who tries.
            return str(uuid4())
        natural = _natural(item)
        if natural is None:
            above = tuple(str(key_of(item.doc, name)) for name in entity.parents if name in item.links)
            place = (entity.name, *above)
            self._ordinals[place] += 1
            natural = f"{':'.join(above)}#{self._ordinals[place]}"
        return derived_id(entity.name, natural)

    def _identify(
        self, item: Item, key: str, places: list[Where], rows: Rows, used: dict[str, Item]
    ) -> Iterator[Problem]:
        entity, doc = item.entity, item.doc
        row = rows.by_key.get(key)
        if doc["id"] is not None:
            if row is not None and not rows.shows(row):
                yield item.problem({"id": f"the id is taken by {_told(row)}"})
        else:
            named = next((rows.by_place[place] for place in places[:1] if place in rows.by_place), None)
            if named is not None and rows.shows(named) and not self._is_over(named):
                row, key = named, str(named.pk)
            elif row is not None and (_natural(item) is not None or not rows.shows(row)):
                # The id was made of this name, for what is called otherwise now.
                row, key = None, str(uuid4())
        if row is not None and self._is_over(row):
            self.over.append((entity, row))
            row = None
        other = used.setdefault(key, item)
        if doc["id"] is not None:
            # The console may have given it a key that no id of Kong can be.
            self._keys[entity.name].setdefault(doc["id"], item)
        doc["id"] = key
        if other is not item:
            yield item.problem(_declared(entity, key, item, other))
            return
        if row is not None:
            self.rows[id(item)] = row
        name = doc.get(entity.key) if entity.key and not entity.key_in_parent and not _is_secret(entity) else None
        self._keys[entity.name].setdefault(key, item)
        if isinstance(name, str):
            # A name counts before an id, as in Kong.
            self._keys[entity.name][name] = item
        self.labels[key] = label_of(item, self.labels)

    def _is_over(self, row: Any) -> bool:
        end = getattr(row, "expires_at", None)
        return end is not None and end <= self._now

    # --- collisions ---

    def _alike(self, entity: Entity, items: list[Item], places: Mapping[int, list[Where]]) -> Iterator[Problem]:
        seen: dict[Where, Item] = {}
        for item in items:
            for unique, place in zip(_uniques(item), places[id(item)], strict=True):
                if seen.setdefault(place, item) is not item and item.doc["id"] != seen[place].doc["id"]:
                    names = [name for name in unique.names if item.doc.get(name) is not None]
                    secret = any(entity.fields[name].secret for name in names)
                    values = MASK if secret else ", ".join(self._shown(item.doc[name]) for name in names)
                    said = f"uniqueness violation: '{entity.name}' entity with {', '.join(names)} set to '{values}'"
                    yield item.problem(f"{said} already declared")

    def _shown(self, value: Any) -> str:
        return str(self.labels.get(value["id"], value["id"]) if isinstance(value, dict) else value)

    def _find_gone(self, entity: Entity) -> None:
        if not self._prune:
            return
        matched = {str(row.pk) for row in self.rows.values() if row._meta.label == entity.model}
        rows = rows_of(entity)
        if any(column.name == "dialect" for column in apps.get_model(entity.model)._meta.concrete_fields):
            rows = rows.filter(dialect="kong")
        for row in rows.order_by("created_at", "pk"):
            if str(row.pk) not in matched and self._tags <= set(row.tags or ()):
                self.gone[entity.name].append(row)

    def _collisions(
        self, entity: Entity, items: list[Item], places: Mapping[int, list[Where]], rows: Rows
    ) -> Iterator[Problem]:
        """What rows that are there have already. Those that give it up are parked, so that the order is free."""
        holders = {str(self.rows[id(item)].pk): item for item in items if id(item) in self.rows}
        gone = {str(row.pk) for row in self.gone[entity.name]}
        for item in items:
            for unique, place in zip(_uniques(item), places[id(item)], strict=True):
                row = rows.by_place.get(place)
                if row is None or str(row.pk) == item.doc["id"]:
                    continue
                holder = holders.get(str(row.pk))
                if (holder is not None and place not in places[id(holder)]) or str(row.pk) in gone:
                    self._parked[entity.name, str(row.pk)] = row
                    continue
                if self._is_over(row):
                    self.over.append((entity, row))
                    continue
                shown = {name: MASK if entity.fields[name].secret else item.doc[name] for name in unique.names}
                said = (unique_violation(shown).body or {})["message"]
                yield item.problem({ENTITY: [f"{said}: it is taken by {_told(row)}"]})

    def park(self) -> None:
        """Free what rows have that are written again, or deleted, in this transaction."""
        for (name, key), row in self._parked.items():
            # By Django's plain manager: no version, and no derived columns.
            rows = type(row)._base_manager.filter(pk=row.pk)
            rows.update(**{column: value.format(key) for column, value in _FREE[ENTITIES[name].model].items()})


#: Columns that are unique, and what frees each.
_FREE: Final[Mapping[str, Mapping[str, str]]] = {
    "hmac_proxy.Service": {"name_slot": "parked:{}"},
    "hmac_proxy.Route": {"name_slot": "parked:{}"},
    "hmac_proxy.Upstream": {"name_slot": "parked:{}"},
    "hmac_proxy.Node": {"host": "parked-{}"},
    "hmac_proxy.Plugin": {"place": "parked:{}", "instance_name": "parked:{}"},
    "hmac_consumers.Consumer": {"username": "parked {}", "custom_id": "parked {}"},
    "hmac_consumers.ConsumerAcl": {"group": "parked {}"},
    "hmac_consumers.Credential": {"identifier": "parked {}", "identifier_slot": "parked:{}"},
}


def label_of(item: Item, labels: Mapping[str, str]) -> str:
    """An item's name in reports."""
    entity, doc = item.entity, item.doc
    if entity is PLUGINS_ENTITY:
        on = [f"{scope} {labels.get(key, key)}" for scope in SCOPES if (key := key_of(doc, scope))]
        name = doc["instance_name"] or doc["name"]
        return f"{name} on {', '.join(on)}" if on else f"{name} (global)"
    name = None if _is_secret(entity) else doc.get(entity.key)
    shown = str(name or doc.get("custom_id") or doc["id"])
    if entity.key_in_parent:
        above = next(iter(item.entity.parents))
        return f"{labels.get(key_of(doc, above) or '', '')}/{shown}"
    return shown


def label_of_row(entity: Entity, row: Any) -> str:
    """A row's name in reports."""
    if entity is PLUGINS_ENTITY:
        return f"{row} ({row.place})"
    return str(row.pk) if _is_secret(entity) else str(row)


def _is_secret(entity: Entity) -> bool:
    return bool(entity.key) and entity.fields[entity.key].secret


def _natural(item: Item) -> str | None:
    """What Kong makes an id of; None where it has nothing to make one of."""
    entity, doc = item.entity, item.doc
    if entity is PLUGINS_ENTITY:
        if doc["instance_name"]:
            return str(doc["instance_name"])
        return ":".join(["plugins", doc["name"], *(key_of(doc, scope) or "" for scope in SCOPES)])
    # As the file spells it: a target may come without its port.
    name = item.sent.get(entity.key, doc.get(entity.key))
    if name is None:
        return f"custom_id:{doc['custom_id']}" if doc.get("custom_id") else None
    above = [str(key_of(doc, field)) for field in entity.parents] if entity.key_in_parent else []
    return ":".join([str(name), *above])


def _declared(entity: Entity, key: str, item: Item, other: Item) -> str:
    name, named = entity.key, item.doc.get(entity.key) if entity.key else None
    same = named is not None and other.doc.get(name) == named and not entity.key_in_parent
    what = f"{name} set to '{named}'" if same and "id" not in item.sent else f"primary key set to '{key}'"
    return f"uniqueness violation: '{entity.name}' entity with {what} already declared"


def _uniques(item: Item) -> list[Any]:
    return [unique for unique in item.entity.unique if _where(unique, item.doc) is not None]


def _where(unique: Any, doc: Doc) -> Where | None:
    found = unique.where(doc)
    return None if found is None else tuple(sorted((name, str(value)) for name, value in found.items()))


def _places(item: Item) -> list[Where]:
    return [place for unique in item.entity.unique if (place := _where(unique, item.doc)) is not None]


def _told(row: Any) -> str:
    dialect = getattr(row, "dialect", "kong")
    kind = row._meta.verbose_name
    return f"{kind} {row.pk}" + ("" if dialect == "kong" else f" of APISIX's dialect ({row})")
