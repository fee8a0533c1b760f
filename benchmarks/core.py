"""The cost of one verification in the core, in units of a bare MAC: `python -m benchmarks.core [--rounds 5]`.

A signed GET with five headers, `Message` included, against `hmac.digest` of the same signing string; interleaved
rounds in one run, every round printed, then the ratio of the medians.
"""

from __future__ import annotations

import argparse
import hmac
import statistics
import timeit
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from hmac_gateway.core.credential import Consumer, Credential, Secret
from hmac_gateway.core.dates import parse_http_date
from hmac_gateway.core.identity import Verified
from hmac_gateway.core.message import Message
from hmac_gateway.plugins import hmac_auth


class Case(NamedTuple):
    """A published request of one format, and what a bare MAC is computed over."""

    date: str
    string: bytes
    key_id: str
    secret: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    config: dict[str, Any]


CASES: Final = {
    "apisix": Case(
        date="Mon, 21 Oct 2024 17:31:18 GMT",
        string=b"john-key\nGET /get\ndate: Mon, 21 Oct 2024 17:31:18 GMT\n",
        key_id="john-key",
        secret=b"john-secret-key",
        target=b"/get",
        headers=[
            (b"host", b"127.0.0.1:9080"),
            (b"user-agent", b"curl/7.88.1"),
            (b"accept", b"*/*"),
            (b"date", b"Mon, 21 Oct 2024 17:31:18 GMT"),
            (
                b"authorization",
                b'Signature keyId="john-key",algorithm="hmac-sha256",headers="@request-target date",'
                b'signature="ztFfl9w7LmCrIuPjRC/DWSF4gN6Bt8dBBz4y+u1pzt8="',
            ),
        ],
        config={},
    ),
    "kong": Case(
        date="Mon, 02 Dec 2024 16:23:54 GMT",
        string=b"date: Mon, 02 Dec 2024 16:23:54 GMT\ndummy: Kong\n@request-target: get /kong/healthy",
        key_id="johnsmith",
        secret=b"!Qwaszxerdfcv",
        target=b"/kong/healthy",
        headers=[
            (b"host", b"localhost:8000"),
            (b"accept", b"*/*"),
            (b"date", b"Mon, 02 Dec 2024 16:23:54 GMT"),
            (b"dummy", b"Kong"),
            (
                b"authorization",
                b'hmac username="johnsmith", algorithm="hmac-sha256", headers="date dummy @request-target", '
                b'signature="lmCENhBAr+WhCzoL21aqRU44Y0C5HjS5sAU8zkmAoPE="',
            ),
        ],
        config={"enforce_headers": ["date", "dummy"]},
    ),
}
NUMBER: Final = 20_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    tasks: dict[str, Callable[[], object]] = {}
    for name, case in CASES.items():
        tasks[f"hmac.digest of {name}"] = lambda case=case: hmac.digest(case.secret, case.string, "sha256")  # type: ignore[misc]
        tasks[f"verify {name}"] = verifying(name, case)
    times: dict[str, list[float]] = {label: [] for label in tasks}
    for number in range(1, rounds + 1):
        for label, task in tasks.items():
            # The best of three short runs: what disturbs a run only ever makes it longer.
            best = min(timeit.repeat(task, number=NUMBER, repeat=3)) / NUMBER * 1e6
            times[label].append(best)
            print(f"round {number}  {label:22} {best:6.2f} µs", flush=True)
    medians = {label: statistics.median(values) for label, values in times.items()}
    print()
    for name in CASES:
        ratio = medians[f"verify {name}"] / medians[f"hmac.digest of {name}"]
        print(f"verify {name} / hmac.digest   {ratio:.2f}   (at most 7)")


def verifying(name: str, case: Case) -> Callable[[], object]:
    """A function that verifies the case's request, `Message` included."""
    secrets = (Secret(case.secret),)
    credential = Credential("c", Consumer("1", "john"), "hmac-auth", case.key_id, lambda now: secrets)
    config = hmac_auth.compile(case.config, name)
    lookup = {case.key_id: credential}.get
    now = float(parse_http_date(case.date) or 0)

    def verify() -> object:
        return hmac_auth.check(Message("GET", case.target, case.headers), config, lookup, now)

    assert isinstance(verify(), Verified)
    return verify


if __name__ == "__main__":
    main()
