"""A hand-written apisix.yaml: taken over whole, twice, and written out again."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps

from hmac_gateway.models import AuditEvent, ConfigVersion
from hmac_gateway.portability import text

from ..admin_api.support import Api
from .support import HERE, again, everything, exported, refused, take, wipe, yaml_of

pytestmark = pytest.mark.django_db
FILE = HERE / "apisix.yaml"


@pytest.fixture
def document() -> Any:
    return text.load(FILE.read_bytes())


@pytest.fixture
def api() -> Api:
    return Api()


def test_everything_in_it_is_there(document: Any, api: Api) -> None:
    report = take(document)
    assert [(change.action, change.kind, change.id) for change in report.changes] == [
        ("created", "upstream", "legacy"),
        ("created", "plugin config", "signed"),
        ("created", "consumer group", "partners"),
        ("created", "service", "shop"),
        ("created", "route", "orders"),
        ("created", "route", "7"),
        ("created", "route", "arr_3"),
        ("created", "route", "keys"),
        ("created", "global rule", "1"),
        ("created", "consumer", "acme"),
        ("created", "consumer", "bob"),
        ("created", "credential", "acme/second"),
        ("created", "credential", "bob/key"),
        ("created", "credential", "bob/login"),
    ]
    assert [found.what for found in report.skipped] == ["ssls (1 entry)", "plugin_metadata (1 entry)"]
    assert api.value("routes/orders") == document["routes"][0]
    assert api.value("routes/7") == document["routes"][1]
    assert api.value("routes/arr_3") == {**document["routes"][2], "id": "arr_3"}
    assert api.value("services/shop") == document["services"][0]
    assert api.value("upstreams/legacy") == document["upstreams"][0]
    assert api.value("plugin_configs/signed") == document["plugin_configs"][0]
    assert api.value("global_rules/1") == document["global_rules"][0]
    masked = {"hmac-auth": {"key_id": "acme", "secret_key": "********"}}
    assert api.value("consumers/acme") == {**document["consumers"][0], "plugins": masked}
    assert api.value("consumers/bob/credentials/key") == {"id": "key", "plugins": {"key-auth": {"key": "********"}}}
    credential = apps.get_model("hmac_consumers.Credential").objects.get(public_id="login")
    assert credential.get_secret() == "no: such thing"
    assert {row.changed_at_version for row in apps.get_model("hmac_proxy.Route").objects.all()} == {report.version}
    assert report.version == ConfigVersion.load().version


def test_a_second_import_changes_nothing(document: Any) -> None:
    take(document)
    before = everything()
    report = take(document)
    assert report.changes == [] and report.left.total() == 14 and report.version is None
    assert everything() == before


def test_the_export_comes_back(document: Any) -> None:
    take(document)
    written = again()
    assert "acme-secret-key" in written and "bobs-own-key" in written
    masked = yaml_of(opened=False)
    for secret in ("acme-secret-key", "another-secret-key", "bobs-own-key", "no: such thing"):
        assert secret not in masked
    before = everything()
    assert take(text.load(masked.encode())).changes == []
    assert everything() == before
    wipe()
    problems = refused(text.load(masked.encode()))
    assert any("stands for a secret that is stored already, and there is none" in line for line in problems)


def test_the_export_is_what_the_rest_api_takes(document: Any, api: Api) -> None:
    take(document)
    found = exported().document
    wipe()
    for name in ("upstreams", "plugin_configs", "consumer_groups", "services", "routes", "global_rules"):
        for item in found[name]:
            assert api.put(name, item).status_code == 201
    for item in found["consumers"]:
        if "username" in item:
            assert api.put("consumers", item).status_code == 201
        else:
            path, doc = item["id"], {key: value for key, value in item.items() if key != "id"}
            assert api.put(f"consumers/{path}", doc).status_code == 201
    again_ = exported().document
    # Only their uuids are new.
    del found["hmac_gateway"], again_["hmac_gateway"]
    # By REST, the credentials came after all consumers, which the order in the file does not show.
    assert again_ == {name: found[name] for name in again_}


def test_a_dry_run_writes_nothing(document: Any) -> None:
    before = everything()
    report = take(document, dry_run=True)
    assert len(report.changes) == 14 and report.version is None
    assert everything() == before
    take(document)
    document["routes"][0]["priority"] = 11
    del document["services"][0]["plugins"]
    before = everything()
    report = take(document, dry_run=True, prune=True)
    assert [(change.action, change.id) for change in report.changes] == [("changed", "shop"), ("changed", "orders")]
    assert everything() == before


def test_audit_is_the_admin_apis(document: Any) -> None:
    take(document)
    AuditEvent.objects.all().delete()
    document["routes"][0]["priority"] = 11
    document["consumers"][0]["plugins"]["hmac-auth"]["secret_key"] = "a-new-secret"
    take(document)
    events = AuditEvent.objects.order_by("id")
    assert list(events.values_list("actor", "action", "entity", "via")) == [
        ("tester", "changed", "hmac_proxy.route", "import"),
        ("tester", "changed", "hmac_consumers.consumer", "import"),
    ]
    route, consumer = [event.changes for event in events]
    assert route == {"fields": ["priority"], "before": {"priority": 10}, "after": {"priority": 11}}
    assert (consumer["fields"], consumer["secret"]) == (["plugins"], "changed")
    assert "a-new-secret" not in str(consumer)
