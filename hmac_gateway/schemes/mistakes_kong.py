"""How signatures in Kong's format are got wrong. Used by `explain`; standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Final

from ..core.message import Message
from ..core.reasons import Reason
from .base import Claim
from .kong import CARRIERS, LEGACY, REQUEST_LINE, REQUEST_TARGET, Kong
from .mistakes import ENDS, Option, Recipe, mac_of
from .mistakes_lines import PSEUDO, Lines

_NAMES: Final = ("username", "algorithm", "headers", "signature")
_RIGHT_NAMES: Final = {
    "username": {"username", "user", "keyid", "key", "keyname", "kid", "id", "name"},
    "algorithm": {"algorithm", "alg", "algo"},
    "headers": {"headers", "header", "signedheaders"},
    "signature": {"signature", "sig", "sign", "hmac"},
}
_ASSIGNED: Final = re.compile(r"(?<![A-Za-z0-9_\-])([A-Za-z][A-Za-z0-9_\-]{0,30}) ?=(?=[\"' \xe2])")
_RIGHT: Final = 'hmac username="…", algorithm="…", headers="…", signature="…"'


def read_off(message: Message, reason: Reason) -> Iterator[str]:
    """What can be seen of the header without computing anything."""
    texts = [text for carrier in CARRIERS if (text := message.get(carrier.name)) is not None]
    if not texts:
        yield "the request has neither Proxy-Authorization nor Authorization; a proxy may have taken it away"
        return
    if reason in (Reason.MALFORMED_AUTHORIZATION, Reason.WRONG_SCHEME):
        for text in texts:
            yield from _grammar(text.strip(" \t"))
    listed = next((found[1] for text in texts if (found := re.search(r'headers="([^"]*)"', text))), "")
    if "," in listed or ";" in listed:
        sign = "commas" if "," in listed else "semicolons"
        yield f"the names in headers= are separated by single blanks: with {sign} they are one name that no header has"


def _grammar(text: str) -> Iterator[str]:
    word = text.partition(" ")[0]
    if word in ("Signature", "Digest", "hmac-auth-v1"):
        yield f"this is another format ({word}); here it is {_RIGHT}, and the signing string differs"
        return
    if word.lower() in ("basic", "bearer", "aws4-hmac-sha256", "negotiate"):
        yield f"{word} credentials are not what this route asks for: {_RIGHT}"
        return
    if word.lower() == "hmac" and word not in ("hmac", "Hmac"):
        yield "the word in front is hmac or Hmac, in no other case"
    elif word.lower().startswith("hmac") and word.lower() != "hmac":
        yield "a blank must follow the word hmac"
    elif word.lower() != "hmac":
        yield f"the header must begin with the word hmac: {_RIGHT}"
    rest = text[len(word) :]
    if "='" in rest:
        yield "values stand in double quotes, not in single ones"
    if "\xe2\x80\x9c" in rest or "\xe2\x80\x9d" in rest:
        yield 'values stand in plain double quotes ("), not in typographic ones'
    if re.search(r"(?:[A-Za-z0-9] +=|= +[\"'])", rest):
        yield "no blank may stand around ="
    if re.search(r"(?:username|algorithm|headers|signature)=[^\"' ]", rest):
        yield "values stand in double quotes"
    if re.search(r'" *;|"[ \t]+[A-Za-z]+="', rest):
        yield "fields are separated by commas"
    if '=""' in rest:
        yield "no value may be empty"
    if re.search(r'="[^",]*"[^", \t][^",]*"', rest):
        yield "a value may not hold double quotes"
    used = [match[1] for match in _ASSIGNED.finditer(rest)]
    for right, others in _RIGHT_NAMES.items():
        if right not in used:
            near = [name for name in used if name.lower().replace("_", "").replace("-", "") in others]
            yield f"the field is called {right}, not {near[0]}" if near else f"{right}= is missing"
    known = [name for name in used if name in _NAMES]
    if len(set(known)) == len(_NAMES) and known != list(_NAMES):
        yield f"the fields stand in this order: {', '.join(_NAMES)}"
    elif len(set(known)) == len(_NAMES) and not re.search(r'signature="[^"]*"$', text):
        yield "nothing may follow the signature, no nonce either"


def listed(message: Message, claim: Claim, scheme: Kong) -> Iterator[str]:
    """What is wrong with the names in a list."""
    present = {name for name, _ in message.headers}
    for item in claim.headers:
        name = item.lower()
        if item in scheme.components and item in present:
            yield f"the request has a header called {item}, which is signed in place of the request line"
        elif item in scheme.components:
            continue
        elif name in scheme.components:
            yield f"{name} is written in lower case"
        elif item in PSEUDO or item == REQUEST_TARGET:
            yield f"{item} is not known here; the request line is listed as {' or '.join(sorted(scheme.components))}"
        elif item in ("(created)", "(expires)"):
            yield f"{item} is not known here; sign date"
        elif not item:
            yield "one blank stands between two names in headers=; a second one is signed as a line `:`"
        elif not {name, name.replace("_", "-")} & present:
            yield f"headers= lists {item}, but the request has no such header; it is signed as its name and a colon"


class KongLines(Lines):
    """Kong's string taken apart, so that each part can be got wrong."""

    END: ClassVar[str] = ""
    ABSENT: ClassVar[str | None] = ":"

    def __init__(self, message: Message, claim: Claim, scheme: Kong) -> None:
        super().__init__(message, claim)
        self.scheme = scheme
        version = message.http_version
        self.version = version if "." in version else f"{version}.0"

    def stands_for_target(self, item: str) -> bool:
        return item in self.scheme.components or super().stands_for_target(item)

    def bases(self) -> list[tuple[str, Recipe]]:
        apisix = "the string is APISIX's (key id first, a newline at the end); Kong's is the listed lines alone"
        cavage = "the string is that of draft-cavage-http-signatures; Kong's line of the target has another name"
        return [
            ("", {}),
            (apisix, {"key": True, "end": "\n", "line": "{method} {target}", "absent": None}),
            (cavage, {"line": "(request-target): {lower} {target}", "names": "lower", "pseudo": True}),
        ]

    def options(self) -> list[Option]:
        return [
            Option("end", "\n", "no newline may follow the last line", common=True),
            *ENDS[:2],
            *self._lines(),
            *self.targets(),
            *self.names(),
            *self._absent(),
            *self.dates(),
            *self.orders(),
        ]

    def _lines(self) -> Iterator[Option]:
        if REQUEST_TARGET in self.items:
            for line, hint in (
                (
                    "@request-target: {method} {target}",
                    "the method is signed in lower case, as get",
                ),
                ("{lower} {target}", "the line begins with its name: @request-target: get /path"),
                ("{method} {target}", "the line begins with its name: @request-target: get /path"),
                ("@request-target: {lower} {target} HTTP/1.1", "no HTTP version is signed with @request-target"),
                ("{method} {target} HTTP/1.1", "the line is request-line's; @request-target: get /path is listed"),
            ):
                if "{method}" not in line or self.message.method != self.message.method.lower():
                    yield Option("target_line", line, hint, common=True)
        if REQUEST_LINE in self.items:
            for line, hint in (
                ("{method} {target}", "the request line ends in the HTTP version: GET /path HTTP/1.1"),
                ("{lower} {target} HTTP/{version}", "the method of request-line is signed as it is sent: GET"),
                ("request-line: {method} {target} HTTP/{version}", "the request line has no name in front"),
                ("@request-target: {lower} {target}", "the line is @request-target's, but request-line is listed"),
            ):
                yield Option("request_line", line, hint, common=True)
            for version in ("1.0", "1.1", "2", "2.0"):
                if version != self.version:
                    hint = (
                        f"HTTP/{version} is signed, but HTTP/{self.version} arrives: something on the way changes it; "
                        "@request-target does not depend on it"
                    )
                    yield Option("request_line", f"{{method}} {{target}} HTTP/{version}", hint, common=True)
        if not any(self.stands_for_target(item) for item in self.items):
            for place in ("first", "last"):
                hint = "the request target is signed, but @request-target is not in headers="
                yield Option("extra", place, hint)

    def _absent(self) -> Iterator[Option]:
        if self.absent():
            hint = "a listed header that is absent has a line, which is its name and a colon"
            yield Option("absent", None, hint)
            yield Option("absent", ": ", hint + " without a blank")

    def algorithms(self, declared: str) -> Iterator[Option]:
        if self.scheme is not LEGACY:
            yield from super().algorithms(declared)
            return
        for name in ("hmac-sha256", "hmac-sha384", "hmac-sha512"):
            yield Option(
                "algorithm", mac_of(name), f"the MAC is {name}'s; Kong 0.x computes HMAC-SHA1, whatever is said"
            )

    def target_line(self, item: str, recipe: Recipe) -> str | None:
        known = item in self.scheme.components or ("pseudo" in recipe and item in PSEUDO)
        if not known or self.value(item) is not None:
            return None
        own = {REQUEST_LINE: "request_line"}.get(item, "target_line")
        usual = "{method} {target} HTTP/{version}" if item == REQUEST_LINE else "@request-target: {lower} {target}"
        line: str = recipe.get("line") or recipe.get(own, usual)
        return self._filled(line.replace("target: ", f"target{recipe.get('glue', ': ')}", 1), recipe)

    def first(self, recipe: Recipe) -> list[str]:
        lines = [self.claim.key_id] if recipe.get("key") else []
        return [*lines, *self._extra(recipe)] if recipe.get("extra") == "first" else lines

    def last(self, recipe: Recipe) -> list[str]:
        return self._extra(recipe) if recipe.get("extra") == "last" else []

    def _extra(self, recipe: Recipe) -> list[str]:
        return [self._filled("@request-target: {lower} {target}", recipe)]

    def _filled(self, line: str, recipe: Recipe) -> str:
        method, target = self.message.method, recipe.get("target", self.target)
        return line.format(method=method, lower=method.lower(), target=target, version=self.version)
