"""Callables that model fields use as defaults. Called by Django when a row is made without a value.

They live here and not in the relocatable apps because migrations write down their import path.
"""

from __future__ import annotations

import secrets
import uuid


def new_key() -> str:
    """Return a fresh key for an entity whose key is a string."""
    return str(uuid.uuid4())


def new_secret() -> str:
    """Return a random secret: 43 URL-safe characters, 256 bits."""
    return secrets.token_urlsafe(32)


def http_and_https() -> list[str]:
    """Return the protocols a route or plugin answers unless told otherwise."""
    return ["http", "https"]
