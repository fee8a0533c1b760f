"""jwt-auth, multi-auth and public-api over REST: secrets go in, only masks come out; schemas, refusals, rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from ..support.tokens import PUBLIC, pair, private_pem
from .support import Api

Credential: Any = apps.get_model("hmac_consumers.Credential")
MASK = "********"
SECRET = "a-very-secret-text"
PRIVATE = private_pem(pair("ES256"))
PATH = "consumers/jack/credentials/c"
PREFIX = "invalid plugins configuration: failed to check the configuration of plugin jwt-auth err: "


def jwt(**fields: Any) -> dict[str, Any]:
    return {"plugins": {"jwt-auth": {"key": "jack-key", **fields}}}


def paired(**fields: Any) -> dict[str, Any]:
    return jwt(algorithm="ES256", public_key=PUBLIC("ES256"), **fields)


@pytest.fixture
def jack(api: Api) -> Api:
    for name in ("jack", "joe"):
        assert api.put("consumers", {"username": name}).status_code == 201
    return api


def refused(response: Any, text: str) -> None:
    assert (response.status_code, response.json()) == (400, {"error_msg": text})


def table() -> str:
    """The table of credentials as it is."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM hmac_consumers_credential")
        return str(cursor.fetchall())


@pytest.mark.parametrize(
    ("given", "field", "secret"),
    [
        (jwt(secret=SECRET, exp=30, lifetime_grace_period=5, unknown=1), "secret", SECRET),
        (jwt(secret="c2VjcmV0", base64_secret=True), "secret", "c2VjcmV0"),
        (paired(private_key=PRIVATE), "private_key", PRIVATE),
        (paired(), "", ""),
    ],
)
@pytest.mark.parametrize("own", [False, True], ids=["credential", "on the consumer"])
def test_round_trip_with_a_mask(jack: Api, given: dict[str, Any], field: str, secret: str, own: bool) -> None:
    path, base = ("consumers/jack", {"username": "jack"}) if own else (PATH, {})
    assert jack.put(path, {**base, **given}).status_code in (200, 201)
    shown = jack.value(path)
    shown.pop("id", None)
    config = {**given["plugins"]["jwt-auth"], **({field: MASK} if field else {})}
    assert shown == {**base, "plugins": {"jwt-auth": config}}
    row = Credential.objects.get()
    assert (row.identifier, row.get_secret()) == ("jack-key", secret)
    assert not {"secret", "private_key", "key"} & row.settings.keys()
    stored = table()
    for line in secret.splitlines():
        assert line not in stored
    # What was shown, written back.
    assert jack.put(path, shown).status_code == 200
    kept = Credential.objects.get()
    assert (kept.pk, kept.sealed_secret, kept.settings) == (row.pk, row.sealed_secret, row.settings)


def test_from_a_secret_to_a_pair_and_back(jack: Api) -> None:
    assert jack.put(PATH, jwt(secret=SECRET)).status_code == 201
    refused(
        jack.put(PATH, paired(private_key=MASK)),
        f'{PREFIX}property "private_key" validation failed: '
        f"{MASK} stands for a secret that is stored already, and there is none",
    )
    assert jack.put(PATH, paired()).status_code == 200
    assert Credential.objects.get().sealed_secret == ""
    text = f"{MASK} stands for a secret that is stored already, and there is none"
    refused(jack.put(PATH, jwt(secret=MASK)), f'{PREFIX}property "secret" validation failed: {text}')
    assert jack.put(PATH, jwt(secret="the next")).status_code == 200
    assert Credential.objects.get().get_secret() == "the next"
    # A stored secret must suit what is written beside its mask.
    text = PREFIX + "base64_secret required but the secret is not in base64 format"
    refused(jack.put(PATH, jwt(secret=MASK, base64_secret=True)), text)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (jwt(), 'property "secret" is required when using HS based algorithms'),
        (
            jwt(secret="!", base64_secret=True),
            "base64_secret required but the secret is not in base64 format",
        ),
        (
            jwt(algorithm="RS256", secret=SECRET, public_key=PUBLIC("RS256")),
            'property "secret" is not used with algorithm RS256',
        ),
        (
            jwt(algorithm="RS256"),
            'failed to validate dependent schema for "algorithm": value should match only one schema, but matches none',
        ),
        (
            jwt(secret=SECRET, algorithm="none"),
            'property "algorithm" validation failed: matches none of the enum values',
        ),
        (jwt(secret=SECRET, exp=0), 'property "exp" validation failed: expected 0 to be at least 1'),
        (jwt(secret=""), 'property "secret" validation failed: string too short, expected at least 1, got 0'),
        ({"plugins": {"jwt-auth": {"secret": SECRET}}}, 'property "key" is required'),
    ],
)
def test_refusals_in_apisix_words(jack: Api, given: dict[str, Any], text: str) -> None:
    refused(jack.put(PATH, given), PREFIX + text)
    assert not Credential.objects.exists()


