"""Why a signature does not hold: the same check with a recorder, then the mistakes that people make.

Used by the debugger and `hmac_explain`; nothing on a request's path calls it. Never raises. What it returns holds
signing strings and what the client sent, never a secret and never a MAC that was computed here. Standard library
only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime
from itertools import combinations, permutations
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from ..core.credential import Credential, Lookup
from ..core.dates import parse_http_date
from ..core.identity import BodyRule, Failure, Verified
from ..core.macs import ALGORITHMS, DIGESTS, decode_base64, encode_base64
from ..core.message import Message, split_target
from ..core.reasons import Reason
from ..core.trace import Step, Trace
from .base import Claim, Scheme
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
    words where the client's own string leaves them, `parts_at` the same as numbers.
    """

    verdict: str
    reason: str = ""
    steps: tuple[Step, ...] = ()
    strings: tuple[tuple[str, str], ...] = ()
    hints: tuple[str, ...] = ()
    difference: str = ""
    parts_at: Difference | None = None


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
    compared only where the policy asks for it and the head was right.
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
    parting = _parting(trace.strings, client_string)
    try:
        if isinstance(result, Verified) and isinstance(result.body, BodyRule) and body is not None:
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
    )


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
    unusable = any(step.name == "key" and not step.ok for step in steps)
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

#: What other formats call the request line.
_PSEUDO: Final = ("(request-target)", "request-line", "request-target", ":path")
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
        if item in _PSEUDO and name not in present:
            yield f"{item} is not known here; the request line is listed as @request-target"
        elif name == "@request-target" and item != name:
            yield "@request-target is written in lower case"
        elif item in ("(created)", "(expires)"):
            yield f"{item} is not known here; sign date"
        elif item and item != "@request-target" and not {name, name.replace("_", "-")} & present:
            yield f"headers= lists {item}, but the request has no such header; the server leaves its line out"


# --- mistakes that only a computed MAC can show ---


class _Option(NamedTuple):
    """One way to go wrong: which part of the recipe it changes, to what, and how it is said."""

    part: str
    value: Any
    hint: str
    common: bool = False


_Recipe = dict[str, Any]
#: At most so many bytes are signed in search of a mistake.
_BUDGET: Final = 32 * 1024 * 1024


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
    received = dict(reversed(list(_readings(claim.signature))))
    if not secrets or not received:
        if claim.signature and not received:
            yield "the signature is neither base64 nor hex"
        return
    if client_string is not None:
        found = _search(_Fixed(client_string), secrets, claim, received, 1)
        if found is not None:
            yield from found
            if client_string not in (string for _, string in trace.strings):
                yield "the signature is right for the client's string: the string is what differs"
            return
    maker: _Fixed | _Apisix
    if scheme.name == "apisix":
        maker = _Apisix(message, claim)
    else:
        strings = trace.strings or list(scheme.signing_strings(message, claim, scheme.cover(message, claim)))
        maker = _Fixed(strings[0][1])
    found = _search(maker, secrets, claim, received, 3)
    if found:
        yield from found
    elif found is not None:
        yield "the signature itself is right"
    elif failure.reason in (Reason.SIGNATURE_MISMATCH, Reason.SIGNATURE_MALFORMED):
        yield "none of the usual mistakes gives this signature: compare the strings, then the secret"


def _search(
    maker: _Fixed | _Apisix, secrets: Sequence[bytes], claim: Claim, received: dict[bytes, str], most: int
) -> list[str] | None:
    """The hints of the first recipe, by number of mistakes, that gives a MAC that came; None when none does."""
    budget = _BUDGET
    for secret in secrets:
        options = [*maker.options(), *_secret_options(secret, claim.key_id), *_algorithm_options(claim.algorithm)]
        common = [option for option in options if option.common]
        for count in range(most + 1):
            for name, base in maker.bases():
                if name and count > 1:
                    continue
                for chosen in combinations(options if count < 3 else common, count):
                    parts = {option.part for option in chosen}
                    if len(parts) < count or parts & base.keys():
                        continue
                    recipe = {**base, **{option.part: option.value for option in chosen}}
                    string = maker.build(recipe)
                    budget -= len(string)
                    if budget < 0:
                        return None
                    compute = recipe.get("algorithm") or _mac(claim.algorithm)
                    hint = None if compute is None else received.get(compute(recipe.get("secret", secret), string))
                    if hint is not None:
                        return [text for text in (name, *(option.hint for option in chosen), hint) if text]
    return None


def _mac(algorithm: str) -> Callable[[bytes, bytes], bytes] | None:
    name = ALGORITHMS.get(algorithm)
    return None if name is None else lambda secret, string: hmac.digest(secret, string, name)


