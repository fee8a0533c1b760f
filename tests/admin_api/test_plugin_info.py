"""What the admin API tells about plugins and schemas."""

from __future__ import annotations

from hmac_gateway.plugins import PLUGINS

from .support import Api


def test_plugins_list(api: Api) -> None:
    found = api.get("plugins/list").json()
    assert set(found) == set(PLUGINS) and api.get("plugins/list/").json() == found
    assert api.put("plugins/list", {}).status_code == 405
    assert Api(None).get("plugins/list").status_code == 401


def test_schemas(api: Api) -> None:
    assert "clock_skew" in api.get("schema/plugins/hmac-auth").json()["properties"]
    assert api.get("plugins/hmac-auth").json() == api.get("schema/plugins/hmac-auth").json()
    assert "key_id" in api.get("schema/plugins/hmac-auth?schema_type=consumer").json()["properties"]
    unknown = api.get("schema/plugins/no-such")
    assert unknown.status_code == 404 and unknown.json() == {"error_msg": "plugin not found"}
    assert "uri" in api.get("schema/route").json()["properties"]
    assert api.get("schema/nothing").status_code == 404


def test_validate(api: Api) -> None:
    good = api.post("schema/validate/routes", {"uri": "/x", "plugins": {}})
    assert good.status_code == 200 and good.content == b""
    bad = api.post("schema/validate/routes", {"uri": "/x", "plugins": {"no-such": {}}})
    assert bad.status_code == 400 and bad.json() == {"error_msg": "unknown plugin [no-such]"}
    assert api.post("schema/validate/nothing", {}).status_code == 404
    assert api.post("schema/validate/routes", []).status_code == 400
    assert api.get("routes").json()["total"] == 0
