"""HTTP dates (RFC 9110 §5.6.7) and delta-seconds (RFC 9111 §1.2.2)."""

from __future__ import annotations

import calendar
import datetime
import functools
import re

MOST_SECONDS = 1 << 31
"""A longer time is as good as for ever (RFC 9111 §1.2.2)."""

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec")

_FIXDATE = re.compile(
    rb"(?:mon|tue|wed|thu|fri|sat|sun), (?P<day>[0-9]{2}) (?P<month>[a-z]{3}) (?P<year>[0-9]{4})"
    rb" (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) gmt"
)
_RFC850 = re.compile(
    rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day, (?P<day>[0-9]{2})-(?P<month>[a-z]{3})-(?P<year>[0-9]{2})"
    rb" (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) gmt"
)
_ASCTIME = re.compile(
    rb"(?:mon|tue|wed|thu|fri|sat|sun) (?P<month>[a-z]{3}) (?P<day>[0-9]{2}| [0-9])"
    rb" (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) (?P<year>[0-9]{4})"
)
_DIGITS = re.compile(rb"[0-9]+")
_FIXDATE_OCTETS = len(b"Sun, 06 Nov 1994 08:49:37 GMT")


def parse_date(value: bytes, now: float) -> float | None:
    """
    Any of the three forms, in any case; nothing else, because what is not a date means "expired".

    :param now: the two-digit year of the RFC 850 form is at most 50 years after it.
    :return: seconds since the epoch, ``None`` if it is not a date.

    >>> parse_date(b"Sun, 06 Nov 1994 08:49:37 GMT", 0.0)
    784111777.0
    >>> parse_date(b"0", 0.0)
    """
    if len(value) == _FIXDATE_OCTETS and value.endswith(b"GMT"):
        fixed = _fixdate(value)
        if fixed is not None:
            return fixed
    lowered = value.lower()
    matched = _FIXDATE.fullmatch(lowered) or _ASCTIME.fullmatch(lowered)
    if matched is not None:
        return _seconds(matched, int(matched["year"]))
    matched = _RFC850.fullmatch(lowered)
    if matched is None:
        return None
    this_year = _year(now)
    year = this_year - this_year % 100 + int(matched["year"])
    return _seconds(matched, year - 100 if year > this_year + 50 else year)


# Of an origin's responses, those of one second have one Date; those of an upload, one Last-Modified.
@functools.lru_cache(1024)
def _fixdate(value: bytes) -> float | None:
    """As every server should send it, and nearly every one does."""
    matched = _FIXDATE.fullmatch(value.lower())
    return None if matched is None else _seconds(matched, int(matched["year"]))


def _seconds(matched: re.Match[bytes], year: int) -> float | None:
    try:
        month = _MONTHS.index(matched["month"]) + 1
        # A leap second counts as the one before it.
        second = min(int(matched["second"]), 59)
        moment = datetime.datetime(
            year, month, int(matched["day"]), int(matched["hour"]), int(matched["minute"]), second
        )
    except ValueError:
        return None
    return float(calendar.timegm(moment.timetuple()))


def _year(now: float) -> int:
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=now)).year


def format_date(seconds: float) -> bytes:
    """
    :param seconds: since the epoch, of the years 1970 to 9999.
    :return: IMF-fixdate.

    >>> format_date(784111777.9)
    b'Sun, 06 Nov 1994 08:49:37 GMT'
    """
    return _format(int(seconds))


@functools.lru_cache(16)
def _format(seconds: int) -> bytes:
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[at.weekday()],
        at.day,
        _MONTHS[at.month - 1].title(),
        at.year,
        at.hour,
        at.minute,
        at.second,
    )


def parse_seconds(value: bytes) -> int | None:
    """
    :return: delta-seconds, at most :data:`MOST_SECONDS`; ``None`` if ``value`` is not a number.

    >>> parse_seconds(b"003600"), parse_seconds(b"99999999999"), parse_seconds(b"-1")
    (3600, 2147483648, None)
    """
    if _DIGITS.fullmatch(value) is None:
        return None
    significant = value.lstrip(b"0")
    if len(significant) > 10:
        return MOST_SECONDS
    return min(int(significant or b"0"), MOST_SECONDS)
