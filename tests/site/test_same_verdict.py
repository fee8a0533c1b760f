"""One table of requests for each plugin, the same verdict everywhere.

Lanes: middleware (WSGI and ASGI), decorator, DRF class, embedded lane, gateway lane. Each row is asked in every one at
the same address; status and reason code must be those of the row, and at the auth endpoint the verdict (202, 401, or
403 for everything else). Expected values are written out here, not computed.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from io import BytesIO
from typing import Any
from unittest import mock
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
from hmac_gateway.core.credential import Consumer
from hmac_gateway.counters import Counters, MemoryCounter, RefusingCounter
from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HmacAuthentication
from hmac_gateway.gate import Rule, compile_plugin, compile_step, pipeline
from hmac_gateway.routing import Route, Router
from hmac_gateway.settling import Stores
from hmac_gateway.snapshot import Snapshot, lookups
from hmac_gateway.stores import MemoryStore
from proxy.auth_endpoint import AuthEndpoint
from proxy.gateway import Gateway
from proxy.plan import Forward
from proxy.transport import Timeouts
from proxy.views import ProxyView
from tests.support.engine import credential
from tests.support.hmacproxied import sign as sign_whole
from tests.support.served import digest_of, signed
from tests.support.tokens import PUBLIC, SECRET, token

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
PARTNER, OTHER = Consumer("1", "partner"), Consumer("2", "other")
PAST = 1_000_000_000.0
#: Who is known: the first of each method is good, and of the others one thing is not.
PEOPLE = Snapshot(
    1,
    lookups=lookups(
        {
            "hmac-auth": {
                "client-1": credential("client-1", b"my-hmac-secret", consumer=PARTNER),
                "client-2": credential("client-2", b"other-secret", consumer=OTHER),
            },
            "key-auth": {
                "the-key": credential("", b"the-key", consumer=PARTNER, plugin="key-auth"),
                "off-key": credential("", b"off-key", consumer=PARTNER, plugin="key-auth", enabled=False),
                "old-key": credential("", b"old-key", consumer=PARTNER, plugin="key-auth", expires_at=PAST),
            },
            "basic-auth": {
                "alice": credential("alice", b"pass: word", consumer=PARTNER, plugin="basic-auth"),
                "off": credential("off", b"pass", consumer=PARTNER, plugin="basic-auth", enabled=False),
            },
            "jwt-auth": {
                "hs": credential("hs", SECRET.encode(), consumer=PARTNER, plugin="jwt-auth"),
                "rs": credential(
                    "rs",
                    b"",
                    consumer=PARTNER,
                    plugin="jwt-auth",
                    settings={"algorithm": "RS256", "public_key": PUBLIC("RS256")},
                ),
            },
        }
    ),
    consumers={"partner": PARTNER, "other": OTHER},
)
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


#: Kong's format, words and order of checks.
KONG: dict[str, Any] = {
    "algorithms": ["hmac-sha256"], "enforce_headers": ["@request-target", "date"],
    "replay_protection": True, "validate_request_body": True, "max_req_body_size": 20, "expose_reason": True,
}  # fmt: skip


def kong(case: Case, *extra: tuple[str, str], header: str = "Authorization", **more: Any) -> Pairs:
    """Signed as Kong's clients do, over target, date and what is in `extra`; with plain `hmac`."""
    date = formatdate(more.get("at", time.time()), usegmt=True)
    target, method = more.get("target", case.target), more.get("method", case.method).lower()
    lines = [f"@request-target: {method} {target}", f"date: {date}", *(f"{name}: {value}" for name, value in extra)]
    secret = more.get("secret", "my-hmac-secret").encode()
    mac = b64encode(hmac.digest(secret, "\n".join(lines).encode("latin-1"), "sha256")).decode()
    listed = " ".join(["@request-target", "date", *(name for name, _ in extra)])
    text = f'hmac username="{more.get("key_id", "client-1")}", algorithm="hmac-sha256", headers="{listed}", '
    return [("Date", date), *extra, (header, f'{text}signature="{mac}"')]


