#!/usr/bin/env python
"""Django's command line for the standalone project."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hmac_gateway.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
