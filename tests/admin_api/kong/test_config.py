"""/config: the whole configuration as one file, in every kind of body; answers are those of Kong without a database."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from django.apps import apps

from hmac_gateway.admin_api.kong_config import in_lua
from hmac_gateway.models import AdminKey, AuditEvent, ConfigVersion

from .support import Kong

pytestmark = pytest.mark.django_db
FILE = """
_format_version: "1.1"
services:
- name: my-service
  id: 0855b320-0dd2-547d-891d-601e9b38647f
  url: https://example.com
  plugins:
  - name: key-auth
    id: 661199ff-aa1c-5498-982c-d57a4bd6e48b
  routes:
  - name: my-route
    id: 481a9539-f49c-51b6-b2e2-fe99ee68866c
    paths: [/]
consumers:
- username: my-user
  id: 4b1b701d-de2b-5588-9aa2-3b97061d9f52
  keyauth_credentials:
  - {key: my-key, id: 487ab43c-b2c9-51ec-8da5-367586ea2b61}
"""


def test_every_kind_of_body(kong: Kong) -> None:
    bodies: list[tuple[str, bytes]] = [
        ("application/json", json.dumps({"config": FILE}).encode()),
        ("application/json", json.dumps(yaml.safe_load(FILE)).encode()),
        ("application/json; charset=utf-8", json.dumps({"config": json.dumps(yaml.safe_load(FILE))}).encode()),
        ("application/x-www-form-urlencoded", urlencode({"config": FILE}).encode()),
        ("application/yaml", FILE.encode()),
        ("text/yaml", FILE.encode()),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="config"; filename="kong.yml"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n" + FILE.encode() + b"\r\n--b--\r\n",
        ),
    ]
    first: Any = None
    for kind, body in bodies:
        answer = kong.raw("POST", "config", body, kind)
        assert answer.status_code == 201, (kind, answer.content)
        first = first or answer.json()
        assert answer.json() == first
        assert kong.raw("POST", "config?check_hash=1", body, kind).status_code == 304
    assert set(first) == {"services", "routes", "consumers", "plugins", "keyauth_credentials"}
    route = first["routes"]["481a9539-f49c-51b6-b2e2-fe99ee68866c"]
    assert route["service"] == {"id": "0855b320-0dd2-547d-891d-601e9b38647f"}
    assert first["keyauth_credentials"]["487ab43c-b2c9-51ec-8da5-367586ea2b61"]["key"] == "********"
    assert route == kong.get("routes/my-route").json()
    assert ConfigVersion.load().version == 1
    assert AuditEvent.objects.filter(via="kong-api").count() == 5


def test_it_replaces_what_is_kongs(kong: Kong) -> None:
    apps.get_model("hmac_proxy.Service").objects.create(id="apisix", dialect="apisix")
    kong.made("services", {"name": "old", "url": "http://h"})
    kong.post("config", {"config": FILE})
    assert [service["name"] for service in kong.get("services").json()["data"]] == ["my-service"]
    assert apps.get_model("hmac_proxy.Service").objects.filter(pk="apisix").exists()
    assert kong.post("config", {"_format_version": "3.0"}).json() == {}
    assert kong.get("services").json()["data"] == [] and kong.get("consumers").json()["data"] == []


def test_it_is_given_back(kong: Kong) -> None:
    kong.post("config", {"config": FILE})
    config = kong.get("config").json()["config"]
    assert "my-key" not in config
    given = yaml.safe_load(config)
    assert given["_format_version"] == "3.0" and given["services"][0]["routes"][0]["name"] == "my-route"
    # As it came, masks and all.
    assert kong.post("config?check_hash=1", {"config": config}).status_code == 304


@pytest.mark.parametrize(
    ("body", "fields", "message"),
    [
        # From Kong's own tests of /config.
        (
            {"config": "bobby tables"},
            {"error": "failed parsing declarative configuration: expected an object"},
            '{error="failed parsing declarative configuration: expected an object"}',
        ),
        (
            {"config": '_format_version: "1.1"\nservices:\n- port: -12\n'},
            {"services": [{"host": "required field missing", "port": "value should be between 0 and 65535"}]},
            '{services={{host="required field missing",port="value should be between 0 and 65535"}}}',
        ),
        (
            {"_format_version": "1.1", "services": [{"name": "foo", "host": "h"}, {"name": "foo", "host": "h"}]},
            {
                "services": [
                    None,
                    "uniqueness violation: 'services' entity with name set to 'foo' already declared",
                ]
            },
            "{services={[2]=\"uniqueness violation: 'services' entity with name set to 'foo' already declared\"}}",
        ),
        (
            {"config": "a: 'b"},
            {"error": "failed parsing declarative configuration: line 1, column 6: found unexpected end of stream"},
            '{error="failed parsing declarative configuration: line 1, column 6: found unexpected end of stream"}',
        ),
    ],
)
def test_what_is_wrong(kong: Kong, body: Any, fields: Any, message: str) -> None:
    kong.made("services", {"name": "stays", "url": "http://h"})
    answer = kong.post("config", body)
    assert answer.status_code == 400
    assert answer.json() == {
        "code": 14,
        "name": "invalid declarative configuration",
        "message": f"declarative config is invalid: {message}",
        "fields": fields,
    }
    assert kong.get("services/stays").status_code == 200


def test_flattened(kong: Kong) -> None:
    given = {"_format_version": "3.0", "consumers": [{"username": "bobby", "not_allowed": 1, "tags": ["consumer-02"]}]}
    assert kong.post("config?flatten_errors=1", given).json() == {
        "code": 14,
        "name": "invalid declarative configuration",
        "message": "declarative config is invalid: {}",
        "fields": {},
        "flattened_errors": [
            {
                "entity": given["consumers"][0],
                "entity_tags": ["consumer-02"],
                "entity_type": "consumer",
                "errors": [{"field": "not_allowed", "message": "unknown field", "type": "field"}],
            }
        ],
    }


def test_bodies_that_are_none(kong: Kong) -> None:
    expected = {"message": "expected a declarative configuration"}
    for body in (None, {}, {"config": ""}, {"config": 5}, {"other": 1}):
        answer = kong.call("POST", "config", body)
        assert (answer.status_code, answer.json()) == (400, expected), body
    assert kong.raw("POST", "config", b" ", "text/yaml").json() == expected
    assert kong.raw("POST", "config", b"x", "image/png").status_code == 415
    assert kong.raw("POST", "config", b"{", "application/json").status_code == 400
    assert kong.put("config", {}).status_code == 405


def test_what_is_passed_over_is_said(kong: Kong) -> None:
    given = {"_format_version": "3.0", "certificates": [{"cert": "c"}]}
    [said] = kong.post("config", given).json()["_skipped"]
    assert said.startswith("certificates (1 entry): ")
    assert kong.post("config?strict=1", given).status_code == 400


def test_viewers_read_only() -> None:
    _, key = AdminKey.create_key("reader", AdminKey.Role.VIEWER)
    kong = Kong(key)
    assert kong.get("config").status_code == 200
    assert kong.post("config", {"config": FILE}).status_code == 403


def test_how_lua_writes_it() -> None:
    assert in_lua({"a b": [None, 'say "hi"'], "@entity": ["x"]}) == '{["@entity"]={"x"},["a b"]={[2]="say \\"hi\\""}}'
