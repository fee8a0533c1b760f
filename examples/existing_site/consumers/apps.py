"""The site's own app; its name has nothing to do with the gateway's consumers."""

from django.apps import AppConfig


class ConsumersConfig(AppConfig):
    name = "consumers"
