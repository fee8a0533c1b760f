"""A document in the form of kong.yml → rows: one transaction, one version, all or nothing.

Called by `hmac_import` and by Kong's `POST /config`. What the document says is `kong_read`'s, which row each of its
entities is `kong_match`'s, what an entity and its row are to each other the admin API's (`kong_entity`); here are the
comparison with the rows there are, the order of writes, and what is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import ValidationError
from django.utils import timezone

from ..admin_api import audit
from ..admin_api.errors import ApiError
from ..admin_api.kong_entities import ENTITIES
from ..admin_api.kong_entity import STAMPS, Doc, Entity, moment
from ..admin_api.kong_errors import ENTITY, KongError, from_model
from ..admin_api.kong_store import Call, columns, delete
from ..core.credential import MASK
from ..crypto import CannotOpen
from ..sealing import ANOTHER
from . import kong_beyond
from .apisix_read import text_of
from .batch import VIA, Batch, all_or_nothing
from .differences import compare
from .kong_match import Matcher, label_of, label_of_row
from .kong_problems import Problem
from .kong_read import Item, Reading, read
from .report import Change, Difference, Refused, Report, Skipped

#: Entities that others refer to; the rest goes first when something is deleted.
_ABOVE: Final = ("services", "upstreams", "consumers")
_BELOW: Final = tuple(name for name in reversed(ENTITIES) if name not in _ABOVE)
#: Routes may go to upstreams, as the console allows.
_WRITTEN: Final = ("upstreams", *(name for name in ENTITIES if name != "upstreams"))
_GENERATED: Final = "required field missing; one that is made here would be shown to nobody"


class Invalid(Refused):
    """A kong.yml that was not imported; `found` is what Kong's answers are made of."""

    def __init__(self, found: list[Problem]) -> None:
        super().__init__([line for problem in found for line in problem.lines()])
        self.found = found


def import_document(
    document: Any,
    *,
    actor: str,
    dry_run: bool = False,
    prune: bool = False,
    strict: bool = False,
    environ: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    call: Call | None = None,
) -> Report:
    """Make the rows say what the document (plain values, as `text.load` gives) says.

    Entities that the document does not name stay, unless `prune`; then those of Kong's dialect go, with decK's
    `select_tags` only those that have all of them. With `dry_run` everything is done and taken back. `strict` refuses a
    document of which something would be passed over; `environ` and `without` as for `read`. `call` says who asks, where
    that is not `actor` by way of an import. Raises Invalid, with nothing written.
    """
    reading = read(document, environ=environ, without=without)
    problems = list(reading.problems)
    if strict:
        problems += [Problem((what,), f"{why} (strict)") for what, why in reading.skipped]
    report = Report(skipped=list(reading.skipped), dry_run=dry_run)
    if problems:
        raise Invalid(problems)
    call = call or Call(actor=actor, via=VIA)
    all_or_nothing(report, lambda version: _Import(reading, report, call, prune).run())
    return report


@dataclass(slots=True)
class _Change:
    """What is to be written: an item's row, filled in, with what differs. `before` is its old document."""

    item: Item
    row: Any
    before: Doc | None
    differences: list[Difference]


