"""What operators see: killed processes, restarts, a database that is away, wrong options, TLS, data-plane nodes."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hmac_gateway.logs import FLUSH_SECONDS
from tests.support.certificates import Authority
from tests.support.load import Load, Outcome, raw
from tests.support.nodes import Node
from tests.support.served import Answer, Served, free_port, request, signed

PROMISE = 1.0
#: Seconds that the database is away. For the full minute:
#: HMAC_GATEWAY_TEST_AWAY=60 python -m pytest tests/e2e/test_operations.py -k away
AWAY = float(os.environ.get("HMAC_GATEWAY_TEST_AWAY", "5"))
HMAC = {"plugins": {"hmac-auth": {"key_id": "client-1", "secret_key": "my-hmac-secret"}}}


def wait_until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as upstream:
        yield upstream


class Mixed:
    """Alternates right and wrong requests, each with a path of its own; knows what each must be answered with."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> bytes:
        self._count += 1
        target = f"/load/{'wrong' if self._count % 2 else 'right'}/{self._count}"
        headers = signed("GET", target)
        if self._count % 2:
            headers["date"] = "Sun, 06 Nov 1994 08:49:37 GMT"
        return raw("GET", target, headers)

    @staticmethod
    def check(outcomes: list[Outcome], dead: Collection[str] = ()) -> None:
        """Every answer that came is the right one; only workers that were killed broke one off."""
        for outcome in outcomes:
            path = outcome.request.split()[1]
            assert not outcome.partial or outcome.worker in dead, outcome
            if outcome.status:
                assert outcome.status == (401 if b"wrong" in path else 200), outcome
                assert outcome.status != 200 or outcome.body.endswith(path + b" hmac-auth-consumer"), outcome


# --- processes that die, on two workers ---


@pytest.fixture(scope="module")
def two_workers(node: Node) -> Iterator[Served]:
    with Served(workers=2) as served:
        served.setup(node.address, plugin={})
        wait_until(lambda: len(served.worker_pids()) == 2)
        yield served


def test_a_killed_worker_takes_nobody_along_and_comes_back(two_workers: Served) -> None:
    before = set(two_workers.worker_pids())
    mixed = Mixed()
    load = Load(two_workers.port, mixed)
    load.start()
    wait_until(lambda: len({outcome.worker for outcome in load.outcomes if outcome.status}) == 2)
    at_kill = {outcome.worker for outcome in load.outcomes if outcome.status}
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not alive(victim))
    later = len(load.outcomes) + 8
    # Its successor takes its place in the list: the dead one is not waited for.
    wait_until(lambda: victim not in two_workers.worker_pids() and len(two_workers.worker_pids()) == 2, 20)
    [new] = set(two_workers.worker_pids()) - before
    # The one that came back gets requests as well.
    wait_until(lambda: len({outcome.worker for outcome in load.outcomes if outcome.status} - at_kill) == 1)
    outcomes = load.stop()
    living = {outcome.worker for outcome in outcomes[later:] if outcome.status}
    assert len(living) == 2 and len(living & at_kill) == 1
    mixed.check(outcomes, at_kill - living)
    # Lost are only requests that the dead worker held, or that waited at its door: no living one had read them.
    lost = {outcome.request.split()[1].decode() for outcome in outcomes if not outcome.status}
    assert len(lost) <= 16
    time.sleep(2 * FLUSH_SECONDS)
    lines = (
        json.loads(line) for line in two_workers.log.read_text().rpartition("\n")[0].splitlines() if line[:1] == "{"
    )
    read = {line["path"] for line in lines if line["request_id"][:20] in living}
    assert lost.isdisjoint(read)
    assert len(read) > 20
    assert alive(new)
    assert two_workers.readyz().status == 200
    assert f"gateway on {two_workers.base} ended (exit code -9)" in two_workers.log.read_text()


