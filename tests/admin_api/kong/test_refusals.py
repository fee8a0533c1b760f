"""What Kong's admin API refuses, in Kong's words."""

from __future__ import annotations

from typing import Any

import pytest

from hmac_gateway.models import AdminKey, AuditEvent

from .support import Kong

ID = "5f9d1c9e-1111-4222-8333-444455556666"
REQUIRED = "required field missing"

#: Collection, body, and the reasons by field.
WRONG: list[tuple[str, Any, Any]] = [
    ("services", {}, {"host": REQUIRED}),
    ("services", {"host": None}, {"host": REQUIRED}),
    ("services", {"host": "a:80"}, {"host": "must not have a port"}),
    ("services", {"host": "a", "nam": 1}, {"nam": "unknown field"}),
    ("services", {"host": 1}, {"host": "expected a string"}),
    ("services", {"host": "a", "name": ""}, {"name": "length must be at least 1"}),
    ("services", {"host": "a", "retries": 32768}, {"retries": "value should be between 0 and 32767"}),
    ("services", {"host": "a", "retries": 1.5}, {"retries": "expected an integer"}),
    ("services", {"host": "a", "port": "80"}, {"port": "expected an integer"}),
    ("services", {"host": "a", "enabled": 1}, {"enabled": "expected a boolean"}),
    ("services", {"host": "a", "tags": "t"}, {"tags": "expected a set"}),
    ("services", {"host": "a", "tags": [1, "t", 2]}, {"tags": ["expected a string", None, "expected a string"]}),
    ("services", {"host": "a", "path": "x"}, {"path": "should start with: /"}),
    ("services", {"host": "a", "path": "/a//b"}, {"path": "must not have empty segments"}),
    ("services", {"host": "a", "connect_timeout": 0}, {"connect_timeout": "value should be between 1 and 2147483646"}),
    (
        "services",
        {"host": "a", "protocol": "ftp"},
        {"protocol": "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp"},
    ),
    ("services", {"host": "a", "protocol": "tcp"}, {"protocol": "streams are not forwarded by this gateway"}),
    (
        "services",
        {"host": "a", "name": "a b"},
        {
            "name": "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
        },
    ),
    ("services", {"host": "a", "tls_verify": True}, {"tls_verify": "value must be null"}),
    ("routes", {"paths": ["a"]}, {"paths": ["should start with: / (fixed path) or ~/ (regex path)"]}),
    ("routes", {"paths": ["/a/../b"]}, {"paths": ["non-normalized path, consider use '/b' instead"]}),
    ("routes", {"hosts": ["*.a.*"]}, {"hosts": ["invalid wildcard: must have at most one wildcard"]}),
    ("routes", {"hosts": ["a*.b"]}, {"hosts": ["invalid wildcard: must be placed at leftmost or rightmost label"]}),
    ("routes", {"methods": ["get", "LINK"]}, {"methods": ["invalid value: get", "expected one of: GET"]}),
    ("routes", {"headers": {"x": "1"}, "paths": ["/"]}, {"headers": "expected an array"}),
    (
        "routes",
        {"headers": {"Host": ["1"]}},
        {"headers": "cannot contain 'host' header, which must be specified in the 'hosts' attribute"},
    ),
    (
        "routes",
        {"paths": ["/"], "protocols": ["grpc", "http"]},
        {"protocols": "these sets are mutually exclusive: ('grpc', 'grpcs'), ('http', 'https')"},
    ),
    (
        "routes",
        {"paths": ["/"], "https_redirect_status_code": 303},
        {"https_redirect_status_code": "expected one of: 426, 301, 302, 307, 308"},
    ),
    ("routes", {"snis": ["*.a.test", "1.2.3.4"]}, {"snis": ["invalid value: *.a.test", "must not be an IP"]}),
    ("routes", {"paths": ["/"], "service": "s"}, {"service": "expected a record"}),
    ("routes", {"paths": ["/"], "service": {}}, {"service": {"id": "missing primary key"}}),
    ("routes", {"paths": ["/"], "service": {"id": "s"}}, {"service": {"id": "expected a valid UUID"}}),
    ("routes", {"paths": ["/"], "service": {"id": 1}}, {"service": {"id": "expected a string"}}),
    ("routes", {"paths": ["/"], "service": {"name": None}}, {"service": {"id": "missing primary key"}}),
    ("routes", {"paths": ["/"], "service": {"protocol": "http"}}, {"service": {"id": "missing primary key"}}),
    ("routes", {"paths": ["/"], "service": {"x": "y"}}, {"service": {"x": "unknown field"}}),
    (
        "routes",
        {"protocols": ["foo"], "service": {"name": "\\o/"}},
        {"protocols": ["expected one of: grpc"], "service": {"name": "invalid value '\\o/': the only accepted ascii"}},
    ),
    ("routes", {"paths": ["/"], "sources": [{"ip": "1.2.3.4"}]}, {"sources": "cannot set 'sources'"}),
    ("routes", {"paths": ["/"], "protocols": []}, {"protocols": "length must be at least 1"}),
    ("upstreams", {"name": "1.2.3.4"}, {"name": "Invalid name; no ip addresses allowed"}),
    ("upstreams", {"name": "u", "slots": 9}, {"slots": "value should be between 10 and 65536"}),
    (
        "upstreams",
        {"name": "u", "healthchecks": {"active": {"http_path": "x", "more": 1}}},
        {"healthchecks": {"active": {"http_path": "should start with: /", "more": "unknown field"}}},
    ),
    ("hmac-auths", {"username": "u", "consumer": {"id": 1}}, {"consumer": {"id": "expected a string"}}),
    ("basic-auths", {"username": "u", "consumer": {"id": ID}}, {"password": REQUIRED}),
    ("plugins", {}, {"name": REQUIRED}),
    (
        "plugins",
        {"name": "x"},
        {"name": "plugin 'x' not enabled; add it to the 'plugins' configuration property"},
    ),
]


