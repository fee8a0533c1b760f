"""`manage.py hmac_demo`: from an empty database to a running gateway that answers a signed request."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from typing import Any, Final

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from hmac_gateway.client import sign_headers
from hmac_gateway.conf import conf
from hmac_gateway.entities import one_version
from hmac_gateway.serving import Listener
from hmac_gateway.supervisor import Supervisor

from .hmac_serve import address, check_addresses

#: The label that marks what the demo made; it refuses to touch a configuration that holds anything else.
LABEL: Final = {"demo": "hmac-auth"}
SERVICE: Final = "hmac-auth-httpbin-service"
ROUTE: Final = "hmac-auth-route"
CONSUMER: Final = "hmac-auth-consumer"
CREDENTIAL: Final = "hmac-auth-consumer-cred"
KEY_ID: Final = "client-1"
SECRET: Final = "my-hmac-secret"
PATH: Final = "/anything/hmac-auth"
ADMIN: Final = "admin"


class Command(BaseCommand):
    """Idempotent; runs until Ctrl-C."""

    help = "Migrate, load a signed demo route, serve it, and print a curl that is answered with 200."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--bind", default="127.0.0.1:9080", metavar="ADDR", help="gateway (default %(default)s)")
        parser.add_argument("--admin-bind", default="127.0.0.1:9180", metavar="ADDR", help="console and admin API")
        parser.add_argument("--echo-bind", default="127.0.0.1:9181", metavar="ADDR", help="the demo's upstream")
        parser.add_argument("--no-serve", action="store_true", help="only prepare the database")

    def handle(self, **options: Any) -> None:
        """Prepare, then serve."""
        gateway = Listener("gateway", *address(options["bind"], "--bind"))
        console = Listener("console", *address(options["admin_bind"], "--admin-bind"))
        echo = Listener("echo", *address(options["echo_bind"], "--echo-bind"))
        listeners = [echo, gateway, console]
        if not options["no_serve"]:
            check_addresses(listeners)
        if not conf.encryption_keys:
            raise CommandError("HMAC_GATEWAY_ENCRYPTION_KEYS is not set; start with script/demo, which makes .env")
        call_command("migrate", verbosity=0, interactive=False)
        self._refuse_foreign_data()
        self._load(echo)
        password = self._admin()
        self.stdout.write(f"console   {console.url}/admin/   user {ADMIN}, " + _password_text(password))
        if conf.admin_key:
            self.stdout.write(f"admin API {console.url}/apisix/admin/   X-API-KEY: HMAC_GATEWAY_ADMIN_KEY in .env")
        if options["no_serve"]:
            return
        self.stdout.write(f"gateway   {gateway.url}")
        self.stdout.flush()
        if Supervisor(listeners, {"WEB_CONCURRENCY": "1"}, lambda: self._announce(gateway)).run():
            raise CommandError("a listener could not be kept running; see the lines above")

    def _refuse_foreign_data(self) -> None:
        """Only an empty configuration becomes the demo's; once it is, what people add to it may stay."""
        # By the label: someone may have followed the guide by hand, under the same names.
        if apps.get_model("hmac_proxy.Route")._default_manager.filter(pk=ROUTE, labels=LABEL).exists():
            return
        for label in ("hmac_proxy.Route", "hmac_proxy.Service", "hmac_consumers.Consumer"):
            foreign = apps.get_model(label)._default_manager.first()
            if foreign is not None:
                raise CommandError(
                    f"the database holds other configuration ({label.split('.')[1].lower()} {foreign}); "
                    "the demo is for an empty one: set DATABASE_URL, or use hmac_serve"
                )

    def _load(self, echo: Listener) -> None:
        """The objects of the HMAC guide, with the echo upstream in place of a public one; found again by their ids."""
        models = {
            name: apps.get_model(f"hmac_proxy.{name}") for name in ("Upstream", "Node", "Service", "Route", "Plugin")
        }
        consumers = apps.get_model("hmac_consumers.Consumer")
        credentials = apps.get_model("hmac_consumers.Credential")
        with one_version():
            service = models["Service"](id=SERVICE, name=SERVICE, labels=LABEL)
            upstream, _ = models["Upstream"]._default_manager.update_or_create(
                pk=service.inline_id, defaults={"inline": True}
            )
            models["Node"]._default_manager.filter(upstream=upstream).exclude(host=echo.host, port=echo.port).delete()
            models["Node"]._default_manager.get_or_create(
                upstream=upstream, host=echo.host, port=echo.port, defaults={"weight": 100}
            )
            service, _ = models["Service"]._default_manager.get_or_create(
                pk=SERVICE, defaults={"name": SERVICE, "labels": LABEL, "upstream": upstream}
            )
            route, _ = models["Route"]._default_manager.get_or_create(
                pk=ROUTE,
                defaults={
                    "name": ROUTE,
                    "labels": LABEL,
                    "paths": [PATH],
                    "methods": ["GET"],
                    "service": service,
                },
            )
            models["Plugin"]._default_manager.get_or_create(
                name="hmac-auth",
                route=route,
                defaults={"config": {"clock_skew": 300, "allowed_algorithms": ["hmac-sha256"]}},
            )
            consumer, _ = consumers._default_manager.get_or_create(username=CONSUMER, defaults={"labels": LABEL})
            if not credentials._default_manager.filter(consumer=consumer, public_id=CREDENTIAL).exists():
                credential = credentials(
                    consumer=consumer, public_id=CREDENTIAL, name=CREDENTIAL, plugin="hmac-auth", identifier=KEY_ID
                )
                credential.set_secret(SECRET)
                credential.full_clean()
                credential.save()

    def _admin(self) -> str | None:
        """Make the admin user; its password, or None when it is there already."""
        users = get_user_model()._default_manager
        if users.filter(**{get_user_model().USERNAME_FIELD: ADMIN}).exists():
            return None
        password = secrets.token_urlsafe(12)
        users.create_superuser(ADMIN, "", password)
        return password

    def _announce(self, gateway: Listener) -> None:
        url = f"{gateway.url}{PATH}"
        signed = sign_headers("GET", url, key_id=KEY_ID, secret=SECRET)
        headers = "".join(f" \\\n  -H {shlex.quote(f'{name}: {value}')}" for name, value in signed.items())
        self.stdout.write(
            f"\nA signed request, good for five minutes, is answered with 200:\n\ncurl -i {url}{headers}\n"
            f"\nAn unsigned one is answered with 401:\n\ncurl -i {url}\n"
            f"\nAnother signed one: {_python()} manage.py hmac_sign GET {url} --key-id {KEY_ID}\n"
            "\nready; stop with Ctrl-C"
        )
        self.stdout.flush()


def _python() -> str:
    """This interpreter as one would type it here."""
    here = os.path.relpath(sys.executable)
    return sys.executable if here.startswith("..") else here


def _password_text(password: str | None) -> str:
    if password is None:
        return f"password as printed at the first start ({_python()} manage.py changepassword {ADMIN} makes another)"
    return f"password {password} (shown only now)"
