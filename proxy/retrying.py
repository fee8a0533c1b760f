"""When an exchange that failed is tried again, and on which node. Both lanes ask; nothing here waits or sends.

Imports the core, `.exchange` and `.plan`. docs/balancing.md is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from hmac_gateway.core.identity import Identity
from hmac_gateway.core.message import Message

from .exchange import ConnectFailed, NameUnresolved, ReadTimeout, SendTimeout, TransportError, UpstreamBroken, status_of
from .plan import Node, Upstream

Choose = Callable[[Upstream, Collection[str], Message, Identity], Node | None]

#: Nobody asked for anything to be changed (RFC 9110 9.2.1): these may reach two nodes.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def may_repeat(method: str, repeatable: bool, error: TransportError) -> bool:
    """Whether a request that was sent may go to another node. `repeatable`: it has no body, or one that is kept.

    As nginx does it for both originals (`proxy_next_upstream error timeout`), where no byte of an answer came; and,
    more careful than nginx, for safe methods only.
    """
    if method not in SAFE_METHODS or not repeatable:
        return False
    return isinstance(error, ReadTimeout | SendTimeout) or (isinstance(error, UpstreamBroken) and error.silent)


class Retries:
    """The tries of one exchange. Made when the first has failed; `failed` gets the status of each that is repeated."""

    __slots__ = ("_about", "_count", "_failed", "_tried", "_upstream")

    def __init__(self, upstream: Upstream, failed: list[int], message: Message, identity: Identity) -> None:
        self._upstream = upstream
        self._failed = failed
        self._about = (message, identity)
        self._count = 0
        self._tried: list[str] = []

    def after(self, node: Node, error: TransportError, seconds: float, choose: Choose) -> Node:
        """The node to try next, when `node` failed with `error`, `seconds` after the first try began.

        Raises `error` where there is none, or a ConnectFailed that says why. `choose` is the balancer's.
        """
        upstream = self._upstream
        self._tried.append(node.key)
        self._count += 1
        if self._count > upstream.retries:
            raise error
        if isinstance(error, NameUnresolved) and len(upstream.nodes) == 1:
            raise error
        if 0 < upstream.retry_timeout <= seconds:
            raise ConnectFailed(f"{error}; retry_timeout is over") from error
        found = choose(upstream, self._tried, *self._about)
        if found is None and upstream.again:
            self._tried.clear()
            found = choose(upstream, (), *self._about)
        if found is None:
            raise error
        self._failed.append(status_of(error))
        return found
