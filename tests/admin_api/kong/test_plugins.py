"""Plugins over Kong's admin API: scopes, configurations, schemas, what cannot stand where, and those of Kong 0.x."""

from __future__ import annotations

from typing import Any

import pytest

from hmac_gateway.models import AuditEvent

from .support import Kong

HMAC = {
    "hide_credentials": False,
    "clock_skew": 300,
    "anonymous": None,
    "validate_request_body": False,
    "enforce_headers": [],
    "algorithms": ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"],
    "realm": None,
}


def test_a_plugin_shows_every_field_with_its_default(kong: Kong) -> None:
    made = kong.made("plugins", {"name": "hmac-auth", "instance_name": "hmac-authentication"})
    config = made.pop("config")
    assert {name: config[name] for name in HMAC} == HMAC
    assert {name: made[name] for name in made if name not in ("id", "created_at", "updated_at")} == {
        "name": "hmac-auth",
        "instance_name": "hmac-authentication",
        "route": None,
        "service": None,
        "consumer": None,
        "protocols": ["grpc", "grpcs", "http", "https"],
        "enabled": True,
        "tags": None,
    }
    assert kong.get("plugins/hmac-authentication").json() == {**made, "config": config}
    changed = kong.patch("plugins/hmac-authentication", {"config": {"clock_skew": 10}}).json()["config"]
    assert changed == {**config, "clock_skew": 10}
    # By form, a change knows the plugin's fields although it does not name it.
    form = (
        "config.enforce_headers=date&config.hide_credentials=true&config.clock_skew=0.5&config.algorithms[]=hmac-sha256"
    )
    changed = kong.form("PATCH", "plugins/hmac-authentication", form).json()["config"]
    assert changed == {
        **config,
        "enforce_headers": ["date"],
        "hide_credentials": True,
        "clock_skew": 0.5,
        "algorithms": ["hmac-sha256"],
    }
    # Null is the default: an absent clock skew could not be judged by.
    changed = kong.patch("plugins/hmac-authentication", {"config": {"clock_skew": None, "algorithms": None}}).json()
    assert {changed["config"][name] == HMAC[name] for name in ("clock_skew", "algorithms")} == {True}
    # What was not sent stays, inside of records too.
    assert (changed["config"]["enforce_headers"], changed["config"]["hide_credentials"]) == (["date"], True)
    events = AuditEvent._default_manager.filter(action="changed")
    assert {event.changes["fields"][0] for event in events} == {"config"}


def test_scopes_and_nested_addresses(kong: Kong) -> None:
    service = kong.made("services", {"name": "s", "host": "a"})
    route = kong.made("services/s/routes", {"name": "r", "paths": ["/"]})
    consumer = kong.made("consumers", {"username": "bob"})
    on_service = kong.made("services/s/plugins", {"name": "key-auth"})
    on_route = kong.made("routes/r/plugins", {"name": "key-auth"})
    limit = {"name": "rate-limiting", "config": {"minute": 5}}
    on_consumer = kong.made("consumers/bob/plugins", limit)
    both = kong.made("plugins", {**limit, "route": {"name": "r"}, "consumer": {"username": "bob"}})
    for made, scope in (
        (on_service, {"service": {"id": service["id"]}, "route": None, "consumer": None}),
        (on_route, {"service": None, "route": {"id": route["id"]}, "consumer": None}),
        (on_consumer, {"service": None, "route": None, "consumer": {"id": consumer["id"]}}),
        (both, {"service": None, "route": {"id": route["id"]}, "consumer": {"id": consumer["id"]}}),
    ):
        assert {name: made[name] for name in scope} == scope
    assert kong.get(f"routes/r/plugins/{on_route['id']}").json() == on_route
    assert kong.get(f"routes/r/plugins/{on_service['id']}").status_code == 404
    assert kong.get(f"plugins/{both['id']}/consumer").json() == consumer
    assert (
        len(kong.get("routes/r/plugins").json()["data"]) == len(kong.get("consumers/bob/plugins").json()["data"]) == 2
    )
    twice = kong.post("services/s/plugins", {"name": "key-auth"}).json()
    scopes = f'consumer=null,name="key-auth",route=null,service={{id="{service["id"]}"}}'
    assert twice["message"] == f"UNIQUE violation detected on '{{{scopes}}}'"
    assert kong.put(f"services/s/plugins/{on_service['id']}", {"name": "basic-auth"}).json()["name"] == "basic-auth"
    assert kong.delete("services/s").status_code == 400
    assert kong.delete("routes/r").status_code == kong.delete("services/s").status_code == 204
    assert [plugin["id"] for plugin in kong.get("plugins").json()["data"]] == [on_consumer["id"]]


