"""What a record says of a response besides its content: tags, flags, and the head that is sent (RFC 9111 §3)."""

from __future__ import annotations

from attrs import evolve

from edgecache.rules.asking import Asked
from edgecache.rules.dates import format_date
from edgecache.rules.fields import hop_by_hop, serialised
from edgecache.rules.freshness import Freshness
from edgecache.rules.lookups import Told
from edgecache.rules.pages import ABOUT_THE_ORIGINS, PAGE, is_page
from edgecache.rules.representations import Media
from edgecache.rules.selectors import tag_selector
from edgecache.rules.tags import TAG_FIELDS, tags_of, tags_of_path
from edgecache.words.messages import HOP_BY_HOP, Fields, Head
from edgecache.words.stored import Flag

WITHOUT_CONTENT = frozenset((204, 304))


def as_told(freshness: Freshness, told: Told, responded_at: float) -> Freshness:
    """A page's lifetime counts from when we got it, and a fallback's is shorter: at the sibling it began earlier."""
    until = responded_at + told.fresh_seconds
    if freshness.fresh_until <= until:
        return freshness
    window = freshness.stale_while_revalidate_until - freshness.fresh_until
    return evolve(freshness, fresh_until=until, stale_while_revalidate_until=until + window)


def record_selectors(asked: Asked, tags: list[bytes], told: Told | None) -> tuple[int, ...]:
    """
    :return: hashes of everything by which a purge can name the response.

    A sibling's response has its tags no more, but says by what else it can be named.
    """
    own = asked.selectors + tuple(tag_selector(asked.site.id, tag) for tag in tags)
    if told is None or not told.selectors:
        return own
    return tuple(dict.fromkeys(own + told.selectors))


def tags_of_response(asked: Asked, head: Head) -> list[bytes]:
    """:return: the tags that its path implies, and those that the origin gave."""
    implied = tags_of_path(asked.target.partition(b"?")[0]) if asked.site.index else []
    return list(dict.fromkeys(implied + tags_of(head)))


def record_flags(freshness: Freshness, asked: Asked, head: Head, size: int) -> int:
    """
    :param size: octets of content, -1 while that is unknown.
    :return: flags of a record of ours (:class:`~edgecache.words.stored.Flag`).
    """
    flags = freshness.flags
    if asked.authorized:
        flags |= Flag.AUTHORIZED
    if is_page(asked, head.status):
        return int(flags) | PAGE
    if size < 0:
        flags |= Flag.CHUNKED
    coding = head.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        flags |= Flag.CODED
    return int(flags)


# The head that is stored and sent

_RECOMPUTED = TAG_FIELDS | {b"age", b"date", b"via", b"cache-status", b"content-length", b"accept-ranges"}
NO_INDEX_PAGE = frozenset((b"cache-control", b"expires", b"pragma"))
"""What an index says about caching of its pages is replaced by what we say."""
_DROPPED = HOP_BY_HOP | _RECOMPUTED
_DROPPED_OF_FILE = _DROPPED | {b"set-cookie", b"set-cookie2"}
_DROPPED_OF_INDEX = _DROPPED_OF_FILE | NO_INDEX_PAGE
_DROPPED_OF_PAGE = _DROPPED_OF_INDEX | ABOUT_THE_ORIGINS


def stored_head(asked: Asked, head: Head, size: int, date: float, withheld: frozenset[bytes]) -> bytes:
    """
    See :class:`~edgecache.words.stored.Stored`; Content-Length, if the size is known, is the last line.

    :param date: :func:`~edgecache.rules.freshness.date_of` the response.
    """
    site = asked.site
    page = is_page(asked, head.status)
    if not site.index:
        dropped = _DROPPED
    elif asked.file:
        dropped = _DROPPED_OF_FILE
    else:
        dropped = _DROPPED_OF_PAGE if page else _DROPPED_OF_INDEX
    if withheld or b"connection" in head.by_name:
        dropped |= withheld | hop_by_hop(head)
    fields: Fields = [line for line in head.fields if line[0] not in dropped]
    if page:
        fields.append((b"content-type", Media.SOURCE.value))
    fields.append((b"date", format_date(date)))
    fields.append((b"via", via_value(head, site.via)))
    if site.index and not asked.file:
        fields.append((b"cache-control", b"max-age=%d" % site.settings.client_max_age_seconds))
    if head.status == 200:
        fields.append((b"accept-ranges", b"bytes"))
    return status_line(head) + serialised(fields) + length_line(head.status, size)


def status_line(head: Head) -> bytes:
    """:return: the status line of HTTP/1.1 that goes downstream."""
    return b"HTTP/1.1 %03d %b\r\n" % (head.status, head.reason)


def length_line(status: int, size: int) -> bytes:
    """:return: the field line, empty where the size is unknown or the status allows none (RFC 9110 §8.6)."""
    return b"" if size < 0 or status in WITHOUT_CONTENT else b"content-length: %d\r\n" % size


def via_value(head: Head, ours: bytes) -> bytes:
    """:return: the value of Via with this node added (RFC 9110 §7.6.3)."""
    before = head.get(b"via")
    return ours if before is None else before + b", " + ours
