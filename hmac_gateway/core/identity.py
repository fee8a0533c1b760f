"""The engine's verdicts: who calls, what was covered, and what an adapter still has to do.

Built by schemes, plugins and the gate; read by adapters. Standard library only. What is built for every request is
a named tuple: a frozen dataclass takes twice as long to make.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .credential import Consumer, Credential
from .macs import DIGESTS, encode_base64
from .reasons import Reason


@dataclass(frozen=True, slots=True)
class Replay:
    """A mark that may be stored once: `key` names the signature, `ttl` is in seconds."""

    key: str
    ttl: int


class BodyDigest:
    """The running digest of a body, fed by the adapter chunk by chunk while it spools."""

    __slots__ = ("_hash", "size")

    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(DIGESTS[algorithm])
        self.size = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        self.size += len(chunk)
        self._hash.update(chunk)

    def base64(self) -> str:
        """The digest so far, as the `Digest` header writes it."""
        return encode_base64(self._hash.digest())


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
        return BodyDigest(self.algorithm)

    def verdict(self, digest: BodyDigest) -> Reason | None:
        """None when the whole body was fed and is right."""
        if digest.size > self.limit:
            return Reason.BODY_TOO_LARGE
        if self.promised is None:
            return Reason.DIGEST_MISSING if digest.size else None
        return None if digest.base64() == self.promised else Reason.DIGEST_MISMATCH


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

    `csrf_exempt` says that no browser attaches such a credential by itself. `carrier` is where it stood; None: in all
    that the plugin's configuration names. `claims` are those of a token, where the configuration has them kept.
    """

    credential: Credential
    covered: frozenset[str] = frozenset()
    body: BodyRule | None = None
    replay: Replay | None = None
    csrf_exempt: bool = False
    carrier: Carrier | None = None
    claims: dict[str, Any] | None = None


class Identity(NamedTuple):
    """Who a request comes from. Applications see only this.

    `consumer` is None where no plugin asked; `credential` is None for an anonymous consumer. `csrf_exempt`: the
    request cannot have been forged by way of a browser. `claims` are what a verified token says (jwt-auth with
    `store_in_ctx`), None otherwise.
    """

    consumer: Consumer | None = None
    credential: Credential | None = None
    anonymous: bool = False
    plugin: str = ""
    covered: frozenset[str] = frozenset()
    csrf_exempt: bool = False
    claims: dict[str, Any] | None = None


#: The identity of a request on a route that asks for none.
NOBODY: Final = Identity()
