"""What is left to do when head and body are right: replay marks, then rules, in this order.

`steps_left` is plain code that asks for what needs a store by yielding it; `settle` and `asettle` answer with stores,
blocking or not. Called by every adapter; imports the gate, `stores` and `counters`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from .core.errors import Rejected
from .core.identity import Identity, Replay
from .core.message import Message
from .counters import CounterStore
from .gate import NO_RULES, Admission, RuleSet, counted, effective, judge
from .plugins.base import InTurn, Quota, Spent
from .snapshot import Snapshot
from .stores import ReplayStore, StoreUnavailable

#: Whether a replay mark was new, or what a window has seen; an error where the store cannot say.
Found = bool | list[Spent] | StoreUnavailable
_Steps = Generator[Replay | list[Quota], Found, Rejected | None]


@dataclass(slots=True)
class Needs:
    """What is left for one request. `headers` are those that rules put on its answer, whichever it will be."""

    steps: _Steps
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stores:
    """Where marks and counts are kept."""

    replays: ReplayStore
    counters: CounterStore


def steps_left(
    admission: Admission,
    message: Message,
    directory: Snapshot,
    now: float,
    rules: RuleSet = NO_RULES,
    route_id: str = "",
    service_id: str = "",
    judged: set[str] | None = None,
) -> Needs | None:
    """What is left for this request, or None when nothing is: no generator is made for the usual case.

    `judged` names the rules that have judged this request already, by way of another adapter, and for whom: they are
    not asked, nor is it counted, again. Those of this time are added.
    """
    if not admission.replays and not rules.all and not directory.overrides:
        return None
    headers: dict[str, str] = {}
    done = set() if judged is None else judged
    return Needs(_steps(admission, message, directory, now, rules, route_id, service_id, done, headers), headers)


def _steps(
    admission: Admission,
    message: Message,
    directory: Snapshot,
    now: float,
    rules: RuleSet,
    route_id: str,
    service_id: str,
    judged: set[str],
    headers: dict[str, str],
) -> _Steps:
    # Marks first, and only now, when signature and body are right: nobody can burn another's.
    for step, replay in admission.replays:
        found = yield replay
        if isinstance(found, StoreUnavailable):
            return admission.replays_unknown(step, str(found))
        if not found:
            return admission.replayed(step)
    identity = admission.identity
    for rule in effective(rules, directory, identity):
        mark = f"{rule.scope} {identity.consumer.id if identity.consumer is not None else ''}"
        if mark in judged:
            continue
        judged.add(mark)
        outcome = judge(rule, message, identity, route_id, service_id, now)
        if isinstance(outcome, Identity):
            identity = admission.identity = outcome
        elif isinstance(outcome, list | InTurn):
            for quotas in [[quota] for quota in outcome.quotas] if isinstance(outcome, InTurn) else [outcome]:
                found = yield quotas
                said, refused = counted(rule, quotas, found if isinstance(found, list) else None)
                # Of several that say the same, the last speaks, as in APISIX.
                headers.update(said)
                if refused is not None:
                    return refused
        elif outcome is not None:
            return outcome
    return None


def settle(needs: Needs, stores: Stores) -> Rejected | None:
    """Answer every need; the refusal, or None when the request may go on."""
    try:
        need = next(needs.steps)
        while True:
            need = needs.steps.send(_found(need, stores))
    except StopIteration as end:
        refused: Rejected | None = end.value
        return refused


async def asettle(needs: Needs, stores: Stores) -> Rejected | None:
    """`settle` from an event loop, without blocking it."""
    try:
        need = next(needs.steps)
        while True:
            need = needs.steps.send(await _afound(need, stores))
    except StopIteration as end:
        refused: Rejected | None = end.value
        return refused


def _found(need: Replay | list[Quota], stores: Stores) -> Found:
    try:
        if isinstance(need, Replay):
            return stores.replays.add(need.key, need.ttl, need.longer)
        return stores.counters.count(need)
    except StoreUnavailable as error:
        return error


async def _afound(need: Replay | list[Quota], stores: Stores) -> Found:
    try:
        if isinstance(need, Replay):
            return await stores.replays.aadd(need.key, need.ttl, need.longer)
        return await stores.counters.acount(need)
    except StoreUnavailable as error:
        return error
