"""The runtime: what it reads, when it compiles, and what it does when something is wrong."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import QuerySet
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from hmac_gateway import crypto, runtime
from hmac_gateway.core.credential import Credential
from hmac_gateway.entities import Writes, bump
from hmac_gateway.models import ConfigVersion, Tombstone
from hmac_gateway.runtime import TOMBSTONE_LIFE, Mirror, Refresher, Runtime
from tests.settings import HMAC_GATEWAY

pytestmark = pytest.mark.django_db


class Forgetful(dict[str, int]):
    """Holds no version open: as if every write of the test were committed."""

    def __setitem__(self, key: str, value: int) -> None:
        pass


@pytest.fixture(autouse=True)
def committed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test is one transaction. The runtime would take its writes for what may be rolled back yet."""
    monkeypatch.setattr(Writes, "open", Forgetful())
    yield


Consumers = apps.get_model("hmac_consumers.Consumer")._default_manager
Credentials = apps.get_model("hmac_consumers.Credential")._default_manager
Routes = apps.get_model("hmac_proxy.Route")._default_manager
Plugins = apps.get_model("hmac_proxy.Plugin")._default_manager


def make_credential(key_id: str = "client-1", secret: str = "my-hmac-secret", **more: Any) -> Any:
    consumer, _ = Consumers.get_or_create(username=f"owner-of-{key_id}")
    row = Credentials.model(consumer=consumer, plugin="hmac-auth", identifier=key_id, **more)
    row.set_secret(secret)
    row.save()
    return row


def found(view: Runtime, key_id: str = "client-1") -> Credential | None:
    assert view.snapshot is not None
    credential = view.snapshot.lookups["hmac-auth"](key_id)
    assert credential is None or isinstance(credential, Credential)
    return credential


def secret_of(view: Runtime, key_id: str = "client-1") -> list[bytes]:
    credential = found(view, key_id)
    assert credential is not None
    return [secret.reveal() for secret in credential.open_secrets(0.0)]


def routes(view: Runtime) -> set[str]:
    from hmac_gateway.core.message import Message

    assert view.snapshot is not None
    names = [route.pk for route in Routes.all()] + ["gone"]
    matched = (view.snapshot.routes.match("host", f"/{name}", Message("GET", f"/{name}", [])) for name in names)
    return {route.id for route in matched if route is not None}


def good(**more: Any) -> Runtime:
    view = Runtime(**more)
    assert view.refresh(), view.problems
    return view


