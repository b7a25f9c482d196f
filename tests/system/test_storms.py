"""
Three and five real nodes with certificates under storms of purges: every answer is held against what they then serve.

``EDGECACHE_PURGES`` says how many purges a storm has (default 60), ``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from tests.system.claims import STATES
from tests.system.clients import Together
from tests.system.fleetcase import DOCUMENTS, SEED, FleetTestCase, Scene

PURGES = int(os.environ.get("EDGECACHE_PURGES", "60"))
AT_ONCE = 24
"""Purges, each with the checks of what its answer says."""
READERS = 2
"""They never stop asking."""


class Storm(FleetTestCase):
    """Purges as fast as they go, at every node, under readers; every answer's claim is checked when it is there."""

    count: int
    workers = 0

    @classmethod
    def opened(cls) -> Scene:
        return Scene.open(cls.count, siblings="", lease_seconds=10.0, workers=cls.workers)

    def _storm(self, purges: int) -> None:
        self.fill()
        for number in range(READERS):
            self.clients.start(self.readers.read, self.fleet.ids[number:] + self.fleet.ids[:number])
        numbers = iter(range(purges))
        storm = Together()
        choices = random.Random(SEED)
        for _ in range(AT_ONCE):
            storm.start(self._purger, choices.random(), numbers)
        try:
            storm.join(1200.0)
        finally:
            self.end_readers()
        self.fleet.wait_agreed()
        self.assertEqual(purges, self.taken("n1"))
        self.assertGreaterEqual(self.promises.claims, purges)
        # A majority has each, and was asked for it.
        self.assertGreater(sum(self.readers.checked.values()), purges * (self.count // 2 + 1))
        self.assertEqual(set(self.fleet.ids), set(self.readers.checked), "each node was asked")
        for name in self.fleet.ids:
            log = self.fleet.nodes[name].log
            self.assertNotIn("Traceback", log)
            self.assertNotIn("Starting factory", log)

    def _purger(self, seed: float, numbers: Iterator[int]) -> None:
        choices = random.Random(seed)
        for number in numbers:
            wait = choices.choice(STATES[1:])
            found = self.purge(choices.choice(self.fleet.ids), number, wait)
            self.require(found, wait)
            page = choices.choice(DOCUMENTS[number % len(DOCUMENTS)][1])
            for name in found["applied"] if found["state"] == "durable" else self.fleet.ids:
                self.readers.check(name, page)
            if number % 10 == 0:
                # Who has it says the same of it, or more.
                other = choices.choice(found["applied"])
                self.state(other, found)
                self.require(self.state(other, found, "complete"), "complete")


class StormOfThreeTests(Storm):
    count = 3
    workers = 1

    def test_three_nodes_with_workers_keep_what_they_say(self) -> None:
        self._storm(PURGES)


class StormOfFiveTests(Storm):
    count = 5

    def test_five_nodes_keep_what_they_say(self) -> None:
        self._storm(PURGES)
