"""JSON Web Tokens made with plain `hmac` and `cryptography`, and key pairs for every algorithm.

token("RS256", {"key": "joe"})        signed with RS256's own pair
PUBLIC("RS256")                       its public key in PEM
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SYMMETRIC = ("HS256", "HS384", "HS512")
PAIRS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA")
SECRET = "a secret that both sides have, long enough for HS512 as RFC 7518 3.2 wants it"

_HASHES: dict[str, Any] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
_CURVES: dict[str, tuple[Any, int]] = {
    "ES256": (ec.SECP256R1, 32),
    "ES384": (ec.SECP384R1, 48),
    "ES512": (ec.SECP521R1, 66),
}


@cache
def pair(algorithm: str, number: int = 0) -> Any:
    """A private key for an algorithm; another one for another number."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm][0]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm[:2] == "PS":
        return pair("RS" + algorithm[2:], number)
    return rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else pair("RS256", number)


def public_pem(key: Any) -> str:
    """A key's public half in PEM."""
    public = key.public_key() if hasattr(key, "public_key") else key
    text: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def PUBLIC(algorithm: str) -> str:  # noqa: N802
    """The public key of an algorithm's own pair, in PEM."""
    return public_pem(pair(algorithm))


def private_pem(key: Any) -> str:
    """A private key in PEM."""
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


def encode(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: Any) -> str:
    """A token's part: JSON, or bytes as they are."""
    return encode(value if isinstance(value, bytes) else json.dumps(value).encode())


def signature(algorithm: str, data: bytes, key: Any = None) -> bytes:
    """RFC 7518 3.2 to 3.5, RFC 8037 3.1."""
    if algorithm[:2] == "HS":
        return hmac.digest((key or SECRET).encode() if not isinstance(key, bytes) else key, data, f"sha{algorithm[2:]}")
    key = key or pair(algorithm)
    if algorithm == "EdDSA":
        made: bytes = key.sign(data)
        return made
    method = _HASHES[algorithm[2:]]()
    if algorithm[:2] == "ES":
        size = _CURVES[algorithm][1]
        first, second = decode_dss_signature(key.sign(data, ec.ECDSA(method)))
        return first.to_bytes(size, "big") + second.to_bytes(size, "big")
    if algorithm[:2] == "PS":
        filled: Any = padding.PSS(padding.MGF1(method), method.digest_size)
    else:
        filled = padding.PKCS1v15()
    made = key.sign(data, filled, method)
    return made


def token(algorithm: str, claims: Any, header: Any = None, key: Any = None) -> str:
    """A token; `header` stands in for {"typ", "alg"}, `key` for the algorithm's own."""
    head = {"typ": "JWT", "alg": algorithm} if header is None else header
    signed = f"{part(head)}.{part(claims)}"
    return f"{signed}.{encode(signature(algorithm, signed.encode(), key))}"
