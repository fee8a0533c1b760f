"""WHO may call: consumers, their groups and their credentials.

Written by the console, the admin APIs and the importer; read by the compile step. Imports `hmac_gateway`, never the
proxy app: relations go by label.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from hmac_gateway import crypto, references, validators
from hmac_gateway.core.credential import is_reference
from hmac_gateway.defaults import new_key
from hmac_gateway.entities import Entity, KeyedEntity, Versioned, are_keys_known, refuse_taken
from hmac_gateway.models import ConfigVersion

#: The plugins a credential may be for, and what its identifier is called in each.
CREDENTIAL_PLUGINS = {
    "hmac-auth": "key id (Kong: user name)",
    "key-auth": "follows from the key",
    "basic-auth": "user name",
    "jwt-auth": "key",
}
_APISIX_USERNAME = re.compile(r"[A-Za-z0-9_-]{1,256}")


class ConsumerGroup(KeyedEntity):
    """APISIX's consumer group: plugins that apply to all its members."""

    class Meta(KeyedEntity.Meta):
        ordering = ["id"]


class Consumer(Entity):
    """Someone who calls: a partner, a device, an application."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    username = models.CharField(max_length=256, unique=True, null=True, blank=True)
    custom_id = models.CharField(
        max_length=256, unique=True, null=True, blank=True, help_text="Its id in your own systems."
    )
    group = models.ForeignKey(ConsumerGroup, on_delete=models.PROTECT, null=True, blank=True, related_name="consumers")
    # Cascade: who may no longer log in must not keep calling through a credential.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="hmac_consumers",
        help_text="Becomes request.user where this site itself is called. Deleted with it.",
    )

    class Meta(Entity.Meta):
        ordering = ["username", "custom_id"]
        constraints = [
            models.CheckConstraint(
                condition=(Q(username__isnull=False) & ~Q(username=""))
                | (Q(custom_id__isnull=False) & ~Q(custom_id="")),
                name="hmac_consumers_some_name",
                violation_error_message="At least one of `username` and `custom_id` must be given.",
            ),
        ]

    def __str__(self) -> str:
        return self.username or self.custom_id or str(self.pk)

    def derive(self) -> None:
        # An empty form field means none; as texts, two empty ones would collide.
        self.username = self.username or None
        self.custom_id = self.custom_id or None

    def clean(self) -> None:
        super().clean()
        problems = validators.Problems()
        if not self.username and not self.custom_id:
            problems.say("username", "At least one of `username` and `custom_id` must be given.")
        if self.dialect == "apisix" and self.username and not _APISIX_USERNAME.fullmatch(self.username):
            rule = "1 to 256 characters of A-Z a-z 0-9 _ - (any in Kong's dialect)"
            problems.add("username", self.username, rule)
        problems.raise_if_any()


class ConsumerAcl(Versioned):
    """One of the group names that Kong's acl plugin looks for."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="acls")
    group = models.CharField(max_length=256)
    tags = models.JSONField(default=list, blank=True, validators=[validators.validate_tags])

    class Meta(Versioned.Meta):
        verbose_name = "ACL group"
        ordering = ["group"]
        constraints = [
            models.UniqueConstraint(
                fields=["consumer", "group"],
                name="hmac_consumers_one_acl",
                violation_error_message="The consumer is in this group already.",
            ),
            models.CheckConstraint(condition=~Q(group=""), name="hmac_consumers_acl_named"),
        ]

    def __str__(self) -> str:
        return self.group


