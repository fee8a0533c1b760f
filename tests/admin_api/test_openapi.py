"""The OpenAPI document says everything that the admin API does, and the page that shows it needs no other server."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator

from hmac_gateway.admin_api.apisix_absent import ABSENT
from hmac_gateway.admin_api.apisix_resources import RESOURCES
from hmac_gateway.plugins import ALL, PLUGINS

from .support import BASE, Api

METHODS = ("get", "put", "post", "patch", "delete")


@pytest.fixture
def document() -> Any:
    response = Client().get("/api/schema/?format=json")
    assert response.status_code == 200
    return response.json()


def test_every_resource_with_every_method(document: Any) -> None:
    paths = document["paths"]
    for name, resource in RESOURCES.items():
        key = "username" if name == "consumers" else "id"
        methods = {*METHODS} - {method.lower() for method in resource.refused_methods}
        assert paths[f"{BASE}/{name}"].keys() & {*METHODS} == methods - {"patch", "delete"}
        assert paths[f"{BASE}/{name}/{{{key}}}"].keys() & {*METHODS} == methods - {"post"}
    assert paths[f"{BASE}/consumers/{{username}}/credentials/{{id}}"].keys() >= {"get", "put", "delete"}
    for name in ABSENT:
        assert f"{BASE}/{name}" in paths
    for name in ("plugins/list", "plugins", "schema/{kind}", "schema/validate/{name}", "configs/validate"):
        assert f"{BASE}/{name}" in paths
    assert paths.keys() >= {"/healthz", "/readyz", "/metrics"}


def test_bodies_are_the_schemas_that_calls_are_checked_with(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name, known in ALL.items():
        assert (f"plugin.{name}" in schemas) == ("apisix" in known.config_schema)
    for name, plugin in PLUGINS.items():
        assert (f"credential.{name}" in schemas) == (plugin.credential_schema is not None)
    for resource in RESOURCES.values():
        found = schemas[resource.kind.replace(" ", "_")]
        assert found["properties"].keys() == resource.schema["properties"].keys()
        assert found.get("required") == resource.schema.get("required")
    assert set(schemas["credential"]["properties"]["plugins"]["properties"]) == {
        name for name, plugin in PLUGINS.items() if plugin.credential_schema is not None
    }


def test_it_is_whole(document: Any) -> None:
    text = str(document)
    for reference in set(re.findall(r"'\$ref': '#/([^']+)'", text)):
        at = document
        for part in reference.split("/"):
            at = at[part]
    assert "\\Z" not in text and "\\\\Z" not in text
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids = [op["operationId"] for path in document["paths"].values() for m, op in path.items() if m in METHODS]
    assert len(ids) == len(set(ids))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                own = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
                assert own == set(re.findall(r"{(\w+)}", path)), (path, method)
                assert operation["responses"] and operation["summary"]
    assert document["security"] == [{"AdminKey": []}]
    assert document["components"]["securitySchemes"]["AdminKey"]["name"] == "X-API-KEY"


def test_a_plugin_that_the_settings_exclude_is_not_told(settings: Any) -> None:
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "PLUGINS_AVAILABLE": ["key-auth"]}
    schemas = Client().get("/api/schema?format=json").json()["components"]["schemas"]
    assert [name for name in schemas if name.startswith("plugin.")] == ["plugin.key-auth"]


def test_what_is_answered_is_what_is_said(api: Api, document: Any) -> None:
    def right(name: str, value: Any) -> None:
        schema = {**document["components"]["schemas"][name], "components": document["components"]}
        Draft202012Validator(schema).validate(value)

    made = api.put("services/1", {"plugins": {"key-auth": {}}, "upstream": {"nodes": {"a.example:1": 1}}})
    right("service.written", made.json())
    right("service.stored", api.get("services/1").json())
    api.put("consumers/c", {"username": "c"})
    made = api.put("consumers/c/credentials/1", {"plugins": {"key-auth": {"key": "k"}}})
    right("credential.written", made.json())
    right("credential.stored", api.get("consumers/c/credentials/1").json())
    right("Error", api.get("services/2").json())


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for address in ("/api/docs/", "/api/docs"):
        page = Client().get(address)
        assert page.status_code == 200
        text = page.content.decode()
        links = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert len(links) >= 4 and all(link.startswith("/") for link in links), links
        assert "hmac_gateway admin API" in text
