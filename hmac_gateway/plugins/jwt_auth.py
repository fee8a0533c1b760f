"""`jwt-auth`: requests that carry a JSON Web Token (RFC 7519), in a header, as a query argument or in a cookie.

    {"hide_credentials": true, "claims_to_verify": ["exp"]}

on a route, a service or a plugin config; `{"key": "john-jwt-key", "secret": "…"}` on a credential. A token whose claim
`key` is `john-jwt-key`, signed with that secret, is let in as `Authorization: Bearer <token>`. Fields and defaults are
APISIX's; `expose_reason` is ours. Imports `core`, `schema` and `jwt_keys`; called by the gate, and by `kong_jwt`, which
is the same check under Kong's name and configuration.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..core.arguments import arguments, cookies
from ..core.credential import Lookup
from ..core.dialects import APISIX
from ..core.errors import Rejected
from ..core.identity import Carrier, Verified
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import fields, jwt_keys
from .base import Common
from .jwt_keys import ALGORITHMS, DEFAULT_ALGORITHM

name: Final = "jwt-auth"
priority: Final = {APISIX: 2510}
holder: Final = name
identifier_field: Final = "key"
#: With a key pair it is `private_key`: `jwt_keys.sealed_field` tells.
secret_field: Final = "secret"

#: What the console puts into a new one. Services often read claims, so tokens are passed on.
PROPOSED: Final[dict[str, Any]] = {}

#: Characters. Longer ones are refused unread; servers in front allow headers of about this size.
MAX_TOKEN: Final = 16 * 1024
#: Claims that say when a token is good (RFC 7519 4.1.4 and 4.1.5).
TIMES: Final = ("exp", "nbf")

#: Unknown fields are accepted, as in APISIX.
APISIX_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "header": fields.header("authorization"),
        "query": {"type": "string", "minLength": 1, "maxLength": 128, "default": "jwt"},
        "cookie": {**fields.COOKIE, "default": "jwt"},
        "key_claim_name": {"type": "string", "minLength": 1, "maxLength": 256, "default": "key"},
        "claims_to_verify": {
            "type": "array",
            "items": {"type": "string", "enum": list(TIMES)},
            "uniqueItems": True,
        },
        "hide_credentials": fields.HIDE_CREDENTIALS,
        "store_in_ctx": {"type": "boolean", "default": False},
        "realm": fields.realm("jwt"),
        "anonymous_consumer": fields.ANONYMOUS_CONSUMER,
        "expose_reason": fields.EXPOSE_REASON,
    },
}
config_schema: Final = {APISIX: APISIX_SCHEMA}

credential_schema: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "minLength": 1, "maxLength": 256},
        "secret": {"type": "string", "minLength": 1, "maxLength": 4096},
        "algorithm": {"type": "string", "enum": list(ALGORITHMS), "default": DEFAULT_ALGORITHM},
        "public_key": {"type": "string", "minLength": 1, "maxLength": 16384},
        "private_key": {"type": "string", "minLength": 1, "maxLength": 16384},
        "exp": {"type": "integer", "minimum": 1, "default": 86400},
        "base64_secret": {"type": "boolean", "default": False},
        "lifetime_grace_period": {"type": "integer", "minimum": 0, "default": 0},
    },
    "required": ["key"],
}


@dataclass(frozen=True, slots=True)
class Config:
    """One `jwt-auth` or `jwt` as compiled from what stands on an object.

    `headers` are names in lower case; `queries` and `cookies` are bytes as text. `claims` must be there and hold;
    with `every_time` so must those of `TIMES` that are there.

    Where Kong differs: `gather` looks at every place and refuses two tokens, and takes only what follows `Bearer` for
    one in a header; `header_claim` also looks for the key in the token's header; `base64` says for all credentials
    whether shared secrets are base64, None: each credential says so itself; `longest` is the longest life that a token
    may have from now on, in seconds, 0 for any; `refusal` is the challenge to whoever did send a token.
    """

    plugin: str
    headers: tuple[str, ...]
    queries: tuple[str, ...]
    cookies: tuple[str, ...]
    key_claim: str
    claims: tuple[str, ...]
    every_time: bool
    keep_claims: bool
    common: Common
    gather: bool = False
    header_claim: bool = False
    base64: bool | None = None
    longest: float = 0.0
    refusal: str = ""


class Sent(NamedTuple):
    """What a request carries. `token` is None where it cannot be read in one way only."""

    carrier: Carrier
    token: str | None
    note: str = ""


class Token(NamedTuple):
    """A token (RFC 7515 3.1) taken apart; nothing of it is to be believed yet."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: str


