"""`hmacproxy` and `python -m hmac_gateway hmacproxy`: finds the proxy app, wherever it lies, and runs its command.

No Django project is needed. Imports nothing before it is asked to run.
"""

from __future__ import annotations

import sys
from importlib import import_module

from . import EMBED


def main(arguments: list[str] | None = None) -> None:
    """Run the command with `arguments`, by default those of the process, and exit."""
    package = next(name for name in EMBED if name.rpartition(".")[2] == "proxy")
    try:
        command = import_module(f"{package}.hmacproxy.command")
    except ModuleNotFoundError as error:
        if error.name not in ("granian", "starlette"):
            raise
        print(f"{error.name} is missing: pip install 'django-hmac-gateway[gateway]'", file=sys.stderr)
        sys.exit(1)
    sys.exit(command.main(sys.argv[1:] if arguments is None else arguments))