def _readings(text: str) -> Iterator[tuple[bytes, str]]:
    """(bytes, what is wrong with their form): how a signature may be meant. The first is the right way."""
    data = decode_base64(text)
    if data is not None:
        yield data, ""
    stripped = text.strip()
    if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", stripped):
        yield bytes.fromhex(stripped), "the signature is written in hex; it must be the base64 of the MAC's bytes"
    if data is not None and re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", data.strip()):
        yield (
            bytes.fromhex(data.strip().decode()),
            "the signature is the base64 of hex digits; it must be that of the MAC's bytes",
        )
    if data is not None and (twice := decode_base64(data.decode("latin-1").strip())) is not None:
        yield twice, "the signature is base64-encoded twice"
    url = decode_base64(text.replace("-", "+").replace("_", "/"))
    if url is not None and url != data:
        yield url, "the signature is in the URL alphabet of base64; + and / must stand for - and _"
    unescaped = decode_base64(unquote_to_bytes(text.encode("latin-1")).decode("latin-1"))
    if unescaped is not None and unescaped != data:
        yield unescaped, "the signature is percent-encoded"
    plus = decode_base64(text.replace(" ", "+"))
    if plus is not None and plus != data:
        yield plus, "a + of the signature has become a blank on its way"
    cut = decode_base64("".join(text.split()))
    if cut is not None and cut != data:
        yield cut, "blanks stand in the signature"


def _secret_options(secret: bytes, key_id: str) -> Iterator[_Option]:
    def option(value: bytes, hint: str) -> Iterator[_Option]:
        if value != secret:
            yield _Option("secret", value, hint)

    decoded = decode_base64(secret.decode("latin-1"))
    if decoded:
        yield from option(decoded, "the secret was base64-decoded first; its text is the key")
    if re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", secret):
        yield from option(bytes.fromhex(secret.decode()), "the secret was hex-decoded first; its text is the key")
    yield from option(secret + b"\n", "a newline was signed with as a part of the secret (echo without -n?)")
    yield from option(secret + b"\r\n", "a line end was signed with as a part of the secret")
    yield from option(secret.strip(), "blanks around the secret were cut off; they belong to it")
    yield from option(secret + b" ", "a blank after the secret was signed with")
    yield from option(b" " + secret, "a blank before the secret was signed with")
    yield from option(b'"' + secret + b'"', "quotes around the secret were signed with")
    yield from option(b"'" + secret + b"'", "quotes around the secret were signed with")
    yield from option(encode_base64(secret).encode(), "the secret was base64-encoded first; its text is the key")
    yield from option(secret.hex().encode(), "the secret was hex-encoded first; its text is the key")
    yield from option(key_id.encode("latin-1"), "the key id was used as the secret")
    yield from option(hashlib.sha256(secret).digest(), "the secret was hashed first; its text is the key")
    yield from option(hashlib.sha256(secret).hexdigest().encode(), "the secret was hashed first; its text is the key")
    yield from option(b"", "the secret was empty when the client signed")


def _algorithm_options(declared: str) -> Iterator[_Option]:
    for name in ALGORITHMS:
        if name != declared:
            hint = f"the MAC is {name}'s, but algorithm= says {declared}" if declared else f"the MAC is {name}'s"
            yield _Option("algorithm", _mac(name), hint)
    digest = ALGORITHMS.get(declared, "sha256")
    yield _Option("algorithm", lambda key, string: hmac.digest(key, string, "md5"), "the MAC is HMAC-MD5's")
    plain = "a plain hash was made, not an HMAC"
    yield _Option("algorithm", lambda key, string: hashlib.new(digest, string).digest(), plain)
    yield _Option("algorithm", lambda key, string: hashlib.new(digest, key + string).digest(), plain)
    yield _Option("algorithm", lambda key, string: hashlib.new(digest, string + key).digest(), plain)
    swapped = "key and data of the HMAC were swapped"
    yield _Option("algorithm", lambda key, string: hmac.digest(string, key, digest), swapped)


_ENDS: Final = (
    _Option("sep", "\r\n", "lines end in CRLF; they must end in LF", common=True),
    _Option("sep", "\\n", "a backslash and an n were signed where a newline has to stand"),
    _Option("end", "toggle", "", common=True),
)


class _Fixed:
    """A string that is only varied in its line ends."""

    def __init__(self, string: bytes) -> None:
        self.string = string

    def bases(self) -> list[tuple[str, _Recipe]]:
        return [("", {})]

    def options(self) -> list[_Option]:
        hint = "the final newline is missing" if self.string.endswith(b"\n") else "no newline may follow the last line"
        return [*_ENDS[:2], _Option("end", "toggle", hint, common=True)]

    def build(self, recipe: _Recipe) -> bytes:
        string = self.string
        if "end" in recipe:
            string = string.removesuffix(b"\n") if string.endswith(b"\n") else string + b"\n"
        return string.replace(b"\n", recipe.get("sep", "\n").encode())


