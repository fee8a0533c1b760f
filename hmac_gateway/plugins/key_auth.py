"""`key-auth`: requests that carry a key, in a header or as a query argument.

    {"header": "apikey", "query": "apikey", "hide_credentials": true}

on a route, a service or a plugin config; `{"key": "alice-primary-key"}` on a credential. Then

    curl http://127.0.0.1:9080/ip -H 'apikey: alice-primary-key'

is let in. In Kong's dialect

    {"key_names": ["apikey"], "key_in_header": true, "key_in_query": true, "hide_credentials": true}

Fields and defaults are the dialect's; `expose_reason` is ours. Imports `core` and `schema`; called by the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..core.arguments import arguments
from ..core.credential import Lookup
from ..core.dialects import APISIX, KONG
from ..core.errors import ConfigError, Rejected
from ..core.identity import Carrier, Verified
from ..core.macs import DUMMY_SECRET, equal
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields
from .base import Common

name: Final = "key-auth"
priority: Final = {APISIX: 2500, KONG: 1250}
holder: Final = name
#: The key names the credential and proves it. Lookups take the key as it was sent; what is stored to find it by is a
#: fingerprint.
identifier_field: Final = "key"
secret_field: Final = "key"

#: What the console puts into a new one: services rarely need to see the key.
PROPOSED: Final[dict[str, Any]] = {"hide_credentials": True}
KONG_PROPOSED: Final = PROPOSED

#: Unknown fields are accepted, as in APISIX.
APISIX_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "header": fields.header("apikey"),
        "query": {"type": "string", "minLength": 1, "maxLength": 128, "default": "apikey"},
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "realm": fields.realm("key"),
        "anonymous_consumer": fields.ANONYMOUS_CONSUMER,
        "expose_reason": fields.EXPOSE_REASON,
    },
}
KONG_SCHEMA: Final = fields.kong(
    {
        "key_names": {"type": "array", "items": fields.HEADER, "minItems": 1, "default": ["apikey"]},
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "anonymous": fields.KONG_ANONYMOUS,
        "key_in_header": {"type": "boolean", "default": True},
        "key_in_query": {"type": "boolean", "default": True},
        "key_in_body": {"type": "boolean", "default": False},
        "run_on_preflight": fields.RUN_ON_PREFLIGHT,
        "realm": fields.REALM,
        "expose_reason": fields.EXPOSE_REASON,
    }
)
config_schema: Final = {APISIX: APISIX_SCHEMA, KONG: KONG_SCHEMA}

credential_schema: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 4096}},
    "required": ["key"],
}


@dataclass(frozen=True, slots=True)
class Config:
    """One `key-auth` as compiled from what stands on an object.

    `places` are looked at in this order; names of headers are in lower case, those of arguments bytes as text.
    """

    places: tuple[Carrier, ...]
    common: Common


class Presented(NamedTuple):
    """What a request carries. `key` is bytes as text, None where it cannot be read in one way only."""

    carrier: Carrier
    key: str | None
    note: str = ""


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    places: list[Carrier] = []
    word = "apikey"
    if dialect == APISIX:
        places += [Carrier("header", found) for found in fields.header_names(values["header"])]
        places.append(_argument(values["query"]))
    else:
        word = "Key"
        if values["key_in_body"]:
            raise ConfigError("key_in_body", True, "false: a key is looked for before any of the body is read")
        for named in values["key_names"]:
            if values["key_in_header"]:
                places += [Carrier("header", found) for found in fields.header_names(named)]
            if values["key_in_query"]:
                places.append(_argument(named))
        if not places:
            raise ConfigError("key_in_header", False, "true, or key_in_query: a key has to stand somewhere")
    return Config(tuple(places), fields.common(values, dialect, word, frozenset(places), told="id"))


def _argument(named: str) -> Carrier:
    return Carrier("query", named.encode().decode("latin-1"))


def common(config: Config) -> Common:
    """What the gate needs of a configuration."""
    return config.common


def check(
    message: Message, config: Config, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Rejected:
    """Verify the key that a request carries at `now` (Unix seconds).

    The first place that holds one is final: a wrong key in a header is not rescued by the query. An unknown key, an
    unusable credential and a secret that cannot be opened run the same steps.
    """
    presented = _presented(message, config)
    if trace is not None:
        trace.step("key sent", *_told(config, presented))
    if presented is None:
        return reject(config, Reason.MISSING)
    carrier, key, note = presented
    if key is None:
        return reject(config, Reason.MALFORMED_AUTHORIZATION, note)
    if not key and config.common.dialect == KONG:
        return reject(config, Reason.MISSING, "the key is empty")
    credential = lookup(key)
    fault = Reason.UNKNOWN_KEY if credential is None else credential.unusable(now)
    secrets: tuple[bytes, ...] = (DUMMY_SECRET,)
    if credential is not None and fault is None:
        secrets = tuple([secret.reveal() for secret in credential.open_secrets(now)])
        fault = None if secrets else Reason.SECRET_UNAVAILABLE
    sent = key.encode("latin-1")
    # Found by a fingerprint, and held against the key itself: a row that was tampered with lets nobody in.
    held = any(equal(secret, sent) for secret in secrets)
    reason = fault if fault is not None or held else Reason.UNKNOWN_KEY
    if trace is not None:
        trace.step("key", reason is None, "a known, usable key", "", "" if reason is None else str(reason))
    if credential is None or reason is not None:
        return reject(config, reason or Reason.UNKNOWN_KEY, "" if credential is None else f"credential {credential.id}")
    # No browser sets such a header by itself; a link with the key in its query it follows.
    exempt = carrier.place == "header" and carrier.name != "cookie"
    if config.common.hide_credentials and _elsewhere(message, config, presented):
        # The same key once more: hidden in one place only, it would not be hidden.
        return Verified(credential, csrf_exempt=exempt)
    return Verified(credential, csrf_exempt=exempt, carrier=carrier)


def _presented(message: Message, config: Config) -> Presented | None:
    query = message.query
    for carrier in config.places:
        if carrier.place == "header":
            value = message.get(carrier.name)
            if value is None:
                continue
            if carrier.name in message.duplicated:
                return Presented(carrier, None, "the header came twice")
            return Presented(carrier, value)
        values = arguments(query, carrier.name) if query else []
        if len(values) > 1:
            return Presented(carrier, None, "the query argument came twice")
        if values and values[0] is None:
            if config.common.dialect == APISIX:
                return Presented(carrier, None, "the query argument has no value")
            continue  # Kong takes no notice of it
        if values:
            return Presented(carrier, values[0])
    return None


def _elsewhere(message: Message, config: Config, presented: Presented) -> bool:
    """Whether the key also stands in a place that was not looked at."""
    return any(
        presented.key in (arguments(message.query, place.name) if place.place == "query" else [message.get(place.name)])
        for place in config.places
        if place != presented.carrier
    )


def _told(config: Config, presented: Presented | None) -> tuple[bool, str, str, str]:
    """A step of an explanation, which never shows the key."""
    expected = ", or ".join(_named(place) for place in config.places)
    if presented is None:
        return False, expected, "", "neither came"
    length = "" if presented.key is None else f" of {len(presented.key)} bytes"
    return presented.key is not None, expected, f"{_named(presented.carrier)}{length}", presented.note


def _named(place: Carrier) -> str:
    return f"{'header' if place.place == 'header' else 'query argument'} {place.name}"


def reject(config: Config, reason: Reason, detail: str = "") -> Rejected:
    """This plugin's refusal. `detail` never holds a key."""
    return Rejected(
        reason,
        plugin=name,
        dialect=config.common.dialect,
        challenge=config.common.challenge,
        detail=detail,
        expose=config.common.expose_reason,
    )
