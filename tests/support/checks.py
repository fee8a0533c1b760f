"""What `manage.py check` says about us under given settings. Used by the tests of the checks."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

from tests.settings import HMAC_GATEWAY


def found(deploy: bool = False, databases: list[str] | None = None) -> dict[str, CheckMessage]:
    """Our messages by id, out of all that Django's framework runs."""
    messages = run_checks(include_deployment_checks=deploy, databases=databases)
    ours = {str(message.id): message for message in messages if str(message.id).startswith("hmac_gateway.")}
    assert all(message.hint for message in ours.values())
    return ours


def with_settings(**keys: Any) -> override_settings:
    return override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, **keys})
