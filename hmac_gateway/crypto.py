"""Sealing of secrets at rest: HMAC needs them back in clear, so they are encrypted, not hashed.

Called by the models, the compile step and the console. May import the standard library, cryptography, Django and
`conf`; knows no model.
"""

from __future__ import annotations

import hmac
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.core.exceptions import ImproperlyConfigured

from .conf import conf

_CANARY = "hmac_gateway canary"
_HOW = (
    "Make a key with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())' "
    "and put it first in HMAC_GATEWAY['ENCRYPTION_KEYS'] (of the standalone gateway: the variable "
    "HMAC_GATEWAY_ENCRYPTION_KEYS)."
)


class CannotOpen(Exception):
    """A sealed text was made with a key that is not configured, or was damaged. Never carries the text."""


@lru_cache(maxsize=8)
def _box(keys: tuple[str, ...]) -> MultiFernet:
    # Keyed by the list itself: a changed setting gives a new box, with no reload hook.
    if not keys:
        raise ImproperlyConfigured(f"HMAC_GATEWAY['ENCRYPTION_KEYS'] is empty: secrets cannot be kept. {_HOW}")
    boxes = []
    for number, key in enumerate(keys, start=1):
        try:
            boxes.append(Fernet(key))
        except (ValueError, TypeError) as error:
            raise ImproperlyConfigured(
                f"HMAC_GATEWAY['ENCRYPTION_KEYS']: key {number} is not 32 bytes in URL-safe base64. {_HOW}"
            ) from error
    return MultiFernet(boxes)


def _current() -> MultiFernet:
    return _box(tuple(conf.encryption_keys))


def require_keys() -> None:
    """Raise ImproperlyConfigured, which says what to do, where nothing could be sealed."""
    _current()


def seal(plaintext: str) -> str:
    """Encrypt `plaintext` under the newest key. Raises ImproperlyConfigured when no usable key is set."""
    return _current().encrypt(plaintext.encode()).decode()


def open_sealed(token: str) -> str:
    """Return the text sealed in `token`, trying every configured key. Raises CannotOpen."""
    box = _current()
    try:
        return box.decrypt(token).decode()
    except (InvalidToken, ValueError):
        # From None: the original error's frames hold the token.
        raise CannotOpen("sealed with a key that is not in HMAC_GATEWAY_ENCRYPTION_KEYS, or damaged") from None


def reseal(token: str) -> str:
    """Return `token` sealed anew under the newest key. Raises CannotOpen."""
    box = _current()
    try:
        return box.rotate(token).decode()
    except (InvalidToken, ValueError):
        raise CannotOpen("sealed with a key that is not in HMAC_GATEWAY_ENCRYPTION_KEYS, or damaged") from None


def fingerprint(plaintext: str | bytes, context: str, key: bytes) -> str:
    """Return the 64 hex digits by which a secret can be found without storing it in clear.

    `context` keeps equal texts of different uses apart. `key` comes from `ConfigVersion.fingerprint_bytes()`; it
    outlives the encryption keys, so fingerprints survive their rotation. Text counts as its UTF-8 bytes.
    """
    text = plaintext.encode() if isinstance(plaintext, str) else plaintext
    return hmac.digest(key, context.encode() + b"\0" + text, "sha256").hex()


def make_canary() -> str:
    """Return a sealed known text; `check_canary` on it tells whether the keys are still the right ones."""
    return seal(_CANARY)


def check_canary(token: str) -> bool:
    """Say whether `token`, from `make_canary`, opens with the configured keys."""
    try:
        return open_sealed(token) == _CANARY
    except CannotOpen:
        return False
