"""How long a change takes until a worker enforces it, by the number of changed credentials.

    python benchmarks/bench_refresh.py [--database-url URL] [--counts 1,100,1000,10000]

Makes its own SQLite database unless one is given (it must be empty and is left migrated). For each count: that many
credentials are disabled in one statement, then one `Runtime.refresh()` is timed; the promise of one second has to hold
the refresh interval (REFRESH_SECONDS) besides. Median and worst of some rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--counts", default="1,100,1000,10000")
    options = parser.parse_args()
    counts = [int(text) for text in options.counts.split(",")]
    with tempfile.TemporaryDirectory(prefix="hmac-gateway-bench-") as folder:
        os.environ.update(
            HMAC_GATEWAY_NO_DOTENV="1",
            SECRET_KEY="only-for-benchmarks-" + "x" * 40,
            HMAC_GATEWAY_ENCRYPTION_KEYS="YmVuY2gta2V5LWJlbmNoLWtleS1iZW5jaC1rZXktYmU=",
            DATABASE_URL=options.database_url or f"sqlite:///{folder}/db.sqlite3",
            DJANGO_SETTINGS_MODULE="hmac_gateway.settings",
        )
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        measure(counts)


def measure(counts: list[int]) -> None:
    import django

    django.setup()
    from django.apps import apps
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection, connections

    from hmac_gateway import crypto
    from hmac_gateway.models import ConfigVersion
    from hmac_gateway.runtime import Runtime

    call_command("migrate", verbosity=0, interactive=False)
    ConfigVersion.sealed()
    consumer = apps.get_model("hmac_consumers.Consumer")._default_manager.create(username="fleet")
    model = apps.get_model("hmac_consumers.Credential")
    credentials = model._default_manager
    sealed = crypto.seal("secret")
    credentials.bulk_create(
        (
            model(consumer=consumer, plugin="hmac-auth", identifier=f"device-{number:06}", sealed_secret=sealed)
            for number in range(max(counts))
        ),
        batch_size=500,
    )
    runtime = Runtime()
    began = time.perf_counter()
    assert runtime.refresh(), runtime.problems
    first = time.perf_counter() - began
    print(f"{connection.vendor}, {max(counts)} credentials; first read and compile: {first * 1000:.0f} ms")
    print(f"{'changed':>8} {'median ms':>10} {'worst ms':>10} {'worst with the wait':>20}")
    for count in counts:
        seconds = []
        for round in range(ROUNDS):
            changed = credentials.filter(identifier__lt=f"device-{count:06}")
            assert changed.update(enabled=bool(round % 2)) == count
            began = time.perf_counter()
            assert runtime.refresh(), runtime.problems
            seconds.append(time.perf_counter() - began)
        worst = max(seconds)
        wait = settings.HMAC_GATEWAY["REFRESH_SECONDS"]
        median = statistics.median(seconds)
        print(f"{count:>8} {median * 1000:>10.1f} {worst * 1000:>10.1f} {(worst + wait) * 1000:>17.0f} ms")
    connections.close_all()


if __name__ == "__main__":
    main()
