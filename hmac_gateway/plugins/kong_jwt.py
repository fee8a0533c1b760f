"""`jwt`: Kong's name and configuration for `jwt-auth`, with the same check and the same credentials.

    {"claims_to_verify": ["exp"], "hide_credentials": false}

on a route, a service or everywhere. The token's `iss` names the credential. Fields and defaults are Kong's; `exp` and
`nbf` are also checked where they are not asked for, if they are there (RFC 7519 4.1.4). `hide_credentials` and
`expose_reason` are ours. Imports `core`, `fields` and `jwt_auth`; called by the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..core.dialects import KONG
from ..core.identity import Carrier
from . import fields, jwt_auth
from .jwt_auth import Config, check, common

__all__ = ["check", "common", "compile"]

name: Final = "jwt"
priority: Final = {KONG: 1450}
#: They are those of jwt-auth.
holder: Final = jwt_auth.name
credential_schema: Final = None
identifier_field: Final = ""
secret_field: Final = ""

#: Seconds; Kong's, a year.
_LONGEST: Final = 31_536_000


def _names(item: Mapping[str, Any], *default: str) -> dict[str, Any]:
    return {"type": "array", "items": dict(item), "uniqueItems": True, "default": list(default)}


KONG_SCHEMA: Final = fields.kong(
    {
        "uri_param_names": _names({"type": "string", "minLength": 1, "maxLength": 128}, "jwt"),
        "cookie_names": _names(fields.COOKIE),
        "header_names": _names(fields.HEADER, "authorization"),
        "key_claim_name": {"type": "string", "minLength": 1, "maxLength": 256, "default": "iss"},
        "secret_is_base64": {"type": "boolean", "default": False},
        "claims_to_verify": {
            "type": "array",
            "items": {"type": "string", "enum": list(jwt_auth.TIMES)},
            "uniqueItems": True,
        },
        "maximum_expiration": {"type": "number", "minimum": 0, "maximum": _LONGEST, "default": 0},
        "anonymous": fields.KONG_ANONYMOUS,
        "run_on_preflight": fields.RUN_ON_PREFLIGHT,
        "realm": fields.REALM,
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "expose_reason": fields.EXPOSE_REASON,
    }
)
config_schema: Final = {KONG: KONG_SCHEMA}


def compile(config: Mapping[str, Any], dialect: str = KONG) -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    wanted = tuple(values["claims_to_verify"] or ())
    longest = float(values["maximum_expiration"])
    if longest and "exp" not in wanted:
        allowed = "a list with exp, which maximum_expiration is about"
        text = "expected to contain: exp"
        reasons = fields.conditional("claims_to_verify", text, "maximum_expiration")
        raise fields.Worded("claims_to_verify", list(wanted) or None, allowed, text, reasons)
    headers = tuple(dict.fromkeys(found for given in values["header_names"] for found in fields.header_names(given)))
    queries = tuple(given.encode().decode("latin-1") for given in values["uri_param_names"])
    cookies = tuple(values["cookie_names"])
    places = [Carrier("header", given) for given in headers]
    places += [Carrier("query", given) for given in queries] + [Carrier("cookie", given) for given in cookies]
    shared = fields.common(values, dialect, "Bearer", frozenset(places))
    return Config(
        plugin=name,
        headers=headers,
        queries=queries,
        cookies=cookies,
        key_claim=values["key_claim_name"],
        claims=wanted,
        every_time=True,
        keep_claims=False,
        common=shared,
        gather=True,
        header_claim=True,
        base64=values["secret_is_base64"],
        longest=longest,
        refusal=f'{shared.challenge}{", " if values["realm"] else " "}error="invalid_token"',
    )
