"""The version: bumped inside the writing transaction, on every path that writes; deletions leave tombstones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import FieldError
from django.db import IntegrityError, connection, transaction

from consumers.models import Consumer, ConsumerGroup, Credential
from hmac_gateway.entities import bump, one_version
from hmac_gateway.models import ConfigVersion, Tombstone
from proxy.models import Node, Plugin, Route, Service, Upstream

pytestmark = pytest.mark.django_db


def version() -> int:
    return ConfigVersion.load().version


def buried() -> list[str]:
    return sorted(Tombstone.objects.values_list("label", flat=True))


def made(key: str = "u") -> Upstream:
    upstream = Upstream(id=key)
    upstream.save()
    return upstream


def test_a_save_bumps_and_stamps() -> None:
    before = version()
    upstream = made()
    assert version() == upstream.changed_at_version == before + 1
    upstream.name = "new"
    upstream.save(update_fields=["name"])
    assert version() == Upstream.objects.get().changed_at_version == before + 2
    assert Upstream.objects.get().updated_at > upstream.created_at
    upstream.save(update_fields=[])
    assert version() == before + 2


def test_a_rollback_takes_the_bump_back() -> None:
    before = version()
    with pytest.raises(RuntimeError), transaction.atomic():
        made()
        assert version() == before + 1
        raise RuntimeError
    assert version() == before
    assert not Upstream.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_save_that_fails_takes_its_bump_back() -> None:
    made()
    before = version()
    # A row of the same key is never overwritten by a new object. No transaction around it but save()'s own.
    with pytest.raises(IntegrityError):
        made()
    assert version() == before
    with pytest.raises(IntegrityError):
        Upstream.objects.bulk_create([Upstream(id="u")])
    assert version() == before
    with pytest.raises(IntegrityError):
        Upstream.objects.update(id="v", type="random")
    assert version() == before


@pytest.mark.parametrize(
    "write",
    [
        lambda rows: rows.update(desc="x"),
        lambda rows: rows.filter(pk="a").update(desc="x", enabled=False),
        lambda rows: rows.bulk_update([_with(row, desc="x") for row in rows.all()], ["desc"]),
        lambda rows: rows.update_or_create(pk="a", defaults={"desc": "x"}),
        lambda rows: rows.bulk_create([Upstream(id="new", desc="x"), Upstream(id="newer", desc="x")]),
        lambda rows: rows.bulk_create(
            [Upstream(id="a", desc="x")],
            update_conflicts=True,
            update_fields=["desc"],
            unique_fields=["id"] if connection.features.supports_update_conflicts_with_target else None,
        ),
    ],
    ids=["update", "filtered", "bulk_update", "update_or_create", "bulk_create", "upsert"],
)
def test_bulk_writes_bump_and_stamp(write: Callable[[Any], Any]) -> None:
    made("a")
    made("b")
    before = version()
    write(Upstream.objects)
    assert version() > before
    changed = set(Upstream.objects.filter(desc="x").values_list("changed_at_version", flat=True))
    assert changed and all(stamp > before for stamp in changed)
    assert not Upstream.objects.exclude(desc="x").filter(changed_at_version__gt=before).exists()
    assert not Upstream.objects.filter(name_slot="").exists()


def _with(row: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(row, name, value)
    return row


def test_a_field_behind_a_derived_column_is_not_updated_in_bulk() -> None:
    upstream = made()
    with pytest.raises(FieldError, match="name"):
        Upstream.objects.update(name="x")
    with pytest.raises(FieldError, match="consumer_id"), transaction.atomic():
        Plugin.objects.bulk_update([Plugin(name="x")], ["consumer"])
    upstream.refresh_from_db()
    assert upstream.name == ""


def test_a_quiet_update_does_not_bump() -> None:
    made()
    before = version()
    Upstream.objects.quiet_update(desc="x")
    assert (version(), Upstream.objects.get().desc) == (before, "x")


def test_related_managers_bump() -> None:
    upstream = made()
    Node(upstream=upstream, host="h").save()
    before = version()
    upstream.nodes.update(weight=7)
    assert Node.objects.get().changed_at_version == version() == before + 1


def test_a_cascade_leaves_a_tombstone_for_every_row() -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    for number in range(3):
        Credential(consumer=consumer, plugin="hmac-auth", identifier=f"id-{number}").save()
    Plugin(name="acl", consumer=consumer).save()
    before = version()
    consumer.delete()
    assert buried() == ["hmac_consumers.consumer", *["hmac_consumers.credential"] * 3, "hmac_proxy.plugin"]
    assert set(Tombstone.objects.values_list("version", flat=True)) == {version()} == {before + 1}
    assert not Credential.objects.exists()


def test_deleting_a_query_set_leaves_tombstones() -> None:
    made("a")
    Node(upstream=made("b"), host="h").save()
    before = version()
    Upstream.objects.all().delete()
    assert buried() == ["hmac_proxy.node", "hmac_proxy.upstream", "hmac_proxy.upstream"]
    assert version() == before + 1


def test_a_host_user_takes_consumers_along(django_user_model: Any) -> None:
    user = django_user_model.objects.create_user("jack")
    Consumer(username="jack", user=user).save()
    before = version()
    user.delete()
    assert buried() == ["hmac_consumers.consumer"]
    assert version() == before + 1


def test_a_deletion_rolled_back_leaves_nothing() -> None:
    upstream = made()
    before = version()
    with pytest.raises(RuntimeError), transaction.atomic():
        upstream.delete()
        raise RuntimeError
    assert (version(), buried()) == (before, [])
    assert Upstream.objects.exists()


def test_one_version_for_many_writes() -> None:
    before = version()
    with one_version() as held:
        group = ConsumerGroup(id="g")
        group.save()
        with one_version() as inner, transaction.atomic():
            Consumer(username="jack", group=group).save()
        made().delete()
        assert bump() == inner == held
    assert version() == held == before + 1
    assert {group.changed_at_version, Consumer.objects.get().changed_at_version} == {held}
    assert Tombstone.objects.get().version == held
    assert bump() == held + 1, "the version was held for longer than its block"


def test_one_version_is_let_go_after_an_error() -> None:
    before = version()
    with pytest.raises(RuntimeError), one_version():
        raise RuntimeError
    assert bump() == before + 1


def test_a_fixture_is_stamped() -> None:
    upstream = made()
    text = serializers.serialize("json", [upstream])
    before = version()
    for row in serializers.deserialize("json", text):
        row.save()
    assert Upstream.objects.get().changed_at_version == version() == before + 1


def test_the_first_write_makes_the_row() -> None:
    ConfigVersion.objects.all().delete()
    assert bump() == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        ConfigVersion.objects.create(pk=2)


def test_reading_bumps_nothing() -> None:
    service = Service(id="s", upstream=made())
    service.save()
    Route(id="r", service=service, paths=["/a"]).save()
    before = version()
    route = Route.objects.select_related("service__upstream").get()
    route.full_clean()
    assert route.service is not None and route.service.upstream is not None
    assert version() == before


@pytest.mark.django_db(transaction=True)
def test_writers_go_one_after_another() -> None:
    """Two threads that write at once get distinct versions, and no stamp is above the version."""
    ConfigVersion.load()
    failed: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for number in range(5):
                made(f"{name}-{number}")
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        pytest.skip("an in-memory SQLite has one connection; run with a file or a server")
    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    stamps = list(Upstream.objects.values_list("changed_at_version", flat=True))
    assert len(set(stamps)) == len(stamps) == 10
    assert max(stamps) == version()
