"""Routes, services and upstreams written by Kong's admin API, asked through both lanes: what goes upstream, what comes
back, which target answers, and what is said where none does.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from tests.support.beside import Beside
from tests.support.nodes import Node
from tests.support.proxied import OK, Proxied, Upstream, wait_for
from tests.support.raw_client import Headers, RawAnswer
from tests.support.raw_upstream import Peer, answer
from tests.support.served import ADMIN_KEY, free_port, request


class Kong:
    """The admin API, and requests through one lane. Every scene has a host name of its own."""

    def __init__(self, gateway: Proxied, beside: Beside | None) -> None:
        self.gateway = gateway
        self._beside = beside

    def admin(self, method: str, path: str, /, **body: Any) -> Any:
        headers = {"Kong-Admin-Token": ADMIN_KEY, "Content-Type": "application/json"}
        sent = json.dumps(body).encode() if body else None
        found = request(f"{self.gateway.console}/kong{path}", method, headers, sent)
        assert found.status in (200, 201, 204), (found.status, found.body)
        return found.json() if found.body else None

    def service(self, name: str, host: str = "127.0.0.1", port: int = 80, *, route: Any = None, **more: Any) -> str:
        """A service with one route on a host name, which is returned; in force, unless a route follows."""
        self.admin("POST", "/services", name=name, host=host, port=port, **more)
        self.route(name, **{"hosts": [f"{name}.test"], "paths": ["/"], **(route or {})})
        return f"{name}.test"

    def route(self, service: str | None, **route: Any) -> None:
        self.admin("POST", f"/services/{service}/routes" if service else "/routes", **route)
        self.gateway.enforce()

    def upstream(self, name: str, *targets: str, **more: Any) -> None:
        self.admin("POST", "/upstreams", name=name, **more)
        for target in targets:
            self.admin("POST", f"/upstreams/{name}/targets", target=target)

    def ask(
        self, target: str = "/", host: str = "", method: str = "GET", headers: Headers = (), body: bytes | None = None
    ) -> RawAnswer:
        if self._beside is not None:
            return self._beside.ask(method, "/gw" + target, host, headers, body)
        return self.gateway.ask(method, target, host, headers, body)


@pytest.fixture(scope="module")
def beside(gateway: Proxied) -> Iterator[Beside]:
    with Beside(gateway) as site:
        yield site


@pytest.fixture(params=["gateway", "embedded"])
def kong(request: pytest.FixtureRequest, gateway: Proxied) -> Kong:
    return Kong(gateway, request.getfixturevalue("beside") if request.param == "embedded" else None)


_scenes = count()


@pytest.fixture
def name() -> str:
    """A name that no other scene has."""
    return f"kong-{next(_scenes)}"


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Node()) for _ in range(3)]


def who(found: RawAnswer) -> str:
    assert found.status == 200, (found.status, found.body)
    return found.body.split()[0].decode()


def head(received: bytes) -> tuple[str, dict[str, str]]:
    """Target and headers of the first request that an upstream received."""
    first, *rest = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return first.split(" ")[1], dict(line.split(": ", 1) for line in rest)


def message(found: RawAnswer) -> str:
    body = json.loads(found.body)
    assert body["request_id"] == dict(found.headers)["x-kong-request-id"]
    assert int(dict(found.headers)["x-kong-response-latency"]) >= 0
    text: str = body["message"]
    return text


# --- what goes upstream, and what comes back ---


def test_a_proxied_request(kong: Kong, name: str) -> None:
    reply = b"HTTP/1.1 200 OK\r\nvia: 1.0 nginx\r\nx-kong-proxy-latency: 99999\r\ncontent-length: 2\r\n\r\nok"
    with Upstream(answer(reply)) as upstream:
        host = kong.service(name, port=upstream.port, path="/base", route={"paths": ["/a", r"~/v/(?<n>\d+)"]})
        found = kong.ask("/a/x%2Fy?q=1", f"{host}:81", headers=[("x-kong-request-id", "forged"), ("via", "1.0 fred")])
        target, headers = head(upstream.peer().received)
    assert target == "/base/x%2Fy?q=1"
    assert headers["host"] == f"127.0.0.1:{upstream.port}"
    assert headers["x-forwarded-host"] == host
    assert (headers["x-forwarded-path"], headers["x-forwarded-prefix"]) == ("/a/x%2Fy", "/a")
    assert headers["via"] == "1.0 fred, 1.1 hmac-gateway"
    assert headers["x-kong-request-id"] == headers["x-request-id"] != "forged"
    back = dict(found.headers)
    assert found.status == 200 and len([pair for pair in found.headers if pair[0] == "x-kong-proxy-latency"]) == 1
    assert back["x-kong-request-id"] == back["x-request-id"] == headers["x-kong-request-id"]
    assert 0 <= int(back["x-kong-upstream-latency"]) < 9999 and 0 <= int(back["x-kong-proxy-latency"]) < 9999
    assert back["via"] == "1.0 nginx, 1.1 hmac-gateway"


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({"preserve_host": True}, "{host}:81"),
        ({}, "virtual.test:8081"),
    ],
    ids=["preserved", "host_header"],
)
def test_host(kong: Kong, name: str, route: dict[str, Any], expected: str) -> None:
    with Upstream(answer(OK)) as upstream:
        kong.upstream(f"{name}.up", f"127.0.0.1:{upstream.port}", host_header="virtual.test:8081")
        host = kong.service(name, f"{name}.up", route=route)
        assert kong.ask("/", f"{host}:81").status == 200
        assert head(upstream.peer().received)[1]["host"] == expected.format(host=host)


def test_which_route(kong: Kong, name: str, nodes: list[Node]) -> None:
    """Each route strips another prefix, so that the path tells which one it was."""
    host = f"{name}.test"
    port = int(nodes[0].address.partition(":")[2])
    kong.admin("POST", "/services", name=name, host="127.0.0.1", port=port)
    for base, route in {
        "/plain": {"paths": ["/foo"]},
        "/longer": {"paths": ["/foo/bar"]},
        "/regex": {"paths": [r"~/foo/\d+"]},
        "/method": {"paths": ["/foo"], "methods": ["PURGE", "POST"]},
        "/header": {"paths": ["/foo"], "headers": {"x-version": ["2", "~*^beta"]}, "methods": ["GET"]},
    }.items():
        kong.admin("POST", "/services", name=name + base[1:], host="127.0.0.1", port=port, path=base)
        kong.admin("POST", f"/services/{name}{base[1:]}/routes", hosts=[host], strip_path=False, **route)
    kong.gateway.enforce()

    def went(target: str, method: str = "GET", headers: Headers = ()) -> str:
        return kong.ask(target, host, method, headers).body.split()[1].decode()

    assert went("/foobar") == "/plain/foobar"
    assert went("/foo/bar/x") == "/longer/foo/bar/x"
    assert went("/foo/12/x") == "/regex/foo/12/x"
    assert went("/foo/12", "POST") == "/method/foo/12"
    assert went("/foo/12", headers=[("X-Version", "BETA-3")]) == "/header/foo/12"
    assert kong.ask("/fo", host).status == 404


# --- answers of the gateway's own ---


def test_plaintext_where_tls_is_wanted(kong: Kong, name: str) -> None:
    for path, more in (("/upgrade", {}), ("/moved", {"https_redirect_status_code": 301})):
        kong.admin("POST", "/routes", hosts=[f"{name}.test"], paths=[path], protocols=["https"], **more)
    kong.gateway.enforce()
    found = kong.ask("/upgrade?x", f"{name}.test")
    assert (found.status, message(found)) == (426, "Please use HTTPS protocol")
    if kong._beside is None:
        headers = dict(found.headers)
        assert (headers["connection"], headers["upgrade"]) == ("Upgrade", "TLS/1.2, HTTP/1.1")
    found = kong.ask("/moved/x?y", f"{name}.test:80")
    assert (found.status, dict(found.headers)["location"]) == (301, f"https://{name}.test/moved/x?y")


def test_without_a_service(kong: Kong, name: str) -> None:
    kong.route(None, hosts=[f"{name}.test"])
    found = kong.ask("/x", f"{name}.test")
    assert (found.status, message(found)) == (503, "no Service found with those values")


def test_what_is_left_of_a_path_must_not_climb(kong: Kong, name: str, nodes: list[Node]) -> None:
    host = kong.service(name, port=int(nodes[0].address.partition(":")[2]), route={"paths": ["/a"]})
    assert kong.ask("/a../secret", host).status == 400
    assert not nodes[0].began.acquire(blocking=False)


def test_a_name_without_an_address(kong: Kong, name: str) -> None:
    host = kong.service(name, "no-such-host.invalid")
    found = kong.ask("/", host)
    assert (found.status, message(found)) == (503, "name resolution failed")


def test_without_a_target(kong: Kong, name: str) -> None:
    kong.upstream(f"{name}.up")
    found = kong.ask("/", kong.service(name, f"{name}.up"))
    assert (found.status, message(found)) == (503, "failure to get a peer from the ring-balancer")


def test_nobody_listens(kong: Kong, name: str) -> None:
    host, words = kong.service(name, port=free_port()), b"An invalid response was received from the upstream server"
    found = kong.ask("/", host, headers=[("Accept", "*/*")])
    assert (found.status, message(found)) == (502, words.decode())
    found = kong.ask("/", host, "POST", [("Content-Type", "application/json; charset=utf-8")], b"{}")
    assert (found.status, message(found)) == (502, words.decode())
    found = kong.ask("/", host)
    assert dict(found.headers)["content-type"] == "text/plain; charset=utf-8"
    assert found.body == b"%b\nrequest_id: %b\n" % (words, dict(found.headers)["x-kong-request-id"].encode())


# --- tries ---


def silent(peer: Peer) -> None:
    """Take a request and hang up."""
    peer.read_head()
    peer.close()


def test_a_connection_that_fails_is_repeated(kong: Kong, name: str, nodes: list[Node]) -> None:
    kong.upstream(f"{name}.up", f"127.0.0.1:{free_port()}", nodes[0].address)
    host = kong.service(name, f"{name}.up")
    for method in ("GET", "POST"):
        assert {who(kong.ask("/", host, method)) for _ in range(3)} == {nodes[0].address}


def test_as_often_as_the_service_says(kong: Kong, name: str, nodes: list[Node]) -> None:
    kong.upstream(f"{name}.up", f"127.0.0.1:{free_port()}", nodes[0].address)
    host = kong.service(name, f"{name}.up", retries=0)
    assert Counter(kong.ask("/", host).status for _ in range(4)) == {200: 2, 502: 2}


@pytest.mark.parametrize(
    ("method", "body", "status", "connections"),
    [("GET", None, 200, 3), ("HEAD", None, 200, 3), ("POST", b"x", 502, 1), ("PUT", None, 502, 1)],
)
def test_a_request_that_was_sent_is_repeated_where_it_is_safe(
    kong: Kong, name: str, method: str, body: bytes | None, status: int, connections: int
) -> None:
    with Upstream(silent, silent, answer(OK)) as upstream:
        host = kong.service(name, port=upstream.port)
        assert kong.ask("/", host, method, body=body).status == status
        assert len(upstream.peers) == connections


def test_an_answer_that_breaks_off_is_not_repeated(kong: Kong, name: str) -> None:
    def broken(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nx: ")
        peer.close()

    with Upstream(broken, answer(OK)) as upstream:
        assert kong.ask("/", kong.service(name, port=upstream.port)).status == 502
        assert len(upstream.peers) == 1


def test_not_more_often_than_the_service_says(kong: Kong, name: str) -> None:
    with Upstream(silent, silent, answer(OK)) as upstream:
        host = kong.service(name, port=upstream.port, retries=1)
        assert kong.ask("/", host).status == 502
        assert len(upstream.peers) == 2


def test_a_target_that_takes_too_long(kong: Kong, name: str, nodes: list[Node]) -> None:
    port = int(nodes[0].address.partition(":")[2])
    host = kong.service(name, port=port, read_timeout=200, retries=1)
    found = kong.ask("/slow/2/x", host, headers=[("Accept", "*/*")])
    assert (found.status, message(found)) == (504, "The upstream server is timing out")
    wait_for(lambda: nodes[0].began.acquire(blocking=False))
    assert nodes[0].began.acquire(timeout=5) and not nodes[0].began.acquire(blocking=False)


# --- which target ---


def test_weights(kong: Kong, name: str, nodes: list[Node]) -> None:
    kong.upstream(f"{name}.up")
    for node, weight in zip(nodes, (30, 0, 10), strict=True):
        kong.admin("POST", f"/upstreams/{name}.up/targets", target=node.address, weight=weight)
    host = kong.service(name, f"{name}.up")
    counts = Counter(who(kong.ask("/", host)) for _ in range(8))
    assert counts == {nodes[0].address: 6, nodes[2].address: 2}


def test_hashing_on_a_header_with_a_fallback(kong: Kong, name: str, nodes: list[Node]) -> None:
    targets = [node.address for node in nodes]
    hashing = {"hash_on": "header", "hash_on_header": "x-user", "hash_fallback": "ip"}
    kong.upstream(f"{name}.up", *targets, **hashing)
    host = kong.service(name, f"{name}.up")
    found = {user: {who(kong.ask("/", host, headers=[("X-User", user)])) for _ in range(2)} for user in "abcdefgh"}
    assert all(len(one) == 1 for one in found.values())
    assert len(set().union(*found.values())) > 1
    assert len({who(kong.ask("/", host)) for _ in range(5)}) == 1


def test_hashing_on_a_part_of_the_path(kong: Kong, name: str, nodes: list[Node]) -> None:
    targets = [node.address for node in nodes]
    kong.upstream(f"{name}.up", *targets, hash_on="uri_capture", hash_on_uri_capture="user")
    route = {"paths": [r"~/(?<kind>[^/]+)/(?<user>\w+)"], "strip_path": False}
    host = kong.service(name, f"{name}.up", route=route)
    found = {user: {who(kong.ask(f"/{kind}/{user}", host)) for kind in "xy"} for user in "abcdefgh"}
    assert all(len(one) == 1 for one in found.values())
    assert len(set().union(*found.values())) > 1


def test_a_cookie_keeps_a_client_at_its_target(kong: Kong, name: str, nodes: list[Node]) -> None:
    targets = [node.address for node in nodes]
    kong.upstream(f"{name}.up", *targets, hash_on="cookie", hash_on_cookie="seat", hash_on_cookie_path="/p")
    host = kong.service(name, f"{name}.up")
    seen = set()
    for _ in range(8):
        found = kong.ask("/", host)
        given = re.fullmatch(r"seat=([0-9a-f-]{36}); Path=/p; HttpOnly", dict(found.headers)["set-cookie"])
        assert given is not None and str(UUID(given[1])) == given[1]
        again = kong.ask("/", host, headers=[("cookie", f"seat={given[1]}")])
        assert "set-cookie" not in dict(again.headers)
        assert who(again) == who(found)
        seen.add(who(found))
    assert len(seen) > 1


def test_an_upstreams_own_cookies_stay(kong: Kong, name: str) -> None:
    reply = b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n"
    with Upstream(answer(reply)) as upstream:
        kong.upstream(f"{name}.up", f"127.0.0.1:{upstream.port}", hash_on="cookie", hash_on_cookie="seat")
        found = kong.ask("/", kong.service(name, f"{name}.up"))
    lines = sorted(value.partition("=")[0] for key, value in found.headers if key == "set-cookie")
    assert lines == ["a", "b", "seat"]


def test_marks(kong: Kong, name: str, nodes: list[Node]) -> None:
    first, second = (node.address for node in nodes[:2])
    kong.upstream(f"{name}.up", first, second)
    host = kong.service(name, f"{name}.up")

    def mark(target: str, how: str) -> None:
        kong.admin("PUT", f"/upstreams/{name}.up/targets/{target}/{how}")
        kong.gateway.enforce()

    def answering() -> set[str]:
        return {who(found) if (found := kong.ask("/", host)).status == 200 else message(found) for _ in range(4)}

    assert answering() == {first, second}
    mark(first, "unhealthy")
    wait_for(lambda: answering() == {second})
    mark(second, "unhealthy")
    wait_for(lambda: answering() == {"failure to get a peer from the ring-balancer"})
    mark(first, "healthy")
    wait_for(lambda: answering() == {first})
