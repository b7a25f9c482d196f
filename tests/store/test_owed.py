"""Local invalidations that control cannot write: nothing is fresh until it can."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store.owed import MOST, RETRY_SECONDS, Owed
from edgecache.store.page import FENCED, FREE, Page, PageWriter
from edgecache.words.errors import ControlFailed
from edgecache.words.purging import Row


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
        self.owed = Owed(self.write, self.writer, self.clock)

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
