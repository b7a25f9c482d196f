"""How long a dead worker's place stays empty."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.supervising import restart_after


class RestartTests(SynchronousTestCase):
    def test_one_that_was_steady_is_replaced_at_once(self) -> None:
        self.assertEqual(0.0, restart_after(5.0, lived=60.0))

    def test_one_that_dies_young_again_and_again_waits_twice_as_long_each_time(self) -> None:
        waits = [0.0]
        for _ in range(5):
            waits.append(restart_after(waits[-1], lived=0.5))
        self.assertEqual([0.1, 0.2, 0.4, 0.8, 1.6], waits[1:])

    @given(st.floats(0, 1e6), st.floats(0, 1e6))
    @settings(max_examples=100)
    def test_no_wait_is_longer_than_ten_seconds(self, previous: float, lived: float) -> None:
        self.assertTrue(0.0 <= restart_after(previous, lived) <= 10.0)
