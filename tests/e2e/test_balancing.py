"""Every type of balancing through both lanes, with upstreams that are slow, broken or gone; what answers say of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.beside import Beside
from tests.support.certificates import Authority
from tests.support.nodes import Node
from tests.support.proxied import OK, Proxied, Upstream, wait_for
from tests.support.raw_client import Headers, RawAnswer, RawClient, request_bytes
from tests.support.raw_upstream import Peer, Script, answer
from tests.support.served import free_port

TELLS = "x-apisix-upstream-status"
QUICK = {"connect": 0.3, "send": 0.3, "read": 0.3}


class Site:
    """One upstream behind one lane."""

    def __init__(self, port: int, host: str, prefix: str) -> None:
        self.port, self._host, self._prefix = port, host, prefix

    def ask(self, target: str = "/x", headers: Headers = ()) -> RawAnswer:
        with RawClient(self.port) as client:
            return client.ask("GET", self._prefix + target, self._host, headers)

    def ask_often(self, times: int) -> list[RawAnswer]:
        """One after the other on one connection: the next begins when the lane has counted the last one's end."""
        with RawClient(self.port) as client:
            return [client.ask("GET", f"{self._prefix}/x", self._host) for _ in range(times)]

    def request(self, target: str) -> bytes:
        return request_bytes("GET", self._prefix + target, self._host)


Lane = Callable[..., Site]


@pytest.fixture(scope="module")
def beside(gateway: Proxied) -> Iterator[Beside]:
    with Beside(gateway) as site:
        yield site


@pytest.fixture(params=["gateway", "embedded"])
def lane(request: pytest.FixtureRequest, gateway: Proxied) -> Lane:
    """Makes a site whose requests go to ports; options are those of an upstream, `weights` its nodes'.

    `seconds` are all of its timeouts.
    """
    port, prefix = gateway.port, ""
    if request.param == "embedded":
        port, prefix = request.getfixturevalue("beside").port, "/gw"

    def made(*ports: int, weights: tuple[int, ...] = (), seconds: float = 10.0, **upstream: Any) -> Site:
        given = zip(ports, weights or [1] * len(ports), strict=True)
        upstream["timeout"] = dict.fromkeys(("connect", "send", "read"), seconds)
        upstream["nodes"] = [{"host": "127.0.0.1", "port": one, "weight": weight} for one, weight in given]
        return Site(port, gateway.lead(upstream=upstream), prefix)

    return made


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Node()) for _ in range(3)]


def port_of(node: Node) -> int:
    return int(node.address.partition(":")[2])


def who(found: RawAnswer) -> str:
    assert found.status == 200
    return found.body.split()[0].decode()


class Busy:
    """A request that a node is busy with."""

    def __init__(self, site: Site, seconds: float, nodes: list[Node]) -> None:
        self._found: list[RawAnswer] = []
        self._thread = threading.Thread(target=lambda: self._found.append(site.ask(f"/slow/{seconds}/x")))
        self._thread.start()
        self.node = began(nodes)

    def end(self) -> None:
        self._thread.join(20)
        assert who(self._found[0]) == self.node.address


def began(nodes: list[Node]) -> Node:
    """The node at which a request has arrived."""
    arrived: list[Node] = []

    def one() -> bool:
        arrived.extend(node for node in nodes if node.began.acquire(blocking=False))
        return bool(arrived)

    wait_for(one)
    return arrived[0]


def test_round_robin_is_exact(lane: Lane, nodes: list[Node]) -> None:
    site = lane(*map(port_of, nodes), weights=(3, 0, 1))
    counts = Counter(map(who, site.ask_often(12)))
    assert counts == {nodes[0].address: 9, nodes[2].address: 3}


def test_least_conn_avoids_a_node_while_it_is_busy(lane: Lane, nodes: list[Node]) -> None:
    site = lane(*map(port_of, nodes[:2]), type="least_conn")
    busy = Busy(site, 4.0, nodes)
    others = Counter(map(who, site.ask_often(6)))
    busy.end()
    assert len(others) == 1 and busy.node.address not in others
    # What was given back counts no more: equals take turns.
    wait_for(lambda: len(set(map(who, site.ask_often(4)))) == 2)


