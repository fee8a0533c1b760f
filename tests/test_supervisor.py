"""When children are started again, and when the supervisor gives up."""

from __future__ import annotations

import io
from typing import Any

import pytest

from hmac_gateway import supervisor
from hmac_gateway.serving import LISTENER, WORKER, Listener
from hmac_gateway.supervisor import MAX_EARLY_DEATHS, Supervisor


class Dying:
    """Stands for Popen: every process has ended when it is looked at."""

    def __init__(self, stop_after: int) -> None:
        self.environments: list[dict[str, str]] = []
        self.stop_after = stop_after
        self.supervisor: Supervisor | None = None

    def __call__(self, command: list[str], env: dict[str, str], **more: Any) -> Any:
        self.environments.append(env)
        if len(self.environments) == self.stop_after and self.supervisor is not None:
            self.supervisor._stopping = True
        return self

    stdin = io.BytesIO()

    def poll(self) -> int:
        return 3


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Dying:
    dying = Dying(stop_after=3 * MAX_EARLY_DEATHS)
    monkeypatch.setattr(supervisor.subprocess, "Popen", dying)
    monkeypatch.setattr(supervisor, "RESTART_SECONDS", (0.0,))
    monkeypatch.setattr(supervisor.time, "sleep", lambda seconds: None)
    dying.supervisor = Supervisor([Listener("gateway", "127.0.0.1", 9)], {"WEB_CONCURRENCY": "1"})
    return dying


def test_a_listener_that_never_came_up_is_given_up(dying: Dying) -> None:
    assert dying.supervisor is not None
    assert dying.supervisor._watch() is True
    assert len(dying.environments) == MAX_EARLY_DEATHS


def test_one_that_was_up_is_started_again_for_ever(dying: Dying) -> None:
    assert dying.supervisor is not None
    dying.supervisor._was_up = True
    assert dying.supervisor._watch() is False
    assert len(dying.environments) == dying.stop_after


def test_a_successor_takes_its_predecessors_name(dying: Dying) -> None:
    assert dying.supervisor is not None
    dying.supervisor._watch()
    assert len({environment[WORKER] for environment in dying.environments}) == 1
    assert '"gateway"' in dying.environments[0][LISTENER]
    other = Supervisor([Listener("gateway", "127.0.0.1", 9)] * 2)
    assert len({child.id for child in other._children}) == 2
