"""What every signature format offers: parse → signing string → sign, and the facts its checks need.

Implemented by the files beside this one, called by `verify.py` and the client helpers. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from ..core.identity import Failure
from ..core.message import Message


class Claim(NamedTuple):
    """What a request says of its own signature, as sent.

    `headers` are the listed components, spelled as the client spelled them; "" stands for what is missing.
    """

    key_id: str
    algorithm: str
    headers: tuple[str, ...]
    signature: str


class Cover(NamedTuple):
    """What a signature covers: names of headers and components, lower case; and the lines that sign them.

    A line is text, or None where the request target has to stand.
    """

    names: frozenset[str]
    lines: tuple[str | None, ...]


class Scheme(Protocol):
    """One way to sign a request."""

    @property
    def name(self) -> str:
        """The name that configuration uses."""

    def parse(self, message: Message) -> Claim | Failure | None:
        """The claim of a message; None when it carries none; a Failure when it cannot be read."""

    def cover(self, message: Message, claim: Claim) -> Cover:
        """What the claim's signature covers in this message."""

    def signing_strings(self, message: Message, claim: Claim, cover: Cover) -> Iterator[tuple[str, bytes]]:
        """(name of the form, string to sign): the exact form first, then the equivalent ones."""

    def sign(
        self,
        message: Message,
        *,
        key_id: str,
        secret: bytes,
        algorithm: str,
        headers: Sequence[str],
    ) -> list[tuple[str, str]]:
        """The headers to add so that the message is signed; what `headers` names must be in it already."""
