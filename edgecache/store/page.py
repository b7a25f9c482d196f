"""
The mapped page: what every hit must see, and what every worker tells (DESIGN 4).

The node process makes the file anew at each start and alone writes its common
part; each worker alone writes its own block (counters, pins, heartbeat).
Everything is one aligned 8-byte slot, read and written in one access, so
neither side locks anything.

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
from pathlib import Path

from attrs import define, field

from edgecache.words.counters import SLOTS, Counter
from edgecache.words.errors import StartError

MAGIC = 0x6567_6361_6368_6503
"""First slot; its last octet is the version of the layout."""

PINS = 4096
"""Contents that one worker can pin at a time."""

FENCED = float("-inf")
"""A lease that has never been valid."""

FREE = float("inf")
"""A lease that does not end: the node has no siblings."""

PER_PLACE = 2
"""Blocks of one worker's place: block ``index`` and block ``index + workers`` are those of worker ``index``."""

FOLLOWED = 32
"""Sites, the first so many configured, whose project list can be followed."""

_SLOT = 8
_HEADER = 64
_BLOCKS, _ADDRESSES = 1, 2
_EPOCH, _TRIMMED, _DRAINING, _FULL_SMALL, _FULL_BLOBS = 8, 9, 10, 11, 12
_FRESH_UNTIL = 16
_FOLLOWED = 24

_BEAT = SLOTS
_PINS = SLOTS + 8
_BLOCK = _PINS + 2 * PINS

_GAUGES = frozenset((Counter.CONNECTIONS_OPEN, Counter.FILLS_RUNNING))
_ID = struct.Struct("=qq")
_NO_PINS = bytes(2 * PINS * _SLOT)


