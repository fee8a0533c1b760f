"""The console through Django's test client: what an operator does, and that secrets are seen once."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client, override_settings
from django.urls import reverse

from consumers.models import Consumer, Credential
from hmac_gateway.forms import JsonField, LinesField, PairsField
from hmac_gateway.models import AdminKey, AuditEvent, Rejection, WorkerStatus
from proxy.models import Node, Plugin, PluginConfig, Route, Service, Upstream

# WhiteNoise warns when nobody ran collectstatic; the console finds its files without.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

OURS = [model for model in admin.site._registry if model._meta.app_label.startswith("hmac_")]


@pytest.fixture
def console(client: Client) -> Client:
    user = get_user_model().objects.create_superuser("root", "root@example.com", "pw")
    client.force_login(user)
    return client


def url(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def formset(prefix: str, *rows: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    data: dict[str, Any] = {f"{prefix}-TOTAL_FORMS": len(rows), f"{prefix}-INITIAL_FORMS": initial}
    for number, row in enumerate(rows):
        data |= {f"{prefix}-{number}-{key}": value for key, value in row.items()}
    return data


def errors_of(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response
    return dict(response.context["adminform"].form.errors)


UPSTREAM = {"id": "orders", "dialect": "apisix", "enabled": "on", "type": "roundrobin", "scheme": "http"}
UPSTREAM |= {"pass_host": "pass"}
ROUTE = {"id": "r1", "dialect": "apisix", "enabled": "on", "priority": "0", "regex_priority": "0"}
ROUTE |= {"path_handling": "v0", "paths": "/orders*", "protocols": "http\nhttps"} | formset("plugins")


def secrets_on(response: Any) -> list[str]:
    found = re.findall(r'<input type="text" id="secret-\d+" value="([^"]*)"', response.content.decode())
    return [html.unescape(value) for value in found]


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.label)
def test_lists_and_add_pages_open(console: Client, model: Any) -> None:
    assert console.get(url(model, "changelist"), {"q": "x"}).status_code == 200
    read_only = model in (AuditEvent, Rejection, WorkerStatus)
    assert console.get(url(model, "add")).status_code == (403 if read_only else 200)


def test_change_pages_open(console: Client) -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    credential = Credential(consumer=consumer, plugin="hmac-auth", identifier="id-1")
    credential.set_secret("the-secret")
    credential.save()
    upstream = Upstream(id="u")
    upstream.save()
    node = Node(upstream=upstream, host="127.0.0.1")
    service = Service(id="s", upstream=upstream)
    route = Route(id="r", service=service, paths=["/a"])
    bundle = PluginConfig(id="b")
    for row in (node, service, route, bundle):
        row.save()
    plugin = Plugin(name="hmac-auth", route=route)
    plugin.save()
    rejection = Rejection.objects.create(
        request_id="q",
        lane="gateway",
        reason="expired",
        status=401,
        method="GET",
        path="/",
        sealed_request="sealed-head",
    )
    worker = WorkerStatus.objects.create(id="w", host="h", pid=1, role="gateway")
    event = AuditEvent.record(actor="a", action="changed", instance=route, via="rest")
    key, _ = AdminKey.create_key("ci")
    rows = (consumer, credential, upstream, node, service, route, bundle, plugin, rejection, worker, event, key)
    for row in rows:
        page = console.get(url(type(row), "change", row.pk))
        assert page.status_code == 200
        assert console.get(url(type(row), "changelist")).status_code == 200
        for hidden in ("the-secret", credential.sealed_secret, "sealed-head", key.digest):
            assert hidden not in page.content.decode()


def test_tables_name_what_has_a_name_and_shorten_ids(console: Client) -> None:
    key = "7e76a81e-1c24-498f-8479-c15686f26b86"
    Route(id=key, name="orders", dialect="kong", paths=["/orders"]).save()
    Route(id="plain-id", paths=["/plain"]).save()
    Plugin(name="key-auth", dialect="kong", route_id=key).save()
    Plugin(name="acl", dialect="kong", config={"allow": ["a"]}).save()
    for number, route in enumerate((key, "0e76a81e-0000-498f-8479-c15686f26b86", "plain-id")):
        Rejection.objects.create(
            request_id=f"q{number}", lane="gateway", reason="expired", status=401, route_id=route, sealed_request=""
        )
    routes = console.get(url(Route, "changelist")).content.decode()
    assert f'<span title="{key}">7e76a81e…</span>' in routes and ">plain-id</a>" in routes
    plugins = console.get(url(Plugin, "changelist")).content.decode()
    assert "route orders" in plugins and "every route" in plugins
    rejected = console.get(url(Rejection, "changelist")).content.decode()
    for shown in (">orders<", ">0e76a81e…<", ">plain-id<"):
        assert shown in rejected


def test_upstream_with_nodes_service_and_route(console: Client) -> None:
    nodes = formset(
        "nodes",
        {"host": "10.0.0.1", "port": "8080", "weight": "3", "priority": "0", "enabled": "on"},
        {"host": "10.0.0.2", "port": "8080", "weight": "1", "priority": "0", "enabled": "on"},
    )
    answer = console.post(url(Upstream, "add"), UPSTREAM | nodes | {"labels": "team=a\nenv=x=y", "keepalive": ""})
    assert answer.status_code == 302, answer.context["errors"]
    upstream = Upstream.objects.get(pk="orders")
    assert [str(node) for node in upstream.nodes.order_by("host")] == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert upstream.labels == {"team": "a", "env": "x=y"}
    assert upstream.keepalive == {}

    service = {"id": "s1", "dialect": "apisix", "enabled": "on", "upstream": "orders", "strip_path_prefix": "on"}
    answer = console.post(url(Service, "add"), service | formset("routes") | formset("plugins"))
    assert answer.status_code == 302, answer.context["errors"]

    route = ROUTE | {"service": "s1", "methods": "GET\nPOST\n", "vars": '[["arg_v", "==", "2"]]'}
    route |= formset("plugins", {"name": "hmac-auth", "config": "{}", "dialect": "apisix", "enabled": "on"})
    answer = console.post(url(Route, "add"), route)
    assert answer.status_code == 302, answer.context["errors"]
    made = Route.objects.get(pk="r1")
    assert (made.paths, made.methods, made.vars) == (["/orders*"], ["GET", "POST"], [["arg_v", "==", "2"]])
    assert [plugin.place for plugin in made.plugins.all()] == ["route:r1"]
    events = AuditEvent.objects.filter(via="console", actor="root").values_list("entity", flat=True)
    assert set(events) == {"hmac_proxy.upstream", "hmac_proxy.service", "hmac_proxy.route"}


def test_route_within_its_service(console: Client) -> None:
    service = {"id": "s1", "dialect": "apisix", "enabled": "on", "host": "localhost", "strip_path_prefix": "on"}
    routes = formset("routes", {"id": "in-line", "name": "", "paths": "/x*", "methods": "", "enabled": "on"})
    answer = console.post(url(Service, "add"), service | routes | formset("plugins"))
    assert answer.status_code == 302, answer.context["errors"]
    assert Route.objects.get(pk="in-line").service_id == "s1"


@pytest.mark.parametrize(
    ("changed", "field", "text"),
    [
        ({"id": "not/a/key"}, "id", "1 to 64 characters"),
        ({"paths": "orders"}, "paths", "&#x27;orders&#x27;, allowed is a path that starts with /"),
        ({"paths": ""}, "paths", "at least one path"),
        ({"hosts": "https://x"}, "hosts", "a host name"),
        ({"methods": "FETCH"}, "methods", "one of GET, POST"),
        (
            {"headers": "{"},
            "headers",
            "not valid JSON: Expecting property name enclosed in double quotes (line 1, column 2)",
        ),
        ({"vars": '[["a", "=", "b"]]'}, "vars", "one of"),
        ({"remote_addrs": "10.0.0.0/99"}, "remote_addrs", "an IP address or a network"),
        ({"timeout_read": "0"}, "timeout_read", "greater than 0"),
        ({"labels": "novalue"}, "labels", "one key=value per line"),
        ({"this_site": "on", "service": "s1"}, "this_site", "neither"),
    ],
)
def test_errors_land_on_their_fields(console: Client, changed: dict[str, str], field: str, text: str) -> None:
    Service(id="s1").save()
    found = errors_of(console.post(url(Route, "add"), ROUTE | changed))
    assert list(found) == [field]
    assert text in str(found[field])
    assert not Route.objects.exists()


def test_errors_of_an_upstream(console: Client) -> None:
    found = errors_of(console.post(url(Upstream, "add"), UPSTREAM | {"pass_host": "rewrite"} | formset("nodes")))
    assert found == {"upstream_host": ["`upstream_host` can't be empty when `pass_host` is `rewrite`"]}
    bad = formset("nodes", {"host": "http://x", "port": "70000", "weight": "1", "priority": "0"})
    page = console.post(url(Upstream, "add"), UPSTREAM | bad)
    assert page.status_code == 200
    node = page.context["inline_admin_formsets"][0].formset.forms[0]
    assert set(node.errors) == {"host", "port"}


def test_a_wrong_plugin_config_is_an_error_on_config(console: Client) -> None:
    config = '{"clock_skew": 0}'
    plugins = formset("plugins", {"name": "hmac-auth", "config": config, "dialect": "apisix", "enabled": "on"})
    page = console.post(url(Route, "add"), ROUTE | plugins)
    assert page.status_code == 200
    form = page.context["inline_admin_formsets"][0].formset.forms[0]
    assert list(form.errors) == ["config"]
    assert "clock_skew" in str(form.errors["config"])


def test_an_error_on_a_hidden_field_is_shown_on_top(console: Client) -> None:
    # The inline shows no protocols; a row that has wrong ones must not crash the page.
    route = Route(id="r1", paths=["/a"])
    route.save()
    plugin = Plugin(name="hmac-auth", route=route, protocols=["smtp"])
    plugin.save()
    row = {"id": str(plugin.pk), "route": "r1", "name": "hmac-auth", "config": "{}", "dialect": "apisix"}
    page = console.post(url(Route, "change", "r1"), ROUTE | formset("plugins", row, initial=1))
    assert page.status_code == 200
    assert "smtp" in str(page.context["inline_admin_formsets"][0].formset.forms[0].non_field_errors())


def test_a_secret_is_shown_once(console: Client) -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    data = {"consumer": consumer.pk, "plugin": "hmac-auth", "identifier": "jack-1", "enabled": "on"}
    data |= {"dialect": "apisix", "public_id": "c1", "secret": ""}
    answer = console.post(url(Credential, "add"), data)
    assert answer.status_code == 302, answer.context["errors"]
    assert answer["Location"] == url(Credential, "shown_once")
    credential = Credential.objects.get()
    secret = credential.get_secret()
    assert len(secret) >= 32
    assert all(secret not in str(value) for value in console.session.items())

    page = console.get(answer["Location"])
    assert secrets_on(page) == [secret]
    assert "no-store" in page["Cache-Control"]
    again = console.get(answer["Location"])
    assert secrets_on(again) == []
    assert secret not in console.get(url(Credential, "change", credential.pk)).content.decode()
    assert secret not in console.get(url(Credential, "changelist")).content.decode()


def test_an_empty_secret_keeps_it_and_a_new_one_replaces_it(console: Client) -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    credential = Credential(consumer=consumer, public_id="c1", plugin="hmac-auth", identifier="jack-1")
    credential.set_secret("first")
    credential.save()
    data = {"consumer": consumer.pk, "identifier": "jack-2", "enabled": "on", "dialect": "apisix"}
    data |= {"public_id": "c1", "settings": "", "secret": ""}
    page = url(Credential, "change", credential.pk)
    answer = console.post(page, data)
    assert answer["Location"] == url(Credential, "changelist")
    credential.refresh_from_db()
    assert (credential.get_secret(), credential.identifier) == ("first", "jack-2")

    answer = console.post(page, data | {"secret": " second "})
    assert secrets_on(console.get(answer["Location"])) == [" second "]
    credential.refresh_from_db()
    assert credential.get_secret() == " second "


def test_credentials_added_with_their_consumer(console: Client) -> None:
    rows = formset(
        "credentials",
        {"plugin": "hmac-auth", "identifier": "jack-1", "secret": "", "enabled": "on"},
        {"plugin": "key-auth", "identifier": "", "secret": "my-own-key", "enabled": "on"},
    )
    data = {"username": "jack", "enabled": "on", "dialect": "apisix"} | rows | formset("acls", {"group": "gold"})
    answer = console.post(url(Consumer, "add"), data | formset("plugins"))
    assert answer.status_code == 302, answer.context["errors"]
    assert answer["Location"] == url(Consumer, "shown_once")
    hmac_auth = Credential.objects.get(plugin="hmac-auth")
    assert secrets_on(console.get(answer["Location"])) == [hmac_auth.get_secret(), "my-own-key"]
    key = Credential.objects.get(plugin="key-auth")
    assert re.fullmatch("[0-9a-f]{64}", key.identifier)
    for page in (url(Credential, "changelist"), url(Credential, "change", key.pk), url(Consumer, "changelist")):
        assert key.identifier not in console.get(page).content.decode()


def test_rotating_keeps_the_present_secret_for_a_time(console: Client) -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    credential = Credential(consumer=consumer, plugin="hmac-auth", identifier="jack-1")
    credential.set_secret("first")
    credential.save()
    page = url(Credential, "rotate", credential.pk)
    shown = console.get(page)
    assert '<option value="86400" selected>' in shown.content.decode(), "nobody is locked out by pressing the button"
    answer = console.post(page, {"secret": "", "keep": "3600"})
    credential.refresh_from_db()
    assert secrets_on(console.get(answer["Location"])) == [credential.get_secret()]
    assert credential.previous_secret_until is not None
    assert credential.get_previous_secret(credential.created_at) == "first"
    assert credential.get_previous_secret(credential.previous_secret_until) == ""


def test_a_key_cannot_be_rotated_slowly(console: Client) -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    credential = Credential(consumer=consumer, plugin="key-auth")
    credential.set_secret("first")
    credential.save()
    page = console.post(url(Credential, "rotate", credential.pk), {"secret": "", "keep": "3600"})
    assert "keep" in page.context["form"].errors
    assert console.post(url(Credential, "rotate", credential.pk), {"secret": "x", "keep": "0"}).status_code == 302
    assert console.get(url(Credential, "rotate", consumer.pk)).status_code == 404


@override_settings(HMAC_GATEWAY={"ENCRYPTION_KEYS": []})
def test_without_encryption_keys_the_field_says_so(console: Client) -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    data = {"consumer": consumer.pk, "plugin": "hmac-auth", "identifier": "jack-1", "dialect": "apisix"}
    assert "HMAC_GATEWAY_ENCRYPTION_KEYS" in str(errors_of(console.post(url(Credential, "add"), data))["secret"])


def test_an_admin_key_is_shown_once(console: Client) -> None:
    answer = console.post(url(AdminKey, "add"), {"name": "ci", "role": "viewer", "enabled": "on"})
    (plaintext,) = secrets_on(console.get(answer["Location"]))
    row = AdminKey.objects.get()
    assert row.digest == AdminKey.digest_of(plaintext)
    assert plaintext not in console.get(url(AdminKey, "change", row.pk)).content.decode()
    answer = console.post(url(AdminKey, "change", row.pk), {"name": "ci", "role": "admin"})
    assert answer["Location"] == url(AdminKey, "changelist")
    row.refresh_from_db()
    assert (row.role, row.enabled, row.digest) == ("admin", False, AdminKey.digest_of(plaintext))


def test_deletions_are_audited_and_used_services_stay(console: Client) -> None:
    service = Service(id="s1")
    service.save()
    Route(id="r1", service=service, paths=["/a"]).save()
    page = console.get(url(Service, "delete", "s1"))
    assert "protected" in page.content.decode()
    console.post(url(Service, "delete", "s1"), {"post": "yes"})
    assert Service.objects.exists()
    console.post(url(Route, "changelist"), {"action": "delete_selected", "_selected_action": "r1", "post": "yes"})
    assert not Route.objects.exists()
    assert AuditEvent.objects.filter(action="deleted", entity="hmac_proxy.route", object_id="r1").exists()


def test_a_route_that_goes_nowhere_is_pointed_out(console: Client) -> None:
    page = console.post(url(Route, "add"), ROUTE, follow=True)
    assert "goes nowhere" in page.content.decode()


def test_a_viewer_of_the_console_cannot_rotate(client: Client) -> None:
    consumer = Consumer(username="jack")
    consumer.save()
    credential = Credential(consumer=consumer, plugin="hmac-auth", identifier="jack-1")
    credential.set_secret("first")
    credential.save()
    client.force_login(get_user_model().objects.create_user("staff", is_staff=True))
    assert client.post(url(Credential, "rotate", credential.pk), {"keep": "0"}).status_code == 403
    credential.refresh_from_db()
    assert credential.get_secret() == "first"


def fields() -> Iterator[tuple[Any, Any, Any]]:
    yield LinesField(required=False), "a\r\n\r\n b \n", ["a", "b"]
    yield PairsField(required=False), "a = b\n\nc=d=e", {"a": "b", "c": "d=e"}
    yield JsonField(required=False), "", {}
    yield JsonField(required=False, empty=list), " ", []


@pytest.mark.parametrize(("field", "typed", "value"), list(fields()))
def test_form_fields(field: Any, typed: str, value: Any) -> None:
    assert field.clean(typed) == value
    assert not field.has_changed(value, typed)
    assert field.has_changed(value, '["other"]' if isinstance(field, JsonField) else "other")
    assert field.clean(field.prepare_value(value)) == value


@pytest.mark.django_db
def test_the_consoles_root_leads_to_the_admin(client: Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")
