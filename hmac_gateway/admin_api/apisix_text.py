"""Documents checked against a schema, refused in APISIX's words. Used by every `apisix_…` file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..schema import apisix_text, problem
from .errors import invalid


def check_schema(doc: Any, schema: Mapping[str, Any]) -> None:
    """Raise ApiError `invalid configuration: …` when the document breaks the schema."""
    found = problem(doc, schema)
    if found is None:
        return
    raise invalid(apisix_text(found))
