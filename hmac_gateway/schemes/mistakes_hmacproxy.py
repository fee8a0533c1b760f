"""How hmacproxy's signing string is got wrong. Used by `explain` through `mistakes.search`; standard library only."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from ..core.message import Message, split_target
from ..core.reasons import Reason
from .hmacproxy import DIGESTS, UNSEEN, HmacProxy
from .mistakes import ENDS, Option, Recipe

#: As a signature of this format looks, in whatever header.
_LIKE: Final = re.compile(r"(md4|md5|ripemd160|sha[0-9]{1,3}) [A-Za-z0-9+/]+=*", re.I)


def read_off(message: Message, scheme: HmacProxy, reason: Reason) -> Iterator[str]:
    """What can be seen without computing anything, where the signature header cannot be used."""
    name = scheme.sign_header
    text = message.get(name.lower()) or ""
    if not text:
        others = [other for other, value in message.headers if _LIKE.fullmatch(value)]
        if others:
            yield f"a signature stands in {others[0]}; here it is looked for in {name}"
        elif message.get("authorization") is not None:
            yield f"what is in Authorization is another format's; here {name} must hold a digest's name and base64"
        else:
            yield f"the request has no {name} header; a proxy or a redirect may have taken it away"
    elif reason is Reason.SIGNATURE_MALFORMED:
        if " " not in text:
            yield f"{name} must begin with the digest's name and one blank, as in sha1 K4Ir…"
        else:
            yield f"{name} must be the digest's name, exactly one blank and base64, and nothing else"
    elif reason is Reason.ALGORITHM_NOT_ALLOWED:
        word = text.partition(" ")[0]
        if word.lower().removeprefix("hmac").strip("-_") in DIGESTS and word not in DIGESTS:
            yield "the digest's name is written as in sha256: lower case, without hmac and dashes"
        else:
            yield f"the client signs with {word[:40]}; both sides must be configured with the same digest"


class Parts:
    """The string taken apart, body included."""

    def __init__(self, message: Message, scheme: HmacProxy, body: bytes) -> None:
        self.message = message
        self.names = [name.lower() for name in scheme.headers]
        self.body = body
        path, query = split_target(message.target)
        self.path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        self.tail = f"?{query}" if query else ""
        self.raw = path

    def bases(self) -> list[tuple[str, Recipe]]:
        return [("", {})]

    def options(self) -> list[Option]:
        return [
            *self._bodies(),
            *self._targets(),
            *self._names(),
            Option("method", self.message.method.lower(), "the method is signed in lower case", common=True),
            *ENDS[:2],
            Option("end", "", "a line end follows the target, also where there is no body", common=True),
            Option("end", "\n\n", "one line end too many follows the target"),
        ]

    def _bodies(self) -> Iterator[Option]:
        if self.body:
            yield Option(
                "body", b"", "the body was not signed; it follows the target's line as it is sent", common=True
            )
            yield Option("body", self.body.rstrip(b"\r\n"), "the body was signed without its final line end")
            yield Option("body", self.body.replace(b"\r\n", b"\n"), "the body was signed with other line ends")
            hashed = hashlib.sha256(self.body).hexdigest().encode()
            yield Option("body", hashed, "a hash of the body was signed; it must be the body itself")
        yield Option("body", self.body + b"\n", "the body was signed with a line end after it (echo without -n?)")

    def _targets(self) -> Iterator[Option]:
        path, tail, host = self.path, self.tail, self.message.authority
        for target, hint in (
            (self.raw + tail, "the path was signed with its percent escapes; it is signed decoded"),
            (path, "the query was left out of the target"),
            (path + "?", "a ? was signed although there is no query"),
            (path.removesuffix("/") + tail, "a / ends the path in one place only"),
            (path + "/" + tail, "a / ends the path in one place only"),
            (f"http://{host}{path}{tail}", "the whole URL was signed; the target is path and query"),
            (f"https://{host}{path}{tail}", "the whole URL was signed; the target is path and query"),
            (unquote_to_bytes(f"{path}{tail}".encode("latin-1")).decode("latin-1"), "the query was signed decoded"),
        ):
            if target != path + tail:
                yield Option("target", target, hint)

    def _names(self) -> Iterator[Option]:
        if any(self.message.get(name) is None for name in self.names):
            hint = "absent headers have an empty line; the client leaves it out"
            yield Option("names", tuple(name for name in self.names if self.message.get(name) is not None), hint)
        for place, name in enumerate(self.names[:10]):
            order = tuple(other for other in self.names if other != name)
            yield Option("names", order, f"{name or 'an empty name'} is signed here, but not by the client", place < 2)
        if len(self.names) > 1:
            swapped = "the headers are signed in another order than they are configured here"
            yield Option("names", tuple(sorted(self.names)), swapped)
            yield Option("names", tuple(reversed(self.names)), swapped)
        present = dict.fromkeys(name for name, _ in self.message.headers)
        for name in [*present, *UNSEEN]:
            if name not in self.names:
                hint = f"the client signs {name} too, which is not among the headers configured here"
                yield Option("names", (*self.names, name), hint)
                yield Option("names", (name, *self.names), hint)
        if self.names:
            yield Option("line", "{name}: {value}", "only the headers' values are signed, not their names", common=True)

    def algorithms(self, declared: str) -> Iterator[Option]:
        for name in DIGESTS:
            if name != declared and name in hashlib.algorithms_available:
                hint = f"the MAC is {name}'s, but the header says {declared}"
                yield Option("algorithm", lambda key, string, name=name: hmac.digest(key, string, name), hint)
        plain = "a plain hash was made, not an HMAC"
        yield Option("algorithm", lambda key, string: hashlib.new(declared, key + string).digest(), plain)
        yield Option("algorithm", lambda key, string: hashlib.new(declared, string + key).digest(), plain)
        yield Option("algorithm", lambda key, string: hashlib.new(declared, string).digest(), plain)

    def build(self, recipe: Recipe) -> bytes:
        line: str = recipe.get("line", "{value}")
        lines: list[str] = [recipe.get("method", self.message.method)]
        for name in recipe.get("names", self.names):
            lines.append(line.format(name=name, value=self._value(name)))
        text: str = "\n".join([*lines, recipe.get("target", self.path + self.tail)]) + recipe.get("end", "\n")
        sep: str = recipe.get("sep", "\n")
        body: bytes = recipe.get("body", self.body)
        return text.replace("\n", sep).encode("latin-1") + body

    def _value(self, name: str) -> str:
        return "" if name in UNSEEN and name in self.names else ",".join(self.message.get_all(name))
