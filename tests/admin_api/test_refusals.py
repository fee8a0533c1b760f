"""What is refused, in APISIX's words; and bodies that nobody should have to store."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from django.db import DataError, IntegrityError, OperationalError

from hmac_gateway.admin_api import apisix_store
from hmac_gateway.validators import HASH_VARS

from .support import Api

NODES = {"127.0.0.1:8080": 1}
UP = {"upstream": {"nodes": NODES}}
TOO_LONG = "x" * 257


def texts() -> list[tuple[str, Any, str]]:
    conf = "invalid configuration: "
    plugin = "failed to check the configuration of plugin hmac-auth err: "
    return [
        ("routes", {"uri": "/x", **UP}, "missing route id"),
        ("routes/1", {"id": 2, "uri": "/x", **UP}, "wrong route id"),
        ("routes/1", None, "missing configurations"),
        ("routes/1", [], "missing configurations"),
        ("routes/1", 5, "missing configurations"),
        ("routes/1", "null", "missing configurations"),
        ("routes/1", {"uri": "/x", **UP, "create_time": 1}, "the property is forbidden:  create_time"),
        ("routes/1", {"uri": "/x", **UP, "update_time": 1}, "the property is forbidden:  update_time"),
        ("routes/1", {"uri": "/x", **UP, "host": "a", "hosts": ["b"]}, "only one of host or hosts is allowed"),
        (
            "routes/1",
            {"uri": "/x", **UP, "remote_addr": "1.2.3.4", "remote_addrs": ["1.2.3.4"]},
            "only one of remote_addr or remote_addrs is allowed",
        ),
        ("routes/1", UP, conf + "allOf 1 failed: value should match only one schema, but matches none"),
        (
            "routes/1",
            {"uri": "/x", "uris": ["/x"], **UP},
            conf + "allOf 1 failed: value should match only one schema, but matches both schemas 1 and 2",
        ),
        (
            "routes/1",
            {"uri": "/x"},
            # As `_M.route` in APISIX's schema_def.lua lists them.
            conf + 'object matches none of the required: ["plugins","uri"] or ["upstream","uri"] or '
            '["upstream_id","uri"] or ["service_id","uri"] or ["plugins","uris"] or ["upstream","uris"] or '
            '["upstream_id","uris"] or ["service_id","uris"] or ["script","uri"] or ["script","uris"]',
        ),
        ("routes/1", {"uri": "/x", **UP, "foo": 1}, conf + "additional properties forbidden, found foo"),
        (
            "routes/1",
            {"uri": 5, **UP},
            conf + 'property "uri" validation failed: wrong type: expected string, got number',
        ),
        (
            "routes/1",
            {"uri": "/x", **UP, "name": TOO_LONG},
            conf + 'property "name" validation failed: string too long, expected at most 256, got 257',
        ),
        (
            "routes/1",
            {"uri": "/x", **UP, "methods": ["GET", "GO"]},
            conf + 'property "methods" validation failed: failed to validate item 2: matches none of the enum values',
        ),
        (
            "routes/1",
            {"uri": "/x", **UP, "methods": ["GET", "GET"]},
            conf + 'property "methods" validation failed: expected unique items but items 1 and 2 are equal',
        ),
        (
            "routes/1",
            {"uri": "/x", **UP, "uris": []},
            conf + 'property "uris" validation failed: expect array to have at least 1 items',
        ),
        (
            "routes/1",
            {"uri": "/x", "service_id": "X"},
            "failed to fetch service info by service id [X], response code: 404",
        ),
        (
            "routes/1",
            {"uri": "/x", "upstream_id": 7},
            "failed to fetch upstream info by upstream id [7], response code: 404",
        ),
        (
            "routes/1",
            {"uri": "/x", "plugin_config_id": "p", "plugins": {}},
            "failed to fetch plugin config info by plugin config id [p], response code: 404",
        ),
        ("routes/1", {"uri": "/x", "plugins": {"no-such": {}}}, "unknown plugin [no-such]"),
        (
            "routes/1",
            {"uri": "/x", "plugins": {"hmac-auth": "blah"}},
            'invalid plugin conf "blah" for plugin [hmac-auth]',
        ),
        (
            "routes/1",
            {"uri": "/x", "plugins": {"hmac-auth": {"clock_skew": 0}}},
            plugin + 'property "clock_skew" validation failed: expected 0 to be at least 1',
        ),
        (
            "services/1",
            {"plugins": {"hmac-auth": {"allowed_algorithms": []}}},
            plugin + 'property "allowed_algorithms" validation failed: expect array to have at least 1 items',
        ),
        (
            "services/1",
            {"plugins": {"hmac-auth": {"realm": 'a"b'}}},
            # get_realm_schema of APISIX's schema_def.lua.
            plugin + 'property "realm" validation failed: '
            r'failed to match pattern "^[ -!#-[\\]-~]+$" with "a\"b"',
        ),
        (
            "services/1",
            {"upstream": {"type": "roundrobin"}},
            conf + 'property "upstream" validation failed: value should match only one schema, but matches none',
        ),
        (
            "upstreams/1",
            {"nodes": {"a.example": -1}},
            conf + 'property "nodes" validation failed: object matches none of the required',
        ),
        (
            "upstreams/1",
            {"nodes": NODES, "pass_host": "rewrite"},
            "`upstream_host` can't be empty when `pass_host` is `rewrite`",
        ),
        ("upstreams/1", {"nodes": NODES, "type": "chash"}, "missing key"),
        (
            "upstreams/1",
            {"nodes": NODES, "timeout": {"connect": 0, "send": 1, "read": 1}},
            conf + 'property "timeout" validation failed: property "connect" validation failed: '
            "expected 0 to be greater than 0",
        ),
        ("routes/1", {"uri": "/x", **UP, "filter_func": "function()"}, "`filter_func` is not supported: "),
        ("routes/1", {"uri": "/x", **UP, "script": "return {}"}, "`script` is not supported: "),
        ("upstreams/1", {"service_name": "a", "discovery_type": "dns"}, "`discovery_type` is not supported: "),
        (
            "upstreams/1",
            {"nodes": NODES, "tls": {"client_cert": "c", "client_key": "k"}},
            "`tls.client_cert` is not supported: ",
        ),
        (
            "routes/1",
            {"uri": "/x", "upstream": {"nodes": NODES, "tls": {"client_key": "k"}}},
            "`tls.client_key` is not supported: ",
        ),
        ("upstreams/1", {"nodes": NODES, "type": "chash"}, "missing key"),
        (
            "upstreams/1",
            {"nodes": NODES, "type": "chash", "key": "remote"},
            conf + f'failed to match pattern "{HASH_VARS}" with "remote"',
        ),
        (
            "upstreams/1",
            {"nodes": NODES, "type": "chash", "hash_on": "cookie", "key": "a b"},
            conf + 'failed to match pattern "^[a-zA-Z0-9-_]+$" with "a b"',
        ),
        (
            "upstreams/1",
            {"nodes": NODES, "checks": {"passive": {}}},
            conf + 'property "checks" validation failed: object matches none of the required: '
            '["active"] or ["active","passive"]',
        ),
        (
            "services/1",
            {"upstream": {"nodes": NODES, "checks": {"active": {}, "x": 1}}},
            conf + 'property "upstream" validation failed: property "checks" validation failed: '
            "additional properties forbidden, found x",
        ),
        (
            "services/1",
            {"upstream": {"nodes": NODES, "update_time": 1}},
            "the property is forbidden:  upstream.update_time",
        ),
        ("services/1", {"plugins": {"create_time": {}}}, "the property is forbidden:  plugins.create_time"),
        ("upstreams/1", {}, conf + "value should match only one schema, but matches none"),
        ("upstreams/1", {"nodes": {"a:0": 1}}, "invalid port 0"),
        ("routes/1", {"uri": "/x", "upstream": {"nodes": {"a:65536": 1}}}, "invalid port 65536"),
        (
            "routes/1",
            {"uri": "/x", **UP, "labels": {"a": ""}},
            conf + 'property "labels" validation failed: failed to validate a (matching ".*"): '
            "string too short, expected at least 1, got 0",
        ),
        (
            "routes/1",
            {"uri": "/x", **UP, "remote_addr": "nobody"},
            conf + 'property "remote_addr" validation failed: object matches none of the required',
        ),
        (
            "routes/1",
            {"uri": "/x", **UP, "remote_addrs": ["::1", "1.2.3.4/33"]},
            conf + 'property "remote_addrs" validation failed: failed to validate item 2: '
            "object matches none of the required",
        ),
        (
            "routes/a$b",
            {"uri": "/x", **UP},
            conf + 'property "id" validation failed: object matches none of the required',
        ),
        (
            "routes/1",
            {"uri": "/x", "plugins": {"key-auth": {"_meta": {"filter": [["nobody", "==", "1"]]}}}},
            "failed to validate the 'vars' expression: ",
        ),
        (
            "routes/1",
            {"uri": "/x", "plugins": {"hmac-auth": {"_meta": {"error_response": 5}}}},
            plugin + 'property "_meta" validation failed: property "error_response" validation failed: '
            "value should match only one schema, but matches none",
        ),
        (
            "upstreams/1",
            {"nodes": NODES, "checks": {"active": {"healthy": {"successes": 255}}}},
            conf + 'property "checks" validation failed: ',
        ),
        (
            "upstreams/1",
            {"nodes": NODES, "checks": {"active": {}, "passive": {"unhealthy": {"http_statuses": [199]}}}},
            conf + 'property "checks" validation failed: ',
        ),
    ]


@pytest.mark.parametrize(("path", "doc", "text"), texts())
def test_words(api: Api, path: str, doc: Any, text: str) -> None:
    response = api.put(path, doc)
    assert response.status_code == 400
    given = response.json()["error_msg"]
    assert given.startswith(text) if text.endswith(": ") else given == text
    assert response.content.endswith(b"}\n")


@pytest.mark.parametrize(
    "doc",
    [
        {"uri": "no-slash", **UP},
        {"uri": "/a/../b", **UP},
        {"uri": "/x", **UP, "hosts": ["a..b"]},
        {"uri": "/x", **UP, "remote_addr": "nobody"},
        {"uri": "/x", "upstream": {"nodes": {"a:b:c": 1}}},
        {"uri": "/x", "upstream": {"nodes": {"a:99999": 1}}},
        {"uri": "/x", "upstream": {"nodes": {"a": 1, "a:80": 1}}},
        {"uri": "/x", "upstream": {"nodes": [{"host": "a", "weight": 2**40, "port": 1}] * 2}},
        {"uri": "/x", "upstream": {"nodes": {"": 1}}},
        {"uri": "/x", "upstream": "u"},
        {"uri": "/x", **UP, "labels": {"a": " "}},
        {"uri": "/x", **UP, "labels": {" ": "a"}},
        {"uri": "/x", **UP, "id": "a b"},
        {"uri": "/x", **UP, "id": {}},
    ],
)
def test_wrong_values(api: Api, doc: dict[str, Any]) -> None:
    response = api.put("routes" if "id" in doc else "routes/1", doc)
    assert response.status_code == 400 and response.json()["error_msg"]


def big(size: int) -> str:
    text = json.dumps({"desc": "d"})
    return " " * (size - len(text)) + text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "missing configurations"),
        ("{", "invalid request body: Expecting property name enclosed in double quotes at character 2"),
        ("hello", "invalid request body: Expecting value at character 1"),
        (b"\xff\xfe", "invalid request body: it is not UTF-8"),
        ('{"name": NaN}', "invalid request body: NaN cannot be stored"),
        ('{"name": -Infinity}', "invalid request body: -Infinity cannot be stored"),
        ('{"priority": 1e999}', "invalid request body: a number is too large"),
        ('{"priority": 9223372036854775808}', "invalid request body: a number is too large"),
        ('{"priority": %s}' % ("9" * 5000), "invalid request body: a number is too large"),
        ('{"name": "a\\u0000b"}', "invalid request body: NUL characters cannot be stored"),
        ('{"a\\u0000b": 1}', "invalid request body: NUL characters cannot be stored"),
        ('{"name": "\\ud800"}', "invalid request body: lone surrogates cannot be stored"),
        ('{"name": "a", "desc": "d", "name": "b"}', 'invalid request body: the key "name" is given twice'),
        ('{"labels": {"a": "1", "\\u0061": "2"}}', 'invalid request body: the key "a" is given twice'),
        ("[" * 100_000, "invalid request body: it is nested too deeply"),
        ("[" * 30 + "]" * 30, "invalid request body: it is nested deeper than 24 levels"),
        (
            big(1_572_865),
            "invalid request body: request size 1572865 is greater than the maximum size 1572864 allowed",
        ),
    ],
)
def test_bodies(api: Api, body: Any, why: str) -> None:
    response = api.put("services/1", body)
    assert response.status_code == 400
    assert response.json()["error_msg"] == why


def test_a_body_too_large_is_not_read_to_its_end(api: Api) -> None:
    response = api.put("services/1", big(1_700_000))
    assert "request size 1700000 is" in response.json()["error_msg"]


def test_the_largest_body_passes(api: Api) -> None:
    assert api.put("services/1", big(1_572_864)).status_code == 201


def test_a_broken_body_is_repeated_unless_it_may_hold_a_secret(api: Api) -> None:
    assert api.put("services/1", "{a").json()["req_body"] == "{a"
    assert "req_body" not in api.put("services/1", '{"password": a').json()


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""])
def test_the_content_type_does_not_matter(api: Api, media: str) -> None:
    response = api.call("PUT", "services/1", {}, **{"Content-Type": media})
    assert response.status_code in (200, 201)


def test_too_many_arguments(api: Api) -> None:
    response = api.get("services?" + "&".join(f"a{number}" for number in range(1100)))
    assert response.status_code == 400 and response.json() == {"error_msg": "bad request"}


def test_a_global_rule_has_a_plugin_to_itself(api: Api) -> None:
    assert api.put("global_rules/1", {"plugins": {"hmac-auth": {}}}).status_code == 201
    second = api.put("global_rules/2", {"plugins": {"hmac-auth": {}}})
    assert second.status_code == 400
    assert second.json() == {"error_msg": "plugin 'hmac-auth' already exists in global rule with id '1'"}
    assert api.put("global_rules/1", {"plugins": {"hmac-auth": {"realm": "r"}}}).status_code == 200


def test_plugins_that_the_settings_exclude(api: Api, settings: Any) -> None:
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "PLUGINS_AVAILABLE": []}
    response = api.put("routes/1", {"uri": "/x", "plugins": {"hmac-auth": {}}})
    assert response.json() == {"error_msg": "unknown plugin [hmac-auth]"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (IntegrityError("UNIQUE constraint failed: secret-text"), 409),
        (DataError("value secret-text too long"), 400),
        (OperationalError("database is locked"), 503),
        (RuntimeError("secret-text"), 500),
    ],
)
def test_failures_of_the_database_and_of_ours(
    api: Api, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with mock.patch.object(apisix_store, "put", side_effect=error):
        response = api.put("services/1", {})
    assert response.status_code == status and list(response.json()) == ["error_msg"]
    assert b"secret-text" not in response.content and b"Traceback" not in response.content
    assert "secret-text" not in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "consumers", {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}),
        ("PATCH", "consumers/c/credentials/1", {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}),
        ("TRACE", "routes", {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"}),
        ("POST", "plugin_configs", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("POST", "consumer_groups", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("POST", "global_rules", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("GET", "schema/validate/routes", {"POST", "OPTIONS"}),
        ("DELETE", "configs/validate", {"POST", "OPTIONS"}),
    ],
)
def test_a_method_that_is_not_supported(api: Api, method: str, path: str, allowed: set[str]) -> None:
    api.put("consumers", {"username": "c"})
    response = api.call(method, path, {})
    assert response.status_code == 405
    assert response.json()["error_msg"].startswith(f"not supported `{method}` method")
    assert set(response["Allow"].split(", ")) - {"HEAD"} == allowed - {"HEAD"}


def test_conditions_and_heads_are_answered_like_others(api: Api) -> None:
    api.put("services/1", {})
    plain = api.get("services/1")
    for headers in (
        {"If-None-Match": "*"},
        {"If-Modified-Since": "Sun, 06 Nov 2044 08:49:37 GMT"},
        {"Range": "bytes=0-1"},
    ):
        answer = api.call("GET", "services/1", None, **headers)
        assert (answer.status_code, answer.content) == (200, plain.content)
    head = api.call("HEAD", "services/1")
    assert head.status_code == 200 and head["X-API-VERSION"] == "v3"
    assert api.call("PUT", "services/1", {}, **{"If-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize("path", ["plugin_configs/x/\n", "plugin_configs/x/a\nb", "secrets/env/\n"])
def test_line_ends_in_addresses_are_answered_in_json(api: Api, path: str) -> None:
    answer = api.patch(path.replace("\n", "%0A"), [])
    assert answer.status_code in (400, 404) and answer["Content-Type"] == "application/json"
