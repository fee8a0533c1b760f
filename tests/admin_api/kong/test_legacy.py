"""Kong 0.x's /apis, in the shapes and words of Kong 0.5."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .support import Kong


def test_an_api_is_made_shown_changed_and_deleted(kong: Kong) -> None:
    form = "request_host=api.example&request_path=/old/&upstream_url=http://127.0.0.1:81/base&strip_request_path=true"
    made = kong.form("POST", "apis/", form)
    assert made.status_code == 201
    api = made.json()
    assert isinstance(api["created_at"], int) and api["created_at"] > 10**12
    assert {name: item for name, item in api.items() if name not in ("id", "created_at")} == {
        "name": "api.example",
        "request_host": "api.example",
        "request_path": "/old",
        "strip_request_path": True,
        "preserve_host": False,
        "upstream_url": "http://127.0.0.1:81/base",
    }
    assert kong.get("apis/api.example").json() == kong.get(f"apis/{api['id']}/").json() == api
    assert kong.get("apis").json() == {"data": [api]}
    # Today's entities under it have its id.
    route = kong.get(f"routes/{api['id']}").json()
    assert (route["hosts"], route["paths"], route["strip_path"]) == (["api.example"], ["/old"], True)
    assert kong.get(f"services/{api['id']}").json()["path"] == "/base"
    changed = kong.patch("apis/api.example", {"preserve_host": True, "upstream_url": "https://b.example"}).json()
    assert changed == {**api, "preserve_host": True, "upstream_url": "https://b.example"}
    assert kong.get(f"services/{api['id']}").json()["port"] == 443
    replaced = kong.put("apis", {"id": api["id"], "request_path": "/new", "upstream_url": "http://c.example:8080/"})
    assert replaced.status_code == 200
    assert replaced.json() == {
        "id": api["id"],
        "name": "new",
        "request_path": "/new",
        "strip_request_path": False,
        "preserve_host": False,
        "upstream_url": "http://c.example:8080/",
        "created_at": api["created_at"],
    }
    assert kong.put("apis", {"request_path": "/2", "upstream_url": "http://c.example"}).status_code == 201
    assert kong.delete("apis/new").status_code == 204
    assert kong.delete("apis/new").status_code == kong.get(f"routes/{api['id']}").status_code == 404


NEITHER = "At least a 'request_host' or a 'request_path' must be specified"


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        ({}, 400, {"upstream_url": "upstream_url is required", "request_host": NEITHER, "request_path": NEITHER}),
        ({"upstream_url": "x", "request_path": "/a"}, 400, {"upstream_url": "upstream_url is not a url"}),
        (
            {"upstream_url": "ftp://a", "request_path": "/a"},
            400,
            {"upstream_url": "Supported protocols are HTTP and HTTPS"},
        ),
        (
            {"upstream_url": "http://a", "request_path": "/a", "strip_request_path": "yes", "x": 1},
            400,
            {"strip_request_path": "strip_request_path is not a boolean", "x": "x is an unknown field"},
        ),
        (
            {"upstream_url": "http://a", "request_path": "/a", "name": "a b"},
            400,
            {"name": "name must only contain alphanumeric and '., -, _, ~' characters"},
        ),
        (
            {"upstream_url": "http://a", "request_path": "/taken"},
            409,
            {
                "name": "name already exists with value 'taken'",
                "request_path": "request_path already exists with value '/taken'",
            },
        ),
    ],
)
def test_refusals_are_maps_of_fields(kong: Kong, body: Any, status: int, answer: Any) -> None:
    kong.made("apis", {"upstream_url": "http://a", "request_path": "/taken"})
    refused = kong.post("apis", body)
    assert (refused.status_code, refused.json()) == (status, answer)


def test_lists_page_and_filter(kong: Kong) -> None:
    for number in range(3):
        kong.made("apis", {"upstream_url": "http://a", "request_path": f"/{number}"})
    page = kong.get("apis?size=2").json()
    assert [api["name"] for api in page["data"]] == ["0", "1"]
    address = re.sub(r"\Ahttp://testserver/kong/", "", page["next"])
    assert [api["name"] for api in kong.get(address).json()["data"]] == ["2"] and "next" not in kong.get(address).json()
    assert [api["name"] for api in kong.get("apis?request_path=/1").json()["data"]] == ["1"]


def test_methods_and_addresses(kong: Kong) -> None:
    assert kong.get("apis/none").json() == {"message": "Not found"}
    refused = kong.call("DELETE", "apis")
    assert (refused.status_code, refused.json()) == (405, {"message": "Method not allowed"})
    kong.made("services", {"name": "s", "host": "a"})
    assert kong.get("apis/s").status_code == 404
    assert kong.patch("apis/none", {}).status_code == 400
    assert kong.get("apis/none/plugins").status_code == 404


def test_today_s_addresses_have_today_s_shapes(kong: Kong) -> None:
    made = kong.form("PUT", "consumers", "username=bob&custom_id=c")
    assert (made.status_code, made.json()["custom_id"]) == (201, "c")
    again = kong.put("consumers", {"id": made.json()["id"], "username": "bob2"})
    assert (again.status_code, again.json()["custom_id"]) == (200, None)
    credential = kong.form("PUT", "consumers/bob2/hmac-auth", "username=u&secret=s")
    assert (credential.status_code, credential.json()["secret"]) == (201, "********")
    assert kong.post("consumers", {}).json()["code"] == 2
