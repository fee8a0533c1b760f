"""Any JSON at any address ends in an answer below 500, and nothing half-written stays."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from hmac_gateway.admin_api import apisix_schemas as schemas
from hmac_gateway.admin_api.apisix_resources import CREDENTIALS, RESOURCES
from hmac_gateway.plugins import ALL, META_SCHEMA
from hmac_gateway.runtime import Runtime
from tests.support.fuzz import examples

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
    }
)
NAME = st.sampled_from([*NAMES, "key_id", "secret_key", "host", "port", "weight", "connect", "active"]) | TEXT
ANY = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAME, inner, max_size=5))

WORDS = st.sampled_from(["/x", "/a*", "a.example", "127.0.0.1", "uri", "x-user", "10.0.0.0/8", "é", "a b", "1", "/ü"])
STORABLE = WORDS | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)

#: Keys whose values have rules that no schema says; filled below.
SPECIAL: dict[str, Any] = {}


def shaped(schema: Any) -> st.SearchStrategy[Any]:
    """Values that pass a schema, or nearly: right types and enums, hostile contents."""
    if "anyOf" in schema and "type" not in schema:
        return st.one_of([shaped(option) for option in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if "pattern" in schema:
        return st.sampled_from(["a.example", "b", "x-1"])
    if kind == "string":
        return STORABLE
    if kind == "boolean":
        return st.booleans()
    if kind in ("integer", "number"):
        low = schema.get("minimum", 1 if "exclusiveMinimum" in schema else -5)
        high = schema.get("maximum", 2**63 - 1)
        whole = st.integers(low, low + 5) | st.integers(low, high)
        return whole if kind == "integer" else whole | st.floats(1, 1e308)
    if kind == "array":
        unique = repr if schema.get("uniqueItems") else None
        least = schema.get("minItems", 0)
        return st.lists(shaped(schema.get("items", {})), max_size=3, min_size=least, unique_by=unique)
    if kind == "object" and "properties" in schema:
        parts = {
            name: SPECIAL[name] if name in SPECIAL else shaped(part) for name, part in schema["properties"].items()
        }
        return few(parts, schema.get("required", ()))
    if kind == "object":
        values = list(schema.get("patternProperties", {}).values())
        return st.dictionaries(STORABLE, shaped(values[0]) if values else ANY, max_size=3)
    return ANY


def with_meta(schema: Any) -> dict[str, Any]:
    """A plugin's schema, with what any configuration may hold besides."""
    return {**schema, "properties": {**schema["properties"], "_meta": META_SCHEMA}}


@st.composite
def few(draw: Any, parts: dict[str, Any], required: Any) -> dict[str, Any]:
    """An object with its required keys and up to four others: many at once would seldom pass."""
    names = draw(st.lists(st.sampled_from(sorted(parts)), max_size=4, unique=True))
    return {name: draw(parts[name]) for name in {**dict.fromkeys(required), **dict.fromkeys(names)}}


KEYS = st.fixed_dictionaries(
    {"key_id": STORABLE, "secret_key": STORABLE | st.just("********")}, optional={"clock_skew": ANY, "_meta": ANY}
)
NODES = st.dictionaries(
    WORDS | st.sampled_from(["h:1", "h:65536", "[::1]:80", "::1"]), st.integers(0, 5), max_size=1
) | shaped(schemas.UPSTREAM["properties"]["nodes"])
VARS = ANY | st.lists(
    st.tuples(
        st.sampled_from(["arg_x", "http_y", "uri", "nope"]) | ANY,
        st.sampled_from(["==", "~~", "in", "ipmatch", "!", "has", ">"]) | ANY,
        st.sampled_from(["1", "(", "(?=x)", "10.0.0.0/8", ["a"], 5]) | ANY,
    ).map(list),
    max_size=3,
)
SPECIAL |= {
    "id": st.just("1") | st.just(1),
    "remote_addr": st.sampled_from(["10.0.0.0/8", "::1"]) | STORABLE,
    "remote_addrs": st.just(["10.0.0.0/8", "::1"]),
    "username": st.just("c"),
    "nodes": NODES,
    "vars": VARS,
    "filter": VARS,
    "auth_plugins": st.just([{"key-auth": {}}, {"hmac-auth": {}}]) | ANY,
    "uri": st.sampled_from(["/x", "/y*"]) | STORABLE,
    "paths": st.just(["/x"]) | st.lists(STORABLE, min_size=1, max_size=3),
    "upstream_id": st.sampled_from(["up", 7]),
    "service_id": st.just("sv"),
    "plugin_config_id": st.just("pc"),
    "group_id": st.just("gr"),
}
SPECIAL["plugins"] = st.sampled_from(sorted(name for name in ALL if "apisix" in ALL[name].config_schema)).flatmap(
    lambda name: st.fixed_dictionaries({name: shaped(with_meta(ALL[name].config_schema["apisix"]))})
)
SPECIAL["upstream"] = shaped({**schemas.UPSTREAM, "required": ["nodes"]})
ADDRESSES = {
    "routes/1": schemas.ROUTE,
    "services/1": schemas.SERVICE,
    "upstreams/1": schemas.UPSTREAM,
    "consumers/c": schemas.CONSUMER,
    "consumers/c/credentials/1": schemas.CREDENTIAL,
    "plugin_configs/1": schemas.BUNDLE,
    "consumer_groups/1": schemas.BUNDLE,
    "global_rules/1": schemas.GLOBAL_RULE,
}


