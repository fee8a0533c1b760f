"""Kong's admin API as `hmac_serve --kong-admin-bind` serves it, spoken to by curl."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.nodes import Node
from tests.support.raw_client import RawClient, request_bytes
from tests.support.served import ADMIN_KEY, Served, free_port


class Curl:
    """curl as a user of Kong types it: `kong` is the name of the listener's address."""

    def __init__(self, port: int, served: Served) -> None:
        self.port, self.served = port, served

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Status and body. `kong:8001` in addresses is where the listener is."""
        resolved = [argument.replace("kong:8001", f"kong:{self.port}") for argument in arguments]
        command = ["curl", "-sS", "--max-time", "20", "--noproxy", "*", "--resolve", f"kong:{self.port}:127.0.0.1"]
        result = subprocess.run(
            [*command, "-w", "\n%{http_code}", *resolved], capture_output=True, text=True, check=True, timeout=30
        )
        body, _, status = result.stdout.rpartition("\n")
        return int(status), body


@pytest.fixture(scope="module")
def curl() -> Iterator[Curl]:
    port = free_port()
    arguments = ["--kong-admin-bind", f"127.0.0.1:{port}"]
    environment = {"ALLOWED_HOSTS": "kong,127.0.0.1"}
    with Served(arguments=arguments, environment=environment, ports=[port]) as served:
        yield Curl(port, served)


def test_the_key_is_demanded_and_taken_from_the_usual_places(curl: Curl) -> None:
    status, body = curl("http://kong:8001/services")
    assert (status, json.loads(body)) == (401, {"message": "Invalid RBAC credentials"})
    assert curl("http://kong:wrong@kong:8001/services")[0] == 401
    for arguments in (
        [f"http://kong_admin:{ADMIN_KEY}@kong:8001/services"],
        ["http://kong:8001/services", "-H", f"X-API-KEY: {ADMIN_KEY}"],
        ["http://kong:8001/services/", "-H", f"Kong-Admin-Token: {ADMIN_KEY}"],
        [f"http://kong:8001/services?api_key={ADMIN_KEY}"],
    ):
        status, body = curl(*arguments)
        assert (status, json.loads(body)) == (200, {"data": [], "next": None})


def test_a_script_for_kong_works(curl: Curl) -> None:
    key = ["-H", f"Kong-Admin-Token: {ADMIN_KEY}"]
    made = [
        curl(*key, "http://kong:8001/services", "-d", "name=example", "-d", "url=http://127.0.0.1:1/x"),
        curl(*key, "http://kong:8001/services/example/routes", "-d", "paths[]=/a", "-d", "paths[]=/b"),
        curl(*key, "http://kong:8001/services/example/routes", "-F", "hosts[1]=a.example", "-F", "tags=t"),
        curl(*key, "http://kong:8001/consumers/", "--data", "username=a b/c", "--data", "tags=x", "--data", "tags=y"),
    ]
    assert [status for status, _ in made] == [201] * 4, made
    assert json.loads(made[1][1])["paths"] == ["/a", "/b"]
    assert (json.loads(made[2][1])["hosts"], json.loads(made[2][1])["tags"]) == (["a.example"], ["t"])
    # A name with a slash is one part of the address.
    status, body = curl(*key, "http://kong:8001/consumers/a%20b%2Fc")
    assert (status, json.loads(body)["tags"]) == (200, ["x", "y"])
    status, body = curl(*key, "-X", "PATCH", "http://kong:8001/services/example", "--json", '{"retries": 3}')
    assert (status, json.loads(body)["retries"]) == (200, 3)
    assert curl(*key, "-X", "DELETE", "http://kong:8001/services/example")[0] == 400
    status, body = curl(*key, "http://kong:8001/status")
    assert json.loads(body)["database"] == {"reachable": True}
    status, body = curl(*key, "http://kong:8001/")
    assert json.loads(body)["tagline"] == "Welcome to kong"


def test_a_target_that_is_marked_unhealthy_gets_nothing(curl: Curl) -> None:
    key = ["-H", f"Kong-Admin-Token: {ADMIN_KEY}"]
    with Node() as one, Node() as two:
        curl(*key, "http://kong:8001/upstreams", "-d", "name=pair.internal")
        for node in (one, two):
            curl(*key, "http://kong:8001/upstreams/pair.internal/targets", "-d", f"target={node.address}")
        curl(*key, "http://kong:8001/services", "-d", "name=pair", "-d", "url=http://pair.internal")
        curl(*key, "http://kong:8001/services/pair/routes", "-d", "paths[]=/pair")

        def answering(expected: set[str]) -> None:
            deadline = time.monotonic() + 20
            while True:
                bodies = [curl.served.get("/pair/x").body.decode() for _ in range(8)]
                if {body.split(" ")[0] for body in bodies} == expected:
                    return
                assert time.monotonic() < deadline, bodies

        answering({one.address, two.address})
        mark = f"http://kong:8001/upstreams/pair.internal/targets/{one.address}"
        assert curl(*key, "-X", "PUT", f"{mark}/unhealthy") == (204, "")
        answering({two.address})
        health = json.loads(curl(*key, "http://kong:8001/upstreams/pair.internal/health")[1])["data"]
        states = {target["target"]: target["health"] for target in health}
        assert states == {one.address: "UNHEALTHY", two.address: "HEALTHCHECKS_OFF"}
        assert curl(*key, "-X", "PUT", f"{mark}/healthy") == (204, "")
        answering({one.address, two.address})


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nabcde\r\nzz\r\n", b"5\nabcde\n0\n\n"])
def test_a_body_whose_framing_is_broken_is_a_fault_of_the_client(curl: Curl, rest: bytes) -> None:
    served = curl.served
    key = [("Transfer-Encoding", "chunked"), ("Kong-Admin-Token", ADMIN_KEY)]
    for port, path in (
        (curl.port, "/services"),
        (served.console_port, "/kong/services"),
        (served.console_port, "/apisix/admin/routes/x"),
    ):
        with RawClient(port) as client:
            client.send(request_bytes("PUT", path, "127.0.0.1", key) + rest)
            found = client.answer()
        assert (found.status, list(found.json())) == (400, ["message"]), (path, found)


def test_writers_at_the_same_time_make_one_entity(curl: Curl) -> None:
    key = ["-H", f"Kong-Admin-Token: {ADMIN_KEY}"]

    def write(number: int) -> tuple[int, int]:
        put = [*key, "-X", "PUT", "-d", f"custom_id=c{number}", "http://kong:8001/consumers/same"]
        post = [*key, "-d", "username=twice", "http://kong:8001/consumers"]
        return curl(*put)[0], curl(*post)[0]

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(write, range(8)))
    assert [put for put, _ in statuses] == [200] * 8
    assert sorted(post for _, post in statuses) == [201, *[409] * 7]


def test_other_names_and_other_sites_are_refused(curl: Curl) -> None:
    port = curl.port
    status, body = curl(f"http://127.0.0.1:{port}/", "-H", "Host: rebound.example", "-H", f"X-API-KEY: {ADMIN_KEY}")
    assert (status, "ALLOWED_HOSTS" in body) == (400, True)
    remembered = ["-u", f"kong:{ADMIN_KEY}", "-d", "username=x", "http://kong:8001/consumers"]
    assert curl(*remembered, "-H", "Origin: http://evil.example")[0] == 403
    assert curl(*remembered, "-H", "Sec-Fetch-Site: cross-site")[0] == 403
    assert curl(*remembered, "-H", f"Origin: http://kong:{port}")[0] == 201
