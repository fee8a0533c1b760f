"""Which plugins a request must pass, in which order, and who it then comes from.

Called by every adapter with a pipeline that compile time has sorted; imports `core`, `schemes` and `plugins` only.
The head is decided before any body is read; an `Admission` says what is still to be done: the body's digest, then
the replay marks, in this order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from .core.credential import Consumer, Lookup, Secret
from .core.dialects import APISIX
from .core.errors import ConfigError, Rejected
from .core.identity import NOBODY, BodyDigest, BodyRule, Carrier, Identity, MacRule, Replay, Verified
from .core.message import SINGLETONS, Message
from .core.reasons import NEVER_ANONYMOUS, Reason
from .core.trace import Trace
from .core.words import row
from .expr import compile_expr
from .plugins import ALL, OUTGOING, PLUGINS, RULES, get, multi_auth, validate_config
from .plugins.base import AuthPlugin, Common, Facts, Judgement, OutgoingPlugin, Quota, RulePlugin, Spent
from .plugins.fields import with_fields


class Directory(Protocol):
    """Where the gate finds people; a Snapshot is one."""

    @property
    def lookups(self) -> Mapping[str, Lookup]:
        """Per plugin name: credential by identifier."""

    @property
    def consumers(self) -> Mapping[str, Consumer]:
        """Consumers by name."""

    @property
    def consumer_ids(self) -> Mapping[str, Consumer]:
        """Consumers by id, by which Kong names them too."""

    @property
    def require_same_consumer(self) -> bool:
        """Whether several plugins on one object must all name the same consumer."""

    @property
    def overrides(self) -> Mapping[str, Mapping[str, Rule | None]]:
        """Rules of consumers and groups by name, under `consumer:<id>` and `group:<id>`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One authentication plugin with its compiled configuration."""

    plugin: AuthPlugin
    config: Any
    common: Common
    priority: int
    #: `_meta.filter`: whether it runs at all; `_meta.error_response`: the body of its refusals.
    when: Callable[[Message], bool] | None = field(default=None, compare=False)
    response: str | dict[str, Any] | None = field(default=None, compare=False)


Pipeline = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its compiled configuration. `scope` names the place it stands at and what it says there."""

    plugin: RulePlugin
    config: Any
    priority: int
    scope: str
    when: Callable[[Message], bool] | None = field(default=None, compare=False)
    response: str | dict[str, Any] | None = field(default=None, compare=False)


Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What signs a request on its way to the upstream, with its compiled configuration. `dialect`: of its refusals."""

    plugin: OutgoingPlugin
    config: Any
    dialect: str = "apisix"
    when: Callable[[Message], bool] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class OutgoingSet:
    """What signs on one route, by plugin name (None: off). `above` and `scopes` are as in a RuleSet."""

    own: Mapping[str, Outgoing | None] = field(default_factory=dict)
    above: Mapping[str, Outgoing | None] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()

    def of(self, name: str, overrides: Mapping[str, Mapping[str, Outgoing | None]], who: Identity) -> Outgoing | None:
        """The plugin `name` for a caller, with the precedence of rules; `overrides` are a Snapshot's `outgoing`."""
        merged = _merged(self.own, self.above, self.scopes, overrides, who.consumer)
        return (self.own if merged is None else merged).get(name)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one route. `everywhere` are global and run first; `own` may be overridden by name (None: off).

    `all` is what runs for a consumer that has none of its own. Kong's dialect only: `above` are those of `own` that
    stand above a consumer's, and `scopes` the places that rules may share with a consumer, the least specific first.
    """

    everywhere: Rules = ()
    own: Mapping[str, Rule | None] = field(default_factory=dict)
    all: Rules = ()
    above: Mapping[str, Rule | None] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        everywhere: Iterable[Rule],
        own: Mapping[str, Rule | None],
        above: Mapping[str, Rule | None] | None = None,
        scopes: tuple[str, ...] = (),
    ) -> RuleSet:
        """A set with `all` worked out."""
        first = _ordered(everywhere)
        return cls(first, own, first + _ordered(rule for rule in own.values() if rule is not None), above or {}, scopes)


NO_RULES: Final = RuleSet()


def _ordered(rules: Iterable[Rule]) -> Rules:
    return tuple(sorted(rules, key=lambda rule: -rule.priority))


def effective(rules: RuleSet, directory: Directory, identity: Identity) -> Rules:
    """The rules for a caller, by plugin name; each replaces the whole.

    APISIX: consumer > consumer group > route. Kong: route, service and consumer > route and consumer > service and
    consumer > route and service > consumer > (group >) route.
    """
    overrides, consumer = directory.overrides, identity.consumer
    if not overrides or consumer is None:
        return rules.all
    merged = _merged(rules.own, rules.above, rules.scopes, overrides, consumer)
    if merged is None:
        return rules.all
    return rules.everywhere + _ordered(rule for rule in merged.values() if rule is not None)


T = TypeVar("T")


def _merged(
    own: Mapping[str, T],
    above: Mapping[str, T],
    scopes: tuple[str, ...],
    overrides: Mapping[str, Mapping[str, T]],
    consumer: Consumer | None,
) -> Mapping[str, T] | None:
    """A route's, replaced by name where the caller has some of its own; None where it has none."""
    if consumer is None:
        return None
    groups = overrides.get(f"group:{consumer.group_id}") if consumer.group_id else None
    callers = overrides.get(f"consumer:{consumer.id}")
    if groups is None and callers is None:
        return None
    merged = {**own, **(groups or {}), **(callers or {}), **above}
    for scope in scopes:
        merged.update(overrides.get(f"{scope} consumer:{consumer.id}", {}))
    return merged


