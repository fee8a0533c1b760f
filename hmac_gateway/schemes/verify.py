"""One verification for every scheme: head first, then (where asked for) the body's digest.

Called by `plugins.hmac_auth`; `check_head` decides everything that can be known before a body is read and says in
its `Verified` what the body must be and which replay mark must be stored. Standard library only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ..core.credential import Credential, Lookup
from ..core.dates import parse_http_date
from ..core.identity import BodyRule, Failure, Replay, Verified
from ..core.macs import DIGESTS, DUMMY_SECRET, decode_base64, equal, mac
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from .base import Claim, Cover, Scheme


@dataclass(frozen=True, slots=True)
class Policy:
    """What a signature must be. Compiled once from a plugin's configuration.

    `required` are lower-case header names or components; `clock_skew` is in seconds, `max_body` in bytes.
    `replay_methods` is None where replays are not looked for.
    """

    algorithms: frozenset[str]
    clock_skew: int = 300
    required: tuple[str, ...] = ("date",)
    require_signed_date: bool = True
    validate_body: bool = False
    require_signed_digest: bool = True
    max_body: int = 64 * 1024 * 1024
    replay_methods: frozenset[str] | None = None


#: Headers that carry a time, in the order they are looked at. X-Date is for clients that cannot set Date.
DATE_HEADERS: Final = ("date", "x-date")


def check_head(
    message: Message, scheme: Scheme, policy: Policy, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Failure | None:
    """Verify a message's signature at `now` (Unix seconds); None when it carries no credentials at all.

    An unknown key, an unusable credential and a wrong secret run the same steps: the key's fault is remembered,
    the rest is computed against a secret nobody has, and the first fault found is the one reported.
    """
    claim = scheme.parse(message)
    if claim is None or isinstance(claim, Failure):
        if trace is not None:
            trace.step("authorization", False, f"a signature of the {scheme.name} scheme", _sent(message), _note(claim))
        return claim
    if not claim.key_id or not claim.signature:
        missing = "keyId" if not claim.key_id else "signature"
        if trace is not None:
            trace.step("authorization", False, 'keyId="…" and signature="…"', _sent(message), f"{missing} is missing")
        return Failure(Reason.INCOMPLETE, f"{missing} is missing")
    if not claim.algorithm:
        if trace is not None:
            trace.step("algorithm", False, " or ".join(sorted(policy.algorithms)), "", "algorithm is missing")
        return Failure(Reason.ALGORITHM_MISSING)

    credential = lookup(claim.key_id)
    fault = Reason.UNKNOWN_KEY if credential is None else credential.unusable(now)
    if trace is not None:
        trace.step("key", fault is None, "a known, usable key id", claim.key_id, "" if fault is None else str(fault))
    failure = None if fault is None else Failure(fault, f"key {claim.key_id!r}")

    allowed = claim.algorithm in policy.algorithms
    if trace is not None:
        trace.step("algorithm", allowed, " or ".join(sorted(policy.algorithms)), claim.algorithm)
    if not allowed:
        return failure or Failure(Reason.ALGORITHM_NOT_ALLOWED, repr(claim.algorithm))

    cover = scheme.cover(message, claim)
    covered = cover.names
    wrong = _freshness(message, policy, covered, now, trace) or _required(message, policy, covered, trace)
    if wrong is not None:
        return failure or wrong
    received = decode_base64(claim.signature)
    matched = _matches(message, scheme, claim, cover, credential if failure is None else None, received, now, trace)
    if failure is not None:
        return failure
    assert credential is not None  # fault is None only for a found credential
    if isinstance(matched, Failure):
        return matched

    body: BodyRule | None = None
    if policy.validate_body:
        rule = _body_rule(message, policy, covered, trace)
        if isinstance(rule, Failure):
            return rule
        body = rule
    replay: Replay | None = None
    if policy.replay_methods is not None and message.method.upper() in policy.replay_methods:
        # Time-to-live: a date may lie one skew ahead and stays acceptable for one skew after; 2 s for rounding.
        mark = hashlib.sha256(credential.id.encode() + b"\0" + matched).hexdigest()
        replay = Replay(mark, 2 * policy.clock_skew + 2)
    return Verified(credential, covered, body, replay, csrf_exempt=True)


def _matches(
    message: Message,
    scheme: Scheme,
    claim: Claim,
    cover: Cover,
    credential: Credential | None,
    received: bytes | None,
    now: float,
    trace: Trace | None,
) -> bytes | Failure:
    """The MAC that matched, or why none did. Without a credential: the same work, and never a match."""
    if credential is None:
        secrets: tuple[bytes, ...] = (DUMMY_SECRET,)
    else:
        secrets = tuple([secret.reveal() for secret in credential.open_secrets(now)])
        if not secrets:
            return Failure(Reason.SECRET_UNAVAILABLE, f"credential {credential.id}")
    theirs = b"" if received is None else received
    for form, string in scheme.signing_strings(message, claim, cover):
        if trace is not None:
            trace.strings.append((form, string))
        for secret in secrets:
            ours = mac(claim.algorithm, secret, string)
            if equal(ours, theirs):
                if trace is not None:
                    trace.step("signature", credential is not None, "a match", f"matches the {form} form")
                return ours
    if received is None:
        if trace is not None:
            trace.step("signature", False, "standard base64", claim.signature, "the signature is not base64")
        return Failure(Reason.SIGNATURE_MALFORMED)
    if trace is not None:
        trace.step("signature", False, "the MAC of the signing string", claim.signature)
    return Failure(Reason.SIGNATURE_MISMATCH)


def _freshness(
    message: Message, policy: Policy, covered: frozenset[str], now: float, trace: Trace | None
) -> Failure | None:
    """One acceptable date within the skew is enough; X-Date, which is not HTTP's own, counts only when signed."""
    unsigned: list[str] = []
    failure: Failure | None = None
    for name in DATE_HEADERS:
        value = message.get(name)
        if value is None:
            continue
        if name not in covered and (policy.require_signed_date or name != "date"):
            unsigned.append(name)
            continue
        then = parse_http_date(value)
        if then is None:
            if value.count(",") > 1:  # two headers that the server has joined, as WSGI servers do
                return Failure(Reason.DUPLICATE_HEADER, name, {"header": name})
            failure = failure or Failure(Reason.DATE_INVALID, f"{name}: {value!r}")
            if trace is not None:
                trace.step("date", False, "Sun, 06 Nov 1994 08:49:37 GMT", value, f"{name} is not an HTTP date")
            continue
        off = int(now) - then
        fresh = abs(off) <= policy.clock_skew
        if trace is not None:
            way = "behind" if off > 0 else "ahead of"
            note = "" if fresh else f"{name} is {abs(off)} s {way} the server's clock"
            trace.step("date", fresh, f"within {policy.clock_skew} s", value, note)
        if fresh:
            return None
        failure = failure or Failure(Reason.CLOCK_SKEW, f"{name} is off by {off} s")
    if failure is None:
        reason = Reason.DATE_NOT_SIGNED if "date" in unsigned else Reason.DATE_MISSING
        failure = Failure(reason)
        if trace is not None:
            note = "the date that came is not in the signed list" if unsigned else "no Date header came"
            trace.step("date", False, "a signed Date", ", ".join(unsigned), note)
    return failure


