"""Every system check: what sets it off, its stable id, and that it says what to do."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.test import override_settings

from hmac_gateway.checks.keys import KNOWN_ADMIN_KEYS
from tests.settings import HMAC_GATEWAY
from tests.support.checks import found, with_settings


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


def test_the_suites_own_settings_are_clean() -> None:
    assert found(deploy=True) == {}


@pytest.mark.parametrize(
    ("keys", "id", "level", "words"),
    [
        ({"REPLAY_STROE": "memory"}, "E002", "E", "Did you mean 'REPLAY_STORE'?"),
        ({"trusted_proxies": []}, "E002", "E", "Did you mean 'TRUSTED_PROXIES'?"),
        ({"COLOUR": 1}, "E002", "E", "Known keys: ACCESS_LOG"),
        ({"DIALECT": "apisixx"}, "E003", "E", "Did you mean 'apisix'?"),
        ({"DIALECT": "nginx"}, "E003", "E", "Allowed: apisix, kong"),
        ({"TRUSTED_PROXIES": ["10.0.0.0/99"]}, "E004", "E", "'10.0.0.0/99' was given"),
        ({"TRUSTED_PROXIES": "10.0.0.1"}, "E004", "E", "['10.0.0.1']"),
        ({"ENCRYPTION_KEYS": []}, "W002", "W", "Fernet.generate_key"),
        (
            {"ENCRYPTION_KEYS": [HMAC_GATEWAY["ENCRYPTION_KEYS"][0], "hunter2"]},
            "E005",
            "E",
            "HMAC_GATEWAY['ENCRYPTION_KEYS']: key 2 is not 32 bytes",
        ),
        ({"WORKERS": 2}, "W001", "W", "2 processes do not share"),
        ({"REPLAY_STORE": "memcache://user:hunter2@h"}, "E006", "E", "'memcache'"),
    ],
)
def test_setting(keys: dict[str, Any], id: str, level: str, words: str) -> None:
    with with_settings(**keys):
        messages = found()
    assert list(messages) == [f"hmac_gateway.{id}"]
    message = messages[f"hmac_gateway.{id}"]
    assert {"E": 40, "W": 30}[level] == message.level
    assert words in f"{message.msg} {message.hint}"
    assert "hunter2" not in f"{message.msg} {message.hint}"


def test_settings_that_are_no_dict() -> None:
    with override_settings(HMAC_GATEWAY=["DIALECT"]):
        assert list(found(deploy=True)) == ["hmac_gateway.E001"]


def test_several_processes_are_known_from_the_server_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert "3 processes" in found()["hmac_gateway.W001"].msg
    with with_settings(REPLAY_STORE="database"):
        assert found() == {}
    with with_settings(REPLAY_STORE="redis://127.0.0.1:6379/0"):
        assert found() == {}


def test_redis_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmac_gateway.checks.processes.find_spec", lambda name: None)
    with with_settings(REPLAY_STORE="redis://:hunter2@127.0.0.1/0"):
        message = found()["hmac_gateway.E006"]
    assert "not installed" in message.msg and "hunter2" not in message.msg


def test_times_without_zones() -> None:
    with override_settings(USE_TZ=False):
        assert list(found()) == ["hmac_gateway.W005"]


@pytest.mark.parametrize("key", ["swordfish", "a" * 40, *sorted(KNOWN_ADMIN_KEYS)])
def test_admin_key_that_can_be_guessed_matters_when_deployed(key: str) -> None:
    with with_settings(ADMIN_KEY=key):
        assert found() == {}
        message = found(deploy=True)["hmac_gateway.W003"]
    assert key not in f"{message.msg} {message.hint}"


def test_no_admin_key_is_fine() -> None:
    with with_settings(ADMIN_KEY=None):
        assert found(deploy=True) == {}


@pytest.fixture
def plugin(db: None) -> Any:
    route = apps.get_model("hmac_proxy.Route").objects.create(id="r", paths=["/*"])
    return apps.get_model("hmac_proxy.Plugin").objects.create(
        name="hmac-auth", route=route, config={"allowed_algorithms": ["hmac-sha256"]}
    )


def test_stored_sha1_is_warned_of(plugin: Any) -> None:
    assert found(databases=["default"]) == {}
    # APISIX's default list holds it.
    plugin.config = {}
    plugin.save()
    assert found() == {}, "the database is asked only when asked for"
    messages = found(databases=["default"])
    assert list(messages) == ["hmac_gateway.W004"]
    assert "route r" in messages["hmac_gateway.W004"].msg
    plugin.enabled = False
    plugin.save()
    assert found(databases=["default"]) == {}


def test_several_authentication_plugins_are_warned_of(plugin: Any) -> None:
    other = type(plugin).objects.create(name="key-auth", route=plugin.route, config={})
    messages = found(databases=["default"])
    assert list(messages) == ["hmac_gateway.W007"] and "route r" in messages["hmac_gateway.W007"].msg
    other.config = {"_meta": {"disable": True}}
    other.save()
    assert found(databases=["default"]) == {}
    for unreadable in ([], {"_meta": []}):
        type(other).objects.filter(pk=other.pk).update(config=unreadable)
        assert list(found(databases=["default"])) == ["hmac_gateway.W007"]
    other.config, other.enabled = {}, False
    other.save()
    assert found(databases=["default"]) == {}


def test_stored_replay_protection_wants_a_store_that_lasts(plugin: Any) -> None:
    plugin.config = {"allowed_algorithms": ["hmac-sha256"], "replay_protection": True}
    plugin.save()
    assert list(found(databases=["default"])) == ["hmac_gateway.W006"]
    with with_settings(REPLAY_STORE="database"):
        assert found(databases=["default"]) == {}


def test_a_stored_plugin_that_cannot_be_compiled_is_left_to_the_runtime(plugin: Any) -> None:
    type(plugin).objects.filter(pk=plugin.pk).update(config={"clock_skew": "soon"})
    assert found(databases=["default"]) == {}


@pytest.mark.django_db
def test_before_the_first_migrate(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connection

    monkeypatch.setattr(connection.introspection, "table_names", lambda *args: [])
    assert found(databases=["default"]) == {}
