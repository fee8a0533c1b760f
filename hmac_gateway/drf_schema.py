"""Tells drf-spectacular how a view's callers authenticate. Imported by `drf` where drf-spectacular is installed."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.drainage import set_override
from drf_spectacular.extensions import OpenApiAuthenticationExtension

from .drf import HmacAuthentication, _step
from .gate import Step

_SIGNED = {
    "apisix": (
        'Requests are signed: `Authorization: Signature keyId="…",algorithm="hmac-sha256",headers="…",signature="…"`, '
        "where the signature is the base64 of the HMAC over the key id and the listed parts of the request."
    ),
    "kong": (
        'Requests are signed: `Authorization: hmac username="…",algorithm="hmac-sha256",headers="…",signature="…"`, '
        "where the signature is the base64 of the HMAC over the listed parts of the request."
    ),
    "hmacproxy": (
        "Requests are signed as hmacproxy does: a digest's name, a blank and the base64 of the HMAC over method, agreed"
        " headers, path and query, and the body."
    ),
}


#: Subclasses that differ in their policy only are one scheme, whose name says all that documents tell of it.
set_override(HmacAuthentication, "suppress_collision_warning", True)
#: Where credentials stand, if a policy says nothing else.
_USUAL = frozenset({"authorization", "apikey"})


class HmacScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """One security scheme per plugin, and per format and header that is not its usual one, named after them."""

    target_class = HmacAuthentication
    match_subclasses = True
    name = "hmac-auth"

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[Any]]:
        """The view's plugin."""
        step, _ = _step(self.target, auto_schema.view)
        named = [step.plugin.name]
        if step.plugin.name == "hmac-auth" and _format(step) != "apisix":
            named.append(_format(step))
        header = str(self.get_security_definition(auto_schema).get("name", "")).lower()
        if header and header not in _USUAL:
            named.append(header)
        self.name = re.sub(r"[^A-Za-z0-9._-]", "-", "-".join(named))
        return {self.name: []}

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """OpenAPI has no scheme for signatures: the header, and in words what stands in it."""
        step, _ = _step(self.target, auto_schema.view)
        if step.plugin.name == "basic-auth":
            return {"type": "http", "scheme": "basic"}
        if step.plugin.name == "jwt-auth" and ("header", "authorization") in step.common.carriers:
            return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        place, name = min(step.common.carriers)
        if step.plugin.name in ("key-auth", "jwt-auth"):
            place, name = next((c for c in sorted(step.common.carriers) if c.place == "header"), (place, name))
            return {"type": "apiKey", "in": place, "name": name}
        words = _SIGNED[_format(step)] if step.plugin.name == "hmac-auth" else ""
        return {"type": "apiKey", "in": place, "name": name.title(), "description": words}


def _format(step: Step) -> str:
    return str(step.config.scheme.name).removesuffix("-legacy")
