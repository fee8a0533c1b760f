"""What rows of Kong's entities hold that kong.yml cannot say: ends, labels, switches of the console, previous secrets.

`of` finds it by filling an empty row from the document and looking what is missing; `apply` sets it again. It stands in
an item of `_ignore`, where Kong does not look. Called by `kong_import` and `kong_export`; `beyond` is APISIX's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

from django.apps import apps
from django.db import models

from ..admin_api.errors import refuse
from ..admin_api.kong_entity import Doc, Entity
from ..core.credential import MASK
from ..entities import DIALECTS
from ..sealing import ANOTHER
from .beyond import as_json, previous, set_previous, set_values, time_of
from .report import Difference

#: Columns that are the engine's own, that documents say completely, or that are not shown.
_NEVER: Final = frozenset(
    ["id", "created_at", "updated_at", "changed_at_version", "extra", "inline", "is_global", "last_used_at"]
    + ["sealed_secret", "sealed_previous_secret", "previous_secret_until", "identifier", "plugin", "config"]
)
#: What the console lets refer to an upstream.
_OWNERS: Final = ("services", "routes")
_PREVIOUS: Final = "previous_secret"
_UNTIL: Final = "previous_secret_until"


@cache
def _columns(label: str) -> tuple[models.Field[Any, Any], ...]:
    model: Any = apps.get_model(label)
    skipped = {*_NEVER, *model.derived}
    return tuple(
        column for column in model._meta.concrete_fields if not column.is_relation and column.name not in skipped
    )


def of(entity: Entity, row: Any, opened: bool, now: datetime) -> Doc:
    """What the document of a row does not say; previous secrets in clear only where `opened`. Raises CannotOpen."""
    twin: Any = type(row)(**entity.own)
    twin.pk = row.pk
    for name in ("sealed_secret", "identifier", "name", "config", "legacy", "upstream"):
        # Secrets are not compared: the document has masks. The rest decides on what the document means.
        if hasattr(row, name):
            setattr(twin, name, getattr(row, name))
    if entity.model != "hmac_proxy.Plugin" and "name" not in entity.fields:
        twin.name = ""
    entity.fill(twin, entity.show(row))
    found: Doc = {
        column.name: as_json(getattr(row, column.attname))
        for column in _columns(entity.model)
        if getattr(row, column.attname) != getattr(twin, column.attname)
    }
    if getattr(row, "legacy", False):
        found["legacy"] = True
    rest = {name: value for name, value in (getattr(row, "extra", None) or {}).items() if name not in entity.fields}
    if rest:
        found["extra"] = rest
    if getattr(row, "sealed_previous_secret", ""):
        found.update(previous(row, opened, now))
    if entity.name in _OWNERS and row.upstream is not None and not row.upstream.inline:
        found["upstream"] = str(row.upstream.pk)
    return found


def over(told: Mapping[str, Any], now: datetime) -> bool:
    """Whether an entity's end is over. Raises ApiError."""
    return told.get("expires_at") is not None and time_of("expires_at", told["expires_at"]) <= now


def prepare(row: Any, told: Mapping[str, Any]) -> None:
    """Set what decides on the meaning of the document, before the row is filled from it."""
    if isinstance(told.get("legacy"), bool):
        row.legacy = told["legacy"]


def remember(row: Any) -> None:
    """Keep what a row holds before it is filled anew, for `apply`."""
    row.remembered = {column.name: getattr(row, column.attname) for column in row._meta.concrete_fields}
    if hasattr(row, "get_previous_secret"):
        row.remembered[_PREVIOUS] = bool(row.sealed_previous_secret)


def apply(entity: Entity, row: Any, told: Mapping[str, Any], now: datetime) -> list[Difference]:
    """Set what is told of a row; saves nothing. Returns what differs from what was remembered. Raises ApiError."""
    # The key and the configuration's options were read with the document.
    rest = {name: value for name, value in told.items() if name not in ("key", "config")}
    if not rest:
        return []
    old = getattr(row, "remembered", None)
    differences = []
    for name, value in rest.items():
        if old is None or name in (_PREVIOUS, "extra"):
            continue
        before = as_json(old[name]) if name in old else None
        if before != value and not (name == _UNTIL and time_of(_UNTIL, value) <= now):
            differences.append(Difference(name, before, value))
    extra = rest.pop("extra", {})
    if not isinstance(extra, dict):
        raise refuse("`extra`: a map is expected")
    if extra:
        before = {name: (old or {}).get("extra", {}).get(name) for name in extra}
        if old is not None and before != extra:
            differences.append(Difference("extra", before, extra))
        row.extra = {**row.extra, **extra}
    if hasattr(row, "get_previous_secret"):
        given = rest.get(_PREVIOUS)
        if old is not None and given is not None and not _same_previous(row, given, now):
            differences.append(Difference(_PREVIOUS, MASK if old[_PREVIOUS] else None, ANOTHER))
        if _PREVIOUS in rest or _UNTIL in rest:
            set_previous(row, rest, now)
    if "dialect" in rest and rest["dialect"] not in dict(DIALECTS):
        raise refuse("`dialect`: apisix or kong is expected")
    if entity.name in _OWNERS and "upstream" in rest:
        row.upstream_id = str(rest.pop("upstream"))
        if entity.name == "services":
            # The document has the upstream's name in its place.
            row.host = ""
    set_values(row, _columns(entity.model), rest)
    return differences


def check(entity: Entity, row: Any) -> None:
    """Refuse (ApiError) an upstream that is not there, now that all upstreams of the file are written."""
    if entity.name in _OWNERS and row.upstream_id is not None:
        upstreams = apps.get_model("hmac_proxy.Upstream")._default_manager
        if not upstreams.filter(pk=row.upstream_id).exists():
            raise refuse(f"`upstream`: there is none with the id {row.upstream_id!r}")


def _same_previous(row: Any, given: Any, now: datetime) -> bool:
    if not row.sealed_previous_secret:
        return False
    return bool(given in (MASK, row.get_previous_secret(now)))
