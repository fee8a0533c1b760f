"""One verification for every scheme: head first, then (where asked for) the body's digest.

Called by `plugins.hmac_auth`; `check_head` decides everything that can be known before a body is read and says in
its `Verified` what the body must be and which replay mark must be stored. Standard library only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from ..core.credential import Credential, Lookup, Secret
from ..core.dates import parse_http_date
from ..core.identity import BodyRule, Failure, MacRule, Replay, Verified
from ..core.macs import DIGESTS, DUMMY_SECRET, decode_base64, equal, mac
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from .base import Claim, Cover, Scheme
from .hmacproxy import HmacProxy


@dataclass(frozen=True, slots=True)
class Policy:
    """What a signature must be. Compiled once from a plugin's configuration.

    `algorithms` are as the scheme's header names them; `required` are lower-case header names or components;
    `clock_skew` is in seconds, `max_body` in bytes. `replay_methods` is None where replays are not looked for,
    `require_date` false where signatures do not age, as hmacproxy's do not by themselves.

    In what the originals differ beyond the format: `clock_first` judges the clock before the credentials are read,
    by any date that came; `either_date` makes X-Date as good as Date where dates need not be signed, and only there a
    signed X-Date no longer stands in for a required date; `digest_optional` lets a request pass that has neither body
    nor Digest.
    """

    algorithms: frozenset[str]
    clock_skew: float = 300
    required: tuple[str, ...] = ("date",)
    require_date: bool = True
    require_signed_date: bool = True
    validate_body: bool = False
    require_signed_digest: bool = True
    max_body: int = 64 * 1024 * 1024
    replay_methods: frozenset[str] | None = None
    clock_first: bool = False
    either_date: bool = False
    digest_optional: bool = False


_DUMMY: Final = (Secret(DUMMY_SECRET),)
#: Headers that carry a time, in the order they are looked at. X-Date is for clients that cannot set Date.
DATE_HEADERS: Final = ("date", "x-date")


def check_head(
    message: Message, scheme: Scheme, policy: Policy, lookup: Lookup, now: float, trace: Trace | None = None
) -> Verified | Failure | None:
    """Verify a message's signature at `now` (Unix seconds); None when it carries no credentials at all.

    An unknown key, an unusable credential and a wrong secret run the same steps: the key's fault is remembered,
    the rest is computed against a secret nobody has, and the first fault found is the one reported.
    """
    if isinstance(scheme, HmacProxy):
        return _check_whole(message, scheme, policy, lookup, now, trace)
    claim = scheme.parse(message)
    if policy.clock_first and claim is not None:
        late = _freshness(message, policy, None, now, None)
        if late is not None:
            if trace is not None:
                _freshness(message, policy, None, now, trace)
            return late
    if claim is None or isinstance(claim, Failure):
        if trace is not None:
            trace.step("authorization", False, f"a signature of the {scheme.name} scheme", _sent(message), _note(claim))
        return claim
    key_id, algorithm, _, signature, carrier = claim
    if not key_id or not signature:
        missing = "keyId" if not key_id else "signature"
        if trace is not None:
            trace.step("authorization", False, 'keyId="…" and signature="…"', _sent(message), f"{missing} is missing")
        return Failure(Reason.INCOMPLETE, f"{missing} is missing")
    if not algorithm:
        if trace is not None:
            trace.step("algorithm", False, " or ".join(sorted(policy.algorithms)), "", "algorithm is missing")
        return Failure(Reason.ALGORITHM_MISSING)

    credential = lookup(key_id)
    fault = Reason.UNKNOWN_KEY if credential is None else credential.unusable(now)
    failure = None if fault is None else Failure(fault, f"key {key_id!r}")
    allowed = algorithm in policy.algorithms
    if trace is not None:
        trace.step("key", fault is None, "a known, usable key id", key_id, "" if fault is None else str(fault))
        trace.step("algorithm", allowed, " or ".join(sorted(policy.algorithms)), algorithm)
    if not allowed:
        return failure or Failure(Reason.ALGORITHM_NOT_ALLOWED, repr(algorithm))

    cover = scheme.cover(message, claim)
    covered, _ = cover
    wrong: Failure | None = None
    if not policy.clock_first or trace is not None or "date" not in covered or message.get("x-date") is not None:
        # Else the one date that came is signed, and was judged.
        wrong = _freshness(message, policy, covered, now, trace)
    wrong = wrong or _required(message, policy, covered, trace)
    if wrong is not None:
        return failure or wrong
    received = decode_base64(signature)
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
    if policy.replay_methods is not None:
        replay = _replay(message, policy, credential.id.encode(), matched)
    return tuple.__new__(Verified, (credential, covered, body, replay, True, carrier, None))


def _replay(message: Message, policy: Policy, signer: bytes, signature: bytes) -> Replay | None:
    if policy.replay_methods is None or message.method.upper() not in policy.replay_methods:
        return None
    mark = hashlib.sha256(signer + b"\0" + signature).hexdigest()
    # Time-to-live: a date may lie one skew ahead and stays acceptable for one skew after; 2 s for rounding.
    return Replay(mark, ceil(2 * policy.clock_skew) + 2)


#: What browsers send along. A signature may be that of a proxy which signs for all of its visitors, and then a forged
#: request of theirs is signed like any other.
_BROWSERS: Final = ("cookie", "origin", "referer", "authorization", "sec-fetch-site")


def _check_whole(
    message: Message, scheme: HmacProxy, policy: Policy, lookup: Lookup, now: float, trace: Trace | None
) -> Verified | Failure | None:
    """`check_head` for the scheme whose MAC goes on into the body: what is left to be compared is its MacRule.

    Who signed is not told either: every usable key of the scheme's may be the one. Keys are named by the configuration,
    not by the client, so that nothing is given away by stopping where none can be used.
    """
    name = scheme.sign_header
    claim = scheme.parse(message)
    if claim is None or isinstance(claim, Failure):
        if trace is not None:
            note = f"no {name} header came" if claim is None else claim.detail or str(claim.reason)
            trace.step("signature header", False, f"{name}: <digest> <base64>", message.get(name.lower()) or "", note)
        return claim
    allowed = claim.algorithm in policy.algorithms
    if trace is not None:
        trace.step("digest", allowed, " or ".join(sorted(policy.algorithms)), claim.algorithm)
    if not allowed:
        return Failure(Reason.ALGORITHM_NOT_ALLOWED, repr(claim.algorithm[:40]))

    keys: list[tuple[Credential, Secret]] = []
    fault: Reason | None = None
    for key_id in scheme.key_ids:
        credential = lookup(key_id)
        why = Reason.UNKNOWN_KEY if credential is None else credential.unusable(now)
        if credential is not None and why is None:
            secrets = credential.open_secrets(now)
            keys += [(credential, secret) for secret in secrets]
            why = None if secrets else Reason.SECRET_UNAVAILABLE
        fault = fault or why
        if trace is not None:
            trace.step("key", why is None, "a known, usable key id", key_id, "" if why is None else str(why))
    if not keys:
        return Failure(fault or Reason.UNKNOWN_KEY, ", ".join(map(repr, scheme.key_ids)))

    cover = scheme.cover(message, claim)
    wrong = _freshness(message, policy, cover.names, now, trace) if policy.require_date else None
    if wrong is None:
        wrong = _too_large(message, policy, trace)
    if wrong is not None:
        return wrong
    head = scheme.head(message)
    if trace is not None:
        trace.strings.append((scheme.form, head))
    body = MacRule(tuple(keys), claim.algorithm, head, claim.signature, policy.max_body)
    # The text that was sent is the text that will have been compared.
    replay = _replay(message, policy, scheme.name.encode(), claim.signature.encode("latin-1"))
    exempt = not any(message.get(header) is not None for header in _BROWSERS)
    return Verified(keys[0][0], cover.names, body, replay, csrf_exempt=exempt)


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
    secrets = _DUMMY if credential is None else credential.open_secrets(now)
    if not secrets:
        return Failure(Reason.SECRET_UNAVAILABLE, f"credential {credential and credential.id}")
    theirs = b"" if received is None else received
    algorithm = claim.algorithm
    tried: tuple[str, bytes] | None = (scheme.form, scheme.signing_string(message, claim, cover))
    others: Iterator[tuple[str, bytes]] | None = None
    while tried is not None:
        form, string = tried
        if trace is not None:
            trace.strings.append((form, string))
        for secret in secrets:
            ours = mac(algorithm, secret.reveal(), string)
            if equal(ours, theirs):
                if trace is not None:
                    trace.step("signature", credential is not None, "a match", f"matches the {form} form")
                return ours
        # Nearly always the first string is the right one: no generator is made for it.
        others = others or scheme.other_strings(message, claim, cover)
        tried = next(others, None)
    if received is None:
        if trace is not None:
            trace.step("signature", False, "standard base64", claim.signature, "the signature is not base64")
        return Failure(Reason.SIGNATURE_MALFORMED)
    if trace is not None:
        trace.step("signature", False, "the MAC of the signing string", claim.signature)
    return Failure(Reason.SIGNATURE_MISMATCH)


def _freshness(
    message: Message, policy: Policy, covered: frozenset[str] | None, now: float, trace: Trace | None
) -> Failure | None:
    """One acceptable date within the skew is enough, of those that may count; None as `covered`: any that came.

    X-Date, which is not HTTP's own, counts unsigned only where the policy has `either_date`.
    """
    unsigned: list[str] = []
    failure: Failure | None = None
    for name in DATE_HEADERS:
        value = message.get(name)
        if value is None:
            continue
        if not (covered is None or name in covered) and (
            policy.require_signed_date or not (policy.either_date or name == "date")
        ):
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
        if name in covered or (name == "date" and "x-date" in covered and not policy.either_date):
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
    too_large = _too_large(message, policy, trace)
    if too_large is not None:
        return too_large
    text = message.get("digest")
    if text is None and policy.digest_optional:
        if trace is not None:
            trace.step(
                "digest", True, "a Digest header, or no body", "", "whether a body comes is seen when it is read"
            )
        return BodyRule("SHA-256", None, policy.max_body)
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


def _too_large(message: Message, policy: Policy, trace: Trace | None) -> Failure | None:
    length = message.content_length
    if length is None or length <= policy.max_body:
        return None
    if trace is not None:
        trace.step("body size", False, f"at most {policy.max_body} bytes", f"{length} bytes")
    return Failure(Reason.BODY_TOO_LARGE, "", {"size": length, "limit": policy.max_body})


#: The words that signatures begin with; credentials of other schemes are nobody's business here.
_WORDS: Final = ("signature", "hmac")


def _sent(message: Message) -> str:
    text = message.get("authorization") or message.get("proxy-authorization") or ""
    word, blank, _ = text.partition(" ")
    if not text or word.lower() in _WORDS:
        return text
    return f"{word} …" if blank and word.isalnum() else "…"


def _note(claim: Failure | None) -> str:
    return "no Authorization header came" if claim is None else claim.detail or str(claim.reason)
