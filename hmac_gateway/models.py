"""The engine's own tables: the configuration's version, admin keys, audit, and what processes tell each other.

Used by entities, runtime, the admin APIs and the console. None of these is configuration: writing them bumps no
version. May import crypto and Django, no other part of the library.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from asgiref.local import Local
from django.db import models
from django.utils import timezone
from django.utils.functional import cached_property

from . import crypto

# What `ConfigVersion.read_once` remembers; scoped as Django scopes its connections.
_once = Local()


class ConfigVersion(models.Model):
    """The one row that counts configuration changes. Its row lock makes writers go one after another."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    version = models.BigIntegerField(default=0)
    canary = models.TextField(blank=True, default="")
    fingerprint_key = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(id=1), name="hmac_gateway_one_version_row"),
        ]

    def __str__(self) -> str:
        return f"version {self.version}"

    @classmethod
    def load(cls, using: str | None = None) -> ConfigVersion:
        """Return the row, made on first use."""
        rows = cls._default_manager.using(using) if using else cls._default_manager
        row, _ = rows.get_or_create(pk=1)
        return row

    @classmethod
    @contextmanager
    def read_once(cls) -> Iterator[None]:
        """Run a block in which canary and fingerprint key are read once: for writers of many secrets.

        To be used under the version lock, since nobody else may change them meanwhile.
        """
        _once.rows = []
        try:
            yield
        finally:
            del _once.rows

    @classmethod
    def sealed(cls) -> ConfigVersion:
        """Return the row with its canary and fingerprint key, made on first use.

        Raises ImproperlyConfigured without encryption keys. Two processes may both find the texts missing: the
        conditional update lets one win, and both read the winner's.
        """
        once: list[ConfigVersion] | None = getattr(_once, "rows", None)
        if once:
            return once[0]
        row = cls.load()
        if not row.fingerprint_key:
            cls._default_manager.filter(pk=1, fingerprint_key="").update(
                canary=crypto.make_canary(), fingerprint_key=crypto.seal(secrets.token_hex(32))
            )
            row.refresh_from_db()
        if once is not None:
            once.append(row)
        return row

    @classmethod
    def is_sealed(cls) -> bool:
        """Whether there is a fingerprint key; without one, no key of key-auth was ever stored."""
        return bool(getattr(_once, "rows", None)) or bool(cls.load().fingerprint_key)

    @classmethod
    def fingerprint_bytes(cls) -> bytes:
        """Return the key for `crypto.fingerprint`. Raises CannotOpen when the encryption keys are wrong."""
        return cls.sealed()._fingerprint

    @cached_property
    def _fingerprint(self) -> bytes:
        return bytes.fromhex(crypto.open_sealed(self.fingerprint_key))


class Tombstone(models.Model):
    """Says that an object was deleted, to workers that read only what changed."""

    version = models.BigIntegerField(db_index=True)
    label = models.CharField(max_length=100)
    object_pk = models.CharField(max_length=100)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    def __str__(self) -> str:
        return f"{self.label} {self.object_pk}"


class AdminKey(models.Model):
    """A key to the admin APIs. Keys are random and long, so a plain SHA-256 of one is enough to know it again."""

    class Role(models.TextChoices):
        ADMIN = "admin", "admin: may change everything"
        VIEWER = "viewer", "viewer: may only read"

    name = models.CharField(max_length=256, unique=True, help_text="Who uses it, or for what.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.ADMIN)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "admin API key"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=models.Q(role__in=["admin", "viewer"]), name="hmac_gateway_admin_role"),
        ]

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def digest_of(plaintext: str) -> str:
        """Return the digest under which `plaintext` is stored."""
        return hashlib.sha256(plaintext.encode()).hexdigest()

    def new_key(self) -> str:
        """Give this (unsaved or saved) row a fresh key and return it in clear; it is stored nowhere."""
        plaintext = secrets.token_urlsafe(32)
        self.digest = self.digest_of(plaintext)
        return plaintext

    @classmethod
    def create_key(cls, name: str, role: str = Role.ADMIN) -> tuple[Self, str]:
        """Make and save a key. Returns the row and the key in clear, which is stored nowhere."""
        row = cls(name=name, role=role)
        plaintext = row.new_key()
        row.save(force_insert=True)
        return row, plaintext


