"""Keys of the settings dict with values of the wrong type."""

from __future__ import annotations

from typing import Any

import pytest

from hmac_gateway.checks.values import TYPES
from hmac_gateway.conf import DEFAULTS
from tests.support.checks import found, with_settings


def test_every_key_has_a_rule_that_its_default_obeys() -> None:
    assert TYPES.keys() == DEFAULTS.keys()
    for key, (allowed, words) in TYPES.items():
        assert DEFAULTS[key] is None or allowed(DEFAULTS[key]), key
        assert words or key == "TRUSTED_PROXIES"


@pytest.mark.parametrize(
    ("key", "wrong", "words"),
    [
        ("DIALECT", 1, "Allowed: a text"),
        ("REPLAY_STORE", ["memory"], "Allowed: a text"),
        ("REPLAY_MEMORY_ENTRIES", 0, "is 0"),
        ("REPLAY_MEMORY_ENTRIES", "100", "environment"),
        ("PLUGINS_AVAILABLE", "hmac-auth", "a list of hmac-auth"),
        ("PLUGINS_AVAILABLE", ["hmac-aut"], "Did you mean 'hmac-auth'?"),
        ("PROTECT", "^/api/", "a list of regular expressions"),
        ("PROTECT", {"path": "^/api/"}, "a list of regular expressions"),
        ("CREDENTIALS", [("hunter2", {})], "a dict"),
        ("ORIGINAL_HEADERS", ["X-Original-URI"], "a dict of method"),
        ("ORIGINAL_HEADERS", "treafik", "Did you mean 'traefik'?"),
        ("ORIGINAL_HEADERS", {"uri": "X-A", "host": "x-a"}, "another header than that of uri"),
        ("ORIGINAL_HEADERS", {"url": "X-Original-URI"}, "Did you mean 'uri'?"),
        ("ORIGINAL_HEADERS", {"uri": 1}, "the name of a header"),
        ("TELEMETRY", "no", "None, True or False"),
        ("REQUIRE_SAME_CONSUMER", "false", "True or False"),
        ("MAX_BODY", "64M", "at least 1"),
        ("MAX_BODY", True, "at least 1"),
        ("SPOOL_MEMORY", 0, "at least 1"),
        ("ENCRYPTION_KEYS", "hunter2", "a list of texts"),
        ("ADMIN_KEY", b"hunter2", "None, or a text"),
        ("ENV_PREFIX", "", "not empty"),
        ("ENV_PREFIX", ["hunter2"], "not empty"),
        ("REFRESH_SECONDS", 0, "above 0"),
        ("REFRESH_SECONDS", float("nan"), "above 0"),
        ("ACCESS_LOG", 1, "True or False"),
        ("WORKERS", 0.5, "is 0.5"),
    ],
)
def test_wrong_values_are_named_and_no_other_check_stumbles(key: str, wrong: Any, words: str) -> None:
    with with_settings(**{key: wrong}):
        messages = found(deploy=True)
    assert list(messages) == ["hmac_gateway.E007"]
    text = f"{messages['hmac_gateway.E007'].msg} {messages['hmac_gateway.E007'].hint}"
    assert key in text and words in text and "hunter2" not in text


@pytest.mark.parametrize("key", DEFAULTS)
def test_none_stands_for_the_default(key: str) -> None:
    with with_settings(**{key: None}):
        assert "hmac_gateway.E007" not in found(deploy=True)


def test_an_original_header_may_be_switched_off() -> None:
    with with_settings(ORIGINAL_HEADERS={"proto": ""}):
        assert found() == {}
