"""What a client reads when it is refused: one table, keyed by (dialect, plugin, reason).

Read by the adapters through `answer()`. Standard library only. A row is (status, message, key of the body);
`None` as reason is the row for every reason that has none of its own, so an unknown key, a disabled credential
and a wrong secret read alike. Placeholders are filled from `Rejected.facts`.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from . import bodies
from .dialects import HMACPROXY, KONG, LEGACY
from .errors import Rejected
from .reasons import Reason


class Row(NamedTuple):
    """Status, text, and the JSON key that the text stands under."""

    status: int
    text: str
    key: str = "message"


_UNVERIFIED: Final = "client request can't be validated"
_TOO_LARGE: Final = "request size {size} is greater than the maximum size {limit} allowed"
_UNKNOWN_JWT_KEY: Final = "Invalid user key in JWT token"

_KONG_UNVERIFIED: Final = "HMAC signature cannot be verified"
_KONG_MISMATCH: Final = "HMAC signature does not match"
_KONG_DATE: Final = _KONG_UNVERIFIED + ", a valid date or x-date header is required for HMAC Authentication"
_LEGACY_DATE: Final = _KONG_UNVERIFIED + ", a valid date field is required for HMAC Authentication"
_DATES: Final = (Reason.DATE_MISSING, Reason.DATE_INVALID, Reason.DATE_NOT_SIGNED, Reason.CLOCK_SKEW)
_MISMATCHES: Final = (
    *(Reason.SIGNATURE_MISMATCH, Reason.SIGNATURE_MALFORMED),
    *(Reason.DIGEST_MISSING, Reason.DIGEST_NOT_SIGNED, Reason.DIGEST_MALFORMED, Reason.DIGEST_MISMATCH),
)
_NO_CREDENTIAL: Final = (
    *(Reason.UNKNOWN_KEY, Reason.CREDENTIAL_DISABLED),
    *(Reason.CREDENTIAL_NOT_YET_VALID, Reason.CREDENTIAL_EXPIRED),
)

TABLE: Final[dict[tuple[str, str, Reason | None], Row]] = {
    # The gateway itself; "" is no plugin.
    ("apisix", "", None): Row(400, "bad request"),
    ("apisix", "", Reason.DUPLICATE_HEADER): Row(400, "duplicated header: {header}"),
    ("apisix", "", Reason.AMBIGUOUS_PATH): Row(400, "{why}"),
    ("apisix", "", Reason.NO_ROUTE): Row(404, "404 Route Not Found", "error_msg"),
    ("apisix", "", Reason.BODY_TOO_LARGE): Row(413, _TOO_LARGE),
    ("apisix", "", Reason.BODY_UNSEEN): Row(403, "the body cannot be checked here"),
    ("apisix", "", Reason.REQUEST_TIMEOUT): Row(408, "the request body did not arrive in time"),
    ("apisix", "", Reason.LENGTH_REQUIRED): Row(411, "a body needs a Content-Length here"),
    ("apisix", "", Reason.NOT_CONFIGURED): Row(503, "configuration not loaded"),
    ("apisix", "", Reason.NO_UPSTREAM): Row(503, "no upstream node is configured"),
    ("apisix", "", Reason.SIGNING_UNAVAILABLE): Row(503, "the request could not be signed"),
    ("apisix", "", Reason.UPSTREAM_UNREACHABLE): Row(502, "no upstream node could be reached"),
    ("apisix", "", Reason.UPSTREAM_BROKEN): Row(502, "the upstream answer could not be read"),
    ("apisix", "", Reason.UPSTREAM_TIMEOUT): Row(504, "the upstream did not answer in time"),
    ("apisix", "", Reason.REPLAY_STORE_UNAVAILABLE): Row(503, "replay protection is not available"),
    ("apisix", "", Reason.DIFFERENT_CONSUMERS): Row(401, "the credentials name different consumers"),
    # hmac-auth.
    ("apisix", "hmac-auth", None): Row(401, _UNVERIFIED),
    ("apisix", "hmac-auth", Reason.MISSING): Row(401, "Missing authorization in request"),
    ("apisix", "hmac-auth", Reason.WRONG_SCHEME): Row(
        401, _UNVERIFIED + ": Authorization header does not start with '{word}'"
    ),
    ("apisix", "hmac-auth", Reason.ANONYMOUS_UNKNOWN): Row(401, "Invalid user authorization"),
    ("apisix", "hmac-auth", Reason.REPLAYED): Row(401, _UNVERIFIED + ": replayed"),
    ("apisix", "hmac-auth", Reason.BODY_TOO_LARGE): Row(413, _TOO_LARGE),
    ("apisix", "hmac-auth", Reason.REPLAY_STORE_UNAVAILABLE): Row(503, "replay protection is not available"),
    # basic-auth.
    ("apisix", "basic-auth", None): Row(401, "Invalid user authorization"),
    ("apisix", "basic-auth", Reason.MISSING): Row(401, "Missing authorization in request"),
    ("apisix", "basic-auth", Reason.WRONG_SCHEME): Row(401, "Invalid authorization in request"),
    ("apisix", "basic-auth", Reason.MALFORMED_AUTHORIZATION): Row(401, "Invalid authorization in request"),
    # key-auth.
    ("apisix", "key-auth", None): Row(401, "Invalid API key in request"),
    ("apisix", "key-auth", Reason.MISSING): Row(401, "Missing API key found in request"),
    ("apisix", "key-auth", Reason.ANONYMOUS_UNKNOWN): Row(401, "Invalid user authorization"),
    # jwt-auth.
    ("apisix", "jwt-auth", None): Row(401, "failed to verify jwt"),
    ("apisix", "jwt-auth", Reason.MISSING): Row(401, "Missing authorization in request"),
    ("apisix", "jwt-auth", Reason.MALFORMED_AUTHORIZATION): Row(401, "JWT token invalid"),
    ("apisix", "jwt-auth", Reason.INCOMPLETE): Row(401, "missing user key in JWT token"),
    ("apisix", "jwt-auth", Reason.UNKNOWN_KEY): Row(401, _UNKNOWN_JWT_KEY),
    # What is switched off is not there, in APISIX.
    ("apisix", "jwt-auth", Reason.CREDENTIAL_DISABLED): Row(401, _UNKNOWN_JWT_KEY),
    ("apisix", "jwt-auth", Reason.CREDENTIAL_NOT_YET_VALID): Row(401, _UNKNOWN_JWT_KEY),
    ("apisix", "jwt-auth", Reason.CREDENTIAL_EXPIRED): Row(401, _UNKNOWN_JWT_KEY),
    ("apisix", "jwt-auth", Reason.ANONYMOUS_UNKNOWN): Row(401, "Invalid user authorization"),
    # multi-auth.
    ("apisix", "multi-auth", None): Row(401, "Authorization Failed"),
    ("apisix", "multi-auth", Reason.BODY_TOO_LARGE): Row(401, "Authorization Failed"),
    ("apisix", "multi-auth", Reason.ANONYMOUS_UNKNOWN): Row(401, "Invalid user authorization"),
    # public-api: the endpoint that signs tokens.
    ("apisix", "public-api", None): Row(503, "failed to sign jwt"),
    ("apisix", "public-api", Reason.INCOMPLETE): Row(400, "missing key"),
    ("apisix", "public-api", Reason.MALFORMED): Row(400, "payload is not a JSON object, or too long"),
    ("apisix", "public-api", Reason.UNKNOWN_KEY): Row(404, "no usable credential has this key"),
    # Rules. Where APISIX shows nginx's page, the words are ours; where it answers 500, so is the status.
    ("apisix", "consumer-restriction", Reason.CONSUMER_FORBIDDEN): Row(403, "The {type} is forbidden."),
    ("apisix", "consumer-restriction", Reason.CONSUMER_REQUIRED): Row(
        401, "The request is rejected, please check the {type} for this request"
    ),
    ("apisix", "limit-count", Reason.RATE_LIMITED): Row(503, "too many requests"),
    ("apisix", "limit-count", Reason.COUNTER_STORE_UNAVAILABLE): Row(503, "failed to limit count", "error_msg"),
    ("apisix", "limit-count", Reason.LIMIT_UNKNOWN): Row(503, "failed to limit count", "error_msg"),
    # Kong's words for what the gateway itself answers.
    ("kong", "", None): Row(400, "Bad request"),
    ("kong", "", Reason.DUPLICATE_HEADER): Row(400, "Bad request"),
    ("kong", "", Reason.AMBIGUOUS_PATH): Row(400, "Bad request"),
    ("kong", "", Reason.MALFORMED): Row(400, "Bad request"),
    ("kong", "", Reason.NO_ROUTE): Row(404, "no Route matched with those values"),
    ("kong", "", Reason.TLS_REQUIRED): Row(426, "Please use HTTPS protocol"),
    ("kong", "", Reason.NO_SERVICE): Row(503, "no Service found with those values"),
    ("kong", "", Reason.NAME_UNRESOLVED): Row(503, "name resolution failed"),
    ("kong", "", Reason.BODY_TOO_LARGE): Row(413, "Payload too large"),
    ("kong", "", Reason.BODY_UNSEEN): Row(403, "The body cannot be checked here"),
    ("kong", "", Reason.REQUEST_TIMEOUT): Row(408, "Request timeout"),
    ("kong", "", Reason.LENGTH_REQUIRED): Row(411, "Length required"),
    ("kong", "", Reason.NOT_CONFIGURED): Row(503, "configuration not loaded"),
    ("kong", "", Reason.NO_UPSTREAM): Row(503, "failure to get a peer from the ring-balancer"),
    ("kong", "", Reason.SIGNING_UNAVAILABLE): Row(503, "The request could not be signed"),
    ("kong", "", Reason.UPSTREAM_UNREACHABLE): Row(502, "An invalid response was received from the upstream server"),
    ("kong", "", Reason.UPSTREAM_BROKEN): Row(502, "An invalid response was received from the upstream server"),
    ("kong", "", Reason.UPSTREAM_TIMEOUT): Row(504, "The upstream server is timing out"),
    ("kong", "", Reason.REPLAY_STORE_UNAVAILABLE): Row(503, "The upstream server is currently unavailable"),
    ("kong", "", Reason.DIFFERENT_CONSUMERS): Row(401, "Unauthorized"),
    ("kong", "", Reason.ANONYMOUS_UNKNOWN): Row(500, "anonymous consumer {name} is configured but doesn't exist"),
    # hmac-auth.
    ("kong", "hmac-auth", None): Row(401, _KONG_UNVERIFIED),
    ("kong", "hmac-auth", Reason.MISSING): Row(401, "Unauthorized"),
    **{("kong", "hmac-auth", reason): Row(401, _KONG_DATE) for reason in _DATES},
    **{("kong", "hmac-auth", reason): Row(401, _KONG_MISMATCH) for reason in _MISMATCHES},
    ("kong", "hmac-auth", Reason.REPLAYED): Row(401, _KONG_UNVERIFIED + ": replayed"),
    # hmac-auth of 0.x: all but "nothing sent" is 403.
    (LEGACY, "hmac-auth", None): Row(403, _KONG_UNVERIFIED),
    (LEGACY, "hmac-auth", Reason.MISSING): Row(401, "Unauthorized"),
    **{(LEGACY, "hmac-auth", reason): Row(403, _LEGACY_DATE) for reason in _DATES},
    **{(LEGACY, "hmac-auth", reason): Row(403, _KONG_MISMATCH) for reason in _MISMATCHES},
    (LEGACY, "hmac-auth", Reason.REPLAYED): Row(403, _KONG_UNVERIFIED + ": replayed"),
    # key-auth.
    ("kong", "key-auth", None): Row(401, "Unauthorized"),
    ("kong", "key-auth", Reason.MISSING): Row(401, "No API key found in request"),
    ("kong", "key-auth", Reason.MALFORMED_AUTHORIZATION): Row(401, "Duplicate API key found"),
    # basic-auth.
    ("kong", "basic-auth", None): Row(401, "Unauthorized"),
    # jwt.
    ("kong", "jwt", None): Row(401, "Invalid signature"),
    ("kong", "jwt", Reason.MISSING): Row(401, "Unauthorized"),
    ("kong", "jwt", Reason.SEVERAL_CREDENTIALS): Row(401, "Multiple tokens provided"),
    ("kong", "jwt", Reason.MALFORMED_AUTHORIZATION): Row(401, "Bad token; invalid JSON"),
    ("kong", "jwt", Reason.ALGORITHM_UNKNOWN): Row(401, "Bad token; invalid alg"),
    ("kong", "jwt", Reason.SIGNATURE_MALFORMED): Row(401, "Bad token; invalid signature"),
    ("kong", "jwt", Reason.INCOMPLETE): Row(401, "No mandatory '{claim}' in claims"),
    # What is switched off is not there.
    **{("kong", "jwt", reason): Row(401, "No credentials found for given '{claim}'") for reason in _NO_CREDENTIAL},
    ("kong", "jwt", Reason.SECRET_UNAVAILABLE): Row(401, "Invalid key/secret"),
    ("kong", "jwt", Reason.ALGORITHM_NOT_ALLOWED): Row(401, "Invalid algorithm"),
    ("kong", "jwt", Reason.CLAIM_INVALID): Row(401, "must be a number", "{claim}"),
    ("kong", "jwt", Reason.TOKEN_EXPIRED): Row(401, "token expired", "exp"),
    ("kong", "jwt", Reason.TOKEN_NOT_YET_VALID): Row(401, "token not valid yet", "nbf"),
    ("kong", "jwt", Reason.LIFETIME_TOO_LONG): Row(401, "exceeds maximum allowed expiration", "exp"),
    # Rules.
    ("kong", "acl", Reason.CONSUMER_REQUIRED): Row(401, "Unauthorized"),
    ("kong", "acl", Reason.CONSUMER_FORBIDDEN): Row(403, "You cannot consume this service"),
    ("kong", "rate-limiting", Reason.RATE_LIMITED): Row(429, "API rate limit exceeded"),
    ("kong", "rate-limiting", Reason.COUNTER_STORE_UNAVAILABLE): Row(500, "An unexpected error occurred"),
    # The command hmacproxy.
    (HMACPROXY, "", None): Row(401, "unauthorized request"),
    (HMACPROXY, "hmac-auth", None): Row(401, "unauthorized request"),
    (HMACPROXY, "", Reason.MALFORMED): Row(400, "bad request"),
    (HMACPROXY, "", Reason.NO_ROUTE): Row(404, "404 page not found"),
    (HMACPROXY, "", Reason.REQUEST_TIMEOUT): Row(408, "the request body did not arrive in time"),
    (HMACPROXY, "", Reason.BODY_TOO_LARGE): Row(413, _TOO_LARGE),
    (HMACPROXY, "", Reason.UPSTREAM_UNREACHABLE): Row(502, "the upstream could not be reached"),
    (HMACPROXY, "", Reason.UPSTREAM_BROKEN): Row(502, "the upstream answer could not be read"),
    (HMACPROXY, "", Reason.UPSTREAM_TIMEOUT): Row(504, "the upstream did not answer in time"),
}

#: Whose words count where a dialect has none of its own, before APISIX's.
_ELDERS: Final = {LEGACY: (KONG,)}


#: A configuration may choose any status; with these no body may follow (RFC 9110 6.4.1).
_BODILESS: Final = (204, 205, 304)
#: What Kong answers without its error template: compact, without a request id.
_PLAIN: Final = (("kong", "jwt"),)
#: What nginx answers in Kong, which falls back to the request's own type, then to plain text.
_NGINX: Final = (Reason.BODY_TOO_LARGE, Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_BROKEN, Reason.UPSTREAM_TIMEOUT)


class Answer(NamedTuple):
    """What to send: status, the body (JSON, ends in LF), its type, and extra headers in lower case."""

    status: int
    body: bytes
    headers: list[tuple[str, str]]


def row(rejected: Rejected) -> Row:
    """The table's row for a refusal; falls back from the plugin to the gateway, from a dialect to its elders."""
    for dialects in ((rejected.dialect, *_ELDERS.get(rejected.dialect, ())), ("apisix",)):
        for plugin, reason in ((rejected.plugin, rejected.reason), ("", rejected.reason), (rejected.plugin, None)):
            for dialect in dialects:
                found = TABLE.get((dialect, plugin, reason))
                if found is not None:
                    return found._replace(status=rejected.status) if rejected.status else found
    return TABLE["apisix", "", None]


