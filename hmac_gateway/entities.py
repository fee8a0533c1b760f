"""What every configuration row has in common, and the promise that no change goes unseen.

Each write bumps the version row inside its own transaction and stamps the rows it touched, so a worker that knows
version N reads only what is newer. Base of the models of `consumers` and `proxy`; imports `models` and `validators`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeVar

from asgiref.local import Local
from django.core.exceptions import FieldError, ValidationError
from django.db import models, router, transaction
from django.db.models.base import ModelBase
from django.utils import timezone

from . import validators
from .defaults import new_key
from .models import ConfigVersion

DIALECTS = [("apisix", "APISIX"), ("kong", "Kong")]

# Versions held by `one_version`, by database; scoped as Django scopes its connections.
_held = Local()


class Writes:
    """What this process wrote itself. Its own runtime looks at it, so that nobody waits for a change made here.

    `count` goes up with every bump. `open` are versions, by database, whose transaction is not over: one that is
    rolled back gives its number to another change, as in a test that runs in a transaction.
    """

    count: ClassVar[int] = 0
    open: ClassVar[dict[str, int]] = {}


def bump(using: str | None = None) -> int:
    """Raise the configuration's version by one and return it. To be called inside the writing transaction.

    The update takes the version row's lock until that transaction ends: versions become visible in their order, and
    what is checked after the bump cannot be made untrue by another writer. Inside `one_version` the version already
    taken is returned.
    """
    using = using or router.db_for_write(ConfigVersion)
    held: dict[str, int] = getattr(_held, "versions", {})
    if using in held:
        return held[using]
    with transaction.atomic(using=using):
        rows = ConfigVersion._default_manager.using(using).filter(pk=1)
        if not rows.update(version=models.F("version") + 1):
            ConfigVersion.load(using)
            rows.update(version=models.F("version") + 1)
        version = rows.values_list("version", flat=True).get()
        Writes.count += 1
        Writes.open[using] = version
        transaction.on_commit(lambda: _committed(using), using)
        return version


def _committed(using: str) -> None:
    Writes.open.pop(using, None)
    # Threads that looked before the commit look again.
    Writes.count += 1


@contextmanager
def one_version(using: str | None = None) -> Iterator[int]:
    """Run the block in one transaction in which every write shares one bump; yields that version.

    For importers, deletions with cascades, and anything else that writes many rows at once.
    """
    using = using or router.db_for_write(ConfigVersion)
    with transaction.atomic(using=using):
        version = bump(using)
        before: dict[str, int] = getattr(_held, "versions", {})
        _held.versions = {**before, using: version}
        try:
            yield version
        finally:
            _held.versions = before


@contextmanager
def keys_known() -> Iterator[None]:
    """Run a block in which validation asks the database for no row's uniqueness.

    For writers of many new rows that have looked for all their keys at once, under the version lock. The database's
    constraints hold all the same.
    """
    before = getattr(_held, "keys_known", False)
    _held.keys_known = True
    try:
        yield
    finally:
        _held.keys_known = before


def are_keys_known() -> bool:
    """Whether this runs inside `keys_known`."""
    return bool(getattr(_held, "keys_known", False))


M = TypeVar("M", bound="Versioned")


class VersionedQuerySet(models.QuerySet[M]):
    """A query set whose bulk writes bump and stamp as `save()` does."""

    def update(self, **kwargs: Any) -> int:
        """Update, bump and stamp. Raises FieldError for fields that feed a derived column: save those rows."""
        if feeding := self.model.derived_from & kwargs.keys():
            raise FieldError(f"{', '.join(sorted(feeding))}: a derived column follows from it; use save()")
        self._for_write = True
        with transaction.atomic(using=self.db):
            stamp = {"changed_at_version": bump(self.db), "updated_at": timezone.now()}
            return super().update(**{**stamp, **kwargs})

    update.alters_data = True  # type: ignore[attr-defined]

    def quiet_update(self, **kwargs: Any) -> int:
        """Update without a bump, for what is not configuration (`last_used_at`, resealing)."""
        return super().update(**kwargs)

    quiet_update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete with cascades, leaving one tombstone per row, all under one version."""
        self._for_write = True
        with one_version(self.db):
            return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[M],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[M]:
        """Create, bump and stamp; derived columns are set as in `save()`."""
        self._for_write = True
        rows = list(objs)
        with transaction.atomic(using=self.db):
            version = bump(self.db)
            for row in rows:
                row.changed_at_version = version
                row.derive()
                row.seal()
            self.model.check_locked(rows, self.db)
            if update_conflicts and update_fields:
                update_fields = {*update_fields, *self.model.derived, "changed_at_version", "updated_at"}
            return super().bulk_create(
                rows, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields
            )


