"""Who may use the admin API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from hmac_gateway.models import AdminKey, AuditEvent

from .support import BASE, KEY, Api


def failed(response: Any, why: str) -> None:
    assert response.status_code == 401
    assert response.content == b'{"error_msg":"failed to check token","description":"%s"}\n' % why.encode()
    # t/admin/api.t, test 3: no version to who has no key.
    assert response["Content-Type"] == "application/json" and "X-API-VERSION" not in response


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH", "DELETE"])
def test_no_key_and_a_wrong_key(db: None, method: str) -> None:
    failed(Api(None).call(method, "routes/1", {"uri": "/x"}), "missing apikey")
    failed(Api("wrong").call(method, "routes/1", {"uri": "/x"}), "wrong apikey")
    failed(Api("").call(method, "nothing"), "wrong apikey")
    failed(Api("k\xe9y").call(method, "nothing"), "wrong apikey")


def test_without_any_key_configured_nobody_gets_in(db: None, settings: Any) -> None:
    for nothing in (None, ""):
        settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "ADMIN_KEY": nothing}
        failed(Api("").get("routes"), "wrong apikey")
        failed(Api("None").get("routes"), "wrong apikey")
        failed(Api(None).get("routes"), "missing apikey")


def test_the_key_may_stand_in_the_query_or_a_cookie(db: None) -> None:
    api = Api(None)
    assert api.get(f"routes?api_key={KEY}").status_code == 200
    # The query is looked at first.
    failed(Api(KEY).get("routes?api_key=wrong"), "wrong apikey")
    api.client.cookies["x_api_key"] = KEY
    assert api.get("routes").status_code == 200
    assert api.put("services/1", {}).status_code == 201


def test_a_foreign_form_cannot_use_the_cookie(db: None) -> None:
    api = Api(None)
    api.client.cookies["x_api_key"] = KEY
    response = api.client.generic("POST", f"{BASE}/services", "{}", content_type="text/plain")
    failed(response, "missing apikey")
    assert api.post("services", {}).status_code == 201


def test_a_session_of_the_console_is_no_key(db: None, admin_client: Any) -> None:
    failed(admin_client.get(f"{BASE}/routes"), "missing apikey")


def test_keys_of_the_database(db: None) -> None:
    row, key = AdminKey.create_key("deployer")
    assert Api(key).put("services/1", {}).status_code == 201
    assert AuditEvent.objects.get().actor == "deployer"
    row.refresh_from_db()
    assert timezone.now() - row.last_used_at < timedelta(minutes=1)
    used = row.last_used_at
    Api(key).get("services")
    row.refresh_from_db()
    assert row.last_used_at == used
    row.enabled = False
    row.save()
    failed(Api(key).get("services"), "wrong apikey")
    failed(Api(row.digest).get("services"), "wrong apikey")


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_a_viewer_only_reads(db: None, method: str) -> None:
    _, key = AdminKey.create_key("dashboard", AdminKey.Role.VIEWER)
    assert Api(key).get("services").status_code == 200
    failed(Api(key).call(method, "services/1", {}), "invalid method for role viewer")


def test_options_answers_cors_without_a_key(db: None) -> None:
    response = Api(None).call("OPTIONS", "routes/1")
    assert response.status_code == 200 and response["Access-Control-Allow-Origin"] == "*"
    assert "PUT" in response["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in response


def test_other_methods(api: Api) -> None:
    assert api.call("TRACE", "routes").status_code == 405
    assert api.call("PURGE", "routes").json() == {"error_msg": "not supported `PURGE` method"}


def test_the_key_is_not_in_answers_or_the_audit(api: Api) -> None:
    response = api.put(f"services/1?api_key={KEY}", {"name": 5})
    assert KEY.encode() not in response.content
    api.put(f"services/1?api_key={KEY}", {})
    assert KEY not in str(list(AuditEvent.objects.values()))
