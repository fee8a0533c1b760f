"""What rows hold that no document of the dialect can say: ends, tags, switches of the console, previous secrets.

`of` reads it from a row, `differences` compares, `set_columns` and `apply_below` write it. Kept in a section of its own
in the file, so that the rest stays a plain apisix.yaml. Called by `apisix_import` and `apisix_export`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from django.apps import apps
from django.db import models
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from .. import crypto
from ..admin_api.apisix_resources import CONSUMERS, CREDENTIALS, Resource
from ..admin_api.apisix_upstreams import FIELDS, GROUP_LABEL
from ..admin_api.errors import refuse
from ..admin_api.fields import TTL_END
from ..core.credential import MASK
from .report import Difference

#: Columns that are the engine's own, or that documents say by other means.
_NEVER: Final = frozenset(
    ["id", "created_at", "updated_at", "changed_at_version", "extra", "dialect", "inline", "is_global", "last_used_at"]
)
_CREDENTIAL: Final = frozenset(
    ["plugin", "public_id", "identifier", "settings", "sealed_secret", "sealed_previous_secret"]
    + ["previous_secret_until"]
)
_PLUGIN: Final = frozenset(["name", "config", "enabled", "legacy"])
_NODE: Final = frozenset(["host", "port", "priority", "metadata", "weight"])
_PREVIOUS: Final = "previous_secret"
_UNTIL: Final = "previous_secret_until"
_PARTS: Final = ("plugins", "nodes", "own", "upstream")


@cache
def _columns(label: str, said: frozenset[str]) -> tuple[models.Field[Any, Any], ...]:
    model: Any = apps.get_model(label)
    derived: frozenset[str] = getattr(model, "derived", frozenset())
    skipped = {*_NEVER, *derived, *said}
    return tuple(
        column for column in model._meta.concrete_fields if not column.is_relation and column.name not in skipped
    )


def _said(resource: Resource) -> frozenset[str]:
    """Columns that the resource's documents fill."""
    return frozenset(column for field in resource.fields for column in field.columns) | (
        _CREDENTIAL if resource is CREDENTIALS else frozenset()
    )


def _names(resource: Resource) -> frozenset[str]:
    """Columns that SECTION has for the resource."""
    return frozenset(column.name for column in _columns(resource.model, _said(resource)))


def _inline_said() -> frozenset[str]:
    # An upstream inside another object goes with it, so it has no switch and no end of its own.
    return frozenset(column for field in FIELDS for column in field.columns) | {"enabled", "expires_at"}


