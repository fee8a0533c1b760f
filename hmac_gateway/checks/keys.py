"""Encryption keys and the admin key: there, well-formed, not to be guessed, never shown. Imports `conf`, `crypto`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from .. import crypto
from ..conf import conf
from .common import settings_only
from .values import readable

#: Shorter admin keys may be guessed. 24 characters of base64 are 144 bits.
MIN_ADMIN_KEY: Final = 24
#: Keys that are printed in manuals (APISIX's admin and viewer).
KNOWN_ADMIN_KEYS: Final = frozenset({"edd1c9f034335f136f87ad84b625c8f1", "4054f7cf07e344346cd3f287985e76a2"})

_MAKE_KEY: Final = (
    "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())' "
    "and keep it: without it stored secrets cannot be read. The standalone gateway and its console take it from the "
    "environment variable HMAC_GATEWAY_ENCRYPTION_KEYS."
)


def check_encryption_keys(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Keys are there, unless nothing is stored, and are Fernet keys."""
    if not readable("ENCRYPTION_KEYS"):
        return
    if not conf.encryption_keys:
        if not settings_only():
            yield Warning(
                "HMAC_GATEWAY['ENCRYPTION_KEYS'] is empty: secrets cannot be stored, and none that are can be read.",
                hint=_MAKE_KEY,
                id="hmac_gateway.W002",
            )
        return
    try:
        crypto.seal("")
    except ImproperlyConfigured as error:
        # The first sentence names the key by its number.
        yield Error(str(error).partition(". ")[0] + ".", hint=_MAKE_KEY, id="hmac_gateway.E005")


def check_admin_key(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """The admin APIs' key is not one that can be guessed. With `check --deploy`."""
    if not readable("ADMIN_KEY"):
        return
    key = conf.admin_key
    if key and (len(key) < MIN_ADMIN_KEY or key in KNOWN_ADMIN_KEYS or len(set(key)) < 8):
        yield Warning(
            "HMAC_GATEWAY['ADMIN_KEY'] can be guessed: it is short, repetitive, or printed in a manual.",
            hint="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
            id="hmac_gateway.W003",
        )
