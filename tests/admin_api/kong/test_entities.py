"""Entities of Kong's admin API: shapes, defaults, addresses, upserts, references. Expected values are Kong 3's."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from hmac_gateway.models import AuditEvent

from .support import Kong

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STAMPS = {"id", "created_at", "updated_at"}


def bare(entity: dict[str, Any]) -> dict[str, Any]:
    """An entity without what the server makes."""
    assert UUID.fullmatch(entity["id"])
    assert all(isinstance(entity[name], int) for name in STAMPS - {"id"} if name in entity)
    return {name: item for name, item in entity.items() if name not in STAMPS}


def test_a_service_shows_every_field_and_takes_a_url(kong: Kong) -> None:
    made = kong.made("services", {"name": "s", "url": "https://a.example/x", "retries": 0, "tags": ["t", "t"]})
    assert bare(made) == {
        "name": "s",
        "retries": 0,
        "protocol": "https",
        "host": "a.example",
        "port": 443,
        "path": "/x",
        "connect_timeout": 60000,
        "write_timeout": 60000,
        "read_timeout": 60000,
        "tags": ["t"],
        "client_certificate": None,
        "tls_verify": None,
        "tls_verify_depth": None,
        "ca_certificates": None,
        "enabled": True,
    }
    assert kong.get("services/s").json() == made == kong.get(f"services/{made['id']}/").json()


def test_a_route_shows_every_field(kong: Kong) -> None:
    service = kong.made("services", {"name": "s", "host": "a.example"})
    made = kong.made("services/s/routes", {"paths": ["/a", "~/b/\\d+$"], "headers": {"X-V": ["1", "~*2.*"]}})
    assert bare(made) == {
        "name": None,
        "protocols": ["http", "https"],
        "methods": None,
        "hosts": None,
        "paths": ["/a", "~/b/\\d+$"],
        "headers": {"X-V": ["1", "~*2.*"]},
        "https_redirect_status_code": 426,
        "regex_priority": 0,
        "strip_path": True,
        "path_handling": "v0",
        "preserve_host": False,
        "request_buffering": True,
        "response_buffering": True,
        "snis": None,
        "sources": None,
        "destinations": None,
        "tags": None,
        "service": {"id": service["id"]},
    }
    assert kong.get(f"routes/{made['id']}/service").json() == service
    assert kong.get(f"services/s/routes/{made['id']}").json() == made
    assert kong.get("services/s/routes").json() == {"data": [made], "next": None}
    kept = {"snis": ["a.example"], "https_redirect_status_code": 301, "request_buffering": False}
    changed = kong.patch(f"routes/{made['id']}", kept).json()
    assert changed == {**made, **kept, "updated_at": changed["updated_at"]}


def test_an_upstream_shows_every_field_and_its_targets(kong: Kong) -> None:
    made = kong.made("upstreams", {"name": "u.internal", "hash_on": "header", "hash_on_header": "X-User"})
    shown = bare(made)
    checks = shown.pop("healthchecks")
    assert checks["active"]["unhealthy"]["http_statuses"] == [429, 404, 500, 501, 502, 503, 504, 505]
    assert checks["passive"]["healthy"]["http_statuses"] == [*range(200, 209), 226, *range(300, 309)]
    assert (checks["threshold"], checks["active"]["http_path"], checks["active"]["concurrency"]) == (0, "/", 10)
    assert shown == {
        "name": "u.internal",
        "algorithm": "consistent-hashing",
        "hash_on": "header",
        "hash_fallback": "none",
        "hash_on_header": "X-User",
        "hash_fallback_header": None,
        "hash_on_cookie": None,
        "hash_on_cookie_path": "/",
        "hash_on_query_arg": None,
        "hash_fallback_query_arg": None,
        "hash_on_uri_capture": None,
        "hash_fallback_uri_capture": None,
        "slots": 10000,
        "tags": None,
        "host_header": None,
        "client_certificate": None,
        "use_srv_name": False,
    }
    target = kong.made("upstreams/u.internal/targets", {"target": "10.0.0.1"})
    assert (target["target"], target["weight"], target["upstream"]) == ("10.0.0.1:8000", 100, {"id": made["id"]})
    assert isinstance(target["created_at"], float)
    assert kong.get("upstreams/u.internal/targets/10.0.0.1:8000").json() == target
    assert kong.get("targets").status_code == 404
    again = kong.post("upstreams/u.internal/targets", {"target": "10.0.0.1"})
    assert (
        again.status_code == 409 and f'target="10.0.0.1:8000",upstream={{id="{made["id"]}"}}' in again.json()["message"]
    )
    health = kong.get("upstreams/u.internal/health").json()
    assert [entry["health"] for entry in health["data"]] == ["HEALTHCHECKS_OFF"] and UUID.fullmatch(health["node_id"])
    for state, shown in (("unhealthy", "UNHEALTHY"), ("healthy", "HEALTHCHECKS_OFF")):
        assert kong.put(f"upstreams/u.internal/targets/{target['id']}/{state}", None).status_code == 204
        assert kong.get("upstreams/u.internal/health").json()["data"][0]["health"] == shown
    assert kong.put("upstreams/u.internal/targets/10.0.0.2/healthy", None).status_code == 404
    merged = kong.patch("upstreams/u.internal", {"healthchecks": {"active": {"healthy": {"interval": 5}}}}).json()
    assert merged["healthchecks"]["active"]["healthy"] == {"interval": 5, "http_statuses": [200, 302], "successes": 0}
    assert kong.delete("upstreams/u.internal").status_code == 204
    assert kong.get(f"upstreams/{made['id']}/targets").status_code == 404


@pytest.mark.parametrize(
    ("path", "given", "shown"),
    [
        ("hmac-auth", {"username": "u"}, {"username": "u", "secret": "MADE"}),
        ("hmac-auth", {"username": "u", "secret": "s"}, {"username": "u", "secret": "********"}),
        ("key-auth", {}, {"key": "MADE", "ttl": None}),
        ("key-auth", {"key": "k"}, {"key": "********", "ttl": None}),
        ("basic-auth", {"username": "u", "password": "p"}, {"username": "u", "password": "********"}),
        (
            "jwt",
            {"key": "k"},
            {"key": "k", "secret": "MADE", "algorithm": "HS256", "rsa_public_key": None},
        ),
    ],
)
def test_credentials_are_made_masked_and_found(kong: Kong, path: str, given: Any, shown: Any) -> None:
    consumer = kong.made("consumers", {"username": "bob"})
    made = kong.made(f"consumers/bob/{path}", given)
    secret = next((made[name] for name, item in shown.items() if item == "MADE"), None)
    assert secret is None or re.fullmatch(r"[A-Za-z0-9]{32}", secret)
    assert bare(made) == {
        **{name: secret if item == "MADE" else item for name, item in shown.items()},
        "consumer": {"id": consumer["id"]},
        "tags": None,
    }
    masked = {name: "********" if secret and item == secret else item for name, item in made.items()}
    collection = f"{path}s"
    key = given.get("username") or given.get("key") or secret
    for address in (f"{collection}/{key}", f"{collection}/{made['id']}", f"consumers/bob/{path}/{key}"):
        assert kong.get(address).json() == masked, address
    assert kong.get(f"{collection}/{key}/consumer").json() == consumer
    # What was read can be written back: the mask means "unchanged".
    assert kong.put(f"{collection}/{made['id']}", masked).json() == masked
    assert kong.get(f"{collection}/{key}").json() == masked
    assert kong.get("consumers/nobody/" + path).status_code == 404
    assert kong.delete(f"consumers/bob/{path}/{key}").status_code == 204
    assert kong.delete(f"consumers/bob/{path}/{key}").status_code == 404
    assert kong.delete(f"{collection}/{key}").status_code == 204


def test_a_flat_credential_names_its_consumer(kong: Kong) -> None:
    kong.made("consumers", {"username": "bob"})
    refused = kong.post("hmac-auths", {"username": "u"}).json()
    assert refused["message"] == "schema violation (consumer: required field missing)"
    made = kong.made("hmac-auths", {"username": "u", "consumer": {"username": "bob"}})
    assert kong.get("hmac-auths/u/consumer").json()["username"] == "bob"
    assert kong.get("hmac-auths").json()["data"] == [{**made, "secret": "********"}]


def test_empty_lists_are_shown_as_such(kong: Kong) -> None:
    kong.made("routes", {"name": "r", "paths": ["/"], "methods": []})
    assert kong.get("routes/r").json()["methods"] == []
    changed = kong.patch("routes/r", {"paths": [], "hosts": ["a.example"]}).json()
    assert (changed["methods"], changed["paths"], changed["hosts"]) == ([], [], ["a.example"])
    changed = kong.patch("routes/r", {"paths": None, "methods": ["GET"]}).json()
    assert (changed["methods"], changed["paths"]) == (["GET"], None)


def test_times_in_milliseconds(kong: Kong) -> None:
    made = kong.put("upstreams/u", {"created_at": 1461276890000})
    assert (made.status_code, made.json()["created_at"]) == (200, 1461276890)


def test_public_keys_that_are_none(kong: Kong) -> None:
    kong.made("consumers", {"username": "bob"})
    refused = kong.post("consumers/bob/jwt", {"algorithm": "RS256", "rsa_public_key": "test"})
    assert (refused.status_code, refused.json()["fields"]) == (
        400,
        {
            "rsa_public_key": "invalid key",
            "@entity": ["failed conditional validation given value of field 'algorithm'"],
        },
    )


def test_put_creates_and_replaces_with_defaults(kong: Kong) -> None:
    first = kong.put("services/s", {"host": "a.example", "retries": 1, "tags": ["t"]})
    assert first.status_code == 200 and (first.json()["name"], first.json()["retries"]) == ("s", 1)
    second = kong.put("services/s", {"host": "b.example"}).json()
    assert (second["id"], second["retries"], second["tags"]) == (first.json()["id"], 5, None)
    assert second["created_at"] == first.json()["created_at"]
    chosen = "5f9d1c9e-1111-4222-8333-444455556666"
    by_id = kong.put(f"services/{chosen}", {"host": "c.example"}).json()
    assert (by_id["id"], by_id["name"]) == (chosen, None)
    upper = chosen.upper()
    assert kong.put(f"services/{upper}", {"host": "c.example", "id": upper}).json()["id"] == chosen
    other = "AAAAAAAA-1111-4222-8333-444455556666"
    assert kong.made("services", {"host": "d.example", "id": other})["id"] == other.lower()
    assert kong.get(f"services/{other}").status_code == kong.get(f"services/{other.lower()}").status_code == 200
    assert kong.made("routes", {"paths": ["/"], "service": {"id": other}})["service"] == {"id": other.lower()}
    clash = kong.put(f"services/{chosen}", {"host": "c.example", "name": "s"})
    assert (clash.status_code, clash.json()["code"]) == (409, 5)
    wrong = kong.put("services/s", {"host": "x", "id": chosen})
    assert (wrong.status_code, wrong.json()["fields"]) == (400, {"id": "immutable field cannot be updated"})
    taken = kong.post("services", {"id": chosen, "host": "x"})
    assert (taken.status_code, taken.json()["code"]) == (400, 3)
    assert kong.post("services", {"id": "s", "host": "x"}).json()["fields"] == {"id": "expected a valid UUID"}


def test_put_and_patch_through_a_foreign_field(kong: Kong) -> None:
    route = kong.made("routes", {"name": "r", "paths": ["/a"]})
    assert kong.get("routes/r/service").status_code == 404
    assert kong.patch("routes/r/service", {"retries": 2}).status_code == 404
    made = kong.put("routes/r/service", {"host": "a.example"}).json()
    assert kong.get("routes/r").json()["service"] == {"id": made["id"]} != route["service"]
    assert kong.patch("routes/r/service", {"retries": 2}).json()["retries"] == 2
    assert kong.delete("routes/r/service").status_code == 405


def test_what_is_referred_to_is_not_deleted_through_it(kong: Kong) -> None:
    kong.made("services", {"name": "s", "host": "a.example"})
    kong.made("routes", {"name": "r", "paths": ["/"], "service": {"name": "s"}})
    kong.made("routes", {"name": "alone", "paths": ["/"]})
    refused = kong.delete("routes/r/service")
    assert (refused.status_code, refused.json()) == (405, {"message": "Method not allowed"})
    for path in ("routes/alone/service", "routes/none/service", "hmac-auths/none/consumer"):
        assert kong.delete(path).status_code == 404


def test_names_may_look_like_ids_and_hold_anything(kong: Kong) -> None:
    name = "11111111-2222-4333-8444-555555555555"
    kong.made("consumers", {"username": name})
    assert kong.get(f"consumers/{name}").json()["username"] == name
    kong.made("consumers", {"username": "a b.é@x"})
    assert kong.get("consumers/a%20b.%C3%A9@x").status_code == 200
    assert kong.get("consumers?custom_id=none").json() == {"data": [], "next": None}
    made = kong.made("consumers", {"custom_id": "c-1"})
    assert kong.get("consumers?custom_id=c-1").json()["data"] == [made]
    assert kong.get("consumers/c-1").status_code == 404


def test_pages_and_tags(kong: Kong) -> None:
    made = [kong.made("consumers", {"username": f"u{n}", "tags": ["all", f"t{n % 2}"]}) for n in range(5)]
    ids, address = [], "consumers?size=2"
    while address:
        page = kong.get(address).json()
        ids += [entity["id"] for entity in page["data"]]
        assert ("offset" in page) == (page["next"] is not None)
        address = (page["next"] or "").removeprefix("/kong/")
    assert sorted(ids) == sorted(entity["id"] for entity in made)

    def names(query: str) -> list[str]:
        return sorted(entity["username"] for entity in kong.get(f"consumers?{query}").json()["data"])

    assert names("tags=all,t1") == ["u1", "u3"]
    assert names("tags=none/t1") == ["u1", "u3"]
    next_page = kong.get("consumers?tags=all,t0&size=2").json()
    assert "tags=all,t0&size=2" in next_page["next"] and len(next_page["data"]) == 2
    assert len(kong.get(next_page["next"].removeprefix("/kong/")).json()["data"]) == 1
    assert {entry["tag"] for entry in kong.get("tags").json()["data"]} == {"all", "t0", "t1"}
    assert kong.get("tags/t1").json()["data"][0]["entity_name"] == "consumers"


def test_what_others_refer_to_stays(kong: Kong) -> None:
    kong.made("services", {"name": "s", "host": "a.example"})
    kong.made("services/s/routes", {"name": "r", "paths": ["/"]})
    refused = kong.delete("services/s")
    assert (refused.status_code, refused.json()) == (
        400,
        {
            "code": 4,
            "name": "foreign key violation",
            "message": "an existing 'routes' entity references this 'services' entity",
            "fields": {"@referenced_by": "routes"},
        },
    )
    assert kong.delete("routes/r").status_code == kong.delete("services/s").status_code == 204
    assert kong.delete("services/s").status_code == 204


def test_every_write_is_told_to_the_audit_without_secrets(kong: Kong) -> None:
    kong.made("consumers", {"username": "bob"})
    kong.made("consumers/bob/hmac-auth", {"username": "u", "secret": "hush-hush"})
    kong.patch("hmac-auths/u", {"secret": "hush-hush-2", "tags": ["t"]})
    kong.delete("hmac-auths/u")
    events = list(AuditEvent._default_manager.order_by("id"))
    assert [(event.action, event.entity.split(".")[1], event.via) for event in events] == [
        ("added", "consumer", "kong-api"),
        ("added", "credential", "kong-api"),
        ("changed", "credential", "kong-api"),
        ("deleted", "credential", "kong-api"),
    ]
    changed = events[2].changes
    assert changed["fields"] == ["tags", "secret"] and changed["secret"] == "changed"
    assert (changed["before"]["tags"], changed["after"]["tags"]) == (None, ["t"])
    assert not any("hush" in str(event.changes) for event in events)


def test_a_key_in_its_last_moment_does_not_become_one_without_an_end(
    kong: Kong, monkeypatch: pytest.MonkeyPatch
) -> None:
    kong.made("consumers", {"username": "bob"})
    made = kong.made("consumers/bob/key-auth", {"key": "k", "ttl": 60})
    row = apps.get_model("hmac_consumers.Credential")._default_manager.get(pk=made["id"])
    soon = row.expires_at - timedelta(seconds=0.3)
    monkeypatch.setattr(timezone, "now", lambda: soon)
    assert kong.patch("key-auths/k", {"tags": ["t"]}).json()["ttl"] == 1
    row.refresh_from_db()
    assert row.expires_at is not None


def test_what_has_expired_is_gone_and_makes_room(kong: Kong) -> None:
    kong.made("consumers", {"username": "bob"})
    made = kong.made("consumers/bob/key-auth", {"key": "k", "ttl": 3600})
    # A second that has begun is not over: what was asked for is what is shown.
    assert 3590 <= made["ttl"] <= 3600 and kong.get("key-auths/k").status_code == 200
    assert kong.post("consumers/bob/key-auth", {"key": "k"}).status_code == 409
    rows = apps.get_model("hmac_consumers.Credential")._default_manager
    rows.filter(pk=made["id"]).update(expires_at=timezone.now())
    assert kong.get("key-auths/k").status_code == kong.get(f"key-auths/{made['id']}").status_code == 404
    assert kong.get("consumers/bob/key-auth").json()["data"] == []
    again = kong.made("consumers/bob/key-auth", {"key": "k"})
    assert [row["id"] for row in kong.get("key-auths").json()["data"]] == [again["id"]]


def test_what_the_console_made_is_shown_and_survives_a_change(kong: Kong) -> None:
    upstream = kong.made("upstreams", {"name": "u.local"})
    service, route = apps.get_model("hmac_proxy.Service"), apps.get_model("hmac_proxy.Route")
    service(id="by-hand", name="s", dialect="kong", upstream_id=upstream["id"]).save()
    route(id="direct", dialect="kong", paths=["/"], upstream_id=upstream["id"], enabled=False).save()
    route(id="own", name="own", dialect="kong", paths=["/"], this_site=True).save()
    shown = kong.get("services/by-hand").json()
    assert (shown["id"], shown["host"], shown["protocol"], shown["port"]) == ("by-hand", "u.local", "http", 80)
    assert kong.patch("services/s", {"retries": 1}).json()["host"] == "u.local"
    assert kong.put("services/s", {"host": "u.local"}).json()["id"] == "by-hand"
    assert service._default_manager.get().upstream_id == upstream["id"]
    assert kong.patch("routes/direct", {"paths": ["/x"]}).json()["paths"] == ["/x"]
    row = route._default_manager.get(pk="direct")
    assert (row.upstream_id, row.enabled) == (upstream["id"], False)
    # A route for this site itself is not Kong's to show or to change.
    assert [entity["id"] for entity in kong.get("routes").json()["data"]] == ["direct"]
    assert kong.get("routes/own").status_code == 404
    assert kong.post("routes", {"name": "own", "paths": ["/"]}).status_code == 409
    assert kong.delete("upstreams/u.local").json()["fields"] == {"@referenced_by": "services"}
    assert kong.patch("services/s", {"host": "other"}).json()["host"] == "other"
    assert service._default_manager.get().upstream_id is None


def test_it_can_be_mounted_anywhere(kong: Kong, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.admin_api.kong.mounted"
    elsewhere = Kong(base="/ops/gateway")
    for number in range(2):
        elsewhere.made("consumers/", {"username": f"u{number}"})
    page = elsewhere.get("consumers?size=1").json()
    assert page["next"].startswith("/ops/gateway/consumers?offset=")
    assert elsewhere.get(page["next"].removeprefix("/ops/gateway/")).json()["next"] is None
    assert elsewhere.get("").json()["tagline"] == "Welcome to kong"
