"""PROTECT: entries that cannot be used, that match something else, or that ask for little."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.test import override_settings
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views.generic import View

from hmac_gateway.decorators import hmac_required
from hmac_gateway.plugins.hmac_auth import PROPOSED
from tests.settings import HMAC_GATEWAY, MIDDLEWARE
from tests.support.checks import found

OURS = [MIDDLEWARE[0], "hmac_gateway.middleware.HmacGatewayMiddleware", *MIDDLEWARE[1:]]
GOOD = {
    "signed_headers": ["@request-target", "date"],
    "allowed_algorithms": ["hmac-sha256"],
    "validate_request_body": True,
}


def protecting(*entries: Any, **keys: Any) -> override_settings:
    return override_settings(MIDDLEWARE=OURS, HMAC_GATEWAY={**HMAC_GATEWAY, "PROTECT": list(entries), **keys})


def entry(path: str = "^/api/", **config: Any) -> dict[str, Any]:
    return {"path": path, "config": {**GOOD, **config}}


def test_a_correct_embedding_site_is_clean() -> None:
    with protecting(entry(), entry("^/other/", replay_protection=True), REPLAY_STORE="database"):
        assert found(deploy=True) == {}
    with protecting({"path": "^/keys/", "plugin": "key-auth"}):
        assert found(deploy=True) == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (5, "PROTECT entry 2: 5 was given"),
        ({"config": {}}, "PROTECT entry 2: dict was given"),
        ({"path": 5}, "Write a regular expression, or"),
        ("^/(api/", "PROTECT entry 2 ('^/(api/'): path"),
        ("^/(api/", "write a backslash"),
        ({"path": "^/(api/", "plugin": "key-auth"}, "write a backslash"),
        ({"path": "^/", "plugins": "hmac-auth"}, "Did you mean 'plugin'?"),
        ({"path": "^/", "secret_key": "hunter2"}, "'secret_key'"),
        ({"path": "^/", "plugin": "hmac_auth"}, "Did you mean 'hmac-auth'?"),
        ({"path": "^/", "plugin": ["hmac-auth"]}, "PROTECT entry 2 ('^/'): plugin"),
        ({"path": "^/", "dialect": "apisx"}, "PROTECT entry 2 ('^/'): dialect is 'apisx'. Did you mean 'apisix'?"),
        ({"path": "^/", "dialect": ["apisix"]}, "dialect is"),
        ({"path": "^/", "config": {"clock_skew": "soon"}}, "PROTECT entry 2 ('^/'): clock_skew: 'soon' was given"),
        ({"path": "^/", "config": {"clock_skew": "soon"}}, "docs/hmac-auth.md"),
        ({"path": "^/", "config": ["hunter2"]}, "PROTECT entry 2 ('^/'): config"),
        ({"path": "^/", "config": {"_meta": {"priorty": 1}}}, "PROTECT entry 2 ('^/'): _meta.priorty"),
    ],
)
def test_an_entry_that_cannot_be_used(wrong: Any, words: str) -> None:
    with protecting(entry(), wrong):
        message = found(deploy=True)["hmac_gateway.E008"]
    text = f"{message.msg} {message.hint}"
    assert words in text and message.level == 40 and "hunter2" not in text


def test_all_entries_are_told_at_once() -> None:
    from hmac_gateway.checks.protect import check_protect

    with protecting("(", entry(), "["):
        assert ["entry 1 " in m.msg or "entry 3 " in m.msg for m in check_protect(None)] == [True, True]


def test_a_misspelt_field_is_pointed_out() -> None:
    with protecting(entry(sigend_headers=["date"])):
        messages = found()
    assert list(messages) == ["hmac_gateway.W010"]
    message = messages["hmac_gateway.W010"]
    assert (
        "PROTECT entry 1 ('^/api/'): config.sigend_headers" in message.msg
        and "Did you mean 'signed_headers'?" in str(message.hint)
    )
    with protecting(entry(_meta={"priority": 1})):
        assert found() == {}


@pytest.mark.parametrize("path", ["^api/", r"\Aapi/", "(?i)^api/", "^/api/*$", r"^/api/*\Z"])
def test_a_pattern_that_does_not_match_what_it_seems_to(path: str) -> None:
    with protecting(entry(path)):
        assert list(found()) == ["hmac_gateway.W011"]


@pytest.mark.parametrize(
    "path", ["^/api/", "", "/", "api/", "^a?/api/", "^a|^/b", "^.*/api", "^/api/.*$", "^[/]x", "^/api/*"]
)
def test_patterns_that_are_left_alone(path: str) -> None:
    with protecting(entry(path)):
        assert found() == {}


def test_weak_hashes() -> None:
    with protecting(entry(), entry(allowed_algorithms=["hmac-sha1"])):
        messages = found()
    assert list(messages) == ["hmac_gateway.W004"]
    assert "entry 2 (" in messages["hmac_gateway.W004"].msg and "entry 1" not in messages["hmac_gateway.W004"].msg


def test_policies_inside_multi_auth_count_as_well() -> None:
    methods = [{"key-auth": {}}, {"hmac-auth": {**GOOD, "allowed_algorithms": ["hmac-sha1"], "signed_headers": []}}]
    with protecting({"path": "^/", "plugin": "multi-auth", "config": {"auth_plugins": methods}}):
        assert sorted(found()) == ["hmac_gateway.W004", "hmac_gateway.W012"]


def test_signatures_that_hold_for_any_address() -> None:
    with protecting(entry(signed_headers=["date"])):
        assert list(found()) == ["hmac_gateway.W012"]
    # The defaults, as APISIX has them, ask for neither.
    with protecting("^/api/"):
        assert sorted(found()) == ["hmac_gateway.W004", "hmac_gateway.W012"]
    with protecting({"path": "^/", "config": PROPOSED}, REPLAY_STORE="database"):
        assert found() == {}, "what the console proposes is right"


def test_bodies_that_are_not_covered_matter_when_deployed() -> None:
    with protecting(entry(validate_request_body=False)):
        assert found() == {}
        assert list(found(deploy=True)) == ["hmac_gateway.W013"]


def test_a_long_skew_matters_when_deployed() -> None:
    with protecting(entry(clock_skew=301)):
        assert found() == {}
        assert list(found(deploy=True)) == ["hmac_gateway.W018"]


def test_replay_protection_wants_a_store_that_lasts() -> None:
    with protecting(entry(replay_protection=True)):
        assert list(found()) == ["hmac_gateway.W006"]


def test_methods_that_settings_hold_no_keys_for() -> None:
    keys = {"client-1": {"secret_key": "0123456789abcdef"}}
    members = [{"key-auth": {}}, {"hmac-auth": GOOD}]
    either = {"path": "^/either/", "plugin": "multi-auth", "config": {"auth_plugins": members}}
    with protecting(entry(), either, CREDENTIALS=keys):
        assert found(deploy=True) == {}
    with protecting(entry(), {"path": "^/keys/", "plugin": "key-auth"}, either, CREDENTIALS=keys):
        messages = found(deploy=True)
    assert list(messages) == ["hmac_gateway.W024"]
    text = messages["hmac_gateway.W024"].msg
    assert "entry 2 ('^/keys/')" in text and "entry 3" not in text


def test_decorated_views_count_as_well() -> None:
    def view(request: Any) -> Any: ...

    class Reports(View): ...

    def said(*views: Any) -> dict[str, Any]:
        namespace: Any = type(sys)("site_urls")
        patterns = [path(f"{number}/", shown) for number, shown in enumerate(views)]
        namespace.urlpatterns = [path("deep/", include((patterns, "deep")))]
        with override_settings(ROOT_URLCONF=namespace):
            return found()

    assert said(hmac_required(config=GOOD)(view), view) == {}
    weak = {"signed_headers": ["date"], "replay_protection": True, "reallm": "x"}
    messages = said(hmac_required(config=weak)(view))
    assert sorted(messages) == [f"hmac_gateway.W0{number}" for number in ("04", "06", "10", "12")]
    assert all(f"{__name__}.test_decorated" in message.msg for message in messages.values())
    decorate = method_decorator(hmac_required(config=GOOD | {"signed_headers": ["date"]}), name="dispatch")
    messages = said(decorate(Reports).as_view(), hmac_required(config=GOOD)(view))
    assert list(messages) == ["hmac_gateway.W012"] and "Reports." in messages["hmac_gateway.W012"].msg
    with protecting(CREDENTIALS={"client-1": {"secret_key": "0123456789abcdef"}}):
        assert list(said(hmac_required(plugin="key-auth")(view))) == ["hmac_gateway.W024"]


def test_decorated_views_that_nobody_can_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: Any = type(sys)("site_urls")
    namespace.urlpatterns = [path("", hmac_required(config=GOOD)(lambda request: None))]
    monkeypatch.setattr("hmac_gateway.checks.credentials.tables_installed", lambda: False)
    with override_settings(ROOT_URLCONF=namespace):
        assert list(found()) == ["hmac_gateway.E010"]