def test_least_conn_fills_by_weight_while_all_are_busy(lane: Lane, nodes: list[Node]) -> None:
    site = lane(*map(port_of, nodes[:2]), weights=(2, 1), type="least_conn")
    busy = [Busy(site, 1.5, nodes) for _ in range(6)]
    counts = Counter(one.node.address for one in busy)
    for one in busy:
        one.end()
    assert counts == {nodes[0].address: 4, nodes[1].address: 2}


def test_least_conn_gets_a_node_back_from_a_client_that_left(gateway: Proxied, nodes: list[Node]) -> None:
    host = gateway.lead(*map(port_of, nodes[:2]), upstream={"type": "least_conn"})
    site = Site(gateway.port, host, "")
    with RawClient(site.port) as client:
        client.send(site.request("/slow/30/x"))
        hung = began(nodes)
    wait_for(lambda: hung.address in {who(site.ask()) for _ in range(2)})


def test_least_conn_counts_until_the_body_has_ended(lane: Lane, nodes: list[Node]) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        assert finish.wait(10)
        peer.send(b"cd")

    finish = threading.Event()
    with Upstream(script, answer(OK)) as streaming:
        site = lane(streaming.port, port_of(nodes[0]), type="least_conn")
        with contextlib.ExitStack() as stack:
            for _ in range(2):  # equals take turns
                client = stack.enter_context(RawClient(site.port))
                client.send(site.request("/x"))
                found = client.head()
                if found.get("content-length") == "4":
                    break
                client.body_of(found)
            assert set(map(who, site.ask_often(5))) == {nodes[0].address}
            finish.set()
            client.body_of(found)
            assert found.body == b"abcd"
        wait_for(lambda: site.ask().body == b"ok")


def slowly(seconds: float, name: bytes) -> Script:
    def script(peer: Peer) -> None:
        while True:
            peer.read_head()
            time.sleep(seconds)
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(name), name))

    return script


def test_ewma_prefers_the_faster_node(lane: Lane) -> None:
    with Upstream(slowly(0.25, b"slow")) as slow, Upstream(slowly(0.0, b"fast")) as fast:
        site = lane(slow.port, fast.port, type="ewma")
        found = [site.ask().body for _ in range(12)]
    # Each had to be tried once.
    assert set(found[:2]) == {b"slow", b"fast"} and set(found[2:]) == {b"fast"}


def test_chash_keeps_sessions_where_they_are(lane: Lane, nodes: list[Node]) -> None:
    with Upstream(slowly(0.0, b"gone")) as gone:
        site = lane(*map(port_of, nodes), gone.port, type="chash", hash_on="header", key="X-Session", retries=3)
        sessions = [("x-session", str(number)) for number in range(40)]
        before = [who(site.ask(headers=[session])) for session in sessions]
        assert before == [who(site.ask(headers=[session])) for session in sessions]
        assert len(set(before)) == 4
    after = [who(site.ask(headers=[session])) for session in sessions]
    assert all(new == old for old, new in zip(before, after, strict=True) if old != "gone")
    assert len({new for old, new in zip(before, after, strict=True) if old == "gone"}) > 1


def test_chash_over_consumers(gateway: Proxied, nodes: list[Node]) -> None:
    names = [f"hashed{number}" for number in range(12)]
    for name in names:
        gateway.put(f"/consumers/{name}", {"username": name, "plugins": {"key-auth": {"key": f"key-{name}"}}})
    upstream = {"type": "chash", "hash_on": "consumer"}
    host = gateway.lead(*map(port_of, nodes), upstream=upstream, route={"plugins": {"key-auth": {}}})
    site = Site(gateway.port, host, "")
    found = [{who(site.ask(headers=[("apikey", f"key-{name}")])) for _ in range(2)} for name in names]
    assert all(len(one) == 1 for one in found) and len(set.union(*found)) > 1


