"""`manage.py hmac_sign METHOD URL`: sign a request as a client would, and print it as a curl command."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from hmac_gateway.client import sign_headers
from hmac_gateway.conf import conf
from hmac_gateway.core.dates import parse_http_date
from hmac_gateway.core.macs import ALGORITHMS
from hmac_gateway.crypto import CannotOpen
from hmac_gateway.schemes import SCHEMES, HmacProxy
from hmac_gateway.schemes.hmacproxy import DIGESTS


class Command(BaseCommand):
    """Prints; sends nothing."""

    help = "Sign a request with a stored or a given key and print it as a curl command."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("method", metavar="METHOD")
        parser.add_argument("url", metavar="URL", help="the whole URL, escaped as it will be sent")
        parser.add_argument("--scheme", choices=sorted(SCHEMES), default="apisix")
        parser.add_argument("--key-id", default="", help="default: the only hmac-auth credential there is")
        parser.add_argument("--secret-file", default="", metavar="FILE|-", help="default: the stored one")
        parser.add_argument("--secret-env", default="", metavar="NAME", help="environment variable with the secret")
        parser.add_argument(
            "--algorithm",
            choices=[*sorted(ALGORITHMS), *DIGESTS],
            default=None,
            help="default: hmac-sha256; hmacproxy's are digests, by default sha1",
        )
        parser.add_argument("--signed", default="", metavar="LIST", help="components in order, separated by blanks")
        parser.add_argument("--sign-header", default="X-Signature", metavar="NAME", help="with --scheme hmacproxy")
        parser.add_argument("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'")
        parser.add_argument("--data", default=None, help="body as text; @FILE reads a file, @- standard input")
        parser.add_argument("--date", default="", help="an HTTP date in place of now")
        parser.add_argument("--json", action="store_true", help="only the headers, as JSON")

    def handle(self, **options: Any) -> None:
        """Print the signed request."""
        if "://" not in options["url"]:
            raise CommandError(
                f"URL: {options['url']!r} was given; allowed: a whole URL, as in http://127.0.0.1:9080/x"
            )
        headers: dict[str, str] = {}
        for line in options["header"]:
            name, colon, value = line.partition(":")
            if not colon or not name.strip():
                raise CommandError(f"--header: {line!r} was given; allowed: 'Name: value'")
            headers[name.strip()] = value.strip()
        if options["date"]:
            if parse_http_date(options["date"]) is None:
                raise CommandError(f"--date: {options['date']!r} was given; allowed: Sun, 06 Nov 1994 08:49:37 GMT")
            headers["Date"] = options["date"]
        body = self._body(options["data"])
        key_id, secret = self._key(options)
        method = options["method"].upper()
        try:
            added = sign_headers(
                method,
                options["url"],
                key_id=key_id,
                secret=secret,
                body=body,
                headers=headers,
                signed=options["signed"].split() or None,
                algorithm=options["algorithm"],
                scheme=options["scheme"],
                sign_header=options["sign_header"],
            )
        except ValueError as error:
            raise CommandError(f"--{error}") from None
        everything = headers | added
        if options["json"]:
            self.stdout.write(json.dumps(everything, indent=2))
            return
        words = ["curl", "-i"]
        if method != "GET" or body is not None:
            words += ["-X", method]
        words.append(options["url"])
        lines = [shlex.join(words), *(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in everything.items())]
        if body is not None:
            lines.append(f"--data-binary {shlex.quote(self._shown(options['data'], body))}")
        self.stdout.write(" \\\n  ".join(lines))

    @staticmethod
    def _body(data: str | None) -> bytes | None:
        if data is None:
            return None
        if data == "@-":
            return sys.stdin.buffer.read()
        if data.startswith("@"):
            try:
                return Path(data[1:]).read_bytes()
            except OSError as error:
                raise CommandError(f"--data: {data} cannot be read: {error.strerror}") from None
        return data.encode()

    @staticmethod
    def _shown(data: str, body: bytes) -> str:
        # Text that begins with @ would be a file name to curl, so it can only be given as one.
        return data if data.startswith("@") else body.decode()

    def _key(self, options: dict[str, Any]) -> tuple[str, str]:
        key_id = options["key_id"]
        given = self._given_secret(options)
        if given is not None:
            if not key_id and options["scheme"] != HmacProxy.name:
                raise CommandError("--key-id: it goes with a secret that is given")
            return key_id, given
        configured = conf.credentials
        if key_id in configured or (configured and not key_id and len(configured) == 1):
            key_id = key_id or next(iter(configured))
            return key_id, configured[key_id]["secret_key"]
        if not any(config.label == "hmac_consumers" for config in apps.get_app_configs()):
            raise CommandError(self._unknown(key_id, sorted(configured)))
        model = apps.get_model("hmac_consumers.Credential")
        try:
            found = model._default_manager.filter(plugin="hmac-auth", **({"identifier": key_id} if key_id else {}))
            # A consumer's own entry may repeat the key of one of its credentials.
            rows = list(found.order_by("identifier")[:3])
        except DatabaseError as error:
            raise CommandError(f"the database cannot be read: {str(error).splitlines()[0]}") from None
        names = sorted({row.identifier for row in rows})
        if not rows:
            if key_id:
                raise CommandError(
                    f"--key-id: {key_id!r} was given; no hmac-auth credential has it. With --secret-env NAME or "
                    "--secret-file FILE any key id will do"
                )
            raise CommandError("no hmac-auth credential exists; give --key-id and --secret-file")
        if len(names) > 1:
            raise CommandError(f"--key-id: there are several credentials ({', '.join(names)}, …); name one")
        try:
            return names[0], rows[0].get_secret()
        except CannotOpen as error:
            raise CommandError(f"the secret of {names[0]} cannot be opened: {error}") from None

    @staticmethod
    def _unknown(key_id: str, known: list[str]) -> str:
        shown = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
        given = f"{key_id!r} was given" if key_id else "nothing was given"
        there = (
            f"allowed: a key of CREDENTIALS ({shown})" if known else "CREDENTIALS is empty, and no tables are installed"
        )
        return f"--key-id: {given}; {there}, or any key id with --secret-env NAME or --secret-file FILE"

    @staticmethod
    def _given_secret(options: dict[str, Any]) -> str | None:
        if options["secret_env"]:
            if options["secret_env"] not in os.environ:
                raise CommandError(f"--secret-env: {options['secret_env']} is not set")
            return os.environ[options["secret_env"]]
        if options["secret_file"] == "-":
            return sys.stdin.readline().rstrip("\n")
        if options["secret_file"]:
            try:
                return Path(options["secret_file"]).read_text().rstrip("\n")
            except OSError as error:
                raise CommandError(
                    f"--secret-file: {options['secret_file']} cannot be read: {error.strerror}"
                ) from None
        return None