def test_a_worker_that_is_killed_over_and_over_does_not_end_the_others(two_workers: Served) -> None:
    mixed = Mixed()
    load = Load(two_workers.port, mixed, clients=2)
    load.start()
    stable = max(two_workers.worker_pids())
    for _ in range(3):
        [victim] = set(two_workers.worker_pids()) - {stable}
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: victim not in two_workers.worker_pids())  # type: ignore[misc]
        wait_until(lambda: len(two_workers.worker_pids()) == 2)
    outcomes = load.stop()
    seen = {outcome.worker for outcome in outcomes if outcome.worker}
    mixed.check(outcomes, seen)
    assert stable in two_workers.worker_pids()
    assert two_workers.process is not None and two_workers.process.poll() is None


def test_sigterm_lets_requests_finish_and_ends_with_0(two_workers: Served, node: Node) -> None:
    while node.began.acquire(blocking=False):
        pass
    target = "/slow/1.5/end"
    outcomes: list[Answer] = []

    def ask() -> None:
        outcomes.append(two_workers.get(target, signed("GET", target), timeout=30))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert node.began.acquire(timeout=10)
    assert two_workers.stop() == 0
    for thread in threads:
        thread.join(30)
    assert [answer.status for answer in outcomes] == [200] * 10
    assert all(answer.body.endswith(b"/slow/1.5/end hmac-auth-consumer") for answer in outcomes)
    with pytest.raises(OSError):
        two_workers.get("/x")
    two_workers.start()


def test_children_end_with_a_supervisor_that_was_killed(two_workers: Served) -> None:
    wait_until(lambda: len(two_workers.worker_pids()) == 2)
    process = two_workers.process
    assert process is not None
    children = [int(text) for text in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) == 3 and set(two_workers.worker_pids()) < set(children)
    process.kill()
    process.wait()
    wait_until(lambda: not any(alive(child) for child in children))
    two_workers.stop()
    # The addresses are free again.
    two_workers.start()
    wait_until(lambda: two_workers.get("/x", signed("GET", "/x")).status == 200)


