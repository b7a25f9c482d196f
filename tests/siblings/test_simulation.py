"""DESIGN 9: the invariants hold whatever fails, and each guard is needed for that."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from twisted.trial.unittest import SynchronousTestCase

from .flaws import FLAWS
from .oracle import Violation
from .schedules import SCHEDULES
from .simulation import SOUND, Flaw, play

SEEDS = 2000
"""Played in full: about a minute of one CPU."""

PART = 50
"""Seeds that a process plays before it tells."""

ENOUGH = 300
"""Of these, at least one must show a flaw that has no schedule."""


def _played(seeds: range) -> tuple[list[tuple[int, str]], Counter[str]]:
    """:return: seeds with the violations they showed, and what all the others saw."""
    violations = []
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            seen += play(seed).oracle.counts
        except Violation as violation:
            violations.append((seed, str(violation)))
    return violations, seen


def _seed_that_shows(flaw: Flaw) -> int | None:
    for seed in range(ENOUGH):
        try:
            play(seed, flaw)
        except Violation:
            return seed
    return None


class SeedTests(SynchronousTestCase):
    """Loss, delay, duplication, partitions, crashes, lost disks, drift, pauses, a change of members."""

    def test_no_interleaving_violates_an_invariant(self) -> None:
        violations: list[tuple[int, str]] = []
        seen: Counter[str] = Counter()
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
            for wrong, counts in processes.map(_played, (range(at, at + PART) for at in range(0, SEEDS, PART))):
                violations += wrong
                seen += counts
        self.assertEqual([], violations)
        # A fleet to which nothing happens would hold as well.
        for what in ("served", "durable", "effective", "complete"):
            self.assertGreater(seen[what], 2 * SEEDS, what)

    def test_a_seed_is_played_the_same_way_every_time(self) -> None:
        self.assertEqual(play(3).oracle.counts, play(3).oracle.counts)


class GuardTests(SynchronousTestCase):
    """A guard that can be left out unnoticed is either needless or untested."""

    def test_without_one_guard_its_schedule_shows_a_violation(self) -> None:
        unnoticed = []
        for name, schedule in SCHEDULES.items():
            try:
                schedule(FLAWS[name])
            except Violation:
                continue
            unnoticed.append(name)
        self.assertEqual([], unnoticed)

    def test_with_all_guards_no_schedule_shows_anything(self) -> None:
        for schedule in SCHEDULES.values():
            schedule(SOUND)

    def test_flaws_without_a_schedule_are_shown_by_seeds(self) -> None:
        unnoticed = [name for name, flaw in FLAWS.items() if name not in SCHEDULES and _seed_that_shows(flaw) is None]
        self.assertEqual([], unnoticed)
