"""The console on key-auth and basic-auth: choosing the plugin, typing or making a key, seeing it once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from consumers.models import Consumer, Credential
from hmac_gateway.plugins import PLUGINS
from hmac_gateway.plugins.hmac_auth import PROPOSED
from hmac_gateway.runtime import Runtime
from proxy.models import Plugin, Route

from .test_admin import ROUTE, errors_of, formset, secrets_on, url

# WhiteNoise warns when nobody ran collectstatic; the console finds its files without.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture
def console(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("root", "root@example.com", "pw"))
    return client


@pytest.fixture
def jack() -> Consumer:
    row = Consumer(username="jack")
    row.save()
    return row


def form(of: Consumer, plugin: str, **fields: str) -> dict[str, Any]:
    data = {"consumer": of.pk, "plugin": plugin, "identifier": "", "enabled": "on", "dialect": "apisix"}
    return data | {"public_id": "c1", "secret": "", "settings": ""} | fields


def lookup(plugin: str, sent: str) -> bool:
    view = Runtime()
    assert view.refresh(), view.problems
    assert view.snapshot is not None
    return view.snapshot.lookups[plugin](sent) is not None


def everything() -> str:
    """All rows of all tables but the session's, which holds sealed secrets until they are shown."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            found.append(str(cursor.fetchall()))
    return "".join(found)


# --- plugins on a route ---


@pytest.mark.parametrize("name", ["key-auth", "basic-auth"])
def test_a_plugin_is_chosen_and_the_guides_empty_configuration_pasted(console: Client, name: str) -> None:
    page = console.get(url(Route, "add")).content.decode()
    assert f'<option value="{name}">' in page
    pasted = formset("plugins", {"name": name, "config": "{\n}", "dialect": "apisix", "enabled": "on"})
    answer = console.post(url(Route, "add"), ROUTE | pasted)
    assert answer.status_code == 302, answer.context["errors"]
    plugin = Plugin.objects.get()
    assert (plugin.name, plugin.config, plugin.place) == (name, {}, "route:r1")
    assert Runtime().refresh()


@pytest.mark.parametrize(
    ("name", "config"),
    [("key-auth", {"hide_credentials": True}), ("basic-auth", {"hide_credentials": True}), ("hmac-auth", PROPOSED)],
)
def test_a_proposal_left_alone_is_the_chosen_plugins(console: Client, name: str, config: dict[str, Any]) -> None:
    row = {"name": name, "config": json.dumps(PROPOSED), "dialect": "apisix", "enabled": "on"}
    answer = console.post(url(Route, "add"), ROUTE | formset("plugins", row))
    assert answer.status_code == 302, answer.context["errors"]
    assert Plugin.objects.get().config == config
    assert config == PLUGINS[name].PROPOSED  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["key-auth", "hmac-auth"])
def test_so_it_is_in_kongs_dialect(console: Client, name: str) -> None:
    row = {"name": name, "config": json.dumps(PROPOSED), "dialect": "kong", "enabled": "on"}
    answer = console.post(url(Route, "add"), ROUTE | formset("plugins", row) | {"dialect": "kong"})
    assert answer.status_code == 302, answer.context["errors"]
    config = Plugin.objects.get().config
    assert config == PLUGINS[name].KONG_PROPOSED  # type: ignore[attr-defined]
    assert name != "hmac-auth" or config["enforce_headers"] == ["@request-target", "date"]


def test_with_anonymous_consumers_in_kongs_dialect_one_is_enough(console: Client) -> None:
    rows = [
        {"name": name, "config": '{"anonymous": "guest"}', "dialect": "kong", "enabled": "on"}
        for name in ("key-auth", "basic-auth")
    ]
    page = console.post(url(Route, "add"), ROUTE | formset("plugins", *rows) | {"dialect": "kong"}, follow=True)
    assert Plugin.objects.count() == 2 and "callers must pass" not in page.content.decode()


@pytest.mark.parametrize(("names", "warned"), [(["key-auth"], False), (["key-auth", "basic-auth"], True)])
def test_several_plugins_on_one_route_are_pointed_out(console: Client, names: list[str], warned: bool) -> None:
    rows = [{"name": name, "config": "{}", "dialect": "apisix", "enabled": "on"} for name in names]
    page = console.post(url(Route, "add"), ROUTE | formset("plugins", *rows), follow=True).content.decode()
    assert ("callers must pass all of them" in page) == warned


def test_what_was_typed_is_kept(console: Client) -> None:
    typed = PROPOSED | {"realm": "mine"}
    row = {"name": "key-auth", "config": json.dumps(typed), "dialect": "apisix", "enabled": "on"}
    assert console.post(url(Route, "add"), ROUTE | formset("plugins", row)).status_code == 302
    assert Plugin.objects.get().config == typed
    # Nor is one changed that exists: by then it is nobody's proposal.
    plugin = Plugin.objects.get()
    row |= {"id": str(plugin.pk), "route": "r1", "config": json.dumps(PROPOSED)}
    assert console.post(url(Route, "change", "r1"), ROUTE | formset("plugins", row, initial=1)).status_code == 302
    assert Plugin.objects.get().config == PROPOSED


def test_a_wrong_field_is_named(console: Client) -> None:
    row = {"name": "key-auth", "config": '{"header": "two words"}', "dialect": "apisix", "enabled": "on"}
    page = console.post(url(Route, "add"), ROUTE | formset("plugins", row))
    errors = page.context["inline_admin_formsets"][0].formset.forms[0].errors
    assert list(errors) == ["config"] and "header: 'two words' was given" in str(errors).replace("&#x27;", "'")


