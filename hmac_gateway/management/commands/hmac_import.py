"""`manage.py hmac_import --from apisix|kong FILE`: take over another gateway's configuration, or an exported one."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from hmac_gateway.portability import apisix_import, kong_import, text
from hmac_gateway.portability.report import Refused

#: Whose forms can be read, by whom, and whether a YAML file must end with `#END`.
_FORMS: Final = {
    "apisix": (apisix_import.import_document, True),
    "kong": (kong_import.import_document, False),
}
#: Who is shown in the audit where the system does not tell who runs the command.
_NOBODY = "command line"


class Command(BaseCommand):
    """Exit code 0 when done, 1 when the file is refused, 2 when it or the database cannot be read. All or nothing."""

    help = "Import configuration; what the file does not name stays."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", metavar="FILE|-", help="YAML (APISIX's ends with #END) or JSON; - is standard input"
        )
        parser.add_argument(
            "--from", dest="form", choices=sorted(_FORMS), required=True, help="whose form the file has"
        )
        parser.add_argument("--dry-run", action="store_true", help="print what would be done, write nothing")
        parser.add_argument("--diff", action="store_true", help="print each field's old and new value, secrets masked")
        parser.add_argument("--prune", action="store_true", help="delete what the file does not name")
        parser.add_argument("--strict", action="store_true", help="refuse a file of which something would be skipped")
        parser.add_argument("--skip-plugin", action="append", default=[], metavar="NAME", help="leave this plugin out")
        parser.add_argument(
            "--env", action="store_true", help='fill ${{NAME}} (kong: ${{ env "NAME" }}) from the environment'
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        """Import and print the report."""
        import_document, end = _FORMS[options["form"]]
        try:
            document = text.load(self._read(options["file"]), end)
        except text.FileError as error:
            self._refuse([str(error)], options["json"])
        try:
            report = import_document(
                document,
                actor=_actor(),
                dry_run=options["dry_run"],
                prune=options["prune"],
                strict=options["strict"],
                environ=os.environ if options["env"] else None,
                without=options["skip_plugin"],
            )
        except Refused as error:
            self._refuse(error.problems, options["json"])
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=2) from None
        except DatabaseError as error:
            # Its text may quote a row.
            raise CommandError(f"the database refuses: {type(error).__name__}", returncode=2) from None
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json(options["diff"]), ensure_ascii=False, indent=2))
            return
        for line in report.lines(options["diff"]):
            self.stdout.write(line)

    def _refuse(self, problems: list[str], as_json: bool) -> Any:
        if as_json:
            self.stdout.write(json.dumps({"refused": problems}, ensure_ascii=False, indent=2))
            sys.exit(1)
        lines = "".join(f"\n  {line}" for line in problems[:50])
        more = f"\n  and {len(problems) - 50} more" if len(problems) > 50 else ""
        raise CommandError(f"nothing was imported:{lines}{more}")

    @staticmethod
    def _read(name: str) -> bytes:
        # One byte more than allowed is enough to refuse.
        if name == "-":
            return sys.stdin.buffer.read(text.MAX_BYTES + 1)
        try:
            with Path(name).open("rb") as file:
                return file.read(text.MAX_BYTES + 1)
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {error.strerror}", returncode=2) from None


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return _NOBODY
