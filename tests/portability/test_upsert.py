"""What an import does to what is there already: upsert, prune, strict, things that move, and what people are shown."""

from __future__ import annotations

import json
import stat
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from hmac_gateway.models import AuditEvent, ConfigVersion, Tombstone
from hmac_gateway.portability import text

from ..admin_api.support import Api
from .configurations import FULL
from .support import everything, exported, refused, take, yaml_of

pytestmark = pytest.mark.django_db
NODES = {"127.0.0.1:80": 1}
Credential: Any = apps.get_model("hmac_consumers.Credential")


def route(key: Any = "r", **more: Any) -> dict[str, Any]:
    return {"id": key, "uri": "/x", "plugins": {}, **more}


def consumer(name: str, key_id: str = "", secret: str = "first-secret") -> dict[str, Any]:
    own = {"plugins": {"hmac-auth": {"key_id": key_id, "secret_key": secret}}} if key_id else {}
    return {"username": name, **own}


def credential(owner: str, public_id: str, plugin: str = "hmac-auth", **config: Any) -> dict[str, Any]:
    return {"id": f"{owner}/credentials/{public_id}", "plugins": {plugin: config}}


def actions(report: Any) -> list[tuple[str, str]]:
    return [(change.action, change.id) for change in report.changes]


def test_one_version_for_everything() -> None:
    before = ConfigVersion.load().version
    assert take(FULL).version == before + 1 == ConfigVersion.load().version
    stamps = set()
    for label in ("hmac_proxy.Route", "hmac_proxy.Node", "hmac_proxy.Plugin", "hmac_consumers.Credential"):
        stamps |= set(apps.get_model(label).objects.values_list("changed_at_version", flat=True))
    assert stamps == {before + 1}


def test_untouched_objects_keep_their_stamps() -> None:
    take({"routes": [route("a"), route("b")]})
    rows = {row.pk: row for row in apps.get_model("hmac_proxy.Route").objects.all()}
    report = take({"routes": [route("b", priority=1), route("a")]})
    assert actions(report) == [("changed", "b")] and report.left == {"route": 1}
    after = {row.pk: row for row in apps.get_model("hmac_proxy.Route").objects.all()}
    assert after["a"].updated_at == rows["a"].updated_at
    assert after["a"].changed_at_version == rows["a"].changed_at_version
    assert after["b"].updated_at > rows["b"].updated_at and after["b"].created_at == rows["b"].created_at


def test_what_the_file_does_not_name_stays_unless_pruned() -> None:
    take(FULL)
    kept = {"routes": [route()], "consumers": [{"username": "two"}], "services": [{"id": "s"}]}
    report = take(kept)
    assert actions(report) == [("changed", "r"), ("changed", "two")]
    Tombstone.objects.all().delete()
    report = take({**kept, "upstreams": [{"id": "map", "nodes": NODES}]}, prune=True)
    assert ("deleted", "two/c") in actions(report) and ("deleted", "one") in actions(report)
    assert actions(report).count(("changed", "map")) == 1
    found = exported().document
    assert [item["id"] for item in found["routes"]] == ["r"]
    assert [item["username"] for item in found["consumers"]] == ["two"]
    assert [item["id"] for item in found["services"]] == ["s"]
    assert [item["id"] for item in found["upstreams"]] == ["map"]
    assert "plugin_configs" not in found and "global_rules" not in found and "consumer_groups" not in found
    assert Tombstone.objects.filter(label="hmac_consumers.credential").count() == 3
    deleted = AuditEvent.objects.filter(action="deleted", via="import").count()
    assert deleted == sum(action == "deleted" for action, _ in actions(report))
    before = everything()
    assert take({**kept, "upstreams": [{"id": "map", "nodes": NODES}]}, prune=True).changes == []
    assert everything() == before


def test_prune_leaves_kongs_rows_and_what_they_use() -> None:
    take({"services": [{"id": "s"}]})
    kong = {"id": "k", "dialect": "kong", "paths": ["/k"], "service_id": "s"}
    apps.get_model("hmac_proxy.Route").objects.create(**kong)
    apps.get_model("hmac_consumers.Consumer").objects.create(username="kong-user", dialect="kong")
    assert refused({}, prune=True) == [
        "service s, which the file does not name: can not delete this service directly, route [k] is still using it now"
    ]
    assert take({"services": [{"id": "s"}]}, prune=True).changes == []
    assert [tuple(found) for found in exported().skipped] == [
        ("route k", "written in Kong's dialect"),
        ("consumer kong-user", "written in Kong's dialect"),
    ]
    [problem] = refused({"routes": [route("k")]})
    assert "the id is taken by a route that this format cannot show (dialect kong)" in problem
    [problem] = refused({"consumers": [{"username": "kong-user"}]})
    assert "(dialect kong)" in problem


