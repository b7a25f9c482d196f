"""When an address is asked less, or not at all, and when it comes back (FIELD 1, DESIGN 8)."""

from __future__ import annotations

from math import inf
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.health import (
    EJECTED_WORD,
    FAILING_WORD,
    FIRST_MILLISECOND,
    HEALTHY_WORD,
    LEAST_SHARE,
    SOON_SECONDS,
    SUSPECT_WORD,
    Change,
    Health,
    State,
    share,
)
from edgecache.words.config import UpstreamSettings
from edgecache.words.reasons import Outcome

NOW = 1_000_000.0
HANGS = (Outcome.CONNECT_TIMED_OUT, Outcome.NO_HEAD, Outcome.STALLED, Outcome.TOO_SLOW)
OTHERS = tuple(kind for kind in Outcome if kind.failure and not kind.hang)


def of(**changed: Any) -> Health:
    return Health(UpstreamSettings(**changed), NOW)


def tell(
    health: Health, outcome: Outcome | None, *, goods: int = 0, now: float = NOW, last: bool = False, times: int = 1
) -> Change | None:
    return health.tell(goods, outcome, now, 0.0, last=last, times=times)


def ejected(now: float = NOW, **changed: Any) -> Health:
    """:return: one that was ejected for a hang."""
    health = of(**changed)
    tell(health, Outcome.NO_HEAD, now=now)
    return health


def probing(now: float = NOW) -> Health:
    """:return: one whose half-open probe begins at ``now``."""
    health = ejected(now - 10.0)
    health.look(now)
    assert health.state is State.PROBING
    return health


class TripTests(SynchronousTestCase):
    """One hang or stall, or three others in a row, or half of ten or more in 10 s."""

    def test_one_hang_or_stall_ejects(self) -> None:
        for kind in HANGS:
            health = of()
            change = tell(health, kind)
            assert change is not None
            self.assertEqual((State.HEALTHY, State.EJECTED, kind), (change.before, change.state, change.outcome))
            self.assertTrue(change.ejected)
            self.assertEqual(EJECTED_WORD, health.word)
            self.assertIn(kind.value, health.reason)

    def test_three_others_in_a_row_eject_and_two_do_not(self) -> None:
        for kind in OTHERS:
            health = of()
            self.assertIsNone(tell(health, kind))
            self.assertIsNone(tell(health, kind))
            change = tell(health, kind)
            assert change is not None
            self.assertIs(State.EJECTED, change.state)
            self.assertEqual(f"{kind.value}, 3 failures in a row", change.reason)

    def test_three_told_at_once_are_three(self) -> None:
        self.assertIsNotNone(tell(of(), Outcome.LOST, times=3))

    def test_one_that_goes_well_ends_a_row(self) -> None:
        health = of(trip_requests=100)
        for _ in range(10):
            self.assertIsNone(tell(health, Outcome.LOST, times=2))
            self.assertIsNone(tell(health, None, goods=1))

    def test_failures_told_with_goods_may_have_them_in_between(self) -> None:
        health = of(trip_requests=1000)
        self.assertIsNone(tell(health, Outcome.LOST, goods=50, times=50))
        self.assertIsNone(tell(health, Outcome.LOST))
        self.assertIsNotNone(tell(health, Outcome.LOST))

    def test_half_of_ten_eject_and_four_do_not(self) -> None:
        health = of()
        for _ in range(4):
            self.assertIsNone(tell(health, Outcome.ERROR_STATUS, goods=1))
        self.assertIsNone(tell(health, None, goods=1))
        change = tell(health, Outcome.ERROR_STATUS)
        assert change is not None
        self.assertEqual("error-status, 5 failures of 10 requests", change.reason)

    def test_half_of_fewer_than_ten_is_chance(self) -> None:
        health = of()
        for _ in range(4):
            self.assertIsNone(tell(health, Outcome.ERROR_STATUS, goods=1))

    def test_what_is_older_than_the_window_does_not_count(self) -> None:
        health = of()
        for _ in range(4):
            tell(health, Outcome.LOST, goods=1)
        tell(health, None, goods=2, now=NOW + 10.5)
        self.assertIsNone(tell(health, Outcome.LOST, goods=0, now=NOW + 10.6))

    def test_what_goes_well_is_no_change(self) -> None:
        self.assertIsNone(tell(of(), None, goods=1000))


