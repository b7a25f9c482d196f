"""
Keeping the store within its size: freeing what nobody has any more, evicting what is least worth keeping (DESIGN 7).

What that is says :mod:`edgecache.rules.eviction`; the order in which records stand is :mod:`edgecache.store.queues`.

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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import lmdb
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.rules.eviction import Step, plan
from edgecache.store import layout
from edgecache.store.environment import DAMAGE, Environment
from edgecache.store.environments import Environments
from edgecache.store.popularity import slot_of
from edgecache.store.queues import Heads, Queued, Queues, read_standing
from edgecache.store.threads import InThread
from edgecache.words.config import StoreSettings
from edgecache.words.errors import StoreFull
from edgecache.words.ports import Timer, Timers

_log = Logger()

BATCH = 64
"""Records that one transaction evicts or moves, contents that one turn frees."""

_CHUNKS_PER_COMMIT = 256
_READER_CHECK_SECONDS = 60.0
_IDLE_SECONDS = 0.2
_AFTER_FAILURE_SECONDS = 5.0
STUCK_TURNS = 12
"""Turns that may fail for want of a free page, a minute of them: who reads, and stands still, holds pages until he is
killed. Of what is full to its last page (writers stop before that) nothing can be deleted any more."""


class CollectorPage(Protocol):
    """What the collector needs of :class:`~edgecache.store.pagewriter.PageWriter`."""

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


@define(eq=False, repr=False)
class Collected:
    """
    What was done since the start; only grows.

    :ivar moved_records: looked at because there was no room, and kept.
    """

    evicted_records: int = 0
    moved_records: int = 0
    evicted_octets: int = 0
    freed_contents: int = 0
    freed_octets: int = 0
    failures: int = 0


@frozen
class _Orphan:
    content_id: bytes
    octets: int


@define(eq=False, repr=False)
class Collector:
    """
    Holds both environments below ``evict_share`` of their maps.

    :ivar collected: counts, for metrics.
    :ivar damaged: called, again and again, while small or blobs is condemned.
    """

    _environments: Environments
    _page: CollectorPage
    _settings: StoreSettings
    _spawns: Callable[[], set[int]]
    _timers: Timers
    _in_thread: InThread
    collected: Collected = field(factory=Collected)
    damaged: Callable[[], None] = lambda: None
    _full: dict[str, bool] = field(factory=lambda: {"small": False, "blobs": False})
    # From which sequence on records on probation are looked for, those with chunks in blobs and all (Heads.reached).
    _reached: dict[bool, int] = field(factory=lambda: {True: 0, False: 0})
    # Turns in a row that found no page left to write to.
    _stuck: int = 0
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

    def renew(self) -> Deferred[None]:
        """
        Begin with empty environments in place of damaged ones.

        :return: fires when they are there; fails with :class:`~edgecache.words.errors.StartError`.
        """
        return self._in_thread(self._renew)

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
        except Exception as error:
            self.collected.failures += 1
            self._mark(True, True)
            if not isinstance(error, lmdb.Error):
                # A mistake of ours: it says nothing of what is on disk.
                raise
            self._stuck = self._stuck + 1 if isinstance(error, lmdb.MapFullError) else 0
            if isinstance(error, DAMAGE) or self._stuck >= STUCK_TURNS:
                # With blobs: they go together.
                self._environments.small.condemn(str(error))
            raise StoreFull("collector", str(error)) from error
        self._stuck = 0
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

    def _renew(self) -> None:
        self._environments.renew(self._settings)
        self._reached = {True: 0, False: 0}

    def _next(self, seconds: float) -> None:
        self._turning = False
        if not self._stopped and self._environments.damaged:
            self.damaged()
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
        keys: list[bytes] = []
        # Deleting through the cursor, the binding hides what LMDB says when the next page is damaged.
        with txn.cursor(environment.databases[database]) as cursor:
            found = cursor.set_range(content_id)
            while found and len(keys) < most and bytes(cursor.key()).startswith(content_id):
                keys.append(bytes(cursor.key()))
                found = cursor.next()
        for key in keys:
            txn.delete(key, db=environment.databases[database])
        return len(keys)

    def _evict(self, held: int) -> bool:
        """:param held: octets in blobs that are as good as gone. :return: was anything evicted?"""
        small, blobs = self.fills()
        too_much_small = small.used - int(small.size * self._settings.evict_share)
        too_much_blobs = blobs.used - held - int(blobs.size * self._settings.evict_share)
        self._mark(
            self._is_full(small, too_much_small > 0),
            self._is_full(blobs, too_much_blobs > 0),
        )
        # Each turn for both: neither has to wait until the other has caught up.
        evicted = too_much_small > 0 and self._make_room(small.used, too_much_small, only_blobs=False)
        if too_much_blobs > 0 and self._make_room(blobs.used - held, too_much_blobs, only_blobs=True):
            evicted = True
        return evicted

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

    def _make_room(self, used: int, needed: int, *, only_blobs: bool) -> bool:
        """
        :param used: octets that everything in the queues takes, in small or in blobs.
        :param needed: how many of them to evict, about.
        :return: was anything done?
        """
        environments = self._environments
        small = environments.small
        with small.env.begin() as txn:
            standing = read_standing(txn, small.databases)[only_blobs]
            # What we weigh is not quite what LMDB uses: of that, as much fits as is there when the mark is reached.
            capacity = standing.octets * (used - needed) // used
            heads = Heads(txn, small.databases, environments.popularity, only_blobs, self._reached[only_blobs])
            steps = plan(heads, standing, capacity, needed, BATCH)
            # Here and not below: what is cold is read from disk, and writers wait for no more than the commit.
            owned = [step.to is None and self._is_current(txn, step.entry) for step in steps]
        if not steps:
            return False
        with _writing(small) as txn:
            queues = Queues(txn, small.databases, environments.popularity)
            for step, owns in zip(steps, owned, strict=True):
                # Otherwise it was replaced since we looked, and its content is another's business.
                if queues.leave(step.entry, step.to):
                    self._left(txn, step, owns)
            if any(step.to is None for step in steps):
                queues.standing[only_blobs].evicting = True
            queues.finish()
        # Only now: what is not committed is still there.
        self._reached[only_blobs] = heads.reached
        return True

    def _is_current(self, txn: lmdb.Transaction, entry: Queued) -> bool:
        """:return: is the record under its key the one of this row? See layout's Note [one row per record]."""
        record = txn.get(entry.key_hash, db=self._environments.small.databases[layout.RECORDS])
        return record is not None and _is_its(record, entry.sequence)

    def _left(self, txn: lmdb.Transaction, step: Step[Queued], owns: bool) -> None:
        """
        A record has left its place in the queues.

        :param owns: its row's record is there.
        """
        entry, popularity = step.entry, self._environments.popularity
        popularity.hits[slot_of(entry.key_hash)] = step.hits
        if step.to is not None:
            self.collected.moved_records += 1
            return
        if owns:
            txn.delete(entry.key_hash, db=self._environments.small.databases[layout.RECORDS])
        self._free_one(txn, entry)
        if step.remembered:
            ghosts = popularity.blobs if entry.in_blobs else popularity.small
            ghosts.add(entry.key_hash, entry.weight[entry.in_blobs])

    def _free_one(self, txn: lmdb.Transaction, entry: Queued) -> None:
        """With an evicted record go its pieces, or, of content in blobs, an orphan row comes."""
        if entry.in_blobs:
            row = layout.ORPHAN_ROW.pack(layout.NOBODY, layout.chunks_of(entry.size) * layout.CHUNK)
            txn.put(entry.content_id, row, db=self._environments.small.databases[layout.ORPHANS])
        elif entry.content_id != layout.NO_CONTENT:
            self._delete_all(txn, self._environments.small, layout.CONTENTS, entry.content_id)
        self.collected.evicted_records += 1
        self.collected.evicted_octets += entry.size


def _is_its(record: bytes | memoryview, sequence: int) -> bool:
    """:return: does the record belong to the row of ``sequence``? One that nobody can read does."""
    return len(record) < layout.RECORD_PREFIX.size or layout.sequence_of(record) == sequence


def _fill(environment: Environment, full: bool) -> Fill:
    with environment.env.begin() as txn:
        used = environment.used(txn)
        entries = {name.decode(): txn.stat(database)["entries"] for name, database in environment.databases.items()}
    return Fill(environment.name, used, environment.env.info()["map_size"], entries, full)


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
