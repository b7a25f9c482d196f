"""
Reading: look-ups and content, each octet verified and copied within its read transaction.

The hit path is :meth:`StoreReader.look_up`, :meth:`StoreReader.content` and :meth:`StoreReader.done`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import lmdb
from attrs import define, field
from xxhash import xxh3_64_intdigest

from edgecache.rules.eviction import HITS
from edgecache.store import layout
from edgecache.store.ahead import Disk
from edgecache.store.checks import payload, verify
from edgecache.store.environments import Environments
from edgecache.store.layout import CHUNK, PIECE
from edgecache.store.popularity import slot_of
from edgecache.store.record import Damaged, unpack
from edgecache.store.sources import StoredSource
from edgecache.store.unreadable import OnDamage, Unreadable
from edgecache.words.errors import ContentMissing
from edgecache.words.stored import Stored, Variants

# Note [memo of records]
#
# Parsing a record costs more than finding it. What was parsed is kept by key hash and used again when
# the octets found under that hash now begin alike: their length, checksum and sequence are in there, so
# they are the same octets. LMDB decides on each look-up what is stored; the memo only spares the parsing. A
# shared Stored is never changed: whoever needs another one evolves it.

# Note [views]
#
# A view of the map that outlives its transaction shows other objects' octets without any error. Of small,
# values are copied by LMDB's binding; views of chunks are local to one function.

AT_ONCE = 64 << 10
"""Content up to so many octets may be read whole: if its client takes none of it, it is memory of ours."""

MEMO_RECORDS = 4096
MEMO_OCTETS = 4096
"""A record larger than this is parsed each time, so that the memo stays below 16 MiB."""

_PREFIX = layout.RECORD_PREFIX.size


class Pins(Protocol):
    """What reading and writing need of the mapped page."""

    @property
    def full_small(self) -> bool:
        """Small takes nothing new."""

    @property
    def full_blobs(self) -> bool:
        """Blobs takes nothing new."""

    def pin(self, content_id: bytes) -> int | None:
        """Keep chunks from being freed; ``None`` without a slot."""

    def unpin(self, slot: int) -> None:
        """Undo :meth:`pin`."""

    def add(self, counter: int, n: int = 1) -> None:
        """Count."""


@define(eq=False, repr=False)
class _Known:
    """
    One parsed record. See Note [memo of records].

    :ivar prefix: the octets with which its value begins.
    :ivar start: where inline content begins, ``stop``: where it ends; both 0 without any.
    :ivar checksum: of the inline content.
    :ivar slot: of its counter.
    """

    prefix: bytes
    record: Stored | Variants
    start: int
    stop: int
    checksum: int
    slot: int


T = TypeVar("T")


def _written(descriptor: int, pieces: list[bytes | memoryview]) -> int:
    try:
        return os.writev(descriptor, pieces)
    except OSError:
        # It takes nothing just now, or is broken: its transport finds out which.
        return 0


def _copied(views: list[memoryview]) -> list[bytes]:
    return [view.tobytes() for view in views]


@define(eq=False, repr=False)
class StoreReader:
    """
    Reads of one thread.

    A read transaction on small opens with the first look-up and stays open until
    :meth:`done`, so that what is found and its content belong together.

    :ivar unreadable: who is told of what cannot be read.
    """

    _environments: Environments
    _pins: Pins
    _on_damage: OnDamage | None = None
    # With it, sources leave what is not in memory to a thread; without it their reader waits for the disk.
    _disk: Disk | None = None
    _records: Any = field(init=False)
    _contents: Any = field(init=False)
    _chunks: Any = field(init=False)
    _hits: memoryview = field(init=False)
    unreadable: Unreadable = field(init=False)
    _begin: Callable[..., lmdb.Transaction] = field(init=False)
    _txn: lmdb.Transaction | None = None
    # An ordered one: of a plain dict the oldest key is slow to find once others were deleted before it.
    _memo: OrderedDict[bytes, _Known] = field(factory=OrderedDict)
    # Of the last look-up that found a response:
    _found: _Known | None = None
    _key_hash: bytes = b""
    _value: bytes = b""

    def __attrs_post_init__(self) -> None:
        small = self._environments.small
        self.unreadable = Unreadable(self._pins, self._on_damage)
        self._begin = small.env.begin
        self._records = small.databases[layout.RECORDS]
        self._contents = small.databases[layout.CONTENTS]
        self._chunks = self._environments.blobs.databases[layout.CHUNKS]
        self._hits = self._environments.popularity.hits

    # The hit

    def look_up(self, key_hash: bytes, key: bytes) -> Stored | Variants | None:
        """
        :param key: compared with the one in the record.
        :return: what is stored; ``None`` when nothing is, or it is damaged (which is reported).
        """
        txn = self._txn
        try:
            if txn is None:
                txn = self._txn = self._begin()
            value: Any = txn.get(key_hash, None, self._records)
        except lmdb.Error as error:
            self.unreadable.environment(self._environments.small, error)
            return None
        if value is None:
            return None
        known = self._memo.get(key_hash)
        if known is None or not value.startswith(known.prefix):
            known = self._parse(key_hash, value)
            if known is None:
                return None
        self._found, self._key_hash, self._value = known, key_hash, value
        record = known.record
        return record if record.key == key else None

    def hit(self) -> None:
        """What the last look-up found answers a request: what is asked for often is kept."""
        found = self._found
        if found is not None:
            count = self._hits[found.slot]
            if count < HITS:
                self._hits[found.slot] = count + 1

    def content(self, stored: Stored) -> bytes:
        """
        :param stored: what the last look-up found, smaller than a chunk; no :meth:`done` in between.
        :return: all of its content.
        :raises ContentMissing: it is gone or damaged (which is reported).
        """
        found = self._found
        if found is None or found.record is not stored:
            found = self._same(stored)
        stop = found.stop
        if stop:
            content = self._value[found.start : stop]
            if xxh3_64_intdigest(content) == found.checksum:
                return content
            raise self.unreadable.chunk(self._key_hash, stored.content_id, 0, "checksum")
        return self.tail(self._key_hash, stored.content_id, stored.size)

    def done(self) -> None:
        """End the read transaction. Harmless without one."""
        txn = self._txn
        if txn is not None:
            self._found = self._txn = None
            txn.abort()

    # Content in blobs

    def whole(self, stored: Stored) -> list[bytes]:
        """
        Like :meth:`content`, for any size up to :data:`AT_ONCE`.

        :return: the content in pieces.
        """
        size = stored.size
        if size < CHUNK:
            return [self.content(stored)]
        self._same(stored)
        return self._within(self._key_hash, stored.content_id, size, 0, size, _copied)

    def part(self, key_hash: bytes, content_id: bytes, size: int, start: int, stop: int) -> bytes:
        """
        :param size: octets of the whole content.
        :return: those from ``start`` up to ``stop``.
        :raises ContentMissing: some of it is gone or damaged.
        """
        return self._within(key_hash, content_id, size, start, stop, b"".join)

    def chunks(self, key_hash: bytes, content_id: bytes, index: int, count: int) -> bytes:
        """
        Read ``count`` full chunks in one read transaction of their own.

        :param key_hash: where the record is, for the report; ``b""`` if there is none yet.
        :raises ContentMissing: one of them is gone or damaged.
        """
        stop = (index + count) * CHUNK
        return self._within(key_hash, content_id, stop, index * CHUNK, stop, b"".join)

    def write_to(
        self, key_hash: bytes, content_id: bytes, size: int, descriptor: int, before: bytes, start: int, stop: int
    ) -> int:
        """
        Write content to a non-blocking socket straight from the map, verified, within one read transaction
        of blobs (the tail is copied).

        :param size: octets of the whole content.
        :param before: written first.
        :param start: first octet of the content to write, ``stop`` the one after the last.
        :return: octets that the socket took, of ``before`` and the content; 0 also when it is broken,
            which its transport will find out.
        :raises ContentMissing: some of it is gone or damaged.
        """
        return self._within(
            key_hash, content_id, size, start, stop, lambda views: _written(descriptor, [before, *views])
        )

    def copy_to(self, key_hash: bytes, stored: Stored, descriptor: int, at: int) -> int:
        """
        Write all of a content to a file.

        :param stored: what the last look-up found; no :meth:`done` in between.
        :param at: octet of the file where it is to begin.
        :return: octets that were written.
        :raises ContentMissing: some of it is gone or damaged.
        :raises OSError: the file takes nothing.
        """
        size = stored.size
        return self._within(key_hash, stored.content_id, size, 0, size, lambda views: os.pwritev(descriptor, views, at))

    def tail(self, key_hash: bytes, content_id: bytes, size: int) -> bytes:
        """
        :param size: octets of the whole content.
        :return: what follows the last full chunk, read in the look-up's transaction if that is open, else in one
            of its own.
        :raises ContentMissing: it is gone or damaged.
        """
        return b"".join(self._tail(key_hash, content_id, size, 0, size % CHUNK))

    def open_source(self, key_hash: bytes, stored: Stored) -> StoredSource | None:
        """
        Pin the content, *then* look its record up again, in a new transaction: from then on nobody
        frees it (DESIGN 7). Ends the current transaction. When no pin is to be had, it is read unpinned and
        may turn out to be missing on the way.

        :return: ``None`` if the record has gone or has other content by now.
        """
        self.done()
        source = self.source(key_hash, stored)
        try:
            again = self.look_up(key_hash, stored.key)
        finally:
            self.done()
        if type(again) is not Stored or again.content_id != stored.content_id:
            source.close()
            return None
        return source

    def source(self, key_hash: bytes, stored: Stored) -> StoredSource:
        """
        Like :meth:`open_source`, without the second look: for content of which a part was sent just now, so that
        there is no other way than to go on. If it was removed meanwhile, the source fails.
        """
        slot = self._pins.pin(stored.content_id)
        content_id, size = stored.content_id, stored.size
        ahead = None if self._disk is None or size < CHUNK else self._disk.ahead(content_id, size)
        return StoredSource(self, self._pins, key_hash, content_id, size, slot, ahead)

    # Inside

    def _parse(self, key_hash: bytes, value: bytes) -> _Known | None:
        """See Note [memo of records]."""
        try:
            record, _, octets, checksum = unpack(value)
        except Damaged as damage:
            self.unreadable.record(key_hash, None, damage.why)
            return None
        stop = len(value)
        inline = (octets, stop) if stop > octets else (0, 0)
        known = _Known(value[:_PREFIX], record, *inline, checksum, slot_of(key_hash))
        if octets <= MEMO_OCTETS:
            kept = self._memo
            if len(kept) >= MEMO_RECORDS and key_hash not in kept:
                kept.popitem(last=False)
            kept[key_hash] = known
        return known

    def _same(self, stored: Stored) -> _Known:
        """:return: what was found just now. It is good for another head of the same content, too."""
        found = self._found
        record = None if found is None else found.record
        if found is None or type(record) is not Stored or record.content_id != stored.content_id:
            raise ContentMissing(stored.content_id, 0)
        if record.size != stored.size:
            raise ContentMissing(stored.content_id, 0)
        return found

    def _tail(self, key_hash: bytes, content_id: bytes, size: int, start: int, stop: int) -> list[memoryview]:
        """:return: octets ``start`` (or 0) to ``stop`` of the tail, of copies; for the rest see :meth:`tail`."""
        views: list[memoryview] = []
        txn, alone = self._txn, self._txn is None
        try:
            if txn is None:
                txn = self._txn = self._begin()
            index = start // PIECE if start > 0 else 0
            begin = index * PIECE
            while begin < stop:
                value: Any = txn.get(layout.PLACE.pack(content_id, index), None, self._contents)
                octets = min(size % CHUNK - begin, PIECE)
                view = None if value is None else payload(memoryview(value), octets, layout.seed(content_id, index))
                if view is None:
                    why = "missing" if value is None else "checksum"
                    raise self.unreadable.chunk(key_hash, content_id, size // CHUNK, why)
                views.append(view[start - begin if start > begin else 0 : stop - begin])
                index += 1
                begin += PIECE
        except lmdb.Error as error:
            self.unreadable.environment(self._environments.small, error)
            raise ContentMissing(content_id, size // CHUNK) from error
        finally:
            if alone:
                self.done()
        return views

    def _within(
        self,
        key_hash: bytes,
        content_id: bytes,
        size: int,
        start: int,
        stop: int,
        use: Callable[[list[memoryview]], T],
    ) -> T:
        """:return: what ``use`` makes of the verified octets ``start`` to ``stop`` while they can be looked at."""
        in_blobs = size - size % CHUNK
        tail = self._tail(key_hash, content_id, size, start - in_blobs, stop - in_blobs) if stop > in_blobs else []
        if start >= in_blobs:
            return use(tail)
        first, last = start // CHUNK, (min(stop, in_blobs) - 1) // CHUNK
        views: list[memoryview] = []
        try:
            # db, parent, write, buffers
            txn = self._environments.blobs.env.begin(None, None, False, True)
            try:
                wrong = verify(txn, self._chunks, content_id, first, last + 1 - first, views)
                if wrong:
                    raise self.unreadable.chunk(key_hash, content_id, first + len(views), wrong)
                views[-1] = views[-1][: stop - last * CHUNK]
                views[0] = views[0][start - first * CHUNK :]
                return use(views + tail)
            finally:
                # See Note [views].
                views.clear()
                txn.abort()
        except lmdb.Error as error:
            self.unreadable.environment(self._environments.blobs, error)
            raise ContentMissing(content_id, first) from error
