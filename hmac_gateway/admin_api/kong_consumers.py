"""Kong's consumers and ACL groups ↔ Consumer and ConsumerAcl rows. Consumers are the same in both dialects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .kong_entity import Doc, Entity, Unique, common, key_of, reference
from .kong_errors import ENTITY
from .kong_formats import ID, STAMP, TAGS, foreign
from .kong_spec import Spec

_TEXT: Final = Spec(kind="string", unique=True, length=(1, 256))

FIELDS: Final[Mapping[str, Spec]] = {
    "id": ID,
    "created_at": STAMP,
    "updated_at": STAMP,
    "username": _TEXT,
    "custom_id": _TEXT,
    "tags": TAGS,
}

ACL_FIELDS: Final[Mapping[str, Spec]] = {
    "id": ID,
    "created_at": STAMP,
    "consumer": foreign("consumers", FIELDS, required=True),
    "group": Spec(kind="string", required=True, length=(1, 256)),
    "tags": TAGS,
}


def check_named(doc: Doc) -> Mapping[str, Any] | None:
    """A consumer has a name of some kind."""
    if doc["username"] is None and doc["custom_id"] is None:
        return {ENTITY: ["at least one of these fields must be non-empty: 'custom_id', 'username'"]}
    return None


def fill(row: Any, doc: Doc) -> None:
    """Set the columns."""
    if row._state.adding or row.username != doc["username"]:
        # A name that Kong's clients chose follows Kong's rules.
        row.dialect = "kong"
    row.username, row.custom_id = doc["username"], doc["custom_id"]
    row.tags = doc["tags"] or []


def show(row: Any) -> Doc:
    """The document."""
    return {**common(row), "username": row.username, "custom_id": row.custom_id}


def fill_acl(row: Any, doc: Doc) -> None:
    """Set the columns."""
    row.consumer_id = key_of(doc, "consumer")
    row.group = doc["group"]
    row.tags = doc["tags"] or []


def show_acl(row: Any) -> Doc:
    """The document."""
    doc = {**common(row), "consumer": reference(row.consumer_id), "group": row.group}
    del doc["updated_at"]
    return doc


CONSUMERS: Final = Entity(
    name="consumers",
    path="consumers",
    model="hmac_consumers.Consumer",
    fields=FIELDS,
    fill=fill,
    show=show,
    checks=(check_named,),
    key="username",
    by_key=lambda text: {"username": text},
    unique=(
        Unique(("username",), lambda doc: {"username": doc["username"]} if doc["username"] else None),
        Unique(("custom_id",), lambda doc: {"custom_id": doc["custom_id"]} if doc["custom_id"] else None),
    ),
)

ACLS: Final = Entity(
    name="acls",
    path="acls",
    model="hmac_consumers.ConsumerAcl",
    fields=ACL_FIELDS,
    fill=fill_acl,
    show=show_acl,
    key="group",
    by_key=lambda text: {"group": text},
    key_in_parent=True,
    unique=(
        Unique(("consumer", "group"), lambda doc: {"consumer_id": key_of(doc, "consumer"), "group": doc["group"]}),
    ),
)