class _Apisix:
    """The APISIX string taken apart, so that each part can be got wrong."""

    def __init__(self, message: Message, claim: Claim) -> None:
        self.message = message
        self.claim = claim
        path, query = split_target(message.target)
        self.target = f"{path}?{query}" if "?" in message.target else path
        self.items = [item for item in claim.headers if item]

    def bases(self) -> list[tuple[str, _Recipe]]:
        kong = "the string is Kong's (no key id, no final newline); APISIX begins with the key id and ends in a newline"
        cavage = (
            "the string is that of draft-cavage-http-signatures; APISIX begins with the key id and signs METHOD target"
        )
        short: _Recipe = {"key": False, "end": ""}
        return [
            ("", {}),
            (kong, {**short, "line": "@request-target: {lower} {target}"}),
            (kong, {**short, "line": "{method} {target} HTTP/" + self.message.http_version}),
            (cavage, {**short, "line": "(request-target): {lower} {target}", "names": "lower"}),
        ]

    def options(self) -> list[_Option]:
        return [
            _Option("key", False, "the line of the key id is missing; the string begins with it", common=True),
            _Option("end", "", "the final newline is missing", common=True),
            _Option("end", "\n\n", "one newline too many ends the string"),
            *_ENDS[:2],
            *self._lines(),
            *self._targets(),
            *self._names(),
            *self._dates(),
            *self._order(),
        ]

    def _lines(self) -> Iterator[_Option]:
        listed = any(self._stands_for_target(item) for item in self.items)
        if listed and "@request-target" not in self.items:
            yield _Option("line", "{method} {target}", "the request line is listed as @request-target", True)
        for line, hint, common in (
            ("{lower} {target}", "the method is signed in lower case; APISIX signs it as it is sent", True),
            ("@request-target: {method} {target}", "the line of @request-target has no name in front", True),
            (
                "@request-target: {lower} {target}",
                "the line of @request-target is Kong's; here it is METHOD target",
                True,
            ),
            (
                "(request-target): {lower} {target}",
                "(request-target) is draft-cavage's; here it is METHOD target",
                True,
            ),
            ("{method} {target} HTTP/1.1", "the HTTP version is no part of the line of @request-target", True),
            ("{method}{target}", "a blank stands between method and target", False),
            ("{method}\n{target}", "method and target stand on one line", False),
            ("{method}: {target}", "a blank alone stands between method and target", False),
            ("{target}", "the method is missing before the target", False),
        ):
            if listed and not (line.startswith("{lower}") and self.message.method == self.message.method.lower()):
                yield _Option("line", line, hint, common)
        if not listed:
            for place in ("first", "last"):
                yield _Option("extra", place, "the request line is signed, but @request-target is not in headers=")

    def _targets(self) -> Iterator[_Option]:
        path, query = split_target(self.target)
        tail = f"?{query}" if query else ""
        decoded = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        encoded = quote(decoded.encode("latin-1"), safe="/-._~")
        query_decoded = unquote_to_bytes(query.replace("+", " ").encode("latin-1")).decode("latin-1")
        segments = path.split("/")
        seen = {self.target}
        choices: list[tuple[str, str]] = []
        if query:
            pieces = query.split("&")
            choices += [
                ("the query is left out of the target", path),
                (
                    "the arguments of the query are sorted; they are signed as sent",
                    f"{path}?{'&'.join(sorted(pieces))}",
                ),
                ("the query is percent-decoded; it is signed as sent", f"{path}?{query_decoded}"),
                ("path and query are percent-decoded; they are signed as sent", f"{decoded}?{query_decoded}"),
                (
                    "the query is encoded once more; it is signed as sent",
                    f"{path}?{quote(query, safe='=&', encoding='latin-1')}",
                ),
                ("blanks of the query are + in one place and %20 in another", f"{path}?{query.replace('+', '%20')}"),
                ("blanks of the query are + in one place and %20 in another", f"{path}?{query.replace('%20', '+')}"),
            ]
        choices += [
            ("the path is percent-decoded; it is signed as sent", decoded + tail),
            ("the path is percent-encoded otherwise than it is sent", encoded + tail),
            ("the path is encoded once more", quote(path, safe="/", encoding="latin-1") + tail),
            ("escapes differ in the case of their digits", _escapes(self.target, str.lower)),
            ("escapes differ in the case of their digits", _escapes(self.target, str.upper)),
            ("the target begins with a /", self.target.removeprefix("/")),
            ("a / ends the path in one place only", path.removesuffix("/") + tail),
            ("a / ends the path in one place only", path + "/" + tail),
        ]
        for depth in range(2, min(len(segments), 5)):
            choices.append(
                (
                    "a prefix of the path is missing: the target is signed as the client sends it",
                    "/" + "/".join(segments[depth:]) + tail,
                )
            )
        for origin in (f"http://{self.message.authority}", f"https://{self.message.authority}", self.message.authority):
            choices.append(("the whole URL is signed; the target is path and query", origin + self.target))
        if any(self._stands_for_target(item) for item in self.items):
            for hint, target in choices:
                if target not in seen:
                    seen.add(target)
                    yield _Option("target", target, hint)

    def _names(self) -> Iterator[_Option]:
        present = [item for item in self.items if self._value(item) is not None]
        if any(item != item.lower() for item in present):
            yield _Option("names", "lower", "names stand in the string in lower case, but not in headers=", common=True)
        if any(item != _capital(item) for item in present):
            yield _Option("names", "capital", "names stand in the string capitalised, but not in headers=", common=True)
        if present:
            yield _Option("glue", ":", "a blank follows the colon after a header's name", common=True)
            yield _Option("names", "none", "header lines are name: value, not the value alone")
        if len(present) < len(self.items):
            hint = "listed headers that are absent have no line at all"
            yield _Option("absent", ":", hint)
            yield _Option("absent", ": ", hint)

    def _dates(self) -> Iterator[_Option]:
        if not any(item.lower() == "date" for item in self.items):
            return
        then = parse_http_date(self.message.get("date") or "")
        if then is not None:
            for off in (1, -1, 2, -2, 3, -3, 4, -4, 5, -5, -(then % 60), 60 - then % 60):
                if off:
                    yield _Option(
                        "date",
                        formatdate(then + off, usegmt=True),
                        "another Date is signed than is sent: take the time once and use it in both places",
                    )
        other = self.message.get("x-date")
        if other is not None and other != self.message.get("date"):
            yield _Option("date", other, "the line of date holds the value of X-Date")

    def _order(self) -> Iterator[_Option]:
        count = len(self.items)
        if 1 < count <= 4:
            for order in permutations(range(count)):
                if order != tuple(range(count)):
                    yield _Option("order", order, "the lines stand in another order than the names in headers=")
        elif count > 4:
            by_name = tuple(sorted(range(count), key=self.items.__getitem__))
            yield _Option("order", by_name, "the lines are sorted; they stand in the order of headers=")
            yield _Option(
                "order", tuple(reversed(range(count))), "the lines stand in another order than the names in headers="
            )
        for place, item in enumerate(self.items[:10]):
            order = tuple(other for other in range(count) if other != place)
            yield _Option("order", order, f"the line of {item} is missing, though headers= lists it")

    def _stands_for_target(self, item: str) -> bool:
        return item == "@request-target" or (item in _PSEUDO and self._value(item) is None)

    def _value(self, item: str) -> str | None:
        name = item.lower()
        value = self.message.get(name)
        return self.message.get(name.replace("_", "-")) if value is None else value

    def build(self, recipe: _Recipe) -> bytes:
        method = self.message.method
        request_line = recipe.get("line", "{method} {target}").format(
            method=method, lower=method.lower(), target=recipe.get("target", self.target)
        )
        lines = [self.claim.key_id] if recipe.get("key", True) else []
        if recipe.get("extra") == "first":
            lines.append(request_line)
        for place in recipe.get("order", range(len(self.items))):
            item = self.items[place]
            value = self._value(item)
            if item == "@request-target" or ("line" in recipe and self._stands_for_target(item)):
                lines.append(request_line)
                continue
            if value is None:
                if "absent" in recipe:
                    lines.append(item + recipe["absent"])
                continue
            if item.lower() == "date" and "date" in recipe:
                value = recipe["date"]
            match recipe.get("names"):
                case "none":
                    lines.append(value)
                    continue
                case "lower":
                    item = item.lower()
                case "capital":
                    item = _capital(item)
            lines.append(item + recipe.get("glue", ": ") + value)
        if recipe.get("extra") == "last":
            lines.append(request_line)
        text: str = "\n".join(lines) + recipe.get("end", "\n")
        return text.replace("\n", recipe.get("sep", "\n")).encode("latin-1")


def _capital(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def _escapes(text: str, change: Callable[[str], str]) -> str:
    return re.sub(r"%[0-9A-Fa-f]{2}", lambda match: change(match[0]), text)
