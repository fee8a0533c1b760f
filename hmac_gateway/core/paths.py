"""What a raw path means: its decoded form for matching, and the forms that must never pass.

Used by the router, the schemes (APISIX signs a decoded path) and the adapters' path rule. Standard library only.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

_SLASHES: Final = re.compile(r"//+")
#: Escapes whose decoding would change what a path or a signing string means.
_MEANING: Final = re.compile(r"%(?:2[fF3]|3[fF]|0[dDaA0])")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
#: Longer paths are not kept: whoever sends them would choose how much memory the caches take.
CACHED: Final = 256


def decoded(path: str) -> str:
    """A raw path percent-decoded, with runs of slashes merged (nginx's `merge_slashes`). Never raises."""
    return _decoded(path) if len(path) <= CACHED else _decoded.__wrapped__(path)


@lru_cache(maxsize=4096)
def _decoded(path: str) -> str:
    if "%" in path:
        path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    if "//" in path:
        path = _SLASHES.sub("/", path)
    return path or "/"


def raw_length(path: str, count: int) -> int:
    """How many characters of a raw path become the first `count` of its decoded form.

    A slash at their end takes all slashes with it that are merged into one.
    """
    place = made = 0
    slash = False
    while place < len(path):
        size = 3 if _ESCAPE.match(path, place) else 1
        is_slash = path[place] == "/" or path[place : place + size].lower() == "%2f"
        if not (is_slash and slash):
            if made == count:
                break
            made += 1
        slash = is_slash
        place += size
    return place


def signed_form(path: str) -> str | None:
    """The path as APISIX puts it into its signing string, or None where that form would be ambiguous.

    Ambiguous: decoding yields `/`, `?`, `#`, CR, LF, NUL or another escape, so that two raw paths, which an upstream
    may read differently, would share one signature.
    """
    if _MEANING.search(path) or ambiguity(path) is not None:
        return None
    form = decoded(path)
    # A signature over the raw `/a%2Fb` would otherwise also hold for `/a%252Fb`.
    return None if _ESCAPE.search(form) else form


def ambiguity(path: str) -> str | None:
    """Why a raw path must not be routed, in words for a 400, or None when it is plain.

    Refused: dot segments in any encoding, a backslash, encoded NUL, CR or LF, raw control characters and blanks,
    a fragment, and anything that is not an absolute path (`*` of OPTIONS included). A broken escape (`%zz`) means
    itself.
    """
    return _ambiguity(path) if len(path) <= CACHED else _ambiguity.__wrapped__(path)


@lru_cache(maxsize=4096)
def _ambiguity(path: str) -> str | None:
    if not path.startswith("/"):
        return "the request target is not an absolute path"
    if _CONTROL.search(path):
        return "the path holds a control character or a blank"
    if "#" in path:
        return "the request target holds a fragment"
    # A path that an upstream decodes twice must not grow dot segments there: decode until it is stable.
    seen = path
    for _ in range(8):
        if "\\" in seen:
            return "the path holds a backslash"
        if "\x00" in seen or "\r" in seen or "\n" in seen:
            return "the path holds an encoded control character"
        if "/." in seen and any(_is_dots(segment) for segment in seen.split("/")):
            return "the path holds a dot segment"
        if "/;" in seen:
            # Servers that cut path parameters (RFC 3986 3.3) read `/;x/admin` as `/admin`.
            return "the path holds a segment of parameters only"
        if "%" not in seen:
            return None
        once = unquote_to_bytes(seen.encode("latin-1")).decode("latin-1")
        if once == seen:
            return None
        seen = once
    return "the path is encoded too many times"


def stable(path: str) -> str:
    """A raw path decoded until nothing changes any more: how the last of many decoders would read it."""
    for _ in range(8):
        once = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        if once == path:
            break
        path = once
    return path


def _is_dots(segment: str) -> bool:
    # `..;x` is a dot segment to servers that cut path parameters (RFC 3986 3.3).
    return segment.partition(";")[0] in (".", "..")
