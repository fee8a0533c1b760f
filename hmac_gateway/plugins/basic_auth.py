"""`basic-auth`: requests with a user name and a password (RFC 7617).

    {"hide_credentials": true}

on a route, a service or a plugin config; `{"username": "alice", "password": "alice-password"}` on a credential. Then

    curl http://127.0.0.1:9080/ip -u alice:alice-password

is let in. Fields and defaults are APISIX's; `expose_reason` is ours. Imports `core` and `schema`; called by the gate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..core.credential import Credential, Lookup
from ..core.errors import Rejected
from ..core.identity import Carrier, Verified
from ..core.macs import DUMMY_SECRET, decode_base64, equal
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields
from .base import Common

name: Final = "basic-auth"
priority: Final = {"apisix": 2520}
identifier_field: Final = "username"
secret_field: Final = "password"
CARRIERS: Final = frozenset({Carrier("header", "authorization")})

#: What the console puts into a new one: services rarely need to see the password.
PROPOSED: Final[dict[str, Any]] = {"hide_credentials": True}

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
config_schema: Final = {"apisix": APISIX_SCHEMA}

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
    """One `basic-auth` as compiled from what stands on an object."""

    common: Common


class Presented(NamedTuple):
    """A user name and a password as they were sent."""

    username: bytes
    password: bytes


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    return Config(fields.common(values, dialect, "Basic", CARRIERS))


def common(config: Config) -> Common:
    """What the gate needs of a configuration."""
    return config.common


def check(
    message: Message, config: Config, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Rejected:
    """Verify user name and password at `now` (Unix seconds).

    Both are tried as sent, and where they hold white space once more without it, as APISIX reads them. An unknown
    user, an unusable credential and a wrong password run the same steps.
    """
    text = message.get("authorization")
    presented = parse(text) if text is not None else Reason.MISSING
    if trace is not None:
        trace.step("authorization", *_told(text, presented))
    if isinstance(presented, Reason):
        return reject(config, presented)
    credential, reason = _judge(presented, lookup, now)
    if reason is not None:
        tight = Presented(*(b"".join(part.split()) for part in presented))
        if tight != presented:
            other, why = _judge(tight, lookup, now)
            if why is None or reason is Reason.UNKNOWN_KEY:
                credential, reason = other, why
    if trace is not None:
        said = "" if reason is None else str(reason)
        trace.step("password", reason is None, "the password of a known, usable user", "", said)
    if credential is None or reason is not None:
        detail = "" if credential is None else f"credential {credential.id}"
        return reject(config, reason or Reason.UNKNOWN_KEY, detail)
    return Verified(credential)


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


def _told(text: str | None, presented: Presented | Reason) -> tuple[bool, str, str, str]:
    """A step of an explanation. It shows the user name, never the password or what stands under another scheme."""
    expected = "Basic and the base64 of user:password"
    if text is None:
        return False, expected, "", "no Authorization header came"
    if presented is Reason.WRONG_SCHEME:
        return False, expected, "…", "it does not begin with Basic"
    if isinstance(presented, Reason):
        return False, expected, "Basic …", "not the base64 of a text with a colon"
    # Some services take a key for the user name, with an empty password: such a name may be a secret.
    named = presented.username.decode("utf-8", "replace") if presented.password else "…, without a password"
    return True, expected, f"user {named}", ""


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
