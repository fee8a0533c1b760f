"""`manage.py hmac_serve`: the gateway on one address; console, admin APIs, health and metrics on another."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from hmac_gateway.certificates import make_self_signed, pair_problem
from hmac_gateway.conf import conf
from hmac_gateway.runtime import first_line
from hmac_gateway.serving import Listener
from hmac_gateway.supervisor import Supervisor, check_free

#: Addresses that stand for every address.
_ANY: Final = frozenset({"0.0.0.0", "::"})
#: Listeners as the start lines call them, where that is not their own name.
_SHOWN: Final = {"kong-admin": "Kong's admin API", "kong-admin-open": "Kong's admin API, open"}


def address(text: str, option: str) -> tuple[str, int]:
    """`HOST:PORT` as (host, port); raises CommandError naming the option and what is allowed."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise CommandError(
            f"{option}: {text!r} was given; allowed: an IP address and a port, as in 127.0.0.1:9080"
        ) from None
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise CommandError(f"{option}: {text!r} was given; allowed: a port from 1 to 65535 behind the colon")
    return host, int(port)


def tls_files(cert: str, key: str, option: str) -> tuple[str, str]:
    """Both files, or neither; CommandError that says why they cannot serve."""
    if bool(cert) != bool(key):
        raise CommandError(f"{option}-cert and {option}-key must both be given, or neither")
    if cert and (why := pair_problem(cert, key)):
        raise CommandError(f"{option}-cert, {option}-key: {why}")
    return cert, key


def check_addresses(listeners: Sequence[Listener]) -> None:
    """CommandError when an address is taken, by others or by another of ours."""
    for place, listener in enumerate(listeners):
        for other in listeners[:place]:
            # Several processes may bind one address, so the system would not tell: it would spread connections.
            if other.port == listener.port and (other.host == listener.host or _ANY & {other.host, listener.host}):
                raise CommandError(f"{other.app} and {listener.app} cannot both listen on port {listener.port}")
        if why := check_free(listener):
            raise CommandError(f"{listener.app}: {listener.host}:{listener.port} cannot be bound: {why}")


class Command(BaseCommand):
    """Runs until SIGTERM or Ctrl-C; then lets running requests finish."""

    help = "Serve the gateway and its console."
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--bind", default="127.0.0.1:9080", metavar="ADDR", help="gateway (default %(default)s)")
        parser.add_argument(
            "--admin-bind", default="127.0.0.1:9180", metavar="ADDR", help="console, admin APIs, health, metrics"
        )
        parser.add_argument("--workers", type=int, default=None, metavar="N", help="gateway processes (default 1)")
        parser.add_argument("--tls-cert", default="", metavar="FILE")
        parser.add_argument("--tls-key", default="", metavar="FILE")
        parser.add_argument("--admin-tls-cert", default="", metavar="FILE")
        parser.add_argument("--admin-tls-key", default="", metavar="FILE")
        parser.add_argument("--admin-tls-self-signed", action="store_true", help="make a certificate for the console")
        parser.add_argument(
            "--kong-admin-bind", default="", metavar="ADDR", help="Kong's admin API at the root of this address"
        )
        parser.add_argument(
            "--kong-admin-open", action="store_true", help="ask nobody for a key there; loopback addresses only"
        )
        parser.add_argument("--kong-admin-tls-cert", default="", metavar="FILE")
        parser.add_argument("--kong-admin-tls-key", default="", metavar="FILE")
        parser.add_argument("--no-admin", action="store_true", help="no console here: a data-plane node")
        parser.add_argument("--status-bind", default="", metavar="ADDR", help="with --no-admin: health and metrics")

    def handle(self, **options: Any) -> None:
        """Check everything that can be checked before listening, then supervise."""
        workers = options["workers"] if options["workers"] is not None else conf.workers
        if workers < 1:
            raise CommandError(f"--workers: {workers} was given; allowed: 1 or more")
        if options["status_bind"] and not options["no_admin"]:
            raise CommandError("--status-bind goes with --no-admin; the console has health and metrics of its own")
        if options["kong_admin_bind"] and options["no_admin"]:
            raise CommandError("--kong-admin-bind and --no-admin exclude each other")
        if not options["kong_admin_bind"]:
            for name in ("kong_admin_open", "kong_admin_tls_cert", "kong_admin_tls_key"):
                if options[name]:
                    raise CommandError(f"--{name.replace('_', '-')} goes with --kong-admin-bind")
        self._check_database()
        with tempfile.TemporaryDirectory(prefix="hmac-gateway-") as folder:
            listeners = self._listeners(options, Path(folder))
            check_addresses(listeners)
            for listener in listeners:
                self.stdout.write(f"{_SHOWN.get(listener.app, listener.app)}: {listener.url}")
            self.stdout.flush()
            gateways = [listener for listener in listeners if listener.app == "gateway"] * (workers - 1)
            environment = {"WEB_CONCURRENCY": str(workers)}
            code = Supervisor([*listeners, *gateways], environment, self._up).run()
        if code:
            raise CommandError("a listener could not be kept running; see the lines above", returncode=code)

    def _up(self) -> None:
        self.stdout.write("ready; stop with Ctrl-C")
        self.stdout.flush()

    def _listeners(self, options: dict[str, Any], folder: Path) -> list[Listener]:
        cert, key = tls_files(options["tls_cert"], options["tls_key"], "--tls")
        listeners = [Listener("gateway", *address(options["bind"], "--bind"), cert, key)]
        if options["no_admin"]:
            if options["status_bind"]:
                listeners.append(Listener("status", *address(options["status_bind"], "--status-bind")))
            return listeners
        host, port = address(options["admin_bind"], "--admin-bind")
        cert, key = tls_files(options["admin_tls_cert"], options["admin_tls_key"], "--admin-tls")
        if options["admin_tls_self_signed"]:
            if cert:
                raise CommandError("--admin-tls-self-signed and --admin-tls-cert exclude each other")
            cert, key = make_self_signed(folder, host)
        listeners.append(Listener("console", host, port, cert, key))
        if options["kong_admin_bind"]:
            listeners.append(self._kong_admin(options))
        return listeners

    @staticmethod
    def _kong_admin(options: dict[str, Any]) -> Listener:
        host, port = address(options["kong_admin_bind"], "--kong-admin-bind")
        cert, key = tls_files(options["kong_admin_tls_cert"], options["kong_admin_tls_key"], "--kong-admin-tls")
        if not options["kong_admin_open"]:
            return Listener("kong-admin", host, port, cert, key)
        if not ipaddress.ip_address(host).is_loopback:
            raise CommandError(
                f"--kong-admin-open: {host} was given; allowed: a loopback address such as 127.0.0.1, since everybody "
                "who reaches it may change everything"
            )
        return Listener("kong-admin-open", host, port, cert, key)

    @staticmethod
    def _check_database() -> None:
        try:
            executor = MigrationExecutor(connection)
            behind = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except Error as error:
            # A data plane starts anyway and says so in /readyz; it recovers when the database does.
            os.write(2, f"warning: the database cannot be read yet: {first_line(error)}\n".encode())
            return
        finally:
            connection.close()
        if behind:
            raise CommandError(f"{len(behind)} migrations are not applied; run: python manage.py migrate")