KONG_CASES = [
    Case("signed for Kong", 200, headers=kong),
    Case("in Proxy-Authorization", 200, headers=lambda c: kong(c, header="Proxy-Authorization")),
    Case("escapes, signed as sent", 200, target="/case/a%2Fb/%7e?x=%20&y", headers=kong),
    Case(
        "a signed digest", 200, method="POST", body=b"hello",
        headers=lambda c: kong(c, ("digest", digest_of(b"hello"))),
    ),
    Case(
        "another body than the digest's", 401, "digest_mismatch", method="POST", body=b"hallo",
        headers=lambda c: kong(c, ("digest", digest_of(b"hello"))),
    ),
    Case("a body without a digest", 401, "digest_missing", method="POST", body=b"hello", headers=kong),
    Case(
        "an unsigned digest for Kong", 401, "digest_not_signed", method="POST", body=b"hello",
        headers=lambda c: [*kong(c), ("Digest", digest_of(b"hello"))],
    ),
    Case(
        "a large body for Kong", 413, "body_too_large", method="POST", body=b"x" * 21,
        headers=lambda c: kong(c, ("digest", digest_of(b"x" * 21))),
    ),
    Case("garbage without a date", 401, "date_missing", headers=lambda c: [("Authorization", "hmac x")]),
    Case(
        "garbage", 401, "malformed_authorization",
        headers=lambda c: [("Authorization", "hmac x"), ("Date", formatdate(usegmt=True))],
    ),
    Case(
        "two fields in one header", 400, "duplicate_header",
        headers=lambda c: [*kong(c), kong(c)[-1]],
    ),
    Case("an old signature for Kong", 401, "clock_skew", headers=lambda c: kong(c, at=time.time() - 400)),
    Case(
        "an old date, a new one unsigned", 401, "clock_skew",
        headers=lambda c: [*kong(c, at=time.time() - 400), ("X-Date", formatdate(usegmt=True))],
    ),
    Case("another target for Kong", 401, "signature_mismatch", headers=lambda c: kong(c, target="/case/y")),
    Case("nobody's key for Kong", 401, "unknown_key", headers=lambda c: kong(c, key_id="nobody")),
]  # fmt: skip


# --- the lanes ---


