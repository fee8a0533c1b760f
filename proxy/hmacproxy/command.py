"""Runs the command: options, a socket, one process that serves until it is told to stop.

Called by `hmac_gateway.hmacproxy`. Exit codes: 0 after a graceful stop, 1 where options or the
address are wrong, 2 where the command line cannot be read.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from hmac_gateway.logs import AccessLog
from hmac_gateway.serving import Listener, serve
from hmac_gateway.supervisor import GRACE_SECONDS, check_free

from .app import App
from .flags import BadFlag, HelpWanted, usage
from .options import FLAGS, Invalid, Options, read

PROGRAM: Final = "hmacproxy"


def main(arguments: Sequence[str]) -> int:
    """Read `arguments` and serve; the exit code."""
    try:
        options, ignored = read(arguments, os.environ)
    except HelpWanted:
        print(usage(PROGRAM, FLAGS), file=sys.stderr)
        return 0
    except BadFlag as error:
        print(error, usage(PROGRAM, FLAGS), sep="\n", file=sys.stderr)
        return 2
    except Invalid as error:
        print(error, file=sys.stderr)
        return 1
    overlooked = [argument for argument in ignored if argument.startswith("-")]
    if overlooked:
        print(f"ignored, since they stand behind {ignored[0]!r}: {' '.join(overlooked)}", file=sys.stderr)
    for note in options.notes:
        print(note, file=sys.stderr)
    listener = Listener(PROGRAM, options.bind, options.port, options.ssl_cert, options.ssl_key)
    why = check_free(listener)
    if why is not None:
        print(f"listen tcp {listener.url.partition('://')[2]}: bind: {why.lower()}", file=sys.stderr)
        return 1
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(_serve(options, listener))
    else:
        uvloop.run(_serve(options, listener))
    return 0


async def _serve(options: Options, listener: Listener) -> None:
    app = App(options, log=AccessLog() if options.access_log else None)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)  # asked twice: at once
        stopping.set()
        loop.call_later(GRACE_SECONDS, os._exit, 0)

    serving = loop.create_task(serve(app, listener, stopping))
    announcing = loop.create_task(_announce(options, listener))
    # `serve` sets its own, which know no second time and no end of patience.
    await asyncio.sleep(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await serving
    announcing.cancel()


async def _announce(options: Options, listener: Listener) -> None:
    """Say that it serves, once it does: whoever waits for the line may connect at once."""
    while True:
        try:
            _, writer = await asyncio.open_connection(listener.host, listener.port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        print(options.start_line, flush=True)
        return