class Versioned(models.Model):
    """A row whose every change is numbered by the version that brought it."""

    #: Columns that `derive()` computes, and the fields they follow from.
    derived: ClassVar[frozenset[str]] = frozenset()
    derived_from: ClassVar[frozenset[str]] = frozenset()

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)
    changed_at_version = models.BigIntegerField(default=0, db_index=True, editable=False)

    objects = models.Manager.from_queryset(VersionedQuerySet)()

    class Meta:
        abstract = True

    def derive(self) -> None:
        """Set the columns that follow from others. Called before every write and every validation."""

    def seal(self) -> None:
        """Turn what must not be stored in clear into its sealed form. Called before every write, after validation."""

    @classmethod
    def check_locked(cls, rows: Sequence[Self], using: str) -> None:
        """Refuse (ValidationError) what no constraint can: runs while the version lock keeps other writers out."""

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Check each field; also refuses what only some databases can hold."""
        problems = validators.Problems()
        skipped = exclude or ()
        for field in self._meta.concrete_fields:
            value = getattr(self, field.attname)
            if field.name in skipped:
                continue
            if not validators.storable(value):
                problems.say(field.name, f"`{field.name}`: NUL characters, NaN and Infinity cannot be stored.")
            elif isinstance(field, models.JSONField):
                # Field validators do not see empty values, so an empty list could stand where a map belongs.
                shape = type(field.get_default())
                if not isinstance(value, shape):
                    problems.add(field.name, value, "a JSON object" if shape is dict else "a JSON list")
        problems.raise_if_any()
        super().clean_fields(exclude)

    def full_clean(
        self,
        exclude: Iterable[str] | None = None,
        validate_unique: bool = True,
        validate_constraints: bool = True,
    ) -> None:
        """Validate everything, derived columns included. Raises ValidationError keyed by field."""
        self.derive()
        # Derived columns are checked by clean(), in words about the fields they follow from.
        exclude = {*(exclude or ()), *self.derived}
        # Django calls clean() even when a field is wrong. Ours may rely on the fields' types.
        self.clean_fields(exclude)
        super().full_clean(exclude, validate_unique, validate_constraints)

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Save, bumping the version in the same transaction."""
        using = using or router.db_for_write(type(self), instance=self)
        if update_fields is not None:
            update_fields = frozenset(update_fields)
            if not update_fields:
                return
            update_fields |= self.derived | {"changed_at_version", "updated_at"}
        with transaction.atomic(using=using):
            self.changed_at_version = bump(using)
            self.derive()
            self.seal()
            self.check_locked([self], using)
            super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete with cascades; each deleted row leaves a tombstone."""
        using = using or router.db_for_write(type(self), instance=self)
        with one_version(using):
            return super().delete(using=using, keep_parents=keep_parents)


class Entity(Versioned):
    """A configuration object as both dialects know it."""

    name = models.CharField(max_length=256, blank=True, default="")
    desc = models.CharField("description", max_length=256, blank=True, default="")
    labels = models.JSONField(default=dict, blank=True, validators=[validators.validate_labels])
    tags = models.JSONField(default=list, blank=True, validators=[validators.validate_tags])
    enabled = models.BooleanField(default=True)
    dialect = models.CharField(
        max_length=16,
        choices=DIALECTS,
        default="apisix",
        help_text="Whose field rules, words and precedence apply.",
    )
    extra = models.JSONField(
        default=dict,
        blank=True,
        help_text="Fields kept as they were sent, and given back by the admin API.",
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="From then on as if deleted.")

    class Meta:
        abstract = True


class KeyedEntity(Entity):
    """An entity whose key is a string that the user may choose."""

    id = models.CharField(
        primary_key=True,
        max_length=64,
        default=new_key,
        validators=[validators.validate_key],
        help_text=f"{validators.KEY_RULE}.",
    )

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name or str(self.pk)


def refuse_taken(instance: Versioned, column: str, field: str, message: str) -> None:
    """Raise ValidationError on `field` when another row holds the same value in the derived `column`.

    Forms leave derived columns out of Django's own uniqueness check, so the models ask here.
    """
    if are_keys_known():
        return
    value = getattr(instance, column)
    others = type(instance)._default_manager.filter(**{column: value}).exclude(pk=instance.pk)
    if others.exists():
        raise ValidationError({field: message})
