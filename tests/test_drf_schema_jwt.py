"""What OpenAPI is told of jwt-auth: the token's own scheme, or the header that was configured; and of signatures."""

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


@pytest.mark.parametrize(
    ("config", "name", "words"),
    [
        ({}, "Authorization", "Signature keyId="),
        ({"scheme": "hmacproxy", "key_id": "a", "sign_header": "GAP-Signature"}, "Gap-Signature", "as hmacproxy does"),
    ],
)
def test_signatures(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], name: str, words: str) -> None:
    monkeypatch.setattr(drf_schema, "_step", lambda *given: (compile_step("hmac-auth", config), None))
    found = drf_schema.HmacScheme.get_security_definition(SimpleNamespace(target=None), SimpleNamespace(view=None))  # type: ignore[arg-type]
    assert (found["type"], found["in"], found["name"]) == ("apiKey", "header", name)
    assert words in found["description"]