def _agrees(found: Any, expected: Any) -> bool:
    """Whether reasons are those expected, or begin with them."""
    if isinstance(expected, dict):
        same = isinstance(found, dict) and found.keys() - {"@entity"} == expected.keys()
        return same and all(_agrees(found[name], item) for name, item in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_agrees, found, expected))
    return found == expected or (isinstance(found, str) and found.startswith(expected))


@pytest.mark.parametrize(("path", "body", "fields"), WRONG)
def test_wrong_fields_are_named(kong: Kong, path: str, body: Any, fields: Any) -> None:
    refused = kong.post(path, body)
    found = refused.json()
    assert (refused.status_code, found["code"], found["name"]) == (400, 2, "schema violation")
    assert _agrees(found["fields"], fields), found


def conditional(field: str) -> list[str]:
    return [f"failed conditional validation given value of field '{field}'"]


OTHERS = "expected one of: none, ip, header, cookie, path, query_arg, uri_capture"
#: What an upstream hashes, and all that is said of it: the words of spec/02-integration/04-admin_api of Kong.
HASHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"hash_on": "x"}, {"hash_on": "expected one of: none, consumer" + OTHERS[len("expected one of: none") :]}),
    (
        {"hash_on": "consumer", "hash_fallback": "x"},
        {"@entity": conditional("hash_on"), "hash_fallback": OTHERS},
    ),
    (
        {"hash_on": "consumer", "hash_fallback": "consumer"},
        {"@entity": conditional("hash_on"), "hash_fallback": OTHERS},
    ),
    (
        {"hash_on": "cookie", "hash_on_cookie": "c", "hash_fallback": "ip"},
        {"@entity": conditional("hash_on"), "hash_fallback": "expected one of: none"},
    ),
    ({"hash_on": "header"}, {"@entity": conditional("hash_on"), "hash_on_header": REQUIRED}),
    (
        {"hash_on": "ip", "hash_fallback": "query_arg"},
        {"@entity": conditional("hash_fallback"), "hash_fallback_query_arg": REQUIRED},
    ),
    ({"hash_on": ["ip"], "hash_fallback": {}}, {"hash_on": "expected a string", "hash_fallback": "expected a string"}),
]


@pytest.mark.parametrize(("body", "fields"), HASHES)
def test_what_an_upstream_hashes(kong: Kong, body: Any, fields: Any) -> None:
    refused = kong.post("upstreams", {"name": "u", **body})
    assert (refused.status_code, refused.json()["fields"]) == (400, fields)


