"""HTTP dates (RFC 9110 5.6.7) to Unix seconds. Used by the schemes. Standard library only."""

from __future__ import annotations

import calendar
import re
from functools import lru_cache
from typing import Final

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}
_TIME: Final = r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
_ZONE: Final = r"(?: +(?:GMT|UTC|UT|Z|\+0000))?"
_FORMS: Final = (
    # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rf"[A-Za-z]{{3}}, (?P<day>\d\d) (?P<mon>[A-Z][a-z]{{2}}) (?P<year>\d{{4}}) {_TIME}{_ZONE}", re.A),
    # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(rf"[A-Za-z]{{6,9}}, (?P<day>\d\d)-(?P<mon>[A-Z][a-z]{{2}})-(?P<year>\d\d) {_TIME}{_ZONE}", re.A),
    # asctime: Sun Nov  6 08:49:37 1994
    re.compile(rf"[A-Za-z]{{3}} (?P<mon>[A-Z][a-z]{{2}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}}){_ZONE}", re.A),
)


def parse_http_date(text: str) -> int | None:
    """Unix seconds of an IMF-fixdate, RFC 850 or asctime date, or None.

    The zone may be GMT, UTC, UT, Z, +0000 or absent; any other is None, not a guess. The weekday's text is not
    checked, as in nginx. A two-digit year below 70 lies in this century.
    """
    # Before the cache, so that nobody can fill it with long texts.
    return _parse(text) if len(text) <= 64 else None


@lru_cache(maxsize=1024)
def _parse(text: str) -> int | None:
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is None:
            continue
        year = int(match["year"])
        if len(match["year"]) == 2:
            year += 2000 if year < 70 else 1900
        month = _MONTHS.get(match["mon"])
        day, hour, minute, second = (int(match[part]) for part in ("day", "h", "m", "s"))
        if month is None or year < 1970 or hour > 23 or minute > 59 or second > 59:
            return None
        if not 1 <= day <= calendar.monthrange(year, month)[1]:
            return None
        return calendar.timegm((year, month, day, hour, minute, second))
    return None
