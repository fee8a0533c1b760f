"""A client that speaks to APISIX's admin API with the suite's key."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

KEY = "test-admin-key-0123456789abcdef"
BASE = "/apisix/admin"


class Api:
    """`api.put("routes/1", {...})` → the response; bodies are JSON unless they are text or bytes already."""

    def __init__(self, key: str | None = KEY) -> None:
        self.client = Client(raise_request_exception=True)
        self.headers = {} if key is None else {"X-API-KEY": key}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = b"" if body is None else body if isinstance(body, bytes | str) else json.dumps(body)
        return self.client.generic(
            method,
            f"{BASE}/{path}",
            data,
            content_type="application/json",
            headers={**self.headers, **headers},
        )

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

    def value(self, path: str) -> dict[str, Any]:
        """The stored object, without the stamps."""
        value = dict(self.get(path).json()["value"])
        assert isinstance(value.pop("create_time"), int) and isinstance(value.pop("update_time"), int)
        return value
