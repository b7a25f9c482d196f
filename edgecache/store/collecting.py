"""
Keeping the store within its size: freeing what nobody has any more, evicting the oldest (DESIGN 7).

The node process does this, in a thread of its own, in transactions short enough for
fills to go on between them.
"""

# Note [who may be reading]
#
# Content in blobs is freed in this order: its orphan row is committed (by whoever
# removed the record), then the row is read here, then which spawns are alive, then the
# pins. A worker pins before its second look-up, so it either finds no record or is seen
# here. A spawn that is alive when asked *after* the row was read has not finished it; asked
# before, a new worker's first fill would look like a dead one's.
# Chunks go first and the row last: a crash in between only makes the work be done again.

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import lmdb
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.store import layout
from edgecache.store.environments import DAMAGE, Environment, Environments
from edgecache.store.threads import InThread
from edgecache.words.config import StoreSettings
from edgecache.words.errors import StoreFull
from edgecache.words.ports import Timer, Timers

_log = Logger()

BATCH = 64
"""Records that one transaction evicts, contents that one turn frees."""

_CHUNKS_PER_COMMIT = 256
_EXAMINED = 5_000
_READER_CHECK_SECONDS = 60.0
_IDLE_SECONDS = 0.2
_AFTER_FAILURE_SECONDS = 5.0
# What a record takes besides content: itself, its rows, half-empty pages.
_RECORD_OCTETS = 1024


class CollectorPage(Protocol):
    """What the collector needs of :class:`~edgecache.store.page.PageWriter`."""

    def pins(self) -> set[bytes]: ...
    def set_full(self, small: bool, blobs: bool) -> None: ...


@frozen
class Fill:
    """
    How full one environment is.

    :ivar used: octets of pages that hold something.
    :ivar size: octets of the map.
    :ivar entries: of each database.
    :ivar full: nothing new is stored in it now.
    """

    name: str
    used: int
    size: int
    entries: dict[str, int]
    full: bool

    @property
    def share(self) -> float:
        """Of the map."""
        return self.used / self.size


@define(eq=False)
class Collected:
    """What was done since the start; only grows."""

    evicted_records: int = 0
    evicted_octets: int = 0
    freed_contents: int = 0
    freed_octets: int = 0
    failures: int = 0


@frozen
class _Orphan:
    content_id: bytes
    octets: int


@frozen
class _Queued:
    sequence: int
    key_hash: bytes
    content_id: bytes
    size: int
    in_blobs: bool


