"""
The mapped page: what every hit must see, and what every worker tells (DESIGN 4). This is a worker's side of it.

The node process makes the file anew at each start and alone writes its common part (:mod:`edgecache.store.pagewriter`);
each worker alone writes its own block (counters, pins, heartbeat).

Each worker's place has two blocks: while a worker is being replaced, two
processes are there, the one that goes and the one that has come.
"""

# Note [order of the page]
#
# Writer: commit control, publish the epoch, then fresh_until, then acknowledge.
# Reader: fresh_until, then the epoch, then renew control's read transaction. The
# other order could pair an old epoch with a new lease, and serve what was purged.
#
# Note [pins]
#
# A worker pins a content id, *then* looks its record up again. The node process
# commits the record's removal, *then* reads the pins. Either the worker's second
# look-up misses, or its pin is seen. An id takes two slots; one that is seen half
# written belongs to a look-up that has not begun. Each side does "store, then load
# something else", so the store must have left the processor's buffer before the load: a
# lock taken and released in between does that (an atomic instruction on every platform).

from __future__ import annotations

import mmap
import os
import struct
import threading

from attrs import define, field

from edgecache.store.pagelayout import (
    ADDRESSES_AT,
    BEAT_AT,
    BLOCK,
    BLOCKS_AT,
    DRAINING_AT,
    EPOCH_AT,
    FOLLOWED_AT,
    FRESH_UNTIL_AT,
    FULL_BLOBS_AT,
    FULL_SMALL_AT,
    HEADER,
    MAGIC,
    PINS,
    PINS_AT,
    SLOT,
    TRIMMED_AT,
)
from edgecache.words.errors import StartError

_ID = struct.Struct("=qq")


@define(eq=False, repr=False)
class Page:
    """
    A worker's side of the page: it reads the common part and writes its own block.

    Used by one thread.

    :ivar block: the worker's own.
    """

    block: int
    _map: mmap.mmap
    _slots: memoryview
    _floats: memoryview[float]
    _health: memoryview
    _own: memoryview
    _beat: memoryview[float]
    _slot_of: dict[bytes, int] = field(factory=dict)
    _pinned: dict[int, tuple[bytes, int]] = field(factory=dict)
    _unused: list[int] = field(factory=lambda: list(range(PINS - 1, -1, -1)))
    _fence: threading.Lock = field(factory=threading.Lock)

    @classmethod
    def open(cls, path: str, block: int) -> Page:
        """
        Map the page at ``path``.

        :raises StartError: when there is none, it is of another layout, or has no such block.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                mapped = mmap.mmap(descriptor, 0)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise StartError(f"cannot map {path}: {error}") from error
        with memoryview(mapped) as octets:
            if len(octets) < HEADER * SLOT or len(octets) % SLOT or octets[:SLOT].cast("q")[0] != MAGIC:
                raise StartError(f"{path} is no page of this release")
            slots, floats = octets.cast("q"), octets.cast("d")
        blocks, addresses = slots[BLOCKS_AT], slots[ADDRESSES_AT]
        if not 0 <= block < blocks or len(slots) != HEADER + addresses + blocks * BLOCK:
            raise StartError(f"{path} has no block {block}")
        start = HEADER + addresses + block * BLOCK
        own = slots[start : start + BLOCK]
        return cls(block, mapped, slots, floats, slots[HEADER : HEADER + addresses], own, floats[start + BEAT_AT :])

    @property
    def epoch(self) -> int:
        """The last published epoch. See Note [order of the page]."""
        return self._slots[EPOCH_AT]

    @property
    def fresh_until(self) -> float:
        """End of the lease in CLOCK_BOOTTIME seconds; infinite without siblings."""
        return self._floats[FRESH_UNTIL_AT]

    def followed_until(self, site: int) -> float:
        """
        To be read before the epoch, as the lease.

        :param site: its place in the configuration, below :data:`FOLLOWED`.
        :return: CLOCK_BOOTTIME seconds until which its project list is followed as promised; 0.0: it is not.
        """
        return self._floats[FOLLOWED_AT + site]

    def lease(self) -> tuple[float, int]:
        """:return: ``fresh_until``, then ``epoch``, read in this order."""
        return self._floats[FRESH_UNTIL_AT], self._slots[EPOCH_AT]

    @property
    def trimmed(self) -> int:
        """A record whose floor is below this is to be validated."""
        return self._slots[TRIMMED_AT]

    @property
    def draining(self) -> bool:
        """The node is going down."""
        return self._slots[DRAINING_AT] != 0

    @property
    def full_small(self) -> bool:
        """The small environment takes nothing new."""
        return self._slots[FULL_SMALL_AT] != 0

    @property
    def full_blobs(self) -> bool:
        """The blobs environment takes nothing new."""
        return self._slots[FULL_BLOBS_AT] != 0

    def health(self, slot: int) -> int:
        """:return: what the node process published for the address in ``slot``, 0 at first."""
        return self._health[slot]

    def add(self, counter: int, n: int = 1) -> None:
        """Count ``n`` more; only gauges take a negative one."""
        self._own[counter] += n

    def get(self, counter: int) -> int:
        """:return: this worker's own count since it started."""
        return self._own[counter]

    def beat(self, now: float) -> None:
        """Say that this worker's loop turns. :param now: monotonic seconds that the node process shares."""
        self._beat[0] = now

    def pin(self, content_id: bytes) -> int | None:
        """
        Keep the chunks of ``content_id`` from being freed. Look the record up again after this.

        :return: what :meth:`unpin` takes; ``None`` when everything is pinned already.
        """
        slot = self._slot_of.get(content_id)
        if slot is None:
            if not self._unused:
                return None
            slot = self._slot_of[content_id] = self._unused.pop()
            self._pinned[slot] = (content_id, 1)
            at = PINS_AT + 2 * slot
            self._own[at], self._own[at + 1] = _ID.unpack(content_id)
        else:
            self._pinned[slot] = (content_id, self._pinned[slot][1] + 1)
        with self._fence:  # See Note [pins]
            return slot

    def unpin(self, slot: int) -> None:
        """Undo one :meth:`pin`. :raises KeyError: when ``slot`` is not pinned."""
        content_id, count = self._pinned[slot]
        if count > 1:
            self._pinned[slot] = (content_id, count - 1)
            return
        del self._pinned[slot], self._slot_of[content_id]
        at = PINS_AT + 2 * slot
        self._own[at] = self._own[at + 1] = 0
        self._unused.append(slot)

    def close(self) -> None:
        """Unmap; its block stays for the node process to read."""
        for view in (self._beat, self._own, self._health, self._floats, self._slots):
            view.release()
        self._map.close()
