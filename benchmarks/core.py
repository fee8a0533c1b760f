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

from hmac_gateway.core.credential import Consumer, Credential, Secret
from hmac_gateway.core.dates import parse_http_date
from hmac_gateway.core.identity import Verified
from hmac_gateway.core.message import Message
from hmac_gateway.plugins import hmac_auth

#: The published vector of the APISIX format.
DATE = "Mon, 21 Oct 2024 17:31:18 GMT"
STRING = f"john-key\nGET /get\ndate: {DATE}\n".encode()
KEY = b"john-secret-key"
HEADERS = [
    (b"host", b"127.0.0.1:9080"),
    (b"user-agent", b"curl/7.88.1"),
    (b"accept", b"*/*"),
    (b"date", DATE.encode()),
    (
        b"authorization",
        b'Signature keyId="john-key",algorithm="hmac-sha256",headers="@request-target date",'
        b'signature="ztFfl9w7LmCrIuPjRC/DWSF4gN6Bt8dBBz4y+u1pzt8="',
    ),
]
NUMBER = 20_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    secrets = (Secret(KEY),)
    credential = Credential("c", Consumer("1", "john"), "hmac-auth", "john-key", lambda now: secrets)
    config = hmac_auth.compile({}, "apisix")
    lookup = {"john-key": credential}.get
    now = float(parse_http_date(DATE) or 0)

    def verify() -> object:
        return hmac_auth.check(Message("GET", b"/get", HEADERS), config, lookup, now)

    assert isinstance(verify(), Verified)
    cases: dict[str, Callable[[], object]] = {
        "hmac.digest": lambda: hmac.digest(KEY, STRING, "sha256"),
        "verify apisix": verify,
    }
    times: dict[str, list[float]] = {label: [] for label in cases}
    for number in range(1, rounds + 1):
        for label, case in cases.items():
            # The best of three short runs: what disturbs a run only ever makes it longer.
            best = min(timeit.repeat(case, number=NUMBER, repeat=3)) / NUMBER * 1e6
            times[label].append(best)
            print(f"round {number}  {label:14} {best:6.2f} µs", flush=True)
    medians = {label: statistics.median(values) for label, values in times.items()}
    print(f"\nverify apisix / hmac.digest   {medians['verify apisix'] / medians['hmac.digest']:.2f}   (at most 7)")


if __name__ == "__main__":
    main()
