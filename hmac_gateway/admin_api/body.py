"""A request's body as JSON that every database can hold. Called by the view before any resource sees it.

Refusals are 400 with APISIX's `invalid request body: …`. The content type is not looked at, as in APISIX (`curl -d`
sends a form's). APISIX repeats the body under `req_body`; here only when no word in it hints at a secret.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from django.http import HttpRequest, UnreadablePostError

from .errors import ApiError, refuse

#: APISIX: 1.5 MiB.
MAX_BODY: Final = 1_572_864
#: MariaDB refuses JSON deeper than 32 levels; a document may stand a few levels below a column's top.
MAX_DEPTH: Final = 24
#: The answer repeats at most so many characters.
MAX_ECHO: Final = 2000
#: Given for a request without a body.
MISSING: Final = object()

_HINTS = re.compile(r"secret|passw|private|token|key|cert", re.IGNORECASE)
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_json(request: HttpRequest) -> Any:
    """The body's JSON value, or MISSING when there is none. Raises ApiError."""
    raw = b""
    try:
        raw = read_bytes(request, MAX_BODY)
        return loads(raw) if raw else MISSING
    except TooLarge as error:
        words = f"request size {error} is greater than the maximum size {MAX_BODY} allowed"
        raise refuse(f"invalid request body: {words}") from None
    except Unreadable as error:
        raise _refusal(str(error), raw) from None


class Unreadable(Exception):
    """A body that is no JSON every database can hold. Says why, without a value."""


class TooLarge(Exception):
    """A body beyond the limit. Says its size, as far as it was read."""


def loads(raw: bytes) -> Any:
    """The JSON value of a body. Raises Unreadable."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError as error:  # NaN and its like; integers of thousands of digits
        raise Unreadable(str(error) if "cannot be stored" in str(error) else "a number is too large") from None
    if problem := unstorable(value):
        raise Unreadable(problem)
    return value


def read_bytes(request: HttpRequest, most: int) -> bytes:
    """The body as it came. Raises TooLarge, or Unreadable where it did not arrive."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    if length > most:
        raise TooLarge(length)
    try:
        # One byte more than allowed tells whether a body without a length is too long.
        raw = request.read(most + 1)
    except UnreadablePostError:
        raise Unreadable("it did not arrive") from None
    if len(raw) > most:
        raise TooLarge(len(raw))
    return bytes(raw)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # RFC 8259 4: readers differ in which of them counts.
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Unreadable(f"the key {json.dumps(twice[:64])} is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} cannot be stored")


def _refusal(why: str, raw: bytes) -> ApiError:
    body = {"error_msg": f"invalid request body: {why}"}
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return ApiError(400, body)
    if raw and not _HINTS.search(text):
        body["req_body"] = text[:MAX_ECHO]
    return ApiError(400, body)


def unstorable(value: Any, depth: int = 1) -> str | None:
    """Why not every database can hold a JSON value; None where all can."""
    if depth > MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, str):
        if "\0" in value:
            return "NUL characters cannot be stored"
        if _SURROGATE.search(value):
            return "lone surrogates cannot be stored"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return "a number is too large"
    elif isinstance(value, int):
        if not -(2**63) < value < 2**63:
            return "a number is too large"
    elif isinstance(value, dict):
        for key, item in value.items():
            if found := unstorable(key, depth) or unstorable(item, depth + 1):
                return found
    elif isinstance(value, list):
        for item in value:
            if found := unstorable(item, depth + 1):
                return found
    return None
