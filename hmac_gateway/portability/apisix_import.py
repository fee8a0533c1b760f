"""A document in the form of APISIX's apisix.yaml → rows: one transaction, one version, all or nothing.

Called by `hmac_import`. What a document means, and how it is written, is the admin API's (`apisix_store`); here are the
plan (what differs from the rows there are), the order of writes, and new rows written many at a time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import ValidationError
from django.utils import timezone

from .. import sealing
from ..admin_api import apisix_store as store
from ..admin_api.apisix_credentials import show_credential
from ..admin_api.apisix_plugins import available, is_auth
from ..admin_api.apisix_resources import (
    CONSUMER_GROUPS,
    CONSUMERS,
    CREDENTIALS,
    GLOBAL_RULES,
    PLUGIN_CONFIGS,
    ROUTES,
    SERVICES,
    UPSTREAMS,
    Resource,
)
from ..admin_api.errors import ApiError, from_model
from ..admin_api.fields import TTL_END
from ..admin_api.writing import AT_ONCE
from ..core.credential import MASK
from ..crypto import CannotOpen
from ..plugins import PLUGINS
from ..sealing import ANOTHER
from . import beyond
from .apisix_read import Entry, Reading, read, text_of
from .batch import VIA, Batch, all_or_nothing
from .differences import compare
from .report import Change, Difference, Refused, Report, Skipped

#: What others refer to comes first.
ORDER: Final = (
    UPSTREAMS,
    PLUGIN_CONFIGS,
    CONSUMER_GROUPS,
    SERVICES,
    ROUTES,
    GLOBAL_RULES,
    CONSUMERS,
    CREDENTIALS,
)
#: Rows of these are written with all their checks against each other; there are never many.
_SINGLY: Final = (GLOBAL_RULES,)
_STAMPS: Final = ("create_time", "update_time")
_CHUNK: Final = 400
#: Fields of credentials that hold something secret, besides the plugin's own.
_SECRET = re.compile("secret|passw|private", re.IGNORECASE)


def import_document(
    document: Any,
    *,
    actor: str,
    dry_run: bool = False,
    prune: bool = False,
    strict: bool = False,
    environ: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> Report:
    """Make the rows say what the document (plain values, as `text.load` gives) says.

    Objects that the document does not name stay, unless `prune`. With `dry_run` everything is done and taken back.
    `strict` refuses a document of which something would be passed over; `environ` and `without` as for `read`.
    Raises Refused, with nothing written.
    """
    reading = read(document, environ=environ, without=without)
    problems = list(reading.problems)
    if strict:
        problems += [f"{what}: {why} (strict)" for what, why in reading.skipped]
    if problems:
        raise Refused(problems)
    report = Report(skipped=list(reading.skipped), dry_run=dry_run)
    all_or_nothing(report, lambda version: _Import(reading, report, version, actor, prune).run())
    return report


@dataclass(slots=True)
class _Plan:
    """What is to be done about an entry. `doc` says whether its document differs from `row`'s."""

    entry: Entry
    row: Any
    doc: bool
    differences: list[Difference]