def judge(
    rule: Rule,
    message: Message,
    identity: Identity,
    route_id: str,
    service_id: str,
    now: float,
    trace: Trace | None = None,
) -> Judgement:
    """What one rule says; quotas are to be counted, and `counted` told."""
    if rule.when is not None and not rule.when(message):
        return None
    outcome = rule.plugin.check(message, rule.config, Facts(identity, route_id, service_id, rule.scope), now, trace)
    return _dressed(rule, outcome) if isinstance(outcome, Rejected) else outcome


def counted(
    rule: Rule, quotas: list[Quota], spent: Sequence[Spent] | None
) -> tuple[list[tuple[str, str]], Rejected | None]:
    """Response headers and the refusal, if there is one, of a rule whose quotas were counted (None: could not be)."""
    headers, rejected = rule.plugin.counted(rule.config, quotas, spent)
    return headers, None if rejected is None else _dressed(rule, rejected)


def _dressed(what: Step | Rule, rejected: Rejected) -> Rejected:
    # APISIX puts it in place of errors only; a configured `rejected_code` may be none.
    if what.response is not None and row(rejected).status >= 400:
        rejected.response = what.response
    return rejected


def pipeline(steps: Iterable[Step]) -> Pipeline:
    """Steps in the order in which they run: higher priority first, as in APISIX and Kong."""
    return tuple(sorted(steps, key=lambda step: -step.priority))


def compile_plugin(
    name: str,
    config: Mapping[str, Any],
    dialect: str = "apisix",
    *,
    priority: int | None = None,
    max_body: int | None = None,
    place: str = "",
    secrets: Mapping[str, Secret | None] | None = None,
) -> Step | Rule | Outgoing:
    """Check and compile one plugin's configuration; raises ConfigError naming the field.

    `priority` stands in for the plugin's own, which `_meta` may also change; `max_body` for a limit on bodies that
    are read to be checked, where the configuration gives none; `place` names what the plugin is attached to; `secrets`
    are the opened ones by field, where `config` has masks in their place.
    """
    validate_config(name, config, dialect)
    if max_body is not None and "max_req_body_size" in ALL[name].config_schema[dialect]["properties"]:
        config = {"max_req_body_size": max_body, **config}
    meta = config.get("_meta") or {}
    when = compile_expr(meta["filter"]) if meta.get("filter") else None
    response = meta.get("error_response")
    outgoing = OUTGOING.get(name)
    if outgoing is not None:
        return Outgoing(outgoing, outgoing.compile(config, dialect, secrets), dialect, when)
    rule = RULES.get(name)
    if rule is not None:
        order = priority if priority is not None else meta.get("priority", rule.priority[dialect])
        scope = f"{place}:{name}:{hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]}"
        found = {} if secrets is None else secrets
        opened = {field: each.reveal().decode() for field, each in found.items() if each is not None}
        config = with_fields(config, opened) if opened else config
        return Rule(rule, rule.compile(config, dialect), order, scope, when, response)
    plugin = get(name)
    compiled = plugin.compile(config, dialect)
    order = priority if priority is not None else meta.get("priority", plugin.priority[dialect])
    common = plugin.common(compiled)
    if not common.run_on_preflight:
        when = _not_preflight
    return Step(plugin, compiled, common, order, when, response)


def _not_preflight(message: Message) -> bool:
    return message.method != "OPTIONS"


def compile_step(name: str, config: Mapping[str, Any], dialect: str = "apisix", *, max_body: int | None = None) -> Step:
    """`compile_plugin` for what must be an authentication method."""
    if name in RULES or name in OUTGOING:
        raise ConfigError("plugin", name, f"one of {', '.join(sorted(PLUGINS))}")
    made = compile_plugin(name, config, dialect, max_body=max_body)
    assert isinstance(made, Step)
    return made


