"""Sealing: round trips, rotation, and what is said when keys are missing or wrong."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from hmac_gateway import crypto
from hmac_gateway.models import ConfigVersion

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


def keys(*given: str) -> Any:
    return override_settings(HMAC_GATEWAY={"ENCRYPTION_KEYS": list(given)})


@pytest.mark.parametrize("text", ["", "secret", "pässwörd \n\0 🔑"])
def test_what_was_sealed_opens(text: str) -> None:
    token = crypto.seal(text)
    assert crypto.open_sealed(token) == text
    assert token != crypto.seal(text), "equal secrets must not look alike"
    assert not text or text not in token


def test_rotation_of_the_keys() -> None:
    with keys(OLD):
        token = crypto.seal("secret")
    with keys(NEW, OLD):
        assert crypto.open_sealed(token) == "secret"
        renewed = crypto.reseal(token)
    with keys(NEW):
        assert crypto.open_sealed(renewed) == "secret"
        with pytest.raises(crypto.CannotOpen):
            crypto.open_sealed(token)
        with pytest.raises(crypto.CannotOpen):
            crypto.reseal(token)


def test_keys_are_read_once_per_list() -> None:
    with keys(OLD):
        box = crypto._current()
        assert crypto._current() is box
    with keys(NEW, OLD):
        assert crypto._current() is not box


@pytest.mark.parametrize("token", ["", "secret", "gAAAA", "schlüssel", "\0"])
def test_what_was_not_sealed_does_not_open(token: str) -> None:
    with pytest.raises(crypto.CannotOpen) as caught:
        crypto.open_sealed(token)
    assert not token or token not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("given", [[], ["short"], [NEW, "schlüssel"], [NEW, ""]])
def test_missing_and_malformed_keys(given: list[str]) -> None:
    with keys(*given), pytest.raises(ImproperlyConfigured, match=r"ENCRYPTION_KEYS.*Fernet") as caught:
        crypto.seal("secret")
    assert NEW not in str(caught.value)


def test_the_canary_tells_a_wrong_key() -> None:
    with keys(OLD):
        canary = crypto.make_canary()
        assert crypto.check_canary(canary)
        assert not crypto.check_canary(crypto.seal("another text"))
    with keys(NEW, OLD):
        assert crypto.check_canary(canary)
    with keys(OTHER):
        assert not crypto.check_canary(canary)


def test_fingerprints() -> None:
    # A stored identifier must be found again by every later release.
    known = "6436652cc17fbe31a7b4c321d55a71104dd650c3792cfddb855f1208dce9dd6c"
    mark = crypto.fingerprint("key", "key-auth", b"k" * 32)
    assert mark == known
    others = [("kez", "key-auth", b"k" * 32), ("key", "other", b"k" * 32), ("key", "key-auth", b"l" * 32)]
    assert mark not in [crypto.fingerprint(*other) for other in others]


@pytest.mark.django_db
def test_the_fingerprint_key_outlives_the_encryption_keys() -> None:
    with keys(OLD):
        before = ConfigVersion.fingerprint_bytes()
        assert len(before) == 32
    with keys(NEW, OLD):
        assert ConfigVersion.fingerprint_bytes() == before
        assert crypto.check_canary(ConfigVersion.sealed().canary)
    with keys(OTHER), pytest.raises(crypto.CannotOpen):
        ConfigVersion.fingerprint_bytes()
