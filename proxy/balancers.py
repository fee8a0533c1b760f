"""Which node is next. State lives here, outside the snapshot, keyed by upstream; one Balancer per worker.

Called by both lanes. Imports `plan` only. Smooth weighted round robin, as nginx does it: every cycle holds each
node exactly as often as its weight says, and equal nodes alternate.
"""

from __future__ import annotations

from collections.abc import Collection

from .plan import Node, Upstream


class _Rotation:
    """The running weights of one upstream's nodes."""

    __slots__ = ("current", "nodes")

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.nodes = nodes
        self.current = dict.fromkeys((node.key for node in nodes), 0)


class Balancer:
    """Chooses nodes. A snapshot that leaves an upstream's nodes as they were leaves its rotation where it was."""

    __slots__ = ("_rotations",)

    def __init__(self) -> None:
        self._rotations: dict[str, _Rotation] = {}

    def choose(self, upstream: Upstream, tried: Collection[str] = ()) -> Node | None:
        """The next node whose key is not in `tried`, of the highest priority that has one; None when all were tried.

        A node of weight 0 gets nothing, unless every node has weight 0 (APISIX).
        """
        nodes = upstream.nodes
        if len(nodes) == 1:
            return None if tried else nodes[0]
        rotation = self._rotations.get(upstream.id)
        if rotation is None or (rotation.nodes is not nodes and rotation.nodes != nodes):
            rotation = self._rotations[upstream.id] = _Rotation(nodes)
        rotation.nodes = nodes
        current = rotation.current
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

    def forget(self, known: Collection[str]) -> None:
        """Drop the state of upstreams that are gone; `known` are the ids that are left."""
        for gone in self._rotations.keys() - set(known):
            del self._rotations[gone]
