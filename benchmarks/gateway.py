"""The speed of the gateway lane, in one run: `python -m benchmarks.gateway [--rounds 5] [--seconds 4]`.

Interleaved rounds on two cores: the server under test on core 0; load (wrk) and upstream (nginx) on core 1. Each
round measures nginx `proxy_pass`, the gateway with a signed GET and its access log on, and `naive_view.py`. Every
round is printed, then the ratios of the medians. Needs nginx, wrk and taskset; listens on loopback only.
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
from dataclasses import dataclass
from pathlib import Path

from tests.support.served import ROOT, Served, free_port, signed

PATH = "/anything/benchmark"
CONNECTIONS = 16

NGINX = """\
worker_processes 1; daemon off; pid {folder}/nginx-{role}.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log {log}; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {servers}
}}
"""
UPSTREAM = (
    "server {{ listen 127.0.0.1:{port}; default_type application/json; "
    """location / {{ return 200 '{{"ok":true,"n":12345678901234567890}}'; }} }}"""
)
PROXY = (
    "upstream u {{ server 127.0.0.1:{upstream}; keepalive 64; }} "
    "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; proxy_http_version 1.1; "
    'proxy_set_header Connection ""; }} }}'
)


@dataclass
class Load:
    """What wrk measured: requests per second, latencies in ms, answers that were not 2xx."""

    rate: float
    p50: float
    p99: float
    errors: int


def _milliseconds(text: str) -> float:
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def wrk(port: int, seconds: float, headers: dict[str, str]) -> Load:
    """One bounded load run against a loopback port."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    text = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True, check=True
    ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    found = {key: re.search(rf"{key}\s+([\d.]+\w+)", text) for key in ("50%", "99%")}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert rate and found["50%"] and found["99%"], text
    return Load(
        float(rate[1]),
        _milliseconds(found["50%"][1]),
        _milliseconds(found["99%"][1]),
        int(failed[1]) if failed else 0,
    )


def nginx(folder: Path, role: str, servers: str, core: int, log: str = "off") -> subprocess.Popen[bytes]:
    """A pinned nginx with the given servers."""
    config = folder / f"{role}.conf"
    config.write_text(NGINX.format(folder=folder, role=role, servers=servers, log=log))
    return subprocess.Popen(["taskset", "-c", str(core), "nginx", "-c", str(config)], stderr=subprocess.DEVNULL)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    upstream, proxy, naive = free_port(), free_port(), free_port()
    results: dict[str, list[Load]] = {"nginx proxy_pass": [], "gateway, signed": [], "naive view": []}
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name, Served() as served:
        folder = Path(name)
        try:
            started.append(nginx(folder, "upstream", UPSTREAM.format(port=upstream), 1))
            started.append(nginx(folder, "proxy", PROXY.format(port=proxy, upstream=upstream), 0, f"{folder}/a.log"))
            started.append(
                subprocess.Popen(
                    ["taskset", "-c", "0", sys.executable, "-m", "gunicorn", "--worker-class", "gthread"]
                    + ["--threads", "16", "--workers", "1", "--log-level", "error"]
                    + ["--bind", f"127.0.0.1:{naive}", "benchmarks.naive_view:application"],
                    cwd=ROOT,
                    env={**os.environ, "UPSTREAM": f"http://127.0.0.1:{upstream}"},
                )
            )
            served.setup(f"127.0.0.1:{upstream}", plugin={})
            for pid in served.worker_pids():
                # Every thread of the worker: the refresher and granian's runtime are its cost too.
                subprocess.run(["taskset", "-a", "-c", "-p", "0", str(pid)], check=True, capture_output=True)
            time.sleep(2)
            ports = {"nginx proxy_pass": proxy, "gateway, signed": served.port, "naive view": naive}
            for port in ports.values():
                wrk(port, 1, signed("GET", PATH))
            for number in range(1, options.rounds + 1):
                for label, port in ports.items():
                    load = wrk(port, options.seconds, signed("GET", PATH))
                    results[label].append(load)
                    print(
                        f"round {number}  {label:17} {load.rate:8.0f} req/s  p50 {load.p50:6.2f} ms  "
                        f"p99 {load.p99:6.2f} ms  not 2xx: {load.errors}",
                        flush=True,
                    )
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(10)
    rates = {label: statistics.median(load.rate for load in loads) for label, loads in results.items()}
    gateway = results["gateway, signed"]
    tail = statistics.median(load.p99 / load.p50 for load in gateway)
    print(f"\nmedians of {options.rounds} rounds, {CONNECTIONS} connections")
    print(f"gateway / nginx proxy_pass   {rates['gateway, signed'] / rates['nginx proxy_pass']:.3f}   (at least 0.18)")
    print(f"gateway / naive view         {rates['gateway, signed'] / rates['naive view']:.1f}     (at least 10)")
    print(f"gateway p99 / p50            {tail:.2f}    (at most 3)")


if __name__ == "__main__":
    main()
