"""How the rows of a document reach the database: each at once, with every check a model has.

Used by the parts of `apisix_resources` and by `apisix_store`; the importer has a Writer of its own that collects new
rows. Reaches models through `apps.get_model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.apps import apps
from django.db import models

from . import audit


class Writer:
    """Writes at once. Everything happens inside the caller's transaction, under the version lock."""

    def below(self, label: str, owner: models.Model, **where: Any) -> list[Any]:
        """The rows of the model `label` that belong to `owner`, chosen by `where`."""
        return list(apps.get_model(label)._default_manager.filter(**where))

    def holders(self, plugin: str, identifier: str) -> list[Any]:
        """The credentials that have the identifier, with their consumers."""
        rows = apps.get_model("hmac_consumers.Credential")._default_manager.select_related("consumer")
        return list(rows.filter(plugin=plugin, identifier=identifier))

    def save(self, row: Any) -> None:
        """Check and save a row. Raises ValidationError."""
        adding = row._state.adding
        row.full_clean()
        row.save(force_insert=adding)

    def add(self, model: Any, rows: Sequence[Any]) -> None:
        """Save new rows that were checked already."""
        if rows:
            model._default_manager.bulk_create(rows)

    def record(self, actor: str, action: str, row: models.Model, via: str, fields: Iterable[str]) -> None:
        """Note in the audit what happened to a row."""
        audit.record(actor, action, row, via, fields)


#: The admin API's.
AT_ONCE: Final = Writer()
