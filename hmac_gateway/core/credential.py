"""Consumers and their credentials as the engine sees them: frozen, compiled from rows or settings.

Built by `consumers.compile` and `settings-only` mode; read by plugins. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from .reasons import Reason

#: What stands in place of a secret wherever configuration is shown.
MASK: Final = "********"


class Secret:
    """Bytes that must not show: repr and str are a mask."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who calls. `user_id` is the primary key of the linked Django user, if any."""

    id: str
    username: str
    custom_id: str = ""
    group_id: str = ""
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    enabled: bool = True
    expires_at: float | None = None
    user_id: Any = None


@dataclass(frozen=True, slots=True)
class Credential:
    """One key of a consumer for one plugin.

    `identifier` is what a request names (key id, username); `public_id` is what upstreams are told, "" when the
    key was written on the consumer itself. `open_secrets(now)` gives the live secrets, newest first; it opens
    them on first use. Times are Unix seconds.
    """

    id: str
    consumer: Consumer
    plugin: str
    identifier: str
    open_secrets: Callable[[float], tuple[Secret, ...]] = field(repr=False)
    public_id: str = ""
    enabled: bool = True
    not_before: float | None = None
    expires_at: float | None = None
    settings: dict[str, Any] = field(default_factory=dict, repr=False)
    labels: dict[str, str] = field(default_factory=dict)
    # A list where something was made: None may be what was made of it.
    _prepared: list[Any] | None = field(init=False, default=None, repr=False, compare=False)

    def prepared(self, build: Callable[[Credential], Any]) -> Any:
        """What `build` makes of this credential, made once and kept with it: parsed keys and the like."""
        kept = self._prepared
        if kept is None:
            kept = [build(self)]
            object.__setattr__(self, "_prepared", kept)
        return kept[0]

    def unusable(self, now: float) -> Reason | None:
        """Why this credential may not be used at `now`, or None."""
        consumer = self.consumer
        if not self.enabled or not consumer.enabled:
            return Reason.CREDENTIAL_DISABLED
        if self.not_before is not None and now < self.not_before:
            return Reason.CREDENTIAL_NOT_YET_VALID
        if self.expires_at is not None and now >= self.expires_at:
            return Reason.CREDENTIAL_EXPIRED
        if consumer.expires_at is not None and now >= consumer.expires_at:
            return Reason.CREDENTIAL_EXPIRED
        return None


def is_reference(text: str) -> bool:
    """Whether APISIX would look a secret up elsewhere (`$env://NAME`, `$secret://…`): the text itself is no secret."""
    return text[:10].lower().startswith(("$env://", "$secret://"))


#: Finds a credential by what the request names; None when nobody has it.
Lookup = Callable[[str], Credential | None]
