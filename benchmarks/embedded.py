"""What protection adds inside a Django site: `python -m benchmarks.embedded [--rounds 200] [--requests 100]`.

A site as `startproject` makes it, served by gunicorn on one core; the load comes from the other. Consumers are in the
database. What is measured is the time that the server's process has had of its core, so that neither the load nor
whatever else the machine does is counted. Each round asks for the trivial view and the trivial APIView, without
protection and with it, in turn and each a hundred times; printed is what protection adds in the same round: quartiles
of all rounds. Linux only; listens on loopback only.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.served import ROOT, free_port, signed

CASES = {
    "view": "/view/",
    "view, middleware": "/protected/view/",
    "APIView": "/api/",
    "APIView, class": "/signed/api/",
}
BUDGETS = (("view", "view, middleware", 20), ("APIView", "APIView, class", 10))
CONNECTIONS = 4


class Load:
    """Four clients that each ask again as soon as they are answered."""

    def __init__(self, port: int) -> None:
        self._host = f"127.0.0.1:{port}"
        self._selector = selectors.DefaultSelector()
        for _ in range(CONNECTIONS):
            client = socket.create_connection(("127.0.0.1", port))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(client, selectors.EVENT_READ, client)

    def ask(self, path: str, count: int) -> None:
        """`count` signed requests, each answered with 200, or AssertionError."""
        lines = {"Host": self._host, "User-Agent": "curl/7.88.1", "Accept": "*/*", **signed("GET", path)}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        request = f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")
        for key in self._selector.get_map().values():
            key.data.sendall(request)
        left, to_send = count, count - CONNECTIONS
        while left:
            for key, _ in self._selector.select():
                answer = key.data.recv(65536)  # on loopback: whole, since it is sent whole or in two pieces at once
                while not answer.endswith((b"ok", b'{"ok":true}')):
                    more = key.data.recv(65536)
                    assert more, answer
                    answer += more
                assert answer.startswith(b"HTTP/1.1 200"), answer
                left -= 1
                if to_send > 0:
                    to_send -= 1
                    key.data.sendall(request)


def cpu_time(master: int) -> int:
    """Nanoseconds that the threads of gunicorn's worker have had of a core."""
    (worker,) = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{worker}/task").glob("*/schedstat"))


def wait_for(port: int) -> None:
    """Return when somebody listens; TimeoutError after twenty seconds."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody answers on port {port}") from None
            time.sleep(0.1)


def measure(master: int, port: int, rounds: int, requests: int) -> dict[str, list[float]]:
    """Microseconds of the server's core for one request, by case and round."""
    load = Load(port)
    for path in CASES.values():
        load.ask(path, 500)  # warms up
    times: dict[str, list[float]] = {label: [] for label in CASES}
    for _ in range(rounds):
        for label, path in CASES.items():
            before = cpu_time(master)
            load.ask(path, requests)
            times[label].append((cpu_time(master) - before) / requests / 1000)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=100)
    arguments = parser.parse_args()
    port = free_port()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "BENCHMARK_DATABASE": f"{folder}/db.sqlite3", "WEB_CONCURRENCY": "1"}
        subprocess.run([sys.executable, "-m", "benchmarks.embedded_site"], cwd=ROOT, env=environment, check=True)
        server = subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "1"]
            + ["--bind", f"127.0.0.1:{port}", "--log-level", "error", "benchmarks.embedded_site:application"],
            cwd=ROOT,
            env=environment,
        )
        try:
            wait_for(port)
            times = measure(server.pid, port, arguments.rounds, arguments.requests)
        finally:
            server.terminate()
            server.wait()
    for base, other, budget in BUDGETS:
        print(f"{base} {statistics.median(times[base]):.0f} µs, protected {statistics.median(times[other]):.0f} µs")
        added = [100 * (b - a) / a for a, b in zip(times[base], times[other], strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        print(f"{other}: {middle:.1f} % added (quartiles {low:.1f} and {high:.1f}; at most {budget} %)")


if __name__ == "__main__":
    main()