def ok(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


class Api(APIView):
    authentication_classes = [HmacAuthentication]
    hmac_policy: Any = {}

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
        if body.startswith(b"{"):
            shown = json.loads(body).get("code")
        else:  # Kong's plain text
            shown = dict(line.split(": ", 1) for line in body.decode().splitlines() if ": " in line).get("code")
        # DRF has a code of its own where none is shown.
        assert shown in (None, reason, "authentication_failed"), body
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


@contextmanager
def a_site(view: Any, **settings: Any) -> Iterator[None]:
    """A Django site of one view, which knows PEOPLE."""
    installed = ["hmac_gateway.middleware.HmacGatewayMiddleware"] if settings else []
    with (
        override_settings(MIDDLEWARE=installed, HMAC_GATEWAY=settings, ROOT_URLCONF=Urls(view)),
        mock.patch.object(site._State, "directory", PEOPLE),
    ):
        yield


def middleware(case: Case, policy: dict[str, Any]) -> tuple[int, str]:
    with a_site(ok, PROTECT=[{"path": "^/case/", **policy}]):
        return by_wsgi(case)


def middleware_async(case: Case, policy: dict[str, Any]) -> tuple[int, str]:
    with a_site(ok, PROTECT=[{"path": "^/case/", **policy}]):
        return by_asgi(case)


def decorator(case: Case, policy: dict[str, Any]) -> tuple[int, str]:
    with a_site(hmac_required(**policy)(ok)):
        return by_wsgi(case)


def drf(case: Case, policy: dict[str, Any]) -> tuple[int, str]:
    with a_site(Api.as_view(hmac_policy=policy)):
        status, code = by_wsgi(case)
    if status == 401 and not code and case.code in ("missing_credentials", "wrong_scheme"):
        code = case.code  # DRF's own words: another class may still accept it
    return status, code


def routed(policy: dict[str, Any]) -> Snapshot:
    """PEOPLE, with a route that leads to no upstream: 503 then says that the request was let through."""
    step = compile_step(policy.get("plugin", "hmac-auth"), policy["config"], policy.get("dialect", "apisix"))
    route = Route("r", ("/case/*",), pipeline([step]), Forward(None, Timeouts(1, 1, 1)))
    return replace(PEOPLE, routes=Router([route]))


def embedded(case: Case, policy: dict[str, Any]) -> tuple[int, str]:
    runtime = mock.Mock(current=lambda: routed(policy))
    with a_site(ProxyView.as_view()), mock.patch.object(site, "runtime", lambda: runtime):
        status, code = by_wsgi(case)
    return (200, "") if code == "no_upstream" else (status, code)


def gateway_of(policy: dict[str, Any]) -> tuple[Gateway, list[Any]]:
    snapshot = routed(policy)
    told: list[Any] = []

    class Observer:
        def finished(self, exchange: Any) -> None:
            told.append(exchange.reason)

        def rejected(self, exchange: Any, rejected: Any) -> None:
            pass

    counters = Counters(MemoryCounter(), RefusingCounter("no settings name one"))
    endpoint = AuthEndpoint(speakers(()), lambda address: False)
    return Gateway(lambda: snapshot, MemoryStore(100), counters, observer=Observer(), endpoint=endpoint), told


def by_gateway(case: Case, policy: dict[str, Any], scope: dict[str, Any]) -> tuple[int, str]:
    gateway, told = gateway_of(policy)
    events = [{"type": "http.request", "body": case.body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop() if events else await asyncio.sleep(3600)

    async def send(event: Any) -> None:
        sent.append(event)

    asyncio.run(gateway({"type": "http", "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1),
                         "server": ("127.0.0.1", 80), **scope}, receive, send))  # fmt: skip
    status = sent[0]["status"]
    return (200, "") if told[0] == "no_upstream" else (status, told[0])


def gateway(case: Case, policy: dict[str, Any]) -> tuple[int, str]:
    path, _, query = case.target.partition("?")
    pairs = [("host", HOST), *case.headers(case)]
    if case.body:
        pairs.append(("content-length", str(len(case.body))))
    return by_gateway(case, policy, {
        "method": case.method, "raw_path": path.encode("latin-1"), "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
    })  # fmt: skip


def endpoint(case: Case, policy: dict[str, Any]) -> tuple[int, str]:
    told = [("x-original-method", case.method), ("x-original-uri", case.target), ("x-original-proto", "HTTP/1.1")]
    pairs = [("host", HOST), *case.headers(case), *told]
    bare = Case(case.name, case.status)
    return by_gateway(bare, policy, {
        "method": "GET", "raw_path": b"/.hmac-gateway/auth", "query_string": b"", "http_version": "1.0",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
    })  # fmt: skip


def basic(pair: str, word: str = "Basic") -> Callable[[Case], Pairs]:
    return lambda case: [("Authorization", f"{word} {b64encode(pair.encode()).decode()}")]


def header(name: str, value: str) -> Callable[[Case], Pairs]:
    return lambda case: [(name, value)]


def nothing(case: Case) -> Pairs:
    return []


KEY_CASES = [
    Case("key", 200, headers=header("apikey", "the-key")),
    Case("key in the query", 200, target="/case/x?a=1&apikey=the%2Dkey", headers=nothing),
    Case("no key", 401, "missing_credentials", headers=nothing),
    Case("no key but a signature", 401, "missing_credentials"),
    Case("wrong key", 401, "unknown_key", headers=header("apikey", "the-kez")),
    Case("empty key", 401, "unknown_key", headers=header("apikey", "")),
    Case("wrong key, right one behind it", 401, "unknown_key", target="/case/x?apikey=the-key",
         headers=header("apikey", "x")),
    Case("key twice in the query", 401, "malformed_authorization", target="/case/x?apikey=the-key&apikey=the-key",
         headers=nothing),
    Case("key without a value", 401, "malformed_authorization", target="/case/x?apikey", headers=nothing),
    Case("key in the wrong place", 401, "missing_credentials", headers=header("Authorization", "the-key")),
    Case("disabled key", 401, "credential_disabled", headers=header("apikey", "off-key")),
    Case("expired key", 401, "credential_expired", headers=header("apikey", "old-key")),
]  # fmt: skip

BASIC_CASES = [
    Case("password", 200, headers=basic("alice:pass: word")),
    Case("password, scheme in capitals", 200, headers=basic("alice:pass: word", "BASIC")),
    Case("no password", 401, "missing_credentials", headers=nothing),
    Case("a bearer", 401, "wrong_scheme", headers=header("Authorization", "Bearer x")),
    Case("not base64", 401, "malformed_authorization", headers=header("Authorization", "Basic !!!")),
    Case("no colon", 401, "malformed_authorization", headers=basic("alice")),
    Case("unknown user", 401, "unknown_key", headers=basic("bob:pass: word")),
    Case("wrong password", 401, "wrong_password", headers=basic("alice:pass")),
    Case("disabled user", 401, "credential_disabled", headers=basic("off:pass")),
]  # fmt: skip

_FAR = {"key": "hs", "exp": 4_000_000_000}
JWT_CASES = [
    Case("token", 200, headers=header("Authorization", "Bearer " + token("HS256", _FAR))),
    Case("bare token", 200, headers=header("Authorization", token("HS256", _FAR))),
    Case("token of a key pair", 200, headers=header("Authorization", token("RS256", {"key": "rs"}))),
    Case("token in the query", 200, target="/case/x?jwt=" + token("HS256", _FAR), headers=nothing),
    Case("token in a cookie", 200, headers=header("Cookie", "a=b; jwt=" + token("HS256", _FAR))),
    Case("no token", 401, "missing_credentials", headers=nothing),
    Case("no token's form", 401, "malformed_authorization", headers=header("Authorization", "a.b.c")),
    Case("token without a key", 401, "incomplete_authorization",
         headers=header("Authorization", token("HS256", {"exp": 4_000_000_000}))),
    Case("token with an unknown key", 401, "unknown_key",
         headers=header("Authorization", token("HS256", {"key": "x"}))),
    Case("token without a signature", 401, "algorithm_not_allowed",
         headers=header("Authorization", token("HS256", _FAR, {"typ": "JWT", "alg": "none"}).rpartition(".")[0] + ".")),
    Case("public key for a secret", 401, "algorithm_not_allowed",
         headers=header("Authorization", token("HS256", {"key": "rs"}, key=PUBLIC("RS256")))),
    Case("another's signature", 401, "signature_mismatch",
         headers=header("Authorization", token("HS256", _FAR, key="other"))),
    Case("expired token", 401, "token_expired", headers=header("Authorization", token("HS256", {**_FAR, "exp": 1}))),
    Case("token of the future", 401, "token_not_yet_valid",
         headers=header("Authorization", token("HS256", {**_FAR, "nbf": 3_900_000_000}))),
]  # fmt: skip

MULTI_CASES = [
    Case("one of them: key", 200, headers=header("apikey", "the-key")),
    Case("one of them: password", 200, headers=basic("alice:pass: word")),
    Case("one of them: signature", 200),
    Case("none of them", 401, "missing_credentials", headers=nothing),
    Case("one that is wrong", 401, "unknown_key", headers=header("apikey", "x")),
    Case("one that is wrong, another that holds", 200, headers=lambda c: [*sign(c), ("apikey", "x")]),
]

#: By plugin: its configuration and its table.
PLUGINS: dict[str, tuple[dict[str, Any], list[Case]]] = {
    "key-auth": ({"expose_reason": True}, KEY_CASES),
    "basic-auth": ({"expose_reason": True}, BASIC_CASES),
    "jwt-auth": ({"expose_reason": True}, JWT_CASES),
    "multi-auth": (
        {"expose_reason": True, "auth_plugins": [{"key-auth": {}}, {"basic-auth": {}}, {"hmac-auth": CONFIG}]},
        MULTI_CASES,
    ),
}
OF_PLUGINS = [
    pytest.param(case, {"plugin": name, "config": config}, id=f"{name}-{case}")
    for name, (config, cases) in PLUGINS.items()
    for case in cases
]

#: What Kong's dialect sees otherwise: place, order, and what counts as absent.
KONG_PLUGINS: dict[str, tuple[dict[str, Any], list[Case]]] = {
    "key-auth": ({"key_names": ["k", "apikey"]}, [
        Case("Kong: second name", 200, headers=header("apikey", "the-key")),
        Case("Kong: argument of the first name", 200, target="/case/x?k=the-key", headers=nothing),
        Case("Kong: empty", 401, "missing_credentials", headers=header("k", "")),
        Case("Kong: unknown", 401, "unknown_key", headers=header("k", "x")),
    ]),
    "basic-auth": ({}, [
        Case("Kong: user", 200, headers=basic("alice:pass: word")),
        Case("Kong: proxy first", 200, headers=lambda c: [
            ("Proxy-Authorization", basic("alice:pass: word")(c)[0][1]), ("Authorization", "Bearer x")]),
        Case("Kong: wrong", 401, "wrong_password", headers=basic("alice:x")),
        Case("Kong: nothing", 401, "missing_credentials", headers=nothing),
    ]),
    "jwt": ({"key_claim_name": "key"}, [
        Case("Kong: token", 200, headers=header("Authorization", "Bearer " + token("HS256", _FAR))),
        Case("Kong: no Bearer", 401, "missing_credentials", headers=header("Authorization", token("HS256", _FAR))),
        Case("Kong: two tokens", 401, "several_credentials", target=f"/case/x?jwt={token('HS256', _FAR)}",
             headers=header("Authorization", "Bearer " + token("HS256", {**_FAR, "n": 1}))),
        Case("Kong: alg none", 401, "algorithm_unknown",
             headers=header("Authorization", "Bearer " + token("HS256", _FAR, {"alg": "none"}))),
    ]),
}  # fmt: skip
OF_PLUGINS += [
    pytest.param(case, {"plugin": name, "config": config | {"expose_reason": True}, "dialect": "kong"}, id=str(case))
    for name, (config, cases) in KONG_PLUGINS.items()
    for case in cases
]


LANES = [middleware, middleware_async, decorator, drf, embedded, gateway]


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_heads(case: Case, lane: Any) -> None:
    assert lane(case, {"config": CONFIG}) == (case.status, case.code)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("case", BODY_CASES, ids=str)
def test_bodies(case: Case, lane: Any) -> None:
    assert lane(case, {"config": BODIES}) == (case.status, case.code)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("case", KONG_CASES, ids=str)
def test_signatures_for_kong(case: Case, lane: Any) -> None:
    assert lane(case, {"config": KONG, "dialect": "kong"}) == (case.status, case.code)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize("case", PROXIED_CASES, ids=str)
def test_signatures_of_hmacproxy(case: Case, lane: Any) -> None:
    assert lane(case, {"config": PROXIED}) == (case.status, case.code)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize(("case", "policy"), OF_PLUGINS)
def test_other_plugins(case: Case, policy: dict[str, Any], lane: Any) -> None:
    assert lane(case, policy) == (case.status, case.code)


@pytest.mark.parametrize(("case", "policy"), OF_PLUGINS)
def test_other_plugins_at_the_auth_endpoint(case: Case, policy: dict[str, Any]) -> None:
    assert endpoint(case, policy)[0] == {200: 202}.get(case.status, case.status)


#: Rules that stand on the caller, so that they hold wherever somebody calls.
OF_RULES = [
    ("consumer-restriction", {"whitelist": ["partner"]}, 200, ""),
    ("consumer-restriction", {"whitelist": ["other"]}, 403, "consumer_forbidden"),
    ("consumer-restriction", {"blacklist": ["partner"], "rejected_code": 418}, 418, "consumer_forbidden"),
    ("consumer-restriction", {"type": "consumer_group_id", "whitelist": ["g"]}, 401, "consumer_required"),
    (
        "consumer-restriction",
        {"allowed_by_methods": [{"user": "partner", "methods": ["POST"]}]},
        403,
        "consumer_forbidden",
    ),
    ("limit-count", {"count": 1, "time_window": 60}, 200, ""),
    ("limit-count", {"count": 1, "time_window": 60, "policy": "redis"}, 503, "counter_store_unavailable"),
    ("limit-count", {"count": 1, "time_window": 60, "policy": "redis", "allow_degradation": True}, 200, ""),
]


def ruled(monkeypatch: pytest.MonkeyPatch, name: str, config: dict[str, Any]) -> None:
    rule = compile_plugin(name, config, place="consumer:1")
    assert isinstance(rule, Rule)
    monkeypatch.setattr(f"{__name__}.PEOPLE", replace(PEOPLE, overrides={"consumer:1": {name: rule}}))


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.__name__)
@pytest.mark.parametrize(("name", "config", "status", "code"), OF_RULES)
def test_rules(
    lane: Any, name: str, config: dict[str, Any], status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruled(monkeypatch, name, config)
    assert lane(KEY_CASES[0], {"plugin": "key-auth", "config": {}}) == (status, code)


@pytest.mark.parametrize(
    "lane", [middleware, middleware_async, decorator, drf, embedded], ids=lambda lane: lane.__name__
)
def test_limits(lane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ruled(monkeypatch, "limit-count", {"count": 1, "time_window": 60, "rejected_code": 429})
    stores = Stores(MemoryStore(10), MemoryCounter())
    monkeypatch.setattr(site._State, "stores", property(lambda state: stores))
    said = [lane(KEY_CASES[0], {"plugin": "key-auth", "config": {}}) for _ in range(2)]
    assert said == [(200, ""), (429, "rate_limited")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_auth_endpoint_gives_the_same_verdict(case: Case) -> None:
    status, _ = endpoint(case, {"config": CONFIG})
    assert status == {200: 202, 401: 401}.get(case.status, 403)


@pytest.mark.parametrize("lane", [middleware, middleware_async, decorator, drf], ids=lambda lane: lane.__name__)
def test_replays(lane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # One store for both requests, as in one process with one dict of settings.
    stores = Stores(MemoryStore(10), MemoryCounter())
    monkeypatch.setattr(site._State, "stores", property(lambda state: stores))
    headers = signed("POST", "/case/x")
    case = Case("again", 200, method="POST", headers=lambda c: list(headers.items()))
    assert lane(case, {"config": CONFIG}) == (200, "")
    assert lane(case, {"config": CONFIG}) == (401, "replayed")
