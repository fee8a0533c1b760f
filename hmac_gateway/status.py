"""Health and metrics: `/healthz`, `/readyz` (also `/status`, `/status/ready`) and `/metrics`.

An ASGI application in front of the console, or alone on a data-plane node. It answers before Django's middleware,
so that no ALLOWED_HOSTS, session or signature stands between a probe and its answer. Imports models and runtime.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections, models
from django.utils import timezone

from . import crypto
from .models import ConfigVersion, MinuteCounter, WorkerStatus
from .telemetry import HEARTBEAT_LATE, HEARTBEAT_LIFE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
#: Django's handler and ours; their argument types differ in names only.
App = Callable[[Any, Any, Any], Awaitable[None]]


def readiness() -> tuple[bool, dict[str, Any]]:
    """(ready, report): the database answers, the keys fit, and every live worker serves a current snapshot."""
    problems: list[str] = []
    workers: list[dict[str, Any]] = []
    version = None
    try:
        row = ConfigVersion._default_manager.filter(pk=1).first()
        version = row.version if row is not None else 0
        if row is not None and row.canary and not crypto.check_canary(row.canary):
            problems.append("the encryption keys are not those that sealed the stored secrets")
        now = timezone.now()
        for status in WorkerStatus._default_manager.filter(heartbeat_at__gte=now - HEARTBEAT_LIFE):
            workers.append(
                {"pid": status.pid, "host": status.host, "role": status.role, "version": status.snapshot_version}
            )
            problems += [problem for problem in status.problems if problem not in problems]
            if status.snapshot_version is None and not status.problems:
                problems.append(f"worker {status.pid} has not loaded the configuration yet")
            # Only our own: another machine that went down must not take this one along.
            if now - status.heartbeat_at > HEARTBEAT_LATE and status.host == socket.gethostname()[:255]:
                problems.append(f"worker {status.pid} has said nothing for {(now - status.heartbeat_at).seconds} s")
        if all(worker["role"] != "gateway" for worker in workers):
            problems.append("no gateway worker has reported yet")
    except Error:
        problems.append("the database cannot be read")
    except ImproperlyConfigured as error:
        problems.append(str(error))
    report = {"ready": not problems, "version": version, "workers": workers, "problems": problems}
    return not problems, report


def metrics() -> bytes:
    """The Prometheus text of what the workers flushed."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

    class Tables:
        def collect(self) -> list[Metric]:
            requests = CounterMetricFamily(
                "hmac_gateway_requests", "Requests by route and outcome.", labels=["route", "outcome"]
            )
            totals = MinuteCounter._default_manager.values_list("route_id", "outcome")
            for route, outcome, count in totals.annotate(total=models.Sum("count")).order_by("route_id", "outcome"):
                requests.add_metric([route, outcome], count)
            versions = GaugeMetricFamily(
                "hmac_gateway_snapshot_version", "Configuration version served by a worker.", labels=["worker"]
            )
            alive = WorkerStatus._default_manager.filter(heartbeat_at__gte=timezone.now() - HEARTBEAT_LIFE)
            for status in alive.order_by("pid"):
                if status.snapshot_version is not None:
                    versions.add_metric([f"{status.host}:{status.pid}"], status.snapshot_version)
            current = GaugeMetricFamily(
                "hmac_gateway_config_version",
                "Newest configuration version in the database.",
                value=ConfigVersion.load().version,
            )
            return [requests, versions, current]

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Tables())
    return generate_latest(registry)


def _answer(path: str) -> tuple[int, bytes, bytes]:
    """(status, type, body); runs in a thread, since it asks the database."""
    try:
        if path == "/metrics":
            return 200, b"text/plain; version=0.0.4; charset=utf-8", metrics()
        ready, report = readiness()
        return 200 if ready else 503, b"application/json", json.dumps(report).encode() + b"\n"
    except Error:
        return 503, b"application/json", b'{"ready": false, "problems": ["the database cannot be read"]}\n'
    finally:
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()


class StatusApp:
    """Answers probes itself and gives everything else to `inner`; without one, everything else is 404."""

    def __init__(self, inner: App | None) -> None:
        self._inner = inner
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hmac-gateway-status")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        path = scope["path"].rstrip("/")
        if path in ("/healthz", "/status"):
            await _send(send, scope["method"], 200, b"application/json", b'{"alive": true}\n')
        elif path in ("/readyz", "/status/ready", "/metrics"):
            loop = asyncio.get_running_loop()
            status, kind, body = await loop.run_in_executor(self._thread, _answer, path)
            await _send(send, scope["method"], status, kind, body)
        elif self._inner is not None:
            await answered(self._inner, scope, receive, send)
        else:
            await _send(send, scope["method"], 404, b"application/json", b'{"message":"Not found"}\n')


async def answered(inner: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Run Django's handler, which returns without a word when the body breaks off: servers answer 500 then."""
    began = False

    async def sending(event: MutableMapping[str, Any]) -> None:
        nonlocal began
        began = True
        await send(event)

    await inner(scope, receive, sending)
    if not began:
        await _send(send, scope["method"], 400, b"application/json", b'{"message":"Bad request"}\n')


async def lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's events of start and end, which Django's handler does not know."""
    while True:
        event = await receive()
        await send({"type": event["type"] + ".complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def _send(send: Send, method: str, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
