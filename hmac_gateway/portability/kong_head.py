"""What a kong.yml says above its entities: the version, decK's tags, defaults and shared configurations, our section.

Called by `kong_read`, which applies it to each entity. No database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..admin_api.kong_entities import ENTITIES
from ..admin_api.kong_entity import Doc
from .kong_problems import Path, Problem
from .report import Skipped

FORMATS: Final = ("1.1", "2.1", "3.0")
#: Formats in which a path is a regular expression by its looks.
_OLD: Final = ("1.1", "2.1")
#: What documents cannot say stands in an item of `_ignore` under this name; Kong does not look into it.
SECTION: Final = "hmac_gateway"
#: decK's defaults, by its names of entities.
_DEFAULTS: Final = {name.removesuffix("s"): name for name in ENTITIES}


@dataclass(slots=True)
class Head:
    """`beyond` is what our section says of entities by kind and id, `whole` entities that stand in it; `ours` that
    there is one. `transform` is None where the file does not say."""

    old: bool = False
    transform: bool | None = None
    tags: list[str] = field(default_factory=list)
    defaults: dict[str, Doc] = field(default_factory=dict)
    configs: dict[str, Doc] = field(default_factory=dict)
    beyond: dict[str, dict[str, Any]] = field(default_factory=dict)
    whole: dict[str, Any] = field(default_factory=dict)
    ours: bool = False
    skipped: list[Skipped] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def told(self, kind: str, key: Any) -> Mapping[str, Any]:
        """What our section says of an entity."""
        found: Mapping[str, Any] = self.beyond.get(kind, {}).get(str(key), {})
        return found


def read_head(document: Doc) -> Head:
    """Read it; what is wrong is in `problems`."""
    head = Head()
    head.problems += remarks(document, (), "")
    version = document.get("_format_version")
    if version is None:
        _say(head, "_format_version", "required field missing")
    elif not isinstance(version, str):
        _say(head, "_format_version", "expected a string")
    elif version not in FORMATS:
        _say(head, "_format_version", "expected one of: " + ", ".join(FORMATS))
    head.old = version in _OLD
    head.transform = _typed(head, document, "_transform", bool, "a boolean")
    _read_info(head, _typed(head, document, "_info", dict, "a record") or {})
    for name, config in (_typed(head, document, "_plugin_configs", dict, "a map") or {}).items():
        if isinstance(config, dict):
            head.configs[name] = config
        else:
            _say(head, "_plugin_configs", name, "expected a map")
    if _typed(head, document, "_workspace", str, "a string") not in (None, "default"):
        head.skipped.append(Skipped("_workspace", "there is one configuration here; the entities are taken into it"))
    ignored = document.get("_ignore")
    for part in ignored if isinstance(ignored, list) else ():
        if isinstance(part, dict) and part.keys() == {SECTION}:
            _read_section(head, part[SECTION])
    return head


def remarks(values: Doc, path: Path, where: str) -> Iterator[Problem]:
    """What is wrong with `_comment` and `_ignore`, which the file and each entity may have."""
    for name, kind, words in (("_comment", str, "a string"), ("_ignore", list, "an array")):
        if not isinstance(values.get(name), kind | None):
            yield Problem((*path, name), f"expected {words}", f"{where}: {name}" if where else "")


def _say(head: Head, *path: str) -> None:
    head.problems.append(Problem(path[:-1], path[-1]))


def _typed(head: Head, values: Doc, name: str, kind: type, words: str, above: str = "") -> Any:
    value = values.get(name)
    if value is None or isinstance(value, kind):
        return value
    _say(head, *([above] if above else []), name, f"expected {words}")
    return None


def _read_info(head: Head, info: Doc) -> None:
    for tag in _typed(head, info, "select_tags", list, "an array", "_info") or ():
        if isinstance(tag, str):
            head.tags.append(tag)
        else:
            _say(head, "_info", "select_tags", "expected a string")
    for name, values in (_typed(head, info, "defaults", dict, "a map", "_info") or {}).items():
        if name in _DEFAULTS and isinstance(values, dict):
            head.defaults[_DEFAULTS[name]] = values


def _read_section(head: Head, section: Any) -> None:
    path = ("_ignore", SECTION)
    if not isinstance(section, dict) or section.get("version") != 1:
        _say(head, *path, "`version: 1` is expected; this file was written by another version")
        return
    head.ours = True
    for kind, told in section.items():
        if kind == "version":
            continue
        if kind == "entities" and isinstance(told, dict) and told.keys() <= ENTITIES.keys():
            head.whole = told
        elif kind not in ENTITIES:
            _say(head, *path, kind, "not a kind of entity")
        elif not isinstance(told, dict) or not all(isinstance(value, dict) for value in told.values()):
            _say(head, *path, kind, "a map of maps is expected")
        else:
            head.beyond[kind] = told