class EjectionTests(SynchronousTestCase):
    """10 s x 2^(n-1) up to 300 s, jitter 20 %; one half-open probe."""

    def test_the_first_lasts_ten_seconds(self) -> None:
        self.assertEqual(NOW + 10.0, ejected().until)

    def test_jitter_is_a_fifth_either_way(self) -> None:
        for jitter, expected in ((-1.0, 8.0), (1.0, 12.0)):
            health = of()
            health.tell(0, Outcome.STALLED, NOW, jitter, last=False)
            self.assertEqual(NOW + expected, health.until)

    def test_a_failed_probe_doubles_it_up_to_the_longest(self) -> None:
        health, now, lengths = ejected(), NOW, []
        for _ in range(8):
            lengths.append(health.until - now)
            now = health.until
            self.assertIsNotNone(health.look(now))
            change = health.probed(Outcome.CONNECT_FAILED, now, 0.0, last=False)
            assert change is not None
            self.assertEqual((State.PROBING, State.EJECTED, False), (change.before, change.state, change.ejected))
        self.assertEqual([10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0], lengths)
        self.assertEqual(9, health.ejections(now))

    def test_it_is_probed_when_its_time_is_over_and_not_before(self) -> None:
        health = ejected()
        self.assertIsNone(health.look(NOW + 9.9))
        change = health.look(NOW + 10.0)
        assert change is not None
        self.assertEqual((State.PROBING, False, False), (change.state, change.ejected, change.returned))
        self.assertEqual(EJECTED_WORD, health.word)
        self.assertIsNone(health.look(NOW + 1000.0))

    def test_nothing_but_a_probe_brings_it_back(self) -> None:
        """Exchanges that began before prove nothing."""
        for health in (ejected(), probing()):
            state = health.state
            self.assertIsNone(tell(health, None, goods=1000))
            self.assertIsNone(tell(health, Outcome.NO_HEAD))
            self.assertIsNone(tell(health, Outcome.SLOW_TO_CONNECT))
            self.assertIs(state, health.state)

    def test_one_that_flaps_stays_out_longer_each_time(self) -> None:
        health, now, lengths = of(), NOW, []
        for _ in range(5):
            tell(health, Outcome.STALLED, now=now)
            lengths.append(health.until - now)
            now = health.until
            health.look(now)
            health.probed(Outcome.GOOD, now, 0.0, last=False)
            now += 35.0  # slow start is over, and all is well
            health.look(now)
            tell(health, None, goods=10, now=now)
            self.assertIs(State.HEALTHY, health.state)
        self.assertEqual([10.0, 20.0, 40.0, 80.0, 160.0], lengths)

    def test_one_that_was_well_for_long_begins_anew(self) -> None:
        health = ejected()
        health.look(NOW + 10.0)
        health.probed(Outcome.GOOD, NOW + 10.0, 0.0, last=False)
        back = NOW + 10.0 + 30.0 + 10.0  # slow start, and as long as it was out
        self.assertEqual(1, health.ejections(back - 0.1))
        self.assertEqual(0, health.ejections(back))
        tell(health, Outcome.STALLED, now=back)
        self.assertEqual((1, 10.0), (health.ejections(back), health.until - back))

    def test_where_all_fail_it_is_probed_soon_however_often_it_has_failed(self) -> None:
        health = ejected(eject_seconds=10.0)
        for now in (NOW + 10.0, NOW + 30.0):
            health.look(now)
            health.probed(Outcome.CONNECT_FAILED, now, 0.0, last=False)
        self.assertEqual(NOW + 70.0, health.until)
        health.hasten(NOW + 50.0)
        self.assertEqual(NOW + 50.0, health.until)

    def test_but_a_second_after_it_was_heard_of_last_and_no_later_than_it_would_be(self) -> None:
        for eject_seconds, soon in ((10.0, SOON_SECONDS), (0.5, 0.5)):
            health = ejected(eject_seconds=eject_seconds)
            health.hasten(NOW)
            self.assertEqual(NOW + soon, health.until)
            health.hasten(NOW + 0.4)
            self.assertEqual(NOW + soon, health.until)