class _Import:
    """One import, under the version lock."""

    def __init__(self, reading: Reading, report: Report, version: int, actor: str, prune: bool) -> None:
        self._report = report
        self._version = version
        self._actor = actor
        self._prune = prune
        self._now = timezone.now()
        self._entries: dict[str, list[Entry]] = {resource.name: [] for resource in ORDER}
        for entry in reading.entries:
            self._entries[entry.resource.name].append(entry)
        # Routes are tried in the order of their creation, so the file's order is kept.
        self._ages = {id(entry): age for age, entry in enumerate(reading.entries)}
        self._problems: list[str] = []
        self._links: dict[tuple[str, str], bool] = {}

    def run(self) -> None:
        """Plan, write, delete."""
        plans = {resource.name: list(self._plan(resource)) for resource in ORDER}
        self._stop_if_wrong()
        gone = {resource.name: self._unnamed(resource) if self._prune else [] for resource in ORDER}
        for resource in (ROUTES, GLOBAL_RULES, CREDENTIALS, CONSUMERS):
            # Nothing refers to these, and what they hold may move to another object.
            self._delete(resource, gone[resource.name])
        for plan in (*plans["consumers"], *plans["credentials"]):
            self._park(plan)
        for plan in plans["global_rules"]:
            self._take_plugins_off(plan)
        for resource in ORDER:
            self._write(resource, plans[resource.name])
            self._stop_if_wrong()
        for resource in (SERVICES, PLUGIN_CONFIGS, CONSUMER_GROUPS, UPSTREAMS):
            self._delete(resource, gone[resource.name])
        self._stop_if_wrong()

    def _stop_if_wrong(self) -> None:
        if self._problems:
            raise Refused(self._problems)

    def _call(self, owner: str | None = None) -> store.Call:
        return store.Call(actor=self._actor, owner=owner, via=VIA)

    # --- the plan ---

    def _plan(self, resource: Resource) -> Iterator[_Plan]:
        entries = self._entries[resource.name]
        present = self._present(resource, entries)
        fresh = []
        for entry in entries:
            try:
                if beyond.expired(entry.beyond, self._now):
                    self._report.skipped.append(Skipped(entry.where, "its end is over"))
                    continue
                row = present.get(entry.id)
                if row is None:
                    fresh.append(entry)
                    continue
                differences = list(_differences(entry, row))
                more = beyond.differences(resource, row, entry.beyond, self._now)
            except ApiError as error:
                self._problems.append(f"{entry.where}: {text_of(error)}")
                continue
            except CannotOpen as error:
                self._problems.append(f"{entry.where}: its stored secret cannot be opened: {error}")
                continue
            if differences or more:
                yield _Plan(entry, row, bool(differences), [*differences, *more])
            else:
                self._report.left[resource.kind] += 1
        yield from self._new(resource, fresh)

    def _new(self, resource: Resource, entries: list[Entry]) -> Iterator[_Plan]:
        taken = self._taken(resource, entries)
        for entry in entries:
            if entry.id not in taken:
                yield _Plan(entry, None, True, [])
                continue
            row = taken[entry.id]
            if row.expires_at is None or row.expires_at > self._now or not _meant(resource, row):
                self._problems.append(
                    f"{entry.where}: the id is taken by a {row._meta.verbose_name} that this format cannot show "
                    f"({_kind(resource, row)})"
                )
                continue
            # Over, as if deleted.
            yield _Plan(entry, store.make_room(resource, entry.key, self._call(entry.owner)), True, [])

    def _rows(self, resource: Resource) -> Any:
        rows = apps.get_model(resource.model)._default_manager.filter(**resource.scope)
        if resource is CREDENTIALS:
            rows = rows.select_related("consumer").exclude(consumer__expires_at__lte=self._now)
            rows = rows.exclude(consumer__username=None)
        return rows.filter(dialect="apisix").exclude(expires_at__lte=self._now)

    def _present(self, resource: Resource, entries: list[Entry]) -> dict[str, Any]:
        rows = self._rows(resource).prefetch_related(*resource.prefetch)
        found: dict[str, Any] = {}
        for keys in _chunks([entry.owner or entry.key for entry in entries]):
            if resource is CREDENTIALS:
                chosen = rows.filter(consumer__username__in=keys)
                found.update({f"{row.consumer.username}/{row.public_id}": row for row in chosen})
            else:
                names = [*keys, *(resource.prefix + key for key in keys if resource.prefix)]
                for row in rows.filter(**{f"{resource.key}__in": names}):
                    found[str(getattr(row, resource.key)).removeprefix(resource.prefix)] = row
        return found

    def _taken(self, resource: Resource, entries: list[Entry]) -> dict[str, Any]:
        """Rows that hold a new entry's key without being what the resource shows."""
        model: Any = apps.get_model(resource.model)
        rows = model._default_manager.all()
        found: dict[str, Any] = {}
        for keys in _chunks([entry.owner or entry.key for entry in entries]):
            if resource is CREDENTIALS:
                for row in rows.filter(consumer__username__in=keys, public_id__isnull=False).select_related("consumer"):
                    found[f"{row.consumer.username}/{row.public_id}"] = row
            else:
                for row in rows.filter(**{f"{resource.key}__in": [resource.prefix + key for key in keys]}):
                    found[str(getattr(row, resource.key)).removeprefix(resource.prefix)] = row
        return found

    def _unnamed(self, resource: Resource) -> list[Any]:
        named = {entry.id for entry in self._entries[resource.name]}
        rows = self._rows(resource).order_by("created_at", "pk")
        return [row for row in rows if _id(resource, row) not in named]

    # --- before the writes ---

    def _park(self, plan: _Plan) -> None:
        """Free the identifiers that a changed object gives up: another object may take one over in the same file."""
        if plan.row is None or not plan.doc:
            return
        if plan.entry.resource is CREDENTIALS:
            held = [plan.row]
        else:
            held = [row for row in plan.row.credentials.all() if row.public_id is None]
        for row in held:
            if _keeps(row, plan.entry.doc.get("plugins", {}).get(row.plugin)):
                continue
            # By Django's plain manager: the row is written again, or deleted, under this version.
            text = f"parked {row.pk}"
            rows = type(row)._base_manager.filter(pk=row.pk)
            rows.update(identifier=text, identifier_slot=f"parked:{row.pk}")

    @staticmethod
    def _take_plugins_off(plan: _Plan) -> None:
        """A plugin stands in one global rule only, and may move to another one."""
        if plan.row is not None:
            for plugin in plan.row.plugins.all():
                if plugin.dialect == "apisix" and plugin.name not in plan.entry.doc["plugins"]:
                    plugin.delete()

    # --- writing ---

    def _write(self, resource: Resource, plans: list[_Plan]) -> None:
        batch = Batch()
        later: list[tuple[Entry, Any]] = []
        for plan in sorted(plans, key=lambda plan: plan.row is None):
            entry = plan.entry
            try:
                self._check_links(entry)
                if plan.row is None and resource not in _SINGLY:
                    row = store.put_rows(
                        resource, None, entry.doc, self._call(entry.owner), self._version, batch, self._finish(plan)
                    )
                    batch.record(self._actor, "added", row, VIA, sorted(entry.doc))
                    if entry.beyond.keys() & {"plugins", "nodes", "own", "upstream"}:
                        later.append((entry, row))
                else:
                    self._write_one(plan)
            except ApiError as error:
                self._problems.append(f"{entry.where}: {text_of(error)}")
                continue
            except ValidationError as error:
                self._problems.append(f"{entry.where}: {text_of(from_model(error))}")
                continue
            action = "created" if plan.row is None else "changed"
            self._report.changes.append(Change(action, resource.kind, entry.id, plan.differences))
        if self._problems:
            return
        try:
            batch.flush()
        except ValidationError as error:
            self._problems.append(f"{resource.name}: {text_of(from_model(error))}")
            return
        for entry, row in later:
            self._apply_below(entry, type(row)._default_manager.get(pk=row.pk))

    def _write_one(self, plan: _Plan) -> None:
        entry, row = plan.entry, plan.row
        if plan.doc:
            row, _ = store.write(
                entry.resource, row, entry.doc, self._call(entry.owner), self._version, self._finish(plan)
            )
        else:
            beyond.set_columns(entry.resource, row, entry.beyond, self._now)
            row.full_clean()
            row.save()
            names = sorted({found.field.partition(".")[0] for found in plan.differences})
            AT_ONCE.record(self._actor, "changed", row, VIA, names)
        self._apply_below(entry, type(row)._default_manager.get(pk=row.pk))

    def _apply_below(self, entry: Entry, row: Any) -> None:
        try:
            beyond.apply_below(row, entry.beyond, self._now)
        except ApiError as error:
            self._problems.append(f"{entry.where}: {text_of(error)}")
        except ValidationError as error:
            self._problems.append(f"{entry.where}: {text_of(from_model(error))}")

    def _finish(self, plan: _Plan) -> Any:
        entry, old = plan.entry, plan.row
        end = None if old is None else old.expires_at
        ttl = None if old is None or not isinstance(old.extra, dict) else old.extra.get(TTL_END)

        def finish(row: Any) -> None:
            if old is None:
                row.created_at = self._now + timedelta(microseconds=self._ages[id(entry)])
            else:
                # A file says nothing of an end, so it stays.
                row.expires_at = end
                if ttl is not None:
                    row.extra[TTL_END] = ttl
            beyond.set_columns(entry.resource, row, entry.beyond, self._now)

        return finish

    def _check_links(self, entry: Entry) -> None:
        """As `store.check_links`, asking for each object once."""
        for link in entry.resource.links:
            if link.key not in entry.doc:
                continue
            place = (link.key, str(entry.doc[link.key]))
            if not self._links.get(place):
                store.check_links(entry.resource, entry.doc)
                self._links[place] = True

    def _delete(self, resource: Resource, rows: list[Any]) -> None:
        for row in rows:
            name = _id(resource, row)
            call = self._call(row.consumer.username if resource is CREDENTIALS else None)
            key = str(getattr(row, resource.key)).removeprefix(resource.prefix)
            try:
                store.delete(resource, key, False, call)
            except ApiError as error:
                self._problems.append(f"{resource.kind} {name}, which the file does not name: {text_of(error)}")
                continue
            self._report.changes.append(Change("deleted", resource.kind, name))


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), _CHUNK):
        yield unique[start : start + _CHUNK]


