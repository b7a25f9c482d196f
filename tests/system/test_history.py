"""
Histories of real fleets, and whether every promise was kept in them (DESIGN 9).

``EDGECACHE_HISTORY`` says for how many seconds (by default for one short one of three nodes), ``EDGECACHE_SEED`` which
one is played first. Seeds that once failed are in ``history_seeds.txt``, and are played before others in a long run.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import threading
import time
import unittest
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Together
from tests.system.harness import Node
from tests.system.history import Agreed, Claimed, Counted, History, now
from tests.system.historyactors import Follower, Publisher, Sampler
from tests.system.historychecks import violations
from tests.system.historyfaults import Troubles, phases
from tests.system.historyreaders import Reader
from tests.system.historystage import Setting, Stage, new_directory
from tests.system.namespaces import unavailable
from tests.system.processes import until

SECONDS = float(os.environ.get("EDGECACHE_HISTORY", "0"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))
SEEDS = Path(__file__).with_name("history_seeds.txt")
EPISODE_SECONDS = 60.0
PHASE_SECONDS = 6.0
SHORT_SECONDS = 2.5
COUNTS = (3, 5)
SHOWN = 5
PUBLISHERS = 3
READERS = 6
"""Of all nodes together."""


@define(eq=False)
class Episode:
    """
    One history, from a fleet's start to its end.

    :ivar agreeing: seconds from the end of each phase until all nodes agreed.
    """

    stage: Stage
    agreeing: list[float] = field(factory=list)
    _over: threading.Event = field(factory=threading.Event)
    _actors: Together = field(factory=Together)

    def play(self, seconds: float, phase_seconds: float) -> str:
        """:return: what happened, for people."""
        stage, seed = self.stage, self.stage.setting.seed
        ids = stage.fleet.ids
        chance = random.Random(seed)

        def own() -> random.Random:
            return random.Random(chance.random())

        publishers = [Publisher(stage, own(), self._over, f"p{number}-{seed}") for number in range(PUBLISHERS)]
        readers = [
            Reader(stage, own(), self._over, f"r{n}-{name}", name) for name in ids for n in range(READERS // len(ids))
        ]
        followers = [Follower(stage, own(), self._over, f"feed of {name}", (name,)) for name in ids]
        followers.append(Follower(stage, own(), self._over, "roaming", tuple(ids)))
        for follower in followers:
            follower.begin()
        sampler = Sampler(stage, own(), self._over)
        acts = [each.run for each in publishers] + [each.run for each in readers] + [each.run for each in followers]
        for act in (*acts, sampler.run):
            self._actors.start(act)
        troubles = Troubles(stage)
        try:
            until_then = time.monotonic() + seconds
            for phase in phases(seed, ids, phase_seconds):
                sys.stdout.write(f"    {'; '.join(map(str, phase))}\n")
                sys.stdout.flush()
                troubles.play(phase)
                last = time.monotonic() >= until_then
                self._agree(publishers, last)
                sys.stdout.write(f"        agreed after {self.agreeing[-1]:.2f} s\n")
                if last or self._actors.failures:
                    break
        finally:
            self._over.set()
            self._actors.join()
        for reader in readers:
            reader.read_all()
        self._count()
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(troubles.played).items()))
        return (
            f"{sum(reader.requests for reader in readers)} requests, {sum(each.purges for each in publishers)} purges, "
            f"{sum(each.events for each in followers)} feed events, {sampler.samples} samples, agreed after "
            f"{max(self.agreeing):.2f} s at most; faults: {faults}"
        )

    def _agree(self, publishers: list[Publisher], last: bool) -> None:
        """Nobody publishes; until all have the same logs, and leases."""
        fleet = self.stage.fleet
        healed = now()
        for publisher in publishers:
            publisher.turn.acquire()
        quiet = now()
        try:
            # A machine that is busy with other tests takes its time.
            until(self._all_leased, "a lease of each node", looks=1200)
            fleet.wait_agreed()
            self.agreeing.append(now() - quiet)
            self.stage.keeper.keep(Agreed(healed, now(), fleet.positions(fleet.nodes["n1"]), self._known(last)))
        finally:
            for publisher in publishers:
                publisher.turn.release()

    def _all_leased(self) -> bool:
        fleet = self.stage.fleet
        return not any(fleet.status(node)["purges"]["fenced"] for node in fleet.members)

    def _known(self, last: bool) -> dict[str, list[str]]:
        """Purges that each node knows, of those that were durable. Asked at the end only: they are many."""
        if not last:
            return {}
        claims = History.kept_in(self.stage.directory).of(Claimed)
        ids = sorted({claimed.id for claimed in claims if claimed.state != "local"})

        def knows(node: Node, purge: str) -> bool:
            # Also one of which it has not heard yet how far it has come: that is 202, or 503.
            return bool(orjson.loads(node.admin("GET", f"/purge/{purge}").content).get("id") == purge)

        return {name: [each for each in ids if knows(node, each)] for name, node in self.stage.fleet.nodes.items()}

    def _count(self) -> None:
        counts = {}
        for name, node in self.stage.fleet.nodes.items():

            def look(node: Node = node) -> dict[str, int] | None:
                said: dict[str, int] = orjson.loads(node.admin("GET", "/downloads?by=").content)
                return None if said["behind"] else said

            counts[name] = until(look, "all counts")["total"]
        self.stage.keeper.keep(Counted(now(), counts))


@unittest.skipIf(reason := unavailable(), reason)
class HistoryTests(SynchronousTestCase):
    """Publishers, readers of every node, readers of feeds; cables, nodes and the origin fail as a seed has it."""

    def _play(self, setting: Setting, seconds: float, phase_seconds: float) -> None:
        sys.stdout.write(f"\n{setting}\n")
        directory = new_directory()
        stage = Stage.open(setting, directory)
        try:
            told = Episode(stage).play(seconds, phase_seconds)
        finally:
            stage.close()
        found = violations(History.kept_in(directory))
        if found:
            shown = "\n".join(map(str, found[:SHOWN]))
            self.fail(f"{len(found)} violations, EDGECACHE_SEED={setting.seed}, kept in {directory}:\n{shown}")
        sys.stdout.write(f"    {told}\n")
        sys.stdout.flush()
        shutil.rmtree(directory)

    def test_every_promise_is_kept(self) -> None:
        if not SECONDS:
            self._play(Setting.drawn(SEED, 3, workers=(1,)), 0.0, SHORT_SECONDS)
            return
        end = time.monotonic() + SECONDS
        for seed, count in _seeds():
            self._play(Setting.drawn(seed, count), min(EPISODE_SECONDS, SECONDS), PHASE_SECONDS)
            if time.monotonic() >= end:
                break


def _seeds() -> Iterator[tuple[int, int]]:
    """Seeds and numbers of nodes: the one that was asked for, those that once failed, new ones for ever."""
    if "EDGECACHE_SEED" in os.environ:
        yield from ((SEED, count) for count in COUNTS)
    for line in SEEDS.read_text().splitlines():
        if line and not line.startswith("#"):
            words = line.split()
            yield int(words[0]), int(words[1])
    chance = random.Random(SEED)
    for count in itertools.cycle(COUNTS):
        yield chance.randrange(1 << 32), count
