"""core.dates: the three date forms of HTTP, and nothing that only looks like one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core import dates
from hmac_gateway.core.dates import parse_http_date

# RFC 9110 5.6.7 gives one moment in three forms.
MOMENT = 784111777


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun Nov 06 08:49:37 1994",
        *(f"Sun, 06 Nov 1994 08:49:37 {zone}" for zone in ("GMT", "UTC", "UT", "Z", "+0000")),
        *(f"Sunday, 06-Nov-94 08:49:37 {zone}" for zone in ("UTC", "UT", "Z", "+0000")),
        *(f"Sun Nov  6 08:49:37 1994 {zone}" for zone in ("GMT", "UTC", "UT", "Z", "+0000")),
        "Sun, 06 Nov 1994 08:49:37",
        "Sunday, 06-Nov-94 08:49:37",
        "Sun, 06 Nov 1994 08:49:37  GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",  # the weekday's text is not looked at
        "Mon, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_accepted(text: str) -> None:
    assert parse_http_date(text) == MOMENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "784111777",
        "784111777000",
        "1994-11-06T08:49:37Z",
        "1994-11-06 08:49:37",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Thu, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 1995 08:49:37 GMT",
        "Wed, 31 Dec 1969 23:59:59 GMT",
        *(f"Sun, 06 Nov 1994 08:49:37 {zone}" for zone in ("+0800", "-0000", "+00:00", "EST", "CET", "gmt", "GMT+1")),
        "Sun Nov  6 08:49:37 1994 +0100",
        "Sunday, 06-Nov-94 08:49:37 PST",
        "Sun, 06 Nov 1994 08:49:37 GMT,Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",  # digits, but not ASCII's
        "Sun, 06 Nov 1994 08:49:37" + " " * 40 + "GMT",
    ],
)
def test_refused(text: str) -> None:
    assert parse_http_date(text) is None


@pytest.mark.parametrize(("year", "full"), [("69", 2069), ("00", 2000), ("38", 2038), ("70", 1970), ("99", 1999)])
def test_two_digit_years(year: str, full: int) -> None:
    assert (
        parse_http_date(f"Sunday, 06-Nov-{year} 08:49:37 GMT")
        == datetime(full, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()
    )


def test_leap_days() -> None:
    assert parse_http_date("Tue, 29 Feb 2000 00:00:00 GMT") == 951782400
    assert parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert parse_http_date("Thu, 31 Dec 1970 23:59:59 GMT") == 31535999


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))
def test_as_the_library_writes_them(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert parse_http_date(format_datetime(moment, usegmt=True)) == seconds
    assert parse_http_date(moment.strftime("%a %b %e %H:%M:%S ") + f"{moment.year:04}") == seconds


@given(st.text())
def test_no_text_raises(text: str) -> None:
    parse_http_date(text)


def test_long_texts_are_not_kept() -> None:
    before = dates._parse.cache_info().currsize
    for number in range(10):
        parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT" + str(number) * 100)
    assert dates._parse.cache_info().currsize == before
