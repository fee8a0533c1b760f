"""Consumers and credentials: names, uniqueness across consumers, secrets at rest."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from consumers.models import Consumer, ConsumerAcl, ConsumerGroup, Credential
from hmac_gateway.models import ConfigVersion

pytestmark = pytest.mark.django_db


def consumer(username: str = "jack", **fields: Any) -> Consumer:
    row = Consumer(username=username, **fields)
    row.full_clean()
    row.save()
    return row


def credential(of: Consumer, identifier: str = "id-1", **fields: Any) -> Credential:
    return Credential(consumer=of, **{"plugin": "hmac-auth", "identifier": identifier, **fields})


def saved(row: Any) -> Any:
    row.full_clean()
    row.save()
    return row


def errors(row: models.Model) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return caught.value.message_dict


@pytest.mark.parametrize("fields", [{}, {"username": ""}, {"username": "", "custom_id": ""}])
def test_a_consumer_needs_a_name(fields: dict[str, str]) -> None:
    assert errors(Consumer(**fields)) == {"username": ["At least one of `username` and `custom_id` must be given."]}
    with pytest.raises(IntegrityError), transaction.atomic():
        Consumer(**fields).save()


def test_an_empty_name_is_none_and_may_repeat() -> None:
    first = Consumer(username="", custom_id="1")
    saved(first)
    saved(Consumer(username="", custom_id="2"))
    assert first.username is None
    saved(Consumer(username="only", custom_id=""))


@pytest.mark.parametrize("field", ["username", "custom_id"])
def test_names_are_unique(field: str) -> None:
    saved(Consumer(**{field: "same"}))
    assert list(errors(Consumer(**{field: "same"}))) == [field]
    with pytest.raises(IntegrityError), transaction.atomic():
        Consumer(**{field: "same"}).save()


def test_user_names_by_dialect() -> None:
    assert "A-Z a-z 0-9 _ -" in errors(Consumer(username="jack@x"))["username"][0]
    saved(Consumer(username="jack@x ü", dialect="kong"))
    assert list(errors(Consumer(username="x" * 257))) == ["username"]


def test_the_key_can_be_chosen() -> None:
    key = uuid.uuid4()
    assert Consumer.objects.get(pk=consumer(id=key).pk).pk == key


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"username": "a\0b", "dialect": "kong"}, "username"),
        ({"labels": {"a": 1}}, "labels"),
        ({"labels": {"a": " "}}, "labels"),
        ({"labels": ["a"]}, "labels"),
        ({"tags": ["a", 1]}, "tags"),
        ({"tags": "a"}, "tags"),
        ({"extra": ["a"]}, "extra"),
        ({"extra": {"a": [float("nan")]}}, "extra"),
        ({"extra": {"a": {"b\0": 1}}}, "extra"),
        ({"dialect": "nginx"}, "dialect"),
    ],
)
def test_common_fields(fields: dict[str, Any], field: str) -> None:
    assert list(errors(Consumer(**{"username": "jack", **fields}))) == [field]


def test_a_group_in_use_stays() -> None:
    group = saved(ConsumerGroup(id="gold"))
    consumer(group=group)
    with pytest.raises(models.ProtectedError):
        group.delete()
    assert list(errors(ConsumerGroup(id="a b"))) == ["id"]


def test_an_acl_group_once_per_consumer() -> None:
    jack = consumer()
    saved(ConsumerAcl(consumer=jack, group="gold"))
    assert "in this group already" in str(errors(ConsumerAcl(consumer=jack, group="gold")))
    saved(ConsumerAcl(consumer=consumer("jill"), group="gold"))
    with pytest.raises(IntegrityError), transaction.atomic():
        ConsumerAcl(consumer=jack, group="gold").save()


def test_an_identifier_is_unique_per_method() -> None:
    jack = consumer()
    saved(credential(jack))
    saved(credential(jack, plugin="basic-auth"))
    sibling = credential(jack)
    assert "taken" in errors(sibling)["identifier"][0]
    stranger = credential(consumer("jill"), public_id="c9")
    message = errors(stranger)["identifier"][0]
    assert "consumer: jack" in message and "hmac-auth" in message
    for row in (sibling, stranger):
        with pytest.raises(ValidationError, match="taken"):
            row.save()
        with pytest.raises(ValidationError, match="taken"):
            Credential.objects.bulk_create([row])
    assert Credential.objects.count() == 2


def test_the_database_itself_refuses_a_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Credential, "check_locked", classmethod(lambda cls, rows, using: None))
    credential(consumer()).save()
    with pytest.raises(IntegrityError), transaction.atomic():
        credential(consumer("jill")).save()


def test_a_consumers_own_entry_may_repeat_its_credentials_key() -> None:
    jack, jill = consumer(), consumer("jill")
    saved(credential(jack, public_id="c1"))
    saved(credential(jack, public_id=None))
    for row in (credential(jill, public_id=None), credential(jill, public_id="c1")):
        assert list(errors(row)) == ["identifier"]
        with pytest.raises(ValidationError):
            row.save()
    saved(credential(jill, "id-2", public_id="c1"))


def test_one_own_entry_per_method_and_one_public_id_per_consumer() -> None:
    jack = consumer()
    saved(credential(jack, "a", public_id=None))
    saved(credential(jack, "b", public_id="c1"))
    saved(credential(jack, "c", public_id=None, plugin="basic-auth"))
    for row in (credential(jack, "d", public_id=None), credential(jack, "e", public_id="c1", plugin="basic-auth")):
        assert list(errors(row)) == ["public_id"]
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save()


def test_two_duplicates_in_one_bulk_are_refused() -> None:
    jack, jill = consumer(), consumer("jill")
    with pytest.raises(ValidationError, match="taken"):
        Credential.objects.bulk_create([credential(jack), credential(jill)])
    # Far apart, and of kinds that no unique column sets against each other.
    others = [credential(jack, f"other-{number}") for number in range(600)]
    with pytest.raises(ValidationError, match="taken"):
        Credential.objects.bulk_create([credential(jack), *others, credential(jill, public_id=None)])
    made = Credential.objects.bulk_create([credential(jack), credential(jill, "id-2")])
    assert all(row.identifier_slot and row.changed_at_version for row in made)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"plugin": "oauth"}, "plugin"),
        ({"identifier": ""}, "identifier"),
        ({"identifier": "x" * 257}, "identifier"),
        ({"public_id": "a/b"}, "public_id"),
        ({"settings": []}, "settings"),
        ({"settings": ["x"]}, "settings"),
        ({"not_before": timezone.now(), "expires_at": timezone.now() - timedelta(days=1)}, "expires_at"),
        ({"plugin": "key-auth", "identifier": ""}, "identifier"),
    ],
)
def test_fields_of_a_credential(fields: dict[str, Any], field: str) -> None:
    assert list(errors(credential(consumer(), **fields))) == [field]


def test_a_secret_at_rest() -> None:
    row = credential(consumer())
    assert row.get_secret() == ""
    row.set_secret("the secret")
    saved(row)
    stored = Credential.objects.filter(pk=row.pk).values().get()
    assert "the secret" not in str(stored)
    assert Credential.objects.get().get_secret() == "the secret"
    assert ConfigVersion.load().canary


def test_rotation() -> None:
    row = credential(consumer())
    now = timezone.now()
    row.set_secret("one")
    row.rotate_secret("two", now + timedelta(hours=1))
    saved(row)
    row = Credential.objects.get()
    assert (row.get_secret(), row.get_previous_secret(now)) == ("two", "one")
    assert row.get_previous_secret(now + timedelta(hours=1)) == ""
    row.rotate_secret("three", None)
    assert (row.get_secret(), row.get_previous_secret(now)) == ("three", "")
    row.rotate_secret("four", now + timedelta(hours=1))
    row.set_secret("five")
    assert row.get_previous_secret(now) == ""


def test_a_key_is_stored_as_a_fingerprint() -> None:
    row = credential(consumer(), "", plugin="key-auth")
    row.set_secret("the-key")
    saved(row)
    assert "the-key" not in str(Credential.objects.values().get())
    again = credential(consumer("jill"), "", plugin="key-auth")
    again.set_secret("the-key")
    assert again.identifier == row.identifier
    assert list(errors(again)) == ["identifier"]
    assert row.identifier not in str(row)
    with pytest.raises(ValueError, match="second credential"):
        row.rotate_secret("next", timezone.now())
    before = row.identifier
    row.rotate_secret("next", None)
    assert row.identifier != before


def test_marking_as_used_is_no_change() -> None:
    saved(credential(consumer()))
    before = ConfigVersion.load().version
    Credential.objects.quiet_update(last_used_at=timezone.now())
    assert ConfigVersion.load().version == before
