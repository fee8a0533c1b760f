"""What signing strings made of lines have in common, and how their parts are got wrong.

The base of `mistakes_apisix` and `mistakes_kong`; used by `explain` through `mistakes.search`. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.utils import formatdate
from itertools import permutations
from typing import ClassVar, Final
from urllib.parse import quote, unquote_to_bytes

from ..core.dates import parse_http_date
from ..core.message import Message, split_target
from .base import Claim
from .mistakes import Option, Recipe, algorithm_options

#: What other formats call the request line.
PSEUDO: Final = ("(request-target)", "request-line", "request-target", ":path")


class Lines:
    """A string of one line for each listed item, taken apart.

    A recipe may say: `names` (lower, capital, none), `glue` behind a name, `absent` (what follows the name of a header
    that is not there; None: it has no line), `date`, `order`, `target`, `end` and `sep`.
    """

    #: What ends the string, and what follows the name of a header that is not there.
    END: ClassVar[str] = "\n"
    ABSENT: ClassVar[str | None] = None

    def __init__(self, message: Message, claim: Claim) -> None:
        self.message = message
        self.claim = claim
        path, query = split_target(message.target)
        self.target = f"{path}?{query}" if "?" in message.target else path
        self.items = list(claim.headers)

    def stands_for_target(self, item: str) -> bool:
        """Whether a listed item is, or was meant to be, the request line."""
        return item == "@request-target" or (item in PSEUDO and self.value(item) is None)

    def target_line(self, item: str, recipe: Recipe) -> str | None:
        """The line of an item that stands for the request line, or None."""
        raise NotImplementedError

    def first(self, recipe: Recipe) -> list[str]:
        """Lines before the first item's."""
        return []

    def last(self, recipe: Recipe) -> list[str]:
        """Lines behind the last item's."""
        return []

    def algorithms(self, declared: str) -> Iterator[Option]:
        """Other ways to compute a MAC."""
        return algorithm_options(declared)

    def targets(self) -> Iterator[Option]:
        """Other spellings of the request target."""
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
        if any(self.stands_for_target(item) for item in self.items):
            for hint, target in choices:
                if target not in seen:
                    seen.add(target)
                    yield Option("target", target, hint)

    def names(self) -> Iterator[Option]:
        """Other spellings of the headers' names."""
        present = [item for item in self.items if self.value(item) is not None]
        if any(item != item.lower() for item in present):
            yield Option("names", "lower", "names stand in the string in lower case, but not in headers=", common=True)
        if any(item != _capital(item) for item in present):
            yield Option("names", "capital", "names stand in the string capitalised, but not in headers=", common=True)
        if present:
            yield Option("glue", ":", "a blank follows the colon after a header's name", common=True)
            yield Option("names", "none", "header lines are name: value, not the value alone")

    def absent(self) -> bool:
        """Whether a listed header is not there."""
        return any(self.value(item) is None and not self.stands_for_target(item) for item in self.items)

    def dates(self) -> Iterator[Option]:
        """Another date than the one sent."""
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

    def orders(self) -> Iterator[Option]:
        """Another order of the lines, or one too few."""
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

    def value(self, item: str) -> str | None:
        """The value of a listed header."""
        name = item.lower()
        value = self.message.get(name)
        return self.message.get(name.replace("_", "-")) if value is None else value

    def build(self, recipe: Recipe) -> bytes:
        """The string with a recipe's mistakes."""
        lines = self.first(recipe)
        for place in recipe.get("order", range(len(self.items))):
            item = self.items[place]
            line = self.target_line(item, recipe)
            value = self.value(item)
            if line is not None:
                lines.append(line)
                continue
            if value is None:
                absent = recipe.get("absent", self.ABSENT)
                lines += [] if absent is None else [item + absent]
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
        lines += self.last(recipe)
        text: str = "\n".join(lines) + recipe.get("end", self.END)
        return text.replace("\n", recipe.get("sep", "\n")).encode("latin-1")


def _capital(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def _escapes(text: str, change: Callable[[str], str]) -> str:
    return re.sub(r"%[0-9A-Fa-f]{2}", lambda match: change(match[0]), text)
