"""Audit events: who, with which key, and what was and is, without anything that may be a secret; and their page."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from hmac_gateway.admin_api import audit
from hmac_gateway.models import AdminKey, AuditEvent

from .support import Api


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"redis_password": "hunter2", "count": 1}, {"redis_password": "********", "count": 1}),
        ({"secret": {"a": "hunter2"}}, {"secret": {"a": "********"}}),
        ({"tokens": ["hunter2", 5]}, {"tokens": ["********", "********"]}),
        ({"req_headers": ["Authorization: hunter2", "X-A"]}, {"req_headers": ["Authorization: ********", "X-A"]}),
        ({"headers": {"x-key": "hunter2"}}, {"headers": {"x-key": "********"}}),
        ({"signed_headers": ["date", "@request-target"]}, {"signed_headers": ["date", "@request-target"]}),
        ({"uri": "redis://u:hunter2@h:1/0"}, {"uri": "redis://********@h:1/0"}),
        ({"hide_credentials": True, "password": ""}, {"hide_credentials": True, "password": ""}),
        ({"secret_key": "$env://GATEWAY_SECRET_A"}, {"secret_key": "$env://GATEWAY_SECRET_A"}),
        ({"metadata": {"API-Key": "hunter2"}}, {"metadata": {"API-Key": "********"}}),
    ],
)
def test_what_may_be_a_secret_is_masked(value: Any, shown: Any) -> None:
    assert audit.masked(value) == shown


def test_what_is_long_is_told_by_its_length(api: Api) -> None:
    nodes = {f"node-{number}.example:80": 1 for number in range(400)}
    api.put("upstreams/u", {"nodes": nodes})
    assert AuditEvent.objects.get().changes["after"]["nodes"].endswith(" characters of JSON)")


def test_who_wrote_with_which_key(api: Api) -> None:
    key, plaintext = AdminKey.create_key("deployer")
    Api(plaintext).put("services/s", {})
    event = AuditEvent.objects.get()
    assert (event.actor, event.changes["key"]) == ("deployer", str(key.pk))


def test_a_deletion_tells_what_is_gone(api: Api) -> None:
    api.put("consumers/c", {"username": "c", "plugins": {"key-auth": {"key": "hunter2"}}})
    api.delete("consumers/c")
    changes = AuditEvent.objects.get(action="deleted").changes
    assert changes["before"] == {"username": "c", "plugins": {"key-auth": {"key": "********"}}}
    assert "after" not in changes


def test_its_page(api: Api) -> None:
    api.put("services/s", {"name": "<b>old</b>", "plugins": {"key-auth": {}}})
    api.put("services/s", {"name": "new"})
    event = AuditEvent.objects.get(action="changed")
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    page = client.get(f"/admin/hmac_gateway/auditevent/{event.pk}/change/").content.decode()
    assert "<tr><th>name</th><td><pre>&lt;b&gt;old&lt;/b&gt;</pre></td><td><pre>new</pre></td></tr>" in page
    assert "<tr><th>plugins</th>" in page and "settings" in page
    assert "name, plugins" in client.get("/admin/hmac_gateway/auditevent/").content.decode()


@pytest.mark.parametrize(
    "changes", [{}, [], "x", {"fields": 5}, {"message": "Deleted."}, {"before": 1, "fields": ["a"]}]
)
def test_its_page_bears_whatever_stands_there(db: None, changes: Any) -> None:
    event = AuditEvent.objects.create(
        actor="a", action="changed", entity="a.b", object_id="1", via="v", changes=changes
    )
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    assert client.get(f"/admin/hmac_gateway/auditevent/{event.pk}/change/").status_code == 200
    assert client.get("/admin/hmac_gateway/auditevent/").status_code == 200
