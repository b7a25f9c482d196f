"""Preconditions and ranges of a request (RFC 9110 §13, §14), parsed once and compared with stored responses."""

from __future__ import annotations

import re

from attrs import define

from edgecache.rules.dates import parse_date
from edgecache.rules.fields import is_strong, members, opaque_tag
from edgecache.words.messages import Fields, field_values

CONDITION_FIELDS = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"))

CENTURY = 1_600_000_000.0
"""2020: by it two-digit years of a condition are understood, since a request is parsed once for all times."""


@define(eq=False, repr=False)
class RangeAsked:
    """
    One octet range (RFC 9110 §14.1.2).

    :ivar first: first octet, or ``None``: the last ``last`` octets are meant.
    :ivar last: last octet (inclusive), ``None`` means up to the end.
    """

    first: int | None
    last: int | None


@define(eq=False, repr=False)
class Conditions:
    """
    What the request's precondition fields say, as far as a cache evaluates them.

    If-Match and If-Unmodified-Since are the origin's to evaluate (RFC 9111 §4.3.2): they are only noticed.

    :ivar none_match: opaque tags of If-None-Match, ``None`` without the field.
    :ivar none_match_any: ``If-None-Match: *``.
    :ivar modified_since: seconds since the epoch, ``None`` without a valid date.
    :ivar for_origin: If-Match or If-Unmodified-Since is there.
    :ivar range_tag: If-Range's entity tag; ``None`` without one.
    :ivar range_date: If-Range's date; ``None`` without one.
    :ivar range_if: If-Range is there.
    """

    none_match: frozenset[bytes] | None = None
    none_match_any: bool = False
    modified_since: float | None = None
    for_origin: bool = False
    range_tag: bytes | None = None
    range_date: float | None = None
    range_if: bool = False


def conditions_of(fields: Fields) -> Conditions | None:
    """:return: the preconditions of a request, ``None`` if it has none."""
    if not any(name in CONDITION_FIELDS for name, _ in fields):
        return None
    conditions = Conditions()
    lines = field_values(fields, b"if-none-match")
    if lines:
        # One that names nothing is there all the same: If-Modified-Since does not count (RFC 9110 §13.1.3).
        tags = [member for value in lines for member in members(value)]
        conditions.none_match = frozenset(opaque_tag(tag) for tag in tags)
        conditions.none_match_any = b"*" in tags
    dates = field_values(fields, b"if-modified-since")
    if len(dates) == 1:
        conditions.modified_since = parse_date(dates[0], CENTURY)
    conditions.for_origin = any(name in (b"if-match", b"if-unmodified-since") for name, _ in fields)
    ranges = field_values(fields, b"if-range")
    if ranges:
        conditions.range_if = True
        if len(ranges) == 1 and is_strong(ranges[0]):
            conditions.range_tag = ranges[0]
        elif len(ranges) == 1:
            conditions.range_date = parse_date(ranges[0], CENTURY)
    return conditions


_RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)


def range_of(fields: Fields) -> RangeAsked | None:
    """
    :return: the range if the request asks for exactly one that is valid; otherwise Range is as if it were
        not there (RFC 9110 §14.2), several ranges included.
    """
    values = field_values(fields, b"range")
    if len(values) != 1:
        return None
    matched = _RANGE.fullmatch(values[0])
    if matched is None:
        return None
    first, last, suffix = matched.groups()
    if suffix is not None:
        return RangeAsked(None, int(suffix))
    asked = RangeAsked(int(first), int(last) if last else None)
    if asked.last is not None and int(first) > asked.last:
        return None
    return asked