class AuditEvent(models.Model):
    """Who changed what, and by which way. Never holds a secret: `changes` names fields, or values fit to show."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.CharField(max_length=256)
    action = models.CharField(max_length=32)
    entity = models.CharField(max_length=100, db_index=True)
    object_id = models.CharField(max_length=100, db_index=True)
    changes = models.JSONField(default=dict, blank=True)
    via = models.CharField(max_length=32)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.entity} {self.object_id}"

    @classmethod
    def record(
        cls,
        *,
        actor: str,
        action: str,
        instance: models.Model,
        via: str,
        changes: Mapping[str, Any] | None = None,
    ) -> AuditEvent:
        """Write one event about `instance`. `action` is added, changed or deleted; `via` console, rest, import, …"""
        event = cls.about(actor=actor, action=action, instance=instance, via=via, changes=changes)
        event.save(force_insert=True)
        return event

    @classmethod
    def about(
        cls,
        *,
        actor: str,
        action: str,
        instance: models.Model,
        via: str,
        changes: Mapping[str, Any] | None = None,
    ) -> AuditEvent:
        """The same event, unsaved, for those who write many at a time."""
        return cls(
            actor=actor[:256],
            action=action,
            entity=instance._meta.label_lower,
            object_id=str(instance.pk)[:100],
            changes=dict(changes or {}),
            via=via,
        )


class WorkerStatus(models.Model):
    """A serving process's sign of life, written once a second: which snapshot it serves, and what troubles it."""

    id = models.CharField(max_length=36, primary_key=True)
    host = models.CharField(max_length=255)
    pid = models.BigIntegerField()
    role = models.CharField(max_length=32)
    started_at = models.DateTimeField(default=timezone.now)
    heartbeat_at = models.DateTimeField(default=timezone.now, db_index=True)
    snapshot_version = models.BigIntegerField(null=True, blank=True)
    problems = models.JSONField(default=list, blank=True)

    class Meta:
        verbose_name = "worker"
        ordering = ["host", "pid"]

    def __str__(self) -> str:
        return f"{self.role} {self.host}/{self.pid}"


class ReplayMark(models.Model):
    """A signature that was used, for the `database` replay store. The primary key makes the mark atomic."""

    key = models.CharField(max_length=64, primary_key=True)
    expires_at = models.BigIntegerField(db_index=True)

    def __str__(self) -> str:
        return self.key


class Rejection(models.Model):
    """A refused request, kept for the debugger. Its head may hold credentials, so it is sealed."""

    request_id = models.CharField(max_length=64, primary_key=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    lane = models.CharField(max_length=32)
    route_id = models.CharField(max_length=80, blank=True, default="")
    plugin = models.CharField(max_length=64, blank=True, default="")
    reason = models.CharField(max_length=64, db_index=True)
    status = models.PositiveSmallIntegerField()
    method = models.CharField(max_length=32)
    path = models.CharField(max_length=2048)
    key_id = models.CharField(max_length=256, blank=True, default="", db_index=True, help_text="As sent, known or not.")
    remote_addr = models.CharField("from", max_length=64, blank=True, default="")
    sealed_request = models.TextField(blank=True, default="")

    class Meta:
        verbose_name = "rejected request"
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.status} {self.reason} {self.method} {self.path}"


class MinuteCounter(models.Model):
    """How many requests a route answered in one minute, by outcome (`2xx`, `4xx`, a reason code, …)."""

    minute = models.DateTimeField(db_index=True)
    route_id = models.CharField(max_length=80, blank=True, default="")
    outcome = models.CharField(max_length=32)
    count = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["minute", "route_id", "outcome"], name="hmac_gateway_one_counter"),
        ]

    def __str__(self) -> str:
        return f"{self.minute:%H:%M} {self.route_id} {self.outcome}: {self.count}"