def test_references_by_other_names(kong: Kong) -> None:
    service = kong.made("services", {"name": "s", "host": "a"})
    bob = kong.made("consumers", {"username": "bob", "custom_id": "4711"})
    # A whole entity, as clients have it from an answer, means its id.
    assert kong.made("routes", {"paths": ["/"], "service": service})["service"] == {"id": service["id"]}
    assert kong.made("routes", {"paths": ["/"], "service": {"port": 1, "name": "s"}})["service"]["id"] == service["id"]
    assert kong.form("POST", "routes", "paths=/&service.name=s&service.port=80").status_code == 201
    for number, key in enumerate(({"custom_id": "4711"}, {"username": "bob"}, bob)):
        made = kong.made("hmac-auths", {"username": f"u{number}", "consumer": key})
        assert made["consumer"] == {"id": bob["id"]}
    nobody = kong.post("hmac-auths", {"username": "u", "consumer": {"custom_id": "4712"}}).json()
    assert nobody["message"] == (
        "foreign key unresolved (consumer.custom_id: the foreign key cannot be resolved with "
        "'{custom_id=\"4712\"}' for an existing 'consumers' entity)"
    )
    empty = kong.form("POST", "routes", "paths=/&service.name=")
    assert (empty.status_code, empty.json()["fields"]) == (400, {"service": {"id": "missing primary key"}})


ENTITIES = [
    ("consumers", {}, "at least one of these fields must be non-empty: 'custom_id', 'username'"),
    ("routes", {}, "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'"),
    (
        "routes",
        {"protocols": ["http"]},
        "must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'",
    ),
    (
        "upstreams",
        {"name": "u", "hash_on_header": "a", "hash_fallback_header": "a"},
        "values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'",
    ),
]


@pytest.mark.parametrize(("path", "body", "reason"), ENTITIES)
def test_what_is_wrong_with_the_whole(kong: Kong, path: str, body: Any, reason: str) -> None:
    assert kong.post(path, body).json() == {
        "code": 2,
        "name": "schema violation",
        "message": f"schema violation ({reason})",
        "fields": {"@entity": [reason]},
    }


def test_all_violations_are_counted_and_sorted(kong: Kong) -> None:
    found = kong.post("services", {"retries": "x", "tags": ["a", 1], "zz": 1}).json()
    assert found["message"] == (
        "4 schema violations (host: required field missing; retries: expected an integer; "
        "tags.2: expected a string; zz: unknown field)"
    )


