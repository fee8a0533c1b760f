"""Writing any entity of `kong_entities`: create, upsert, change, delete, without HTTP.

Every write is one transaction under one version. The version row's lock is taken first, so what is checked inside
(references, uniqueness, uses) cannot be made untrue by another writer before the commit. Raises KongError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.utils import timezone

from ..core.credential import MASK
from ..entities import one_version
from ..validators import validate_key
from . import audit
from .kong_entities import ENTITIES
from .kong_entity import STAMPS, Doc, Entity, moment, read
from .kong_errors import (
    from_model,
    invalid_reference,
    primary_key_violation,
    referenced,
    schema_violation,
    unique_violation,
    unresolved,
)
from .kong_lookup import Within, check_key, find, get, has_text_key, rows_of
from .kong_spec import IMMUTABLE, NOT_UUID, is_uuid, merged, same_id


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks, for the audit: a name, the admin key's id, and the way."""

    actor: str
    key: str = ""
    via: str = "kong-api"

    @property
    def who(self) -> Doc:
        """What the audit says about the key."""
        return {"key": self.key} if self.key else {}


Finish = Callable[[Any], None]


def create(entity: Entity, given: Doc, call: Call, within: Within | None = None) -> Doc:
    """A new entity. Raises KongError 400 or 409."""
    doc = read(entity, _placed(given, within))
    with one_version():
        return write(entity, None, doc, call)


def upsert(entity: Entity, text: str, given: Doc, call: Call, within: Within | None = None) -> Doc:
    """Create or replace the entity with that id or key; what is not sent returns to its default."""
    given = _placed(given, within)
    row = find(entity, text, within)
    if row is None and is_uuid(text):
        given = {**given, "id": text.lower()}
    elif row is None and not entity.key:
        raise schema_violation({"id": NOT_UUID})
    elif row is None:
        check_key(entity, text)
        given = {**given, entity.key: text}
    else:
        given = _same_key(entity, row, text, given)
    # Without the id of what is there: it may be one that only the console allows.
    doc = read(entity, given if row is None else {name: item for name, item in given.items() if name != "id"})
    with one_version():
        # Looked for again, now that nobody else writes.
        row = find(entity, text, within)
        return write(entity, row, doc, call)


def _same_key(entity: Entity, row: Any, text: str, given: Doc) -> Doc:
    """What was sent, with the key of the address where that is not the id."""
    if given.get("id") is not None and not same_id(given["id"], row.pk):
        raise schema_violation({"id": IMMUTABLE})
    if same_id(text, row.pk) or not entity.key:
        return given
    spec = entity.fields[entity.key]
    # A secret is its own key: what is there stays.
    return {**given, entity.key: MASK if spec.secret else text}


def change(entity: Entity, text: str, given: Doc, call: Call, within: Within | None = None) -> Doc:
    """Change the fields that were sent; records are merged, everything else is replaced. Raises KongError 404."""
    with one_version():
        row = get(entity, text, within)
        if given.get("id") is not None and not same_id(given["id"], row.pk):
            raise schema_violation({"id": IMMUTABLE})
        shown = {name: item for name, item in entity.show(row).items() if name != "id" and name not in STAMPS}
        sent = dict(given) if entity.prepare is None else entity.prepare(dict(given))
        sent.pop("id", None)
        doc = merged(entity.fields_for({**shown, **sent}), shown, sent)
        return write(entity, row, read(entity, doc), call)


def _placed(given: Doc, within: Within | None) -> Doc:
    return given if within is None else {**given, within.field: {"id": str(within.row.pk)}}


