"""Preconditions and ranges of a request (RFC 9110 §13, §14), parsed once and compared with stored responses."""

from __future__ import annotations

from attrs import define


@define(eq=False)
class RangeAsked:
    """
    One octet range (RFC 9110 §14.1.2).

    :ivar first: first octet, or ``None``: the last ``last`` octets are meant.
    :ivar last: last octet (inclusive), ``None`` means up to the end.
    """

    first: int | None
    last: int | None


@define(eq=False)
class Conditions:
    """
    What the request's precondition fields say.

    :ivar none_match: entity tags of If-None-Match without ``W/``, ``None`` without the field.
    :ivar none_match_any: ``If-None-Match: *``.
    :ivar match: strong entity tags of If-Match, ``None`` without the field.
    :ivar match_any: ``If-Match: *``.
    :ivar modified_since: seconds since the epoch, ``None`` without a valid date.
    :ivar unmodified_since: likewise.
    :ivar range_etag: If-Range's strong entity tag; ``b""`` when it is there and can match nothing.
    :ivar range_date: If-Range's date.
    """

    none_match: frozenset[bytes] | None = None
    none_match_any: bool = False
    match: frozenset[bytes] | None = None
    match_any: bool = False
    modified_since: float | None = None
    unmodified_since: float | None = None
    range_etag: bytes | None = None
    range_date: float | None = None
