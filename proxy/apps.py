"""WHERE calls go. Relocatable: the label is fixed, the import name is wherever the package lies."""

from django.apps import AppConfig


class ProxyConfig(AppConfig):
    name = __package__ or "proxy"
    label = "hmac_proxy"
    verbose_name = "HMAC gateway: proxy"
    default_auto_field = "django.db.models.BigAutoField"
