"""What a kong.yml means: every form of it gives the same rows, and what is wrong is said in Kong's words."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps

from hmac_gateway.portability import text
from hmac_gateway.portability.kong_match import derived_id
from hmac_gateway.portability.kong_values import migrated_path

from .kong import document, file, held, load, refused, take, yaml_of
from .support import wipe

pytestmark = pytest.mark.django_db
Route: Any = apps.get_model("hmac_proxy.Route")
Node: Any = apps.get_model("hmac_proxy.Node")
Service: Any = apps.get_model("hmac_proxy.Service")
Plugin: Any = apps.get_model("hmac_proxy.Plugin")
Credential: Any = apps.get_model("hmac_consumers.Credential")
Consumer: Any = apps.get_model("hmac_consumers.Consumer")
SIGN = {"name": "sign-request", "config": {"key_id": "k", "secret_key": "plugin-secret"}}


def actions(report: Any) -> list[tuple[str, str, str]]:
    return [(change.action, change.kind, change.id) for change in report.changes]


def test_everything_in_the_file_is_there() -> None:
    report = take(file())
    assert report.skipped == [] and {change.action for change in report.changes} == {"created"}
    orders = Service.objects.get(name="orders")
    assert (orders.protocol, orders.host, orders.port, orders.path) == ("https", "orders.internal", 8443, "/v1")
    assert (orders.retries, orders.timeout_connect, orders.timeout_send, orders.timeout_read) == (2, 1.5, 2.0, 30.0)
    route = Route.objects.get(name="orders-list")
    assert route.service == orders and route.paths == ["/orders", "~/orders/(?<id>[0-9]+)$"]
    assert (route.headers, route.regex_priority) == ({"x-version": ["1", "~*beta.*"]}, 7)
    assert (route.strip_path, route.path_handling, route.preserve_host) == (False, "v1", True)
    assert Service.objects.get(name="switched-off").enabled is False
    secrets = {row.identifier: row.get_secret() for row in Credential.objects.exclude(plugin="key-auth")}
    assert secrets == {
        "bob-hmac": "bob-secret",
        "bob-second": "0123",
        "bob-basic": "a:b c",
        "bob-jwt": "bob-jwt-secret-that-is-long-enough-for-hs384-0123456789",
    }
    assert Credential.objects.get(plugin="key-auth").get_secret() == "bob-key"
    assert {row.place.partition(":")[0] for row in Plugin.objects.all()} == {"global", "route", "service"}
    assert all(row.dialect == "kong" for row in (*Route.objects.all(), *Plugin.objects.all(), *Consumer.objects.all()))


def test_derived_ids_are_kongs() -> None:
    # From Kong's own tests of /config (spec/02-integration/04-admin_api/15-off_spec.lua).
    assert derived_id("services", "my-service") == "0855b320-0dd2-547d-891d-601e9b38647f"
    assert derived_id("consumers", "my-user") == "4b1b701d-de2b-5588-9aa2-3b97061d9f52"
    assert derived_id("routes", "my-route") == "481a9539-f49c-51b6-b2e2-fe99ee68866c"
    take(document(services=[{"name": "my-service", "url": "https://example.com", "plugins": [SIGN]}]))
    assert Service.objects.get().pk == "0855b320-0dd2-547d-891d-601e9b38647f"
    wanted = derived_id("plugins", "plugins:sign-request::0855b320-0dd2-547d-891d-601e9b38647f:")
    assert str(Plugin.objects.get().pk) == wanted
    # The id is made of the target as the file has it; the port is added later.
    take(document(upstreams=[{"name": "foo", "targets": [{"target": "10.20.30.40"}]}]))
    target = Node.objects.get(upstream__name="foo")
    assert (str(target.pk), target.port) == ("c830b59e-59cc-5392-adfd-b414d13adfc4", 8000)
    # As Kong makes it for another plugin of the same service.
    key = "plugins:file-log::0855b320-0dd2-547d-891d-601e9b38647f:"
    assert derived_id("plugins", key) == "661199ff-aa1c-5498-982c-d57a4bd6e48b"


NESTED = document(
    services=[
        {
            "name": "s",
            "url": "http://127.0.0.1:80",
            "plugins": [SIGN],
            "routes": [{"name": "r", "paths": ["/r"], "plugins": [SIGN]}, {"paths": ["/one"]}, {"paths": ["/two"]}],
        }
    ],
    consumers=[
        {
            "username": "bob",
            "hmacauth_credentials": [{"username": "h", "secret": "s"}],
            "jwt_secrets": [{"key": "j", "secret": "k" * 32}],
            "acls": [{"group": "g"}],
        }
    ],
    upstreams=[{"name": "u", "targets": [{"target": "10.0.0.1"}]}],
)


@pytest.mark.parametrize("form", ["name", "id", "record of a name", "record of an id"])
def test_flat_is_nested(form: str) -> None:
    take(NESTED)
    nested = held()
    wipe()
    ids = {"s": derived_id("services", "s"), "r": derived_id("routes", "r")}
    ids |= {"bob": derived_id("consumers", "bob"), "u": derived_id("upstreams", "u")}

    def to(name: str) -> Any:
        key = "username" if name == "bob" else "name"
        found = {"name": name, "id": ids[name], "record of a name": {key: name}, "record of an id": {"id": ids[name]}}
        return found[form]

    service, consumer, upstream = NESTED["services"][0], NESTED["consumers"][0], NESTED["upstreams"][0]
    lists = ("routes", "plugins", "targets", "hmacauth_credentials", "jwt_secrets", "acls")
    flat = document(
        # Children may stand before their parents.
        acls=[{"group": "g", "consumer": to("bob")}],
        jwt_secrets=[{**consumer["jwt_secrets"][0], "consumer": to("bob")}],
        hmacauth_credentials=[{**consumer["hmacauth_credentials"][0], "consumer": to("bob")}],
        targets=[{"target": "10.0.0.1", "upstream": to("u")}],
        plugins=[{**SIGN, "service": to("s")}, {**SIGN, "route": to("r")}],
        routes=[{"service": to("s"), **{k: v for k, v in r.items() if k not in lists}} for r in service["routes"]],
        services=[{name: value for name, value in service.items() if name not in lists}],
        consumers=[{"username": "bob"}],
        upstreams=[{"name": upstream["name"]}],
    )
    take(flat)
    assert held() == nested
    assert take(NESTED).changes == []


def test_references_to_rows_that_are_there() -> None:
    take(NESTED)
    more = document(
        routes=[{"name": "more", "paths": ["/more"], "service": "s"}],
        hmacauth_credentials=[{"username": "second", "secret": "x", "consumer": {"username": "bob"}}],
    )
    assert actions(take(more)) == [("created", "route", "more"), ("created", "hmacauth_credential", "second")]
    assert Route.objects.get(name="more").service.name == "s"
    by_id = document(
        routes=[{"name": "more", "paths": ["/more"], "service": {"id": derived_id("services", "s").upper()}}]
    )
    assert take(by_id).changes == []
    Service.objects.create(id="apisix", dialect="apisix", name="apisix")
    for text_or_id in ("apisix", {"id": "apisix"}):
        [problem] = refused(document(routes=[{"name": "x", "paths": ["/x"], "service": text_or_id}]))
        assert "invalid reference 'service: apisix' (no such entry in 'services')" in problem
    [problem] = refused(document(routes=[{"name": "x", "paths": ["/x"], "service": "none"}]))
    assert problem == "routes 1 (name x): service: invalid reference 'service: none' (no such entry in 'services')"
    # What is not in the file would be gone.
    assert refused(more, prune=True)[0].startswith("routes 1 (name more): service: invalid reference 'service: s'")


def test_old_formats_mark_regular_expressions() -> None:
    paths = ["/plain", "/a.b/c-d_e~f%20g", "/x/(?<id>[0-9]+)$", "/y/.*", "/a/../b//c", "/%61bc"]
    wanted = ["/plain", "/a.b/c-d_e~f%20g", "~/x/(?<id>[0-9]+)$", "~/y/.*", "/b/c", "/abc"]
    for version in ("1.1", "2.1"):
        old = {"_format_version": version, "services": [{"name": "s", "url": "http://x", "routes": [{"paths": paths}]}]}
        take({**old, "routes": [{"name": "flat", "paths": paths[2:3]}]})
        assert Route.objects.get(name="").paths == wanted
        assert Route.objects.get(name="flat").paths == wanted[2:3]
        wipe()
    take(document(routes=[{"paths": paths[:2]}]))
    assert Route.objects.get().paths == wanted[:2]
    assert refused(document(routes=[{"name": "r", "paths": paths[4:5]}])) == [
        "routes 1 (name r): paths.1: non-normalized path, consider use '/b/c' instead"
    ]


@pytest.mark.parametrize(
    ("old", "new"), [("/a%2fb", "/a%2Fb"), ("/a%2Eb(c)", "~/a\\.b(c)"), ("/a%7Bb+", "~/a\\{b+"), ("/end/.", "/end/")]
)
def test_escapes_in_old_paths(old: str, new: str) -> None:
    assert migrated_path(old) == new


DECK = """
_format_version: "3.0"
_workspace: team-a
_konnect: {runtime_group_name: default}
_info:
  select_tags: [team-a, dumped]
  defaults:
    service: {retries: 1, connect_timeout: 700}
    route: {preserve_host: true, protocols: [http]}
    upstream: {slots: 500, healthchecks: {active: {timeout: 4}}}
    target: {weight: 7}
    consumer_group_plugin: {}
