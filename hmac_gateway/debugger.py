"""Explains a request against what it had to pass: a route or a site's own policy, then the plugins' checks, recorded.

Called by `hmac_explain` and the console. Imports `gate`, `site`, `snapshot`, `schemes.explain` and `models`. The same
code decides here and on the request's path; here it is asked to tell. Nothing is stored and no replay mark is set.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from django.conf import settings
from django.urls import Resolver404, resolve

from . import crypto, site
from .conf import conf
from .core.errors import ConfigError, Rejected
from .core.identity import Identity, MacRule, Verified
from .core.message import Message
from .core.paths import ambiguity, decoded
from .core.reasons import NEVER_ANONYMOUS, Reason
from .core.trace import Step as TraceStep
from .core.trace import Trace
from .gate import NO_RULES, Admission, Pipeline, RuleSet, Step, check, effective, judge
from .models import Rejection
from .plugins import hmac_auth, multi_auth
from .routing import Route, host_of
from .routing_kong import Path
from .schemes.explain import explain
from .schemes.mistakes_bodies import surely_empty
from .site_settings import policy
from .snapshot import Snapshot

#: What stands in a path as it is (RFC 3986).
_IN_PATH: Final = "/~!$&'()*+,;=:@-._"
#: The URLs of the gateway's own console: whoever has others is a site with views of its own.
_STANDALONE: Final = "hmac_gateway.urls"
_REBUILT: Final = "the server has not kept the request target; %2F and unusual escapes are lost"
#: Why a head alone does not tell.
_NOT_KEPT: Final[dict[str, str]] = {
    **dict.fromkeys(
        (str(Reason.DIGEST_MISMATCH), str(Reason.BODY_TOO_LARGE), str(Reason.LENGTH_REQUIRED)), "bodies are not kept"
    ),
    str(Reason.REPLAYED): "whether a signature was used before is not asked again",
    **dict.fromkeys(
        (str(Reason.RATE_LIMITED), str(Reason.COUNTER_STORE_UNAVAILABLE)),
        "how many requests a limit has counted is not asked here",
    ),
}
_ANONYMOUS: Final = "the credentials do not hold; the request goes on as the anonymous consumer"


class Place(NamedTuple):
    """Where the steps stand: a route and its rules, and the message by which it was found if not the signed one."""

    route_id: str = ""
    service_id: str = ""
    rules: RuleSet = NO_RULES
    routed: Message | None = None


_NOWHERE: Final = Place()


@dataclass(frozen=True, slots=True)
class Report:
    """What a request meets on its way. `strings` are (form, signing string with visible line ends)."""

    accepted: bool
    reason: str = ""
    route: str = ""
    plugin: str = ""
    steps: list[TraceStep] = field(default_factory=list)
    strings: list[tuple[str, str]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    difference: str = ""
    #: Who of a site asked for it; "" for the gateway's routes.
    asked: str = ""
    #: A signature covers a body that is not known: whether it is right was not found out.
    unseen: bool = False


def as_text(report: Report) -> str:
    """The report as people read it, on a terminal and in the console."""
    lines = ["accepted" if report.accepted else f"refused: {report.reason}"]
    lines[0] += f"   route {report.route or '(none)'}   plugin {report.plugin or '(none)'}"
    lines[0] += f"   asked by {report.asked}" if report.asked else ""
    for step in report.steps:
        lines.append(f"  {'ok  ' if step.ok else 'FAIL'} {step.name}{': ' + step.note if step.note else ''}")
        if not step.ok:
            lines += [f"         expected  {step.expected}", f"         received  {step.received}"]
    for form, string in report.strings:
        lines += ["", f"the server's signing string ({form}):"]
        lines += [f"    {line}" for line in string.split("\n")]
    if report.difference:
        lines += ["", report.difference]
    for hint in report.hints:
        lines += ["", f"hint: {hint}"]
    return "\n".join(lines)


def explain_kept(snapshot: Snapshot, request_id: str, client_string: bytes | None = None) -> Report:
    """Explain a refused request that was kept, at the time it came; ConfigError when there is none.

    Against what it had to pass: the gateway's routes, or what a site asked of it. Bodies are not kept, so a digest is
    not compared. The reason told is always the one it was refused with.
    """
    kept = Rejection._default_manager.filter(request_id=request_id[:64]).first()
    if kept is None:
        raise ConfigError("--request-id", request_id, "the X-Request-Id of a request refused within the last day")
    if not kept.sealed_request:
        missing = "a request whose head was kept; it was too long, or no encryption key was set"
        raise ConfigError("--request-id", request_id, missing)
    try:
        head = json.loads(crypto.open_sealed(kept.sealed_request))
    except crypto.CannotOpen as error:
        raise ConfigError("--request-id", request_id, f"a request that can be opened: {error}") from None
    message = Message(
        head["method"],
        head["target"],
        [(name, value) for name, value in head["headers"]],
        head["scheme"],
        head.get("authority"),
        head["http_version"],
        head["remote_addr"],
        head.get("target_exact", True),
    )
    # What a WSGI server joined came twice all the same.
    message.duplicated = frozenset(head.get("duplicated", message.duplicated))
    asked = head.get("asked") or {}
    by = asked.get("by", "")
    if by == "PROTECT":
        directory = site.settings_only() or snapshot
        report = _at_the_door(directory, message, _seen_paths(message, asked["paths"]), head["at"], client_string, None)
    elif by == "ProxyView":
        routed = replaced(message, asked["target"])
        report = _routed(snapshot, message, routed, None, head["at"], client_string, "ProxyView")
    elif by:
        report = _by_policy(snapshot, message, asked, head["at"], client_string)
    else:
        report = explain_request(snapshot, message, None, head["at"], client_string)
    if report is None:
        report = Report(True, hints=["neither PROTECT nor a *this site* route covers this address any more"])
    return _as_refused(report, kept, "asked" in head)


def _as_refused(report: Report, kept: Rejection, known: bool) -> Report:
    """The report under the reason that the client was refused with, and what stands between the two."""
    if report.reason == kept.reason:
        return report
    now = f"refused with {report.reason}" if report.reason else "accepted"
    why = _NOT_KEPT.get(kept.reason, "the configuration or the credential may have been changed since")
    if report.unseen and not report.reason:
        why = "bodies are not kept, and the signature covers this one"
    hint = f"this refusal could not be made again: {why}. The same head would now be {now}"
    if kept.lane == "site" and not known:
        hint = "this refusal could not be made again: what the site asked for was not kept"
    return replace(
        report,
        accepted=False,
        reason=kept.reason,
        route=report.route or kept.route_id,
        plugin=kept.plugin or report.plugin,
        hints=[hint, *report.hints],
    )


def _by_policy(
    snapshot: Snapshot,
    message: Message,
    asked: Mapping[str, Any],
    now: float,
    client_string: bytes | None,
    body: bytes | None = None,
) -> Report:
    """A view's own policy, as it stood in the code when the request came."""
    found = _ambiguous(message)
    if found is not None:
        return replace(found, asked=asked["by"])
    try:
        step = policy(asked["policy"])
    except ConfigError as error:
        return Report(True, asked=asked["by"], hints=[f"the view's policy cannot be read: {error}"])
    directory = site.settings_only() or snapshot
    return _passed((step,), directory, message, body, now, client_string, asked=asked["by"])


