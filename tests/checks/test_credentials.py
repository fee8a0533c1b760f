"""CREDENTIALS: entries that cannot be used, short secrets, and a site that nobody can enter."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.test import override_settings

from tests.checks.test_protect import OURS, entry
from tests.settings import HMAC_GATEWAY
from tests.support.checks import found, with_settings

SECRET = "hunter2-0123456789abcdef"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({5: {"secret_key": SECRET}}, "key ids that are texts"),
        ({"": {"secret_key": SECRET}}, "key ids that are texts"),
        ({"a": SECRET}, "CREDENTIALS['a']"),
        ({"a": {}}, "CREDENTIALS['a'].secret_key"),
        ({"a": {"secret_key": ""}}, "CREDENTIALS['a'].secret_key"),
        ({"a": {"secret_key": SECRET.encode()}}, "CREDENTIALS['a'].secret_key"),
        ({"a": {"secret": SECRET}}, "Did you mean 'secret_key'?"),
        ({"a": {"secret_key": SECRET, SECRET: 1}}, "Known keys"),
        ({"a": {"secret_key": "$env://hunter"}}, "os.environ"),
        ({"a": {"secret_key": SECRET, "previous_secret_key": ""}}, "CREDENTIALS['a'].previous_secret_key"),
        ({"a": {"secret_key": SECRET, "username": 5}}, "CREDENTIALS['a'].username"),
        ({"a": {"secret_key": SECRET, "custom_id": 5}}, "CREDENTIALS['a'].custom_id"),
        ({"a": {"secret_key": SECRET, "groups": "partners"}}, "a list of texts"),
        ({"a": {"secret_key": SECRET, "groups": 5}}, "a list of texts"),
        ({"a": {"secret_key": SECRET, "labels": ["x"]}}, "a dict of texts"),
        (
            {
                "a": {"secret_key": SECRET, "username": "u"},
                "b": {"secret_key": SECRET, "username": "u", "groups": ["x"]},
            },
            "entries of a username must agree",
        ),
    ],
)
def test_an_entry_that_cannot_be_used(entries: dict[Any, Any], words: str) -> None:
    with with_settings(CREDENTIALS=entries):
        message = found(deploy=True)["hmac_gateway.E009"]
    text = f"{message.msg} {message.hint}"
    assert words in text and message.level == 40
    # A key that is no known one is named: it may be misspelt. Its value never is.
    assert "hunter2" not in text.replace(f"unknown key: {SECRET!r}", "")


def test_settings_only_mode_needs_no_encryption_keys() -> None:
    with with_settings(CREDENTIALS={"a": {"secret_key": SECRET}}, ENCRYPTION_KEYS=[]):
        assert found(deploy=True) == {}


def test_short_secrets_matter_when_deployed() -> None:
    entries = {"a": {"secret_key": "0123456789abcde"}, "b": {"secret_key": "0123456789abcdef"}}
    with with_settings(CREDENTIALS=entries):
        assert found() == {}
        messages = found(deploy=True)
    assert list(messages) == ["hmac_gateway.W014"]
    message = messages["hmac_gateway.W014"]
    assert "'a'" in message.msg and "'b'" not in message.msg and "0123456789" not in f"{message.msg} {message.hint}"


def test_a_site_that_nobody_can_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [config for config in apps.get_app_configs() if config.label not in ("hmac_consumers", "hmac_proxy")]
    monkeypatch.setattr("hmac_gateway.checks.common.apps.get_app_configs", lambda: kept)
    with override_settings(MIDDLEWARE=OURS, HMAC_GATEWAY={"PROTECT": [entry()]}):
        assert list(found()) == ["hmac_gateway.E010"]
    with override_settings(
        MIDDLEWARE=OURS, HMAC_GATEWAY={"PROTECT": [entry()], "CREDENTIALS": {"a": {"secret_key": SECRET}}}
    ):
        assert found(deploy=True) == {}
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": []}):
        assert found() == {}, "nothing is stored, so nothing is sealed"
