"""What the admin API tells about plugins and schemas."""

from __future__ import annotations

import pytest

from hmac_gateway.plugins import of_dialect

from .support import Api


def test_plugins_list(api: Api) -> None:
    found = api.get("plugins/list").json()
    assert set(found) == set(of_dialect("apisix")) and api.get("plugins/list/").json() == found
    assert Api(None).get("plugins/list").status_code == 401


def test_schemas(api: Api) -> None:
    assert "clock_skew" in api.get("schema/plugins/hmac-auth").json()["properties"]
    assert api.get("plugins/hmac-auth").json() == api.get("schema/plugins/hmac-auth").json()
    assert "key_id" in api.get("schema/plugins/hmac-auth?schema_type=consumer").json()["properties"]
    unknown = api.get("schema/plugins/no-such")
    assert "uri" in api.get("schema/route").json()["properties"]
    assert api.get("schema/key-auth").json() == api.get("plugins/key-auth").json()
    # apisix/admin/plugins.lua, and schema.lua, which asks it for what is no resource.
    for response in (unknown, api.get("schema/nothing"), api.get("plugins/no-such"), api.get("plugins")):
        assert response.status_code == 404
        assert response.json() == {"error_msg": "plugin not found in subsystem http"}
    stream = api.get("plugins/key-auth?subsystem=stream")
    assert stream.status_code == 404 and stream.json() == {"error_msg": "plugin not found in subsystem stream"}
    wrong = api.get("plugins/key-auth?subsystem=dns")
    assert wrong.status_code == 400 and wrong.json() == {"error_msg": "unsupported subsystem: dns"}


@pytest.mark.parametrize("path", ["schema/service", "plugins/key-auth", "plugins/list", "plugins"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_what_is_only_read_is_not_found_by_other_methods(api: Api, method: str, path: str) -> None:
    # t/admin/schema.t, "wrong method".
    response = api.call(method, path, {})
    assert (response.status_code, response.json()) == (404, {"error_msg": "not found"})
    assert Api(None).call(method, path, {}).status_code == 401


def test_reload(api: Api) -> None:
    done = api.put("plugins/reload", None)
    assert (done.status_code, done.content) == (200, b"done")
    wrong = api.get("plugins/reload")
    words = "please use PUT method to reload the plugins, GET method is not allowed."
    assert (wrong.status_code, wrong.json()) == (405, {"error_msg": words})
    assert Api(None).put("plugins/reload", None).status_code == 401


def test_head_of_the_root_needs_no_key() -> None:
    assert Api(None).call("HEAD", "").status_code == 200
    assert Api(None).get("").status_code == 401 and Api(None).call("HEAD", "routes").status_code == 401


def test_validate(api: Api) -> None:
    good = api.post("schema/validate/routes", {"uri": "/x", "plugins": {}})
    assert good.status_code == 200 and good.content == b""
    bad = api.post("schema/validate/routes", {"uri": "/x", "plugins": {"no-such": {}}})
    assert bad.status_code == 400 and bad.json() == {"error_msg": "unknown plugin [no-such]"}
    wrong = api.post("schema/validate/routes", {"uri": 1980, "plugins": {}})
    # Without the words that stand before it elsewhere.
    text = 'property "uri" validation failed: wrong type: expected string, got number'
    assert wrong.status_code == 400 and wrong.json() == {"error_msg": text}
    assert api.post("schema/validate/nothing", {}).status_code == 404
    assert api.post("schema/validate/routes", []).status_code == 400
    assert api.get("routes").json()["total"] == 0


def test_everything_about_plugins(api: Api) -> None:
    found = api.get("plugins?all=true").json()
    assert list(found) == api.get("plugins/list").json() and set(found) == set(of_dialect("apisix"))
    assert found["key-auth"]["priority"] == 2500 and found["key-auth"]["type"] == "auth"
    assert "key" in found["key-auth"]["consumer_schema"]["properties"]
    assert "header" in found["key-auth"]["schema"]["properties"]
    assert api.get("plugins/?all=true").json() == found
    assert api.get("plugins?all=true&subsystem=stream").json() == {}
    assert api.get("plugins/list?subsystem=stream").json() == []
    wrong = api.get("plugins/list?subsystem=dns")
    assert (wrong.status_code, wrong.content) == (400, b"invalid subsystem passed")


def test_plugins_run_in_the_order_of_the_list(api: Api) -> None:
    found = [name for name in api.get("plugins/list").json() if name in ("hmac-auth", "basic-auth", "key-auth")]
    assert found == ["hmac-auth", "basic-auth", "key-auth"]
