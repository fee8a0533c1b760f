"""Explains a request against the running configuration: route, plugins, then their own checks, recorded.

Called by `hmac_explain` and the console. Imports `gate`, `snapshot`, `schemes.explain` and `models`. The same code
decides here and on the request's path; here it is asked to tell. Nothing is stored and no replay mark is set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from . import crypto
from .core.errors import ConfigError, Rejected
from .core.identity import Verified
from .core.message import Message
from .core.paths import ambiguity, decoded
from .core.reasons import NEVER_ANONYMOUS, Reason
from .core.trace import Step as TraceStep
from .core.trace import Trace
from .gate import Admission, Step, check
from .models import Rejection
from .plugins import hmac_auth, multi_auth
from .routing import Route, host_of
from .schemes.explain import explain
from .snapshot import Snapshot

_ANONYMOUS: Final = "the credentials do not hold; the request goes on as the anonymous consumer"


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


def as_text(report: Report) -> str:
    """The report as people read it, on a terminal and in the console."""
    lines = ["accepted" if report.accepted else f"refused: {report.reason}"]
    lines[0] += f"   route {report.route or '(none)'}   plugin {report.plugin or '(none)'}"
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
    """Explain a refused request that a worker kept, at the time it came; ConfigError when there is none.

    Bodies are not kept, so a digest is not compared.
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
        http_version=head["http_version"],
        remote_addr=head["remote_addr"],
    )
    return explain_request(snapshot, message, None, head["at"], client_string)


def explain_request(
    snapshot: Snapshot, message: Message, body: bytes | None, now: float, client_string: bytes | None = None
) -> Report:
    """Explain a request at `now` (Unix seconds); `body` None where it is not known. Never raises for a bad request."""
    why = ambiguity(message.path)
    if why is not None:
        steps = [TraceStep("path", False, "a plain path", message.path, why)]
        return Report(False, str(Reason.AMBIGUOUS_PATH), steps=steps)
    route = snapshot.routes.match(host_of(message.authority), decoded(message.path), message)
    if route is None:
        return Report(False, str(Reason.NO_ROUTE), hints=_route_hints(snapshot, message))
    outcome = check(message, route.pipeline, snapshot, now)
    report = Report(True, route=route.id, plugin=", ".join(step.plugin.name for step in route.pipeline))
    for step in _methods(route, message, snapshot, now):
        lookup = snapshot.lookups[step.plugin.name]
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
        report = replace(report, difference=report.difference or told.difference)
        # A body is judged after the head, which is all that the gate has seen.
        if told.reason and isinstance(step.plugin.check(message, step.config, lookup, now), Verified):
            if step.common.anonymous and told.reason not in NEVER_ANONYMOUS:
                report.hints.append(_ANONYMOUS)
            else:
                report = replace(report, reason=report.reason or told.reason)
    if not route.pipeline and isinstance(outcome, Admission):
        report.hints.append("this route asks for no credentials")
    if isinstance(outcome, Rejected):
        # The gate knows more than one plugin: duplicated headers, the order of steps, the anonymous consumer.
        report = replace(report, reason=str(outcome.reason), plugin=outcome.plugin or report.plugin)
        if len(route.pipeline) > 1:
            report.hints.append("this route asks for all of: " + ", ".join(step.plugin.name for step in route.pipeline))
        for step in route.pipeline:
            if step.plugin.name == multi_auth.name:
                tried = ", ".join(member.plugin.name for member in step.config.members)
                report.hints.append(f"multi-auth asks for one of: {tried}")
    elif outcome.identity.anonymous:
        report.hints.append(_ANONYMOUS)
    return replace(report, accepted=not report.reason)


def _methods(route: Route, message: Message, snapshot: Snapshot, now: float) -> Iterator[Step | multi_auth.Member]:
    """What is tried: with multi-auth its methods, down to the one that holds."""
    for step in route.pipeline:
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
        if any(_covers(pattern, path) for pattern in route.paths):
            hints.append(f"route {route.id} has this path, but {_why_not(route, message, host)}")
    return hints[:5] or [f"no route has a path that covers {path}"]


def _covers(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def _why_not(route: Route, message: Message, host: str) -> str:
    if route.methods and message.method not in route.methods:
        return f"takes {', '.join(sorted(route.methods))} only, not {message.method}"
    if route.hosts:
        return f"is for {', '.join(route.hosts)}, not {host or 'a request without Host'}"
    if route.networks:
        return f"takes requests from {', '.join(map(str, route.networks))} only"
    return "its condition (vars) does not hold"
