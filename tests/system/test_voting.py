"""Two real nodes and a voter: what the voter is, what it is good for, and what else two nodes tell each other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer
from tests.system.contents import Octets
from tests.system.fleet import Fleet, Voter
from tests.system.harness import Node, NodeDied
from tests.system.origins import Origin, Reply, Seen, text
from tests.system.processes import listening_ports, until

VERSION = "version "
# One answer's groups spread, and then none for long: a burst is at least one.
PACE = "[purge]\nshared_groups_per_second = 0.001"


class VotingTests(SynchronousTestCase):
    """One fleet, all of it well when a test begins. Each test has pages of its own."""

    origin: Origin
    fleet: Fleet
    voter: Voter
    version = 1

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-voting-")
        cls.addClassCleanup(directory.cleanup)
        cls.origin = Origin(cls.answer).start()
        cls.addClassCleanup(cls.origin.stop)
        cls.fleet = Fleet(
            Path(directory.name),
            2,
            cls.origin.url,
            voter=True,
            site="share_invalidation = true",
            siblings="pull_seconds = 0.5\ncall_seconds = 1.0\nlease_seconds = 3.0",
            more=PACE,
        )
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()
        assert cls.fleet.voter is not None
        cls.voter = cls.fleet.voter

    @classmethod
    def answer(cls, seen: Seen) -> Reply:
        """A page has the group that its path begins with; a POST to one invalidates that."""
        group = f'"{seen.target.split("/")[1]}"'
        if seen.method == "POST":
            return Reply(Octets(b"done"), fields=(("Cache-Group-Invalidation", group),))
        return text(f"{VERSION}{cls.version}", ("Cache-Groups", group))

    def setUp(self) -> None:
        for node in self.fleet.members:
            try:
                node.require_alive()
            except NodeDied:
                node.start()
        for node in self.fleet.members:
            self.fleet.wait_leased(node)
        self.n1, self.n2 = self.fleet.nodes["n1"], self.fleet.nodes["n2"]

    def publish(self) -> int:
        """:return: the version before."""
        type(self).version += 1
        return self.version - 1

    def fill(self, target: str) -> None:
        """Both nodes find it stored."""
        for node in self.fleet.nodes.values():
            until(lambda node=node: node.ask(target).hit, f"{target} in {node.url}")

    def seen(self, node: Node, target: str) -> int:
        """The version that a node serves."""
        return int(node.ask(target).content.decode().removeprefix(VERSION))

    def purge(self, node: Node, wait: str, **document: Any) -> dict[str, Any]:
        return self.json(node.admin("POST", f"/purge?wait={wait}&timeout=60", document))

    def json(self, answer: Answer) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(answer.content)
        return document

    # The voter

    def test_it_is_one_process_that_siblings_and_operators_alone_can_reach(self) -> None:
        (pid,) = self.voter.family()
        status = self.fleet.status(self.voter)
        listen = status["listen"]
        self.assertEqual(([], []), (listen["public"], listen["content"]))
        told = {int(text.rpartition(":")[2]) for text in (*listen["admin"], *listen["siblings"])}
        self.assertEqual(told, listening_ports(pid))
        self.assertEqual((True, [], []), (status["node"]["voter"], status["sites"], status["workers"]))
        self.assertEqual([], [name for name in ("small", "blobs") if (self.voter.data / name).exists()])
        self.assertEqual(404, self.voter.admin("GET", "/page").status)
        for path in ("/healthz", "/readyz", "/metrics"):
            self.assertEqual(200, self.voter.admin("GET", path, token=False).status, path)

    def test_it_takes_no_purge_because_it_cannot_tell_what_one_names(self) -> None:
        before = self.fleet.positions(self.voter)
        for path, document in (("/purge", {"all": True}), ("/service/x/purge/tag", None)):
            refused = self.voter.admin("POST", path, document)
            self.assertEqual((421, "voter"), (refused.status, self.json(refused)["error"]))
        self.assertEqual(before, self.fleet.positions(self.voter))

    def test_it_has_every_purge_and_says_how_far_it_has_come(self) -> None:
        done = self.purge(self.n1, "complete", urls=["/known"])
        self.assertEqual(("complete", ["n1", "n2", "v"]), (done["state"], done["applied"]))
        told = self.json(self.voter.admin("GET", f"/purge/{done['id']}?wait=complete&timeout=60"))
        self.assertEqual((done["id"], "complete", ["n1", "n2", "v"]), (told["id"], told["state"], told["applied"]))

    def test_with_one_node_dead_the_other_goes_on_and_what_it_did_outlives_it(self) -> None:
        # Something that an audit could ask for.
        self.purge(self.n1, "complete", urls=["/page"])
        self.fill("/page")
        self.n2.kill()
        old = self.publish()
        done = self.purge(self.n1, "durable", urls=["/page"])
        self.assertEqual(("durable", ["n2"]), (done["state"], done["pending"]))
        self.assertGreater(self.seen(self.n1, "/page"), old)
        found = self.n1.edgecache("audit")
        self.assertEqual(1, found.returncode, "who cannot be asked is no good news")
        self.assertIn(f"unclear: {self.n2.url}: ", found.stdout)
        # Not fenced: the voter vouches for it.
        until(lambda: self.n1.ask("/page").hit, "a hit at the node that is left")
        self.n1.kill()
        # Nobody but the voter has it now.
        self.n2.start()
        self.fleet.wait_leased(self.n2)
        self.assertEqual("n1", self.json(self.n2.admin("GET", f"/purge/{done['id']}"))["accepted_by"])
        self.assertGreater(self.seen(self.n2, "/page"), old)

    def test_without_the_voter_the_nodes_go_on(self) -> None:
        self.fill("/other")
        self.voter.kill()
        old = self.publish()
        done = self.purge(self.n2, "durable", urls=["/other"])
        self.assertEqual(("durable", ["v"]), (done["state"], done["pending"]))
        self.assertGreater(self.seen(self.n1, "/other"), old)

    # The audit

    def test_every_node_that_serves_is_asked_though_nobody_names_one(self) -> None:
        self.fill("/audited")
        self.publish()
        self.purge(self.n1, "complete", urls=["/audited"])
        found = self.n1.edgecache("audit")
        self.assertEqual((0, ""), (found.returncode, found.stderr), found.stdout)
        self.assertRegex(found.stdout, r"\A2 nodes, [1-9]\d* URLs: ")

    # [[site]] share_invalidation (RFC 9875 §3)

    def groups(self) -> dict[str, int]:
        counts: dict[str, int] = self.fleet.status(self.n1)["purges"]["groups"]
        return counts

    def test_groups_that_an_origin_invalidates_at_one_node_are_invalid_at_the_other_within_the_pace(self) -> None:
        for target in ("/news/1", "/news/2", "/sport/1"):
            self.fill(target)
        old = self.publish()
        self.assertEqual(b"done", self.n1.ask("/news/form", method="POST", content=b"x").content)
        # Here at once; there without anybody having waited for it.
        self.assertEqual(old + 1, self.seen(self.n1, "/news/1"))
        until(lambda: self.seen(self.n2, "/news/1") > old, "the new version at the other node")
        self.assertGreater(self.seen(self.n2, "/news/2"), old)
        self.assertTrue(self.n2.ask("/sport/1").hit)
        self.assertEqual({"spread": 1, "pace": 0, "joining": 0, "size": 0}, self.groups())
        purge = self.fleet.status(self.n2)["purges"]["recent"][0]
        told = tuple(purge[key] for key in ("token", "accepted_by", "mode"))
        self.assertEqual(("(Cache-Group-Invalidation)", "n1", "delete"), told)
        self.fleet.wait_agreed()
        positions = self.fleet.positions(self.n1)

        self.n1.ask("/sport/form", method="POST", content=b"x")
        self.assertEqual(old + 1, self.seen(self.n1, "/sport/1"))
        self.assertEqual(1, self.groups()["pace"])
        self.assertEqual(positions, self.fleet.positions(self.n1))
        self.assertEqual((True, old), (self.n2.ask("/sport/1").hit, self.seen(self.n2, "/sport/1")))
