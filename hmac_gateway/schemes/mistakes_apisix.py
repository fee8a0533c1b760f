"""How APISIX's signing string is got wrong. Used by `explain` through `mistakes.search`; standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.utils import formatdate
from itertools import permutations
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from ..core.dates import parse_http_date
from ..core.message import Message, split_target
from .base import Claim
from .mistakes import ENDS, Option, Recipe, algorithm_options

#: What other formats call the request line.
PSEUDO: Final = ("(request-target)", "request-line", "request-target", ":path")


class Apisix:
    """The APISIX string taken apart, so that each part can be got wrong."""

    def __init__(self, message: Message, claim: Claim) -> None:
        self.message = message
        self.claim = claim
        path, query = split_target(message.target)
        self.target = f"{path}?{query}" if "?" in message.target else path
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
            *self._targets(),
            *self._names(),
            *self._dates(),
            *self._order(),
        ]

    def _lines(self) -> Iterator[Option]:
        listed = any(self._stands_for_target(item) for item in self.items)
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

    def _targets(self) -> Iterator[Option]:
        path, query = split_target(self.target)
        tail = f"?{query}" if query else ""
        decoded = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        encoded = quote(decoded.encode("latin-1"), safe="/-._~")
        query_decoded = unquote_to_bytes(query.replace("+", " ").encode("latin-1")).decode("latin-1")
        segments = path.split("/")
        seen = {self.target}
        choices: list[tuple[str, str]] = []
        if query:
            pieces = query.split("&")
            choices += [
                ("the query is left out of the target", path),
                (
                    "the arguments of the query are sorted; they are signed as sent",
                    f"{path}?{'&'.join(sorted(pieces))}",
                ),
                ("the query is percent-decoded; it is signed as sent", f"{path}?{query_decoded}"),
                ("path and query are percent-decoded; they are signed as sent", f"{decoded}?{query_decoded}"),
                (
                    "the query is encoded once more; it is signed as sent",
                    f"{path}?{quote(query, safe='=&', encoding='latin-1')}",
                ),
                ("blanks of the query are + in one place and %20 in another", f"{path}?{query.replace('+', '%20')}"),
                ("blanks of the query are + in one place and %20 in another", f"{path}?{query.replace('%20', '+')}"),
            ]
        choices += [
            ("the path is percent-decoded; it is signed as sent", decoded + tail),
            ("the path is percent-encoded otherwise than it is sent", encoded + tail),
            ("the path is encoded once more", quote(path, safe="/", encoding="latin-1") + tail),
            ("escapes differ in the case of their digits", _escapes(self.target, str.lower)),
            ("escapes differ in the case of their digits", _escapes(self.target, str.upper)),
            ("the target begins with a /", self.target.removeprefix("/")),
            ("a / ends the path in one place only", path.removesuffix("/") + tail),
            ("a / ends the path in one place only", path + "/" + tail),
        ]
        for depth in range(2, min(len(segments), 5)):
            choices.append(
                (
                    "a prefix of the path is missing: the target is signed as the client sends it",
                    "/" + "/".join(segments[depth:]) + tail,
                )
            )
        for origin in (f"http://{self.message.authority}", f"https://{self.message.authority}", self.message.authority):
            choices.append(("the whole URL is signed; the target is path and query", origin + self.target))
        if any(self._stands_for_target(item) for item in self.items):
            for hint, target in choices:
                if target not in seen:
                    seen.add(target)
                    yield Option("target", target, hint)

    def _names(self) -> Iterator[Option]:
        present = [item for item in self.items if self._value(item) is not None]
        if any(item != item.lower() for item in present):
            yield Option("names", "lower", "names stand in the string in lower case, but not in headers=", common=True)
        if any(item != _capital(item) for item in present):
            yield Option("names", "capital", "names stand in the string capitalised, but not in headers=", common=True)
        if present:
            yield Option("glue", ":", "a blank follows the colon after a header's name", common=True)
            yield Option("names", "none", "header lines are name: value, not the value alone")
        if len(present) < len(self.items):
            hint = "listed headers that are absent have no line at all"
            yield Option("absent", ":", hint)
            yield Option("absent", ": ", hint)

    def _dates(self) -> Iterator[Option]:
        if not any(item.lower() == "date" for item in self.items):
            return
        then = parse_http_date(self.message.get("date") or "")
        if then is not None:
            for off in (1, -1, 2, -2, 3, -3, 4, -4, 5, -5, -(then % 60), 60 - then % 60):
                if off:
                    yield Option(
                        "date",
                        formatdate(then + off, usegmt=True),
                        "another Date is signed than is sent: take the time once and use it in both places",
                    )
        other = self.message.get("x-date")
        if other is not None and other != self.message.get("date"):
            yield Option("date", other, "the line of date holds the value of X-Date")

    def _order(self) -> Iterator[Option]:
        count = len(self.items)
        if 1 < count <= 4:
            for order in permutations(range(count)):
                if order != tuple(range(count)):
                    yield Option("order", order, "the lines stand in another order than the names in headers=")
        elif count > 4:
            by_name = tuple(sorted(range(count), key=self.items.__getitem__))
            yield Option("order", by_name, "the lines are sorted; they stand in the order of headers=")
            yield Option(
                "order", tuple(reversed(range(count))), "the lines stand in another order than the names in headers="
            )
        for place, item in enumerate(self.items[:10]):
            order = tuple(other for other in range(count) if other != place)
            yield Option("order", order, f"the line of {item} is missing, though headers= lists it")

    def _stands_for_target(self, item: str) -> bool:
        return item == "@request-target" or (item in PSEUDO and self._value(item) is None)

    def _value(self, item: str) -> str | None:
        name = item.lower()
        value = self.message.get(name)
        return self.message.get(name.replace("_", "-")) if value is None else value

    def algorithms(self, declared: str) -> Iterator[Option]:
        return algorithm_options(declared)

    def build(self, recipe: Recipe) -> bytes:
        method = self.message.method
        request_line = recipe.get("line", "{method} {target}").format(
            method=method, lower=method.lower(), target=recipe.get("target", self.target)
        )
        lines = [self.claim.key_id] if recipe.get("key", True) else []
        if recipe.get("extra") == "first":
            lines.append(request_line)
        for place in recipe.get("order", range(len(self.items))):
            item = self.items[place]
            value = self._value(item)
            if item == "@request-target" or ("line" in recipe and self._stands_for_target(item)):
                lines.append(request_line)
                continue
            if value is None:
                if "absent" in recipe:
                    lines.append(item + recipe["absent"])
                continue
            if item.lower() == "date" and "date" in recipe:
                value = recipe["date"]
            match recipe.get("names"):
                case "none":
                    lines.append(value)
                    continue
                case "lower":
                    item = item.lower()
                case "capital":
                    item = _capital(item)
            lines.append(item + recipe.get("glue", ": ") + value)
        if recipe.get("extra") == "last":
            lines.append(request_line)
        text: str = "\n".join(lines) + recipe.get("end", "\n")
        return text.replace("\n", recipe.get("sep", "\n")).encode("latin-1")


def _capital(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def _escapes(text: str, change: Callable[[str], str]) -> str:
    return re.sub(r"%[0-9A-Fa-f]{2}", lambda match: change(match[0]), text)
