"""From ranges to whole downloads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.coverage import MOST_STEPS, Coverage

TOTAL = 12
RANGES = st.lists(st.tuples(st.integers(0, TOTAL - 1), st.integers(1, TOTAL)), max_size=12)


class CoverageTests(SynchronousTestCase):
    def took(self, *ranges: tuple[int, int]) -> int:
        coverage = Coverage(100)
        taken = 0
        for first, stop in ranges:
            coverage.add(first, stop)
            taken += coverage.take()
        return taken

    def test_ranges_that_cover_the_file_are_one_download(self) -> None:
        self.assertEqual(1, self.took((0, 40), (40, 70), (70, 100)))

    def test_in_any_order_and_overlapping(self) -> None:
        self.assertEqual(1, self.took((60, 100), (20, 80), (0, 30)))

    def test_a_hole_is_no_download(self) -> None:
        self.assertEqual(0, self.took((0, 40), (41, 100)))

    def test_two_clients_behind_one_address_are_two(self) -> None:
        self.assertEqual(2, self.took((0, 40), (0, 60), (40, 100), (60, 100)))

    def test_what_was_got_twice_without_the_rest_is_none(self) -> None:
        self.assertEqual(0, self.took((90, 100), (90, 100), (0, 80), (0, 80)))

    def test_in_very_many_parts_it_is_no_longer_followed(self) -> None:
        coverage = Coverage(10 * MOST_STEPS)
        for place in range(2 * MOST_STEPS):
            coverage.add(4 * place, 4 * place + 1)
        self.assertLessEqual(len(coverage.starts), MOST_STEPS)

    @given(RANGES)
    def test_the_number_is_how_often_the_rarest_octet_was_sent(self, ranges: list[tuple[int, int]]) -> None:
        coverage, sent, taken = Coverage(TOTAL), [0] * TOTAL, 0
        for first, stop in ranges:
            coverage.add(first, stop)
            taken += coverage.take()
            for octet in range(first, stop):
                sent[octet] += 1
        self.assertEqual(min(sent), taken)
        self.assertEqual(max(sent) == min(sent), coverage.empty)
