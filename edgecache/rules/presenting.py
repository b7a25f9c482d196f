"""How a stored response answers this client: preconditions and ranges (RFC 9110 §13.2.2, §14)."""

from __future__ import annotations

from attrs import define, evolve

from edgecache.rules.access import PRIVATE
from edgecache.rules.asking import Asked
from edgecache.rules.conditions import Conditions, RangeAsked
from edgecache.rules.decisions import (
    NOT_MODIFIED,
    UNSATISFIABLE,
    WHOLE,
    NotModified,
    Part,
    Presentation,
    Unsatisfiable,
    Whole,
)
from edgecache.rules.fields import is_strong, opaque_tag, parsed, serialised
from edgecache.rules.recording import length_line
from edgecache.rules.siblinghood import record_lines
from edgecache.rules.status_fields import lines_of
from edgecache.words.messages import without
from edgecache.words.stored import Flag, Stored

DOUBT_SECONDS = 600.0
"""So long a client may come back with the begin of content that was found wrong at its end."""

REMEMBERED_OCTETS = 4096
"""A larger head is made for each answer: thousands of requests' heads are remembered, and each would have its own."""


def present(asked: Asked, stored: Stored, age: int = 0) -> Presentation:
    """
    Compare conditions and range with ``stored`` (also the prototype of a fill; of unknown size it is never
    presented in part). HEAD is presented like GET, never in part; the caller sends no content for it.

    :param age: current age of ``stored``, seconds.
    """
    if stored.status != 200:
        # A condition is about the representation that a GET would bring, and there is none (RFC 9110 §13.2.1).
        return WHOLE
    conditions = asked.conditions
    if conditions is not None and _is_not_modified(conditions, stored):
        return NOT_MODIFIED
    if asked.range is None or stored.size < 0:
        return WHOLE
    if conditions is not None and conditions.range_if:
        doubted = stored.flags & Flag.DOUBTED and age < DOUBT_SECONDS
        if doubted or not _is_same(conditions, stored):
            return WHOLE
    return _part(asked.range, stored.size)


def _is_not_modified(conditions: Conditions, stored: Stored) -> bool:
    """If-None-Match, or without it If-Modified-Since (RFC 9110 §13.2.2, RFC 9111 §4.3.2)."""
    if conditions.none_match is not None:
        return conditions.none_match_any or (bool(stored.etag) and opaque_tag(stored.etag) in conditions.none_match)
    if conditions.modified_since is None:
        return False
    modified = stored.date if stored.last_modified is None else stored.last_modified
    return modified <= conditions.modified_since


def _is_same(conditions: Conditions, stored: Stored) -> bool:
    """If-Range: strong comparison (RFC 9110 §13.1.5); a date is strong a second before the response (§8.8.2.2)."""
    if conditions.range_tag is not None:
        return is_strong(stored.etag) and stored.etag == conditions.range_tag
    modified = stored.last_modified
    return modified is not None and modified == conditions.range_date and stored.date - modified >= 1


def _part(asked: RangeAsked, size: int) -> Presentation:
    if asked.first is None:
        wanted = asked.last or 0
        if wanted == 0 or size == 0:
            return UNSATISFIABLE
        return Part(max(0, size - wanted), size)
    if asked.first >= size:
        return UNSATISFIABLE
    last = size - 1 if asked.last is None else min(asked.last, size - 1)
    return Part(asked.first, last + 1)


@define(eq=False, repr=False)
class Shown:
    """
    How one stored response answers requests of one head.

    :ivar stored: that response.
    :ivar head: of the answer, without the lines that :func:`~edgecache.rules.status_fields.lines_of` makes.
    :ivar start: first octet of its content that is sent, ``stop`` the one after the last; alike if none is.
    """

    stored: Stored
    head: bytes
    start: int
    stop: int
    not_modified: bool


