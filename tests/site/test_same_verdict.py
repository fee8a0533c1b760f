"""One table of requests, the same verdict everywhere: middleware, decorator, DRF class, embedded lane, gateway lane.

Each row is asked in every lane at the same address; status and reason code must be those of the row, and at the auth
endpoint the verdict (202, 401, or 403 for everything else). Expected values are written out here, not computed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway import site
from hmac_gateway.adapters.auth_request import speakers
from hmac_gateway.counters import MemoryCounter
from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HmacAuthentication
from hmac_gateway.gate import compile_step, pipeline
from hmac_gateway.routing import Route, Router
from hmac_gateway.settling import Stores
from hmac_gateway.site_settings import credentials_snapshot
from hmac_gateway.stores import MemoryStore
from proxy.auth_endpoint import AuthEndpoint
from proxy.gateway import Gateway
from proxy.plan import Forward
from proxy.transport import Timeouts
from tests.support.hmacproxied import sign as sign_whole
from tests.support.served import digest_of, signed

# The handlers' own signals look at database connections.
pytestmark = pytest.mark.django_db
HOST = "testserver"
CONFIG: dict[str, Any] = {
    "allowed_algorithms": ["hmac-sha256"],
    "signed_headers": ["@request-target", "date"],
    "replay_protection": True,
    "expose_reason": True,
}
BODIES = {**CONFIG, "validate_request_body": True, "max_req_body_size": 20, "signed_headers": ["date", "digest"]}
PEOPLE = {
    "client-1": {"secret_key": "my-hmac-secret", "username": "partner"},
    "client-2": {"secret_key": "other-secret", "username": "other"},
}
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """A request and what every lane must say: 200, or a refusal's status and code."""

    name: str
    status: int
    code: str = ""
    method: str = "GET"
    target: str = "/case/x"
    headers: Callable[[Case], Pairs] = lambda case: sign(case)
    body: bytes = b""

    def __str__(self) -> str:
        return self.name


def sign(case: Case, **more: Any) -> Pairs:
    return list(signed(more.pop("method", case.method), more.pop("target", case.target), **more).items())


def changed(case: Case, name: str, value: str | None) -> Pairs:
    """Signed, then one header changed or taken away."""
    pairs = [(n, v) for n, v in sign(case) if n != name]
    return pairs if value is None else [*pairs, (name, value)]


def twice(case: Case, name: str) -> Pairs:
    pairs = [*sign(case), ("digest", digest_of(b""))]
    return [*pairs, *(pair for pair in pairs if pair[0] == name)]


def with_body(case: Case, digest: str, listed: tuple[str, ...] = ("@request-target", "date", "digest")) -> Pairs:
    return sign(case, listed=listed, headers={"digest": digest})


def old(case: Case) -> Pairs:
    return sign(case, at=time.time() - 400)


