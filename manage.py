#!/usr/bin/env python
"""Django's command line for the standalone project."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hmac_gateway.settings")
    if sys.argv[1:2] == ["hmac_demo"] and not os.environ.get("HMAC_GATEWAY_NO_DOTENV"):
        # Settings need the keys, so they must exist before Django starts.
        from hmac_gateway.environment import dotenv_path, make_env

        make_env(dotenv_path())
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
