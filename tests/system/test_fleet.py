"""
Three and five real nodes with certificates: what they say of purges, held against what they serve.

``EDGECACHE_PURGES`` says how many purges a storm has (default 240), ``EDGECACHE_KILLS`` how often a
node is killed in one (default 2), ``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import datetime
import os
import random
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.membership import Membership
from edgecache.siblings.certificates import make_ca, make_node
from tests.system.claims import STATES, FalseClaim, Promises, Readers
from tests.system.clients import Together
from tests.system.fleet import Fleet
from tests.system.harness import Node, NodeDied
from tests.system.namespaces import Network, unavailable
from tests.system.processes import until
from tests.system.versions import Page, VersionedOrigin, version_of

PURGES = int(os.environ.get("EDGECACHE_PURGES", "240"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))

ONE = Page("/a/1", "red")
DEEP = Page("/a/b/2", "red blue", padding=80_000)
OTHER = Page("/c/3", "blue")
PAGES = (ONE, DEEP, OTHER)

DOCUMENTS: tuple[tuple[dict[str, Any], tuple[Page, ...]], ...] = (
    ({"urls": [ONE.target]}, (ONE,)),
    ({"urls": [OTHER.target, DEEP.target]}, (DEEP, OTHER)),
    ({"prefixes": ["/a/"]}, (ONE, DEEP)),
    ({"tags": ["blue"]}, (DEEP, OTHER)),
    ({"tags": ["red"]}, (ONE, DEEP)),
    ({"all": True}, PAGES),
)
# As fast as one can: the limits have tests of their own.
UNLIMITED = "[purge]\nper_second = 1000000.0\ntoken_per_second = 1000000.0"
# Look-ups among siblings have tests of their own, too.
SITE = 'fill = "origin"'
# A call that hangs, two rounds, and an answer.
CAUGHT_UP_SECONDS = 1.0 + 2 * 0.5 + 0.5
KILLS = int(os.environ.get("EDGECACHE_KILLS", "2"))


class FleetTestCase(SynchronousTestCase):
    """A fleet before an origin with versions: one for all tests of a class. Each test finds it whole."""

    count = 3
    # A lease that is over in a few seconds.
    siblings = "pull_seconds = 0.5\ncall_seconds = 1.0\nlease_seconds = 3.0"
    lease_seconds = 3.0
    options: dict[str, Any] = {}
    origin = "127.0.0.1"
    fleet: Fleet
    versions: VersionedOrigin

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-fleet-")
        cls.addClassCleanup(directory.cleanup)
        cls.versions = VersionedOrigin({page.target: page for page in PAGES}, host=cls.origin)
        url = cls.versions.origin.start().url
        cls.addClassCleanup(cls.versions.origin.stop)
        cls.fleet = Fleet(
            Path(directory.name), cls.count, url, site=SITE, more=UNLIMITED, siblings=cls.siblings, **cls.options
        )
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()

    def setUp(self) -> None:
        self.versions.origin.start()
        for node in self.fleet.nodes.values():
            try:
                node.require_alive()
            except NodeDied:
                node.start()
            self.fleet.wait_leased(node)
        self.fleet.wait_agreed()
        bound = Membership.of("n1", self.fleet.ids, lease_seconds=self.lease_seconds).bound_seconds
        self.promises = Promises(frozenset(self.fleet.ids), bound)
        self.readers = Readers(self.fleet, self.promises, PAGES)
        self.clients = Together()
        self.addCleanup(self.readers.over.set)

    def fill(self) -> int:
        """Every node has every page in the current version, and finds it."""
        for name in self.fleet.ids:
            for page in PAGES:
                until(lambda node=self.fleet.nodes[name], page=page: node.ask(page.target).hit, f"{page} in {name}")
        return self.versions.version

    def purge(self, by: str, number: int, wait: str, *, timeout: float = 30.0) -> dict[str, Any]:
        """Publish, purge at node ``by``, and take the answer at its word."""
        document, pages = DOCUMENTS[number % len(DOCUMENTS)]
        mode = ("revalidate", "delete")[number // len(DOCUMENTS) % 2]
        purge_id = f"{self.id()}-{by}-{number}"
        self.promises.asked_for(purge_id, pages, self.versions.publish())
        return self.promises.claimed(
            self.fleet.nodes[by].admin(
                "POST",
                f"/purge?wait={wait}&timeout={timeout}",
                {**document, "mode": mode, "id": purge_id},
                seconds=60.0,
            )
        )

    def again(self, by: str, purge: dict[str, Any], number: int) -> dict[str, Any]:
        """Send a purge's id again."""
        document, _ = DOCUMENTS[number % len(DOCUMENTS)]
        answer = self.fleet.nodes[by].admin("POST", "/purge?timeout=0", {**document, "id": purge["id"]})
        return self.promises.claimed(answer)

    def state(self, at: str, purge: dict[str, Any], wait: str = "", *, timeout: float = 30.0) -> dict[str, Any]:
        """What node ``at`` says of a purge by now, taken at its word."""
        query = f"?wait={wait}&timeout={timeout}" if wait else ""
        return self.promises.claimed(self.fleet.nodes[at].admin("GET", f"/purge/{purge['id']}{query}", seconds=60.0))

    def taken(self, name: str) -> int:
        """Entries of all logs at a node."""
        return sum(self.fleet.positions(self.fleet.nodes[name]).values())

    def wait_applied(self, name: str, purge: dict[str, Any]) -> None:
        """Until this node has it, whoever it has it from."""
        node = self.fleet.nodes[name]
        until(lambda: node.admin("GET", f"/purge/{purge['id']}").status != 404, f"{purge['id']} at {name}")
        self.assertIn(name, self.state(name, purge)["applied"])

    def check_all(self, name: str) -> None:
        """Hold what a node serves against what was promised."""
        for page in PAGES:
            self.readers.check(name, page)

    def require(self, found: dict[str, Any], state: str) -> None:
        """
        :raises FalseClaim: it was waited for, and has not come so far.
        """
        if STATES.index(found["state"]) < STATES.index(state):
            raise FalseClaim(f"waited for {state}: {found}, EDGECACHE_SEED={SEED}")

    def while_all_is_well(self, look: Callable[[], bool], what: str, *others: Together) -> None:
        """:func:`until`, or until a client has found something."""
        together = (self.clients, *others)
        until(lambda: look() or any(each.failures for each in together), what)
        for each in together:
            if each.failures:
                raise each.failures[0]

    def end_readers(self) -> None:
        self.readers.over.set()
        self.clients.join()


