"""Why a request was refused: one code per cause, for logs, metrics and the debugger.

The codes are stable. What the client reads is not decided here but in `words.py`, since it differs by dialect.
Standard library only.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A code and a metric label."""

    # The head could not be read in one way only.
    DUPLICATE_HEADER = "duplicate_header"
    AMBIGUOUS_PATH = "ambiguous_path"
    MALFORMED = "malformed"
    # Credentials.
    MISSING = "missing_credentials"
    WRONG_SCHEME = "wrong_scheme"
    MALFORMED_AUTHORIZATION = "malformed_authorization"
    INCOMPLETE = "incomplete_authorization"
    SEVERAL_CREDENTIALS = "several_credentials"
    ALGORITHM_MISSING = "algorithm_missing"
    UNKNOWN_KEY = "unknown_key"
    CREDENTIAL_DISABLED = "credential_disabled"
    CREDENTIAL_NOT_YET_VALID = "credential_not_yet_valid"
    CREDENTIAL_EXPIRED = "credential_expired"
    SECRET_UNAVAILABLE = "secret_unavailable"
    WRONG_PASSWORD = "wrong_password"
    ALGORITHM_UNKNOWN = "algorithm_unknown"
    ALGORITHM_NOT_ALLOWED = "algorithm_not_allowed"
    CRITICAL_HEADER = "critical_header"
    # Freshness.
    DATE_MISSING = "date_missing"
    DATE_INVALID = "date_invalid"
    DATE_NOT_SIGNED = "date_not_signed"
    CLOCK_SKEW = "clock_skew"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    CLAIM_INVALID = "claim_invalid"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    # What was covered.
    HEADER_NOT_SIGNED = "header_not_signed"
    HEADER_ABSENT = "signed_header_absent"
    SIGNATURE_MALFORMED = "signature_malformed"
    SIGNATURE_MISMATCH = "signature_mismatch"
    # Bodies.
    DIGEST_MISSING = "digest_missing"
    DIGEST_NOT_SIGNED = "digest_not_signed"
    DIGEST_MALFORMED = "digest_malformed"
    DIGEST_MISMATCH = "digest_mismatch"
    BODY_TOO_LARGE = "body_too_large"
    BODY_UNSEEN = "body_unseen"
    # Replays.
    REPLAYED = "replayed"
    REPLAY_STORE_UNAVAILABLE = "replay_store_unavailable"
    # Identity.
    ANONYMOUS_UNKNOWN = "anonymous_consumer_unknown"
    DIFFERENT_CONSUMERS = "different_consumers"
    # Rules.
    CONSUMER_REQUIRED = "consumer_required"
    CONSUMER_FORBIDDEN = "consumer_forbidden"
    RATE_LIMITED = "rate_limited"
    COUNTER_STORE_UNAVAILABLE = "counter_store_unavailable"
    LIMIT_UNKNOWN = "limit_unknown"
    # Before and behind authentication.
    NOT_CONFIGURED = "not_configured"
    NO_ROUTE = "no_route"
    TLS_REQUIRED = "tls_required"
    NO_SERVICE = "no_service"
    NO_UPSTREAM = "no_upstream"
    NAME_UNRESOLVED = "name_unresolved"
    SIGNING_UNAVAILABLE = "signing_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_BROKEN = "upstream_broken"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    REQUEST_TIMEOUT = "request_timeout"
    LENGTH_REQUIRED = "length_required"


#: Refusals that no anonymous consumer may cover: the request itself is wrong, too big, or seen before.
NEVER_ANONYMOUS = frozenset(
    {
        Reason.DUPLICATE_HEADER,
        Reason.AMBIGUOUS_PATH,
        Reason.MALFORMED,
        Reason.BODY_TOO_LARGE,
        Reason.LENGTH_REQUIRED,
        Reason.REPLAYED,
        Reason.REPLAY_STORE_UNAVAILABLE,
    }
)