# --- key-auth credentials ---


def test_a_key_is_made_and_shown_once(console: Client, jack: Consumer) -> None:
    answer = console.post(url(Credential, "add"), form(jack, "key-auth"))
    assert answer.status_code == 302, answer.context["errors"]
    (key,) = secrets_on(console.get(answer["Location"]))
    assert len(key) >= 32 and lookup("key-auth", key)
    assert secrets_on(console.get(answer["Location"])) == []
    row = Credential.objects.get()
    for page in (url(Credential, "changelist"), url(Credential, "change", row.pk), url(Consumer, "change", jack.pk)):
        shown = console.get(page).content.decode()
        assert key not in shown and row.identifier not in shown
    assert key not in everything()


def test_a_key_is_typed(console: Client, jack: Consumer) -> None:
    answer = console.post(url(Credential, "add"), form(jack, "key-auth", secret="alice-primary-key"))
    assert answer.status_code == 302, answer.context["errors"]
    assert lookup("key-auth", "alice-primary-key")
    assert "alice-primary-key" not in everything()
    # Saved again without a word about the key: it stays.
    row = Credential.objects.get()
    again = form(jack, "", name="first")
    assert console.post(url(Credential, "change", row.pk), again).status_code == 302
    assert lookup("key-auth", "alice-primary-key")
    assert console.post(url(Credential, "change", row.pk), form(jack, "", secret="next-key")).status_code == 302
    assert lookup("key-auth", "next-key") and not lookup("key-auth", "alice-primary-key")


def test_its_consumers_page_is_saved_with_a_key_on_it(console: Client, jack: Consumer) -> None:
    console.post(url(Credential, "add"), form(jack, "key-auth", secret="alice-primary-key"))
    row = Credential.objects.get()
    for typed, current in (("", "alice-primary-key"), ("next-key", "next-key")):
        inline = {"id": str(row.pk), "consumer": str(jack.pk), "identifier": "", "secret": typed, "enabled": "on"}
        data = {"username": "jack", "desc": "new", "enabled": "on", "dialect": "apisix"}
        data |= formset("credentials", inline, initial=1) | formset("acls") | formset("plugins")
        answer = console.post(url(Consumer, "change", jack.pk), data)
        assert answer.status_code == 302, answer.context["errors"]
        assert lookup("key-auth", current)
    assert not lookup("key-auth", "alice-primary-key")


def test_a_key_typed_as_the_identifier_is_not_lost_silently(console: Client, jack: Consumer) -> None:
    page = console.post(url(Credential, "add"), form(jack, "key-auth", identifier="alice-primary-key"))
    assert "Type it as the secret" in str(errors_of(page)["identifier"])
    assert not Credential.objects.exists()


def test_a_key_that_somebody_has(console: Client, jack: Consumer) -> None:
    joe = Consumer(username="joe")
    joe.save()
    assert console.post(url(Credential, "add"), form(jack, "key-auth", secret="k-1")).status_code == 302
    found = errors_of(console.post(url(Credential, "add"), form(joe, "key-auth", secret="k-1")))
    assert "jack" in str(found["identifier"]) and "k-1" not in str(found)


# --- basic-auth credentials ---


def test_user_name_and_password(console: Client, jack: Consumer) -> None:
    data = form(jack, "basic-auth", identifier="alice", secret=" pass:word ")
    answer = console.post(url(Credential, "add"), data)
    assert answer.status_code == 302, answer.context["errors"]
    assert secrets_on(console.get(answer["Location"])) == [" pass:word "]
    row = Credential.objects.get()
    assert (row.identifier, row.get_secret()) == ("alice", " pass:word ")
    assert lookup("basic-auth", "alice")
    assert "pass:word" not in everything()


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"identifier": ""}, "identifier", "1 to 256 characters, the user name"),
        ({"identifier": "a:b"}, "identifier", "without a colon"),
        ({"identifier": "a", "settings": '{"password": "topsecret"}'}, "settings", "set it as the secret"),
    ],
)
def test_errors_land_on_their_fields(
    console: Client, jack: Consumer, fields: dict[str, str], field: str, text: str
) -> None:
    found = errors_of(console.post(url(Credential, "add"), form(jack, "basic-auth", **fields)))
    assert list(found) == [field] and text in str(found[field])
    assert "topsecret" not in str(found)


def test_a_consumer_with_all_three_at_once(console: Client) -> None:
    rows = formset(
        "credentials",
        {"plugin": "hmac-auth", "identifier": "alice-keyid", "secret": "hmac-secret", "enabled": "on"},
        {"plugin": "key-auth", "identifier": "", "secret": "alice-primary-key", "enabled": "on"},
        {"plugin": "basic-auth", "identifier": "alice", "secret": "alice-password", "enabled": "on"},
    )
    data = {"username": "alice", "enabled": "on", "dialect": "apisix"} | rows | formset("acls") | formset("plugins")
    answer = console.post(url(Consumer, "add"), data)
    assert answer.status_code == 302, answer.context["errors"]
    assert secrets_on(console.get(answer["Location"])) == ["hmac-secret", "alice-primary-key", "alice-password"]
    assert lookup("key-auth", "alice-primary-key") and lookup("basic-auth", "alice")
