"""An upstream for trying things out: says what it received, as httpbin's `/anything` does.

Served by `hmac_demo` and the tests; an ASGI application without any import of ours.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

#: Bytes of a body that are shown; the rest is read and counted.
MAX_SHOWN = 1024 * 1024


async def echo(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer 200 with method, url, args, headers and body as JSON; `/status/N` answers N."""
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    body = b""
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size += len(event["body"])
        body += event["body"][: max(0, MAX_SHOWN - len(body))]
        if not event.get("more_body"):
            break
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        # Title case and joined duplicates, as httpbin shows them.
        key = "-".join(part.capitalize() for part in name.decode("latin-1").split("-"))
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    query = scope["query_string"].decode("latin-1")
    target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    try:
        parsed = json.loads(body) if body else None
    except ValueError:
        parsed = None
    answer = {
        "args": dict(parse_qsl(query, keep_blank_values=True)),
        "data": body.decode("utf-8", "replace"),
        "headers": headers,
        "json": parsed,
        "method": scope["method"],
        "origin": headers.get("X-Forwarded-For", scope["client"][0] if scope["client"] else ""),
        "size": size,
        "url": f"{headers.get('X-Forwarded-Proto', scope['scheme'])}://{headers.get('Host', '')}{target}",
    }
    text = json.dumps(answer, indent=2, sort_keys=True).encode() + b"\n"
    first, _, last = scope["path"].strip("/").partition("/")
    status = int(last) if first == "status" and last.isdigit() and 200 <= int(last) <= 599 else 200
    length = (b"content-length", b"%d" % len(text))
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json"), length]}
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})
