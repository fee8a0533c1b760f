"""Secrets in the configuration of plugins: nowhere in clear, kept by every way of writing."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse

from hmac_gateway import crypto, sealing
from hmac_gateway.core.credential import MASK
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.models import AuditEvent, ConfigVersion
from hmac_gateway.runtime import Runtime
from tests.admin_api.kong.support import Kong
from tests.admin_api.support import Api
from tests.portability.support import everything, exported, take, wipe
from tests.settings import HMAC_GATEWAY

pytestmark = pytest.mark.django_db
SECRET = "hunter2-and-more"
SIGN: dict[str, Any] = {"key_id": "a", "secret_key": SECRET}
NODES = {"type": "roundrobin", "nodes": {"127.0.0.1:1": 1}}
Plugin: Any = apps.get_model("hmac_proxy.Plugin")


@pytest.fixture
def api(settings: Any) -> Api:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "whitenoise" not in name]
    return Api()


def route(**sign: Any) -> dict[str, Any]:
    return {"uri": "/*", "plugins": {"sign-request": {**SIGN, **sign}}, "upstream": NODES}


def row() -> Any:
    return Plugin.objects.get(name="sign-request")


def compiled() -> Any:
    runtime = Runtime()
    assert runtime.refresh(), runtime.problems
    assert runtime.snapshot is not None
    (found,) = runtime.snapshot.routes.routes
    return found.target.outgoing.own["sign-request"].config


def in_clear() -> str:
    """All that the database holds."""
    with connection.cursor() as cursor:
        rows = []
        for name in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{name}"')
            rows += cursor.fetchall()
    return repr(rows)


def test_over_rest_it_is_sealed_masked_and_kept_by_its_mask(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answers = [api.put("routes/r", route())]
        assert answers[0].status_code == 201
        assert crypto.check_canary(ConfigVersion.load().canary)
        stored = row().config["secret_key"]
        assert stored.startswith("$sealed://") and row().config["key_id"] == "a"
        shown = api.value("routes/r")["plugins"]["sign-request"]
        assert shown == {"key_id": "a", "secret_key": MASK}
        version = row().changed_at_version
        # The same secret, and its mask: the plugin is not written again.
        answers += [api.put("routes/r", route()), api.put("routes/r", route(secret_key=MASK)), api.get("routes")]
        assert (row().config["secret_key"], row().changed_at_version) == (stored, version)
        answers.append(api.patch("routes/r", {"plugins": {"sign-request": {"nonce": True}}}))
        assert row().config == {"key_id": "a", "secret_key": stored, "nonce": True}
        assert compiled().secret.reveal() == SECRET.encode()
        answers.append(api.put("routes/r", route(secret_key=SECRET + "!")))
        assert row().config["secret_key"] != stored
        assert compiled().secret.reveal() == SECRET.encode() + b"!"
        answers += [api.get("routes/r"), api.delete("routes/r")]
    events = AuditEvent.objects.order_by("pk")
    assert [event.changes.get("secret") for event in events] == ["changed", None, None, None, "changed", None]
    assert "plugins" in events[4].changes["fields"]
    assert SECRET not in in_clear() and "$sealed" not in b"".join(answer.content for answer in answers).decode()
    assert SECRET not in b"".join(answer.content for answer in answers).decode() + caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (MASK, "stands for one that is stored already"),
        ("$sealed://gAAAAA", "the secret itself, or $env://NAME"),
        ("$env://PATH", "NAME begins with GATEWAY_SECRET_"),
        ("$secret://vault/a", "secret managers"),
        ({"a": SECRET}, "wrong type"),
    ],
)
def test_what_is_no_secret_is_refused(api: Api, given: Any, words: str) -> None:
    for path, body in (
        ("routes/r", route(secret_key=given)),
        ("consumers/c", {"username": "c", "plugins": {"sign-request": {**SIGN, "secret_key": given}}}),
        ("global_rules/g", {"plugins": {"sign-request": {**SIGN, "secret_key": given}}}),
    ):
        answer = api.put(path, body)
        assert answer.status_code == 400 and words in answer.json()["error_msg"], answer.content
        assert SECRET not in answer.content.decode() and "gAAAAA" not in answer.content.decode()
    assert not Plugin.objects.exists()


def test_neither_refusals_nor_other_forms_of_configuration_show_it(api: Api) -> None:
    bodies = [{**route(), "plugins": {"sign-request": SECRET}}, route(secert_key=SECRET), route(key_id={"a": SECRET})]
    for body in bodies:
        for answer in (api.put("routes/r", body), api.post("schema/validate/routes", body)):
            assert answer.status_code == 400 and SECRET not in answer.content.decode(), answer.content
        answer = api.post("configs/validate", {"routes": [{"id": "r", **body}]})
        assert answer.status_code == 400 and SECRET not in answer.content.decode()


def test_a_reference_is_shown_and_looked_up_in_the_environment(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api.put("routes/r", route(secret_key="$env://GATEWAY_SECRET_A"))
    assert row().config["secret_key"] == "$env://GATEWAY_SECRET_A"
    assert api.value("routes/r")["plugins"]["sign-request"]["secret_key"] == "$env://GATEWAY_SECRET_A"
    assert compiled().secret is None and "GATEWAY_SECRET_A is not set" in caplog.text
    monkeypatch.setenv("GATEWAY_SECRET_A", SECRET)
    assert compiled().secret.reveal() == SECRET.encode()


def test_a_row_cannot_be_written_in_clear_by_any_way_of_the_model() -> None:
    places = [apps.get_model("hmac_proxy.Service").objects.create(id=f"s{number}") for number in range(3)]
    Plugin.objects.create(name="sign-request", config=SIGN, service=places[0])
    Plugin.objects.bulk_create([Plugin(name="sign-request", config=SIGN, service=places[1])])
    again = Plugin(name="sign-request", config=SIGN, service=places[2])
    again.full_clean()
    again.save()
    again.full_clean()
    again.save()
    assert SECRET not in everything() and SECRET not in serializers.serialize("json", Plugin.objects.all())
    assert {sealing.secrets_of(found.name, found.config)["secret_key"] for found in Plugin.objects.all()} == {SECRET}
    again.config = {**SIGN, "secret_key": MASK}
    with pytest.raises(ValidationError, match="the secret itself"):
        again.full_clean()
    with pytest.raises(ConfigError):
        again.save()
    again.config = {**SIGN, "secret_key": "x" * 1025}
    with pytest.raises(ValidationError, match="at most 1024") as caught:
        again.full_clean()
    assert "xxx" not in str(caught.value)


def test_exports_hold_it_only_where_asked(api: Api) -> None:
    api.put("routes/r", route(secret_key="$env://GATEWAY_SECRET_A"))
    api.put("services/s", {"plugins": {"sign-request": SIGN}})
    api.put("consumers/c", {"username": "c", "plugins": {"sign-request": SIGN, "key-auth": {"key": "k"}}})
    masked, opened = exported(False).document, exported(True).document
    assert SECRET not in json.dumps(masked) and "$sealed" not in json.dumps([masked, opened])
    assert masked["services"][0]["plugins"]["sign-request"]["secret_key"] == MASK
    for name in ("services", "consumers"):
        assert opened[name][0]["plugins"]["sign-request"] == SIGN
    before = everything()
    # Both are what is there already.
    assert take(masked).changes == [] and take(opened).changes == [] and everything() == before
    opened["services"][0]["plugins"]["sign-request"]["secret_key"] = "another secret"
    (change,) = take(opened).changes
    assert [found.line() for found in change.differences] == [
        f'plugins.sign-request.secret_key: "{MASK}" -> "{MASK} (another)"'
    ]
    wipe()
    assert take(opened).changes and "another secret" not in everything()
    stored = Plugin.objects.get(service="s")
    assert sealing.secrets_of(stored.name, stored.config) == {"secret_key": "another secret"}
    opened["services"][0]["plugins"] = {}
    (change,) = take(opened).changes
    opened["services"][0]["plugins"] = {"sign-request": SIGN}
    (change,) = take(opened, dry_run=True).changes
    assert SECRET not in "".join(found.line() for found in change.differences)


def test_rotation_seals_it_anew_and_a_missing_key_keeps_the_last_good_configuration(api: Api) -> None:
    api.put("routes/r", route())
    old, new = HMAC_GATEWAY["ENCRYPTION_KEYS"][0], Fernet.generate_key().decode()
    before, version = row().config, ConfigVersion.load().version
    runtime = Runtime()
    assert runtime.refresh()
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": [new, old]}):
        call_command("hmac_rotate_keys", json=True)
    assert row().config != before and ConfigVersion.load().version == version
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": [new]}):
        assert compiled().secret.reveal() == SECRET.encode()
    # The old key alone: said by the canary before anything is compiled.
    fresh = Runtime()
    assert not fresh.refresh() and "ENCRYPTION_KEYS" in fresh.problems[0]
    assert not runtime.refresh() and runtime.snapshot is not None


def test_without_encryption_keys_it_is_refused_in_words(api: Api) -> None:
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": []}):
        for body in (route(), route(secret_key="$env://GATEWAY_SECRET_A")):
            answer = api.put("routes/r", body)
            reference = body["plugins"]["sign-request"]["secret_key"] != SECRET
            assert answer.status_code == (201 if reference else 400)
            assert reference or "ENCRYPTION_KEYS'] is empty" in answer.json()["error_msg"]
    assert SECRET not in in_clear()


def test_one_that_does_not_open_stops_its_own_route_only(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.put("routes/r", route())
    Plugin.objects.filter(pk=row().pk).update(config={**SIGN, "secret_key": "$sealed://gAAAAA"})
    assert compiled().secret is None
    assert "plugin sign-request at route:r: `secret_key` cannot be opened" in caplog.text
    # A new one mends it.
    assert api.put("routes/r", route()).status_code == 200
    assert compiled().secret.reveal() == SECRET.encode()


# --- Kong's admin API ---


def test_kongs_admin_api_masks_it_too(api: Api) -> None:
    kong = Kong()
    kong.made("services", {"name": "s", "host": "up.test"})
    made = kong.made("services/s/plugins", {"name": "sign-request", "config": SIGN})
    assert made["config"]["secret_key"] == MASK and made["config"]["algorithm"] is None
    stored = row().config
    assert stored["secret_key"].startswith("$sealed://")
    path = f"plugins/{made['id']}"
    for change in ({"config": {"nonce": True}}, {"config": {"secret_key": MASK}}, {"config": {"secret_key": SECRET}}):
        answer = kong.patch(path, change)
        assert answer.status_code == 200 and answer.json()["config"]["secret_key"] == MASK
    assert row().config == {**stored, "nonce": True}
    assert kong.patch(path, {"config": {"secret_key": "newer"}}).json()["config"]["secret_key"] == MASK
    assert sealing.secrets_of("sign-request", row().config) == {"secret_key": "newer"}
    event = AuditEvent.objects.order_by("pk").last()
    assert event is not None and event.changes["fields"] == ["config"] and event.changes["secret"] == "changed"
    for wrong, words in ((MASK, "stored already"), ("$env://PATH", "GATEWAY_SECRET_"), (5, "expected a string")):
        answer = kong.post("plugins", {"name": "sign-request", "config": {**SIGN, "secret_key": wrong}})
        assert answer.status_code == 400 and words in str(answer.json()["fields"]["config"]["secret_key"])
    hmacproxy = {"scheme": "hmacproxy", "secret_key": SECRET, "sign_header": "X-S"}
    made = kong.made("plugins", {"name": "sign-request", "config": hmacproxy})
    # What Kong fills in with defaults can be sent back.
    assert kong.put(f"plugins/{made['id']}", {"name": "sign-request", "config": made["config"]}).status_code == 200
    answers = kong.get("plugins").content + kong.get(path).content
    assert b"$sealed" not in answers and SECRET not in answers.decode() + in_clear()


def test_a_secret_inside_of_a_record(api: Api) -> None:
    kong = Kong()
    config = {"minute": 5, "policy": "redis", "redis": {"host": "redis.test", "password": SECRET}}
    made = kong.made("plugins", {"name": "rate-limiting", "config": config})
    assert made["config"]["redis"] == {
        **{"host": "redis.test", "port": 6379, "timeout": 2000, "username": None, "password": MASK},
        **{"database": 0, "ssl": False, "ssl_verify": False, "server_name": None},
    }
    stored = Plugin.objects.get().config
    assert stored["redis"]["password"].startswith("$sealed://") and SECRET not in in_clear()
    answer = kong.patch(f"plugins/{made['id']}", {"config": {"redis": {"database": 3}}})
    assert answer.status_code == 200 and answer.json()["config"]["redis"]["password"] == MASK
    assert Plugin.objects.get().config["redis"] == {**stored["redis"], "database": 3}

    newer = Fernet.generate_key().decode()
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": [newer, *HMAC_GATEWAY["ENCRYPTION_KEYS"]]}):
        call_command("hmac_rotate_keys", verbosity=0)
        assert Plugin.objects.get().config["redis"]["password"] != stored["redis"]["password"]
        assert sealing.secrets_of("rate-limiting", Plugin.objects.get().config) == {"redis.password": SECRET}
    for wrong in ({"minute": 5, "redis": {"password": [SECRET]}}, {"minute": 5, "redis": {"pasword": SECRET}}):
        answer = kong.post("plugins", {"name": "rate-limiting", "config": wrong})
        assert answer.status_code == 400 and SECRET not in answer.content.decode()


# --- the console ---


@pytest.fixture
def console(settings: Any) -> Client:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "whitenoise" not in name]
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("op", "", "x"))
    return client


def page(pk: Any = None) -> str:
    name = "admin:hmac_proxy_plugin_"
    return reverse(name + "add") if pk is None else reverse(name + "change", args=[pk])


def fields(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    empty = {"tags": "", "labels": "", "extra": "{}", "protocols": "", "service": "s"}
    return {"name": "sign-request", "config": json.dumps(config), "enabled": "on", "dialect": "apisix", **empty, **more}


def test_the_console_shows_a_mask_and_takes_it_back(console: Client) -> None:
    apps.get_model("hmac_proxy.Service").objects.create(id="s")
    answer = console.post(page(), fields(SIGN))
    assert answer.status_code == 302, answer.context["errors"]
    stored = row().config
    shown = console.get(page(row().pk)).content.decode()
    assert MASK in shown and SECRET not in shown and "$sealed" not in shown
    answer = console.post(page(row().pk), fields({**SIGN, "secret_key": MASK, "nonce": True}))
    assert answer.status_code == 302, answer.context["errors"]
    assert row().config == {**stored, "nonce": True}
    assert console.post(page(row().pk), fields({**SIGN, "secret_key": "newer"})).status_code == 302
    assert sealing.secrets_of("sign-request", row().config) == {"secret_key": "newer"}
    newest = row().config
    for wrong in ("$env://PATH", "$sealed://gAAAAA", ""):
        assert console.post(page(row().pk), fields({**SIGN, "secret_key": wrong})).status_code == 200
    # Below its service, where only something else changes.
    inline = reverse("admin:hmac_proxy_service_change", args=["s"])
    assert "$sealed" not in console.get(inline).content.decode()
    assert row().config == newest
    # A mask says nothing about another plugin's secret.
    other = console.post(page(), fields({**SIGN, "secret_key": MASK}, service=""))
    assert other.status_code == 200 and "stands for one" in other.content.decode()
    events = json.dumps(list(AuditEvent.objects.values_list("changes", flat=True)))
    assert SECRET not in events and "newer" not in events


def test_who_may_only_look_sees_the_mask(console: Client) -> None:
    service = apps.get_model("hmac_proxy.Service").objects.create(id="s")
    Plugin.objects.create(name="sign-request", config=SIGN, service=service)
    reader = get_user_model().objects.create_user("reader", is_staff=True)
    reader.user_permissions.set(Permission.objects.filter(codename__in=["view_plugin", "view_service"]))
    client = Client()
    client.force_login(reader)
    for path in (page(row().pk), reverse("admin:hmac_proxy_service_change", args=["s"])):
        shown = client.get(path).content.decode()
        assert MASK in shown and "$sealed" not in shown and SECRET not in shown
