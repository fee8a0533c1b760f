"""Sends one request to an upstream's node and waits for the head of its answer, blocking: the embedded lane's half.

Called by `views` with what `plan` has made. Connections and the balancer's rotations are the process's, shared by its
threads. Retries are those of `gateway.Gateway._exchange`. Imports `hmac_gateway.core`, plan, balancer, transport.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message

from .balancers import Balancer, Turn
from .exchange import (
    ConnectFailed,
    ConnectTimeout,
    ReadTimeout,
    Response,
    SendTimeout,
    Timeouts,
    TransportError,
    UpstreamBroken,
)
from .plan import Node, Upstream, host_header, request_head
from .retrying import Retries, may_repeat
from .signing import Signature
from .sync_transport import SyncConnection, SyncPool


class Upload(Protocol):
    """A request's body."""

    @property
    def framing(self) -> str:
        """The header line that frames it upstream; "" for a request without one."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    @property
    def repeatable(self) -> bool:
        """Whether `pieces` may be asked for again."""

    def pieces(self) -> Iterator[bytes]:
        """The body from its start. Raises whatever says that the client broke off."""


class Plan(NamedTuple):
    """What is sent, the same for every node that is tried: target and lines as `plan` makes them.

    `identity` may decide on the node, and `chooser`, the message where it is not given; `signature` is made anew for
    each.
    """

    upstream: Upstream
    timeouts: Timeouts
    target: str
    lines: str
    identity: Identity = NOBODY
    signature: Signature | None = None
    chooser: Message | None = None


class Forwarder:
    """What the threads of one process share: kept-alive connections, and whose turn it is."""

    def __init__(self) -> None:
        self.pool = SyncPool()
        self._balancer = Balancer()
        # A body that nobody closed is given back by the garbage collector, whatever its thread is doing.
        self._lock = threading.RLock()
        self._upstreams: Mapping[str, object] = {}

    def forget(self, upstreams: Mapping[str, object]) -> None:
        """Drop the rotations of upstreams that a new snapshot does not have; costs nothing for the same snapshot."""
        if upstreams is not self._upstreams:
            with self._lock:
                self._upstreams = upstreams
                self._balancer.forget(upstreams)

    def exchange(
        self, message: Message, plan: Plan, upload: Upload, failed: list[int]
    ) -> tuple[SyncConnection, Response]:
        """Send the request and wait for the response head, on another node or connection where that is safe.

        Nothing was sent when connecting failed: the next node may be tried, and `failed` gets the status that stands
        for the one before. A reused connection that closed without a byte of answer is tried once more on a new one,
        if the body can be sent again. Raises TransportError, or what reading the body raises; then no connection is
        left open.
        """
        upstream, timeouts, target, lines, identity, signature, chooser = plan
        chooser = chooser or message
        began = time.monotonic()
        retries: Retries | None = None
        fresh = False
        first = self._choose(upstream, (), chooser, identity)
        assert first is not None  # upstreams without nodes do not come so far
        node = first
        turn: Turn | None = None

        while True:
            if upstream.measured and not fresh:
                turn = Turn(self._balancer, upstream, node)
            connection = None if fresh else self.pool.take(node.target, upstream.keepalive)
            if connection is None:
                try:
                    connection = self.pool.connect(node.target, timeouts, upstream.keepalive)
                except BaseException as error:
                    if turn is not None:
                        self._end(turn)
                    if not isinstance(error, ConnectFailed | ConnectTimeout):
                        raise
                    if retries is None:
                        retries = Retries(upstream, failed, chooser, identity)
                    node = retries.after(node, error, time.monotonic() - began, self._choose)
                    fresh = False
                    continue
            make = request_head if signature is None else signature.head
            head = make(message, target, host_header(message, upstream, node), lines)
            try:
                response = _sent(connection, head, message.method, timeouts, upload)
            except BaseException as error:
                connection.abort()
                repeatable = not upload.size or upload.repeatable
                if isinstance(error, UpstreamBroken) and error.stale and repeatable and not fresh:
                    fresh = True
                    continue
                if turn is not None:
                    if isinstance(error, ReadTimeout | SendTimeout):
                        turn.answered()
                    self._end(turn)
                if not isinstance(error, TransportError) or not may_repeat(message.method, repeatable, error):
                    raise
                if retries is None:
                    retries = Retries(upstream, failed, chooser, identity)
                node = retries.after(node, error, time.monotonic() - began, self._choose)
                fresh = False
            else:
                if turn is not None:
                    turn.answered()
                    connection.over = partial(self._end, turn)
                return connection, response

    def _choose(self, upstream: Upstream, tried: Collection[str], message: Message, identity: Identity) -> Node | None:
        if len(upstream.nodes) == 1:
            return self._balancer.choose(upstream, tried)  # keeps no state then
        with self._lock:
            return self._balancer.choose(upstream, tried, message, identity)

    def _end(self, turn: Turn) -> None:
        with self._lock:
            turn.end()


def _sent(connection: SyncConnection, head: bytes, method: str, timeouts: Timeouts, upload: Upload) -> Response:
    """Send head and body; an answer that comes early ends the upload."""
    connection.start(head, method=method, timeouts=timeouts, body_follows=upload.size > 0)
    if upload.size:
        for piece in upload.pieces():
            if not connection.send(piece):
                break
        else:
            connection.finish()
    return connection.response()


_made = threading.Lock()
_forwarder: Forwarder | None = None


def forwarder() -> Forwarder:
    """This process's forwarder, made on first use."""
    global _forwarder
    if _forwarder is None:
        with _made:
            if _forwarder is None:
                _forwarder = Forwarder()
    return _forwarder


def _forked() -> None:
    """A child must not speak on its parent's connections; locks may have been held by a thread that it has not."""
    global _forwarder, _made
    inherited, _forwarder, _made = _forwarder, None, threading.Lock()
    if inherited is not None:
        inherited.pool.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
