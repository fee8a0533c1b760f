"""PUT, GET, list and DELETE of every resource, and what the rows behind them hold."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps

from hmac_gateway.models import AuditEvent, ConfigVersion

from .support import Api

Route: Any = apps.get_model("hmac_proxy.Route")
Service: Any = apps.get_model("hmac_proxy.Service")
Upstream: Any = apps.get_model("hmac_proxy.Upstream")
Node: Any = apps.get_model("hmac_proxy.Node")
Plugin: Any = apps.get_model("hmac_proxy.Plugin")

NODES = {"127.0.0.1:8080": 1}
HMAC = {"hmac-auth": {}}


def route(**fields: Any) -> dict[str, Any]:
    return {"uri": "/x", "upstream": {"type": "roundrobin", "nodes": NODES}, **fields}


DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("upstreams/u", {"nodes": {"a.example:81": 3, "b.example": 1, "[::1]:82": 0}, "type": "roundrobin"}),
    ("upstreams/u", {"nodes": [{"host": "::1", "weight": 1, "priority": -1, "metadata": {"zone": "a"}}]}),
    ("upstreams/u", {"nodes": [], "type": "chash", "hash_on": "header", "key": "x-user", "desc": "d"}),
    ("upstreams/u", {"nodes": NODES, "type": "ewma", "scheme": "https", "tls": {"verify": False}}),
    ("upstreams/u", {"nodes": NODES, "pass_host": "rewrite", "upstream_host": "x.example", "retries": 0}),
    ("upstreams/u", {"nodes": NODES, "timeout": {"connect": 1, "send": 2.5, "read": 3}, "retry_timeout": 0}),
    ("upstreams/u", {"nodes": NODES, "keepalive_pool": {"size": 4, "idle_timeout": 8, "requests": 16}}),
    ("upstreams/u", {"nodes": NODES, "checks": {"active": {"http_path": "/ok", "healthy": {"successes": 1}}}}),
    ("upstreams/u", {"nodes": NODES, "labels": {"a": "b"}, "name": "n", "type": "least_conn"}),
    ("services/s", {}),
    ("services/s", {"name": "n", "desc": "", "labels": {}, "plugins": {}, "hosts": ["a.example", "*.b.example"]}),
    ("services/s", {"upstream": {"nodes": NODES, "scheme": "http", "retries": 1}, "plugins": HMAC}),
    ("services/s", {"path_prefix": "/api", "strip_path_prefix": True, "version": "1.2", "status": 0, "type": "http"}),
    ("services/s", {"gateway_group_id": "g", "strip_path_prefix": False, "enable_websocket": True}),
    ("routes/r", route()),
    ("routes/r", route(priority=0, status=1, methods=[], enable_websocket=False)),
    ("routes/r", {"uris": ["/a"], "plugins": {}, "labels": {"team": "x"}}),
    ("routes/r", {"paths": ["/a"], "plugins": {}, "host": "*"}),
    # No field of APISIX's plugin is called so: accepted and without a meaning (t/plugin/hmac-auth.t).
    ("routes/r", {"uri": "/a", "plugins": {"hmac-auth": {"key_id": "k", "clock_skew": 1_000_000_000_000}}}),
    ("routes/r", {"uris": ["/a", "/b*"], "plugins": HMAC, "host": "a.example", "remote_addr": "10.0.0.0/8"}),
    ("routes/r", {"paths": ["/a", "/b"], "plugins": {"hmac-auth": {"clock_skew": 3, "_meta": {"disable": True}}}}),
    ("routes/r", route(hosts=["a.example"], remote_addrs=["::1", "10.1.2.3"], methods=["GET", "PURGE"], priority=-7)),
    ("routes/r", route(timeout={"connect": 6, "send": 6.0, "read": 6}, status=0, desc="d", name="n")),
    ("plugin_configs/p", {"plugins": HMAC, "desc": "d", "labels": {"k": "v"}}),
    ("consumer_groups/g", {"plugins": HMAC, "name": "n"}),
    ("global_rules/1", {"plugins": HMAC}),
]


@pytest.mark.parametrize(("path", "doc"), DOCUMENTS)
def test_get_gives_back_what_was_sent(api: Api, path: str, doc: dict[str, Any]) -> None:
    first = api.put(path, doc)
    assert first.status_code == 201, first.content
    name, key = path.split("/")
    assert first.json()["key"] == f"/apisix/{path}"
    assert api.value(path) == {**doc, "id": key}
    again = api.put(path, doc)
    assert again.status_code == 200
    assert api.value(path) == {**doc, "id": key}
    stored = api.get(path).json()
    assert stored["createdIndex"] < stored["modifiedIndex"]
    assert again.json()["value"] == stored["value"]
    listed = api.get(name).json()
    assert listed == {"total": 1, "list": [stored]}
    gone = api.delete(path)
    assert gone.status_code == 200 and gone.json() == {"deleted": "1", "key": f"/apisix/{path}"}
    assert api.get(name).json() == {"list": [], "total": 0}
    assert not Node.objects.exists() and not Plugin.objects.exists() and not Upstream.objects.exists()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", ["routes", "services", "upstreams", "consumers", "plugin_configs", "global_rules"])
@pytest.mark.parametrize("key", ["none", "a%00b", "a%20b", "x" * 300, "%ff"])
def test_unknown_objects(api: Api, method: str, name: str, key: str) -> None:
    response = api.call(method, f"{name}/{key}")
    assert response.status_code == 404
    assert response.content == b'{"message":"Key not found"}\n'


def test_unknown_resource(api: Api) -> None:
    response = api.get("nothing/1")
    assert response.status_code == 404
    assert response.json() == {"error_msg": "Unsupported resource type: nothing"}


@pytest.mark.parametrize("path", ["upstreams/u/", "consumers/c/", "consumers/c/credentials/k/"])
def test_slashes_at_the_end_redirect_nobody(api: Api, path: str) -> None:
    documents = {"u": {"nodes": NODES}, "c": {"username": "c"}, "k": {"plugins": {"hmac-auth": KEY}}}
    api.put("consumers/c", {"username": "c"})
    key = path.split("/")[-2]
    assert api.put(path, documents[key]).status_code in (200, 201)
    assert api.get(path).status_code == 200
    assert api.get(path.removesuffix("k/") if key == "k" else path.split("/")[0] + "/").status_code == 200
    assert api.delete(path).status_code == 200


KEY = {"key_id": "k1", "secret_key": "s1-secret"}


def test_an_edit_in_the_console_shows(api: Api) -> None:
    api.put("routes/r", {"uris": ["/a"], "host": "a.example", "priority": 0, "plugins": HMAC})
    row = Route.objects.get(pk="r")
    row.paths, row.priority, row.enabled, row.labels = ["/new"], 5, False, {"a": "b"}
    row.save()
    Plugin.objects.get().delete()
    assert api.value("routes/r") == {
        "id": "r",
        "uri": "/new",
        "host": "a.example",
        "priority": 5,
        "status": 0,
        "labels": {"a": "b"},
        "plugins": {},
    }


def test_nodes_edited_in_the_console_show(api: Api) -> None:
    api.put("upstreams/u", {"nodes": {"a.example": 1}})
    assert api.value("upstreams/u")["nodes"] == {"a.example": 1}
    Node.objects.create(upstream_id="u", host="b.example", port=81, weight=2)
    assert api.value("upstreams/u")["nodes"] == [
        {"host": "a.example", "port": 80, "weight": 1},
        {"host": "b.example", "port": 81, "weight": 2},
    ]


def test_a_port_may_stand_in_the_host_of_a_node(api: Api) -> None:
    # t/admin/schema-validate.t, "Check node_schema optional port".
    nodes = [{"host": "127.0.0.1:1980", "weight": 1}, {"host": "[::1]:1981", "weight": 2}, {"host": "::1", "weight": 0}]
    api.put("upstreams/u", {"nodes": nodes})
    assert api.value("upstreams/u")["nodes"] == nodes
    places = Node.objects.order_by("port", "host").values_list("host", "port", "weight")
    assert list(places) == [("::1", 80, 0), ("127.0.0.1", 1980, 1), ("::1", 1981, 2)]


def test_rows_of_the_console_read_well(api: Api) -> None:
    upstream = Upstream.objects.create(id="u", type="chash", hash_on="header", key="x")
    Node.objects.create(upstream=upstream, host="h", port=80, weight=1, enabled=False)
    service = Service.objects.create(id="s", upstream=upstream)
    row = Route.objects.create(id="r", service=service, paths=["/a", "/b"], methods=["GET"], timeout_read=3)
    Plugin.objects.create(name="hmac-auth", route=row, config={"realm": "x"}, enabled=False)
    assert api.value("upstreams/u") == {
        "id": "u",
        "type": "chash",
        "hash_on": "header",
        "key": "x",
        "nodes": [{"host": "h", "port": 80, "weight": 0}],
    }
    assert api.value("services/s") == {"id": "s", "upstream_id": "u"}
    assert api.value("routes/r") == {
        "id": "r",
        "uris": ["/a", "/b"],
        "methods": ["GET"],
        "service_id": "s",
        "timeout": {"read": 3},
        "plugins": {"hmac-auth": {"realm": "x", "_meta": {"disable": True}}},
    }


def test_put_replaces_and_keeps_what_must_last(api: Api) -> None:
    api.put("services/s", {"upstream": {"nodes": {"a.example:80": 1, "b.example:80": 1}}, "plugins": HMAC, "name": "x"})
    nodes = {node.host: node.pk for node in Node.objects.all()}
    plugin = Plugin.objects.get().pk
    created = api.get("services/s").json()["value"]["create_time"]
    Service.objects.filter(pk="s").quiet_update(created_at="2020-01-01T00:00:00Z")
    api.put(
        "services/s",
        {"upstream": {"nodes": {"a.example:80": 5, "c.example:80": 1}}, "plugins": {"hmac-auth": {"clock_skew": 1}}},
    )
    after = {node.host: node for node in Node.objects.all()}
    assert after.keys() == {"a.example", "c.example"}
    assert after["a.example"].pk == nodes["a.example"] and after["a.example"].weight == 5
    assert Plugin.objects.get().pk == plugin and Plugin.objects.get().config == {"clock_skew": 1}
    value = api.get("services/s").json()["value"]
    assert value["create_time"] == 1577836800 < created
    assert value["update_time"] >= created and "name" not in value
    api.put("services/s", {"name": "y"})
    assert not Plugin.objects.exists() and not Node.objects.exists() and not Upstream.objects.exists()


def test_one_write_is_one_version(api: Api) -> None:
    before = ConfigVersion.load().version
    api.put("routes/r", route(plugins=HMAC))
    assert ConfigVersion.load().version == before + 1
    stamped = {Route.objects.get().changed_at_version, Node.objects.get().changed_at_version}
    assert stamped == {Upstream.objects.get().changed_at_version} == {before + 1}


def test_a_refused_write_changes_nothing(api: Api) -> None:
    before = ConfigVersion.load().version
    assert api.put("routes/r", route(service_id="none")).status_code == 400
    assert api.put("services/s", {"upstream": {"nodes": {"a b": 1}}}).status_code == 400
    assert ConfigVersion.load().version == before
    assert not Upstream.objects.exists() and not AuditEvent.objects.exists()


def test_the_upstream_id_counts_where_both_are_given(api: Api) -> None:
    api.put("upstreams/1", {"nodes": NODES})
    doc = {"uri": "/x", "upstream_id": 1, "upstream": {"nodes": {"b.example": 1}}}
    assert api.put("routes/r", doc).status_code == 201
    assert Route.objects.get().upstream_id == "1" and Upstream.objects.count() == 1
    assert api.value("routes/r") == {**doc, "id": "r"}


def test_an_integer_id_stays_one_in_the_body(api: Api) -> None:
    assert api.put("routes", {"id": 7, **route()}).json()["value"]["id"] == 7
    assert api.get("routes/7").json()["value"]["id"] == 7
    assert api.put("routes/7", {"id": 7, **route()}).json()["value"]["id"] == "7"


def test_a_plugin_config_and_a_global_rule_may_share_an_id(api: Api) -> None:
    api.put("plugin_configs/1", {"plugins": HMAC})
    assert api.put("global_rules", {"id": 1, "plugins": {}}).status_code == 201
    assert api.value("global_rules/1") == {"id": 1, "plugins": {}}
    assert api.put("global_rules/1", {"plugins": {}}).status_code == 200
    assert api.get("global_rules").json()["list"][0]["key"] == "/apisix/global_rules/1"
    assert api.value("plugin_configs/1") == {"id": "1", "plugins": HMAC}
    assert api.delete("global_rules/1").json() == {"deleted": "1", "key": "/apisix/global_rules/1"}
    assert api.get("plugin_configs/1").status_code == 200


def test_a_global_rule_of_the_console_is_found(api: Api) -> None:
    apps.get_model("hmac_proxy.PluginConfig").objects.create(id="mine", is_global=True)
    assert api.value("global_rules/mine") == {"id": "mine"}
    assert api.put("global_rules/mine", {"plugins": HMAC}).status_code == 200
    assert api.get("global_rules").json()["total"] == 1


def test_vars(api: Api) -> None:
    assert api.put("routes/r", route(vars=[["arg_version", "==", "2"]])).status_code == 201
    assert api.value("routes/r") == {**route(vars=[["arg_version", "==", "2"]]), "id": "r"}
    assert api.put("routes/r", route(vars=[])).status_code == 200
    response = api.put("routes/r", route(vars=[["arg_version", "is", "2"]]))
    assert response.status_code == 400
    assert response.json()["error_msg"].startswith("failed to validate the 'vars' expression: ")


def test_the_gateway_group_is_kept_as_a_label(api: Api) -> None:
    api.put("routes/r?gateway_group_id=blue", {**route(), "labels": {"a": "b"}})
    assert Route.objects.get().labels == {"a": "b", "gateway_group_id": "blue"}
    assert api.value("routes/r")["labels"] == {"a": "b"}
    assert api.get("routes?label=gateway_group_id").json()["total"] == 1


def test_numbers_are_shown_as_they_were_written(api: Api) -> None:
    text = '{"nodes":{},"timeout":{"connect":6,"send":6.0,"read":7},"retries":1.0}'
    assert api.put("upstreams/u", text).status_code == 201
    shown = api.get("upstreams/u").content
    assert b'"timeout":{"connect":6,"send":6.0,"read":7}' in shown and b'"retries":1.0' in shown


def test_a_consumer_without_a_username_is_not_listed(api: Api) -> None:
    apps.get_model("hmac_consumers.Consumer").objects.create(custom_id="7", dialect="kong")
    assert api.get("consumers").json() == {"list": [], "total": 0}


def test_unknown_arguments_are_accepted(api: Api) -> None:
    assert api.put("routes/r?anything=1&other", route()).status_code == 201


def test_ttl(api: Api) -> None:
    assert api.put("routes/r?ttl=60", route()).status_code == 201
    left = Route.objects.get().expires_at - Route.objects.get().updated_at
    assert 59 < left.total_seconds() <= 60.1
    for bad in ("x", "nan", "inf", "1e300", ""):
        response = api.put(f"routes/r?ttl={bad}", route())
        assert response.json() == {"error_msg": "invalid argument ttl: should be a number"}
    api.put("routes/r", route())
    assert Route.objects.get().expires_at is None


def test_an_expired_object_is_as_if_deleted(api: Api) -> None:
    api.put("routes/r?ttl=60", route(desc="old"))
    before = Route.objects.get().created_at
    Route.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert api.get("routes/r").status_code == 404 and api.get("routes").json()["total"] == 0
    assert api.delete("routes/r").status_code == 404
    assert api.put("routes/r", route()).status_code == 201
    assert api.value("routes/r") == {**route(), "id": "r"}
    assert Route.objects.get().created_at > before and Route.objects.get().expires_at is None


def test_an_end_that_the_console_set_survives_a_put(api: Api) -> None:
    api.put("routes/r?ttl=60", route())
    Route.objects.update(expires_at="2999-01-01T00:00:00Z")
    api.put("routes/r", route())
    assert Route.objects.get().expires_at.year == 2999


def test_a_link_to_an_expired_object_is_refused(api: Api) -> None:
    api.put("services/s", {})
    Service.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert api.put("routes/r", {"uri": "/x", "service_id": "s"}).status_code == 400


def test_a_route_for_this_site_stays_one_until_it_gets_a_target(api: Api) -> None:
    Route.objects.create(id="r", paths=["/x"], this_site=True)
    api.put("routes/r", {"uri": "/y", "plugins": HMAC})
    assert Route.objects.get().this_site
    assert api.put("routes/r", route()).status_code == 200
    assert not Route.objects.get().this_site


def test_plugins_of_another_dialect_are_left_alone(api: Api) -> None:
    api.put("consumers/c", {"username": "c"})
    consumer = apps.get_model("hmac_consumers.Consumer").objects.get()
    Plugin.objects.create(name="rate-limiting", consumer=consumer, dialect="kong")
    api.put("consumers/c", {"username": "c", "desc": "d"})
    assert api.value("consumers/c") == {"username": "c", "desc": "d"} and Plugin.objects.count() == 1


def test_rows_of_another_dialect_are_not_ours(api: Api) -> None:
    Upstream.objects.create(id="k", dialect="kong", name="k")
    assert api.get("upstreams").json()["total"] == 0
    assert api.get("upstreams/k").status_code == 404
    assert api.put("upstreams/k", {"nodes": NODES}).status_code == 400
    assert Upstream.objects.get(pk="k").dialect == "kong"


def test_every_write_is_audited(api: Api) -> None:
    api.put("upstreams/u", {"nodes": NODES, "name": "a"})
    api.put("upstreams/u", {"nodes": NODES, "name": "b"})
    api.delete("upstreams/u")
    events = list(AuditEvent.objects.order_by("id").values_list("actor", "action", "entity", "object_id", "via"))
    assert events == [
        ("admin key", action, "hmac_proxy.upstream", "u", "apisix-api") for action in ("added", "changed", "deleted")
    ]
    assert list(AuditEvent.objects.order_by("id").values_list("changes", flat=True)) == [
        {
            "fields": ["id", "name", "nodes"],
            "after": {"id": "u", "name": "a", "nodes": NODES},
            "key": "settings",
        },
        {"fields": ["name"], "before": {"name": "a"}, "after": {"name": "b"}, "key": "settings"},
        {
            "fields": ["id", "name", "nodes"],
            "before": {"id": "u", "name": "b", "nodes": NODES},
            "key": "settings",
        },
    ]


# --- deleting what is in use ---


def test_a_used_service_stays(api: Api) -> None:
    api.put("services/s", {"upstream": {"nodes": NODES}})
    api.put("routes/1", {"uri": "/x", "service_id": "s"})
    response = api.delete("services/s")
    assert response.status_code == 400
    assert response.json() == {"error_msg": "can not delete this service directly, route [1] is still using it now"}
    assert api.delete("services/s?force=yes").status_code == 400
    assert api.delete("services/s?force=true").json() == {"deleted": "1", "key": "/apisix/services/s"}
    # Without its service the route would run without the service's plugins.
    assert api.value("routes/1") == {"id": "1", "uri": "/x", "status": 0}


@pytest.mark.parametrize(("user", "doc"), [("route", {"uri": "/x"}), ("service", {})])
def test_a_used_upstream_stays(api: Api, user: str, doc: dict[str, Any]) -> None:
    api.put("upstreams/u", {"nodes": NODES})
    api.put(f"{user}s/1", {**doc, "upstream_id": "u"})
    response = api.delete("upstreams/u")
    assert response.status_code == 400
    assert response.json() == {"error_msg": f"can not delete this upstream, {user} [1] is still using it now"}
    assert api.delete("upstreams/u?force=true").status_code == 200


def test_used_bundles_and_groups_stay(api: Api) -> None:
    api.put("plugin_configs/p", {"plugins": HMAC})
    api.put("routes/1", {"uri": "/x", "plugin_config_id": "p", "plugins": {}})
    response = api.delete("plugin_configs/p")
    assert response.json() == {"error_msg": "can not delete this plugin config, route [1] is still using it now"}
    api.put("consumer_groups/g", {"plugins": {}})
    assert api.put("consumers/c", {"username": "c", "group_id": "g"}).status_code == 201
    assert api.value("consumers/c")["group_id"] == "g"
    response = api.delete("consumer_groups/g")
    assert response.json() == {"error_msg": "can not delete this consumer group, consumer [c] is still using it now"}


# --- POST, PATCH, lists ---


def test_post_makes_an_id_of_twenty_digits(api: Api) -> None:
    response = api.post("routes", route())
    assert response.status_code == 201
    key = response.json()["value"]["id"]
    assert len(key) == 20 and key.isdigit() and response.json()["key"] == f"/apisix/routes/{key}"
    assert api.value(f"routes/{key}") == {**route(), "id": key}
    for path, doc in (("routes/1", route()), ("routes", {"id": "1", **route()})):
        refused = api.post(path, doc)
        assert refused.status_code == 400
        assert refused.json() == {"error_msg": "wrong route id, do not need it"}


def test_patch_merges_objects_and_null_deletes(api: Api) -> None:
    api.put("routes/r", {**route(plugins={"hmac-auth": {"clock_skew": 5, "realm": "a"}}), "desc": "d", "priority": 3})
    response = api.patch("routes/r", {"plugins": {"hmac-auth": {"realm": "b"}}, "desc": None, "methods": ["GET"]})
    assert response.status_code == 200
    assert response.json()["value"]["plugins"] == {"hmac-auth": {"clock_skew": 5, "realm": "b"}}
    assert api.value("routes/r") == {
        **route(priority=3, methods=["GET"], plugins={"hmac-auth": {"clock_skew": 5, "realm": "b"}}),
        "id": "r",
    }
    assert api.patch("routes/none", {}).status_code == 404
    assert api.patch("routes/r", {"id": "other"}).json() == {"error_msg": "wrong route id"}
    assert api.patch("routes/r", {"uri": 5}).status_code == 400
    assert api.patch("routes/r", [1]).json() == {"error_msg": "invalid configuration"}


def test_patch_at_a_path(api: Api) -> None:
    api.put("routes/r", route(plugins={"hmac-auth": {"clock_skew": 5, "realm": "a"}}, methods=["GET", "PUT"]))
    assert api.patch("routes/r/plugins/hmac-auth", {"clock_skew": 6}).status_code == 200
    assert api.patch("routes/r/upstream/nodes", {"b.example:80": 2}).status_code == 200
    assert api.patch("routes/r/methods", ["GET"]).status_code == 200
    value = api.value("routes/r")
    assert value["plugins"] == {"hmac-auth": {"clock_skew": 6}}
    assert value["upstream"]["nodes"] == {"b.example:80": 2} and value["methods"] == ["GET"]
    assert api.patch("routes/r/nothing/here", 1).status_code == 400
    # What is missing on the way is made.
    assert api.patch("routes/r/plugins/consumer-restriction/whitelist", ["jack"]).status_code == 200
    assert api.value("routes/r")["plugins"]["consumer-restriction"] == {"whitelist": ["jack"]}
    assert api.patch("routes/r/plugins/consumer-restriction", "null").status_code == 200
    assert api.patch("routes/r/methods/0", "PUT").status_code == 400
    assert api.patch("routes/r/methods/0", '"PUT"').status_code == 200
    assert api.value("routes/r")["methods"] == ["PUT"]
    for path, named in (("uri/x", "uri"), ("methods/1", "methods/1")):
        answer = api.patch(f"routes/r/{path}", 1)
        assert (answer.status_code, answer.json()) == (400, {"error_msg": f"invalid sub-path: /{named}"}), path


@pytest.mark.parametrize("path", ["routes/r", "routes/r/plugins", "routes/r/plugins/hmac-auth"])
def test_patch_without_a_body_takes_nothing_away(api: Api, path: str) -> None:
    api.put("routes/r", {"uri": "/x", "plugins": {"hmac-auth": {}}})
    answer = api.patch(path, None)
    assert (answer.status_code, answer.json()) == (400, {"error_msg": "missing new configuration"})
    assert api.patch("routes", None).json() == {"error_msg": "missing route id"}
    assert api.value("routes/r")["plugins"] == {"hmac-auth": {}}


def test_an_empty_list_stands_for_an_empty_object(api: Api) -> None:
    assert api.put("routes/r", {"uri": "/x", "plugins": {"key-auth": []}, "labels": []}).status_code == 201
    assert api.value("routes/r")["plugins"] == {"key-auth": {}}
    assert api.put("routes/r", {"uri": "/x", "plugins": []}).status_code == 200
    assert api.value("routes/r")["plugins"] == {}


def test_lists_are_paged_and_filtered(api: Api) -> None:
    for number in range(12):
        api.put(f"routes/{number}", {"uri": f"/p{number}", "plugins": {}, "name": f"n{number}", "labels": {"k": "v"}})
    everything = api.get("routes").json()
    assert everything["total"] == 12
    assert [item["value"]["id"] for item in everything["list"]] == [str(number) for number in range(12)]
    second = api.get("routes?page=2&page_size=10").json()
    assert second["total"] == 12 and [item["value"]["id"] for item in second["list"]] == ["10", "11"]
    assert len(api.get("routes?page=x&page_size=10").json()["list"]) == 10
    assert len(api.get("routes?page_size=10").json()["list"]) == 12
    for size in ("9", "501", "x", "-1"):
        response = api.get(f"routes?page=1&page_size={size}")
        assert (response.status_code, response.content) == (400, b"page_size must be between 10 and 500")
    assert api.get("routes?name=n1").json()["total"] == 3
    assert api.get("routes?name=^n1$").json()["total"] == 1
    assert api.get("routes?uri=p11").json()["total"] == 1
    assert api.get("routes?label=k&page=2&page_size=10").json()["total"] == 12
    assert api.get("routes?label=other").json()["total"] == 0
    assert api.get("routes?name=(a*)*").status_code == 400
    assert api.get("routes?name=(").status_code == 400


def test_lists_filter_by_target(api: Api) -> None:
    api.put("services/s", {})
    api.put("routes/1", {"uri": "/x", "service_id": "s"})
    api.put("routes/2", {"uri": "/y", "plugins": {}})
    assert api.get("routes?filter=service_id%3Ds").json()["total"] == 1


def test_a_list_asks_the_database_a_fixed_number_of_times(api: Api, django_assert_max_num_queries: Any) -> None:
    for number in range(12):
        api.put(f"routes/{number}", route(plugins=HMAC))
    with django_assert_max_num_queries(8):
        assert api.get("routes").json()["total"] == 12


def test_numbers_that_are_equal_are_one_id(api: Api) -> None:
    assert api.put("services", '{"id": 1.0}').json()["key"] == "/apisix/services/1"
    assert api.put("services", '{"id": 1}').status_code == 200
    assert api.put("services", '{"id": 1e0}').status_code == 200
    assert api.get("services").json()["total"] == 1
    made = api.post("routes", '{"uri": "/x", "service_id": 1.0}')
    assert made.status_code == 201 and made.json()["value"]["service_id"] == 1
    for body in ('{"id": 1e100}', '{"id": 1.5}', '{"id": -1.0}', '{"id": 0.0}'):
        assert api.put("services", body).status_code == 400
