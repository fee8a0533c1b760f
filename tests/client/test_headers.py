"""`sign_headers`: what it returns, sent beside what it was given, is accepted by both verifiers."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from hmac_gateway.client import sign_headers
from tests.client.recorded import KEY_ID, SECRET, Recorder, accepted


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def send(server: Recorder, method: str, url: str, headers: dict[str, str], body: bytes | None) -> None:
    # To the server, whatever the address says.
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request(method, "/" + url.split("/", 3)[3], body, headers)
    connection.getresponse().read()
    connection.close()


def test_body_is_covered(server: Recorder) -> None:
    url = "http://gateway.test/orders?a=%2f"
    headers = sign_headers("POST", url, key_id=KEY_ID, secret=SECRET, body=b"abc")
    assert list(headers) == ["Date", "Digest", "Authorization"]
    send(server, "POST", url, headers, b"abc")
    assert server.last.target == "/orders?a=%2f"
    assert accepted(server.last)


@pytest.mark.parametrize("address", ["gateway.test:80", "gateway.test", "user:pass@gateway.test:8080"])
def test_signed_host_is_the_one_that_is_sent(server: Recorder, address: str) -> None:
    url = f"http://{address}/x"
    headers = sign_headers("GET", url, key_id=KEY_ID, secret=SECRET, signed=["@request-target", "Host", "date"])
    assert headers["Host"] == address.rpartition("@")[2]
    send(server, "GET", url, headers, None)
    assert accepted(server.last, validate_request_body=False, signed_headers=["host"])
    given = {"host": "other.test"}
    headers = sign_headers("GET", url, key_id=KEY_ID, secret=SECRET, signed=["host", "date"], headers=given)
    assert "Host" not in headers
    send(server, "GET", url, headers | given, None)
    assert accepted(server.last, validate_request_body=False, signed_headers=["host"])


def test_missing_header_is_named() -> None:
    with pytest.raises(ValueError, match="signed: 'x-tenant' was given"):
        sign_headers("GET", "http://gateway.test/", key_id=KEY_ID, secret=SECRET, signed=["x-tenant"])
