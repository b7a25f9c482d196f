"""Real nodes in network namespaces, cut off from each other in one direction or in both, and nobody is told."""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable

from tests.system.fleetcase import LEASE_SECONDS, ONE, FleetTestCase, Scene
from tests.system.namespaces import Network, unavailable
from tests.system.processes import until
from tests.system.versions import version_of

STORM = 15
"""Purges at each of two nodes while the third is cut off."""


@unittest.skipIf(reason := unavailable(), reason)
class PartitionTests(FleetTestCase):
    """Three nodes in network namespaces; nothing passes between one of them and the others, and nobody is told."""

    network: Network

    @classmethod
    def setUpClass(cls) -> None:
        cls.network = Network(["n1", "n2", "n3"])
        cls.addClassCleanup(cls.network.end)
        super().setUpClass()

    @classmethod
    def opened(cls) -> Scene:
        network = cls.network
        return Scene.open(
            origin=network.origin,
            host=network.sibling,
            of=lambda name: {"host": network.host(name), "prefix": network.prefix(name)},
        )

    def setUp(self) -> None:
        self.network.heal()
        super().setUp()
        # Whatever comes of the test.
        self.addCleanup(self.network.heal)

    def cut_off(self) -> None:
        """The third node and the others are out of each other's reach."""
        self.network.cut("n3")

    def deafened(self) -> None:
        """The third node hears nobody; the others hear it."""
        for name in ("n1", "n2"):
            self.network.mute(name, "n3")

    def muted(self) -> None:
        """Nobody hears the third node; it hears the others."""
        self.network.mute("n3", "n1", "n2")

    def read_until(self, name: str, moment: float) -> set[int]:
        """Ask a node until then. :return: the versions that it served of one page."""
        seen = set()
        while time.time() <= moment:
            seen.add(self.readers.check(name, ONE))
        return seen

    def _named_and_nothing_old(self, cut: Callable[[], None]) -> None:
        old = self.fill()
        cut()
        found = self.purge("n1", 0, "durable")
        new = self.versions.version
        # Answered while the cut-off node may still serve what is old: nobody waited for it.
        self.assertEqual(("durable", ["n3"]), (found["state"], found["pending"]))
        self.assertGreater(found["effective_by"], time.time())
        self.assertEqual({new}, {self.readers.check(name, ONE) for name in ("n1", "n2")})

        # Until then the old page is no surprise.
        self.assertLessEqual(self.read_until("n3", found["effective_by"]), {old, new})
        self.check_all("n3")
        self.assertTrue(self.fleet.status(self.fleet.nodes["n3"])["purges"]["fenced"])
        self.assertEqual(new, self.readers.check("n3", ONE))
        # Nothing stays fenced where the others are a majority.
        until(lambda: self.fleet.nodes["n1"].ask(ONE.target).hit, "a hit where a majority is")

        for name in ("n1", "n2"):
            found = self.state(name, found, "complete", timeout=0.2)
            self.assertEqual(("effective", ["n3"]), (found["state"], found["pending"]), name)
        # Nobody waits for it, however many calls to it hang.
        for name in ("n1", "n2"):
            self.clients.start(self._storm, name)
        self.clients.join()
        # It is fenced already: before anybody can promise it.
        self.assertEqual(self.versions.version, self.readers.check("n3", ONE))
        later = self.purge("n2", STORM, "durable")

        self.network.heal()
        for name, purge in (("n1", found), ("n2", later)):
            self.require(self.state(name, purge, "complete"), "complete")
        self.fleet.wait_leased(self.fleet.nodes["n3"])
        self.fleet.wait_agreed()
        for name in self.fleet.ids:
            self.check_all(name)

    def _storm(self, by: str) -> None:
        for number in range(1, STORM):
            found = self.purge(by, number, "durable")
            self.assertEqual(("durable", ["n3"]), (found["state"], found["pending"]))

    def test_a_node_that_is_cut_off_is_named_and_serves_nothing_old_from_effective_by_on(self) -> None:
        self._named_and_nothing_old(self.cut_off)

    def test_so_is_one_that_hears_nothing_and_is_heard(self) -> None:
        self._named_and_nothing_old(self.deafened)

    def test_so_is_one_that_hears_everything_and_is_not_heard(self) -> None:
        self._named_and_nothing_old(self.muted)

    def test_cut_off_from_the_origin_as_well_it_serves_what_it_has_as_stale_only(self) -> None:
        old = self.fill()
        self.network.cut("n3")
        found = self.purge("n2", 0, "effective")
        self.assertEqual(("effective", ["n3"]), (found["state"], found["pending"]))
        self.versions.origin.stop()
        answer = self.fleet.nodes["n3"].ask(ONE.target)
        self.assertEqual(old, version_of(ONE, answer))
        self.assertEqual("0", answer.parameter("ttl"), answer)
        self.assertIn("proxy-status", answer.fields)

    def _alone(self, cut: Callable[[], None]) -> None:
        self.fill()
        before = self.taken("n1")
        cut()
        found = self.purge("n3", 0, "durable", timeout=0.2)
        self.assertEqual(("local", ["n1", "n2"]), (found["state"], found["pending"]))
        self.check_all("n3")
        # The same id may be sent again; it is the same purge.
        self.assertEqual("local", self.again("n3", found, 0)["state"])
        self.network.heal()
        self.require(self.state("n3", found, "complete"), "complete")
        self.assertEqual("complete", self.again("n3", found, 0)["state"])
        self.fleet.wait_agreed()
        self.assertEqual(before + 1, self.taken("n1"), "however often it was sent")
        for name in self.fleet.ids:
            self.check_all(name)

    def test_alone_a_node_takes_purges_that_spread_when_the_others_are_there_again(self) -> None:
        self._alone(self.cut_off)

    def test_alone_a_node_knows_of_nobody_who_has_its_purges_though_all_hear_it(self) -> None:
        self._alone(self.deafened)

    def test_alone_a_node_that_hears_everything_and_is_not_heard(self) -> None:
        self._alone(self.muted)

    def test_where_one_does_not_hear_another_a_third_carries_the_purges_and_nobody_is_fenced(self) -> None:
        for number, (speaker, hearer) in enumerate((("n1", "n3"), ("n3", "n1"))):
            self.fill()
            self.network.mute(speaker, hearer)
            since = time.time()
            for by, other in (("n1", "n3"), ("n3", "n1")):
                found = self.purge(by, number, "durable")
                self.require(found, "durable")
                self.wait_applied(other, found)
                self.check_all(other)
                # It hears both.
                self.require(self.state("n2", found, "complete"), "complete")
        self.fill()
        # Any lease of before the last cut is over then.
        for name in self.fleet.ids:
            self.read_until(name, since + LEASE_SECONDS)
            self.assertTrue(self.fleet.nodes[name].ask(ONE.target).hit, name)
            self.assertFalse(self.fleet.status(self.fleet.nodes[name])["purges"]["fenced"], name)
        self.network.heal()
        for by in ("n1", "n3"):
            self.require(self.purge(by, 2, "complete"), "complete")
        for name in self.fleet.ids:
            self.check_all(name)

    def test_what_a_node_answered_before_it_died_reaches_one_that_it_never_reached(self) -> None:
        self.fill()
        self.network.cut("n3")
        found = self.purge("n1", 0, "durable")
        self.assertEqual(["n3"], found["pending"])
        self.fleet.nodes["n1"].kill()
        self.network.heal()
        self.wait_applied("n3", found)
        for name in ("n2", "n3"):
            self.check_all(name)
