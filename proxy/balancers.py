"""Which node is next. State lives here, outside the snapshot, keyed by upstream and node; one Balancer per worker.

Called by both lanes. Imports `plan`, `hashing` and the core's identity. Without locks: the event loop needs none, and
threads hold one around every call (`forwarding`). docs/balancing.md is the reference of the types.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from math import exp
from typing import Final

from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message

from .hashing import Reader, Slots, reader
from .plan import Node, Upstream

#: ewma: seconds in which what was measured loses about two thirds of its say (APISIX).
DECAY: Final = 10.0
#: How many ways to read hash keys are kept for one upstream.
MOST_READERS: Final = 1024


class _State:
    """What is remembered of one upstream. Of a predecessor with other nodes or weights all is kept that still fits."""

    __slots__ = ("active", "current", "nodes", "readers", "slots", "times")

    def __init__(self, nodes: tuple[Node, ...], before: _State | None) -> None:
        self.nodes = nodes
        #: Running weights of the rotation; they lie between plus and minus the sum of all weights.
        self.current = dict.fromkeys((node.key for node in nodes), 0)
        #: Exchanges under way, by node; those of nodes that are gone stay until they have ended.
        self.active: dict[str, int] = {}
        #: Decayed seconds and when they were written, by node.
        self.times: dict[str, tuple[float, float]] = {}
        #: By what they read; routes of Kong's dialect may read one upstream's keys from paths of their own.
        self.readers: dict[object, Reader] = {}
        self.slots: Slots | None = None
        if before is not None:
            was, now = (sum(node.weight for node in state.nodes) for state in (before, self))
            for key in self.current.keys() & before.current.keys():
                self.current[key] = int(before.current[key] * now / was)
            self.active = before.active
            self.times = {key: kept for key, kept in before.times.copy().items() if key in self.current}


class Balancer:
    """Chooses nodes. A snapshot that leaves an upstream's nodes as they were leaves its state as it was.

    `clock` gives seconds that never go back, `dice` numbers from 0 to below 1.
    """

    __slots__ = ("_clock", "_dice", "_states")

    def __init__(self, clock: Callable[[], float] = time.monotonic, dice: Callable[[], float] = random.random) -> None:
        self._states: dict[str, _State] = {}
        self._clock = clock
        self._dice = dice

    def choose(
        self,
        upstream: Upstream,
        tried: Collection[str] = (),
        message: Message | None = None,
        identity: Identity = NOBODY,
    ) -> Node | None:
        """The next node whose key is not in `tried`, of the highest priority that has one; None when all were tried.

        Hashing reads `message` and `identity`. Where `upstream.measured`, each node chosen must be given back with
        `done`. A node of weight 0 gets nothing, unless every node has weight 0 (APISIX; `compile` sees to that).
        """
        nodes = upstream.nodes
        if len(nodes) == 1:
            return None if tried else nodes[0]
        state = self._states.get(upstream.id)
        if state is None or (state.nodes is not nodes and state.nodes != nodes):
            state = self._states[upstream.id] = _State(nodes, state)
        state.nodes = nodes
        if upstream.type != "roundrobin":
            return self._choose(state, upstream, tried, message, identity)
        # Smooth weighted round robin, as nginx does it: every cycle holds each node exactly as often as its weight
        # says, and equal nodes alternate.
        current = state.current
        best: Node | None = None
        total = 0
        for node in nodes:
            if node.key in tried:
                continue
            if best is not None and node.priority < best.priority:
                break  # nodes are sorted: this and all that follow are for when the better ones were tried
            weight = current[node.key] + node.weight
            current[node.key] = weight
            total += node.weight
            if best is None or weight > current[best.key]:
                best = node
        if best is not None:
            current[best.key] -= total
        return best

    def done(self, upstream: Upstream, node: Node, seconds: float | None) -> None:
        """An exchange with a node is over; for upstreams that are `measured`, once per node chosen.

        `seconds` is what its answer took to begin, None where that says nothing about the node.
        """
        state = self._states.get(upstream.id)
        if state is None:
            return
        key = node.key
        if upstream.type == "least_conn":
            left = state.active.get(key, 0) - 1
            if left > 0:
                state.active[key] = left
            else:
                state.active.pop(key, None)
        elif seconds is not None and key in state.current:
            now = self._clock()
            state.times[key] = (_decayed(state.times.get(key), now, seconds), now)

    def forget(self, known: Collection[str]) -> None:
        """Drop the state of upstreams that are gone; `known` are the ids that are left."""
        for gone in self._states.keys() - set(known):
            del self._states[gone]

    # --- the types that are not round robin ---

    def _choose(
        self, state: _State, upstream: Upstream, tried: Collection[str], message: Message | None, identity: Identity
    ) -> Node | None:
        if upstream.type == "chash":
            return _hashed(state, upstream, tried, message, identity)
        left = [node for node in state.nodes if node.key not in tried]
        left = [node for node in left if node.priority == left[0].priority]
        if not left:
            return None
        if upstream.type == "ewma":
            return self._faster(state, left)
        node = _in_turn(state, _least_loaded(state, left))
        state.active[node.key] = state.active.get(node.key, 0) + 1
        return node

    def _faster(self, state: _State, nodes: Sequence[Node]) -> Node:
        """Of two nodes drawn by lot the one that has answered faster (power of two choices)."""
        count = len(nodes)
        if count == 1:
            return nodes[0]
        one = int(self._dice() * count)
        other = int(self._dice() * (count - 1))
        if other >= one:
            other += 1
        now = self._clock()
        # What nobody has measured for a while is worth another look: it decays to nothing.
        times = [_decayed(state.times.get(nodes[place].key), now, 0.0) for place in (one, other)]
        return nodes[other if times[0] > times[1] else one]


class Turn:
    """One exchange's hold on a node of a measured upstream, from choosing to `end`."""

    __slots__ = ("_balancer", "_began", "_node", "_seconds", "_upstream")

    def __init__(self, balancer: Balancer, upstream: Upstream, node: Node) -> None:
        self._balancer: Balancer | None = balancer
        self._upstream = upstream
        self._node = node
        self._began = time.perf_counter()
        self._seconds: float | None = None

    def answered(self) -> None:
        """The answer has begun, or was waited for in vain: how long that took says something about the node."""
        self._seconds = time.perf_counter() - self._began

    def end(self) -> None:
        """Give the node back; further calls do nothing."""
        balancer, self._balancer = self._balancer, None
        if balancer is not None:
            balancer.done(self._upstream, self._node, self._seconds)


