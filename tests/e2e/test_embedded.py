"""The example site under the servers that people use: what is signed, what is hostile, what partners send."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.installed import Site
from tests.support.raw_client import Ended, RawClient, request_bytes
from tests.support.served import digest_of, request, signed
from tests.support.services import missing

BIG = b"x" * 3_000_000
WITH_BODY = ("@request-target", "date", "digest")


@pytest.fixture(scope="module", params=["gunicorn-sync", "gunicorn-gthread", "granian", "uvicorn"])
def base(request: pytest.FixtureRequest, embedded: Site) -> Iterator[str]:
    """Each server in turn."""
    with embedded.serve(request.param) as address:
        yield address


def test_three_ways_of_protection(base: str) -> None:
    for where in ("/export/readings.csv", "/totals/", "/api/readings/", "/gw/echo/1"):
        assert request(base + where).status == 401
        assert request(base + where, headers=signed("GET", where)).status == 200
        assert request(base + where, headers=signed("GET", where, secret="wrong")).status == 401
    assert request(base + "/").status == 200


def test_bodies(base: str) -> None:
    headers = signed("POST", "/body/x", listed=WITH_BODY, headers={"digest": digest_of(BIG)})
    answer = request(base + "/body/x", "POST", headers, BIG)
    assert answer.status == 200 and answer.json()["sha256"] == hashlib.sha256(BIG).hexdigest()
    assert request(base + "/body/x", "POST", headers, BIG[1:]).status == 401
    headers = signed("POST", "/gw/echo/1", listed=WITH_BODY, headers={"digest": digest_of(BIG)})
    answer = request(base + "/gw/echo/1", "POST", headers, BIG)
    assert answer.status == 200 and answer.json()["size"] == len(BIG)


def test_a_body_without_length(base: str, embedded: Site) -> None:
    headers = signed("POST", "/body/x", listed=WITH_BODY, headers={"digest": digest_of(b"abc")})
    with RawClient(embedded.port) as client:
        head = request_bytes("POST", "/body/x", "127.0.0.1", [*headers.items(), ("transfer-encoding", "chunked")])
        client.send(head + b"3\r\nabc\r\n0\r\n\r\n")
        answer = client.answer()
    if "asgi" in embedded.interface:
        assert answer.status == 200 and answer.json()["length"] == 3
    else:
        assert answer.status == 411, answer
    assert request(base + "/").status == 200


def test_the_target_as_it_was_signed(base: str) -> None:
    target = "/seen/a%2Fb%7e?x=%20"
    answer = request(base + target, headers=signed("GET", target))
    assert answer.status == 200 and (answer.json()["path"], answer.json()["a"]) == ("/seen/a/b~", " ")
    assert request(base + "/seen/a/b~?x=%20", headers=signed("GET", target)).status == 401
    target = "/gw/echo/a%2Fb%7e?x=%20"
    answer = request(base + target, headers=signed("GET", target))
    assert answer.status == 200 and answer.json()["url"].endswith("/echo/a%2Fb%7e?x=%20")


@pytest.mark.parametrize("where", ["/seen/x", "/drf/", "/decorated/", "/gw/echo/1"])
def test_two_authorization_headers(base: str, embedded: Site, where: str) -> None:
    headers = [*signed("GET", where).items()]
    for second in (dict(headers)["authorization"], dict(signed("GET", where, secret="wrong"))["authorization"]):
        with RawClient(embedded.port) as client:
            answer = client.ask("GET", where, "127.0.0.1", [*headers, ("authorization", second)])
        assert answer.status == 400, answer


def test_identity_headers_of_clients(base: str) -> None:
    forged = {"X_Consumer_Username": "admin", "X-Consumer-Username": "admin", "X_Credential_Identifier": "root"}
    answer = request(base + "/gw/echo/1", headers=signed("GET", "/gw/echo/1") | forged)
    assert answer.status == 200
    seen = {name.lower().replace("_", "-"): value for name, value in answer.json()["headers"].items()}
    assert seen["x-consumer-username"] == "partner" and "admin" not in seen.values() and "root" not in seen.values()
    for where in ("/seen/x", "/drf/"):
        answer = request(base + where, headers=signed("GET", where) | forged)
        assert answer.status == 200 and answer.json()["consumer"] == "partner"


@pytest.mark.parametrize("where", ["/seen/x", "/gw/echo/1"])
def test_a_hundred_thousand_headers(base: str, embedded: Site, where: str) -> None:
    head = request_bytes("GET", where, "127.0.0.1", signed("GET", where).items())[:-2]
    with RawClient(embedded.port) as client:
        try:
            client.send(head + b"".join(b"x-%d: 1\r\n" % number for number in range(100_000)) + b"\r\n")
            status = client.answer().status
        except (OSError, Ended):
            status = 0
    assert status == 0 or 400 <= status < 500
    assert request(base + where, headers=signed("GET", where)).status == 200


@pytest.mark.parametrize(
    "target", ["/seen/../export/readings.csv", "/x/%2e%2e/seen/y", "/seen/..%2fy", "/gw/echo/../x", "/gw/%2e%2e/echo/x"]
)
def test_paths_with_dots(base: str, embedded: Site, target: str) -> None:
    with RawClient(embedded.port) as client:
        answer = client.ask("GET", target, "127.0.0.1", signed("GET", target).items())
    assert answer.status == 400, answer


PARTNER = """
import sys
import httpx, requests
from hmac_gateway.client import HmacAuth
from hmac_gateway.client.httpx import HmacAuth as ForHttpx

