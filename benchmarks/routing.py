"""What finding a route costs, by the number of routes: `python -m benchmarks.routing [--rounds 3]`.

For both dialects, routes on plain paths, on hosts, and on regular expressions (Kong); each round asks every table for
its last route and for a path that has none. Then the ratio of 10,000 routes to 10, which must not grow with them.
"""

from __future__ import annotations

import argparse
import statistics
import timeit
from collections.abc import Callable

from hmac_gateway.core.message import Message
from hmac_gateway.routing import Route, Router
from hmac_gateway.routing_kong import Entry, KongRouter, Path, Variant

COUNTS = (10, 1_000, 10_000)
NUMBER = 20_000


def kong(name: str, path: str, hosts: tuple[str, ...] = ()) -> Entry:
    route = Route(name, (path,), (), None, dialect="kong", hosts=hosts)
    return Entry(route, (Variant(Path.of(path), route),))


def tables(count: int) -> dict[str, tuple[Router, str, str]]:
    """Router, host and path of each case."""
    last = count - 1
    plain = [kong(f"r{n}", f"/service/{n:06}") for n in range(count)]
    return {
        "apisix paths": (
            Router([Route(f"r{n}", (f"/service/{n:06}*",), (), None) for n in range(count)]),
            "gateway.test",
            f"/service/{last:06}/x",
        ),
        "kong paths": (Router((), KongRouter(plain)), "gateway.test", f"/service/{last:06}/x"),
        "kong hosts": (
            Router((), KongRouter(kong(f"r{n}", "/", (f"{n:06}.test",)) for n in range(count))),
            f"{last:06}.test",
            "/service/x",
        ),
        "kong regexes": (
            Router((), KongRouter(kong(f"r{n}", rf"~/service/{n:06}/\d+") for n in range(count))),
            "gateway.test",
            f"/service/{last:06}/7",
        ),
        "kong none": (Router((), KongRouter(plain)), "gateway.test", "/nowhere/at/all"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    cases: dict[tuple[str, int], Callable[[], object]] = {}
    for count in COUNTS:
        for label, (router, host, path) in tables(count).items():
            message = Message("GET", path, [("host", host)])
            assert (router.match(host, path, message) is None) is label.endswith("none"), label
            cases[label, count] = lambda router=router, host=host, path=path, message=message: router.match(
                host, path, message
            )
    times: dict[tuple[str, int], list[float]] = {key: [] for key in cases}
    for number in range(1, rounds + 1):
        for key, case in cases.items():
            times[key].append(timeit.timeit(case, number=NUMBER) / NUMBER * 1e6)
            print(f"round {number}  {key[0]:<14}{key[1]:>7} routes {times[key][-1]:8.2f} µs")
    for label in dict.fromkeys(label for label, _ in cases):
        medians = [statistics.median(times[label, count]) for count in COUNTS]
        print(f"{label:<14} {medians[-1] / medians[0]:.2f} times as long with {COUNTS[-1]} routes as with {COUNTS[0]}")


if __name__ == "__main__":
    main()
