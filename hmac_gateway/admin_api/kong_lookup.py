"""Reading any entity of `kong_entities`: one by id or key, pages of many, tags. Without HTTP; raises KongError."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from django.apps import apps
from django.utils import timezone

from .kong_entities import ENTITIES
from .kong_entity import Doc, Entity
from .kong_errors import invalid_offset, invalid_option, invalid_size, invalid_unique, not_found
from .kong_spec import clean, is_uuid

PAGE: Final = 100
MAX_PAGE: Final = 1000
MAX_TAGS: Final = 5
#: Characters of a text in an address that are worth a word on what is wrong with it.
MAX_KEY: Final = 256


@dataclass(frozen=True, slots=True)
class Within:
    """A parent that a nested address names: the field that points at it, and its row."""

    field: str
    row: Any

    @property
    def columns(self) -> dict[str, Any]:
        """The rows below it."""
        return {f"{self.field}_id": self.row.pk}


def rows_of(entity: Entity, within: Within | None = None) -> Any:
    """The rows that the entity's addresses mean."""
    model: Any = apps.get_model(entity.model)
    rows = model._default_manager.filter(**entity.scope, **({} if within is None else within.columns))
    if any(field.name == "expires_at" for field in model._meta.concrete_fields):
        rows = rows.exclude(expires_at__lte=timezone.now())
    return rows


def find(entity: Entity, text: str, within: Within | None = None) -> Any:
    """The row with that id or key, or None. An id counts first, but a name that looks like one is found as well."""
    if not text or "\0" in text or len(text) > 8192:
        return None
    rows = rows_of(entity, within)
    if is_uuid(text) and (row := rows.filter(pk=text.lower()).first()) is not None:
        return row
    if entity.by_key is not None and (within is not None or not entity.key_in_parent):
        where = entity.by_key(text)
        if where is not None and (row := rows.filter(**where).first()) is not None:
            return row
    if has_text_key(entity):
        # Those that the console made may have ids that are no UUIDs.
        return rows.filter(pk=text).first()
    return None


def has_text_key(entity: Entity) -> bool:
    """Whether ids are texts that the console's users may choose."""
    return bool(apps.get_model(entity.model)._meta.pk.get_internal_type() == "CharField")


def get(entity: Entity, text: str, within: Within | None = None) -> Any:
    """The row with that id or key. Raises KongError 404, or 400 for what cannot be a key."""
    row = find(entity, text, within)
    if row is None:
        check_key(entity, text)
        raise not_found()
    return row


def check_key(entity: Entity, text: str) -> None:
    """Raise KongError 400 for a text that no entity can be called by, as Kong does where it finds none."""
    if not text or not entity.key or entity.key_in_parent or is_uuid(text) or len(text) > MAX_KEY:
        return
    _, reason = clean(entity.fields[entity.key], text)
    if isinstance(reason, str):
        raise invalid_unique(entity.key, reason)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `offset` leads to the next one, None on the last."""

    data: list[Doc]
    offset: str | None


def page(entity: Entity, query: Mapping[str, str], within: Within | None = None) -> Page:
    """A page of `size` entities by id, from `offset`, with the tags asked for. Raises KongError 400."""
    size = _size(query.get("size"))
    rows = rows_of(entity, within).order_by("pk")
    if entity.name == "consumers" and "custom_id" in query:
        rows = rows.filter(custom_id=query["custom_id"].replace("\0", ""))
    start = _start(entity, query.get("offset"))
    if start is not None:
        rows = rows.filter(pk__gt=start)
    wanted = tag_filter(query.get("tags"))
    if wanted is None:
        found = list(rows[: size + 1])
    else:
        keys = _tagged(rows, wanted, size + 1)
        found = sorted(rows.filter(pk__in=keys), key=lambda row: keys.index(row.pk))
    more = len(found) > size
    return Page([entity.show(row) for row in found[:size]], _token(found[size - 1]) if more else None)


@dataclass(frozen=True, slots=True)
class Tags:
    """What `?tags=` asks for: all of them, or any."""

    tags: frozenset[str]
    all: bool

    def match(self, tags: Any) -> bool:
        """Whether an entity's tags are what is asked for."""
        has = self.tags & set(tags or ())
        return has == self.tags if self.all else bool(has)


def tag_filter(text: str | None) -> Tags | None:
    """`a,b` for both, `a/b` for either; None where nothing is asked for."""
    if text is None:
        return None
    if not text:
        raise invalid_option("tags", "cannot be null")
    if "," in text and "/" in text:
        raise invalid_option("tags", "invalid filter syntax")
    parts = text.split("/" if "/" in text else ",")
    if not all(part and part.isprintable() for part in parts):
        raise invalid_option("tags", "invalid filter syntax")
    if len(parts) > MAX_TAGS:
        raise invalid_option("tags", f"cannot query more than {MAX_TAGS} tags")
    return Tags(frozenset(parts), "/" not in text)


def _tagged(rows: Any, wanted: Tags, most: int) -> list[Any]:
    # Looked for here: not every database can search inside of a JSON list.
    keys: list[Any] = []
    for key, tags in rows.values_list("pk", "tags").iterator(chunk_size=1000):
        if wanted.match(tags):
            keys.append(key)
            if len(keys) == most:
                break
    return keys


def _size(text: str | None) -> int:
    if text is None:
        return PAGE
    if not re.fullmatch(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        raise invalid_size("size must be a number")
    if not text.isascii() or "." in text or not 1 <= int(text) <= MAX_PAGE:
        raise invalid_size(f"size must be an integer between 1 and {MAX_PAGE}")
    return int(text)


def _token(row: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps([str(row.pk)]).encode()).decode().rstrip("=")


def _start(entity: Entity, token: str | None) -> str | None:
    if token is None:
        return None
    shown = token[:100]
    try:
        text = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise invalid_offset(shown, "bad base64 encoding") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid_offset(shown, "bad json encoding") from None
    key = found[0] if isinstance(found, list) and len(found) == 1 else None
    if not isinstance(key, str) or "\0" in key or not (is_uuid(key) or has_text_key(entity)):
        raise invalid_offset(shown, "bad key")
    return key


# --- tags of all entities ---


def tagged(wanted: Tags | None) -> Iterator[Doc]:
    """Every tag of every entity, `{tag, entity_name, entity_id}`, of those tags or of all."""
    for entity in ENTITIES.values():
        for key, tags in rows_of(entity).order_by("pk").values_list("pk", "tags"):
            for tag in tags or ():
                if wanted is None or tag in wanted.tags:
                    yield {"tag": tag, "entity_name": entity.name, "entity_id": str(key)}


def page_of_tags(wanted: Tags | None, query: Mapping[str, str]) -> tuple[list[Doc], str | None]:
    """A page of `tagged`; its offset counts those that went before."""
    size = _size(query.get("size"))
    text = query.get("offset", "0")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise invalid_offset(text[:100], "bad base64 encoding")
    start = int(text)
    found = list(islice(tagged(wanted), start, start + size + 1))
    return found[:size], str(start + size) if len(found) > size else None
