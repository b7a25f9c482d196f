"""Content on its way into the store, readable from octet 0 while it grows."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.store import layout
from edgecache.store.committing import LARGE_GROUP_OCTETS, Outcome
from edgecache.store.held import BlobsTransaction, Held
from edgecache.store.layout import CHUNK
from edgecache.store.small import Primary
from edgecache.words.errors import StoreFull
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
UNCOMMITTED = 2 * LARGE_GROUP_OCTETS
"""Octets of one fill that wait for blobs; above, its upstream should pause."""

# IntFlag's operators cost a microsecond each.
_IN_BLOBS = int(Flag.IN_BLOBS)

# Chunks of one operation: enough that handing it over costs little, few enough that groups stay groups.
_TOGETHER = 16


class _Orphan(enum.Enum):
    """The orphan row of this content, as far as we know."""

    NONE = "none"
    ASKED = "asked"
    THERE = "there"


@define(eq=False, repr=False)
class ContentWriter(Held):
    """
    The content of one fill.

    One :meth:`write` after the other, then :meth:`commit` unless it came to nothing, then :meth:`finished` or
    :meth:`abandon` when nobody reads it any longer.

    :ivar failed: the store does not take it. What came stays readable, but for what :meth:`discard` drops.
    """

    failed: StoreFull | None = None
    # Chunks on their way to blobs, and which of them wait for the orphan row.
    _pending: int = 0
    _held_back: list[int] = field(factory=list)
    _orphan: _Orphan = _Orphan.NONE
    _congested: bool = False
    _reader: Reader | None = None
    # The commit that waits for chunks; one is under way; where the record is.
    _proceed: Callable[[], None] | None = None
    _committing: bool = False
    _slot: int | None = None
    _closed: bool = False

    # The network's side

    def write(self, data: bytes) -> None:
        """More content."""
        if self._closed:
            return
        self.written += len(data)
        if self._growing is None and self._octets + len(data) < CHUNK:
            self._append(data)
            return
        self._cut(self._grown().put(data))

    def room(self, octets: int) -> list[memoryview]:
        """
        :return: memory for the next octets, at most so many: whoever writes there says so by :meth:`filled`, before
            anything else happens. Empty where they are too few, or none are wanted.
        """
        return [] if self._closed else self._grown().room(octets)

    def filled(self, octets: int) -> None:
        """So many octets of content were written into :meth:`room`."""
        if self._closed or self._growing is None:
            return
        self.written += octets
        self._cut(self._growing.take(octets))

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

    # The clients' side (reading is Held's)

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
            (see :attr:`failed`), there is a newer record, or a higher serial is known. Then all stays
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
            growing = self._growing
            parts: Sequence[bytes | memoryview] = self._parts if growing is None else [growing.view()]
            self._shared.small.submit(
                self.written - self._full * CHUNK + len(stored.head) + len(stored.key),
                lambda txn: txn.store(key_hash, stored, parts, primary, serial),
                told,
                grows=True,
            )

        self._proceed = proceed
        self._go_on()
        return outcome

    def finished(self) -> None:
        """Nobody reads it any longer. What was committed stays; what was not, and is not on its way, is freed."""
        self._closed = True
        if not self._full:
            # Nothing waits, nothing is pinned, nothing is in blobs.
            self._parts, self._growing = [], None
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

    def _cut(self, values: list[bytearray]) -> None:
        """The next full chunks."""
        if not values:
            return
        first = self._full
        self._full += len(values)
        indices = list(range(first, self._full))
        self._chunks.update(zip(indices, values, strict=True))
        if self.failed is not None:
            return
        self._pending += len(values)
        self._shared.budget.take(CHUNK * len(values))
        self._held_back += indices
        if self._orphan is _Orphan.THERE:
            self._put()
        elif self._orphan is _Orphan.NONE:
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
            self._put()
        self._close()

    def _put(self) -> None:
        """What was held back goes to blobs. If that refuses some at once, the others are given up on the way."""
        while self._held_back:
            indices = self._held_back[:_TOGETHER]
            del self._held_back[:_TOGETHER]
            self._put_together(indices)

    def _put_together(self, indices: list[int]) -> None:
        content_id = self.content_id
        values = [self._chunks[index] for index in indices]

        def apply(txn: BlobsTransaction) -> bool:
            # Read in the writer's thread; what is given up in between is freed by its orphan row.
            return not self._closed and txn.put(content_id, indices, values)

        def told(result: Outcome) -> None:
            self._pending -= len(indices)
            self._shared.budget.give(CHUNK * len(indices))
            if isinstance(result, StoreFull):
                self._fail(result)
            elif result:
                for index in indices:
                    self._chunks.pop(index, None)
                for value in values:
                    self._shared.spares.give(value)
            self.drained()
            self._go_on()
            self._close()

        self._shared.blobs.submit(layout.CHUNK_VALUE * len(indices), apply, told, grows=True)

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
        self._parts, self._growing = [], None
        if not self._pending and self._orphan is _Orphan.THERE:
            self._orphan = _Orphan.NONE
            content_id, chunks = self.content_id, self._full
            self._shared.small.submit(64, lambda txn: txn.release_orphan(content_id, chunks), _ignore)


def _ignore(result: Any) -> None:
    """A row that could not be changed names this worker's life: it is freed when that is over."""
