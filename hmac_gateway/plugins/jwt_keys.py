"""Keys of `jwt-auth`: what a credential may hold, and its key made ready once for many requests.

Called by `jwt_auth`, `jwt_sign` and whatever writes credentials. May import `core`, cryptography and jwt.

Of PyJWT only the algorithms are used: tokens are read and claims are judged by `jwt_auth`, at a given time.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from ..core.credential import Credential

#: Signed with a secret that both sides have (RFC 7518 3.2), and with a key pair (3.3 to 3.5, RFC 8037).
SYMMETRIC: Final = ("HS256", "HS384", "HS512")
ALGORITHMS: Final = (
    *SYMMETRIC,
    *("RS256", "RS384", "RS512"),
    *("ES256", "ES384", "ES512"),
    *("PS256", "PS384", "PS512"),
    "EdDSA",
)
DEFAULT_ALGORITHM: Final = "HS256"
#: RFC 7518 3.4.
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
#: RFC 7518 3.3 and 3.5, in bits.
MIN_RSA: Final = 2048
#: Seconds. Configured times have no upper limit; a float has.
_LONGEST: Final = 10**12

_DEPENDENT: Final = (
    'failed to validate dependent schema for "algorithm": value should match only one schema, but matches none'
)
_PEM: Final = re.compile(r"(-----BEGIN [A-Z ]+-----)([A-Za-z0-9+/=\s]*)(-----END [A-Z ]+-----)")
_KNOWN: Final = get_default_algorithms()
#: What loading a text that is no such key raises, besides ValueError.
_NO_KEY: Final = (ValueError, TypeError, UnsupportedAlgorithm, InvalidKeyError)


class Problem(NamedTuple):
    """What is wrong with a credential: the field, what would be right, and APISIX's words. Never a value."""

    field: str
    allowed: str
    text: str


class Keys(NamedTuple):
    """A credential made ready. `public` is the key that signatures are verified with, None for a shared secret."""

    algorithm: str
    verifier: Algorithm
    public: Any
    base64: bool
    grace: float
    lifetime: int
    #: By the secret as it was opened, and whether it was taken for base64: what is signed with.
    ready: dict[tuple[bytes, bool], Any]


def sealed_field(config: Mapping[str, Any]) -> str:
    """The field of a credential that must be kept sealed: `secret`, or `private_key` where the algorithm has one."""
    return "secret" if config.get("algorithm", DEFAULT_ALGORITHM) in SYMMETRIC else "private_key"


def is_public(text: str) -> bool:
    """Whether a text is a public key of any kind, in PEM."""
    try:
        load_pem_public_key(_pem(text))
    except _NO_KEY:
        return False
    return True


def problem(config: Mapping[str, Any], secret: str | None) -> Problem | None:
    """What is wrong with a credential that its schema accepts, or None.

    `secret` is the text of its sealed field, "" for none; None where there is one that cannot be looked at.
    """
    algorithm = config.get("algorithm", DEFAULT_ALGORITHM)
    sealed = sealed_field(config)
    for other in ("secret", "private_key"):
        if other != sealed and config.get(other):
            text = f'property "{other}" is not used with algorithm {algorithm}'
            return Problem(other, f"nothing: it is not used with algorithm {algorithm}", text)
    given = config.get("public_key")
    if sealed == "secret":
        if given:
            # Of no use here, and shown as it is: whoever mistook the field for another one must not leave a secret.
            try:
                load_pem_public_key(_pem(given))
            except _NO_KEY:
                wanted = "a PEM public key, or nothing"
                return Problem("public_key", wanted, f'property "public_key" validation failed: not {wanted}')
        return _shared(secret, bool(config.get("base64_secret", False)))
    if not given:
        return Problem("public_key", f"a PEM public key, which algorithm {algorithm} needs", _DEPENDENT)
    try:
        public = _public(algorithm, given)
    except _NO_KEY:
        wanted = f"a PEM public key for algorithm {algorithm}{_size(algorithm)}"
        return Problem("public_key", wanted, f'property "public_key" validation failed: not {wanted}')
    if secret:
        wanted = "a PEM private key without a passphrase, the one that belongs to the public key"
        try:
            matches = load_pem_private_key(_pem(secret), None).public_key() == public
        except _NO_KEY:
            matches = False
        if not matches:
            return Problem("private_key", wanted, f'property "private_key" validation failed: not {wanted}')
    return None


