"""`$env://` references in credentials: accepted, sealed, shown as they are, enforced by the compiled configuration."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.apps import apps
from django.test import Client

from hmac_gateway.core.credential import Credential
from hmac_gateway.runtime import Runtime

from .support import Api

Row: Any = apps.get_model("hmac_consumers.Credential")
ENV = "$env://GATEWAY_SECRET_ONE"


def lookups(plugin: str) -> Any:
    runtime = Runtime()
    assert runtime.refresh(), runtime.problems
    assert runtime.snapshot is not None
    return runtime.snapshot.lookups.get(plugin)


def secret_of(credential: Credential | None) -> list[bytes]:
    assert credential is not None
    return [secret.reveal() for secret in credential.open_secrets(time.time())]


CONFIGS = [
    ("hmac-auth", {"key_id": "k", "secret_key": ENV}, "k"),
    ("basic-auth", {"username": "u", "password": ENV}, "u"),
    ("key-auth", {"key": ENV}, "s3cret-ü"),
]


@pytest.mark.parametrize(("plugin", "config", "sent"), CONFIGS)
def test_reference(api: Api, monkeypatch: pytest.MonkeyPatch, plugin: str, config: dict[str, str], sent: str) -> None:
    monkeypatch.setenv("GATEWAY_SECRET_ONE", "s3cret-ü")
    api.put("consumers/c", {"username": "c"})
    path = "consumers/c/credentials/1"
    made = api.put(path, {"plugins": {plugin: config}})
    assert made.status_code == 201 and made.json()["value"]["plugins"] == {plugin: config}
    assert api.value(path)["plugins"] == {plugin: config}
    row = Row.objects.get()
    assert ENV not in row.sealed_secret and row.get_secret() == ENV
    find = lookups(plugin)
    assert secret_of(find(sent.encode().decode("latin-1"))) == ["s3cret-ü".encode()]
    # The reference itself is no secret.
    assert plugin != "key-auth" or find(ENV) is None
    again = api.put(path, {"plugins": {plugin: config}, "desc": "again"})
    assert again.status_code == 200 and api.value(path)["plugins"] == {plugin: config}
    # A secret in its place is masked again.
    api.put(path, {"plugins": {plugin: {name: text.replace(ENV, "plain-text") for name, text in config.items()}}})
    assert "********" in str(api.value(path)) and "plain-text" not in str(api.value(path))


@pytest.mark.parametrize(("plugin", "config", "sent"), CONFIGS)
def test_a_reference_that_leads_nowhere_fails_closed(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    plugin: str,
    config: dict[str, str],
    sent: str,
) -> None:
    monkeypatch.delenv("GATEWAY_SECRET_ONE", raising=False)
    assert api.put("consumers/c", {"username": "c", "plugins": {plugin: config}}).status_code == 201
    find = lookups(plugin)
    found = find(sent.encode().decode("latin-1"))
    assert found is None if plugin == "key-auth" else secret_of(found) == []
    assert find(ENV) is None or plugin != "key-auth"
    assert "the variable GATEWAY_SECRET_ONE is not set" in caplog.text


@pytest.mark.parametrize("text", ["$secret://vault/1/a", "$env://SECRET_KEY", "$ENV://PATH/x"])
@pytest.mark.parametrize(("plugin", "config", "sent"), CONFIGS)
def test_other_references_are_refused(api: Api, text: str, plugin: str, config: dict[str, str], sent: str) -> None:
    wrong = {name: value.replace(ENV, text) for name, value in config.items()}
    response = api.put("consumers/c", {"username": "c", "plugins": {plugin: wrong}})
    assert response.status_code == 400
    said = response.json()["error_msg"]
    assert said.startswith("invalid plugins configuration: failed to check the configuration of plugin ")
    assert "allowed is $env://NAME or $env://NAME/field, where NAME begins with GATEWAY_SECRET_" in said
    assert not Row.objects.exists()


def test_two_consumers_with_one_key(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GATEWAY_SECRET_ONE", "same")
    monkeypatch.setenv("GATEWAY_SECRET_TWO", "same")
    api.put("consumers/a", {"username": "a", "plugins": {"key-auth": {"key": ENV}}})
    duplicate = api.put("consumers/b", {"username": "b", "plugins": {"key-auth": {"key": ENV.replace("env", "ENV")}}})
    assert duplicate.status_code == 400 and "duplicate key of plugin key-auth" in duplicate.json()["error_msg"]
    assert secret_of(lookups("key-auth")("same")) == [b"same"]
    api.put("consumers/b", {"username": "b", "plugins": {"key-auth": {"key": "$env://GATEWAY_SECRET_TWO"}}})
    assert lookups("key-auth")("same") is None
    assert caplog.text.count("another consumer has the same key") == 2
    # A key in clear counts; whoever refers to the same one is left out.
    api.put("consumers/b", {"username": "b", "plugins": {"key-auth": {"key": "same"}}})
    assert lookups("key-auth")("same").consumer.username == "b"


def test_the_console_takes_no_other_reference() -> None:
    row = Row(plugin="hmac-auth", identifier="k")
    with pytest.raises(Exception, match="begins with GATEWAY_SECRET_"):
        row.set_secret("$env://SECRET_KEY")


def test_the_console_says_where_a_secret_stands(
    api: Api, monkeypatch: pytest.MonkeyPatch, admin_client: Client
) -> None:
    api.put("consumers/c", {"username": "c"})
    api.put("consumers/c/credentials/1", {"plugins": {"key-auth": {"key": ENV}}})
    api.put("consumers/c/credentials/2", {"plugins": {"hmac-auth": {"key_id": "k", "secret_key": "hunter2-hunter2"}}})
    referring, plain = (Row.objects.get(public_id=key).pk for key in "12")

    def page(key: object) -> str:
        return admin_client.get(f"/admin/hmac_consumers/credential/{key}/change/").content.decode()

    monkeypatch.delenv("GATEWAY_SECRET_ONE", raising=False)
    assert f"in {ENV}; here, it lets nobody in: the variable GATEWAY_SECRET_ONE is not set" in page(referring)
    monkeypatch.setenv("GATEWAY_SECRET_ONE", "hunter2")
    assert f"in {ENV}; here, it is found" in page(referring) and "hunter2" not in page(referring)
    assert "here, sealed" in page(plain) and "hunter2" not in page(plain)
    assert ENV in admin_client.get("/admin/hmac_consumers/credential/").content.decode()
    typed = {"plugin": "hmac-auth", "identifier": "k", "secret": "$env://SECRET_KEY", "settings": "{}"}
    typed |= {"dialect": "apisix", "public_id": "2", "consumer": Row.objects.get(pk=plain).consumer_id, "extra": "{}"}
    refused = admin_client.post(f"/admin/hmac_consumers/credential/{plain}/change/", typed)
    assert refused.status_code == 200 and "begins with GATEWAY_SECRET_" in refused.content.decode()
