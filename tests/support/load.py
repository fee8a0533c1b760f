"""Many raw requests at once, and a steady load, over plain sockets: nothing repeats or hides a failure."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


def raw(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """The bytes of a request on a connection of its own."""
    lines = [f"{method} {target} HTTP/1.1", "host: gateway", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _ask(port: int, data: bytes, ready: asyncio.Event) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await ready.wait()
        writer.write(data)
        line = await reader.readline()
        await reader.read()
        return int(line.split()[1])
    finally:
        writer.close()


def storm(port: int, requests: list[bytes]) -> Counter[int]:
    """Statuses of requests that are all sent in one moment, each on a connection that was open before."""

    async def run() -> Counter[int]:
        ready = asyncio.Event()
        asks = [asyncio.create_task(_ask(port, data, ready)) for data in requests]
        await asyncio.sleep(0.3)
        ready.set()
        return Counter(await asyncio.wait_for(asyncio.gather(*asks), 60))

    return asyncio.run(run())


@dataclass
class Outcome:
    """One request of a load: `status` 0 is no answer; `partial` one that broke off."""

    status: int = 0
    body: bytes = b""
    partial: bool = False
    worker: str = ""
    request: bytes = field(default=b"", repr=False)


class Load:
    """`clients` clients that keep sending what `make` gives, one request per connection, until `stop`."""

    def __init__(self, port: int, make: Callable[[], bytes], clients: int = 8) -> None:
        self.outcomes: list[Outcome] = []
        self._port, self._make, self._clients = port, make, clients
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[Outcome]:
        """Let running requests end; all outcomes."""
        self._stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.outcomes

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def _client(self) -> None:
        while not self._stopping:
            outcome = Outcome(request=self._make())
            self.outcomes.append(outcome)
            try:
                await asyncio.wait_for(self._once(outcome), 30)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)

    async def _once(self, outcome: Outcome) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(outcome.request)
            head = await reader.readuntil(b"\r\n\r\n")
            outcome.partial = True
            lowered = head.lower()
            if found := re.search(rb"x-request-id: (\w{20})", lowered):
                outcome.worker = found[1].decode()
            length = re.search(rb"content-length: (\d+)", lowered)
            outcome.body = await (reader.readexactly(int(length[1])) if length else reader.read())
            outcome.status, outcome.partial = int(head.split()[1]), False
        finally:
            writer.close()
