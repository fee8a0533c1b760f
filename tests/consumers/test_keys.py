"""Keys of key-auth and passwords of basic-auth: stored sealed, found without a query, current within one look."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from consumers.compile import Keys
from consumers.models import Consumer, Credential
from hmac_gateway import crypto
from hmac_gateway.core.credential import Credential as Compiled
from hmac_gateway.core.identity import Verified
from hmac_gateway.core.message import Message
from hmac_gateway.models import ConfigVersion
from hmac_gateway.plugins import basic_auth, key_auth
from hmac_gateway.runtime import Runtime
from tests.settings import HMAC_GATEWAY

pytestmark = pytest.mark.django_db

OTHER_KEY = "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktMTI="


def store(secret: str, plugin: str = "key-auth", of: str = "jack", **more: Any) -> Credential:
    consumer, _ = Consumer.objects.get_or_create(username=of)
    row = Credential(consumer=consumer, plugin=plugin, **more)
    row.set_secret(secret)
    row.full_clean()
    row.save()
    return row


def found(view: Runtime, key: str, plugin: str = "key-auth") -> Compiled | None:
    assert view.refresh(), view.problems
    assert view.snapshot is not None
    return view.snapshot.lookups[plugin](key)


def test_a_key_is_found_by_itself_and_stored_nowhere() -> None:
    row = store("alice-primary-key", of="alice")
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            assert "alice-primary-key" not in str(cursor.fetchall()), table
    view = Runtime()
    credential = found(view, "alice-primary-key")
    assert credential is not None and credential.consumer.username == "alice"
    # What is stored to find it by opens nothing.
    assert found(view, row.identifier) is None
    assert found(view, "alice-primary-kez") is None


@pytest.mark.parametrize("key", ["clé", "株", "a b", "x" * 4096, "\x7f", "%41"])
def test_any_text_can_be_a_key(key: str) -> None:
    store(key)
    wire = key.encode().decode("latin-1")
    credential = found(Runtime(), wire)
    assert credential is not None
    assert [secret.reveal() for secret in credential.open_secrets(0.0)] == [key.encode()]


def test_a_request_costs_no_query_and_opens_a_secret_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store("k-1")
    store("p-1", "basic-auth", identifier="jack")
    view = Runtime()
    assert view.refresh() and view.snapshot is not None
    opened: list[str] = []
    open_sealed = crypto.open_sealed

    def counted(token: str) -> str:
        opened.append(token)
        return open_sealed(token)

    monkeypatch.setattr(crypto, "open_sealed", counted)
    keyed = Message("GET", "/", [("apikey", "k-1")])
    named = Message("GET", "/", [("Authorization", "Basic amFjazpwLTE=")])
    with CaptureQueriesContext(
        connection,
    ) as queries:
        for _ in range(3):
            lookups = view.snapshot.lookups
            assert isinstance(key_auth.check(keyed, key_auth.compile({}), lookups["key-auth"], 0.0), Verified)
            assert isinstance(basic_auth.check(named, basic_auth.compile({}), lookups["basic-auth"], 0.0), Verified)
    assert len(queries) == 0
    assert len(opened) == 2


@pytest.mark.django_db(transaction=True)
def test_the_fingerprints_key_is_read_once_and_only_where_it_is_needed() -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    view = Runtime()
    with CaptureQueriesContext(connection) as queries:
        assert view.refresh()
    assert "fingerprint_key" not in str(queries.captured_queries)
    store("k-1")
    with CaptureQueriesContext(connection) as queries:
        assert found(view, "k-1") is not None
    assert str(queries.captured_queries).count("fingerprint_key") == 1
    store("k-2")
    with CaptureQueriesContext(connection) as queries:
        assert found(view, "k-2") is not None
        assert found(view, "k-1") is not None
    assert "fingerprint_key" not in str(queries.captured_queries)


def test_changes_are_in_force_at_the_next_look() -> None:
    row = store("k-1")
    view = Runtime()
    assert found(view, "k-1") is not None
    row.set_secret("k-2")
    row.save()
    assert found(view, "k-1") is None
    credential = found(view, "k-2")
    assert credential is not None and credential.unusable(0.0) is None
    row.enabled = False
    row.save()
    credential = found(view, "k-2")
    assert credential is not None and credential.unusable(0.0) is not None
    row.delete()
    assert found(view, "k-2") is None
    # The same key again, for somebody else.
    store("k-2", of="joe")
    credential = found(view, "k-2")
    assert credential is not None and credential.consumer.username == "joe"


def test_a_credential_comes_before_its_consumers_own_entry() -> None:
    store("k-1", public_id=None)
    store("k-1", public_id="cred")
    credential = found(Runtime(), "k-1")
    assert credential is not None and credential.public_id == "cred"


def test_without_the_encryption_key_nothing_new_is_served() -> None:
    store("k-1")
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": [OTHER_KEY]}):
        view = Runtime()
        assert not view.refresh() and view.snapshot is None
        # Also where the canary, which is looked at first, is gone.
        ConfigVersion.objects.update(canary="")
        view = Runtime()
        assert not view.refresh() and view.snapshot is None
        assert "HMAC_GATEWAY_ENCRYPTION_KEYS" in view.problems[0]


def test_keys_outlive_the_encryption_keys() -> None:
    store("k-1")
    rotated = {**HMAC_GATEWAY, "ENCRYPTION_KEYS": [OTHER_KEY, *HMAC_GATEWAY["ENCRYPTION_KEYS"]]}
    with override_settings(HMAC_GATEWAY=rotated):
        call_command("hmac_rotate_keys", stdout=io.StringIO())
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": [OTHER_KEY]}):
        credential = found(Runtime(), "k-1")
        assert credential is not None
        assert [secret.reveal() for secret in credential.open_secrets(0.0)] == [b"k-1"]


def test_a_fingerprint_of_bytes_is_that_of_their_text() -> None:
    # echo -n "key-auth\0clé" | openssl dgst -sha256 -hmac key
    expected = "3a50e99deb7cd68635039dcae33f16577ef91a09465a338964e67b31000ca7bb"
    assert crypto.fingerprint("clé", "key-auth", b"key") == expected
    assert crypto.fingerprint("clé".encode(), "key-auth", b"key") == expected


def test_keys_of_another_context_are_not_found() -> None:
    compiled = Compiled("1", None, "key-auth", "f", lambda now: ())  # type: ignore[arg-type]
    keys = Keys({crypto.fingerprint("k", "key-auth", b"one"): compiled}, b"one")
    assert keys.get("k") is compiled
    assert Keys({crypto.fingerprint("k", "key-auth", b"one"): compiled}, b"two").get("k") is None
    assert Keys({crypto.fingerprint("k", "jwt-auth", b"one"): compiled}, b"one").get("k") is None


# --- rules of the model ---


def errors(secret: str, **fields: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        store(secret, **fields)
    return caught.value.message_dict


def test_a_key_belongs_to_one_consumer() -> None:
    store("k-1")
    (message,) = errors("k-1", of="joe")["identifier"]
    assert "jack" in message and "k-1" not in message


def test_a_user_name_has_no_colon() -> None:
    (message,) = errors("p", plugin="basic-auth", identifier="a:b")["identifier"]
    assert "a:b" in message and "colon" in message


@pytest.mark.parametrize(
    ("plugin", "field"), [("key-auth", "key"), ("basic-auth", "password"), ("hmac-auth", "secret_key")]
)
def test_settings_hold_no_secret(plugin: str, field: str) -> None:
    names = {} if plugin == "key-auth" else {"identifier": "i"}
    (message,) = errors("s", plugin=plugin, settings={field: "topsecret"}, **names)["settings"]
    assert field in message and "topsecret" not in message
    store("s", plugin=plugin, settings={"other": "shown"}, **names)
