"""The collector with the real writer and reader: the quota holds, and what is found is whole."""

from __future__ import annotations

import math
import random
from itertools import count

from attrs import evolve
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from edgecache.store import layout
from edgecache.store.collecting import STUCK_TURNS, Collector
from edgecache.words.config import MIB
from edgecache.words.errors import StoreFull
from tests.store.rooms import SETTINGS, SPAWN, StoreTestCase, hash_of, octets, response


class QuotaTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.alive = {SPAWN}
        self.collector = Collector(
            self.environments, self.node_page, SETTINGS, lambda: self.alive, Clock(), maybeDeferred
        )

    def collect(self) -> None:
        while self.collector.turn(0.0):
            pass

    def test_more_than_fits_is_stored_and_what_is_left_is_whole(self) -> None:
        chance = random.Random(7)
        sizes = [chance.choice((300, 20_000, 60_000, 300_000, 2 * MIB, 4 * MIB)) for _ in range(150)]
        for number, size in enumerate(sizes):
            self.store(octets(size), response(b"%d" % number))
            self.flush()
            self.collect()
            self.assertEqual((False, False), self.node_page.full)
        self.flush()
        self.collect()
        self.check()
        self.assertTrue(all(fill.share <= 0.85 for fill in self.collector.fills()))
        found = {number for number in range(150) if self.find(b"%d" % number) is not None}
        for number in found:
            self.assertTrue(octets(sizes[number]) == self.content(b"%d" % number), number)
        self.assertLess(len(found), 150)
        self.assertEqual({}, self.rows(layout.ORPHANS))

    def store_all(self, sizes: tuple[int, ...]) -> int:
        """Store new contents, one after the other, until no more is taken. :return: how many were."""
        for number in count():
            writer = self.fill(octets(sizes[number % len(sizes)]))
            stored = self.commit(writer, response(b"%d %d" % (number, sizes[0])))
            writer.finished()
            if not stored:
                return number
        raise AssertionError

    def test_while_nobody_makes_room_storing_ends_before_room_can_no_longer_be_made(self) -> None:
        """The node process may stand still: in a map without a free page nothing can be deleted, either."""
        for sizes in ((50_000, 300), (3 * MIB,)):
            self.assertGreater(self.store_all(sizes), 10)
            self.flush()
            self.assertTrue(any(fill.share > 0.85 for fill in self.collector.fills()))
            self.collect()
            self.assertEqual(0, self.collector.collected.failures)
            self.assertTrue(all(fill.share <= 0.85 for fill in self.collector.fills()))
            self.store(octets(20_000), response(b"after"))
            self.check()

    def test_a_store_that_is_to_be_smaller_keeps_what_it_has_and_room_to_evict_it(self) -> None:
        """Files of LMDB never shrink, and in a map without a free page nothing can be deleted."""
        self.settings = evolve(SETTINGS, size=4 * SETTINGS.size)
        self.restart()
        for number in range(15):
            self.store(octets(4 * MIB), response(b"large %d" % number))
        self.settings = SETTINGS
        self.restart()
        self.node_page.set_full(False, False)
        self.collector = Collector(
            self.environments, self.node_page, self.settings, lambda: self.alive, Clock(), maybeDeferred
        )
        self.collect()
        self.assertEqual((0, False), (self.collector.collected.failures, self.environments.damaged))
        self.assertTrue(all(fill.share <= 0.86 for fill in self.collector.fills()))
        self.assertTrue(octets(4 * MIB) == self.content(b"large 14"))
        self.store(octets(20_000), response(b"after"))
        self.check()

    def test_what_an_earlier_release_has_filled_to_its_last_page_is_begun_anew(self) -> None:
        self.environments.small.most = math.inf
        self.store_all((9_000, 300))
        self.flush()
        for _ in range(STUCK_TURNS):
            self.assertFalse(self.environments.damaged)
            self.assertRaises(StoreFull, self.collector.turn, 0.0)
        self.assertTrue(self.environments.damaged)
        self.flushLoggedErrors()
        self.stop()
        self.start()
        self.node_page.set_full(False, False)
        self.store(octets(20_000), response(b"after"))

    def test_what_is_being_sent_goes_on_after_its_eviction_and_then_its_room_is_free(self) -> None:
        content = octets(5 * MIB + 777)
        stored = self.store(content, response(b"sent"))
        found = self.reader.look_up(hash_of(b"sent"), b"sent")
        self.reader.done()
        self.assertIsNotNone(found)
        source = self.reader.open_source(hash_of(b"sent"), stored)
        assert source is not None
        got = bytearray(source.read(0, 100_000))
        for number in range(10):
            self.store(octets(5 * MIB), response(b"%d" % number))
            self.collect()
        self.assertIsNone(self.find(b"sent"))
        while not source.ended(len(got)):
            got += source.read(len(got), 200_000)
            self.assertIsNone(source.failed)
        self.assertTrue(content == got)
        source.close()
        self.collect()
        self.assertEqual({}, self.rows(layout.ORPHANS))
        self.check()

    def test_what_a_dead_worker_was_filling_is_freed_and_what_a_living_one_fills_is_not(self) -> None:
        writer = self.fill(octets(6 * MIB))
        self.loop.until(lambda: len(self.rows(layout.CHUNKS)) >= 32)
        self.collect()
        self.assertEqual(1, len(self.rows(layout.ORPHANS)))
        self.assertTrue(self.commit(writer, response(b"whole")))
        writer.finished()
        self.collect()
        self.assertTrue(octets(6 * MIB) == self.content(b"whole"))
        self.fill(octets(6 * MIB, 1))
        self.loop.until(lambda: len(self.rows(layout.ORPHANS)) == 1)
        self.alive = set()
        self.flush()
        self.collect()
        self.assertEqual({}, self.rows(layout.ORPHANS))
        self.assertTrue(octets(6 * MIB) == self.content(b"whole"))

    def test_a_replaced_content_is_freed(self) -> None:
        for salt in range(20):
            self.store(octets(5 * MIB, salt), response(b"same", floor=salt + 1))
            self.flush()
            self.collect()
        self.assertTrue(octets(5 * MIB, 19) == self.content(b"same"))
        self.assertLess(self.collector.fills()[1].share, 0.15)
        self.check()