def _asked_by_view(message: Message) -> Mapping[str, Any] | None:
    """What the view at this address asks for by itself; None where there is none, or where only a request can tell."""
    try:
        view: Any = resolve(decoded(message.path).encode("latin-1").decode("utf-8", "replace")).func
    except Resolver404:
        return None
    policy = getattr(view, "hmac_policy", None)
    if policy is not None:
        return {"by": "@hmac_required", "policy": policy}
    drf = sys.modules.get("hmac_gateway.drf")  # not every site has the framework
    if drf is None or not hasattr(view, "cls"):
        return None
    try:
        made = view.cls(**view.initkwargs)
        made.action_map = getattr(view, "actions", None) or {}
        made.action = made.action_map.get(message.method.lower())
        ours = next(each for each in made.get_authenticators() if isinstance(each, drf.HmacAuthentication))
        policy = getattr(made, "hmac_policy", None)
    except Exception:
        return None  # the site's own code, which may want to see the request
    return {"by": "HmacAuthentication", "policy": ours.policy or {} if policy is None else policy}


def _seen_paths(message: Message, paths: Sequence[str]) -> list[tuple[str, str]]:
    """What `site.protection` is asked about, as (path that Django resolves, raw path): the last is what was received.

    Before it, where a script name stands in front, comes the path behind that.
    """
    *inner, last = paths
    pairs = [(path, quote(path, safe=_IN_PATH, encoding="utf-8", errors="surrogateescape")) for path in inner]
    pairs.append((last, message.path))
    return [(path.encode("utf-8", "surrogateescape").decode("latin-1"), raw) for path, raw in pairs]


def _at_the_door(
    directory: Snapshot,
    message: Message,
    paths: list[tuple[str, str]],
    now: float,
    client_string: bytes | None,
    body: bytes | None,
) -> Report | None:
    """What PROTECT and *this site* routes make of a request; None where they ask for nothing."""
    for path, raw in paths:
        door = site.protection(directory, path, raw, lambda _: message, None)
        if isinstance(door, Rejected):
            why = str(door.facts.get("why", ""))
            steps = [TraceStep("path", False, "a plain path", raw, why)]
            return Report(False, str(door.reason), steps=steps, asked="PROTECT")
        if door is not None:
            asked = "a *this site* route" if door.route_id else "PROTECT"
            place = Place(door.route_id, door.service_id, door.rules)
            return _passed(door.pipeline, door.directory, message, body, now, client_string, place, asked)
    return None


