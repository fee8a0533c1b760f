"""Regular expressions from configuration: a linear-time engine and a cap on their length, whoever wrote them.

Called by `expr` (conditions), `routing_kong` (paths and headers) and the models' `clean()`. Needs google-re2, which is
imported where a regex is used. Patterns and texts are bytes as text, as a `Message` holds them.
"""

from __future__ import annotations

from typing import Any, Final

from .core.errors import ConfigError

#: Characters of a pattern: RE2's time grows with the pattern's length.
MAX_REGEX: Final = 1024


def compile_regex(pattern: str, field: str, given: Any, *, case_sensitive: bool = True) -> Any:
    """The compiled pattern; `match` holds it to the start of a text, `search` looks everywhere. Both take bytes.

    ConfigError(field, given, …) for what is too long, no RE2 syntax, or where google-re2 is not installed.
    """
    if len(pattern) > MAX_REGEX:
        raise ConfigError(field, given, f"a regex of at most {MAX_REGEX} bytes")
    try:
        import re2
    except ImportError:
        raise ConfigError(field, given, "a regex only where the package google-re2 is installed") from None
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes, as both originals' regexes see them
    options.case_sensitive = case_sensitive
    options.log_errors = False
    try:
        return re2.compile(pattern.encode("latin-1"), options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        shown = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise ConfigError(field, given, f"a regex in RE2 syntax ({shown})") from None


def literal_prefix(regex: Any) -> str:
    """What every text starts with that `regex` matches at its start; "" where nothing is sure."""
    import re2

    # RE2 works the range out for what is anchored only.
    anchored = re2.compile(b"^(?:" + regex.pattern + b")", regex.options)
    try:
        least, most = anchored.possiblematchrange(256)
    except re2.error:
        return ""
    size = 0
    for one, other in zip(least, most, strict=False):
        if one != other:
            break
        size += 1
    return bytes(least[:size]).decode("latin-1")
