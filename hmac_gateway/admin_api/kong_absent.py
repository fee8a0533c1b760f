"""What Kong has and we have not: certificates and the like. Their lists are empty, and writing them is refused.

Tools that read a whole configuration ask for all of them. Called by the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .kong_errors import KongError, not_found

if TYPE_CHECKING:
    from .kong import Ask, Handlers

_TLS: Final = "TLS files are given on the command line, and to upstreams in the console"
#: By their collection's name, and what there is in their place.
ABSENT: Final = {
    "certificates": _TLS,
    "snis": _TLS,
    "ca_certificates": _TLS,
    "vaults": "secrets may stand in the environment, as $env://NAME",
    "keys": "public keys stand on the credentials of jwt",
    "key-sets": "public keys stand on the credentials of jwt",
    "filter-chains": "there are no WebAssembly filters",
}


def handlers(parts: Sequence[str]) -> Handlers | None:
    """What can be done at an address of theirs; None for any other."""
    if not parts or parts[0] not in ABSENT:
        return None
    name = parts[0]

    def refuse(ask: Ask) -> tuple[int, Any]:
        message = f"cannot create '{name}' entities: {ABSENT[name]}"
        raise KongError(405, {"code": 12, "name": "operation unsupported", "message": message})

    def missing(ask: Ask) -> tuple[int, Any]:
        raise not_found()

    if len(parts) == 1:
        return {"GET": lambda ask: (200, {"data": [], "next": None}), "POST": refuse}
    if len(parts) == 2:
        return {"GET": missing, "PUT": refuse, "PATCH": missing, "DELETE": lambda ask: (204, None)}
    return None
