"""How long a response is fresh, as numbers decided when it is stored (RFC 9111 §4.2)."""

from __future__ import annotations

import math

from attrs import define

from edgecache.rules.dates import parse_date, parse_seconds
from edgecache.rules.directives import ResponseDirectives
from edgecache.rules.fields import members
from edgecache.rules.sites import Site
from edgecache.words.messages import Head
from edgecache.words.stored import Flag

# Operations on IntFlag members take a microsecond each.
ALWAYS_VALIDATE, _NEVER_STALE = int(Flag.ALWAYS_VALIDATE), int(Flag.NEVER_STALE)
_IMMUTABLE, _HEURISTIC = int(Flag.IMMUTABLE), int(Flag.HEURISTIC)

HEURISTICALLY_CACHEABLE = frozenset((200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501))
"""RFC 9110 §15.1"""

HEURISTIC_SHARE = 0.1
"""Of the time since its last modification a response is taken to be fresh for (RFC 9111 §4.2.2)."""

HEURISTIC_MOST = 86_400.0
"""A guess is good for a day at most."""

UNSAID = 365 * 86_400.0
"""Artifacts of an index never change under their name: kept until evicted (DESIGN 10)."""


@define(eq=False, repr=False)
class Freshness:
    """
    The numbers of :class:`~edgecache.words.stored.Stored`.

    :ivar lifetime: seconds from ``generated_at``.
    :ivar flags: of :class:`Flag`, as far as freshness decides them.
    """

    generated_at: float
    lifetime: float
    fresh_until: float
    stale_while_revalidate_until: float
    stale_if_error_until: float
    date: float
    last_modified: float | None
    flags: int


def freshness_of(
    site: Site,
    file: bool,
    head: Head,
    directives: ResponseDirectives,
    requested_at: float,
    responded_at: float,
    *,
    listing: bool = False,
) -> Freshness:
    """
    :param file: on an index: the response is about an artifact, not a page.
    :param listing: it is the list of all projects, which no purge names.
    :param requested_at: wall time before the request was sent; with ``responded_at`` it corrects Age (§4.2.3).
    """
    date = date_of(head, responded_at)
    generated_at = responded_at - _initial_age(head, date, requested_at, responded_at)
    last_modified = _date(head, b"last-modified", responded_at)
    flags = 0
    explicit = _explicit_lifetime(head, directives, date, responded_at)
    if site.index:
        lifetime, counted_from = _index_lifetime(site, file, listing, head.status, explicit, generated_at, responded_at)
        if file and head.status == 200 and explicit is None:
            flags = _IMMUTABLE | _HEURISTIC
    elif explicit is not None:
        lifetime, counted_from = explicit, generated_at
    else:
        lifetime, counted_from = _heuristic(head, directives, date, last_modified), generated_at
        flags = _HEURISTIC
    flags |= _flags(site, file, directives)
    fresh_until = counted_from + lifetime
    while_revalidate, if_error = fresh_until, math.inf
    # A page is validated when its time is up, and served on when nobody answers: the windows are ours as well.
    if not site.index or file:
        while_revalidate += directives.stale_while_revalidate or 0
        if directives.stale_if_error is not None:
            if_error = fresh_until + directives.stale_if_error
    return Freshness(generated_at, lifetime, fresh_until, while_revalidate, if_error, date, last_modified, flags)


def date_of(head: Head, responded_at: float) -> float:
    """:return: the Date field's; when the response came if there is none or it is invalid (RFC 9110 §6.6.1)."""
    date = _date(head, b"date", responded_at)
    return responded_at if date is None else date


def _date(head: Head, name: bytes, now: float) -> float | None:
    values = head.values(name)
    return parse_date(values[0], now) if len(values) == 1 else None


def _initial_age(head: Head, date: float, requested_at: float, responded_at: float) -> float:
    """RFC 9111 §4.2.3; of several Age values the first counts, one that is no number counts nothing (§5.1)."""
    ages = [member for value in head.values(b"age") for member in members(value)]
    age_value = parse_seconds(ages[0]) if ages else None
    apparent = max(0.0, responded_at - date)
    corrected = (age_value or 0) + max(0.0, responded_at - requested_at)
    return max(apparent, corrected)


def _explicit_lifetime(head: Head, directives: ResponseDirectives, date: float, responded_at: float) -> float | None:
    """RFC 9111 §4.2.1; ``None`` if the response says nothing."""
    if directives.lifetime is not None:
        return float(directives.lifetime)
    if directives.targeted:
        return None
    values = head.values(b"expires")
    if not values:
        return None
    expires = parse_date(values[0], responded_at) if len(values) == 1 else None
    return 0.0 if expires is None else max(0.0, expires - date)


def _heuristic(head: Head, directives: ResponseDirectives, date: float, last_modified: float | None) -> float:
    """RFC 9111 §4.2.2"""
    if last_modified is None or not (directives.public or head.status in HEURISTICALLY_CACHEABLE):
        return 0.0
    return min(max(0.0, date - last_modified) * HEURISTIC_SHARE, HEURISTIC_MOST)


def _index_lifetime(
    site: Site,
    file: bool,
    listing: bool,
    status: int,
    explicit: float | None,
    generated_at: float,
    responded_at: float,
) -> tuple[float, float]:
    """
    :return: lifetime, and from when on it counts: a page's is ours, so it counts from now (DESIGN 10).
    """
    settings = site.settings
    if status in (404, 410):
        return settings.negative_seconds, responded_at
    if file:
        if explicit is not None:
            return explicit, generated_at
        return (UNSAID if status == 200 else settings.page_seconds), responded_at
    purged = settings.purged and not listing
    return (settings.purged_page_seconds if purged else settings.page_seconds), responded_at


def _flags(site: Site, file: bool, directives: ResponseDirectives) -> int:
    flags = 0
    page = site.index and not file
    # When a page is asked for again is ours to say; a page must not be served stale only where the index forbids it.
    if directives.no_cache and not page:
        flags |= ALWAYS_VALIDATE
    if directives.must_revalidate or ((directives.proxy_revalidate or directives.s_maxage) and not page):
        flags |= _NEVER_STALE
    if directives.immutable:
        flags |= _IMMUTABLE
    return flags
