"""The command's two proxy modes: what is signed, what is let through, and what the upstream gets."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from threading import Thread
from time import time
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from hmac_authentication import hmacauth

from tests.support.certificates import Authority
from tests.support.hmacproxied import HEADER, REFUSAL, SECRET, Hmacproxy, sign
from tests.support.proxied import wait_for
from tests.support.raw_client import Ended, RawAnswer, RawClient, request_bytes
from tests.support.raw_upstream import Peer, RawUpstream, answer
from tests.support.services import missing

from .conftest import Seen

DATE = ("Date", "Mon, 05 Oct 2015 15:32:56 GMT")


def refused(answer: RawAnswer) -> bool:
    """The one answer to whatever is wrong."""
    if answer.status != 401:
        return False
    assert answer.body == REFUSAL and answer.get("content-type") == "text/plain; charset=utf-8"
    assert answer.get("x-content-type-options") == "nosniff" and answer.get("www-authenticate") is None
    return True


# --- signing ---


@pytest.mark.parametrize("target", ["/", "/a", "/a%2Fb%3f?x=%20&y", "/a?", "//a/../b/.", "/%zz%C3%A9"])
def test_every_target_is_signed_decoded_and_sent_as_it_came(signing: Hmacproxy, seen: Seen, target: str) -> None:
    path, _, query = target.partition("?")
    decoded = unquote_to_bytes(path).decode("latin-1") + (f"?{query}" if query else "")
    answer = signing.ask("GET", target, [DATE])
    assert answer.status == 200
    line, headers, body = seen.last()
    # Of `/a?`, ASGI gives `/a`; both are signed alike.
    assert line == f"GET {target.removesuffix('?')} HTTP/1.1"
    assert headers[HEADER] == sign(f"GET\n{DATE[1]}\n\n{decoded}\n")[1]
    assert (headers["host"], headers["x-forwarded-for"]) == ("proxy.test", "127.0.0.1")
    assert "content-length" not in headers and body == b""


def test_bodies_are_signed_whole_and_sent_once_known(signing: Hmacproxy, seen: Seen) -> None:
    large = os.urandom(2_500_000)  # more than is kept in memory
    for body in (b"", b"hello", large):
        assert signing.ask("POST", "/a", [DATE], body).status == 200
        line, headers, got = seen.last()
        assert (got == body, headers["content-length"]) == (True, str(len(body)))
        assert headers[HEADER] == sign(f"POST\n{DATE[1]}\n\n/a\n", body)[1]


def test_chunked_bodies_come_with_their_length(signing: Hmacproxy, seen: Seen) -> None:
    with signing.client() as client:
        client.send(request_bytes("PUT", "/a", "h", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Late")]))
        client.send(b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\nX-Late: 1\r\n\r\n")
        assert client.answer().status == 200
    _, headers, body = seen.last()
    assert (body, headers["content-length"]) == (b"abcdefgh", "8")
    assert not {"transfer-encoding", "trailer", "x-late"} & headers.keys()
    assert headers[HEADER] == sign("PUT\n\n\n/a\n", b"abcdefgh")[1]


def test_a_signed_length_is_the_one_that_is_sent(seen: Seen) -> None:
    with Hmacproxy("-upstream", f"http://127.0.0.1:{seen.port}", "-headers", "Content-Length") as proxy:
        for headers, sent, length, body in (
            ([("Content-Length", "3")], b"abc", "3", b"abc"),
            ([("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n0\r\n\r\n", "3", b"abc"),
            ([("Transfer-Encoding", "chunked")], b"0\r\n\r\n", "0", b""),
            ([], b"", "", b""),
            ([("Content-Length", "003")], b"abc", "3", b"abc"),
        ):
            with proxy.client() as client:
                client.send(request_bytes("POST", "/a", "h", headers) + sent)
                assert client.answer().status == 200
            _, got, content = seen.last()
            assert (got.get("content-length", ""), content) == (length, body)
            assert got[HEADER] == sign(f"POST\n{length}\n/a\n", body)[1]


def test_a_signature_of_the_clients_is_overwritten(signing: Hmacproxy, seen: Seen) -> None:
    forged = [("x-signature", "sha1 AAAA"), ("X-SIGNATURE", "x"), ("X_Signature", "y")]
    assert signing.ask("GET", "/a", [*forged, ("Connection", "x-signature")]).status == 200
    _, headers, _ = seen.last()
    assert headers[HEADER] == sign("GET\n\n\n/a\n")[1]
    assert {name for name in headers if name.lower().replace("_", "-") == "x-signature"} == {HEADER}


def test_headers_that_speak_about_one_connection_end_here(signing: Hmacproxy, seen: Seen) -> None:
    sent = [
        DATE,
        ("X-Many", "a"),
        ("X-Many", "b"),
        ("Connection", "close, X-Dropped, Date"),
        ("X-Dropped", "1"),
        ("Keep-Alive", "1"),
        ("Proxy-Authorization", "1"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("X-Kept", "Ä".encode().decode("latin-1")),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Consumer-Username", "anybody"),
    ]
    assert signing.ask("GET", "/a", sent).status == 200
    lines, _ = seen.requests[-1]
    # A signed header arrives, whatever Connection says.
    assert f"date: {DATE[1]}" in lines and "x-consumer-username: anybody" in lines
    assert [line for line in lines if line.startswith("x-many")] == ["x-many: a", "x-many: b"]
    assert "x-kept: Ä".encode().decode("latin-1") in lines and "x-forwarded-for: 10.0.0.1, 127.0.0.1" in lines
    names = {line.partition(":")[0] for line in lines[1:]}
    assert not names & {"connection", "x-dropped", "keep-alive", "proxy-authorization", "te", "upgrade"}
    assert f"{HEADER}: {sign(f'GET{chr(10)}{DATE[1]}{chr(10)}a,b{chr(10)}/a{chr(10)}')[1]}" in lines


def test_the_upstreams_answer_comes_as_it_is(signing: Hmacproxy) -> None:
    answer = signing.ask("GET", "/a")
    assert (answer.body, answer.get("server"), answer.get("x-request-id")) == (b"ok", "there", "theirs")
    assert [value for name, value in answer.headers if name == "x-two"] == ["1", "2"]


def test_head_has_no_body(signing: Hmacproxy, seen: Seen) -> None:
    seen.answer, before = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", seen.answer
    try:
        answer = signing.ask("HEAD", "/a")
    finally:
        seen.answer = before
    assert (answer.status, answer.get("content-length"), answer.body) == (200, "99", b"")
    assert seen.last()[1][HEADER] == sign("HEAD\n\n\n/a\n")[1]


def test_a_client_that_waits_to_be_asked_for_its_body(signing: Hmacproxy, seen: Seen) -> None:
    with signing.client() as client:
        client.send(request_bytes("POST", "/a", "h", [("Expect", "100-continue"), ("Content-Length", "2")]))
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"ab")
        assert client.answer().status == 200
    assert seen.last()[2] == b"ab" and "expect" not in seen.last()[1]


def test_a_body_that_is_too_large_is_not_kept(signing: Hmacproxy, seen: Seen) -> None:
    before = len(seen.requests)
    with signing.client() as client:
        client.send(request_bytes("POST", "/a", "h", [("Content-Length", "3000001"), ("Expect", "100-continue")]))
        announced = client.answer()
    assert (announced.status, announced.interim) == (413, [])
    assert announced.body == b"request size 3000001 is greater than the maximum size 3000000 allowed\n"
    with signing.client() as client:
        client.send(request_bytes("POST", "/a", "h", [("Transfer-Encoding", "chunked")]))
        piece = b"%x\r\n%b\r\n" % (1_000_001, b"x" * 1_000_001)
        client.send(piece * 3)
        assert client.answer().status == 413
    assert len(seen.requests) == before


def test_clients_that_break_off_reach_nobody(signing: Hmacproxy, seen: Seen) -> None:
    before = len(seen.requests)
    with signing.client() as client:
        client.send(request_bytes("POST", "/broken", "h", [("Content-Length", "10")]) + b"abc")
        client.reset()
    wait_for(lambda: '"path":"/broken","status":499' in signing.log)
    assert len(seen.requests) == before


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT h:1 HTTP/1.1\r\nhost: h:1",
        b"GET /a HTTP/1.1",
        b"GET /a HTTP/1.1\r\nhost: a\r\nhost: b",
        b"GET /a HTTP/1.1\r\nhost: a b",
        b"GET /a HTTP/1.1\r\nhost: a:80@b",
        b"GET /a\x01 HTTP/1.1\r\nhost: a",
        b"GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: x",
        b"GET a HTTP/1.1\r\nhost: a",
        b"GET * HTTP/1.1\r\nhost: a",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz",
    ],
    ids=lambda head: head[:40].decode("latin-1"),
)
def test_what_cannot_be_forwarded_in_one_way_only(signing: Hmacproxy, seen: Seen, head: bytes) -> None:
    before = len(seen.requests)
    with signing.client() as client:
        client.send(head + b"\r\n\r\n")
        assert client.answer().status == 400
    assert len(seen.requests) == before


# --- verifying ---


def test_only_what_is_signed_gets_through(guarding: Hmacproxy, seen: Seen) -> None:
    string = f"POST\n{DATE[1]}\n\n/a?b=c\n"
    right = [DATE, sign(string, b"body", digest="sha256")]
    assert guarding.ask("POST", "/a?b=c", right, b"body").status == 200
    line, headers, body = seen.last()
    assert (line, body, headers["host"]) == ("POST /a?b=c HTTP/1.1", b"body", "proxy.test")
    assert headers["x-signature"] == right[1][1]
    # Another verifier behind it needs what was signed, whatever Connection says.
    assert guarding.ask("POST", "/a?b=c", [*right, ("Connection", "X-Signature, Date")], b"body").status == 200
    assert {"x-signature", "date"} <= seen.last()[1].keys()
    before = len(seen.requests)
    for method, target, sent, content in (
        ("PUT", "/a?b=c", right, b"body"),
        ("POST", "/a?b=d", right, b"body"),
        ("POST", "/a", right, b"body"),
        ("POST", "/a?b=c", [*right, ("X-Many", "1")], b"body"),
        ("POST", "/a?b=c", right[1:], b"body"),
        ("POST", "/a?b=c", right, b"bodY"),
        ("POST", "/a?b=c", right, b""),
        ("POST", "/a?b=c", [DATE, sign(string, b"body", secret="other", digest="sha256")], b"body"),
        ("POST", "/a?b=c", [DATE, sign(string, b"body", digest="sha512")], b"body"),
        ("POST", "/a?b=c", [DATE, sign(string, b"body", digest="sha1")], b"body"),
        ("POST", "/a?b=c", [*right, right[1]], b"body"),
        ("POST", "/a?b=c", [DATE], b"body"),
        ("POST", "/a?b=c", [DATE, ("X-Signature", "")], b"body"),
        ("POST", "/a?b=c", [DATE, ("X-Signature", "sha256")], b"body"),
    ):
        assert refused(guarding.ask(method, target, sent, content)), (method, target, sent)
    assert len(seen.requests) == before
    assert right[1][1].split(" ")[1] not in guarding.log


def test_the_string_is_the_originals_with_its_ambiguities(guarding: Hmacproxy, seen: Seen) -> None:
    """Without -strict; what one could be taken for the other is the original's contract."""
    for target, string, body in (
        ("/a%3Fb=1", "POST\n\n\n/a?b=1\n", b"x"),
        ("/a%2Fb", "POST\n\n\n/a/b\n", b"x"),
        ("/foo%0Abar", "POST\n\n\n/foo\nbar\n", b""),
        ("/x/../a", "POST\n\n\n/x/../a\n", b""),
    ):
        assert guarding.ask("POST", target, [sign(string, body, digest="sha256")], body).status == 200, target
        assert seen.last()[0] == f"POST {target} HTTP/1.1"