@define(eq=False)
class PageWriter:
    """
    The node process's side of the page.

    :ivar path: of the file; workers open it by this name.
    :ivar workers: number of places.
    :ivar addresses: number of health slots.
    """

    path: str
    workers: int
    addresses: int
    _map: mmap.mmap
    _slots: memoryview
    _floats: memoryview[float]
    _octets: memoryview
    _lease: float = FENCED
    _held: bool = False
    _retired: list[list[int]] = field(init=False)

    @_retired.default
    def _nothing_yet(self) -> list[list[int]]:
        return [[0] * SLOTS for _ in range(self.blocks)]

    @property
    def blocks(self) -> int:
        """:data:`PER_PLACE` for each place."""
        return PER_PLACE * self.workers

    @classmethod
    def create(cls, path: str, workers: int, addresses: int = 256) -> PageWriter:
        """
        Make the page anew; it replaces whatever has that name. It is fenced, at epoch 0.

        :param workers: places, at least one (``--workers 0`` uses one as well).
        """
        workers = max(1, workers)
        slots = _HEADER + addresses + PER_PLACE * workers * _BLOCK
        unfinished = f"{path}.new"
        Path(unfinished).unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Blocks are allocated now: a full disk must show here, not as SIGBUS on a hit.
            os.posix_fallocate(descriptor, 0, slots * _SLOT)
            mapped = mmap.mmap(descriptor, slots * _SLOT)
        except OSError as error:
            Path(unfinished).unlink(missing_ok=True)
            raise StartError(f"cannot make {path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        octets = memoryview(mapped)
        page = cls(path, workers, addresses, mapped, octets.cast("q"), octets.cast("d"), octets)
        page._slots[_BLOCKS] = page.blocks
        page._slots[_ADDRESSES] = addresses
        page._floats[_FRESH_UNTIL] = FENCED
        page._slots[0] = MAGIC
        os.replace(unfinished, path)
        return page

    def publish_epoch(self, epoch: int) -> None:
        """``epoch`` is committed in control. See Note [order of the page]."""
        self._slots[_EPOCH] = epoch

    def publish_fresh_until(self, fresh_until: float) -> None:
        """:param fresh_until: end of the lease in CLOCK_BOOTTIME seconds; :data:`FREE` without siblings."""
        self._lease = fresh_until
        self._floats[_FRESH_UNTIL] = FENCED if self._held else fresh_until

    def hold(self, held: bool) -> None:
        """:param held: whatever the lease says, nothing is to be served as fresh."""
        self._held = held
        self.publish_fresh_until(self._lease)

    def publish_followed(self, site: int, until: float) -> None:
        """
        What changed at the origin of a site is invalidated here, but for the last so many seconds before ``until``.

        :param site: its place in the configuration, below :data:`FOLLOWED`.
        :param until: CLOCK_BOOTTIME seconds; 0.0 takes it back.
        """
        if not 0 <= site < FOLLOWED:
            raise IndexError(site)
        self._floats[_FOLLOWED + site] = until

    def publish_trimmed(self, trimmed: int) -> None:
        """Records with a floor below ``trimmed`` are to be validated: control has forgotten what came after."""
        self._slots[_TRIMMED] = trimmed

    def set_draining(self, draining: bool) -> None:
        """Workers finish what they have and accept nothing new."""
        self._slots[_DRAINING] = draining

    def set_full(self, small: bool, blobs: bool) -> None:
        """Which environments take nothing new for now."""
        self._slots[_FULL_SMALL] = small
        self._slots[_FULL_BLOBS] = blobs

    def set_health(self, slot: int, health: int) -> None:
        """:raises IndexError: for a slot that is not there."""
        self._slots[self._health(slot)] = health

    def health(self, slot: int) -> int:
        """:return: what was last set, 0 at first."""
        return self._slots[self._health(slot)]

    @property
    def epoch(self) -> int:
        """The published epoch."""
        return self._slots[_EPOCH]

    @property
    def trimmed(self) -> int:
        """The published floor of control's table."""
        return self._slots[_TRIMMED]

    @property
    def fresh_until(self) -> float:
        """The published end of the lease."""
        return self._floats[_FRESH_UNTIL]

    @property
    def draining(self) -> bool:
        """What :meth:`set_draining` was told last."""
        return bool(self._slots[_DRAINING])

    @property
    def full(self) -> tuple[bool, bool]:
        """What :meth:`set_full` was told last: small, blobs."""
        return bool(self._slots[_FULL_SMALL]), bool(self._slots[_FULL_BLOBS])

    def pins(self) -> set[bytes]:
        """:return: content ids that some worker is sending. See Note [pins]."""
        with threading.Lock():
            found: set[bytes] = set()
        for block in range(self.blocks):
            start = (self._block(block) + _PINS) * _SLOT
            pinned = bytes(self._octets[start : start + len(_NO_PINS)])
            if pinned != _NO_PINS:
                found.update(pinned[at : at + 16] for at in range(0, len(pinned), 16))
        found.discard(bytes(16))
        return found

    def counters(self, worker: int) -> list[int]:
        """:return: :data:`~edgecache.words.counters.SLOTS` numbers; those of its dead predecessors count."""
        if not 0 <= worker < self.workers:
            raise IndexError(worker)
        blocks = map(self._counted, range(worker, self.blocks, self.workers))
        return [sum(column) for column in zip(*blocks, strict=True)]

    def totals(self) -> list[int]:
        """:return: :meth:`counters` of all workers, added up."""
        return [sum(column) for column in zip(*map(self.counters, range(self.workers)), strict=True)]

    def beat(self, block: int) -> float:
        """:return: when the worker of this block last said that it is alive, on its clock; 0.0 before that."""
        return self._floats[self._block(block) + _BEAT]

    def clear(self, block: int) -> None:
        """The worker of this block is dead: forget its pins, keep what it counted, except what was open."""
        counted = self._counted(block)
        start = self._block(block)
        self._octets[start * _SLOT : (start + _BLOCK) * _SLOT] = bytes(_BLOCK * _SLOT)
        self._retired[block] = [0 if slot in _GAUGES else count for slot, count in enumerate(counted)]

    def close(self) -> None:
        """Fence whoever still has the page mapped, and unmap it."""
        self._floats[_FRESH_UNTIL] = FENCED
        for site in range(FOLLOWED):
            self.publish_followed(site, 0.0)
        for view in (self._slots, self._floats, self._octets):
            view.release()
        self._map.close()

    def _health(self, slot: int) -> int:
        if not 0 <= slot < self.addresses:
            raise IndexError(slot)
        return _HEADER + slot

    def _counted(self, block: int) -> list[int]:
        start = self._block(block)
        present = self._slots[start : start + SLOTS].tolist()
        return [was + now for was, now in zip(self._retired[block], present, strict=True)]

    def _block(self, block: int) -> int:
        if not 0 <= block < self.blocks:
            raise IndexError(block)
        return _HEADER + self.addresses + block * _BLOCK


@define(eq=False)
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
            if len(octets) < _HEADER * _SLOT or len(octets) % _SLOT or octets[:_SLOT].cast("q")[0] != MAGIC:
                raise StartError(f"{path} is no page of this release")
            slots, floats = octets.cast("q"), octets.cast("d")
        blocks, addresses = slots[_BLOCKS], slots[_ADDRESSES]
        if not 0 <= block < blocks or len(slots) != _HEADER + addresses + blocks * _BLOCK:
            raise StartError(f"{path} has no block {block}")
        start = _HEADER + addresses + block * _BLOCK
        own = slots[start : start + _BLOCK]
        return cls(block, mapped, slots, floats, slots[_HEADER : _HEADER + addresses], own, floats[start + _BEAT :])

    @property
    def epoch(self) -> int:
        """The last published epoch. See Note [order of the page]."""
        return self._slots[_EPOCH]

    @property
    def fresh_until(self) -> float:
        """End of the lease in CLOCK_BOOTTIME seconds; infinite without siblings."""
        return self._floats[_FRESH_UNTIL]

    def followed_until(self, site: int) -> float:
        """
        To be read before the epoch, as the lease.

        :param site: its place in the configuration, below :data:`FOLLOWED`.
        :return: CLOCK_BOOTTIME seconds until which its project list is followed as promised; 0.0: it is not.
        """
        return self._floats[_FOLLOWED + site]

    def lease(self) -> tuple[float, int]:
        """:return: ``fresh_until``, then ``epoch``, read in this order."""
        return self._floats[_FRESH_UNTIL], self._slots[_EPOCH]

    @property
    def trimmed(self) -> int:
        """A record whose floor is below this is to be validated."""
        return self._slots[_TRIMMED]

    @property
    def draining(self) -> bool:
        """The node is going down."""
        return self._slots[_DRAINING] != 0

    @property
    def full_small(self) -> bool:
        """The small environment takes nothing new."""
        return self._slots[_FULL_SMALL] != 0

    @property
    def full_blobs(self) -> bool:
        """The blobs environment takes nothing new."""
        return self._slots[_FULL_BLOBS] != 0

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
            at = _PINS + 2 * slot
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
        at = _PINS + 2 * slot
        self._own[at] = self._own[at + 1] = 0
        self._unused.append(slot)

    def close(self) -> None:
        """Unmap; its block stays for the node process to read."""
        for view in (self._beat, self._own, self._health, self._floats, self._slots):
            view.release()
        self._map.close()
