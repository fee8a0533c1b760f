"""The client kit with hmacproxy's signatures: what stands on the wire is judged by PyPI's hmac-authentication."""

from __future__ import annotations

import hashlib
import http.client
import io
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import requests
from hmac_authentication import hmacauth

from hmac_gateway.client import HmacAuth, sign_headers
from hmac_gateway.client.httpx import HmacAuth as HttpxAuth
from tests.client.recorded import OK, UNAUTHORIZED, Recorded, Recorder, redirect

SECRET = "foobar"
DATED = 784111777.0

Send = Callable[..., int]


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def other() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def by_requests(method: str, url: str, body: Any = None, *, follow: bool = False, **options: Any) -> int:
    with requests.Session() as session:
        session.trust_env = False
        auth = HmacAuth("", SECRET, scheme="hmacproxy", **options)
        return session.request(method, url, data=body, auth=auth, allow_redirects=follow).status_code


def by_httpx(method: str, url: str, body: Any = None, *, follow: bool = False, **options: Any) -> int:
    with httpx.Client(trust_env=False, follow_redirects=follow) as client:
        auth = HttpxAuth("", SECRET, scheme="hmacproxy", **options)
        return client.request(method, url, content=body, auth=auth).status_code


@pytest.fixture(params=[by_requests, by_httpx], ids=["requests", "httpx"])
def send(request: pytest.FixtureRequest) -> Send:
    found: Send = request.param
    return found


def accepted(
    sent: Recorded, *headers: str, name: str = "X-Signature", digest: str = "sha1", secret: str = SECRET
) -> bool:
    """Whether hmac-authentication accepts what came, body included, and with the digest that was meant."""
    assert sent.value(name).startswith(f"{digest} ")
    path, _, query = sent.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": sent.method,
        # Bytes as text; the library encodes it as UTF-8, so only ASCII paths are tried with it.
        "PATH_INFO": unquote(path),
        "QUERY_STRING": query,
        "wsgi.input": io.BytesIO(sent.body),
        "wsgi.url_scheme": "http",
        **{hmacauth.header_name_to_wsgi(key): value for key, value in sent.headers},
        "CONTENT_LENGTH": str(len(sent.body)),
    }
    found = hmacauth.HmacAuth(getattr(hashlib, digest), secret, name, list(headers)).authenticate_request(environ)
    return bool(found.result_code is hmacauth.AuthenticationResultCodes.MATCH)


@pytest.mark.parametrize("target", ["/", "/a%2Fb%20c?x=%20&y", "/a?"])
@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b""), ("PUT", b"\x00\xff" * 200_000)])
def test_targets_and_bodies(send: Send, server: Recorder, target: str, method: str, body: bytes | None) -> None:
    assert send(method, server.base + target, body) == 200
    assert accepted(server.last) and server.last.body == (body or b"")
    assert not accepted(server.last, secret="other")
    names = {name.lower() for name, _ in server.last.headers}
    # Nothing of the other formats goes along.
    assert not names & {"authorization", "digest", "date"}


def test_headers_digest_and_the_name_of_the_header(send: Send, server: Recorder) -> None:
    signed = ["Date", "X-Absent", "Content-Length", "User-Agent"]
    options = {"signed": signed, "algorithm": "hmac-sha512", "sign_header": "GAP-Signature", "clock": lambda: DATED}
    assert send("POST", server.base + "/a", b"body", **options) == 200
    assert server.last.value("date") == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert accepted(server.last, *signed, name="GAP-Signature", digest="sha512")
    send("POST", server.base + "/a", b"body", nonce=True)
    assert accepted(server.last, "X-Nonce")
    assert not accepted(server.last)


def test_files_are_signed_from_where_they_stand(server: Recorder, tmp_path: Any) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"skipped" + b"x" * 600_000)
    with file.open("rb") as body:
        body.seek(7)
        assert by_requests("POST", server.base + "/a", body) == 200
    assert accepted(server.last) and server.last.body == b"x" * 600_000
    with pytest.raises(ValueError, match="read only once"):
        by_requests("POST", server.base + "/a", iter([b"a"]))


def test_redirects_on_the_same_host_are_signed_anew(send: Send, server: Recorder) -> None:
    server.respond = lambda request: (
        redirect("/second") if request.target == "/first" else OK if accepted(request) else UNAUTHORIZED
    )
    assert send("POST", server.base + "/first", b"body", follow=True) == 200
    assert server.last.target == "/second" and accepted(server.last)


def test_another_host_gets_no_signature_of_its_choice(send: Send, server: Recorder, other: Recorder) -> None:
    """The signature names no host: one made for a redirect's target would hold on the first host."""
    server.respond = lambda request: redirect(other.base + "/chosen")
    other.respond = lambda request: UNAUTHORIZED
    assert send("GET", server.base + "/first", follow=True) == 401
    (taken,) = other.requests
    assert not taken.values("x-signature") or not accepted(taken)
    assert send is by_httpx or not taken.values("x-signature")


# --- sign_headers ---


def test_what_sign_headers_returns(server: Recorder) -> None:
    url = "http://gateway.test/a?b"
    signed = ["Date", "Content-Length", "X-One", "X-Absent"]
    given = {"X-One": "1"}
    headers = sign_headers("POST", url, secret=SECRET, scheme="hmacproxy", body=b"body", headers=given, signed=signed)
    assert list(headers) == ["Date", "Content-Length", "X-Signature"]
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/a?b", b"body", headers | given)
    connection.getresponse().read()
    connection.close()
    assert accepted(server.last, *signed)


def test_the_published_vector() -> None:
    sent = {
        "Content-Length": "21",
        "Content-MD5": "deadbeef",
        "Content-Type": "application/json",
        "Date": "2015-09-28",
        "Authorization": "trust me",
        "X-Forwarded-User": "mbland",
        "X-Forwarded-Email": "mbland@acm.org",
        "X-Forwarded-Access-Token": "feedbead",
        "Cookie": "foo; bar; baz=quux",
        "Gap-Auth": "mbland",
    }
    made = sign_headers(
        "POST",
        "http://localhost/foo/bar",
        secret="foobar",
        body=b'{ "hello": "world!" }',
        headers=sent,
        signed=list(sent),
        scheme="hmacproxy",
        sign_header="GAP-Signature",
    )
    assert made == {"GAP-Signature": "sha1 K4IrVDtMCRwwW8Oms0VyZWMjXHI="}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheme": "hmacproxy", "algorithm": "sha3"}, "algorithm: 'sha3' was given; allowed: md5, sha1, "),
        ({"scheme": "apisix", "algorithm": "sha1"}, "algorithm: 'sha1' was given; allowed: hmac-sha1, "),
        ({"scheme": "apisix"}, "key_id: nothing was given"),
        ({"scheme": "other"}, "scheme: 'other' was given; allowed: apisix, hmacproxy, kong"),
    ],
)
def test_what_cannot_be_used(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sign_headers("GET", "http://gateway.test/", secret=SECRET, **options)
