"""Rows that are not what was written, in pages that LMDB finds nothing wrong with: the store is condemned, once."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from edgecache.store import layout
from edgecache.store.collecting import Collector
from edgecache.words.config import MIB, StoreSettings
from edgecache.words.errors import StoreFull
from tests.store.rooms import StoreTestCase, octets, response

# Eviction has something to do at once.
FULL = StoreSettings(size=64 * MIB, evict_share=0.001)


class OddRowTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(20):
            self.store(octets(10_000), response(b"%d" % number))
        self.collector = Collector(self.environments, self.node_page, FULL, set, Clock(), maybeDeferred)

    def cut(self, name: bytes, key: bytes) -> None:
        self.alter(name, key, lambda value: value.__delitem__(slice(3, None)))

    def condemned(self) -> bool:
        self.flushLoggedErrors()
        return self.environments.small.condemned and self.environments.damaged

    def test_by_eviction_that_meets_one(self) -> None:
        self.cut(layout.META, layout.META_STANDING)
        self.assertRaises(StoreFull, self.collector.turn, 0.0)
        self.assertTrue(self.condemned())

    def test_by_a_writer_that_meets_one(self) -> None:
        self.cut(layout.META, layout.META_STANDING)
        writer = self.fill(octets(10))
        self.assertFalse(self.commit(writer, response(b"new")))
        writer.finished()
        self.assertTrue(self.condemned())

    def test_by_a_writer_that_meets_a_queue_that_there_is_none_of(self) -> None:
        end = layout.QUEUE_ROW.size
        for key in self.rows(layout.QUEUE):
            self.alter(layout.QUEUE, key, lambda value: value.__setitem__(slice(end, None), b"\x09 is none"))
        writer = self.fill(octets(10))
        self.assertFalse(self.commit(writer, response(b"1")))
        writer.finished()
        self.assertTrue(self.condemned())

    def test_by_a_mistake_elsewhere_nothing_is_condemned(self) -> None:
        """Only what is on disk can be damaged. Nothing is stored meanwhile: nobody makes room."""
        self.collector._spawns = lambda: {int("no number")}
        with self.environments.small.env.begin(write=True) as txn:
            txn.put(bytes(16), layout.ORPHAN_ROW.pack(9, 0), db=self.environments.small.databases[layout.ORPHANS])
        self.assertRaises(ValueError, self.collector.turn, 0.0)
        self.assertFalse(self.condemned())
        self.assertEqual((True, 1), (self.page.full_small, self.collector.collected.failures))

    def test_and_begun_anew_the_store_works_while_it_is_open(self) -> None:
        self.environments.small.condemn("a test")
        self.collector.renew()
        self.assertFalse(self.environments.damaged)
        self.stop()
        self.start()
        self.assertIsNone(self.find(b"1"))
        self.store(octets(10_000), response(b"1"))
        self.assertEqual(octets(10_000), self.content(b"1"))
        self.flushLoggedErrors()
