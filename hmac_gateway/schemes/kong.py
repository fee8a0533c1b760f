"""Kong `hmac-auth`: `hmac username="…", algorithm="…", headers="…", signature="…"`, today's form and that of 0.x.

Worked example. User `johnsmith`, secret `!Qwaszxerdfcv`, listed headers `date dummy @request-target`:

    date: Mon, 02 Dec 2024 16:23:54 GMT\\n
    dummy: Kong\\n
    @request-target: get /kong/healthy

HMAC-SHA256 of these three lines, without a newline at the end, in base64:
`lmCENhBAr+WhCzoL21aqRU44Y0C5HjS5sAU8zkmAoPE=`.

Called through `schemes.SCHEMES` by `verify.py` and the client helpers. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from ..core.identity import Carrier, Failure
from ..core.macs import encode_base64, mac
from ..core.message import Message, split_target
from ..core.reasons import Reason
from .base import AUTHORIZATION, FEW, Claim, Cover, too_much

#: Where credentials may stand, in the order they are looked at; what the first says is not mixed with the second.
CARRIERS: Final = (Carrier("header", "proxy-authorization"), AUTHORIZATION)

# Kong searches for it anywhere in the header, and lets values run over quotes; both are refused here, as is a word that
# is glued to the first name. Blanks around commas are fine.
_FORM: Final = re.compile(
    r'[Hh]mac[ \t]+username="([^"]+)"[ \t]*,[ \t]*algorithm="([^"]+)"[ \t]*,'
    r'[ \t]*headers="([^"]+)"[ \t]*,[ \t]*signature="([^"]+)"'
)
_TWICE: Final = re.compile(r',[ \t]*[Hh]mac[ \t]+username="')
REQUEST_LINE: Final = "request-line"
REQUEST_TARGET: Final = "@request-target"


@dataclass(frozen=True, slots=True)
class Kong:
    """One of Kong's forms.

    `components` are listed names that stand for the request line where no header has such a name. `algorithm` counts in
    place of the one that a request names; "": the request's.
    """

    name: str
    components: frozenset[str]
    algorithm: str = ""
    carriers: frozenset[Carrier] = frozenset(CARRIERS)
    form: ClassVar[str] = "raw"

    def parse(self, message: Message) -> Claim | Failure | None:
        """Read `Proxy-Authorization`, and only if that cannot be read `Authorization`. None without either.

        WRONG_SCHEME where neither begins with `hmac`.
        """
        failure: Failure | None = None
        for carrier in CARRIERS:
            text = message.get(carrier.name)
            if text is None:
                continue
            found = _FORM.fullmatch(text)
            if found is not None:
                username, algorithm, listed, signature = found.groups()
                headers = tuple(listed.split(" "))
                if len(headers) > FEW and (problem := too_much(message, headers, self.components)):
                    return Failure(Reason.MALFORMED_AUTHORIZATION, problem)
                return Claim(username, self.algorithm or algorithm, headers, signature, carrier)
            if _TWICE.search(text):
                # Two headers that the server has joined, as WSGI servers do.
                return Failure(Reason.DUPLICATE_HEADER, facts={"header": carrier.name})
            if text[:4].lower() == "hmac":
                failure = Failure(Reason.MALFORMED_AUTHORIZATION, f"{carrier.name} is not in Kong's form")
            else:
                failure = failure or Failure(Reason.WRONG_SCHEME, facts={"word": "hmac"})
        return failure

    def cover(self, message: Message, claim: Claim) -> Cover:
        """The listed headers that the message has; an absent one is signed as a name without a value, by nobody.

        A header wins over a component of the same name, which then does not cover the request line. Only the first
        of repeated headers is signed, so a repeated one is not covered.
        """
        names: list[str] = []
        lines: list[str | None] = []
        components, duplicated = self.components, message.duplicated
        for item in claim.headers:
            name = item.lower()
            value = message.get(name)
            if value is None:
                if item in components:
                    names.append(item)
                    lines.append(self._line(message, item, target_of(message)))
                    continue
                name = name.replace("_", "-")
                value = message.get(name)
                if value is None:
                    lines.append(f"{item}:")
                    continue
            if name not in duplicated and name not in components:
                names.append(name)
            lines.append(f"{item}: {value}")
        return Cover(frozenset(names), tuple(lines))

    def signing_string(self, message: Message, claim: Claim, cover: Cover) -> bytes:
        """The string over the raw target."""
        return _string(cover.lines)

    def other_strings(self, message: Message, claim: Claim, cover: Cover) -> Iterator[tuple[str, bytes]]:
        """The same with a bare `?` at the target's end, which some servers drop on the way here."""
        lines = list(cover.lines)
        target = target_of(message)
        if "?" not in target and cover.names & self.components:
            for place, item in enumerate(claim.headers):
                if item in self.components and item in cover.names:
                    lines[place] = self._line(message, item, target + "?")
            yield "with a bare ?", _string(lines)

    def sign(
        self,
        message: Message,
        *,
        key_id: str,
        secret: bytes,
        algorithm: str = "hmac-sha256",
        headers: Sequence[str] = (REQUEST_TARGET, "date"),
    ) -> list[tuple[str, str]]:
        """The `Authorization` header for a message that already holds what `headers` names."""
        claim = Claim(key_id, algorithm, tuple(headers), "")
        string = self.signing_string(message, claim, self.cover(message, claim))
        signature = encode_base64(mac(algorithm, secret, string))
        listed = " ".join(headers)
        value = f'hmac username="{key_id}", algorithm="{algorithm}", headers="{listed}", signature="{signature}"'
        return [("Authorization", value)]

    def _line(self, message: Message, item: str, target: str) -> str:
        if item == REQUEST_TARGET:
            return f"{REQUEST_TARGET}: {message.method.lower()} {target}"
        version = message.http_version
        return f"{message.method} {target} HTTP/{version if '.' in version else version + '.0'}"


def _string(lines: Sequence[str | None]) -> bytes:
    return "\n".join(lines).encode("latin-1")  # type: ignore[arg-type]  # no line is left open here


def target_of(message: Message) -> str:
    """The request target as Kong signs it: as sent; an absolute form is reduced to path and query."""
    target = message.target
    if not target.startswith("/"):
        path, query = split_target(target)
        target = f"{path}?{query}" if "?" in target else path
    return target


KONG: Final = Kong("kong", frozenset({REQUEST_TARGET, REQUEST_LINE}))
#: Kong 0.x: always SHA-1, whatever the request names; `@request-target` came later.
LEGACY: Final = Kong("kong-legacy", frozenset({REQUEST_LINE}), algorithm="hmac-sha1")