def _decayed(kept: tuple[float, float] | None, now: float, seconds: float) -> float:
    """The moving average with `seconds` as what was measured now."""
    if kept is None:
        return seconds
    value, written = kept
    share = exp(-max(0.0, now - written) / DECAY)
    return value * share + seconds * (1 - share)


def _least_loaded(state: _State, nodes: Iterable[Node]) -> list[Node]:
    """All nodes whose (active + 1) / weight is the least."""
    found: list[Node] = []
    load, by = 0, 1
    for node in nodes:
        mine = state.active.get(node.key, 0) + 1
        # Crosswise: a comparison of whole numbers, without rounding.
        difference = mine * by - load * node.weight
        if not found or difference < 0:
            found, load, by = [node], mine, node.weight
        elif difference == 0:
            found.append(node)
    return found


def _in_turn(state: _State, nodes: Sequence[Node]) -> Node:
    """The next in the rotation of these nodes; an idle upstream would otherwise wear out its first node."""
    if len(nodes) == 1:
        return nodes[0]
    current = state.current
    for node in nodes:
        current[node.key] += node.weight
    best = max(nodes, key=lambda node: current[node.key])
    current[best.key] -= sum(node.weight for node in nodes)
    return best


def _hashed(
    state: _State, upstream: Upstream, tried: Collection[str], message: Message | None, identity: Identity
) -> Node | None:
    on = (upstream.hash_on, upstream.key, upstream.fallback, upstream.captures)
    read = state.readers.get(on)
    if read is None:
        if len(state.readers) >= MOST_READERS:
            state.readers.clear()  # those of configurations long gone
        read = state.readers[on] = reader(*on)
    if state.slots is None:
        state.slots = Slots(state.nodes)
    return state.slots.node("" if message is None else read(message, identity), tried)