def as_json(value: Any) -> Any:
    """A column's value as JSON."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _filled(row: Any, columns: tuple[models.Field[Any, Any], ...], full: bool) -> dict[str, Any]:
    found = {}
    for column in columns:
        value = getattr(row, column.attname)
        if full or (value != column.get_default() and not (value is None and column.null)):
            found[column.name] = as_json(value)
    return found


def of(resource: Resource, row: Any, opened: bool, now: datetime, full: bool = False) -> dict[str, Any]:
    """What SECTION says of a row; previous secrets in clear only where `opened`, defaults only where `full`.

    Raises CannotOpen.
    """
    found = _filled(row, _columns(resource.model, _said(resource)), full)
    extra = row.extra if isinstance(row.extra, dict) else {}
    if row.expires_at is not None and extra.get(TTL_END) == row.expires_at.isoformat():
        found["ttl"] = True
    hidden = row.labels.get(GROUP_LABEL) if isinstance(row.labels, dict) else None
    shown = extra.get("labels")
    if hidden and "labels" not in _names(resource) and not (isinstance(shown, dict) and GROUP_LABEL in shown):
        found[GROUP_LABEL] = hidden
    if resource is CONSUMERS:
        # Upstreams see it in X-Consumer-ID.
        found["uuid"] = str(row.pk)
    if resource is CREDENTIALS:
        found.update(previous(row, opened, now))
    for name, parts in _below(row, opened, now, full).items():
        if parts:
            found[name] = parts
    return found


def previous(row: Any, opened: bool, now: datetime) -> dict[str, Any]:
    """The previous secret while it is good, in clear only where `opened`, and its end. Raises CannotOpen."""
    if not row.sealed_previous_secret or not row.previous_secret_until or row.previous_secret_until <= now:
        return {}
    return {_PREVIOUS: row.get_previous_secret(now) if opened else MASK, _UNTIL: as_json(row.previous_secret_until)}


def _below(row: Any, opened: bool, now: datetime, full: bool) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"plugins": {}, "nodes": {}, "own": {}}
    for part, key, lower in _lower(row):
        if part == "own":
            value = {**_filled(lower, _own_columns(), full), **previous(lower, opened, now)}
        elif part == "nodes":
            value = _filled(lower, _columns(lower._meta.label, _NODE), full)
            if full or (not lower.enabled and lower.weight):
                # The document says 0 of a node that is switched off.
                value["weight"] = lower.weight
        elif part == "upstream":
            found["upstream"] = _filled(lower, _columns(lower._meta.label, _inline_said()), full)
            continue
        else:
            value = _filled(lower, _columns(lower._meta.label, _PLUGIN), full)
        if value:
            found[part][key] = value
    return found


def _own_columns() -> tuple[models.Field[Any, Any], ...]:
    return _columns("hmac_consumers.Credential", _CREDENTIAL)


def _lower(row: Any) -> Iterator[tuple[str, str, Any]]:
    """The rows below an object that documents show inside it."""
    plugins = getattr(row, "plugins", None)
    for plugin in plugins.all() if plugins is not None else ():
        if plugin.dialect == "apisix":
            yield "plugins", plugin.name, plugin
    credentials = getattr(row, "credentials", None)
    for own in credentials.all() if credentials is not None else ():
        if own.public_id is None:
            yield "own", own.plugin, own
    upstream: Any = row if hasattr(row, "nodes") else getattr(row, "upstream", None)
    if upstream is None or (upstream is not row and not upstream.inline):
        return
    if upstream is not row:
        yield "upstream", "", upstream
    for node in upstream.nodes.all():
        yield "nodes", str(node), node


def differences(resource: Resource, row: Any, given: Mapping[str, Any], now: datetime) -> list[Difference]:
    """Where a row is not what SECTION says of it; what the section does not name is as it should be.

    A consumer that is there keeps its id. Raises ApiError.
    """
    if not given or given.keys() == {"uuid"}:
        return []
    present = {(part, key): values for _, part, key, values in _groups(of(resource, row, True, now, full=True))}
    found = []
    for prefix, part, key, values in _groups(given):
        # Only what stands below can be missing; the row's own columns are always there.
        if (part, key) not in present:
            raise refuse(f"`{part}`: {key!r} is not in this object")
        old = present[part, key]
        over = _UNTIL in values and _over(values, now)
        for name, value in values.items():
            before = old.get(name)
            if name == "uuid" or (over and name in (_PREVIOUS, _UNTIL)) or before == value:
                continue
            if name == _PREVIOUS:
                if value != MASK or before is None:
                    found.append(Difference(prefix + name, MASK if before else None, f"{MASK} (another)"))
            else:
                found.append(Difference(prefix + name, before, value))
    return found


def _groups(told: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(name for people, part, key, values): the object itself first, then what stands below it. Raises ApiError."""
    yield "", "", "", {name: value for name, value in told.items() if name not in _PARTS}
    for part in _PARTS:
        values = told.get(part, {})
        lower = {"": values} if part == "upstream" and values else values
        if not isinstance(lower, dict) or not all(isinstance(value, dict) for value in lower.values()):
            raise refuse(f"`{part}`: a map of maps is expected")
        for key, value in lower.items():
            yield f"{part}.{key}." if key else f"{part}.", part, key, value


def _over(given: Mapping[str, Any], now: datetime) -> bool:
    return time_of(_UNTIL, given.get(_UNTIL)) <= now


