"""Credentials of key-auth and basic-auth over REST: secrets go in, only masks come out; schemas and refusals."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from .support import Api

Credential: Any = apps.get_model("hmac_consumers.Credential")
Plugin: Any = apps.get_model("hmac_proxy.Plugin")
MASK = "********"
SECRET = "a-very-secret-text"
PATH = "consumers/jack/credentials/c"


def key(secret: Any = SECRET, **more: Any) -> dict[str, Any]:
    return {"plugins": {"key-auth": {"key": secret, **more}}}


def basic(password: Any = SECRET, username: Any = "jack", **more: Any) -> dict[str, Any]:
    return {"plugins": {"basic-auth": {"username": username, "password": password, **more}}}


@pytest.fixture
def jack(api: Api) -> Api:
    assert api.put("consumers", {"username": "jack"}).status_code == 201
    assert api.put("consumers", {"username": "joe"}).status_code == 201
    return api


def refused(response: Any, text: str) -> None:
    assert (response.status_code, response.json()) == (400, {"error_msg": text})


# --- credentials ---


@pytest.mark.parametrize("make", [key, basic])
@pytest.mark.parametrize("own", [False, True], ids=["credential", "on the consumer"])
def test_round_trip_with_a_mask(jack: Api, make: Any, own: bool) -> None:
    path, base = ("consumers/jack", {"username": "jack"}) if own else (PATH, {})
    assert jack.put(path, {**base, **make(unknown=1)}).status_code in (200, 201)
    shown = jack.value(path)
    shown.pop("id", None)
    assert shown == {**base, **make(MASK, unknown=1)}
    row = Credential.objects.get()
    assert row.get_secret() == SECRET and row.settings == {"unknown": 1}
    # What was shown, written back.
    assert jack.put(path, shown).status_code == 200
    kept = Credential.objects.get()
    assert (kept.pk, kept.identifier, kept.sealed_secret) == (row.pk, row.identifier, row.sealed_secret)
    assert jack.put(path, {**base, **make("another-secret")}).status_code == 200
    changed = Credential.objects.get()
    assert changed.get_secret() == "another-secret"
    assert (changed.identifier == row.identifier) == (make is basic)
    listed = jack.get("consumers/jack/credentials").content + jack.get("consumers").content
    for secret in (SECRET, "another-secret", row.identifier if make is key else SECRET):
        assert secret.encode() not in listed


def test_a_credential_changes_its_method(jack: Api) -> None:
    jack.put(PATH, key())
    assert jack.put(PATH, basic(MASK)).status_code == 400
    assert jack.put(PATH, basic("other")).status_code == 200
    row = Credential.objects.get()
    assert (row.plugin, row.identifier, row.get_secret()) == ("basic-auth", "jack", "other")
    assert jack.put(PATH, key(MASK)).status_code == 400
    assert jack.put(PATH, key("other")).status_code == 200
    row = Credential.objects.get()
    assert (row.plugin, row.get_secret()) == ("key-auth", "other") and "other" not in row.identifier


def test_one_consumer_with_all_methods(jack: Api) -> None:
    hmac = {"hmac-auth": {"key_id": "k", "secret_key": SECRET}}
    doc = {"username": "jack", "plugins": {**hmac, **key()["plugins"], **basic()["plugins"]}}
    assert jack.put("consumers/jack", doc).status_code == 200
    masked = {"hmac-auth": {"key_id": "k", "secret_key": MASK}, **key(MASK)["plugins"], **basic(MASK)["plugins"]}
    assert jack.value("consumers/jack")["plugins"] == masked
    assert jack.put("consumers/jack", {"username": "jack", **key(MASK)}).status_code == 200
    assert [row.plugin for row in Credential.objects.all()] == ["key-auth"]


CHECK = "invalid plugins configuration: failed to check the configuration of plugin "


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ({"plugins": {"key-auth": {}}}, 'key-auth err: property "key" is required'),
        (key(5), 'key-auth err: property "key" validation failed: wrong type: expected string, got number'),
        (key(""), 'key-auth err: property "key" validation failed: string too short, expected at least 1, got 0'),
        (
            key("$env://NAME"),
            'key-auth err: property "key" validation failed: a variable that may not be asked for; allowed is '
            "$env://NAME or $env://NAME/field, where NAME begins with GATEWAY_SECRET_",
        ),
        (
            key(MASK),
            f'key-auth err: property "key" validation failed: {MASK} stands for a secret that is stored already, '
            "and there is none",
        ),
        ({"plugins": {"basic-auth": {"username": "u"}}}, 'basic-auth err: property "password" is required'),
        ({"plugins": {"basic-auth": {"password": "p"}}}, 'basic-auth err: property "username" is required'),
        (
            basic(username="a:b"),
            'basic-auth err: property "username" validation failed: failed to match pattern "^[^:]*$" with "a:b"',
        ),
        (
            basic("$ENV://NAME"),
            'basic-auth err: property "password" validation failed: a variable that may not be asked for; allowed is '
            "$env://NAME or $env://NAME/field, where NAME begins with GATEWAY_SECRET_",
        ),
    ],
)
def test_refusals(jack: Api, doc: dict[str, Any], text: str) -> None:
    refused(jack.put(PATH, doc), CHECK + text)
    refused(jack.put("consumers/jack", {"username": "jack", **doc}), CHECK + text)
    assert not Credential.objects.exists()


def test_duplicates_are_refused_with_their_owner(jack: Api) -> None:
    for make, what in ((key, "key of plugin key-auth"), (basic, "username of plugin basic-auth")):
        assert jack.put(PATH, make()).status_code in (200, 201)
        text = f"duplicate {what} found with credential: c of consumer: jack"
        refused(jack.put("consumers/joe/credentials/d", make()), text)
        refused(jack.put("consumers/joe", {"username": "joe", **make()}), text)
        refused(jack.put("consumers/jack/credentials/sibling", make()), text)
        # A consumer may repeat its own credential's.
        assert jack.put("consumers/jack", {"username": "jack", **make()}).status_code == 200
        jack.delete(PATH)
        refused(jack.put("consumers/joe/credentials/d", make()), f"duplicate {what} found with consumer: jack")
    # Equal texts for different methods are different things.
    assert jack.put("consumers/joe/credentials/d", key("jack")).status_code == 201


@pytest.mark.parametrize(
    "config",
    [SECRET, [SECRET], {"key": [SECRET]}, {"key": SECRET * 300}, {"key": "k", "_meta": {"x": SECRET}}],
)
def test_refusals_never_quote_the_key(jack: Api, config: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for path, base in ((PATH, {}), ("consumers/jack", {"username": "jack"})):
        response = jack.put(path, {**base, "plugins": {"key-auth": config}})
        assert response.status_code == 400 and SECRET not in response.content.decode()
    assert SECRET not in caplog.text


def test_no_secret_in_any_table(jack: Api) -> None:
    jack.put(PATH, key())
    jack.put("consumers/joe", {"username": "joe", **basic(SECRET + "2", "joe")})
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            assert SECRET not in str(cursor.fetchall()), table


# --- on routes and services ---


@pytest.mark.parametrize("name", ["key-auth", "basic-auth"])
def test_on_routes_and_services(api: Api, name: str) -> None:
    config = {"hide_credentials": True, "_meta": {"disable": False}}
    assert api.put("services/s", {"plugins": {name: {}}}).status_code == 201
    assert api.put("routes/r", {"uri": "/x", "service_id": "s", "plugins": {name: config}}).status_code == 201
    assert api.value("services/s")["plugins"] == {name: {}}
    assert api.value("routes/r")["plugins"] == {name: config}
    assert api.patch(f"routes/r/plugins/{name}", {"realm": "x"}).status_code == 200
    bad = api.put("routes/r", {"uri": "/x", "plugins": {name: {"hide_credentials": 1}}})
    refused(
        bad,
        f"failed to check the configuration of plugin {name} err: "
        'property "hide_credentials" validation failed: wrong type: expected boolean, got number',
    )
    assert Plugin.objects.count() == 2


def test_lists_and_schemas(api: Api) -> None:
    listed = [name for name in api.get("plugins/list").json() if name in ("hmac-auth", "basic-auth", "key-auth")]
    assert listed == ["hmac-auth", "basic-auth", "key-auth"]
    fields = api.get("schema/plugins/key-auth").json()["properties"]
    assert (fields["header"]["default"], fields["query"]["default"]) == ("apikey", "apikey")
    assert (fields["hide_credentials"]["default"], fields["realm"]["default"]) == (False, "key")
    assert api.get("schema/plugins/key-auth?schema_type=consumer").json()["required"] == ["key"]
    assert api.get("schema/plugins/basic-auth").json()["properties"]["realm"]["default"] == "basic"
    required = api.get("schema/plugins/basic-auth?schema_type=consumer").json()["required"]
    assert required == ["username", "password"]
