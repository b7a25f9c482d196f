"""Local invalidations that control cannot write: nothing is fresh until it can."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store.ledger import NAME, OCTETS, Ledger
from edgecache.store.owed import MOST, RETRY_SECONDS, Owed
from edgecache.store.page import Page
from edgecache.store.pagelayout import FENCED, FREE
from edgecache.store.pagewriter import PageWriter
from edgecache.words.errors import ControlFailed
from edgecache.words.purging import Row
from tests.quickdisk import quick_directory


def row(number: int) -> Row:
    return (b"selector %d" % number, number, 1)


class OwedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.full, self.written, self.clock = False, list[Row](), Clock()
        path = self.mktemp()
        self.writer = PageWriter.create(path, 1)
        self.addCleanup(self.writer.close)
        self.writer.publish_fresh_until(FREE)
        self.page = Page.open(path, 0)
        self.addCleanup(self.page.close)
        self.data = quick_directory(self)
        self.owed = self.begin()

    def begin(self) -> Owed:
        """One more life of the node."""
        owed = Owed(self.write, self.writer, self.clock, maybeDeferred, [row(0)], Ledger.open(self.data))
        self.addCleanup(owed.close)
        owed.start()
        return owed

    def write(self, rows: Sequence[Row]) -> Deferred[int]:
        if self.full:
            return fail(ControlFailed("No space left on device"))
        self.written += rows
        return succeed(len(self.written))

    def local(self, *numbers: int) -> Deferred[None]:
        return Deferred.fromCoroutine(self.owed.local([row(number) for number in numbers]))

    def test_one_that_can_be_written_is_and_that_is_all(self) -> None:
        self.successResultOf(self.local(1))
        self.assertEqual(([row(1)], FREE, []), (self.written, self.page.fresh_until, self.clock.getDelayedCalls()))

    def test_one_that_cannot_fences_until_all_are_written(self) -> None:
        self.full = True
        self.successResultOf(self.local(1))
        self.successResultOf(self.local(2))
        # A lease that is renewed meanwhile is none.
        self.writer.publish_fresh_until(12345.0)
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual(([], FENCED), (self.written, self.page.fresh_until))
        self.full = False
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual(([row(1), row(2)], 12345.0), (self.written, self.page.fresh_until))
        self.assertEqual([], self.clock.getDelayedCalls())

    def owe(self, *numbers: int) -> None:
        self.full = True
        for number in numbers:
            self.successResultOf(self.local(number))

    def test_who_is_killed_meanwhile_finds_them_again_and_nothing_is_fresh_before(self) -> None:
        self.owe(1, 2)
        self.writer.hold(False)
        self.full = False
        self.begin()
        self.assertEqual(([row(1), row(2)], FREE), (self.written, self.page.fresh_until))
        self.begin()
        self.assertEqual([row(1), row(2)], self.written, "once")

    def test_who_starts_on_a_full_disk_owes_them_still(self) -> None:
        self.owe(1)
        self.writer.hold(False)
        owed = self.begin()
        self.assertEqual(([], FENCED), (self.written, self.page.fresh_until))
        self.successResultOf(Deferred.fromCoroutine(owed.local([row(2)])))
        self.begin()
        self.full = False
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual({row(1), row(2)}, set(self.written))
        self.assertEqual(FREE, self.page.fresh_until)

    def test_one_that_a_power_cut_has_torn_is_the_end(self) -> None:
        self.owe(1, 2, 3)
        path = os.path.join(self.data, NAME)
        octets = bytearray(Path(path).read_bytes())
        at = octets.index(b"selector 2")
        octets[at : at + 4] = bytes(4)
        Path(path).write_bytes(octets)
        self.full = False
        self.begin()
        self.assertEqual([row(1)], self.written)

    def test_where_it_cannot_be_read_everything_is_owed_once(self) -> None:
        self.owe(1)
        self.full = False
        path = os.path.join(self.data, NAME)
        # What reads as an error and can be replaced, as a file in a bad place of a disk.
        ledger = Ledger(self.data, os.open(path, os.O_WRONLY))
        owed = Owed(self.write, self.writer, self.clock, maybeDeferred, [row(0)], ledger)
        self.addCleanup(owed.close)
        owed.start()
        self.assertEqual([row(0)], self.written)
        self.begin()
        self.assertEqual([row(0)], self.written, "once")

    def test_where_it_cannot_be_read_nor_control_be_written_the_next_life_owes_everything(self) -> None:
        self.owe(1)
        ledger = Ledger(self.data, os.open(os.path.join(self.data, NAME), os.O_WRONLY))
        owed = Owed(self.write, self.writer, self.clock, maybeDeferred, [row(0)], ledger)
        self.addCleanup(owed.close)
        owed.start()
        self.successResultOf(Deferred.fromCoroutine(owed.local([row(2)])))
        owed.stop()
        self.full = False
        self.begin()
        self.assertEqual([row(0), row(2)], self.written)

    def test_where_a_part_of_it_is_missing_everything_is_owed_once(self) -> None:
        """As after a file system was repaired: nobody knows what was there."""
        path = os.path.join(self.data, NAME)
        for size in (0, OCTETS // 2):
            self.owe(1)
            os.truncate(path, size)
            self.full, self.written = False, []
            self.begin()
            self.assertEqual([row(0)], self.written)
            self.begin()
            self.assertEqual(([row(0)], OCTETS), (self.written, os.path.getsize(path)), "once")

    def test_where_it_can_be_neither_read_nor_replaced_it_stays_for_the_next_life(self) -> None:
        path = os.path.join(self.data, NAME)
        ledger = Ledger(self.data, os.open(path, os.O_WRONLY))
        os.mkdir(path + ".new")
        owed = Owed(self.write, self.writer, self.clock, maybeDeferred, [row(0)], ledger)
        self.addCleanup(owed.close)
        owed.start()
        self.assertEqual([row(0)], self.written)
        self.assertTrue(os.path.exists(path))

    def test_where_there_is_no_room_left_it_is_said(self) -> None:
        self.owe(0)
        most = OCTETS // 60_000
        for number in range(most + 1):
            self.successResultOf(Deferred.fromCoroutine(self.owed.local([(b"x" * 60_000, number, 1)])))
        self.assertEqual(FENCED, self.page.fresh_until)
        self.assertEqual(OCTETS, os.path.getsize(os.path.join(self.data, NAME)))
        self.full = False
        self.begin()
        self.assertEqual([0, *range(most)], [key for _, key, _ in self.written])

    def test_too_many_are_refused_and_who_brought_them_hears_of_it(self) -> None:
        self.full = True
        self.successResultOf(self.local(*range(MOST)))
        self.failureResultOf(self.local(MOST), ControlFailed)

    def test_what_is_still_owed_at_the_end_is_said(self) -> None:
        self.full = True
        self.successResultOf(self.local(1))
        self.owed.stop()
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual([], self.clock.getDelayedCalls())