class HeardAgainTests(SynchronousTestCase):
    """A sibling's control calls succeed again: what is known of its contents is old."""

    def out(self, number: int) -> tuple[Health, float]:
        """:return: one that has been ejected so often in a row, and when that was last."""
        health, now = ejected(), NOW
        for _ in range(number - 1):
            now = health.until
            self.probe_fails(health, now)
        return health, now

    def probe_fails(self, health: Health, now: float) -> None:
        self.assertIsNotNone(health.look(now))
        health.probed(Outcome.NO_HEAD, now, 0.0, last=False)

    def test_it_is_probed_at_once_and_comes_back_by_that_alone(self) -> None:
        health, at = self.out(5)
        self.assertEqual(at + 160.0, health.until)
        health.heard_again(at + 79.0)
        self.assertEqual((State.EJECTED, EJECTED_WORD, at + 79.0), (health.state, health.word, health.until))
        change = health.look(at + 79.0)
        assert change is not None
        self.assertEqual((State.PROBING, "its node is heard of again"), (change.state, change.reason))
        health.probed(Outcome.GOOD, at + 79.0, 0.0, last=False)
        self.assertIs(State.RECOVERING, health.state)

    def test_but_a_second_after_it_was_heard_of_last(self) -> None:
        health, at = self.out(5)
        health.heard_again(at)
        self.assertEqual(at + SOON_SECONDS, health.until)

    def test_where_that_fails_it_is_tried_once_more_soon_and_it_does_not_count(self) -> None:
        """A node answers control calls before its workers answer anybody."""
        health, at = self.out(5)
        back = at + 79.0
        health.heard_again(back)
        self.probe_fails(health, back)
        self.assertEqual((5, back + 10.0), (health.ejections(back), health.until))
        self.probe_fails(health, back + 10.0)
        self.assertEqual((6, back + 10.0 + 300.0), (health.ejections(back), health.until))

    def test_a_probe_that_began_before_does_not_count_either(self) -> None:
        health, at = self.out(5)
        health.look(at + 160.0)
        health.heard_again(at + 161.0)
        health.probed(Outcome.CONNECT_TIMED_OUT, at + 162.0, 0.0, last=False)
        self.assertEqual((5, at + 172.0), (health.ejections(at), health.until))

    def test_one_that_is_heard_of_again_and_again_is_probed_twice_in_each_of_its_times(self) -> None:
        """Calls go one way only, say."""
        health, now = self.out(1)
        probed = []
        for _ in range(700):
            now += 1.0
            health.heard_again(now)
            if now >= health.until:
                probed.append(now - NOW)
                self.probe_fails(health, now)
        self.assertEqual([1.0, 11.0, 21.0, 31.0, 61.0, 71.0, 141.0, 151.0, 301.0, 311.0, 601.0, 611.0], probed)

    def test_one_that_flaps_stays_out_longer_each_time_all_the_same(self) -> None:
        health, now, lengths = of(), NOW, []
        for _ in range(5):
            tell(health, Outcome.STALLED, now=now)
            began = now
            while health.state is State.EJECTED:
                now += 1.0
                health.heard_again(now)
                health.look(now)
            lengths.append(now - began)
            health.probed(Outcome.GOOD, now, 0.0, last=False)
            now += 5.0
        self.assertEqual([1.0, 15.0, 35.0, 75.0, 155.0], lengths)

    def test_who_is_in_service_is_none_of_it(self) -> None:
        for health in (of(), (suspect := of())):
            tell(suspect, Outcome.SLOW_TO_CONNECT)
            before = health.state, health.until
            health.heard_again(NOW)
            self.assertEqual(before, (health.state, health.until))


