"""Consumers and credentials: secrets go in, only masks come out."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from hmac_gateway.models import AuditEvent

from .support import Api

Consumer: Any = apps.get_model("hmac_consumers.Consumer")
Credential: Any = apps.get_model("hmac_consumers.Credential")
MASK = "********"
SECRET = "a-very-secret-text"


def hmac(key_id: str = "k", secret: str = SECRET, **more: Any) -> dict[str, Any]:
    return {"plugins": {"hmac-auth": {"key_id": key_id, "secret_key": secret, **more}}}


@pytest.fixture
def jack(api: Api) -> Api:
    assert api.put("consumers", {"username": "jack"}).status_code == 201
    return api


def refused(response: Any, text: str, status: int = 400) -> None:
    assert (response.status_code, response.json()) == (status, {"error_msg": text})


CHECK = "invalid plugins configuration: failed to check the configuration of plugin hmac-auth err: "


def test_consumers_have_no_id(jack: Api) -> None:
    answer = jack.put("consumers/jack", {"username": "jack", "desc": "d", "labels": {"custom_id": "7"}})
    assert answer.status_code == 200 and answer.json()["key"] == "/apisix/consumers/jack"
    assert jack.value("consumers/jack") == {"username": "jack", "desc": "d", "labels": {"custom_id": "7"}}
    assert jack.get("consumers").json()["total"] == 1
    assert jack.delete("consumers/jack").json() == {"deleted": "1", "key": "/apisix/consumers/jack"}


def test_consumers_refusals(jack: Api) -> None:
    refused(jack.put("consumers/jack", {"username": "joe"}), "wrong username")
    refused(jack.put("consumers/joe", {}), 'invalid configuration: property "username" is required')
    refused(
        jack.put("consumers", {"username": "a b"}),
        r'invalid configuration: property "username" validation failed: '
        r'failed to match pattern "^[a-zA-Z0-9_\\-]+$" with "a b"',
    )
    refused(jack.post("consumers", {"username": "x"}), "not supported `POST` method for consumer", 405)
    refused(jack.patch("consumers/jack", {}), "not supported `PATCH` method for consumer", 405)
    refused(jack.delete("consumers"), "missing consumer id")
    refused(
        jack.put("consumers/jack", {"username": "jack", "group_id": "g"}),
        "failed to fetch consumer group info by consumer group id [g], response code: 404",
    )
    refused(
        jack.put("consumers/jack", {"username": "jack", "plugins": {"no-such": {}}}),
        "invalid plugins configuration: unknown plugin [no-such]",
    )
    assert jack.put("consumers", {"username": "a\n"}).status_code == 400


def test_a_credential_goes_round_with_a_mask(jack: Api) -> None:
    doc = {"name": "n", "desc": "d", "labels": {"a": "b"}, **hmac(clock_skew=3)}
    shown = {**doc, **hmac(secret=MASK, clock_skew=3), "id": "c"}
    answer = jack.put("consumers/jack/credentials/c", doc)
    assert answer.status_code == 201 and answer.json()["key"] == "/apisix/consumers/jack/credentials/c"
    assert jack.value("consumers/jack/credentials/c") == shown
    listed = jack.get("consumers/jack/credentials").json()
    assert listed["total"] == 1 and listed["list"][0] == jack.get("consumers/jack/credentials/c").json()
    # Not among the consumers.
    assert jack.get("consumers").json()["total"] == 1
    assert jack.get("consumers/jack").json()["value"].keys() == {"username", "create_time", "update_time"}

    row = Credential.objects.get()
    assert row.get_secret() == SECRET
    again = jack.put("consumers/jack/credentials/c", {**shown, "desc": "new"})
    assert again.status_code == 200
    kept = Credential.objects.get()
    assert (kept.pk, kept.sealed_secret, kept.desc) == (row.pk, row.sealed_secret, "new")
    jack.put("consumers/jack/credentials/c", hmac(key_id="k2", secret=MASK))
    assert (Credential.objects.get().identifier, Credential.objects.get().get_secret()) == ("k2", SECRET)
    jack.put("consumers/jack/credentials/c", hmac(secret="other-secret"))
    assert Credential.objects.get().get_secret() == "other-secret"
    assert jack.delete("consumers/jack/credentials/c").status_code == 200
    assert jack.get("consumers/jack/credentials/c").status_code == 404


def test_a_mask_without_a_secret_is_refused(jack: Api) -> None:
    for path, doc in (
        ("consumers/jack/credentials/c", hmac(secret=MASK)),
        ("consumers/jack", {"username": "jack", **hmac(secret=MASK)}),
    ):
        response = jack.put(path, doc)
        assert response.status_code == 400
        assert response.json()["error_msg"].startswith(CHECK + 'property "secret_key" validation failed: ')
    assert not Credential.objects.exists()


def test_a_key_on_the_consumer_itself(jack: Api) -> None:
    doc = {"username": "jack", **hmac()}
    assert jack.put("consumers/jack", doc).status_code == 200
    row = Credential.objects.get()
    assert row.public_id is None and row.get_secret() == SECRET
    assert jack.value("consumers/jack") == {"username": "jack", **hmac(secret=MASK)}
    # t/admin/credentials.t, test 13: etcd has nothing there.
    nothing = jack.get("consumers/jack/credentials")
    assert (nothing.status_code, nothing.json()) == (404, {"message": "Key not found"})
    jack.put("consumers/jack", {"username": "jack", **hmac(secret=MASK)})
    assert Credential.objects.get().pk == row.pk and Credential.objects.get().sealed_secret == row.sealed_secret
    jack.put("consumers/jack", {"username": "jack"})
    assert not Credential.objects.exists()


def test_what_only_the_console_knows_survives(jack: Api) -> None:
    Consumer.objects.filter(username="jack").update(custom_id="7", tags=["t"], enabled=False)
    jack.put("consumers/jack", {"username": "jack", "desc": "d"})
    row = Consumer.objects.get()
    assert (row.custom_id, row.tags, row.enabled, row.desc) == ("7", ["t"], False, "d")


def test_duplicate_keys_are_refused_with_their_owner(jack: Api) -> None:
    jack.put("consumers/joe", {"username": "joe"})
    jack.put("consumers/jack/credentials/c", hmac())
    text = "duplicate key_id of plugin hmac-auth found with credential: c of consumer: jack"
    refused(jack.put("consumers/joe/credentials/d", hmac()), text)
    refused(jack.put("consumers/joe", {"username": "joe", **hmac()}), text)
    refused(jack.put("consumers/jack/credentials/sibling", hmac()), text)
    # A consumer may repeat its own credential's key.
    assert jack.put("consumers/jack", {"username": "jack", **hmac()}).status_code == 200
    jack.delete("consumers/jack/credentials/c")
    refused(
        jack.put("consumers/joe/credentials/d", hmac()),
        "duplicate key_id of plugin hmac-auth found with consumer: jack",
    )
    assert Credential.objects.count() == 1


def test_credentials_refusals(jack: Api) -> None:
    path = "consumers/jack/credentials/c"
    refused(jack.put("consumers/none/credentials/c", hmac()), "consumer not found", 404)
    assert jack.get("consumers/none/credentials").json() == {"message": "Key not found"}
    for answer in (jack.get("consumers/none/credentials/c"), jack.delete("consumers/none/credentials/c")):
        assert (answer.status_code, answer.json()) == (404, {"message": "Key not found"})
    refused(jack.put("consumers/jack/credentials", hmac()), "missing credential id")
    refused(jack.put(path, {**hmac(), "id": "other"}), "wrong credential id")
    refused(jack.post("consumers/jack/credentials", hmac()), "not supported `POST` method for credential", 405)
    refused(jack.patch(path, hmac()), "not supported `PATCH` method for credential", 405)
    refused(jack.put(path, {"plugins": {"no-such": {}}}), "invalid plugins configuration: unknown plugin [no-such]")
    refused(jack.put(path, {"plugins": {"hmac-auth": {"key_id": "k"}}}), CHECK + 'property "secret_key" is required')
    refused(
        jack.put(path, hmac(key_id="x" * 257)),
        CHECK + 'property "key_id" validation failed: string too long, expected at most 256, got 257',
    )
    refused(
        jack.put(path, {"plugins": {"hmac-auth": {}, "other": {}}}),
        'invalid configuration: property "plugins" validation failed: expect object to have at most 1 properties',
    )
    refused(jack.put(path, {}), 'invalid configuration: property "plugins" is required')
    assert not Credential.objects.exists()


@pytest.mark.parametrize(
    "config",
    [
        SECRET,
        [SECRET],
        {"key_id": 5, "secret_key": SECRET},
        {"key_id": "", "secret_key": SECRET},
        {"key_id": "k", "secret_key": [SECRET]},
        {"key_id": "k", "secret_key": SECRET * 20},
        {"key_id": "k", "secret_key": SECRET, "_meta": {"x": SECRET}},
    ],
)
def test_refusals_never_quote_the_secret(jack: Api, config: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for path, doc in (
        ("consumers/jack/credentials/c", {"plugins": {"hmac-auth": config}}),
        ("consumers/jack", {"username": "jack", "plugins": {"hmac-auth": config}}),
    ):
        response = jack.put(path, doc)
        assert response.status_code == 400
        assert SECRET not in response.content.decode()
    broken = jack.put("consumers/jack/credentials/c", '{"plugins": {"hmac-auth": {"secret_key": "' + SECRET)
    assert broken.status_code == 400 and SECRET not in broken.content.decode()
    assert SECRET not in caplog.text


def test_no_secret_in_any_table(jack: Api) -> None:
    jack.put("consumers/jack", {"username": "jack", **hmac()})
    jack.put("consumers/jack/credentials/c", {"name": "n", **hmac()})
    jack.put("consumers/jack/credentials/c", {"name": "m", **hmac(secret=SECRET + "2")})
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            assert SECRET not in str(cursor.fetchall())
    changes = AuditEvent.objects.filter(entity="hmac_consumers.credential", action="changed").values_list("changes")
    config = {"hmac-auth": {"key_id": "k", "secret_key": "********"}}
    told = {"fields": ["name", "plugins"], "key": "settings", "secret": "changed"}
    sides = {"before": {"name": "n", "plugins": config}, "after": {"name": "m", "plugins": config}}
    assert list(changes) == [({**told, **sides},)]


def test_a_consumer_takes_its_credentials_along(jack: Api) -> None:
    jack.put("consumers/jack/credentials/c", hmac())
    assert jack.delete("consumers/jack").status_code == 200
    assert not Credential.objects.exists()
