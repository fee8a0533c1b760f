"""What people do wrong when they sign, tried out: which string, secret and algorithm give the MAC that came.

Used by `explain`, which names what is found; one format's own mistakes are in `mistakes_apisix` and
`mistakes_hmacproxy`. Nothing here ever runs on a request's path. Standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from ..core.macs import ALGORITHMS, decode_base64, encode_base64
from .base import Claim
from .hmacproxy import DIGESTS


class Option(NamedTuple):
    """One way to go wrong: which part of the recipe it changes, to what, and how it is said."""

    part: str
    value: Any
    hint: str
    common: bool = False


Recipe = dict[str, Any]
#: At most so many bytes are signed in search of a mistake.
_BUDGET: Final = 32 * 1024 * 1024


class Maker(Protocol):
    """A format's string taken apart, so that each part can be got wrong."""

    def bases(self) -> list[tuple[str, Recipe]]:
        """(what it is called, "" for the right one; where to begin): whole other formats."""

    def options(self) -> list[Option]:
        """The ways to go wrong."""

    def algorithms(self, declared: str) -> Iterator[Option]:
        """Other ways to compute a MAC than the one that is declared."""

    def build(self, recipe: Recipe) -> bytes:
        """The string with these mistakes."""


def search(
    maker: Maker, secrets: Sequence[bytes], claim: Claim, received: dict[bytes, str], most: int
) -> list[str] | None:
    """The hints of the first recipe, by number of mistakes, that gives a MAC that came; None when none does."""
    budget = _BUDGET
    for secret in secrets:
        options = [*maker.options(), *secret_options(secret, claim.key_id), *maker.algorithms(claim.algorithm)]
        common = [option for option in options if option.common]
        for count in range(most + 1):
            for name, base in maker.bases():
                if name and count > 1:
                    continue
                for chosen in combinations(options if count < 3 else common, count):
                    parts = {option.part for option in chosen}
                    if len(parts) < count or parts & base.keys():
                        continue
                    recipe = {**base, **{option.part: option.value for option in chosen}}
                    string = maker.build(recipe)
                    budget -= len(string)
                    if budget < 0:
                        return None
                    compute = recipe.get("algorithm") or mac_of(claim.algorithm)
                    hint = None if compute is None else received.get(compute(recipe.get("secret", secret), string))
                    if hint is not None:
                        return [text for text in (name, *(option.hint for option in chosen), hint) if text]
    return None


def mac_of(algorithm: str) -> Callable[[bytes, bytes], bytes] | None:
    name = ALGORITHMS.get(algorithm, algorithm if algorithm in DIGESTS else None)
    return None if name is None else lambda secret, string: hmac.digest(secret, string, name)


def readings(text: str) -> Iterator[tuple[bytes, str]]:
    """(bytes, what is wrong with their form): how a signature may be meant. The first is the right way."""
    data = decode_base64(text)
    if data is not None:
        yield data, ""
    stripped = text.strip()
    if re.fullmatch(r"(?:[0-9a-fA-F]{2})+", stripped):
        yield bytes.fromhex(stripped), "the signature is written in hex; it must be the base64 of the MAC's bytes"
    if data is not None and re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", data.strip()):
        yield (
            bytes.fromhex(data.strip().decode()),
            "the signature is the base64 of hex digits; it must be that of the MAC's bytes",
        )
    if data is not None and (twice := decode_base64(data.decode("latin-1").strip())) is not None:
        yield twice, "the signature is base64-encoded twice"
    url = decode_base64(text.replace("-", "+").replace("_", "/"))
    if url is not None and url != data:
        yield url, "the signature is in the URL alphabet of base64; + and / must stand for - and _"
    unescaped = decode_base64(unquote_to_bytes(text.encode("latin-1")).decode("latin-1"))
    if unescaped is not None and unescaped != data:
        yield unescaped, "the signature is percent-encoded"
    plus = decode_base64(text.replace(" ", "+"))
    if plus is not None and plus != data:
        yield plus, "a + of the signature has become a blank on its way"
    cut = decode_base64("".join(text.split()))
    if cut is not None and cut != data:
        yield cut, "blanks stand in the signature"


