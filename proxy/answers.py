"""An upstream's answer as a Django response: streamed, with its headers as they came, cut where it was cut.

Built by `views`. Imports Django, plan and the blocking transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Container, Iterator
from typing import Final

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from .exchange import Response
from .plan import returned_headers
from .sync_transport import SyncConnection

#: Not passed on: PEP 3333 leaves the first to the server, and servers write the others whether they are there or not.
_SERVERS_OWN: Final = frozenset({b"proxy-authenticate", b"date", b"server"})


class Body:
    """The body as it comes. Iterated by WSGI servers, and by `AsyncBody` under ASGI.

    Raises UpstreamBroken or ReadTimeout where it was cut short or stopped, so that the server in front cuts its
    connection too. `interrupt` and `close` may come from another thread, also in the middle of a read.
    """

    def __init__(self, connection: SyncConnection, response: Response) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._open = not response.complete
        # Servers send the head with the first piece. One without bytes lets it go at once, as streams of events need,
        # and before a failure could turn it into a 500.
        self._ready = [response.body, b""] if response.body else [b""]
        if response.complete:
            # Before the client has its answer: its next request finds the connection idle.
            connection.release()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self.take()
        if piece is None:
            raise StopIteration
        return piece

    def take(self) -> bytes | None:
        """What comes next; None at the end of a whole body."""
        if self._ready:
            return self._ready.pop()
        with self._lock:
            if not self._open:
                return None
            try:
                data = self._connection.read()
            except BaseException:
                self._open = False
                self._connection.abort()
                raise
            if not data:
                self._open = False
                self._connection.release()
                return None
            return data

    def interrupt(self) -> None:
        """Make a read in another thread end at once."""
        if self._open:
            self._connection.interrupt()

    def close(self) -> None:
        """Give up the rest."""
        self.interrupt()
        with self._lock:
            if self._open:
                self._open = False
                self._connection.abort()

    def __del__(self) -> None:
        # Middleware may answer in the place of our response, which nobody closes then (ConditionalGetMiddleware).
        self.close()


class AsyncBody:
    """The same for Django's ASGI handler: each piece is read in the request's own thread."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        reading = asyncio.ensure_future(sync_to_async(self._body.take)())
        try:
            piece = await asyncio.shield(reading)
        except asyncio.CancelledError:
            # The client left, and the thread would wait for the upstream's next word.
            self._body.interrupt()
            with contextlib.suppress(Exception):
                await reading
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """Give up the rest."""
        self._body.close()


class UpstreamResponse(StreamingHttpResponse):
    """Always streamed, also when it is short: what middleware does with it must not depend on how bytes arrive.

    Django keeps one value per header name. Here `items()`, which is what both of Django's handlers send, repeats lines
    as they came, unless middleware has changed or deleted the header, which it sees as one value joined by commas.
    Set-Cookie cannot be joined (RFC 6265 3): it is shown to nobody and always sent, beside the site's own cookies,
    except where it would set one of `own_cookies`, which are the site's.
    """

    def __init__(self, body: Body, response: Response, *, asynchronous: bool, own_cookies: Container[str] = ()) -> None:
        super().__init__(AsyncBody(body) if asynchronous else body)
        # Behind Django's own check, which knows no status above 599.
        self.status_code = response.status
        del self.headers["Content-Type"]
        self._repeated: dict[str, list[str]] = {}
        self._cookie_lines: list[str] = []
        for raw_name, raw_value in returned_headers(response.headers):
            if raw_name in _SERVERS_OWN:
                continue
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name == "set-cookie":
                if value.partition("=")[0].strip() not in own_cookies:
                    self._cookie_lines.append(value)
            elif name in self.headers:
                self._repeated.setdefault(name, [self.headers[name]]).append(value)
                self.headers[name] = ", ".join(self._repeated[name])
            else:
                self.headers[name] = value
        if response.status == 204:
            del self.headers["content-length"]  # RFC 9110 8.6

    def add_cookie(self, line: str) -> None:
        """A Set-Cookie of the gateway's own, beside the upstream's."""
        self._cookie_lines.append(line)

    def items(self) -> Iterator[tuple[str, str]]:
        """Every header line as it is sent."""
        for name, value in self.headers.items():
            lines = self._repeated.get(name.lower())
            if lines is not None and value == ", ".join(lines):
                yield from ((name, line) for line in lines)
            else:
                yield name, value
        for value in self._cookie_lines:
            yield "set-cookie", value
