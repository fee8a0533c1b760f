"""Consistent hashing: which text of a request decides on its node, and which node a text belongs to.

Used by `balancers` for upstreams of type chash, and by the lanes. Imports `hmac_gateway.expr`, its core, and `.plan`.
Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in an exponential race) over a fixed number of
slots: a slot's order of nodes depends on addresses and weights alone, so every worker and machine finds the same one,
and a node that comes, goes or changes its weight moves no text between two others.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from math import log
from random import random
from typing import Final
from uuid import uuid4

from hmac_gateway.core.errors import ConfigError
from hmac_gateway.core.identity import Identity
from hmac_gateway.core.message import Message
from hmac_gateway.core.paths import decoded
from hmac_gateway.expr import Value, variable
from hmac_gateway.routing_kong import Path

from .plan import Node, Upstream

#: What requests bring to decide on their node: never empty.
Reader = Callable[[Message, Identity], str]

#: How many slots texts are sorted into: a node's share is off by about one in the square root of its slots.
SLOTS: Final = 1 << 14

_VARIABLE: Final = re.compile(r"\$(?:\{([0-9A-Za-z_]+)\}|([0-9A-Za-z_]+))")
#: How a variable is called that `hash_on` and a key stand for.
_PREFIXES: Final = {"header": "http_", "cookie": "cookie_", "query_arg": "arg_"}
#: Kong's names, in terms of variables.
_KONG: Final = {"ip": "remote_addr", "path": "uri"}


def reader(hash_on: str, key: str, fallback: tuple[str, str] | None = None, captures: Path | None = None) -> Reader:
    """What `hash_on` and `key` of an upstream take from a request; never empty.

    `hash_on` is vars (or ""), header, cookie, consumer or vars_combinations (`$uri$http_x`, `${uri}`): where that is
    nothing, the remote address. Variables that are not known here are empty: a hash key never makes a configuration
    unusable. Kong's are none, consumer, ip, header, cookie, path, query_arg and uri_capture, a group of the path
    `captures`: where that is nothing, what `fallback` takes, and where that is nothing, chance.
    """
    first = _taking(hash_on, key, captures)
    if fallback is None:
        return lambda message, identity: first(message, identity) or message.remote_addr
    second = _taking(*fallback, captures)
    return lambda message, identity: first(message, identity) or second(message, identity) or str(random())


def newcomer(upstream: Upstream, message: Message, identity: Identity) -> tuple[Message, str]:
    """The message as it decides on its node, and a Set-Cookie for who comes without the cookie that decides ("": none).

    Kong: from then on the client comes to the same node.
    """
    assert upstream.cookie is not None  # asked of others, it would be waste
    name, path = upstream.cookie
    if _taking("cookie", name, None)(message, identity):
        return message, ""
    if upstream.hash_on != "cookie" and _taking(upstream.hash_on, upstream.key, upstream.captures)(message, identity):
        return message, ""
    made = str(uuid4())
    headers = [*message.headers, ("cookie", f"{name}={made}")]
    seen = Message(
        message.method,
        message.target,
        headers,
        message.scheme,
        message.authority,
        message.http_version,
        message.remote_addr,
    )
    return seen, f"{name}={made}; Path={path}; HttpOnly"


def _taking(hash_on: str, key: str, captures: Path | None) -> Reader:
    """What one input takes from a request, "" for nothing."""
    if hash_on == "none":
        return lambda message, identity: ""
    if hash_on == "consumer":
        return lambda message, identity: _consumer(identity)
    if hash_on == "vars_combinations":
        return _combination(key)
    if hash_on == "uri_capture":
        if captures is None:
            return lambda message, identity: ""
        return lambda message, identity: captures.capture(decoded(message.path), key)
    value = _variable(_KONG.get(hash_on) or _PREFIXES.get(hash_on, "") + key)
    return lambda message, identity: _text(value(message))


def _consumer(identity: Identity) -> str:
    consumer = identity.consumer
    return "" if consumer is None else consumer.username or consumer.id


def _variable(name: str) -> Callable[[Message], Value]:
    try:
        return variable(name)
    except ConfigError:
        return lambda message: None


def _text(value: Value) -> str:
    return value if isinstance(value, str) else ""


def _combination(key: str) -> Reader:
    """A text with variables in it; with none of them there, nothing."""
    pieces: list[tuple[str, Callable[[Message], Value] | None]] = []
    end = 0
    for found in _VARIABLE.finditer(key):
        pieces.append((key[end : found.start()], _variable(found[1] or found[2])))
        end = found.end()
    rest = key[end:]

    def read(message: Message, identity: Identity) -> str:
        values = [(before, _text(value(message)) if value else "") for before, value in pieces]
        if not any(value for _, value in values):
            return ""
        return "".join(before + value for before, value in values) + rest

    return read


class Slots:
    """One upstream's nodes, sorted by priority, and what was found out about each slot: 64 KiB, filled as asked."""

    __slots__ = ("_best", "_nodes", "_owners")

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._best = _first_rank(nodes)
        # 0: nobody asked for this slot yet; else the node's place and 1.
        self._owners = array("I", bytes(array("I").itemsize * SLOTS))

    def node(self, text: str, tried: Collection[str] = ()) -> Node | None:
        """The node that a text belongs to; with `tried` the next one in its order, None when all were tried."""
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        slot = int.from_bytes(digest, "big") % SLOTS
        if tried:
            left = _first_rank([node for node in self._nodes if node.key not in tried])
            return left[_owner(slot, left)] if left else None
        if not self._nodes:
            return None
        place = self._owners[slot]
        if not place:
            place = self._owners[slot] = _owner(slot, self._best) + 1
        return self._best[place - 1]


def _first_rank(nodes: Sequence[Node]) -> Sequence[Node]:
    return [node for node in nodes if node.priority == nodes[0].priority]


def _owner(slot: int, nodes: Sequence[Node]) -> int:
    """The place of the node that a slot belongs to: the first in a race of exponentially distributed times."""

    def time(place: int) -> float:
        node = nodes[place]
        digest = blake2b(f"{slot} {node.key}".encode(), digest_size=8).digest()
        # 52 bits and a half: never 0 or 1.
        unit = ((int.from_bytes(digest, "big") >> 12) + 0.5) / (1 << 52)
        return -log(unit) / node.weight

    return min(range(len(nodes)), key=time)