def write(entity: Entity, row: Any, doc: Doc, call: Call, finish: Finish = lambda row: None) -> Doc:
    """Write a complete document over `row` (None: a new one), and the audit. Runs under the version lock.

    `finish` may set columns that documents know nothing of. Returns the document as stored, with secrets that were made
    now in clear.
    """
    model: Any = apps.get_model(entity.model)
    adding = row is None
    before = None if adding else entity.show(row)
    doc = resolved(entity, doc)
    if row is None:
        row = model(**entity.own)
        if doc["id"] is not None:
            key = doc["id"].lower() if is_uuid(doc["id"]) else doc["id"]
            if _taken(model._default_manager.filter(pk=key)):
                raise primary_key_violation(key)
            row.pk = key
        if doc["created_at"] is not None:
            row.created_at = moment(doc["created_at"])
    check_unique(entity, row, doc)
    try:
        finish(row)
        entity.fill(row, doc)
        row.full_clean()
        row.save(force_insert=adding)
    except ValidationError as error:
        raise from_model(error, columns(entity, model)) from None
    # Read again: columns as the database has them, relations as they are now.
    saved = model._default_manager.get(pk=row.pk)
    after = entity.show(saved)
    names = [name for name in audit.changed_fields(before, after) if name not in STAMPS]
    secret = bool(getattr(row, "secret_changed", False))
    # A plugin's secrets stand inside its configuration.
    names += [name for name in entity.secrets or ("config",) if secret and name not in names]
    more = {**audit.values(names, before, after, secret), **call.who}
    audit.record(call.actor, "added" if adding else "changed", saved, call.via, names, more)
    return {**after, **getattr(row, "generated", {})}


def columns(entity: Entity, model: Any) -> dict[str, str]:
    """Kong's names of a model's columns."""
    own = {field.name: field.name for field in model._meta.concrete_fields if field.name in entity.fields}
    return {**own, **entity.columns}


def resolved(entity: Entity, doc: Doc) -> Doc:
    """The document with every reference as an id. Raises KongError for one that leads to nothing."""
    found = dict(doc)
    for field, name in entity.parents.items():
        value = doc[field]
        if value is None:
            continue
        parent = ENTITIES.get(name)
        key = "id" if "id" in value else next(iter(value))
        text = value[key]
        if parent is not None:
            if key == "id":
                rows = rows_of(parent)
                plain = is_uuid(text) or _is_key(parent, text)
                row = rows.filter(pk__in=[text, text.lower()]).first() if plain else None
            else:
                row = find(parent, text) if key == parent.key else rows_of(parent).filter(**{key: text}).first()
            if row is not None:
                found[field] = {"id": str(row.pk)}
                continue
        if key != "id":
            raise unresolved(field, key, text, name)
        if not is_uuid(text):
            raise schema_violation({field: {"id": NOT_UUID}})
        raise invalid_reference(field, {"id": text}, name)
    return found


def _is_key(entity: Entity, text: str) -> bool:
    if not has_text_key(entity):
        return False
    try:
        validate_key(text)
    except ValidationError:
        return False
    return True


def check_unique(entity: Entity, row: Any, doc: Doc) -> None:
    """Refuse (KongError 409) what another entity has."""
    model: Any = apps.get_model(entity.model)
    for unique in entity.unique:
        where = unique.where(doc)
        if where is not None and _taken(model._default_manager.filter(**where).exclude(pk=row.pk)):
            secret = entity.secrets
            raise unique_violation({name: MASK if name in secret else doc[name] for name in unique.names})


def _taken(rows: Any) -> bool:
    """Whether one of these rows is in the way. What has expired is as if deleted, and makes room."""
    for row in rows:
        expires = getattr(row, "expires_at", None)
        if expires is None or expires > timezone.now():
            return True
        try:
            row.delete()
        except ProtectedError:
            return True
    return False


def delete(entity: Entity, row: Any, call: Call) -> None:
    """Delete an entity and what hangs on it. Raises KongError while another refers to it."""
    with one_version():
        for child in entity.children:
            if apps.get_model(child.model)._default_manager.filter(**{child.column: row.pk}).exists():
                raise referenced(child.entity, entity.name)
        gone = entity.show(row)
        names = [name for name in audit.changed_fields(None, gone) if name not in STAMPS]
        more = {**audit.values(names, gone, None), **call.who}
        audit.record(call.actor, "deleted", row, call.via, names, more)
        try:
            row.delete()
        except ProtectedError as error:
            holder = next(iter(error.protected_objects))
            raise referenced(str(holder._meta.verbose_name_plural), entity.name) from None
