"""Places in all logs as one string."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.cursors import cursor_of, log_number, places_of
from edgecache.words.purging import LogName

NUMBERS = st.integers(0, (1 << 64) - 1)


class CursorTests(SynchronousTestCase):
    @settings(max_examples=50)
    @given(st.dictionaries(NUMBERS, NUMBERS, max_size=9))
    def test_what_was_written_is_read_and_one_place_has_one_string(self, places: dict[int, int]) -> None:
        cursor = cursor_of(places)
        self.assertEqual(places, places_of(cursor))
        self.assertEqual(cursor, cursor_of(dict(reversed(places.items()))))

    def test_it_can_stand_in_a_query_and_in_an_event(self) -> None:
        self.assertRegex(cursor_of({(1 << 64) - 1: 62}), r"\A[A-Za-z0-9_-]+\Z")

    def test_what_was_cut_short_or_mistyped_is_none(self) -> None:
        good = cursor_of({1: 2, 3: 4})
        for bad in ("", "x", "é", "AAAA", good[:-1], good[1:], good + "A", good.swapcase(), "A" * 100_000):
            self.assertIsNone(places_of(bad), bad[:60])

    def test_a_log_begun_anew_is_another_log(self) -> None:
        self.assertNotEqual(log_number(LogName("a", b"1" * 16)), log_number(LogName("a", b"2" * 16)))
