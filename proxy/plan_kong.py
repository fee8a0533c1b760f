"""What goes upstream on a route of Kong's dialect: the path, and the headers that only Kong sends. Pure; no I/O.

Called by `plan`; built for by `compile_kong`. Imports `hmac_gateway` only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hmac_gateway.core.message import Message
from hmac_gateway.core.paths import ambiguity, decoded, raw_length
from hmac_gateway.routing_kong import Path

#: How this gateway calls itself in `Via` (RFC 9110 7.6.3): not as Kong, which it is not.
PSEUDONYM: Final = "hmac-gateway"
#: Milliseconds that an answer took which the gateway gives itself.
RESPONSE_LATENCY: Final = "x-kong-response-latency"
#: Set anew on these routes, whatever the client says.
FACTS: Final = frozenset({"x-forwarded-path", "x-forwarded-prefix", "x-kong-request-id", "via"})


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How a matched path becomes the upstream's.

    `base` is the service's path as it is sent; with `strip` what `path` has matched is taken away. `v1` is Kong's older
    way of joining the two (`path_handling`): without a slash of its own.
    """

    base: str = "/"
    strip: bool = True
    path: Path = Path("/")
    v1: bool = False
    #: Whether every path goes on as it came: the usual case costs nothing.
    same: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        cuts = self.strip and (self.path.regex is not None or self.path.prefix != "/")
        object.__setattr__(self, "same", self.base == "/" and not cuts)

    def apply(self, path: str) -> str | None:
        """The path to send for a raw path that has matched; None where what is left could be read in two ways."""
        if self.same:
            return path
        base = self.base
        if not self.strip:
            rest = path.lstrip("/")
            if self.v1 or base.endswith("/"):
                return base + rest
            return f"{base}/{rest}" if rest else base
        rest = path[self._end(path) :]
        if rest.startswith("/"):
            return f"{base.removesuffix('/')}/{rest.lstrip('/')}"
        if rest:
            made = base + rest if self.v1 else f"{base.removesuffix('/')}/{rest}"
            # A prefix need not end at a slash: of `/a../x` it may leave `../x`.
            return None if ambiguity(made) is not None else made
        if self.v1 or base == "/":
            return base
        # The slash at the end is the request's to decide about; a bare one gives none to a base that has none.
        bare = base.removesuffix("/")
        return bare + "/" if path.endswith("/") and (path.strip("/") or base != bare) else bare

    def taken(self, path: str) -> str:
        """What is taken from a raw path that has matched, as X-Forwarded-Prefix names it; "" for none or a slash."""
        if not self.strip:
            return ""
        prefix = path[: self._end(path)]
        return prefix if prefix.strip("/") else ""

    def _end(self, path: str) -> int:
        form = decoded(path)
        end = self.path.end(form)
        return end if form == path else raw_length(path, end)


def proxied_headers(
    request_id: str, seconds: float, upstream_seconds: float, version: str, headers: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """What clients and scripts of Kong read on an answer of the upstream's: latencies in milliseconds, the id, Via.

    `seconds` is what everything took, `upstream_seconds` how much of it the upstream; `version` and `headers` are its
    answer's.
    """
    via = [value for name, value in headers if name == b"via"]
    via.append(f"{version} {PSEUDONYM}".encode())
    return [
        (b"x-kong-upstream-latency", b"%d" % round(upstream_seconds * 1000)),
        (b"x-kong-proxy-latency", b"%d" % round(max(0.0, seconds - upstream_seconds) * 1000)),
        (b"x-kong-request-id", request_id.encode()),
        (b"via", b", ".join(via)),
    ]


def forwarded_lines(message: Message, rewrite: Rewrite, trusted: bool, request_id: str) -> str:
    """The header lines that only Kong adds; with `trusted` the client's own word on path and prefix stays."""
    path = message.path
    before = ", ".join(message.get_all("via"))
    # granian's word for HTTP/1.0 is "1".
    version = "1.0" if message.http_version == "1" else message.http_version
    via = f"{version} {PSEUDONYM}"
    forwarded = (trusted and message.get("x-forwarded-path")) or path
    prefix = (trusted and message.get("x-forwarded-prefix")) or rewrite.taken(path)
    lines = f"x-forwarded-path: {forwarded}\r\n"
    if prefix:
        lines += f"x-forwarded-prefix: {prefix}\r\n"
    return f"{lines}via: {f'{before}, {via}' if before else via}\r\nx-kong-request-id: {request_id}\r\n"
