"""Puts a `Gateway` together from the site's settings: runtime, stores, log, telemetry.

Called by `hmac_gateway.serving`, and by tests that serve at a frozen time. Needs Django set up; the gateway itself
knows nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django.conf import settings

from hmac_gateway.adapters.auth_request import originals, speakers
from hmac_gateway.conf import conf
from hmac_gateway.counters import counter_store
from hmac_gateway.logs import AccessLog
from hmac_gateway.runtime import Refresher, Runtime
from hmac_gateway.stores import ReplayStore, replay_store
from hmac_gateway.telemetry import Telemetry
from hmac_gateway.trust import trust

from .auth_endpoint import AuthEndpoint
from .gateway import Gateway


def build(*, now: Callable[[], float] = time.time, store: ReplayStore | None = None) -> Gateway:
    """A gateway with its refresher, access log and telemetry; they start and stop with the ASGI lifespan.

    `now` gives Unix seconds: a test serves at a frozen time with it.
    """
    runtime = Runtime(now=now)
    telemetry = Telemetry(runtime)
    refresher = Refresher(runtime, telemetry.flush, telemetry.gone)
    trusted = trust(conf.trusted_proxies)
    endpoint = AuthEndpoint(speakers(conf.trusted_proxies), trusted, originals(conf.original_headers), conf.dialect)
    log = AccessLog() if conf.access_log else None

    def started() -> None:
        if log is not None:
            log.start()
        refresher.start()
        # Requests that come before the first snapshot would be told 503; wait for it, but not for ever:
        # a database that is away must show as 503 and in /readyz, not as a process that does not start.
        refresher.first_look.wait(10.0)

    def stopped() -> None:
        refresher.stop()
        if log is not None:
            log.stop()

    return Gateway(
        lambda: runtime.snapshot,
        replay_store() if store is None else store,
        counter_store(),
        now=now,
        dialect=conf.dialect,
        trusted=trusted,
        endpoint=endpoint,
        log=log,
        observer=telemetry,
        spool_memory=conf.spool_memory,
        started=started,
        stopped=stopped,
        # Under Django's default names they may as well be an upstream's.
        own_cookies=frozenset({settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME} - {"sessionid", "csrftoken"}),
    )
