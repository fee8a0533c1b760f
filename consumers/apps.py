"""WHO may call. Relocatable: the label is fixed, the import name is wherever the package lies."""

from django.apps import AppConfig


class ConsumersConfig(AppConfig):
    name = __package__ or "consumers"
    label = "hmac_consumers"
    verbose_name = "HMAC gateway: consumers"
    default_auto_field = "django.db.models.BigAutoField"
