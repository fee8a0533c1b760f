"""Signing what goes upstream: which `sign-request` holds for a request, and the head of one attempt, signed.

Called by both lanes behind everything that edits a head; nothing here runs for routes without a signer. No I/O. Imports
`hmac_gateway` and this app's plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.gate import Outgoing, OutgoingSet
from hmac_gateway.plugins import sign_request

from .plan import request_head

Pieces = Callable[[], Iterable[bytes]]
#: Bodies of this many bytes and more take a millisecond and more to hash.
_SLOW: Final = 1024 * 1024


def signer_of(
    found: OutgoingSet, message: Message, identity: Identity, overrides: Mapping[str, Mapping[str, Outgoing | None]]
) -> Outgoing | Rejected | None:
    """What signs this request on a route; None: it goes out unsigned. `overrides` are a Snapshot's `outgoing`.

    Refused where the secret cannot be had: nothing may go out unsigned then.
    """
    signer = found.of(sign_request.name, overrides, identity)
    if signer is None or (signer.when is not None and not signer.when(message)):
        return None
    if signer.config.secret is None:
        return Rejected(Reason.SIGNING_UNAVAILABLE, dialect=signer.dialect, detail="the secret of sign-request")
    return signer


def too_large(signer: Outgoing, size: int) -> Rejected:
    """The refusal of a body that would have to be read whole before it is signed."""
    facts = {"size": size, "limit": signer.config.max_body}
    return Rejected(Reason.BODY_TOO_LARGE, dialect=signer.dialect, facts=facts)


class Signature:
    """How one request is signed. `now` gives Unix seconds, `pieces` the body that is covered, of `size` bytes.

    `slow`: making a head takes long, since the body has to be read for it; an event loop has others to serve.
    """

    __slots__ = ("_now", "_pieces", "_signer", "slow")

    def __init__(self, signer: Outgoing, now: Callable[[], float], pieces: Pieces | None = None, size: int = 0) -> None:
        self._signer = signer
        self._now = now
        self._pieces = pieces
        self.slow = size >= _SLOW

    def head(self, message: Message, target: str, host: str, lines: str) -> bytes:
        """`plan.request_head`, signed now. Other arguments and the Host may differ from attempt to attempt."""
        shadows = self._signer.config.shadows
        pairs = [pair for line in lines.split("\r\n") if line and (pair := _pair(line))[0] not in shadows]
        outgoing = Message(message.method, target, [("host", host), *pairs])
        made = self._signer.plugin.sign(outgoing, self._signer.config, self._now(), self._pieces)
        ours = {name for name, _ in made}
        kept = [*(pair for pair in pairs if pair[0] not in ours), *made]
        return request_head(message, target, host, "".join(f"{name}: {value}\r\n" for name, value in kept) + "\r\n")


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name, value
