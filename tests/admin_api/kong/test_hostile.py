"""Whatever is sent to Kong's admin API ends in an answer below 500, and what was accepted can be read and compiled."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from hmac_gateway.admin_api.kong_entities import ENTITIES
from hmac_gateway.admin_api.kong_plugins import available, config_spec
from hmac_gateway.admin_api.kong_spec import Spec
from hmac_gateway.runtime import Runtime
from tests.support.fuzz import examples

from .support import Kong

ID = "5f9d1c9e-1111-4222-8333-444455556666"
TEXT = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["/x", "~/a.*", "a.example", "*.a", "127.0.0.1:80", "GET", "********", "$env://A", "\0", "~/(", "~*(?=x)", ID, ""]
)
STORABLE = st.sampled_from(["/x", "a.example", "~/a$", "x-user", "127.0.0.1", "é", "a b", "1", "u.local", "~*1"]) | (
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 10**400, 1e308])
    | TEXT
)
NAMES = sorted({name for entity in ENTITIES.values() for name in entity.fields} | {"url", "@entity", "@errors", "x.y"})
ANY = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | TEXT, inner, max_size=5),
)
PARENTS = {"services": "sv", "routes": "rt", "consumers": "co", "upstreams": "u.local"}


def shaped(spec: Spec) -> st.SearchStrategy[Any]:
    """Values that a field takes, or nearly: right kinds, hostile contents."""
    if spec.one_of:
        return st.sampled_from(spec.one_of)
    match spec.kind:
        case "string":
            return STORABLE
        case "boolean":
            return st.booleans()
        case "integer" | "number":
            low, high = spec.between or (-5, 2**31)
            return st.integers(int(low), int(low) + 5) | st.integers(int(low), int(high))
        case "array" | "set":
            return st.lists(shaped(spec.elements or Spec(kind="any")), max_size=3)
        case "map":
            return st.dictionaries(STORABLE, shaped(spec.elements or Spec(kind="any")), max_size=2)
        case "record":
            return few(spec.fields)
        case "foreign":
            name = {"services": "name", "routes": "name", "consumers": "username", "upstreams": "name"}
            here = {name.get(spec.reference, "id"): PARENTS.get(spec.reference, ID)}
            return st.just(here) | st.just({"id": ID}) | ANY
    return ANY


@st.composite
def few(draw: Any, fields: Any) -> dict[str, Any]:
    """An object with its required keys and up to four others."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)) if fields else []
    required = [name for name, spec in fields.items() if spec.required and not spec.auto and spec.default is None]
    return {name: draw(shaped(fields[name])) for name in dict.fromkeys([*required, *names])}


@st.composite
def documents(draw: Any) -> tuple[str, dict[str, Any]]:
    """An entity's name and a document for it, with one field spoilt at times, or any object at all."""
    entity = ENTITIES[draw(st.sampled_from(sorted(ENTITIES)))]
    if draw(st.integers(0, 9)) == 0:
        return entity.name, draw(st.dictionaries(st.sampled_from(NAMES) | TEXT, ANY, max_size=5))
    doc = draw(few(entity.fields))
    doc.pop("id", None)
    if entity.name == "plugins" and available():
        doc["name"] = draw(st.sampled_from(sorted(available())))
        doc["config"] = draw(few(config_spec(doc["name"]).fields))
    if entity.name == "routes":
        doc.setdefault("paths", ["/x"])
    if doc and draw(st.integers(0, 3)) == 0:
        doc[draw(st.sampled_from(sorted(doc)))] = draw(ANY)
    return entity.name, doc


class Hostile(TestCase):
    def setUp(self) -> None:
        from django.conf import settings as django_settings

        middleware = [name for name in django_settings.MIDDLEWARE if "whitenoise" not in name]
        self.enterContext(self.settings(MIDDLEWARE=middleware))
        self.kong = Kong()

    def setup_example(self) -> None:
        # Not in setUp, which runs outside the examples' transactions.
        super().setup_example()
        self.kong.made("services", {"name": "sv", "host": "a.example"})
        self.kong.made("routes", {"name": "rt", "paths": ["/"]})
        self.kong.made("consumers", {"username": "co"})
        self.kong.made("upstreams", {"name": "u.local"})

    @settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
    @given(documents(), st.sampled_from(["PUT", "PATCH"]))
    def test_documents(self, case: tuple[str, dict[str, Any]], method: str) -> None:
        name, doc = case
        entity = ENTITIES[name]
        path = entity.path or "upstreams/u.local/targets"
        response = self.kong.post(path, doc)
        assert response.status_code in (201, 400, 409), (case, response.content)
        if response.status_code == 201:
            made = response.json()
            address = f"{path}/{made['id']}"
            shown = self.kong.get(address)
            assert shown.status_code == 200
            for field in doc.keys() & made.keys() - set(entity.secrets) - {
                "config",
                "updated_at",
                "healthchecks",
                "ttl",
            }:
                if field == "created_at" and doc[field] is not None and doc[field] > 253402300799:
                    # Milliseconds are shown as seconds.
                    assert int(made[field]) == doc[field] // 1000
                elif entity.fields[field].kind not in ("foreign", "set") and doc[field] not in (
                    None,
                    [],
                    {},
                    {"id": ID},
                ):
                    assert made[field] == doc[field] or field in ("target", "algorithm"), (field, doc[field], made)
            # What was read can be written back, and means the same.
            again = self.kong.put(address, shown.json())
            assert again.status_code == 200, (shown.json(), again.content)
            assert {**again.json(), "updated_at": 0, "ttl": 0} == {**shown.json(), "updated_at": 0, "ttl": 0}
            runtime = Runtime()
            assert runtime.refresh(), (case, runtime.problems)
        elif name in PARENTS:
            other = self.kong.call(method, f"{path}/{PARENTS[name]}", doc)
            assert other.status_code < 500, (method, case, other.content)

    @settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]),
        st.lists(
            st.sampled_from(
                ["services", "consumers", "plugins", "upstreams", "targets", "health", "sv", "co", ID, "apis", "tags"]
                + ["schemas", "validate", "hmac-auth", "key-auths", "acls", "u.local", "unhealthy", "enabled"]
            )
            | st.text(st.characters(codec=None), max_size=8),
            max_size=5,
        ),
        st.dictionaries(
            st.sampled_from(["size", "offset", "tags", "custom_id", "name", "x"]), TEXT | st.integers().map(str)
        ),
        st.dictionaries(st.sampled_from([*NAMES, "config.a.b[]", "a[1]", "a..b", "tags[9]", ".x"]) | TEXT, TEXT),
    )
    def test_addresses_and_forms(
        self, method: str, path: list[str], query: dict[str, str], form: dict[str, str]
    ) -> None:
        address = "/".join(quote(part, errors="surrogatepass") for part in path)
        arguments = urlencode(query, errors="surrogatepass")
        response = self.kong.form(method, f"{address}?{arguments}", urlencode(form, errors="surrogatepass"))
        assert response.status_code < 500, (method, address, arguments, form, response.content)
        if response.content and method != "OPTIONS":
            assert isinstance(json.loads(response.content), dict)