WRONG: list[tuple[Any, Any]] = [
    ({"name": "hmac-auth", "config": {"clock_skew": 0}}, {"config": {"clock_skew": "value must be greater than 0"}}),
    ({"name": "hmac-auth", "config": {"clock_skew": -1}}, {"config": {"clock_skew": "value must be greater than 0"}}),
    (
        {"name": "hmac-auth", "config": {"enforce_headers": ["date", "date,dummy"]}},
        {
            "config": {
                "enforce_headers": [
                    None,
                    "expected the name of one header, or @request-target; several names are several values",
                ]
            }
        },
    ),
    ({"name": "hmac-auth", "config": {"anonymous": ""}}, {"config": {"anonymous": "length must be at least 1"}}),
    (
        {"name": "hmac-auth", "config": {"algorithms": ["hmac-sha256", "md5"]}},
        {
            "config": {
                "algorithms": [None, "expected one of: hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512"],
            }
        },
    ),
    ({"name": "hmac-auth", "config": {"x": 1}}, {"config": {"x": "unknown field"}}),
    ({"name": "hmac-auth", "config": []}, None),
    (
        {"name": "key-auth", "config": {"key_names": ["x-key", "hello\\world"]}},
        {
            "config": {
                "key_names": [
                    None,
                    "bad header name 'hello\\world', allowed characters are A-Z, a-z, 0-9, '_', and '-'",
                ]
            }
        },
    ),
    ({"name": "key-auth", "config": {"key_names": ["x.key"]}}, None),
    ({"name": "hmac-auth", "config": "x"}, {"config": "expected a record"}),
    (
        {"name": "hmac-auth", "config": {"enforce_headers": "date"}},
        {"config": {"enforce_headers": "expected an array"}},
    ),
    ({"name": "hmac-auth", "protocols": ["tcp"]}, {"protocols": ["expected one of: grpc, grpcs, http, https"]}),
    ({"name": "hmac-auth", "consumer": {"username": "bob"}}, {"consumer": "value must be null"}),
    (
        {"name": "limit-count"},
        {"name": "plugin 'limit-count' not enabled; add it to the 'plugins' configuration property"},
    ),
    (
        {"name": "acl"},
        {
            "@entity": [
                "exactly one of these fields must be non-empty: 'config.allow', 'config.deny'",
                "at least one of these fields must be non-empty: 'config.allow', 'config.deny'",
            ]
        },
    ),
    (
        {"name": "acl", "config": {"allow": ["a"], "deny": ["b"]}},
        {"@entity": ["exactly one of these fields must be non-empty: 'config.allow', 'config.deny'"]},
    ),
    (
        {"name": "jwt", "config": {"maximum_expiration": 5}},
        {
            "config": {"claims_to_verify": "expected to contain: exp"},
            "@entity": ["failed conditional validation given value of field 'config.maximum_expiration'"],
        },
    ),
    (
        {"name": "rate-limiting"},
        {
            "@entity": [
                "at least one of these fields must be non-empty: 'config.second', 'config.minute', 'config.hour', "
                "'config.day', 'config.month', 'config.year'"
            ]
        },
    ),
    (
        {"name": "rate-limiting", "config": {"second": 20, "hour": 10}},
        {"config": "The limit for hour(10.0) cannot be lower than the limit for second(20.0)"},
    ),
    (
        {"name": "rate-limiting", "config": {"second": 1, "limit_by": "header"}},
        {
            "config": {"header_name": "required field missing"},
            "@entity": ["failed conditional validation given value of field 'config.limit_by'"],
        },
    ),
]


def test_the_schema_of_a_configuration_under_its_old_address(kong: Kong) -> None:
    shown = kong.get("plugins/schema/key-auth")
    assert (shown.status_code, shown.json()["type"]) == (200, "record")
    assert {"config": shown.json()} in kong.get("schemas/plugins/key-auth").json()["fields"]
    missing = kong.get("plugins/schema/foobar")
    assert (missing.status_code, missing.json()) == (404, {"message": "No plugin named 'foobar'"})


@pytest.mark.parametrize(("body", "fields"), WRONG)
def test_wrong_configurations(kong: Kong, body: Any, fields: Any) -> None:
    kong.made("consumers", {"username": "bob"})
    answer = kong.post("plugins", body)
    if fields is None:
        assert answer.status_code == 201
        return
    assert (answer.status_code, answer.json()["fields"]) == (400, fields)
    # Validation alone says the same, and writes nothing.
    alone = kong.post("schemas/plugins/validate", body)
    assert alone.json()["fields"] == fields
    assert kong.get("plugins").json()["data"] == []