def secret_options(secret: bytes, key_id: str) -> Iterator[Option]:
    def option(value: bytes, hint: str) -> Iterator[Option]:
        if value != secret:
            yield Option("secret", value, hint)

    decoded = decode_base64(secret.decode("latin-1"))
    if decoded:
        yield from option(decoded, "the secret was base64-decoded first; its text is the key")
    if re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", secret):
        yield from option(bytes.fromhex(secret.decode()), "the secret was hex-decoded first; its text is the key")
    yield from option(secret + b"\n", "a newline was signed with as a part of the secret (echo without -n?)")
    yield from option(secret + b"\r\n", "a line end was signed with as a part of the secret")
    yield from option(secret.strip(), "blanks around the secret were cut off; they belong to it")
    yield from option(secret + b" ", "a blank after the secret was signed with")
    yield from option(b" " + secret, "a blank before the secret was signed with")
    yield from option(b'"' + secret + b'"', "quotes around the secret were signed with")
    yield from option(b"'" + secret + b"'", "quotes around the secret were signed with")
    yield from option(encode_base64(secret).encode(), "the secret was base64-encoded first; its text is the key")
    yield from option(secret.hex().encode(), "the secret was hex-encoded first; its text is the key")
    yield from option(key_id.encode("latin-1"), "the key id was used as the secret")
    yield from option(hashlib.sha256(secret).digest(), "the secret was hashed first; its text is the key")
    yield from option(hashlib.sha256(secret).hexdigest().encode(), "the secret was hashed first; its text is the key")
    yield from option(b"", "the secret was empty when the client signed")


def algorithm_options(declared: str) -> Iterator[Option]:
    for name in ALGORITHMS:
        if name != declared:
            hint = f"the MAC is {name}'s, but algorithm= says {declared}" if declared else f"the MAC is {name}'s"
            yield Option("algorithm", mac_of(name), hint)
    digest = ALGORITHMS.get(declared, "sha256")
    yield Option("algorithm", lambda key, string: hmac.digest(key, string, "md5"), "the MAC is HMAC-MD5's")
    plain = "a plain hash was made, not an HMAC"
    yield Option("algorithm", lambda key, string: hashlib.new(digest, string).digest(), plain)
    yield Option("algorithm", lambda key, string: hashlib.new(digest, key + string).digest(), plain)
    yield Option("algorithm", lambda key, string: hashlib.new(digest, string + key).digest(), plain)
    swapped = "key and data of the HMAC were swapped"
    yield Option("algorithm", lambda key, string: hmac.digest(string, key, digest), swapped)


ENDS: Final = (
    Option("sep", "\r\n", "lines end in CRLF; they must end in LF", common=True),
    Option("sep", "\\n", "a backslash and an n were signed where a newline has to stand"),
    Option("end", "toggle", "", common=True),
)


class Fixed:
    """A string that is only varied in its line ends."""

    def __init__(self, string: bytes) -> None:
        self.string = string

    def bases(self) -> list[tuple[str, Recipe]]:
        return [("", {})]

    def options(self) -> list[Option]:
        hint = "the final newline is missing" if self.string.endswith(b"\n") else "no newline may follow the last line"
        return [*ENDS[:2], Option("end", "toggle", hint, common=True)]

    def algorithms(self, declared: str) -> Iterator[Option]:
        return algorithm_options(declared)

    def build(self, recipe: Recipe) -> bytes:
        string = self.string
        if "end" in recipe:
            string = string.removesuffix(b"\n") if string.endswith(b"\n") else string + b"\n"
        return string.replace(b"\n", recipe.get("sep", "\n").encode())
