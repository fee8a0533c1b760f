"""`HmacAuth` through real httpx, both clients: what stands on the wire is judged by two verifiers."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmac_gateway.client import HmacAuth as RequestsAuth
from hmac_gateway.client.httpx import HmacAuth
from tests.client.recorded import KEY_ID, OK, SECRET, UNAUTHORIZED, Recorder, accepted, redirect
from tests.client.test_requests import TARGETS, Clock, fresh
from tests.support.fuzz import examples

#: Sends one request with the options of a client's `request`.
Send = Callable[..., httpx.Response]


def sync(method: str, url: str, **options: Any) -> httpx.Response:
    with httpx.Client(trust_env=False, follow_redirects=options.pop("follow", False)) as client:
        return client.request(method, url, **options)


def asynchronous(method: str, url: str, **options: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, follow_redirects=options.pop("follow", False)) as client:
            return await client.request(method, url, **options)

    return asyncio.run(run())


@pytest.fixture(params=[sync, asynchronous], ids=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    found: Send = request.param
    return found


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def auth(**more: Any) -> HmacAuth:
    return HmacAuth(KEY_ID, SECRET, **more)


def test_get_with_parameters(send: Send, server: Recorder) -> None:
    answer = send("GET", server.base + "/orders/ä b", params={"q": "ü&/?", "n": ["1", "2"]}, auth=auth())
    assert answer.status_code == 200
    assert server.last.target.startswith("/orders/%C3%A4%20b?q=%C3%BC%26")
    assert server.last.listed == ["@request-target", "date", "digest"]
    assert server.last.value("digest") == "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert accepted(server.last)


@pytest.mark.parametrize("url", TARGETS)
def test_targets_are_signed_as_they_are_sent(server: Recorder, url: str) -> None:
    sync("GET", server.base + url, auth=auth())
    assert accepted(server.last)


BODIES: dict[str, dict[str, Any]] = {
    "bytes": {"content": b"\x00\xff"},
    "text": {"content": "größe"},
    "form": {"data": {"a": "ü", "b": ["1", "2"]}},
    "json": {"json": {"größe": 3}},
    "multipart": {"files": {"f": ("n.txt", b"hello")}, "data": {"a": "b"}},
    "empty": {"content": b""},
    "nothing": {},
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET"])
def test_bodies_are_covered(send: Send, server: Recorder, kind: str, method: str) -> None:
    send(method, server.base + "/x", auth=auth(), **BODIES[kind])
    assert accepted(server.last)


def blocks() -> Iterator[bytes]:
    yield from (b"ab", b"cd")


async def async_blocks() -> AsyncIterator[bytes]:
    for block in blocks():
        yield block


def test_streams_are_read_first_or_left_unsigned(server: Recorder) -> None:
    cases: list[tuple[Send, Callable[[], Any]]] = [
        (sync, blocks),
        (asynchronous, async_blocks),
        (sync, lambda: io.BytesIO(b"abcd")),
    ]
    for send, make in cases:
        send("POST", server.base + "/x", content=make(), auth=auth())
        assert server.last.body == b"abcd" and accepted(server.last)
        send("POST", server.base + "/x", content=make(), auth=auth(digest=False))
        assert server.last.body == b"abcd"
        assert server.last.listed == ["@request-target", "date"] and not server.last.values("digest")
        assert accepted(server.last, validate_request_body=False)


def test_stream_without_digest_is_not_gathered(server: Recorder) -> None:
    # The second block is made only once the first has arrived.
    arrived: list[bytes] = []

    def late() -> Iterator[bytes]:
        yield b"first"
        for _ in range(500):
            if any(b"first" in peer.received for peer in server.peers):
                break
            time.sleep(0.01)
        arrived.append(server.peers[-1].received)
        yield b"second"

    sync("POST", server.base + "/x", content=late(), auth=auth(digest=False))
    assert b"first" in arrived[0]
    assert server.last.body == b"firstsecond"


def test_digest_of_the_callers_is_signed(server: Recorder) -> None:
    promised = {"Digest": "SHA-256=ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="}  # echo -n abc, by openssl
    sync("POST", server.base + "/x", content=iter([b"abc"]), headers=promised, auth=auth(digest=False))
    assert server.last.listed == ["@request-target", "date", "digest"]
    assert accepted(server.last)
    sync("POST", server.base + "/x", content=b"abcd", headers=promised, auth=auth())
    assert accepted(server.last)


def test_what_is_covered_can_be_chosen(server: Recorder) -> None:
    chosen = ["X-Tenant", "@request-target", "host", "date"]
    headers = [("x-tenant", "grün".encode("latin-1"))]
    sync("GET", server.base + "/x", headers=headers, auth=auth(signed=chosen))
    assert server.last.listed == chosen and not server.last.values("digest")
    assert accepted(server.last, validate_request_body=False, signed_headers=["x-tenant", "host"])
    sync("GET", server.base + "/x", auth=auth(signed=["@request-target", "x-date", "digest"]))
    assert server.last.value("x-date") and not server.last.values("date")
    assert accepted(server.last)
    with pytest.raises(ValueError, match="signed: 'x-tenant' was given"):
        sync("GET", server.base + "/x", auth=auth(signed=["date", "x-tenant"]))
    with pytest.raises(ValueError, match="scheme: 'x' was given"):
        auth(scheme="x")


def test_secrets_key_ids_and_repr(server: Recorder) -> None:
    for secret in ("größe", b"\x00\xff"):
        sync("GET", server.base + "/x", auth=HmacAuth("schlüssel", secret))
        key_id = "schlüssel".encode().decode("latin-1")
        assert accepted(server.last, secret.encode() if isinstance(secret, str) else secret, key_id)
    signing = auth()
    assert repr(signing) == "HmacAuth('client-1', scheme='apisix', algorithm='hmac-sha256')"
    assert SECRET.decode() not in str(vars(signing)) + str(vars(signing._signer))


def test_each_send_is_fresh(server: Recorder) -> None:
    with httpx.Client(
        trust_env=False, auth=auth(nonce=True, clock=Clock()), headers={"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    ) as client:
        client.post(server.base + "/x", content=b"abc")
        made = client.build_request("POST", server.base + "/x", content=b"abc")
        client.send(made)
        answer = client.send(made)
        client.send(answer.request)
    fresh(*server.requests)
    assert len({request.value("x-nonce") for request in server.requests}) == 4


@pytest.mark.parametrize("status", [302, 303, 307, 308])
@pytest.mark.parametrize("body", [b"abc", None])
def test_redirect_on_the_same_host_is_signed_anew(
    send: Send, server: Recorder, status: int, body: bytes | None
) -> None:
    # A gateway that checks signatures, and leads /first elsewhere.
    server.respond = lambda request: (
        UNAUTHORIZED
        if not accepted(request)
        else {"/first": redirect("/second", status), "/second": redirect("/third?a=b", status)}.get(request.target, OK)
    )
    signing = auth(clock=Clock(), nonce=True, signed=["@request-target", "host", "date", "digest"])
    answer = send("POST", server.base + "/first", content=body, auth=signing, follow=True)
    assert answer.status_code == 200
    assert server.last.target == "/third?a=b"
    assert server.last.method == ("POST" if status > 303 else "GET")
    assert server.last.body == (body or b"" if status > 303 else b"")
    fresh(*(request for request in server.requests if accepted(request)))
    assert [request.target for request in server.requests] == [
        "/first",
        "/second",
        "/second",
        "/third?a=b",
        "/third?a=b",
    ]


def test_redirect_to_another_host_carries_no_signature(send: Send, server: Recorder) -> None:
    with Recorder(lambda request: UNAUTHORIZED) as other:
        for address in (other.base, f"http://localhost:{server.port}"):
            server.respond = lambda request, to=address: (
                redirect(to + "/taken") if request.target == "/x" else UNAUTHORIZED
            )
            answer = send("POST", server.base + "/x", content=b"abc", auth=auth(), follow=True)
            assert answer.status_code == 401
            last = other.last if address == other.base else server.last
            assert last.target == "/taken" and not last.values("authorization")
        assert len(other.requests) == 1


def test_refusals_are_not_repeated_for_ever(server: Recorder) -> None:
    server.respond = lambda request: UNAUTHORIZED
    assert sync("GET", server.base + "/x", auth=auth(), follow=True).status_code == 401
    assert len(server.requests) == 1
    # A server that leads on and on, and refuses in between.
    number = iter(range(1000))
    server.respond = lambda request: redirect(f"/{next(number)}") if len(server.requests) % 2 == 0 else UNAUTHORIZED
    with pytest.raises(httpx.TooManyRedirects):
        sync("GET", server.base + "/x", auth=auth(), follow=True)
    assert len(server.requests) < 100


text = st.text(st.characters(codec="utf-8"), max_size=12)
headers = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=8).map(str.strip)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Recorder, httpx.Client]]:
    with Recorder() as recorder, httpx.Client(trust_env=False) as client:
        yield recorder, client


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(["GET", "POST", "put", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]),
    path=text,
    params=st.one_of(st.none(), text, st.dictionaries(text, text, max_size=3)),
    body=st.one_of(
        st.none(),
        st.binary(max_size=50).map(lambda data: {"content": data}),
        text.map(lambda data: {"content": data}),
        st.lists(st.binary(max_size=9), max_size=4).map(lambda data: {"content": iter(data)}),
        st.dictionaries(text, text, max_size=2).map(lambda data: {"data": data}),
        st.dictionaries(text, text, max_size=2).map(lambda data: {"json": data}),
        st.binary(max_size=50).map(lambda data: {"files": {"f": data}}),
    ),
    header=headers,
    secret=st.one_of(text.filter(bool), st.binary(min_size=1, max_size=80)),
)
def test_anything_is_accepted(
    shared: tuple[Recorder, httpx.Client],
    method: str,
    path: str,
    params: Any,
    body: dict[str, Any] | None,
    header: str,
    secret: str | bytes,
) -> None:
    server, client = shared
    before = len(server.requests)
    signing = HmacAuth(KEY_ID, secret, nonce=True, signed=["x-any", "@request-target", "date", "digest"])
    sent = [("X-Any", header.encode("latin-1"))]
    try:
        request = client.build_request(method, f"{server.base}/{path}", params=params, headers=sent, **(body or {}))
    except (httpx.InvalidURL, UnicodeError):
        return  # not an address for httpx
    client.send(request, auth=signing)
    assert len(server.requests) == before + 1
    assert accepted(
        server.last,
        secret.encode() if isinstance(secret, str) else secret,
        signed_headers=["@request-target", "date", "x-any", "x-nonce"],
    )


def test_each_library_is_told_which_class_is_its_own(send: Send, server: Recorder) -> None:
    with pytest.raises(TypeError, match=r"from hmac_gateway\.client\.httpx import HmacAuth"):
        send("GET", server.base + "/orders", auth=RequestsAuth(KEY_ID, SECRET))
    with pytest.raises(TypeError, match=r"a request of requests .* from hmac_gateway\.client import HmacAuth"):
        requests.get(server.base + "/orders", auth=auth(), timeout=5)