def shown(asked: Asked, stored: Stored, age: int) -> Shown:
    """
    :func:`present` and its head for what is stored as a whole.

    :return: remembered with the request's head where the age does not matter: most are asked for by the same
        octets again.
    """
    presentation = WHOLE if asked.whole else present(asked, stored, age)
    start = stop = 0
    if type(presentation) is Part:
        start, stop = presentation.start, presentation.stop
    elif type(presentation) is Whole:
        stop = stored.size
    if asked.head:
        stop = start
    head = head_with(asked, stored, presentation, age, b"")
    found = Shown(stored, head, start, stop, type(presentation) is NotModified)
    # Most have some hundred octets. Of a larger one, neither it nor what it was made of may be kept.
    small = max(len(head), len(stored.head)) <= REMEMBERED_OCTETS
    asked.shown = found if small and asked.sibling is None and not stored.flags & Flag.DOUBTED else None
    return found


def head_of(asked: Asked, stored: Stored, presentation: Presentation, age: int, cache_status: bytes) -> bytes:
    """
    The response head, as ``Downstream.send`` wants it.

    :param age: for the Age field; negative: none (the response has not come from the store).
    :param cache_status: value of Cache-Status (:mod:`edgecache.rules.status_fields`).
    """
    return head_with(asked, stored, presentation, age, lines_of(age, cache_status))


def head_with(asked: Asked, stored: Stored, presentation: Presentation, age: int, lines: bytes) -> bytes:
    """
    Like :func:`head_of`.

    :param lines: those that :func:`~edgecache.rules.status_fields.lines_of` makes.
    """
    if type(presentation) is Whole:
        head = stored.head
    elif type(presentation) is Part:
        head = _partial_head(stored, presentation)
    elif type(presentation) is NotModified:
        head = _not_modified_head(stored)
    else:
        assert type(presentation) is Unsatisfiable
        head = _unsatisfiable_head(asked, stored)
    if asked.sibling is not None:
        head += record_lines(asked, stored, max(age, 0))
    elif asked.site.clients is not None:
        head += PRIVATE
    return head + lines


# A digest of the content is one of all of it, and a part has another (RFC 9530 §2).
_NOT_IN_PART = frozenset((b"content-length", b"content-range", b"content-md5", b"content-digest"))

_NOT_IN_304 = frozenset(
    (
        b"content-length",
        b"content-range",
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-md5",
        b"content-digest",
        b"accept-ranges",
    )
)
"""Representation metadata that a 304 leaves out (RFC 9110 §15.4.5)."""


def _partial_head(stored: Stored, part: Part) -> bytes:
    head = stored.head_of_206
    if not head:
        lines = serialised(without(parsed(stored.head), _NOT_IN_PART))
        head = stored.head_of_206 = b"HTTP/1.1 206 Partial Content\r\n" + lines
    start, stop = part.start, part.stop
    return b"%bcontent-range: bytes %d-%d/%d\r\ncontent-length: %d\r\n" % (
        head,
        start,
        stop - 1,
        stored.size,
        stop - start,
    )


def _not_modified_head(stored: Stored) -> bytes:
    head = stored.head_of_304
    if not head:
        lines = serialised(without(parsed(stored.head), _NOT_IN_304))
        head = stored.head_of_304 = b"HTTP/1.1 304 Not Modified\r\n" + lines
    return head


def _unsatisfiable_head(asked: Asked, stored: Stored) -> bytes:
    kept = [line for line in parsed(stored.head) if line[0] in (b"date", b"via")]
    kept.append((b"content-range", b"bytes */%d" % stored.size))
    kept.append((b"content-length", b"0"))
    return b"HTTP/1.1 416 Range Not Satisfiable\r\n" + serialised(kept)


def complete(stored: Stored, size: int, content_id: bytes) -> Stored:
    """The final record of a prototype whose content has come to its end."""
    head = stored.head if stored.size >= 0 else stored.head + length_line(stored.status, size)
    return evolve(stored, size=size, content_id=content_id, head=head)
