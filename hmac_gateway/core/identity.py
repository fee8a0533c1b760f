"""The engine's verdicts: who calls, what was covered, and what an adapter still has to do.

Built by schemes, plugins and the gate; read by adapters. Standard library only. What is built for every request is
a named tuple: a frozen dataclass takes twice as long to make. Where each request comes through, it is made by
`tuple.__new__` with all of its fields, and taken apart at once: constructor and fields of the class are calls.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from .credential import Consumer, Credential, Secret
from .macs import DIGESTS, encode_base64, equal
from .reasons import Reason


@dataclass(frozen=True, slots=True)
class Replay:
    """A mark that may be stored once: `key` names the signature, `ttl` is in seconds.

    `longer`: this very request has stored it, for another policy, and this one asks for more time.
    """

    key: str
    ttl: int
    longer: bool = False


class _Hash(Protocol):
    """What hashlib and hmac make."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class BodyDigest:
    """The running hashes of a body, fed by the adapter chunk by chunk while it spools."""

    __slots__ = ("_hashes", "size")

    def __init__(self, *hashes: _Hash) -> None:
        self._hashes = hashes
        self.size = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        self.size += len(chunk)
        for each in self._hashes:
            each.update(chunk)

    def base64(self) -> list[str]:
        """The hashes so far, as headers write them."""
        return [encode_base64(each.digest()) for each in self._hashes]


@dataclass(frozen=True, slots=True)
class BodyRule:
    """What a body must be: its digest, as the `Digest` header promised, and at most `limit` bytes.

    `algorithm` is a key of macs.DIGESTS. `promised` is the base64 text, or None where nothing was promised and
    only an empty body is right.
    """

    algorithm: str
    promised: str | None
    limit: int

    def start(self) -> BodyDigest:
        """A digest to feed."""
        return BodyDigest(hashlib.new(DIGESTS[self.algorithm]))

    def verdict(self, digest: BodyDigest) -> Reason | None:
        """None when the whole body was fed and is right."""
        if digest.size > self.limit:
            return Reason.BODY_TOO_LARGE
        if self.promised is None:
            return Reason.DIGEST_MISSING if digest.size else None
        return None if digest.base64() == [self.promised] else Reason.DIGEST_MISMATCH


@dataclass(frozen=True, slots=True)
class MacRule:
    """What a body must be where one MAC covers head and body: its rest, and at most `limit` bytes.

    `keys` are the secrets that may have signed, with whose they are; `digest` is hashlib's name, `head` what the MAC
    covers before the body, `promised` the whole text of the signature header: the digest's name, a blank, base64.
    """

    keys: tuple[tuple[Credential, Secret], ...] = field(repr=False)
    digest: str
    head: bytes
    promised: str = field(repr=False)
    limit: int

    def start(self) -> BodyDigest:
        """One running MAC for each key, to feed."""
        return BodyDigest(*(hmac.new(secret.reveal(), self.head, self.digest) for _, secret in self.keys))

    def signer(self, digest: BodyDigest) -> Credential | None:
        """Whose key has signed the body that was fed, or None. Each key is compared, in constant time."""
        promised = self.promised.encode("latin-1")
        found = None
        for (credential, _), ours in zip(self.keys, digest.base64(), strict=True):
            if equal(f"{self.digest} {ours}".encode(), promised) and found is None:
                found = credential
        return found

    def verdict(self, digest: BodyDigest) -> Reason | None:
        """None when the whole body was fed and the MAC is right."""
        if digest.size > self.limit:
            return Reason.BODY_TOO_LARGE
        return Reason.SIGNATURE_MISMATCH if self.signer(digest) is None else None


@dataclass(frozen=True, slots=True)
class Failure:
    """What a scheme says when it refuses: the reason, what logs may say, and facts for the words."""

    reason: Reason
    detail: str = ""
    facts: dict[str, object] | None = None


class Carrier(NamedTuple):
    """Where a request may carry a credential: `place` is header, query or cookie; header names in lower case."""

    place: str
    name: str


class Verified(NamedTuple):
    """A credential that holds. `covered` are the header names and components a signature covers, lower case.

    With a MacRule nothing holds yet: `credential` is one of those that may have signed, and the body tells.
    `csrf_exempt` says that no browser attaches such a credential by itself. `carrier` is where it stood; None: in all
    that the plugin's configuration names. `claims` are those of a token, where the configuration has them kept.
    """

    credential: Credential
    covered: frozenset[str] = frozenset()
    body: BodyRule | MacRule | None = None
    replay: Replay | None = None
    csrf_exempt: bool = False
    carrier: Carrier | None = None
    claims: dict[str, Any] | None = None


class Identity(NamedTuple):
    """Who a request comes from. Applications see only this.

    `consumer` is None where no plugin asked; `credential` is None for an anonymous consumer. `csrf_exempt`: the
    request cannot have been forged by way of a browser. `claims` are what a verified token says (jwt-auth with
    `store_in_ctx`), None otherwise. `dialect` is that of `plugin`. `groups` are those by which acl let it pass, None
    where acl was not asked, or hides them.
    """

    consumer: Consumer | None = None
    credential: Credential | None = None
    anonymous: bool = False
    plugin: str = ""
    covered: frozenset[str] = frozenset()
    csrf_exempt: bool = False
    claims: dict[str, Any] | None = None
    dialect: str = "apisix"
    groups: tuple[str, ...] | None = None
    #: What upstreams are told the credential is called.
    credential_identifier: str = ""


#: The identity of a request on a route that asks for none.
NOBODY: Final = Identity()