def test_strict() -> None:
    file = {"routes": [route()], "ssls": [{"id": 1}], "protos": []}
    assert refused(file, strict=True) == [
        "ssls (1 entry): certificates are the listener's, see hmac_serve --tls-cert (strict)"
    ]
    assert [tuple(found) for found in take(file).skipped] == [
        ("ssls (1 entry)", "certificates are the listener's, see hmac_serve --tls-cert")
    ]
    with_plugin = {"routes": [route("p", plugins={"prometheus": {}, "hmac-auth": {}})]}
    assert refused(with_plugin) == ["routes 1 (id p): unknown plugin [prometheus]"]
    assert len(take(with_plugin, without=["prometheus"]).skipped) == 1
    assert exported().document["routes"][-1]["plugins"] == {"hmac-auth": {}}


def test_references_in_any_order() -> None:
    file = {
        "routes": [route(service_id=1, plugin_config_id="p", upstream_id="u")],
        "consumers": [credential("a", "c", key_id="k", secret_key="s"), {"username": "a", "group_id": "g"}],
        "consumer_groups": [{"id": "g", "plugins": {}}],
        "plugin_configs": [{"id": "p", "plugins": {}}],
        "services": [{"id": 1, "upstream_id": "u"}],
        "upstreams": [{"id": "u", "nodes": NODES}],
    }
    assert len(take(file).changes) == 7
    assert take(dict(reversed(file.items()))).changes == []


def test_keys_and_plugins_that_move() -> None:
    first = {
        "consumers": [
            consumer("a", "k1"),
            consumer("b", "k2"),
            credential("a", "c", "key-auth", key="moves"),
            credential("b", "c", key_id="k3", secret_key="x"),
        ],
        "global_rules": [{"id": 1, "plugins": {"hmac-auth": {}}}, {"id": 2, "plugins": {"key-auth": {}}}],
    }
    take(first)
    second = {
        "consumers": [
            consumer("a", "k2"),
            consumer("b", "k1"),
            credential("a", "c", key_id="k3", secret_key="x"),
            credential("b", "c", "key-auth", key="moves"),
        ],
        "global_rules": [{"id": 1, "plugins": {"key-auth": {}}}, {"id": 2, "plugins": {"hmac-auth": {}}}],
    }
    assert len(take(second).changes) == 6
    assert take(second).changes == []
    found = {(row.consumer.username, row.public_id): row.identifier for row in Credential.objects.all()}
    assert found["a", None] == "k2" and found["b", None] == "k1" and found["a", "c"] == "k3"
    assert not Credential.objects.filter(identifier__startswith="parked").exists()
    assert len(take(first).changes) == 6
    # From a consumer that the file no longer has, to a new one.
    take({"consumers": [consumer("new", "k1")]}, prune=True)
    assert Credential.objects.get().identifier == "k1"


def test_two_forms_of_credentials_are_read_one_is_written() -> None:
    nested = {
        "consumers": [
            {
                "username": "a",
                "credentials": [
                    {"id": "one", "plugins": {"key-auth": {"key": "k-1"}}},
                    {"name": "two", "type": "hmac-auth", "config": {"key_id": "k2", "secret_key": "s"}},
                ],
            }
        ],
        "credentials": [{"id": "three", "consumer": "a", "plugins": {"key-auth": {"key": "k-3"}}}],
    }
    assert [key for _, key in actions(take(nested))] == ["a", "a/one", "a/two", "a/three"]
    assert [item.get("id") for item in exported().document["consumers"]] == [
        None,
        "a/credentials/one",
        "a/credentials/two",
        "a/credentials/three",
    ]
    assert take(nested).changes == []


