"""A worker's view of its upstreams: what the page says, what it saw itself, and what it reports."""

from __future__ import annotations

from typing import Any

import orjson
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.health import EJECTED_WORD, FAILING_WORD, HEALTHY_WORD, SUSPECT_WORD
from edgecache.upstream.addresses import Address, parse_origin, unix_address
from edgecache.upstream.standing import BENCH_SECONDS, REPORT_SECONDS, Standing
from edgecache.words.config import UpstreamSettings
from edgecache.words.reasons import Outcome
from tests.characters import EPOCH

ORIGIN = parse_origin("http://origin.example/below")
ONE = Address(ORIGIN, "192.0.2.1", 80, None, 1)
TWO = Address(ORIGIN, "192.0.2.2", 80, None, 2)
UNSLOTTED = Address(ORIGIN, "192.0.2.3", 80)


class StandingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(EPOCH)
        self.words: dict[int, int] = {}
        self.sent: list[list[list[Any]]] = []
        self.standing = self.new()

    def new(self) -> Standing:
        def notify(op: str, **payload: Any) -> None:
            self.assertEqual("outcomes", op)
            # It has to be JSON.
            self.sent.append(orjson.loads(orjson.dumps(payload))["outcomes"])

        return Standing(lambda slot: self.words.get(slot, HEALTHY_WORD), notify, self.clock, UpstreamSettings())

    def rows(self) -> list[list[Any]]:
        """Slot, goods, kind, times of all rows so far."""
        return [[slot, goods, kind, times] for message in self.sent for slot, _, goods, kind, times, _ in message]


class ShareTests(StandingCase):
    """What the page says."""

    def test_each_word_has_its_share(self) -> None:
        began = int(self.clock.seconds() * 1000)
        self.clock.advance(15.0)
        for word, expected, ejected in (
            (HEALTHY_WORD, 1.0, False),
            (EJECTED_WORD, 0.0, True),
            (SUSPECT_WORD, 0.0, False),
            (FAILING_WORD, 1.0, False),
            (began, 0.5, False),
        ):
            self.words[1] = word
            self.assertEqual((expected, ejected), (self.standing.share(ONE), self.standing.ejected(ONE)), word)

    def test_failing_is_what_is_out_or_only_in_for_want_of_another(self) -> None:
        for word, expected in (
            (HEALTHY_WORD, False),
            (SUSPECT_WORD, False),
            (EJECTED_WORD, True),
            (FAILING_WORD, True),
        ):
            self.words[1] = word
            self.assertEqual(expected, self.standing.failing(ONE), word)
        self.assertFalse(self.standing.failing(UNSLOTTED))

    def test_what_has_no_slot_is_always_well_and_never_reported(self) -> None:
        for address in (UNSLOTTED, unix_address("/owner")):
            self.standing.good(address)
            self.standing.failed(address, Outcome.NO_HEAD, b"/a")
            self.standing.slow_to_connect(address)
            self.assertEqual((1.0, False), (self.standing.share(address), self.standing.ejected(address)))
        self.clock.advance(REPORT_SECONDS)
        self.assertEqual([], self.sent)

    def test_after_a_hang_seen_here_the_next_request_does_not_touch_it(self) -> None:
        for kind in Outcome:
            if kind.hang:
                standing = self.new()
                standing.failed(ONE, kind, None)
                self.assertEqual((0.0, True), (standing.share(ONE), standing.ejected(ONE)))
                self.assertEqual((1.0, False), (standing.share(TWO), standing.ejected(TWO)))
                standing.close()

    def test_what_was_seen_here_counts_until_the_page_must_know(self) -> None:
        self.standing.failed(ONE, Outcome.STALLED, None)
        self.clock.advance(BENCH_SECONDS)
        self.assertEqual((1.0, False), (self.standing.share(ONE), self.standing.ejected(ONE)))

    def test_another_failure_benches_nobody(self) -> None:
        self.standing.failed(ONE, Outcome.LOST, None)
        self.assertEqual(1.0, self.standing.share(ONE))

    def test_one_that_connects_slowly_is_asked_after_the_others_until_it_is_heard_of(self) -> None:
        self.standing.slow_to_connect(ONE)
        self.assertEqual((0.0, False), (self.standing.share(ONE), self.standing.ejected(ONE)))
        self.standing.good(ONE)
        self.assertEqual(1.0, self.standing.share(ONE))

    def test_nothing_that_went_well_makes_a_hang_undone(self) -> None:
        self.standing.failed(ONE, Outcome.NO_HEAD, None)
        self.standing.slow_to_connect(ONE)
        self.standing.good(ONE)
        self.assertTrue(self.standing.ejected(ONE))


