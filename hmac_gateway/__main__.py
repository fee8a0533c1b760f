"""`python -m hmac_gateway COMMAND …` and the console script `hmac-gateway`: the hmac_ commands without their prefix.

And `hmacproxy`, which is no command of Django's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run `hmac_<first argument>`; without one, list what there is."""
    if sys.argv[1:2] == ["hmacproxy"]:
        from .hmacproxy import main as hmacproxy

        hmacproxy(sys.argv[2:])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hmac_gateway.settings")
    names = sorted(
        file.stem.removeprefix("hmac_")
        for file in (Path(__file__).parent / "management" / "commands").glob("hmac_*.py")
    )
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in (*names, "migrate", "createsuperuser"):
        known = ", ".join([*names, "hmacproxy", "migrate", "createsuperuser"])
        print(f"usage: hmac-gateway COMMAND …\ncommands: {known}", file=sys.stderr)
        sys.exit(0 if name in ("-h", "--help", "help") else 2)
    if name == "demo" and not os.environ.get("HMAC_GATEWAY_NO_DOTENV"):
        # Settings need the keys, so they must exist before Django starts.
        from .environment import dotenv_path, make_env

        make_env(dotenv_path())
    from django.core.management import execute_from_command_line

    command = f"hmac_{name}" if name in names else name
    execute_from_command_line(["hmac-gateway", command, *sys.argv[2:]])


if __name__ == "__main__":
    main()
