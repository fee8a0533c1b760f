"""What APISIX's admin API has and this gateway has not: certificates, secret managers and the like.

Lists of it are empty, so that a tool which reads everything goes on; writing it is refused with the reason. Called by
the views of `apisix`; imports `conf` and `errors`.
"""

from __future__ import annotations

from typing import Any, Final

from ..conf import conf
from .errors import ApiError, not_found, refuse

#: By the name in addresses: why there is nothing.
ABSENT: Final = {
    "ssls": "certificates of this gateway are files, named by hmac_serve --tls-cert and --tls-key",
    "protos": "gRPC is not transcoded",
    "stream_routes": "only HTTP is forwarded",
    "plugin_metadata": "no plugin of this gateway has any",
    "secrets": "there are no secret managers; a credential may name a variable, $env://NAME, where NAME begins with",
}


def read(name: str, key: str) -> dict[str, Any]:
    """The empty list. Raises ApiError 404 for a single object."""
    if key:
        raise not_found()
    return {"list": [], "total": 0}


def refused(name: str) -> ApiError:
    """The answer to a write."""
    why = f"{ABSENT[name]} {conf.env_prefix}" if name == "secrets" else ABSENT[name]
    return refuse(
        f"{name} are not supported: {why}" if name != "plugin_metadata" else f"{name} is not supported: {why}"
    )
