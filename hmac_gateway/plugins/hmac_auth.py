"""`hmac-auth`: requests signed with a shared secret.

    {"clock_skew": 300, "allowed_algorithms": ["hmac-sha256"], "signed_headers": ["@request-target", "date"]}

on a route, a service or a plugin config; `{"key_id": "client-1", "secret_key": "…"}` on a credential. Fields and
defaults are APISIX's; `require_signed_date`, `require_signed_digest`, `replay_protection`, `replay_methods` and
`expose_reason` are ours. Imports `core` and `schemes`; called by the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..core.credential import Lookup
from ..core.errors import Rejected
from ..core.identity import Carrier, Failure, Verified
from ..core.macs import ALGORITHMS
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from ..schemes import SCHEMES, Scheme
from ..schemes.verify import Policy, check_head
from . import fields
from .base import Common

name: Final = "hmac-auth"
priority: Final = {"apisix": 2530, "kong": 1030}
identifier_field: Final = "key_id"
secret_field: Final = "secret_key"

#: What APISIX allows when nothing is said; hmac-sha384 only by configuration.
DEFAULT_ALGORITHMS: Final = ("hmac-sha1", "hmac-sha256", "hmac-sha512")
#: `hide_credentials` takes away Authorization and nothing else (APISIX).
CARRIERS: Final = frozenset({Carrier("header", "authorization")})
DEFAULT_SKEW: Final = 300
DEFAULT_MAX_BODY: Final = 64 * 1024 * 1024
DEFAULT_REPLAY_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")

#: What the console puts into a new one. The defaults sign the date alone, which lets a signature serve for another
#: target; here: the target too, a strong hash, and no second use where a method changes something.
PROPOSED: Final[dict[str, Any]] = {
    "allowed_algorithms": ["hmac-sha256", "hmac-sha512"],
    "signed_headers": ["@request-target", "date"],
    "replay_protection": True,
}

_METHODS: Final = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"]
_OURS: Final = {
    "require_signed_date": {"type": "boolean", "default": True},
    "require_signed_digest": {"type": "boolean", "default": True},
    "replay_protection": {"type": "boolean", "default": False},
    "replay_methods": {
        "type": "array",
        "items": {"type": "string", "enum": _METHODS},
        "minItems": 1,
        "uniqueItems": True,
        "default": list(DEFAULT_REPLAY_METHODS),
    },
    "expose_reason": fields.EXPOSE_REASON,
}

#: Unknown fields are accepted, as in APISIX.
APISIX_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "allowed_algorithms": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "enum": sorted(ALGORITHMS)},
            "default": list(DEFAULT_ALGORITHMS),
        },
        "clock_skew": {"type": "integer", "minimum": 1, "default": DEFAULT_SKEW},
        "signed_headers": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 50},
            "default": ["date"],
        },
        "validate_request_body": {"type": "boolean", "default": False},
        "max_req_body_size": {"type": "integer", "minimum": 1, "default": DEFAULT_MAX_BODY},
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "realm": fields.realm("hmac"),
        "anonymous_consumer": fields.ANONYMOUS_CONSUMER,
        **_OURS,
    },
}
config_schema: Final = {"apisix": APISIX_SCHEMA}

credential_schema: Final = {
    "type": "object",
    "properties": {
        "key_id": {"type": "string", "minLength": 1, "maxLength": 256},
        "secret_key": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    "required": ["key_id", "secret_key"],
}


@dataclass(frozen=True, slots=True)
class Config:
    """One `hmac-auth` as compiled from what stands on an object."""

    scheme: Scheme
    policy: Policy
    common: Common


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    policy = Policy(
        algorithms=frozenset(values["allowed_algorithms"]),
        # JSON Schema takes 300.0 for an integer.
        clock_skew=int(values["clock_skew"]),
        required=tuple(header.lower() for header in values["signed_headers"]),
        require_signed_date=values["require_signed_date"],
        validate_body=values["validate_request_body"],
        require_signed_digest=values["require_signed_digest"],
        max_body=int(values["max_req_body_size"]),
        replay_methods=frozenset(values["replay_methods"]) if values["replay_protection"] else None,
    )
    return Config(
        scheme=SCHEMES["apisix"],
        policy=policy,
        common=fields.common(values, dialect, "hmac", CARRIERS),
    )


def common(config: Config) -> Common:
    """What the gate needs of a configuration."""
    return config.common


def check(
    message: Message, config: Config, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Rejected:
    """Verify a request's head; `Verified` says what its body must be and which replay mark to store."""
    result = check_head(message, config.scheme, config.policy, lookup, now, trace)
    if isinstance(result, Verified):
        return result
    return reject(config, result or Failure(Reason.MISSING))


def reject(config: Config, failure: Failure) -> Rejected:
    """A scheme's failure as this plugin's refusal."""
    return Rejected(
        failure.reason,
        plugin=name,
        dialect=config.common.dialect,
        facts=dict(failure.facts or {}),
        challenge=config.common.challenge,
        detail=failure.detail,
        expose=config.common.expose_reason,
    )
