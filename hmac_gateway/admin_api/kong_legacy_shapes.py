"""Shapes and words that Kong 0.5's admin API has for everything: bodies, lists, refusals.

Used by `kong_legacy` and `kong_legacy_plugins`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from . import kong_lookup as lookup
from .kong_body import read_body
from .kong_entity import Doc
from .kong_errors import KongError, plain

if TYPE_CHECKING:
    from .kong import Ask

#: What the server sets; sent back by clients, and not looked at.
_SERVERS: Final = ("id", "api_id", "created_at")


def refused(errors: Mapping[str, str], status: int = 400) -> KongError:
    """Kong 0.x's refusal: reasons by field, and nothing else."""
    return KongError(status, dict(errors))


def sent(ask: Ask, kinds: Mapping[str, str]) -> tuple[Doc, Doc]:
    """The body, texts turned into what the fields hold; and what the server sets of it. Raises KongError 400."""
    given = read_body(ask.request).doc
    own: Doc = {name: given.pop(name) for name in _SERVERS if name in given}
    errors: dict[str, str] = {}
    for name, value in list(given.items()):
        kind = kinds.get(name)
        if kind is None:
            errors[name] = f"{name} is an unknown field"
            continue
        if isinstance(value, str):
            value = value.strip()
        if kind == "boolean" and value in ("true", "false"):
            value = value == "true"
        expected = {"boolean": bool, "table": dict}.get(kind, str)
        if value == "" or value is None:
            given[name] = None
        elif not isinstance(value, expected) or (kind == "url" and not _is_url(str(value))):
            errors[name] = f"{name} is not a {kind}"
        else:
            given[name] = value
    if errors:
        raise refused(errors)
    return given, own


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Raises where it is none.
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme and parts.hostname)


def page(ask: Ask, rows: Sequence[Any], show: Callable[[Any], Doc], path: str) -> tuple[int, Any]:
    """A list; `next` is absent on the last page. Arguments that name a field filter by it."""
    query = dict(ask.query)
    size, offset = query.pop("size", "100"), query.pop("offset", "0")
    query.pop("api_key", None)
    if not re.fullmatch(r"[0-9]{1,6}", size) or not 0 < int(size) <= lookup.MAX_PAGE:
        raise plain(400, "Invalid size")
    if not re.fullmatch(r"[0-9]{1,9}", offset):
        raise plain(400, "Invalid offset")
    shown = (show(row) for row in rows)
    found = [doc for doc in shown if all(str(doc.get(name)) == text for name, text in query.items())]
    end = int(offset) + int(size)
    body: Doc = {"data": found[int(offset) : end]}
    if end < len(found):
        arguments = urlencode({**query, "size": size, "offset": end}, quote_via=quote)
        body["next"] = f"{ask.request.scheme}://{ask.request.get_host()}{ask.base}/apis{path}?{arguments}"
    return 200, body


def reason(error: Any) -> str:
    """The first reason in a shape of reasons."""
    while not isinstance(error, str):
        error = next(item for item in (error.values() if isinstance(error, dict) else error) if item is not None)
    return error


def as_old(error: KongError, field: str) -> KongError:
    """A refusal of today's in the old shape."""
    body = error.body or {}
    fields = {name: reason(item) for name, item in (body.get("fields") or {}).items() if item}
    return refused(fields or {field: str(body.get("message"))}, error.status)