class Admission:
    """A request whose head was right. `identity` is final once `finish` was called; where only the body proves who
    signed, it is NOBODY until then.

    `hidden` names the places of credentials that must not go further. Where `bodies` is not empty, the adapter reads
    the whole body, feeds every one of `digests()`, and stops with `too_large` once it is over `limit`.
    """

    __slots__ = ("_claimed", "_directory", "_now", "bodies", "held", "hidden", "identity", "replays")

    def __init__(
        self,
        identity: Identity,
        hidden: frozenset[Carrier] = frozenset(),
        bodies: tuple[tuple[Step, BodyRule | MacRule], ...] = (),
        replays: tuple[tuple[Step, Replay], ...] = (),
        directory: Directory | None = None,
        now: float = 0.0,
        held: Pipeline = (),
        claimed: Mapping[int, Identity] | None = None,
    ) -> None:
        self.identity = identity
        # By place in `bodies`: what a MacRule's step will have found, save whose key it was.
        self._claimed = claimed
        #: The steps that were asked: all of them, less those whose filter passed the request by.
        self.held = held
        self.hidden = hidden
        self.bodies = bodies
        self.replays = replays
        self._directory = directory
        self._now = now

    def digests(self) -> list[BodyDigest]:
        """One running digest for each rule, to be fed with every chunk."""
        return [rule.start() for _, rule in self.bodies]

    @property
    def limit(self) -> int:
        """The most bytes a body may have, where one must be checked."""
        return min(rule.limit for _, rule in self.bodies)

    def too_large(self, size: int) -> Rejected:
        """The refusal of a body of `size` bytes (or more, where reading stopped)."""
        step, rule = min(self.bodies, key=lambda pair: pair[1].limit)
        return refuse(step, Reason.BODY_TOO_LARGE, size=size, limit=rule.limit)

    def finish(self, digests: list[BodyDigest]) -> Rejected | None:
        """Judge the body; None when the request may go on, as `identity`."""
        for place, ((step, rule), digest) in enumerate(zip(self.bodies, digests, strict=True)):
            reason = rule.verdict(digest)
            if reason is Reason.BODY_TOO_LARGE:
                return self.too_large(digest.size)
            assert self._directory is not None  # given wherever there are bodies
            if reason is not None:
                fallback = _fallback(step, refuse(step, reason), self._directory, self._now)
                if isinstance(fallback, Rejected):
                    return fallback
                self.identity = fallback
                self.replays = ()
            elif isinstance(rule, MacRule):
                signer = rule.signer(digest)
                assert signer is not None  # the verdict was right
                assert self._claimed is not None  # given with every MacRule
                found = self._claimed[place]._replace(consumer=signer.consumer, credential=signer)
                before = None if self.identity is NOBODY else self.identity
                joined = _joined(before, found, self._directory.require_same_consumer)
                if joined is None:
                    return refuse(step, Reason.DIFFERENT_CONSUMERS)
                self.identity = joined
        return None

    def replayed(self, step: Step) -> Rejected:
        """The refusal of a signature that was used before."""
        return refuse(step, Reason.REPLAYED)

    def replays_unknown(self, step: Step, detail: str) -> Rejected:
        """The refusal where the replay store cannot say."""
        return refuse(step, Reason.REPLAY_STORE_UNAVAILABLE, detail)


_OPEN: Final = Admission(NOBODY)
_NOTHING: Final[frozenset[Carrier]] = frozenset()


def check(
    message: Message,
    steps: Pipeline,
    directory: Directory,
    now: float,
    trace: Trace | None = None,
    routed: Message | None = None,
) -> Admission | Rejected:
    """Run a pipeline over a request's head at `now` (Unix seconds).

    Every step must hold (AND, as in both originals); a step with an anonymous consumer holds for any failure of
    authentication. Returns what remains to be done, or the refusal of the first step that failed. `routed` is the
    message by which the route was found, where that is not the one that was signed: filters are about it.
    """
    if message.duplicated:
        twice = message.duplicated & SINGLETONS
        if twice:
            header = ", ".join(sorted(twice))
            if steps:
                return refuse(steps[0], Reason.DUPLICATE_HEADER, header=header)
            return Rejected(Reason.DUPLICATE_HEADER, facts={"header": header})
    if not steps:
        return _OPEN
    if len(steps) == 1:
        step = steps[0]
        if step.when is None and step.plugin.name != multi_auth.name:
            return _alone(message, step, directory, now, trace)
    identity: Identity | None = None
    hidden = _NOTHING
    claimed: dict[int, Identity] = {}
    bodies: list[tuple[Step, BodyRule | MacRule]] = []
    replays: list[tuple[Step, Replay]] = []
    held = steps
    for step in steps:
        if step.when is not None and not step.when(routed or message):
            held = tuple(other for other in held if other is not step)
            continue
        if identity is not None and step.common.optional and not identity.anonymous:
            # Kong: with an anonymous consumer one of several is enough, and who is known is not asked again.
            held = tuple(other for other in held if other is not step)
            continue
        plugin = step.plugin
        parts: tuple[Step | multi_auth.Member, ...] = (step,)
        if plugin.name != multi_auth.name:
            result = plugin.check(message, step.config, directory.lookups[plugin.holder], now, trace)
        else:
            member, result = multi_auth.attempt(message, step.config, directory.lookups, now, trace)
            parts = step.config.members if member is None else (member,)
            plugin = parts[0].plugin
        unproven = False
        if isinstance(result, Verified):
            if result.body is not None:
                unproven = isinstance(result.body, MacRule)
                bodies.append((step, result.body))
            if result.replay is not None:
                replays.append((step, result.replay))
            carrier = result.carrier
            found = _identity(result, plugin, parts[0].common)
        else:
            carrier = None
            fallback = _fallback(step, result, directory, now)
            if isinstance(fallback, Rejected):
                return _dressed(step, fallback)
            found = fallback
        for part in parts:
            if part.common.hide_credentials:
                hidden |= part.common.carriers if carrier is None else {carrier}
        if unproven:
            claimed[len(bodies) - 1] = found
            continue
        joined = _joined(identity, found, directory.require_same_consumer)
        if joined is None:
            return refuse(step, Reason.DIFFERENT_CONSUMERS)
        identity = joined
    if identity is None and not claimed:
        return _OPEN  # none of them applies to this request
    return Admission(identity or NOBODY, hidden, tuple(bodies), tuple(replays), directory, now, held, claimed)