class Credential(Entity):
    """What a consumer proves itself with. Without `public_id` it is the entry on the consumer itself."""

    derived = frozenset(["place", "identifier_slot"])
    derived_from = frozenset(["consumer", "consumer_id", "public_id", "plugin", "identifier"])

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="credentials")
    public_id = models.CharField(
        max_length=64,
        null=True,
        blank=True,
        default=new_key,
        validators=[validators.validate_key],
        help_text="Its id in APISIX's admin API. Empty: the entry written on the consumer itself, one per method.",
    )
    plugin = models.CharField("method", max_length=64, choices=[(name, name) for name in CREDENTIAL_PLUGINS])
    identifier = models.CharField(
        max_length=256,
        blank=True,
        help_text="What the caller sends: the key id (hmac-auth), user name (basic-auth) or key (jwt-auth). "
        "Leave empty for key-auth.",
    )
    sealed_secret = models.TextField(blank=True, default="", editable=False)
    sealed_previous_secret = models.TextField(blank=True, default="", editable=False)
    previous_secret_until = models.DateTimeField(null=True, blank=True, editable=False)
    settings = models.JSONField(
        default=dict,
        blank=True,
        help_text="The method's other fields, such as algorithm, exp and public_key of jwt-auth.",
    )
    not_before = models.DateTimeField(null=True, blank=True, help_text="Refused before.")
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Non-null stand-ins for the uniqueness rules: NULLs are distinct in every database, MariaDB has no partial index.
    place = models.CharField(max_length=160, unique=True, blank=True, editable=False)
    identifier_slot = models.CharField(max_length=330, unique=True, blank=True, editable=False)

    class Meta(Entity.Meta):
        ordering = ["plugin", "identifier"]
        indexes = [models.Index(fields=["plugin", "identifier"], name="hmac_consumers_by_identifier")]
        constraints = [
            models.CheckConstraint(
                condition=Q(plugin__in=sorted(CREDENTIAL_PLUGINS)), name="hmac_consumers_known_method"
            ),
            models.CheckConstraint(condition=~Q(identifier=""), name="hmac_consumers_identified"),
        ]

    def __str__(self) -> str:
        return self.plugin if self.plugin == "key-auth" else f"{self.plugin} {self.identifier}"

    def derive(self) -> None:
        self.public_id = self.public_id or None
        own = self.public_id is None
        # Neither a plugin's name nor a public id holds a slash.
        self.place = f"{self.consumer_id}//{self.plugin}" if own else f"{self.consumer_id}/{self.public_id}"
        self.identifier_slot = f"{'o' if own else 'c'}:{self.plugin}:{self.identifier}"

    @classmethod
    def check_locked(cls, rows: Sequence[Self], using: str) -> None:
        cls._check_identifiers(rows, using)

    @classmethod
    def _check_identifiers(cls, rows: Sequence[Self], using: str | None = None) -> None:
        # Only this rule spans rows in a way no unique column says: a consumer's own entry may repeat the key of
        # its credential, another consumer's may not. Equal kinds are refused by identifier_slot, too.
        found: dict[tuple[str, str], list[Credential]] = {}
        for row in rows:
            found.setdefault((row.plugin, row.identifier), []).append(row)
        wanted = sorted({row.identifier for row in rows})
        # In portions: SQLite takes a limited number of parameters.
        for start in range(0, len(wanted), 500):
            taken = cls._default_manager.using(using).filter(identifier__in=wanted[start : start + 500])
            for other in taken.select_related("consumer"):
                found.setdefault((other.plugin, other.identifier), []).append(other)
        for row in rows:
            for other in found[row.plugin, row.identifier]:
                same_kind = (row.public_id is None) == (other.public_id is None)
                if other.pk != row.pk and (other.consumer_id != row.consumer_id or same_kind):
                    where = f"credential: {other.public_id} of " if other.public_id else ""
                    raise ValidationError(
                        {
                            "identifier": f"`identifier`: this {row.plugin} identifier is taken, found with "
                            f"{where}consumer: {other.consumer}. Each may be used once per method."
                        },
                        code="duplicate",
                    )

    def clean(self) -> None:
        super().clean()
        self.derive()
        problems = validators.Problems()
        if self.plugin not in CREDENTIAL_PLUGINS:
            problems.add("plugin", self.plugin, "one of " + ", ".join(CREDENTIAL_PLUGINS))
        if not self.identifier:
            if self.plugin == "key-auth":
                problems.say("identifier", "`identifier`: set a key first, it follows from the key.")
            else:
                what = CREDENTIAL_PLUGINS.get(self.plugin, "identifier")
                problems.add("identifier", self.identifier, f"1 to 256 characters, the {what}")
        elif self.plugin == "basic-auth" and ":" in self.identifier:
            problems.add("identifier", self.identifier, "a user name without a colon, which is where it ends")
        elif self.plugin == "hmac-auth" and re.search(r'["\x00-\x1f\x7f]', self.identifier):
            # It stands between double quotes in a header, so that no request could name it.
            problems.add("identifier", self.identifier, "a key id without double quotes and control characters")
        self._check_settings(problems)
        if self.not_before and self.expires_at and self.not_before >= self.expires_at:
            problems.add("expires_at", self.expires_at.isoformat(), "a time after `not_before`")
        problems.raise_if_any()
        if self.consumer_id is not None:
            if not are_keys_known():
                self._check_identifiers([self])
            if self.public_id is None:
                message = f"The consumer has an entry of its own for {self.plugin} already: give this one an id."
            else:
                message = f"`public_id`: got {self.public_id!r}, the consumer has a credential with this id already."
            refuse_taken(self, "place", "public_id", message)

    def _check_settings(self, problems: validators.Problems) -> None:
        # Imported late: the engine's plugins are not needed to load the models.
        from hmac_gateway.core.errors import ConfigError
        from hmac_gateway.plugins import PLUGINS, credential_problem, sealed_field
        from hmac_gateway.schema import check

        plugin = PLUGINS.get(self.plugin)
        if plugin is None or plugin.credential_schema is None or not isinstance(self.settings, dict):
            return
        try:
            check(self.settings, {**plugin.credential_schema, "required": []})
        except ConfigError as error:
            problems.say("settings", f"`settings`: `{error.field}`: allowed is {error.allowed}.")
            return
        sealed = sealed_field(self.plugin, self.settings)
        if sealed in self.settings:
            # Settings are kept and shown in clear.
            problems.say("settings", f"`settings`: `{sealed}` is kept sealed; set it as the secret.")
            return
        try:
            secret: str | None = self.get_secret()
        except crypto.CannotOpen:
            secret = None
        found = credential_problem(self.plugin, self.settings, secret)
        if found is not None:
            field = "secret" if found.field == sealed else "settings"
            problems.say(field, f"`{found.field}`: allowed is {found.allowed}.")

    def drop_secret(self) -> None:
        """Forget the secret and the previous one; saves nothing. A key pair of jwt-auth needs no secret."""
        self.sealed_secret = self.sealed_previous_secret = ""
        self.previous_secret_until = None

    def set_secret(self, plaintext: str) -> None:
        """Seal `plaintext` as the secret and forget the previous one; saves nothing.

        For key-auth the key is the secret, so the identifier becomes its fingerprint, or the reference to it: which
        key that is, is known to the processes that look it up. Raises references.Refused.
        """
        references.refuse(plaintext)
        if self.plugin == "key-auth" and is_reference(plaintext):
            ConfigVersion.sealed()
            self.identifier = references.canonical(plaintext)
        elif self.plugin == "key-auth":
            self.identifier = crypto.fingerprint(plaintext, "key-auth", ConfigVersion.fingerprint_bytes())
        else:
            # Makes the canary on the first secret.
            ConfigVersion.sealed()
        self.sealed_secret = crypto.seal(plaintext)
        self.sealed_previous_secret = ""
        self.previous_secret_until = None

    def get_secret(self) -> str:
        """Return the secret in clear, empty when there is none. Raises CannotOpen."""
        return crypto.open_sealed(self.sealed_secret) if self.sealed_secret else ""

    def get_previous_secret(self, now: datetime) -> str:
        """Return the secret before the last rotation while it is still good at `now`, else the empty string."""
        if self.sealed_previous_secret and self.previous_secret_until and now < self.previous_secret_until:
            return crypto.open_sealed(self.sealed_previous_secret)
        return ""

    def rotate_secret(self, plaintext: str, keep_previous_until: datetime | None) -> None:
        """Put `plaintext` in the secret's place; the old one stays good until then (None: ends now). Saves nothing.

        Raises ValueError for key-auth with a time to keep: a key is found by its fingerprint, so two keys at a time
        are two credentials.
        """
        if keep_previous_until and self.plugin == "key-auth":
            raise ValueError("key-auth: add a second credential and remove the first when it is no longer used")
        previous = self.sealed_secret
        self.set_secret(plaintext)
        if keep_previous_until and previous:
            self.sealed_previous_secret = previous
            self.previous_secret_until = keep_previous_until
