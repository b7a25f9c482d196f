"""Making room: what nobody has is freed, what is least worth keeping is evicted, and what is being sent stays."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any

import lmdb
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.eviction import MAIN, PROBATION, Queue
from edgecache.store import layout
from edgecache.store.collecting import BATCH, Collector
from edgecache.store.environment import Environment
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.pagewriter import PageWriter
from edgecache.store.popularity import slot_of
from edgecache.store.queues import Heads, Queues, read_standing, take_over, weights
from edgecache.words.config import MIB, StoreSettings
from edgecache.words.errors import StoreFull
from tests.quickdisk import quick_directory

SETTINGS = StoreSettings(size=64 * MIB)


@define(eq=False)
class Contents:
    """Puts records and chunks where the layout wants them; keeps what it put."""

    environments: Environments
    records: dict[bytes, tuple[bytes, int]] = field(factory=dict)

    def store(self, size: int, key_hash: bytes | None = None, *, page: bool = False) -> bytes:
        """A whole record with content of ``size`` octets. :return: its key hash."""
        key_hash = key_hash or secrets.token_bytes(32)
        content_id = secrets.token_bytes(16)
        chunks = layout.chunks_of(size)
        self.chunks(content_id, chunks)
        flags = (layout.ROW_IN_BLOBS if chunks else 0) | (layout.ROW_SHELTERED if page else 0)
        small = self.environments.small
        with small.env.begin(write=True) as txn:
            queues = Queues(txn, small.databases, self.environments.popularity)
            sequence = queues.number()
            queues.add(sequence, key_hash, content_id, size, flags)
            queues.finish()
        self.put("small", layout.RECORDS, key_hash, layout.RECORD_PREFIX.pack(1, 1, 24, 0, sequence) + b"x" * 400)
        for index in range(layout.pieces_of(size)):
            self.put("small", layout.CONTENTS, layout.place(content_id, index), b"p" * layout.PIECE_VALUE)
        self.records[key_hash] = (content_id, size)
        return key_hash

    def chunks(self, content_id: bytes, count: int) -> None:
        blobs = self.environments.blobs
        with blobs.env.begin(write=True) as txn:
            for index in range(count):
                value = b"c" * layout.CHUNK_VALUE
                txn.put(layout.place(content_id, index), value, db=blobs.databases[layout.CHUNKS])

    def orphan(self, spawn: int, count: int, pieces: int = 0) -> bytes:
        """Content of a fill, or of a record that is no more. :return: its id."""
        content_id = secrets.token_bytes(16)
        self.chunks(content_id, count)
        for index in range(pieces):
            self.put("small", layout.CONTENTS, layout.place(content_id, index), b"p" * layout.PIECE_VALUE)
        octets = 0 if spawn else count * layout.CHUNK
        self.put("small", layout.ORPHANS, content_id, layout.ORPHAN_ROW.pack(spawn, octets))
        return content_id

    def put(self, name: str, database: bytes, key: bytes, value: bytes) -> None:
        environment: Environment = getattr(self.environments, name)
        with environment.env.begin(write=True) as txn:
            txn.put(key, value, db=environment.databases[database])

    def keys(self, name: str, database: bytes) -> list[bytes]:
        environment: Environment = getattr(self.environments, name)
        with environment.env.begin() as txn, txn.cursor(environment.databases[database]) as cursor:
            return [bytes(key) for key in cursor.iternext(keys=True, values=False)]

    def stored(self) -> set[bytes]:
        return set(self.keys("small", layout.RECORDS))

    def contents(self) -> set[bytes]:
        """Ids of which any chunk is there."""
        return {key[:16] for key in self.keys("blobs", layout.CHUNKS)}

    def pieces(self) -> set[bytes]:
        """Ids of which any piece is there."""
        return {key[:16] for key in self.keys("small", layout.CONTENTS)}


@define(eq=False)
class Counted(Environments):
    """Counts how often dead readers were looked for."""

    checks: int = 0

    def reader_check(self) -> int:
        self.checks += 1
        return super().reader_check()


@define
class Before:
    """The lock of an environment; something happens before it is taken first."""

    _happens: Callable[[], None]
    _taken: bool = False

    def __enter__(self) -> None:
        if not self._taken:
            self._taken = True
            self._happens()

    def __exit__(self, *_: object) -> None:
        """Nobody else writes."""


class CollectorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = quick_directory(self)
        opened = Environments.open(self.data, SETTINGS, node_process=True)
        self.addCleanup(opened.close)
        self.environments = Counted(opened.control, opened.small, opened.blobs, opened.incarnation)
        self.page = PageWriter.create(os.path.join(self.data, "page"), 2)
        self.addCleanup(self.page.close)
        self.worker = Page.open(self.page.path, 0)
        self.addCleanup(self.worker.close)
        self.contents = Contents(self.environments)
        self.alive: set[int] = set()
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.collector = self.make()

    def make(self, in_thread: Any = maybeDeferred, settings: StoreSettings = SETTINGS) -> Collector:
        return Collector(self.environments, self.page, settings, lambda: self.alive, self.clock, in_thread)

    def collect(self) -> int:
        """Until nothing is left to do. :return: turns that did something."""
        turns = 0
        while self.collector.turn(self.clock.seconds()):
            turns += 1
            self.assertLess(turns, 500, "no end")
        return turns


class FreeingTests(CollectorCase):
    def test_content_that_nobody_has_is_freed_chunks_tail_and_row(self) -> None:
        gone, kept = self.contents.orphan(layout.NOBODY, 3, 2), self.contents.store(3 * layout.CHUNK + 5)
        self.collect()
        kept_id = self.contents.records[kept][0]
        self.assertEqual({kept_id}, self.contents.contents())
        self.assertEqual({kept_id}, self.contents.pieces())
        self.assertEqual([], self.contents.keys("small", layout.ORPHANS))
        self.assertEqual(
            (1, 3 * layout.CHUNK), (self.collector.collected.freed_contents, self.collector.collected.freed_octets)
        )
        self.assertNotIn(gone, self.contents.contents())

    def test_what_a_living_worker_fills_stays_and_what_a_dead_one_left_goes(self) -> None:
        self.alive = {7}
        filling, abandoned = self.contents.orphan(7, 2), self.contents.orphan(8, 2)
        self.collect()
        self.assertEqual({filling}, self.contents.contents())
        self.alive = set()
        self.collect()
        self.assertEqual(set(), self.contents.contents())
        self.assertNotIn(abandoned, self.contents.contents())

    def test_what_is_being_sent_stays_until_it_is_unpinned(self) -> None:
        sending = self.contents.orphan(layout.NOBODY, 2, 1)
        slot = self.worker.pin(sending)
        assert slot is not None
        self.collect()
        self.assertEqual(({sending}, {sending}), (self.contents.contents(), self.contents.pieces()))
        self.worker.unpin(slot)
        self.collect()
        self.assertEqual((set(), set()), (self.contents.contents(), self.contents.pieces()))

    def test_rows_are_read_before_spawns_and_spawns_before_pins(self) -> None:
        """A worker that begins in between, and a pin set in between, are both seen."""
        pinned = self.contents.orphan(layout.NOBODY, 1)
        begun: list[bytes] = []

        def spawns() -> set[int]:
            alive = {9} if begun else set()
            if not begun:
                self.worker.pin(pinned)
                begun.append(self.contents.orphan(9, 1))
            return alive

        self.collector = Collector(self.environments, self.page, SETTINGS, spawns, self.clock, maybeDeferred)
        self.collect()
        self.collect()
        self.assertEqual({begun[0], pinned}, self.contents.contents())

    def test_content_without_chunks_yet_is_only_a_row(self) -> None:
        self.contents.orphan(5, 0)
        self.collect()
        self.assertEqual([], self.contents.keys("small", layout.ORPHANS))

    def test_large_content_is_freed_in_several_commits(self) -> None:
        self.contents.orphan(layout.NOBODY, 600)
        before = self.environments.blobs.env.info()["last_txnid"]
        self.collect()
        self.assertEqual(set(), self.contents.contents())
        self.assertEqual(3, self.environments.blobs.env.info()["last_txnid"] - before)

    def test_neighbours_in_key_order_are_left_alone(self) -> None:
        ids = [bytes(15) + bytes([number]) for number in (1, 2, 3)]
        for content_id in ids:
            self.contents.chunks(content_id, 2)
        self.contents.put("small", layout.ORPHANS, ids[1], layout.ORPHAN_ROW.pack(layout.NOBODY, 0))
        self.collect()
        self.assertEqual({ids[0], ids[2]}, self.contents.contents())

    def test_a_crash_between_chunks_and_row_is_made_good(self) -> None:
        content_id = self.contents.orphan(layout.NOBODY, 2, 1)
        databases = self.environments.small.databases
        contents = databases.pop(layout.CONTENTS)
        self.assertRaises(KeyError, self.collector.turn, 0.0)
        databases[layout.CONTENTS] = contents
        self.assertEqual(set(), self.contents.contents())
        self.assertEqual([content_id], self.contents.keys("small", layout.ORPHANS))
        self.collect()
        self.assertEqual(([], set()), (self.contents.keys("small", layout.ORPHANS), self.contents.pieces()))


class EvictionTests(CollectorCase):
    def shares(self) -> dict[str, float]:
        return {fill.name: fill.share for fill in self.collector.fills()}

    def test_nothing_is_evicted_below_the_mark(self) -> None:
        kept = {self.contents.store(size) for size in (0, 100, 5000, layout.CHUNK, 3 * layout.CHUNK + 1)}
        self.assertEqual(0, self.collect())
        self.assertEqual(kept, self.contents.stored())
        self.assertEqual((False, False), self.page.full)

    def hit(self, key_hash: bytes, times: int) -> None:
        self.environments.popularity.hits[slot_of(key_hash)] = times

    def hits(self, key_hash: bytes) -> int:
        return self.environments.popularity.hits[slot_of(key_hash)]

    def in_queue(self, queue: Queue) -> list[bytes]:
        """Key hashes, the oldest first."""
        small = self.environments.small
        with small.env.begin() as txn:
            heads = Heads(txn, small.databases, self.environments.popularity, False)
            return [entry.key_hash for entry in heads.oldest(queue)]

    def test_small_is_evicted_until_below_the_mark_and_nothing_of_it_is_left(self) -> None:
        keys = [self.contents.store(60_000) for _ in range(290)]
        self.assertGreater(self.shares()["small"], 0.9)
        self.collect()
        left = self.contents.stored()
        self.assertLess(self.shares()["small"], 0.85)
        self.assertGreater(self.shares()["small"], 0.75)
        self.assertEqual({self.contents.records[key][0] for key in left}, self.contents.pieces())
        self.assertEqual(len(left), len(self.contents.keys("small", layout.QUEUE)))
        self.assertEqual(len(self.in_queue(MAIN)), len(self.contents.keys("small", layout.PLACES)))
        self.assertEqual(len(keys) - len(left), self.collector.collected.evicted_records)

    def test_what_was_hit_stays_and_is_worth_less_then(self) -> None:
        keys = [self.contents.store(60_000) for _ in range(290)]
        probation, main = self.in_queue(PROBATION), self.in_queue(MAIN)
        self.assertEqual(set(keys), {*probation, *main})
        for key in (probation[0], main[0]):
            self.hit(key, 3)
        self.collect()
        self.assertLessEqual({probation[0], main[0]}, self.contents.stored())
        self.assertEqual([0, 2], [self.hits(probation[0]), self.hits(main[0])])
        self.assertEqual({probation[0], main[0]}, set(self.in_queue(MAIN)[-2:]))
        self.assertEqual(2, self.collector.collected.moved_records)

    def test_what_comes_back_soon_after_it_left_probation_is_in_main_at_once(self) -> None:
        for _ in range(290):
            self.contents.store(60_000)
        first = self.in_queue(PROBATION)[0]
        self.collect()
        self.assertNotIn(first, self.contents.stored())
        new = self.contents.store(60_000)
        self.contents.store(60_000, first)
        self.assertEqual((new, first), (self.in_queue(PROBATION)[-1], self.in_queue(MAIN)[-1]))

    def test_pages_outlast_something_huge(self) -> None:
        pages = [self.contents.store(3_000, page=True) for _ in range(20)]
        for _ in range(400):
            self.contents.store(60_000)
            self.collect()
        self.assertLessEqual(set(pages), self.contents.stored())

    def test_blobs_are_evicted_and_what_is_only_in_small_stays(self) -> None:
        small = [self.contents.store(100) for _ in range(300)]
        large = [self.contents.store(5 * MIB) for _ in range(10)]
        self.assertGreater(self.shares()["blobs"], 0.85)
        self.collect()
        left = self.contents.stored()
        self.assertEqual(set(small), left & set(small))
        self.assertTrue(0.7 < self.shares()["blobs"] < 0.85)
        self.assertEqual({self.contents.records[key][0] for key in left & set(large)}, self.contents.contents())

    def test_no_more_is_evicted_because_what_was_is_still_being_sent(self) -> None:
        large = [self.contents.store(5 * MIB) for _ in range(10)]
        slots = [self.worker.pin(self.contents.records[key][0]) for key in large]
        self.collect()
        left = self.contents.stored()
        self.assertEqual((9, 10), (len(left), len(self.contents.contents())))
        for slot in slots:
            assert slot is not None
            self.worker.unpin(slot)
        self.collect()
        self.assertEqual(left, self.contents.stored())
        self.assertEqual(9, len(self.contents.contents()))

    def test_blobs_behind_a_crowd_of_small_objects_are_found_at_once(self) -> None:
        small = self.environments.small
        with small.env.begin(write=True) as txn:
            queues = Queues(txn, small.databases, None)
            for number in range(12_000):
                queues.add(queues.number(), number.to_bytes(32, "big"), number.to_bytes(16, "big"), 10, 0)
            queues.finish()
        for _ in range(10):
            self.contents.store(5 * MIB)
        self.assertLess(self.collect(), 4)
        self.assertEqual(9, len(self.contents.stored()))
        self.assertEqual(12_009, len(self.contents.keys("small", layout.QUEUE)))

    def test_in_a_store_of_a_release_with_one_queue_all_is_on_probation_in_its_order(self) -> None:
        rows = [(number.to_bytes(32, "big"), number.to_bytes(16, "big")) for number in range(1, 1001)]
        small = self.environments.small
        with small.env.begin(write=True) as txn:
            for sequence, (key_hash, content_id) in enumerate(rows, 1):
                row = layout.QUEUE_ROW.pack(key_hash, content_id, 10, 0)
                txn.put(layout.U64_KEY.pack(sequence), row, db=small.databases[layout.QUEUE])
            txn.put(layout.META_SEQUENCE, layout.U64_KEY.pack(1001), db=small.databases[layout.META])
            txn.delete(layout.META_STANDING, db=small.databases[layout.META])
        for _ in range(2):
            with small.env.begin(write=True) as txn:
                take_over(txn, small.databases)
        newer = self.contents.store(100)
        self.assertEqual([*(key_hash for key_hash, _ in rows), newer], self.in_queue(PROBATION))
        with small.env.begin() as txn:
            standing, _ = read_standing(txn, small.databases)
        self.assertEqual(sum(weights(10, 0)) * 1000 + sum(weights(100, 0)), standing.probation)

    def test_a_row_whose_record_is_another_goes_with_its_content_and_the_record_stays(self) -> None:
        key = self.contents.store(60_000)
        old_id = self.contents.records[key][0]
        for _ in range(20):
            self.contents.store(60_000)
        self.contents.store(60_000, key)
        self.crowd()
        self.collect()
        self.assertTrue(key in self.contents.stored())
        self.assertFalse(old_id in self.contents.pieces())

    def test_a_record_that_nobody_can_read_goes_too(self) -> None:
        key = self.contents.store(60_000)
        self.contents.put("small", layout.RECORDS, key, b"short")
        self.crowd()
        self.collect()
        self.assertFalse(key in self.contents.stored())

    def crowd(self) -> None:
        """So much that 2 of the oldest must go, and few more."""
        while self.shares()["small"] <= 0.855:
            self.contents.store(60_000)

    def test_a_record_that_was_replaced_meanwhile_is_not_evicted_for_its_old_row(self) -> None:
        for _ in range(290):
            self.contents.store(60_000)
        key = self.in_queue(PROBATION)[0]

        def replace() -> None:
            small = self.environments.small
            with small.env.begin(write=True) as txn:
                queues = Queues(txn, small.databases, None)
                record = txn.get(key, db=small.databases[layout.RECORDS])
                self.assertTrue(queues.drop(layout.sequence_of(record)))
                queues.finish()
            self.contents.store(60_000, key)

        self.environments.small.writing = Before(replace)  # type: ignore[assignment]
        self.collect()
        self.assertIn(key, self.contents.stored())
        self.assertEqual(len(self.contents.stored()), len(self.contents.keys("small", layout.QUEUE)))

    def test_one_turn_makes_room_in_both(self) -> None:
        for _ in range(285):
            self.contents.store(60_000)
        for _ in range(10):
            self.contents.store(5 * MIB)
        self.assertTrue(all(share > 0.85 for share in self.shares().values()))
        self.collector.turn(0.0)
        self.assertEqual(1, len(self.contents.keys("small", layout.ORPHANS)))
        self.assertGreater(self.collector.collected.evicted_records, 2)

    def test_no_transaction_evicts_more_than_a_batch(self) -> None:
        for _ in range(280):
            self.contents.store(60_000)
        tight = StoreSettings(size=64 * MIB, evict_share=0.05, full_share=0.99)
        self.collector = self.make(settings=tight)
        before = self.collector.collected.evicted_records
        self.assertTrue(self.collector.turn(0.0))
        self.assertEqual(BATCH, self.collector.collected.evicted_records - before)

    def test_full_is_published_above_the_upper_mark_until_eviction_has_caught_up(self) -> None:
        large = [self.contents.store(5 * MIB) for _ in range(11)]
        slots = [self.worker.pin(self.contents.records[key][0]) for key in large[:3]]
        self.assertGreater(self.shares()["blobs"], 0.9)
        self.collect()
        self.assertEqual((False, True), self.page.full)
        self.assertTrue(self.worker.full_blobs and not self.worker.full_small)
        self.assertEqual([False, True], [fill.full for fill in self.collector.fills()])
        for slot in slots:
            assert slot is not None
            self.worker.unpin(slot)
        self.collect()
        self.assertEqual((False, False), self.page.full)


class RunningTests(CollectorCase):
    def test_it_turns_on_its_own_and_goes_on_at_once_while_there_is_more(self) -> None:
        for _ in range(BATCH + 1):
            self.contents.orphan(layout.NOBODY, 0)
        self.collector.start()
        self.assertEqual(1, len(self.contents.keys("small", layout.ORPHANS)))
        self.clock.advance(0)
        self.assertEqual([], self.contents.keys("small", layout.ORPHANS))
        self.contents.orphan(layout.NOBODY, 1)
        self.clock.advance(0)
        self.clock.advance(0.5)
        self.assertEqual(set(), self.contents.contents())
        self.successResultOf(self.collector.stop())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stopping_waits_for_the_turn_that_runs(self) -> None:
        running: list[Deferred[bool]] = []

        def held(*_: object) -> Deferred[bool]:
            running.append(Deferred())
            return running[-1]

        self.collector = self.make(in_thread=held)
        self.collector.start()
        stopped = self.collector.stop()
        self.assertNoResult(stopped)
        running[0].callback(True)
        self.successResultOf(stopped)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_an_environment_that_cannot_be_written_stops_storing_and_is_tried_again(self) -> None:
        content_id = self.contents.orphan(layout.NOBODY, 1)
        broken = True
        whole = self.environments.blobs.env

        class Full:
            def begin(self, write: bool = False) -> Any:
                if write and broken:
                    raise lmdb.MapFullError("no room to delete")
                return whole.begin(write=write)

            def __getattr__(self, name: str) -> Any:
                return getattr(whole, name)

        self.environments.blobs.env = Full()  # type: ignore[assignment]  # a full map cannot be had in 64 MiB
        self.addCleanup(setattr, self.environments.blobs, "env", whole)
        self.collector.start()
        self.assertEqual(1, len(self.flushLoggedErrors(StoreFull)))
        self.assertEqual((True, True), self.page.full)
        self.assertEqual({content_id}, self.contents.contents())
        broken = False
        self.clock.advance(5)
        self.assertEqual(set(), self.contents.contents())
        self.clock.advance(0)
        self.assertEqual((False, False), self.page.full)
        self.successResultOf(self.collector.stop())

    def test_readers_that_died_are_looked_for_every_minute(self) -> None:
        self.collector.start()
        self.clock.pump([0.5] * 250)
        self.assertEqual(2, self.environments.checks)
        self.successResultOf(self.collector.stop())


class AnyOrderTests(CollectorCase):
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from((0, 300, 40_000, layout.CHUNK, 2 * layout.CHUNK + 9, 9 * MIB)), max_size=25),
        st.sets(st.integers(0, 24), max_size=4),
    )
    def test_what_is_left_is_whole_and_what_is_gone_left_nothing(self, sizes: list[int], pinned: set[int]) -> None:
        self.setUp()
        keys = [self.contents.store(size) for size in sizes if self.collector.fills()[1].share < 0.8]
        slots = [self.worker.pin(self.contents.records[key][0]) for key in keys[:24] if keys.index(key) in pinned]
        self.collect()
        for slot in slots:
            assert slot is not None
            self.worker.unpin(slot)
        self.collect()
        left = self.contents.stored()
        in_blobs = {self.contents.records[key][0] for key in left if layout.chunks_of(self.contents.records[key][1])}
        in_small = {self.contents.records[key][0] for key in left if layout.pieces_of(self.contents.records[key][1])}
        self.assertEqual((in_blobs, in_small), (self.contents.contents(), self.contents.pieces()))
        self.assertEqual([], self.contents.keys("small", layout.ORPHANS))
        self.assertEqual(len(left), len(self.contents.keys("small", layout.QUEUE)))
        self.assertTrue(all(fill.share <= 0.85 for fill in self.collector.fills()))
        self.doCleanups()
