"""A change is enforced by every worker within one second, and what cannot be taken in leaves the last good rules.

Changes are made in Django admin, over HTTP, in a session. The one second is the product's promise; nothing else here
is timed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.apps import apps

from tests.support.console import Console
from tests.support.nodes import Node
from tests.support.served import ENCRYPTION_KEY, Answer, Served, digest_of, signed

PROMISE = 1.0
CREDENTIAL = "/consumers/hmac-auth-consumer/credentials/cred"
HMAC = {"plugins": {"hmac-auth": {"key_id": "client-1", "secret_key": "my-hmac-secret"}}}


def wait_until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- the balance of an upstream, one worker ---


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Node()) for _ in range(3)]


@pytest.fixture(scope="module")
def one_worker(nodes: list[Node]) -> Iterator[Served]:
    with Served() as served:
        weights = dict(zip((node.address for node in nodes), (3, 0, 1), strict=True))
        served.setup("unused:1", upstream={"nodes": weights})
        yield served


def test_weights_are_exact_over_a_cycle_and_new_ones_hold_within_a_second(
    one_worker: Served, nodes: list[Node]
) -> None:
    def cycle() -> tuple[int, ...]:
        answered = Counter(one_worker.get("/x").body.split()[0].decode() for _ in range(4))
        assert answered.keys() <= {node.address for node in nodes}
        return tuple(answered[node.address] for node in nodes)

    assert [cycle() for _ in range(5)] == [(3, 0, 1)] * 5
    printed = one_worker.python(
        "from django.apps import apps\n"
        "for node in apps.get_model('hmac_proxy.Node').objects.all(): print(node, node.pk)"
    )
    keys = dict(line.split() for line in printed.splitlines())
    with Console(one_worker) as console:
        for node, weight in zip(nodes, ("1", "2", "1"), strict=True):
            page = f"/admin/hmac_proxy/node/{keys[node.address]}/change/"
            console.submit(page, {"weight": weight})
    deadline = time.monotonic() + PROMISE
    while cycle() != (1, 2, 1):
        assert time.monotonic() < deadline
    # Any four in a row, wherever the cycle began.
    assert [cycle() for _ in range(5)] == [(1, 2, 1)] * 5


# --- revocation, two workers ---


@pytest.fixture(scope="module")
def two_workers(nodes: list[Node]) -> Iterator[Served]:
    with Served(workers=2) as served:
        served.setup(nodes[0].address, plugin={})
        yield served


@pytest.fixture(scope="module")
def console(two_workers: Served) -> Iterator[Console]:
    with Console(two_workers) as operator:
        yield operator


def worker_of(answer: Answer) -> str:
    """Every worker begins its request ids with some random digits of its own."""
    return answer.headers["x-request-id"][:20]


def call(served: Served, target: str = "/x") -> Answer:
    """A signed request on a connection of its own, which the kernel gives to one of the workers."""
    return served.get(target, signed("GET", target))


def statuses_by_worker(served: Served, workers: int = 2, each: int = 5) -> dict[str, set[int]]:
    """What each worker answers to signed requests, once every one of them was reached some times."""
    seen: dict[str, list[int]] = {}
    for _ in range(500):
        answer = call(served)
        seen.setdefault(worker_of(answer), []).append(answer.status)
        if len(seen) == workers and min(len(statuses) for statuses in seen.values()) >= each:
            return {worker: set(statuses) for worker, statuses in seen.items()}
    raise AssertionError(f"not every worker was reached: { {k: len(v) for k, v in seen.items()} }")


def credential_page(console: Console, served: Served, action: str) -> str:
    key = served.python(
        "from django.apps import apps\n"
        "print(apps.get_model('hmac_consumers.Credential').objects.get(public_id='cred').pk)"
    )
    return f"/admin/hmac_consumers/credential/{key.strip()}/{action}/"


@pytest.mark.parametrize("way", ["disabled", "deleted"])
def test_a_credential_revoked_in_the_console_is_refused_by_every_worker_within_a_second(
    two_workers: Served, console: Console, way: str
) -> None:
    assert set().union(*statuses_by_worker(two_workers).values()) == {200}
    if way == "disabled":
        page = credential_page(console, two_workers, "change")
        assert console.form(page)["enabled"] == "on"
        console.submit(page, {"enabled": None})
    else:
        console.submit(credential_page(console, two_workers, "delete"), {"post": "yes"})
    time.sleep(PROMISE)
    assert list(statuses_by_worker(two_workers, each=10).values()) == [{401}, {401}]
    if way == "disabled":
        console.submit(page, {"enabled": "on"})
    else:
        two_workers.put(CREDENTIAL, HMAC)
    time.sleep(PROMISE)
    assert list(statuses_by_worker(two_workers).values()) == [{200}, {200}]


def test_objects_with_an_end_stop_working_when_they_are_due_without_any_write(two_workers: Served) -> None:
    two_workers.put("/routes/ends", {"uri": "/ends", "upstream_id": "u"})
    two_workers.put(
        "/consumers/hmac-auth-consumer/credentials/ends",
        {"plugins": {"hmac-auth": {"key_id": "client-ends", "secret_key": "s"}}},
    )
    printed = two_workers.python(
        "from datetime import timedelta\n"
        "from django.apps import apps\n"
        "from django.utils import timezone\n"
        "due = timezone.now() + timedelta(seconds=2)\n"
        "ends = (('hmac_proxy.Route', 'id'), ('hmac_consumers.Credential', 'public_id'))\n"
        "for label, field in ends:\n"
        "    row = apps.get_model(label).objects.get(**{field: 'ends'})\n"
        "    row.expires_at = due\n"
        "    row.save()\n"
        "print(due.timestamp())"
    )
    due = float(printed)

    def both() -> tuple[int, int]:
        return two_workers.get("/ends").status, two_workers.get(
            "/x", signed("GET", "/x", key_id="client-ends", secret="s")
        ).status

    version = two_workers.readyz().json()["version"]
    before = both()
    assert time.time() > due or before == (200, 200)
    time.sleep(max(0.0, due + PROMISE - time.time()))
    assert [both() for _ in range(20)] == [(401, 401)] * 20, "the route r, which demands a signature"
    assert two_workers.readyz().json()["version"] == version, "nothing was written"


# --- what cannot be taken in ---


SPOIL = (
    "from django.apps import apps\n"
    "from hmac_gateway.entities import bump\n"
    "rows = apps.get_model('hmac_proxy.Plugin').objects.filter(route_id='r')\n"
    "rows.quiet_update(config={'clock_skew': 'soon'}, changed_at_version=bump())"
)


def test_a_bad_row_leaves_the_last_good_rules_and_shows(two_workers: Served) -> None:
    two_workers.settle()
    assert two_workers.readyz().status == 200
    two_workers.python(SPOIL)
    wait_until(lambda: two_workers.readyz().status == 503)
    [problem] = two_workers.readyz().json()["problems"]
    assert problem.startswith("the configuration cannot be compiled: plugin hmac-auth at route:r: clock_skew")
    assert list(statuses_by_worker(two_workers).values()) == [{200}, {200}]
    assert two_workers.get("/x").status == 401
    # Written meanwhile: taken in together with what mends the row.
    two_workers.put("/routes/more", {"uri": "/more", "upstream_id": "u"})
    assert two_workers.get("/more").status == 401, "still the route r"
    two_workers.put("/routes/r", {"uri": "/*", "upstream_id": "u", "plugins": {"hmac-auth": {}}})
    wait_until(lambda: two_workers.readyz().status == 200)
    assert [two_workers.get("/more").status for _ in range(10)] == [200] * 10


def test_secrets_sealed_with_a_foreign_key_leave_the_last_good_rules_and_show(two_workers: Served) -> None:
    foreign = "Zm9yZWlnbi1mb3JlaWduLWZvcmVpZ24tZm9yZWlnbi0="
    program = (
        "from cryptography.fernet import Fernet\n"
        "from hmac_gateway.models import ConfigVersion\n"
        "ConfigVersion.objects.update(canary=Fernet({key!r}).encrypt(b'hmac_gateway canary').decode())"
    )
    two_workers.python(program.format(key=foreign))
    try:
        wait_until(lambda: len(two_workers.readyz().json()["problems"]) == 2)
        answer = two_workers.readyz()
        assert answer.status == 503
        assert "encryption keys" in answer.body.decode() and "HMAC_GATEWAY_ENCRYPTION_KEYS" in answer.body.decode()
        assert foreign not in answer.body.decode() and ENCRYPTION_KEY not in answer.body.decode()
        assert list(statuses_by_worker(two_workers).values()) == [{200}, {200}]
    finally:
        two_workers.python(program.format(key=ENCRYPTION_KEY))
    wait_until(lambda: two_workers.readyz().status == 200)


def test_a_start_with_a_wrong_key_serves_nothing_until_the_right_one_is_back(two_workers: Served) -> None:
    wrong = "d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3I="
    assert two_workers.stop() == 0
    two_workers.environment["HMAC_GATEWAY_ENCRYPTION_KEYS"] = wrong
    two_workers.start()
    try:
        for _ in range(10):
            answer = call(two_workers)
            assert (answer.status, answer.body) == (503, b'{"message":"configuration not loaded"}\n')
        report = two_workers.readyz()
        assert report.status == 503
        assert "the encryption keys are not those that sealed the stored secrets" in report.json()["problems"]
        assert wrong not in report.body.decode()
    finally:
        two_workers.stop()
        two_workers.environment["HMAC_GATEWAY_ENCRYPTION_KEYS"] = ENCRYPTION_KEY
        two_workers.start()
    assert list(statuses_by_worker(two_workers).values()) == [{200}, {200}]


# --- no query on any request's path ---


@pytest.mark.django_db
def test_requests_are_answered_without_a_query(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    from django.db.backends.utils import CursorWrapper

    from hmac_gateway.entities import one_version
    from hmac_gateway.runtime import Runtime
    from hmac_gateway.stores import MemoryStore
    from hmac_gateway.telemetry import Telemetry

    proxy = apps.get_app_config("hmac_proxy").name
    gateway_class = import_module(f"{proxy}.gateway").Gateway
    host, _, port = nodes[0].address.partition(":")

    def model(label: str) -> Any:
        return apps.get_model(label)._default_manager

    with one_version():
        upstream = model("hmac_proxy.Upstream").create(id="u")
        model("hmac_proxy.Node").create(upstream=upstream, host=host, port=int(port))
        route = model("hmac_proxy.Route").create(id="r", paths=["/*"], upstream=upstream)
        config = {"replay_protection": True, "validate_request_body": True, "replay_methods": ["POST"]}
        model("hmac_proxy.Plugin").create(name="hmac-auth", route=route, config=config)
        consumer = model("hmac_consumers.Consumer").create(username="someone")
        credential = model("hmac_consumers.Credential").model(
            consumer=consumer, plugin="hmac-auth", identifier="client-1"
        )
        credential.set_secret("my-hmac-secret")
        credential.save()
    runtime = Runtime()
    assert runtime.refresh(), runtime.problems
    telemetry = Telemetry(runtime)
    gateway = gateway_class(lambda: runtime.snapshot, MemoryStore(10_000), observer=telemetry)

    queries: list[str] = []
    for name in ("execute", "executemany", "callproc"):
        plain = getattr(CursorWrapper, name)

        def counted(self: Any, *args: Any, _plain: Any = plain, **kwargs: Any) -> Any:
            queries.append(str(args[0]))
            return _plain(self, *args, **kwargs)

        monkeypatch.setattr(CursorWrapper, name, counted)

    async def ask(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> int:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "scheme": "http",
            "http_version": "1.1",
            "client": ("192.0.2.1", 5),
            "server": ("127.0.0.1", 80),
        }
        events = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if events:
                return events.pop()
            await asyncio.Event().wait()

        async def send(event: Any) -> None:
            sent.append(event)

        await gateway(scope, receive, send)
        return int(sent[0]["status"])

    async def everything() -> Counter[int]:
        seen: Counter[int] = Counter()
        for number in range(50):
            target = f"/x?n={number}"
            empty = {"digest": digest_of(b"")}
            listed = ("@request-target", "date", "digest")
            right = signed("GET", target, listed=listed, headers=empty)
            seen[await ask("GET", target, {"host": "h", **right})] += 1
            body = b"%d" % number
            right = signed("POST", target, listed=listed, headers={"digest": digest_of(body)})
            right |= {"host": "h", "content-length": str(len(body))}
            seen[await ask("POST", target, right, body)] += 1
            seen[await ask("POST", target, right, body)] += 1  # a replay
            seen[await ask("GET", target, {"host": "h"})] += 1
            seen[await ask("GET", "/a/../b", {"host": "h"})] += 1
            unknown = signed("GET", target, key_id=f"nobody-{number}")
            seen[await ask("GET", target, {"host": "h", **unknown})] += 1
        await gateway._pool.close()
        return seen

    assert asyncio.run(everything()) == {200: 100, 401: 150, 400: 50}
    assert queries == []
    # The counter counts, and the refresh is where queries are.
    assert runtime.refresh()
    assert len(queries) == 1
