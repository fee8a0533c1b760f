"""Nothing of Kong's entities is lost: export, import where nothing is, export again; every byte is the same."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from hmac_gateway.portability import text
from hmac_gateway.portability.kong_export import export_document

from ..admin_api.kong.support import Kong
from . import support
from .configurations import FULL
from .kong import again, document, file, refused, take, yaml_of
from .support import everything

pytestmark = pytest.mark.django_db
SECRETS = ("bob-secret", "0123", "bob-key", "a:b c", "bob-jwt-secret")


def row(label: str, **where: Any) -> Any:
    return apps.get_model(label)._default_manager.get(**where)


def test_every_field_comes_back() -> None:
    take(file())
    written = again()
    assert "_ignore" not in written
    # In the file's order, whatever the ids.
    listed = text.load(written.encode(), end=False)
    assert [service.get("name") for service in listed["services"]] == ["orders", "switched-off", None]
    assert [consumer.get("username") for consumer in listed["consumers"]] == ["bob", "guest", None]
    assert all(secret in written for secret in SECRETS)
    # The file that was written by hand still says the same.
    assert take(file()).changes == []


def test_masked_files_change_nothing() -> None:
    take(file())
    masked = yaml_of(opened=False)
    assert not any(f'"{secret}"' in masked or f" {secret}\n" in masked for secret in SECRETS)
    assert masked.count('"********"') == 5
    before = everything()
    assert take(text.load(masked.encode(), end=False)).changes == []
    assert everything() == before


def enriched(key_ends: bool = True) -> datetime:
    """Rows of the file that hold what Kong has no word for. Returns when they end.

    How many seconds of life a key has left, as Kong's word for it says, is another number each second.
    """
    soon = timezone.now().replace(microsecond=123456) + timedelta(hours=9)
    service: Any = apps.get_model("hmac_proxy.Service")(
        id="by-hand", dialect="kong", name="console", protocol="http", host="h", port=80, desc="from the console"
    )
    service.save()
    route: Any = apps.get_model("hmac_proxy.Route")(
        id="by-hand", dialect="kong", paths=["/by-hand"], labels={"env": "prod"}, priority=3
    )
    route.save()
    by_name: Any = apps.get_model("hmac_proxy.Service")(
        dialect="kong", name="by-name", upstream=row("hmac_proxy.Upstream", name="plain"), protocol="http", port=80
    )
    by_name.save()
    direct: Any = apps.get_model("hmac_proxy.Route")(
        dialect="kong",
        paths=["/direct"],
        upstream=row("hmac_proxy.Upstream", name="plain"),
        remote_addrs=["10.0.0.0/8"],
    )
    direct.save()
    # The defaults as the admin API and imports store them.
    defaults = {"scheme": "apisix", "sign_body": False, "max_req_body_size": 67108864, "nonce": False}
    config = {"key_id": "k", "secret_key": "of-the-console", **defaults}
    plugin: Any = apps.get_model("hmac_proxy.Plugin")(
        name="sign-request",
        dialect="kong",
        service=service,
        config=config,
        priority=7,
    )
    plugin.save()
    signed = row("hmac_proxy.Plugin", instance_name="orders-hmac")
    signed.config = {**signed.config, "replay_protection": True, "replay_methods": ["POST"], "expose_reason": True}
    signed.save()
    pool = row("hmac_proxy.Upstream", name="pool.internal")
    pool.keepalive, pool.retries = {"size": 5}, 3
    pool.save()
    node = row("hmac_proxy.Node", host="10.0.0.1")
    node.enabled, node.priority = False, -1
    node.save()
    consumer = row("hmac_consumers.Consumer", username="bob")
    consumer.desc, consumer.enabled = "a partner", False
    consumer.save()
    credential = row("hmac_consumers.Credential", identifier="bob-hmac")
    credential.rotate_secret("the-new-one", soon)
    credential.not_before = datetime(2020, 1, 2, tzinfo=UTC)
    credential.public_id = "its-own"
    credential.save()
    if key_ends:
        key = row("hmac_consumers.Credential", plugin="key-auth")
        key.expires_at = soon
        key.save()
    return soon


def test_what_kong_has_no_word_for_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    take(file())
    soon = enriched()
    monkeypatch.setattr(timezone, "now", lambda: soon - timedelta(seconds=100, milliseconds=500))
    written = again()
    for word in ("bob-secret", "the-new-one", "of-the-console", "key: by-hand", "replay_protection: true", "ttl: 100"):
        assert word in written
    exported = export_document(True)
    assert exported.skipped == []
    unseen = {what.rpartition(")")[2].strip(", ") or what: why for what, why in exported.unseen}
    assert "service console, desc" in unseen and "consumer bob, desc, enabled" in unseen
    assert unseen["config.expose_reason, config.replay_methods, config.replay_protection"] == "Kong has no word for it"
    # Kong would refuse a file with what it does not know.
    plain = text.load(written.encode(), end=False)
    (section,) = plain.pop("_ignore")
    assert len(section["hmac_gateway"]["entities"]["plugins"]) == 1
    for word in ("sign-request", "replay_protection", "expose_reason", "this_site", "keepalive"):
        assert word not in json.dumps(plain)
    masked = yaml_of(opened=False)
    assert "bob-secret" not in masked and "of-the-console" not in masked
    before = everything()
    assert take(text.load(masked.encode(), end=False)).changes == []
    assert everything() == before


def test_what_is_beyond_can_be_changed() -> None:
    take(file())
    enriched(key_ends=False)
    given = text.load(yaml_of().encode(), end=False)
    beyond = given["_ignore"][0]["hmac_gateway"]
    ((key, told),) = beyond["hmacauth_credentials"].items()
    told["previous_secret"], told["not_before"] = "an-older-one", "2021-01-01T00:00:00+00:00"
    ((_, upstream),) = beyond["upstreams"].items()
    upstream["retries"] = 4
    report = take(given)
    assert [change.id for change in report.changes] == ["pool.internal", "bob-hmac"]
    lines = "\n".join(report.lines(diff=True))
    assert "retries: 3 -> 4" in lines and "previous_secret" in lines and "an-older-one" not in lines
    assert text.load(yaml_of().encode(), end=False) == given
    section = "_ignore.hmac_gateway"
    site = next(found for found, told in beyond["routes"].items() if told.get("key") == "by-hand")
    for wrong, words in (
        ({"consumers": {key: {}}}, f"{section}.consumers: '{key}' is not in this file"),
        ({"consumer": {}}, f"{section}.consumer: not a kind of entity"),
        ({"consumers": []}, f"{section}.consumers: a map of maps is expected"),
        ({"hmacauth_credentials": {key: {"nothing": 1}}}, "`nothing` is not a field that can stand here"),
        ({"hmacauth_credentials": {key: {"sealed_secret": "x"}}}, "`sealed_secret` is not a field that can stand here"),
        ({"hmacauth_credentials": {key: {"not_before": "soon"}}}, "`not_before`: a time with its zone is expected"),
        ({"hmacauth_credentials": {key: {"dialect": "x"}}}, "`dialect`: apisix or kong is expected"),
        ({"hmacauth_credentials": {key: {"extra": 1}}}, "`extra`: a map is expected"),
        ({"routes": {site: {"key": "by-hand", "upstream": "x"}}}, "`upstream`: there is none with the id 'x'"),
    ):
        bad = {**given, "_ignore": [{"hmac_gateway": {**beyond, **wrong}}]}
        assert words in "\n".join(refused(bad)), wrong
    assert refused({**given, "_ignore": [{"hmac_gateway": {"version": 2}}]}) == [
        f"{section}: `version: 1` is expected; this file was written by another version"
    ]


def test_apisixs_rows_are_named_and_its_consumers_shared() -> None:
    support.take(FULL)
    acls = [{"group": "g"}]
    take(document(consumers=[{"username": "kong-only", "acls": acls}, {"username": "one", "acls": acls}]))
    exported = export_document(True)
    kinds = {what.partition(" ")[0] for what, _ in exported.skipped}
    assert {"route", "service", "upstream", "plugin", "global", "consumer"} <= kinds
    assert "consumer two" in {what for what, _ in exported.skipped}
    assert [consumer["username"] for consumer in exported.document["consumers"]] == ["one", "kong-only"]
    assert set(exported.document) == {"_format_version", "_transform", "_ignore", "consumers"}
    # Both files together are the whole configuration, in any order.
    apisix, kong = support.yaml_of(), re.sub(r" *created_at: .*\n", "", yaml_of())
    for first in (True, False):
        support.wipe()
        if first:
            support.take(text.load(apisix.encode()))
        take(text.load(kong.encode(), end=False))
        if not first:
            support.take(text.load(apisix.encode()))
        assert support.yaml_of() == apisix
        # Whichever file came first made the older consumers.
        assert sorted(re.sub(r" *created_at: .*\n", "", yaml_of()).splitlines()) == sorted(kong.splitlines())


def test_routes_for_this_site_are_the_consoles() -> None:
    apps.get_model("hmac_proxy.Route").objects.create(id="site", dialect="kong", paths=["/site"], this_site=True)
    take(document())
    exported = export_document(True)
    assert "routes" not in exported.document
    assert [tuple(found) for found in exported.skipped] == [("route for this site site", "only the console has them")]


def test_apis_of_kong_0_come_back() -> None:
    kong = Kong()
    kong.made("apis", {"name": "old", "request_path": "/old", "upstream_url": "http://127.0.0.1:81/x"})
    kong.made("apis/old/plugins", {"name": "hmac-auth", "config": {"clock_skew": 10, "hide_credentials": True}})
    before = (kong.get("apis/old").json(), kong.get("apis/old/plugins").json()["data"][0])
    assert before[0]["upstream_url"] == "http://127.0.0.1:81/x" and before[1]["config"]["clock_skew"] == 10
    assert "legacy: true" in again()
    after = (kong.get("apis/old").json(), kong.get("apis/old/plugins").json()["data"][0])
    for old, new in zip(before, after, strict=True):
        assert {**new, "created_at": 0} == {**old, "created_at": 0}


def test_texts_that_look_like_templates_stand_for_themselves() -> None:
    take(document(consumers=[{"username": "${{x}}", "custom_id": "{vault://env/x}"}]))
    written = again()
    assert "hmac_gateway:\n      version: 1" in written or "hmac_gateway" in written
