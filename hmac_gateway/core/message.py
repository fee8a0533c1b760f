"""One HTTP request's head as it was received: the input of every check.

Built by the adapters (ASGI, WSGI, a pasted request), read by schemes, plugins and the router. Standard library
only. Text is "bytes as text": every character is one byte (latin-1), as in PEP 3333, so nothing that a client
signed is lost or repaired.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import Final

#: Headers that must not come twice: two readers could each believe a different one (RFC 9110 5.3, 7.2).
SINGLETONS: Final = frozenset(
    {"authorization", "proxy-authorization", "date", "x-date", "digest", "host", "content-length"}
)

_NONE: Final[frozenset[str]] = frozenset()

#: The part of an absolute form that is not path and query.
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.I | re.A)


class Headers:
    """Headers that a host keeps in a form of its own, each once: looked up there, for as long as that will do."""

    __slots__ = ()

    def get(self, name: str, /) -> str | None:
        """The value of a header (name in lower case) without surrounding blanks, or None."""
        raise NotImplementedError

    def items(self) -> Iterable[tuple[str, str]]:
        """All of them, names in lower case."""
        raise NotImplementedError


#: Made once: `dict | Headers` would be made for each message.
_KEPT: Final = (dict, Headers)


class Message:
    """A request head, normalised once: header names in lower case, values without surrounding blanks.

    A dict of headers, or `Headers`, is taken as normalised already. `target` is the request target exactly as on the
    request line; where the host has lost it, `target_exact` is False and `target` is rebuilt from the decoded path.
    `remote_addr` is the peer's address. Treat instances as frozen.

    `get(name)` is the first value of a header (name in lower case), or None.
    """

    __slots__ = (
        "_first",
        "_pairs",
        "authority",
        "duplicated",
        "get",
        "http_version",
        "method",
        "remote_addr",
        "scheme",
        "target",
        "target_exact",
    )

    #: The dictionary's own method: every check reads headers, and one of ours around it would take thrice as long.
    get: Callable[[str], str | None]

    def __init__(
        self,
        method: str,
        target: str | bytes,
        headers: Iterable[tuple[str | bytes, str | bytes]] | dict[str, str] | Headers,
        scheme: str = "http",
        authority: str | None = None,
        http_version: str = "1.1",
        remote_addr: str = "",
        target_exact: bool = True,
    ) -> None:
        self.method = method
        self.target = target.decode("latin-1") if isinstance(target, bytes) else target
        first: dict[str, str] | Headers
        pairs: list[tuple[str, str]] | None = None
        self.duplicated = _NONE
        if isinstance(headers, _KEPT):
            first = headers
        else:
            first = found = {}
            pairs = []
            # A list first: a set made anew for each would take time with the square of their number.
            twice: list[str] = []
            for name, value in headers:
                # The branches are the constructor's whole cost: ASGI gives bytes, everything else text.
                if isinstance(name, bytes):
                    name = name.decode("latin-1")
                if isinstance(value, bytes):
                    value = value.decode("latin-1")
                name = name.lower()
                value = value.strip(" \t")
                pairs.append((name, value))
                if name in found:
                    twice.append(name)
                else:
                    found[name] = value
            if twice:
                self.duplicated = frozenset(twice)
        self._pairs = pairs
        self._first = first
        self.get = first.get
        self.scheme = scheme
        self.authority = (first.get("host") or "") if authority is None else authority
        self.http_version = http_version
        self.remote_addr = remote_addr
        self.target_exact = target_exact

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All headers as (name in lower case, value), in the order received."""
        pairs = self._pairs
        if pairs is None:
            pairs = self._pairs = list(self._first.items())
        return pairs

    def get_all(self, name: str) -> list[str]:
        """Every value of a header (name in lower case), in the order received."""
        if name not in self.duplicated:
            value = self.get(name)
            return [] if value is None else [value]
        return [v for n, v in self.headers if n == name]

    @property
    def path(self) -> str:
        """The raw path of the target: no query, no scheme and authority of an absolute form (RFC 9112 3.2.2)."""
        return split_target(self.target)[0]

    @property
    def query(self) -> str:
        """The raw query, without `?`."""
        return split_target(self.target)[1]

    @property
    def content_length(self) -> int | None:
        """Content-Length in bytes, or None when it is absent or not a number."""
        value = self.get("content-length")
        if value is None or not (value.isascii() and value.isdigit()):
            return None
        # int() refuses thousands of digits; a number that long is over every limit.
        return int(value) if len(value) <= 18 else sys.maxsize

    @property
    def may_have_body(self) -> bool:
        """Whether a body is announced (RFC 9112 6.3): a length above zero, or a transfer coding."""
        return bool(self.content_length) or self.get("transfer-encoding") is not None

    def __repr__(self) -> str:
        # Headers carry secrets; a repr ends in logs.
        return f"<Message {self.method} {self.path} HTTP/{self.http_version}>"


def split_target(target: str) -> tuple[str, str]:
    """(raw path, raw query) of a request target; absolute forms are reduced (RFC 9112 3.2.2).

    A fragment, which no request target may hold, stays in the path: `paths.ambiguity` refuses it.
    """
    if not target.startswith("/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            target = target[absolute.end() :]
            if not target.startswith("/"):
                target = "/" + target
    path, _, query = target.partition("?")
    return path, query


def host_of(authority: str) -> str:
    """The host of `host:port`, without the port and a final dot (as nginx); an IPv6 address keeps its brackets."""
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0].removesuffix(".")
