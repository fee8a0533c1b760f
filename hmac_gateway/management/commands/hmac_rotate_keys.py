"""`manage.py hmac_rotate_keys`: seal everything anew under the newest encryption key, so that older ones can go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Model

from hmac_gateway import crypto, sealing
from hmac_gateway.conf import conf

#: Every column that holds sealed text, by model.
SEALED = {
    "hmac_consumers.Credential": ("sealed_secret", "sealed_previous_secret"),
    "hmac_gateway.ConfigVersion": ("canary", "fingerprint_key"),
    "hmac_gateway.Rejection": ("sealed_request",),
}
#: Its configurations hold sealed texts among others.
PLUGINS = "hmac_proxy.Plugin"


class Command(BaseCommand):
    """Safe to run at any time, and again: sealed texts change, secrets do not, and no worker is disturbed."""

    help = "Re-seal stored secrets with the first of HMAC_GATEWAY_ENCRYPTION_KEYS."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        """Re-seal in batches; CommandError, with nothing lost, when a text cannot be opened."""
        counts: dict[str, int] = {}
        try:
            for label, columns in SEALED.items():
                counts[label] = sum(1 for row in self._rows(label) if self._reseal(row, columns))
            counts[PLUGINS] = sum(1 for row in self._rows(PLUGINS) if self._reseal_config(row))
        except crypto.CannotOpen as error:
            raise CommandError(f"{error}; put the key that sealed it behind the newest and run this again") from None
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(counts))
            return
        total = sum(counts.values())
        self.stdout.write(f"{total} rows are sealed with the newest of {len(conf.encryption_keys)} keys")
        if len(conf.encryption_keys) > 1:
            self.stdout.write("once every process knows the newest, older ones can leave HMAC_GATEWAY_ENCRYPTION_KEYS")

    @staticmethod
    def _rows(label: str) -> Iterator[Model]:
        yield from apps.get_model(label)._default_manager.order_by("pk").iterator(chunk_size=500)

    @staticmethod
    def _reseal(row: Model, columns: tuple[str, ...]) -> bool:
        old = {column: getattr(row, column) for column in columns if getattr(row, column)}
        if not old:
            return False
        new = {column: crypto.reseal(token) for column, token in old.items()}
        # Only where nobody wrote a new secret meanwhile. The base manager is Django's plain one: what the secret is
        # does not change, so workers that hold it opened need not read it again.
        return bool(type(row)._base_manager.filter(pk=row.pk, **old).update(**new))

    @staticmethod
    def _reseal_config(row: Any) -> bool:
        config = sealing.resealed(row.config)
        if config is None:
            return False
        # JSON compares differently in each database; every other write has raised the version.
        unchanged = type(row)._base_manager.filter(pk=row.pk, changed_at_version=row.changed_at_version)
        return bool(unchanged.update(config=config))
