"""
The order of eviction on disk: which record stands where, and how much stands in each queue.

Every record has a row in ``queue`` and a place in ``places`` (:mod:`edgecache.store.layout`); whoever stores, replaces,
removes or moves a record does it through :class:`Queues`, in the same transaction, so that the sums are always right.
What moves, and where to, is decided by :mod:`edgecache.rules.eviction`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import lmdb
from attrs import define, field

from edgecache.rules.eviction import GHOST_SHARE, Entry, Queue, Standing, queue_of_new
from edgecache.store import layout
from edgecache.store.popularity import Popularity, slot_of

_RECORD_OCTETS = 1024
"""What a record takes besides content: itself, its rows, half-empty pages."""
_IN_A_LEAF = 2000
"""A longer value has pages of its own."""


def weights(size: int, flags: int) -> tuple[int, int]:
    """:return: octets that a record and its content take, about: in small, in blobs."""
    tail = size % layout.CHUNK
    if tail > _IN_A_LEAF:
        tail = -(-tail // layout.PAGE) * layout.PAGE
    in_blobs = layout.chunks_of(size) * (layout.CHUNK_VALUE + layout.OVERHEAD) if flags & layout.ROW_IN_BLOBS else 0
    return _RECORD_OCTETS + tail, in_blobs


@define(eq=False)
class Placed(Entry):
    """
    A record in a queue.

    :ivar place: key of its row in ``places``.
    :ivar in_blobs: it has chunks there.
    """

    place: bytes
    sequence: int
    key_hash: bytes
    content_id: bytes
    size: int
    in_blobs: bool


@define(eq=False)
class Queues:
    """
    The queues within one write transaction of small. Whoever opened that calls :meth:`finish`, then commits.

    Sums are read when they are needed first. Without a popularity nobody is known.
    """

    _txn: lmdb.Transaction
    _databases: dict[bytes, lmdb._Database]
    _popularity: Popularity | None
    _queue: Any = field(init=False)
    _places: Any = field(init=False)
    _next: int = 0
    _standing: tuple[Standing, Standing] | None = None

    def __attrs_post_init__(self) -> None:
        self._queue = self._databases[layout.QUEUE]
        self._places = self._databases[layout.PLACES]

    @property
    def standing(self) -> tuple[Standing, Standing]:
        """Of small and of blobs; what is changed there is kept by :meth:`finish`."""
        if self._standing is None:
            self._standing = read_standing(self._txn, self._databases)
        return self._standing

    def number(self) -> int:
        """:return: a number for a record or a place that none had before; each is higher than the last."""
        if not self._next:
            value: Any = self._txn.get(layout.META_SEQUENCE, db=self._databases[layout.META])
            self._next = 1 if value is None else layout.U64_KEY.unpack(value)[0]
        self._next += 1
        return self._next - 1

    def add(self, sequence: int, key_hash: bytes, content_id: bytes, size: int, flags: int) -> None:
        """A new record; ``flags`` as in :data:`layout.QUEUE_ROW`."""
        in_blobs = flags & layout.ROW_IN_BLOBS
        standing = self.standing[bool(in_blobs)]
        known = False
        if self._popularity is not None:
            ghosts = self._popularity.blobs if in_blobs else self._popularity.small
            known = ghosts.take(key_hash, int(GHOST_SHARE * standing.octets))
        queue = queue_of_new(known, standing)
        row = layout.QUEUE_ROW.pack(key_hash, content_id, size, flags)
        self._stand(queue, sequence, sequence, row, weights(size, flags), in_blobs)

    def drop(self, sequence: int) -> bool:
        """The record is replaced, removed or evicted. :return: was there one?"""
        key = layout.U64_KEY.pack(sequence)
        value: Any = self._txn.get(key, None, self._queue)
        if value is None:
            return False
        self._txn.delete(key, db=self._queue)
        place = value[layout.QUEUE_ROW.size :]
        if place:
            self._txn.delete(place, db=self._places)
            _, _, size, flags = layout.QUEUE_ROW.unpack_from(value)
            self._weigh(Queue(place[0]), weights(size, flags), -1)
        return True

    def move(self, entry: Placed, queue: Queue) -> None:
        """To the end of ``queue``."""
        key = layout.U64_KEY.pack(entry.sequence)
        value: Any = self._txn.get(key, None, self._queue)
        row = value[: layout.QUEUE_ROW.size]
        weight = weights(entry.size, row[-1])
        self._txn.delete(entry.place, db=self._places)
        self._weigh(Queue(entry.place[0]), weight, -1)
        self._stand(queue, entry.sequence, self.number(), row, weight, entry.in_blobs)

    def is_there(self, entry: Placed) -> bool:
        """Does it still stand where it was seen?"""
        value: Any = self._txn.get(entry.place, None, self._places)
        return value is not None and layout.U64_KEY.unpack(value)[0] == entry.sequence

    def take_over(self, sequence: int, most: int) -> int | None:
        """
        Give places to records of a release that had a single queue, as if they were stored now.

        :param sequence: where to go on.
        :param most: rows to look at.
        :return: where to go on next time; ``None`` at the end.
        """
        with self._txn.cursor(self._queue) as cursor:
            found = cursor.set_range(layout.U64_KEY.pack(sequence))
            rows: list[tuple[bytes, bytes]] = []
            while found and len(rows) < most:
                rows.append((bytes(cursor.key()), bytes(cursor.value())))
                found = cursor.next()
        for key, row in rows:
            (sequence,) = layout.U64_KEY.unpack(key)
            if len(row) == layout.QUEUE_ROW.size:
                _, _, size, flags = layout.QUEUE_ROW.unpack(row)
                in_blobs = flags & layout.ROW_IN_BLOBS
                queue = queue_of_new(False, self.standing[bool(in_blobs)])
                self._stand(queue, sequence, sequence, row, weights(size, flags), in_blobs)
        return sequence + 1 if found else None

    def finish(self) -> None:
        """Keep the numbers and the sums."""
        meta = self._databases[layout.META]
        if self._next:
            self._txn.put(layout.META_SEQUENCE, layout.U64_KEY.pack(self._next), db=meta)
        if self._standing is not None:
            small, blobs = self._standing
            row = layout.STANDING_ROW.pack(
                *(small.probation, small.main, small.shelter, small.evicting),
                *(blobs.probation, blobs.main, blobs.shelter, blobs.evicting),
            )
            self._txn.put(layout.META_STANDING, row, db=meta)

    def _stand(
        self, queue: Queue, sequence: int, number: int, row: bytes, weight: tuple[int, int], in_blobs: int
    ) -> None:
        place = layout.PLACE_IN_QUEUE.pack(queue, bool(in_blobs), number)
        # dupdata, overwrite, append, database
        self._txn.put(layout.U64_KEY.pack(sequence), row + place, True, True, False, self._queue)
        self._txn.put(place, layout.U64_KEY.pack(sequence), True, True, False, self._places)
        self._weigh(queue, weight, 1)

    def _weigh(self, queue: Queue, weight: tuple[int, int], times: int) -> None:
        small, blobs = self.standing
        small.add(queue, times * weight[0])
        blobs.add(queue, times * weight[1])


def read_standing(txn: lmdb.Transaction, databases: dict[bytes, lmdb._Database]) -> tuple[Standing, Standing]:
    """:return: the sums of small and of blobs."""
    value: Any = txn.get(layout.META_STANDING, db=databases[layout.META])
    if value is None:
        return Standing(), Standing()
    sums = layout.STANDING_ROW.unpack(value)
    return Standing(*sums[:4]), Standing(*sums[4:])


@define(eq=False)
class Heads:
    """
    The queues as one transaction sees them, for :func:`edgecache.rules.eviction.plan`.

    :ivar only_blobs: room is needed there: what has no chunks in blobs does not matter.
    """

    _txn: lmdb.Transaction
    _databases: dict[bytes, lmdb._Database]
    _popularity: Popularity
    only_blobs: bool

    def oldest(self, queue: Queue) -> Iterator[Placed]:
        """:return: records in ``queue`` that take room where it is needed, the oldest first."""
        in_blobs = self._walk(queue, in_blobs=True)
        if self.only_blobs:
            return in_blobs
        return heapq.merge(self._walk(queue, in_blobs=False), in_blobs, key=_number)

    def _walk(self, queue: Queue, *, in_blobs: bool) -> Iterator[Placed]:
        start = layout.PLACE_IN_QUEUE.pack(queue, in_blobs, 0)
        rows, hits = self._databases[layout.QUEUE], self._popularity.hits
        cursor: Any = self._txn.cursor(self._databases[layout.PLACES])
        found = cursor.set_range(start)
        while found:
            place, sequence = cursor.item()
            if place[:2] != start[:2]:
                return
            value: Any = self._txn.get(sequence, None, rows)
            if value is not None:
                key_hash, content_id, size, flags = layout.QUEUE_ROW.unpack_from(value)
                yield Placed(
                    weights(size, flags)[self.only_blobs],
                    hits[slot_of(key_hash)],
                    bool(flags & layout.ROW_SHELTERED),
                    place,
                    layout.U64_KEY.unpack(sequence)[0],
                    key_hash,
                    content_id,
                    size,
                    in_blobs,
                )
            found = cursor.next()


def _number(entry: Placed) -> bytes:
    return entry.place[2:]