def _id(resource: Resource, row: Any) -> str:
    key = str(getattr(row, resource.key)).removeprefix(resource.prefix)
    return f"{row.consumer.username}/{key}" if resource is CREDENTIALS else key


def _meant(resource: Resource, row: Any) -> bool:
    return all(getattr(row, name, value) == value for name, value in resource.scope.items() if "__" not in name)


def _kind(resource: Resource, row: Any) -> str:
    if row.dialect != "apisix":
        return f"dialect {row.dialect}"
    return "a global rule" if getattr(row, "is_global", False) else "of another kind"


# --- what differs ---


def _differences(entry: Entry, row: Any) -> Iterator[Difference]:
    """Where a document differs from what the row shows; secrets are masked."""
    resource = entry.resource
    ours = {*_STAMPS, resource.key_field}
    present = {name: value for name, value in store.value_of(resource, row).items() if name not in ours}
    wanted = {name: value for name, value in entry.doc.items() if name not in ours}
    wanted, hidden = _masked(resource, row, wanted)
    if not wanted.get("plugins") and not present.get("plugins"):
        # An empty map says nothing.
        wanted.pop("plugins", None), present.pop("plugins", None)
    yield from compare("", present, wanted, hidden)


def _masked(resource: Resource, row: Any, doc: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The document with MASK for secrets that are the stored ones; and the fields whose values are not for people."""
    stored = {row.plugin: row} if resource is CREDENTIALS else {own.plugin: own for own in _own(row)}
    attached = {plugin.name: plugin.config for plugin in row.plugins.all()} if "plugins" in resource.prefetch else {}
    plugins: dict[str, Any] = {}
    hidden: set[str] = set()
    for name, config in doc.get("plugins", {}).items():
        plugins[name] = config
        if resource not in (CONSUMERS, CREDENTIALS) or not is_auth(available(name)):
            plugins[name] = sealing.compared(name, config, attached.get(name))
            continue
        holder = stored.get(name)
        shown = {} if holder is None else show_credential(holder)
        plugins[name] = {field: _as_shown(value, shown.get(field), holder) for field, value in config.items()}
        # A misspelt field may hold what the right one should.
        plugin = PLUGINS[name]
        known = {*(plugin.credential_schema or {}).get("properties", {}), "_meta"} - {plugin.secret_field}
        fields = {*config, *shown}
        secret = {field for field in fields if field not in known or _SECRET.search(field)}
        hidden |= {f"plugins.{name}.{field}" for field in secret if plugins[name].get(field) != ANOTHER}
    return ({**doc, "plugins": plugins} if "plugins" in doc else doc), hidden


def _as_shown(value: Any, shown: Any, holder: Any) -> Any:
    """A field's value in the way that the row shows it: MASK for the stored secret."""
    if shown != MASK or value == MASK:
        return value
    return MASK if value == holder.get_secret() else ANOTHER


def _own(row: Any) -> list[Any]:
    credentials = getattr(row, "credentials", None)
    return [] if credentials is None else [own for own in credentials.all() if own.public_id is None]


def _keeps(row: Any, config: Any) -> bool:
    """Whether a credential keeps its identifier under a new configuration."""
    if not isinstance(config, dict) or row.plugin not in PLUGINS:
        return False
    plugin = PLUGINS[row.plugin]
    given = config.get(plugin.identifier_field)
    if plugin.identifier_field != plugin.secret_field:
        return bool(given == row.identifier)
    return given == MASK or bool(given == row.get_secret())
