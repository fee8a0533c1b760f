"""MACs, digests and base64 as signature headers write them. Used by the schemes. Standard library only."""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Final

#: Names on the wire → hashlib's names.
ALGORITHMS: Final = {
    "hmac-sha1": "sha1",
    "hmac-sha256": "sha256",
    "hmac-sha384": "sha384",
    "hmac-sha512": "sha512",
}
#: `Digest` header prefixes (RFC 3230, RFC 5843) → hashlib's names.
DIGESTS: Final = {"SHA-256": "sha256", "SHA-512": "sha512"}

#: A secret nobody has: unknown keys are computed against it, so that they take as long as known ones.
DUMMY_SECRET: Final = hashlib.sha256(b"hmac_gateway: no such key").digest()


def mac(algorithm: str, secret: bytes, data: bytes) -> bytes:
    """The MAC of `data` under `secret`; `algorithm` is a key of ALGORITHMS."""
    inner, outer = _keyed(algorithm, secret)
    inner, outer = inner.copy(), outer.copy()
    inner.update(data)
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=1024)
def _keyed(algorithm: str, secret: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC's two hashes with the key taken in (RFC 2104 2): for a short text half of the work, done once (RFC 2104 4).

    `hmac.digest` does it each time, and lets go of the interpreter's lock: in a server with threads that may cost more
    than the MAC.
    """
    made = hashlib.new(ALGORITHMS[algorithm])
    size = made.block_size
    key = (secret if len(secret) <= size else hashlib.new(made.name, secret).digest()).ljust(size, b"\0")
    inner, outer = (hashlib.new(made.name, bytes(byte ^ pad for byte in key)) for pad in (0x36, 0x5C))
    return inner, outer


#: equal(ours, theirs): constant-time comparison of decoded bytes.
equal: Final[Callable[[bytes, bytes], bool]] = hmac.compare_digest


def decode_base64(text: str) -> bytes | None:
    """Bytes of a base64 text in the standard alphabet, padding optional and nothing after it; else None."""
    if text[-3:-2] == "=" or len(text) % 4:
        digits = text.rstrip("=")
        missing = -len(digits) % 4
        if len(text) - len(digits) > missing:  # too much padding, which strict_mode lets through
            return None
        text = digits + "=" * missing
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error, and text that is not ASCII
        return None


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")
