"""A request's body as Kong's admin API takes it: JSON, a form, or a multipart form. Called by the view.

Names of forms nest by dots (`config.clock_skew=10`), lists are `tags[]=a`, `tags[1]=a` or a name given more than once.
All values of forms are texts, and the fields say what they mean (`kong_spec.infer`). Raises KongError 400, 413, 415.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from django.http import HttpRequest
from django.http.multipartparser import MultiPartParser, MultiPartParserError

from .body import MAX_BODY, MAX_DEPTH, TooLarge, Unreadable, loads, read_bytes, unstorable
from .kong_entity import Doc
from .kong_errors import KongError, plain

#: Fields of one form.
MAX_FIELDS: Final = 1000
_INDEX: Final = re.compile(r"(.+)\[(\d{0,4})\]")


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent; `form` says that its values are texts still."""

    doc: Doc
    form: bool


def read_body(request: HttpRequest, most: int = MAX_BODY) -> Sent:
    """The body as an object; an empty one for a request without a body."""
    raw = raw_body(request, most)
    kind = str(request.META.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
    if not raw and kind == "application/json":
        # Who says JSON sends some (Kong).
        raise plain(400, "Cannot parse JSON body")
    if not raw:
        return Sent({}, form=False)
    if kind == "application/json":
        return Sent(_json(raw), form=False)
    if kind == "application/x-www-form-urlencoded":
        return Sent(nested(_pairs(raw)), form=True)
    if kind == "multipart/form-data":
        return Sent(nested(_parts(request, raw)), form=True)
    raise plain(415, "Unsupported media type")


def raw_body(request: HttpRequest, most: int) -> bytes:
    """The body as it came. Raises KongError 413."""
    try:
        return read_bytes(request, most)
    except TooLarge:
        raise plain(413, "Payload too large") from None
    except Unreadable:
        raise plain(400, "Bad request") from None


def _json(raw: bytes) -> Doc:
    try:
        value = loads(raw)
    except Unreadable:
        raise plain(400, "Cannot parse JSON body") from None
    if not isinstance(value, dict):
        raise plain(400, "Cannot parse JSON body")
    return value


def _unreadable() -> KongError:
    return plain(400, "Cannot parse form body")


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        text = raw.decode("ascii") if raw.isascii() else raw.decode("utf-8")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise _unreadable() from None


def _parts(request: HttpRequest, raw: bytes) -> list[tuple[str, str]]:
    meta = {**request.META, "CONTENT_LENGTH": str(len(raw))}
    try:
        fields, files = MultiPartParser(meta, io.BytesIO(raw), request.upload_handlers, "utf-8").parse()
        # `-F config=@kong.yml`: a file's content is its value.
        found = [(name, value) for name, values in fields.lists() for value in values]
        found += [(name, file.read().decode()) for name, all in files.lists() for file in all]
    except (MultiPartParserError, ValueError):
        raise _unreadable() from None
    if not found and not re.fullmatch(rb"\s*--[^\r\n]+--\s*", raw):
        # The parser passes over what it cannot read; a form without fields is its end alone.
        raise _unreadable()
    return found


def nested(pairs: list[tuple[str, str]]) -> Doc:
    """The names of a form taken apart: an object of objects, lists and texts."""
    found: Doc = {}
    for name, value in pairs:
        # A name that begins or ends with a dot is taken as it is (Kong).
        parts = [name] if name.startswith(".") or name.endswith(".") else [part for part in name.split(".") if part]
        if not parts or len(parts) >= MAX_DEPTH or len(found) > MAX_FIELDS:
            raise _unreadable()
        place = found
        for part in parts[:-1]:
            inner = place.get(part)
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        _put(place, parts[-1], value)
    if unstorable(found) is not None:
        raise _unreadable()
    return found


def _put(place: Doc, name: str, value: str) -> None:
    index = _INDEX.fullmatch(name)
    if index is None:
        if name not in place or isinstance(place[name], dict):
            place[name] = value
        elif isinstance(place[name], list):
            place[name].append(value)
        else:
            place[name] = [place[name], value]
        return
    items = place.get(index[1])
    if not isinstance(items, list):
        items = place[index[1]] = [] if items is None or isinstance(items, dict) else [items]
    at = int(index[2] or 0)
    # As Lua inserts: at its place, or at the end.
    items.insert(at - 1 if 0 < at <= len(items) else len(items), value)
