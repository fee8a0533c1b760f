"""Single values of a kong.yml that mean something else than they say: decK's templates, old paths, Kong's vaults.

Used by `kong_read`. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_TEMPLATE: Final = re.compile(r"""\$\{\{\s*env\s+["']([A-Za-z0-9_]+)["']\s*(?:\|\s*(toInt|toFloat|toBool)\s*)?\}\}""")
_PLAIN: Final = re.compile(r"[a-zA-Z0-9._~/%-]*")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_RESERVED: Final = frozenset("!#$%&'()*+,/:;=?@[]")
_META: Final = frozenset(".^-{}\\|")


class Templates:
    """decK's `${{ env "NAME" }}`, with `| toInt`, `| toFloat` and `| toBool`; environ None: nothing is filled in."""

    def __init__(self, environ: Mapping[str, str] | None) -> None:
        self._environ = environ

    def filled(self, value: Any) -> tuple[Any, str]:
        """The value with all of them filled in, and what is wrong with one."""
        try:
            return self._filled(value), ""
        except ValueError as error:
            return value, str(error)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if not isinstance(value, str) or "${{" not in value:
            return value
        if (whole := _TEMPLATE.fullmatch(value)) and whole[2]:
            return _converted(self._value(whole), whole[1], whole[2])
        return _TEMPLATE.sub(self._value, value)

    def _value(self, found: re.Match[str]) -> str:
        name = found[1]
        if self._environ is None:
            raise ValueError(f'it uses ${{{{ env "{name}" }}}}; --env fills such places from the environment')
        if name not in self._environ:
            raise ValueError(f"the environment variable {name} is not set")
        return self._environ[name]


def _converted(text: str, name: str, kind: str) -> Any:
    if kind == "toBool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind == "toInt" and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if kind == "toFloat" and re.fullmatch(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?", text):
        return float(text)
    # The value may be a secret.
    raise ValueError(f"the environment variable {name} is not what {kind} takes")


def migrated_path(path: str) -> str:
    """A route's path of formats 1.1 and 2.1 as 3.0 has it: what looks like a regular expression gets `~`.

    Plain paths are normalised, and escapes decoded that mean nothing, as Kong does (`migrate_path_280_300`).
    """
    if _PLAIN.fullmatch(path):
        return _normalised(path)
    return "~" + _ESCAPE.sub(_decoded_in_regex, path)


def _normalised(path: str) -> str:
    path = _ESCAPE.sub(_decoded, path)
    if not path.startswith("/"):
        return path
    parts: list[str] = []
    for part in path.split("/")[1:]:
        if part == "..":
            del parts[-1:]
        elif part != ".":
            parts.append(part)
    if path.endswith(("/.", "/..")):
        parts.append("")
    return re.sub("//+", "/", "/" + "/".join(parts))


def _decoded(found: re.Match[str]) -> str:
    char = chr(int(found[1], 16))
    return found[0].upper() if char in _RESERVED or not "!" <= char <= "~" else char


def _decoded_in_regex(found: re.Match[str]) -> str:
    char = _decoded(found)
    return f"\\{char}" if char in _META else char


def named_by_vault(value: Any) -> bool:
    """Whether a value is one of Kong's references, which stand for a secret that is kept elsewhere."""
    return isinstance(value, str) and value.startswith("{vault://") and value.endswith("}")
