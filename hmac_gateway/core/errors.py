"""The two trees of failure: configuration that is wrong, and requests that are refused.

Standard library only. `Rejected` is a value that the gate returns; it is also an exception, so that hosts whose
contract is to raise (DRF, the decorator) can raise the very same object.
"""

from __future__ import annotations

from typing import Any

from .reasons import Reason


class ConfigError(ValueError):
    """Configuration that is refused where it is written.

    `field` is its name (dotted when nested), `given` the value, `allowed` what would be right, in words.
    """

    def __init__(self, field: str, given: Any, allowed: str) -> None:
        self.field = field
        self.given = given
        self.allowed = allowed
        super().__init__(field, given, allowed)

    def __str__(self) -> str:
        shown = repr(self.given)
        if len(shown) > 120:
            shown = shown[:117] + "…"
        return f"{self.field}: {shown} was given; allowed: {self.allowed}"


class Rejected(Exception):
    """A refused request: the reason, who refused, and the facts its words need. Never a secret or a MAC.

    `plugin` is the plugin that answered, or "" for the gateway itself; `dialect` whose words it speaks; `facts`
    fill the words' placeholders; `challenge` is the value of WWW-Authenticate, "" for none; `detail` is for logs
    only; `expose` adds the code to the body; `also` are others of the same request whose words its body holds as well.
    `status`, `text` and `response` stand in for the table's status, its words
    and the whole body where a configuration says so (`rejected_code`, `rejected_msg`, `_meta.error_response`).
    `headers` are further ones of the answer, names in lower case.
    """

    def __init__(
        self,
        reason: Reason,
        *,
        plugin: str = "",
        dialect: str = "apisix",
        facts: dict[str, Any] | None = None,
        challenge: str = "",
        detail: str = "",
        expose: bool = False,
        status: int = 0,
        text: str = "",
        response: str | dict[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        also: tuple[Rejected, ...] = (),
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.plugin = plugin
        self.dialect = dialect
        self.facts = facts or {}
        self.challenge = challenge
        self.detail = detail
        self.expose = expose
        self.status = status
        self.text = text
        self.response = response
        self.headers = headers
        self.also = also

    def __repr__(self) -> str:
        return f"<Rejected {self.plugin or 'gateway'}: {self.reason}>"
