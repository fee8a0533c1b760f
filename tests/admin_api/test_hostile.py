"""Any JSON at any address ends in an answer below 500, and nothing half-written stays."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from hmac_gateway.admin_api.apisix_resources import CREDENTIALS, RESOURCES

from .support import Api

TEXT = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["/x", "/a*", "a.example", "127.0.0.1:80", "GET", "1", "http", "chash", "********", "AND", "==", "\0"]
)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from([2**31, 2**63 - 1, -(2**63), 2**63, 10**400, 1e308])
    | TEXT
)
NAMES = sorted(
    {
        name
        for resource in (*RESOURCES.values(), CREDENTIALS)
        for name in (*resource.schema["properties"], *resource.unsupported, "create_time", "hmac-auth", "_meta")
        if name not in ("vars",)
    }
)
NAME = st.sampled_from([*NAMES, "key_id", "secret_key", "host", "port", "weight", "connect", "active"]) | TEXT
ANY = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAME, inner, max_size=5))

PLUGINS = st.dictionaries(
    st.sampled_from(["hmac-auth", "key-auth", "x"]),
    ANY | st.fixed_dictionaries({"key_id": TEXT | LEAF, "secret_key": TEXT | LEAF}),
    max_size=2,
)
NODES = (
    ANY
    | st.dictionaries(TEXT, st.integers(0, 2**64), max_size=3)
    | st.lists(
        st.fixed_dictionaries(
            {"host": TEXT, "weight": st.integers(0, 2**64)}, optional={"port": LEAF, "priority": LEAF, "metadata": ANY}
        ),
        max_size=3,
    )
)
UPSTREAM = ANY | st.fixed_dictionaries(
    {"nodes": NODES}, optional=dict.fromkeys(("type", "scheme", "timeout", "labels", "checks", "tls", "key"), ANY)
)


def documents() -> st.SearchStrategy[tuple[str, Any]]:
    """Documents that get past the first checks, some of them valid."""
    special: dict[str, Any] = {"plugins": PLUGINS, "upstream": UPSTREAM, "nodes": NODES, "id": st.just("1")}

    def of(path: str, required: dict[str, Any], resource: Any) -> st.SearchStrategy[tuple[str, Any]]:
        names = [name for name in resource.schema["properties"] if name not in required and name not in ("id", "vars")]
        optional = {name: special.get(name, LEAF | ANY) for name in names}
        return st.tuples(st.just(path), st.fixed_dictionaries(required, optional=optional) | ANY)

    uri = st.sampled_from(["/x", "/y*"]) | TEXT
    return st.one_of(
        of("routes/1", {"uri": uri, "plugins": PLUGINS}, RESOURCES["routes"]),
        of("services/1", {}, RESOURCES["services"]),
        of("upstreams/1", {"nodes": NODES}, RESOURCES["upstreams"]),
        of("consumers/c", {"username": st.just("c")}, RESOURCES["consumers"]),
        of("consumers/c/credentials/1", {"plugins": PLUGINS}, CREDENTIALS),
        of("plugin_configs/1", {"plugins": PLUGINS}, RESOURCES["plugin_configs"]),
        of("consumer_groups/1", {"plugins": PLUGINS}, RESOURCES["consumer_groups"]),
        of("global_rules/2", {"plugins": PLUGINS}, RESOURCES["global_rules"]),
    )


def dump(doc: Any) -> str:
    """JSON with every character escaped, so that lone surrogates can travel."""
    return json.dumps(doc)


class Hostile(TestCase):
    def setUp(self) -> None:
        from django.conf import settings as django_settings

        middleware = [name for name in django_settings.MIDDLEWARE if "whitenoise" not in name]
        self.enterContext(self.settings(MIDDLEWARE=middleware))
        self.api = Api()
        self.api.put("consumers/c", {"username": "c"})

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(documents(), st.sampled_from(["PUT", "PATCH", "POST"]))
    def test_documents(self, case: tuple[str, Any], method: str) -> None:
        path, doc = case
        response = self.api.call("PUT", path, dump(doc))
        assert response.status_code in (200, 201, 400), (case, response.content)
        if response.status_code < 300:
            stored = self.api.get(path)
            assert stored.status_code == 200
            assert stored.json()["value"] == response.json()["value"]
            sent = stored.json()["value"]
            for name in sent.keys() & doc.keys() - {"id", "plugins"}:
                assert sent[name] == doc[name], (name, doc[name], sent[name])
        else:
            assert response.json().keys() <= {"error_msg", "req_body"}
        other = self.api.call(method, path if method != "POST" else path.rpartition("/")[0], dump(doc))
        assert other.status_code < 500, (method, case, other.content)

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE"]),
        st.lists(st.sampled_from([*RESOURCES, "credentials", "c", "1"]) | st.text(max_size=8), max_size=5),
        st.dictionaries(
            st.sampled_from(
                ["page", "page_size", "name", "uri", "label", "filter", "ttl", "gateway_group_id", "force"]
            ),
            TEXT | st.integers().map(str),
            max_size=3,
        ),
    )
    def test_addresses(self, method: str, path: list[str], query: dict[str, str]) -> None:
        from urllib.parse import quote, urlencode

        address = "/".join(quote(part, errors="surrogatepass") for part in path)
        arguments = urlencode(query, errors="surrogatepass")
        response = self.api.call(method, f"{address}?{arguments}", {"username": "c"})
        assert response.status_code < 500, (method, address, arguments, response.content)