class ReportTests(StandingCase):
    """To the node process: failures at once, goods together, and never a flood."""

    def test_a_failure_goes_at_once_with_its_target_and_what_went_well_before(self) -> None:
        self.standing.good(ONE)
        self.standing.good(ONE)
        self.assertEqual([], self.sent)
        self.standing.failed(ONE, Outcome.STALLED, b"/a?\xff")
        name = "http://origin.example (192.0.2.1)"
        self.assertEqual([[[1, name, 2, "stalled", 1, "/below/a?\xff"]]], self.sent)

    def test_what_went_well_goes_together(self) -> None:
        for _ in range(1000):
            self.standing.good(ONE)
        self.standing.good(TWO)
        self.assertEqual([], self.sent)
        self.clock.advance(REPORT_SECONDS)
        self.assertEqual([[1, 1000, None, 0], [2, 1, None, 0]], self.rows())
        self.assertEqual(1, len(self.sent))

    def test_every_hang_that_is_the_first_goes_at_once(self) -> None:
        self.standing.failed(ONE, Outcome.LOST, None)
        self.standing.failed(ONE, Outcome.NO_HEAD, None)
        self.standing.failed(TWO, Outcome.NO_HEAD, None)
        self.assertEqual([[1, 0, "lost", 1], [1, 0, "no-head", 1], [2, 0, "no-head", 1]], self.rows())

    def test_the_one_that_trips_the_breaker_goes_at_once(self) -> None:
        for _ in range(4):
            self.standing.failed(ONE, Outcome.CONNECT_FAILED, None)
        self.standing.failed(ONE, Outcome.CONNECT_FAILED, None)
        self.assertEqual([[1, 0, "connect-failed", 1], [1, 0, "connect-failed", 3]], self.rows())
        self.clock.advance(REPORT_SECONDS)
        self.assertEqual([1, 0, "connect-failed", 1], self.rows()[-1])

    def test_what_is_slow_to_connect_goes_at_once(self) -> None:
        self.standing.slow_to_connect(ONE)
        self.assertEqual([[1, 0, "slow-to-connect", 0]], self.rows())

    def test_a_flood_of_failures_is_a_few_messages_and_all_are_counted(self) -> None:
        for _ in range(10_000):
            self.standing.failed(ONE, Outcome.NO_HEAD, b"/a")
            self.standing.good(ONE)
            self.standing.failed(ONE, Outcome.LOST, b"/a")
            self.standing.slow_to_connect(ONE)
        self.clock.advance(REPORT_SECONDS)
        rows = self.rows()
        self.assertLessEqual(len(self.sent), 5)
        self.assertLess(len(rows), 40)
        self.assertEqual(10_000, sum(goods for _, goods, _, _ in rows))
        self.assertEqual(20_000, sum(times for _, _, _, times in rows))

    def test_a_hang_goes_by_its_own_name_also_at_the_end_of_a_long_report(self) -> None:
        self.standing.failed(ONE, Outcome.LOST, None)
        for _ in range(40):
            self.standing.good(ONE)
            self.standing.failed(ONE, Outcome.LOST, None)
        self.standing.failed(ONE, Outcome.STALLED, None)
        self.assertEqual(3, len(self.sent))
        self.assertEqual("stalled", self.rows()[-1][2])

    def test_what_says_nothing_about_the_address_is_not_told(self) -> None:
        self.standing.failed(ONE, None, b"/a")
        self.standing.failed(ONE, Outcome.GOOD, b"/a")
        self.clock.advance(REPORT_SECONDS)
        self.assertEqual([], self.sent)

    def test_a_target_too_long_to_be_carried_is_left_out(self) -> None:
        self.standing.failed(ONE, Outcome.LOST, b"/" + b"a" * 4000)
        self.assertIsNone(self.sent[0][0][-1])

    def test_news_of_a_tenant_that_has_gone_is_dropped(self) -> None:
        self.standing.good(ONE)
        self.standing.failed(evolve(ONE, host="192.0.2.9"), Outcome.LOST, None)
        self.assertEqual([["http://origin.example (192.0.2.9)", 0]], [[row[1], row[2]] for row in self.sent[0]])

    def test_closing_sends_what_is_left_and_leaves_no_timer(self) -> None:
        self.standing.good(ONE)
        self.standing.close()
        self.assertEqual([[1, 1, None, 0]], self.rows())
        self.assertEqual([], self.clock.getDelayedCalls())

    @settings(max_examples=100)
    @given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(Outcome), st.sampled_from((0.0, 0.1))), max_size=80))
    def test_no_outcome_is_lost_and_no_hang_goes_by_another_name(self, told: list[Any]) -> None:
        self.sent.clear()
        standing = self.new()
        for slot, kind, seconds in told:
            address = Address(ORIGIN, f"192.0.2.{slot}", 80, None, slot)
            if kind is Outcome.GOOD:
                standing.good(address)
            elif kind is Outcome.SLOW_TO_CONNECT:
                standing.slow_to_connect(address)
            else:
                standing.failed(address, kind, None)
            self.clock.advance(seconds)
        standing.close()
        for slot in (1, 2, 3):
            mine = [kind for one, kind, _ in told if one == slot]
            rows = [row for row in self.rows() if row[0] == slot]
            self.assertEqual(mine.count(Outcome.GOOD), sum(row[1] for row in rows))
            self.assertEqual(sum(kind.failure for kind in mine), sum(row[3] for row in rows))
            self.assertEqual(
                any(kind.hang for kind in mine), any(row[2] is not None and Outcome(row[2]).hang for row in rows)
            )


class EjectedTests(StandingCase):
    """Fills that still wait for a head are told when an address is ejected."""

    def test_every_watcher_is_told_of_every_slot(self) -> None:
        first: list[int] = []
        second: list[int] = []
        self.standing.on_ejected(first.append)
        cancel = self.standing.on_ejected(second.append)
        self.standing.told_ejected([1, 2])
        cancel()
        cancel()
        self.standing.told_ejected([3])
        self.assertEqual(([1, 2, 3], [1, 2]), (first, second))

    def test_one_that_was_ended_meanwhile_is_not_told(self) -> None:
        told: list[int] = []
        cancels: list[Any] = []
        self.standing.on_ejected(lambda slot: cancels.pop()() if cancels else None)
        cancels.append(self.standing.on_ejected(told.append))
        self.standing.told_ejected([1])
        self.assertEqual([], told)

    def test_one_may_begin_to_watch_within(self) -> None:
        self.standing.on_ejected(lambda slot: self.standing.on_ejected(self.fail) and None)
        self.standing.told_ejected([1])
