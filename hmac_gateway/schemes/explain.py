"""Why a signature does not hold: the same check with a recorder, then the mistakes that people make.

Used by the debugger and `hmac_explain`; nothing on a request's path calls it. Never raises. What it returns holds
signing strings and what the client sent, never a secret and never a MAC that was computed here. Standard library
only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import Final
from urllib.parse import unquote_to_bytes

from ..core.credential import Credential, Lookup
from ..core.dates import parse_http_date
from ..core.identity import BodyRule, Failure, MacRule, Verified
from ..core.macs import DIGESTS, decode_base64
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Step, Trace
from . import mistakes_hmacproxy
from .base import Claim, Scheme
from .hmacproxy import HmacProxy
from .mistakes import Fixed, Maker, readings, search
from .mistakes_apisix import PSEUDO, Apisix
from .verify import DATE_HEADERS, Policy, check_head


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
        if body is not None and len(body) <= _SHOWN:
            trace.strings = [("with the body" if body else form, string + body) for form, string in trace.strings]
    parting = _parting(trace.strings, client_string)
    try:
        if isinstance(rule, MacRule) and isinstance(scheme, HmacProxy):
            if body is None:
                hints.append("the signature covers the body too, which is not known here: only the head was checked")
            elif (found := _judge_whole(rule, message, scheme, body, trace, hints)) is not None:
                reason, verdict = str(found), "refused"
        elif isinstance(result, Verified) and isinstance(result.body, BodyRule) and body is not None:
            found = _judge(result.body, result.credential, body, now, trace, hints)
            if found is not None:
                reason, verdict = str(found), "refused"
        elif not isinstance(result, Verified):
            hints += _explain_failure(message, scheme, policy, lookup, now, result, trace, client_string)
        if parting is None and client_string is not None and trace.strings:
            hints.append("the client's string is the server's, byte for byte")
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


def surely_empty(message: Message) -> bool:
    """Whether a message's head says that it has no body; HTTP/2 need not announce one."""
    return not message.may_have_body and (message.http_version[0] == "1" or message.content_length is not None)


def _strings(message: Message, scheme: Scheme) -> list[tuple[str, bytes]]:
    """The strings that the check would have come to, had it not stopped before."""
    claim = scheme.parse(message)
    if not isinstance(claim, Claim) or not claim.key_id:
        return []
    return list(scheme.signing_strings(message, claim, scheme.cover(message, claim)))


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


# --- bodies ---

#: Bytes of a body that are shown with the string they belong to.
_SHOWN: Final = 4096


def _judge_whole(
    rule: MacRule, message: Message, scheme: HmacProxy, body: bytes, trace: Trace, hints: list[str]
) -> Reason | None:
    digest = rule.start()
    digest.feed(body)
    reason = rule.verdict(digest)
    note = f"over the head and {len(body)} bytes of body"
    trace.step("signature", reason is None, "the MAC of the signing string", rule.promised, note)
    if reason is not Reason.SIGNATURE_MISMATCH:
        return reason
    name, _, text = rule.promised.partition(" ")
    received = dict(reversed(list(readings(text))))
    secrets = [secret.reveal() for _, secret in rule.keys]
    claim = Claim(scheme.key_ids[0], name, scheme.headers, text)
    found = search(mistakes_hmacproxy.Parts(message, scheme, body), secrets, claim, received, 2) if received else None
    if found:
        hints += found
    elif found is not None:
        hints.append("the MAC is right, but not its text: it is compared with its padding, letter by letter")
    elif not received:
        hints.append("the signature is neither base64 nor hex")
    else:
        hints.append(
            "none of the usual mistakes gives this signature: compare secret, list of headers and their order on both "
            "sides, and whether something between them changes a header"
        )
    return reason