def test_validation_and_schemas(kong: Kong) -> None:
    good = kong.post("schemas/plugins/validate", {"name": "key-auth", "config": {"key_names": ["k"]}})
    assert (good.status_code, good.json()) == (200, {"message": "schema validation successful"})
    fields = kong.get("schemas/plugins/hmac-auth").json()["fields"]
    config = {name: field for entry in fields[-1]["config"]["fields"] for name, field in entry.items()}
    assert config["algorithms"]["elements"]["one_of"] == HMAC["algorithms"]
    assert (config["clock_skew"]["gt"], config["clock_skew"]["default"]) == (0, 300)
    assert kong.get("schemas/consumers").json()["endpoint_key"] == "username"
    assert "hmac-auth" in kong.get("plugins/enabled").json()["enabled_plugins"]


def test_plugins_that_the_settings_leave_out(kong: Kong, settings: Any) -> None:
    kong.made("apis", {"request_path": "/a", "upstream_url": "http://a"})
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "PLUGINS_AVAILABLE": ["key-auth"]}
    refused = kong.post("plugins", {"name": "hmac-auth"}).json()["fields"]
    assert refused == {"name": "plugin 'hmac-auth' not enabled; add it to the 'plugins' configuration property"}
    old = kong.form("POST", "apis/a/plugins", "name=hmac-auth")
    assert (old.status_code, old.json()) == (400, {"config": 'Plugin "hmac-auth" not found'})
    assert kong.get("plugins/enabled").json() == {"enabled_plugins": ["key-auth"]}


@pytest.mark.parametrize(
    ("form", "status", "answer"),
    [
        ("", 400, {"name": "name is required"}),
        ("name=nix", 400, {"config": 'Plugin "nix" not found'}),
        ("name=hmac-auth&config.clock_skew=-1", 400, {"config.clock_skew": "Clock Skew should be positive"}),
        ("name=hmac-auth&config.clock_skew=x", 400, {"config.clock_skew": "clock_skew is not a number"}),
        ("name=hmac-auth&config.algorithms=hmac-sha1", 400, {"config.algorithms": "algorithms is an unknown field"}),
        ("name=hmac-auth&consumer_id=1", 400, {"message": "No consumer can be configured for that plugin"}),
        ("name=rate-limiting&config.day=1&consumer_id=1", 400, {"consumer_id": "consumer_id 1 does not exist"}),
        ("name=key-auth", 409, {"message": "Plugin configuration already exists"}),
        ("name=hmac-auth&enabled=perhaps", 400, {"enabled": "enabled is not a boolean"}),
    ],
)
def test_refusals_of_kong_0x(kong: Kong, form: str, status: int, answer: Any) -> None:
    kong.made("apis", {"request_path": "/a", "upstream_url": "http://a"})
    kong.made("apis/a/plugins", {"name": "key-auth"})
    refused = kong.form("POST", "apis/a/plugins", form)
    assert (refused.status_code, refused.json()) == (status, answer)


def test_plugins_of_kong_0x(kong: Kong) -> None:
    api = kong.made("apis", {"request_path": "/a", "upstream_url": "http://a"})
    made = kong.form("POST", "apis/a/plugins", "name=hmac-auth&config.hide_credentials=true&config.clock_skew=0").json()
    assert (made["api_id"], made["config"]["hide_credentials"], made["config"]["clock_skew"]) == (api["id"], True, 0)
    assert made["created_at"] > 10**12 and "consumer_id" not in made and "algorithms" not in made["config"]
    assert kong.get("apis/a/plugins").json() == {"data": [made]}
    assert kong.get(f"apis/a/plugins/{made['id']}").json() == made
    changed = kong.patch(f"apis/a/plugins/{made['id']}", {"config": {"clock_skew": 60}}).json()
    assert changed == {**made, "config": {**made["config"], "clock_skew": 60}}
    replaced = kong.put("apis/a/plugins", {"id": made["id"], "name": "hmac-auth", "enabled": False}).json()
    assert (replaced["enabled"], replaced["config"]["hide_credentials"]) == (False, False)
    keys = kong.form("PUT", "apis/a/plugins", "name=key-auth&config.key_names=a, b")
    assert (keys.status_code, keys.json()["config"]["key_names"]) == (201, ["a", "b"])
    # Today's addresses show and change it as what it is.
    today = kong.get(f"plugins/{made['id']}").json()
    assert today["service"] == {"id": api["id"]} and "algorithms" not in today["config"]
    assert kong.patch(f"plugins/{made['id']}", {"enabled": True}).json() == {
        **today,
        "enabled": True,
        "updated_at": kong.get(f"plugins/{made['id']}").json()["updated_at"],
    }
    refused = kong.patch(f"plugins/{made['id']}", {"config": {"algorithms": ["hmac-sha256"]}})
    assert refused.json()["fields"] == {"config": {"algorithms": "not known to the plugins of Kong 0.x"}}
    assert kong.delete(f"apis/a/plugins/{made['id']}").status_code == 204
    assert kong.delete(f"apis/a/plugins/{made['id']}").status_code == 404
