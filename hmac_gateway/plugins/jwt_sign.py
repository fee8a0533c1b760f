"""The endpoint that makes tokens for `jwt-auth`, as APISIX had it up to 3.10 and API7 still has.

    GET /apisix/plugin/jwt/sign?key=john-jwt-key&payload={"sub":"john"}     → 200 and the token

Called by `public_api`. Imports `core`, `jwt_auth` and `jwt_keys`. Whoever knows a credential's key gets tokens: who may
ask is for the route's other plugins.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any, Final

from ..core.arguments import arguments
from ..core.credential import Lookup
from ..core.reasons import Reason
from .jwt_auth import MAX_TOKEN, load_object
from .jwt_keys import keys, signing_keys

_KEY: Final = "key"
_PAYLOAD: Final = "payload"


def sign(query: str, lookup: Lookup, now: float) -> str | Reason:
    """The token that a raw query asks for at `now` (Unix seconds), or why there is none.

    It says `key` and `exp`, the credential's `exp` seconds from now, and what `payload` holds besides these two.
    INCOMPLETE: no key is named. MALFORMED: `payload` is no JSON object, or the token would be too long to be
    accepted. UNKNOWN_KEY: nobody can use it. SECRET_UNAVAILABLE: there is nothing to sign with.
    """
    named, payloads = arguments(query, _KEY), arguments(query, _PAYLOAD)
    if len(named) != 1 or not named[0]:
        return Reason.INCOMPLETE
    credential = lookup(named[0])
    if credential is None or credential.unusable(now) is not None:
        return Reason.UNKNOWN_KEY
    claims = _claims(payloads)
    if claims is None:
        return Reason.MALFORMED
    made = keys(credential)
    secrets = [] if made is None else signing_keys(credential, made, now)
    if made is None or not secrets:
        return Reason.SECRET_UNAVAILABLE
    claims |= {_KEY: credential.identifier, "exp": int(now) + made.lifetime}
    signed = f"{_part({'typ': 'JWT', 'alg': made.algorithm})}.{_part(claims)}"
    token = f"{signed}.{_encode(made.verifier.sign(signed.encode('ascii'), secrets[0]))}"
    return token if len(token) <= MAX_TOKEN else Reason.MALFORMED


def _claims(payloads: list[str | None]) -> dict[str, Any] | None:
    if not payloads:
        return {}
    if len(payloads) > 1 or payloads[0] is None:
        return None
    return load_object(payloads[0].encode("latin-1"))


def _part(value: dict[str, Any]) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode("ascii"))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
