"""What every signature format offers: parse → signing string → sign, and the facts its checks need.

Implemented by the files beside this one, called by `verify.py` and the client helpers. Standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from ..core.identity import Carrier, Failure
from ..core.message import Message

#: Where nearly all signatures stand.
AUTHORIZATION: Final = Carrier("header", "authorization")


class Claim(NamedTuple):
    """What a request says of its own signature, as sent.

    `headers` are the listed components, spelled as the client spelled them; "" stands for what is missing. `carrier` is
    where it stood.
    """

    key_id: str
    algorithm: str
    headers: tuple[str, ...]
    signature: str
    carrier: Carrier = AUTHORIZATION


#: As many listed components as APISIX can see headers; more would let a short request buy an endless signing string.
_MOST: Final = 100
#: So many are read without a look at their size; beyond, their values together must fit into what a head may hold.
FEW: Final = 8
_MOST_TEXT: Final = 64 * 1024


def too_much(message: Message, items: Sequence[str], targets: Collection[str]) -> str:
    """Why a list of more than FEW components is refused, or "": a short request must not buy an endless signing string.

    `targets` are the components that stand for the request target.
    """
    if len(items) > _MOST:
        return f"more than {_MOST} components are listed"
    size = 0
    for item in items:
        name = item.lower()
        size += len(message.get(name) or message.get(name.replace("_", "-")) or "")
        size += len(message.target) if item in targets else 0
    # A long header or target, listed again and again.
    return f"what is listed holds more than {_MOST_TEXT} bytes" if size > _MOST_TEXT else ""


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

    @property
    def carriers(self) -> frozenset[Carrier]:
        """Everywhere a signature may stand."""

    @property
    def form(self) -> str:
        """What explanations call the string that `signing_string` gives."""

    @property
    def components(self) -> frozenset[str]:
        """What may be listed besides headers: names of the request line."""

    def parse(self, message: Message) -> Claim | Failure | None:
        """The claim of a message; None when it carries none; a Failure when it cannot be read."""

    def cover(self, message: Message, claim: Claim) -> Cover:
        """What the claim's signature covers in this message."""

    def signing_string(self, message: Message, claim: Claim, cover: Cover) -> bytes:
        """What is signed, with the request target as it was received."""

    def other_strings(self, message: Message, claim: Claim, cover: Cover) -> Iterator[tuple[str, bytes]]:
        """(name of the form, string to sign) of the forms that are as good."""

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


def signing_strings(scheme: Scheme, message: Message, claim: Claim, cover: Cover) -> Iterator[tuple[str, bytes]]:
    """(name of the form, string to sign): all that a check tries, in its order."""
    yield scheme.form, scheme.signing_string(message, claim, cover)
    yield from scheme.other_strings(message, claim, cover)