def _shared(secret: str | None, base64: bool) -> Problem | None:
    if secret is None:
        return None
    if not secret:
        text = 'property "secret" is required when using HS based algorithms'
        return Problem("secret", "a secret, which HS256, HS384 and HS512 need", text)
    try:
        key = _bytes(secret.encode(), base64)
    except ValueError:
        text = "base64_secret required but the secret is not in base64 format"
        return Problem("secret", "base64 in the standard or the URL alphabet, as base64_secret says", text)
    try:
        _secret(key)
    except _NO_KEY:
        # Whoever knows a public key could sign with it.
        wanted = "a secret; this is empty, or a key or certificate that others may know"
        return Problem("secret", wanted, f'property "secret" validation failed: must be {wanted}')
    return None


def _size(algorithm: str) -> str:
    if algorithm in _CURVES:
        return f", of the curve {_CURVES[algorithm]}"
    return "" if algorithm == "EdDSA" else f", RSA of at least {MIN_RSA} bits"


def _bytes(secret: bytes, base64: bool) -> bytes:
    """The bytes of a shared secret; ValueError where it is not the base64 it should be."""
    if not base64:
        return secret
    digits = secret.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return b64decode(digits + b"=" * (-len(digits) % 4), validate=True)


def _secret(key: bytes) -> bytes:
    """A shared secret that is one: not empty, no key or certificate that others may know (InvalidKeyError)."""
    if not key:
        raise InvalidKeyError("empty")
    found: bytes = _KNOWN[DEFAULT_ALGORITHM].prepare_key(key)
    return found


def _pem(text: str) -> bytes:
    """A PEM text with its line ends, which one-line form fields take away (RFC 7468 2)."""
    found = _PEM.fullmatch(text.strip())
    if found is None:
        return text.encode()
    begin, body, end = found.groups()
    digits = "".join(body.split())
    lines = [digits[start : start + 64] for start in range(0, len(digits), 64)]
    return "\n".join([begin, *lines, end, ""]).encode()


def _public(algorithm: str, pem: str) -> Any:
    """The public key of a PEM text, which must suit the algorithm; raises one of _NO_KEY."""
    key = load_pem_public_key(_pem(pem))
    if algorithm in _CURVES:
        fits = isinstance(key, EllipticCurvePublicKey) and key.curve.name == _CURVES[algorithm]
    elif algorithm == "EdDSA":
        fits = isinstance(key, Ed25519PublicKey | Ed448PublicKey)
    else:
        fits = isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA
    if not fits:
        raise InvalidKeyError("a key of another kind")
    return key


def keys(credential: Credential) -> Keys | None:
    """A credential's keys, made on first use and kept with it; None where its settings make none.

    Rows may have been written by what validates nothing.
    """
    found: Keys | None = credential.prepared(_keys)
    return found


def _keys(credential: Credential) -> Keys | None:
    settings = credential.settings
    try:
        algorithm = settings.get("algorithm", DEFAULT_ALGORITHM)
        if algorithm not in ALGORITHMS:
            return None
        return Keys(
            algorithm=algorithm,
            verifier=_KNOWN[algorithm],
            public=None if algorithm in SYMMETRIC else _public(algorithm, settings["public_key"]),
            base64=bool(settings.get("base64_secret", False)),
            grace=float(min(int(settings.get("lifetime_grace_period", 0)), _LONGEST)),
            lifetime=min(int(settings.get("exp", 86400)), _LONGEST),
            ready={},
        )
    except (*_NO_KEY, AttributeError, KeyError, OverflowError):
        return None


def signing_keys(credential: Credential, made: Keys, now: float, base64: bool | None = None) -> list[Any]:
    """The keys that sign for a credential at `now`, newest first: shared secrets, or private keys.

    Those that cannot be used are left out. `base64` says whether shared secrets are; None: as the credential says.
    """
    found = []
    for secret in credential.open_secrets(now):
        value = secret.reveal(), made.base64 if base64 is None else base64
        if value not in made.ready:
            made.ready[value] = _signing(made, *value)
        key = made.ready[value]
        if key is not None:
            found.append(key)
    return found


def _signing(made: Keys, secret: bytes, base64: bool) -> Any:
    try:
        if made.public is None:
            return _secret(_bytes(secret, base64))
        private: Any = load_pem_private_key(_pem(secret.decode()), None)
        return private if private.public_key() == made.public else None
    except _NO_KEY:
        return None


def holds(
    credential: Credential, made: Keys, signed: bytes, signature: bytes, now: float, base64: bool | None = None
) -> bool | None:
    """Whether a signature over `signed` is the credential's; None where it has no key to tell by.

    `base64` as in `signing_keys`.
    """
    if made.public is not None:
        return made.verifier.verify(signed, made.public, signature)
    secrets = signing_keys(credential, made, now, base64)
    if not secrets:
        return None
    return any(made.verifier.verify(signed, secret, signature) for secret in secrets)