CASES = [
    Case("signed", 200),
    Case("signed with a query", 200, target="/case/x?a=1&b=%20c"),
    Case("signed POST", 200, method="POST"),
    Case("an encoded slash, signed as sent", 200, target="/case/a%2Fb"),
    Case("lower case escapes, signed as sent", 200, target="/case/%c3%a4%7e"),
    Case("the decoded form, as APISIX signs", 200, target="/case/%7Ex", headers=lambda c: sign(c, target="/case/~x")),
    Case("brackets and broken escapes, signed as sent", 200, target="/case/[1]%zz?q=[2]"),
    Case("two slashes", 200, target="/case//x"),
    Case("an identity header of the client's", 200, headers=lambda c: [*sign(c), ("X-Consumer-Username", "root")]),
    Case("nothing", 401, "missing_credentials", headers=lambda c: []),
    Case("another scheme", 401, "wrong_scheme", headers=lambda c: [("Authorization", "Token abc")]),
    Case("no blank", 401, "malformed_authorization", headers=lambda c: [("Authorization", "Signaturex")]),
    Case("no key", 401, "incomplete_authorization", headers=lambda c: [("Authorization", "Signature a=b")]),
    Case("unknown key", 401, "unknown_key", headers=lambda c: sign(c, key_id="nobody")),
    Case("another's secret", 401, "signature_mismatch", headers=lambda c: sign(c, secret="other-secret")),
    Case("another's key", 401, "signature_mismatch", headers=lambda c: sign(c, key_id="client-2")),
    Case("another method", 401, "signature_mismatch", method="POST", headers=lambda c: sign(c, method="GET")),
    Case("another target", 401, "signature_mismatch", headers=lambda c: sign(c, target="/case/y")),
    Case(
        "another query",
        401,
        "signature_mismatch",
        target="/case/x?a=2",
        headers=lambda c: sign(c, target="/case/x?a=1"),
    ),
    Case(
        "an escape of an escape",
        401,
        "signature_mismatch",
        target="/case/%2541",
        headers=lambda c: sign(c, target="/case/%41"),
    ),
    Case(
        "an algorithm that is not allowed",
        401,
        "algorithm_not_allowed",
        headers=lambda c: sign(c, algorithm="sha512"),
    ),
    Case("an old date", 401, "clock_skew", headers=old),
    Case("no date", 401, "date_missing", headers=lambda c: changed(c, "date", None)),
    Case("an empty date", 401, "date_invalid", headers=lambda c: changed(c, "date", "")),
    Case("a date that is none", 401, "date_invalid", headers=lambda c: changed(c, "date", "yesterday")),
    Case("an unsigned date", 401, "date_not_signed", headers=lambda c: sign(c, listed=("@request-target",))),
    Case("an unsigned target", 401, "header_not_signed", headers=lambda c: sign(c, listed=("date",))),
    Case("Authorization twice", 400, "duplicate_header", headers=lambda c: twice(c, "authorization")),
    Case(
        "Authorization of two schemes",
        400,
        "duplicate_header",
        headers=lambda c: [*sign(c), ("authorization", "Basic YTpi")],
    ),
    Case(
        "two schemes, the other first",
        400,
        "duplicate_header",
        headers=lambda c: [("authorization", "Basic YTpi"), *sign(c)],
    ),
    Case("Date twice", 400, "duplicate_header", headers=lambda c: twice(c, "date")),
    Case("Digest twice", 400, "duplicate_header", headers=lambda c: twice(c, "digest")),
    Case("dot segments", 400, "ambiguous_path", target="/case/../case/x"),
    Case("encoded dot segments", 400, "ambiguous_path", target="/case/%2e%2e/case/x"),
    Case("an encoded way up", 400, "ambiguous_path", target="/case/..%2fx"),
    Case("a backslash", 400, "ambiguous_path", target="/case/%5cx"),
    Case("an encoded NUL", 400, "ambiguous_path", target="/case/x%00"),
    Case("an encoded line end", 400, "ambiguous_path", target="/case/x%0d%0ay"),
    Case("dots encoded twice", 400, "ambiguous_path", target="/case/%252e%252e/x"),
    Case("parameters only", 400, "ambiguous_path", target="/case/;a=b/x"),
]
BODY_CASES = [
    Case(
        "a body with its digest", 200, method="POST", body=b"hello",
        headers=lambda c: with_body(c, digest_of(b"hello")),
    ),
    Case("no body with its digest", 200, headers=lambda c: with_body(c, digest_of(b""))),
    Case(
        "another body", 401, "digest_mismatch", method="POST", body=b"hallo",
        headers=lambda c: with_body(c, digest_of(b"hello")),
    ),
    Case(
        "a body where none was promised", 401, "digest_mismatch", method="POST", body=b"x",
        headers=lambda c: with_body(c, digest_of(b"")),
    ),
    Case("no digest", 401, "signed_header_absent", method="POST", body=b"x"),
    Case(
        "an unsigned digest", 401, "header_not_signed", method="POST", body=b"hello",
        headers=lambda c: [*sign(c), ("digest", digest_of(b"hello"))],
    ),
    Case(
        "a digest of another kind", 401, "digest_malformed", method="POST", body=b"x",
        headers=lambda c: with_body(c, "MD5=abc"),
    ),
    Case(
        "a large body", 413, "body_too_large", method="POST", body=b"x" * 21,
        headers=lambda c: with_body(c, digest_of(b"x" * 21)),
    ),
]  # fmt: skip

