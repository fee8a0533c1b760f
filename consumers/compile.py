"""Rows of consumers and credentials → what the engine looks up. Called by `hmac_gateway.runtime`.

Imports `hmac_gateway` only. Compiled objects are kept from one snapshot to the next unless their row, or their
consumer's, changed: a change of one row costs one row, and secrets that were opened stay opened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from hmac_gateway import crypto, references
from hmac_gateway.core.credential import Consumer, Credential, Secret, is_reference
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.models import ConfigVersion
from hmac_gateway.snapshot import Table

logger = logging.getLogger("hmac_gateway.runtime")

Row = Mapping[str, Any]
Rows = Mapping[str, Mapping[Any, Row]]
Changes = Mapping[str, set[Any]]

#: What `runtime` must read for us, by model name.
MODELS: Final = ("consumer", "consumeracl", "credential")
#: Of these, only so much: decoding columns is most of what taking in many credentials costs.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "consumer": (
        *("id", "changed_at_version", "username", "custom_id", "group_id", "labels", "tags"),
        *("enabled", "expires_at", "user_id"),
    ),
    "credential": (
        *("id", "changed_at_version", "consumer_id", "plugin", "identifier", "public_id", "settings", "labels"),
        *("sealed_secret", "sealed_previous_secret", "previous_secret_until", "enabled", "not_before", "expires_at"),
    ),
}


class Compiler:
    """Consumers by name and credentials by plugin and identifier, kept current by `update`."""

    def __init__(self) -> None:
        self._consumers: dict[Any, Consumer] = {}
        self._credentials: dict[Any, Credential] = {}
        self._owned: dict[Any, set[Any]] = {}
        self._owner: dict[Any, Any] = {}
        self._fingerprint_key = b""
        self._told: dict[str, str] = {}

    def update(self, rows: Rows, changes: Changes) -> None:
        """Take in changed and deleted keys. Raises ConfigError naming the row; call again with the same keys then."""
        acls: dict[Any, list[str]] = {}
        for acl in rows["consumeracl"].values():
            acls.setdefault(acl["consumer_id"], []).append(acl["group"])
        stale = set(changes["consumer"])
        if changes["consumeracl"]:
            stale |= acls.keys() | {key for key, consumer in self._consumers.items() if consumer.groups}
        dirty = set(changes["credential"])
        for key in stale:
            dirty |= self._owned.get(key, set())
            row = rows["consumer"].get(key)
            if row is None:
                self._consumers.pop(key, None)
            else:
                self._consumers[key] = _named(f"consumer {key}", _consumer, row, acls.get(key, []))
        for key in dirty:
            self._forget(key)
            row = rows["credential"].get(key)
            if row is None:
                continue
            consumer = self._consumers.get(row["consumer_id"])
            if consumer is None:
                raise ConfigError(f"credential {key}", str(row["consumer_id"]), "the id of an existing consumer")
            self._credentials[key] = _named(f"credential {key}", _credential, row, consumer)
            self._owned.setdefault(row["consumer_id"], set()).add(key)
            self._owner[key] = row["consumer_id"]

    def _forget(self, key: Any) -> None:
        self._credentials.pop(key, None)
        owner = self._owner.pop(key, None)
        if owner is not None:
            self._owned[owner].discard(key)

    def consumers(self) -> dict[str, Consumer]:
        """Consumers by user name."""
        return {consumer.username: consumer for consumer in self._consumers.values() if consumer.username}

    def consumer_ids(self) -> dict[str, Consumer]:
        """Consumers by id."""
        return {consumer.id: consumer for consumer in self._consumers.values()}

    def credentials(self) -> dict[str, Table]:
        """Per plugin: credentials by what a request names. A credential comes before its consumer's own entry.

        Reads the fingerprint key from the database, once, when there is a credential of key-auth. Raises CannotOpen.
        """
        tables = self._tables()
        found: dict[str, Table] = {**tables}
        if "key-auth" in tables:
            if not self._fingerprint_key:
                self._fingerprint_key = ConfigVersion.fingerprint_bytes()
            found["key-auth"] = Keys(self._looked_up(tables["key-auth"]), self._fingerprint_key)
        return found

    def _looked_up(self, table: dict[str, Credential]) -> dict[str, Credential]:
        """A table of key-auth whose references are replaced by fingerprints of the keys they lead to.

        What leads nowhere, or to a key that another consumer has, is left out and told once.
        """
        # Fingerprints are digits of hexadecimal numbers.
        referring = [(name, credential) for name, credential in table.items() if name.startswith("$")]
        if not referring:
            return table
        for name, _ in referring:
            del table[name]
        led: dict[str, list[Credential]] = {}
        told: dict[str, str] = {}
        for _, credential in referring:
            try:
                key = references.resolve(credential.identifier)
            except references.Unresolved as error:
                told[credential.id] = str(error)
                continue
            led.setdefault(crypto.fingerprint(key, "key-auth", self._fingerprint_key), []).append(credential)
        for fingerprint, credentials in led.items():
            owners = {credential.consumer.id for credential in credentials}
            if fingerprint in table:
                owners.add(table[fingerprint].consumer.id)
            if len(owners) > 1:
                # Whose request it is could not be told.
                why = "another consumer has the same key"
                told.update({credential.id: why for credential in credentials})
            else:
                best = max(credentials, key=lambda credential: bool(credential.public_id))
                table.setdefault(fingerprint, best)
        for name, why in told.items():
            if self._told.get(name) != why:
                logger.error("credential %s is left out: its reference cannot be used: %s", name, why)
        self._told = told
        return table

    def _tables(self) -> dict[str, dict[str, Credential]]:
        tables: dict[str, dict[str, Credential]] = {}
        for credential in self._credentials.values():
            table = tables.setdefault(credential.plugin, {})
            # A key id on the wire is bytes as text; one beyond ASCII is found under the same spelling.
            identifier = credential.identifier
            if not identifier.isascii():
                identifier = identifier.encode().decode("latin-1")
            if credential.public_id or identifier not in table:
                table[identifier] = credential
        return tables


class Keys:
    """Credentials of key-auth, found by the key itself: rows hold its fingerprint only."""

    __slots__ = ("_by_fingerprint", "_key")

    def __init__(self, by_fingerprint: Mapping[str, Credential], key: bytes) -> None:
        self._by_fingerprint = by_fingerprint
        self._key = key

    def get(self, identifier: str, /) -> Credential | None:
        """The credential of a key as it was sent (bytes as text), or None."""
        # Whoever tries keys cannot choose what is compared here: the fingerprint's key is not known to him.
        return self._by_fingerprint.get(crypto.fingerprint(identifier.encode("latin-1"), "key-auth", self._key))


T = TypeVar("T")


def _named(what: str, build: Callable[..., T], *args: Any) -> T:
    """Build one object; a row that no validation saw is refused under its name, and without its content."""
    try:
        return build(*args)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(what, type(error).__name__, "a row that can be compiled") from error


def _seconds(value: datetime | None) -> float | None:
    return None if value is None else value.timestamp()


def _consumer(row: Row, groups: list[str]) -> Consumer:
    return Consumer(
        id=str(row["id"]),
        username=row["username"] or "",
        custom_id=row["custom_id"] or "",
        group_id=row["group_id"] or "",
        groups=tuple(sorted(groups)),
        labels=row["labels"],
        tags=tuple(row["tags"]),
        enabled=row["enabled"],
        expires_at=_seconds(row["expires_at"]),
        user_id=row["user_id"],
    )


def _credential(row: Row, consumer: Consumer) -> Credential:
    return Credential(
        id=str(row["id"]),
        consumer=consumer,
        plugin=row["plugin"],
        identifier=row["identifier"],
        open_secrets=_Secrets(
            str(row["id"]),
            row["sealed_secret"],
            row["sealed_previous_secret"],
            _seconds(row["previous_secret_until"]) or 0.0,
        ),
        public_id=row["public_id"] or "",
        enabled=row["enabled"],
        not_before=_seconds(row["not_before"]),
        expires_at=_seconds(row["expires_at"]),
        settings=row["settings"],
        labels=row["labels"],
    )


class _Secrets:
    """Opens a credential's sealed secrets on first use and keeps them."""

    __slots__ = ("_credential", "_current", "_previous", "_sealed", "_until")

    def __init__(self, credential: str, sealed: str, previous: str, until: float) -> None:
        self._credential = credential
        self._sealed = (sealed, previous)
        self._until = until
        self._current: tuple[Secret, ...] | None = None
        self._previous: tuple[Secret, ...] = ()

    def __call__(self, now: float) -> tuple[Secret, ...]:
        current = self._current
        if current is None:
            current = self._open()
        if self._previous and now < self._until:
            return current + self._previous
        return current

    def _open(self) -> tuple[Secret, ...]:
        sealed, previous = self._sealed
        try:
            current, self._previous = self._opened(sealed), self._opened(previous)
        except crypto.CannotOpen:
            # Not remembered: the right key may come back. Without a secret nothing verifies.
            logger.error("the secret of credential %s cannot be opened with the configured keys", self._credential)
            return ()
        self._current = current
        return current

    def _opened(self, sealed: str) -> tuple[Secret, ...]:
        text = crypto.open_sealed(sealed) if sealed else ""
        if is_reference(text):
            # The reference itself never verifies: whoever knows the configuration's text would know the secret. Looked
            # up once: a process's environment stays as it is.
            try:
                text = references.resolve(text)
            except references.Unresolved as error:
                logger.error("credential %s has no secret: its reference cannot be used: %s", self._credential, error)
                text = ""
        return (Secret(text.encode()),) if text else ()
