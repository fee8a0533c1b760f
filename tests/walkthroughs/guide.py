"""Takes runnable pieces out of a guide's plain text, as a reader would copy them. The text stays as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.served import ADMIN_KEY
from tests.support.services import missing

FOLDER = Path(__file__).parent


def text_of(name: str) -> str:
    """A guide beside this file."""
    return (FOLDER / name).read_text()


def curls(text: str) -> list[str]:
    """Every curl command: from its first line until quotes and continuations have ended."""
    found: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line.startswith("curl "):
            continue
        command = line
        while command.endswith("\\") or command.count("'") % 2:
            command += "\n" + next(lines)
        found.append(command)
    return found


def script(text: str, name: str, end: str) -> str:
    """The Python script between the line that names its file and the line `end`, indented again.

    The page lost leading blanks. Inside brackets Python needs none; what follows a colon at the end of a line is a
    block, and no block in these guides is followed by anything else.
    """
    lines = text.splitlines()
    lines = lines[lines.index(name) + 1 : lines.index(end)]
    depth = 0
    restored = []
    for line in lines:
        restored.append("    " * depth + line if line else "")
        if line.endswith(":") and not line.startswith(("#", '"', "'")):
            depth += 1
    return "\n".join(restored).strip() + "\n"


def run_curl(command: str) -> str:
    """What a reader's shell prints."""
    if shutil.which("curl") is None:
        missing("curl is not installed")
    result = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "API_KEY": ADMIN_KEY, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, (command, result.stderr)
    return result.stdout
