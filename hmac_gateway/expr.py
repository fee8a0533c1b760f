"""APISIX's `vars` expressions → predicates over a request. Called by the compile step and the admin API.

Imports `core` only. What cannot be evaluated is refused: a condition is never silently true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .core.errors import ConfigError
from .core.message import Message


def compile_expr(expr: list[Any]) -> Callable[[Message], bool]:
    """A predicate for an expression list; raises ConfigError("vars", …) for what cannot be evaluated."""
    raise ConfigError("vars", expr, "nothing yet")
