"""A configuration file's text ↔ plain values: YAML or JSON in, deterministic YAML or JSON out.

Called by the commands. Nothing in a file is trusted: no tags, no objects, bounded size, depth and number of values,
aliases counted at what they stand for. Knows no gateway's format but for APISIX's `#END`. Imports PyYAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from django.core.exceptions import ImproperlyConfigured

try:
    import yaml
except ImportError as error:  # pragma: no cover
    raise ImproperlyConfigured("YAML files need PyYAML: pip install 'django-hmac-gateway[yaml]'") from error

#: Bytes of a file, values in it, and levels. 10,000 routes are about 5 MB and 300,000 values.
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_VALUES: Final = 3_000_000
MAX_LEVELS: Final = 40
END: Final = "#END"

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = object()
#: Plain in YAML 1.1 and 1.2 alike; all other texts are quoted.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_WORDS: Final = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"])
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class FileError(Exception):
    """A file that cannot be read. The text names the line, and quotes nothing that may be a secret."""


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's scanner, and its rules for what a plain scalar means; dates are texts, as in JSON."""

    yaml_implicit_resolvers: dict[str, Any] = {
        first: [(tag, pattern) for tag, pattern in found if tag != f"{_TAG}timestamp"]
        for first, found in _Base.yaml_implicit_resolvers.items()
    }


class _Builder:
    """Makes values from a parser's events, so that sizes are known before anything grows."""

    def __init__(self, text: str) -> None:
        self._loader = _Loader(text)
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def document(self) -> Any:
        """The one document of the text, None where there is none."""
        loader = self._loader
        try:
            loader.get_event()
            if loader.check_event(yaml.StreamEndEvent):
                return None
            loader.get_event()
            value, _ = self._value(1)
            loader.get_event()
            if not loader.check_event(yaml.StreamEndEvent):
                self._refuse(loader.peek_event(), "a second document starts here; one file holds one")
            return value
        finally:
            loader.dispose()

    def _refuse(self, event: Any, why: str) -> NoReturn:
        raise FileError(f"line {event.start_mark.line + 1}: {why}")

    def _count(self, event: Any, number: int) -> None:
        self._values += number
        if self._values > MAX_VALUES:
            self._refuse(event, f"the file holds more than {MAX_VALUES:,} values (an alias counts as what it repeats)")

    def _value(self, level: int) -> tuple[Any, int]:
        """The next value, and how many values it is made of."""
        event = self._loader.get_event()
        if level > MAX_LEVELS:
            self._refuse(event, f"nested deeper than {MAX_LEVELS} levels")
        if isinstance(event, yaml.AliasEvent):
            # An anchor counts only once its value is complete: nothing can contain itself.
            if event.anchor not in self._anchors:
                self._refuse(event, "an alias without an anchor before it")
            value, size = self._anchors[event.anchor]
            self._count(event, size)
            return value, size
        before = self._values
        self._count(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            if value is _MERGE:
                self._refuse(event, "<< is only a key")
        elif isinstance(event, yaml.SequenceStartEvent):
            self._refuse_tag(event, "seq")
            value = []
            while not self._loader.check_event(yaml.SequenceEndEvent):
                value.append(self._value(level + 1)[0])
            self._loader.get_event()
        else:
            self._refuse_tag(event, "map")
            value = self._mapping(level)
        size = self._values - before
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, size)
        return value, size

    def _refuse_tag(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!", _TAG + kind):
            self._refuse(event, "a tag that is not plain YAML's")

    def _mapping(self, level: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            event = self._loader.peek_event()
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, "a key must be a text")
            key = self._scalar(self._loader.get_event())
            if key is _MERGE:
                found, _ = self._value(level + 1)
                for part in found if isinstance(found, list) else [found]:
                    if not isinstance(part, dict):
                        self._refuse(event, "<< takes a map, or a list of maps")
                    merged = {**part, **merged}
                continue
            if not isinstance(key, str):
                self._refuse(event, "a key must be a text: put it in quotes")
            if key in own:
                self._refuse(event, "a key that the same map has already")
            own[key], _ = self._value(level + 1)
        self._loader.get_event()
        return {**merged, **own} if merged else own

    def _scalar(self, event: Any) -> Any:
        tag = event.tag
        if tag in (None, "!"):
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        node = yaml.ScalarNode(tag, event.value, event.start_mark)
        try:
            match str(tag).removeprefix(_TAG):
                case "str" | "value":
                    return event.value
                case "int":
                    return self._loader.construct_yaml_int(node)
                case "float":
                    return self._loader.construct_yaml_float(node)
                case "bool":
                    return self._loader.construct_yaml_bool(node)
                case "null":
                    return None
                case "merge":
                    return _MERGE
        except (ValueError, KeyError, OverflowError):
            self._refuse(event, "a value that is not what its tag says, or too large")
        self._refuse(event, "a tag that is not plain YAML's")


def load(raw: bytes, end: bool = True) -> Any:
    """The value in a file: YAML, or JSON. Raises FileError.

    With `end`, YAML must end with `#END`: APISIX does not read a file without it, since it may be half written.
    """
    if len(raw) > MAX_BYTES:
        raise FileError(f"the file has more than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"the file is not UTF-8 (byte {error.start + 1})") from None
    if text.rstrip().endswith(END):
        return _load_yaml(text)
    if text.lstrip().startswith("{"):
        return _load_json(text, end)
    if not end:
        return _load_yaml(text)
    raise FileError(f"the file does not end with a line {END}; without it APISIX takes a file for half written, too")


def _load_yaml(text: str) -> Any:
    try:
        return _Builder(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        # What stands in quotes is the file's, and may be a secret.
        raise FileError(place + re.sub(r"""'.*'|".*\"""", "…", error.problem or "not YAML", flags=re.S)) from None
    except yaml.YAMLError:
        raise FileError("a character that YAML does not allow") from None


def _load_json(text: str, end: bool) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) != len(found):
            raise FileError("an object has the same key twice")
        return value

    def no_constant(name: str) -> NoReturn:
        raise FileError(f"{name} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        if not end:
            # YAML's maps may look like it.
            return _load_yaml(text)
        raise FileError(
            f"line {error.lineno}, column {error.colno}: {error.msg} (JSON; YAML ends with {END})"
        ) from None
    except RecursionError:
        raise FileError(f"nested deeper than {MAX_LEVELS} levels") from None
    except ValueError:
        raise FileError("a number is too large") from None


class _Writer(_Dumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        """Values are written out where they stand."""
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if plain else '"')


_Writer.add_representer(str, _represent_text)


def dump_yaml(document: Mapping[str, Any], comment: str, end: bool = True) -> str:
    """The document as YAML under a comment, with `end` ending with `#END`. The same document gives the same text."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    # Lines are never folded: APISIX's own parser of YAML would not join them.
    body = yaml.dump(
        dict(document), Dumper=_Writer, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1 << 30
    )
    return f"{head}{body}{END}\n" if end else head + body


def dump_json(document: Mapping[str, Any]) -> str:
    """The document as JSON. The same document always gives the same text."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
