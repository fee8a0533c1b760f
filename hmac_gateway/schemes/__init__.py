"""Signature formats: one file each, all in one dict. Standard library only; imports nothing but `core`."""

from __future__ import annotations

from typing import Final, cast

from . import apisix
from .base import Claim, Cover, Scheme

#: Every scheme by the name that configuration uses.
SCHEMES: Final[dict[str, Scheme]] = {
    "apisix": cast(Scheme, apisix),
}

__all__ = ["SCHEMES", "Claim", "Cover", "Scheme"]
