"""What is wrong with a body, or with what a request says of it. Used by `explain`; standard library only."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from ..core.credential import Credential
from ..core.identity import BodyRule, MacRule
from ..core.macs import DIGESTS, decode_base64
from ..core.message import Message
from ..core.reasons import Reason
from ..core.trace import Trace
from . import mistakes_hmacproxy
from .base import Claim
from .hmacproxy import HmacProxy
from .mistakes import readings, search

#: Bytes of a body that are shown with the string they belong to.
SHOWN: Final = 4096


def judge_whole(
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


def judge(
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


def surely_empty(message: Message) -> bool:
    """Whether a message's head says that it has no body; HTTP/2 need not announce one."""
    return not message.may_have_body and (message.http_version[0] == "1" or message.content_length is not None)
