"""What an import did or would do, what an export left out, and both as lines or JSON without a secret.

Filled by `apisix_import` and `apisix_export`, printed by the commands. Imports nothing of the library.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Refused(Exception):
    """A file that was not imported; nothing was written. `problems` has one text for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Skipped(NamedTuple):
    """Something that was not carried over, and why."""

    what: str
    why: str


class Difference(NamedTuple):
    """A field's value before and after; secrets are masked. A place that is not there is None."""

    field: str
    old: Any
    new: Any

    def line(self) -> str:
        """`plugins.hmac-auth.clock_skew: 300 -> 60`."""
        return f"{self.field}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."


@dataclass(slots=True)
class Change:
    """One object that an import created, changed or deleted."""

    action: str
    kind: str
    id: str
    differences: list[Difference] = field(default_factory=list)

    def lines(self, diff: bool) -> Iterator[str]:
        """The object, then its fields where `diff` asks for them."""
        names = ", ".join(dict.fromkeys(found.field.partition(".")[0] for found in self.differences))
        yield f"{self.action:<8} {self.kind} {self.id}" + (f": {names}" if names else "")
        if diff:
            for found in self.differences:
                yield f"           {found.line()}"

    def as_json(self, diff: bool) -> dict[str, Any]:
        """The same for machines."""
        value: dict[str, Any] = {"action": self.action, "kind": self.kind, "id": self.id}
        if self.action == "changed":
            value["fields"] = list(dict.fromkeys(found.field.partition(".")[0] for found in self.differences))
        if diff and self.differences:
            value["diff"] = [found._asdict() for found in self.differences]
        return value


@dataclass(slots=True)
class Report:
    """The whole of an import. `version` is the configuration's new one, None where nothing changed."""

    changes: list[Change] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    version: int | None = None
    dry_run: bool = False

    def lines(self, diff: bool = False) -> Iterator[str]:
        """For people."""
        for change in self.changes:
            yield from change.lines(diff)
        for what, why in self.skipped:
            yield f"skipped  {what}: {why}"
        counted = Counter(change.action for change in self.changes)
        words = [f"{counted[action]} {action}" for action in ("created", "changed", "deleted")]
        yield ", ".join([*words, f"{self.left.total()} left as they were"]) + self._end()

    def _end(self) -> str:
        if self.dry_run:
            return " (dry run: nothing was written)"
        return f" (version {self.version})" if self.version is not None else ""

    def as_json(self, diff: bool = False) -> dict[str, Any]:
        """For machines."""
        return {
            "dry_run": self.dry_run,
            "version": self.version,
            "changes": [change.as_json(diff) for change in self.changes],
            "left": dict(sorted(self.left.items())),
            "skipped": [found._asdict() for found in self.skipped],
        }
