"""Configurations for the tests: one with every field there is, and hypothesis' own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.apps import apps
from django.utils import timezone
from hypothesis import strategies as st

NODES = {"127.0.0.1:8080": 1}

#: Every list and every field that the REST API takes.
FULL: dict[str, Any] = {
    # Texts such as ${{NAME}} stand for themselves.
    "hmac_gateway": {"version": 1},
    "upstreams": [
        {"id": "map", "nodes": {"a.example:81": 3, "b.example": 1, "[::1]:82": 0}, "type": "roundrobin"},
        {"id": "list", "nodes": [{"host": "::1", "weight": 1, "priority": -1, "metadata": {"zone": "a"}}]},
        {"id": 12, "nodes": [], "type": "chash", "hash_on": "header", "key": "http_x_user", "desc": "d"},
        {"id": "a.b_c-d", "nodes": NODES, "type": "ewma", "scheme": "https", "tls": {"verify": False}},
        {"id": "rewrite", "nodes": NODES, "pass_host": "rewrite", "upstream_host": "x.example", "retries": 0},
        {"id": "t", "nodes": NODES, "timeout": {"connect": 1, "send": 2.5, "read": 3}, "retry_timeout": 0},
        {"id": "k", "nodes": NODES, "keepalive_pool": {"size": 4, "idle_timeout": 8, "requests": 16}},
        {"id": "c", "nodes": NODES, "checks": {"active": {"http_path": "/ok", "healthy": {"successes": 1}}}},
        {"id": "n", "nodes": NODES, "labels": {"a": "b", "c": "yes"}, "name": "no", "gateway_group_id": "g"},
    ],
    "plugin_configs": [{"id": "p", "plugins": {"hmac-auth": {"clock_skew": 5, "unknown": [1, {"x": None}]}}}],
    "consumer_groups": [{"id": 1, "plugins": {"hmac-auth": {}}, "name": "n", "labels": {"k": "v"}}],
    "services": [
        {"id": "s"},
        {"id": "s2", "name": "n", "desc": "", "labels": {}, "plugins": {}, "hosts": ["a.example", "*.b.example"]},
        {"id": "s3", "upstream": {"nodes": NODES, "scheme": "http", "retries": 1}, "plugins": {"key-auth": {}}},
        {"id": "s4", "path_prefix": "/api", "strip_path_prefix": True, "version": "1.2", "status": 0, "type": "http"},
        {"id": "s5", "gateway_group_id": "g", "strip_path_prefix": False, "enable_websocket": True},
        {"id": "s6", "upstream_id": 12},
    ],
    "routes": [
        {"id": "both", "uri": "/x", "upstream_id": "map", "upstream": {"nodes": NODES}},
        {"id": "r", "uri": "/x", "upstream": {"nodes": NODES}, "priority": 0, "status": 1, "methods": []},
        {"id": 3, "uris": ["/a"], "plugins": {}, "labels": {"team": "x: y\n#END"}},
        {"id": "r4", "uris": ["/a", "/b*"], "plugins": {"basic-auth": {}}, "host": "a.example", "remote_addr": "::1"},
        {"id": "r5", "paths": ["/a", "/ü"], "plugins": {"hmac-auth": {"_meta": {"disable": True, "priority": 7}}}},
        {"id": "r6", "uri": "/a", "plugin_config_id": "p", "service_id": "s", "hosts": ["a.example"]},
        {"id": "r7", "uri": "/a", "service_id": "s", "vars": [["arg_a", "==", "1"], ["arg_b", "!", "in", ["x", "2"]]]},
        {"id": "r8", "uri": "/a", "service_id": "s", "timeout": {"connect": 6, "send": 6.0, "read": 6}, "status": 0},
        {"id": "r9", "uri": "/a", "service_id": "s", "desc": "${{NOT_A_VARIABLE}}", "name": "2024-01-01"},
    ],
    "global_rules": [{"id": "g", "plugins": {"basic-auth": {"_meta": {"disable": True}}}}],
    "consumers": [
        {"username": "one", "group_id": 1, "labels": {"custom_id": "7"}, "plugins": {}},
        {
            "username": "two",
            "desc": "1e3",
            "plugins": {
                "hmac-auth": {"key_id": "k2", "secret_key": "s: '\"#2\u2028\x7f"},
                "key-auth": {"key": "012345678901234567890"},
                "basic-auth": {"username": "two", "password": "pa ss:word "},
            },
        },
        {"id": "two/credentials/c", "name": "n", "plugins": {"hmac-auth": {"key_id": "k2", "secret_key": "yes"}}},
        {"id": "two/credentials/7", "labels": {"a": "b"}, "plugins": {"key-auth": {"key": "key-2", "more": {"x": 1}}}},
        {"id": "one/credentials/x", "plugins": {"basic-auth": {"username": "one", "password": "***"}}},
    ],
}


def enriched() -> None:
    """Give the objects of FULL what only the console, or `?ttl=`, gives."""
    end = timezone.now() + timedelta(days=30)

    def get(label: str, **where: Any) -> Any:
        return apps.get_model(label)._default_manager.get(**where)

    for label, pk in (("Upstream", "n"), ("Service", "s2"), ("Route", "r4"), ("PluginConfig", "p")):
        row = get(f"hmac_proxy.{label}", pk=pk)
        row.tags, row.expires_at = ["a", "b"], end
        row.save()
    route = get("hmac_proxy.Route", pk="r5")
    route.expires_at = end
    route.extra["ttl"] = route.expires_at.isoformat()
    route.labels = {"gateway_group_id": "hidden"}
    route.save()
    plugin = route.plugins.get()
    plugin.instance_name, plugin.tags = "instance", ["t"]
    plugin.save()
    node = get("hmac_proxy.Upstream", pk="list").nodes.get()
    node.enabled, node.weight, node.tags = False, 9, ["n"]
    node.save()
    inline = get("hmac_proxy.Upstream", pk="service:s3")
    inline.tags = ["inline"]
    inline.save()
    rule = get("hmac_proxy.PluginConfig", pk="global.g")
    rule.name, rule.enabled, rule.labels = "rule", False, {"a": "b"}
    rule.save()
    group = get("hmac_consumers.ConsumerGroup", pk="1")
    group.enabled = False
    group.save()
    consumer = get("hmac_consumers.Consumer", username="two")
    consumer.custom_id, consumer.enabled, consumer.name = "custom", False, "Two"
    consumer.save()
    own = consumer.credentials.get(public_id=None, plugin="hmac-auth")
    own.rotate_secret("previous-secret", None)
    own.rotate_secret("own-secret", end)
    own.not_before = end - timedelta(days=60)
    own.save()
    credential = consumer.credentials.get(public_id="c")
    credential.rotate_secret("newer", end)
    credential.enabled, credential.expires_at, credential.tags = False, end, ["x"]
    credential.save()
    site = get("hmac_proxy.Route", pk="r9")
    site.service, site.this_site, site.protocols = None, True, ["https"]
    site.save()


# --- hypothesis ---

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
LABEL = TEXT.filter(lambda text: text.strip() != "" and len(text) > 0)
KEY = st.one_of(st.text("abcXYZ019._-", min_size=1, max_size=12), st.integers(1, 10**12))
NUMBER = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
LABELS = st.dictionaries(LABEL, LABEL, max_size=3)
SECRET = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(
    lambda text: text != "*" * 8 and not text.startswith("$")
)
SECONDS = st.one_of(st.integers(1, 600), st.floats(0.001, 600))
HOST = st.sampled_from(["a.example", "b.example", "10.0.0.1", "::1", "x-y.example"])
META = st.fixed_dictionaries({}, optional={"disable": st.booleans(), "priority": st.integers(-9, 9999)})
HMAC = st.fixed_dictionaries(
    {},
    optional={
        "clock_skew": st.integers(1, 900),
        "signed_headers": st.lists(st.sampled_from(["date", "host", "digest"]), unique=True),
        "hide_credentials": st.booleans(),
        "anything": JSON,
        "_meta": META,
    },
)
PLUGINS = st.fixed_dictionaries({}, optional={"hmac-auth": HMAC, "key-auth": st.just({}), "basic-auth": st.just({})})
NODE = st.fixed_dictionaries(
    {"host": HOST, "weight": st.integers(0, 100)},
    optional={"port": st.integers(1, 65535), "priority": st.integers(-3, 3), "metadata": st.dictionaries(TEXT, JSON)},
)
NODE_FORMS = st.one_of(
    st.dictionaries(
        st.builds("{}:{}".format, st.sampled_from(["a.example", "[::1]"]), st.integers(1, 99)), st.integers(0, 9)
    ),
    st.lists(NODE, max_size=3, unique_by=lambda node: (node["host"], node.get("port", 80))),
)
UPSTREAM = st.fixed_dictionaries(
    {"nodes": NODE_FORMS},
    optional={
        "name": LABEL,
        "desc": TEXT,
        "labels": LABELS,
        "type": st.sampled_from(["roundrobin", "least_conn", "ewma"]),
        "pass_host": st.sampled_from(["pass", "node"]),
        "retries": st.integers(0, 9),
        "retry_timeout": st.one_of(st.just(0), SECONDS),
        "timeout": st.fixed_dictionaries({"connect": SECONDS, "send": SECONDS, "read": SECONDS}),
        "keepalive_pool": st.fixed_dictionaries({}, optional={"size": st.integers(1, 99), "idle_timeout": SECONDS}),
    },
)
COMMON = {"name": LABEL, "desc": TEXT, "labels": LABELS}
CREDENTIAL = st.one_of(
    st.builds(lambda secret: ("hmac-auth", "key_id", {"secret_key": secret}), SECRET),
    st.builds(lambda secret: ("key-auth", "key", {}), SECRET),
    st.builds(lambda secret: ("basic-auth", "username", {"password": secret}), SECRET),
)


@st.composite
def configurations(draw: Any) -> dict[str, Any]:
    """A document with references in any direction, and lists in any order."""

    def ids() -> list[Any]:
        return list(draw(st.lists(KEY, max_size=3, unique_by=str)))

    def some(strategy: Any, **more: Any) -> dict[str, Any]:
        return {**draw(strategy), **{key: value for key, value in more.items() if value is not None}}

    upstreams = [some(UPSTREAM, id=key) for key in ids()]
    bundles = [some(st.fixed_dictionaries({"plugins": PLUGINS}, optional=COMMON), id=key) for key in ids()]
    groups = [some(st.fixed_dictionaries({"plugins": PLUGINS}, optional=COMMON), id=key) for key in ids()]

    def one_of(items: list[dict[str, Any]]) -> Any:
        return draw(st.sampled_from([None, *(item["id"] for item in items)]))

    def target() -> dict[str, Any]:
        found: dict[str, Any] = {}
        if (chosen := one_of(upstreams)) is not None:
            found["upstream_id"] = chosen
        if draw(st.booleans()):
            found["upstream"] = draw(UPSTREAM)
        return found

    own = {**COMMON, "status": st.sampled_from([0, 1])}
    services = [
        some(st.fixed_dictionaries({}, optional={"plugins": PLUGINS, **own}), id=key, **target()) for key in ids()
    ]
    uri = st.sampled_from(["/a", "/b*", "/", "/long/path/*", "/ü"])
    matching = {
        "host": st.sampled_from(["a.example", "*.b.example"]),
        "methods": st.lists(st.sampled_from(["GET", "POST", "PUT"]), unique=True),
        "priority": st.integers(-9, 9),
        "vars": st.just([["arg_x", "==", "1"]]),
        "enable_websocket": st.booleans(),
    }
    routes = [
        some(
            st.one_of(
                st.fixed_dictionaries({"uri": uri, "plugins": PLUGINS}, optional={**own, **matching}),
                st.fixed_dictionaries(
                    {"uris": st.lists(uri, min_size=1, unique=True), "plugins": PLUGINS}, optional=matching
                ),
            ),
            id=key,
            service_id=one_of(services),
            plugin_config_id=one_of(bundles),
            **target(),
        )
        for key in ids()
    ]
    consumers: list[dict[str, Any]] = []
    number = 0
    for name in draw(st.lists(st.text("abcXYZ01_-", min_size=1, max_size=9), max_size=3, unique=True)):
        consumer = some(st.fixed_dictionaries({}, optional={"desc": TEXT, "labels": LABELS}), group_id=one_of(groups))
        consumer["username"] = name
        consumers.append(consumer)
        for place in draw(st.lists(st.sampled_from(["own", "c1", "c2"]), unique=True)):
            number += 1
            plugin, identifier, rest = draw(CREDENTIAL)
            config = {identifier: f"{draw(st.text('abc', max_size=5))}{number}", **rest}
            if place == "own":
                consumer["plugins"] = {plugin: config}
            else:
                extra = draw(st.fixed_dictionaries({}, optional=COMMON))
                consumers.append({"id": f"{name}/credentials/{place}", "plugins": {plugin: config}, **extra})
    found = {
        "upstreams": upstreams,
        "plugin_configs": bundles,
        "consumer_groups": groups,
        "services": services,
        "routes": routes,
        "consumers": draw(st.permutations(consumers)),
    }
    lists = {name: found[name] for name in draw(st.permutations(sorted(found))) if found[name]}
    return {**lists, "hmac_gateway": {"version": 1}}