def _alone(message: Message, step: Step, directory: Directory, now: float, trace: Trace | None) -> Admission | Rejected:
    """What `check` comes to where one plugin is all that is asked, as on most routes."""
    plugin, common = step.plugin, step.common
    result = plugin.check(message, step.config, directory.lookups[plugin.holder], now, trace)
    if not isinstance(result, Verified):
        fallback = _fallback(step, result, directory, now)
        if isinstance(fallback, Rejected):
            return _dressed(step, fallback)
        return Admission(fallback, common.carriers if common.hide_credentials else _NOTHING, held=(step,))
    _, _, body, replay, _, carrier, _ = result
    found = _identity(result, plugin, common)
    hidden = _NOTHING
    if common.hide_credentials:
        hidden = common.carriers if carrier is None else frozenset({carrier})
    bodies = () if body is None else ((step, body),)
    replays = () if replay is None else ((step, replay),)
    if isinstance(body, MacRule):
        return Admission(NOBODY, hidden, bodies, replays, directory, now, (step,), {0: found})
    return Admission(found, hidden, bodies, replays, directory, now, (step,))


def _identity(result: Verified, plugin: AuthPlugin, common: Common) -> Identity:
    # Taken apart at once: a field of a named tuple takes as long to read as a call.
    credential, covered, _, _, csrf_exempt, _, claims = result
    told = common.told
    return tuple.__new__(
        Identity,
        (
            credential.consumer,
            credential,
            False,
            plugin.name,
            covered,
            csrf_exempt,
            claims,
            common.dialect,
            None,
            getattr(credential, told) if told else "",
        ),
    )


def _joined(identity: Identity | None, found: Identity, same: bool) -> Identity | None:
    """Who calls when one more step says who; None where two must name the same consumer and do not."""
    if identity is None or identity.anonymous:
        return found
    if found.anonymous:
        return identity
    if same and found.consumer != identity.consumer:
        return None
    # One proof that no browser gives by itself is enough; and what one token says stays said.
    exempt, claims = found.csrf_exempt or identity.csrf_exempt, found.claims or identity.claims
    return found._replace(csrf_exempt=exempt, claims=claims)


def refuse(step: Step, reason: Reason, detail: str = "", **facts: object) -> Rejected:
    """A refusal in the words of a step's plugin."""
    common = step.common
    return Rejected(
        reason,
        plugin=step.plugin.name,
        dialect=common.dialect,
        facts=facts,
        challenge=common.challenge,
        detail=detail,
        expose=common.expose_reason,
        response=step.response,
    )


def _fallback(step: Step, rejected: Rejected, directory: Directory, now: float) -> Identity | Rejected:
    """The anonymous consumer of a step, if it has one and the failure is one that it may cover."""
    name = step.common.anonymous
    if not name or rejected.reason in NEVER_ANONYMOUS:
        return rejected
    consumer = directory.consumers.get(name)
    if step.common.dialect != APISIX:
        consumer = directory.consumer_ids.get(name) or consumer
    if consumer is None or not consumer.enabled or (consumer.expires_at is not None and now >= consumer.expires_at):
        return refuse(step, Reason.ANONYMOUS_UNKNOWN, f"anonymous consumer {name!r}", name=name)
    return Identity(consumer, None, True, step.plugin.name, dialect=step.common.dialect)