#: What hmacproxy's own signer would have been told, for two who may sign.
PROXIED: dict[str, Any] = {
    "scheme": "hmacproxy", "headers": ["Date", "X-List"], "digest": "sha256", "key_ids": ["client-2", "client-1"],
    "clock_skew": 300, "replay_protection": True, "max_req_body_size": 20, "expose_reason": True,
}  # fmt: skip
LISTED: Pairs = [("X-List", "a"), ("X-List", "b")]


def proxied(case: Case, string: str = "", body: bytes | None = None, at: float | None = None, **more: str) -> Pairs:
    """Date and X-Signature over what is sent, or over another string; computed without any code of the product."""
    date = formatdate(time.time() if at is None else at, usegmt=True)
    head = string or f"{case.method}\n{date}\na,b\n{case.target}\n"
    return [("Date", date), *LISTED, sign_whole(head, case.body if body is None else body, digest="sha256", **more)]


PROXIED_CASES = [
    Case("signed as hmacproxy does", 200, headers=lambda c: proxied(c, secret="my-hmac-secret")),
    Case("by the other", 200, headers=lambda c: proxied(c, secret="other-secret"), target="/case/x?a=%20"),
    Case(
        "a signed body", 200, method="POST", body=b"hello", headers=lambda c: proxied(c, secret="my-hmac-secret"),
    ),
    Case("by nobody who may", 401, "signature_mismatch", headers=lambda c: proxied(c, secret="a third secret")),
    Case(
        "another body than the signed", 401, "signature_mismatch", method="POST", body=b"hallo",
        headers=lambda c: proxied(c, body=b"hello", secret="my-hmac-secret"),
    ),
    Case(
        "a body that was taken away", 401, "signature_mismatch", method="POST",
        headers=lambda c: proxied(c, body=b"hello", secret="my-hmac-secret"),
    ),
    Case(
        "a signed body that is too large", 413, "body_too_large", method="POST", body=b"x" * 21,
        headers=lambda c: proxied(c, secret="my-hmac-secret"),
    ),
    Case(
        "a header more", 401, "signature_mismatch",
        headers=lambda c: [*proxied(c, secret="my-hmac-secret"), ("X-List", "c")],
    ),
    Case(
        "a signature of last hour", 401, "clock_skew",
        headers=lambda c: proxied(c, at=time.time() - 3600, secret="my-hmac-secret"),
    ),
    Case(
        "two signatures", 400, "duplicate_header",
        headers=lambda c: [*proxied(c, secret="my-hmac-secret"), ("X-Signature", "sha256 AAAA")],
    ),
    Case(
        "an encoded question mark", 400, "ambiguous_path", target="/case/x%3Fa=b",
        headers=lambda c: proxied(c, secret="my-hmac-secret"),
    ),
    Case("another digest", 401, "algorithm_not_allowed", headers=lambda c: [("X-Signature", "sha1 AAAA")]),
    Case("one part", 401, "signature_malformed", headers=lambda c: [("X-Signature", "AAAA")]),
]  # fmt: skip


# --- the lanes ---


