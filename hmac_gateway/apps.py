"""The engine's app: registers system checks and signals, nothing else."""

from django.apps import AppConfig


class HmacGatewayConfig(AppConfig):
    name = "hmac_gateway"
    label = "hmac_gateway"
    verbose_name = "HMAC gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, signals

        signals.connect()
        checks.register_checks()
