"""What is done within one write transaction of small: the rules of records, queue, contents and orphans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lmdb
from attrs import define, evolve, field

from edgecache.store import layout, record
from edgecache.store.checks import checksum, sealed
from edgecache.store.layout import PIECE
from edgecache.store.popularity import Popularity
from edgecache.store.queues import Queues
from edgecache.store.record import Damaged
from edgecache.words.stored import Flag, Serial, Stored, Variants

Primary = tuple[bytes, Variants]
"""Key hash of a primary key, and the nominated fields of the variant that is stored with it."""

OVERTAKEN_SECONDS = 60.0
"""Of two responses of one floor the later one stays (RFC 9111 §4). By how much more, it is the wall clock that was set
back, for whose sake nothing shall go unstored for long."""

# IntFlag's operators cost a microsecond each.
_IN_BLOBS = int(Flag.IN_BLOBS)
_FALLBACK = int(Flag.FALLBACK)
_PAGE = int(Flag.PAGE)


@define(eq=False, repr=False)
class _Old:
    """The record that is there now, and the octets that it was read from."""

    value: bytes
    record: Stored | Variants
    sequence: int
    octets: int
    checksum: int


@define(eq=False, repr=False)
class SmallTransaction:
    """
    One write transaction; whoever opened it calls :meth:`finish`, then commits.

    Each method either does all of its work or, where it answers ``False``, nothing.
    See the notes in :mod:`edgecache.store.layout`.
    """

    _txn: lmdb.Transaction
    _databases: dict[bytes, lmdb._Database]
    _popularity: Popularity | None = None
    _queues: Queues = field(init=False)
    _records: Any = field(init=False)
    _contents: Any = field(init=False)
    _orphans: Any = field(init=False)
    _serials: Any = field(init=False)
    # The highest floor that is written.
    _epoch: int = 0

    def __attrs_post_init__(self) -> None:
        self._records = self._databases[layout.RECORDS]
        self._contents = self._databases[layout.CONTENTS]
        self._queues = Queues(self._txn, self._databases, self._popularity)
        self._orphans = self._databases[layout.ORPHANS]
        self._serials = self._databases[layout.SERIALS]

    def store(
        self,
        key_hash: bytes,
        stored: Stored,
        tail: Sequence[bytes | memoryview],
        primary: Primary | None,
        serial: Serial | None = None,
    ) -> bool:
        """
        A response with new content: ``tail`` is what is not in blobs.

        Replaces whatever is there, unless that is newer. Its orphan row goes.

        :param serial: of a page: refused if a higher one is known of its project.
        """
        old = self._find(key_hash)
        replaced = [old] if primary is None else [old, self._find(primary[0])]
        if any(self._above(one, stored) or (serial is None and self._later(one, stored)) for one in replaced):
            return False
        if serial is not None and not self.raise_serial(serial, stored.floor):
            return False
        if old is not None:
            self._free(old)
        sequence = self._queues.number()
        size, content_id = stored.size, stored.content_id
        in_blobs = stored.flags & _IN_BLOBS
        inline = not stored.flags & (_IN_BLOBS | _PAGE) and size <= layout.PIECE_VALUE
        prefix, body = record.pack(stored, sequence, checksum(tail) if inline else 0)
        if inline and len(prefix) + len(body) + size <= layout.PIECE_VALUE:
            self._put(key_hash, b"".join((prefix, body, *tail)), self._records)
        else:
            self._put(key_hash, prefix + body, self._records)
            if tail:
                self._put_pieces(content_id, tail)
        flags = layout.ROW_IN_BLOBS if in_blobs else 0
        if stored.flags & _PAGE:
            flags |= layout.ROW_SHELTERED
        self._queues.add(sequence, key_hash, content_id, size, flags)
        if in_blobs:
            self._txn.delete(content_id, db=self._orphans)
        if primary is not None:
            self._nominate(*primary)
        self._good_up_to(stored.floor)
        return True

    def freshen(self, key_hash: bytes, stored: Stored, serial: Serial | None) -> bool:
        """
        Another head and other numbers for content that stays.

        :return: ``False`` if that content is not there any more, or the record there has a higher floor.
        """
        old = self._find(key_hash)
        if old is None or not isinstance(old.record, Stored):
            return False
        present = old.record
        if present.content_id != stored.content_id or present.floor > stored.floor:
            return False
        if serial is not None and not self.raise_serial(serial, stored.floor):
            return False
        kept = evolve(
            stored,
            size=present.size,
            flags=stored.flags & ~_IN_BLOBS | present.flags & _IN_BLOBS,
        )
        parts = record.pack(kept, old.sequence, old.checksum)
        self._put(key_hash, b"".join((*parts, old.value[old.octets :])), self._records)
        self._good_up_to(stored.floor)
        return True

    def raise_serial(self, serial: Serial, floor: int) -> bool:
        """
        :param floor: up to which epoch it is known that the project has come so far.
        :return: ``False``, and nothing is changed, if it has come further. (Of what was void before it came, nothing
            is changed, either.)
        """
        if floor < serial.since:
            return True
        key = layout.serial_key(serial.site, serial.project)
        value: Any = self._txn.get(key, db=self._serials)
        if value is not None:
            known, known_floor = layout.SERIAL_ROW.unpack(value)
            if known_floor >= serial.since:
                if known > serial.serial:
                    return False
                floor = max(floor, known_floor)
        self._good_up_to(floor)
        return self._put(key, layout.SERIAL_ROW.pack(serial.serial, floor), self._serials)

    def raise_floor(self, key_hash: bytes, content_id: bytes, floor: int) -> bool:
        """Compare-and-set: only if ``content_id`` is still there, and only upwards."""
        old = self._find(key_hash)
        if old is None or not isinstance(old.record, Stored):
            return False
        if old.record.content_id != content_id or old.record.floor >= floor:
            return False
        self._put(key_hash, record.with_floor(old.value, floor), self._records)
        self._good_up_to(floor)
        return True

    def remove(self, key_hash: bytes, content_id: bytes | None) -> bool:
        """
        Remove the record if it has ``content_id`` still; or, with ``None``, if it is damaged still.
        """
        if self._txn.get(key_hash, None, self._records) is None:
            return False
        old = self._find(key_hash)
        if content_id is None:
            if old is not None:
                return False
        elif old is None or not isinstance(old.record, Stored) or old.record.content_id != content_id:
            return False
        if old is not None:
            self._free(old)
        # Of a damaged one the queue row stays: see Note [one row per record].
        return bool(self._txn.delete(key_hash, db=self._records))

    def add_orphan(self, content_id: bytes, spawn: int) -> bool:
        """Before the first chunk of a fill: who fills it."""
        return self._put(content_id, layout.ORPHAN_ROW.pack(spawn, 0), self._orphans)

    def release_orphan(self, content_id: bytes, chunks: int) -> bool:
        """The fill is given up and writes no more: the collector may free its chunks."""
        row = layout.ORPHAN_ROW.pack(layout.NOBODY, chunks * layout.CHUNK)
        return self._put(content_id, row, self._orphans)

    def finish(self) -> None:
        """Keep the order of eviction, and which epochs control must know for what is written here to mean anything."""
        self._queues.finish()
        if self._epoch > self._known_epoch():
            self._put(layout.META_EPOCH, layout.U64_KEY.pack(self._epoch), self._databases[layout.META])

    def _good_up_to(self, floor: int) -> None:
        if floor > self._epoch:
            self._epoch = floor

    def _known_epoch(self) -> int:
        value: Any = self._txn.get(layout.META_EPOCH, None, self._databases[layout.META])
        known: int = 0 if value is None else layout.U64_KEY.unpack(value)[0]
        return known

    def _find(self, key_hash: bytes) -> _Old | None:
        """:return: the record; ``None`` also for a damaged one, which may be overwritten."""
        value: Any = self._txn.get(key_hash, None, self._records)
        if value is None:
            return None
        try:
            return _Old(value, *record.unpack(value))
        except Damaged:
            return None

    @staticmethod
    def _above(old: _Old | None, stored: Stored) -> bool:
        return old is not None and isinstance(old.record, Stored) and old.record.floor > stored.floor

    @staticmethod
    def _later(old: _Old | None, stored: Stored) -> bool:
        """Had what is there come after ``stored``, whose content took longer? (Of pages with serials these decide.)"""
        if old is None or not isinstance(old.record, Stored) or old.record.floor != stored.floor:
            return False
        if old.record.flags & _FALLBACK and not stored.flags & _FALLBACK:
            return False
        return 0.0 < old.record.validated_at - stored.validated_at < OVERTAKEN_SECONDS

    def _free(self, old: _Old) -> None:
        """See Note [who frees content] and Note [one row per record]."""
        self._queues.drop(old.sequence)
        stored = old.record
        if not isinstance(stored, Stored):
            return
        if stored.flags & _IN_BLOBS:
            self.release_orphan(stored.content_id, layout.chunks_of(stored.size))
        elif len(old.value) == old.octets:
            for index in range(layout.pieces_of(stored.size)):
                self._txn.delete(layout.place(stored.content_id, index), db=self._contents)

    def _put_pieces(self, content_id: bytes, tail: Sequence[bytes | memoryview]) -> None:
        view = memoryview(tail[0] if len(tail) == 1 else b"".join(tail))
        for index, start in enumerate(range(0, len(view), PIECE)):
            value = sealed((view[start : start + PIECE],), layout.seed(content_id, index))
            self._put(layout.place(content_id, index), value, self._contents)

    def _nominate(self, key_hash: bytes, variants: Variants) -> None:
        """
        The variants' own record, moved to the end of the queue: evicted before a variant, it
        would make that unreachable.
        """
        old = self._find(key_hash)
        older = None
        if old is not None:
            self._free(old)
            if isinstance(old.record, Variants):
                older = old.record
        sequence = self._queues.number()
        self._put(key_hash, b"".join(record.pack_variants(record.merged(variants, older), sequence)), self._records)
        self._queues.add(sequence, key_hash, layout.NO_CONTENT, 0, layout.ROW_SHELTERED)

    def _put(self, key: bytes, value: bytes, database: Any) -> bool:
        # dupdata, overwrite, append, database
        return self._txn.put(key, value, True, True, False, database)
