"""
Three real nodes with certificates: killed, robbed of data, and with one that is not what the others know of it.

``EDGECACHE_KILLS`` says how often a node is killed (default 1), ``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import datetime
import os
import random
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import lmdb

from edgecache.siblings.certificates import make_ca, make_node
from tests.system.clients import Together
from tests.system.fleetcase import LEASE_SECONDS, ONE, PAGES, SEED, FleetTestCase, Scene
from tests.system.harness import Node
from tests.system.processes import until

KILLS = int(os.environ.get("EDGECACHE_KILLS", "1"))


_scenes: list[Scene] = []


def tearDownModule() -> None:
    for scene in _scenes:
        scene.close()


class SharedFleetTestCase(FleetTestCase):
    """One fleet for all classes here: to start its nodes takes as long as many a test."""

    @classmethod
    def setUpClass(cls) -> None:
        if not _scenes:
            _scenes.append(Scene.open())
        cls.scene = _scenes[0]

    @contextmanager
    def storm_on(self, names: Iterable[str], *, first: int = 0) -> Iterator[Together]:
        """These nodes are purged at, one purge after the other. :param first: number of the first one."""
        storm, over = Together(), threading.Event()

        def purger(by: str) -> None:
            number = first
            while not over.is_set():
                self.require(self.purge(by, number, "durable"), "durable")
                number += 1

        for name in names:
            storm.start(purger, name)
        try:
            yield storm
        finally:
            over.set()
            storm.join()


class DeathTests(SharedFleetTestCase):
    """kill -9, of the node that has just answered and of one that purges are raining on."""

    def test_what_a_node_has_answered_reaches_everyone_though_it_was_killed_at_once(self) -> None:
        self.fill()
        for number, by in enumerate(random.Random(SEED).choices(self.fleet.ids, k=KILLS)):
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
        with self.storm_on(others) as storm:
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
        self.fleet.nodes[victim].wait_ready()
        self.fleet.wait_agreed()
        for name in self.fleet.ids:
            self.check_all(name)
        self.end_readers()
        self.assertGreater(self.readers.lost[victim], 0, "it was never away")


class LossTests(SharedFleetTestCase):
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
        with self.storm_on(others, first=1) as storm:
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

    def test_a_node_whose_data_are_those_of_yesterday_says_so_takes_no_purge_and_is_no_member(self) -> None:
        """A machine that was set back to a snapshot: entries of its log are out there that it would number again."""
        self.fill()
        third, kept = self.fleet.nodes["n3"], self.fleet.nodes["n3"].root / "kept"
        for part in ("control", "small", "blobs"):
            (kept / part).mkdir(parents=True)
            with lmdb.open(str(third.data / part), readonly=True) as environment:
                environment.copy(str(kept / part))
        self.require(self.purge("n3", 0, "complete"), "complete")
        self.lose("n3", "control", "small", "blobs")
        shutil.copytree(kept, third.data, dirs_exist_ok=True)
        third.start()
        until(lambda: "is an older copy, and must be moved aside" in third.log, "it says so")
        for _ in range(2):
            for page in PAGES:
                self.readers.check("n3", page)
                self.assertFalse(third.ask(page.target).hit)
        refused = third.admin("POST", "/purge", {"all": True})
        self.assertEqual(503, refused.status, refused)
        self.assertIn("moved aside", refused.content.decode())
        found = self.purge("n1", 1, "durable")
        self.assertEqual(("durable", ["n3"]), (found["state"], found["pending"]))
        self.lose("n3", "control")
        third.start()
        self.fleet.wait_leased(third)
        self.require(self.state("n1", found, "complete"), "complete")
        self.require(self.purge("n3", 2, "complete"), "complete")
        for name in self.fleet.ids:
            self.check_all(name)

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
        found = self.purge("n1", 0, "durable", timeout=0.3)
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


class OddMemberTests(SharedFleetTestCase):
    """A third node that is not what the others know of it: they say so, and nothing of it counts."""

    def whole(self, names: Iterable[str]) -> None:
        """Without the third: each test starts it as it needs it."""
        self.third = self.fleet.nodes["n3"]
        self.third.kill()
        super().whole(["n1", "n2"])

    def setUp(self) -> None:
        super().setUp()
        self.file = self.fleet.configuration("n3")
        self.right = self.file.read_text()
        self.addCleanup(self.file.write_text, self.right)
        self.now = datetime.datetime.now(datetime.UTC)
        self.fill(["n1", "n2"])

    def odd(self, text: str) -> None:
        """The third node, with this file."""
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
        found = self.purge("n3", 0, "durable", timeout=0.3)
        self.assertEqual(("local", ["n1", "n2"]), (found["state"], found["pending"]))
        for name in ("n1", "n2"):
            self.assertTrue(self.fleet.nodes[name].ask(ONE.target).hit, "what only the third purged is purged nowhere")
            self.assertEqual(before, self.fleet.positions(self.fleet.nodes[name]))
        found = self.purge("n1", 1, "durable")
        self.assertEqual(("durable", ["n3"]), (found["state"], found["pending"]))
        for name in ("n1", "n2"):
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

    def test_a_certificate_for_another_host(self) -> None:
        self.addCleanup(make_node, self.fleet.certificates, self.now, "n3", ["127.0.0.1"], force=True)
        make_node(self.fleet.certificates, self.now, "n3", ["edge-3.example"], force=True)
        self.odd(self.right)
        self.says("n1", "the certificate of node n3 is not for 127.0.0.1", of="n3")
        # It can ask, and so it has everything all the same.
        self.require(self.purge("n1", 1, "complete"), "complete")
        self.check_all("n3")

    def test_other_settings_of_the_fleet_until_they_are_the_same(self) -> None:
        self.odd(self.right.replace(f"lease_seconds = {LEASE_SECONDS}", "lease_seconds = 4.0"))
        for name, other in (("n1", "n3"), ("n2", "n3"), ("n3", "n1"), ("n3", "n2")):
            self.says(name, "configured otherwise", of=other)
        self.nothing_of_it_counts()
        self.third.kill()
        self.odd(self.right)
        self.promises.restarted("n3")
        super().whole(self.fleet.ids)
        for name in self.fleet.ids:
            self.check_all(name)

    def test_a_node_that_is_no_member(self) -> None:
        """It is where the third should be, knows all the others, and has a certificate of the fleet."""
        make_node(self.fleet.certificates, self.now, "n9", ["127.0.0.1"])
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