@define(eq=False)
class Collector:
    """
    Holds both environments below ``evict_share`` of their maps.

    :ivar collected: counts, for metrics.
    """

    _environments: Environments
    _page: CollectorPage
    _settings: StoreSettings
    _spawns: Callable[[], set[int]]
    _timers: Timers
    _in_thread: InThread
    collected: Collected = field(factory=Collected)
    _full: dict[str, bool] = field(factory=lambda: {"small": False, "blobs": False})
    # Every row of content in blobs with a lower sequence is gone already.
    _blobs_from: int = 0
    _checked_readers: float = 0.0
    _timer: Timer | None = None
    _turning: bool = False
    _stopped: bool = True
    _idle: list[Deferred[None]] = field(factory=list)

    def start(self) -> None:
        """Turn at once, and go on until :meth:`stop`."""
        self._stopped = False
        self._checked_readers = self._timers.seconds()
        self._again()

    def stop(self) -> Deferred[None]:
        """:return: fires when no turn runs; none will."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._turning:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        return done

    def fills(self) -> list[Fill]:
        """:return: how full small and blobs are; costs microseconds."""
        return [_fill(one, self._full[one.name]) for one in (self._environments.small, self._environments.blobs)]

    def turn(self, now: float) -> bool:
        """
        Free and evict one batch.

        :param now: monotonic seconds.
        :return: there is more to do.
        :raises StoreFull: an environment could not be written; both are marked full meanwhile.
        """
        try:
            if now - self._checked_readers >= _READER_CHECK_SECONDS:
                self._checked_readers = now
                self._environments.reader_check()
            freed, held = self._free()
            evicted = self._evict(held)
        except (lmdb.Error, struct.error) as error:
            self.collected.failures += 1
            self._mark(True, True)
            raise StoreFull("collector", str(error)) from error
        return freed or evicted

    def _again(self) -> None:
        self._timer = None
        self._turning = True
        _ = self._in_thread(self.turn, self._timers.seconds()).addCallbacks(self._turned, self._failed)

    def _turned(self, more: bool) -> None:
        self._next(0.0 if more else _IDLE_SECONDS)

    def _failed(self, failure: Failure) -> None:
        _log.failure("store: making room failed; nothing is stored until it works", failure)
        self._next(_AFTER_FAILURE_SECONDS)

    def _next(self, seconds: float) -> None:
        self._turning = False
        if not self._stopped:
            self._timer = self._timers.callLater(seconds, self._again)
        idle, self._idle = self._idle, []
        for done in idle:
            done.callback(None)

    def _free(self) -> tuple[bool, int]:
        """:return: was anything freed, and octets in blobs that can't be yet."""
        orphans = self._orphans()
        if not orphans:
            return False, 0
        # See Note [who may be reading]: only now.
        pins = self._page.pins()
        free = [orphan for orphan in orphans if orphan.content_id not in pins]
        held = sum(orphan.octets for orphan in orphans if orphan.content_id in pins)
        batch, later = free[:BATCH], free[BATCH:]
        if not batch:
            return False, held
        self._free_chunks([orphan.content_id for orphan in batch])
        with _writing(self._environments.small) as txn:
            for orphan in batch:
                self._delete_all(txn, self._environments.small, layout.CONTENTS, orphan.content_id)
                txn.delete(orphan.content_id, db=self._environments.small.databases[layout.ORPHANS])
        self.collected.freed_contents += len(batch)
        self.collected.freed_octets += sum(orphan.octets for orphan in batch)
        return True, held + sum(orphan.octets for orphan in later)

    def _orphans(self) -> list[_Orphan]:
        """:return: contents that no fill and no record has."""
        small = self._environments.small
        with small.env.begin() as txn, txn.cursor(small.databases[layout.ORPHANS]) as cursor:
            rows = [(bytes(key), *layout.ORPHAN_ROW.unpack(bytes(value))) for key, value in cursor]
        # See Note [who may be reading]: only now.
        alive = self._spawns() if rows else set()
        return [_Orphan(key, octets) for key, spawn, octets in rows if spawn == layout.NOBODY or spawn not in alive]

    def _free_chunks(self, content_ids: list[bytes]) -> None:
        blobs = self._environments.blobs
        pending = content_ids[::-1]
        while pending:
            budget = _CHUNKS_PER_COMMIT
            with _writing(blobs) as txn:
                while pending and budget:
                    deleted = self._delete_all(txn, blobs, layout.CHUNKS, pending[-1], budget)
                    if deleted < budget:
                        pending.pop()
                    budget -= deleted

    def _delete_all(
        self, txn: lmdb.Transaction, environment: Environment, database: bytes, content_id: bytes, most: int = 1 << 32
    ) -> int:
        """Delete a content's chunks or pieces. :return: how many; fewer than ``most``: no more are there."""
        deleted = 0
        with txn.cursor(environment.databases[database]) as cursor:
            found = cursor.set_range(content_id)
            while found and deleted < most and bytes(cursor.key()).startswith(content_id):
                found = cursor.delete()
                deleted += 1
        return deleted

    def _evict(self, held: int) -> bool:
        """:param held: octets in blobs that are as good as gone. :return: was anything evicted?"""
        small, blobs = self.fills()
        too_much_small = small.used - int(small.size * self._settings.evict_share)
        too_much_blobs = blobs.used - held - int(blobs.size * self._settings.evict_share)
        self._mark(
            self._is_full(small, too_much_small > 0),
            self._is_full(blobs, too_much_blobs > 0),
        )
        if too_much_small > 0:
            return self._evict_oldest(too_much_small, only_blobs=False)
        if too_much_blobs > 0:
            return self._evict_oldest(too_much_blobs, only_blobs=True)
        return False

    def _is_full(self, fill: Fill, behind: bool) -> bool:
        """Full from ``full_share`` on, until eviction has caught up."""
        if fill.share >= self._settings.full_share:
            return True
        return fill.full and behind

    def _mark(self, small: bool, blobs: bool) -> None:
        for name, full in (("small", small), ("blobs", blobs)):
            if full != self._full[name]:
                self._full[name] = full
                if full:
                    _log.warn("store: {name} is full; nothing new goes there until there is room", name=name)
                else:
                    _log.info("store: {name} has room again", name=name)
        self._page.set_full(small, blobs)

    def _evict_oldest(self, octets: int, *, only_blobs: bool) -> bool:
        """:param octets: how much to evict, about. :return: was anything done, so that a look again pays?"""
        small = self._environments.small
        chosen, examined, reached = self._oldest(octets, only_blobs)
        if chosen:
            with _writing(small) as txn:
                for queued in chosen:
                    self._evict_one(txn, queued)
        if only_blobs:
            self._blobs_from = reached
        return bool(chosen) or examined >= _EXAMINED

    def _oldest(self, octets: int, only_blobs: bool) -> tuple[list[_Queued], int, int]:
        """:return: what to evict, how many rows that took, and the sequence to go on from."""
        small = self._environments.small
        chosen: list[_Queued] = []
        examined = 0
        reached = self._blobs_from if only_blobs else 0
        with small.env.begin() as txn, txn.cursor(small.databases[layout.QUEUE]) as cursor:
            found = cursor.set_range(layout.U64_KEY.pack(reached))
            while found and octets > 0 and len(chosen) < BATCH and examined < _EXAMINED:
                queued = _queued(bytes(cursor.key()), bytes(cursor.value()))
                examined += 1
                reached = queued.sequence + 1
                if queued.in_blobs or not only_blobs:
                    chosen.append(queued)
                    octets -= _weight(queued, only_blobs)
                found = cursor.next()
        return chosen, examined, reached

    def _evict_one(self, txn: lmdb.Transaction, queued: _Queued) -> None:
        """The record goes, and with it its pieces, or, of content in blobs, an orphan row comes."""
        databases = self._environments.small.databases
        # Replaced since we looked: then its row is gone too, and its content another's business.
        if not txn.delete(layout.U64_KEY.pack(queued.sequence), db=databases[layout.QUEUE]):
            return
        record = txn.get(queued.key_hash, db=databases[layout.RECORDS])
        # Otherwise see layout's Note [one row per record].
        if record is not None and _is_its(record, queued.sequence):
            txn.delete(queued.key_hash, db=databases[layout.RECORDS])
        if queued.in_blobs:
            row = layout.ORPHAN_ROW.pack(layout.NOBODY, layout.chunks_of(queued.size) * layout.CHUNK)
            txn.put(queued.content_id, row, db=databases[layout.ORPHANS])
        elif queued.content_id != layout.NO_CONTENT:
            self._delete_all(txn, self._environments.small, layout.CONTENTS, queued.content_id)
        self.collected.evicted_records += 1
        self.collected.evicted_octets += queued.size


