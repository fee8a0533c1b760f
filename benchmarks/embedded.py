"""What protection adds inside a Django site: `python -m benchmarks.embedded [--rounds 7]`.

A site as `startproject` makes it, called through its WSGI application as gunicorn calls it, consumers in the database.
Each round times the trivial view and the trivial APIView without protection and with it, in turns; printed are all
rounds, then the medians of what each adds in the same round, in per cent of the view's own time.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import django
from django.conf import settings

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
OURS = "hmac_gateway.middleware.HmacGatewayMiddleware"
NUMBER = 2000
SECRET = "my-hmac-secret"


def setup() -> None:
    """One site; the protected twin differs by its middleware."""
    from hmac_gateway import EMBED

    settings.configure(
        SECRET_KEY="benchmark",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="benchmarks.embedded_urls",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        USE_TZ=True,
        LOGGING_CONFIG=None,
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "rest_framework",
            *EMBED,
        ],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        MIDDLEWARE=MIDDLEWARE,
        HMAC_GATEWAY={
            "ENCRYPTION_KEYS": ["dGVzdC1rZXktdGVzdC1rZXktdGVzdC1rZXktdGVzdDE="],
            "PROTECT": ["^/protected/"],
            "TELEMETRY": False,
        },
    )
    django.setup()
    from django.apps import apps
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    consumer = apps.get_model("hmac_consumers.Consumer")(username="partner")
    consumer.save()
    credential = apps.get_model("hmac_consumers.Credential")(
        consumer=consumer, plugin="hmac-auth", identifier="client-1", public_id="client-1"
    )
    credential.set_secret(SECRET)
    credential.save()


def application(middleware: list[str]) -> Any:
    """The site's WSGI application with this middleware; the setting is read when it is made."""
    from django.core.handlers.wsgi import WSGIHandler

    settings.MIDDLEWARE = middleware
    return WSGIHandler()


def environ(path: str) -> dict[str, Any]:
    """What gunicorn makes of a signed GET by `requests`."""
    from hmac_gateway.client import sign_headers

    url = f"http://127.0.0.1:8000{path}"
    date = formatdate(time.time(), usegmt=True)
    headers = sign_headers("GET", url, key_id="client-1", secret=SECRET, headers={"Date": date})
    return {
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": None,
        "wsgi.input_terminated": True,
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn/23.0.0",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": path,
        "PATH_INFO": path,
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_USER_AGENT": "python-requests/2.32.3",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate",
        "HTTP_ACCEPT": "*/*",
        "HTTP_CONNECTION": "keep-alive",
        "HTTP_DATE": date,
        "HTTP_AUTHORIZATION": headers["Authorization"],
    }


def case(app: Any, path: str) -> Callable[[], None]:
    """A call of the site, answered with 200."""
    given = environ(path)
    statuses: list[str] = []

    def call() -> None:
        response = app(dict(given), lambda status, headers: statuses.append(status))
        b"".join(response)
        response.close()

    call()
    assert statuses == ["200 OK"], (path, statuses)
    statuses.clear()

    def timed() -> None:
        call()
        statuses.clear()

    return timed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="profile the protected cases instead")
    arguments = parser.parse_args()
    setup()
    plain, protected = application(MIDDLEWARE), application([MIDDLEWARE[0], OURS, *MIDDLEWARE[1:]])
    cases = {
        "view": case(plain, "/view/"),
        "view, middleware": case(protected, "/protected/view/"),
        "APIView": case(plain, "/api/"),
        "APIView, class": case(plain, "/api/signed/"),
    }
    if arguments.profile:
        import cProfile
        import pstats

        for label in ("view, middleware", "APIView, class"):
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(NUMBER):
                cases[label]()
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats("hmac_gateway|benchmarks", 30)
        return
    times: dict[str, list[float]] = {label: [] for label in cases}
    clock = time.process_time  # CPU time: what else the machine does is not counted
    for number in range(1, arguments.rounds + 1):
        # In small turns, so that what else the machine does meets all alike.
        for label in cases:
            times[label].append(0.0)
        for _ in range(20):
            for label, call in cases.items():
                began = clock()
                for _ in range(NUMBER // 20):
                    call()
                times[label][-1] += (clock() - began) / NUMBER * 1e6
        print(f"round {number}: " + ", ".join(f"{label} {found[-1]:.1f} µs" for label, found in times.items()))
    for base, other, budget in (("view", "view, middleware", 20), ("APIView", "APIView, class", 10)):
        added = [100 * (b - a) / a for a, b in zip(times[base], times[other], strict=True)]
        print(f"{other}: {statistics.median(added):.1f} % added (budget {budget} %)")


if __name__ == "__main__":
    os.environ["WEB_CONCURRENCY"] = "1"
    main()