def _judge(
    rule: BodyRule, credential: Credential, body: bytes, now: float, trace: Trace, hints: list[str]
) -> Reason | None:
    digest = rule.start()
    digest.feed(body)
    reason = rule.verdict(digest)
    note = f"{len(body)} bytes"
    (ours,) = digest.base64()
    trace.step("body", reason is None, f"{rule.algorithm}={ours}", f"{rule.algorithm}={rule.promised}", note)
    if reason is not Reason.DIGEST_MISMATCH or rule.promised is None:
        return reason
    name = DIGESTS[rule.algorithm]
    plain = hashlib.new(name, body).digest()
    promised, received = rule.promised, decode_base64(rule.promised)
    if promised.lower() == plain.hex() or (received is not None and received.lower() == plain.hex().encode()):
        hints.append("Digest is written in hex; it must be the base64 of the hash's bytes")
    elif received == plain:
        hints.append("Digest lacks its padding; it is compared as text")
    elif any(
        received == hmac.digest(secret.reveal(), body, name)
        or promised == hmac.digest(secret.reveal(), body, name).hex()
        for secret in credential.open_secrets(now)
    ):
        hints.append(f"Digest is an HMAC of the body; it must be the plain {rule.algorithm} without a key")
    elif received == hashlib.new(name, b"").digest():
        hints.append("Digest is that of an empty body, but a body came")
    else:
        for what, changed in (
            ("with a final newline", body + b"\n"),
            ("without its final newline", body.removesuffix(b"\n").removesuffix(b"\r")),
            ("with CRLF line ends", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")),
            ("with LF line ends", body.replace(b"\r\n", b"\n")),
            ("without surrounding blanks", body.strip()),
        ):
            if changed != body and received == hashlib.new(name, changed).digest():
                hints.append(f"Digest is that of the body {what}; it must be that of the bytes sent")
                break
        else:
            hints.append("Digest is not that of the bytes sent: hash the body after it was serialised, and only once")
    return reason


# --- mistakes that can be read off the request ---

_RIGHT_NAMES: Final = {
    "keyId": {"keyid", "key", "keyname", "username", "user", "accesskey", "kid", "id"},
    "algorithm": {"algorithm", "alg", "algo"},
    "headers": {"headers", "header", "signedheaders"},
    "signature": {"signature", "sig", "sign", "hmac"},
}
_ASSIGNED: Final = re.compile(r"(?<![A-Za-z0-9_\-])([A-Za-z][A-Za-z0-9_\-]{0,30}) ?=")


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
    text = message.get("authorization")
    if isinstance(scheme, HmacProxy):
        yield from mistakes_hmacproxy.read_off(message, scheme, Reason.MISSING if result is None else result.reason)
        if result is not None and policy.require_date:
            yield from _dates(message, policy, result, now)
        return
    if result is None or text is None:
        yield from _nothing_sent(message)
        return
    if scheme.name == "apisix":
        if result.reason is Reason.WRONG_SCHEME:
            yield _other_scheme(text)
            return
        if result.reason is Reason.MALFORMED_AUTHORIZATION and not text.startswith(("Signature ", "Signature\t")):
            yield "a blank must follow the word Signature"
            return
        yield from _grammar(text)
    claim = scheme.parse(message)
    if not isinstance(claim, Claim):
        return
    if result.reason is Reason.ALGORITHM_NOT_ALLOWED:
        yield _algorithm(claim.algorithm, policy)
    if result.reason is Reason.UNKNOWN_KEY:
        yield from _similar_keys(claim.key_id, lookup)
    yield from _dates(message, policy, result, now)
    yield from _listed(message, claim)
    if result.reason is Reason.DIGEST_MALFORMED:
        yield "Digest must read SHA-256= or SHA-512= in capitals, then the base64 of the hash"
    credential = lookup(claim.key_id)
    if credential is not None and claim.signature:
        yield from _signature(message, scheme, claim, credential, now, result, trace, client_string)


def _nothing_sent(message: Message) -> Iterator[str]:
    if message.get("x-hmac-signature") is not None or message.get("x-hmac-access-key") is not None:
        yield "X-HMAC-… headers are the format of APISIX before 3.11; send Authorization: Signature keyId=… instead"
    elif message.get("proxy-authorization") is not None:
        yield "the credentials are in Proxy-Authorization; they belong into Authorization"
    else:
        yield "the request has no Authorization header; a proxy or a redirect may have taken it away"


def _other_scheme(text: str) -> str:
    word = text.partition(" ")[0]
    if word.lower() == "hmac":
        return "this is Kong's format (hmac username=…); here it is Signature keyId=…, and the signing string differs"
    if word.startswith("hmac-auth-v1"):
        return "this is the format of APISIX before 3.11; here it is Signature keyId=…, and the signing string differs"
    if word.lower() == "signature" or text.lower().startswith("signature"):
        return "the word Signature is compared with its case"
    if word.lower() in ("basic", "bearer", "digest", "aws4-hmac-sha256", "negotiate"):
        return f"{word} credentials are not what this route asks for: Signature keyId=…"
    return "Authorization must begin with the word Signature and a blank"


def _grammar(text: str) -> Iterator[str]:
    rest = text.removeprefix("Signature")
    if "='" in rest:
        yield "values stand in double quotes, not in single ones"
    if "\xe2\x80\x9c" in rest or "\xe2\x80\x9d" in rest:
        yield 'values stand in plain double quotes ("), not in typographic ones'
    if re.search(r'(?:[A-Za-z0-9] +=|= +["\'])', rest):
        yield "no blank may stand around ="
    if re.search(r"(?:keyId|algorithm|headers|signature)=[^\"' ]", rest):
        yield "values stand in double quotes"
    if re.search(r'" *;|"[ \t]+[A-Za-z]+="', rest):
        yield "fields are separated by commas"
    listed = re.search(r'headers="([^"]*)"', rest)
    if listed is not None and "," in listed[1]:
        yield "the names in headers= are separated by blanks; a comma ends the field, even inside quotes"
    if listed is not None and ";" in listed[1]:
        yield "the names in headers= are separated by blanks, not by semicolons"
    used = {match[1] for match in _ASSIGNED.finditer(rest)}
    for right, others in _RIGHT_NAMES.items():
        if right not in used:
            for name in sorted(used):
                if name.lower().replace("_", "").replace("-", "") in others:
                    yield f"the field is called {right} (with this case), not {name}"


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


def _dates(message: Message, policy: Policy, failure: Failure, now: float) -> Iterator[str]:
    if failure.reason is Reason.DATE_NOT_SIGNED:
        yield "a date that is not signed can be replaced: add date to headers= and its line to the string"
    if failure.reason is Reason.DATE_MISSING:
        if message.get("x-date") is not None:
            yield "X-Date counts only when x-date is in headers="
        else:
            yield "send a Date header; where it cannot be set (browsers), send X-Date and sign x-date"
    for name in DATE_HEADERS:
        value = message.get(name)
        if value is None:
            continue
        then = parse_http_date(value)
        if then is None:
            yield from _date_form(name, value)
        elif failure.reason is Reason.CLOCK_SKEW:
            off = then - int(now)
            hours = round(off / 1800) / 2
            if hours and abs(hours) <= 14 and abs(off - hours * 3600) <= policy.clock_skew:
                yield f"{name} is off by about {hours:+g} h: it may be a local time that was called GMT"
            elif abs(off) > policy.clock_skew:
                yield f"the server's clock says {formatdate(int(now), usegmt=True)}; compare the client's"


def _date_form(name: str, value: str) -> Iterator[str]:
    when, what = _moment(value)
    right = f"; write {formatdate(when, usegmt=True)}" if when is not None else ""
    yield f"{name} is {what}{right}"


def _moment(value: str) -> tuple[int | None, str]:
    """(Unix seconds, what form it is) of a date that HTTP does not know."""
    try:
        if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", value, re.A):
            return int(float(value)), "in Unix seconds, not an HTTP date"
        if re.fullmatch(r"[0-9]{12,14}", value, re.A):
            return int(value) // 1000, "in milliseconds, not an HTTP date"
        if re.match(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}", value, re.A):
            found = datetime.fromisoformat(value)
            known = found.tzinfo is not None
            return int(found.timestamp()) if known else None, "in ISO 8601, not an HTTP date"
    except (ValueError, OverflowError, OSError):
        return None, "not an HTTP date (Sun, 06 Nov 1994 08:49:37 GMT)"
    try:
        found = parsedate_to_datetime(value)
        if found.tzinfo is not None and found.utcoffset():
            return int(found.timestamp()), "in another zone than GMT"
        if found.tzinfo is not None:
            return int(found.timestamp()), "not exactly in HTTP's form"
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        pass
    return None, "not an HTTP date (Sun, 06 Nov 1994 08:49:37 GMT)"


def _listed(message: Message, claim: Claim) -> Iterator[str]:
    present = {name for name, _ in message.headers}
    for item in claim.headers:
        name = item.lower()
        if item in PSEUDO and name not in present:
            yield f"{item} is not known here; the request line is listed as @request-target"
        elif name == "@request-target" and item != name:
            yield "@request-target is written in lower case"
        elif item in ("(created)", "(expires)"):
            yield f"{item} is not known here; sign date"
        elif item and item != "@request-target" and not {name, name.replace("_", "-")} & present:
            yield f"headers= lists {item}, but the request has no such header; the server leaves its line out"


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
    if scheme.name == "apisix":
        maker = Apisix(message, claim)
    else:
        strings = trace.strings or list(scheme.signing_strings(message, claim, scheme.cover(message, claim)))
        maker = Fixed(strings[0][1])
    found = search(maker, secrets, claim, received, 3)
    if found:
        yield from found
    elif found is not None:
        yield "the signature itself is right"
    elif failure.reason in (Reason.SIGNATURE_MISMATCH, Reason.SIGNATURE_MALFORMED):
        yield "none of the usual mistakes gives this signature: compare the strings, then the secret"
