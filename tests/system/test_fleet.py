"""
Three real nodes with certificates: killed, and with one of them that is not what the others know of it.

``EDGECACHE_KILLS`` says how often a node is killed in a storm (default 2), ``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import datetime
import os
import random
import threading

from edgecache.siblings.certificates import make_ca, make_node
from tests.system.clients import Together
from tests.system.fleetcase import ONE, SEED, FleetTestCase
from tests.system.harness import Node
from tests.system.processes import until

KILLS = int(os.environ.get("EDGECACHE_KILLS", "2"))


class DeathTests(FleetTestCase):
    """kill -9, of the node that has just answered and of one that purges are raining on."""

    def test_what_a_node_has_answered_reaches_everyone_though_it_was_killed_at_once(self) -> None:
        self.fill()
        for number, by in enumerate(self.fleet.ids):
            others = [name for name in self.fleet.ids if name != by]
            # Its answer is here, so that a majority has it; who else has is what differs from run to run.
            found = self.purge(by, number, "durable")
            self.fleet.nodes[by].kill()
            for name in others:
                self.wait_applied(name, found)
                self.check_all(name)
            self.fleet.nodes[by].start()
            self.fleet.wait_leased(self.fleet.nodes[by])
            self.promises.restarted(by)
            self.check_all(by)
            self.require(self.state(others[0], found, "complete"), "complete")
        self.fleet.wait_agreed()

    def test_a_node_that_is_killed_and_comes_back_in_a_storm_serves_nothing_old(self) -> None:
        self.fill()
        victim, *others = random.Random(SEED).sample(self.fleet.ids, 3)
        self.clients.start(self.readers.read, others)
        self.clients.start(lambda: self.readers.read([victim], mortal=True))
        storm, over = Together(), threading.Event()

        def purger(by: str) -> None:
            number = 0
            while not over.is_set():
                self.require(self.purge(by, number, "durable"), "durable")
                number += 1

        for name in others:
            storm.start(purger, name)
        try:
            for round_number in range(KILLS):
                seen = self.readers.checked[victim]
                self.while_all_is_well(
                    lambda seen=seen: self.readers.checked[victim] > seen + 20, "answers of the victim", storm
                )
                self.fleet.nodes[victim].kill(random.Random(SEED + round_number))
                # Not before some purges that it knows nothing of.
                claims = self.promises.claims
                self.while_all_is_well(
                    lambda claims=claims: self.promises.claims > claims + 5, "purges without the victim", storm
                )
                self.promises.restarted(victim)
                self.fleet.nodes[victim].launch()
        finally:
            over.set()
            storm.join()
        self.fleet.nodes[victim].wait_ready()
        self.fleet.wait_agreed()
        for name in self.fleet.ids:
            self.check_all(name)
        self.end_readers()
        self.assertGreater(self.readers.lost[victim], 0, "it was never away")


class OddMemberTests(FleetTestCase):
    """A third node that is not what the others know of it: they say so, and nothing of it counts."""

    def setUp(self) -> None:
        super().setUp()
        self.third = self.fleet.nodes["n3"]
        self.file = self.fleet.configuration("n3")
        self.right = self.file.read_text()
        self.addCleanup(self.file.write_text, self.right)
        self.now = datetime.datetime.now(datetime.UTC)
        self.fill()

    def odd(self, text: str) -> None:
        """The third node, with this file."""
        self.third.kill()
        self.file.write_text(text)
        self.third.start()

    def problem(self, at: str, of: str) -> str:
        siblings = self.fleet.status(self.fleet.nodes[at])["siblings"]
        return str(next(each["problem"] for each in siblings if each["id"] == of))

    def says(self, at: str, words: str, *, of: str = "", log: bool = True) -> None:
        """Until a node says this of another, to whoever looks at its status and to whoever reads its log."""
        if of:
            until(lambda: words in self.problem(at, of), f"{words!r} in the status of {at}, {self.problem(at, of)!r}")
        if log:
            until(lambda: words in self.fleet.nodes[at].log, f"{words!r} in the log of {at}")

    def nothing_of_it_counts(self) -> None:
        """Neither what it purges nor its silence."""
        before = self.fleet.positions(self.fleet.nodes["n1"])
        until(lambda: self.fleet.status(self.third)["purges"]["fenced"], "the third is fenced")
        found = self.purge("n3", 0, "durable", timeout=1.0)
        self.assertEqual(("local", ["n1", "n2"]), (found["state"], found["pending"]))
        for name in ("n1", "n2"):
            self.assertTrue(self.fleet.nodes[name].ask(ONE.target).hit, "what only the third purged is purged nowhere")
            self.assertEqual(before, self.fleet.positions(self.fleet.nodes[name]))
        found = self.purge("n1", 1, "durable")
        self.assertEqual(("durable", ["n3"]), (found["state"], found["pending"]))
        for name in ("n1", "n2"):
            self.check_all(name)

    def well_again(self) -> None:
        self.odd(self.right)
        self.fleet.wait_leased(self.third)
        self.promises.restarted("n3")
        self.fleet.wait_agreed()
        for name in self.fleet.ids:
            self.check_all(name)

    def test_a_certificate_of_another_ca(self) -> None:
        others = self.fleet.certificates.with_name("others")
        make_ca(others, self.now)
        make_node(others, self.now, "n3", ["127.0.0.1"])
        self.odd(self.right.replace(str(self.fleet.certificates), str(others)))
        for name in ("n1", "n2"):
            self.says(name, "certificate", of="n3")
            self.says(name, "a connection from 127.0.0.1 was refused: ")
        self.says("n3", "certificate", of="n1")
        self.nothing_of_it_counts()
        self.well_again()

    def test_a_certificate_for_another_host(self) -> None:
        make_node(self.fleet.certificates, self.now, "n3", ["edge-3.example"], force=True)
        self.odd(self.right)
        self.says("n1", "the certificate of node n3 is not for 127.0.0.1", of="n3")
        # It can ask, and so it has everything all the same.
        self.require(self.purge("n1", 1, "complete"), "complete")
        self.check_all("n3")
        make_node(self.fleet.certificates, self.now, "n3", ["127.0.0.1"], force=True)
        self.well_again()

    def test_other_settings_of_the_fleet(self) -> None:
        self.odd(self.right.replace("lease_seconds = 3.0", "lease_seconds = 4.0"))
        for name, other in (("n1", "n3"), ("n2", "n3"), ("n3", "n1"), ("n3", "n2")):
            self.says(name, "configured otherwise", of=other)
        self.nothing_of_it_counts()
        self.well_again()

    def test_a_node_that_is_no_member(self) -> None:
        """It is where the third should be, knows all the others, and has a certificate of the fleet."""
        make_node(self.fleet.certificates, self.now, "n9", ["127.0.0.1"])
        self.third.kill()
        root = self.file.parent.with_name("n9")
        root.mkdir()
        (root / "edgecache.toml").write_text(self.right.replace("n3.pem", "n9.pem").replace("n3.key", "n9.key"))
        arguments = ("--config", str(root / "edgecache.toml"), "--node", "n9")
        stranger = Node(root, self.versions.origin.url, workers=0, arguments=arguments)
        self.addCleanup(stranger.end)
        stranger.start()
        self.says("n1", "n9 is no member of this node's fleet")
        self.says("n1", "the certificate is that of node n9, not of n3", of="n3")
        answer = stranger.admin("POST", "/purge", {"all": True})
        self.assertEqual(503, answer.status, answer)
        self.assertIn("no quorum of its siblings", answer.content.decode())
        self.assertTrue(self.fleet.nodes["n1"].ask(ONE.target).hit)
        self.assertNotIn("n9/", str(self.fleet.positions(self.fleet.nodes["n1"])))
