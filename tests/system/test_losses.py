"""
Three real nodes, of which one is killed and comes back without a part of its data directory, while purges go on.

``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import random
import shutil
import threading

from tests.system.clients import Together
from tests.system.fleetcase import ONE, PAGES, SEED, FleetTestCase
from tests.system.processes import until


class LossTests(FleetTestCase):
    """A lost control makes a new member of a node; lost content costs it fills."""

    def incarnations(self, name: str, at: str) -> list[str]:
        """Of a node's logs, as another knows them, those without entries too."""
        logs = self.fleet.status(self.fleet.nodes[at])["purges"]["logs"]
        return sorted(log["incarnation"] for log in logs if log["node"] == name)

    def lose(self, name: str, *parts: str) -> None:
        """It is killed, and parts of its data are gone."""
        self.fleet.nodes[name].kill(random.Random(SEED))
        for part in parts:
            shutil.rmtree(self.fleet.nodes[name].data / part)
        self.promises.restarted(name)

    def joining(self, name: str, at: str) -> bool:
        siblings = self.fleet.status(self.fleet.nodes[at])["siblings"]
        return bool(next(each["joining"] for each in siblings if each["id"] == name))

    def _in_a_storm(self, *parts: str) -> str:
        """:return: the node that comes back without ``parts`` while purges go on at the others."""
        self.fill()
        victim, *others = random.Random(SEED).sample(self.fleet.ids, 3)
        # Of its log something is to be known.
        self.require(self.purge(victim, 0, "complete"), "complete")
        self.clients.start(lambda: self.readers.read([victim], mortal=True))
        storm, over = Together(), threading.Event()

        def purger(by: str) -> None:
            number = 1
            while not over.is_set():
                self.require(self.purge(by, number, "durable"), "durable")
                number += 1

        for name in others:
            storm.start(purger, name)
        try:
            seen = self.readers.checked[victim]
            self.while_all_is_well(lambda: self.readers.checked[victim] > seen + 20, "answers of the victim", storm)
            self.lose(victim, *parts)
            claims = self.promises.claims
            self.while_all_is_well(lambda: self.promises.claims > claims + 5, "purges without the victim", storm)
            node = self.fleet.nodes[victim]
            node.launch()
            node.wait_ready()
            self.fleet.wait_leased(node)
            # From now on it counts: what only its own answers can make complete becomes so, in the storm.
            self.require(self.purge(victim, 1, "complete"), "complete")
            seen = self.readers.checked[victim]
            self.while_all_is_well(lambda: self.readers.checked[victim] > seen + 20, "answers of the victim", storm)
        finally:
            over.set()
            storm.join()
        self.end_readers()
        self.fleet.wait_agreed()
        for name in self.fleet.ids:
            self.check_all(name)
        self.assertGreater(self.readers.lost[victim], 0, "it was never away")
        return victim

    def test_a_node_without_its_control_comes_back_in_a_storm_and_is_a_member_by_another_name(self) -> None:
        before = {name: self.incarnations(name, at="n1") for name in self.fleet.ids}
        victim = self._in_a_storm("control")
        for at in self.fleet.ids:
            found = self.incarnations(victim, at=at)
            self.assertEqual(set(before[victim]), set(found) & set(before[victim]), "its old purges are not forgotten")
            self.assertEqual(len(before[victim]) + 1, len(found), at)

    def test_a_node_without_its_content_comes_back_in_a_storm_and_its_log_goes_on(self) -> None:
        before = {name: self.incarnations(name, at="n1") for name in self.fleet.ids}
        victim = self._in_a_storm("small", "blobs")
        self.assertEqual(before[victim], self.incarnations(victim, at="n2"))

    def test_while_it_joins_a_node_takes_no_purge_counts_for_none_and_serves_nothing_that_it_has_not_validated(
        self,
    ) -> None:
        self.fill()
        self.lose("n3", "control")
        # One that is to vouch for it is away, so that it stays joining.
        self.fleet.nodes["n2"].kill()
        third = self.fleet.nodes["n3"].start()
        until(lambda: self.joining("n3", at="n1"), "n1 knows that n3 is joining")
        refused = third.admin("POST", "/purge", {"all": True})
        self.assertEqual(503, refused.status, refused)
        self.assertIn("no quorum of its siblings", refused.content.decode())
        found = self.purge("n1", 0, "durable", timeout=1.0)
        self.assertEqual(("local", ["n2", "n3"]), (found["state"], found["pending"]))
        for _ in range(2):
            for page in PAGES:
                self.assertFalse(third.ask(page.target).hit)
                self.assertEqual(self.versions.version, self.readers.check("n3", page))
        self.fleet.nodes["n2"].start()
        self.promises.restarted("n2")
        self.require(self.state("n1", found, "complete"), "complete")
        self.fleet.wait_leased(third)
        self.require(self.purge("n3", 0, "complete"), "complete")
        self.fill()
        self.assertTrue(third.ask(ONE.target).hit)
        for name in self.fleet.ids:
            self.check_all(name)
