"""
What lies where on disk: names of the databases, formats of their keys and values.

Nothing here acts; readers, writers and the collector agree through this page.
All integers in values are little-endian, all in keys big-endian so that they sort.

small
  records   key hash (32) -> a record (:mod:`edgecache.store.record`); :data:`RECORD_PREFIX` is
            common to both kinds of record
  contents  content id (16) + piece index (u32) -> up to :data:`PIECE` octets + checksum
  queue     sequence (u64) -> :data:`QUEUE_ROW`, and if it is not on probation the key of its row in ``places``; each
            record has exactly one row, which carries the same sequence as the record. The lowest sequence is the oldest
  places    :data:`PLACE_IN_QUEUE` -> sequence: where each record stands that is not on probation any more
  orphans   content id (16) -> :data:`ORPHAN_ROW`
  serials   :func:`serial_key` -> :data:`SERIAL_ROW`: the highest serial of any page of a project that was stored, and
            the floor of that page. Written with the page, outside eviction; it never goes back
  meta      :data:`META_LAYOUT`, :data:`META_INCARNATION`, :data:`META_SEQUENCE`, :data:`META_STANDING`,
            :data:`META_EPOCH`
blobs
  chunks    content id (16) + chunk index (u32) -> exactly :data:`CHUNK` octets + checksum
  meta      as in small
control
  meta      as in small; the rest belongs to :mod:`edgecache.store.control`

Content of ``size`` octets has ``size // CHUNK`` full chunks in blobs and the remaining ``size % CHUNK``
octets, its tail, in ``contents`` of small.

Note [inline content]: content that fits into :data:`PIECE_VALUE` octets together with its record follows
the record in the same value, its checksum is in the record, and it has no pieces: a hit is one get, a store
one put less. Whoever frees content need not know: deleting a piece that is not there does nothing. A page of an index
never lies inline: clients are sent what is derived from it, so that a hit needs its record alone.

Note [who frees content]: content without a chunk in blobs lives and dies with its record: whatever
transaction removes or replaces the record deletes its pieces as well. Content with chunks in blobs may
be on its way to a client (pinned), tail included. So removing or replacing its record adds an orphan row
and deletes neither chunks nor tail; the collector deletes, once nobody pins it, first the chunks and then,
in one transaction of small, the tail's pieces and the orphan row.

Note [one row per record]: a transaction that replaces a record deletes the old record's queue row, so a
row is current if and only if the record under its key hash has its sequence. No sequence is used twice, and
no two rows have the same content id (:data:`NO_CONTENT` aside). A row that is not current can be left by
nothing but a record that was damaged; it is dropped, and its content freed as if its record had been removed.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

from edgecache.store.formats import Format

LAYOUT: Final = 1
"""Version of everything on this page; an environment with another one is moved aside."""

PAGE: Final = 4096
OVERHEAD: Final = 16
"""LMDB's own octets in the first page of a value that does not fit into a leaf."""

CHECKSUM: Final = 8
"""xxh3_64 of the payload, at the end of a chunk or piece; :func:`seed` binds it to its place."""
CHUNK_VALUE: Final = 16 * PAGE - OVERHEAD
CHUNK: Final = CHUNK_VALUE - CHECKSUM
"""Octets of content per chunk in blobs."""
PIECE_VALUE: Final = 4 * PAGE - OVERHEAD
PIECE: Final = PIECE_VALUE - CHECKSUM
"""Octets of content per piece in small; the last piece of a tail is shorter."""

RECORDS: Final = b"records"
CONTENTS: Final = b"contents"
QUEUE: Final = b"queue"
PLACES: Final = b"places"
ORPHANS: Final = b"orphans"
SERIALS: Final = b"serials"
META: Final = b"meta"
CHUNKS: Final = b"chunks"

SMALL_DATABASES: Final = (RECORDS, CONTENTS, QUEUE, PLACES, ORPHANS, SERIALS, META)
BLOBS_DATABASES: Final = (CHUNKS, META)
CONTROL_DATABASES: Final = (META, b"log", b"ids", b"epochs", b"last", b"tokens")
ADDED: Final = frozenset((SERIALS, PLACES))
"""Databases that an environment of this layout may lack, and is given when it is opened."""

