"""`sign-request`: what goes upstream is signed by the gateway, with a secret that the caller never sees.

    {"key_id": "gateway-a", "secret_key": "…", "headers": ["@request-target", "host", "date"], "sign_body": true}
    {"scheme": "hmacproxy", "secret_key": "…", "sign_header": "X-Signature", "digest": "sha256", "headers": ["date"]}

on a route, service, plugin config, consumer, group or everywhere. The last edit of a request's head, made anew for each
node that is tried. With key `gateway-a`, the scheme `apisix` and the default headers, a request that leaves as

    GET /orders?x=1 HTTP/1.1
    date: Sun, 06 Nov 1994 08:49:37 GMT

is signed over `gateway-a\\nGET /orders?x=1\\ndate: Sun, 06 Nov 1994 08:49:37 GMT\\n`, in an Authorization header that
takes the place of the caller's. A plugin of ours, for both dialects. Imports `core` and `schemes`; called by the
proxy's lanes through `gate.Outgoing`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets as random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final

from ..core.credential import Secret
from ..core.errors import ConfigError
from ..core.macs import ALGORITHMS, encode_base64
from ..core.message import Message
from ..schemes import SCHEMES, HmacProxy, Scheme
from ..schemes.hmacproxy import DIGESTS, TAKEN, UNSEEN, available
from . import fields

name: Final = "sign-request"
#: The last that touches a request: behind every other plugin of either original.
priority: Final = {"apisix": -5000, "kong": -5000}
#: Fields that are kept sealed and shown masked.
secret_fields: Final = ("secret_key",)

DEFAULT_MAX_BODY: Final = 64 * 1024 * 1024
SIGN_HEADER: Final = "X-Signature"
_TARGET: Final = "@request-target"
#: These end at the next hop (RFC 9110 7.6.1).
UNSIGNABLE: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    # No defaults where they depend on the scheme: Kong's admin API writes defaults into what is stored.
    "properties": {
        "scheme": {"type": "string", "enum": sorted(SCHEMES), "default": "apisix"},
        "key_id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "pattern": r'^[^",\x00-\x1f\x7f]+\Z',
            "description": "text without quotes, commas and control characters",
        },
        "secret_key": {"type": "string", "minLength": 1, "maxLength": 1024},
        "algorithm": {"type": "string", "enum": sorted(ALGORITHMS)},
        "headers": {
            "type": "array",
            "maxItems": 50,
            "uniqueItems": True,
            "items": {
                "type": "string",
                "maxLength": 128,
                "pattern": r"^(@request-target|[A-Za-z0-9!#$%&'*+.^`|~-]+)\Z",
                "description": f"{_TARGET}, or a header's name without underscores",
            },
        },
        "sign_header": {name: rule for name, rule in fields.header("").items() if name != "default"},
        "digest": {"type": "string", "enum": list(DIGESTS)},
        "sign_body": {"type": "boolean", "default": False},
        "max_req_body_size": {"type": "integer", "minimum": 1, "default": DEFAULT_MAX_BODY},
        "nonce": {"type": "boolean", "default": False},
    },
    "required": ["secret_key"],
    # A misspelt field would leave something unsigned, or a secret lying open.
    "additionalProperties": False,
}
_WITH_META: Final = {**_SCHEMA, "properties": {**_SCHEMA["properties"], "_meta": {"type": "object"}}}
config_schema: Final = {"apisix": _WITH_META, "kong": _SCHEMA}
#: What the console puts into a new one.
PROPOSED: Final[dict[str, Any]] = {"key_id": "", "secret_key": "", "headers": [_TARGET, "host", "date"]}

Pieces = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Config:
    """One `sign-request` as compiled. `secret` is None where it cannot be had: such requests are not sent.

    `headers` are signed in this order; `date` is the header that is set to the time, "" for none. With `body` the whole
    body, at most `max_body` bytes, is there before anything is sent. Headers in `shadows` must not be: they would be
    signed in place of the request line.
    """

    scheme: Scheme
    key_id: str
    secret: Secret | None
    algorithm: str
    headers: tuple[str, ...]
    date: str
    body: bool
    max_body: int
    nonce: bool
    shadows: frozenset[str]


def compile(
    config: Mapping[str, Any], dialect: str = "apisix", secrets: Mapping[str, Secret | None] | None = None
) -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field, never with the secret.

    `secrets` are the opened ones by field, where `config` is as it is shown; None: the secret stands in `config`.
    """
    values = fields.checked(config, dialect, config_schema)
    if secrets is None:
        secrets = {"secret_key": Secret(values["secret_key"].encode())}
    headers = None if values["headers"] is None else list(values["headers"])
    for header in map(str.lower, headers or ()):
        if header in UNSIGNABLE:
            raise ConfigError("headers", header, "headers that reach the upstream as they were signed")
    if values["scheme"] == HmacProxy.name:
        headers = _hmacproxy(values, headers or [])
        scheme: Scheme = HmacProxy(values["sign_header"] or SIGN_HEADER, tuple(headers))
    else:
        headers = _listed(values, [_TARGET, "date"] if headers is None else headers)
        scheme = SCHEMES[values["scheme"]]
    lower = [header.lower() for header in headers]
    key_id = values["key_id"] or ""
    return Config(
        scheme=scheme,
        key_id=key_id if key_id.isascii() else key_id.encode().decode("latin-1"),
        secret=secrets["secret_key"],
        algorithm=values["digest"]
        or values["algorithm"]
        or ("sha1" if values["scheme"] == HmacProxy.name else "hmac-sha256"),
        headers=tuple(headers),
        date="date" if "date" in lower else "x-date" if "x-date" in lower else "",
        body=values["sign_body"] or values["scheme"] == HmacProxy.name,
        max_body=int(values["max_req_body_size"]),
        nonce=values["nonce"],
        shadows=scheme.components.intersection(headers),
    )


