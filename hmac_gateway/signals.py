"""Receivers that keep the version honest where `save()` and query sets are bypassed.

Connected by `HmacGatewayConfig.ready()` for every configuration model: deletions (a cascade calls no `delete()`)
leave tombstones, fixtures (loaddata calls no `save()`) are stamped.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.models.signals import post_delete, post_save

from .entities import Versioned, bump
from .models import Tombstone


def leave_tombstone(sender: type[Versioned], instance: Versioned, using: str, **kwargs: Any) -> None:
    """Note the deletion under a version of its own, or the one `one_version` holds."""
    Tombstone._default_manager.using(using).create(
        version=bump(using), label=sender._meta.label_lower, object_pk=str(instance.pk)
    )


def stamp_raw(sender: type[Versioned], instance: Versioned, raw: bool, using: str, **kwargs: Any) -> None:
    """Stamp a row that a fixture wrote."""
    if raw:
        # The base manager is Django's plain one: its update() does not bump a second time.
        rows = sender._base_manager.using(using).filter(pk=instance.pk)
        rows.update(changed_at_version=bump(using))


def connect() -> None:
    """Connect the receivers to every installed configuration model. Safe to call twice."""
    for model in apps.get_models():
        if issubclass(model, Versioned):
            uid = f"hmac_gateway.{model._meta.label_lower}"
            post_delete.connect(leave_tombstone, sender=model, dispatch_uid=uid)
            post_save.connect(stamp_raw, sender=model, dispatch_uid=uid)
