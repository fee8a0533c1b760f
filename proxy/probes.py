"""What an upstream's `checks` ask for, compiled: how nodes are probed, and what makes one unhealthy.

    {"active": {"http_path": "/status", "healthy": {"interval": 2}, "unhealthy": {"http_failures": 2}}, "passive": {}}

Plain values; `health.py` acts on them. Fields and defaults are APISIX's. Imports the core's ConfigError only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hmac_gateway.core.errors import ConfigError

#: APISIX's statuses of a node that is well, and of one that is not, for probes and for what requests show.
_WELL: Final = (200, 302)
_ILL: Final = (429, 404, 500, 501, 502, 503, 504, 505)
_WELL_SEEN: Final = (*range(200, 209), 226, *range(300, 309))
_ILL_SEEN: Final = (429, 500, 503)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many reports of one kind change what is thought of a node; 0: reports of this kind say nothing.

    `well` and `ill` are the statuses that count as a success and as a failure.
    """

    well: frozenset[int]
    ill: frozenset[int]
    successes: int
    http_failures: int
    tcp_failures: int
    timeouts: int


@dataclass(frozen=True, slots=True)
class Probe:
    """How a node is asked. `host` and `port` take the place of the node's own, "" and 0: they do not.

    `seconds_well` and `seconds_ill` lie between two probes of a node, by what is thought of it.
    """

    kind: str
    timeout: float
    host: str
    port: int
    method: str
    path: str
    body: bytes
    verify: bool
    headers: tuple[str, ...]
    seconds_well: float
    seconds_ill: float
    limits: Limits


@dataclass(frozen=True, slots=True)
class Checks:
    """An upstream's checks; requests are looked at only where `passive` is there, as in APISIX beside probes only."""

    active: Probe
    passive: Limits | None


def compile_checks(checks: Mapping[str, Any]) -> Checks | None:
    """The checks of an upstream of APISIX's dialect; None where it asks for none. Raises ConfigError."""
    if "active" not in checks:
        return None
    try:
        return _checks(checks["active"], checks.get("passive"))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError("checks", dict(checks), f"active and passive as in APISIX ({error})") from None


def _checks(active: Mapping[str, Any], passive: Mapping[str, Any] | None) -> Checks:
    well, ill = active.get("healthy") or {}, active.get("unhealthy") or {}
    return Checks(
        active=Probe(
            kind=active.get("type", "http"),
            timeout=_seconds(active.get("timeout", 1)),
            host=_line(active.get("host", "")),
            port=int(active.get("port", 0)),
            method=_line(active.get("http_method", "GET")),
            path=_line(active.get("http_path", "/")),
            body=active.get("http_req_body", "").encode(),
            verify=bool(active.get("https_verify_certificate", True)),
            headers=tuple(map(_line, active.get("req_headers", ()))),
            seconds_well=_seconds(well.get("interval", 1)),
            seconds_ill=_seconds(ill.get("interval", 1)),
            limits=_limits(well, ill, (_WELL, _ILL), successes=2, tcp_failures=2, timeouts=3),
        ),
        passive=None
        if passive is None
        else _limits(
            passive.get("healthy") or {},
            passive.get("unhealthy") or {},
            (_WELL_SEEN, _ILL_SEEN),
            successes=5,
            tcp_failures=2,
            timeouts=7,
        ),
    )


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < 10**9:
        raise ValueError(f"{value!r} is no time to wait")
    return seconds


def _line(text: str) -> str:
    """A part of a probe's head, which it must not end."""
    if any(char < " " or char == "\x7f" for char in text):
        raise ValueError("a control character")
    return text


def _limits(
    well: Mapping[str, Any],
    ill: Mapping[str, Any],
    statuses: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    successes: int,
    tcp_failures: int,
    timeouts: int,
) -> Limits:
    return Limits(
        well=frozenset(well.get("http_statuses", statuses[0])),
        ill=frozenset(ill.get("http_statuses", statuses[1])),
        successes=int(well.get("successes", successes)),
        http_failures=int(ill.get("http_failures", 5)),
        tcp_failures=int(ill.get("tcp_failures", tcp_failures)),
        timeouts=int(ill.get("timeouts", timeouts)),
    )
