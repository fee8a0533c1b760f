"""Files that are broken, huge, or meant to harm: refused in words that name the place and quote no secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hmac_gateway.portability import text

from .support import load, refused, take

pytestmark = pytest.mark.django_db
NODES = {"127.0.0.1:80": 1}


def why(written: str | bytes) -> str:
    raw = written.encode() if isinstance(written, str) else written
    with pytest.raises(text.FileError) as caught:
        text.load(raw)
    return str(caught.value)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("routes: []\n", "does not end with a line #END"),
        ("routes: []\n#END\nservices: []\n", "does not end with a line #END"),
        ("", "does not end with a line #END"),
        (b"\xff\xfe#END", "is not UTF-8 (byte 1)"),
        (BOMB + "#END", "more than 3,000,000 values"),
        (MERGES + "#END", "more than 3,000,000 values"),
        ("a: &a [*a]\n#END", "an alias without an anchor before it"),
        ("a: " + "[" * 500 + "]" * 500 + "\n#END", "nested deeper than 40 levels"),
        ("a: " + "{a: " * 900 + "1" + "}" * 900 + "\n#END", "nested deeper than 40 levels"),
        ('{"a":' * 100_000, "nested deeper"),
        ("a: !!python/object/apply:os.system [ls]\n#END", "a tag that is not plain YAML's"),
        ("a: !!binary aGVsbG8=\n#END", "a tag that is not plain YAML's"),
        ("a: !!set {x}\n#END", "a tag that is not plain YAML's"),
        ("a: 1\n---\na: 2\n#END", "line 2: a second document starts here"),
        ("routes: 1\nroutes: 2\n#END", "line 2: a key that the same map has already"),
        ("labels: {1: x}\n#END", "line 1: a key must be a text"),
        ("? [a]\n: 1\n#END", "a key must be a text"),
        ("a: " + "9" * 5000 + "\n#END", "a value that is not what its tag says, or too large"),
        ("a: [1\n#END", "line 3, column 1: did not find expected …"),
        ("a: \0\n#END", "a character that YAML does not allow"),
        ('{"a": 1, "a": 2}', "the same key twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1', "line 1, column 8"),
        ('{"a": ' + "9" * 5000 + "}", "a number is too large"),
    ],
)
def test_files_that_are_not_read(written: str | bytes, words: str) -> None:
    assert words in why(written)


def test_a_file_may_be_only_so_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_BYTES", 1024 * 1024)
    assert why(b" " * (1024 * 1024 + 1)) == "the file has more than 1 MiB"


@pytest.mark.parametrize(
    "broken", ["key: 'my-secret\n#END", "key: *my-secret\n#END", "key: my-secret: x\n#END", "@my-secret\n#END"]
)
def test_syntax_errors_quote_nothing(broken: str) -> None:
    assert "my-secret" not in why(broken)


def test_values_are_jsons() -> None:
    found = text.load(b"a: 2024-01-01\nb: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\nd: [yes, ~, 0x10, 1.5, '1']\n#END\n")
    assert found == {"a": "2024-01-01", "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "d": [True, None, 16, 1.5, "1"]}
    assert text.load(b"#END") is None
    assert text.load(b'\xef\xbb\xbf{"a": [1.0, "\\u00fc"]}') == {"a": [1.0, "ü"]}


ROUTE = {"id": "r", "uri": "/x", "plugins": {}}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "the file: a map of lists (routes, services, …) is expected at its top"),
        ({"route": []}, "route: not a list of apisix.yaml; did you mean routes?"),
        ({"routes": {"r": ROUTE}}, "routes: wrong type: expected array, got table"),
        ({"routes": ["x"]}, "routes 1: wrong type: expected object, got string"),
        ({"routes": [ROUTE, {**ROUTE}]}, "routes 2 (id r): the same id as routes 1 (id r)"),
        ({"routes": [{**ROUTE, "id": 5}, {**ROUTE, "id": "5"}]}, "routes 2 (id 5): the same id as routes 1 (id 5)"),
        (
            {"routes": [{**ROUTE, "id": "a b"}]},
            'routes 1 (id a b): invalid configuration: property "id" validation failed: '
            "object matches none of the required",
        ),
        (
            {"routes": [{**ROUTE, "uri": 5}]},
            'routes 1 (id r): invalid configuration: property "uri" validation failed: '
            "wrong type: expected string, got number",
        ),
        (
            {"routes": [{**ROUTE, "x": 1}]},
            "routes 1 (id r): invalid configuration: additional properties forbidden, found x",
        ),
        ({"routes": [{**ROUTE, "desc": "\0"}]}, "routes 1 (id r): NUL characters cannot be stored"),
        ({"routes": [{**ROUTE, "priority": float("inf")}]}, "routes 1 (id r): a number is too large"),
        (
            {"routes": [{**ROUTE, "filter_func": "x"}]},
            "routes 1 (id r): `filter_func` is not supported: this gateway runs no Lua",
        ),
        ({"routes": [{**ROUTE, "plugins": {"no-such": {}}}]}, "routes 1 (id r): unknown plugin [no-such]"),
        (
            {"routes": [{**ROUTE, "service_id": "s"}]},
            "routes 1 (id r): failed to fetch service info by service id [s], response code: 404",
        ),
        (
            {"routes": [{**ROUTE, "uri": "x"}]},
            "routes 1 (id r): invalid configuration: `paths`: got 'x', allowed is a path that starts with /.",
        ),
        ({"consumers": [{"username": "a", "id": "b"}]}, "consumers 1: a consumer has no id but its username"),
        (
            {"consumers": [{"id": "a/credentials/b"}]},
            'consumers 1 (id a/b): invalid configuration: property "plugins" is required',
        ),
        (
            {"consumers": [{"id": "a/credentials/b", "plugins": {"key-auth": {"key": "k"}}}]},
            "consumers 1 (id a/b): consumer not found",
        ),
        ({"credentials": [{"id": "x", "plugins": {}}]}, "credentials 1: the credential names no consumer"),
        ({"credentials": [{"consumer": "x", "plugins": {}}]}, "credentials 1: missing credential id"),
        (
            {"hmac_gateway": {"version": 2}},
            "hmac_gateway: `version: 1` is expected; this file was written by another version",
        ),
    ],
)
def test_documents_that_are_refused(document: Any, problem: str) -> None:
    assert refused(document) == [problem]


def test_everything_wrong_is_said_at_once() -> None:
    found = refused({"routes": [{"id": 1}, {"id": 2}], "services": [{"hosts": "x"}]})
    assert [line.partition(":")[0] for line in found] == ["routes 1 (id 1)", "routes 2 (id 2)", "services 1 (id arr_1)"]


def test_nothing_of_a_file_is_kept_where_one_thing_is_wrong() -> None:
    good = {"upstreams": [{"id": "u", "nodes": NODES}], "routes": [{**ROUTE, "upstream_id": "u"}]}
    refused({**good, "consumers": [{"username": "x", "group_id": "none"}]})


def test_two_keys_alike_in_one_file() -> None:
    key = {"hmac-auth": {"key_id": "same", "secret_key": "s-e-c-r-e-t"}}
    file = {"consumers": [{"username": "a", "plugins": key}, {"username": "b", "plugins": key}]}
    assert refused(file) == ["consumers 2 (username b): duplicate key_id of plugin hmac-auth found with consumer: a"]
    file["consumers"][1] = {"username": "b"}
    file["consumers"].append({"id": "a/credentials/c", "plugins": key})
    file["consumers"].append({"id": "b/credentials/c", "plugins": key})
    [problem] = refused(file)
    assert problem.startswith("consumers 4 (id b/c): duplicate key_id of plugin hmac-auth found with ")
    rules = [{"id": key, "plugins": {"hmac-auth": {}}} for key in (1, 2)]
    [problem] = refused({"global_rules": rules})
    assert problem == "global_rules 2 (id 2): plugin 'hmac-auth' already exists in global rule with id '1'"


def test_a_mask_for_nothing() -> None:
    file = {"consumers": [{"username": "a", "plugins": {"key-auth": {"key": "********"}}}]}
    [problem] = refused(file)
    assert problem.startswith("consumers 1 (username a): ") and problem.endswith(
        "******** stands for a secret that is stored already, and there is none"
    )


def test_places_for_the_environment() -> None:
    file = {"routes": [{**ROUTE, "desc": "${{WHO}}", "priority": "${{NUMBER:=7}}", "enable_websocket": "${{ON}}"}]}
    assert refused(file) == ["routes 1: it uses ${{WHO}}; --env fills such places from the environment"]
    assert refused(file, environ={}) == ["routes 1: the environment variable WHO is not set"]
    take(file, environ={"WHO": "me", "ON": "true"})
    wanted = {"routes": [{**ROUTE, "desc": "me", "priority": 7, "enable_websocket": True}]}
    assert take(wanted).changes == []


def test_json_needs_no_end() -> None:
    assert len(load(json.dumps({"routes": [ROUTE]}), end=False).changes) == 1
    assert load("routes: [{id: r, uri: /x, plugins: {}}]").changes == []
