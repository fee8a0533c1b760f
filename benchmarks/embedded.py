"""What protection adds inside a Django site: `python -m benchmarks.embedded [--rounds 5] [--seconds 3]`.

A site as `startproject` makes it under gunicorn, pinned to one core, load (wrk) on the other, consumers in the
database. Each round measures the trivial view and the trivial APIView without protection and with it. Printed are all
rounds, then the medians of what protection adds to the time of a request in the same round. Needs wrk and taskset;
listens on loopback only.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from tests.support.served import ROOT, free_port, signed

CASES = {
    "view": "/view/",
    "view, middleware": "/protected/view/",
    "APIView": "/api/",
    "APIView, class": "/signed/api/",
}
BUDGETS = (("view", "view, middleware", 20), ("APIView", "APIView, class", 10))


def microseconds(port: int, path: str, seconds: int) -> float:
    """Time of one request on the server's core, from the rate that it reaches."""
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c4", f"-d{seconds}s"]
    for name, value in signed("GET", path).items():
        command += ["-H", f"{name}: {value}"]
    run = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", run.stdout)
    assert rate and "Non-2xx" not in run.stdout, run.stdout
    return 1e6 / float(rate[1])


def wait_for(port: int) -> None:
    """Return when requests are answered; TimeoutError after twenty seconds."""
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/view/", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody answers on port {port}") from None
            time.sleep(0.1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    port = free_port()
    times: dict[str, list[float]] = {label: [] for label in CASES}
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
            for number in range(arguments.rounds + 1):
                for label, path in CASES.items():
                    found = microseconds(port, path, arguments.seconds if number else 1)
                    if number:  # the first one only warms up
                        times[label].append(found)
                if number:
                    shown = ", ".join(f"{label} {found[-1]:.0f} µs" for label, found in times.items())
                    print(f"round {number}: {shown}", flush=True)
        finally:
            server.terminate()
            server.wait()
    for base, other, budget in BUDGETS:
        added = [100 * (b - a) / a for a, b in zip(times[base], times[other], strict=True)]
        print(f"{other}: {statistics.median(added):.1f} % added (at most {budget} %)")


if __name__ == "__main__":
    main()