@pytest.mark.parametrize(
    "given",
    [
        jwt(algorithm="ES256", public_key=PRIVATE),
        jwt(algorithm="ES384", public_key=PUBLIC("ES256"), private_key=PRIVATE),
        paired(private_key=PRIVATE[:-60]),
        paired(private_key=private_pem(pair("ES256", 1))),
        jwt(secret=PUBLIC("RS256")),
        jwt(secret="$secret://vault/1/x/y"),
    ],
)
def test_refusals_quote_no_key(jack: Api, given: dict[str, Any]) -> None:
    response = jack.put(PATH, given)
    assert response.status_code == 400 and response.json()["error_msg"].startswith(PREFIX)
    for line in (PRIVATE + PUBLIC("RS256") + PUBLIC("ES256")).splitlines():
        assert "BEGIN" in line or "END" in line or line not in response.content.decode()


def test_a_key_is_one_consumers(jack: Api) -> None:
    assert jack.put(PATH, jwt(secret=SECRET)).status_code == 201
    taken = jack.put("consumers/joe/credentials/c", jwt(secret="another"))
    refused(taken, "duplicate key of plugin jwt-auth found with credential: c of consumer: jack")


def test_multi_auth_has_no_credentials(jack: Api) -> None:
    response = jack.put(PATH, {"plugins": {"multi-auth": {"auth_plugins": []}}})
    refused(response, "only supports auth type plugins in consumer credential")


MULTI = "failed to check the configuration of plugin multi-auth err: "


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, 'property "auth_plugins" is required'),
        (
            {"auth_plugins": [{"key-auth": {}}]},
            'property "auth_plugins" validation failed: expect array to have at least 2 items',
        ),
        ({"auth_plugins": [{"nope": {}}, {"key-auth": {}}]}, "nope plugin did not found"),
        ({"auth_plugins": [{"public-api": {}}, {"key-auth": {}}]}, "public-api plugin is not supported"),
    ],
)
def test_refusals_of_multi_auth(api: Api, config: dict[str, Any], text: str) -> None:
    refused(api.put("routes/r", {"uri": "/x", "plugins": {"multi-auth": config}}), MULTI + text)


def test_multi_auth_checks_its_methods(api: Api) -> None:
    config = {"auth_plugins": [{"jwt-auth": {"claims_to_verify": ["aud"]}}, {"key-auth": {}}]}
    answer = api.put("routes/r", {"uri": "/x", "plugins": {"multi-auth": config}})
    assert answer.status_code == 400
    inner = 'property "claims_to_verify" validation failed: failed to validate item 1: matches none of the enum values'
    assert answer.json()["error_msg"] == MULTI + "plugin jwt-auth check schema failed: " + inner


def test_methods_that_are_not_available_stay_so(api: Api, settings: Any) -> None:
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "PLUGINS_AVAILABLE": ["multi-auth", "key-auth"]}
    good = {"auth_plugins": [{"key-auth": {}}, {"key-auth": {"header": "x-key"}}]}
    assert api.put("routes/r", {"uri": "/x", "plugins": {"multi-auth": good}}).status_code == 201
    bad = {"auth_plugins": [{"key-auth": {}}, {"jwt-auth": {}}]}
    assert api.put("routes/r", {"uri": "/x", "plugins": {"multi-auth": bad}}).status_code == 400


def test_plugins_come_back_as_they_were_written(api: Api) -> None:
    plugins = {
        "jwt-auth": {"claims_to_verify": ["exp"], "store_in_ctx": True},
        "public-api": {"uri": "/apisix/plugin/jwt/sign"},
        "multi-auth": {"auth_plugins": [{"jwt-auth": {}}, {"key-auth": {}}]},
    }
    assert api.put("routes/r", {"uri": "/x", "plugins": plugins}).status_code == 201
    assert api.value("routes/r")["plugins"] == plugins


def test_schemas(api: Api) -> None:
    assert "key_claim_name" in api.get("schema/plugins/jwt-auth").json()["properties"]
    consumer = api.get("schema/plugins/jwt-auth?schema_type=consumer").json()
    assert "lifetime_grace_period" in consumer["properties"] and consumer["required"] == ["key"]
    assert "auth_plugins" in api.get("schema/plugins/multi-auth").json()["properties"]
    assert "uri" in api.get("schema/plugins/public-api").json()["properties"]
    for name in ("multi-auth", "public-api"):
        assert api.get(f"schema/plugins/{name}?schema_type=consumer").status_code == 400
    names = api.get("plugins/list").json()
    order = ["multi-auth", "hmac-auth", "basic-auth", "jwt-auth", "key-auth", "public-api"]
    assert [name for name in names if name in order] == order