def explain_pasted(
    snapshot: Snapshot | None, message: Message, body: bytes | None, now: float, client_string: bytes | None = None
) -> Report:
    """Explain a request of which no more is known than its bytes.

    By PROTECT and *this site* routes, the view's own policy, then the gateway's routes. `snapshot` is None where a site
    has no tables. ConfigError where only a request may tell what is asked.
    """
    found = Snapshot(0) if snapshot is None else snapshot
    asked = _asked_by_view(message)
    directory = site.settings_only() or snapshot
    if directory is not None:
        report = _at_the_door(directory, message, [(decoded(message.path), message.path)], now, client_string, body)
        if report is not None and (not report.accepted or asked is None or not asked["policy"]):
            return report
    if asked is not None:
        return _by_policy(found, message, asked, now, client_string, body)
    report = explain_request(found, message, body, now, client_string)
    if report.reason == Reason.NO_ROUTE and (snapshot is None or settings.ROOT_URLCONF != _STANDALONE):
        near = "" if snapshot is None else f" ({'; '.join(report.hints)})"
        raise ConfigError(
            "--raw",
            message.path,
            "an address that PROTECT, a *this site* route, a view's own policy (@hmac_required, HmacAuthentication) or "
            f"the gateway's routes cover{near}; below the prefix of a ProxyView use --request-id",
        )
    return report


def explain_request(
    snapshot: Snapshot, message: Message, body: bytes | None, now: float, client_string: bytes | None = None
) -> Report:
    """Explain a request to the gateway at `now` (Unix seconds); `body` None where it is not known.

    Never raises for a bad request.
    """
    return _routed(snapshot, message, message, body, now, client_string)


def _ambiguous(message: Message) -> Report | None:
    why = ambiguity(message.path)
    if why is None:
        return None
    return Report(
        False, str(Reason.AMBIGUOUS_PATH), steps=[TraceStep("path", False, "a plain path", message.path, why)]
    )


def _routed(
    snapshot: Snapshot,
    message: Message,
    routed: Message,
    body: bytes | None,
    now: float,
    client_string: bytes | None,
    asked: str = "",
) -> Report:
    """By the gateway's routes; `routed` is the message by which one is found, `message` the one that was signed."""
    found = _ambiguous(routed)
    if found is not None:
        return replace(found, asked=asked)
    route = snapshot.routes.match(host_of(routed.authority), decoded(routed.path), routed)
    if route is None:
        route = snapshot.elsewhere.get(conf.dialect)
        hints = _route_hints(snapshot, routed)
        if route is None:
            return Report(False, str(Reason.NO_ROUTE), hints=hints, asked=asked)
        report = _met(snapshot, message, routed, route, body, now, client_string, asked)
        reason = report.reason or str(Reason.NO_ROUTE)
        return replace(report, accepted=False, reason=reason, hints=[*report.hints, *hints])
    return _met(snapshot, message, routed, route, body, now, client_string, asked)


def _met(
    snapshot: Snapshot,
    message: Message,
    routed: Message,
    route: Route,
    body: bytes | None,
    now: float,
    client_string: bytes | None,
    asked: str,
) -> Report:
    """What a request meets on a route."""
    # Filters are about the message that routes see.
    steps = tuple(replace(step, when=None) for step in route.pipeline if step.when is None or step.when(routed))
    place = Place(route.id, route.service_id, route.rules, routed)
    return _passed(steps, snapshot, message, body, now, client_string, place, asked)


