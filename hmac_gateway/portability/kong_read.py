"""A document in the form of kong.yml → its entities one by one, checked, each with its place and its references.

Reads Kong's declarative format (1.1, 2.1, 3.0), nested or flat, and what decK adds to it. Called by `kong_import`; no
database. What an entity may hold is the admin API's (`kong_entity.examine`), so a file is refused in Kong's words.
Source: Kong's declarative format, the kong_json_schema of decK.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..admin_api.body import unstorable
from ..admin_api.kong_entities import ENTITIES
from ..admin_api.kong_entity import Doc, Entity, examine
from ..admin_api.kong_errors import ENTITY
from ..admin_api.kong_plugins import PLUGINS_ENTITY, available
from ..admin_api.kong_routes import ROUTES
from ..admin_api.kong_spec import UNKNOWN, Spec
from ..core.credential import MASK
from .kong_head import SECTION, Head, read_head, remarks
from .kong_problems import Path, Problem
from .kong_unheld import FIELDS_NOT_HELD, HARMLESS, IGNORED, NOT_HELD
from .kong_values import Templates, migrated_path, named_by_vault
from .report import Skipped

_HASH: Final = re.compile(r"[0-9a-f]{40}")
_HASHED: Final = (
    "a hashed password cannot be taken over, since it is checked in another way here; give the password itself"
)


@dataclass(slots=True, eq=False)
class Item:
    """One entity of a file.

    `sent` is what the file says of it, without what is nested; `doc` the complete document, in which references are
    still to be resolved: `links` has, by field, the item above it, or the text and the key (None: any) it is named by.
    """

    entity: Entity
    path: Path
    where: str
    sent: Doc
    doc: Doc = field(default_factory=dict)
    links: dict[str, Item | tuple[str, str | None]] = field(default_factory=dict)
    beyond: Mapping[str, Any] = field(default_factory=dict)

    def problem(self, errors: Any) -> Problem:
        """What is wrong with it."""
        return Problem(self.path, errors, self.where, self.entity.name, self.sent)


@dataclass(slots=True)
class Reading:
    """What a file holds: items in its order, what was passed over, and what is wrong."""

    items: list[Item] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    select_tags: frozenset[str] = frozenset()


#: entity → entity nested in it → the field that points back.
NESTED: Final[Mapping[str, Mapping[str, str]]] = {
    parent: {
        child.name: name for child in ENTITIES.values() for name, above in child.parents.items() if above == parent
    }
    for parent in ENTITIES
}


def read(document: Any, *, environ: Mapping[str, str] | None = None, without: Collection[str] = ()) -> Reading:
    """Check a document of plain values and take it apart.

    `environ` fills decK's `${{ env "NAME" }}`; with None a document that uses it is refused. Plugins named in `without`
    are left out.
    """
    return _Reader(environ, frozenset(without)).read(document)


class _Reader:
    def __init__(self, environ: Mapping[str, str] | None, without: frozenset[str]) -> None:
        self._templates = Templates(environ)
        self._without = without
        self._found = Reading()
        self._head = Head()
        self._used: set[tuple[str, str]] = set()

    def read(self, document: Any) -> Reading:
        if not isinstance(document, dict):
            self._say(("error",), "failed parsing declarative configuration: expected an object", "the file")
            return self._found
        self._head = head = read_head(document)
        self._found.problems += head.problems
        self._found.skipped += head.skipped
        self._found.select_tags = frozenset(head.tags)
        for name, value in document.items():
            if name.startswith("_"):
                continue
            if name in ENTITIES:
                self._read_list(ENTITIES[name], (name,), "", value)
            elif name in NOT_HELD:
                self._skip_list(name, value, NOT_HELD[name])
            else:
                near = difflib.get_close_matches(name, [*ENTITIES, *NOT_HELD], 1)
                self._say((name,), UNKNOWN + (f"; did you mean {near[0]}?" if near else ""))
        for name, value in head.whole.items():
            self._read_list(ENTITIES[name], ("_ignore", SECTION, "entities", name), f"_ignore.{SECTION}", value)
        for kind, told in head.beyond.items():
            for key in told.keys() - {key for name, key in self._used if name == kind}:
                self._say(("_ignore", SECTION, kind), f"{key!r} is not in this file")
        return self._found

    def _say(self, path: Path, errors: Any, where: str = "") -> None:
        self._found.problems.append(Problem(path, errors, where))

    def _skip(self, what: str, why: str) -> None:
        self._found.skipped.append(Skipped(what, why))

    def _skip_list(self, what: str, value: Any, why: str) -> None:
        number = len(value) if isinstance(value, list | dict) else int(value is not None)
        if number:
            self._skip(f"{what} ({number} {'entry' if number == 1 else 'entries'})", why)

    # --- entities ---

    def _read_list(self, entity: Entity, path: Path, above: str, value: Any, parent: Item | None = None) -> None:
        if value is None or value == {}:
            return
        if not isinstance(value, list):
            self._say(path, "expected an array", f"{above}: {path[-1]}" if above else "")
            return
        for number, sent in enumerate(value, 1):
            where = f"{above}, {entity.name} {number}" if above else f"{entity.name} {number}"
            if not isinstance(sent, dict):
                self._say((*path, number), "expected a record", where)
            else:
                self._read_item(entity, (*path, number), where, sent, parent)

    def _read_item(self, entity: Entity, path: Path, where: str, sent: Doc, parent: Item | None) -> None:
        if len(name := _name(entity, sent)) < 200:
            where += name
        self._found.problems += remarks(sent, path, where)
        nested = {key: value for key, value in sent.items() if key in NESTED[entity.name]}
        own: Doc = {}
        for key, value in sent.items():
            if key in FIELDS_NOT_HELD.get(entity.name, ()):
                self._skip_list(f"{where}: {key}", value, FIELDS_NOT_HELD[entity.name][key])
            elif key not in nested and not key.startswith("_") and key not in IGNORED.get(entity.name, IGNORED["*"]):
                own[key] = value
        item = Item(entity, path, where, own)
        if entity is PLUGINS_ENTITY and self._left_out(item, sent):
            return
        if self._examine(item, sent, parent):
            self._found.items.append(item)
        for name, value in nested.items():
            self._read_list(ENTITIES[name], (*path, name), where, value, item)

    def _examine(self, item: Item, sent: Doc, parent: Item | None) -> bool:
        """Whether its document can be read; what is wrong is noted."""
        if why := unstorable(item.sent):
            self._found.problems.append(item.problem({ENTITY: [why]}))
            return False
        given = dict(item.sent)
        # Our own files hold texts as they are.
        if not self._head.ours:
            given, wrong = self._templates.filled(given)
            if wrong:
                self._found.problems.append(item.problem({ENTITY: [wrong]}))
                return False
        given = self._completed(item, given, sent)
        errors = self._take_links(item, given, parent)
        item.doc, found = examine(item.entity, given)
        errors = {**found, **errors}
        errors |= self._secrets_wrong(item)
        if errors:
            self._found.problems.append(item.problem(errors))
            return False
        if isinstance(item.doc["id"], str):
            item.doc["id"] = item.doc["id"].lower()
            item.beyond = self._head.told(item.entity.name, item.doc["id"])
            self._used.add((item.entity.name, item.doc["id"]))
        return True

    def _completed(self, item: Item, given: Doc, sent: Doc) -> Doc:
        """What was given with what stands elsewhere in the file: defaults, tags, shared configurations."""
        entity = item.entity
        if entity is PLUGINS_ENTITY and "_config" in sent:
            shared = self._head.configs.get(str(sent["_config"]))
            if shared is None:
                self._say((*item.path, "_config"), "no such entry in '_plugin_configs'", f"{item.where}: _config")
            elif isinstance(given.get("config"), dict | None):
                given["config"] = {**shared, **(given.get("config") or {})}
        ours = self._head.told(entity.name, given.get("id")).get("config")
        if entity is PLUGINS_ENTITY and isinstance(ours, dict) and isinstance(given.get("config"), dict | None):
            given["config"] = {**(given.get("config") or {}), **ours}
        if entity.name in self._head.defaults:
            given = _with_defaults(given, self._head.defaults[entity.name])
        if self._head.tags and isinstance(given.get("tags"), list | None):
            given["tags"] = [*(given.get("tags") or ()), *self._head.tags]
        if entity is ROUTES and self._head.old and isinstance(given.get("paths"), list):
            given["paths"] = [migrated_path(path) if isinstance(path, str) else path for path in given["paths"]]
        fields = entity.fields_for(given)
        return {name: _bare(fields.get(name), value) for name, value in given.items() if _says(fields.get(name), value)}

    def _take_links(self, item: Item, given: Doc, parent: Item | None) -> dict[str, Any]:
        """Take the references out of what was given, and leave what passes for one in their place."""
        wrong: dict[str, Any] = {}
        for name, above in item.entity.parents.items():
            if above not in ENTITIES:
                continue
            value = given.get(name)
            link = None if value is None else _link(ENTITIES[above], value)
            if isinstance(link, str):
                wrong[name] = link
            elif link is not None:
                item.links[name] = link
                given[name] = {"id": link[0]}
        if parent is not None:
            name = NESTED[parent.entity.name][item.entity.name]
            given[name] = {"id": "above"}
            written = item.links.get(name)
            if isinstance(written, tuple) and written[0] not in (
                parent.sent.get("id"),
                parent.sent.get(parent.entity.key),
            ):
                wrong[name] = "value must be null"
            item.links[name] = parent
        return wrong

    def _secrets_wrong(self, item: Item) -> dict[str, Any]:
        """What is given as a secret and cannot be one."""
        wrong: dict[str, Any] = {}
        for name in item.entity.secrets:
            value = item.doc.get(name)
            if not isinstance(value, str) or value == MASK:
                continue
            if named_by_vault(value):
                wrong[name] = NOT_HELD["vaults"]
            elif name == "password" and self._head.transform is False:
                wrong[name] = f"{_HASHED} (`_transform: false` says that it is hashed)"
            elif name == "password" and self._head.transform is None and _HASH.fullmatch(value):
                wrong[name] = f"{_HASHED}, or say `_transform: true` at the top if this is it"
        config = item.doc.get("config")
        if item.entity is PLUGINS_ENTITY and isinstance(config, dict) and (named := _named_by_vaults(config)):
            wrong["config"] = named
        return wrong

    # --- plugins that are not here ---

    def _left_out(self, item: Item, sent: Doc) -> bool:
        """Whether a plugin is passed over. One that may keep somebody out is not, unless that is asked for."""
        name = item.sent.get("name")
        what = f"{item.where}" if isinstance(name, str) else ""
        if not isinstance(name, str) or name == "":
            return False
        if name in self._without:
            self._skip(what, "left out, as was asked for")
        elif sent.get("consumer_group"):
            self._skip(what, NOT_HELD["consumer_groups"])
        elif name in available():
            return False
        elif sent.get("enabled") is False:
            self._skip(what, "this gateway does not have it, and it is switched off")
        elif name in HARMLESS:
            self._skip(what, f"this gateway does not have it; {HARMLESS[name]}")
        else:
            known = PLUGINS_ENTITY.fields_for({"name": name})["name"].check
            reason = known(name) if known is not None else UNKNOWN
            more = "without it calls may pass that Kong refuses, so it is left out only if asked for"
            self._found.problems.append(item.problem({"name": f"{reason}; {more} (--skip-plugin {name})"}))
        return True


def _named_by_vaults(config: Doc) -> dict[str, Any]:
    """The reasons against Kong's references in a plugin's configuration, by field."""
    wrong: dict[str, Any] = {}
    for name, value in config.items():
        if named_by_vault(value):
            wrong[name] = NOT_HELD["vaults"]
        elif isinstance(value, dict) and (inner := _named_by_vaults(value)):
            wrong[name] = inner
    return wrong


def _name(entity: Entity, sent: Doc) -> str:
    """What people call an entity, in brackets; secrets are no names."""
    for key in ("name", entity.key, "id"):
        value = sent.get(key) if key else None
        if isinstance(value, str) and value and not (key in entity.fields and entity.fields[key].secret):
            return f" ({key} {value})"
    return ""


def _link(entity: Entity, value: Any) -> tuple[str, str | None] | str:
    """What a foreign field names: a text and the key it stands for (None: name or id); or what is wrong with it."""
    if isinstance(value, str):
        return (value, None) if value else "length must be at least 1"
    if not isinstance(value, dict):
        return "expected a string"
    for key in ("id", entity.key):
        found = value.get(key)
        if isinstance(found, str) and found:
            return found, key
    return f"expected a string, or a record with 'id' or '{entity.key}'"


def _with_defaults(given: Doc, defaults: Doc) -> Doc:
    """`defaults` where nothing is given, inside of records, too."""
    found = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    for name, value in defaults.items():
        if isinstance(value, dict) and isinstance(given.get(name), dict):
            found[name] = _with_defaults(given[name], value)
    return found


def _says(spec: Spec | None, value: Any) -> bool:
    """Whether a field says something: Kong's dumps list fields of other versions as null."""
    return spec is not None or value is not None


def _bare(spec: Spec | None, value: Any) -> Any:
    """A record without unknown fields that are null."""
    if spec is None or spec.kind != "record" or not isinstance(value, dict):
        return value
    return {
        name: _bare(spec.fields.get(name), item) for name, item in value.items() if _says(spec.fields.get(name), item)
    }
