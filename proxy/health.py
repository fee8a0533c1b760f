"""Which nodes are well: what probes and requests have shown, in one worker. docs/balancing.md is the reference.

Asked by the lane in the balancer's place where an upstream has checks; nothing here runs where none has. Like APISIX's,
an upstream's probes begin with its first request. Imports `plan`, `probes`, `balancers` and the transport.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message

from .balancers import Balancer
from .exchange import Keepalive, ReadTimeout, Target, Timeouts, TransportError, UpstreamBroken, status_of
from .plan import Node, Upstream
from .probes import Checks, Limits, Probe
from .transport import Pool

logger = logging.getLogger("hmac_gateway.health")

#: How often is looked for nodes that want a probe: APISIX's intervals are whole seconds.
TICK: Final = 0.1
#: Seconds until the next look after one that failed.
PAUSE: Final = 1.0
#: Probes under way at once, of all upstreams; who is due and finds no place waits for the next look.
MOST_PROBES: Final = 100
#: Kinds of reports, as places in a node's counts.
SUCCESS, HTTP_FAILURE, TCP_FAILURE, TIMEOUT = range(4)

Upstreams = Callable[[], Mapping[str, object]]


class _Mark:
    """What is thought of one node. A node is well until reports say otherwise."""

    __slots__ = ("counts", "due", "ill", "probed")

    def __init__(self) -> None:
        self.ill = False
        self.counts = [0, 0, 0, 0]
        #: When it is probed next, by the loop's clock; and whether that is happening now.
        self.due = 0.0
        self.probed = False

    def report(self, kind: int, limits: Limits) -> bool:
        """Count a report; whether that has changed what is thought of the node."""
        limit = (limits.successes, limits.http_failures, limits.tcp_failures, limits.timeouts)[kind]
        good = kind == SUCCESS
        if not limit or (good != self.ill and not any(self.counts)):
            return False  # it says nothing, or nothing new
        self.counts[kind] += 1
        if self.counts[kind] < limit:
            return False
        self.counts = [0, 0, 0, 0]
        changed, self.ill = self.ill is good, not good
        return changed


class _State:
    """The nodes of one upstream. Marks are kept while the checks stay as they are."""

    __slots__ = ("checks", "down", "marks", "upstream")

    def __init__(self, upstream: Upstream, checks: Checks, before: _State | None) -> None:
        self.upstream = upstream
        self.checks = checks
        kept = before.marks if before is not None and before.checks == checks else {}
        self.marks: dict[str, _Mark] = {node.key: kept.get(node.key) or _Mark() for node in upstream.nodes}
        self.down: frozenset[str] = frozenset()
        self.settle()

    def settle(self) -> None:
        """Work out anew which nodes get nothing: the ill ones, unless all are ill."""
        ill = frozenset(key for key, mark in self.marks.items() if mark.ill)
        self.down = ill if len(ill) < len(self.marks) else frozenset()


class Health:
    """Chooses among the nodes that are well, hears of exchanges, and probes. One per worker and event loop.

    `upstreams` gives those of the current configuration, by id.
    """

    __slots__ = ("_balancer", "_pool", "_probes", "_states", "_task", "_upstreams")

    def __init__(self, balancer: Balancer, pool: Pool, upstreams: Upstreams) -> None:
        self._balancer = balancer
        self._pool = pool
        self._upstreams = upstreams
        self._states: dict[str, _State] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def choose(
        self,
        upstream: Upstream,
        tried: Collection[str] = (),
        message: Message | None = None,
        identity: Identity = NOBODY,
    ) -> Node | None:
        """As `Balancer.choose`, without the nodes that are ill."""
        down = self._state(upstream).down
        return self._balancer.choose(upstream, [*tried, *down] if down else tried, message, identity)

    def answered(self, upstream: Upstream, node: Node, status: int) -> None:
        """A request was answered."""
        checks = upstream.checks
        if checks is not None and checks.passive is not None:
            self._status(self._known(upstream), node.key, status, checks.passive)

    def failed(self, upstream: Upstream, node: Node, error: TransportError) -> None:
        """A request was not answered."""
        checks = upstream.checks
        if checks is not None and checks.passive is not None:
            self._report(self._known(upstream), node.key, _kind(error), checks.passive)

    async def close(self) -> None:
        """End all probes."""
        running = [*self._probes, *([] if self._task is None else [self._task])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # --- states ---

    def _state(self, upstream: Upstream) -> _State:
        state = self._states.get(upstream.id)
        if state is None or state.upstream is not upstream:
            assert upstream.checks is not None  # others are not asked for here
            if state is None or state.upstream != upstream:
                state = self._states[upstream.id] = _State(upstream, upstream.checks, state)
            state.upstream = upstream
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
        return state

    def _known(self, upstream: Upstream) -> _State:
        """The state that reports go to: requests that began under an earlier configuration do not bring it back."""
        return self._states.get(upstream.id) or self._state(upstream)

    def _status(self, state: _State, key: str, status: int, limits: Limits) -> None:
        if status in limits.well:
            self._report(state, key, SUCCESS, limits)
        elif status in limits.ill:
            self._report(state, key, HTTP_FAILURE, limits)

    def _report(self, state: _State, key: str, kind: int, limits: Limits) -> None:
        # A probe may have begun under an earlier configuration.
        state = self._states.get(state.upstream.id, state)
        mark = state.marks.get(key)
        if mark is not None and mark.report(kind, limits):
            state.settle()
            logger.warning("upstream %s: %s is %s", state.upstream.id, key, "unhealthy" if mark.ill else "healthy")

    # --- probes ---

    async def _run(self) -> None:
        """Send the probes that are due, until there is nobody left to probe."""
        while self._states:
            pause = TICK
            try:
                self._look()
            except Exception:  # whatever it is: nobody would begin to probe again
                logger.exception("a look for nodes to probe failed")
                pause = PAUSE
            await asyncio.sleep(pause)
        self._task = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        current = self._upstreams()
        due: list[tuple[_Mark, _State, Node]] = []
        for key in list(self._states):
            upstream = current.get(key)
            if not isinstance(upstream, Upstream) or upstream.checks is None:
                del self._states[key]
                continue
            state = self._state(upstream)
            for node in upstream.nodes:
                mark = state.marks[node.key]
                if not mark.probed and mark.due <= now:
                    due.append((mark, state, node))
        # Who has waited longest is first: nodes that never answer, and are due again at once, keep nobody out.
        due.sort(key=lambda each: each[0].due)
        for mark, state, node in due[: MOST_PROBES - len(self._probes)]:
            probe = state.checks.active
            mark.due = now + (probe.seconds_ill if mark.ill else probe.seconds_well)
            mark.probed = True
            task = loop.create_task(self._ask(state, node, mark))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

    async def _ask(self, state: _State, node: Node, mark: _Mark) -> None:
        probe = state.checks.active
        try:
            status = await self._probe(state.upstream, node, probe)
        except TransportError as error:
            self._report(state, node.key, _kind(error), probe.limits)
        except Exception:
            logger.exception("upstream %s: a probe of %s failed", state.upstream.id, node.key)
        else:
            if status:
                self._status(state, node.key, status, probe.limits)
            else:
                self._report(state, node.key, SUCCESS, probe.limits)
        finally:
            mark.probed = False

    async def _probe(self, upstream: Upstream, node: Node, probe: Probe) -> int:
        """Ask a node; the status, 0 where connecting was all that was asked for. Raises TransportError."""
        timeouts = Timeouts(probe.timeout, probe.timeout, probe.timeout)
        name = probe.host or node.host
        target = Target(
            node.host, probe.port or node.port, tls=probe.kind == "https", server_name=name, verify=probe.verify
        )
        connection = await self._pool.connect(target, timeouts, Keepalive(size=0))
        try:
            if probe.kind == "tcp":
                return 0
            connection.start(
                _request(upstream, node, probe), method=probe.method, timeouts=timeouts, body_follows=False
            )
            # The connection's own limit begins anew with each piece that comes.
            async with asyncio.timeout(probe.timeout):
                return (await connection.response()).status
        except TimeoutError as error:
            raise ReadTimeout(f"no answer for {probe.timeout:g} s") from error
        finally:
            connection.abort()


def _kind(error: TransportError) -> int:
    """A node that breaks off is as one that is not reached (APISIX)."""
    return TIMEOUT if status_of(error) == 504 and not isinstance(error, UpstreamBroken) else TCP_FAILURE


def _request(upstream: Upstream, node: Node, probe: Probe) -> bytes:
    host = probe.host or node.host
    if upstream.pass_host == "rewrite":
        host = upstream.upstream_host
    elif upstream.pass_host == "node":
        host = node.host
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    lines = [f"{probe.method} {probe.path} HTTP/1.1", f"Host: {host}", "Connection: close", *probe.headers]
    if probe.body:
        lines.append(f"Content-Length: {len(probe.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + probe.body
