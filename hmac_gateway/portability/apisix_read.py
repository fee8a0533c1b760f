"""A document in the form of APISIX's apisix.yaml → entries that the admin API's resources understand, checked.

Called by `apisix_import`; no database. Every item is checked by `apisix_store.check`, so a file is refused in the
words of the REST API, with the item's place and id before them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..admin_api import apisix_store as store
from ..admin_api.apisix_resources import CREDENTIALS, RESOURCES, Resource
from ..admin_api.body import unstorable
from ..admin_api.errors import ApiError
from .report import Skipped

#: What documents cannot say stands in a section of its own, which APISIX does not look at.
SECTION: Final = "hmac_gateway"
#: Lists of apisix.yaml that nothing here holds.
NOT_HELD: Final[Mapping[str, str]] = {
    "plugin_metadata": "plugins take no metadata here",
    "plugins": "which plugins there are is the setting PLUGINS_AVAILABLE",
    "protos": "gRPC is not transcoded here",
    "secrets": "secret managers are not asked here",
    "ssls": "certificates are the listener's, see hmac_serve --tls-cert",
    "stream_routes": "only HTTP is forwarded here",
}
#: Written by servers into their dumps; they mean nothing elsewhere.
_STAMPS: Final = frozenset(["create_time", "update_time", "createdIndex", "modifiedIndex"])
_KNOWN: Final = frozenset([*RESOURCES, CREDENTIALS.name])
_VARIABLE = re.compile(r"\$\{\{\s*([\w]+)\s*(?::=([^}]*))?\}\}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a file. `where` is its place, `owner` a credential's consumer, `beyond` what SECTION says of it."""

    resource: Resource
    key: str
    doc: dict[str, Any]
    where: str
    owner: str | None = None
    beyond: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id that reports and SECTION use; a credential's has its consumer before it."""
        return self.key if self.owner is None else f"{self.owner}/{self.key}"


