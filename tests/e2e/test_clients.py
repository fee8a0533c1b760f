"""The client kit against a served gateway: what `HmacAuth` and `sign_headers` send is let through, and only once."""

from __future__ import annotations

import asyncio
import io
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests

from hmac_gateway.client import HmacAuth, sign_headers
from hmac_gateway.client.httpx import HmacAuth as HttpxAuth
from tests.support.echo import EchoUpstream
from tests.support.served import Served

KEY = ("client-1", "my-hmac-secret")
STRICT: dict[str, Any] = {
    "signed_headers": ["@request-target", "date", "digest"],
    "validate_request_body": True,
    "replay_protection": True,
    "expose_reason": True,
}
TARGETS = ["/", "/a%2fb", "/x[1]", "/ä b?q=ü&r=[1]", "/%zz?%zz", "/a?", "/~a/*'()!,;@:$&=+", "/%c3%a4?a=%2f"]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with EchoUpstream() as echo, Served() as served:
        served.setup(echo.node, plugin=STRICT)
        yield served


@pytest.fixture
def session(gateway: Served) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.mark.parametrize("target", TARGETS)
def test_targets_arrive_as_they_were_signed(gateway: Served, session: requests.Session, target: str) -> None:
    answer = session.get(gateway.base + target, auth=HmacAuth(*KEY))
    assert (answer.status_code, answer.json().get("method")) == (200, "GET"), answer.text
    with httpx.Client(trust_env=False, auth=HttpxAuth(*KEY)) as client:
        found = client.get(gateway.base + target)
        assert found.status_code == 200, found.text


def test_bodies_arrive(gateway: Served, session: requests.Session) -> None:
    session.auth = HmacAuth(*KEY)
    big = bytes(range(256)) * 4096
    bodies: list[dict[str, Any]] = [
        {"data": "größe"},
        {"json": {"größe": 3}},
        {"data": {"a": "ü"}},
        {"files": {"f": b"hello"}},
        {"data": io.BytesIO(big)},
        {},
    ]
    for body in bodies:
        answer = session.post(gateway.base + "/orders", **body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["headers"]["X-Consumer-Username"] == "hmac-auth-consumer"
    assert session.put(gateway.base + "/big", data=io.BytesIO(big)).json()["size"] == len(big)


def test_generator_is_streamed_where_bodies_are_not_looked_at(gateway: Served, session: requests.Session) -> None:
    session.auth = HmacAuth(*KEY, digest=False)
    answer = session.post(gateway.base + "/orders", data=iter([b"ab", b"cd"]))
    assert (answer.status_code, answer.json()["code"]) == (401, "signed_header_absent")
    gateway.put("/routes/open", {"uri": "/open", "upstream_id": "u", "plugins": {"hmac-auth": {}}})
    gateway.settle()
    answer = session.post(gateway.base + "/open", data=iter([b"ab", b"cd"]))
    assert (answer.status_code, answer.json()["data"]) == (200, "abcd")


def test_equal_requests_need_a_nonce(gateway: Served, session: requests.Session) -> None:
    now = time.time()
    stopped = HmacAuth(*KEY, clock=lambda: now)
    answers = [session.post(gateway.base + "/once", data=b"x", auth=stopped) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[1].json()["code"] == "replayed"
    distinct = HmacAuth(*KEY, clock=lambda: now, nonce=True)
    prepared = session.prepare_request(requests.Request("POST", gateway.base + "/once", data=b"x", auth=distinct))
    assert [session.send(prepared).status_code for _ in range(3)] == [200, 200, 200]


def test_many_at_a_time_from_an_async_client(gateway: Served) -> None:
    async def run() -> list[int]:
        async with httpx.AsyncClient(trust_env=False, auth=HttpxAuth(*KEY, nonce=True)) as client:
            answers = await asyncio.gather(*(client.post(gateway.base + "/many", content=b"x") for _ in range(20)))
            return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200] * 20


def test_wrong_secret_is_refused(gateway: Served, session: requests.Session) -> None:
    answer = session.get(gateway.base + "/x", auth=HmacAuth("client-1", "other"))
    assert (answer.status_code, answer.json()["code"]) == (401, "signature_mismatch")


def test_headers_for_any_library(gateway: Served) -> None:
    url = gateway.base + "/orders?a=b"
    headers = sign_headers("POST", url, key_id=KEY[0], secret=KEY[1], body=b"{}")
    made = urllib.request.Request(url, data=b"{}", headers=headers, method="POST")
    with urllib.request.urlopen(made, timeout=10) as answer:
        assert answer.status == 200
