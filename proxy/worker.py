"""What granian loads in each gateway worker process. Sets up Django before anything imports a model."""

from __future__ import annotations

from typing import Any


def create_app() -> Any:
    """The ASGI application of one worker, built from the environment's settings."""
    import django

    django.setup()

    from .assembly import build

    return build()
