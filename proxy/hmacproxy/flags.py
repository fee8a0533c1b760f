"""Command lines as Go's `flag` package reads them: one dash or two, `=` or a blank. Standard library only.

Called by `options`. Reading stops at the first argument that is no flag, and at `--`; what follows is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Value = str | int | bool

#: What Go's strconv.ParseBool takes.
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. Its kind is that of its default; a boolean needs no value. `shows` is the value's name in the usage."""

    default: Value
    help: str
    shows: str = "string"


class BadFlag(Exception):
    """A command line that cannot be read, in Go's words."""


class HelpWanted(Exception):
    """`-h` or `-help`."""


def parse(arguments: Sequence[str], flags: Mapping[str, Flag]) -> tuple[dict[str, Value], list[str]]:
    """(value of every flag that was given, the arguments that were not read). Raises BadFlag and HelpWanted."""
    given: dict[str, Value] = {}
    left = list(arguments)
    while left:
        argument = left[0]
        if len(argument) < 2 or argument[0] != "-":
            break
        del left[0]
        if argument == "--":
            break
        name, equals, text = argument.removeprefix("-").removeprefix("-").partition("=")
        if not name or name[0] == "-":
            raise BadFlag(f"bad flag syntax: {argument}")
        if name in ("h", "help") and name not in flags:
            raise HelpWanted
        flag = flags.get(name)
        if flag is None:
            raise BadFlag(f"flag provided but not defined: -{name}")
        if isinstance(flag.default, bool):
            given[name] = _boolean(name, text) if equals else True
            continue
        if not equals:
            if not left:
                raise BadFlag(f"flag needs an argument: -{name}")
            text = left.pop(0)
        given[name] = _number(name, text) if isinstance(flag.default, int) else text
    return given, left


def usage(program: str, flags: Mapping[str, Flag]) -> str:
    """What `-help` prints."""
    lines = [f"Usage of {program}:"]
    for name, flag in sorted(flags.items()):
        shown = "" if isinstance(flag.default, bool) else " int" if isinstance(flag.default, int) else f" {flag.shows}"
        default = f" (default {str(flag.default).lower()})" if flag.default not in ("", False, 0) else ""
        lines += [f"  -{name}{shown}", f"    \t{flag.help}{default}"]
    return "\n".join(lines)


def _boolean(name: str, text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise BadFlag(f'invalid boolean value "{text}" for -{name}: parse error')


def _number(name: str, text: str) -> int:
    digits = text.removeprefix("-").removeprefix("+")
    # Go's 64 bits; int() itself refuses thousands of digits.
    if digits.isascii() and digits.isdigit() and len(digits) < 19:
        return int(text)
    raise BadFlag(f'invalid value "{text}" for flag -{name}: parse error')
