"""Query arguments and cookies by name: finding what a credential stands in, and taking it away.

Called by plugins, and by the proxy for `hide_credentials`. Standard library only. Text is bytes as text, as in
`message`; what is not taken away keeps its order and its spelling.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from urllib.parse import unquote_to_bytes


def decoded(text: str) -> str:
    """A name or value of a query as it is meant: escapes decoded, `+` a blank, as nginx's Lua module reads them.

    An escape that is none stays as it is.
    """
    if "%" not in text and "+" not in text:
        return text
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("latin-1")


def arguments(query: str, name: str) -> list[str | None]:
    """Every value of a query argument, decoded, in the order received; None for one without `=`.

    `query` is raw and without its `?`; `name` is compared with decoded names, with case.
    """
    if name not in query and "%" not in query and "+" not in query:
        return []
    found: list[str | None] = []
    for piece in query.split("&"):
        key, equals, value = piece.partition("=")
        if decoded(key) == name:
            found.append(decoded(value) if equals else None)
    return found


def without_arguments(query: str, names: Container[str]) -> str:
    """A raw query less the arguments of these (decoded) names; the very same text where there is none."""
    return "&".join([piece for piece in query.split("&") if decoded(piece.partition("=")[0]) not in names])


def cookies(headers: Iterable[str], name: str) -> list[str]:
    """Every value of a cookie as it was sent, in the order received; names are compared with case.

    `headers` are the values of all `Cookie` headers (RFC 6265 4.2.1; HTTP/2 may split one).
    """
    found = []
    for header in headers:
        if name in header:
            for pair in header.split(";"):
                key, equals, value = pair.partition("=")
                if equals and key.strip(" \t") == name:
                    found.append(value.strip(" \t"))
    return found


def without_cookies(header: str, names: Container[str]) -> str:
    """A `Cookie` header's value less the cookies of these names, the others joined by `; `; as it was without any."""
    pairs = header.split(";")
    kept = [pair for pair in pairs if pair.partition("=")[0].strip(" \t") not in names]
    return header if len(kept) == len(pairs) else "; ".join(text for pair in kept if (text := pair.strip(" \t")))