_plugin_configs:
  signed: {key_id: shared, secret_key: plugin-secret, sign_body: true}
_unknown_to_us: {x: 1}
services:
- connect_timeout: 60000
  enabled: true
  host: httpbin.org
  name: svc1
  port: 80
  protocol: http
  read_timeout: 60000
  write_timeout: 60000
  tls_sans: null
  routes:
  - https_redirect_status_code: 426
    name: r1
    path_handling: v0
    paths: [/r1]
    strip_path: true
    plugins:
    - name: sign-request
      _config: signed
      config: {key_id: own}
      enabled: true
      protocols: [grpc, grpcs, http, https]
      run_on: first
consumers:
- username: alice
  groups: [{name: gold}]
  hmacauth_credentials:
  - {username: alice, secret: s3cret, tags: [own]}
upstreams:
- name: up1
  healthchecks: {active: {healthy: {interval: 3}}}
  targets:
  - target: 10.0.0.1:80
consumer_groups:
- name: gold
certificates: []
"""


def test_a_dump_of_deck() -> None:
    report = load(DECK)
    assert [tuple(found) for found in report.skipped] == [
        ("_workspace", "there is one configuration here; the entities are taken into it"),
        ("consumers 1 (username alice): groups (1 entry)", "Kong's consumer groups are not kept here"),
        ("consumer_groups (1 entry)", "Kong's consumer groups are not kept here"),
    ]
    service, route = Service.objects.get(), Route.objects.get()
    assert (service.retries, service.timeout_connect, service.tags) == (1, 60.0, ["team-a", "dumped"])
    assert (route.preserve_host, route.protocols, route.tags) == (True, ["http"], ["team-a", "dumped"])
    config = Plugin.objects.get().config
    assert config["key_id"] == "own" and config["sign_body"] is True
    assert Credential.objects.get().tags == ["own", "team-a", "dumped"]
    upstream: Any = apps.get_model("hmac_proxy.Upstream").objects.get()
    assert upstream.extra["slots"] == 500 and upstream.nodes.get().weight == 7
    active = upstream.checks["active"]
    assert (active["timeout"], active["healthy"]["interval"], active["concurrency"]) == (4, 3, 10)
    assert load(DECK).changes == []
    problem = refused(text.load(DECK.replace("_config: signed", "_config: none").encode(), end=False))[0]
    assert problem.endswith("plugins 1 (name sign-request): _config: no such entry in '_plugin_configs'")


def test_configurations_as_kong_dumps_them() -> None:
    # Complete, with what was not set as null; rate-limiting has its Redis twice from 3.6 on.
    given = """
    _format_version: "3.0"
    plugins:
    - name: rate-limiting
      config:
        {second: null, minute: 5, hour: null, day: null, month: null, year: null, limit_by: consumer, header_name: null,
         path: null, policy: local, fault_tolerant: true, hide_client_headers: false, error_code: 429, sync_rate: -1,
         error_message: API rate limit exceeded, redis_database: 0, redis_host: null, redis_password: null,
         redis_port: 6379, redis_server_name: null, redis_ssl: false, redis_ssl_verify: false, redis_timeout: 2000,
         redis_username: null, redis: {database: 0, host: null, password: null, port: 6379, server_name: null,
         ssl: false, ssl_verify: false, timeout: 2000, username: null}}
    - name: hmac-auth
      config:
        {hide_credentials: false, clock_skew: 300, anonymous: null, validate_request_body: false, enforce_headers: [],
         algorithms: [hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512], realm: null}
    - name: key-auth
      config:
        {key_names: [apikey], hide_credentials: false, anonymous: null, key_in_header: true, key_in_query: true,
         key_in_body: false, run_on_preflight: true, realm: null}
    - name: basic-auth
      config: {anonymous: null, hide_credentials: false, realm: service}
    - name: jwt
      config:
        {uri_param_names: [jwt], cookie_names: [], key_claim_name: iss, secret_is_base64: false, anonymous: null,
         claims_to_verify: null, run_on_preflight: true, maximum_expiration: 0, header_names: [authorization],
         realm: null}
    - name: acl
      config:
        {allow: [a], deny: null, hide_groups_header: false, include_consumer_groups: false,
         always_use_authenticated_groups: false}
    """
    assert len(load(given).changes) == 6 and load(given).changes == []
    wrong = given.replace("redis_password: null", 'redis_password: "{vault://env/redis}"')
    assert "vaults are not asked here" in refused(text.load(wrong.encode(), end=False))[0]


def test_a_dump_of_kong() -> None:
    dump = """
    _format_version: "3.0"
    _transform: false
    services:
    - {created_at: 1600000000, updated_at: 1700000000, id: 0855b320-0dd2-547d-891d-601e9b38647f, name: s, host: h,
       path: null, port: 80, protocol: http, retries: 5, tags: null, ws_id: 0dc6f45b-8f8d-40d2-a504-473544ee190b,
       client_certificate: null, ca_certificates: null, enabled: true, tls_verify: null, read_timeout: 60000}
    routes:
    - {id: 481A9539-F49C-51B6-B2E2-FE99EE68866C, name: null, paths: [/a], methods: null, hosts: null, headers: null,
       service: 0855b320-0dd2-547d-891d-601e9b38647f, ws_id: x, sources: null, snis: null, created_at: 1600000001}
    consumers:
    - {username: bob, custom_id: null, type: 0, id: 4b1b701d-de2b-5588-9aa2-3b97061d9f52}
    plugins:
    - {name: sign-request, config: {secret_key: k, key_id: k, later_field: null}, consumer_group: null, ordering: null,
       route: null, service: null, consumer: null, instance_name: null, enabled: true}
    """
    report = load(dump)
    assert len(report.changes) == 4 and not report.skipped
    assert Service.objects.get().created_at.timestamp() == pytest.approx(1600000000, abs=0.001)
    assert Route.objects.get().pk == "481a9539-f49c-51b6-b2e2-fe99ee68866c"
    assert Route.objects.get().service_id == "0855b320-0dd2-547d-891d-601e9b38647f"
    assert load(dump).changes == []


def test_what_is_not_held_is_named() -> None:
    given = document(
        certificates=[{"cert": "c", "key": "k", "snis": [{"name": "x"}]}],
        snis=[{"name": "x"}, {"name": "y"}],
        vaults=[{"name": "env"}],
        key_sets=[],
        services=[{"name": "s", "url": "https://h", "client_certificate": {"id": "x"}, "ca_certificates": ["y"]}],
        consumers=[{"username": "c", "oauth2_credentials": [{"name": "o"}]}],
        plugins=[{"name": "prometheus"}, {"name": "ip-restriction", "enabled": False}],
    )
    named = {what.partition(" (")[0] for what, _ in take(given, dry_run=True).skipped}
    assert named == {"certificates", "snis", "vaults", "services 1", "consumers 1", "plugins 1", "plugins 2"}
    strict = refused(given, strict=True)
    assert len(strict) == 8 and all(problem.endswith("(strict)") for problem in strict)


def test_plugins_that_keep_somebody_out_are_not_passed_over() -> None:
    given = document(plugins=[{"name": "oauth2"}, {"name": "my-own-plugin"}, {"name": "cors"}])
    problems = refused(given)
    assert [problem.partition(";")[0] for problem in problems] == [
        "plugins 1 (name oauth2): name: plugin 'oauth2' not enabled",
        "plugins 2 (name my-own-plugin): name: plugin 'my-own-plugin' not enabled",
    ]
    assert problems[0].endswith("(--skip-plugin oauth2)")
    report = take(given, without=["oauth2", "my-own-plugin"])
    assert [found.why for found in report.skipped[:2]] == ["left out, as was asked for"] * 2


HASHED = "da39a3ee5e6b4b0d3255bfef95601890afd80709"


def test_hashed_passwords_are_refused() -> None:
    def given(password: str, **head: Any) -> Any:
        basic = [{"username": "b", "password": password}]
        return {**document(consumers=[{"username": "c", "basicauth_credentials": basic}]), **head}

    assert "`_transform: false` says that it is hashed" in refused(given("plain", _transform=False))[0]
    [problem] = refused(given(HASHED))
    assert "a hashed password cannot be taken over" in problem and HASHED not in problem
    take(given(HASHED, _transform=True))
    assert Credential.objects.get().get_secret() == HASHED
    assert HASHED in yaml_of() and take(text.load(yaml_of().encode(), end=False)).changes == []


def test_secrets_that_are_none() -> None:
    def given(**secret: Any) -> Any:
        return document(consumers=[{"username": "c", "hmacauth_credentials": [{"username": "h", **secret}]}])

    assert refused(given())[0].endswith(
        "secret: required field missing; one that is made here would be shown to nobody"
    )
    assert refused(given(secret="********"))[0].endswith(
        "stands for a secret that is stored already, and there is none"
    )
    assert "vaults are not asked here" in refused(given(secret="{vault://env/secret}"))[0]
    take(given(secret="first"))
    # Absent or masked: what is stored stays.
    for same in (given(), given(secret="********"), given(secret="first")):
        assert take(same).changes == []
    assert Credential.objects.get().get_secret() == "first"


@pytest.mark.parametrize(
    ("kind", "field"),
    [("keyauth_credentials", "key"), ("basicauth_credentials", "password"), ("jwt_secrets", "secret")],
)
def test_a_mask_is_no_secret(kind: str, field: str) -> None:
    name = {"basicauth_credentials": {"username": "u"}, "jwt_secrets": {"key": "k"}}.get(kind, {})
    [problem] = refused(document(consumers=[{"username": "c", kind: [{**name, field: "********"}]}]))
    assert problem.endswith(f"{field}: ******** stands for a secret that is stored already, and there is none")
    plugin = {"name": "sign-request", "config": {"key_id": "k", "secret_key": "********"}}
    assert "the mask stands for one that is stored already" in refused(document(plugins=[plugin]))[0]


def test_places_for_the_environment() -> None:
    given = document(
        services=[{"name": "s", "host": '${{ env "DECK_HOST" }}', "port": '${{ env "DECK_PORT" | toInt }}'}]
    )
    assert refused(given) == [
        'services 1 (name s): it uses ${{ env "DECK_HOST" }}; --env fills such places from the environment'
    ]
    assert refused(given, environ={"DECK_HOST": "h"}) == [
        "services 1 (name s): the environment variable DECK_PORT is not set"
    ]
    assert "is not what toInt takes" in refused(given, environ={"DECK_HOST": "h", "DECK_PORT": "x"})[0]
    take(given, environ={"DECK_HOST": "h.example", "DECK_PORT": "81"})
    assert (Service.objects.get().host, Service.objects.get().port) == ("h.example", 81)
