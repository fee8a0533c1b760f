"""What workers tell and what /readyz makes of it."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from hmac_gateway import status
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import NOBODY
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.models import ConfigVersion, MinuteCounter, Rejection, WorkerStatus
from hmac_gateway.runtime import Runtime
from hmac_gateway.serving import WORKER
from hmac_gateway.status import readiness
from hmac_gateway.telemetry import Telemetry

pytestmark = pytest.mark.django_db


class Request:
    """A finished request."""

    def __init__(self, number: int = 1) -> None:
        self.message = Message("GET", "/x", [("Date", "today")])
        self.request_id = f"request-{number}"
        self.path = "/x"
        self.status = 401
        self.reason = "signature_wrong"
        self.route_id = "r"
        self.identity = NOBODY


@pytest.fixture
def telemetry() -> Telemetry:
    runtime = Runtime()
    assert runtime.refresh()
    return Telemetry(runtime)


def test_ready_is_said_once_a_worker_reports(telemetry: Telemetry) -> None:
    assert readiness() == (
        False,
        {"ready": False, "version": 0, "workers": [], "problems": ["no gateway worker has reported yet"]},
    )
    telemetry.flush()
    ready, report = readiness()
    assert ready and report["problems"] == []
    assert [worker["role"] for worker in report["workers"]] == ["gateway"]
    telemetry.gone()
    assert not readiness()[0]


def test_a_worker_without_a_snapshot_is_not_ready() -> None:
    Telemetry(Runtime()).flush()
    ready, report = readiness()
    assert not ready
    assert "has not loaded the configuration yet" in report["problems"][0]


@pytest.mark.parametrize(
    ("host", "seconds", "words"),
    [("", 5, None), ("", 15, "has said nothing for 15 s"), ("another-machine", 15, None)],
)
def test_a_worker_that_fell_silent(telemetry: Telemetry, host: str, seconds: int, words: str | None) -> None:
    """Only this machine's: another that went down must not take this one along."""
    telemetry.flush()
    WorkerStatus.objects.create(
        id="silent",
        host=host or socket.gethostname(),
        pid=7,
        role="gateway",
        snapshot_version=0,
        heartbeat_at=timezone.now() - timedelta(seconds=seconds),
    )
    ready, report = readiness()
    assert ready is (words is None)
    assert len(report["workers"]) == 2
    if words is not None:
        assert report["problems"] == [f"worker 7 {words}"]
    WorkerStatus.objects.filter(pk="silent").update(heartbeat_at=timezone.now() - timedelta(seconds=31))
    assert readiness()[0], "gone is gone"


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_is_away_is_said(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **kwargs: Any) -> Any:
        raise error("cut: password=hunter2")

    monkeypatch.setattr(ConfigVersion._default_manager, "filter", away)
    code, kind, body = status._answer("/readyz")
    assert (code, kind) == (503, b"application/json")
    assert json.loads(body)["problems"] == ["the database cannot be read"]
    monkeypatch.setattr(status, "metrics", away)
    code, _, body = status._answer("/metrics")
    assert code == 503 and b"hunter2" not in body


def test_a_successor_takes_its_predecessors_row(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKER, "slot-1")
    runtime = Runtime()
    Telemetry(runtime).flush()
    Telemetry(runtime).flush()
    assert WorkerStatus.objects.filter(role="gateway").count() == 1
    telemetry.flush()
    assert WorkerStatus.objects.count() == 2


def test_what_could_not_be_written_is_written_later(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        telemetry.finished(Request(number))
        telemetry.rejected(Request(number), Rejected(Reason.MISSING, plugin="hmac-auth"))

    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("away")

    for model in (MinuteCounter, Rejection):
        with monkeypatch.context() as patch:
            patch.setattr(model._default_manager, "filter", away)
            patch.setattr(model._default_manager, "bulk_create", away)
            with pytest.raises(OperationalError):
                telemetry.flush()
    telemetry.flush()
    telemetry.flush()
    assert [counter.count for counter in MinuteCounter.objects.all()] == [3]
    assert sorted(Rejection.objects.values_list("request_id", flat=True)) == ["request-0", "request-1", "request-2"]