def test_one_signs_and_the_other_accepts(guarding: Hmacproxy, seen: Seen) -> None:
    upstream = f"http://127.0.0.1:{guarding.port}"
    with Hmacproxy("-upstream", upstream, "-headers=Date,X-Many", "-digest", "sha256") as first:
        for method, body in (("GET", None), ("POST", b""), ("PATCH", b"\x00\xff" * 1000)):
            assert first.ask(method, "/%41/b?c", [DATE, ("X-Many", "a"), ("X-Many", "b")], body).status == 200
            assert seen.requests[-1][1] == (body or b"")
            assert "x-forwarded-for: 127.0.0.1, 127.0.0.1" in seen.requests[-1][0]
    with Hmacproxy("-upstream", upstream, "-headers=Date", "-digest", "sha256") as other:
        assert refused(other.ask("GET", "/"))


def test_strict_any_digest_and_age() -> None:
    with RawUpstream(lambda peer: peer.wait_closed()) as nobody:
        options = ("-strict", "-any-digest", "-headers=Date", "-max-skew=600")
        with Hmacproxy("-auth", "-upstream", f"http://127.0.0.1:{nobody.port}", *options) as proxy:
            now = formatdate(time(), usegmt=True)
            for target, date, string in (
                ("/a%3Fb=1", now, f"GET\n{now}\n/a?b=1\n"),
                ("/x/../a", now, f"GET\n{now}\n/x/../a\n"),
                ("/a", DATE[1], f"GET\n{DATE[1]}\n/a\n"),
            ):
                assert refused(proxy.ask("GET", target, [("Date", date), sign(string, digest="md5")])), target
            assert refused(proxy.ask("GET", "/a", [sign("GET\n\n/a\n", digest="md5")]))
            assert not nobody.peers
            with proxy.client() as client:
                string = f"GET\n{now}\n/a\n"
                client.send(request_bytes("GET", "/a", "h", [("Date", now), sign(string, digest="md5")]))
                wait_for(lambda: len(nobody.peers) == 1)