def _queued(key: bytes, value: bytes) -> _Queued:
    key_hash, content_id, size, flags = layout.QUEUE_ROW.unpack(value)
    return _Queued(layout.U64_KEY.unpack(key)[0], key_hash, content_id, size, bool(flags & layout.ROW_IN_BLOBS))


def _is_its(record: bytes | memoryview, sequence: int) -> bool:
    """:return: does the record belong to the row of ``sequence``? One that nobody can read does."""
    return len(record) < layout.RECORD_PREFIX.size or layout.sequence_of(record) == sequence


def _weight(queued: _Queued, in_blobs: bool) -> int:
    """:return: octets that evicting it gives back, about."""
    if in_blobs:
        return layout.chunks_of(queued.size) * layout.CHUNK_VALUE
    return _RECORD_OCTETS + queued.size % layout.CHUNK


def _fill(environment: Environment, full: bool) -> Fill:
    with environment.env.begin() as txn:
        stats = {name.decode(): txn.stat(database) for name, database in environment.databases.items()}
    pages = sum(one[kind] for one in stats.values() for kind in ("branch_pages", "leaf_pages", "overflow_pages"))
    return Fill(
        environment.name,
        pages * layout.PAGE,
        environment.env.info()["map_size"],
        {name: one["entries"] for name, one in stats.items()},
        full,
    )


@contextmanager
def _writing(environment: Environment) -> Iterator[lmdb.Transaction]:
    """A write transaction, during which nobody in this process moves the map."""
    with environment.writing:
        try:
            with environment.env.begin(write=True) as txn:
                yield txn
        except DAMAGE as error:
            environment.condemn(str(error))
            raise