def ok(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


class Api(APIView):
    authentication_classes = [HmacAuthentication]
    policy: Any = CONFIG

    @property
    def hmac_policy(self) -> Any:
        return {"config": self.policy}

    def get(self, request: Request) -> Response:
        if request.user is None or not request.user.is_authenticated:
            self.permission_denied(request)
        return Response("ok")

    post = get


class Urls:
    """A URL configuration of one pattern."""

    def __init__(self, view: Any) -> None:
        self.urlpatterns = [re_path(r"^case/", view)]


class Told(logging.Handler):
    """The reasons that the log was told."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.reasons.append(record.__dict__["reason"])


@contextmanager
def told() -> Iterator[list[str]]:
    handler = Told()
    logger = logging.getLogger("hmac_gateway.verify")
    logger.addHandler(handler)
    try:
        yield handler.reasons
    finally:
        logger.removeHandler(handler)


def verdict(status: int, headers: dict[str, str], body: bytes, reasons: list[str]) -> tuple[int, str]:
    """Status and reason; the answer shows the reason wherever a plugin refused, and is kept nowhere."""
    reason = reasons[0] if reasons else ""
    if status != 200 and reasons:  # without a reason it was DRF that refused whom no class had known
        assert headers["cache-control"] == "private, no-store", body
        shown = json.loads(body).get("code")
        assert shown in (None, reason), body
    return status, reason


def by_wsgi(case: Case) -> tuple[int, str]:
    """Through Django's WSGI handler, with an environ as gunicorn makes it: headers joined, the target in RAW_URI."""
    path, _, query = case.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": case.method,
        "RAW_URI": case.target,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": HOST,
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(case.body)) if case.body else "",
        "wsgi.input": BytesIO(case.body),
        "wsgi.url_scheme": "http",
    }
    for name, value in case.headers(case):
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    started: list[Any] = []
    with told() as reasons:
        response = WSGIHandler()(environ, lambda status, headers: started.extend((status, headers)))
        body = b"".join(response)
        response.close()
    return verdict(int(started[0][:3]), {n.lower(): v for n, v in started[1]}, body, reasons)


