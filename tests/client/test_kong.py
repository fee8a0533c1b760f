"""Signing in Kong's format with requests, httpx and plain headers: the wire is judged by two verifiers."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests

from hmac_gateway.client import HmacAuth, sign_headers
from hmac_gateway.client.httpx import HmacAuth as HttpxAuth
from hmac_gateway.core.message import Message
from hmac_gateway.gate import Admission, check, compile_step, pipeline
from tests.client.recorded import KEY_ID, SECRET, Recorded, Recorder
from tests.support import naive_kong
from tests.support.engine import credential, directory

Send = Callable[..., Any]


def by_requests(method: str, url: str, body: bytes | None, **options: Any) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.request(method, url, data=body, auth=HmacAuth(KEY_ID, SECRET, scheme="kong", **options), timeout=10)


def by_httpx(method: str, url: str, body: bytes | None, **options: Any) -> None:
    with httpx.Client(trust_env=False) as client:
        client.request(method, url, content=body, auth=HttpxAuth(KEY_ID, SECRET, scheme="kong", **options))


def by_headers(method: str, url: str, body: bytes | None, **options: Any) -> None:
    headers = sign_headers(method, url, key_id=KEY_ID, secret=SECRET, body=body, scheme="kong", **options)
    _, _, address, rest = url.split("/", 3)
    connection = http.client.HTTPConnection(address)
    connection.request(method, "/" + rest, body, headers)
    connection.getresponse().read()
    connection.close()


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def accepted(request: Recorded, *enforced: str, secret: bytes = SECRET) -> bool:
    """Whether the product accepts a request, body included; the independent verifier must say the same of the head."""
    now = time.time()
    message = Message(request.method, request.target, request.headers)
    step = compile_step("hmac-auth", {"enforce_headers": list(enforced), "validate_request_body": True}, "kong")
    admission = check(message, pipeline([step]), directory(credential(KEY_ID, secret)), now)
    keys = {KEY_ID: secret.decode("latin-1")}
    naive = naive_kong.accepts(request.method, request.target, request.headers, keys, now, enforced=enforced)
    assert isinstance(admission, Admission) is naive, request
    if not isinstance(admission, Admission):
        return False
    digests = admission.digests()
    for digest in digests:
        digest.feed(request.body)
    return admission.finish(digests) is None


@pytest.mark.parametrize("send", [by_requests, by_httpx, by_headers])
@pytest.mark.parametrize(
    ("method", "target", "body"), [("GET", "/a%2Fb?x=%20&y", None), ("POST", "/a//b", b"\x00\xff")]
)
def test_what_is_sent_is_accepted(server: Recorder, send: Send, method: str, target: str, body: bytes | None) -> None:
    send(method, server.base + target, body)
    covered = ["@request-target", "date", *(["digest"] if body else [])]
    assert server.last.target == target and accepted(server.last, *covered)
    assert not accepted(server.last, secret=b"other")
    server.last.target += "x"
    assert not accepted(server.last)


@pytest.mark.parametrize("send", [by_requests, by_httpx, by_headers])
def test_the_request_line_may_be_covered_instead(server: Recorder, send: Send) -> None:
    send("GET", server.base + "/x?y", None, signed=["date", "request-line", "host"], algorithm="hmac-sha1")
    assert accepted(server.last, "request-line", "host")
    server.last.method = "HEAD"
    assert not accepted(server.last)


def test_what_cannot_be_signed_is_named() -> None:
    for listed in (["x-tenant"], ["Request-Line"], ["@target"]):
        with pytest.raises(ValueError, match="headers of the request, or @request-target or request-line"):
            sign_headers("GET", "http://h/", key_id="k", secret="s", signed=listed, scheme="kong")
    with pytest.raises(ValueError, match="headers of the request, or @request-target$"):
        sign_headers("GET", "http://h/", key_id="k", secret="s", signed=["request-line"])
