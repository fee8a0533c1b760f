"""Upstreams, nodes, services, routes, plugins: what is refused, and in which words; what holds in the database."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, models, transaction
from django.test import override_settings

from consumers.models import Consumer, ConsumerGroup
from hmac_gateway import validators
from hmac_gateway.models import ConfigVersion, Tombstone
from proxy.models import Node, Plugin, PluginConfig, Route, Service, Upstream

pytestmark = pytest.mark.django_db


def saved(row: Any) -> Any:
    row.full_clean()
    row.save()
    return row


def errors(row: models.Model) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return caught.value.message_dict


def route(**fields: Any) -> Route:
    return Route(**{"id": "r", "paths": ["/a"], **fields})


def refused_by_the_database(row: models.Model) -> None:
    # MariaDB calls a number out of range bad data.
    with pytest.raises((IntegrityError, DataError)), transaction.atomic():
        row.save()


@pytest.mark.parametrize("key", ["a", "A.b_c-9", "x" * 64, "00000000000000000123"])
def test_keys(key: str) -> None:
    for model in (Upstream, Service, PluginConfig):
        assert saved(model(id=key)).pk == key


@pytest.mark.parametrize("key", ["", "a b", "a/b", "x" * 65, "ü", "service:a", "a\n"])
def test_wrong_keys(key: str) -> None:
    for model in (Upstream, Service, PluginConfig):
        assert list(errors(model(id=key))) == ["id"]


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"type": "random"}, "type", "not a valid choice"),
        ({"scheme": "ftp"}, "scheme", "not a valid choice"),
        ({"pass_host": "rewrite"}, "upstream_host", "`upstream_host` can't be empty when `pass_host` is `rewrite`"),
        ({"upstream_host": "http://x"}, "upstream_host", "a host name"),
        ({"type": "chash"}, "key", "`key` is required when `type` is `chash`"),
        ({"hash_on": "ip"}, "hash_on", "one of vars, header"),
        ({"hash_on": "vars", "dialect": "kong"}, "hash_on", "one of none, consumer"),
        ({"timeout_read": 0.0}, "timeout_read", "greater than 0"),
        ({"timeout_send": -1.0}, "timeout_send", "greater than 0"),
        ({"timeout_connect": float("inf")}, "timeout_connect", "cannot be stored"),
        ({"timeout_connect": "soon"}, "timeout_connect", "float"),
        ({"retry_timeout": -1.0}, "retry_timeout", "0 or more"),
        ({"retries": -1}, "retries", "greater than or equal to 0"),
        ({"keepalive": {"size": 0}}, "keepalive", "at least 1"),
        ({"keepalive": {"pool": 1}}, "keepalive", "size, idle_timeout, requests"),
        ({"keepalive": [1]}, "keepalive", "a JSON object"),
        ({"keepalive": []}, "keepalive", "a JSON object"),
        ({"checks": None}, "checks", "a JSON object"),
        ({"checks": {"active": 1}}, "checks", "a JSON object"),
        ({"type": "chash", "key": "no_such"}, "key", "what matches ^((uri|"),
        ({"type": "chash", "key": "uri\n"}, "key", "what matches ^((uri|"),
        ({"type": "chash", "hash_on": "header", "key": "a b"}, "key", "what matches ^[a-zA-Z0-9-_]+$"),
        ({"type": "chash", "hash_on": "cookie", "key": "a=b"}, "key", "what matches ^[a-zA-Z0-9-_]+$"),
        ({"tls": {"client_key": "-----BEGIN"}}, "tls", "`tls.client_key` is not supported: a private key does not"),
        ({"tls": {"client_cert_id": "1"}}, "tls", "paths of PEM files"),
        ({"tls": {"verfy": False}}, "tls", "`tls.verfy` is not supported: verify, ca_file,"),
        ({"tls": {"verify": 0}}, "tls", "`tls.verify`: allowed is true or false."),
        ({"tls": {"ca_file": "ca.pem"}}, "tls", "`tls.ca_file`: allowed is the absolute path"),
        ({"tls": {"ca_file": 1}}, "tls", "`tls.ca_file`: allowed is the absolute path"),
        ({"tls": {"client_cert_file": "/c.pem"}}, "tls", "belong together"),
        ({"tls": {"client_key_file": "/k.pem"}}, "tls", "belong together"),
    ],
)
def test_upstream_fields(fields: dict[str, Any], field: str, text: str) -> None:
    found = errors(Upstream(id="u", **fields))
    assert list(found) == [field]
    assert text in found[field][0]


def test_a_good_upstream() -> None:
    saved(
        Upstream(
            id="u",
            type="chash",
            hash_on="header",
            key="http_x_user",
            pass_host="rewrite",
            upstream_host="api.example.com:8443",
            scheme="https",
            timeout_connect=0.5,
            retries=0,
            retry_timeout=0.0,
            keepalive={"size": 320, "idle_timeout": 60, "requests": 1000},
            checks={"active": {"type": "http"}},
        )
    )
    saved(Upstream(id="k", dialect="kong", name="orders.v1", type="chash", hash_on="ip"))


@pytest.mark.parametrize("fields", [{"type": "random"}, {"scheme": "ftp"}, {"pass_host": "rewrite"}])
def test_upstream_rules_hold_in_the_database(fields: dict[str, str]) -> None:
    refused_by_the_database(Upstream(id="u", **fields))


@pytest.mark.parametrize("host", ["localhost", "10.0.0.1", "::1", "api.example.com", "my_service", "example.com."])
def test_node_hosts(host: str) -> None:
    saved(Node(upstream=saved(Upstream(id="u")), host=host, port=65535, weight=0))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"host": ""}, "host"),
        ({"host": "http://x"}, "host"),
        ({"host": "x:80"}, "host"),
        ({"host": "*.x"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "http"}, "port"),
        ({"weight": -1}, "weight"),
        ({"metadata": []}, "metadata"),
        ({"metadata": [1]}, "metadata"),
    ],
)
def test_node_fields(fields: dict[str, Any], field: str) -> None:
    row = Node(upstream=saved(Upstream(id="u")), **{"host": "h", **fields})
    assert set(errors(row)) == {field}


@pytest.mark.parametrize("fields", [{"port": 0}, {"port": 65536}, {"weight": -1}, {"host": ""}])
def test_node_rules_hold_in_the_database(fields: dict[str, Any]) -> None:
    upstream = saved(Upstream(id="u"))
    refused_by_the_database(Node(upstream=upstream, **{"host": "h", **fields}))


def test_a_node_once_per_upstream() -> None:
    upstream = saved(Upstream(id="u"))
    saved(Node(upstream=upstream, host="h", port=80))
    saved(Node(upstream=upstream, host="h", port=81))
    assert "has this node already" in str(errors(Node(upstream=upstream, host="h", port=80)))
    refused_by_the_database(Node(upstream=upstream, host="h", port=80))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"host": "http://x"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 99999}, "port"),
        ({"path": "x"}, "path"),
        ({"path": "/a//b"}, "path"),
        ({"path_prefix": "api"}, "path_prefix"),
        ({"retries": 40000}, "retries"),
        ({"hosts": ["a b"]}, "hosts"),
        ({"protocol": "udp"}, "protocol"),
    ],
)
def test_service_fields(fields: dict[str, Any], field: str) -> None:
    assert list(errors(Service(id="s", **fields))) == [field]


def test_a_service_goes_to_one_thing() -> None:
    upstream = saved(Upstream(id="u"))
    assert list(errors(Service(id="s", upstream=upstream, host="x"))) == ["host"]


@pytest.mark.parametrize("path", ["/", "/a", "/a*", "/*", "/a/:id", "/ä", "/a%20b", "/a/.hidden", "/a/b/"])
def test_paths(path: str) -> None:
    saved(route(paths=[path]))


@pytest.mark.parametrize(
    "path",
    ["", "a", "*", "~/a", "/a*b", "/a b", "/a?b", "/a#b", "/a\\b", "/a\n", "/a/../b", "/./a", "//a", "/" + "x" * 4096],
)
def test_wrong_paths(path: str) -> None:
    found = errors(route(paths=[path]))
    assert list(found) == ["paths"]
    assert "`paths`: got" in found["paths"][0] and "allowed is" in found["paths"][0]


@pytest.mark.parametrize(("path", "good"), [("~/a/\\d+$", True), ("/a", True), ("~/(", False), ("~a", False)])
def test_kong_paths(path: str, good: bool) -> None:
    row = route(dialect="kong", paths=[path])
    if good:
        row.full_clean()
    else:
        assert list(errors(row)) == ["paths"]


@pytest.mark.parametrize(
    ("dialect", "host", "good"),
    [
        ("apisix", "example.com", True),
        ("apisix", "*.example.com", True),
        ("apisix", "[::1]", True),
        ("apisix", "example.*", False),
        ("apisix", "example.com:80", False),
        ("apisix", "*", True),
        ("apisix", "*.*.com", False),
        ("apisix", "-x.com", False),
        ("kong", "example.*", True),
        ("kong", "example.com:8000", True),
        ("kong", "*.example.*", False),
        ("kong", "example.com:0", False),
        ("kong", "exa mple.com", False),
    ],
)
def test_hosts(dialect: str, host: str, good: bool) -> None:
    row = route(dialect=dialect, hosts=[host])
    if good:
        row.full_clean()
    else:
        assert list(errors(row)) == ["hosts"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"paths": []}, "paths"),
        ({"paths": "/a"}, "paths"),
        ({"paths": ["/a", "/a"]}, "paths"),
        ({"paths": [1]}, "paths"),
        ({"methods": ["get"]}, "methods"),
        ({"methods": {"GET": 1}}, "methods"),
        ({"headers": {"host": ["x"]}}, "headers"),
        ({"headers": {"x y": ["x"]}}, "headers"),
        ({"headers": {"x": "y"}}, "headers"),
        ({"headers": {"x": ["~*("]}}, "headers"),
        ({"headers": ["x"]}, "headers"),
        ({"vars": {"a": 1}}, "vars"),
        ({"vars": ["a"]}, "vars"),
        ({"vars": [["arg_a", "=", 1]]}, "vars"),
        ({"vars": [["arg_a", "=="]]}, "vars"),
        ({"vars": [["arg_a", "~~", "("]]}, "vars"),
        ({"vars": [["arg_a", "~~", "(?=x)"]]}, "vars"),
        ({"vars": [["arg_a", "~~", 1]]}, "vars"),
        ({"vars": [["arg_a", "~~", "x" * 2000]]}, "vars"),
        ({"vars": [["no_such_variable", "==", "1"]]}, "vars"),
        ({"vars": ["OR", ["arg_a", "==", "1"], ["b"]]}, "vars"),
        ({"remote_addrs": ["10.0.0.0/33"]}, "remote_addrs"),
        ({"remote_addrs": ["host"]}, "remote_addrs"),
        ({"protocols": ["smtp"]}, "protocols"),
        ({"path_handling": "v2"}, "path_handling"),
        ({"timeout_read": 0.0}, "timeout_read"),
        ({"priority": "high"}, "priority"),
    ],
)
def test_route_fields(fields: dict[str, Any], field: str) -> None:
    assert list(errors(route(**fields))) == [field]


@pytest.mark.parametrize(
    "conditions",
    [
        [["arg_a", "==", "1"], ["http_b", "!", "in", ["x", "y"]]],
        ["OR", ["arg_a", "==", "1"], ["AND", ["arg_b", ">", 1], ["http_c", "has", "x"]]],
        [["OR", ["uri", "~~", "^x+$"], ["remote_addr", "ipmatch", ["10.0.0.0/8"]]]],
        [],
    ],
)
def test_good_conditions(conditions: list[Any]) -> None:
    saved(route(vars=conditions, remote_addrs=["10.0.0.1", "::1/64"], headers={"x": ["a", "~*^b"]}))


def test_a_route_needs_something_to_match() -> None:
    assert "must set one of" in str(errors(Route(id="r", dialect="kong")))
    for fields in ({"hosts": ["x"]}, {"methods": ["GET"]}, {"headers": {"x": ["y"]}}, {"extra": {"snis": ["x"]}}):
        Route(id="r", dialect="kong", **fields).full_clean()


def test_this_site_excludes_other_targets() -> None:
    upstream = saved(Upstream(id="u"))
    for fields in ({"upstream": upstream}, {"service": saved(Service(id="s"))}):
        assert list(errors(route(this_site=True, **fields))) == ["this_site"]
        refused_by_the_database(route(this_site=True, **fields))
    saved(route(this_site=True))
    bundle = saved(PluginConfig(id="g", is_global=True))
    assert list(errors(route(id="r2", plugin_config=bundle))) == ["plugin_config"]


def test_names_are_unique_in_kongs_dialect_only() -> None:
    for model in (Service, Upstream):
        saved(model(id="a", name="same"))
        saved(model(id="b", name="same"))
        saved(model(id="c", name="same", dialect="kong"))
        assert list(errors(model(id="d", name="same", dialect="kong"))) == ["name"]
        refused_by_the_database(model(id="d", name="same", dialect="kong"))
        saved(model(id="e", dialect="kong"))
        saved(model(id="f", dialect="kong"))


def test_what_is_used_stays() -> None:
    upstream = saved(Upstream(id="u"))
    service = saved(Service(id="s", upstream=upstream))
    bundle = saved(PluginConfig(id="b"))
    used = saved(route(service=service, plugin_config=bundle))
    for row in (upstream, service, bundle):
        with pytest.raises(models.ProtectedError):
            row.delete()
        with pytest.raises(models.ProtectedError):
            type(row).objects.filter(pk=row.pk).delete()
    used.delete()
    service.delete()
    upstream.delete()


def with_inline(owner: Any) -> Upstream:
    upstream = saved(Upstream(id=owner.inline_id, inline=True))
    saved(Node(upstream=upstream, host="h"))
    owner.upstream = upstream
    saved(owner)
    return upstream


@pytest.mark.parametrize("make", [lambda: Service(id="x" * 64), lambda: route(id="x" * 64)], ids=["service", "route"])
def test_an_inline_upstream_goes_with_its_owner(make: Any) -> None:
    owner = saved(make())
    with_inline(owner)
    other = saved(Upstream(id="other"))
    owner.upstream = other
    saved(owner)
    assert list(Upstream.objects.all()) == [other], "replaced by another upstream"
    with_inline(owner)
    type(owner).objects.filter(pk=owner.pk).delete()
    assert list(Upstream.objects.all()) == [other], "deleted with its owner"
    assert not Node.objects.exists()
    assert Tombstone.objects.filter(label="hmac_proxy.upstream").count() == 2


def plugin(**fields: Any) -> Plugin:
    return Plugin(**{"name": "hmac-auth", **fields})


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    # Places are the same for every plugin; which dialects one speaks is its own affair.
    monkeypatch.setattr("hmac_gateway.plugins.validate_config", lambda name, config, dialect: None)
    service, at = saved(Service(id="s")), saved(route())
    jack, group = saved(Consumer(username="jack")), saved(ConsumerGroup(id="g"))
    bundle = saved(PluginConfig(id="b"))
    rows = {
        "route:r": plugin(route=at),
        "service:s": plugin(service=service),
        "group:g": plugin(group=group),
        "bundle:b": plugin(bundle=bundle),
        "global": plugin(dialect="kong"),
        "route:r service:s": plugin(dialect="kong", route=at, service=service),
    }
    for place, row in rows.items():
        assert saved(row).place == place
        twin = plugin(**{name: getattr(row, name) for name in ("route", "service", "group", "bundle", "dialect")})
        assert "attached there already" in str(errors(twin)["name"])
        refused_by_the_database(twin)
    on_consumer = plugin(consumer=jack)
    assert "credential" in errors(on_consumer)["name"][0]
    jack.delete()
    service.delete()
    assert set(Plugin.objects.values_list("place", flat=True)) == {"route:r", "group:g", "bundle:b", "global"}


def test_places_of_the_apisix_dialect() -> None:
    service, at = saved(Service(id="s")), saved(route())
    assert "one object only" in str(errors(plugin(route=at, service=service)))
    assert "global rule" in str(errors(plugin()))


def test_a_plugin_is_in_one_global_rule_only() -> None:
    for key in ("g1", "g2"):
        saved(PluginConfig(id=key, is_global=True))
    saved(plugin(bundle_id="g1"))
    assert "g1" in errors(plugin(bundle_id="g2"))["name"][0]


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"name": "nonsense"}, "name", "hmac-auth"),
        ({"config": {"clock_skew": 0}}, "config", "clock_skew"),
        ({"name": "acl"}, "name", "one of"),
        ({"name": "limit-count", "dialect": "kong"}, "name", "one of"),
        ({"config": []}, "config", "a JSON object"),
        ({"config": [1]}, "config", "a JSON object"),
        ({"protocols": ["smtp"]}, "protocols", "http"),
        ({"priority": "high"}, "priority", "integer"),
    ],
)
def test_plugin_fields(fields: dict[str, Any], field: str, text: str) -> None:
    row = plugin(route=saved(route()), **fields)
    found = errors(row)
    assert list(found) == [field]
    assert text in found[field][0]


@override_settings(HMAC_GATEWAY={"PLUGINS_AVAILABLE": ["key-auth"]})
def test_a_plugin_that_is_not_available() -> None:
    assert "hmac-auth" in errors(plugin(route=saved(route())))["name"][0]


def test_instance_names() -> None:
    saved(plugin(route=saved(route()), instance_name=""))
    saved(plugin(service=saved(Service(id="s")), instance_name="mine"))
    assert list(errors(plugin(bundle=saved(PluginConfig(id="b")), instance_name="mine"))) == ["instance_name"]


def test_error_messages_stay_short() -> None:
    problems = validators.Problems()
    problems.add("field", "x" * 1000, "less")
    with pytest.raises(ValidationError) as caught:
        problems.raise_if_any()
    assert len(caught.value.message_dict["field"][0]) < 150


# --- marks by hand ---


@pytest.mark.parametrize(
    ("checks", "unmarked"),
    [
        ({}, "HEALTHCHECKS_OFF"),
        ({"active": {"healthy": {"interval": 0, "successes": 3}}, "threshold": 50}, "HEALTHCHECKS_OFF"),
        ({"passive": {"unhealthy": {"tcp_failures": 0, "http_statuses": [500]}}}, "HEALTHCHECKS_OFF"),
        ({"active": {"unhealthy": {"interval": 0.5}}}, "HEALTHY"),
        ({"passive": {"unhealthy": {"tcp_failures": 2}}}, "HEALTHY"),
    ],
)
def test_a_node_is_marked_by_hand(checks: dict[str, Any], unmarked: str) -> None:
    upstream = Upstream.objects.create(id="marked", dialect="kong", name="marked", checks=checks)
    node = Node.objects.create(upstream=upstream, host="a", port=8000)
    version = ConfigVersion.load().version
    assert node.health == unmarked
    node.mark(healthy=False)
    assert ConfigVersion.load().version == version + 1
    node = Node.objects.get(pk=node.pk)
    assert node.health == "UNHEALTHY" and node.changed_at_version == version + 1
    node.mark(healthy=False)  # nothing new
    assert ConfigVersion.load().version == version + 1
    node.mark(healthy=True)
    assert Node.objects.get(pk=node.pk).health == unmarked


def test_kong_0_x_takes_its_own_fields_only() -> None:
    def legacy(**config: Any) -> Plugin:
        return Plugin(name="hmac-auth", dialect="kong", legacy=True, config=config)

    legacy(clock_skew=0, hide_credentials=True).full_clean()
    for field, value in (("clock_skew", -1), ("enforce_headers", ["date"]), ("algorithms", ["hmac-sha1"])):
        assert field in str(errors(legacy(**{field: value})))
    assert "clock_skew" in str(errors(Plugin(name="hmac-auth", dialect="kong", config={"clock_skew": 0})))


@pytest.mark.parametrize(("name", "dialect"), [("acl", "apisix"), ("jwt", "apisix"), ("limit-count", "kong")])
def test_a_plugin_of_the_other_dialect(name: str, dialect: str) -> None:
    saved(Route(id="r", dialect=dialect, paths=["/"]))
    words = str(errors(Plugin(name=name, dialect=dialect, route_id="r", config={"allow": ["a"], "count": 1})))
    assert "allowed: one of" in words and "basic-auth" in words
