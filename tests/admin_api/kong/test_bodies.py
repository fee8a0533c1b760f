"""Bodies: JSON, forms and multipart forms, and what is none of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .support import Kong

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=X"


def part(name: str, value: str) -> str:
    return f'--X\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'


@pytest.mark.parametrize(
    ("form", "field", "expected"),
    [
        ("paths[]=/a&paths[]=/b", "paths", ["/a", "/b"]),
        ("paths[1]=/a&paths[2]=/b", "paths", ["/a", "/b"]),
        ("paths=/a&paths=/b", "paths", ["/a", "/b"]),
        ("paths=/a", "paths", ["/a"]),
        ("hosts=a.example&paths=", "paths", None),
        ("paths=/&strip_path=false", "strip_path", False),
        ("paths=/&regex_priority=7", "regex_priority", 7),
        ("paths=/&tags=a&tags=b", "tags", ["a", "b"]),
        ("headers.x-version[]=1&headers.x-version[]=2", "headers", {"x-version": ["1", "2"]}),
        ("paths=/%C3%A9", "paths", ["/é"]),
    ],
)
def test_forms_mean_what_the_fields_hold(kong: Kong, form: str, field: str, expected: Any) -> None:
    made = kong.form("POST", "routes", form)
    assert made.status_code == 201, made.content
    assert made.json()[field] == expected
    from urllib.parse import parse_qsl

    parts = "".join(part(name, value) for name, value in parse_qsl(form, keep_blank_values=True)) + "--X--\r\n"
    same = kong.raw("POST", "routes", parts.encode(), MULTIPART)
    assert same.status_code == 201, same.content
    assert same.json()[field] == expected


def test_records_nest_by_dots(kong: Kong) -> None:
    form = "name=u&healthchecks.active.healthy.interval=5&healthchecks.active.unhealthy.http_statuses[]=500"
    checks = kong.form("POST", "upstreams", form).json()["healthchecks"]["active"]
    assert (checks["healthy"]["interval"], checks["unhealthy"]["http_statuses"]) == (5, [500])
    assert checks["unhealthy"]["tcp_failures"] == 0
    kong.made("services", {"name": "s", "host": "a"})
    assert kong.form("POST", "routes", "paths=/&service.name=s").status_code == 201


def test_forms_and_bodies_without_anything(kong: Kong) -> None:
    for parts in (b"--X--\r\n", b"\r\n--X--", b""):
        made = kong.raw("PUT", "consumers/bob", parts, MULTIPART)
        assert (made.status_code, made.json()["username"]) == (200, "bob")
    for method, path in (("POST", "consumers"), ("PUT", "consumers/bob"), ("PATCH", "consumers/bob")):
        # The test client leaves the type out where nothing is sent.
        announced = kong.raw(method, path, CONTENT_TYPE="application/json")
        assert (announced.status_code, announced.content) == (400, b'{"message":"Cannot parse JSON body"}')
    assert kong.call("PUT", "consumers/bob").status_code == 200


def test_what_does_not_fit_is_refused_as_it_was_sent(kong: Kong) -> None:
    refused = kong.form("POST", "services", "host=a&port=many&enabled=yes&x.y=1").json()
    assert refused["fields"] == {"port": "expected an integer", "enabled": "expected a boolean", "x": "unknown field"}


DEEP = "[" * 200_000
HOSTILE: list[tuple[bytes, str, int]] = [
    (b"{", "application/json", 400),
    (b'"x"', "application/json", 400),
    (b"[]", "application/json", 400),
    (b"nul", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b'{"host": "a", "host": "b"}', "application/json", 400),
    (b'{"host": "a\\u0000b"}', "application/json", 400),
    (b'{"host": "\\ud800"}', "application/json", 400),
    (b'{"host": NaN}', "application/json", 400),
    (b'{"host": "a", "retries": 1e400}', "application/json", 400),
    (b'{"host": "a", "retries": ' + b"9" * 5000 + b"}", "application/json", 400),
    (b'{"x": ' + DEEP.encode(), "application/json", 400),
    (b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}", "application/json", 400),
    (b'{"host": "' + b"a" * 1_000_000 + b'"}', "application/json", 400),
    (b'{"host": "' + b"a" * 2_000_000 + b'"}', "application/json", 413),
    (b"host=%00", FORM, 400),
    (b"host=%ff", FORM, 400),
    (b"host=\xff", FORM, 400),
    (b"=&&&=;%", FORM, 400),
    (b"a.b=1&a=2&a.b.c[]=3", FORM, 400),
    (b".".join([b"a"] * 5000) + b"=1", FORM, 400),
    (b"&".join(b"a%d=1" % n for n in range(5000)), FORM, 400),
    (b"--X\r\nnonsense", MULTIPART, 400),
    (b"no boundary at all", "multipart/form-data", 400),
    (b"x", "multipart/form-data; boundary=" + "x" * 300, 400),
    (("--X\r\n" + part("host", "\0")[5:] + "--X--").encode(), MULTIPART, 400),
    (b"host: a", "application/yaml", 415),
    (b"host=a", "", 415),
]


@pytest.mark.parametrize(("body", "kind", "status"), HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("method", ["POST services", "PUT services/s", "PATCH services/there", "POST apis"])
def test_hostile_bodies_are_refused(kong: Kong, method: str, body: bytes, kind: str, status: int) -> None:
    kong.made("services", {"name": "there", "host": "a"})
    verb, path = method.split()
    answer = kong.raw(verb, path, body, kind)
    assert answer.status_code == status, answer.content
    assert len(answer.content) < 3_000_000 and isinstance(json.loads(answer.content), dict)
    assert [entity["name"] for entity in kong.get("services").json()["data"]] == ["there"]
