"""What APISIX has and we have not, and POST /configs/validate."""

from __future__ import annotations

from typing import Any

import pytest

from hmac_gateway.models import AuditEvent, ConfigVersion

from .support import Api

NAMES = ["ssls", "protos", "stream_routes", "plugin_metadata", "secrets"]


@pytest.mark.parametrize("name", NAMES)
def test_absent(api: Api, name: str) -> None:
    assert api.get(name).json() == api.get(f"{name}/").json() == {"list": [], "total": 0}
    for method in ("GET", "PATCH", "DELETE"):
        for key in ("1", "vault/1", "vault/1/token"):
            missing = api.call(method, f"{name}/{key}", {})
            assert (missing.status_code, missing.json()) == (404, {"message": "Key not found"})
    for method, path in (("PUT", f"{name}/1"), ("PUT", f"{name}/vault/1"), ("POST", name)):
        refused = api.call(method, path, {"id": "1"})
        assert refused.status_code == 400
        assert refused.json()["error_msg"].startswith(name) and "not supported: " in refused.json()["error_msg"]
    assert Api(None).get(name).status_code == 401
    assert not AuditEvent.objects.exists()


def test_where_secrets_may_stand_is_said(api: Api) -> None:
    said = api.put("secrets/vault/1", {"uri": "http://v", "token": "hunter2"}).json()["error_msg"]
    assert said.endswith("a credential may name a variable, $env://NAME, where NAME begins with GATEWAY_SECRET_")


GOOD = {
    "routes": [{"id": "1", "uri": "/x", "service_id": "s", "plugins": {"key-auth": {}}, "create_time": 1}],
    "services": [{"id": 1, "upstream": {"nodes": {"a.example": 1}}}],
    "consumers": [
        {"username": "c", "plugins": {}},
        {"id": "c/credentials/1", "plugins": {"key-auth": {"key": "k"}}},
    ],
    "global_rules": [],
    "ssls": [],
    "routes_conf_version": 3,
}


def test_a_whole_configuration(api: Api) -> None:
    before = ConfigVersion.load().version
    good = api.post("configs/validate", GOOD)
    assert (good.status_code, good.content) == (200, b"")
    assert api.get("routes").json()["total"] == 0 and ConfigVersion.load().version == before


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        ({"rotes": []}, [{"resource_type": "rotes", "error": "Unsupported resource type: rotes"}]),
        ({"routes": {}}, [{"resource_type": "routes", "error": "routes must be a list"}]),
        (
            {"routes": [{"id": "r1", "uri": 123}, 5]},
            [
                {
                    "resource_type": "routes",
                    "index": 0,
                    "error": "invalid routes at index 0, err: invalid configuration: "
                    'property "uri" validation failed: wrong type: expected string, got number',
                },
                {
                    "resource_type": "routes",
                    "index": 1,
                    "error": "invalid routes at index 1, err: missing configurations",
                },
            ],
        ),
        (
            {"services": [{"id": "1"}, {"id": 1}]},
            [{"resource_type": "services", "index": 1, "error": "found duplicate id 1 in services"}],
        ),
        # An object may be wrong in itself, and be another one's double.
        (
            {"services": [{"id": "1"}, {"id": "1", "x": 2}]},
            [
                {
                    "resource_type": "services",
                    "index": 1,
                    "error": "invalid services at index 1, err: invalid configuration: "
                    "additional properties forbidden, found x",
                },
                {"resource_type": "services", "index": 1, "error": "found duplicate id 1 in services"},
            ],
        ),
        (
            {"consumers": [{"username": "jack"}, {"username": "jack"}]},
            [{"resource_type": "consumers", "index": 1, "error": "found duplicate username jack in consumers"}],
        ),
        (
            {"consumers": [{"id": "c/credentials/1", "plugins": {"key-auth": {"key": key}}} for key in "ab"]},
            [
                {
                    "resource_type": "consumers",
                    "index": 1,
                    "error": "found duplicate credential id c/credentials/1 in consumers",
                }
            ],
        ),
        (
            {"global_rules": [{"plugins": {}}]},
            [
                {
                    "resource_type": "global_rules",
                    "index": 0,
                    "error": 'invalid global_rules at index 0, err: invalid configuration: property "id" is required',
                }
            ],
        ),
        (
            {"routes_conf_version": "3"},
            [{"resource_type": "routes", "error": "routes_conf_version must be a number, got string"}],
        ),
        (
            {"consumers": [{"id": "c/credentials/1", "plugins": {"key-auth": {}}}, {"desc": "d"}]},
            [
                {
                    "resource_type": "consumers",
                    "index": 0,
                    "error": "invalid consumers at index 0, err: invalid plugins configuration: "
                    'failed to check the configuration of plugin key-auth err: property "key" is required',
                },
                {
                    "resource_type": "consumers",
                    "index": 1,
                    "error": "invalid consumers at index 1, err: invalid configuration: "
                    'property "username" is required',
                },
            ],
        ),
        (
            {"protos": [{}]},
            [
                {
                    "resource_type": "protos",
                    "index": 0,
                    "error": "invalid protos at index 0, err: protos are not supported: gRPC is not transcoded",
                }
            ],
        ),
    ],
)
def test_everything_wrong_is_listed(api: Api, document: dict[str, Any], errors: list[Any]) -> None:
    response = api.post("configs/validate", document)
    assert response.status_code == 400
    assert response.json() == {"error_msg": "Configuration validation failed", "errors": errors}


def test_objects_need_no_id(api: Api) -> None:
    # t/admin/config-validate.t, test 14; an empty configuration is its test 9.
    document = {"routes": [{"uri": path, "plugins": {}} for path in ("/foo", "/bar")], "services": [{}]}
    assert api.post("configs/validate", document).status_code == api.post("configs/validate", {}).status_code == 200


def test_only_an_object_is_a_configuration(api: Api) -> None:
    empty = api.post("configs/validate", "")
    assert empty.json() == {"error_msg": "invalid request body: empty request body"}
    for body in ([], None, "5"):
        assert api.post("configs/validate", body).status_code == 400
    assert api.get("configs/validate").status_code == 405