def compile(config: Mapping[str, Any], dialect: str = "apisix") -> Config:
    """Check and freeze a configuration; raises `ConfigError` naming the field."""
    values = fields.checked(config, dialect, config_schema)
    headers = fields.header_names(values["header"])
    query = values["query"].encode().decode("latin-1")
    places = [Carrier("header", header) for header in headers]
    places += [Carrier("query", query), Carrier("cookie", values["cookie"])]
    return Config(
        plugin=name,
        headers=headers,
        queries=(query,),
        cookies=(values["cookie"],),
        key_claim=values["key_claim_name"],
        claims=tuple(values["claims_to_verify"] or ()),
        every_time=not values["claims_to_verify"],
        keep_claims=values["store_in_ctx"],
        common=fields.common(values, dialect, "Bearer", frozenset(places)),
    )


def common(config: Config) -> Common:
    """What the gate needs of a configuration."""
    return config.common


def check(
    message: Message, config: Config, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Rejected:
    """Verify the token that a request carries at `now` (Unix seconds).

    A header that is there is final, then the query argument, then the cookie. The order of what follows is that of both
    originals, since clients can see it: form, key, algorithm, signature, times.
    """
    sent = _sent(message, config)
    if trace is not None:
        trace.step("token sent", *_told(config, sent))
    if sent is None:
        return reject(config, Reason.MISSING)
    if sent.note == SEVERAL:
        return reject(config, Reason.SEVERAL_CREDENTIALS)
    token = parse(sent.token) if sent.token is not None else sent.note
    if trace is not None:
        wrong = token if isinstance(token, str) else ""
        trace.step("token", not wrong, "three parts in base64url, the first two JSON objects", "", wrong)
    if isinstance(token, str):
        return reject(config, Reason.MALFORMED_AUTHORIZATION, token)
    if config.gather and token.header.get("alg") not in ALGORITHMS:
        # Kong tells it before the key is looked up.
        return _failed(config, Reason.ALGORITHM_UNKNOWN, trace, f"one of {', '.join(ALGORITHMS)}", "another")
    named_in = token.claims
    if config.header_claim and config.key_claim not in named_in:
        named_in = token.header
    if config.key_claim not in named_in:
        return _failed(config, Reason.INCOMPLETE, trace, f"a claim {config.key_claim!r}", "none")
    key = named_in[config.key_claim]
    # A key on the wire is bytes as text. JSON's escapes can spell what UTF-8 cannot; nobody has such a key.
    credential = lookup(key.encode("utf-8", "surrogatepass").decode("latin-1")) if isinstance(key, str) else None
    fault = Reason.UNKNOWN_KEY if credential is None else credential.unusable(now)
    if trace is not None:
        shown = repr(key)[:80] if isinstance(key, str) else f"a {type(key).__name__}"
        trace.step("key", fault is None, "the key of a known, usable credential", shown, str(fault or ""))
    if credential is None or fault is not None:
        return reject(config, fault or Reason.UNKNOWN_KEY, "" if credential is None else f"credential {credential.id}")
    named = f"credential {credential.id}"
    keys = jwt_keys.keys(credential)
    if keys is None:
        return _failed(config, Reason.SECRET_UNAVAILABLE, trace, "a key that can be used", "", named)
    # The credential's word counts; the token's is only held against it (RFC 8725 3.1).
    algorithm = token.header.get("alg")
    if algorithm != keys.algorithm:
        received = repr(algorithm)[:80]
        return _failed(config, Reason.ALGORITHM_NOT_ALLOWED, trace, keys.algorithm, received, named)
    if "crit" in token.header:
        # It says that whoever does not understand it must refuse (RFC 7515 4.1.11), and we know no extension.
        return _failed(config, Reason.CRITICAL_HEADER, trace, "no crit in the token's header", "", named)
    signature = decode(token.signature)
    if signature is None:
        return _failed(config, Reason.SIGNATURE_MALFORMED, trace, "base64url", "", named)
    held = jwt_keys.holds(credential, keys, token.signed, signature, now, config.base64)
    if held is None:
        return _failed(config, Reason.SECRET_UNAVAILABLE, trace, "a secret that can be opened", "", named)
    if not held:
        return _failed(config, Reason.SIGNATURE_MISMATCH, trace, "this credential's signature", "another", named)
    late = list(_late(token.claims, config, keys.grace, now))
    if late:
        reason, claim, wanted, received = late[0]
        # Kong's answer names every claim that is wrong.
        also = [reject(config, more, claim=name) for more, name, *_ in late[1:]] if config.gather else []
        return _failed(config, reason, trace, wanted, received, named, claim, tuple(also))
    if trace is not None:
        trace.step("algorithm, signature and times", True)
    carrier: Carrier | None = sent.carrier
    if config.common.hide_credentials and _elsewhere(message, config, sent):
        # The same token once more: hidden in one place only, it would not be hidden.
        carrier = None
    # No browser sets such a header by itself; a link with a token in its query it follows, and cookies it sends.
    exempt = sent.carrier.place == "header" and sent.carrier.name != "cookie"
    claims = token.claims if config.keep_claims else None
    return Verified(credential, csrf_exempt=exempt, carrier=carrier, claims=claims)


# --- where a token is ---


def _bare(value: str) -> str:
    # As APISIX: two spellings, one blank; otherwise the whole value is the token.
    return value[7:] if value.startswith(("Bearer ", "bearer ")) else value


_BEARER: Final = re.compile(r"[Bb]earer[ \t]+(.+)")
#: The note of a request that carries different tokens.
SEVERAL: Final = "several tokens came"
_WORDS: Final = {"header": "header", "query": "query argument", "cookie": "cookie"}


def _all(message: Message, config: Config) -> Iterator[Sent]:
    """Everything that may be a token, in the order in which places are looked at."""
    for header in config.headers:
        carrier = Carrier("header", header)
        values = message.get_all(header)
        if not config.gather:
            yield from (Sent(carrier, _bare(value)) for value in values)
        elif values and (form := _BEARER.fullmatch(values[0])) is not None:
            # Of a header that came twice Kong reads the first.
            yield Sent(carrier, form[1])
    query = message.query
    for argument in config.queries if query else ():
        for given in arguments(query, argument):
            if given is not None:
                yield Sent(Carrier("query", argument), _bare(given))
            elif not config.gather:
                yield Sent(Carrier("query", argument), None, "the query argument has no value")
    for cookie in config.cookies:
        for value in cookies(message.get_all("cookie"), cookie):
            yield Sent(Carrier("cookie", cookie), _bare(value))


def _sent(message: Message, config: Config) -> Sent | None:
    found = list(_all(message, config))
    if not found:
        return None
    first = found[0]
    if config.gather:
        several = any(other.token != first.token for other in found)
        return first._replace(token=None, note=SEVERAL) if several else first
    if sum(other.carrier == first.carrier for other in found) > 1:
        return Sent(first.carrier, None, f"the {_WORDS[first.carrier.place]} came twice")
    return first


def _elsewhere(message: Message, config: Config, sent: Sent) -> bool:
    """Whether the token also stands in another place."""
    return any(other.token == sent.token and other.carrier != sent.carrier for other in _all(message, config))


# --- what a token says ---

_PART: Final = re.compile(r"[A-Za-z0-9_-]*", re.A)


def decode(text: str) -> bytes | None:
    """The bytes of base64url without padding (RFC 7515 2), or None."""
    if len(text) % 4 == 1 or not _PART.fullmatch(text):
        return None
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parse(text: str) -> Token | str:
    """A token taken apart, or what is wrong with it, in words that quote nothing of it."""
    if len(text) > MAX_TOKEN:
        return f"longer than {MAX_TOKEN} characters"
    parts = text.split(".")
    if len(parts) != 3:
        return f"{len(parts)} parts"
    header, claims = load_object(decode(parts[0])), load_object(decode(parts[1]))
    if header is None:
        return "the header is not a JSON object in base64url"
    if claims is None:
        return "the claims are not a JSON object in base64url"
    return Token(header, claims, f"{parts[0]}.{parts[1]}".encode("ascii"), parts[2])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two readers could each believe another one (RFC 7519 4).
        raise ValueError("a name came twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number without a value")
    return number


_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)