def _listed(values: Mapping[str, Any], headers: list[str]) -> list[str]:
    """What is signed in schemes that list it in the request."""
    if not values["key_id"]:
        raise ConfigError("key_id", None, "the name under which the upstream knows the secret")
    if not headers:
        raise ConfigError("headers", headers, f"at least one of {_TARGET} and header names")
    for field in ("sign_header", "digest"):
        if values[field] is not None:
            raise ConfigError(field, values[field], f"nothing, save with scheme {HmacProxy.name}")
    lower = [header.lower() for header in headers]
    if "authorization" in lower:
        raise ConfigError("headers", "authorization", "other headers: the signature itself stands there")
    for place, header in enumerate(lower):
        if header in lower[:place]:
            raise ConfigError("headers", headers[place], "each header once, in whatever case")
    # A digest that nobody signs could be changed together with the body, and a nonce by whoever repeats the request.
    wanted = (("digest", values["sign_body"]), ("x-nonce", values["nonce"]))
    return headers + [header for header, add in wanted if add and header not in lower]


def _hmacproxy(values: Mapping[str, Any], headers: list[str]) -> list[str]:
    """The headers whose values are signed; both sides know the list, so that nothing is added to it."""
    for field, instead in (("key_id", "nothing: it is not sent"), ("algorithm", "digest in its place")):
        if values[field] is not None:
            raise ConfigError(field, values[field], f"with scheme {HmacProxy.name}: {instead}")
    if values["digest"] is not None and values["digest"] not in available():
        raise ConfigError("digest", values["digest"], f"one of {', '.join(available())} on this system")
    lower = [header.lower() for header in headers]
    for header in lower:
        if header == _TARGET or header in UNSEEN:
            raise ConfigError("headers", header, "other headers: the target is always signed, and Host never")
    sign_header = values["sign_header"] or SIGN_HEADER
    if sign_header.lower() in {*UNSIGNABLE, *TAKEN, *lower}:
        raise ConfigError("sign_header", sign_header, "a header that reaches the upstream and is not signed")
    if values["nonce"] and "x-nonce" not in lower:
        raise ConfigError("nonce", True, "false, unless x-nonce is one of headers")
    return headers


def sign(message: Message, config: Config, now: float, pieces: Pieces | None = None) -> list[tuple[str, str]]:
    """The headers that sign a request which is otherwise as it will be sent, each in place of all of its name.

    `now` is Unix seconds; `pieces` gives the body where `config.body` asks for it. Names are in lower case. Must not be
    called without a secret.
    """
    assert config.secret is not None  # asked by whoever calls
    scheme, secret = config.scheme, config.secret.reveal()
    body = pieces() if config.body and pieces is not None else ()
    added: list[tuple[str, str]] = []
    if config.date:
        added.append((config.date, formatdate(now, usegmt=True)))
    if config.nonce:
        added.append(("x-nonce", random.token_urlsafe(18)))
    if config.body and not isinstance(scheme, HmacProxy):
        added.append(("digest", "SHA-256=" + _finished(hashlib.sha256(), body)))
    names = {header for header, _ in added}
    pairs = [*(pair for pair in message.headers if pair[0] not in names), *added]
    whole = Message(message.method, message.target, pairs)
    if isinstance(scheme, HmacProxy):
        running = hmac.new(secret, scheme.head(whole), config.algorithm)
        made = [(scheme.sign_header, f"{config.algorithm} {_finished(running, body)}")]
    else:
        made = scheme.sign(
            whole, key_id=config.key_id, secret=secret, algorithm=config.algorithm, headers=config.headers
        )
    return [*added, *((header.lower(), value) for header, value in made)]


def _finished(running: Any, pieces: Iterable[bytes]) -> str:
    """The base64 of a hash or MAC that goes on into a body."""
    for piece in pieces:
        running.update(piece)
    return encode_base64(running.digest())
