"""What is wrong with a request's dates. Used by `explain`; standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime

from ..core.dates import parse_http_date
from ..core.identity import Failure
from ..core.message import Message
from ..core.reasons import Reason
from .verify import DATE_HEADERS, Policy


def dates(message: Message, policy: Policy, failure: Failure, now: float) -> Iterator[str]:
    if failure.reason is Reason.DATE_NOT_SIGNED:
        yield "a date that is not signed can be replaced: add date to headers= and its line to the string"
    if failure.reason is Reason.DATE_MISSING:
        if message.get("x-date") is not None:
            yield "X-Date counts only when x-date is in headers="
        else:
            yield "send a Date header; where it cannot be set (browsers), send X-Date and sign x-date"
    for name in DATE_HEADERS:
        value = message.get(name)
        if value is None:
            continue
        then = parse_http_date(value)
        late = failure.reason in (Reason.CLOCK_SKEW, Reason.DATE_INVALID)
        if late and then is not None and abs(int(now) - then) <= policy.clock_skew:
            # The originals take it, Kong even unsigned.
            yield f"{name} is in time, but it counts only when it is signed: add {name} to headers= and its line"
        elif then is None:
            yield from _date_form(name, value)
        elif failure.reason is Reason.CLOCK_SKEW:
            off = then - int(now)
            hours = round(off / 1800) / 2
            if hours and abs(hours) <= 14 and abs(off - hours * 3600) <= policy.clock_skew:
                yield f"{name} is off by about {hours:+g} h: it may be a local time that was called GMT"
            elif abs(off) > policy.clock_skew:
                yield f"the server's clock says {formatdate(int(now), usegmt=True)}; compare the client's"


def _date_form(name: str, value: str) -> Iterator[str]:
    when, what = _moment(value)
    right = f"; write {formatdate(when, usegmt=True)}" if when is not None else ""
    yield f"{name} is {what}{right}"


def _moment(value: str) -> tuple[int | None, str]:
    """(Unix seconds, what form it is) of a date that HTTP does not know."""
    try:
        if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", value, re.A):
            return int(float(value)), "in Unix seconds, not an HTTP date"
        if re.fullmatch(r"[0-9]{12,14}", value, re.A):
            return int(value) // 1000, "in milliseconds, not an HTTP date"
        if re.match(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}", value, re.A):
            found = datetime.fromisoformat(value)
            known = found.tzinfo is not None
            return int(found.timestamp()) if known else None, "in ISO 8601, not an HTTP date"
    except (ValueError, OverflowError, OSError):
        return None, "not an HTTP date (Sun, 06 Nov 1994 08:49:37 GMT)"
    try:
        found = parsedate_to_datetime(value)
        if found.tzinfo is not None and found.utcoffset():
            return int(found.timestamp()), "in another zone than GMT"
        if found.tzinfo is not None:
            return int(found.timestamp()), "not exactly in HTTP's form"
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        pass
    return None, "not an HTTP date (Sun, 06 Nov 1994 08:49:37 GMT)"
