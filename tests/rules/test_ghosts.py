"""A table of fixed size that knows what was evicted not long ago."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.ghosts import Ghosts, octets_for

MIB = 1 << 20


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


class GhostsTests(SynchronousTestCase):
    def ghosts(self, entries: int = 4096) -> Ghosts:
        return Ghosts(memoryview(bytearray(octets_for(entries))))

    def test_what_was_evicted_is_known_once(self) -> None:
        ghosts = self.ghosts()
        ghosts.add(key(1), MIB)
        self.assertEqual([False, True, False], [ghosts.take(key(number), 10 * MIB) for number in (2, 1, 1)])

    def test_it_is_known_until_so_much_else_was_evicted(self) -> None:
        for later, known in ((9, True), (10, False)):
            ghosts = self.ghosts()
            ghosts.add(key(0), MIB)
            for number in range(later):
                ghosts.add(key(1 + number), MIB)
            self.assertEqual(known, ghosts.take(key(0), 10 * MIB))

    def test_the_same_key_evicted_again_takes_one_place(self) -> None:
        ghosts = self.ghosts(1)
        for number in range(7):
            ghosts.add(key(number), 5000)
        for _ in range(20):
            ghosts.add(key(50), 5000)
        self.assertTrue(all(ghosts.take(key(number), MIB) for number in range(7)))

    def test_a_full_bucket_forgets_its_oldest(self) -> None:
        ghosts = self.ghosts(1)
        for number in range(9):
            ghosts.add(key(number), MIB)
        self.assertEqual([False] + [True] * 8, [ghosts.take(key(number), 100 * MIB) for number in range(9)])

    def test_half_full_it_forgets_next_to_nothing(self) -> None:
        ghosts = self.ghosts(4096)
        for number in range(2048):
            ghosts.add(key(number), MIB)
        self.assertGreater(sum(ghosts.take(key(number), 1 << 50) for number in range(2048)), 2000)

    def test_another_process_sees_it_in_the_same_buffer(self) -> None:
        buffer = memoryview(bytearray(octets_for(64)))
        Ghosts(buffer).add(key(1), MIB)
        self.assertTrue(Ghosts(buffer).take(key(1), 2 * MIB))

    @given(st.binary(min_size=octets_for(8), max_size=octets_for(8)), st.integers(0, 1 << 40))
    def test_whatever_lies_in_the_buffer_it_goes_on(self, octets: bytes, evicted: int) -> None:
        ghosts = Ghosts(memoryview(bytearray(octets)))
        ghosts.take(key(1), MIB)
        if ghosts.clock + evicted < 1 << 64:
            ghosts.add(key(1), evicted)
            self.assertTrue(ghosts.take(key(1), MIB))
