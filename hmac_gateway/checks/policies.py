"""What a compiled policy risks, in one wording for settings, views and stored plugins.

Used by `protect`, `rest` and `stored`. Imports the plugins and `conf`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from django.core.checks import CheckMessage, Warning

from ..gate import Step
from ..plugins import PLUGINS, hmac_auth
from ..schemes.kong import REQUEST_LINE, REQUEST_TARGET
from .common import SHARED_STORES, did_you_mean, shortened, value

#: Still verified where a configuration allows them; nothing new should use them.
WEAK_ALGORITHMS: Final = frozenset({"hmac-sha1", "hmac-md5", "sha1", "md5"})
#: What stands for method and target in a list of headers.
_TARGETS: Final = frozenset({REQUEST_TARGET, REQUEST_LINE})
#: Seconds: both originals' default. Within it, on both sides, an overheard request can be sent again.
MAX_SKEW: Final = 300


class Placed(NamedTuple):
    """A compiled policy, and where it stands."""

    where: str
    step: Step


def weak(found: Iterable[Placed]) -> Iterator[CheckMessage]:
    """SHA-1 and MD5."""
    places = [where for where, policy in signed(found) if policy.algorithms & WEAK_ALGORITHMS]
    if places:
        yield Warning(
            f"SHA-1 or MD5 signatures are accepted by hmac-auth at: {shortened(places)}.",
            hint='Set "allowed_algorithms" (Kong: "algorithms") to ["hmac-sha256", "hmac-sha512"], or "digest" to '
            '"sha256" with the scheme hmacproxy. Where nothing is set, APISIX and Kong allow SHA-1, and hmacproxy and '
            "Kong 0.x use it.",
            id="hmac_gateway.W004",
        )


def forgotten(found: Iterable[Placed]) -> Iterator[CheckMessage]:
    """Replay protection over a store that forgets."""
    places = [where for where, policy in signed(found) if policy.replay_methods]
    if places and value("REPLAY_STORE") == "memory":
        yield Warning(
            "HMAC_GATEWAY['REPLAY_STORE'] is memory, which forgets used signatures at a restart; replay protection "
            f"is asked for at: {shortened(places)}.",
            hint=f"Set REPLAY_STORE to {SHARED_STORES}.",
            id="hmac_gateway.W006",
        )


def unheld(found: Iterable[Placed]) -> Iterator[CheckMessage]:
    """Methods that CREDENTIALS, where they are all there is, have no keys for."""
    places = [
        where
        for where, step in found
        if not any(method.plugin.name == hmac_auth.name for method in (step, *getattr(step.config, "members", ())))
    ]
    if places and value("CREDENTIALS"):
        yield Warning(
            f"HMAC_GATEWAY['CREDENTIALS'] holds keys for hmac-auth only, so nobody can pass at: {shortened(places)}.",
            hint="Ask for hmac-auth there, or remove CREDENTIALS and store credentials in the database.",
            id="hmac_gateway.W024",
        )


def targets(found: Iterable[Placed]) -> Iterator[CheckMessage]:
    """Signatures that hold for another method, path or query as well."""
    places = [where for where, policy in signed(found) if not _TARGETS & {*policy.required}]
    if places:
        yield Warning(
            f"Signatures need not cover method, path and query at: {shortened(places)}. An overheard one can be used "
            "for another address.",
            hint=f'Set "signed_headers" (in Kong\'s dialect "enforce_headers") to ["{REQUEST_TARGET}", "date"].',
            id="hmac_gateway.W012",
        )


def bodies(found: Iterable[Placed]) -> Iterator[CheckMessage]:
    """Bodies that whoever is on the way may exchange."""
    places = [where for where, policy in signed(found) if not policy.validate_body]
    if places:
        yield Warning(
            f"Signatures do not cover the body of a POST, PUT or PATCH at: {shortened(places)}.",
            hint='Set "validate_request_body": True; clients then sign a Digest header.',
            id="hmac_gateway.W013",
        )


def skews(found: Iterable[Placed]) -> Iterator[CheckMessage]:
    """Signatures that are good for long."""
    places = [where for where, policy in signed(found) if policy.clock_skew > MAX_SKEW or not policy.require_date]
    if places:
        yield Warning(
            f"Signatures are good for more than {MAX_SKEW} seconds at: {shortened(places)}.",
            hint=f'Set "clock_skew" to {MAX_SKEW} or less (with the scheme hmacproxy, put date into "headers" too), '
            "and have clients set their clocks by NTP.",
            id="hmac_gateway.W018",
        )


def misspelt(where: str, given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """Fields that no plugin knows: the wire format has them accepted silently, in settings they are misspelt."""
    name, dialect, config = given.get("plugin", hmac_auth.name), given.get("dialect", "apisix"), given.get("config", {})
    known = [*PLUGINS[name].config_schema[dialect]["properties"], "_meta"]
    for field in config:
        if field not in known:
            yield Warning(
                f"{where}.{field} is no field of {name}; it has no effect.",
                hint=did_you_mean(field, known, f"Known fields: {', '.join(sorted(known))}."),
                id="hmac_gateway.W010",
            )


def signed(found: Iterable[Placed]) -> Iterator[tuple[str, Any]]:
    """The hmac-auth policies among them, those that multi-auth offers included."""
    for where, step in found:
        for method in (step, *getattr(step.config, "members", ())):
            if isinstance(method.config, hmac_auth.Config):
                yield where, method.config.policy
