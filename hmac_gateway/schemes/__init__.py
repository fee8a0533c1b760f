"""Signature formats: one file each, all in one dict. Standard library only; imports nothing but `core`."""

from __future__ import annotations

from typing import Final

from ..core.message import Message
from . import apisix, kong
from .base import Claim, Cover, Scheme
from .hmacproxy import HmacProxy

#: Every scheme by the name that configuration uses. hmacproxy's is to be configured; here it has the usual header.
SCHEMES: Final[dict[str, Scheme]] = {
    "apisix": apisix,
    "kong": kong.KONG,
    "hmacproxy": HmacProxy(),
}

__all__ = ["SCHEMES", "Claim", "Cover", "HmacProxy", "Scheme", "key_id_of"]


def key_id_of(message: Message) -> str:
    """The key id that a request names, known or not, fit for a log or a column; "" where none can be read."""
    for scheme in SCHEMES.values():
        claim = scheme.parse(message)
        if isinstance(claim, Claim):
            return claim.key_id[:256].replace("\x00", "")
    return ""
