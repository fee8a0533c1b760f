"""Kong's way from a request's path to the upstream's, and the headers that only its dialect sends."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.identity import NOBODY, Carrier
from hmac_gateway.core.message import Message
from hmac_gateway.core.paths import decoded, raw_length
from hmac_gateway.routing_kong import Path
from proxy.exchange import Timeouts
from proxy.plan import BadTarget, Forward, Peer, forwarded_target, header_lines
from proxy.plan_kong import Rewrite, proxied_headers
from tests.support.fuzz import examples

ALWAYS = Timeouts(1, 1, 1)

# What Kong publishes about joining (its Admin API reference, `path_handling`), by service path, route path and
# strip_path: request → (v0, v1).
TABLE: dict[tuple[str, str, bool], dict[str, tuple[str, str]]] = {
    ("/", "/", False): {"/": ("/", "/"), "/a": ("/a", "/a"), "/a/": ("/a/", "/a/")},
    ("/", "/", True): {"/": ("/", "/"), "/a": ("/a", "/a"), "/a/b": ("/a/b", "/a/b")},
    ("/", "/fv", False): {"/fv": ("/fv", "/fv"), "/fv/": ("/fv/", "/fv/"), "/fvreq": ("/fvreq", "/fvreq")},
    ("/", "/tv", True): {
        "/tv": ("/", "/"),
        "/tv/": ("/", "/"),
        "/tvreq": ("/req", "/req"),
        "/tv/req": ("/req", "/req"),
    },
    ("/", "/tv/", True): {"/tv/": ("/", "/"), "/tv/req": ("/req", "/req")},
    ("/s", "/", False): {"/": ("/s", "/s"), "/req": ("/s/req", "/sreq"), "/req/": ("/s/req/", "/sreq/")},
    ("/s", "/", True): {"/": ("/s", "/s"), "/req": ("/s/req", "/sreq")},
    ("/s", "/fv", False): {"/fv": ("/s/fv", "/sfv"), "/fv/": ("/s/fv/", "/sfv/"), "/fvreq": ("/s/fvreq", "/sfvreq")},
    ("/s", "/tv", True): {
        "/tv": ("/s", "/s"),
        "/tv/": ("/s/", "/s/"),
        "/tvreq": ("/s/req", "/sreq"),
        "/tv/req": ("/s/req", "/s/req"),
    },
    ("/s", "/tv/", True): {"/tv/": ("/s/", "/s"), "/tv/req": ("/s/req", "/sreq")},
    ("/s/", "/", False): {"/": ("/s/", "/s/"), "/req": ("/s/req", "/s/req")},
    ("/s/", "/", True): {"/": ("/s/", "/s/"), "/req": ("/s/req", "/s/req"), "/req/": ("/s/req/", "/s/req/")},
    ("/s/", "/fv", False): {"/fv": ("/s/fv", "/s/fv"), "/fvreq": ("/s/fvreq", "/s/fvreq")},
    ("/s/", "/tv", True): {"/tv": ("/s", "/s/"), "/tv/": ("/s/", "/s/"), "/tvreq": ("/s/req", "/s/req")},
    ("/s/", "/tv/", True): {"/tv/": ("/s/", "/s/"), "/tv/req": ("/s/req", "/s/req")},
}


@pytest.mark.parametrize(
    ("base", "path", "strip", "request_path", "number"),
    [(*where, sent, number) for where, answers in TABLE.items() for sent, number in product(answers, (0, 1))],
)
def test_joining(base: str, path: str, strip: bool, request_path: str, number: int) -> None:
    rewrite = Rewrite(base, strip, Path.of(path), v1=bool(number))
    assert rewrite.apply(request_path) == TABLE[base, path, strip][request_path][number]


def target(sent: str, base: str = "/", path: str = "/", strip: bool = True, **more: Any) -> str:
    rewrite = Rewrite(base, strip, Path.of(path))
    return forwarded_target(Message("GET", sent, []), Forward(None, ALWAYS, rewrite=rewrite), **more)


@pytest.mark.parametrize(
    ("sent", "path", "upstream"),
    [
        # The raw form goes on, and what decodes to the prefix is taken from it.
        ("/a/%7Ex", "/a", "/%7Ex"),
        ("/%61/x%2fy?q=%20", "/a", "/x%2fy?q=%20"),
        ("//a//x", "/a", "/x"),
        ("/a%2F%2fx", "/a", "/%2F%2fx"),
        ("/a/b%2Fc/x", "/a/b/c", "/x"),
        ("/a/b//c/x", "/a/b/", "/c/x"),
        ("/a///b", "/a/", "/b"),
        ("/%C3%BC/x", "/ü", "/x"),
        ("/a/x?", "/a", "/x?"),
        ("/a?q", "/a", "/?q"),
        ("/a/zz%zz", "/a", "/zz%zz"),
        ("http://h/a/x?y", "/a", "/x?y"),
        # A regular expression's match is taken, as far as it goes.
        ("/version/12/x/y", r"~/version/\d+", "/x/y"),
        ("/version/12/x/y", r"~/version/(\d+/x|\d+)", "/y"),
        ("/version/12", r"~/version/\d+$", "/"),
        ("/vers%69on/1%32/x", r"~/version/\d+", "/x"),
    ],
)
def test_stripping_from_the_raw_path(sent: str, path: str, upstream: str) -> None:
    assert target(sent, path=path) == upstream


def test_without_stripping_the_raw_path_stays() -> None:
    assert target("//%61//x?", path="/a", strip=False) == "//%61//x?"
    assert target("//%61//x?", base="/s", path="/a", strip=False) == "/s/%61//x?"


@pytest.mark.parametrize("sent", ["/a../admin", "/a..", "/a%2e%2e/admin", "/a./admin", "/a..;x/admin", "/a;x/admin"])
def test_what_is_left_must_not_climb(sent: str) -> None:
    """None of these holds a dot segment before the prefix is taken away."""
    with pytest.raises(BadTarget):
        target(sent, path="/a")
    with pytest.raises(BadTarget):
        target(sent, base="/s/", path="/a")


def test_hidden_arguments_are_taken_out_too() -> None:
    hidden = frozenset({Carrier("query", "apikey")})
    assert target("/a/x?apikey=1&y=2", base="/s", path="/a", hidden=hidden) == "/s/x?y=2"


raw_paths = st.lists(
    st.sampled_from(["/", "/", "a", "b", "%61", "%2f", "%2F", "%zz", "%", "%7E", "%C3"]), max_size=12
).map(lambda parts: "/" + "".join(parts))


@settings(max_examples=examples(200), deadline=None)
@given(raw_paths, st.integers(0, 12))
def test_raw_length_is_the_inverse_of_decoding(path: str, count: int) -> None:
    form = decoded(path)
    count = min(count, len(form))
    length = raw_length(path, count)
    before, after = path[:length], path[length:]
    # Each part decodes by itself, except that a slash between them would be merged: it is in the first part then.
    assert (decoded(before) if before else "") == form[:count]
    assert (decoded(after) if after else "") == form[count:]


# --- headers ---


def lines(
    *headers: tuple[str, str], path: str = "/a", sent: str = "/a/x?q", trusted: bool = False, version: str = "2"
) -> dict[str, str]:
    message = Message("GET", sent, [("host", "x.test"), *headers], remote_addr="192.0.2.1", http_version=version)
    rewrite = Rewrite("/", True, Path.of(path))
    made = header_lines(message, NOBODY, frozenset(), Peer(80, trusted), "id-1", "", rewrite)
    pairs = [line.split(": ", 1) for line in made.split("\r\n") if line]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_headers_of_kong() -> None:
    found = lines()
    assert found["x-forwarded-path"] == "/a/x" and found["x-forwarded-prefix"] == "/a"
    assert found["x-kong-request-id"] == found["x-request-id"] == "id-1"
    assert found["via"] == "2 hmac-gateway"
    assert [lines(version=said)["via"] for said in ("1", "1.0")] == ["1.0 hmac-gateway"] * 2  # granian says 1


def test_a_slash_is_no_prefix() -> None:
    assert "x-forwarded-prefix" not in lines(path="/")
    assert lines(path="~/[a-z]+/", sent="/%61b/x")["x-forwarded-prefix"] == "/%61b/"


FORGED = (("X-Forwarded-Path", "/f"), ("X-Forwarded-Prefix", "/g"), ("X-Kong-Request-Id", "h"), ("Via", "1.0 fred"))


def test_a_client_is_not_believed() -> None:
    found = lines(*FORGED)
    assert (found["x-forwarded-path"], found["x-forwarded-prefix"]) == ("/a/x", "/a")
    assert (found["x-kong-request-id"], found["via"]) == ("id-1", "1.0 fred, 2 hmac-gateway")
    found = lines(*FORGED, trusted=True)
    assert (found["x-forwarded-path"], found["x-forwarded-prefix"]) == ("/f", "/g")
    assert found["x-kong-request-id"] == "id-1"


def test_latencies() -> None:
    found = dict(proxied_headers("id-1", 0.25, 0.2, "1.1", [(b"via", b"1.0 nginx")]))
    assert found == {
        b"x-kong-upstream-latency": b"200",
        b"x-kong-proxy-latency": b"50",
        b"x-kong-request-id": b"id-1",
        b"via": b"1.0 nginx, 1.1 hmac-gateway",
    }
