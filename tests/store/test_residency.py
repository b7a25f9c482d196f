"""What is in memory is known without a look at it: real LMDB, real page cache."""

from __future__ import annotations

import os
import tempfile

import lmdb
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store import layout
from edgecache.store.residency import Residency
from tests.store.rooms import octets

CONTENT = bytes(16)
COUNT = 70


class ResidencyTests(SynchronousTestCase):
    """In the tests' own directory, for what lies in memory alone is never absent."""

    def setUp(self) -> None:
        room = tempfile.TemporaryDirectory(dir=os.path.dirname(__file__))
        self.addCleanup(room.cleanup)
        self.path = room.name
        self.open()
        with self.env.begin(write=True) as txn:
            # The kernel reads on from the first pages, which LMDB looks at when it opens.
            for index in range(8 + COUNT):
                txn.put(layout.place(CONTENT, index), octets(layout.CHUNK_VALUE), db=self.chunks)
            txn.put(b"little", b"x", db=self.chunks)

    def open(self) -> None:
        self.env = lmdb.open(self.path, map_size=1 << 26, max_dbs=1, readahead=False)
        self.addCleanup(self.env.close)
        self.chunks = self.env.open_db(b"chunks")
        self.keys = [layout.place(CONTENT, index) for index in range(8, 8 + COUNT)]
        self.residency = Residency(self.env)

    def forget(self) -> None:
        """Nothing of the file is in memory, but for its begin."""
        self.env.close()
        with open(os.path.join(self.path, "data.mdb"), "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.open()

    def test_what_was_just_written_is_in_memory(self) -> None:
        self.assertEqual(COUNT, self.residency.leading(self.chunks, self.keys))

    def test_after_a_start_nothing_is_until_it_was_read(self) -> None:
        self.forget()
        self.assertEqual(0, self.residency.leading(self.chunks, self.keys))
        self.assertEqual(0, self.residency.leading(self.chunks, self.keys), "the look itself brought it in")
        self.residency.read(self.chunks, self.keys[:5])
        self.assertEqual(5, self.residency.leading(self.chunks, self.keys))
        self.assertEqual(0, self.residency.leading(self.chunks, self.keys[5:]))

    def test_values_that_do_not_lie_together_are_looked_at_one_by_one(self) -> None:
        self.forget()
        some = [*self.keys[40:43], *self.keys[:2], self.keys[60]]
        self.residency.read(self.chunks, some[:4])
        self.assertEqual(4, self.residency.leading(self.chunks, some))

    def test_what_has_no_pages_of_its_own_and_what_is_not_there_need_no_wait(self) -> None:
        self.forget()
        self.assertEqual(2, self.residency.leading(self.chunks, [b"little", b"nothing"]))
        self.assertEqual(1, self.residency.leading(self.chunks, [b"little", self.keys[9], b"nothing"]))
        self.residency.read(self.chunks, [b"little", b"nothing"])

    def test_values_are_told_apart_from_what_lies_around_them(self) -> None:
        """The arithmetic of pages is LMDB's: what is found at the address is the value."""
        import ctypes

        from edgecache.store.residency import _Buffer, _place

        with self.env.begin(buffers=True) as txn, txn.cursor(self.chunks) as cursor:
            for key in self.keys:
                place = _place(cursor, key, _Buffer())
                assert place is not None
                self.assertEqual(layout.CHUNK_VALUE + layout.OVERHEAD, place[1])
                self.assertTrue(ctypes.string_at(place[0] + 16, layout.CHUNK_VALUE) == bytes(cursor.value()))
