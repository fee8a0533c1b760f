"""`key-auth`: requests that carry a key, in a header or as a query argument.

    {"header": "apikey", "query": "apikey", "hide_credentials": true}

on a route, a service or a plugin config; `{"key": "alice-primary-key"}` on a credential. Then

    curl http://127.0.0.1:9080/ip -H 'apikey: alice-primary-key'

is let in. Fields and defaults are APISIX's; `expose_reason` is ours. Imports `core` and `schema`; called by the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..core.arguments import arguments
from ..core.credential import Lookup
from ..core.errors import Rejected
from ..core.identity import Carrier, Verified
from ..core.macs import DUMMY_SECRET, equal
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields
from .base import Common

name: Final = "key-auth"
priority: Final = {"apisix": 2500}
#: The key names the credential and proves it. Lookups take the key as it was sent; what is stored to find it by is a
#: fingerprint.
identifier_field: Final = "key"
secret_field: Final = "key"

#: What the console puts into a new one: services rarely need to see the key.
PROPOSED: Final[dict[str, Any]] = {"hide_credentials": True}

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
config_schema: Final = {"apisix": APISIX_SCHEMA}

credential_schema: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 4096}},
    "required": ["key"],
}


@dataclass(frozen=True, slots=True)
class Config:
    """One `key-auth` as compiled from what stands on an object.

    `headers` are names in lower case, in the order they are looked at; `query` is bytes as text.
    """

    headers: tuple[str, ...]
    query: str
    common: Common


class Presented(NamedTuple):
    """What a request carries. `key` is bytes as text, None where it cannot be read in one way only."""

    carrier: Carrier
    key: str | None
    note: str = ""


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    headers = fields.header_names(values["header"])
    query = values["query"].encode().decode("latin-1")
    carriers = frozenset([*(Carrier("header", found) for found in headers), Carrier("query", query)])
    return Config(headers, query, fields.common(values, dialect, "apikey", carriers))


def common(config: Config) -> Common:
    """What the gate needs of a configuration."""
    return config.common


def check(
    message: Message, config: Config, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Rejected:
    """Verify the key that a request carries at `now` (Unix seconds).

    A header that is there is final; only without one the query argument counts. An unknown key, an unusable
    credential and a secret that cannot be opened run the same steps.
    """
    presented = _presented(message, config)
    if trace is not None:
        trace.step("key sent", *_told(config, presented))
    if presented is None:
        return reject(config, Reason.MISSING)
    carrier, key, note = presented
    if key is None:
        return reject(config, Reason.MALFORMED_AUTHORIZATION, note)
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
    if exempt and config.common.hide_credentials and key in arguments(message.query, config.query):
        # The same key once more: hidden in one place only, it would not be hidden.
        return Verified(credential, csrf_exempt=True)
    return Verified(credential, csrf_exempt=exempt, carrier=carrier)


def _presented(message: Message, config: Config) -> Presented | None:
    for header in config.headers:
        value = message.get(header)
        if value is not None:
            carrier = Carrier("header", header)
            if header in message.duplicated:
                return Presented(carrier, None, "the header came twice")
            return Presented(carrier, value)
    query = message.query
    if not query:
        return None
    values = arguments(query, config.query)
    if not values:
        return None
    carrier = Carrier("query", config.query)
    if len(values) > 1:
        return Presented(carrier, None, "the query argument came twice")
    return Presented(carrier, values[0], "" if values[0] is not None else "the query argument has no value")


def _told(config: Config, presented: Presented | None) -> tuple[bool, str, str, str]:
    """A step of an explanation, which never shows the key."""
    expected = f"header {config.headers[0]}, or query argument {config.query}"
    if presented is None:
        return False, expected, "", "neither came"
    place, named = presented.carrier
    length = "" if presented.key is None else f" of {len(presented.key)} bytes"
    received = f"{'header' if place == 'header' else 'query argument'} {named}{length}"
    return presented.key is not None, expected, received, presented.note


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
