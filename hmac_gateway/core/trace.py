"""A recorder for verification: the same code that decides also tells each of its steps here.

Schemes and plugins take `trace: Trace | None` and record only when it is given. The debugger and `hmac_explain`
read it. Steps name facts that the caller of an explanation may see; a trace never leaves for a client.
Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """One check: its name, whether it held, what was expected and what came."""

    name: str
    ok: bool
    expected: str = ""
    received: str = ""
    note: str = ""


@dataclass(slots=True)
class Trace:
    """The steps so far, and the strings that were signed as the server sees them."""

    steps: list[Step] = field(default_factory=list)
    #: (which form of the target, the signing string), in the order tried.
    strings: list[tuple[str, bytes]] = field(default_factory=list)

    def step(self, name: str, ok: bool, expected: str = "", received: str = "", note: str = "") -> None:
        """Record one check."""
        self.steps.append(Step(name, ok, expected, received, note))