class Storm(FleetTestCase):
    """Purges as fast as they go, at every node, under readers; every answer's claim is checked."""

    siblings = ""
    lease_seconds = 10.0

    def _storm(self, purgers: int, purges: int) -> None:
        self.fill()
        for number in range(2):
            self.clients.start(self.readers.read, self.fleet.ids[number:] + self.fleet.ids[:number])

        def purger(seed: float, first: int) -> None:
            choices = random.Random(seed)
            for number in range(first, purges, purgers):
                wait = choices.choice(STATES[1:])
                found = self.purge(choices.choice(self.fleet.ids), number, wait)
                self.require(found, wait)
                if number % 10 == 0:
                    # Who has it says the same of it, or more.
                    other = choices.choice(found["applied"])
                    self.state(other, found)
                    self.require(self.state(other, found, "complete"), "complete")

        storm = Together()
        choices = random.Random(SEED)
        for number in range(purgers):
            storm.start(purger, choices.random(), number)
        try:
            storm.join(600.0)
        finally:
            self.end_readers()
        self.fleet.wait_agreed()
        self.assertEqual(purges, self.taken("n1"))
        self.assertGreaterEqual(self.promises.claims, purges)
        self.assertEqual(set(self.fleet.ids), set(self.readers.checked), "each node was asked")
        for name in self.fleet.ids:
            log = self.fleet.nodes[name].log
            self.assertNotIn("Traceback", log)
            self.assertNotIn("Starting factory", log)


class StormOfThreeTests(Storm):
    options = {"workers": 1}

    def test_three_nodes_with_workers_keep_what_they_say(self) -> None:
        self._storm(6, PURGES)


