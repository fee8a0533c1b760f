"""One AuditEvent per object that a request of an admin API changed. Called inside the writing transaction.

Names fields only, so that no value, and with it no secret, can get in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import models

from ..models import AuditEvent

_STAMPS = frozenset(["create_time", "update_time"])


def changed_fields(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """Names of the fields that differ between two documents; all of them where there was none."""
    old = before or {}
    names = {name for name in {*old, *after} if name not in old or name not in after or old[name] != after[name]}
    return sorted(names - _STAMPS)


def record(actor: str, action: str, instance: models.Model, via: str, fields: Iterable[str] = ()) -> None:
    """Write the event; `action` is added, changed or deleted."""
    event(actor, action, instance, via, fields).save(force_insert=True)


def event(actor: str, action: str, instance: models.Model, via: str, fields: Iterable[str] = ()) -> AuditEvent:
    """The event, unsaved."""
    return AuditEvent.about(actor=actor, action=action, instance=instance, via=via, changes={"fields": list(fields)})
