"""`hmac-auth`: requests signed with a shared secret.

    {"clock_skew": 300, "allowed_algorithms": ["hmac-sha256"], "signed_headers": ["@request-target", "date"]}

on a route, a service or a plugin config; `{"key_id": "client-1", "secret_key": "…"}` on a credential. In Kong's dialect

    {"clock_skew": 300, "algorithms": ["hmac-sha256"], "enforce_headers": ["@request-target", "date"]}

Fields and defaults are the dialect's; those of `_OURS` are ours. With `"scheme": "hmacproxy"` the fields of HMACPROXY
say what both sides know:

    {"scheme": "hmacproxy", "sign_header": "X-Signature", "headers": ["date"], "digest": "sha256", "key_id": "client-1"}

Imports `core` and `schemes`; called by the gate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..core.credential import Lookup
from ..core.dialects import APISIX, KONG, LEGACY
from ..core.errors import ConfigError, Rejected
from ..core.identity import Carrier, Failure, Verified
from ..core.macs import ALGORITHMS
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from ..schemes import SCHEMES, Scheme, kong
from ..schemes.apisix import REQUEST_TARGET
from ..schemes.hmacproxy import DIGESTS, TAKEN, UNSEEN, HmacProxy, available
from ..schemes.verify import Policy, check_head
from . import fields
from .base import Common

name: Final = "hmac-auth"
priority: Final = {APISIX: 2530, KONG: 1030, LEGACY: 999}
holder: Final = name
identifier_field: Final = "key_id"
secret_field: Final = "secret_key"

#: What APISIX allows when nothing is said; hmac-sha384 only by configuration.
DEFAULT_ALGORITHMS: Final = ("hmac-sha1", "hmac-sha256", "hmac-sha512")
DEFAULT_SKEW: Final = 300
#: Seconds. Kong has no upper end; a number has.
LONGEST_SKEW: Final = 10**9
DEFAULT_MAX_BODY: Final = 64 * 1024 * 1024
DEFAULT_REPLAY_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")

#: What the console puts into a new one. The defaults sign the date alone, which lets a signature serve for another
#: target; here: the target too, a strong hash, and no second use where a method changes something.
PROPOSED: Final[dict[str, Any]] = {
    "allowed_algorithms": ["hmac-sha256", "hmac-sha512"],
    "signed_headers": ["@request-target", "date"],
    "replay_protection": True,
}

KONG_PROPOSED: Final[dict[str, Any]] = {
    "algorithms": ["hmac-sha256", "hmac-sha512"],
    "enforce_headers": ["@request-target", "date"],
    "replay_protection": True,
}

_METHODS: Final = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"]
_OURS: Final[dict[str, Any]] = {
    "max_req_body_size": {"type": "integer", "minimum": 1, "default": DEFAULT_MAX_BODY},
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

#: A request does not say whose key has signed it, so those that may are named, and each is tried on the body.
MOST_KEYS: Final = 8
#: What goes with the scheme hmacproxy only. `clock_skew` and replay protection need a signed Date there.
HMACPROXY: Final = {
    "sign_header": fields.header("X-Signature"),
    "headers": {"type": "array", "items": {"type": "string", "maxLength": 128}, "maxItems": 100, "default": []},
    "digest": {"type": "string", "enum": list(DIGESTS), "default": "sha1"},
    "any_digest": {"type": "boolean", "default": False},
    "key_id": {"type": "string", "minLength": 1, "maxLength": 256},
    "key_ids": {
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": 256},
        "minItems": 1,
        "maxItems": MOST_KEYS,
        "uniqueItems": True,
    },
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
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "realm": fields.realm("hmac"),
        "anonymous_consumer": fields.ANONYMOUS_CONSUMER,
        "scheme": {"type": "string", "enum": list(SCHEMES), "default": "apisix"},
        **_OURS,
        **HMACPROXY,
    },
}
KONG_SCHEMA: Final = fields.kong(
    {
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "clock_skew": {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_SKEW, "default": DEFAULT_SKEW},
        "anonymous": fields.KONG_ANONYMOUS,
        "validate_request_body": {"type": "boolean", "default": False},
        "enforce_headers": {"type": "array", "items": {"type": "string"}, "default": []},
        "algorithms": {
            "type": "array",
            "items": {"type": "string", "enum": list(ALGORITHMS)},
            "default": list(ALGORITHMS),
        },
        "realm": fields.REALM,
        "scheme": {"type": "string", "enum": list(SCHEMES), "default": "kong"},
        **_OURS,
        **HMACPROXY,
    }
)
#: Kong 0.5.
LEGACY_SCHEMA: Final = fields.kong(
    {
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "clock_skew": {"type": "number", "minimum": 0, "maximum": LONGEST_SKEW, "default": DEFAULT_SKEW},
        **_OURS,
    }
)
config_schema: Final = {APISIX: APISIX_SCHEMA, KONG: KONG_SCHEMA, LEGACY: LEGACY_SCHEMA}

credential_schema: Final = {
    "type": "object",
    "properties": {
        "key_id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            # It stands between double quotes in a header.
            "pattern": r'^[^"\x00-\x1f\x7f]*\Z',
            "description": "text without double quotes and control characters, which no request could name",
        },
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
    said = _said(config, dialect)
    if values.get("scheme") == HmacProxy.name:
        return _hmacproxy(said, values, dialect)
    # APISIX knows none of these fields nor `scheme`, and takes what it does not know.
    for field in HMACPROXY if dialect != APISIX or "scheme" in said else ():
        if field in said:
            raise ConfigError(field, said[field], 'nothing, save with "scheme": "hmacproxy"')
    # What is not configurable in 0.x: SHA-1, and nothing that must be signed.
    allowed: list[str] = values.get("algorithms" if dialect == KONG else "allowed_algorithms", ["hmac-sha1"])
    field = "enforce_headers" if dialect == KONG else "signed_headers"
    required: list[str] = values.get(field, [])
    for place, header in enumerate(required, 1):
        if header.lower() != REQUEST_TARGET and not _NAME.fullmatch(header):
            raise ConfigError(f"{field}.{place}", header, _ONE_NAME)
    skew = values["clock_skew"]
    policy = Policy(
        algorithms=frozenset(allowed),
        # JSON Schema takes 300.0 for an integer.
        clock_skew=int(skew) if float(skew).is_integer() else skew,
        required=tuple(header.lower() for header in required),
        require_signed_date=values["require_signed_date"],
        validate_body=values.get("validate_request_body", False),
        require_signed_digest=values["require_signed_digest"],
        max_body=int(values["max_req_body_size"]),
        replay_methods=frozenset(values["replay_methods"]) if values["replay_protection"] else None,
        clock_first=dialect != APISIX,
        either_date=dialect != APISIX,
        digest_optional=dialect != APISIX,
    )
    scheme = kong.LEGACY if dialect == LEGACY else SCHEMES[values["scheme"]]
    return Config(scheme, policy, fields.common(values, dialect, "hmac", scheme.carriers))


def _said(config: Mapping[str, Any], dialect: str) -> Mapping[str, Any]:
    """What a configuration says of itself: Kong's admin API writes every default into it."""
    if dialect == APISIX:
        return config
    known = config_schema[dialect]["properties"]
    return {
        field: value
        for field, value in config.items()
        if value is not None and value != known.get(field, {}).get("default")
    }


