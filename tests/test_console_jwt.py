"""The console and the debugger on jwt-auth and multi-auth: what is typed, where errors land, what is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from consumers.models import Consumer, Credential
from hmac_gateway.core.message import Message
from hmac_gateway.debugger import as_text, explain_request
from hmac_gateway.plugins import multi_auth, public_api
from hmac_gateway.plugins.hmac_auth import PROPOSED
from hmac_gateway.runtime import Runtime
from proxy.models import Plugin, Route

from .support.tokens import PUBLIC, SECRET, encode, pair, private_pem, signature, token
from .test_admin import ROUTE, formset, secrets_on, url

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]
NOW = 784111777.0


@pytest.fixture
def console(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("root", "root@example.com", "pw"))
    return client


@pytest.fixture
def jack() -> Consumer:
    row = Consumer(username="jack")
    row.save()
    return row


def form(of: Consumer, **fields: Any) -> dict[str, Any]:
    data = {"consumer": of.pk, "plugin": "jwt-auth", "identifier": "jack-key", "enabled": "on", "dialect": "apisix"}
    data |= {"public_id": "c1", "secret": "", "settings": ""} | fields
    return data | ({"settings": json.dumps(data["settings"])} if isinstance(data["settings"], dict) else {})


def snapshot() -> Any:
    view = Runtime()
    assert view.refresh(), view.problems
    return view.snapshot


# --- plugins on a route ---


@pytest.mark.parametrize("name", ["jwt-auth", "public-api"])
def test_the_guides_empty_configuration_is_pasted(console: Client, name: str) -> None:
    assert f'<option value="{name}">' in console.get(url(Route, "add")).content.decode()
    pasted = formset("plugins", {"name": name, "config": "{\n}", "dialect": "apisix", "enabled": "on"})
    answer = console.post(url(Route, "add"), ROUTE | pasted)
    assert answer.status_code == 302, answer.context["errors"]
    assert (Plugin.objects.get().name, Plugin.objects.get().config) == (name, {})
    (route,) = snapshot().routes.routes
    assert (route.target.local is not None) == (name == "public-api")


def test_a_proposal_left_alone_is_multi_auths_own(console: Client) -> None:
    row = {"name": "multi-auth", "config": json.dumps(PROPOSED), "dialect": "apisix", "enabled": "on"}
    assert console.post(url(Route, "add"), ROUTE | formset("plugins", row)).status_code == 302
    assert Plugin.objects.get().config == multi_auth.PROPOSED


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("jwt-auth", '{"claims_to_verify": ["aud"]}', "claims_to_verify.1"),
        ("multi-auth", "{}", "auth_plugins"),
        ("multi-auth", '{"auth_plugins": [{"nope": {}}, {"key-auth": {}}]}', "auth_plugins.1"),
    ],
)
def test_a_wrong_field_is_named(console: Client, name: str, config: str, told: str) -> None:
    row = {"name": name, "config": config, "dialect": "apisix", "enabled": "on"}
    page = console.post(url(Route, "add"), ROUTE | formset("plugins", row))
    errors = page.context["inline_admin_formsets"][0].formset.forms[0].errors
    assert list(errors) == ["config"] and told in str(errors)


# --- credentials ---


def test_a_secret_is_made_and_shown_once(console: Client, jack: Consumer) -> None:
    answer = console.post(url(Credential, "add"), form(jack, settings={"exp": 30}))
    assert answer.status_code == 302, answer.context["errors"]
    (secret,) = secrets_on(console.get(answer["Location"]))
    row = Credential.objects.get()
    assert (row.get_secret(), row.settings) == (secret, {"exp": 30})
    assert snapshot().lookups["jwt-auth"]("jack-key") is not None
    assert secret not in console.get(url(Credential, "change", row.pk)).content.decode()


def test_a_key_pair(console: Client, jack: Consumer) -> None:
    settings = {"algorithm": "ES256", "public_key": PUBLIC("ES256")}
    # One-line fields take line ends away.
    answer = console.post(
        url(Credential, "add"), form(jack, settings=settings, secret=private_pem(pair("ES256")).replace("\n", ""))
    )
    assert answer.status_code == 302, answer.context["errors"]
    row = Credential.objects.get()
    assert row.settings == settings and "PRIVATE" in row.get_secret()
    sent = Message("GET", "/apisix/plugin/jwt/sign?key=jack-key", [])
    made = public_api.respond(sent, public_api.compile({}), snapshot().lookups, NOW)
    assert getattr(made, "status", None) == 200


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"settings": {"algorithm": "RS256"}}, "settings"),
        ({"settings": {"algorithm": "none"}}, "settings"),
        ({"settings": {"exp": "soon"}}, "settings"),
        ({"settings": {"secret": "in clear"}}, "settings"),
        ({"settings": {"private_key": "in clear"}}, "settings"),
        ({"settings": {"algorithm": "RS256", "public_key": "no PEM"}}, "settings"),
        ({"settings": {"algorithm": "RS256", "public_key": private_pem(pair("RS256"))}}, "settings"),
        ({"settings": {"base64_secret": True}, "secret": "not base64!"}, "secret"),
        ({"secret": PUBLIC("RS256")}, "secret"),
        ({"settings": {"algorithm": "RS256", "public_key": PUBLIC("RS256")}, "secret": "no PEM"}, "secret"),
        ({"identifier": ""}, "identifier"),
    ],
)
def test_errors_land_on_their_field(console: Client, jack: Consumer, fields: dict[str, Any], field: str) -> None:
    page = console.post(url(Credential, "add"), form(jack, **fields))
    assert page.status_code == 200
    assert list(page.context["adminform"].form.errors) == [field]
    assert not Credential.objects.exists()
    told = str(page.context["adminform"].form.errors)
    assert "in clear" not in told and "PRIVATE KEY-" not in told


def test_rotation(console: Client, jack: Consumer) -> None:
    assert console.post(url(Credential, "add"), form(jack, settings={"base64_secret": True})).status_code == 302
    row = Credential.objects.get()
    page = f"{url(Credential, 'change', row.pk).removesuffix('change/')}rotate/"
    bad = console.post(page, {"secret": "not base64!", "keep": "0"})
    assert bad.status_code == 200 and list(bad.context["form"].errors) == ["secret"]
    assert console.post(page, {"secret": "bmV4dA==", "keep": "3600"}).status_code == 302
    assert Credential.objects.get().get_secret() == "bmV4dA=="


# --- the debugger ---


def test_what_the_debugger_tells(jack: Consumer) -> None:
    credential = Credential(consumer=jack, plugin="jwt-auth", identifier="jack-key")
    credential.set_secret(SECRET)
    credential.save()
    route = Route(id="r", paths=["/ip"])
    route.save()
    config = {"auth_plugins": [{"key-auth": {}}, {"jwt-auth": {}}]}
    Plugin(name="multi-auth", route=route, config=config).save()
    found = snapshot()
    for claims, reason, told in (
        ({"key": "jack-key"}, "", "ok   algorithm, signature and times"),
        ({"key": "jack-key", "exp": 5}, "token_expired", "FAIL token expired"),
        ({"key": "nobody"}, "unknown_key", "FAIL key: unknown_key"),
        ({}, "incomplete_authorization", "FAIL incomplete authorization"),
    ):
        text = token("HS256", claims)
        sent = Message("GET", "/ip", [("Host", "x"), ("Authorization", f"Bearer {text}")])
        report = explain_request(found, sent, None, NOW)
        said = as_text(report) + repr(report)
        assert (report.accepted, report.reason) == (not reason, reason), said
        assert told in said and "FAIL key sent: neither came" in said
        assert ("multi-auth asks for one of: key-auth, jwt-auth" in said) == bool(reason)
        head, body, sign = text.split(".")
        for secret in (sign, SECRET, encode(signature("HS256", f"{head}.{body}".encode()))):
            assert secret not in said
