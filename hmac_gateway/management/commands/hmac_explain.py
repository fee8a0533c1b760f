"""`manage.py hmac_explain`: why a signed request fails, step by step, with the string the server signs."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from hmac_gateway import site
from hmac_gateway.core.dates import parse_http_date
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.core.message import Message
from hmac_gateway.debugger import as_text, explain_kept, explain_pasted
from hmac_gateway.rawhttp import parse_raw
from hmac_gateway.runtime import Runtime
from hmac_gateway.snapshot import Snapshot

_NO_TABLES: Final = (
    "Refused requests are kept only where the apps of EMBED are installed. Give the request itself: --raw FILE, as "
    "sent or as curl -v shows it."
)


class Command(BaseCommand):
    """Exit code 0 when the request would be accepted, 1 when it is refused, 2 when it cannot be explained."""

    help = "Explain what the gateway, or this site, makes of a signed request."

    def add_arguments(self, parser: CommandParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--raw", metavar="FILE|-", help="a request as sent, or the output of curl -v")
        source.add_argument("--request-id", metavar="ID", help="X-Request-Id of a refused request")
        parser.add_argument("--client-string", metavar="FILE", help="the signing string that the client computed")
        parser.add_argument("--now", default="", metavar="DATE", help="an HTTP date or Unix seconds in place of now")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        """Explain and print."""
        snapshot = self._snapshot()
        theirs = self._read(options["client_string"]) if options["client_string"] else None
        try:
            if options["request_id"] is not None:
                if snapshot is None:
                    raise CommandError(_NO_TABLES, returncode=2)
                report = explain_kept(snapshot, options["request_id"], theirs)
            else:
                message, body = parse_raw(self._read(options["raw"]))
                report = explain_pasted(snapshot, message, body, self._now(options["now"], message), theirs)
        except ConfigError as error:
            raise CommandError(str(error), returncode=2) from None
        if options["json"]:
            self.stdout.write(json.dumps(asdict(report), indent=2))
        else:
            self.stdout.write(as_text(report))
        if not report.accepted:
            sys.exit(1)

    @staticmethod
    def _snapshot() -> Snapshot | None:
        """The database's configuration; None where the site has no tables for it."""
        if not site.has_tables():
            return None
        runtime = Runtime()
        if not runtime.refresh() or runtime.snapshot is None:
            raise CommandError("; ".join(runtime.problems), returncode=2)
        return runtime.snapshot

    @staticmethod
    def _read(name: str) -> bytes:
        if name == "-":
            return sys.stdin.buffer.read()
        try:
            return Path(name).read_bytes()
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {error.strerror}", returncode=2) from None

    @staticmethod
    def _now(text: str, message: Message) -> float:
        if not text:
            return time.time()
        now = parse_http_date(text)
        if now is None:
            try:
                return float(text)
            except ValueError:
                raise CommandError(f"--now: {text!r} was given; allowed: an HTTP date or Unix seconds") from None
        return float(now)
