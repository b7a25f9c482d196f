"""A stored response as the rules see it: numbers decided when it was stored (RFC 9111 §3, §4)."""

from __future__ import annotations

import enum
from typing import Any

from attrs import define, field, frozen


class Flag(enum.IntFlag):
    """Yes-or-no facts about a stored response. The numbers are on disk and never change."""

    ALWAYS_VALIDATE = 1
    """``no-cache``, or reuse without validation is otherwise forbidden (RFC 9111 §5.2.2.4)."""
    NEVER_STALE = 2
    """``must-revalidate``, ``proxy-revalidate``, ``s-maxage``: no serving stale (§5.2.2.2)."""
    IMMUTABLE = 4
    """RFC 8246: a reload needs no validation while fresh."""
    HEURISTIC = 8
    """The lifetime was guessed (§4.2.2)."""
    AUTHORIZED = 16
    """The request had Authorization; the response allows shared reuse (§3.5)."""
    CHUNKED = 64
    """The upstream sent no length; ours is known by now."""
    IN_BLOBS = 128
    """Full chunks lie in blobs, the tail in small; without it all content is in small."""
    CODED = 256
    """Content-Encoding is not identity: not to be transformed or partly joined."""
    FALLBACK = 512
    """Another than the first origin of a site with the policy ``fallback`` answered: anything better replaces it."""
    PAGE = 1024
    """Its content is a page of an index as the origin has it; what clients get is derived from it."""
    DOUBTED = 2048
    """Clients may have the begin of wrong content under its entity tag: for a while none is given the rest of it."""


@define(eq=False, repr=False)
class Stored:
    """
    One stored response.

    All times are seconds since the epoch (wall time), as floats.

    :ivar site: stable hash of the site it belongs to.
    :ivar key: the cache key itself, compared after the look-up by hash.
    :ivar variant: normalised values of the nominated fields, ``b""`` without Vary.
    :ivar floor: the epoch up to which it is known good; taken before the fill began.
    :ivar selectors: hashes of everything by which a purge can name it.
    :ivar generated_at: response time less corrected initial age: ``now - generated_at`` is the
        current age (§4.2.3), the same on every hit.
    :ivar fresh_until: ``generated_at`` plus freshness lifetime (§4.2.1).
    :ivar stale_while_revalidate_until: end of the window of RFC 5861 §3; ``fresh_until`` without one.
    :ivar stale_if_error_until: end of the window of RFC 5861 §4; infinite where we may choose.
    :ivar validated_at: when an upstream last vouched for it.
    :ivar date: of the Date field (§4.2.3), response time without one.
    :ivar last_modified: of Last-Modified, ``None`` without a valid one.
    :ivar etag: the field value as received, ``b""`` without one.
    :ivar size: octets of content.
    :ivar content_id: 16 random octets under which the chunks lie.
    :ivar digest: sha256 of the content, of the whole one where this is a part; ``b""`` where none was demanded.
    :ivar head: serialised status line and end-to-end field lines with Content-Length, each ended by
        CR LF, no empty line, without Age, Cache-Status and Connection.
    :ivar views: memo of what is derived from a page of an index, by representation; it is not stored, and another
        record that is made from this one begins without.
    :ivar head_of_304: memo of :mod:`edgecache.rules.presenting`, like ``views``; and so is ...
    :ivar head_of_206: ... this one, without the lines that say which part it is.
    :ivar reuse: memo of :mod:`edgecache.rules.reusing`: how it answers while it is fresh ...
    :ivar reuse_from: ... when that was decided,
    :ivar reuse_until: ... and when a number in it changes.
    """

    site: int
    key: bytes
    status: int
    flags: int
    floor: int
    generated_at: float
    fresh_until: float
    stale_while_revalidate_until: float
    stale_if_error_until: float
    validated_at: float
    date: float
    last_modified: float | None
    etag: bytes
    size: int
    content_id: bytes
    selectors: tuple[int, ...]
    head: bytes
    variant: bytes = b""
    digest: bytes = b""
    views: dict[Any, Any] = field(init=False, factory=dict)
    head_of_304: bytes = field(init=False, default=b"")
    head_of_206: bytes = field(init=False, default=b"")
    reuse: Any = field(init=False, default=None)
    reuse_from: float = field(init=False, default=0.0)
    reuse_until: float = field(init=False, default=0.0)


@frozen
class Serial:
    """
    What a stored page said of its project (DESIGN 10): pages with a lower one are older.

    :ivar site: id of the site.
    :ivar project: normalised name, ``b""`` for the list of all.
    :ivar since: the epoch of the last purge that made void what was known before (origins are restored from backups).
    """

    site: int
    project: bytes
    serial: int
    since: int = 0


@define(eq=False, repr=False)
class Variants:
    """
    What is stored under a primary key whose responses vary (RFC 9111 §4.1).

    :ivar nominated: sets of nominated field names, the newest response's first;
        each selects a variant record by the values of those fields.
    """

    key: bytes
    nominated: list[tuple[bytes, ...]]
