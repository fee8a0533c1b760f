"""The forms of Kong's error bodies: JSON, plain text, HTML or XML, whichever the client would rather have.

Called by `words`. Standard library only. Kong writes values as they are; here they are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Final

JSON: Final = "application/json"
_KINDS: Final = {
    JSON: JSON,
    "application/*": JSON,
    "*/*": JSON,
    "text/plain": "text/plain",
    "text/*": "text/plain",
    "text/html": "text/html",
    "application/xml": "application/xml",
}
#: As many alternatives of an Accept header as are looked at.
_MOST: Final = 32


def preferred(accept: str | None) -> str:
    """The media type that Accept (RFC 9110 12.5.1) asks for most, of those there are; JSON where it asks for none."""
    best, kind = 0.0, JSON
    for part in (accept or "").split(",", _MOST)[:_MOST]:
        name, *parameters = part.split(";")
        found = _KINDS.get(name.strip().lower())
        quality = _quality(parameters)
        if found is not None and quality > best:
            best, kind = quality, found
    return kind


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            try:
                return min(float(value), 1.0) if value.isascii() and len(value) <= 5 else 0.0
            except ValueError:
                return 0.0
    return 1.0


def rendered(body: Mapping[str, str], request_id: str, accept: str | None) -> tuple[str, str]:
    """(media type, text without its last line end) of an error whose first entry is what the client shall read."""
    kind = preferred(accept)
    text = next(iter(body.values()))
    named = {**dict(list(body.items())[1:]), "request_id": request_id}
    if kind == "text/plain":
        content = "\n".join([text, *(f"{name}: {value}" for name, value in named.items())])
    elif kind == "text/html":
        paragraphs = "".join(f"    <p>{escape(name)}: {escape(value)}</p>\n" for name, value in named.items())
        content = (
            '<!doctype html>\n<html>\n  <head>\n    <meta charset="utf-8">\n    <title>Error</title>\n  </head>\n'
            f"  <body>\n    <h1>Error</h1>\n    <p>{escape(text)}.</p>\n{paragraphs}  </body>\n</html>"
        )
    elif kind == "application/xml":
        elements = "".join(
            f"  <{tag}>{escape(value)}</{tag}>\n"
            for tag, value in (("message", text), *((name.replace("_", ""), value) for name, value in named.items()))
        )
        content = f'<?xml version="1.0" encoding="UTF-8"?>\n<error>\n{elements}</error>'
    else:
        content = json.dumps({**body, "request_id": request_id}, indent=2)
    return f"{kind}; charset=utf-8", content