class _Import:
    """One import, under the version lock."""

    def __init__(self, reading: Reading, report: Report, call: Call, prune: bool) -> None:
        self._reading = reading
        self._report = report
        self._call = call
        self._now = timezone.now()
        self._problems: list[Problem] = []
        self._matcher = Matcher(reading.items, self._now, prune, reading.select_tags)
        # Entities of one second keep the file's order.
        self._ages = {id(item): age for age, item in enumerate(reading.items)}

    def run(self) -> None:
        """Find, compare, write, delete."""
        self._problems += self._matcher.match()
        self._stop_if_wrong()
        changes = {entity.name: list(self._changes(entity)) for entity in ENTITIES.values()}
        self._stop_if_wrong()
        gone = self._matcher.gone
        kept = set(self._keep_shared(gone))
        for entity, row in self._matcher.over:
            self._delete_row(entity, row)
        self._delete(gone, _BELOW, kept)
        self._matcher.park()
        for name in _WRITTEN:
            self._write(ENTITIES[name], changes[name])
            self._stop_if_wrong()
        self._delete(gone, _ABOVE, kept)
        self._stop_if_wrong()

    def _stop_if_wrong(self) -> None:
        if self._problems:
            raise Invalid(self._problems)

    # --- what differs ---

    def _changes(self, entity: Entity) -> Iterator[_Change]:
        for item in self._matcher.items[entity.name]:
            try:
                if kong_beyond.over(item.beyond, self._now):
                    self._report.skipped.append(Skipped(item.where, "its end is over"))
                    continue
                row = self._matcher.rows.get(id(item))
                change = self._new(item) if row is None else self._changed(item, row)
            except KongError as error:
                self._problems.append(item.problem((error.body or {}).get("fields") or {ENTITY: [str(error.body)]}))
            except ApiError as error:
                self._problems.append(item.problem({ENTITY: [text_of(error)]}))
            except CannotOpen as error:
                self._problems.append(item.problem({ENTITY: [f"its stored secret cannot be opened: {error}"]}))
            else:
                if change is None:
                    self._report.left[entity.name.removesuffix("s")] += 1
                else:
                    yield change

    def _new(self, item: Item) -> _Change:
        entity, doc = item.entity, item.doc
        row: Any = apps.get_model(entity.model)(**entity.own)
        row.pk = doc["id"]
        given = doc["created_at"]
        row.created_at = (self._now if given is None else moment(int(given))) + timedelta(
            microseconds=self._ages[id(item)]
        )
        kong_beyond.prepare(row, item.beyond)
        entity.fill(row, doc)
        made = [name for name in getattr(row, "generated", {}) if entity.fields[name].secret]
        if made:
            self._problems.append(item.problem(dict.fromkeys(made, _GENERATED)))
        kong_beyond.apply(entity, row, item.beyond, self._now)
        return _Change(item, row, None, [])

    def _changed(self, item: Item, row: Any) -> _Change | None:
        entity, doc = item.entity, item.doc
        before = entity.show(row)
        kong_beyond.remember(row)
        end = getattr(row, "expires_at", None)
        for name, spec in entity.fields.items():
            if doc.get(name) is None and (spec.secret or spec.auto):
                # What a file does not say is made once.
                doc[name] = MASK if spec.secret and before.get(name) else before.get(name)
        kong_beyond.prepare(row, item.beyond)
        entity.fill(row, doc)
        if end is not None:
            # An end stays: how many seconds are left would be another number each time.
            row.expires_at = end
        after = entity.show(row)
        unseen = {"id", *STAMPS, *(("ttl",) if end is not None else ())}
        shown = [{name: value for name, value in shown.items() if name not in unseen} for shown in (before, after)]
        found = list(compare("", *shown))
        if getattr(row, "secret_changed", False):
            for name in entity.secrets or ("config",):
                found.append(Difference(name, MASK if before.get(name) else None, ANOTHER))
        found += kong_beyond.apply(entity, row, item.beyond, self._now)
        return _Change(item, row, before, found) if found else None

    # --- writing ---

    def _write(self, entity: Entity, changes: list[_Change]) -> None:
        batch = Batch()
        for change in sorted(changes, key=lambda change: change.before is None):
            item, row = change.item, change.row
            try:
                kong_beyond.check(entity, row)
                batch.save(row)
            except ApiError as error:
                self._problems.append(item.problem({ENTITY: [text_of(error)]}))
                continue
            except ValidationError as error:
                said = from_model(error, columns(entity, type(row))).body
                self._problems.append(item.problem((said or {})["fields"]))
                continue
            if change.before is None:
                batch.record(self._call.actor, "added", row, self._call.via, sorted(item.sent))
            else:
                self._audit(change)
            action = "created" if change.before is None else "changed"
            kind = entity.name.removesuffix("s")
            self._report.changes.append(Change(action, kind, label_of(item, self._matcher.labels), change.differences))
        if self._problems:
            return
        try:
            batch.flush()
        except ValidationError as error:
            said = from_model(error, columns(entity, apps.get_model(entity.model))).body
            self._problems.append(Problem((entity.name,), (said or {})["fields"], entity.name))

    def _audit(self, change: _Change) -> None:
        names = sorted({found.field.partition(".")[0] for found in change.differences})
        after = change.item.entity.show(change.row)
        secret = bool(getattr(change.row, "secret_changed", False))
        more = {**audit.values(names, change.before, after, secret), **self._call.who}
        audit.record(self._call.actor, "changed", change.row, self._call.via, names, more)

    # --- what the file does not name ---

    def _keep_shared(self, gone: Mapping[str, list[Any]]) -> Iterator[Any]:
        """Consumers on which something of APISIX's dialect hangs are not deleted with it."""
        for row in gone["consumers"]:
            hanging = [*row.credentials.filter(dialect="apisix"), *row.plugins.filter(dialect="apisix")]
            if hanging or row.group_id is not None:
                self._report.skipped.append(
                    Skipped(f"consumer {row}", "not deleted, since something in APISIX's dialect hangs on it")
                )
                yield row.pk

    def _delete(self, gone: Mapping[str, list[Any]], names: Collection[str], kept: set[Any]) -> None:
        for name in names:
            for row in gone[name]:
                label = label_of_row(ENTITIES[name], row)
                if row.pk not in kept and self._delete_row(ENTITIES[name], row):
                    self._report.changes.append(Change("deleted", name.removesuffix("s"), label))

    def _delete_row(self, entity: Entity, row: Any) -> bool:
        """Whether it was deleted now; others may have taken it along."""
        if not type(row)._base_manager.filter(pk=row.pk).exists():
            return False
        try:
            delete(entity, row, self._call)
        except KongError as error:
            where = f"{entity.name.removesuffix('s')} {label_of_row(entity, row)}, which the file does not name"
            self._problems.append(Problem((entity.name,), str((error.body or {}).get("message")), where))
            return False
        return True
