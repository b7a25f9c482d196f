"""The change feed: what is effective, once, in order, and never silently with gaps."""

from __future__ import annotations

import os

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.cursors import cursor_of, log_number
from edgecache.rules.selectors import Selector
from edgecache.siblings.entries import PurgeEntry
from edgecache.siblings.feed import PACE_SECONDS, BadCursor, Change, Feed, Page, Reset
from edgecache.siblings.purger import LoneNode, Spread
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.pagewriter import PageWriter
from edgecache.words.config import MIB, StoreSettings
from edgecache.words.purging import Entry, LogName
from edgecache.words.reasons import PurgeMode
from tests.quickdisk import quick_directory
from tests.siblings.spreads import HandFleet

THEIRS = LogName("us-1", b"i" * 16)


def content(name: str, mode: PurgeMode = PurgeMode.REVALIDATE) -> PurgeEntry:
    return PurgeEntry((Selector("tag", 7, f"project/{name}".encode()).canonical,), mode, {name: 5}, 1.0, "ci")


class FeedCase(SynchronousTestCase):
    keep = 1000

    def setUp(self) -> None:
        self.data = quick_directory(self)
        self.clock = Clock()
        self.fleet = HandFleet(self.clock.seconds)
        self.open()
        self.addCleanup(self.shut)

    def open(self, spread: Spread | None = None) -> None:
        self.environments = Environments.open(self.data, StoreSettings(size=64 * MIB), node_process=True)
        self.page = PageWriter.create(os.path.join(self.data, "page"), 1)
        self.control = Control.open(
            self.environments.control,
            self.page,
            maybeDeferred,
            node_id="eu-1",
            incarnation=self.environments.incarnation,
            keep=self.keep,
        )
        self.feed = Feed(self.control, spread or self.fleet, self.clock)

    def shut(self) -> None:
        self.page.close()
        self.environments.close()

    def purge(self, name: str) -> Entry:
        """An own one, which is not effective yet."""
        purge = content(name)
        return self.successResultOf(self.control.append(purge.pack(), name, purge.rows())).entry

    def copy(self, name: str, sequence: int) -> None:
        """A sibling's, as it comes to be here."""
        purge = content(name)
        entry = Entry(THEIRS, sequence, 0, 0, name, b"", purge.pack())
        self.successResultOf(self.control.copy(entry, purge.rows()))

    def settle(self, sequence: int, log: LogName | None = None) -> None:
        self.fleet.settle(log or self.control.name, sequence)
        self.clock.advance(0.0)

    def ids(self, page: Page) -> list[str]:
        return [event.entry.purge_id if isinstance(event, Change) else "reset" for event in page.events]


