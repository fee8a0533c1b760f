"""`basic-auth`: requests with a user name and a password (RFC 7617).

    {"hide_credentials": true}

on a route, a service or a plugin config; `{"username": "alice", "password": "alice-password"}` on a credential. Then

    curl http://127.0.0.1:9080/ip -u alice:alice-password

is let in. Fields and defaults are the dialect's; `expose_reason` is ours. Imports `core` and `schema`; called by the
gate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..core.credential import Credential, Lookup
from ..core.dialects import APISIX, KONG
from ..core.errors import Rejected
from ..core.identity import Carrier, Verified
from ..core.macs import DUMMY_SECRET, decode_base64, equal
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields
from .base import Common

name: Final = "basic-auth"
priority: Final = {APISIX: 2520, KONG: 1100}
holder: Final = name
identifier_field: Final = "username"
secret_field: Final = "password"
#: In the order they are looked at.
_PLACES: Final = {
    APISIX: (Carrier("header", "authorization"),),
    KONG: (Carrier("header", "proxy-authorization"), Carrier("header", "authorization")),
}

#: What the console puts into a new one: services rarely need to see the password.
PROPOSED: Final[dict[str, Any]] = {"hide_credentials": True}
KONG_PROPOSED: Final = PROPOSED

#: Unknown fields are accepted, as in APISIX.
APISIX_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "realm": fields.realm("basic"),
        "anonymous_consumer": fields.ANONYMOUS_CONSUMER,
        "expose_reason": fields.EXPOSE_REASON,
    },
}
KONG_SCHEMA: Final = fields.kong(
    {
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "anonymous": fields.KONG_ANONYMOUS,
        "realm": fields.realm("service"),
        "expose_reason": fields.EXPOSE_REASON,
    }
)
config_schema: Final = {APISIX: APISIX_SCHEMA, KONG: KONG_SCHEMA}

credential_schema: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "username": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            # RFC 7617 2: the first colon ends it, so nobody could log in with one that holds a colon.
            "pattern": "^[^:]*$",
            "description": "text without a colon",
        },
        "password": {"type": "string", "minLength": 1, "maxLength": 4096},
    },
    "required": ["username", "password"],
}

_FORM: Final = re.compile(r"basic[ \t]+(\S+)", re.I | re.A)
_WORD: Final = re.compile(r"basic(?:[ \t]|\Z)", re.I | re.A)


@dataclass(frozen=True, slots=True)
class Config:
    """One `basic-auth` as compiled from what stands on an object. `places` are looked at in this order."""

    places: tuple[Carrier, ...]
    common: Common


class Presented(NamedTuple):
    """A user name and a password as they were sent."""

    username: bytes
    password: bytes


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    places = _PLACES[dialect]
    return Config(places, fields.common(values, dialect, "Basic", frozenset(places)))


def common(config: Config) -> Common:
    """What the gate needs of a configuration."""
    return config.common


def check(
    message: Message, config: Config, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Rejected:
    """Verify user name and password at `now` (Unix seconds).

    Of several places the first whose user is known is final (Kong). Both are tried as sent, and where they hold white
    space once more without it, as APISIX reads them. An unknown user, an unusable credential and a wrong password run
    the same steps.
    """
    refused = Reason.MISSING
    credential: Credential | None = None
    for place in config.places:
        text = message.get(place.name)
        if text is None:
            continue
        presented = parse(text)
        if trace is not None:
            trace.step(place.name, *_told(presented))
        if isinstance(presented, Reason):
            refused = presented
            continue
        credential, reason = _judge(presented, lookup, now)
        if reason is not None and config.common.dialect == APISIX:
            tight = Presented(*(b"".join(part.split()) for part in presented))
            if tight != presented:
                other, why = _judge(tight, lookup, now)
                if why is None or reason is Reason.UNKNOWN_KEY:
                    credential, reason = other, why
        if trace is not None:
            said = "" if reason is None else str(reason)
            trace.step("password", reason is None, "the password of a known, usable user", "", said)
        if credential is not None and reason is None:
            return Verified(credential, carrier=place)
        refused = reason or Reason.UNKNOWN_KEY
        if credential is not None:
            break
    if refused is Reason.MISSING and trace is not None:
        trace.step("authorization", False, _EXPECTED, "", "no Authorization header came")
    return reject(config, refused, "" if credential is None else f"credential {credential.id}")


def parse(text: str) -> Presented | Reason:
    """User name and password of an Authorization header (RFC 7617 2), or why there are none."""
    if _WORD.match(text) is None:
        return Reason.WRONG_SCHEME
    form = _FORM.fullmatch(text)
    pair = decode_base64(form[1]) if form is not None else None
    if pair is None or b":" not in pair:
        return Reason.MALFORMED_AUTHORIZATION
    # A password may hold colons.
    username, _, password = pair.partition(b":")
    return Presented(username, password)


def _judge(presented: Presented, lookup: Lookup, now: float) -> tuple[Credential | None, Reason | None]:
    """The user's credential, if there is one, and why it does not hold."""
    credential = lookup(presented.username.decode("latin-1"))
    fault = Reason.UNKNOWN_KEY if credential is None else credential.unusable(now)
    secrets: tuple[bytes, ...] = (DUMMY_SECRET,)
    if credential is not None and fault is None:
        secrets = tuple([secret.reveal() for secret in credential.open_secrets(now)])
        fault = None if secrets else Reason.SECRET_UNAVAILABLE
    held = any(equal(secret, presented.password) for secret in secrets)
    return credential, fault if fault is not None or held else Reason.WRONG_PASSWORD


_EXPECTED: Final = "Basic and the base64 of user:password"


def _told(presented: Presented | Reason) -> tuple[bool, str, str, str]:
    """A step of an explanation. It shows the user name, never the password or what stands under another scheme."""
    if presented is Reason.WRONG_SCHEME:
        return False, _EXPECTED, "…", "it does not begin with Basic"
    if isinstance(presented, Reason):
        return False, _EXPECTED, "Basic …", "not the base64 of a text with a colon"
    # Some services take a key for the user name, with an empty password: such a name may be a secret.
    named = presented.username.decode("utf-8", "replace") if presented.password else "…, without a password"
    return True, _EXPECTED, f"user {named}", ""


def reject(config: Config, reason: Reason, detail: str = "") -> Rejected:
    """This plugin's refusal. `detail` never holds what was sent."""
    return Rejected(
        reason,
        plugin=name,
        dialect=config.common.dialect,
        challenge=config.common.challenge,
        detail=detail,
        expose=config.common.expose_reason,
    )