def answer_text(rejected: Rejected) -> str:
    """The words of a refusal: the configuration's, else the table's, filled with its facts."""
    if rejected.text:
        return rejected.text
    text = row(rejected).text
    # str.format is safe here: the template is ours, and facts are only ever inserted.
    return text.format(**rejected.facts) if rejected.facts else text


def wanted(rejected: Rejected, accept: str | None, content_type: str | None) -> str | None:
    """The media types by which the form of the body is chosen, from the request's Accept and Content-Type."""
    if accept is None and rejected.dialect == "kong" and rejected.reason in _NGINX:
        return content_type or "text/plain"
    return accept


def answer(rejected: Rejected, request_id: str = "", accept: str | None = None) -> Answer:
    """The HTTP answer of a refusal: the table's words, filled with sizes and names, never with a secret.

    By `accept`, the request's or what `wanted` puts in its place, Kong chooses between JSON, plain text, HTML and XML.
    """
    found = row(rejected)
    status, text, key = found.status, answer_text(rejected), found.key.format(**rejected.facts)
    if rejected.dialect == HMACPROXY:
        plain = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
        return Answer(status, text.encode() + b"\n", plain)
    body: dict[str, str] = {key: text}
    for other in rejected.also:
        body[row(other).key.format(**other.facts)] = answer_text(other)
    if rejected.expose:
        body["code"] = str(rejected.reason)
    if rejected.response is not None:
        given = rejected.response
        content = given if isinstance(given, str) else json.dumps(given, separators=(",", ":"))
        kind = "application/json"
    elif rejected.dialect == "kong" and (rejected.dialect, rejected.plugin) not in _PLAIN:
        kind, content = bodies.rendered(body, request_id, accept)
    else:
        kind = "application/json" if rejected.dialect == "apisix" else "application/json; charset=utf-8"
        content = json.dumps(body, separators=(",", ":"))
    headers = [("content-type", kind), *rejected.headers]
    if rejected.dialect == "kong":
        headers.append(("x-kong-request-id", request_id))
    if status == 401 and rejected.challenge:
        headers.append(("www-authenticate", rejected.challenge))
    if status in _BODILESS:
        return Answer(status, b"", headers[1:])
    return Answer(status, content.encode() + b"\n", headers)
