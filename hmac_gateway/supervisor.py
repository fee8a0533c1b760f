"""Starts the listening processes, starts them again when they die, and ends them together.

Called by `hmac_serve`. Standard library, `serving.Listener` and nothing of Django: the supervisor holds no
connection and no secret of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

from .serving import LISTENER, WORKER, Listener

logger = logging.getLogger("hmac_gateway.serve")

#: Seconds between the death of a child and its next start, growing while it keeps dying at once.
RESTART_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
#: A child that lived this long is healthy: its next death is the first again.
HEALTHY_SECONDS: Final = 10.0
#: How long children may finish their requests after SIGTERM before they are killed.
GRACE_SECONDS: Final = 30.0
#: How many deaths right after the start end everything, if that was never up: the cause will not go away by itself.
MAX_EARLY_DEATHS: Final = 8


@dataclass(slots=True)
class Child:
    """One listening process, and what is known of its predecessors."""

    listener: Listener
    #: Stays when the process is started again, so that its successor takes its place in reports.
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    early_deaths: int = 0
    start_at: float = field(default=0.0)


class Supervisor:
    """Keeps one process per entry of `listeners` alive until `run` gets SIGTERM or SIGINT.

    `environment` is added to the children's; `on_up` is called once, in a thread, when all take connections.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        environment: dict[str, str] | None = None,
        on_up: Callable[[], None] | None = None,
    ) -> None:
        self._children = [Child(listener) for listener in listeners]
        self._environment = environment or {}
        self._on_up = on_up
        self._stopping = False
        self._was_up = False

    def run(self) -> int:
        """Run until told to stop; the exit code: 0 after a graceful end, 1 when a listener cannot be kept up."""
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        threading.Thread(target=self._announce, daemon=True).start()
        try:
            failed = self._watch()
        finally:
            self._end()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return 1 if failed else 0

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _announce(self) -> None:
        self._was_up = wait_until_up([child.listener for child in self._children])
        if self._was_up and self._on_up is not None:
            self._on_up()

    def _watch(self) -> bool:
        while not self._stopping:
            now = time.monotonic()
            for child in self._children:
                if child.process is None:
                    if now >= child.start_at:
                        self._start(child)
                    continue
                code = child.process.poll()
                if code is None:
                    if child.early_deaths and now - child.born > HEALTHY_SECONDS:
                        child.early_deaths = 0
                    continue
                self._close(child)
                child.early_deaths = 0 if now - child.born > HEALTHY_SECONDS else child.early_deaths + 1
                if child.early_deaths >= MAX_EARLY_DEATHS and not self._was_up:
                    logger.error("%s dies at every start (exit code %s); giving up", child.listener.app, code)
                    return True
                wait = RESTART_SECONDS[min(child.early_deaths, len(RESTART_SECONDS)) - 1] if child.early_deaths else 0.0
                logger.warning("%s on %s ended (exit code %s)", child.listener.app, child.listener.url, code)
                child.start_at = now + wait
            time.sleep(0.05)
        return False

    def _start(self, child: Child) -> None:
        environment = {
            **os.environ,
            **self._environment,
            LISTENER: child.listener.to_json(),
            WORKER: child.id,
            # The children import what this process can import, from wherever it was started.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        if child.listener.app == "console" and child.listener.cert:
            environment["HMAC_GATEWAY_SECURE_COOKIES"] = "true"
        # A pipe that only we hold open: when we die, however we die, the child reads its end and goes.
        child.process = subprocess.Popen(
            [sys.executable, "-m", "hmac_gateway.serving"],
            env=environment,
            stdin=subprocess.PIPE,
            # The terminal's Ctrl-C is for us; we tell the children.
            start_new_session=True,
        )
        child.born = time.monotonic()

    @staticmethod
    def _close(child: Child) -> None:
        process = child.process
        if process is not None:
            pipe: IO[bytes] | None = process.stdin
            if pipe is not None:
                pipe.close()
        child.process = None

    def _end(self) -> None:
        running = [child for child in self._children if child.process is not None]
        for child in running:
            if child.process is not None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in running:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("%s did not end in %s s and is killed", child.listener.app, GRACE_SECONDS)
                child.process.kill()
                child.process.wait()
            self._close(child)


def check_free(listener: Listener) -> str | None:
    """Why a listener's address cannot be bound now, or None."""
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listener.host, listener.port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def wait_until_up(listeners: Sequence[Listener], seconds: float = 20.0) -> bool:
    """Whether every listener takes connections within that time."""
    deadline = time.monotonic() + seconds
    for listener in listeners:
        while True:
            try:
                socket.create_connection((listener.host, listener.port), 1.0).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
    return True
