"""How an import reaches the database: all or nothing, and new rows many at a time. Used by both importers.

Reaches models through `apps.get_model`; imports `admin_api`'s writer, whose place `Batch` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from django.apps import apps
from django.db import IntegrityError, models, router, transaction

from ..admin_api import audit
from ..admin_api.writing import Writer
from ..entities import keys_known, one_version
from ..models import AuditEvent, ConfigVersion
from .report import Refused, Report

#: The way by which audit events say that objects changed.
VIA: Final = "import"


def all_or_nothing(report: Report, run: Callable[[int], None]) -> None:
    """Run an import in one transaction under one version, and take it back where it is a dry run or changed nothing.

    Sets the report's version. Raises Refused.
    """
    using = router.db_for_write(ConfigVersion)
    try:
        with transaction.atomic(using=using):
            with one_version(using) as version, ConfigVersion.read_once():
                run(version)
            if report.dry_run or not report.changes:
                # The version, too: workers have nothing to read.
                transaction.set_rollback(True, using=using)
            else:
                report.version = version
    except IntegrityError:
        raise Refused(["the database refuses it: an object conflicts with one that is there already"]) from None


class Batch(Writer):
    """Collects new rows and writes each table's at once. A row is checked by itself; the plan has checked the rest."""

    _RANKS: Final = ("Upstream", "Node", "PluginConfig", "ConsumerGroup", "Service", "Route", "Consumer", "Credential")

    def __init__(self) -> None:
        self._rows: dict[Any, list[Any]] = {}
        self._events: list[AuditEvent] = []
        self._holders: dict[tuple[str, str], list[Any]] = {}
        self._held: set[tuple[str, str]] | None = None

    def below(self, label: str, owner: models.Model, **where: Any) -> list[Any]:
        """None below a row that is not written yet."""
        return [] if owner._state.adding else super().below(label, owner, **where)

    def holders(self, plugin: str, identifier: str) -> list[Any]:
        """Those of the database and those that wait here."""
        if self._held is None:
            rows = apps.get_model("hmac_consumers.Credential")._default_manager
            self._held = set(rows.order_by().values_list("plugin", "identifier"))
        found = super().holders(plugin, identifier) if (plugin, identifier) in self._held else []
        return found + self._holders.get((plugin, identifier), [])

    def save(self, row: Any) -> None:
        """Check a row and keep it for `flush`. One that is in the database already is saved at once."""
        if not row._state.adding:
            super().save(row)
            return
        row.derive()
        # The keys' uniqueness and the rows they refer to are known; no query for each.
        relations = {field.name for field in row._meta.concrete_fields if field.is_relation}
        row.clean_fields({*relations, *row.derived})
        with keys_known():
            row.clean()
        self.add(type(row), [row])

    def add(self, model: Any, rows: Collection[Any]) -> None:
        """Keep checked rows for `flush`."""
        self._rows.setdefault(model, []).extend(rows)
        if model._meta.label == "hmac_consumers.Credential":
            for row in rows:
                self._holders.setdefault((row.plugin, row.identifier), []).append(row)

    def record(self, actor: str, action: str, row: models.Model, via: str, fields: Any) -> None:
        """Keep the event for `flush`."""
        self._events.append(audit.event(actor, action, row, via, fields))

    def flush(self) -> None:
        """Write everything. Raises ValidationError, IntegrityError."""
        ranks = {name: place for place, name in enumerate(self._RANKS)}
        for model in sorted(self._rows, key=lambda found: ranks.get(found.__name__, len(ranks))):
            model._default_manager.bulk_create(self._rows[model], batch_size=500)
        AuditEvent._default_manager.bulk_create(self._events, batch_size=500)
        self.__init__()  # type: ignore[misc]
