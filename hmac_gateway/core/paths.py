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
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")


@lru_cache(maxsize=4096)
def decoded(path: str) -> str:
    """A raw path percent-decoded, with runs of slashes merged (nginx's `merge_slashes`). Never raises."""
    if "%" in path:
        path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    if "//" in path:
        path = _SLASHES.sub("/", path)
    return path or "/"


@lru_cache(maxsize=4096)
def signed_form(path: str) -> str | None:
    """The path as APISIX puts it into its signing string, or None where that form would be ambiguous.

    Ambiguous: decoding yields `/`, `?`, `#`, CR, LF or NUL, so that two raw paths, which an upstream may read
    differently, would share one signature.
    """
    if _MEANING.search(path) or ambiguity(path) is not None:
        return None
    return decoded(path)


@lru_cache(maxsize=4096)
def ambiguity(path: str) -> str | None:
    """Why a raw path must not be routed, in words for a 400, or None when it is plain.

    Refused: dot segments in any encoding, a backslash, encoded NUL, CR or LF, raw control characters and blanks,
    and anything that is not an absolute path (`*` of OPTIONS included). A broken escape (`%zz`) means itself.
    """
    if not path.startswith("/"):
        return "the request target is not an absolute path"
    if _CONTROL.search(path):
        return "the path holds a control character or a blank"
    # A path that an upstream decodes twice must not grow dot segments there: decode until it is stable.
    seen = path
    for _ in range(8):
        if "\\" in seen:
            return "the path holds a backslash"
        if "\x00" in seen or "\r" in seen or "\n" in seen:
            return "the path holds an encoded control character"
        if "/." in seen and any(_is_dots(segment) for segment in seen.split("/")):
            return "the path holds a dot segment"
        if "%" not in seen:
            return None
        once = unquote_to_bytes(seen.encode("latin-1")).decode("latin-1")
        if once == seen:
            return None
        seen = once
    return "the path is encoded too many times"


def _is_dots(segment: str) -> bool:
    # `..;x` is a dot segment to servers that cut path parameters (RFC 3986 3.3).
    return segment.partition(";")[0] in (".", "..")
