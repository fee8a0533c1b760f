"""What OpenAPI is told of jwt-auth: the token's own scheme, or the header that was configured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hmac_gateway import drf_schema
from hmac_gateway.gate import compile_step


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
        ({"header": "X-Token"}, {"type": "apiKey", "in": "header", "name": "x-token"}),
    ],
)
def test_security_definition(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], told: dict[str, Any]) -> None:
    monkeypatch.setattr(drf_schema, "_step", lambda *given: (compile_step("jwt-auth", config), None))
    scheme = SimpleNamespace(target=None)
    found = drf_schema.HmacScheme.get_security_definition(scheme, SimpleNamespace(view=None))  # type: ignore[arg-type]
    assert found == told
