"""
The node process's side of the mapped page: it alone writes what all workers see, and makes the file anew at each start.

The notes are in :mod:`edgecache.store.page`.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

from attrs import define, field

from edgecache.store.pagelayout import (
    ADDRESSES_AT,
    BEAT_AT,
    BLOCK,
    BLOCKS_AT,
    DRAINING_AT,
    EPOCH_AT,
    FENCED,
    FOLLOWED,
    FOLLOWED_AT,
    FRESH_UNTIL_AT,
    FULL_BLOBS_AT,
    FULL_SMALL_AT,
    HEADER,
    MAGIC,
    PER_PLACE,
    PINS,
    PINS_AT,
    SLOT,
    TRIMMED_AT,
)
from edgecache.words.counters import SLOTS, Counter
from edgecache.words.errors import StartError

_GAUGES = frozenset((Counter.CONNECTIONS_OPEN, Counter.FILLS_RUNNING))
_NO_PINS = bytes(2 * PINS * SLOT)


@define(eq=False, repr=False)
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
        slots = HEADER + addresses + PER_PLACE * workers * BLOCK
        unfinished = f"{path}.new"
        # Nobody uses the one of the last life, whose room a full disk has for this one.
        for old in (path, unfinished):
            Path(old).unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Blocks are allocated now: a full disk must show here, not as SIGBUS on a hit.
            os.posix_fallocate(descriptor, 0, slots * SLOT)
            mapped = mmap.mmap(descriptor, slots * SLOT)
        except OSError as error:
            Path(unfinished).unlink(missing_ok=True)
            raise StartError(f"cannot make {path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        octets = memoryview(mapped)
        page = cls(path, workers, addresses, mapped, octets.cast("q"), octets.cast("d"), octets)
        page._slots[BLOCKS_AT] = page.blocks
        page._slots[ADDRESSES_AT] = addresses
        page._floats[FRESH_UNTIL_AT] = FENCED
        page._slots[0] = MAGIC
        os.replace(unfinished, path)
        return page

    def publish_epoch(self, epoch: int) -> None:
        """``epoch`` is committed in control. See Note [order of the page]."""
        self._slots[EPOCH_AT] = epoch

    def publish_fresh_until(self, fresh_until: float) -> None:
        """:param fresh_until: end of the lease in CLOCK_BOOTTIME seconds; :data:`FREE` without siblings."""
        self._lease = fresh_until
        self._floats[FRESH_UNTIL_AT] = FENCED if self._held else fresh_until

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
        self._floats[FOLLOWED_AT + site] = until

    def publish_trimmed(self, trimmed: int) -> None:
        """Records with a floor below ``trimmed`` are to be validated: control has forgotten what came after."""
        self._slots[TRIMMED_AT] = trimmed

    def set_draining(self, draining: bool) -> None:
        """Workers finish what they have and accept nothing new."""
        self._slots[DRAINING_AT] = draining

    def set_full(self, small: bool, blobs: bool) -> None:
        """Which environments take nothing new for now."""
        self._slots[FULL_SMALL_AT] = small
        self._slots[FULL_BLOBS_AT] = blobs

    def set_health(self, slot: int, health: int) -> None:
        """:raises IndexError: for a slot that is not there."""
        self._slots[self._health(slot)] = health

    def health(self, slot: int) -> int:
        """:return: what was last set, 0 at first."""
        return self._slots[self._health(slot)]

    @property
    def epoch(self) -> int:
        """The published epoch."""
        return self._slots[EPOCH_AT]

    @property
    def trimmed(self) -> int:
        """The published floor of control's table."""
        return self._slots[TRIMMED_AT]

    @property
    def fresh_until(self) -> float:
        """The published end of the lease."""
        return self._floats[FRESH_UNTIL_AT]

    @property
    def draining(self) -> bool:
        """What :meth:`set_draining` was told last."""
        return bool(self._slots[DRAINING_AT])

    @property
    def full(self) -> tuple[bool, bool]:
        """What :meth:`set_full` was told last: small, blobs."""
        return bool(self._slots[FULL_SMALL_AT]), bool(self._slots[FULL_BLOBS_AT])

    def pins(self) -> set[bytes]:
        """:return: content ids that some worker is sending. See Note [pins]."""
        with threading.Lock():
            found: set[bytes] = set()
        for block in range(self.blocks):
            start = (self._block(block) + PINS_AT) * SLOT
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
        return self._floats[self._block(block) + BEAT_AT]

    def clear(self, block: int) -> None:
        """The worker of this block is dead: forget its pins, keep what it counted, except what was open."""
        counted = self._counted(block)
        start = self._block(block)
        self._octets[start * SLOT : (start + BLOCK) * SLOT] = bytes(BLOCK * SLOT)
        self._retired[block] = [0 if slot in _GAUGES else count for slot, count in enumerate(counted)]

    def close(self) -> None:
        """Fence whoever still has the page mapped, and unmap it."""
        self._floats[FRESH_UNTIL_AT] = FENCED
        for site in range(FOLLOWED):
            self.publish_followed(site, 0.0)
        for view in (self._slots, self._floats, self._octets):
            view.release()
        self._map.close()

    def _health(self, slot: int) -> int:
        if not 0 <= slot < self.addresses:
            raise IndexError(slot)
        return HEADER + slot

    def _counted(self, block: int) -> list[int]:
        start = self._block(block)
        present = self._slots[start : start + SLOTS].tolist()
        return [was + now for was, now in zip(self._retired[block], present, strict=True)]

    def _block(self, block: int) -> int:
        if not 0 <= block < self.blocks:
            raise IndexError(block)
        return HEADER + self.addresses + block * BLOCK
