"""A gateway served at a fixed time: `python -m tests.support.frozen UNIX_SECONDS PORT`. Used by `served.Served`."""

import asyncio
import sys
from importlib import import_module

import django

if __name__ == "__main__":
    django.setup()
    from django.apps import apps

    from hmac_gateway.serving import Listener, serve

    at, port = float(sys.argv[1]), int(sys.argv[2])
    build = import_module(f"{apps.get_app_config('hmac_proxy').name}.assembly").build
    asyncio.run(serve(build(now=lambda: at), Listener("gateway", "127.0.0.1", port)))
