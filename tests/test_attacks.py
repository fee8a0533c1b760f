"""What a stranger may cost: requests made to be expensive, and what is kept of those that were refused."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from django.apps import apps
from django.utils import timezone

from hmac_gateway import crypto, references, telemetry
from hmac_gateway.admin_api.apisix_credentials import check_auth
from hmac_gateway.admin_api.apisix_store import _regex
from hmac_gateway.admin_api.errors import ApiError
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY, Failure, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.entities import one_version
from hmac_gateway.models import Rejection
from hmac_gateway.runtime import Runtime
from hmac_gateway.schemes import SCHEMES
from hmac_gateway.schemes.base import Claim
from proxy.plan import Peer, header_lines


def parsed(listed: str, headers: dict[str, str], target: str = "/") -> Claim | Failure | None:
    text = f'Signature keyId="a",algorithm="hmac-sha256",headers="{listed}",signature="AAAA"'
    return SCHEMES["apisix"].parse(Message("GET", target, [*headers.items(), ("authorization", text)]))


def test_repeated_headers_are_found_in_time_in_proportion() -> None:
    # A set made anew for each would need minutes.
    message = Message("GET", "/", [(f"x-{number // 2}", "") for number in range(100_000)])
    assert len(message.duplicated) == 50_000


@pytest.mark.parametrize("item", ["x-long", "X-Long", "x_long", "@request-target"])
def test_a_long_header_is_not_signed_again_and_again(item: str) -> None:
    long = {"x-long": "v" * 60_000}
    found = parsed(" ".join(["date", *[item] * 98]), long, "/" + "p" * 60_000)
    assert isinstance(found, Failure) and found.reason is Reason.MALFORMED_AUTHORIZATION
    assert isinstance(parsed(f"date {item}", long), Claim)


def test_many_listed_headers_of_usual_size_are_read() -> None:
    headers = {f"x-{number}": "v" * 500 for number in range(98)}
    assert isinstance(parsed(" ".join(["@request-target", "date", *headers]), headers), Claim)


@pytest.mark.parametrize("pattern", [".?" * 60 + "!", "(.|.)" * 40 + "!", "(a|b)?(a|b)", ".*.*.?!", "(a?)?"])
def test_no_filter_of_a_list_takes_exponential_time(pattern: str) -> None:
    with pytest.raises(ApiError):
        _regex("uri", pattern)


@pytest.mark.parametrize("pattern", ["", "^/orders", "orders$", "^/a.*b", "a|b", "(?i)ORDERS", "[a-z]+", r"^v1\."])
def test_usual_filters_of_a_list_pass(pattern: str) -> None:
    _regex("uri", pattern)


class Refused:
    """A refused request with a header of `size` bytes."""

    def __init__(self, number: int, size: int) -> None:
        self.message = Message("GET", "/x", [("x-long", "\xff" * size)])
        self.request_id = f"request-{number}"
        self.path = "/x"
        self.status = 401
        self.reason = "missing_credentials"
        self.route_id = "r"


@pytest.mark.django_db
def test_refused_requests_do_not_fill_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MOST_REJECTIONS", 3)
    told = telemetry.Telemetry(Runtime())
    for number in range(10):
        told.rejected(Refused(number, 60_000 if number == 9 else 10), Rejected(Reason.MISSING, plugin="hmac-auth"))
        time.sleep(0.001)
    told.flush()
    kept = dict(Rejection.objects.values_list("request_id", "sealed_request"))
    assert sorted(kept) == ["request-7", "request-8", "request-9"]
    assert kept["request-7"] and not kept["request-9"]
    Rejection.objects.update(at=timezone.now() - timedelta(days=2))
    telemetry.prune()
    assert not Rejection.objects.exists()


def test_the_table_of_refused_requests_is_bounded_in_bytes() -> None:
    sealed = telemetry._sealed(0.0, Message("GET", "/x", [("x-random", os.urandom(2000).hex())]))
    assert len(sealed) * telemetry.MOST_REJECTIONS < 300 * 1024 * 1024
    largest = telemetry.MOST_HEAD * 4 // 3 * telemetry.MOST_REJECTIONS
    assert largest < 300 * 1024 * 1024


# --- protection that gets lost ---


@pytest.mark.django_db
def test_what_is_deleted_and_made_again_in_one_transaction_stays_known() -> None:
    rows = apps.get_model("hmac_proxy.Route")._default_manager
    rows.create(id="closed", paths=["/admin*"])
    view = Runtime()
    assert view.refresh()
    with one_version():
        rows.get(pk="closed").delete()
        rows.create(id="closed", paths=["/admin*"])
    rows.create(id="open", paths=["/*"])
    assert view.refresh() and view.snapshot is not None
    assert {route.id for route in view.snapshot.routes.routes} == {"closed", "open"}
    rows.get(pk="closed").delete()
    assert view.refresh()
    assert {route.id for route in view.snapshot.routes.routes} == {"open"}


# --- what is forwarded ---


def forwarded(identity: Identity, *headers: tuple[str, str], version: str = "1.1") -> str:
    message = Message("GET", "/", [("host", "a.test"), *headers], http_version=version)
    return header_lines(message, identity, frozenset(), Peer(80), "id", "")


def test_an_unsigned_connection_header_takes_away_nothing_that_was_signed() -> None:
    sent = [("x-dry-run", "1"), ("x-hop", "2"), ("connection", "x-dry-run, x-hop, x-consumer-username")]
    lines = forwarded(NOBODY._replace(covered=frozenset({"x-dry-run", "x-consumer-username"})), *sent)
    assert "x-dry-run: 1\r\n" in lines and "x-hop" not in lines and "x-consumer-username" not in lines
    assert "x-dry-run" not in forwarded(NOBODY, *sent)


def test_a_cookie_that_http2_has_split_is_put_together() -> None:
    sent = [("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2")]
    assert forwarded(NOBODY, *sent, version="2").count("cookie: ") == 1
    assert "\r\ncookie: a=1; c=2\r\n" in forwarded(NOBODY, *sent, version="2")
    assert forwarded(NOBODY, *sent).startswith("cookie: a=1\r\nx-a: b\r\ncookie: c=2\r\n")


# --- secrets that are none ---


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["$env://HMAC_SECRET", "$ENV://X", "$secret://vault/1/a/b", ""])
def test_a_reference_is_no_secret(text: str) -> None:
    consumer = apps.get_model("hmac_consumers.Consumer")._default_manager.create(username="a")
    row = apps.get_model("hmac_consumers.Credential")(consumer=consumer, plugin="hmac-auth", identifier="key-1")
    if text:
        with pytest.raises(references.Refused):
            row.set_secret(text)
    # As a row may come from elsewhere.
    row.sealed_secret = crypto.seal(text)
    row.save()
    view = Runtime()
    assert view.refresh() and view.snapshot is not None
    found = view.snapshot.lookups["hmac-auth"]("key-1")
    assert found is not None and found.open_secrets(0.0) == ()
    if text:
        with pytest.raises(ApiError) as refused:
            check_auth("hmac-auth", {"key_id": "key-1", "secret_key": text})
        assert text not in str(refused.value.body)