@st.composite
def documents(draw: Any) -> tuple[str, Any]:
    """An address and a document for it: shaped by its schema with one field spoilt at times, or any JSON at all."""
    path = draw(st.sampled_from(sorted(ADDRESSES)))
    if draw(st.integers(0, 9)) == 0:
        return path, draw(ANY)
    doc = draw(shaped(ADDRESSES[path]))
    # Alternatives of each other.
    for one, other in (
        ("uri", "uris"),
        ("uri", "paths"),
        ("uris", "paths"),
        ("host", "hosts"),
        ("upstream_id", "upstream"),
    ):
        if one in doc and other in doc:
            del doc[draw(st.sampled_from([one, other]))]
    if "remote_addr" in doc:
        doc.pop("remote_addrs", None)
    if path.startswith("routes") and not doc.keys() & {"uri", "uris", "paths"}:
        doc["uri"] = "/x*"
    if path.startswith("routes") and not doc.keys() & {"upstream", "upstream_id", "service_id"}:
        doc.setdefault("plugins", {})
    if path.startswith("consumers/") and "plugins" in doc:
        doc["plugins"] = {"hmac-auth": draw(KEYS)}
    if doc and draw(st.integers(0, 3)) == 0:
        doc[draw(st.sampled_from(sorted(doc)))] = draw(ANY)
    return path, doc


def dump(doc: Any) -> str:
    """JSON with every character escaped, so that lone surrogates can travel."""
    return json.dumps(doc)


def masked(plugins: Any) -> Any:
    """Plugins as they are shown: a mask in place of each secret, and an empty object for an empty list."""
    shown = {} if plugins == [] else json.loads(json.dumps(plugins))
    for name, field in (("sign-request", "secret_key"), ("limit-count", "redis_password")):
        if isinstance(shown, dict) and shown.get(name, {}).get(field):
            shown[name][field] = "********"
    return shown


class Hostile(TestCase):
    def setUp(self) -> None:
        from django.conf import settings as django_settings

        middleware = [name for name in django_settings.MIDDLEWARE if "whitenoise" not in name]
        self.enterContext(self.settings(MIDDLEWARE=middleware))
        self.api = Api()

    def setup_example(self) -> None:
        # Not in setUp, which runs outside the examples' transactions.
        super().setup_example()
        for path, doc in (
            ("consumers/c", {"username": "c"}),
            ("upstreams/up", {"nodes": {}}),
            ("upstreams/7", {"nodes": {}}),
            ("services/sv", {}),
            ("plugin_configs/pc", {"plugins": {}}),
            ("consumer_groups/gr", {"plugins": {}}),
        ):
            assert self.api.put(path, doc).status_code == 201

    @settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
    @given(documents(), st.sampled_from(["PUT", "PATCH", "POST"]))
    def test_documents(self, case: tuple[str, Any], method: str) -> None:
        path, doc = case
        response = self.api.call("PUT", path, dump(doc))
        assert response.status_code in (200, 201, 400), (case, response.content)
        if response.status_code < 300:
            stored = self.api.get(path)
            assert stored.status_code == 200
            assert stored.json()["value"] == response.json()["value"]
            shown = stored.json()["value"]
            for name in doc.keys() - {"id", "plugins"}:
                # An empty list stands for an empty object.
                assert shown[name] == doc[name] or (doc[name], shown[name]) == ([], {}), (name, doc[name], shown[name])
            assert not path.startswith("consumers") or list(shown.get("plugins", {})) == list(doc.get("plugins", {}))
            assert path.startswith("consumers") or shown.get("plugins") == masked(doc.get("plugins"))
            # What was accepted can be used: one row that cannot would keep all others from being served.
            runtime = Runtime()
            assert runtime.refresh(), (case, runtime.problems)
        else:
            assert response.json().keys() <= {"error_msg", "req_body"}
        other = self.api.call(method, path if method != "POST" else path.rpartition("/")[0], dump(doc))
        assert other.status_code < 500, (method, case, other.content)

    @settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
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