class FeedTests(FeedCase):
    def test_a_purge_is_given_out_when_it_is_effective_and_not_before(self) -> None:
        begin = self.feed.now()
        self.purge("six")
        self.assertEqual([], self.ids(self.feed.read(begin)))
        self.settle(1)
        (event,) = self.feed.read(begin).events
        assert isinstance(event, Change)
        self.assertEqual(("six", content("six")), (event.entry.purge_id, event.purge))
        self.assertEqual([], self.ids(self.feed.read(event.cursor)))

    def test_who_begins_is_given_a_place_before_what_is_not_effective_yet(self) -> None:
        self.purge("a")
        self.purge("b")
        self.settle(1)
        begin = self.feed.now()
        self.settle(2)
        self.assertEqual(["b"], self.ids(self.feed.read(begin)))

    def test_siblings_purges_are_given_out_too(self) -> None:
        begin = self.feed.now()
        self.purge("a")
        self.copy("b", 1)
        self.copy("c", 2)
        self.settle(1, THEIRS)
        page = self.feed.read(begin)
        self.assertEqual(["b"], self.ids(page))
        self.settle(1)
        self.settle(2, THEIRS)
        self.assertEqual({"a", "c"}, set(self.ids(self.feed.read(page.cursor))))

    def test_each_event_has_the_place_after_it(self) -> None:
        begin = self.feed.now()
        for name in "abc":
            self.purge(name)
        self.settle(3)
        first, *_, last = page = self.feed.read(begin).events
        self.assertEqual(["b", "c"], self.ids(self.feed.read(first.cursor)))
        self.assertEqual(self.feed.now(), last.cursor)
        self.assertEqual(3, len(page))

    def test_whoever_waits_is_woken_once_something_is_effective(self) -> None:
        waiting, gone = self.feed.changed(), self.feed.changed()
        gone.cancel()
        self.failureResultOf(gone)
        self.purge("a")
        self.assertNoResult(waiting)
        self.settle(1)
        self.successResultOf(waiting)

    def test_in_a_storm_they_are_woken_now_and_then_and_nothing_is_missed(self) -> None:
        woken = 0
        begin = self.feed.now()
        for number in range(10):
            waiting = self.feed.changed()
            self.purge(str(number))
            self.settle(number + 1)
            woken += waiting.called
            waiting.addErrback(lambda _: None)
        self.assertEqual(1, woken)
        self.clock.advance(PACE_SECONDS)
        self.successResultOf(waiting)
        self.assertEqual(10, len(self.feed.read(begin).events))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_one_who_is_woken_may_take_back_what_another_waits_for(self) -> None:
        first, second = self.feed.changed(), self.feed.changed()
        first.addCallback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        self.settle(1)
        self.successResultOf(first)

    def test_on_a_lone_node_a_purge_is_effective_at_once(self) -> None:
        spread = LoneNode("eu-1")
        self.shut()
        self.open(spread)
        begin, waiting = self.feed.now(), self.feed.changed()
        spread.durable(self.purge("a"))
        self.clock.advance(0.0)
        self.successResultOf(waiting)
        self.assertEqual(["a"], self.ids(self.feed.read(begin)))

    def test_a_place_outlives_the_process(self) -> None:
        begin = self.feed.now()
        self.purge("a")
        self.settle(1)
        after = self.feed.read(begin).cursor
        self.purge("b")
        self.shut()
        self.fleet = HandFleet(self.clock.seconds)
        self.open()
        # It has heard of nobody yet.
        self.assertEqual([], self.ids(self.feed.read(after)))
        self.settle(2)
        self.assertEqual(["b"], self.ids(self.feed.read(after)))

    def test_what_another_release_wrote_is_given_out_as_such(self) -> None:
        begin = self.feed.now()
        self.successResultOf(self.control.append(b'{"version": 9}', "newer", []))
        self.settle(1)
        (event,) = self.feed.read(begin).events
        assert isinstance(event, Change)
        self.assertIsNone(event.purge)

    def test_what_is_no_cursor_is_refused(self) -> None:
        self.assertRaises(BadCursor, self.feed.read, "nonsense")

    def test_a_page_is_bounded_and_says_that_there_is_more(self) -> None:
        cursor, found = self.feed.now(), []
        for number in range(600):
            self.successResultOf(self.control.append(b"x" * 4000, str(number), []))
        self.settle(600)
        more = True
        while more:
            page = self.feed.read(cursor)
            self.assertLess(sum(4000 for _ in page.events), 1 << 20)
            found += self.ids(page)
            cursor, more = page.cursor, page.more
        self.assertEqual([str(number) for number in range(600)], found)


class MissingTests(FeedCase):
    """Nobody is left to believe that he has read everything."""

    keep = 100

    def test_a_reader_whose_place_is_forgotten_is_told_so_once(self) -> None:
        begin = self.feed.now()
        self.purge("first")
        self.settle(1)
        self.feed.read(begin)
        for number in range(300):
            self.purge(str(number))
        self.settle(301)
        page = self.feed.read(begin)
        self.assertEqual((Reset(("eu-1",), page.cursor),), page.events)
        self.assertEqual([], self.ids(self.feed.read(page.cursor)))
        self.assertEqual(1, self.feed.resets)

    def test_a_reset_of_one_log_skips_nothing_of_another(self) -> None:
        begin = self.feed.now()
        self.copy("theirs", 1)
        for number in range(300):
            self.purge(str(number))
        self.copy("theirs-2", 2)
        self.settle(300)
        page = self.feed.read(begin)
        self.assertEqual(["reset"], self.ids(page))
        self.settle(2, THEIRS)
        self.assertIn("theirs-2", self.ids(self.feed.read(page.cursor)) + self.ids(self.feed.read(begin)))

    def test_a_log_that_others_know_and_that_has_no_entry_yet_is_not_missing(self) -> None:
        self.assertEqual([], self.ids(self.feed.read(cursor_of({log_number(self.control.name): 0, 12345: 0}))))

    def test_a_place_in_a_log_that_was_lost_is_forgotten_too(self) -> None:
        page = self.feed.read(cursor_of({12345: 9}))
        self.assertEqual((Reset((), page.cursor),), page.events)
        self.assertEqual(Page((), page.cursor), self.feed.read(page.cursor))