def test_edit_of_weights_keeps_what_is_under_way(gateway: Proxied, nodes: list[Node]) -> None:
    ports = [port_of(node) for node in nodes[:2]]
    host = gateway.lead(*ports, upstream={"type": "least_conn"})
    site, name = Site(gateway.port, host, ""), host.partition(".")[0]
    busy = [Busy(site, 3.0, nodes) for _ in range(2)]
    assert {one.node.address for one in busy} == {node.address for node in nodes[:2]}
    third = Busy(site, 3.0, nodes)
    other = next(node for node in nodes[:2] if node is not third.node)
    weights = {third.node.address: 3, other.address: 2}
    gateway.put(f"/upstreams/{name}", {"type": "least_conn", "nodes": weights})
    gateway.enforce()
    # 3 / 3 of the one, which has two already, against 2 / 2 of the other: now (2 + 1) / 3 and (1 + 1) / 2, alike; with
    # nothing kept it would be 1 / 3 against 1 / 2 for the heavier alone.
    assert set(map(who, site.ask_often(4))) == {third.node.address, other.address}
    for one in (*busy, third):
        one.end()


# --- what the answer says of the upstream ---


def test_upstream_status_tells_where_a_5xx_comes_from(lane: Lane) -> None:
    with Upstream(answer(b"HTTP/1.1 503 Busy\r\nX-APISIX-Upstream-Status: 999\r\ncontent-length: 0\r\n\r\n")) as broken:
        assert lane(broken.port).ask().get(TELLS) == "503"
        site = lane(free_port(), broken.port, type="chash", key="uri", retries=1)
        seen = {site.ask(f"/{number}").get(TELLS) for number in range(20)}
        assert seen == {"503", "502, 503"}
    with Upstream(answer(OK)) as fine:
        site = lane(free_port(), fine.port, retries=1)
        assert [(found.status, found.get(TELLS)) for found in (site.ask(), site.ask())] == [(200, None)] * 2


def test_upstream_status_of_nodes_that_nobody_reached(lane: Lane) -> None:
    found = lane(free_port(), free_port(), retries=1).ask()
    assert (found.status, found.get(TELLS)) == (502, "502, 502")
    found = lane(free_port(), free_port(), retries=0).ask()
    assert (found.status, found.get(TELLS)) == (502, "502")


def test_answers_of_the_gateway_itself_have_no_upstream_status(lane: Lane) -> None:
    found = lane().ask()
    assert (found.status, found.get(TELLS)) == (503, None)


def test_answer_that_does_not_come_is_504_upstream(gateway: Proxied) -> None:
    with Upstream(lambda peer: peer.wait_closed()) as silent:
        found = gateway.ask("GET", "/", gateway.lead(silent.port, upstream={"timeout": QUICK}))
    assert (found.status, found.get(TELLS)) == (504, "504")


def test_retry_timeout_ends_with_502(lane: Lane) -> None:
    """It is counted from the first attempt, and connecting to the first node takes longer."""
    with contextlib.ExitStack() as stack:
        deaf = []
        for _ in range(2):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(listener.getsockname())
            deaf.append(listener.getsockname()[1])
        site = lane(*deaf, retries=1, retry_timeout=0.1, seconds=0.3)
        assert [(found.status, found.get(TELLS)) for found in [site.ask()]] == [(502, "502")]
        site = lane(*deaf, retries=1, retry_timeout=5.0, seconds=0.3)
        assert [(found.status, found.get(TELLS)) for found in [site.ask()]] == [(504, "504, 504")]


# --- TLS ---


def test_upstream_that_asks_for_a_certificate_gets_it(gateway: Proxied, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server("upstream.test")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    certificate, key = authority.issue("client")
    base = {"scheme": "https", "pass_host": "rewrite", "upstream_host": "upstream.test:8443"}
    files = {"ca_file": authority.ca_file, "client_cert_file": certificate, "client_key_file": key}
    with Upstream(answer(OK), tls=context) as upstream:
        for tls, status in (
            (files, 200),
            ({**files, "ca_file": certificate}, 502),
            ({"ca_file": authority.ca_file}, 502),
            ({**files, "client_key_file": str(tmp_path / "none")}, 502),
        ):
            host = gateway.lead(upstream.port, upstream={**base, "tls": tls, "timeout": {**QUICK, "read": 5}})
            assert gateway.ask("GET", "/", host).status == status, tls