class RecoveryTests(SynchronousTestCase):
    """Slow start 30 s."""

    def test_after_a_good_probe_it_recovers_slowly(self) -> None:
        health = probing()
        change = health.probed(Outcome.GOOD, NOW, 0.0, last=False)
        assert change is not None
        self.assertEqual((State.RECOVERING, True), (change.state, change.returned))
        shares = [share(health.word, NOW + seconds, 30.0) for seconds in (0.0, 3.0, 15.0, 29.0, 30.0)]
        self.assertEqual([LEAST_SHARE, 0.1, 0.5], [round(one, 6) for one in shares[:3]])
        self.assertLess(shares[3], 1.0)
        self.assertEqual(1.0, shares[4])

    def test_slow_start_ends(self) -> None:
        health = probing()
        health.probed(Outcome.GOOD, NOW, 0.0, last=False)
        self.assertIsNone(health.look(NOW + 29.9))
        change = health.look(NOW + 30.0)
        assert change is not None
        self.assertEqual((State.HEALTHY, HEALTHY_WORD), (change.state, health.word))

    def test_it_may_be_turned_off(self) -> None:
        health = ejected(slow_start_seconds=0.0)
        health.look(NOW + 10.0)
        health.probed(Outcome.GOOD, NOW + 10.0, 0.0, last=False)
        self.assertEqual((State.HEALTHY, HEALTHY_WORD), (health.state, health.word))
        self.assertEqual(1.0, share(FIRST_MILLISECOND, 1.0, 0.0))

    def test_old_failures_are_forgotten(self) -> None:
        health = of(eject_seconds=1.0)
        tell(health, Outcome.LOST, times=20)
        health.look(NOW + 1.0)
        health.probed(Outcome.GOOD, NOW + 1.0, 0.0, last=False)
        self.assertIsNone(tell(health, Outcome.LOST, now=NOW + 1.1))
        self.assertIsNone(tell(health, Outcome.LOST, now=NOW + 1.2))

    def test_a_hang_while_it_recovers_ejects_it_for_longer(self) -> None:
        health = probing()
        health.probed(Outcome.GOOD, NOW, 0.0, last=False)
        tell(health, Outcome.STALLED, now=NOW + 1.0)
        self.assertEqual((State.EJECTED, NOW + 21.0), (health.state, health.until))


class LastOneTests(SynchronousTestCase):
    """The only remaining address is never ejected."""

    def test_it_stays_and_says_why_once(self) -> None:
        health = of()
        change = tell(health, Outcome.NO_HEAD, last=True)
        assert change is not None
        self.assertEqual((True, State.HEALTHY, Outcome.NO_HEAD), (change.spared, change.state, change.outcome))
        self.assertFalse(change.ejected)
        self.assertIsNone(tell(health, Outcome.NO_HEAD, last=True))

    def test_its_word_says_that_it_fails_until_something_goes_well(self) -> None:
        """So that nobody waits for it who need not."""
        health = of()
        tell(health, Outcome.NO_HEAD, last=True)
        self.assertEqual((FAILING_WORD, 1.0), (health.word, share(health.word, NOW, 30.0)))
        tell(health, None, goods=1, last=True)
        self.assertEqual(HEALTHY_WORD, health.word)

    def test_where_nobody_asks_it_it_is_asked_each_time_an_ejection_would_have_taken(self) -> None:
        """A quiet site would call it failing for hours after it is well"""
        health = of()
        self.assertEqual(inf, health.next_at)
        tell(health, Outcome.NO_HEAD, last=True)
        tell(health, Outcome.NO_HEAD, last=True, now=NOW + 3.0)
        self.assertEqual(NOW + 13.0, health.next_at)
        self.assertFalse(health.is_to_be_asked(NOW + 12.9))
        self.assertEqual([True, False], [health.is_to_be_asked(NOW + 13.0) for _ in range(2)])
        self.assertEqual(NOW + 23.0, health.next_at)
        tell(health, None, goods=1, last=True, now=NOW + 14.0)
        self.assertEqual(inf, health.next_at)
        other = probing()
        other.readmit(NOW)
        self.assertEqual(NOW + 10.0, other.next_at)
        other.release(NOW + 1.0, 0.0, last=False)
        self.assertEqual(other.until, other.next_at)

    def test_it_leaves_when_another_is_back_and_nothing_went_well_since(self) -> None:
        health = of()
        tell(health, Outcome.NO_HEAD, last=True)
        self.assertIsNone(health.release(NOW + 5.0, 0.0, last=True))
        change = health.release(NOW + 5.0, 0.0, last=False)
        assert change is not None
        self.assertTrue(change.ejected)
        self.assertEqual(NOW + 15.0, health.until)

    def test_it_stays_when_something_went_well_since(self) -> None:
        health = of()
        tell(health, Outcome.NO_HEAD, last=True)
        tell(health, None, goods=1, last=True)
        self.assertIsNone(health.release(NOW + 5.0, 0.0, last=False))

    def test_failures_count_though_it_stayed(self) -> None:
        health = of()
        tell(health, Outcome.LOST, times=5, last=True)
        change = tell(health, Outcome.LOST)
        assert change is not None
        self.assertIs(State.EJECTED, change.state)

    def test_one_that_is_out_is_asked_again_when_it_is_all_there_is(self) -> None:
        for health in (ejected(), probing()):
            change = health.readmit(NOW)
            assert change is not None
            self.assertEqual((State.HEALTHY, True, FAILING_WORD), (change.state, change.returned, health.word))
            # It has proved nothing since, and what it did is said on, once.
            for times in range(2):
                assert health.spared is not None
                self.assertEqual("no-head", health.spared.reason)
                released = health.release(NOW + 1.0 + times, 0.0, last=False)
                assert released is not None
                self.assertEqual((State.EJECTED, "no-head, and another one is back"), (released.state, released.reason))
                health.readmit(NOW + 1.5 + times)
        self.assertIsNone(of().readmit(NOW))

    def test_an_earlier_slow_start_does_not_go_on(self) -> None:
        health = probing()
        health.probed(Outcome.GOOD, NOW, 0.0, last=False)
        tell(health, Outcome.STALLED, now=NOW + 1.0)
        health.readmit(NOW + 2.0)
        tell(health, Outcome.SLOW_TO_CONNECT, now=NOW + 3.0)
        tell(health, None, goods=1, now=NOW + 4.0)
        self.assertIs(State.HEALTHY, health.state)

    def test_the_probe_of_one_that_was_needed_meanwhile_counts_like_any_request(self) -> None:
        health = probing()
        health.readmit(NOW)
        self.assertIsNone(health.probed(Outcome.GOOD, NOW, 0.0, last=True))
        self.assertIsNone(health.spared)