@contextmanager
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """(model, key) of every row that is read from the configuration's tables."""
    seen: list[tuple[str, Any]] = []
    iterator = QuerySet.iterator

    def counted(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for row in iterator(self, *args, **kwargs):
            seen.append((self.model._meta.model_name, row["id"]))
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(QuerySet, "iterator", counted)
        yield seen


# --- reading ---


def test_an_empty_database_is_a_configuration() -> None:
    view = good()
    assert view.snapshot is not None
    assert view.snapshot.version == 0
    assert routes(view) == set()


def test_no_change_costs_one_query_and_keeps_the_snapshot() -> None:
    make_credential()
    view = good()
    before = view.snapshot
    with CaptureQueriesContext(connection) as queries:
        assert view.refresh()
    assert len(queries) == 1
    assert view.snapshot is before


def test_only_changed_rows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        make_credential(f"client-{number}")
    Routes.create(id="r", paths=["/r"])
    view = good()
    changed = Credentials.get(identifier="client-7")
    changed.enabled = False
    changed.save()
    with rows_read(monkeypatch) as rows:
        assert view.refresh()
    assert rows == [("credential", changed.pk)]
    credential = found(view, "client-7")
    assert credential is not None and not credential.enabled
    other = found(view, "client-8")
    assert other is not None and other.enabled


def test_a_deleted_row_is_gone_with_what_hung_on_it() -> None:
    row = make_credential()
    make_credential("client-2")
    view = good()
    row.consumer.delete()
    assert view.refresh()
    assert found(view) is None
    assert found(view, "client-2") is not None


def test_a_key_that_was_deleted_and_made_again_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_credential()
    key, consumer = row.pk, row.consumer
    view = good()
    row.delete()
    again = Credentials.model(id=key, consumer=consumer, plugin="hmac-auth", identifier="client-1")
    again.set_secret("another")
    again.save()
    assert view.refresh()
    assert secret_of(view) == [b"another"]


def test_made_and_deleted_between_two_looks() -> None:
    view = good()
    make_credential().delete()
    assert view.refresh()
    assert found(view) is None


def test_a_version_that_goes_backwards_is_a_restored_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_credential()
    backup = ConfigVersion.load().version
    view = good()
    row.enabled = False
    row.save()
    make_credential("client-2")
    assert view.refresh()
    # The backup: rows of old, no tombstone for what came later, the version of old.
    Credentials.filter(pk=row.pk).quiet_update(enabled=True, changed_at_version=backup)
    Credentials.filter(identifier="client-2")._raw_delete(using="default")
    ConfigVersion.objects.update(version=backup)
    assert view.refresh()
    assert view.snapshot is not None and view.snapshot.version == backup
    credential = found(view)
    assert credential is not None and credential.enabled
    assert found(view, "client-2") is None


def test_a_backup_from_before_everything() -> None:
    make_credential()
    Routes.create(id="r", paths=["/r"])
    view = good()
    assert routes(view) == {"r"}
    for manager in (Credentials, Consumers, Routes):
        manager.all()._raw_delete(using="default")
    ConfigVersion.objects.all().delete()
    assert view.refresh()
    assert routes(view) == set()
    assert found(view) is None


def test_who_slept_longer_than_tombstones_live_reads_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_credential()
    view = good()
    row.delete()
    Tombstone.objects.all().delete()
    later = runtime.time.time() + TOMBSTONE_LIFE
    with monkeypatch.context() as patch:
        patch.setattr(runtime.time, "time", lambda: later)
        assert view.refresh()
    assert found(view) is None


def between_reads(view: Runtime, monkeypatch: pytest.MonkeyPatch, write: Callable[[], None], times: int = 1) -> None:
    """Let a writer commit after consumers were read and before routes are."""
    read, left = Mirror.read, [times]

    def interrupted(self: Mirror, since: int, using: str) -> None:
        if self is view._ways and left[0]:
            left[0] -= 1
            write()
        read(self, since, using)

    monkeypatch.setattr(Mirror, "read", interrupted)


@pytest.mark.parametrize("first", [True, False], ids=["first read", "later read"])
def test_a_writer_in_the_middle_of_a_read_is_not_missed(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_credential()
    other = make_credential("client-2")
    view = Runtime()
    if not first:
        assert view.refresh()
        Routes.create(id="before", paths=["/before"])

    def write() -> None:
        row.enabled = False
        row.save()
        other.delete()
        Routes.create(id="r", paths=["/r"])

    between_reads(view, monkeypatch, write)
    assert view.refresh(), view.problems
    assert "r" in routes(view)
    credential = found(view)
    assert credential is not None and not credential.enabled, "committed with the route, read before it"
    assert found(view, "client-2") is None
    assert view.snapshot is not None and view.snapshot.version == ConfigVersion.load().version


def test_endless_writers_do_not_give_a_mixed_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_credential()
    view = good()
    before = view.snapshot
    row.enabled = False
    row.save()
    with monkeypatch.context() as patch:
        between_reads(view, patch, lambda: None if bump() else None, times=100)
        assert not view.refresh()
    assert view.problems == ["the configuration changes faster than it can be read"]
    assert view.snapshot is before
    assert view.refresh()
    credential = found(view)
    assert credential is not None and not credential.enabled


def test_ten_thousand_revocations_are_one_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Consumers.create(username="fleet")
    sealed = crypto.seal("s")
    Credentials.bulk_create(
        [
            Credentials.model(
                consumer=consumer, plugin="hmac-auth", identifier=f"device-{number}", sealed_secret=sealed
            )
            for number in range(10_000)
        ],
        batch_size=500,
    )
    view = good()
    Credentials.filter(consumer=consumer).update(enabled=False)
    with CaptureQueriesContext(connection) as queries:
        assert view.refresh()
    # Two looks at the version, per model one read, two for tombstones: not one per row.
    assert len(queries) < 20
    assert view.snapshot is not None
    lookup = view.snapshot.lookups["hmac-auth"]
    enabled = [number for number in range(10_000) if (one := lookup(f"device-{number}")) is None or one.enabled]
    assert enabled == []


# --- compiling ---


def test_opened_secrets_stay_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_sealed = crypto.open_sealed

    def counted(token: str) -> str:
        opened.append(token)
        return open_sealed(token)

    row = make_credential()
    make_credential("client-2")
    view = Runtime()
    monkeypatch.setattr(crypto, "open_sealed", counted)
    assert view.refresh()
    canary = ConfigVersion.load().canary
    assert opened == [canary], "secrets are opened on first use, not when compiling"
    opened.clear()
    for _ in range(3):
        assert secret_of(view) == [b"my-hmac-secret"]
    assert opened == [row.sealed_secret]
    # Swaps of every kind: a route, another credential, the other's consumer.
    Routes.create(id="r", paths=["/r"])
    assert view.refresh()
    make_credential("client-3")
    assert view.refresh()
    Consumers.get(username="owner-of-client-2").save()
    assert view.refresh()
    assert secret_of(view) == [b"my-hmac-secret"]
    assert opened == [row.sealed_secret]
    row.set_secret("the next")
    row.save()
    assert view.refresh()
    assert secret_of(view) == [b"the next"]
    assert opened == [opened[0], row.sealed_secret]


def test_an_object_with_an_end_goes_when_it_is_due_without_a_write() -> None:
    clock = [1_000.0]
    Routes.create(id="r", paths=["/r"], expires_at=datetime.fromtimestamp(1_060, UTC))
    Routes.create(id="later", paths=["/later"], expires_at=datetime.fromtimestamp(1_120, UTC))
    Routes.create(id="always", paths=["/always"])
    view = good(now=lambda: clock[0])
    assert routes(view) == {"r", "later", "always"}
    clock[0] = 1_059.9
    before = view.snapshot
    assert view.refresh()
    assert view.snapshot is before
    clock[0] = 1_060.0
    assert view.refresh()
    assert routes(view) == {"later", "always"}
    clock[0] = 1_120.0
    assert view.refresh()
    assert routes(view) == {"always"}


def test_an_object_whose_end_is_put_off_comes_back() -> None:
    clock = [1_000.0]
    row = Routes.create(id="r", paths=["/r"], expires_at=datetime.fromtimestamp(1_060, UTC))
    view = good(now=lambda: clock[0])
    clock[0] = 1_061.0
    assert view.refresh()
    assert routes(view) == set()
    row.expires_at = datetime.fromtimestamp(2_000, UTC)
    row.save()
    assert view.refresh()
    assert routes(view) == {"r"}


def test_a_listener_that_fails_stands_in_nobodys_way(caplog: pytest.LogCaptureFixture) -> None:
    view = Runtime()
    told: list[int] = []

    def broken(snapshot: Any) -> None:
        raise RuntimeError("the listener's own trouble")

    view.listeners += [broken, lambda snapshot: told.append(snapshot.version)]
    Routes.create(id="r", paths=["/r"])
    assert view.refresh()
    assert view.problems == []
    assert told == [1]
    assert routes(view) == {"r"}
    assert "a listener failed on version 1" in caplog.text


# --- what can go wrong ---


def spoil_plugin(row: Any) -> Callable[[], None]:
    Plugins.filter(pk=row.pk).quiet_update(config={"clock_skew": "soon"}, changed_at_version=bump())
    return lambda: Plugins.filter(pk=row.pk).update(config={})


def spoil_route(row: Any) -> Callable[[], None]:
    Routes.filter(pk=row.route_id).quiet_update(remote_addrs=["nowhere"], changed_at_version=bump())
    return lambda: Routes.filter(pk=row.route_id).update(remote_addrs=[])


def spoil_consumer(row: Any) -> Callable[[], None]:
    key = Consumers.get(username="owner-of-client-1").pk
    Consumers.filter(pk=key).quiet_update(tags=3, changed_at_version=bump())
    return lambda: Consumers.filter(pk=key).update(tags=[])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_plugin, "plugin hmac-auth at route:r: clock_skew: 'soon' was given"),
        (spoil_route, "route r"),
        (spoil_consumer, "consumer "),
    ],
)
def test_a_bad_row_is_named_and_the_last_good_snapshot_stays(
    spoil: Callable[[Any], Callable[[], None]], named: str
) -> None:
    make_credential(secret="do-not-show-me")
    Routes.create(id="r", paths=["/r"])
    plugin = Plugins.create(name="hmac-auth", route_id="r")
    view = good()
    before = view.snapshot
    mend = spoil(plugin)
    for _ in range(2):
        assert not view.refresh()
        [problem] = view.problems
        assert problem.startswith("the configuration cannot be compiled: ")
        assert named in problem
        assert "do-not-show-me" not in problem
        assert view.snapshot is before
    # What was changed meanwhile is not lost.
    Routes.create(id="more", paths=["/more"])
    assert not view.refresh()
    mend()
    assert view.refresh(), view.problems
    assert view.problems == []
    assert routes(view) == {"r", "more"}


