"""What is wrong with a listener's certificate or key is said in words that name the file, before anything listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from hmac_gateway.certificates import make_self_signed, pair_problem
from proxy.exchange import Target
from proxy.tls import Contexts
from tests.support.certificates import Authority


def pem(key: Any, password: bytes = b"") -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    made: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    return made


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = Authority(tmp_path).issue("127.0.0.1")
    return Path(cert), Path(key)


def test_right_pairs(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert pair_problem(*map(str, pair)) is None
    assert pair_problem(*make_self_signed(tmp_path, "127.0.0.1")) is None


@pytest.mark.parametrize(
    ("spoil", "which", "words"),
    [
        (lambda path: path.unlink(), "cert", "No such file or directory"),
        (lambda path: path.unlink(), "key", "No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir()), "key", "Is a directory"),
        (lambda path: path.write_bytes(b""), "cert", "not a certificate in PEM form"),
        (lambda path: path.write_bytes(b"\x30\x82\xff"), "cert", "not a certificate in PEM form"),
        (lambda path: path.write_bytes(b"secret words"), "key", "not a private key in PEM form"),
        (
            lambda path: path.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()))),
            "key",
            "not the key of the first",
        ),
        (
            lambda path: path.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()), b"x")),
            "key",
            "protected by a password; write it without one: openssl pkey",
        ),
    ],
)
def test_what_is_wrong_names_its_file(
    pair: tuple[Path, Path], spoil: Callable[[Path], Any], which: str, words: str
) -> None:
    path = pair[0] if which == "cert" else pair[1]
    spoil(path)
    found = pair_problem(*map(str, pair))
    assert found is not None and found.startswith(f"{path}: {words}") and "secret words" not in found


@pytest.mark.parametrize(
    ("make", "right"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), True),
        (lambda: ed25519.Ed25519PrivateKey.generate(), True),
        (lambda: rsa.generate_private_key(65537, 2048), True),
        (lambda: ec.generate_private_key(ec.SECP521R1()), False),
        (lambda: rsa.generate_private_key(65537, 1024), False),
        (lambda: dsa.generate_private_key(2048), False),
    ],
)
def test_keys_that_the_server_cannot_use_are_refused(make: Callable[[], Any], right: bool, tmp_path: Path) -> None:
    key = make()
    cert, other = Authority(tmp_path).issue("127.0.0.1", key)
    found = pair_problem(cert, other)
    assert (
        found is None
        if right
        else found == (f"{other}: a key of another kind; allowed: RSA of 2048 to 4096 bits, P-256, P-384 or Ed25519")
    )


def test_nobody_is_asked_for_the_password_of_a_clients_key(pair: tuple[Path, Path]) -> None:
    cert, key = pair
    key.write_bytes(pem(serialization.load_pem_private_key(key.read_bytes(), None), b"x"))
    with pytest.raises(OSError, match="protected by a password"):
        Contexts().of(Target("127.0.0.1", 1, tls=True, client_cert=(str(cert), str(key))))