class SuspectTests(SynchronousTestCase):
    """Slow to connect: not a failure, but the others come first meanwhile."""

    def test_it_is_asked_after_the_others_and_is_not_ejected(self) -> None:
        health = of()
        change = tell(health, Outcome.SLOW_TO_CONNECT)
        assert change is not None
        self.assertEqual((State.SUSPECT, False), (change.state, change.ejected))
        self.assertEqual((SUSPECT_WORD, 0.0), (health.word, share(health.word, NOW, 30.0)))

    def test_it_is_none_once_something_is_heard_of_it(self) -> None:
        for told in ({"outcome": None, "goods": 1}, {"outcome": Outcome.LOST}):
            health = of()
            tell(health, Outcome.SLOW_TO_CONNECT)
            change = tell(health, **told)  # type: ignore[arg-type]  # one shape or the other
            assert change is not None
            self.assertIs(State.HEALTHY, change.state)

    def test_a_hang_of_it_ejects(self) -> None:
        health = of()
        tell(health, Outcome.SLOW_TO_CONNECT)
        change = tell(health, Outcome.CONNECT_TIMED_OUT)
        assert change is not None
        self.assertTrue(change.ejected)

    def test_after_the_connect_deadline_somebody_has_to_look(self) -> None:
        health = of()
        tell(health, Outcome.SLOW_TO_CONNECT)
        # The same again does not prolong it.
        self.assertIsNone(tell(health, Outcome.SLOW_TO_CONNECT, now=NOW + 1.0))
        health.look(NOW + 1.9)
        self.assertFalse(health.unsettled)
        self.assertIsNone(health.look(NOW + 2.0))
        self.assertTrue(health.unsettled)
        self.assertIsNotNone(health.probed(Outcome.GOOD, NOW + 2.1, 0.0, last=False))
        self.assertEqual((State.HEALTHY, False), (health.state, health.unsettled))

    def test_slow_start_goes_on_after_it(self) -> None:
        health = probing()
        health.probed(Outcome.GOOD, NOW, 0.0, last=False)
        word = health.word
        tell(health, Outcome.SLOW_TO_CONNECT, now=NOW + 5.0)
        tell(health, None, goods=1, now=NOW + 6.0)
        self.assertEqual((State.RECOVERING, word, NOW + 30.0), (health.state, health.word, health.until))


