"""How signatures in APISIX's format are got wrong. Used by `explain`; standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..core.message import Message
from ..core.reasons import Reason
from .base import Claim
from .mistakes import ENDS, Option, Recipe
from .mistakes_lines import PSEUDO, Lines

_RIGHT_NAMES: Final = {
    "keyId": {"keyid", "key", "keyname", "username", "user", "accesskey", "kid", "id"},
    "algorithm": {"algorithm", "alg", "algo"},
    "headers": {"headers", "header", "signedheaders"},
    "signature": {"signature", "sig", "sign", "hmac"},
}
_ASSIGNED: Final = re.compile(r"(?<![A-Za-z0-9_\-])([A-Za-z][A-Za-z0-9_\-]{0,30}) ?=")


def read_off(message: Message, reason: Reason) -> Iterator[str]:
    """What can be seen of the header without computing anything."""
    text = message.get("authorization")
    if text is None:
        yield from _nothing_sent(message)
    elif reason is Reason.WRONG_SCHEME:
        yield _other_scheme(text)
    elif reason is Reason.MALFORMED_AUTHORIZATION and not text.startswith(("Signature ", "Signature\t")):
        yield "a blank must follow the word Signature"
    else:
        yield from _grammar(text)


def _nothing_sent(message: Message) -> Iterator[str]:
    if message.get("x-hmac-signature") is not None or message.get("x-hmac-access-key") is not None:
        yield "X-HMAC-… headers are the format of APISIX before 3.11; send Authorization: Signature keyId=… instead"
    elif message.get("proxy-authorization") is not None:
        yield "the credentials are in Proxy-Authorization; they belong into Authorization"
    else:
        yield "the request has no Authorization header; a proxy or a redirect may have taken it away"


def _other_scheme(text: str) -> str:
    word = text.partition(" ")[0]
    if word.lower() == "hmac":
        return "this is Kong's format (hmac username=…); here it is Signature keyId=…, and the signing string differs"
    if word.startswith("hmac-auth-v1"):
        return "this is the format of APISIX before 3.11; here it is Signature keyId=…, and the signing string differs"
    if word.lower() == "signature" or text.lower().startswith("signature"):
        return "the word Signature is compared with its case"
    if word.lower() in ("basic", "bearer", "digest", "aws4-hmac-sha256", "negotiate"):
        return f"{word} credentials are not what this route asks for: Signature keyId=…"
    return "Authorization must begin with the word Signature and a blank"


def _grammar(text: str) -> Iterator[str]:
    rest = text.removeprefix("Signature")
    if "='" in rest:
        yield "values stand in double quotes, not in single ones"
    if "\xe2\x80\x9c" in rest or "\xe2\x80\x9d" in rest:
        yield 'values stand in plain double quotes ("), not in typographic ones'
    if re.search(r'(?:[A-Za-z0-9] +=|= +["\'])', rest):
        yield "no blank may stand around ="
    if re.search(r"(?:keyId|algorithm|headers|signature)=[^\"' ]", rest):
        yield "values stand in double quotes"
    if re.search(r'" *;|"[ \t]+[A-Za-z]+="', rest):
        yield "fields are separated by commas"
    listed = re.search(r'headers="([^"]*)"', rest)
    if listed is not None and "," in listed[1]:
        yield "the names in headers= are separated by blanks; a comma ends the field, even inside quotes"
    if listed is not None and ";" in listed[1]:
        yield "the names in headers= are separated by blanks, not by semicolons"
    used = {match[1] for match in _ASSIGNED.finditer(rest)}
    for right, others in _RIGHT_NAMES.items():
        if right not in used:
            for name in sorted(used):
                if name.lower().replace("_", "").replace("-", "") in others:
                    yield f"the field is called {right} (with this case), not {name}"


def listed(message: Message, claim: Claim) -> Iterator[str]:
    """What is wrong with the names in a list."""
    present = {name for name, _ in message.headers}
    for item in claim.headers:
        name = item.lower()
        if item in PSEUDO and name not in present:
            yield f"{item} is not known here; the request line is listed as @request-target"
        elif name == "@request-target" and item != name:
            yield "@request-target is written in lower case"
        elif item in ("(created)", "(expires)"):
            yield f"{item} is not known here; sign date"
        elif item and item != "@request-target" and not {name, name.replace("_", "-")} & present:
            yield f"headers= lists {item}, but the request has no such header; the server leaves its line out"


class Apisix(Lines):
    """The APISIX string taken apart, so that each part can be got wrong."""

    def __init__(self, message: Message, claim: Claim) -> None:
        super().__init__(message, claim)
        self.items = [item for item in claim.headers if item]

    def bases(self) -> list[tuple[str, Recipe]]:
        kong = "the string is Kong's (no key id, no final newline); APISIX begins with the key id and ends in a newline"
        cavage = (
            "the string is that of draft-cavage-http-signatures; APISIX begins with the key id and signs METHOD target"
        )
        short: Recipe = {"key": False, "end": ""}
        return [
            ("", {}),
            (kong, {**short, "line": "@request-target: {lower} {target}"}),
            (kong, {**short, "line": "{method} {target} HTTP/" + self.message.http_version}),
            (cavage, {**short, "line": "(request-target): {lower} {target}", "names": "lower"}),
        ]

    def options(self) -> list[Option]:
        return [
            Option("key", False, "the line of the key id is missing; the string begins with it", common=True),
            Option("end", "", "the final newline is missing", common=True),
            Option("end", "\n\n", "one newline too many ends the string"),
            *ENDS[:2],
            *self._lines(),
            *self.targets(),
            *self.names(),
            *self._absent(),
            *self.dates(),
            *self.orders(),
        ]

    def _lines(self) -> Iterator[Option]:
        listed = any(self.stands_for_target(item) for item in self.items)
        if listed and "@request-target" not in self.items:
            yield Option("line", "{method} {target}", "the request line is listed as @request-target", True)
        for line, hint, common in (
            ("{lower} {target}", "the method is signed in lower case; APISIX signs it as it is sent", True),
            ("@request-target: {method} {target}", "the line of @request-target has no name in front", True),
            (
                "@request-target: {lower} {target}",
                "the line of @request-target is Kong's; here it is METHOD target",
                True,
            ),
            (
                "(request-target): {lower} {target}",
                "(request-target) is draft-cavage's; here it is METHOD target",
                True,
            ),
            ("{method} {target} HTTP/1.1", "the HTTP version is no part of the line of @request-target", True),
            ("{method}{target}", "a blank stands between method and target", False),
            ("{method}\n{target}", "method and target stand on one line", False),
            ("{method}: {target}", "a blank alone stands between method and target", False),
            ("{target}", "the method is missing before the target", False),
        ):
            if listed and not (line.startswith("{lower}") and self.message.method == self.message.method.lower()):
                yield Option("line", line, hint, common)
        if not listed:
            for place in ("first", "last"):
                yield Option("extra", place, "the request line is signed, but @request-target is not in headers=")

    def _absent(self) -> Iterator[Option]:
        if self.absent():
            hint = "listed headers that are absent have no line at all"
            yield Option("absent", ":", hint)
            yield Option("absent", ": ", hint)

    def target_line(self, item: str, recipe: Recipe) -> str | None:
        if item == "@request-target" or ("line" in recipe and self.stands_for_target(item)):
            return self._request_line(recipe)
        return None

    def first(self, recipe: Recipe) -> list[str]:
        lines = [self.claim.key_id] if recipe.get("key", True) else []
        return [*lines, self._request_line(recipe)] if recipe.get("extra") == "first" else lines

    def last(self, recipe: Recipe) -> list[str]:
        return [self._request_line(recipe)] if recipe.get("extra") == "last" else []

    def _request_line(self, recipe: Recipe) -> str:
        line: str = recipe.get("line", "{method} {target}")
        method = self.message.method
        return line.format(method=method, lower=method.lower(), target=recipe.get("target", self.target))
