"""One AuditEvent per object that a request of an admin API changed. Called inside the writing transaction.

An event says who, with which key, and for each field that changed what it was and is. Secrets of credentials are masked
before they come here; what else may be one, by its name, is masked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.db import models

from ..core.credential import MASK
from ..models import AuditEvent

_STAMPS = frozenset(["create_time", "update_time"])
#: Names under which plugins, health checks and metadata keep what must not be read.
_SECRET: Final = re.compile(r"secret|passw|private|token|credential|authorization|api[_-]?key", re.IGNORECASE)
_HEADERS: Final = re.compile(r"headers\Z", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
#: Characters of one field's value; what is longer is told by its length.
_LONGEST: Final = 4000


def changed_fields(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """Names of the fields that differ between two documents; all of them where there was none."""
    old = before or {}
    names = {name for name in {*old, *after} if name not in old or name not in after or old[name] != after[name]}
    return sorted(names - _STAMPS)


def values(
    names: Iterable[str], before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, secret: bool = False
) -> dict[str, Any]:
    """What an event tells besides the names: what the fields were and are. `secret`: one that is masked changed."""
    told: dict[str, Any] = {}
    for side, doc in (("before", before), ("after", after)):
        if doc is not None:
            told[side] = {name: _fit(name, doc[name]) for name in names if name in doc}
    if secret:
        told["secret"] = "changed"
    return told


def _fit(name: str, value: Any) -> Any:
    shown = masked(value, name)
    length = len(json.dumps(shown))
    return shown if length <= _LONGEST else f"({length} characters of JSON)"


def masked(value: Any, name: str = "") -> Any:
    """A JSON value without what may be a secret; `name` is the key it stands under."""
    if isinstance(value, Mapping):
        if _HEADERS.search(name):
            return dict.fromkeys(value, MASK)
        # What stands inside of a secret is one.
        return {key: masked(item, name if _SECRET.search(name) else key) for key, item in value.items()}
    if isinstance(value, list):
        if _HEADERS.search(name):
            # Names of headers, or "name: value".
            return [re.sub(r":.*", f": {MASK}", item, flags=re.S) if isinstance(item, str) else item for item in value]
        return [masked(item, name) for item in value]
    if isinstance(value, bool) or value is None or value == "":
        return value
    if _SECRET.search(name) and not (isinstance(value, str) and value.startswith("$env://")):
        return MASK
    return _USERINFO.sub(MASK, value) if isinstance(value, str) else value


def record(
    actor: str,
    action: str,
    instance: models.Model,
    via: str,
    fields: Iterable[str] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the event; `action` is added, changed or deleted. `more` is from `values`, and who says `key`."""
    event(actor, action, instance, via, fields, more).save(force_insert=True)


def event(
    actor: str,
    action: str,
    instance: models.Model,
    via: str,
    fields: Iterable[str] = (),
    more: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """The event, unsaved."""
    changes = {"fields": list(fields), **(more or {})}
    return AuditEvent.about(actor=actor, action=action, instance=instance, via=via, changes=changes)
