"""Control: purges are numbered without gaps, durable before they are answered, and forgotten in order."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import lmdb
from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from edgecache.rules.lookups import positions_value
from edgecache.rules.selectors import all_selector, tag_selector
from edgecache.siblings.content import Applied
from edgecache.store.control import Appended, Control, Gap
from edgecache.store.environments import Environments
from edgecache.store.pagewriter import PageWriter
from edgecache.store.threads import OneThread
from edgecache.words.config import MIB, StoreSettings
from edgecache.words.errors import ControlFailed
from edgecache.words.purging import (
    ALL_SCOPES,
    Demanded,
    Entry,
    LogName,
    Position,
    Row,
    Scope,
    SerialDemand,
    Token,
    TooOld,
)
from edgecache.words.reasons import PurgeMode
from tests.quickdisk import quick_directory

T = TypeVar("T")
SETTINGS = StoreSettings(size=64 * MIB)
SITE = 9


def row(selector: int, mode: PurgeMode = PurgeMode.REVALIDATE) -> Row:
    return (b"selector %d" % selector, selector, int(mode))


def at_once(function: Callable[..., T], /, *args: Any) -> Deferred[T]:
    return maybeDeferred(function, *args)


@define(eq=False)
class Held:
    """A thread that does nothing until it is told to."""

    waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = field(factory=list)

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self.waiting.append((lambda: function(*args), done))
        return done

    def go(self) -> None:
        function, done = self.waiting.pop(0)
        maybeDeferred(function).chainDeferred(done)


class ControlCase(SynchronousTestCase):
    node_id = "eu-1"

    def make(self, **options: Any) -> Control:
        self.data = quick_directory(self)
        return self.open(**options)

    def open(self, in_thread: Any = at_once, **options: Any) -> Control:
        """Open what lies in ``data``, as a node that starts."""
        self.environments = Environments.open(self.data, SETTINGS, node_process=True)
        self.page = PageWriter.create(os.path.join(self.data, "page"), 1)
        self.opened = [self.page, self.environments]
        self.addCleanup(self.shut)
        return Control.open(
            self.environments.control,
            self.page,
            in_thread,
            node_id=self.node_id,
            incarnation=self.environments.incarnation,
            **options,
        )

    def shut(self) -> None:
        for each in self.opened:
            each.close()
        self.opened = []

    def append(self, control: Control, purge_id: str, *rows: Row, content: bytes = b"content") -> Appended:
        return self.successResultOf(control.append(content, purge_id, rows))


class SerialTests(ControlCase):
    """What purges demand of serials is kept with them."""

    def demand(self, control: Control, serial: int = 0, *, forget: bool = False, site: bool = False) -> None:
        selector = all_selector(SITE) if site else tag_selector(SITE, b"project/six")
        self.count = getattr(self, "count", 0) + 1
        demands = [SerialDemand(all_selector(SITE), selector, serial, forget)]
        self.successResultOf(control.append(b"", str(self.count), [row(self.count)], demands=demands))

    def test_nothing_is_demanded_of_a_project_that_no_purge_named(self) -> None:
        control = self.make()
        self.demand(control, 5)
        self.assertEqual(Demanded(), control.read.demanded(SITE, b"other"))
        self.assertEqual(Demanded(), control.read.demanded(SITE + 1, b"six"))

    def test_serials_only_rise(self) -> None:
        control = self.make()
        for serial in (5, 7, 6):
            self.demand(control, serial)
        self.assertEqual(Demanded(7, 0), control.read.demanded(SITE, b"six"))

    def test_a_purge_that_forgets_says_since_when_serials_count(self) -> None:
        control = self.make()
        self.demand(control, 7)
        self.demand(control, forget=True)
        self.assertEqual(Demanded(0, 2), control.read.demanded(SITE, b"six"))
        self.demand(control, 3)
        self.assertEqual(Demanded(3, 2), control.read.demanded(SITE, b"six"))

    def test_a_purge_may_forget_and_demand_at_once(self) -> None:
        control = self.make()
        self.demand(control, 7)
        self.demand(control, 2, forget=True)
        self.assertEqual(Demanded(2, 2), control.read.demanded(SITE, b"six"))

    def test_what_was_demanded_before_all_of_a_site_was_forgotten_is_void(self) -> None:
        control = self.make()
        self.demand(control, 7)
        self.demand(control, forget=True, site=True)
        self.assertEqual(Demanded(0, 2), control.read.demanded(SITE, b"six"))
        self.assertEqual(Demanded(0, 2), control.read.demanded(SITE, b"other"))
        self.demand(control, 4)
        self.assertEqual(Demanded(4, 2), control.read.demanded(SITE, b"six"))

    def test_copies_and_local_invalidations_demand_as_well_and_a_restart_changes_nothing(self) -> None:
        control = self.make()
        demands = [SerialDemand(all_selector(SITE), tag_selector(SITE, b"project/six"), 5)]
        theirs = LogName("us-1", b"i" * 16)
        for _ in range(2):
            # Once more, and nothing happens.
            self.successResultOf(control.copy(Entry(theirs, 1, 0, 0, "x", b"", b""), [row(11)], demands))
        self.assertEqual(Demanded(5), control.read.demanded(SITE, b"six"))
        self.successResultOf(
            control.local([row(12)], [SerialDemand(all_selector(SITE), tag_selector(SITE, b"project/a"), 6)])
        )
        self.shut()
        control = self.open()
        self.assertEqual(Demanded(5), control.read.demanded(SITE, b"six"))
        self.assertEqual(Demanded(6), control.read.demanded(SITE, b"a"))
        self.assertEqual([1], [head.sequence for head in control.read.heads()])


class SitesTests(ControlCase):
    """Of a site that was not served for a while no purge has named anything."""

    def serve(self, control: Control, *sites: int) -> list[int]:
        """:return: selectors that were invalidated for it."""
        before = control.read.purges().epoch
        self.successResultOf(Deferred.fromCoroutine(control.serve({site: [row(site)] for site in sites})))
        return [selector for _, selector, _ in control.read.rows_since(before)]

    def test_what_was_stored_of_one_that_is_served_again_is_invalidated(self) -> None:
        control = self.make()
        self.assertEqual([], self.serve(control, 1, 2), "of an earlier release nothing is known")
        self.assertEqual([], self.serve(control, 1))
        self.shut()
        control = self.open()
        self.assertEqual([2, 3], self.serve(control, 1, 2, 3))
        self.assertEqual(2, self.page.epoch)
        self.assertEqual([], self.serve(control, 3, 2, 1))

    def test_where_that_cannot_be_written_it_is_not_served(self) -> None:
        control = self.make()
        self.serve(control, 1)
        control.close()
        self.failureResultOf(Deferred.fromCoroutine(control.serve({1: [], 2: []})), ControlFailed)
        self.serve(control, 1)


class AppendingTests(ControlCase):
    def test_a_new_node_has_no_purges(self) -> None:
        control = self.make()
        self.assertEqual(0, self.page.epoch)
        self.assertEqual(Position(control.name, 0), control.head())
        self.assertEqual([], control.read_from(control.head()))
        self.assertEqual([], control.read.rows_since(0))
        self.assertEqual([], control.read.heads())
        self.assertIsNone(control.by_id("nothing"))

    def test_each_selector_gets_the_next_epoch_and_the_last_one_is_published(self) -> None:
        control = self.make()
        first = self.append(control, "a", row(11), row(12, PurgeMode.DELETE))
        second = self.append(control, "b", row(13, PurgeMode.SOFT))
        self.assertEqual(
            (True, 1, 0, 2), (first.new, first.entry.sequence, first.entry.first_epoch, first.entry.last_epoch)
        )
        self.assertEqual((2, 2, 3), (second.entry.sequence, second.entry.first_epoch, second.entry.last_epoch))
        self.assertEqual([(1, 11, 2), (2, 12, 3), (3, 13, 1)], control.read.rows_since(0))
        self.assertEqual([(3, 13, 1)], control.read.rows_since(2))
        self.assertEqual(3, self.page.epoch)

    def test_the_same_id_again_appends_nothing(self) -> None:
        control = self.make()
        first = self.append(control, "a", row(11))
        again = self.append(control, "a", row(11), content=b"other")
        self.assertEqual(Appended(first.entry, new=False), again)
        self.assertEqual((1, 1), (self.page.epoch, control.head().sequence))
        self.assertEqual(first.entry, control.by_id("a"))

    def test_an_id_is_unique_within_one_group_too(self) -> None:
        held = Held()
        control = self.make(in_thread=held)
        answers = [control.append(b"", purge_id, [row(11)]) for purge_id in ("first", "a", "a")]
        held.go()
        held.go()
        self.assertEqual([True, True, False], [self.successResultOf(answer).new for answer in answers])
        self.assertEqual(2, control.head().sequence)

    def test_a_purge_that_selects_nothing_here_is_logged_all_the_same(self) -> None:
        control = self.make()
        entry = self.append(control, "a").entry
        self.assertEqual((1, 0, 0), (entry.sequence, entry.first_epoch, entry.last_epoch))
        self.assertEqual([entry], control.read_from(Position(control.name, 0)))

    def test_ids_and_contents_come_back_octet_for_octet(self) -> None:
        control = self.make()
        purge_id, content = "ü" * 300, bytes(range(256)) * 40
        self.successResultOf(control.append(content, purge_id, [row(2**64 - 1)], b"digest"))
        entry = control.by_id(purge_id)
        assert entry is not None
        self.assertEqual((purge_id, content, b"digest".ljust(16, b"\0")), (entry.purge_id, entry.content, entry.digest))
        self.assertEqual([(1, 2**64 - 1, 2)], control.read.rows_since(0))

    def test_the_strictest_mode_above_the_floor_counts(self) -> None:
        control = self.make()
        self.append(control, "a", row(11, PurgeMode.DELETE), row(11, PurgeMode.SOFT), row(12, PurgeMode.REVALIDATE))
        since = control.read.since
        self.assertEqual(PurgeMode.DELETE, since([11], 0))
        self.assertEqual(PurgeMode.SOFT, since([11], 1))
        self.assertEqual(PurgeMode.REVALIDATE, since([11, 12], 1))
        self.assertIsNone(since([11], 2))
        self.assertIsNone(since([99], 0))
        self.assertEqual({PurgeMode.DELETE: 1, PurgeMode.SOFT: 2}, control.read.last(11))

    def test_a_local_invalidation_has_an_epoch_and_is_in_no_log(self) -> None:
        control = self.make()
        self.append(control, "a", row(11))
        self.assertEqual(3, self.successResultOf(control.local([row(12), row(13)])))
        self.assertEqual(3, self.page.epoch)
        self.assertEqual(1, control.head().sequence)
        self.assertEqual(3, self.successResultOf(control.local([])))


class GroupTests(ControlCase):
    def test_what_arrives_during_a_commit_is_committed_together_next(self) -> None:
        held = Held()
        control = self.make(in_thread=held)
        answers = [control.append(b"", str(number), [row(number)]) for number in range(10)]
        self.assertEqual(1, len(held.waiting))
        held.go()
        self.successResultOf(answers[0])
        for answer in answers[1:]:
            self.assertNoResult(answer)
        held.go()
        self.assertEqual(list(range(2, 11)), [self.successResultOf(answer).entry.sequence for answer in answers[1:]])
        self.assertEqual([], held.waiting)

    def test_nothing_is_published_or_answered_before_the_commit(self) -> None:
        held = Held()
        control = self.make(in_thread=held)
        answer = control.append(b"", "a", [row(11)])
        self.assertNoResult(answer)
        self.assertEqual(0, self.page.epoch)
        held.go()
        self.successResultOf(answer)
        self.assertEqual(1, self.page.epoch)

    def test_the_epoch_is_published_before_the_answer(self) -> None:
        control = self.make()
        seen: list[int] = []
        control.append(b"", "a", [row(11)]).addCallback(lambda _: seen.append(self.page.epoch))
        self.assertEqual([1], seen)

    def test_closing_waits_for_what_was_taken_and_takes_no_more(self) -> None:
        held = Held()
        control = self.make(in_thread=held)
        first, second = control.append(b"", "a", [row(11)]), control.append(b"", "b", [row(11)])
        closed = control.close()
        self.failureResultOf(control.append(b"", "c", [row(11)]), ControlFailed)
        held.go()
        self.assertNoResult(closed)
        held.go()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(closed)
        self.successResultOf(control.close())

    def test_a_disk_that_does_not_keep_up_makes_purges_fail_instead_of_memory_grow(self) -> None:
        held = Held()
        control = self.make(in_thread=held)
        many = [row(number) for number in range(50_000)]
        taken = [control.local(many) for _ in range(5)]
        self.failureResultOf(control.local(many), ControlFailed)
        for _ in range(5):
            self.assertEqual(1, len(held.waiting))
            held.waiting.pop()[1].callback([0])
        for answer in taken:
            self.successResultOf(answer)

    def test_a_row_that_cannot_be_written_is_refused_before_it_joins_a_group(self) -> None:
        held = Held()
        control = self.make(in_thread=held)
        for rows in ([(b"", 1, 9)], [(b"", 1, 0)], [(b"", -1, 2)], [(b"", 1 << 64, 2)]):
            self.assertRaises(ValueError, control.local, rows)
            self.assertRaises(ValueError, control.append, b"", "a", rows)
        self.assertEqual([], held.waiting)

    def test_a_failed_commit_fails_its_group_and_changes_nothing(self) -> None:
        held = Held()
        control = self.make(in_thread=held)
        self.environments.control.env.set_mapsize(1 << 18)
        lost = control.append(b"x" * (1 << 19), "a", [row(11)])
        with_it = control.local([row(12)])
        held.go()
        self.failureResultOf(lost, ControlFailed)
        held.go()
        self.assertEqual(1, self.successResultOf(with_it))
        self.assertIsNone(control.by_id("a"))
        self.assertEqual([(1, 12, 2)], control.read.rows_since(0))


class RestartTests(ControlCase):
    def test_everything_is_there_after_a_restart_and_published_at_once(self) -> None:
        control = self.make()
        entry = self.append(control, "a", row(11), row(12)).entry
        self.shut()
        control = self.open()
        self.assertEqual(2, self.page.epoch)
        self.assertEqual(entry, control.by_id("a"))
        self.assertEqual(2, self.append(control, "b", row(11)).entry.sequence)
        self.assertEqual(3, self.page.epoch)

    def test_a_new_incarnation_begins_another_log(self) -> None:
        control = self.make()
        self.append(control, "a", row(11))
        old = control.name
        self.shut()
        shutil.rmtree(os.path.join(self.data, "control"))
        control = self.open()
        self.assertNotEqual(old, control.name)
        self.assertEqual(0, control.head().sequence)

    def test_a_renamed_node_begins_another_log_and_keeps_its_epochs(self) -> None:
        control = self.make()
        self.append(control, "a", row(11))
        self.shut()
        self.node_id = "eu-2"
        control = self.open()
        self.assertEqual((0, 1), (control.head().sequence, self.page.epoch))
        entry = self.append(control, "b", row(12)).entry
        self.assertEqual((1, 2), (entry.sequence, entry.last_epoch))
        self.assertFalse(self.append(control, "a", row(11)).new)
        self.assertEqual({"eu-1", "eu-2"}, {head.log.id for head in control.read.heads()})

    def test_what_was_answered_survives_kill_9(self) -> None:
        self.data = quick_directory(self)
        code = textwrap.dedent("""
            import os, sys
            from twisted.internet.defer import maybeDeferred
            from edgecache.store.control import Control
            from edgecache.store.environments import Environments
            from edgecache.store.pagewriter import PageWriter
            from edgecache.words.config import StoreSettings
            data = sys.argv[1]
            opened = Environments.open(data, StoreSettings(size=64 << 20), node_process=True)
            page = PageWriter.create(os.path.join(data, "page"), 1)
            control = Control.open(opened.control, page, maybeDeferred, node_id="eu-1", incarnation=opened.incarnation)
            number = 0
            while True:
                number += 1
                control.append(b"", str(number), [(b"s", number, 2)])
                os.write(1, b"%d %d\\n" % (number, page.epoch))
        """)
        answered = 0
        for _ in range(3):
            with subprocess.Popen([sys.executable, "-c", code, self.data], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                lines = [child.stdout.readline() for _ in range(40)]
                child.send_signal(signal.SIGKILL)
                lines += child.stdout.readlines()
            number, epoch = lines[-1].split()
            answered = max(answered, int(number))
            control = self.open()
            rows = control.read.rows_since(0)
            self.assertGreaterEqual(self.page.epoch, int(epoch))
            self.assertEqual(list(range(1, self.page.epoch + 1)), [epoch for epoch, _, _ in rows])
            self.assertEqual(list(range(1, len(rows) + 1)), [selector for _, selector, _ in rows])
            for each in range(1, answered + 1):
                self.assertIsNotNone(control.by_id(str(each)))
            self.shut()


class LogTests(ControlCase):
    other = LogName("us-1", b"u" * 16)

    def entry(self, sequence: int, purge_id: str | None = None) -> Entry:
        return Entry(self.other, sequence, 900, 901, purge_id or f"us {sequence}", b"d" * 16, b"from us")

    def test_a_log_is_read_in_pages_from_any_position(self) -> None:
        control = self.make()
        entries = [self.append(control, str(number), row(number)).entry for number in range(7)]
        start = Position(control.name, 0)
        self.assertEqual(entries[:3], control.read_from(start, 3))
        self.assertEqual(entries[3:6], control.read_from(Position(control.name, 3), 3))
        self.assertEqual(entries[6:], control.read_from(Position(control.name, 6), 3))
        self.assertEqual([], control.read_from(control.head()))
        self.assertEqual(entries[::-1][:2], control.read.recent(control.name, 2))

    def test_an_unknown_log_is_empty(self) -> None:
        control = self.make()
        self.append(control, "a", row(11))
        self.assertEqual([], control.read_from(Position(self.other, 0)))
        self.assertEqual(Position(self.other, 0), control.read.head(self.other))

    def test_a_look_up_says_what_is_applied_by_now_and_is_made_anew_only_when_that_changes(self) -> None:
        control = self.make()
        applied = Applied(control.name, control.read.applied, lambda: 1 << 60)
        before = applied.value()
        self.assertEqual({control.name: 0}, applied.positions())
        self.assertIs(before, applied.value())
        self.successResultOf(control.copy(self.entry(1), [row(12)]))
        # Asked for something older than what was committed since it was last asked.
        self.assertTrue(applied.cover({self.other: 1}))
        self.assertEqual(positions_value({control.name: 0, self.other: 1}), applied.value())
        self.successResultOf(control.append(b"", "p", [row(14)]))
        self.assertEqual({control.name: 1, self.other: 1}, applied.positions())
        self.assertEqual(control.read.purges().epoch, applied._epoch)

    def test_another_nodes_entry_is_applied_with_our_epochs(self) -> None:
        control = self.make()
        self.append(control, "a", row(11))
        copied = self.successResultOf(control.copy(self.entry(1), [row(12), row(13)]))
        assert isinstance(copied, Appended)
        self.assertEqual(evolve(self.entry(1), first_epoch=1, last_epoch=3), copied.entry)
        self.assertEqual(3, self.page.epoch)
        self.assertEqual([copied.entry], control.read_from(Position(self.other, 0)))
        self.assertEqual(copied.entry, control.by_id("us 1"))
        self.assertEqual(1, control.head().sequence)

    def test_a_duplicate_is_taken_once_and_a_gap_is_refused(self) -> None:
        control = self.make()
        first = self.successResultOf(control.copy(self.entry(1), [row(12)]))
        again = self.successResultOf(control.copy(self.entry(1), [row(12)]))
        assert isinstance(first, Appended) and isinstance(again, Appended)
        self.assertEqual((True, False), (first.new, again.new))
        self.assertEqual(Gap(Position(self.other, 1)), self.successResultOf(control.copy(self.entry(3), [row(12)])))
        self.assertEqual(1, self.page.epoch)

    def test_a_purge_that_a_sibling_took_is_not_taken_twice(self) -> None:
        control = self.make()
        self.successResultOf(control.copy(self.entry(1, "shared"), [row(12)]))
        answer = self.append(control, "shared", row(12))
        self.assertEqual((False, self.other), (answer.new, answer.entry.log))


class TrimmingTests(ControlCase):
    def fill(self, control: Control, count: int, per_purge: int = 1) -> None:
        for number in range(count):
            self.append(control, f"{control.name.id} {number}", *[row(number % 7)] * per_purge)

    def test_only_the_newest_epochs_are_kept_and_readers_are_told(self) -> None:
        control = self.make(keep=50)
        self.fill(control, 200)
        trimmed = self.page.trimmed
        self.assertEqual(control.read.purges().trimmed, trimmed)
        self.assertTrue(150 <= trimmed <= 152, trimmed)
        for since in (trimmed, trimmed - 1, 0):
            self.assertEqual(list(range(trimmed + 1, 201)), [each[0] for each in control.read.rows_since(since)])

    def test_a_record_from_before_is_validated(self) -> None:
        control = self.make(keep=50)
        self.fill(control, 200)
        self.assertEqual(PurgeMode.REVALIDATE, control.read.since([99], self.page.trimmed - 1))
        self.assertIsNone(control.read.since([99], self.page.trimmed))

    def test_a_selectors_last_epoch_outlives_its_older_ones(self) -> None:
        control = self.make(keep=50)
        self.append(control, "once", row(1000, PurgeMode.DELETE))
        self.fill(control, 200)
        self.assertEqual({}, control.read.last(1000))
        self.assertEqual({PurgeMode.REVALIDATE: 201 - (199 - 196)}, control.read.last(0))

    def test_logs_are_trimmed_with_their_epochs_and_say_so(self) -> None:
        control = self.make(keep=50)
        self.fill(control, 200)
        old = control.read_from(Position(control.name, 3))
        assert isinstance(old, TooOld)
        entries = control.read_from(old.oldest)
        assert isinstance(entries, list)
        self.assertEqual(list(range(old.oldest.sequence + 1, 201)), [entry.sequence for entry in entries])
        self.assertIsNone(control.by_id("eu-1 3"))
        self.assertIsNotNone(control.by_id("eu-1 199"))

    def test_a_sequence_number_is_never_used_again(self) -> None:
        control = self.make(keep=1)
        self.fill(control, 300)
        self.shut()
        control = self.open(keep=1)
        self.assertEqual(301, self.append(control, "next", row(1)).entry.sequence)

    def test_one_purge_larger_than_what_is_kept_is_forgotten_little_by_little(self) -> None:
        control = self.make(keep=10)
        self.append(control, "large", *(row(number) for number in range(500)))
        self.assertEqual(500, self.page.epoch)
        self.assertEqual(PurgeMode.REVALIDATE, control.read.since([499], 0))
        self.fill(control, 20)
        self.assertEqual(520, self.page.epoch)
        self.assertTrue(self.page.trimmed >= 500)

    def test_purges_for_which_room_has_to_be_made_in_other_transactions_count_as_well(self) -> None:
        """Each is in hundreds of pages, of which there are not many more."""
        control = self.make()
        self.environments.control.env.set_mapsize(1 << 20)
        spread = random.Random(1)
        for number in range(60):
            rows = [row(spread.randrange(1 << 64)) for _ in range(150)]
            self.append(control, str(number), *rows)
            self.assertEqual(PurgeMode.REVALIDATE, control.read.since([rows[75][1]], self.page.epoch - 150))
        self.assertEqual((9000, True), (self.page.epoch, self.page.trimmed > 1000))
        self.assertIsNotNone(control.by_id("59"))

    def test_a_full_map_makes_room_by_forgetting(self) -> None:
        control = self.make()
        self.environments.control.env.set_mapsize(1 << 20)
        for number in range(600):
            self.append(control, str(number), row(number), content=b"x" * 3000)
        self.assertEqual(600, self.page.epoch)
        self.assertTrue(self.page.trimmed > 100)
        self.assertIsNotNone(control.by_id("599"))


class TokenTests(ControlCase):
    def test_tokens_are_kept_as_digests_with_their_scopes(self) -> None:
        control = self.make()
        tokens = [Token("admin", b"a" * 32, ALL_SCOPES), Token("ci", b"c" * 32, frozenset((Scope.PURGE,)))]
        for token in tokens:
            self.successResultOf(control.put_token(token))
        self.shut()
        control = self.open()
        self.assertEqual(tokens, control.read.tokens())

    def test_a_name_is_given_once_and_can_be_taken_back(self) -> None:
        control = self.make()
        for digest in (b"1" * 32, b"2" * 32):
            self.successResultOf(control.put_token(Token("ci", digest, ALL_SCOPES)))
        self.assertEqual([b"2" * 32], [token.digest for token in control.read.tokens()])
        self.assertTrue(self.successResultOf(control.remove_token("ci")))
        self.assertFalse(self.successResultOf(control.remove_token("ci")))
        self.assertEqual([], control.read.tokens())


class FailureTests(ControlCase):
    def test_reading_a_closed_control_is_one_error_of_ours(self) -> None:
        control = self.make()
        self.shut()
        self.assertRaises(ControlFailed, control.by_id, "a")

    def test_a_row_that_is_not_what_we_wrote_is_an_error_of_ours_too(self) -> None:
        control = self.make()
        self.append(control, "a", row(11))
        control_rows = self.environments.control
        with control_rows.env.begin(write=True) as txn:
            txn.put(b"\0" * 7 + b"\1", b"short", db=control_rows.databases[b"epochs"])
        self.assertRaises(ControlFailed, control.read.rows_since, 0)

    def test_damage_is_marked_so_that_the_next_start_begins_anew(self) -> None:
        control = self.make()

        class Damaged:
            def begin(self, write: bool) -> Any:
                raise lmdb.CorruptedError("a page is not what it was")

        whole = self.environments.control.env
        self.environments.control.env = Damaged()  # type: ignore[assignment]  # a disk that went bad
        self.failureResultOf(control.local([row(1)]), ControlFailed)
        self.environments.control.env = whole
        self.assertTrue(Path(self.data, "control.damaged").exists())


class ModelTests(ControlCase):
    """Against a model: a list of rows."""

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 8), st.lists(st.tuples(st.integers(0, 4), st.sampled_from(PurgeMode)), max_size=4)
            ),
            max_size=30,
        ),
        st.integers(3, 30),
    )
    def test_whatever_is_forgotten_no_purge_is_missed(
        self, purges: list[tuple[int, list[tuple[int, PurgeMode]]]], keep: int
    ) -> None:
        control = self.make(keep=keep)
        model: list[tuple[int, PurgeMode]] = []
        seen: set[int] = set()
        for purge_id, selected in purges:
            rows = [row(selector, mode) for selector, mode in selected]
            if purge_id == 8:
                self.successResultOf(control.local(rows))
                model += selected
                continue
            answer = self.append(control, str(purge_id), *rows)
            if answer.new:
                model += selected
                seen.add(purge_id)
        self.assertEqual(len(model), self.page.epoch)
        trimmed = self.page.trimmed
        self.assertEqual(
            [(epoch, selector, int(mode)) for epoch, (selector, mode) in enumerate(model, 1) if epoch > trimmed],
            control.read.rows_since(trimmed),
        )
        for floor in range(len(model) + 1):
            for selector in range(5):
                later = max((mode for each, mode in model[floor:] if each == selector), default=None)
                found = control.read.since([selector], floor)
                if floor >= trimmed:
                    self.assertEqual(later, found)
                else:
                    self.assertTrue(found is not None and found >= (PurgeMode.REVALIDATE))
        self.shut()


class ThreadTests(TestCase):
    """The same on its real thread."""

    async def test_many_purges_at_once_are_all_answered_in_few_commits(self) -> None:
        data = quick_directory(self)
        environments = Environments.open(data, SETTINGS, node_process=True)
        self.addCleanup(environments.close)
        page = PageWriter.create(os.path.join(data, "page"), 1)
        self.addCleanup(page.close)
        thread = OneThread.named(reactor, "control")
        thread.start()
        self.addCleanup(thread.stop)
        control = Control.open(environments.control, page, thread, node_id="eu-1", incarnation=environments.incarnation)
        before = environments.control.env.info()["last_txnid"]
        answers = await gatherResults([control.append(b"", str(number), [row(number)]) for number in range(2000)])
        self.assertEqual(list(range(1, 2001)), [answer.entry.sequence for answer in answers])
        self.assertEqual(2000, page.epoch)
        self.assertLess(environments.control.env.info()["last_txnid"] - before, 200)
        await control.close()
