"""Content on its way into the store, readable from octet 0 while it grows."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import lmdb
from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.store import layout
from edgecache.store.budget import Budget
from edgecache.store.checks import sealed
from edgecache.store.committing import GROUP_OCTETS, Committer, Outcome
from edgecache.store.layout import CHUNK
from edgecache.store.reading import Pins, StoreReader
from edgecache.store.small import Primary, SmallTransaction
from edgecache.words.errors import ContentMissing, StoreFull
from edgecache.words.ports import Reader
from edgecache.words.stored import Flag, Serial, Stored

# Note [life of content]
#
# 1. Octets gather until they are a full chunk. The first one asks for an orphan row; chunks go to blobs
#    once that row is on disk, so that a crash leaves no chunk that nobody knows of.
# 2. A chunk leaves memory when blobs has it; whoever reads later reads it there.
# 3. commit() waits for the last chunk and pins the content: its record may be replaced a moment after it
#    is there, while clients still read. Then one transaction of small writes tail, record and queue row and
#    removes the orphan row.
# 4. finished() and abandon() unpin. Chunks without a record get an orphan row of nobody's, but only once none
#    of them is on its way to blobs any longer: one written after the collector was there would stay for ever.

# One group is being committed while the next gathers.
UNCOMMITTED = 2 * GROUP_OCTETS
"""Octets of one fill that wait for blobs; above, its upstream should pause."""

# IntFlag's operators cost a microsecond each.
_IN_BLOBS = int(Flag.IN_BLOBS)

# Smaller parts than this are joined, so that an upstream that drips costs no object per octet.
_PART = 4096


class _Orphan(enum.Enum):
    """The orphan row of this content, as far as we know."""

    NONE = "none"
    ASKED = "asked"
    THERE = "there"


@define(eq=False)
class BlobsTransaction:
    """One write transaction of blobs."""

    _txn: lmdb.Transaction
    _databases: dict[bytes, lmdb._Database]

    def put(self, content_id: bytes, index: int, value: bytes) -> bool:
        """A chunk, its checksum included."""
        return self._txn.put(layout.place(content_id, index), value, db=self._databases[layout.CHUNKS])

    def finish(self) -> None:
        """Nothing is left to do."""


@define(eq=False)
class Shared:
    """What all content writers of a worker have in common."""

    reader: StoreReader
    pins: Pins
    spawn: int
    small: Committer[SmallTransaction]
    blobs: Committer[BlobsTransaction]
    budget: Budget = field(factory=Budget)


@define(eq=False)
class ContentWriter:
    """
    The content of one fill.

    One :meth:`write` after the other, then :meth:`commit` unless it came to nothing, then :meth:`finished` or
    :meth:`abandon` when nobody reads it any longer.

    :ivar content_id: 16 random octets, never used before.
    :ivar written: octets that came so far.
    :ivar failed: the store does not take it. What came stays readable, but for what :meth:`discard` drops.
    """

    _shared: Shared
    content_id: bytes
    written: int = 0
    failed: StoreFull | None = None
    # Full chunks that are not in blobs (yet), with their checksums, by index; how many there were in all.
    _chunks: dict[int, bytes] = field(factory=dict)
    _full: int = 0
    # What came after the last full chunk, in parts.
    _parts: list[bytes] = field(factory=list)
    _tail: int = 0
    # Chunks on their way to blobs, and which of them wait for the orphan row.
    _pending: int = 0
    _held_back: list[int] = field(factory=list)
    _orphan: _Orphan = _Orphan.NONE
    _congested: bool = False
    _reader: Reader | None = None
    _discarded: int = 0
    # The commit that waits for chunks; one is under way; where the record is.
    _proceed: Callable[[], None] | None = None
    _committing: bool = False
    _key_hash: bytes = b""
    _slot: int | None = None
    _closed: bool = False
    # The chunk last read back of which only a part was wanted: the next read is likely the rest.
    _index: int = -1
    _chunk: bytes = b""

    # The network's side

    def write(self, data: bytes) -> None:
        """More content. Each octet is copied once, when its chunk is full."""
        if self._closed:
            return
        self.written += len(data)
        if self._tail + len(data) < CHUNK:
            self._append(data)
            return
        view = memoryview(data)
        start = CHUNK - self._tail
        self._cut([*self._parts, view[:start]])
        while len(view) - start >= CHUNK:
            self._cut([view[start : start + CHUNK]])
            start += CHUNK
        self._parts = [data[start:]] if start < len(data) else []
        self._tail = len(data) - start

    @property
    def congested(self) -> bool:
        """The store is behind: pause until woken."""
        self._congested = (
            self.failed is None
            and self._pending > 0
            and (self._pending * CHUNK > UNCOMMITTED or self._shared.budget.exceeded)
        )
        if self._congested:
            self._shared.budget.wait(self)
        return self._congested

    def attach(self, reader: Reader) -> None:
        """Wake ``reader`` when :attr:`congested` ends and when :attr:`failed` is set."""
        self._reader = reader

    def detach(self, reader: Reader) -> None:
        """``reader`` need not be woken any more."""
        self._reader = None

    # The clients' side

    def read(self, position: int, limit: int) -> bytes:
        """
        :return: what came from ``position`` on, at most ``limit`` octets; ``b""`` if nothing yet.
        :raises ContentMissing: it was discarded, or blobs has lost it.
        """
        if position >= self.written:
            return b""
        index, offset = divmod(position, CHUNK)
        value = self._chunks.get(index)
        if value is not None:
            return value[offset : min(offset + limit, CHUNK)]
        if index == self._full:
            return self._from_parts(offset, limit)
        if position < self._discarded:
            raise ContentMissing(self.content_id, index)
        if not offset and limit >= CHUNK:
            return self._shared.reader.chunks(self._key_hash, self.content_id, index, self._in_blobs(index, limit))
        if index != self._index:
            self._chunk = self._shared.reader.chunks(self._key_hash, self.content_id, index, 1)
            self._index = index
        return self._chunk[offset : offset + limit]

    def discard(self, below: int) -> None:
        """Once :attr:`failed`: nobody reads what lies below any more. Whole chunks go."""
        if self.failed is None:
            return
        keep = min(below // CHUNK, self._full)
        for index in [index for index in self._chunks if index < keep]:
            del self._chunks[index]
        self._discarded = max(self._discarded, keep * CHUNK)

    # The end

    def commit(
        self, key_hash: bytes, stored: Stored, primary: Primary | None = None, serial: Serial | None = None
    ) -> Deferred[bool]:
        """
        Make the content visible as ``stored``, whose ``content_id``, ``size`` and place are set here.

        The caller has compared length and digest.

        :param primary: key hash and nominated fields to remember under the primary key.
        :param serial: of a page; kept for ever, and never lowered.
        :return: fires with ``True`` when the record is on disk; with ``False`` when the store does not take it
            (see :attr:`failed`), there is a record of a higher floor, or a higher serial is known. Then all stays
            readable until :meth:`abandon`. Never fails.
        """
        stored.content_id = self.content_id
        stored.size = self.written
        stored.flags = stored.flags & ~_IN_BLOBS | (_IN_BLOBS if self._full else 0)
        outcome: Deferred[bool] = Deferred()

        def told(result: Outcome) -> None:
            self._committing = False
            if isinstance(result, StoreFull):
                self._fail(result)
            elif result:
                self._key_hash = key_hash
                self._orphan = _Orphan.NONE
            outcome.callback(result is True)
            if self._closed:
                self._close()

        def proceed() -> None:
            if self.failed is not None or self._closed:
                outcome.callback(False)
                return
            self._committing = True
            if self._shared.pins.full_small:
                told(StoreFull("small", "above its share"))
                return
            if self._full:
                self._slot = self._shared.pins.pin(self.content_id)
            parts = self._parts
            self._shared.small.submit(
                self._tail + len(stored.head) + len(stored.key),
                lambda txn: txn.store(key_hash, stored, parts, primary, serial),
                told,
            )

        self._proceed = proceed
        self._go_on()
        return outcome

    def finished(self) -> None:
        """Nobody reads it any longer. What was committed stays; what was not, and is not on its way, is freed."""
        self._closed = True
        if not self._full:
            # Nothing waits, nothing is pinned, nothing is in blobs.
            self._parts = []
            return
        self._index, self._chunk = -1, b""
        self._shared.budget.forget(self)
        self._give_up_held_back()
        self._go_on()
        self._close()

    abandon = finished

    # The store's side

    def drained(self) -> None:
        """There may be room for more."""
        if self._congested and not self.congested and self._reader is not None:
            self._reader.wake()

    def _append(self, data: bytes) -> None:
        if not data:
            return
        parts = self._parts
        if parts and len(parts[-1]) < _PART:
            parts[-1] += data
        else:
            parts.append(data)
        self._tail += len(data)

    def _cut(self, parts: Sequence[bytes | memoryview]) -> None:
        """The next full chunk."""
        index = self._full
        self._full += 1
        self._chunks[index] = sealed(parts, layout.seed(self.content_id, index))
        if self.failed is not None:
            return
        self._pending += 1
        self._shared.budget.take(CHUNK)
        if self._orphan is _Orphan.THERE:
            self._put(index)
            return
        self._held_back.append(index)
        if self._orphan is _Orphan.NONE:
            self._ask_for_orphan()

    def _ask_for_orphan(self) -> None:
        shared = self._shared
        if shared.pins.full_small or shared.pins.full_blobs:
            self._fail(StoreFull("small" if shared.pins.full_small else "blobs", "above its share"))
            return
        self._orphan = _Orphan.ASKED
        content_id, spawn = self.content_id, shared.spawn
        shared.small.submit(64, lambda txn: txn.add_orphan(content_id, spawn), self._orphan_told)

    def _orphan_told(self, result: Outcome) -> None:
        if isinstance(result, StoreFull):
            self._orphan = _Orphan.NONE
            self._fail(result)
        else:
            self._orphan = _Orphan.THERE
            # One by one: if blobs refuses the first at once, the others are given up on the way.
            while self._held_back:
                self._put(self._held_back.pop(0))
        self._close()

    def _put(self, index: int) -> None:
        value, content_id = self._chunks[index], self.content_id

        def apply(txn: BlobsTransaction) -> bool:
            # Read in the writer's thread; what is given up in between is freed by its orphan row.
            return not self._closed and txn.put(content_id, index, value)

        def told(result: Outcome) -> None:
            self._pending -= 1
            self._shared.budget.give(CHUNK)
            if isinstance(result, StoreFull):
                self._fail(result)
            elif result:
                self._chunks.pop(index, None)
            self.drained()
            self._go_on()
            self._close()

        self._shared.blobs.submit(len(value), apply, told)

    def _fail(self, failure: StoreFull) -> None:
        if self.failed is not None:
            return
        self.failed = failure
        self._congested = False
        self._give_up_held_back()
        self._go_on()
        if self._reader is not None:
            self._reader.wake()

    def _give_up_held_back(self) -> None:
        held_back, self._held_back = self._held_back, []
        self._pending -= len(held_back)
        self._shared.budget.give(CHUNK * len(held_back))

    def _go_on(self) -> None:
        """Commit what waits for it, if it has nothing more to wait for."""
        proceed = self._proceed
        if proceed is not None and (not self._pending or self.failed is not None or self._closed):
            self._proceed = None
            proceed()

    def _close(self) -> None:
        """See Note [life of content] 4."""
        if not self._closed or self._committing:
            return
        slot, self._slot = self._slot, None
        if slot is not None:
            self._shared.pins.unpin(slot)
        self._chunks.clear()
        self._parts = []
        if not self._pending and self._orphan is _Orphan.THERE:
            self._orphan = _Orphan.NONE
            content_id, chunks = self.content_id, self._full
            self._shared.small.submit(64, lambda txn: txn.release_orphan(content_id, chunks), _ignore)

    def _from_parts(self, offset: int, limit: int) -> bytes:
        for part in self._parts:
            if offset < len(part):
                return part if not offset and len(part) <= limit else part[offset : offset + limit]
            offset -= len(part)
        return b""

    def _in_blobs(self, index: int, limit: int) -> int:
        """:return: how many chunks from ``index`` on can be read there at once."""
        count = 1
        while (count + 1) * CHUNK <= limit and index + count < self._full and index + count not in self._chunks:
            count += 1
        return count


def _ignore(result: Any) -> None:
    """A row that could not be changed names this worker's life: it is freed when that is over."""