@dataclass(slots=True)
class Reading:
    """What a file holds: entries in its order, what was passed over, and what is wrong."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read(document: Any, *, environ: Mapping[str, str] | None = None, without: Collection[str] = ()) -> Reading:
    """Check a document of plain values and take it apart.

    `environ` fills `${{NAME}}`; with None a document that uses it is refused. Plugins named in `without` are left out.
    """
    return _Reader(environ, frozenset(without)).read(document)


class _Reader:
    def __init__(self, environ: Mapping[str, str] | None, without: frozenset[str]) -> None:
        self._environ = environ
        self._without = without
        self._literal = False
        self._beyond: dict[str, Any] = {}
        self._found = Reading()
        self._places: dict[tuple[str, str], str] = {}
        self._seen_beyond: set[tuple[str, str]] = set()

    def read(self, document: Any) -> Reading:
        if document is None:
            document = {}
        if not isinstance(document, dict):
            self._say("the file", "a map of lists (routes, services, …) is expected at its top")
            return self._found
        self._read_section(document.get(SECTION))
        for name, items in document.items():
            if name == SECTION or name.endswith("_conf_version"):
                continue
            if name in NOT_HELD:
                number = len(items) if isinstance(items, list | dict) else 1
                if number and items is not None:
                    what = f"{name} ({number} {'entry' if number == 1 else 'entries'})"
                    self._found.skipped.append(Skipped(what, NOT_HELD[name]))
            elif name not in _KNOWN:
                near = difflib.get_close_matches(name, [*_KNOWN, *NOT_HELD, SECTION], 1)
                self._say(name, "not a list of apisix.yaml" + (f"; did you mean {near[0]}?" if near else ""))
            elif items is not None and not isinstance(items, list):
                self._say(name, f"wrong type: expected array, got {_lua_type(items)}")
            else:
                for number, item in enumerate(items or (), start=1):
                    self._read_item(name, f"{name} {number}", number, item)
        for kind, told in self._beyond.items():
            for key in told.keys() - {key for name, key in self._seen_beyond if name == kind}:
                self._say(f"{SECTION}.{kind}", f"{key!r} is not in this file")
        return self._found

    def _say(self, where: str, text: str) -> None:
        self._found.problems.append(f"{where}: {text}")

    def _read_section(self, section: Any) -> None:
        if section is None:
            return
        if not isinstance(section, dict) or section.get("version") != 1:
            self._say(SECTION, "`version: 1` is expected; this file was written by another version")
            return
        # Our own files hold texts as they are.
        self._literal = True
        for kind, told in section.items():
            if kind == "version":
                continue
            if kind not in _KNOWN:
                self._say(f"{SECTION}.{kind}", "not a kind of object")
            elif not isinstance(told, dict) or not all(isinstance(value, dict) for value in told.values()):
                self._say(f"{SECTION}.{kind}", "a map of maps is expected")
            else:
                self._beyond[kind] = told

    # --- items ---

    def _read_item(self, name: str, where: str, number: int, item: Any) -> None:
        if not isinstance(item, dict):
            self._say(where, f"wrong type: expected object, got {_lua_type(item)}")
            return
        try:
            item = self._filled(item)
        except ApiError as error:
            self._say(where, text_of(error))
            return
        item = {key: value for key, value in item.items() if key not in _STAMPS}
        if name == CREDENTIALS.name:
            owner = item.pop("consumer", None) or item.pop("username", None)
            if isinstance(item.get("id"), str) and "/credentials/" in item["id"]:
                owner, _, item["id"] = item["id"].partition("/credentials/")
            self._read_credential(where, owner, item)
        elif name == "consumers":
            self._read_consumer(where, item)
        else:
            resource = RESOURCES[name]
            # APISIX names what has no id by its place.
            item.setdefault("id", f"arr_{number}")
            self._take(resource, where, item)

    def _read_consumer(self, where: str, item: dict[str, Any]) -> None:
        key = item.get("id")
        if isinstance(key, str) and "/credentials/" in key:
            # APISIX's own form: credentials stand among the consumers.
            owner, _, item["id"] = key.partition("/credentials/")
            self._read_credential(where, owner, item)
            return
        if key is not None and str(key) != str(item.get("username", "")):
            self._say(where, "a consumer has no id but its username")
            return
        item.pop("id", None)
        below = item.pop("credentials", None)
        self._take(RESOURCES["consumers"], where, item)
        if below is None:
            return
        if not isinstance(below, list):
            self._say(where, f'property "credentials" validation failed: expected array, got {_lua_type(below)}')
            return
        for number, credential in enumerate(below, start=1):
            place = f"{where}, credential {number}"
            if not isinstance(credential, dict):
                self._say(place, f"wrong type: expected object, got {_lua_type(credential)}")
                continue
            found = {name: value for name, value in credential.items() if name not in _STAMPS}
            if "type" in found and "config" in found and "plugins" not in found:
                # ADC's form.
                found["plugins"] = {str(found.pop("type")): found.pop("config")}
                found.setdefault("id", found.get("name"))
            self._read_credential(place, item.get("username"), found)

    def _read_credential(self, where: str, owner: Any, item: dict[str, Any]) -> None:
        if not isinstance(owner, str) or not owner:
            self._say(where, "the credential names no consumer")
            return
        if item.get("id") is None:
            self._say(where, "missing credential id")
            return
        self._take(CREDENTIALS, where, item, owner)

    def _take(self, resource: Resource, where: str, item: dict[str, Any], owner: str | None = None) -> None:
        given = item.get(resource.key_field)
        key = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else ""
        shown = key if owner is None else f"{owner}/{key}"
        if key and len(shown) < 400:
            where = f"{where} ({'username' if resource.key_field == 'username' else 'id'} {shown})"
        doc = self._thinned(where, item)
        try:
            if why := unstorable(doc):
                raise ApiError(400, {"error_msg": why})
            store.check(resource, doc)
        except ApiError as error:
            self._say(where, text_of(error))
            return
        if other := self._places.get((resource.name, shown)):
            self._say(where, f"the same id as {other}")
            return
        self._places[resource.name, shown] = where
        self._seen_beyond.add((resource.name, shown))
        beyond = self._beyond.get(resource.name, {}).get(shown, {})
        self._found.entries.append(Entry(resource, key, doc, where, owner, beyond))

    def _thinned(self, where: str, item: dict[str, Any]) -> dict[str, Any]:
        plugins = item.get("plugins")
        if not self._without or not isinstance(plugins, dict):
            return item
        for name in sorted(self._without & plugins.keys()):
            self._found.skipped.append(Skipped(f"{where}, plugin {name}", "left out, as was asked for"))
        return {**item, "plugins": {name: value for name, value in plugins.items() if name not in self._without}}

    # --- ${{NAME}} ---

    def _filled(self, value: Any, level: int = 0) -> Any:
        if self._literal or level > 50:
            return value
        if isinstance(value, dict):
            return {key: self._filled(part, level + 1) for key, part in value.items()}
        if isinstance(value, list):
            return [self._filled(part, level + 1) for part in value]
        if not isinstance(value, str) or "${{" not in value:
            return value
        return self._substituted(value)

    def _substituted(self, text: str) -> Any:
        environ = self._environ

        def put(found: re.Match[str]) -> str:
            if environ is None:
                raise ApiError(400, f"it uses ${{{{{found[1]}}}}}; --env fills such places from the environment")
            value = environ.get(found[1], found[2])
            if value is None:
                raise ApiError(400, f"the environment variable {found[1]} is not set")
            return str(value)

        filled = _VARIABLE.sub(put, text)
        if filled == text:
            return text
        if filled in ("true", "false"):
            return filled == "true"
        # As in APISIX: what reads as a number is one.
        if re.fullmatch(r"-?[0-9]{1,15}", filled):
            return int(filled)
        return float(filled) if re.fullmatch(r"-?[0-9]{1,15}\.[0-9]{1,15}", filled) else filled


def text_of(error: ApiError) -> str:
    """A refusal's words."""
    body = error.body
    return body if isinstance(body, str) else str(body.get("error_msg") or body.get("message") or body)


def _lua_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "table"
