"""`HmacAuth` through real requests and urllib3: what stands on the wire is judged by two verifiers."""

from __future__ import annotations

import io
import pickle
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from hmac_gateway.client import HmacAuth
from tests.client.recorded import (
    KEY_ID,
    OK,
    SECRET,
    UNAUTHORIZED,
    Recorded,
    Recorder,
    accepted,
    redirect,
)
from tests.support.fuzz import examples


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


class Clock:
    """A clock that is a second further at each look: two signatures never have one date."""

    def __init__(self) -> None:
        self.now = time.time() - 100

    def __call__(self) -> float:
        self.now += 1
        return self.now


def auth(**more: Any) -> HmacAuth:
    return HmacAuth(KEY_ID, SECRET, **more)


def fresh(*found: Recorded) -> None:
    """Every request is right, and none has the date of another."""
    assert all(accepted(request) for request in found)
    assert len({request.value("date") for request in found}) == len(found)


# --- one request ---


def test_get_with_parameters(session: requests.Session, server: Recorder) -> None:
    answer = session.get(server.base + "/orders/ä b", params={"q": "ü&/?", "n": ["1", "2"]}, auth=auth())
    assert answer.status_code == 200
    assert server.last.target == "/orders/%C3%A4%20b?q=%C3%BC%26%2F%3F&n=1&n=2"
    assert server.last.listed == ["@request-target", "date", "digest"]
    assert server.last.value("digest") == "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert accepted(server.last)


#: Behind the port; libraries rewrite most of them.
TARGETS = [
    "/a%2fb",
    "/x[1]",
    "/a?",
    "/%zz",
    "//a//b",
    "/a?b=[1]&c=%zz",
    "/~a/*'()!;p=1",
    "",
    "?a=b",
    "/a#f",
    "/%C3%a4?%e4",
]


@pytest.mark.parametrize("url", TARGETS)
def test_targets_that_are_rewritten_are_signed_as_rewritten(
    session: requests.Session, server: Recorder, url: str
) -> None:
    session.get(server.base + url, auth=auth())
    assert accepted(server.last)


@pytest.mark.parametrize("query", ["a=[1]", "%zz&[", "a#b", "ü=%e4", "a b", '"<>^`{|}'])
def test_parameters_as_text(session: requests.Session, server: Recorder, query: str) -> None:
    session.get(server.base + "/x", params=query, auth=auth())
    assert accepted(server.last)


@pytest.mark.parametrize("target", ["/a/../b", "/x[1]?y=[2]", "/%zz%41?%zz%41", "/ü?ö=%", "/a%2fb", "//x", "/a|b"])
def test_address_set_after_preparing(session: requests.Session, server: Recorder, target: str) -> None:
    prepared = session.prepare_request(requests.Request("GET", server.base, auth=auth()))
    prepared.url = server.base + target
    session.send(prepared)
    assert accepted(server.last)