#: What can be listed and signed; anything else in its place would refuse every request.
_NAME: Final = re.compile(fields.HEADER["pattern"])
_ONE_NAME: Final = f"the name of one header, or {REQUEST_TARGET}; several names are several values"

#: What has no meaning there, and what has in its place.
_NOT_HMACPROXY: Final = {
    "allowed_algorithms": "digest",
    "signed_headers": "headers",
    "algorithms": "digest",
    "enforce_headers": "headers",
    "validate_request_body": "nothing: the body is always signed",
    "require_signed_date": "clock_skew, with date among headers",
    "require_signed_digest": "nothing: the body is always signed",
}


def _hmacproxy(config: Mapping[str, Any], values: Mapping[str, Any], dialect: str) -> Config:
    for field, instead in _NOT_HMACPROXY.items():
        if field in config:
            raise ConfigError(field, config[field], f"with the scheme hmacproxy: {instead}")
    if (values["key_id"] is None) == (values["key_ids"] is None):
        given = None if values["key_id"] is None else values["key_ids"]
        raise ConfigError("key_id", given, "the key id of the secret that signs, or key_ids with several")
    if values["digest"] not in available():
        raise ConfigError("digest", values["digest"], f"one of {', '.join(available())} on this system")
    headers = tuple(values["headers"])
    for header in headers:
        if header.lower() in UNSEEN:
            raise ConfigError("headers", header, "other headers: hmacproxy signs an empty line for this one")
    sign_header = values["sign_header"]
    if sign_header.lower() in {*TAKEN, *map(str.lower, headers)}:
        raise ConfigError("sign_header", sign_header, "a header that can hold a signature, and is not signed itself")
    dated = any(header.lower() in ("date", "x-date") for header in headers)
    aged = "clock_skew" in config if dialect == APISIX else dated
    if aged and not dated:
        raise ConfigError("clock_skew", config["clock_skew"], "nothing, unless date is one of headers")
    if values["replay_protection"] and not aged:
        raise ConfigError("replay_protection", True, "false, unless clock_skew is given: signatures would never age")
    carriers = frozenset({Carrier("header", sign_header.lower())})
    # Credentials are looked up by what requests name, which are bytes.
    key_ids = tuple(key_id.encode().decode("latin-1") for key_id in values["key_ids"] or [values["key_id"]])
    return Config(
        scheme=HmacProxy(sign_header, headers, key_ids),
        policy=Policy(
            algorithms=frozenset(available() if values["any_digest"] else [values["digest"]]),
            clock_skew=int(values["clock_skew"]),
            # Which is all true without being asked for.
            required=(REQUEST_TARGET, *map(str.lower, headers)),
            validate_body=True,
            require_date=aged,
            max_body=int(values["max_req_body_size"]),
            replay_methods=frozenset(values["replay_methods"]) if values["replay_protection"] else None,
        ),
        common=fields.common(values, dialect, "hmac", carriers),
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
