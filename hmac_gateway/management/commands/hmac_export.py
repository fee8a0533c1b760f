"""`manage.py hmac_export --to apisix|kong`: the configuration as a file that they, and `hmac_import`, can read."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from hmac_gateway.portability import apisix_export, kong_export, text
from hmac_gateway.portability.report import Refused

#: Whose forms can be written, by whom, and whether a YAML file ends with `#END`.
_FORMS: Final = {
    "apisix": (apisix_export.export_document, True),
    "kong": (kong_export.export_document, False),
}

_MASKED = "Written by hmac_export. Secrets are masked; a mask imported again leaves the stored secret as it is."
_OPEN = "Written by hmac_export. This file holds secrets in clear."


class Command(BaseCommand):
    """Exit code 0 when done, 1 when a secret cannot be opened, 2 when the database or the file fails.

    What the file cannot hold is named on standard error.
    """

    help = "Export configuration, with secrets masked unless asked for."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--to", dest="form", choices=sorted(_FORMS), required=True, help="whose form the file has")
        parser.add_argument("--with-secrets", action="store_true", help="write secrets in clear")
        parser.add_argument("--output", metavar="FILE", help="in place of standard output; 0600 with secrets")
        parser.add_argument("--json", action="store_true", help="write JSON in place of YAML")

    def handle(self, **options: Any) -> None:
        """Write the file, then say what is not in it."""
        opened = options["with_secrets"]
        export_document, end = _FORMS[options["form"]]
        try:
            exported = export_document(opened)
        except Refused as error:
            raise CommandError("; ".join(error.problems)) from None
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=2) from None
        except DatabaseError as error:
            raise CommandError(f"the database cannot be read: {type(error).__name__}", returncode=2) from None
        if options["json"]:
            written = text.dump_json(exported.document)
        else:
            written = text.dump_yaml(exported.document, _OPEN if opened else _MASKED, end)
        if options["output"]:
            _write(Path(options["output"]), written, opened)
        else:
            sys.stdout.flush()
            self.stdout.write(written, ending="")
        for what, why in exported.unseen:
            self.stderr.write(f"only for hmac_import: {what}: {why}", self.style.WARNING)
        for what, why in exported.skipped:
            self.stderr.write(f"not in the file: {what}: {why}", self.style.WARNING)


def _write(path: Path, written: str, secret: bool) -> None:
    # Beside it first, so that a reader never finds half a file, and with its mode from the first byte on.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o666)
        try:
            with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
                file.write(written)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", returncode=2) from None