def _passed(
    pipeline: Pipeline,
    snapshot: Snapshot,
    message: Message,
    body: bytes | None,
    now: float,
    client_string: bytes | None,
    place: Place = _NOWHERE,
    asked: str = "",
) -> Report:
    """What a request meets at these steps, and at the rules behind them."""
    pipeline = tuple(step for step in pipeline if step.when is None or step.when(message))
    outcome = check(message, pipeline, snapshot, now)
    if isinstance(outcome, Admission):
        # Where a body tells who signed, nobody is known before it was read.
        whole = b"" if body is None and surely_empty(message) else body
        if whole is not None and any(isinstance(rule, MacRule) for _, rule in outcome.bodies):
            digests = outcome.digests()
            for digest in digests:
                digest.feed(whole)
            outcome = outcome.finish(digests) or outcome
    report = Report(True, route=place.route_id, plugin=", ".join(step.plugin.name for step in pipeline), asked=asked)
    what = f"this {'route' if place.route_id else 'place'}"
    if not message.target_exact:
        report.hints.append(_REBUILT)
    # In Kong's dialect some may not have been asked, where another had found who calls.
    questioned = outcome.held if isinstance(outcome, Admission) else pipeline
    for step in _methods(questioned, message, snapshot, now):
        lookup = snapshot.lookups[step.plugin.holder]
        if step.plugin.name != hmac_auth.name:
            trace = Trace()
            step.plugin.check(message, step.config, lookup, now, trace)
            report.steps.extend(trace.steps)
            continue
        told = explain(
            message, step.config.scheme, step.config.policy, lookup, now, client_string=client_string, body=body
        )
        report.steps.extend(told.steps)
        report.strings.extend(told.strings)
        report.hints.extend(told.hints)
        report = replace(report, difference=report.difference or told.difference, unseen=report.unseen or told.unseen)
        # A body is judged after the head, which is all that the gate has seen.
        if told.reason and isinstance(step.plugin.check(message, step.config, lookup, now), Verified):
            if step.common.anonymous and told.reason not in NEVER_ANONYMOUS:
                report.hints.append(_ANONYMOUS)
            else:
                report = replace(report, reason=report.reason or told.reason)
    if not pipeline and isinstance(outcome, Admission):
        report.hints.append(f"{what} asks for no credentials")
    if isinstance(outcome, Rejected):
        # The gate knows more than one plugin: duplicated headers, the order of steps, the anonymous consumer.
        report = replace(report, reason=str(outcome.reason), plugin=outcome.plugin or report.plugin)
        if len(pipeline) > 1:
            report.hints.append(f"{what} asks for all of: " + ", ".join(step.plugin.name for step in pipeline))
        for step in pipeline:
            if step.plugin.name == multi_auth.name:
                tried = ", ".join(member.plugin.name for member in step.config.members)
                report.hints.append(f"multi-auth asks for one of: {tried}")
    elif outcome.identity.anonymous and _ANONYMOUS not in report.hints:
        report.hints.append(_ANONYMOUS)
    if isinstance(outcome, Admission) and not report.reason and not report.unseen:
        report = _ruled(report, place, snapshot, place.routed or message, outcome.identity, now)
    return replace(report, accepted=not report.reason)


def _ruled(
    report: Report, place: Place, snapshot: Snapshot, message: Message, identity: Identity, now: float
) -> Report:
    """The report with what rules say of a request that was let in. Nothing is counted."""
    trace = Trace(report.steps)
    for rule in effective(place.rules, snapshot, identity):
        outcome = judge(rule, message, identity, place.route_id, place.service_id, now, trace)
        if isinstance(outcome, Rejected):
            return replace(report, reason=str(outcome.reason), plugin=rule.plugin.name)
        if isinstance(outcome, Identity):
            identity = outcome
    return report


def _methods(
    pipeline: Pipeline, message: Message, snapshot: Snapshot, now: float
) -> Iterator[Step | multi_auth.Member]:
    """What is tried: with multi-auth its methods, down to the one that holds."""
    for step in pipeline:
        if step.plugin.name != multi_auth.name:
            yield step
            continue
        held, _ = multi_auth.attempt(message, step.config, snapshot.lookups, now)
        for member in step.config.members:
            yield member
            if member is held:
                break


def _route_hints(snapshot: Snapshot, message: Message) -> list[str]:
    """What kept the nearest route from matching."""
    path, host = decoded(message.path), host_of(message.authority).lower()
    hints = []
    for route in snapshot.routes.routes:
        covers = _covers_in_kong if route.dialect == "kong" else _covers
        # A route of Kong's dialect need not name a path.
        if any(covers(pattern, path) for pattern in route.paths or ("/",)):
            hints.append(f"route {route.id} has this path, but {_why_not(route, message, host)}")
    return hints[:5] or [f"no route has a path that covers {path}"]


def replaced(message: Message, target: str) -> Message:
    """The same message with another target."""
    other = copy(message)
    other.target = target
    return other


def _covers(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def _covers_in_kong(pattern: str, path: str) -> bool:
    compiled = Path.of(pattern)
    return path.startswith(compiled.prefix) and (compiled.regex is None or compiled.end(path) > 0)


def _why_not(route: Route, message: Message, host: str) -> str:
    if route.methods and message.method not in route.methods:
        return f"takes {', '.join(sorted(route.methods))} only, not {message.method}"
    if route.condition is not None and not route.condition(message):
        return f"its {'headers or snis do' if route.dialect == 'kong' else 'condition (vars) does'} not hold"
    if not route.accepts(message):
        return f"takes requests from {', '.join(map(str, route.networks))} only"
    return f"is for {', '.join(route.hosts)}, not {host or 'a request without Host'}"