def test_a_revocation_does_not_wait_for_a_bad_route() -> None:
    credential = make_credential()
    Routes.create(id="r", paths=["/r"])
    view = good()
    before = view.snapshot
    assert before is not None
    mend = spoil_plugin(Plugins.create(name="hmac-auth", route_id="r"))
    credential.enabled = False
    credential.save()
    assert not view.refresh()
    revoked = found(view)
    assert revoked is not None and not revoked.enabled
    # The rest is the last good one, and it does not pass for current.
    assert view.snapshot is not None
    assert view.snapshot.routes is before.routes
    assert view.snapshot.version == before.version
    mend()
    assert view.refresh()
    assert view.snapshot.version > before.version


def test_a_bad_row_at_the_first_start_serves_nothing() -> None:
    Routes.create(id="r", paths=["/r"])
    mend = spoil_plugin(Plugins.create(name="hmac-auth", route_id="r"))
    view = Runtime()
    assert not view.refresh()
    assert view.snapshot is None
    mend()
    assert view.refresh()
    assert routes(view) == {"r"}


WRONG_KEY = {**HMAC_GATEWAY, "ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}


def test_a_wrong_encryption_key_at_the_first_start() -> None:
    make_credential()
    view = Runtime()
    with override_settings(HMAC_GATEWAY=WRONG_KEY):
        for _ in range(2):
            assert not view.refresh()
            assert view.snapshot is None
            [problem] = view.problems
            assert "HMAC_GATEWAY_ENCRYPTION_KEYS" in problem
            assert WRONG_KEY["ENCRYPTION_KEYS"][0] not in problem
    assert view.refresh()
    assert secret_of(view) == [b"my-hmac-secret"]


@pytest.mark.parametrize("keys", [[], ["not a key"]])
def test_unusable_encryption_keys_are_said(keys: list[str]) -> None:
    make_credential()
    view = Runtime()
    with override_settings(HMAC_GATEWAY={**HMAC_GATEWAY, "ENCRYPTION_KEYS": keys}):
        assert not view.refresh()
    assert "HMAC_GATEWAY_ENCRYPTION_KEYS" in view.problems[0]
    assert view.refresh()


def test_secrets_sealed_anew_under_a_key_that_is_not_here_are_noticed_without_a_version() -> None:
    row = make_credential()
    view = good()
    before = view.snapshot
    assert secret_of(view) == [b"my-hmac-secret"]
    right = ConfigVersion.load().canary
    foreign = Fernet(Fernet.generate_key()).encrypt(b"hmac_gateway canary").decode()
    ConfigVersion.objects.update(canary=foreign)
    assert not view.refresh()
    assert "HMAC_GATEWAY_ENCRYPTION_KEYS" in view.problems[0]
    assert view.snapshot is before
    assert secret_of(view) == [b"my-hmac-secret"], "the last good snapshot keeps serving"
    row.enabled = False
    row.save()
    assert not view.refresh()
    ConfigVersion.objects.update(canary=right)
    assert view.refresh()
    credential = found(view)
    assert credential is not None and not credential.enabled


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_is_away(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    Routes.create(id="r", paths=["/r"])
    view = good()
    before = view.snapshot

    def away(using: str) -> tuple[int, str]:
        raise error("server closed the connection\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(runtime, "_version", away)
        assert not view.refresh()
    assert view.problems == ["the database cannot be read: server closed the connection"]
    assert view.snapshot is before
    assert view.refresh()
    assert view.problems == []


def test_a_read_that_breaks_off_in_the_middle_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_credential()
    Routes.create(id="r", paths=["/r"])
    view = Runtime()

    def cut() -> None:
        raise OperationalError("cut")

    with monkeypatch.context() as patch:
        between_reads(view, patch, cut)
        assert not view.refresh()
    assert view.snapshot is None
    assert view.refresh()
    assert routes(view) == {"r"}
    row.enabled = False
    row.save()
    with monkeypatch.context() as patch:
        between_reads(view, patch, cut)
        assert not view.refresh()
    assert view.refresh()
    credential = found(view)
    assert credential is not None and not credential.enabled


def test_a_bug_is_survived(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    view = good()
    with monkeypatch.context() as patch:
        patch.setattr(view, "_look", lambda wrote: 1 / 0)
        assert not view.refresh()
    assert view.problems == ["refreshing failed: ZeroDivisionError"]
    assert view.refresh()


def test_current_looks_when_the_last_look_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    view = Runtime()
    with monkeypatch.context() as patch:
        patch.setattr(runtime.time, "monotonic", lambda: clock[0])
        assert view.current() is not None
        with patch.context() as elsewhere:  # as if another process had written
            elsewhere.setattr(Writes, "count", 0)
            Routes.create(id="r", paths=["/r"])
        clock[0] += 0.2
        with CaptureQueriesContext(connection) as queries:
            view.current()
        assert len(queries) == 0
        clock[0] += 0.05
        view.current()
    assert routes(view) == {"r"}


def test_own_writes_are_seen_at_once() -> None:
    view = Runtime()
    view.current()
    Routes.create(id="r", paths=["/r"])
    view.current()
    assert routes(view) == {"r"}


def test_a_version_that_was_rolled_back_and_given_again_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writes, "open", {})
    view = good()
    for key in ("one", "two"):
        version = ConfigVersion.load().version
        savepoint = transaction.savepoint()
        Routes.create(id=key, paths=[f"/{key}"])
        assert ConfigVersion.load().version == version + 1
        view.current()
        assert view.snapshot is not None
        assert {route.id for route in view.snapshot.routes.routes} == {key}
        transaction.savepoint_rollback(savepoint)


def test_the_first_snapshot_is_waited_for() -> None:
    view = Runtime()
    view._lock.acquire()
    got: list[Any] = []
    other = threading.Thread(target=lambda: got.append(view.current()))
    other.start()
    other.join(0.1)
    assert other.is_alive()
    view.snapshot = good().snapshot
    view._writes, view._next_look = Writes.count, float("inf")
    view._lock.release()
    other.join(5)
    assert got == [view.snapshot]


# --- the thread ---


class Looked:
    """A runtime that only counts."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        self.looks = 0
        self.enough = threading.Event()

    def refresh(self) -> bool:
        self.looks += 1
        if self.looks >= 3:
            self.enough.set()
        return not self.problems


@pytest.mark.parametrize("problems", [[], ["the database cannot be read"]])
def test_the_thread_goes_on_whatever_fails_in_it(problems: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "close_old_connections", lambda: None)
    looked = Looked(problems)
    said: list[str] = []

    def every_second() -> None:
        said.append("beat")
        raise OperationalError("away") if len(said) == 1 else RuntimeError("a bug")

    settings = {**HMAC_GATEWAY, "REFRESH_SECONDS": 0.01}
    with override_settings(HMAC_GATEWAY=settings):
        thread = Refresher(looked, every_second, lambda: said.append("gone"))  # type: ignore[arg-type]
        thread.start()
        assert thread.first_look.wait(10)
        assert looked.enough.wait(10)
        thread.stop()
    assert not thread.is_alive()
    assert said[0] == "beat"
    assert said[-1] == "gone", "a heartbeat that fails must not leave the worker in the list"


def test_stop_before_start() -> None:
    Refresher(Looked([])).stop()  # type: ignore[arg-type]


def test_mirror_keys_are_of_the_models_type() -> None:
    row = make_credential()
    view = good()
    assert isinstance(next(iter(view._people.rows["credential"])), uuid.UUID)
    assert next(iter(view._people.rows["credential"])) == row.pk