META_LAYOUT: Final = b"layout"
META_INCARNATION: Final = b"incarnation"
"""16 random octets, made with control; small and blobs of another incarnation are void."""

META_SEQUENCE: Final = b"sequence"
"""Of small: the sequence, or number in a queue, that is given next (:data:`U64_KEY`); absent means 1."""

META_EPOCH: Final = b"epoch"
"""Of small: the highest floor of any record or serial that was ever written (:data:`U64_KEY`); absent means 0."""

META_STANDING: Final = b"standing"
"""Of small: :data:`STANDING_ROW`, the sums of all rows of ``queue``."""

CONTENT_ID_OCTETS: Final = 16
INCARNATION_OCTETS: Final = 16
NO_CONTENT: Final = bytes(CONTENT_ID_OCTETS)
"""Content id in the queue row of a record without content of its own (nominated fields)."""

U64_KEY: Final = Format(">Q")
U64: Final = struct.Struct("<Q")
PLACE: Final = struct.Struct(">16sI")
"""Key of a chunk or piece: content id, index."""

CHECKSUM_FIELD: Final = struct.Struct("<Q")

RECORD_PREFIX: Final = struct.Struct("<BBxxIQQ")
"""
Start of every record: version, kind, octets of the record proper, checksum, sequence.

The checksum is xxh3_64 of the record proper after this prefix, seeded with the sequence.
"""
RECORD_VERSION: Final = 1
KIND_STORED: Final = 1
KIND_VARIANTS: Final = 2

QUEUE_ROW: Final = Format("<32s16sQB")
"""Key hash, content id, octets of content, flags: :data:`ROW_IN_BLOBS`, :data:`ROW_SHELTERED`."""
ROW_IN_BLOBS: Final = 1
ROW_SHELTERED: Final = 2
"""An index page, or nominated fields, without which variants cannot be reached."""

PLACE_IN_QUEUE: Final = struct.Struct(">BBQ")
"""Queue (:class:`edgecache.rules.eviction.Queue`), 1 with chunks in blobs or 0, number: the lowest is the oldest."""

STANDING_ROW: Final = Format("<QQQ?QQQ?")
"""Of small, then of blobs: octets in each queue, and whether anything was evicted yet."""

ORPHAN_ROW: Final = Format("<QQ")
"""Spawn number of the worker that is filling it, octets in blobs (0 while unknown)."""
NOBODY: Final = 0
"""Spawn number in the row of content that is replaced, evicted or abandoned: free once unpinned."""

SERIAL_ROW: Final = Format("<QQ")
"""Serial, floor."""
SERIAL_NAME: Final = 128
"""A project's name of more octets is cut in :func:`serial_key`, and a hash says the rest."""


def serial_key(site: int, project: bytes) -> bytes:
    """
    :param project: normalised name, ``b""`` for the list of all.
    :return: the key of a row of ``serials``.
    """
    if len(project) > SERIAL_NAME:
        project = project[:SERIAL_NAME] + b" " + blake2b(project, digest_size=32).digest()
    return U64_KEY.pack(site) + project


def place(content_id: bytes, index: int) -> bytes:
    """:return: the key of chunk or piece ``index`` of ``content_id``."""
    return PLACE.pack(content_id, index)


def seed(content_id: bytes, index: int) -> int:
    """
    :return: seed of the checksum of chunk or piece ``index``.

    A page that holds an older, intact chunk (a write that the disk lost) must
    not pass for this one: the place is part of what is checked.
    """
    return int.from_bytes(content_id[:8], "little") + index & 0xFFFFFFFFFFFFFFFF


def chunks_of(size: int) -> int:
    """:return: how many chunks in blobs content of ``size`` octets has."""
    return size // CHUNK


def pieces_of(size: int) -> int:
    """:return: how many pieces in small content of ``size`` octets has."""
    return -(-(size % CHUNK) // PIECE)


def sequence_of(record: bytes | memoryview) -> int:
    """:return: the queue sequence of a record of either kind."""
    sequence: int = RECORD_PREFIX.unpack_from(record)[-1]
    return sequence
