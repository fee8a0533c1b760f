"""What several processes must share, and what the server keeps of a request. Imports `conf` and `stores`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from ..conf import conf
from ..stores import REDIS_SCHEMES, processes
from .common import SHARED_STORES
from .values import readable


def check_replay_store(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """The replay store exists and is shared by all who must share it."""
    if not readable("REPLAY_STORE", "WORKERS"):
        return
    name = conf.replay_store
    if name == "memory":
        if processes() > 1:
            yield Warning(
                f"HMAC_GATEWAY['REPLAY_STORE'] is memory, which {processes()} processes do not share: requests that "
                "need replay protection are answered with 503.",
                hint=f"Set REPLAY_STORE to {SHARED_STORES}, or serve with one process.",
                id="hmac_gateway.W001",
            )
    elif name.startswith(REDIS_SCHEMES):
        if find_spec("redis") is None:
            yield Error(
                "HMAC_GATEWAY['REPLAY_STORE'] names Redis, but the package redis is not installed.",
                hint="pip install 'django-hmac-gateway[redis]'",
                id="hmac_gateway.E006",
            )
    elif name != "database":
        # Only what stands before ://, since an address may hold a password.
        yield Error(
            f"HMAC_GATEWAY['REPLAY_STORE'] is {name.partition('://')[0]!r}.",
            hint=f"Allowed: memory, {SHARED_STORES}.",
            id="hmac_gateway.E006",
        )


def check_counter_store(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Where limits are to be counted for all processes, that is a Redis."""
    if not readable("REPLAY_STORE", "COUNTER_STORE"):
        return
    name = conf.counter_store
    if not name or name == conf.replay_store:
        return
    if not name.startswith(REDIS_SCHEMES):
        yield Error(
            f"HMAC_GATEWAY['COUNTER_STORE'] is {name.partition('://')[0]!r}.",
            hint="Allowed: redis://…, or None for the Redis of REPLAY_STORE.",
            id="hmac_gateway.E006",
        )
    elif find_spec("redis") is None:
        yield Error(
            "HMAC_GATEWAY['COUNTER_STORE'] names Redis, but the package redis is not installed.",
            hint="pip install 'django-hmac-gateway[redis]'",
            id="hmac_gateway.E006",
        )


def check_server(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """A server that is known to lose the request target; of others the first request tells, in the log."""
    if os.environ.get("GRANIAN_INTERFACE", "").lower() == "wsgi":
        yield Warning(
            "GRANIAN_INTERFACE is wsgi, where granian keeps the decoded path only: signatures of a target that was "
            "sent with unusual quoting cannot be verified.",
            hint="Serve the ASGI application: GRANIAN_INTERFACE=asgi.",
            id="hmac_gateway.W017",
        )