def _required(message: Message, policy: Policy, covered: frozenset[str], trace: Trace | None) -> Failure | None:
    for name in policy.required:
        if name in covered or (name == "date" and "x-date" in covered):
            continue
        absent = not name.startswith("@") and message.get(name) is None
        if trace is not None:
            note = f"the request has no {name} header" if absent else f"{name} is not in the signed list"
            if name in message.duplicated:
                note = f"{name} came twice, and only the first is signed"
            trace.step("signed headers", False, " ".join(policy.required), " ".join(sorted(covered)), note)
        return Failure(Reason.HEADER_ABSENT if absent else Reason.HEADER_NOT_SIGNED, name, {"header": name})
    if trace is not None:
        trace.step("signed headers", True, " ".join(policy.required), " ".join(sorted(covered)))
    return None


def _body_rule(message: Message, policy: Policy, covered: frozenset[str], trace: Trace | None) -> BodyRule | Failure:
    length = message.content_length
    if length is not None and length > policy.max_body:
        if trace is not None:
            trace.step("body size", False, f"at most {policy.max_body} bytes", f"{length} bytes")
        return Failure(Reason.BODY_TOO_LARGE, "", {"size": length, "limit": policy.max_body})
    text = message.get("digest")
    if text is None:
        if trace is not None:
            trace.step("digest", False, "Digest: SHA-256=…", "", "no Digest header came")
        return Failure(Reason.DIGEST_MISSING)
    if policy.require_signed_digest and "digest" not in covered:
        if trace is not None:
            trace.step("digest", False, "digest in the signed list", " ".join(sorted(covered)))
        return Failure(Reason.DIGEST_NOT_SIGNED)
    algorithm, _, promised = text.partition("=")
    if algorithm not in DIGESTS:
        if trace is not None:
            trace.step("digest", False, "SHA-256=… or SHA-512=…", text)
        return Failure(Reason.DIGEST_MALFORMED, repr(text[:40]))
    if trace is not None:
        trace.step("digest", True, "a Digest header", text, "the body is compared when it is read")
    return BodyRule(algorithm, promised, policy.max_body)


def _sent(message: Message) -> str:
    text = message.get("authorization") or ""
    word, blank, _ = text.partition(" ")
    if not text or word == "Signature":
        return text
    # Passwords and tokens of other schemes are nobody's business here.
    return f"{word} …" if blank and word.isalnum() else "…"


def _note(claim: Failure | None) -> str:
    return "no Authorization header came" if claim is None else claim.detail or str(claim.reason)