def test_a_date_for_those_who_send_none() -> None:
    """Without it, a verifier with -max-skew would accept nothing that curl or a browser asks for."""
    with Hmacproxy("-auth", "-headers=Date", "-max-skew=60") as verifier:
        upstream = f"http://127.0.0.1:{verifier.port}"
        with Hmacproxy("-upstream", upstream, "-headers=Date", "-add-date") as proxy:
            assert proxy.ask("GET", "/").status == 202
            # What a client says of the time is not made better.
            assert proxy.ask("GET", "/", [DATE]).status == 401


def test_hmac_authentication_of_pypi() -> None:
    """Behind the command it verifies what we signed; what it signs, we let through."""
    theirs = hmacauth.HmacAuth(hashlib.sha1, SECRET, HEADER, ["Date", "X-One"])

    def greeting(environ: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
        start("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    with make_server("127.0.0.1", 0, hmacauth.HmacMiddleware(greeting, theirs), handler_class=Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            upstream = ("-upstream", f"http://127.0.0.1:{server.server_port}", "-headers=Date,X-One")
            sent = [DATE, ("X-One", "1")]
            with Hmacproxy(*upstream) as proxy:
                assert proxy.ask("POST", "/a%20b?c=%20", sent, b"body").body == b"hello"
                assert proxy.ask("GET", "/").body == b"hello"
            environ = {
                **{"REQUEST_METHOD": "POST", "PATH_INFO": "/a b", "QUERY_STRING": "c=%20", "wsgi.url_scheme": "http"},
                **{"HTTP_DATE": DATE[1], "HTTP_X_ONE": "1", "CONTENT_LENGTH": "4", "wsgi.input": BytesIO(b"body")},
            }
            signature = (HEADER, theirs.request_signature(environ))
            with Hmacproxy("-auth", *upstream) as proxy:
                assert proxy.ask("POST", "/a%20b?c=%20", [*sent, signature], b"body").body == b"hello"
                assert refused(proxy.ask("POST", "/a%20b?c=%20", [*sent, signature], b"bodY"))
        finally:
            server.shutdown()
            thread.join()


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_failures_of_the_upstream() -> None:
    def nothing(peer: Peer) -> None:
        peer.read_head()

    def cut(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")

    with RawUpstream(nothing, cut) as upstream, Hmacproxy("-upstream", f"http://127.0.0.1:{upstream.port}") as proxy:
        broken = proxy.ask("GET", "/")
        assert (broken.status, broken.get("content-type")) == (502, "text/plain; charset=utf-8")
        assert broken.body == b"the upstream answer could not be read\n"
        with proxy.client() as client:
            client.send(request_bytes("GET", "/", "h"))
            head = client.head()
            client.body_of(head)
        assert (head.status, head.whole) == (200, False)
        upstream.__exit__(None)
        away = proxy.ask("GET", "/")
        assert (away.status, away.body) == (502, b"the upstream could not be reached\n")


def test_tls_in_front_and_behind(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    trusting = ssl.create_default_context(cafile=authority.ca_file)
    ok = answer(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    with RawUpstream(ok, tls=authority.server("127.0.0.1")) as upstream:
        arguments = ("-upstream", f"https://127.0.0.1:{upstream.port}", "-ssl-cert", cert, "-ssl-key", key)
        with Hmacproxy(*arguments, tls=trusting, environment={"SSL_CERT_FILE": authority.ca_file}) as proxy:
            assert proxy.ask("GET", "/").status == 204
            assert HEADER.encode() in upstream.peers[0].received
            # No plain HTTP beside it.
            with RawClient(proxy.port) as plain, pytest.raises(Ended):
                plain.ask("GET", "/", "h")
        # Whom the system does not trust gets nothing.
        with Hmacproxy("-upstream", f"https://127.0.0.1:{upstream.port}") as proxy:
            assert proxy.ask("GET", "/").status == 502


def test_http2_is_spoken_over_tls(tmp_path: Path, seen: Seen) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.check_output([curl, "--version"], text=True):
        missing("curl with HTTP/2 is not installed")
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    arguments = ("-upstream", f"http://127.0.0.1:{seen.port}", "-headers=Cookie", "-ssl-cert", cert, "-ssl-key", key)
    with Hmacproxy(*arguments, tls=ssl.create_default_context(cafile=authority.ca_file)) as proxy:
        sends = [
            curl,
            "-s",
            "--http2",
            "--cacert",
            authority.ca_file,
            "-w",
            "%{http_version}",
            "-H",
            "Cookie: a=1; b=2",
        ]
        for more, head, body in (([], "GET\na=1; b=2\n/a b?c\n", b""), (["-d", "x"], "POST\na=1; b=2\n/a b?c\n", b"x")):
            assert subprocess.check_output([*sends, *more, f"{proxy.base}/a%20b?c"]) == b"ok2"
            line, headers, got = seen.last()
            assert (line.split(" ")[1], headers["host"], got) == ("/a%20b?c", f"127.0.0.1:{proxy.port}", body)
            assert headers[HEADER] == sign(head, body)[1]
