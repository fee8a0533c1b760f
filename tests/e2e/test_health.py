"""Health checks through a served gateway: nodes are probed as by APISIX, and get requests while they are well."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.proxied import Proxied, Upstream, wait_for
from tests.support.raw_upstream import Peer
from tests.support.served import free_port


class Patient:
    """A node that says who it is, and to probes how it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.probes: list[bytes] = []
        self.says = 200
        self.upstream = Upstream(self._script)

    def _script(self, peer: Peer) -> None:
        while True:
            head = peer.read_head()
            probe = b" /status " in head
            if probe:
                self.probes.append(head)
            status = self.says if probe or b" /ill " in head else 200
            body = self.name.encode()
            peer.send(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


@pytest.fixture
def two() -> Any:
    one, other = Patient("one"), Patient("other")
    with one.upstream, other.upstream:
        yield one, other


QUICK: dict[str, Any] = {
    "http_path": "/status",
    "healthy": {"interval": 1, "successes": 1},
    "unhealthy": {"interval": 1, "http_failures": 1, "tcp_failures": 1, "timeouts": 1},
}


def asked(gateway: Proxied, host: str) -> set[str]:
    with gateway.client() as client:
        found = [client.ask("GET", "/", host) for _ in range(4)]
    assert {answer.status for answer in found} == {200}
    return {answer.body.decode() for answer in found}


def test_nodes_are_probed_and_left_out_while_they_are_ill(gateway: Proxied, two: tuple[Patient, Patient]) -> None:
    one, other = two
    one.says = 500
    active = {**QUICK, "host": "probe.test", "req_headers": ["User-Agent: probe/1"], "http_method": "POST"}
    ports = (one.upstream.port, other.upstream.port)
    host = gateway.lead(*ports, upstream={"checks": {"active": {**active, "http_req_body": "ok?"}}})
    wait_for(lambda: asked(gateway, host) == {"other"})
    assert one.probes[0].splitlines() == [
        b"POST /status HTTP/1.1",
        b"Host: probe.test",
        b"Connection: close",
        b"User-Agent: probe/1",
        b"Content-Length: 3",
        b"",
    ]
    other.says = 500
    wait_for(lambda: asked(gateway, host) == {"one", "other"})  # all are ill: all are used
    one.says = 200
    wait_for(lambda: asked(gateway, host) == {"one"})
    other.says = 302
    wait_for(lambda: asked(gateway, host) == {"one", "other"})
    # Checks that are taken away: nobody asks any more, and nobody is left out.
    one.says = 500
    wait_for(lambda: asked(gateway, host) == {"other"})
    name = host.partition(".")[0]
    nodes = [{"host": "127.0.0.1", "port": port, "weight": 1} for port in ports]
    gateway.put(f"/upstreams/{name}", {"type": "roundrobin", "nodes": nodes})
    gateway.enforce()
    assert asked(gateway, host) == {"one", "other"}


@pytest.mark.parametrize("kind", ["tcp", "http", "https"])
def test_a_node_that_cannot_be_reached(gateway: Proxied, two: tuple[Patient, Patient], kind: str) -> None:
    one, other = two
    dead = free_port()
    # Probes go to a port of their own: requests would have been refused a connection in any case.
    active = {**QUICK, "type": kind, "port": dead}
    host = gateway.lead(one.upstream.port, other.upstream.port, upstream={"checks": {"active": active}})
    assert asked(gateway, host) == {"one", "other"}
    log = gateway.log.read_text
    wait_for(lambda: f"127.0.0.1:{one.upstream.port} is unhealthy" in log())
    wait_for(lambda: f"127.0.0.1:{other.upstream.port} is unhealthy" in log())
    assert asked(gateway, host) == {"one", "other"}


def test_what_requests_show_counts_too(gateway: Proxied, two: tuple[Patient, Patient]) -> None:
    one, other = two
    far = {"http_path": "/status", "healthy": {"interval": 600}, "unhealthy": {"interval": 600}}
    checks = {"active": far, "passive": {"unhealthy": {"http_failures": 2, "http_statuses": [500]}}}
    host = gateway.lead(one.upstream.port, other.upstream.port, upstream={"checks": checks})
    one.says = 500
    with gateway.client() as client:
        statuses = [client.ask("GET", "/ill", host).status for _ in range(12)]
    assert sorted(statuses) == [200] * 10 + [500] * 2
    assert asked(gateway, host) == {"other"}
