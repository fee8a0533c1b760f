"""hmacproxy's signature: a header of any name holds `<digest> <base64>` over method, chosen headers, target and body.

Worked example. Secret `foobar`, digest sha1, headers `Content-Type, Date`; `POST /foo/bar` with the body `hello` and no
Date at all:

    POST\\n
    application/json\\n
    \\n
    /foo/bar\\n
    hello

HMAC-SHA1 of that in base64, behind the digest's name: `X-Signature: sha1 ktTuLcsWCiIFVPizoReq0D3Orbg=`.

Unlike the other formats, the request says neither who signed nor what is covered: both sides are configured alike, so a
scheme here is an object, and the MAC goes on into the body, so that nothing is known before its end
(`core.identity.MacRule`). Called through `schemes.SCHEMES` and by what is configured; standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import unquote_to_bytes

from ..core.identity import Carrier, Failure
from ..core.macs import encode_base64
from ..core.message import Message, split_target
from ..core.reasons import Reason
from .base import Claim, Cover

#: Names on the wire, which are hashlib's. The original also knows md4 and ripemd160, and its builds leave them out.
DIGESTS: Final = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
#: Go keeps these out of a request's headers, so the original signs an empty line for them.
UNSEEN: Final = frozenset({"host", "transfer-encoding", "trailer"})
#: Headers that make up a message or a connection, and so cannot hold a signature.
TAKEN: Final = UNSEEN | {"connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "upgrade"}


@dataclass(frozen=True, slots=True)
class HmacProxy:
    """hmacproxy as it is configured: the signature's header, the signed headers in order, the keys that may sign.

    `strict` refuses targets whose decoded path holds `?`, `#` or a line end: their strings are those of other targets,
    and a line end may as well begin a body.
    """

    name: ClassVar[str] = "hmacproxy"
    components: ClassVar[frozenset[str]] = frozenset()
    form: ClassVar[str] = "before the body"

    sign_header: str = "X-Signature"
    headers: tuple[str, ...] = ()
    key_ids: tuple[str, ...] = ()
    strict: bool = True

    @property
    def carriers(self) -> frozenset[Carrier]:
        """The one header."""
        return frozenset({Carrier("header", self.sign_header.lower())})

    def parse(self, message: Message) -> Claim | Failure | None:
        """Read the signature header. None where it is absent or empty; SIGNATURE_MALFORMED unless it has two parts.

        The claim's `signature` is the whole text, which is what is compared.
        """
        name = self.sign_header.lower()
        text = message.get(name)
        if not text:
            return None
        if name in message.duplicated or "," in text:  # a comma: WSGI servers join what came twice
            return Failure(Reason.DUPLICATE_HEADER, facts={"header": name})
        parts = text.split(" ")
        if len(parts) != 2:
            return Failure(Reason.SIGNATURE_MALFORMED, "not a digest's name, one blank and base64")
        if self.strict:
            path = _decoded(split_target(message.target)[0])
            for what, sign in (("?", "?"), ("#", "#"), ("a line end", "\n")):
                if sign in path:
                    why = f"the decoded path holds {what}, which makes its signature that of another request"
                    return Failure(Reason.AMBIGUOUS_PATH, facts={"why": why})
        return Claim(self.key_ids[0] if self.key_ids else "", parts[0], self.headers, text)

    def cover(self, message: Message, claim: Claim) -> Cover:
        """The target, the body, and the configured headers that came. Repeated headers are signed whole."""
        lines = tuple(_value(message, name) for name in claim.headers)
        present = {
            name for name in map(str.lower, claim.headers) if name not in UNSEEN and message.get(name) is not None
        }
        return Cover(frozenset({"@request-target", "@body", *present}), lines)

    def signing_string(self, message: Message, claim: Claim, cover: Cover) -> bytes:
        """What is signed before the body."""
        return self.head(message)

    def other_strings(self, message: Message, claim: Claim, cover: Cover) -> Iterator[tuple[str, bytes]]:
        """There is one form only."""
        return iter(())

    def head(self, message: Message) -> bytes:
        """Method, header values, and the decoded path with the raw query; a line each."""
        path, query = split_target(message.target)
        path = _decoded(path)
        target = f"{path}?{query}" if query else path
        lines = [message.method, *(_value(message, name) for name in self.headers), target, ""]
        return "\n".join(lines).encode("latin-1")

    def sign(
        self,
        message: Message,
        *,
        key_id: str = "",
        secret: bytes,
        algorithm: str = "sha1",
        headers: Sequence[str] | None = None,
        body: bytes = b"",
    ) -> list[tuple[str, str]]:
        """The signature header for a message and its whole body; `headers` stands in for the configured ones.

        `algorithm` is one of DIGESTS, with or without `hmac-` in front. `key_id` is not sent.
        """
        scheme = self if headers is None else HmacProxy(self.sign_header, tuple(headers))
        digest = algorithm.removeprefix("hmac-")
        running = hmac.new(secret, scheme.head(message), digest)
        running.update(body)
        return [(self.sign_header, text(digest, running.digest()))]


def text(digest: str, mac: bytes) -> str:
    """A signature header's value."""
    return f"{digest} {encode_base64(mac)}"


def available() -> tuple[str, ...]:
    """The digests that this Python can make: a system's policy may leave MD5 out."""
    return tuple(name for name in DIGESTS if name in hashlib.algorithms_available)


def _decoded(path: str) -> str:
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1") if "%" in path else path


def _value(message: Message, name: str) -> str:
    name = name.lower()
    return "" if name in UNSEEN else ",".join(message.get_all(name))