def load_object(text: bytes | None) -> dict[str, Any] | None:
    """The JSON object that UTF-8 bytes hold; None where they hold something else, or one that can be read twice."""
    if text is None:
        return None
    try:
        found = _JSON.decode(text.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _late(
    claims: Mapping[str, Any], config: Config, grace: float, now: float
) -> Iterator[tuple[Reason, str, str, str]]:
    """What keeps a token from being good at `now`: the reason, the claim, what was expected, what came."""
    good = True
    for claim in TIMES:
        found: tuple[Reason, str, str, str] | None = None
        if claim not in claims:
            if claim in config.claims:
                found = Reason.CLAIM_INVALID, claim, f"a claim {claim}", "none"
        elif config.every_time or claim in config.claims:
            found = _wrong_time(claim, claims[claim], config, grace, now)
        if found is not None:
            good = False
            yield found
    if good and config.longest and claims["exp"] - now > config.longest:
        yield Reason.LIFETIME_TOO_LONG, "exp", f"exp <= {now + config.longest:.0f}", _number(claims["exp"])


def _wrong_time(
    claim: str, value: Any, config: Config, grace: float, now: float
) -> tuple[Reason, str, str, str] | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Reason.CLAIM_INVALID, claim, f"a number as claim {claim}", f"a {type(value).__name__}"
    if claim == "exp" and not value > now - grace:
        return Reason.TOKEN_EXPIRED, claim, f"exp > {now - grace:.0f}", _number(value)
    # A token is good from the very second on, in Kong (and RFC 7519 4.1.5).
    if claim == "nbf" and not (value < now + grace or (config.gather and value == now)):
        return Reason.TOKEN_NOT_YET_VALID, claim, f"nbf < {now + grace:.0f}", _number(value)
    return None


def _number(value: Any) -> str:
    # An int of very many digits has no text.
    return f"{value}" if abs(value) < 2**64 else "a number of many digits"


# --- explanations and refusals ---


def _told(config: Config, sent: Sent | None) -> tuple[bool, str, str, str]:
    """A step of an explanation, which never shows the token."""
    places = [f"header {config.headers[0]}"] if config.headers else []
    places += [f"query argument {name}" for name in config.queries] + [f"cookie {name}" for name in config.cookies]
    expected = ", or ".join([", ".join(places[:-1]), places[-1]]) if len(places) > 1 else "".join(places)
    if sent is None:
        return False, expected, "", "none of them came"
    place, named = sent.carrier
    length = "" if sent.token is None else f" of {len(sent.token)} characters"
    return sent.token is not None, expected, f"{_WORDS[place]} {named}{length}", sent.note


def _failed(
    config: Config,
    reason: Reason,
    trace: Trace | None,
    expected: str,
    received: str,
    detail: str = "",
    claim: str = "",
    also: tuple[Rejected, ...] = (),
) -> Rejected:
    if trace is not None:
        trace.step(str(reason).replace("_", " "), False, expected, received)
    return reject(config, reason, detail, claim, also)


def reject(
    config: Config, reason: Reason, detail: str = "", claim: str = "", also: tuple[Rejected, ...] = ()
) -> Rejected:
    """This plugin's refusal. `detail` never holds a token; `claim` is the one that is wrong, where one is."""
    missing = reason is Reason.MISSING or not config.refusal
    return Rejected(
        reason,
        plugin=config.plugin,
        dialect=config.common.dialect,
        facts={"claim": claim or config.key_claim},
        challenge=config.common.challenge if missing else config.refusal,
        detail=detail,
        expose=config.common.expose_reason,
        also=also,
    )