def time_of(name: str, value: Any) -> datetime:
    """A time that SECTION says. Raises ApiError."""
    try:
        found = parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or timezone.is_naive(found):
        raise refuse(f"`{name}`: a time with its zone is expected, such as 2030-01-31T12:00:00+00:00")
    return found


def expired(given: Mapping[str, Any], now: datetime) -> bool:
    """Whether SECTION says that an object's end is over."""
    return given.get("expires_at") is not None and time_of("expires_at", given["expires_at"]) <= now


def set_columns(resource: Resource, row: Any, given: Mapping[str, Any], now: datetime) -> None:
    """Set the row's own columns; saves nothing. Raises ApiError for what does not belong here."""
    rest = {name: value for name, value in given.items() if name not in _PARTS}
    if "uuid" in rest:
        uuid = rest.pop("uuid")
        if resource is not CONSUMERS:
            raise refuse("`uuid` is a consumer's")
        if row._state.adding:
            try:
                row.pk = UUID(uuid)
            except (ValueError, AttributeError, TypeError):
                raise refuse("`uuid`: 32 hex digits with dashes are expected") from None
    if GROUP_LABEL in rest:
        row.labels = {GROUP_LABEL: rest.pop(GROUP_LABEL), **row.labels}
    ttl = rest.pop("ttl", False)
    if resource is CREDENTIALS:
        set_previous(row, rest, now)
    set_values(row, _columns(resource.model, _said(resource)), rest)
    if ttl and row.expires_at is not None:
        row.extra[TTL_END] = row.expires_at.isoformat()


def set_previous(row: Any, rest: dict[str, Any], now: datetime) -> None:
    """Take the previous secret and its end out of `rest` and set them. Raises ApiError."""
    if _PREVIOUS not in rest and _UNTIL not in rest:
        return
    secret, until = rest.pop(_PREVIOUS, None), time_of(_UNTIL, rest.pop(_UNTIL, None))
    if until <= now:
        return
    if not isinstance(secret, str) or not secret:
        raise refuse(f"`{_PREVIOUS}`: a text is expected")
    if secret == MASK:
        if not row.sealed_previous_secret:
            raise refuse(f"`{_PREVIOUS}`: {MASK} stands for a secret that is stored already, and there is none")
    else:
        row.sealed_previous_secret = crypto.seal(secret)
    row.previous_secret_until = until


def set_values(row: Any, columns: tuple[models.Field[Any, Any], ...], given: Mapping[str, Any]) -> None:
    """Set columns as SECTION says; saves nothing. Raises ApiError for what is not among them."""
    known = {column.name: column for column in columns}
    for name, value in given.items():
        column = known.get(name)
        if column is None:
            raise refuse(f"`{name}` is not a field that can stand here")
        if isinstance(column, models.DateTimeField):
            value = None if value is None and column.null else time_of(name, value)
        elif isinstance(column, models.BooleanField) and not isinstance(value, bool):
            raise refuse(f"`{name}`: true or false is expected")
        elif isinstance(column, models.CharField) and not isinstance(value, str):
            raise refuse(f"`{name}`: a text is expected")
        setattr(row, column.attname, value)


def apply_below(row: Any, given: Mapping[str, Any], now: datetime) -> None:
    """Set and save the rows below a saved one as SECTION says. Raises ApiError, ValidationError."""
    lower = {(part, key): found for part, key, found in _lower(row)}
    for _, part, key, values in _groups(given):
        if not part:
            continue
        found = lower.get((part, key))
        if found is None:
            raise refuse(f"`{part}`: {key!r} is not in this object")
        rest = dict(values)
        if part == "own":
            set_previous(found, rest, now)
            set_values(found, _own_columns(), rest)
        elif part == "nodes":
            found.weight = rest.pop("weight", found.weight)
            set_values(found, _columns(found._meta.label, _NODE), rest)
        elif part == "upstream":
            set_values(found, _columns(found._meta.label, _inline_said()), rest)
        else:
            set_values(found, _columns(found._meta.label, _PLUGIN), rest)
        found.full_clean()
        found.save()
