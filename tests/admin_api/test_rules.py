"""consumer-restriction and limit-count over REST and in the console: where they may stand, schemas, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps

from .support import Api

UPSTREAM = {"nodes": {"127.0.0.1:1": 1}}
PLUGINS: dict[str, Any] = {
    "consumer-restriction": {"whitelist": ["jack"], "unknown": 1},
    "limit-count": {"count": 2, "time_window": 60, "_meta": {"priority": 5}},
}
PLACES = {
    "routes/1": {"uri": "/a", "upstream": UPSTREAM},
    "services/1": {"upstream": UPSTREAM},
    "plugin_configs/1": {},
    "consumer_groups/1": {},
    "consumers/jack": {"username": "jack"},
    "global_rules/1": {},
}


@pytest.mark.parametrize("path", PLACES)
def test_they_may_stand_everywhere_and_come_back_as_sent(api: Api, path: str) -> None:
    assert api.put(path, {**PLACES[path], "plugins": PLUGINS}).status_code == 201
    assert api.value(path)["plugins"] == PLUGINS
    assert (
        api.put(path, {**PLACES[path], "plugins": {"limit-count": {"count": 1, "time_window": 1}}}).status_code == 200
    )
    assert list(api.value(path)["plugins"]) == ["limit-count"]


@pytest.mark.parametrize(
    ("name", "config", "text"),
    [
        (
            "consumer-restriction",
            {},
            'object matches none of the required: ["blacklist"] or ["whitelist"] or ["allowed_by_methods"]',
        ),
        (
            "consumer-restriction",
            {"whitelist": []},
            'property "whitelist" validation failed: expect array to have at least 1 items',
        ),
        (
            "consumer-restriction",
            {"whitelist": ["a"], "type": "x"},
            'property "type" validation failed: matches none of the enum values',
        ),
        (
            "consumer-restriction",
            {"whitelist": ["a"], "rejected_code": 100},
            'property "rejected_code" validation failed: expected 100 to be at least 200',
        ),
        ("limit-count", {"count": 1}, "value should match only one schema, but matches none"),
        (
            "limit-count",
            {"count": 0, "time_window": 1},
            'property "count" validation failed: value should match only one schema, but matches none',
        ),
        # t/plugin/limit-count-rules.t, tests 1 and 2.
        (
            "limit-count",
            {"count": 2, "time_window": 5, "rules": [{"count": 1, "time_window": 10, "key": "${http_company}"}]},
            "value should match only one schema, but matches both schemas 1 and 2",
        ),
        (
            "limit-count",
            {"rules": [{"count": count, "time_window": 9, "key": "${http_company}"} for count in (5, 8)]},
            "duplicate key '${http_company}' in rules",
        ),
        (
            "limit-count",
            {"count": 1, "time_window": 1, "rejected_code": 600},
            'property "rejected_code" validation failed: expected 600 to be at most 599',
        ),
        (
            "limit-count",
            {"count": 1, "time_window": 1, "policy": "redis", "redis_host": "h", "redis_password": "hush"},
            'property "redis_host" validation failed: string too short, expected at least 2, got 1',
        ),
        (
            "limit-count",
            {"count": 1, "time_window": 1, "redis_pasword": "hush"},
            "redis_pasword: '********' was given; allowed: one of redis_host, redis_port, redis_username, "
            "redis_password, redis_database, redis_timeout, redis_ssl, redis_ssl_verify, redis_keepalive_timeout, "
            "redis_keepalive_pool",
        ),
        (
            "limit-count",
            {"count": 1, "time_window": 1, "policy": "redis-cluster"},
            "policy: 'redis-cluster' was given; allowed: local or redis; no clusters and sentinels",
        ),
    ],
)
def test_refusals_in_apisixs_grammar(api: Api, name: str, config: dict[str, Any], text: str) -> None:
    said = f"failed to check the configuration of plugin {name} err: {text}"
    found = api.put("routes/1", {**PLACES["routes/1"], "plugins": {name: config}})
    assert (found.status_code, found.json()) == (400, {"error_msg": said})
    assert "hush" not in found.content.decode()
    found = api.put("consumers/jack", {"username": "jack", "plugins": {name: config}})
    assert (found.status_code, found.json()) == (400, {"error_msg": f"invalid plugins configuration: {said}"})


def test_a_group_of_limits_has_one_configuration(api: Api) -> None:
    config = {"count": 1, "time_window": 60, "group": "shop"}
    assert api.put("services/1", {**PLACES["services/1"], "plugins": {"limit-count": config}}).status_code == 201
    other = {"limit-count": {**config, "count": 2}}
    found = api.put("routes/1", {**PLACES["routes/1"], "plugins": other})
    words = "failed to check the configuration of plugin limit-count err: group conf mismatched"
    assert (found.status_code, found.json()) == (400, {"error_msg": words})
    assert api.put("routes/1", {**PLACES["routes/1"], "plugins": {"limit-count": config}}).status_code == 201


def test_they_are_listed_behind_what_authenticates_and_have_schemas(api: Api) -> None:
    names = api.get("plugins/list").json()
    assert names.index("key-auth") < names.index("consumer-restriction") < names.index("limit-count")
    assert api.get("schema/plugins/consumer-restriction").json()["properties"]["type"]["default"] == "consumer_name"
    assert api.get("schema/plugins/limit-count").json()["properties"]["rejected_code"]["default"] == 503
    assert api.get("schema/plugins/limit-count?schema_type=consumer").status_code == 400


def test_no_credential_is_for_them(api: Api) -> None:
    api.put("consumers/jack", {"username": "jack"})
    found = api.put("consumers/jack/credentials/1", {"plugins": {"limit-count": {"count": 1, "time_window": 1}}})
    assert found.json() == {"error_msg": "only supports auth type plugins in consumer credential"}


PAGES = [
    ("hmac_proxy", "route", "r"),
    ("hmac_proxy", "service", "s"),
    ("hmac_proxy", "pluginconfig", "b"),
    ("hmac_consumers", "consumer", None),
    ("hmac_consumers", "consumergroup", "g"),
]


@pytest.mark.parametrize(("app", "name", "key"), PAGES)
def test_the_console_attaches_them(admin_client: Any, app: str, name: str, key: str | None) -> None:
    model: Any = apps.get_model(app, name)
    more: dict[str, Any] = {"paths": ["/a"]} if name == "route" else {"username": "jack"} if key is None else {}
    row = model.objects.create(**({} if key is None else {"id": key}), **more)
    page = f"/admin/{app}/{name}/{row.pk}/change/"
    html = admin_client.get(page).content.decode()
    assert '<option value="limit-count">' in html and '<option value="consumer-restriction">' in html


def test_the_password_of_a_redis_is_sealed_and_masked(api: Api) -> None:
    config = {"count": 1, "time_window": 1, "policy": "redis", "redis_host": "h.test", "redis_password": "hush"}
    answer = api.put("routes/1", {**PLACES["routes/1"], "plugins": {"limit-count": config}})
    assert answer.status_code == 201
    shown = {**config, "redis_password": "********"}
    assert answer.json()["value"]["plugins"]["limit-count"] == shown
    rows = apps.get_model("hmac_proxy.Plugin")._default_manager
    stored = rows.get().config["redis_password"]
    assert stored.startswith("$sealed://") and "hush" not in stored
    # A mask written back keeps it.
    assert api.patch("routes/1/plugins/limit-count", {**shown, "count": 2}).status_code == 200
    assert rows.get().config == {**config, "count": 2, "redis_password": stored}
