"""
Records of partial content: a part of a content as a 206 beside where the whole lies (RFC 9110 §14.4, §15.3.7).

What may be stored so, and what it answers, is said in :mod:`edgecache.rules.parts`.
"""

from __future__ import annotations

import enum
import hashlib

from attrs import evolve

from edgecache.rules.fields import parsed, serialised
from edgecache.rules.recording import length_line
from edgecache.rules.spans import Span, span_of
from edgecache.words.messages import without
from edgecache.words.stored import Stored


class Place(enum.Enum):
    """Which part: one of each kind is stored of a content, the newest."""

    BEGINNING = b"beginning"
    ENDING = b"ending"


def place_of(span: Span) -> Place | None:
    """:return: ``None`` for what lies in the middle, of which installers and archives' readers never ask."""
    if span.complete is None or not span.consistent or span.octets == span.complete:
        return None
    if span.start == 0:
        return Place.BEGINNING
    return Place.ENDING if span.stop == span.complete else None


def part_hash(record_hash: bytes, place: Place) -> bytes:
    """:param record_hash: where the whole lies, or would lie. :return: 32 octets: where that part of it lies."""
    return hashlib.blake2b(place.value, digest_size=32, key=record_hash, person=b"partial content").digest()


def as_part(whole: Stored, span: Span) -> Stored:
    """
    :param whole: its record, as if all of it had come.
    :return: the record of those octets of it.
    """
    fields = without(parsed(whole.head), (b"content-length",))
    fields.append((b"content-range", span.field))
    head = b"HTTP/1.1 206 Partial Content\r\n" + serialised(fields) + length_line(206, span.octets)
    return evolve(whole, status=206, size=span.octets, content_id=b"", head=head)


def as_whole(part: Stored) -> tuple[Stored, Span] | None:
    """
    :return: what :func:`as_part` was given, its content id that of the part; ``None`` if it was not made there.
    """
    if part.status != 206:
        return None  # as nearly all that is listed: its head need not be read
    fields = parsed(part.head)
    span = span_of(dict(fields).get(b"content-range"))
    if span is None or span.complete is None or span.octets != part.size:
        return None
    fields = without(fields, (b"content-range", b"content-length"))
    head = b"HTTP/1.1 200 OK\r\n" + serialised(fields) + length_line(200, span.complete)
    return evolve(part, status=200, size=span.complete, head=head), span
