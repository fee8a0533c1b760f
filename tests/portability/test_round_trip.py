"""Nothing is lost: export, import into an empty configuration, export again; every byte is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from hmac_gateway.portability import text

from ..support.fuzz import examples
from .configurations import FULL, configurations, enriched
from .support import HERE, again, everything, exported, refused, take, wipe, yaml_of

ROOT = HERE.parent.parent


@pytest.mark.django_db
def test_every_field_comes_back() -> None:
    take(FULL)
    for name, items in exported().document.items():
        if name != "hmac_gateway":
            given_items = {str(item.get("id", item.get("username"))): item for item in FULL[name]}
            assert {str(item.get("id", item.get("username"))): item for item in items} == given_items
    again()


@pytest.mark.django_db
def test_what_apisix_has_no_word_for_comes_back() -> None:
    take(FULL)
    enriched()
    written = again()
    for word in ("previous-secret", "not_before", "this_site: true", "ttl: true", "hidden", "instance", "custom"):
        assert word in written
    masked = again_masked()
    assert "previous-secret" not in masked and "own-secret" not in masked


def again_masked() -> str:
    masked = yaml_of(opened=False)
    before = everything()
    assert take(text.load(masked.encode())).changes == []
    assert everything() == before
    return masked


@pytest.mark.django_db
def test_what_is_beyond_can_be_changed() -> None:
    take(FULL)
    enriched()
    document = text.load(yaml_of().encode())
    beyond = document["hmac_gateway"]
    beyond["routes"]["r4"]["tags"] = ["other"]
    beyond["consumers"]["two"]["own"]["hmac-auth"]["previous_secret"] = "changed-one"
    beyond["upstreams"]["list"]["nodes"]["[::1]:80"]["weight"] = 4
    report = take(document)
    lines = "\n".join(report.lines(diff=True))
    assert [change.id for change in report.changes] == ["list", "r4", "two"]
    assert 'tags: ["a", "b"] -> ["other"]' in lines and "nodes.[::1]:80.weight: 9 -> 4" in lines
    assert "changed-one" not in lines and "previous-secret" not in lines
    assert text.load(yaml_of().encode()) == document
    for wrong, words in (
        ({"routes": {"r4": {"nothing": 1}}}, "`nothing` is not a field that can stand here"),
        ({"routes": {"r4": {"expires_at": "tomorrow"}}}, "`expires_at`: a time with its zone is expected"),
        ({"routes": {"r4": {"plugins": {"x": {}}}}}, "'x' is not in this object"),
        ({"routes": {"r4": {"plugins": []}}}, "a map of maps is expected"),
        ({"routes": {"none": {}}}, "'none' is not in this file"),
        ({"consumers": {"one": {"custom_id": 5}}}, "`custom_id`: a text is expected"),
    ):
        assert words in "\n".join(refused({**document, "hmac_gateway": {"version": 1, **wrong}}))


@given(document=configurations())
@settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.django_db(transaction=False)
def test_any_configuration_comes_back(document: dict[str, Any], db: None) -> None:
    wipe()
    take(document)
    assert take(document).changes == []
    found = exported().document
    for name, items in document.items():
        if name == "hmac_gateway":
            continue
        key = "username" if name == "consumers" else "id"
        wanted = {str(item.get(key, item.get("id"))): item for item in items}
        shown = {str(item.get(key, item.get("id"))): item for item in found[name]}
        assert shown == wanted
    again()


@pytest.mark.service
@pytest.mark.parametrize("url", ["postgres_url", "mariadb_url"])
def test_other_databases(url: str, request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.portability.rounds"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": request.getfixturevalue(url), "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr[-3000:]