# What may happen to an address, each with the seconds that pass before.
FAILURES = st.sampled_from([kind for kind in Outcome if kind is not Outcome.GOOD])
TOLD = st.tuples(st.just("tell"), st.integers(0, 20), FAILURES | st.none(), st.integers(1, 20), st.booleans())
PROBED = st.tuples(st.just("probed"), st.sampled_from(Outcome), st.booleans())
PLAIN = st.sampled_from([("look",), ("hasten",), ("heard_again",), ("readmit",), ("release", True), ("release", False)])
STEPS = st.lists(st.tuples(st.floats(0.0, 400.0), st.floats(-1.0, 1.0), st.one_of(TOLD, PROBED, PLAIN)), max_size=40)


def act(health: Health, now: float, jitter: float, step: tuple[Any, ...]) -> Change | None:
    match step:
        case ("tell", goods, outcome, times, last):
            return health.tell(goods, outcome, now, jitter, last=last, times=times)
        case ("probed", outcome, last):
            return health.probed(outcome, now, jitter, last=last)
        case ("readmit",):
            return health.readmit(now)
        case ("release", last):
            return health.release(now, jitter, last=last)
        case ("hasten",):
            health.hasten(now)
            return None
        case ("heard_again",):
            health.heard_again(now)
            return None
    return health.look(now)


class HealthProperties(SynchronousTestCase):
    """Whatever happens, in whatever order."""

    @settings(max_examples=100)
    @given(STEPS)
    def test_the_last_one_never_leaves_and_only_a_probe_or_need_brings_one_back(self, steps: list[Any]) -> None:
        health, now = of(), NOW
        for seconds, jitter, step in steps:
            now += seconds
            before, was_in_service = health.state, health.in_service
            change = act(health, now, jitter, step)
            if step[-1] is True:
                self.assertFalse(was_in_service and not health.in_service, step)
            if health.in_service and not was_in_service:
                self.assertIn(step[0], ("probed", "readmit"))
                self.assertTrue(step[0] == "readmit" or not step[1].failure)
            # Every change is told, and none that is none.
            told = change is not None and change.state is not change.before
            self.assertEqual(before is not health.state, told, step)
            if change is not None:
                self.assertIs(health.state, change.state)
                self.assertIs(before, change.before)
                self.assertTrue(change.reason)

    @settings(max_examples=100)
    @given(STEPS)
    def test_an_ejection_is_as_long_as_its_number_says(self, steps: list[Any]) -> None:
        """Unless its number is that of before: a probe for news of it has failed."""
        health, now = of(), NOW
        for seconds, jitter, step in steps:
            now += seconds
            before = health.ejections(now)
            change = act(health, now, jitter, step)
            if change is not None and change.state is State.EJECTED:
                number = health.ejections(now)
                nominal = 10.0 if number == before else min(300.0, 10.0 * 2 ** (number - 1))
                self.assertAlmostEqual(nominal * (1 + 0.2 * jitter), health.until - now, places=3)

    @settings(max_examples=100)
    @given(STEPS)
    def test_the_word_says_what_the_state_is(self, steps: list[Any]) -> None:
        health, now = of(), NOW
        for seconds, jitter, step in steps:
            now += seconds
            act(health, now, jitter, step)
            got = share(health.word, now, 30.0)
            self.assertTrue(0.0 <= got <= 1.0)
            self.assertEqual(health.state in (State.HEALTHY, State.RECOVERING), got > 0.0)
            self.assertEqual(health.in_service, health.word != EJECTED_WORD)
            if health.state is State.HEALTHY:
                self.assertEqual(1.0, got)

    @settings(max_examples=100)
    @given(st.integers(FIRST_MILLISECOND, 1 << 50), st.floats(0.0, 100.0), st.floats(0.0, 100.0), st.floats(0.0, 60.0))
    def test_a_share_only_grows(self, word: int, first: float, more: float, slow_start: float) -> None:
        then = word / 1000 + first
        self.assertLessEqual(share(word, then, slow_start), share(word, then + more, slow_start))

    @settings(max_examples=100)
    @given(st.lists(st.tuples(st.floats(0.0, 5.0), st.sampled_from(Outcome)), max_size=60))
    def test_what_only_goes_well_or_is_slow_to_connect_never_leaves(self, told: list[Any]) -> None:
        health, now = of(), NOW
        for seconds, outcome in told:
            now += seconds
            if outcome.failure:
                outcome = Outcome.GOOD
            health.tell(int(outcome is Outcome.GOOD), outcome, now, 0.0, last=False)
            health.look(now)
            self.assertTrue(health.in_service)