def by_asgi(case: Case) -> tuple[int, str]:
    """Through Django's ASGI handler, with a scope as granian makes it."""
    path, _, query = case.target.partition("?")
    pairs = [("host", HOST), *case.headers(case)]
    if case.body:
        pairs.append(("content-length", str(len(case.body))))
    scope = {
        "type": "http", "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": (HOST, 80),
        "method": case.method, "raw_path": path.encode("latin-1"), "query_string": query.encode("latin-1"),
        "path": unquote_to_bytes(path).decode("utf-8", "replace"), "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
    }  # fmt: skip
    events = [{"type": "http.request", "body": case.body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop() if events else await asyncio.sleep(3600)

    async def send(event: Any) -> None:
        sent.append(event)

    with told() as reasons:
        asyncio.run(ASGIHandler()(scope, receive, send))
    headers = {name.decode().lower(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return verdict(sent[0]["status"], headers, b"".join(event["body"] for event in sent[1:]), reasons)


def middleware(case: Case, config: dict[str, Any]) -> tuple[int, str]:
    settings = {"CREDENTIALS": PEOPLE, "PROTECT": [{"path": "^/case/", "config": config}]}
    with override_settings(
        MIDDLEWARE=["hmac_gateway.middleware.HmacGatewayMiddleware"], HMAC_GATEWAY=settings, ROOT_URLCONF=Urls(ok)
    ):
        return by_wsgi(case)


def middleware_async(case: Case, config: dict[str, Any]) -> tuple[int, str]:
    settings = {"CREDENTIALS": PEOPLE, "PROTECT": [{"path": "^/case/", "config": config}]}
    with override_settings(
        MIDDLEWARE=["hmac_gateway.middleware.HmacGatewayMiddleware"], HMAC_GATEWAY=settings, ROOT_URLCONF=Urls(ok)
    ):
        return by_asgi(case)


def decorator(case: Case, config: dict[str, Any]) -> tuple[int, str]:
    view = hmac_required(config=config)(ok)
    with override_settings(MIDDLEWARE=[], HMAC_GATEWAY={"CREDENTIALS": PEOPLE}, ROOT_URLCONF=Urls(view)):
        return by_wsgi(case)


def drf(case: Case, config: dict[str, Any]) -> tuple[int, str]:
    view = Api.as_view(policy=config)
    with override_settings(MIDDLEWARE=[], HMAC_GATEWAY={"CREDENTIALS": PEOPLE}, ROOT_URLCONF=Urls(view)):
        return by_wsgi(case)


def gateway_of(config: dict[str, Any]) -> tuple[Gateway, list[Any]]:
    step = compile_step("hmac-auth", config)
    route = Route("r", ("/case/*",), pipeline([step]), Forward(None, Timeouts(1, 1, 1)))
    people = credentials_snapshot(PEOPLE)
    snapshot = replace(people, routes=Router([route]))
    told: list[Any] = []

    class Observer:
        def finished(self, exchange: Any) -> None:
            told.append(exchange.reason)

        def rejected(self, exchange: Any, rejected: Any) -> None:
            pass

    endpoint = AuthEndpoint(speakers(()), lambda address: False)
    return Gateway(lambda: snapshot, MemoryStore(100), observer=Observer(), endpoint=endpoint), told


def by_gateway(case: Case, config: dict[str, Any], scope: dict[str, Any]) -> tuple[int, str]:
    gateway, told = gateway_of(config)
    events = [{"type": "http.request", "body": case.body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop() if events else await asyncio.sleep(3600)

    async def send(event: Any) -> None:
        sent.append(event)

    asyncio.run(gateway({"type": "http", "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1),
                         "server": ("127.0.0.1", 80), **scope}, receive, send))  # fmt: skip
    status = sent[0]["status"]
    # There is no upstream behind it: 503 says that the request was let through.
    return (200, "") if told[0] == "no_upstream" else (status, told[0])


def gateway(case: Case, config: dict[str, Any]) -> tuple[int, str]:
    path, _, query = case.target.partition("?")
    pairs = [("host", HOST), *case.headers(case)]
    if case.body:
        pairs.append(("content-length", str(len(case.body))))
    return by_gateway(case, config, {
        "method": case.method, "raw_path": path.encode("latin-1"), "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
    })  # fmt: skip


def endpoint(case: Case, config: dict[str, Any]) -> tuple[int, str]:
    told = [("x-original-method", case.method), ("x-original-uri", case.target), ("x-original-proto", "HTTP/1.1")]
    pairs = [("host", HOST), *case.headers(case), *told]
    bare = Case(case.name, case.status)
    return by_gateway(bare, config, {
        "method": "GET", "raw_path": b"/.hmac-gateway/auth", "query_string": b"", "http_version": "1.0",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
    })  # fmt: skip


LANES = [middleware, middleware_async, decorator, drf, gateway]


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_heads(case: Case, lane: Any) -> None:
    status, code = lane(case, CONFIG)
    expected = case.code
    if lane is drf and case.code in ("missing_credentials", "wrong_scheme"):
        expected = ""  # DRF's own words: another class may still accept it
    assert (status, code) == (case.status, expected)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("case", BODY_CASES, ids=str)
def test_bodies(case: Case, lane: Any) -> None:
    assert lane(case, BODIES) == (case.status, case.code)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("case", PROXIED_CASES, ids=str)
def test_signatures_of_hmacproxy(case: Case, lane: Any) -> None:
    assert lane(case, PROXIED) == (case.status, case.code)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_auth_endpoint_gives_the_same_verdict(case: Case) -> None:
    status, _ = endpoint(case, CONFIG)
    assert status == {200: 202, 401: 401}.get(case.status, 403)


@pytest.mark.parametrize("lane", [middleware, middleware_async, decorator, drf], ids=lambda lane: lane.__name__)
def test_replays(lane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # One store for both requests, as in one process with one dict of settings.
    stores = Stores(MemoryStore(10), MemoryCounter())
    monkeypatch.setattr(site._State, "stores", property(lambda state: stores))
    headers = signed("POST", "/case/x")
    case = Case("again", 200, method="POST", headers=lambda c: list(headers.items()))
    assert lane(case, CONFIG) == (200, "")
    assert lane(case, CONFIG) == (401, "replayed")
