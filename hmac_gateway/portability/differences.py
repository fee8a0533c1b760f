"""Where two JSON values differ, as people may see it. Used by both importers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ..core.credential import MASK
from .report import Difference


def compare(prefix: str, old: Any, new: Any, hidden: Collection[str] = ()) -> Iterator[Difference]:
    """Each place in which two JSON values differ. `hidden` are places whose values are not for people."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            path = f"{prefix}.{name}" if prefix else str(name)
            if name in old and name in new:
                yield from compare(path, old[name], new[name], hidden)
            elif name in old:
                yield Difference(path, fit(path, old[name], hidden), None)
            else:
                yield Difference(path, None, fit(path, new[name], hidden))
    elif not alike(old, new):
        yield Difference(prefix, fit(prefix, old, hidden), fit(prefix, new, hidden))


def fit(path: str, value: Any, hidden: Collection[str]) -> Any:
    """The value as people may see it."""
    if path in hidden or any(path.startswith(f"{field}.") for field in hidden):
        return MASK
    if isinstance(value, dict):
        return {name: fit(f"{path}.{name}", part, hidden) for name, part in value.items()}
    return value


def alike(old: Any, new: Any) -> bool:
    """Whether two JSON values mean the same: 6 and 6.0 do, as databases mix them up; 1 and true do not."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(alike(one, other) for one, other in zip(old, new, strict=True))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(alike(old[name], new[name]) for name in old)
    return bool(old == new)
