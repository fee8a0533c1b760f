"""How connections to upstream nodes are secured: one TLS context per distinct setting.

Used by both lanes' pools. Imports the standard library and `.exchange` only.
"""

from __future__ import annotations

import ssl

from .exchange import Target


class Contexts:
    """TLS contexts of a pool. Two threads may make the same one at once, which costs time and nothing else."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[tuple[bool, str | None, tuple[str, str] | None], ssl.SSLContext] = {}

    def of(self, target: Target) -> ssl.SSLContext:
        """The context for a target. Raises OSError for files that cannot be read or used."""
        # Building one reads files: once per distinct setting.
        key = (target.verify, target.ca_file, target.client_cert)
        context = self._made.get(key)
        if context is None:
            context = ssl.create_default_context(cafile=target.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            if not target.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if target.client_cert is not None:
                context.load_cert_chain(*target.client_cert, password=_no_password)
            self._made[key] = context
        return context


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal, and the event loop wait for who is not there.
    raise OSError("the client's key is protected by a password")
