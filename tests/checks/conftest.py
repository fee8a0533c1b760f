"""The number of processes is the test's own matter, whatever runs the tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "GRANIAN_WORKERS", "GRANIAN_INTERFACE"):
        monkeypatch.delenv(name, raising=False)