BODIES: dict[str, dict[str, Any]] = {
    "bytes": {"data": b"\x00\xff"},
    "text": {"data": "größe"},
    "form": {"data": {"a": "ü", "b": ["1", "2"]}},
    "json": {"json": {"größe": 3}},
    "bytearray": {"data": bytearray(b"abc")},
    "memoryview": {"data": memoryview(b"abc")},
    "multipart": {"files": {"f": ("n.txt", b"hello")}, "data": {"a": "b"}},
    "empty": {"data": b""},
    "buffer": {"data": io.BytesIO(b"0123456789" * 1000)},
    "nothing": {},
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_bodies_are_covered(session: requests.Session, server: Recorder, kind: str, method: str) -> None:
    session.request(method, server.base + "/x", auth=auth(), **BODIES[kind])
    assert accepted(server.last)
    BODIES["buffer"]["data"].seek(0)


def test_file_is_read_from_where_it_stands(session: requests.Session, server: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(bytes(range(256)) * 8192)
    with path.open("rb") as file:
        file.seek(1000)
        session.post(server.base + "/x", data=file, auth=auth())
    assert server.last.body == path.read_bytes()[1000:]
    assert accepted(server.last)


def test_empty_file(session: requests.Session, server: Recorder, tmp_path: Path) -> None:
    (tmp_path / "body").touch()
    with (tmp_path / "body").open("rb") as file:
        session.post(server.base + "/x", data=file, auth=auth())
    assert accepted(server.last)


class Pipe:
    """Can be read, once."""

    def __init__(self) -> None:
        self.left = [b"ab", b"cd"]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.left)

    def read(self, size: int = -1) -> bytes:
        return self.left.pop(0) if size and self.left else b""


@pytest.mark.parametrize("make", [lambda: (block for block in [b"ab", b"cd"]), Pipe], ids=["generator", "pipe"])
def test_what_can_be_read_once_is_refused_or_left_unsigned(
    session: requests.Session, server: Recorder, make: Any
) -> None:
    with pytest.raises(ValueError, match=r"which can be read only once; allowed: bytes, .*digest=False"):
        session.post(server.base + "/x", data=make(), auth=auth())
    assert server.requests == []
    session.post(server.base + "/x", data=make(), auth=auth(digest=False))
    assert server.last.body == b"abcd"
    assert server.last.listed == ["@request-target", "date"] and not server.last.values("digest")
    assert accepted(server.last, validate_request_body=False) and not accepted(server.last)


def test_body_put_in_after_preparing(session: requests.Session, server: Recorder) -> None:
    for body in ("größe", b"other"):
        prepared = session.prepare_request(requests.Request("POST", server.base, data=b"first", auth=auth()))
        prepared.body = body  # type: ignore[assignment]
        prepared.prepare_content_length(prepared.body)
        session.send(prepared)
        assert accepted(server.last)
    prepared.body = iter([b"x"])  # type: ignore[assignment]
    with pytest.raises(ValueError, match="only once"):
        session.send(prepared)


def test_text_file_is_refused(session: requests.Session, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode 'rb'"):
        session.post("http://127.0.0.1:9/x", data=io.StringIO("ü"), auth=auth())


def test_digest_of_the_callers_is_signed(session: requests.Session, server: Recorder) -> None:
    promised = {"Digest": "SHA-256=ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="}  # echo -n abc, by openssl
    session.post(server.base + "/x", data=iter([b"abc"]), headers=promised, auth=auth(digest=False))
    assert server.last.listed == ["@request-target", "date", "digest"]
    assert accepted(server.last)
    # What is computed wins over what the caller says.
    session.post(server.base + "/x", data=b"abcd", headers=promised, auth=auth())
    assert accepted(server.last)


# --- options ---


def test_what_is_covered_can_be_chosen(session: requests.Session, server: Recorder) -> None:
    chosen = ["X-Tenant", "@request-target", "host", "date"]
    for address in (server.base, f"http://user:pass@127.0.0.1:{server.port}"):
        session.get(address + "/x", headers={"x-tenant": "grün"}, auth=auth(signed=chosen))
        assert server.last.listed == chosen
        assert server.last.value("host") == f"127.0.0.1:{server.port}"
        assert not server.last.values("digest")
        assert accepted(server.last, validate_request_body=False, signed_headers=["x-tenant", "host"])
    session.get(server.base + "/x", headers={"Host": "other.test"}, auth=auth(signed=["host", "date"]))
    assert server.last.value("host") == "other.test"
    assert accepted(server.last, validate_request_body=False, signed_headers=["host"])


def test_x_date_stands_in_for_date(session: requests.Session, server: Recorder) -> None:
    session.get(server.base + "/x", auth=auth(signed=["@request-target", "x-date", "digest"]))
    assert server.last.value("x-date") and not server.last.values("date")
    assert accepted(server.last)


def test_nonce(session: requests.Session, server: Recorder) -> None:
    for options in ({}, {"signed": ["@request-target", "date", "digest"]}):
        signing = auth(nonce=True, **options)
        for _ in range(2):
            session.get(server.base + "/x", auth=signing)
        first, second = server.requests[-2:]
        assert first.value("x-nonce") != second.value("x-nonce")
        assert len(first.value("x-nonce")) >= 20
        assert first.listed == ["@request-target", "date", "digest", "x-nonce"]
        assert accepted(first, signed_headers=["x-nonce"]) and accepted(second, signed_headers=["x-nonce"])


@pytest.mark.parametrize("algorithm", ["hmac-sha1", "hmac-sha256", "hmac-sha512"])
def test_algorithms_and_secrets(session: requests.Session, server: Recorder, algorithm: str) -> None:
    for secret in ("größe", b"\x00\xff"):
        session.get(server.base + "/x", auth=HmacAuth(KEY_ID, secret, algorithm=algorithm))
        assert accepted(server.last, secret.encode() if isinstance(secret, str) else secret)
        assert not accepted(server.last, b"other")


def test_key_id_beyond_ascii(session: requests.Session, server: Recorder) -> None:
    session.get(server.base + "/x", auth=HmacAuth("schlüssel", SECRET))
    assert accepted(server.last, key_id="schlüssel".encode().decode("latin-1"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key_id": ""}, "key_id: '' was given"),
        ({"key_id": 'a"b'}, "key_id: 'a\"b' was given"),
        ({"key_id": "a,b"}, "key_id: 'a,b' was given"),
        ({"key_id": "a\n"}, "key_id: "),
        ({"secret": ""}, "secret: nothing was given"),
        ({"secret": None}, "secret: nothing was given"),
        ({"scheme": "x"}, "scheme: 'x' was given; allowed: apisix"),
        ({"algorithm": "sha256"}, "algorithm: 'sha256' was given; allowed: hmac-sha1, hmac-sha256"),
        ({"signed": "date"}, "signed: 'date' was given; allowed: a list"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        HmacAuth(**({"key_id": "k", "secret": "s"} | options))


def test_signed_header_that_is_missing() -> None:
    with pytest.raises(ValueError, match=r"signed: 'x-tenant' was given; allowed: headers of the request"):
        requests.Request("GET", "http://127.0.0.1:9/", auth=auth(signed=["date", "x-tenant"])).prepare()


def test_secret_does_not_show(session: requests.Session, server: Recorder) -> None:
    signing = auth()
    assert repr(signing) == "HmacAuth('client-1', scheme='apisix', algorithm='hmac-sha256')"
    answer = session.get(server.base + "/x", auth=signing)
    shown = repr(signing) + str(vars(signing)) + str(vars(signing._signer))
    shown += repr(answer.request.headers) + str(vars(answer.request.headers))
    assert SECRET.decode() not in shown
    pickled = pickle.dumps(answer)
    assert SECRET not in pickled
    again = pickle.loads(pickled).request
    assert again.headers["Authorization"] == server.last.value("authorization")
    assert again.copy().headers == again.headers
    with pytest.raises(ValueError) as caught:
        HmacAuth("", SECRET)
    assert SECRET.decode() not in str(caught.value)


def test_headers_read_as_they_were_sent(session: requests.Session, server: Recorder) -> None:
    answer = session.get(server.base + "/x", auth=auth(nonce=True, clock=Clock()))
    for name in ("Authorization", "Date", "X-Nonce", "Digest"):
        assert answer.request.headers[name] == server.last.value(name)
    assert server.last.value("authorization") in repr(answer.request.headers)


# --- again, later, elsewhere ---


def test_each_request_of_a_session_is_fresh(session: requests.Session, server: Recorder) -> None:
    session.auth = auth(clock=Clock())
    session.headers["Date"] = "Sun, 06 Nov 1994 08:49:37 GMT"
    for number in range(3):
        session.post(server.base + "/x", data=str(number))
    fresh(*server.requests)


def test_prepared_request_sent_twice_is_fresh(session: requests.Session, server: Recorder, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"0123456789")
    with (tmp_path / "body").open("rb") as file:
        for body in (b"abc", file):
            signing = auth(clock=Clock(), nonce=True)
            prepared = session.prepare_request(requests.Request("POST", server.base + "/x", data=body, auth=signing))
            answer = session.send(prepared)
            session.send(prepared)
            session.send(prepared.copy())
            session.send(answer.request)
            found = server.requests[-4:]
            fresh(*found)
            assert len({request.value("x-nonce") for request in found}) == 4
            assert {request.body for request in found} == {b"abc" if isinstance(body, bytes) else b"0123456789"}


def test_retry_is_signed_anew(session: requests.Session, server: Recorder, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"0123456789")
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    answers: Iterator[bytes | None] = iter([None, busy, OK] * 2)
    server.respond = lambda request: next(answers)
    retry = Retry(5, backoff_factor=0, status_forcelist=[503], allowed_methods=None)
    session.mount("http://", HTTPAdapter(max_retries=retry))
    with (tmp_path / "body").open("rb") as file:
        for body in (b"abc", file):
            signing = auth(clock=Clock(), nonce=True)
            assert session.post(server.base + "/x", data=body, auth=signing).status_code == 200
            fresh(*server.requests[-3:])
            assert len({request.value("x-nonce") for request in server.requests[-3:]}) == 3
    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_on_the_same_host_is_signed_anew(
    session: requests.Session, server: Recorder, status: int, tmp_path: Path
) -> None:
    (tmp_path / "body").write_bytes(b"0123456789")
    ways = {"/first": redirect("/second", status), "/second": redirect("/next?a=[1]", status)}
    server.respond = lambda request: ways.get(request.target, OK)
    with (tmp_path / "body").open("rb") as file:
        for body in (b"abc", file, None):
            signing = auth(clock=Clock(), nonce=True, signed=["@request-target", "host", "date", "digest"])
            session.post(server.base + "/first", data=body, auth=signing)
            fresh(*server.requests[-3:])
            assert server.last.target.startswith("/next?a=")
            assert server.last.method == ("POST" if status > 303 else "GET")


def test_redirect_to_another_host_carries_no_signature(session: requests.Session, server: Recorder) -> None:
    ours = ("authorization", "date", "digest", "x-nonce")
    with Recorder() as other:
        # Another port is another origin; so is another name.
        for address in (other.base, f"http://localhost:{server.port}"):
            server.respond = lambda request, to=address: redirect(to + "/taken") if request.target == "/x" else OK
            signing = auth(nonce=True, signed=["@request-target", "host", "date", "digest"])
            session.post(server.base + "/x", data=b"abc", auth=signing)
            last = other.last if address == other.base else server.last
            assert (last.target, last.body) == ("/taken", b"abc")
            assert [name for name in ours if last.values(name)] == []
            assert last.value("host") == address.removeprefix("http://")
        # And back again: what was taken away stays away.
        other.respond = lambda request: redirect(server.base + "/back")
        server.respond = lambda request: redirect(other.base + "/there") if request.target == "/x" else OK
        session.get(server.base + "/x", auth=auth())
        assert server.last.target == "/back" and not server.last.values("authorization")


def test_redirect_with_a_login_of_its_own(
    session: requests.Session, server: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine localhost login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session.trust_env = True
    server.respond = lambda request: redirect(f"http://localhost:{server.port}/y") if request.target == "/x" else OK
    session.get(server.base + "/x", auth=auth())
    assert server.last.value("authorization").startswith("Basic ")
    assert not server.last.values("digest")


def test_through_a_proxy(session: requests.Session, server: Recorder) -> None:
    answers = iter([None, OK])
    server.respond = lambda request: next(answers)
    session.mount("http://", HTTPAdapter(max_retries=Retry(2, backoff_factor=0, allowed_methods=None)))
    signing = auth(clock=Clock())
    session.post("http://gateway.test/a[1]?b", data=b"abc", auth=signing, proxies={"http": server.base})
    assert server.last.target == "http://gateway.test/a%5B1%5D?b"
    fresh(*server.requests)


def test_one_auth_object_in_many_threads(server: Recorder) -> None:
    signing = auth(nonce=True)

    def work(number: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            for turn in range(5):
                session.post(f"{server.base}/{number}/{turn}", data=f"{number}-{turn}", auth=signing)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 40
    assert all(accepted(request) for request in server.requests)


def test_own_authorization_is_replaced(session: requests.Session, server: Recorder) -> None:
    session.get(server.base + "/x", headers={"Authorization": "Bearer x"}, auth=auth())
    assert accepted(server.last)
    prepared = session.prepare_request(requests.Request("GET", server.base + "/x", auth=auth()))
    prepared.prepare_auth(auth())
    session.send(prepared)
    assert accepted(server.last)
    prepared.headers["Authorization"] = "Bearer x"
    session.send(prepared)
    assert server.last.value("authorization") == "Bearer x" and not server.last.values("digest")


# --- anything ---

text = st.text(st.characters(codec="utf-8"), max_size=12)
headers = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=8).map(str.strip)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Recorder, requests.Session]]:
    with Recorder() as recorder, requests.Session() as session:
        session.trust_env = False
        yield recorder, session


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(["GET", "POST", "put", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]),
    path=text,
    params=st.one_of(text, st.dictionaries(text, text, max_size=3)),
    body=st.one_of(
        st.none(),
        st.binary(max_size=50).map(lambda data: {"data": data}),
        text.map(lambda data: {"data": data}),
        st.dictionaries(text, text, max_size=2).map(lambda data: {"data": data}),
        st.dictionaries(text, text, max_size=2).map(lambda data: {"json": data}),
        st.binary(max_size=50).map(lambda data: {"files": {"f": data}}),
        st.binary(max_size=50).map(lambda data: {"data": io.BytesIO(data)}),
    ),
    header=headers,
    secret=st.one_of(text.filter(bool), st.binary(min_size=1, max_size=80)),
)
def test_anything_is_accepted(
    shared: tuple[Recorder, requests.Session],
    method: str,
    path: str,
    params: Any,
    body: dict[str, Any] | None,
    header: str,
    secret: str | bytes,
) -> None:
    server, session = shared
    before = len(server.requests)
    signing = HmacAuth(KEY_ID, secret, nonce=True, signed=["x-any", "@request-target", "date", "digest"])
    try:
        request = requests.Request(
            method, f"{server.base}/{path}", params=params, headers={"X-Any": header}, auth=signing, **(body or {})
        )
        prepared = session.prepare_request(request)
    except (requests.exceptions.InvalidURL, UnicodeError):
        return  # not an address for requests
    session.send(prepared, allow_redirects=False)
    assert len(server.requests) == before + 1
    assert accepted(
        server.last,
        secret.encode() if isinstance(secret, str) else secret,
        signed_headers=["@request-target", "date", "x-any", "x-nonce"],
    )


def test_refused_request_is_not_repeated(session: requests.Session, server: Recorder) -> None:
    server.respond = lambda request: UNAUTHORIZED
    assert session.get(server.base + "/x", auth=auth()).status_code == 401
    assert len(server.requests) == 1