class StormOfFiveTests(Storm):
    count = 5

    def test_five_nodes_keep_what_they_say(self) -> None:
        self._storm(6, PURGES // 2)


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


@unittest.skipIf(reason := unavailable(), reason)
class PartitionTests(FleetTestCase):
    """Three nodes in network namespaces; nothing passes between one of them and the others, and nobody is told."""

    network: Network

    @classmethod
    def setUpClass(cls) -> None:
        cls.network = network = Network(["n1", "n2", "n3"])
        cls.addClassCleanup(network.end)
        cls.origin = network.origin
        cls.options = {
            "host": network.sibling,
            "of": lambda name: {"host": network.host(name), "prefix": network.prefix(name)},
        }
        super().setUpClass()

    def setUp(self) -> None:
        super().setUp()
        # Whatever comes of the test.
        self.addCleanup(self.network.heal, "n3")

    def read_until(self, name: str, moment: float) -> set[int]:
        """Ask a node until then. :return: the versions that it served of one page."""
        seen = set()
        while time.time() <= moment:
            seen.add(self.readers.check(name, ONE))
        return seen

    def test_a_node_that_is_cut_off_is_named_and_serves_nothing_old_from_effective_by_on(self) -> None:
        old = self.fill()
        self.network.cut("n3")
        found = self.purge("n1", 0, "durable")
        new = self.versions.version
        # Answered while the cut-off node may still serve what is old: nobody waited for it.
        self.assertEqual(("durable", ["n3"]), (found["state"], found["pending"]))
        self.assertGreater(found["effective_by"], time.time())
        self.assertEqual({new}, {self.readers.check(name, ONE) for name in ("n1", "n2")})

        # Until then the old page is no surprise; that it is seen shows that the cut is one.
        self.assertIn(old, self.read_until("n3", found["effective_by"]))
        self.check_all("n3")
        self.assertTrue(self.fleet.status(self.fleet.nodes["n3"])["purges"]["fenced"])
        self.assertEqual(new, self.readers.check("n3", ONE))
        # Nothing is fenced where the others are a majority.
        self.assertTrue(self.fleet.nodes["n1"].ask(ONE.target).hit)

        for name in ("n1", "n2"):
            found = self.state(name, found, "complete", timeout=0.5)
            self.assertEqual(("effective", ["n3"]), (found["state"], found["pending"]), name)

        self.network.heal("n3")
        # A call that was on its way may fail first; then come two rounds.
        found = self.state("n1", found, "complete", timeout=CAUGHT_UP_SECONDS)
        self.require(found, "complete")
        self.fleet.wait_leased(self.fleet.nodes["n3"])
        self.fleet.wait_agreed()
        for name in self.fleet.ids:
            self.check_all(name)

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

    def test_alone_a_node_takes_purges_that_spread_when_the_others_are_there_again(self) -> None:
        self.fill()
        before = self.taken("n1")
        self.network.cut("n3")
        found = self.purge("n3", 0, "durable", timeout=0.2)
        self.assertEqual(("local", ["n1", "n2"]), (found["state"], found["pending"]))
        self.check_all("n3")
        # The same id may be sent again; it is the same purge.
        self.assertEqual("local", self.again("n3", found, 0)["state"])
        self.network.heal("n3")
        self.require(self.state("n3", found, "complete", timeout=CAUGHT_UP_SECONDS), "complete")
        self.assertEqual("complete", self.again("n3", found, 0)["state"])
        self.fleet.wait_agreed()
        self.assertEqual(before + 1, self.taken("n1"), "however often it was sent")
        for name in self.fleet.ids:
            self.check_all(name)

    def test_what_a_node_answered_before_it_died_reaches_one_that_it_never_reached(self) -> None:
        self.fill()
        self.network.cut("n3")
        found = self.purge("n1", 0, "durable")
        self.assertEqual(["n3"], found["pending"])
        self.fleet.nodes["n1"].kill()
        self.network.heal("n3")
        self.wait_applied("n3", found)
        for name in ("n2", "n3"):
            self.check_all(name)


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
