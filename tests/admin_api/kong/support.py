"""A client that speaks to Kong's admin API with the suite's key."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.test import Client

KEY = "test-admin-key-0123456789abcdef"


class Kong:
    """`kong.post("services", {...})` → the response. Bodies are JSON; `form` sends a form, `raw` bytes as they are."""

    def __init__(self, key: str | None = KEY, base: str = "/kong") -> None:
        self.client = Client(raise_request_exception=True)
        self.headers = {} if key is None else {"Kong-Admin-Token": key}
        self.base = base

    def raw(self, method: str, path: str, body: bytes = b"", kind: str = "application/json", **headers: str) -> Any:
        return self.client.generic(
            method, f"{self.base}/{path}", body, content_type=kind, headers={**self.headers, **headers}
        )

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self.raw(method, path, b"" if body is None else json.dumps(body).encode())

    def form(self, method: str, path: str, body: Any) -> Any:
        text = body if isinstance(body, str) else urlencode(body)
        return self.raw(method, path, text.encode(), "application/x-www-form-urlencoded")

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def put(self, path: str, body: Any) -> Any:
        return self.call("PUT", path, body)

    def post(self, path: str, body: Any) -> Any:
        return self.call("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def made(self, path: str, body: Any) -> dict[str, Any]:
        """POST something that must be accepted; the entity."""
        answer = self.post(path, body)
        assert answer.status_code == 201, (answer.status_code, answer.content)
        return dict(answer.json())
