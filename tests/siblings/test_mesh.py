"""Nodes with real controls and pages, joined in memory: what the member decides is done, and nothing else."""

from __future__ import annotations

import os
import shutil
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.membership import Membership
from edgecache.rules.selectors import Selector, rows_of
from edgecache.rules.sites import Sites
from edgecache.rules.spreading import Member
from edgecache.siblings.mesh import Mesh
from edgecache.siblings.purger import NotAdmitted, PurgeAnswer, Purger
from edgecache.siblings.transport import Call, CallRefused
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.pagewriter import PageWriter
from edgecache.store.small import SmallTransaction
from edgecache.words.config import MIB, Config, NodeSettings, Profile, PurgeSettings, SiteSettings, StoreSettings
from edgecache.words.purging import PurgeState
from edgecache.words.reasons import PurgeMode
from edgecache.words.spreading import FENCED
from edgecache.words.stored import Serial
from tests.quickdisk import quick_directory
from tests.siblings.memory import MemoryFleet

WALL = 1_763_000_000.0
LEASE = 10.0
SITES = Sites(
    Config(NodeSettings(id="any"), (SiteSettings(name="main", profile=Profile.PLAIN, origins=("http://o.example",)),))
)
EVERYTHING = rows_of((Selector("all", site.id, b"").canonical for site in SITES.all), PurgeMode.REVALIDATE)


@define(eq=False)
class Node:
    """One node process, as far as purges go."""

    id: str
    data: str
    fleet: MemoryFleet
    clock: Clock
    ids: tuple[str, ...]
    lives: int = 0
    up: bool = False
    keep: int = 4_000_000
    page: PageWriter = field(init=False)
    environments: Environments = field(init=False)
    control: Control = field(init=False)
    mesh: Mesh = field(init=False)
    purger: Purger = field(init=False)

    def start(self) -> None:
        self.lives += 1
        self.up = True
        self.environments = Environments.open(self.data, StoreSettings(size=64 * MIB), node_process=True)
        self.page = PageWriter.create(os.path.join(self.data, "page"), 1)
        self.control = Control.open(
            self.environments.control,
            self.page,
            maybeDeferred,
            node_id=self.id,
            incarnation=self.environments.incarnation,
            keep=self.keep,
        )
        _, positions = self.control.read.applied()
        member = Member.begin(
            self.control.name,
            Membership.of(self.id, self.ids, lease_seconds=LEASE),
            self.control,
            positions=positions,
            admitted=self.control.read.admitted(),
            life=f"{self.id}-{self.lives}",
        )
        self.mesh = Mesh(
            member,
            self.control,
            self.fleet.of(self.id),
            self.clock,
            self.clock.seconds,
            lambda: WALL + self.clock.seconds(),
            self.page.publish_fresh_until,
            EVERYTHING,
            1.0,
        )
        self.purger = Purger(
            self.control,
            SITES,
            PurgeSettings(),
            self.clock,
            lambda: WALL + self.clock.seconds(),
            spread=self.mesh,
        )
        self.fleet.handlers[self.id] = self.mesh.handlers
        self.mesh.start()

    def stop(self) -> None:
        if self.up:
            self.up = False
            del self.fleet.handlers[self.id]
            self.mesh.stop()
            self.control.close()
            self.page.close()
            self.environments.close()

    @property
    def leased(self) -> bool:
        """May it serve what is purgeable as fresh?"""
        return self.page.fresh_until > self.clock.seconds()

    def purged(self, url: str) -> bool:
        """Does every hit here see a purge of ``url``?"""
        selector = Selector("url", SITES.all[0].id, url.encode()).hash
        return any(found == selector for _, found, _ in self.control.read.rows_since(0))


