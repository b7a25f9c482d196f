"""
The order of eviction on disk: which record stands where, and how much stands in each queue.

Every record has a row in ``queue``. Records on probation have nothing else, for most never come further, and stand in
the order of their sequences; the others have a place in ``places`` as well (:mod:`edgecache.store.layout`). Whoever
stores, replaces, removes or moves a record does it through :class:`Queues`, in the same transaction, so that the sums
are always right. What moves, and where to, is decided by :mod:`edgecache.rules.eviction`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import lmdb
from attrs import define, field

from edgecache.rules.eviction import GHOST_SHARE, PROBATION, Entry, Queue, Standing, queue_of_new
from edgecache.store import layout
from edgecache.store.formats import odd
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


@define(eq=False, repr=False)
class Queued(Entry):
    """
    A record in a queue.

    :ivar place: key of its row in ``places``, empty on probation.
    :ivar row: of ``queue``, without the place.
    :ivar weight: octets in small, in blobs.
    """

    sequence: int
    place: bytes
    row: bytes
    key_hash: bytes
    content_id: bytes
    size: int
    in_blobs: bool
    weight: tuple[int, int]


@define(eq=False, repr=False)
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
    # How long what was evicted is known: octets evicted since, from small and from blobs.
    _within: tuple[int, int] = (0, 0)

    def __attrs_post_init__(self) -> None:
        self._queue = self._databases[layout.QUEUE]
        self._places = self._databases[layout.PLACES]

    @property
    def standing(self) -> tuple[Standing, Standing]:
        """Of small and of blobs; what is changed there is kept by :meth:`finish`."""
        if self._standing is None:
            small, blobs = self._standing = read_standing(self._txn, self._databases)
            self._within = int(GHOST_SHARE * small.octets), int(GHOST_SHARE * blobs.octets)
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
        small, blobs = self._standing or self.standing
        popularity = self._popularity
        if popularity is None:
            known = False
        elif in_blobs:
            known = popularity.blobs.take(key_hash, self._within[1])
        else:
            known = popularity.small.take(key_hash, self._within[0])
        standing = blobs if in_blobs else small
        row = layout.QUEUE_ROW.pack(key_hash, content_id, size, flags)
        queue = queue_of_new(known, standing)
        if queue is not PROBATION:
            row += self._place(queue, in_blobs, sequence, sequence)
        # dupdata, overwrite, append, database
        self._txn.put(layout.U64_KEY.pack(sequence), row, True, True, False, self._queue)
        in_small, octets = weights(size, flags)
        small.add(queue, in_small)
        if octets:
            blobs.add(queue, octets)

    def drop(self, sequence: int) -> bool:
        """The record is replaced, removed or evicted. :return: was there one?"""
        key = layout.U64_KEY.pack(sequence)
        row: Any = self._txn.get(key, None, self._queue)
        if row is None:
            return False
        self._txn.delete(key, db=self._queue)
        place = row[layout.QUEUE_ROW.size :]
        if place:
            self._txn.delete(place, db=self._places)
        _, _, size, flags = layout.QUEUE_ROW.unpack_from(row)
        self._weigh(_queue_of(place), weights(size, flags), -1)
        return True

    def leave(self, entry: Queued, to: Queue | None) -> bool:
        """
        :param to: the queue at whose end it goes on, which is not probation; ``None``: it is evicted.
        :return: ``False``, and nothing is changed, if it does not stand where it was seen any more.
        """
        key = layout.U64_KEY.pack(entry.sequence)
        row: Any = self._txn.get(key, None, self._queue)
        if row is None or row[layout.QUEUE_ROW.size :] != entry.place:
            return False
        if entry.place:
            self._txn.delete(entry.place, db=self._places)
        self._weigh(_queue_of(entry.place), entry.weight, -1)
        if to is None:
            self._txn.delete(key, db=self._queue)
            return True
        place = self._place(to, entry.in_blobs, self.number(), entry.sequence)
        self._txn.put(key, entry.row + place, True, True, False, self._queue)
        self._weigh(to, entry.weight, 1)
        return True

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

    def _place(self, queue: Queue, in_blobs: int, number: int, sequence: int) -> bytes:
        place = layout.PLACE_IN_QUEUE.pack(queue, bool(in_blobs), number)
        self._txn.put(place, layout.U64_KEY.pack(sequence), True, True, False, self._places)
        return place

    def _weigh(self, queue: Queue, weight: tuple[int, int], times: int) -> None:
        small, blobs = self.standing
        small.add(queue, times * weight[0])
        blobs.add(queue, times * weight[1])


def _queue_of(place: bytes) -> Queue:
    try:
        return Queue(place[0]) if place else PROBATION
    except ValueError as error:
        raise odd(error) from error


def read_standing(txn: lmdb.Transaction, databases: dict[bytes, lmdb._Database]) -> tuple[Standing, Standing]:
    """:return: the sums of small and of blobs."""
    value: Any = txn.get(layout.META_STANDING, db=databases[layout.META])
    if value is None:
        return Standing(), Standing()
    sums = layout.STANDING_ROW.unpack(value)
    return Standing(*sums[:4]), Standing(*sums[4:])


def take_over(txn: lmdb.Transaction, databases: dict[bytes, lmdb._Database]) -> None:
    """
    A store of a release that had one queue has all on probation, and no sums yet: add them up. Costs about a
    second per million records, once.
    """
    if txn.get(layout.META_STANDING, db=databases[layout.META]) is not None:
        return
    queues = Queues(txn, databases, None)
    small, blobs = queues.standing
    with txn.cursor(databases[layout.QUEUE]) as cursor:
        for row in cursor.iternext(keys=False, values=True):
            _, _, size, flags = layout.QUEUE_ROW.unpack(row)
            in_small, in_blobs = weights(size, flags)
            small.probation += in_small
            blobs.probation += in_blobs
    # What is new must not pass all of that by.
    small.evicting = blobs.evicting = small.octets > 0
    queues.finish()


@define(eq=False, repr=False)
class Heads:
    """
    The queues as one transaction sees them, for :func:`edgecache.rules.eviction.plan`.

    :ivar only_blobs: room is needed there: what has no chunks in blobs does not matter.
    :ivar reached: the sequence from which on records on probation have to be looked for. Below it there are none
        (that matter), once what was shown of them has been moved or evicted.
    """

    _txn: lmdb.Transaction
    _databases: dict[bytes, lmdb._Database]
    _popularity: Popularity
    only_blobs: bool
    reached: int = 0

    def oldest(self, queue: Queue) -> Iterator[Queued]:
        """:return: records in ``queue`` that take room where it is needed, the oldest first."""
        if queue is PROBATION:
            return self._on_probation()
        in_blobs = self._placed(queue, in_blobs=True)
        if self.only_blobs:
            return in_blobs
        return heapq.merge(self._placed(queue, in_blobs=False), in_blobs, key=_number)

    def _on_probation(self) -> Iterator[Queued]:
        cursor: Any = self._txn.cursor(self._databases[layout.QUEUE])
        found = cursor.set_range(layout.U64_KEY.pack(self.reached))
        while found:
            key, row = cursor.item()
            self.reached = layout.U64_KEY.unpack(key)[0] + 1
            if len(row) == layout.QUEUE_ROW.size and (row[-1] & layout.ROW_IN_BLOBS or not self.only_blobs):
                yield self._entry(self.reached - 1, row)
            found = cursor.next()

    def _placed(self, queue: Queue, *, in_blobs: bool) -> Iterator[Queued]:
        start = layout.PLACE_IN_QUEUE.pack(queue, in_blobs, 0)
        rows = self._databases[layout.QUEUE]
        cursor: Any = self._txn.cursor(self._databases[layout.PLACES])
        found = cursor.set_range(start)
        while found:
            place, sequence = cursor.item()
            if place[:2] != start[:2]:
                return
            yield self._entry(layout.U64_KEY.unpack(sequence)[0], self._txn.get(sequence, None, rows))
            found = cursor.next()

    def _entry(self, sequence: int, value: Any) -> Queued:
        if value is None or len(value) < layout.QUEUE_ROW.size:
            raise lmdb.CorruptedError(f"a place or a row of the queue is not what was written: {sequence}")
        row, place = value[: layout.QUEUE_ROW.size], value[layout.QUEUE_ROW.size :]
        key_hash, content_id, size, flags = layout.QUEUE_ROW.unpack(row)
        weight = weights(size, flags)
        hits = self._popularity.hits[slot_of(key_hash)]
        sheltered, in_blobs = flags & layout.ROW_SHELTERED != 0, flags & layout.ROW_IN_BLOBS != 0
        octets = weight[self.only_blobs]
        return Queued(octets, hits, sheltered, sequence, place, row, key_hash, content_id, size, in_blobs, weight)


def _number(entry: Queued) -> bytes:
    return entry.place[2:]