base, count = sys.argv[1], 0
for day in (1, 2):
    for client, auth in ((requests, HmacAuth), (httpx, ForHttpx)):
        count += 1
        signed = auth("client-1", "my-hmac-secret")
        reading = {"meter": "m-1", "day": f"2026-01-{count:02}", "kwh": count}
        print(client.post(base + "/api/import/", json=reading, auth=signed, timeout=10).status_code)
        print(client.get(base + "/api/readings/?a=b c", auth=signed, timeout=10).status_code)
        print(client.get(base + "/api/readings/", auth=auth("client-1", "wrong"), timeout=10).status_code)
"""


def test_partners_scripts(base: str, embedded: Site) -> None:
    if embedded.interface.split()[0] not in ("gunicorn-gthread", "granian"):
        return  # one server of each interface is enough for three libraries
    (embedded.folder / "partner.py").write_text(PARTNER)
    assert embedded.run("partner.py", base).split() == ["201", "200", "401"] * 4


def test_curl(base: str, embedded: Site) -> None:
    if embedded.interface.split()[0] not in ("gunicorn-gthread", "granian"):
        return
    if shutil.which("curl") is None:
        missing("curl is not installed")
    reading = json.dumps({"meter": "m-1", "day": "2026-02-01", "kwh": 5})
    options = ["--key-id", "client-1", "--header", "Content-Type: application/json", "--data", reading]
    command = embedded.manage("hmac_sign", "POST", base + "/api/import/", *options)
    for status in (201, 401):
        # The second is the same once more: a replay.
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
        assert re.match(rf"HTTP/1\.1 {status} ", done.stdout), (done.stdout, done.stderr)


def test_views_in_transactions(embedded: Site) -> None:
    """ATOMIC_REQUESTS: a mark is neither kept out by the view's transaction nor rolled back with it."""
    embedded.environment["ATOMIC_REQUESTS"] = "1"
    try:
        with embedded.serve("gunicorn-gthread") as address:
            time.sleep(0.3)  # so that the first request looks at the version row
            for where, status in (("/api/import/", 201), ("/failing/", 500)):
                reading = json.dumps({"meter": "m-1", "day": "2026-03-01", "kwh": 5}).encode()
                more = {"digest": digest_of(reading), "content-type": "application/json"}
                headers = signed("POST", where, listed=WITH_BODY, headers=more)
                assert request(address + where, "POST", headers, reading).status == status
                time.sleep(0.3)
                assert request(address + where, "POST", headers, reading).status == 401
    finally:
        del embedded.environment["ATOMIC_REQUESTS"]
