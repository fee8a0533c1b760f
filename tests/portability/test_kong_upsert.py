"""What an import of a kong.yml does to what is there already: upsert, prune, names and ids that move, differences."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from hmac_gateway.models import AuditEvent, ConfigVersion

from . import support
from .kong import document, file, load, refused, take, yaml_of
from .support import everything
from .test_upsert import run

pytestmark = pytest.mark.django_db
Service: Any = apps.get_model("hmac_proxy.Service")
Route: Any = apps.get_model("hmac_proxy.Route")
Consumer: Any = apps.get_model("hmac_consumers.Consumer")
Credential: Any = apps.get_model("hmac_consumers.Credential")
A, B = "0855b320-0dd2-547d-891d-601e9b38647f", "481a9539-f49c-51b6-b2e2-fe99ee68866c"


def service(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "url": "http://127.0.0.1:8080", **more}


def actions(report: Any) -> list[tuple[str, str]]:
    return [(change.action, change.id) for change in report.changes]


def test_one_version_and_events_for_what_changed() -> None:
    before = ConfigVersion.load().version
    report = take(file())
    assert report.version == before + 1 == ConfigVersion.load().version
    assert AuditEvent.objects.filter(via="import", actor="tester").count() == len(report.changes)
    assert not AuditEvent.objects.filter(changes__icontains="bob-secret").exists()
    unchanged = everything()
    again = take(file())
    assert again.version is None and again.left.total() == len(report.changes)
    assert take(file(), dry_run=True).changes == []
    assert everything() == unchanged


def test_names_find_rows_that_have_other_ids() -> None:
    take(document(services=[service("s", id=A, routes=[{"name": "r", "id": B, "paths": ["/a"]}])]))
    report = take(document(services=[service("s", retries=1, routes=[{"name": "r", "paths": ["/b"]}])]))
    assert actions(report) == [("changed", "s"), ("changed", "r")]
    assert (Service.objects.get().pk, Route.objects.get().paths) == (A, ["/b"])


def test_an_id_renames() -> None:
    take(document(services=[service("old", id=A)]))
    assert actions(take(document(services=[service("new", id=A)]))) == [("changed", "new")]
    # Without the id it is another one; the old one stays, as it is not named.
    take(document(services=[service("newer")]))
    assert sorted(Service.objects.values_list("name", flat=True)) == ["new", "newer"]


def test_a_name_whose_derived_id_is_taken() -> None:
    take(document(services=[service("first")]))
    row = Service.objects.get()
    row.name = "renamed"
    row.save()
    assert actions(take(document(services=[service("first"), service("renamed")]))) == [("created", "first")]
    assert actions(take(document(services=[service("first"), service("renamed")]))) == []


def test_names_that_change_places() -> None:
    first = document(
        services=[service("a", id=A), service("b", id=B)],
        consumers=[
            {"username": "c", "id": A, "custom_id": "1", "keyauth_credentials": [{"id": A, "key": "k-a"}]},
            {"username": "d", "id": B, "custom_id": "2", "keyauth_credentials": [{"id": B, "key": "k-b"}]},
        ],
        upstreams=[{"name": "u", "targets": [{"id": A, "target": "h1:1"}, {"id": B, "target": "h2:2"}]}],
        plugins=[
            {"id": A, "name": "sign-request", "instance_name": "x", "config": {"key_id": "k", "secret_key": "s"}},
            {
                "id": B,
                "name": "sign-request",
                "instance_name": "y",
                "config": {"key_id": "k", "secret_key": "s"},
                "service": "a",
            },
        ],
    )
    second = document(
        services=[service("b", id=A), service("a", id=B)],
        consumers=[
            {"username": "d", "id": A, "custom_id": "2", "keyauth_credentials": [{"id": B, "key": "k-a"}]},
            {"username": "c", "id": B, "custom_id": "1", "keyauth_credentials": [{"id": A, "key": "k-b"}]},
        ],
        upstreams=[{"name": "u", "targets": [{"id": B, "target": "h1:1"}, {"id": A, "target": "h2:2"}]}],
        plugins=[
            {"id": B, "name": "sign-request", "instance_name": "x", "config": {"key_id": "k", "secret_key": "s"}},
            {
                "id": A,
                "name": "sign-request",
                "instance_name": "y",
                "config": {"key_id": "k", "secret_key": "s"},
                "service": {"id": A},
            },
        ],
    )
    take(first)
    assert len(take(second).changes) == 10
    assert take(second).changes == []
    assert "parked" not in everything().replace('"changes"', "")
    assert Service.objects.get(pk=A).name == "b" and Credential.objects.get(pk=A).get_secret() == "k-b"
    take(first)
    # Names of rows that go may be taken by new ones.
    wanted = document(services=[service("a")], consumers=[{"username": "d"}], upstreams=[{"name": "u"}])
    for kind in wanted.values():
        if isinstance(kind, list):
            kind[0]["id"] = "4b1b701d-de2b-5588-9aa2-3b97061d9f52"
    report = take(wanted, prune=True)
    assert sorted(actions(report))[:3] == [("created", "a"), ("created", "d"), ("created", "u")]
    assert [row.pk for row in Service.objects.all()] == ["4b1b701d-de2b-5588-9aa2-3b97061d9f52"]
    assert take(wanted, prune=True).changes == []


def test_collisions_with_rows_that_stay() -> None:
    take(document(services=[service("s", id=A)], consumers=[{"username": "c", "custom_id": "7", "id": A}]))
    assert refused(document(services=[service("s", id=B)])) == [
        f"services 1 (name s): UNIQUE violation detected on '{{name=\"s\"}}': it is taken by service {A}"
    ]
    assert refused(document(consumers=[{"username": "other", "custom_id": "7"}])) == [
        f"consumers 1 (username other): UNIQUE violation detected on '{{custom_id=\"7\"}}': it is taken by consumer {A}"
    ]
    support.take({"consumers": [{"username": "own", "plugins": {"key-auth": {"key": "same-key"}}}]})
    [problem] = refused(document(consumers=[{"username": "c", "keyauth_credentials": [{"key": "same-key"}]}]))
    assert "UNIQUE violation detected on '{key=\"********\"}'" in problem and "same-key" not in problem
    apps.get_model("hmac_proxy.Service").objects.create(id=B, dialect="apisix")
    [problem] = refused(document(services=[service("t", id=B)]))
    assert problem == f"services 1 (name t): id: the id is taken by service {B} of APISIX's dialect ({B})"


def test_what_the_file_does_not_name_stays_unless_pruned() -> None:
    take(file())
    support.take({"consumers": [{"username": "apisix-user"}], "services": [{"id": "apisix-service"}]})
    kept = document(
        services=[service("orders", id="7d6d1f9c-6a9c-4b1e-9d0a-2f1c8a4b7e01")], consumers=[{"username": "bob"}]
    )
    assert {action for action, _ in actions(take(kept))} == {"changed"}
    report = take(kept, prune=True)
    assert {action for action, _ in actions(report)} == {"deleted"}
    assert [change.kind for change in report.changes][:2] == ["acl", "acl"]
    assert [row.name for row in Service.objects.filter(dialect="kong")] == ["orders"]
    assert sorted(Consumer.objects.values_list("username", flat=True)) == ["apisix-user", "bob"]
    assert not Route.objects.exists() and not Credential.objects.exists()
    assert AuditEvent.objects.filter(action="deleted").count() == len(report.changes)
    assert take(kept, prune=True).changes == []


def test_pruning_leaves_what_hangs_together_with_apisix() -> None:
    take(document(consumers=[{"username": "shared"}, {"username": "gone"}]))
    Consumer.objects.filter(username="shared").update(enabled=True)
    Credential.objects.create(
        consumer=Consumer.objects.get(username="shared"), plugin="hmac-auth", identifier="k", public_id="x"
    )
    report = take(document(), prune=True)
    assert actions(report) == [("deleted", "gone")]
    assert [what for what, _ in report.skipped] == ["consumer shared"]


def test_select_tags_bound_what_is_pruned() -> None:
    take(document(services=[service("mine", tags=["team", "a"]), service("theirs", tags=["team"])]))
    head = {"_info": {"select_tags": ["a"]}}
    report = take({**document(services=[service("new")]), **head}, prune=True)
    assert actions(report) == [("created", "new"), ("deleted", "mine")]
    assert Service.objects.get(name="new").tags == ["a"] and Service.objects.filter(name="theirs").exists()


def test_objects_that_are_over_are_as_if_deleted() -> None:
    take(document(services=[service("s", id=A)], consumers=[{"username": "c", "id": A}]))
    over = timezone.now() - timedelta(seconds=1)
    for row in (*Service.objects.all(), *Consumer.objects.all()):
        row.expires_at = over
        row.save()
    given = document(services=[service("s")], consumers=[{"username": "c", "id": A}])
    assert actions(take(given)) == [("created", "s"), ("created", "c")]
    assert take(given).changes == [] and Service.objects.count() == 1


def test_an_end_stays() -> None:
    def given(**more: Any) -> Any:
        return document(consumers=[{"username": "c", "keyauth_credentials": [{"key": "k", **more}]}])

    take(given(ttl=1000))
    end = Credential.objects.get().expires_at
    assert 990 < (end - timezone.now()).total_seconds() <= 1000
    for same in (given(ttl=1000), given(ttl=5), given()):
        assert take(same).changes == []
    take(given(tags=["t"]))
    assert Credential.objects.get().expires_at == end


def test_differences_show_no_secret() -> None:
    take(document(consumers=[{"username": "c", "hmacauth_credentials": [{"username": "h", "secret": "first-secret"}]}]))
    changed = document(
        consumers=[
            {"username": "c", "tags": ["t"], "hmacauth_credentials": [{"username": "h", "secret": "second-one"}]}
        ]
    )
    report = take(changed, dry_run=True)
    assert list(report.lines(diff=True)) == [
        "changed  consumer c: tags",
        '           tags: (none) -> ["t"]',
        "changed  hmacauth_credential h: secret",
        '           secret: "********" -> "******** (another)"',
        "0 created, 2 changed, 0 deleted, 0 left as they were (dry run: nothing was written)",
    ]
    assert "second" not in json.dumps(report.as_json(diff=True))
    take(changed)
    assert Credential.objects.get().get_secret() == "second-one"
    assert not AuditEvent.objects.filter(changes__icontains="second-one").exists()


def test_commands(tmp_path: Path) -> None:
    written = tmp_path / "kong.yml"
    written.write_text(
        '_format_version: "3.0"\nservices:\n- {name: s, url: "http://h", routes: [{name: r, paths: [/]}]}\n'
    )
    assert run("hmac_import", "--from=kong", str(written))[1].splitlines()[:2] == [
        "created  service s",
        "created  route r",
    ]
    code, out, _ = run("hmac_import", "--from=kong", "--json", str(written))
    assert code == 0 and json.loads(out)["left"] == {"route": 1, "service": 1}
    code, out, _ = run("hmac_export", "--to=kong")
    assert code == 0 and out.startswith("# Written by hmac_export.") and "#END" not in out
    assert load(out).changes == []
    code, out, _ = run("hmac_export", "--to=kong", "--json")
    assert code == 0 and json.loads(out)["services"][0]["routes"][0]["name"] == "r"
    written.write_text("services: []")
    code, _, error = run("hmac_import", "--from=kong", str(written))
    assert code == 1 and "_format_version: required field missing" in error


def test_exports_are_the_same_every_time() -> None:
    take(file())
    assert yaml_of() == yaml_of() and yaml_of(opened=False) == yaml_of(opened=False)