class MeshCase(SynchronousTestCase):
    ids: tuple[str, ...] = ("a", "b", "c")

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)
        self.fleet = MemoryFleet(self.clock, 2.0, 4 << 20)
        self.nodes = {name: self.make(name) for name in self.ids}
        for node in self.nodes.values():
            node.start()
            self.addCleanup(node.stop)
        self.seconds(3)

    def make(self, name: str) -> Node:
        return Node(name, quick_directory(self), self.fleet, self.clock, self.ids)

    def seconds(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.clock.advance(0.25)

    def cut(self, name: str) -> None:
        """Nothing reaches this node, and nothing leaves it."""
        self.fleet.cut |= {pair for other in self.ids for pair in ((name, other), (other, name))}

    def purge(self, name: str, url: str = "/one", **more: Any) -> Deferred[PurgeAnswer]:
        answer = Deferred.fromCoroutine(self.nodes[name].purger.accept({"urls": [url], **more}, "token"))
        self.clock.advance(0)
        return answer

    def state(self, name: str, purge_id: str) -> Any:
        answer = self.nodes[name].purger.state(purge_id)
        assert answer is not None
        return answer.spreading


class SpreadingTests(MeshCase):
    def test_new_nodes_admit_each_other_and_are_leased(self) -> None:
        for node in self.nodes.values():
            self.assertTrue(node.leased)
            self.assertTrue(node.control.read.admitted())

    def test_a_purge_is_everywhere_at_once_and_everybody_knows(self) -> None:
        answer = self.successResultOf(self.purge("a", id="p"))
        self.assertTrue(all(node.purged("/one") for node in self.nodes.values()))
        self.assertEqual(PurgeState.COMPLETE, self.state("a", "p").state)
        self.assertEqual(("a", "b", "c"), self.state("a", "p").applied)
        self.seconds(2)
        self.assertEqual(PurgeState.COMPLETE, self.state("b", "p").state, "and so do the others, a round later")
        self.assertIs(PurgeState.LOCAL, answer.state, "when it was answered, nobody else had been told")

    def test_the_serials_that_a_purge_names_are_demanded_everywhere(self) -> None:
        (site,) = SITES.all
        self.successResultOf(self.purge("a", serials={"six": 7}))
        self.successResultOf(self.purge("b", serials={"six": 5}))
        self.seconds(1)
        for node in self.nodes.values():
            self.assertEqual(7, node.control.read.demanded(site.id, b"six").serial)
        self.successResultOf(self.purge("b", tags=["project/six"], mode="delete"))
        for node in self.nodes.values():
            found = node.control.read.demanded(site.id, b"six")
            # Each by epochs of its own.
            self.assertEqual((0, node.page.epoch), (found.serial, found.since))

    def test_every_node_knows_when_a_purge_is_effective_everywhere(self) -> None:
        """What a change feed hangs on (:mod:`edgecache.siblings.feed`)."""
        log = self.nodes["a"].control.name
        told: list[str] = []
        for name, node in self.nodes.items():
            node.mesh.when_settled(lambda name=name: told.append(name))
        self.cut("c")
        self.successResultOf(self.purge("a", id="p"))
        self.seconds(2)
        self.assertEqual([0, 0], [self.nodes[name].mesh.settled(log) for name in "ab"], "nobody knows of c")
        self.seconds(LEASE + 2)
        self.assertEqual([1, 1, 0], [self.nodes[name].mesh.settled(log) for name in "abc"])
        self.assertEqual({"a", "b"}, set(told))
        self.assertFalse(self.nodes["c"].leased)
        self.fleet.cut.clear()
        self.seconds(3)
        self.assertEqual(1, self.nodes["c"].mesh.settled(log))

    def test_a_storm_goes_together(self) -> None:
        self.fleet.calls.clear()
        accept = self.nodes["a"].purger.accept
        answers = [Deferred.fromCoroutine(accept({"urls": [f"/{n}"], "id": f"{n}"}, "token")) for n in range(50)]
        self.clock.advance(0)
        self.assertEqual(2, self.fleet.calls.count(("a", Call.PUSH)), "one for each sibling")
        for number, answer in enumerate(answers):
            self.successResultOf(answer)
            self.assertEqual(PurgeState.COMPLETE, self.state("a", f"{number}").state)

    def test_whoever_waits_is_told(self) -> None:
        self.cut("c")
        answer = self.successResultOf(self.purge("a", id="p"))
        self.assertEqual((PurgeState.DURABLE, ("c",)), (self.state("a", "p").state, self.state("a", "p").pending))
        waiting = Deferred.fromCoroutine(self.nodes["a"].purger.reached(answer, PurgeState.COMPLETE, 60.0))
        self.seconds(3)
        self.assertNoResult(waiting)
        self.fleet.cut.clear()
        self.seconds(2)
        self.assertEqual(PurgeState.COMPLETE, self.successResultOf(waiting).state)
        self.assertTrue(self.nodes["c"].purged("/one"))

    def test_it_is_effective_when_it_says_so_and_the_cut_off_node_is_fenced_by_then(self) -> None:
        self.cut("c")
        self.successResultOf(self.purge("a", id="p"))
        by = self.state("a", "p").effective_by
        self.assertTrue(self.nodes["c"].leased)
        while WALL + self.clock.seconds() < by:
            self.clock.advance(0.25)
        self.assertEqual(PurgeState.EFFECTIVE, self.state("a", "p").state)
        self.assertFalse(self.nodes["c"].leased)
        self.assertTrue(self.nodes["b"].leased, "one that is away fences nobody else")

    def test_without_a_majority_it_is_kept_and_spreads_later(self) -> None:
        self.cut("a")
        self.successResultOf(self.purge("a", id="p"))
        self.assertEqual(PurgeState.LOCAL, self.state("a", "p").state)
        self.assertFalse(self.nodes["b"].purged("/one"))
        self.fleet.cut.clear()
        self.seconds(3)
        self.assertTrue(self.nodes["b"].purged("/one"))
        self.assertEqual(PurgeState.COMPLETE, self.state("a", "p").state)

    def test_a_lost_push_is_made_up_for_by_the_next_round(self) -> None:
        self.fleet.cut.add(("a", "b"))
        self.successResultOf(self.purge("a"))
        self.assertFalse(self.nodes["b"].purged("/one"))
        self.seconds(2)
        self.assertTrue(self.nodes["b"].purged("/one"))

    def test_what_could_not_be_kept_is_asked_for_again_whatever_was_wrong(self) -> None:
        control = self.nodes["b"].control

        def fails(*_: object) -> Any:
            control._in_thread = maybeDeferred
            raise LookupError("a defect of ours")

        control._in_thread = fails
        self.successResultOf(self.purge("a"))
        self.assertFalse(self.nodes["b"].purged("/one"))
        self.seconds(2)
        self.assertTrue(self.nodes["b"].purged("/one"))
        self.assertEqual(1, len(self.flushLoggedErrors(LookupError)))


class HeardAgainTests(MeshCase):
    """Whoever asks siblings for more than purges is told that one is back."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[str, str]] = []
        for name, node in self.nodes.items():
            node.mesh.when_heard_again(lambda other, name=name: self.told.append((name, other)))

    def test_it_is_told_once_by_each_when_one_is_not_cut_off_any_more(self) -> None:
        self.seconds(5)
        self.cut("c")
        self.seconds(30)
        self.assertEqual([], self.told)
        self.fleet.cut.clear()
        self.seconds(30)
        self.assertEqual([("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")], sorted(self.told))

    def test_or_when_one_is_started_again(self) -> None:
        self.nodes["c"].stop()
        self.seconds(5)
        self.nodes["c"].start()
        self.seconds(5)
        self.assertEqual([("a", "c"), ("b", "c")], sorted(self.told))

    def test_that_its_calls_come_does_not_say_that_it_can_be_reached(self) -> None:
        self.fleet.cut = {("a", "c")}
        self.seconds(10)
        self.assertEqual([], self.told)
        self.fleet.cut.clear()
        self.seconds(10)
        # Whoever calls from there had no answer, either.
        self.assertEqual([("a", "c"), ("c", "a")], sorted(self.told))

    def test_one_that_is_not_listened_to_is_not_back(self) -> None:
        node = self.nodes["c"]
        node.stop()
        self.seconds(5)
        node.ids = ("a", "b", "c", "d")
        node.start()
        self.seconds(5)
        self.assertEqual([], self.told)


class RestartTests(MeshCase):
    def test_a_node_that_returns_is_fenced_until_it_has_caught_up(self) -> None:
        self.nodes["c"].stop()
        self.successResultOf(self.purge("a"))
        self.cut("c")
        self.nodes["c"].start()
        self.seconds(2)
        self.assertFalse(self.nodes["c"].leased)
        self.fleet.cut.clear()
        self.seconds(2)
        self.assertTrue(self.nodes["c"].leased)
        self.assertTrue(self.nodes["c"].purged("/one"))

    def test_one_that_was_away_for_longer_than_logs_are_kept_validates_everything(self) -> None:
        self.nodes["c"].stop()
        for name in ("a", "b"):
            self.nodes[name].stop()
            self.nodes[name].keep = 20
            self.nodes[name].start()
        self.seconds(3)
        for number in range(200):
            self.clock.advance(0.01)
            self.successResultOf(self.purge("a", f"/{number}"))
        self.nodes["c"].start()
        self.seconds(3)
        rows = self.nodes["c"].control.read.rows_since(0)
        self.assertIn(EVERYTHING[0][1], {selector for _, selector, _ in rows})
        self.assertTrue(self.nodes["c"].leased)
        self.assertTrue(self.nodes["c"].purged("/199"))

    def test_one_whose_control_was_lost_takes_no_purge_before_it_knows_the_others(self) -> None:
        self.successResultOf(self.purge("c", "/before"))
        self.nodes["c"].stop()
        shutil.rmtree(self.nodes["c"].data)
        os.mkdir(self.nodes["c"].data)
        self.cut("c")
        self.nodes["c"].start()
        self.seconds(2)
        self.failureResultOf(self.purge("c"), NotAdmitted)
        self.assertEqual(FENCED, self.nodes["c"].page.fresh_until)
        self.fleet.cut.clear()
        self.seconds(3)
        self.successResultOf(self.purge("c", id="after"))
        self.assertTrue(self.nodes["c"].purged("/before"))
        self.seconds(2)
        self.assertEqual(PurgeState.COMPLETE, self.state("c", "after").state)

    def test_one_whose_control_is_an_older_copy_begins_another_log_and_has_all_of_its_old_one(self) -> None:
        node = self.nodes["c"]
        self.successResultOf(self.purge("c", "/before"))
        control, copy = os.path.join(node.data, "control"), os.path.join(node.data, "copy")
        shutil.copytree(control, copy)
        self.successResultOf(self.purge("c", "/later"))
        with node.environments.small.env.begin(write=True) as txn:
            small = SmallTransaction(txn, node.environments.small.databases)
            # As every record and serial that was stored since.
            small.raise_serial(Serial(1, b"p", 1), node.page.epoch)
            small.finish()
        node.stop()
        shutil.rmtree(control)
        os.rename(copy, control)
        self.cut("c")
        node.start()
        self.assertFalse(node.purged("/later"))
        self.failureResultOf(self.purge("c"), NotAdmitted)
        self.fleet.cut.clear()
        self.seconds(4)
        self.assertTrue(node.leased)
        self.assertTrue(node.purged("/later"))
        self.successResultOf(self.purge("c", "/after", id="after"))
        self.seconds(2)
        self.assertEqual(PurgeState.COMPLETE, self.state("c", "after").state)
        self.assertTrue(self.nodes["a"].purged("/after"))


class LoneTests(MeshCase):
    ids = ("a",)

    def test_a_lone_member_is_admitted_at_once_and_leased_for_ever(self) -> None:
        self.successResultOf(self.purge("a", id="p"))
        self.assertEqual(PurgeState.COMPLETE, self.state("a", "p").state)
        self.seconds(100)
        self.assertTrue(self.nodes["a"].leased)


class BadMessageTests(MeshCase):
    def test_what_is_no_request_is_refused_and_changes_nothing(self) -> None:
        transport = self.fleet.of("b")
        for document in ({}, {"kind": "pull"}, {"kind": "stands", "sender": {}, "positions": []}):
            self.failureResultOf(Deferred.fromCoroutine(transport.call("a", Call.PULL, document)), CallRefused)
        self.assertTrue(self.nodes["a"].leased)

    def test_other_settings_are_refused_with_what_differs(self) -> None:
        node = self.nodes["c"]
        node.stop()
        node.ids = ("a", "b", "c", "d")
        node.start()
        self.seconds(3)
        self.assertFalse(node.leased)
        problems = {state.id: state.problem for state in self.nodes["a"].mesh.siblings()}
        self.assertIn("a, b, c, d", problems["c"])
        self.assertEqual("", problems["b"])

    def test_the_log_says_so_once_and_when_it_is_over(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        node = self.nodes["c"]
        for ids in (("a", "b", "c", "d"), ("a", "b", "c")):
            node.stop()
            node.ids = ids
            node.start()
            self.seconds(5)
        said = [eventAsText(event, includeTimestamp=False) for event in events]
        heard = [line for line in said if "siblings: c is" in line]
        self.assertEqual(4, len(heard), said)
        # Of a and of b.
        for line in heard[:2]:
            self.assertIn("not listened to: 'c' is configured otherwise than", line)
        for line in heard[2:]:
            self.assertIn("listened to again", line)
