"""Access lines: one JSON object per request, written to standard output by a thread of its own.

Called by the gateway lane; standard library only. A line never holds a query, a secret or a signature. Formatting
happens on the request's path, writing does not: a reader of the log that stalls must not stall requests.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from json.encoder import encode_basestring_ascii as quoted
from time import gmtime, strftime
from typing import Final

#: Lines kept while the log cannot be written; past that they are counted, not kept.
MAX_WAITING: Final = 100_000
FLUSH_SECONDS: Final = 0.2


class AccessLog:
    """Collects lines and writes them a few times a second. `write` may be called from any thread."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._lines: deque[str] = deque()
        self._lost = 0
        self._second = 0
        self._stamp = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def write(
        self,
        *,
        at: float,
        request_id: str,
        remote: str,
        method: str,
        path: str,
        status: int,
        sent: int,
        seconds: float,
        upstream_seconds: float,
        route: str,
        consumer: str,
        upstream: str,
        reason: str,
        key: str = "",
    ) -> None:
        """Add one request's line. `at` is Unix seconds; `status` 499 is a client that left (nginx).

        `key` is the key id that a refused request named.
        """
        if len(self._lines) >= MAX_WAITING:
            self._lost += 1
            return
        second = int(at)
        if second != self._second:
            self._stamp = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(second))
            self._second = second
        named = f',"key":{quoted(key)}' if key else ""
        self._lines.append(
            f'{{"time":"{self._stamp}","request_id":"{request_id}","remote":"{remote}","method":{quoted(method)},'
            f'"path":{quoted(path)},"status":{status},"bytes":{sent},"duration_ms":{seconds * 1000:.2f},'
            f'"upstream_ms":{upstream_seconds * 1000:.2f},"route":{quoted(route)},"consumer":{quoted(consumer)},'
            f'"upstream":"{upstream}","reason":"{reason}"{named}}}\n'
        )

    def start(self) -> None:
        """Start the writing thread."""
        self._thread = threading.Thread(target=self._run, name="hmac-gateway-access-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stopping.wait(FLUSH_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        # One by one, since a list that was swapped away may still get a line from whoever looked it up before.
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if self._lost:
            lines.append(f'{{"lost_access_lines":{self._lost}}}\n')
            self._lost = 0
        data = memoryview("".join(lines).encode())
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            # Nobody reads the log any more; requests go on.
            return
