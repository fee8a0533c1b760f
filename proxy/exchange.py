"""What an exchange with an upstream is made of: its target, its limits in time, its answer, its errors.

Plain values of both lanes' transports, of plans and of what is compiled. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class TransportError(Exception):
    """The exchange with the upstream failed and its connection is closed. `kind` is a short stable name."""

    kind = "transport"


class ConnectFailed(TransportError):
    """No connection: the name is unknown, the node refused, or TLS failed. Nothing was sent."""

    kind = "connect_failed"


class NameUnresolved(ConnectFailed):
    """The node's name has no address, as far as can be found out. Nothing was sent."""

    kind = "name_unresolved"


class ConnectTimeout(TransportError):
    """No connection within `Timeouts.connect`. Nothing was sent."""

    kind = "connect_timeout"


class SendTimeout(TransportError):
    """The upstream took no request bytes for `Timeouts.send`."""

    kind = "send_timeout"


class ReadTimeout(TransportError):
    """The upstream sent nothing for `Timeouts.read` while something was awaited."""

    kind = "read_timeout"


class UpstreamBroken(TransportError):
    """The response is malformed or cut short, or the connection closed before it.

    `stale` is true when a reused connection closed without one byte of response: the node may simply have
    dropped an idle connection, and another attempt is safe if the request body was not consumed. `silent`: no byte of
    response came, whatever the connection.
    """

    kind = "broken"

    def __init__(self, message: str, *, stale: bool = False, silent: bool = False) -> None:
        super().__init__(message)
        self.stale = stale
        self.silent = silent or stale


def status_of(error: TransportError) -> int:
    """The status that stands for an attempt that failed: 504 where a node took too long, else 502 (nginx)."""
    return 504 if isinstance(error, ConnectTimeout | SendTimeout | ReadTimeout) else 502


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes, and the key under which it is kept: reused for an equal target only.

    `host` is a name or an address (IPv6 without brackets). With `tls`, `server_name` (else `host`) is sent as
    SNI and must be in the certificate, unless `verify` is off; `ca_file` replaces the system's roots;
    `client_cert` is (certificate file, key file), both PEM.
    """

    host: str
    port: int
    tls: bool = False
    server_name: str | None = None
    verify: bool = True
    ca_file: str | None = None
    client_cert: tuple[str, str] | None = None
    # Looked up on every request: hash seven fields once.
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        key = (self.host, self.port, self.tls, self.server_name, self.verify, self.ca_file, self.client_cert)
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, each > 0: for all of connecting (DNS, TCP, TLS), between two writes, between two reads."""

    connect: float
    send: float
    read: float

    def __post_init__(self) -> None:
        if not (self.connect > 0 and self.send > 0 and self.read > 0):
            raise ValueError("timeouts must be greater than 0")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """How many idle connections to keep per target, for how many seconds, and for how many requests each."""

    size: int = 320
    idle_timeout: float = 60.0
    requests: int = 1000


@dataclass(slots=True)
class Response:
    """A final response head: names in lower case, in the order received, trailers never included.

    When `complete`, the whole body has arrived, is in `body`, and `read` need not be called; otherwise `body`
    is empty and everything comes from `read`.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    http_version: str
    complete: bool
    body: bytes