def test_ends_stay() -> None:
    api = Api()
    assert api.put("routes/r?ttl=1000", {"uri": "/x", "plugins": {}}).status_code == 201
    row = apps.get_model("hmac_proxy.Route").objects.get()
    take({"routes": [route(desc="changed")]})
    assert apps.get_model("hmac_proxy.Route").objects.get().expires_at == row.expires_at
    document = text.load(yaml_of().encode())
    document["hmac_gateway"]["routes"]["r"]["expires_at"] = "2020-01-01T00:00:00+00:00"
    report = take(document)
    assert report.changes == [] and [found.why for found in report.skipped] == ["its end is over"]


def test_differences_show_no_secret() -> None:
    take({"consumers": [consumer("a", "k1"), credential("a", "c", "key-auth", key="the-old-key", other="clear-1")]})
    changed = {
        "consumers": [
            {**consumer("a", "k2", "second-secret"), "desc": "d"},
            credential("a", "c", "key-auth", key="the-new-key", other="clear-2"),
        ]
    }
    report = take(changed, dry_run=True)
    lines = list(report.lines(diff=True))
    assert lines == [
        "changed  consumer a: plugins, desc",
        '           plugins.hmac-auth.key_id: "k1" -> "k2"',
        '           plugins.hmac-auth.secret_key: "********" -> "******** (another)"',
        '           desc: (none) -> "d"',
        "changed  credential a/c: plugins",
        '           plugins.key-auth.key: "********" -> "******** (another)"',
        '           plugins.key-auth.other: "********" -> "********"',
        "0 created, 2 changed, 0 deleted, 0 left as they were (dry run: nothing was written)",
    ]
    shown = json.dumps(report.as_json(diff=True)) + "\n".join(lines)
    for secret in ("first-secret", "second-secret", "the-old-key", "the-new-key", "clear-1", "clear-2"):
        assert secret not in shown
    gone = take({"consumers": [{"username": "a"}]}, dry_run=True)
    assert "first-secret" not in "\n".join(gone.lines(diff=True))
    take(changed)
    assert not AuditEvent.objects.filter(changes__icontains="secret-").exists()


def test_a_mask_leaves_the_secret() -> None:
    take({"consumers": [consumer("a", "k1")]})
    report = take({"consumers": [consumer("a", "k2", "********")]})
    assert len(report.changes) == 1
    assert Credential.objects.get().get_secret() == "first-secret"


# --- the commands ---


def run(*words: str, **options: Any) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    try:
        call_command(*words, stdout=out, stderr=err, **options)
    except CommandError as error:
        return error.returncode, out.getvalue(), str(error)
    except SystemExit as stop:
        return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_commands(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(
        "routes:\n  - {id: r, uri: /x, plugins: {}}\n"
        "consumers: [{username: a, plugins: {key-auth: {key: open-sesame}}}]\n"
    )
    code, _, error = run("hmac_import", "--from=apisix", str(file))
    assert code == 1 and "does not end with a line #END" in error
    file.write_text(file.read_text() + "#END\n")
    assert run("hmac_import", "--from=apisix", str(file), "--dry-run")[1].splitlines() == [
        "created  route r",
        "created  consumer a",
        "2 created, 0 changed, 0 deleted, 0 left as they were (dry run: nothing was written)",
    ]
    assert run("hmac_import", "--from=apisix", str(file))[0] == 0
    code, out, _ = run("hmac_import", "--from=apisix", "--json", str(file))
    assert code == 0 and json.loads(out)["left"] == {"consumer": 1, "route": 1}
    code, out, _ = run("hmac_export", "--to=apisix")
    assert code == 0 and out.endswith("\n#END\n") and "open-sesame" not in out
    kept = tmp_path / "out.yaml"
    kept.write_text("old")
    kept.chmod(0o644)
    assert run("hmac_export", "--to=apisix", "--with-secrets", "--output", str(kept))[1] == ""
    assert "open-sesame" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()).__len__() == 2
    code, out, _ = run("hmac_export", "--to=apisix", "--json")
    assert code == 0 and json.loads(out)["routes"] == [{"id": "r", "uri": "/x", "plugins": {}}]
    code, out, _ = run("hmac_import", "--from=apisix", "--json", "/dev/null")
    assert code == 1 and list(json.loads(out)) == ["refused"]
    assert run("hmac_import", "--from=apisix", "/no/such/file")[0] == 2
    assert run("hmac_export", "--to=apisix", "--output", "/no/such/folder/file")[0] == 2