def test_a_data_plane_node_with_tls_serves_and_says_how_it_is(two_workers: Served, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    two_workers.stop()
    status = ["--no-admin", "--status-bind", f"127.0.0.1:{two_workers.console_port}"]
    two_workers._arguments = ["--tls-cert", cert, "--tls-key", key, *status]
    two_workers.start()
    url = f"https://127.0.0.1:{two_workers.port}/tls"

    def ask(version: ssl.TLSVersion) -> int:
        context = ssl.create_default_context(cafile=authority.ca_file)
        context.minimum_version = context.maximum_version = version
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        with opener.open(urllib.request.Request(url, headers=signed("GET", "/tls")), timeout=10) as answer:
            return int(answer.status)

    assert ask(ssl.TLSVersion.TLSv1_2) == 200
    assert ask(ssl.TLSVersion.TLSv1_3) == 200
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(OSError):
        ask(ssl.TLSVersion.TLSv1_1)
    with pytest.raises((OSError, http.client.HTTPException)):
        request(f"http://127.0.0.1:{two_workers.port}/tls")

    wait_until(lambda: two_workers.readyz().status == 200)
    assert request(two_workers.console + "/healthz").status == 200
    assert b"hmac_gateway_config_version" in request(two_workers.console + "/metrics").body
    for path in ("/admin/", "/apisix/admin/routes", "/"):
        assert request(two_workers.console + path).status == 404


# --- the other databases ---


@contextmanager
def away(url: str) -> Iterator[None]:
    """A PostgreSQL database that ends all connections and takes no more."""
    import psycopg

    name = url.rpartition("/")[2]
    with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def configured_and_revoked(served: Served, node: Node) -> None:
    """Configured over REST, answered, revoked, refused within a second, and allowed again."""
    served.setup(node.address, plugin={})
    assert served.get("/x", signed("GET", "/x")).body.endswith(b"/x hmac-auth-consumer")
    path = "/consumers/hmac-auth-consumer/credentials/cred"
    assert served.admin("DELETE", path).status == 200
    time.sleep(PROMISE)
    assert [served.get("/x", signed("GET", "/x")).status for _ in range(20)] == [401] * 20
    served.put(path, HMAC)
    time.sleep(PROMISE)
    assert [served.get("/x", signed("GET", "/x")).status for _ in range(20)] == [200] * 20


def test_mariadb(mariadb_url: str, node: Node) -> None:
    with Served(database_url=mariadb_url) as served:
        configured_and_revoked(served, node)
        assert served.readyz().status == 200


def test_postgresql_and_a_database_that_is_away(postgres_url: str, node: Node) -> None:
    with Served(database_url=postgres_url) as served:
        configured_and_revoked(served, node)
        assert served.readyz().status == 200
        mixed = Mixed()
        load = Load(served.port, mixed, clients=2)
        load.start()
        with away(postgres_url):
            wait_until(lambda: served.readyz().status == 503)
            asked = len(load.outcomes)
            until = time.monotonic() + AWAY
            while time.monotonic() < until:
                assert served.readyz().json()["problems"] == ["the database cannot be read"]
                time.sleep(0.5)
            assert len(load.outcomes) > asked + 20
        wait_until(lambda: served.readyz().status == 200)
        outcomes = load.stop()
        assert all(outcome.status for outcome in outcomes)
        mixed.check(outcomes)
        assert served.admin("DELETE", "/consumers/hmac-auth-consumer/credentials/cred").status == 200
        time.sleep(PROMISE)
        assert served.get("/x", signed("GET", "/x")).status == 401
        # A start without its database: nothing is served, and it is taken in when it comes.
        served.put("/consumers/hmac-auth-consumer/credentials/cred", HMAC)
        assert served.stop() == 0
        with away(postgres_url):
            served.start()
            answer = served.get("/x", signed("GET", "/x"))
            assert (answer.status, answer.body) == (503, b'{"message":"configuration not loaded"}\n')
            assert served.readyz().status == 503
        wait_until(lambda: served.get("/x", signed("GET", "/x")).status == 200)
        wait_until(lambda: served.readyz().status == 200)
        assert "warning: the database cannot be read yet" in served.log.read_text()
        assert "Traceback" not in served.log.read_text()


# --- what is refused at the start ---


@pytest.fixture
def serve(db: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs hmac_serve up to the point where it would listen; the listeners it would start."""
    from django.core.management import call_command

    from hmac_gateway.supervisor import Supervisor

    def run(self: Supervisor) -> int:
        started[:] = [child.listener for child in self._children]
        return 0

    started: list[Any] = []
    monkeypatch.setattr(Supervisor, "run", run)

    def command(*arguments: str) -> list[Any]:
        given = dict(zip(arguments[::2], arguments[1::2], strict=False))
        free = [
            *(() if "--bind" in given else ("--bind", f"127.0.0.1:{free_port()}")),
            *(() if {"--admin-bind", "--no-admin"} & {*arguments} else ("--admin-bind", f"127.0.0.1:{free_port()}")),
        ]
        call_command("hmac_serve", *arguments, *free, stdout=io.StringIO())
        return started

    return command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bind", "127.0.0.1"], "allowed: a port from 1 to 65535 behind the colon"),
        (["--bind", "127.0.0.1:0"], "--bind: '127.0.0.1:0' was given; allowed: a port from 1 to 65535"),
        (["--bind", "127.0.0.1:70000"], "allowed: a port from 1 to 65535"),
        (["--bind", "gateway.test:80"], "--bind: 'gateway.test:80' was given; allowed: an IP address and a port"),
        (["--admin-bind", "127.0.0.1:http"], "--admin-bind: '127.0.0.1:http' was given; allowed: a port"),
        (["--workers", "0"], "--workers: 0 was given; allowed: 1 or more"),
        (["--workers", "two"], "argument --workers: invalid int value: 'two'"),
        (["--status-bind", "127.0.0.1:9182"], "--status-bind goes with --no-admin"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key must both be given, or neither"),
        (["--tls-cert", "no.pem", "--tls-key", "no.key"], "--tls-cert, --tls-key: no.pem: No such file or directory"),
        (["--admin-tls-key", "key.pem"], "--admin-tls-cert and --admin-tls-key must both be given"),
        (["--kong-admin-open"], "--kong-admin-open goes with --kong-admin-bind"),
        (["--kong-admin-tls-key", "key.pem"], "--kong-admin-tls-key goes with --kong-admin-bind"),
        (["--no-admin", "--kong-admin-bind", "127.0.0.1:9"], "--kong-admin-bind and --no-admin exclude each other"),
        (["--kong-admin-bind", "kong:8001"], "--kong-admin-bind: 'kong:8001' was given; allowed: an IP address"),
        (
            ["--kong-admin-bind", "0.0.0.0:9", "--kong-admin-open"],
            "--kong-admin-open: 0.0.0.0 was given; allowed: a loopback address such as 127.0.0.1",
        ),
        (["--bind", "127.0.0.1:9", "--admin-bind", "127.0.0.1:9"], "gateway and console cannot both listen on port 9"),
        (["--bind", "0.0.0.0:9", "--admin-bind", "127.0.0.1:9"], "gateway and console cannot both listen on port 9"),
    ],
)
def test_wrong_options_are_refused_in_words(serve: Callable[..., list[Any]], arguments: list[str], words: str) -> None:
    from django.core.management.base import CommandError

    with pytest.raises(CommandError) as error:
        serve(*arguments)
    assert words in str(error.value)


def test_kong_s_admin_api_has_a_certificate_of_its_own(serve: Callable[..., list[Any]], tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("127.0.0.1")
    port = free_port()
    where = ["--kong-admin-bind", f"127.0.0.1:{port}"]
    listeners = serve(*where, "--kong-admin-tls-cert", cert, "--kong-admin-tls-key", key)
    [listener] = [listener for listener in listeners if listener.app == "kong-admin"]
    assert (listener.url, listener.cert, listener.key) == (f"https://127.0.0.1:{port}", cert, key)


def test_a_certificate_with_another_key_is_refused(serve: Callable[..., list[Any]], tmp_path: Path) -> None:
    from django.core.management.base import CommandError

    authority = Authority(tmp_path)
    cert, _ = authority.issue("127.0.0.1")
    _, other = authority.issue("127.0.0.2")
    with pytest.raises(CommandError, match="--tls-cert, --tls-key: .*: not the key of the first certificate in "):
        serve("--tls-cert", cert, "--tls-key", other)


def test_a_port_that_is_taken_is_refused(serve: Callable[..., list[Any]]) -> None:
    import socket

    from django.core.management.base import CommandError

    # As granian listens: others could bind beside it.
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CommandError, match=f"gateway: 127.0.0.1:{port} cannot be bound: Address already in use"):
            serve("--bind", f"127.0.0.1:{port}")
        with pytest.raises(CommandError, match=f"console: 127.0.0.1:{port} cannot be bound"):
            serve("--admin-bind", f"127.0.0.1:{port}")


def test_what_would_be_started(serve: Callable[..., list[Any]]) -> None:
    assert [one.app for one in serve()] == ["gateway", "console"]
    assert [one.app for one in serve("--workers", "3")] == ["gateway", "console", "gateway", "gateway"]
    assert [one.app for one in serve("--no-admin")] == ["gateway"]
    [gateway, console] = serve("--admin-tls-self-signed")
    assert (gateway.url[:5], console.url[:6]) == ("http:", "https:")
    assert serve("--bind", f"localhost:{gateway.port}")[0].host == "127.0.0.1"
    assert serve("--bind", f"[::1]:{gateway.port}")[0].url == f"http://[::1]:{gateway.port}"


def test_unapplied_migrations_are_refused(tmp_path: Path) -> None:
    served = Served(database_url=f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    output = served.manage("hmac_serve", "--bind", f"127.0.0.1:{served.port}", check=False)
    served.__exit__(None, None, None)
    last = output.strip().splitlines()[-1]
    assert "migrations are not applied; run: python manage.py migrate" in last
    assert "Traceback" not in output
