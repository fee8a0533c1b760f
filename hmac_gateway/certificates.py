"""Certificates of our own listeners: what is wrong with one, before anything listens; self-signed ones.

Used by `hmac_serve` and the command `hmacproxy`.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

#: What the server (rustls with ring) can sign with; it ends at once where it gets another key.
_CURVES: Final = ("secp256r1", "secp384r1")
_RSA_BITS: Final = range(2048, 4097)
_KEYS: Final = "RSA of 2048 to 4096 bits, P-256, P-384 or Ed25519"


def pair_problem(cert: str, key: str) -> str | None:
    """Why a certificate and its key, PEM files, cannot serve; None where they can. Names the file, and what to do."""
    found: list[bytes] = []
    for path in (cert, key):
        try:
            found.append(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            return f"{path}: {getattr(error, 'strerror', None) or error}"
    try:
        certificate = x509.load_pem_x509_certificates(found[0])[0]
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return f"{cert}: not a certificate in PEM form (-----BEGIN CERTIFICATE-----)"
    try:
        private = serialization.load_pem_private_key(found[1], None)
    except TypeError:
        return f"{key}: protected by a password; write it without one: openssl pkey -in {key} -out FILE"
    except (ValueError, UnsupportedAlgorithm):
        return f"{key}: not a private key in PEM form (-----BEGIN PRIVATE KEY-----)"
    if private.public_key() != public:
        return f"{key}: not the key of the first certificate in {cert}"
    if isinstance(private, rsa.RSAPrivateKey):
        usable = private.key_size in _RSA_BITS
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        usable = private.curve.name in _CURVES
    else:
        usable = isinstance(private, ed25519.Ed25519PrivateKey)
    if not usable:
        return f"{key}: a key of another kind; allowed: {_KEYS}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ValueError) as error:
        return f"{cert}, {key}: {error}"
    return None


def make_self_signed(folder: Path, host: str) -> tuple[str, str]:
    """Write `cert.pem` and `key.pem` (mode 0600) into `folder` for localhost and `host`; their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hmac_gateway console")])
    alternatives: list[x509.GeneralName] = [x509.DNSName("localhost")]
    for text in dict.fromkeys(["127.0.0.1", "::1", host]):
        try:
            alternatives.append(x509.IPAddress(ip_address(text)))
        except ValueError:
            alternatives.append(x509.DNSName(text))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=397))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return str(cert_file), str(key_file)
