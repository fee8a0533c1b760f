"""A pasted HTTP request → Message: what `hmac_explain --raw` and the console's debugger read.

Takes what people have at hand: a request as sent, or the `>` lines of `curl -v`. Imports `core` only.
"""

from __future__ import annotations

import re

from .core.errors import ConfigError
from .core.message import Message

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+)(?: HTTP/(\d(?:\.\d)?))?")


def parse_raw(data: bytes) -> tuple[Message, bytes]:
    """(message, body) of a pasted request; raises ConfigError("raw", …) where it cannot be read.

    Lines may end in LF or CRLF. With `curl -v` output only the lines that begin with `> ` count, and the body, which
    curl does not show, is empty.
    """
    text = data.decode("latin-1")
    body = ""
    if re.search(r"(?m)^> ", text):
        lines = [line[2:].rstrip("\r") for line in text.split("\n") if line.startswith("> ")]
    else:
        head, gap, body = text.lstrip("\r\n").partition("\r\n\r\n" if "\r\n\r\n" in text else "\n\n")
        lines = [line.rstrip("\r") for line in head.split("\n")]
        body = body if gap else ""
    match = _REQUEST_LINE.fullmatch(lines[0].strip()) if lines else None
    if match is None:
        raise ConfigError("raw", lines[0] if lines else "", "a request line first, as in GET /path HTTP/1.1")
    headers: list[tuple[str | bytes, str | bytes]] = []
    for line in lines[1:]:
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ConfigError("raw", line, "header lines, as in Date: Sun, 06 Nov 1994 08:49:37 GMT")
        headers.append((name, value))
    return Message(match[1], match[2], headers, http_version=match[3] or "1.1"), body.encode("latin-1")
