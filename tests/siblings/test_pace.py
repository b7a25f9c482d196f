"""A bucket that fills steadily."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.siblings.pace import BURST_SECONDS, Pace


class PaceTests(SynchronousTestCase):
    def test_after_quiet_a_burst_is_taken_and_then_one_per_interval(self) -> None:
        pace = Pace(2.0)
        self.assertEqual([0.0] * 10, [pace.take(100.0) for _ in range(10)])
        self.assertEqual(0.5, pace.take(100.0))
        self.assertEqual(0.25, pace.take(100.25))
        self.assertEqual(0.0, pace.take(100.5))
        self.assertEqual(0.5, pace.take(100.5))

    def test_less_than_one_in_a_burst_is_still_one(self) -> None:
        pace = Pace(0.1)
        self.assertEqual(0.0, pace.take(0.0))
        self.assertAlmostEqual(10.0, pace.take(0.0))

    def test_a_clock_that_goes_back_gives_nothing_away(self) -> None:
        pace = Pace(0.1)
        pace.take(100.0)
        self.assertGreater(pace.take(50.0), 0.0)

    @settings(max_examples=50)
    @given(st.floats(0.1, 1000), st.lists(st.floats(0, 2), max_size=200))
    def test_the_long_run_is_never_exceeded_and_waiting_as_told_suffices(
        self, per_second: float, gaps: list[float]
    ) -> None:
        pace, now, taken = Pace(per_second), 0.0, 0
        for gap in gaps:
            now += gap
            wait = pace.take(now)
            if wait:
                now += wait * 1.000001
                wait = pace.take(now)
            self.assertEqual(0.0, wait)
            taken += 1
        self.assertLessEqual(taken, max(1.0, per_second * BURST_SECONDS) + now * per_second + 1)