def test_references_and_doubles(kong: Kong) -> None:
    nowhere = kong.post("routes", {"paths": ["/"], "service": {"id": ID}})
    assert (nowhere.status_code, nowhere.json()["code"], nowhere.json()["fields"]) == (400, 4, {"service": {"id": ID}})
    text = f"the foreign key '{{id=\"{ID}\"}}' does not reference an existing 'services' entity."
    assert nowhere.json()["message"] == text
    by_name = kong.post("routes", {"paths": ["/"], "service": {"name": "s"}}).json()
    assert (by_name["code"], by_name["name"]) == (13, "foreign keys unresolved")
    certificate = kong.post("upstreams", {"name": "u", "client_certificate": {"id": ID}}).json()
    assert (certificate["code"], "'certificates' entity" in certificate["message"]) == (4, True)
    kong.made("consumers", {"username": "bob"})
    twice = kong.post("consumers", {"username": "bob"})
    assert (twice.status_code, twice.json()) == (
        409,
        {
            "code": 5,
            "name": "unique constraint violation",
            "message": "UNIQUE violation detected on '{username=\"bob\"}'",
            "fields": {"username": "bob"},
        },
    )
    quoted = kong.post("consumers/bob/hmac-auth", {"username": 'a"b'})
    assert (quoted.status_code, "double quotes" in quoted.json()["fields"]["username"]) == (400, True)
    masked = kong.post("consumers/bob/hmac-auth", {"username": "u", "secret": "********"})
    assert masked.status_code == 400 and "there is none" in masked.json()["fields"]["secret"]


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("size=0", 9, "size must be an integer between 1 and 1000"),
        ("size=1001", 9, "size must be an integer between 1 and 1000"),
        ("size=x", 9, "size must be a number"),
        ("offset=%21", 7, "'!' is not a valid offset: bad base64 encoding"),
        ("tags=", 11, "invalid option (tags: cannot be null)"),
        ("tags=a,b/c", 11, "invalid option (tags: invalid filter syntax)"),
        ("tags=a,b,c,d,e,f", 11, "invalid option (tags: cannot query more than 5 tags)"),
    ],
)
def test_arguments_of_lists(kong: Kong, query: str, code: int, message: str) -> None:
    refused = kong.get(f"consumers?{query}")
    assert (refused.status_code, refused.json()["code"], refused.json()["message"]) == (400, code, message)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("upstreams/1.2.3.4", "Invalid name; no ip addresses allowed"),
        (
            "services/a%20b",
            "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
        ),
        ("routes/a%20b/service", "invalid value 'a b': the only accepted ascii characters are alphanumerics"),
    ],
)
def test_what_nothing_can_be_called(kong: Kong, path: str, reason: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE")[: 3 if "service" in path.split("/") else 4]:
        refused = kong.call(method, path, {"host": "a", "paths": ["/"], "name": "n"} if method[0] == "P" else None)
        assert (refused.status_code, refused.json()["code"], refused.json()["name"]) == (400, 10, "invalid unique name")
        assert refused.json()["message"].startswith(reason)
    # Targets are looked for in their upstream; ids are no names.
    kong.made("upstreams", {"name": "u"})
    assert kong.get("upstreams/u/targets/a%20b").status_code == kong.get(f"upstreams/{ID}").status_code == 404


def test_what_cannot_be_a_tag(kong: Kong) -> None:
    refused = kong.get("tags/a,b")
    reason = "invalid tag 'a,b': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
    assert (refused.status_code, refused.json()) == (400, {"code": 10, "name": "invalid unique tag", "message": reason})
    assert kong.get("tags/a").json() == {"data": [], "next": None}


def test_what_there_is_not_has_empty_lists(kong: Kong) -> None:
    for name in ("certificates", "snis", "ca_certificates", "vaults", "keys", "key-sets"):
        assert kong.get(name).json() == {"data": [], "next": None}
        assert kong.get(f"{name}/{ID}").status_code == kong.patch(f"{name}/{ID}", {}).status_code == 404
        refused = kong.post(name, {"cert": "x"})
        assert (refused.status_code, refused.json()["code"]) == (405, 12)
        assert refused.json()["message"].startswith(f"cannot create '{name}' entities")
        assert kong.delete(f"{name}/{ID}").status_code == 204


def test_keys_and_what_they_may(kong: Kong) -> None:
    _, viewer = AdminKey.create_key("looker", AdminKey.Role.VIEWER)
    kong.made("consumers", {"username": "bob"})
    reader = Kong(viewer)
    assert reader.get("consumers/bob").status_code == 200
    for method, path in [("POST", "consumers"), ("PUT", "consumers/bob"), ("DELETE", "consumers/bob"), ("PATCH", "x")]:
        refused = reader.call(method, path, {"username": "x"})
        expected = {"message": "looker, you do not have permissions to change this resource"}
        assert (refused.status_code, refused.json()) == (403, expected)
    row, admin = AdminKey.create_key("writer")
    assert Kong(admin).delete("consumers/bob").status_code == 204
    assert AuditEvent._default_manager.latest("id").changes["key"] == str(row.pk)
    for key in (None, "", "guessed"):
        refused = Kong(key).get("consumers")
        assert (refused.status_code, refused.json()) == (401, {"message": "Invalid RBAC credentials"})
        assert refused["WWW-Authenticate"].startswith("Basic ")
    assert Kong(None).get(f"consumers?api_key={viewer}").status_code == 200


def test_methods_addresses_and_types(kong: Kong) -> None:
    for method, path in [("PATCH", "services"), ("POST", "services/s"), ("PUT", ""), ("DELETE", "tags")]:
        refused = kong.call(method, path)
        assert (refused.status_code, refused.json()) == (405, {"message": "Method not allowed"}), path
        assert "GET" in refused["Allow"]
    for path in ("nix", "services/none", "services/none/routes", "services/none/nix", "schemas/nix/x/y", "tags/a/b"):
        assert kong.get(path).status_code == 404, path
    assert kong.get("schemas/nix").json() == {"message": "No entity named 'nix'"}
    assert kong.get("schemas/plugins/nix").json() == {"message": "No plugin named 'nix'"}
    assert kong.raw("POST", "services", b"{", "application/json").json() == {"message": "Cannot parse JSON body"}
    assert kong.raw("POST", "services", b"[]", "application/json").status_code == 400
    assert kong.raw("POST", "services", b"x", "text/plain").status_code == 415
    assert kong.call("OPTIONS", "services")["Allow"] == "GET, POST, OPTIONS"
