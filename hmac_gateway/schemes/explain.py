"""Why a signature does not hold: the same check with a recorder, then the mistakes that people make.

Used by the debugger and `hmac_explain`; nothing on a request's path calls it. Never raises. What it returns holds
signing strings and what the client sent, never a secret and never a MAC that was computed here. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from ..core.credential import Credential, Lookup
from ..core.identity import BodyRule, Failure, MacRule, Verified
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Step, Trace
from . import mistakes_apisix, mistakes_hmacproxy, mistakes_kong
from .base import Claim, Scheme, signing_strings
from .hmacproxy import HmacProxy
from .kong import Kong
from .mistakes import Fixed, Maker, readings, search
from .mistakes_bodies import SHOWN, judge, judge_whole, surely_empty
from .mistakes_dates import dates
from .verify import Policy, check_head


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the client's string parts from the server's nearest one.

    `offset` counts bytes from 0, `line` and `column` (in bytes) from 1. `ours` and `theirs` show what stands there,
    with visible line ends; `form` is the name of the server's string.
    """

    offset: int
    line: int
    column: int
    ours: str
    theirs: str
    form: str

    def __str__(self) -> str:
        place = f"byte {self.offset}, line {self.line}, column {self.column}"
        return f"{place}: the server has {self.ours or 'the end'}, the client {self.theirs or 'the end'}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the check did. `verdict` is accepted, refused or no credentials; `reason` a Reason's code or "".

    `strings` are (form, signing string) in the order tried, with line ends visible as `\\n`; `difference` says in
    words where the client's own string leaves them, `parts_at` the same as numbers. `unseen`: the signature covers
    a body that is not known, so that the verdict is only about the head.
    """

    verdict: str
    reason: str = ""
    steps: tuple[Step, ...] = ()
    strings: tuple[tuple[str, str], ...] = ()
    hints: tuple[str, ...] = ()
    difference: str = ""
    parts_at: Difference | None = None
    unseen: bool = False


def explain(
    message: Message,
    scheme: Scheme,
    policy: Policy,
    lookup: Lookup,
    now: float,
    client_string: bytes | None = None,
    body: bytes | None = None,
) -> Explanation:
    """Run `check_head` at `now` (Unix seconds) and say what happened.

    `client_string` is what the client says it signed, `body` the whole body; both None where unknown. A body is
    compared only where the policy or the scheme asks for it and the head was right.
    """
    trace = Trace()
    hints: list[str] = []
    try:
        "".join([message.method, message.target, *(text for pair in message.headers for text in pair)]).encode(
            "latin-1"
        )
        result = check_head(message, scheme, policy, lookup, now, trace)
        if not trace.strings:
            trace.strings += _strings(message, scheme)
    except Exception as error:
        # A pasted request may hold what no server lets in.
        trace.step("request", False, "bytes as a server hands them over", "", type(error).__name__)
        return Explanation("refused", str(Reason.MALFORMED), tuple(trace.steps), hints=("the request cannot be read",))
    reason = "" if isinstance(result, Verified) else str(result.reason if result is not None else Reason.MISSING)
    verdict = "no credentials" if result is None else "refused" if reason else "accepted"
    rule = result.body if isinstance(result, Verified) else None
    unseen = False
    if isinstance(rule, MacRule):
        if body is None and surely_empty(message):
            body = b""
        unseen = body is None
        if body is not None and len(body) <= SHOWN:
            trace.strings = [("with the body" if body else form, string + body) for form, string in trace.strings]
    parting = _parting(trace.strings, client_string)
    try:
        if isinstance(rule, MacRule) and isinstance(scheme, HmacProxy):
            if body is None:
                hints.append("the signature covers the body too, which is not known here: only the head was checked")
            elif (found := judge_whole(rule, message, scheme, body, trace, hints)) is not None:
                reason, verdict = str(found), "refused"
        elif isinstance(result, Verified) and isinstance(result.body, BodyRule) and body is not None:
            found = judge(result.body, result.credential, body, now, trace, hints)
            if found is not None:
                reason, verdict = str(found), "refused"
        elif not isinstance(result, Verified):
            hints += _explain_failure(message, scheme, policy, lookup, now, result, trace, client_string)
        if parting is None and client_string is not None and trace.strings:
            # It leaves two causes. That no usual mistake fits says less.
            hints = [hint for hint in hints if hint != _NO_MISTAKE]
            hints.append(
                "the client's string is the server's, byte for byte: the secret differs, or the MAC's encoding"
            )
    except Exception as error:
        hints.append(f"no further explanation ({type(error).__name__})")
    return Explanation(
        verdict,
        reason,
        tuple(_honest(trace.steps)),
        tuple((form, visible(string)) for form, string in trace.strings),
        tuple(dict.fromkeys(hints)),
        "" if parting is None else str(parting),
        parting,
        unseen,
    )


#: Where all that can be tried was tried.
_NO_MISTAKE: Final = "none of the usual mistakes gives this signature: compare the strings, then the secret"


def _strings(message: Message, scheme: Scheme) -> list[tuple[str, bytes]]:
    """The strings that the check would have come to, had it not stopped before."""
    claim = scheme.parse(message)
    if not isinstance(claim, Claim) or not claim.key_id:
        return []
    return list(signing_strings(scheme, message, claim, scheme.cover(message, claim)))


def visible(data: bytes) -> str:
    """Bytes as text in which nothing hides: escapes as Python writes them, and a line break after each `\\n`."""
    lines = [_escaped(line) for line in data.split(b"\n")]
    return "\\n\n".join(lines).removesuffix("\n")


def _escaped(line: bytes) -> str:
    # The added quote makes Python choose single quotes around the text.
    return ascii(line.decode("latin-1") + '"')[1:-2].replace("\\'", "'")


def _honest(steps: Sequence[Step]) -> Iterator[Step]:
    """Without a usable key the signature was computed against a secret nobody has; its verdict says nothing."""
    keys = [step.ok for step in steps if step.name == "key"]
    unusable = bool(keys) and not any(keys)
    for step in steps:
        if unusable and step.name == "signature":
            yield replace(step, ok=False, note="not compared: the key cannot be used")
        else:
            yield step


def _parting(strings: Sequence[tuple[str, bytes]], theirs: bytes | None) -> Difference | None:
    """Where `theirs` leaves the server's string that it follows longest; None when it is one of them."""
    if theirs is None or not strings:
        return None
    best: tuple[int, str, bytes] | None = None
    for form, ours in strings:
        if ours == theirs:
            return None
        shared = next(
            (place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
            min(len(ours), len(theirs)),
        )
        if best is None or shared > best[0]:
            best = (shared, form, ours)
    assert best is not None  # there is a string
    offset, form, ours = best
    before = ours[:offset]
    return Difference(
        offset,
        before.count(b"\n") + 1,
        offset - (before.rfind(b"\n") + 1) + 1,
        _excerpt(ours, offset),
        _excerpt(theirs, offset),
        form,
    )


def _excerpt(data: bytes, offset: int) -> str:
    piece = data[offset : offset + 24]
    if not piece:
        return ""
    return f"`{visible(piece)}{'…' if len(data) > offset + 24 else ''}`".replace("\n", "")


# --- mistakes that can be read off the request ---


def _explain_failure(
    message: Message,
    scheme: Scheme,
    policy: Policy,
    lookup: Lookup,
    now: float,
    result: Failure | None,
    trace: Trace,
    client_string: bytes | None,
) -> Iterator[str]:
    reason = Reason.MISSING if result is None else result.reason
    if isinstance(scheme, HmacProxy):
        yield from mistakes_hmacproxy.read_off(message, scheme, reason)
        if result is not None and policy.require_date:
            yield from dates(message, policy, result, now)
        return
    if isinstance(scheme, Kong):
        yield from mistakes_kong.read_off(message, reason)
    else:
        yield from mistakes_apisix.read_off(message, reason)
    if result is None:
        return
    claim = scheme.parse(message)
    if not isinstance(claim, Claim):
        if policy.clock_first:
            yield from dates(message, policy, result, now)
        return
    if result.reason is Reason.ALGORITHM_NOT_ALLOWED:
        yield _algorithm(claim.algorithm, policy)
    if result.reason is Reason.UNKNOWN_KEY:
        yield from _similar_keys(claim.key_id, lookup)
    yield from dates(message, policy, result, now)
    if isinstance(scheme, Kong):
        yield from mistakes_kong.listed(message, claim, scheme)
    else:
        yield from mistakes_apisix.listed(message, claim)
    if result.reason is Reason.DIGEST_NOT_SIGNED:
        yield "a Digest that is not signed can be replaced with the body: add digest to headers= and its line"
    if result.reason is Reason.DIGEST_MALFORMED:
        yield "Digest must read SHA-256= or SHA-512= in capitals, then the base64 of the hash"
    credential = lookup(claim.key_id)
    if credential is not None and claim.signature:
        yield from _signature(message, scheme, claim, credential, now, result, trace, client_string)


def _algorithm(given: str, policy: Policy) -> str:
    allowed = " or ".join(sorted(policy.algorithms))
    plain = given.lower().replace("_", "-").replace("hmac", "").replace("sha-", "sha").strip("-")
    for name in sorted(policy.algorithms):
        if name != given and name.removeprefix("hmac-") == plain:
            return f"algorithm= is compared as text: write {name}"
    if given.lower() == "hs2019":
        return f"hs2019 does not say which hash; write {allowed}"
    return f"algorithm= must be {allowed} here"


def _similar_keys(key_id: str, lookup: Lookup) -> Iterator[str]:
    for what, other in (
        ("without surrounding blanks", key_id.strip()),
        ("in lower case", key_id.lower()),
        ("in upper case", key_id.upper()),
        ("percent-decoded", unquote_to_bytes(key_id.encode("latin-1")).decode("latin-1")),
        ("read as UTF-8", key_id.encode("latin-1").decode("utf-8", "replace")),
    ):
        if other != key_id and lookup(other) is not None:
            yield f"nobody has this key id, but there is one {what}: {other}"
            return
    yield "nobody has this key id: look for a typing error, a deleted credential, or another environment's key"


# --- mistakes that only a computed MAC can show ---


def _signature(
    message: Message,
    scheme: Scheme,
    claim: Claim,
    credential: Credential,
    now: float,
    failure: Failure,
    trace: Trace,
    client_string: bytes | None,
) -> Iterator[str]:
    """Name the mistake whose MAC is the one that came."""
    secrets = [secret.reveal() for secret in credential.open_secrets(now)]
    received = dict(reversed(list(readings(claim.signature))))
    if not secrets or not received:
        if claim.signature and not received:
            yield "the signature is neither base64 nor hex"
        return
    if client_string is not None:
        found = search(Fixed(client_string), secrets, claim, received, 1)
        if found is not None:
            yield from found
            if client_string not in (string for _, string in trace.strings):
                yield "the signature is right for the client's string: the string is what differs"
            return
    maker: Maker
    if isinstance(scheme, Kong):
        maker = mistakes_kong.KongLines(message, claim, scheme)
    else:
        maker = mistakes_apisix.Apisix(message, claim)
    found = search(maker, secrets, claim, received, 3)
    if found:
        yield from found
    elif found is not None:
        yield "the signature itself is right"
    elif failure.reason in (Reason.SIGNATURE_MISMATCH, Reason.SIGNATURE_MALFORMED):
        yield _NO_MISTAKE
