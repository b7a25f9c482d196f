"""Purging on one node: every selector and mode, ids, the audit, and what a record then is."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.purges import PurgeTable
from edgecache.rules.selectors import selectors_of_target, tag_selector
from edgecache.rules.sites import Sites
from edgecache.siblings.purger import (
    NotAdmitted,
    PurgeAnswer,
    PurgeConflict,
    PurgeInvalid,
    Purger,
    Spread,
    TooManyPurges,
)
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.pagewriter import PageWriter
from edgecache.words.config import MIB, Config, NodeSettings, Profile, PurgeSettings, SiteSettings, StoreSettings
from edgecache.words.errors import ControlFailed
from edgecache.words.purging import PurgeState, Spreading
from edgecache.words.reasons import PurgeMode
from tests.quickdisk import quick_directory
from tests.siblings.spreads import LEASE_SECONDS, HandFleet

T = TypeVar("T")
NOW = 1_763_000_000.0

CONFIG = Config(
    node=NodeSettings(id="eu-1"),
    sites=(
        SiteSettings(name="index", profile=Profile.INDEX, origins=("http://origin.example",), hosts=("a.example",)),
        SiteSettings(name="files", profile=Profile.PLAIN, origins=("http://files.example/pub",), hosts=("b.example",)),
    ),
)


class PurgerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = quick_directory(self)
        self.opened: list[Any] = []
        self.addCleanup(self.shut)
        self.clock = Clock()
        self.clock.advance(1_000)
        self.sites = Sites(CONFIG)
        self.purger = self.open()

    def open(self, settings: PurgeSettings | None = None, in_thread: Any = maybeDeferred, **more: Any) -> Purger:
        environments = Environments.open(self.data, StoreSettings(size=64 * MIB), node_process=True)
        self.page = PageWriter.create(os.path.join(self.data, "page"), 1)
        self.opened = [self.page, environments]
        self.control = Control.open(
            environments.control, self.page, in_thread, node_id="eu-1", incarnation=environments.incarnation
        )
        return Purger(self.control, self.sites, settings or CONFIG.purge, self.clock, self.wall, **more)

    def wall(self) -> float:
        return NOW + self.clock.seconds() - 1_000

    def shut(self) -> None:
        for each in self.opened:
            each.close()
        self.opened = []

    def wait(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def purge(self, **document: Any) -> PurgeAnswer:
        return self.wait(self.purger.accept(document, "tester"))

    def refused(self, error: type[Exception], **document: Any) -> Any:
        return self.failureResultOf(Deferred.fromCoroutine(self.purger.accept(document, "tester")), error).value

    def since(self, site: int, target: bytes, *tags: bytes, floor: int = 0) -> PurgeMode | None:
        """What a process that reads the log says of a record of ``target`` with these tags."""
        table = PurgeTable()
        table.extend(self.control.read.rows_since(0))
        site_id = self.sites.all[site].id
        selectors = (*selectors_of_target(site_id, target), *(tag_selector(site_id, tag) for tag in tags))
        found = table.since(selectors, floor)
        self.assertEqual(found, self.control.read.since(selectors, floor))
        return found


class SizeTests(PurgerCase):
    def test_one_that_siblings_could_not_be_sent_is_refused_and_changes_nothing(self) -> None:
        self.shut()
        self.purger = self.open(entry_octets=1000)
        urls = [f"/{number}" for number in range(100)]
        asked = Deferred.fromCoroutine(self.purger.accept({"urls": urls, "id": "large"}, "token"))
        self.assertIn("in parts", self.failureResultOf(asked, PurgeInvalid).value.problem)
        self.assertIsNone(self.purger.state("large"))
        self.successResultOf(Deferred.fromCoroutine(self.purger.accept({"urls": urls[:5]}, "token")))


class SelectorTests(PurgerCase):
    def test_a_path_selects_itself_on_every_site_and_nothing_else(self) -> None:
        self.purge(urls=["/simple/a/"])
        for site in (0, 1):
            self.assertEqual(PurgeMode.REVALIDATE, self.since(site, b"/simple/a/"))
            for other in (b"/simple/a", b"/simple/a/?x", b"/simple/a/b", b"/simple/"):
                self.assertIsNone(self.since(site, other))

    def test_an_absolute_url_selects_on_the_site_that_it_names(self) -> None:
        self.purge(urls=["https://A.example/simple/a/"])
        self.assertEqual(PurgeMode.REVALIDATE, self.since(0, b"/simple/a/"))
        self.assertIsNone(self.since(1, b"/simple/a/"))

    def test_an_origins_url_selects_what_clients_call_it(self) -> None:
        self.purge(urls=["http://files.example/pub/x.whl"])
        self.assertEqual(PurgeMode.REVALIDATE, self.since(1, b"/x.whl"))
        self.assertIsNone(self.since(0, b"/x.whl"))

    def test_a_url_of_nobody_selects_nothing_and_is_a_purge_all_the_same(self) -> None:
        answer = self.purge(urls=["http://nobody.example/x"])
        self.assertEqual((1, ()), (answer.entry.sequence, answer.purge.selectors))
        self.assertEqual(0, self.page.epoch)

    def test_a_prefix_selects_what_begins_with_it(self) -> None:
        self.purge(prefixes=["/simple/"])
        for target in (b"/simple/", b"/simple/a/", b"/simple/a/b?c"):
            self.assertEqual(PurgeMode.REVALIDATE, self.since(0, target))
        for target in (b"/simple", b"/files/x"):
            self.assertIsNone(self.since(0, target))

    def test_a_tag_selects_what_carries_it(self) -> None:
        self.purge(tags=["release 1"])
        self.assertEqual(PurgeMode.REVALIDATE, self.since(1, b"/x", b"release 1"))
        self.assertIsNone(self.since(1, b"/x", b"release 2"))

    def test_all_selects_everything(self) -> None:
        self.purge(all=True)
        self.assertEqual(PurgeMode.REVALIDATE, self.since(0, b"/x"))
        self.assertEqual(PurgeMode.REVALIDATE, self.since(1, b"/y", b"tag"))

    def test_a_serial_selects_its_project_and_is_kept(self) -> None:
        answer = self.purge(serials={"Foo.Bar": 1234})
        self.assertEqual({"foo-bar": 1234}, answer.purge.serials)
        self.assertEqual(PurgeMode.REVALIDATE, self.since(0, b"/anything", b"project/foo-bar"))

    def test_each_mode_is_what_the_record_meets_and_the_strictest_counts(self) -> None:
        for mode in ("soft", "revalidate", "delete"):
            self.purge(urls=["/" + mode], mode=mode)
            self.assertEqual(PurgeMode[mode.upper()], self.since(0, b"/" + mode.encode()))
        self.purge(urls=["/delete"], mode="soft")
        self.assertEqual(PurgeMode.DELETE, self.since(0, b"/delete"))

    def test_what_was_fetched_after_the_purge_is_good(self) -> None:
        self.purge(urls=["/a"])
        self.assertIsNone(self.since(0, b"/a", floor=self.page.epoch))
        self.purge(urls=["/b"])
        self.assertIsNone(self.since(0, b"/a", floor=2))
        self.assertIsNotNone(self.since(0, b"/a", floor=0))


class AnswerTests(PurgerCase):
    def test_a_lone_node_is_complete_at_once_and_everything_is_told(self) -> None:
        answer = self.purge(urls=["/a"], mode="delete", id="release-7")
        self.assertEqual(PurgeState.COMPLETE, answer.state)
        self.assertEqual(Spreading(PurgeState.COMPLETE, ("eu-1",), (), None), answer.spreading)
        self.assertEqual(("release-7", 1, 2), (answer.entry.purge_id, answer.entry.sequence, answer.entry.last_epoch))
        self.assertEqual(
            (PurgeMode.DELETE, NOW, "tester"), (answer.purge.mode, answer.purge.accepted_at, answer.purge.by)
        )
        self.assertEqual(2, self.page.epoch)

    def test_the_epoch_is_published_and_on_disk_when_the_answer_comes(self) -> None:
        answer = self.purge(urls=["/a"])
        self.assertEqual(answer.entry.last_epoch, self.page.epoch)
        self.shut()
        self.purger = self.open()
        self.assertEqual(answer, self.purger.state(answer.entry.purge_id))
        self.assertEqual(answer.entry.last_epoch, self.page.epoch)

    def test_without_an_id_each_purge_gets_its_own(self) -> None:
        first, second = self.purge(urls=["/a"]), self.purge(urls=["/a"])
        self.assertNotEqual(first.entry.purge_id, second.entry.purge_id)
        self.assertEqual(4, self.page.epoch)

    def test_the_same_id_again_is_the_same_purge(self) -> None:
        first = self.purge(urls=["/a", "/b"], id="x")
        self.clock.advance(100)
        again = self.purge(urls=["/b", "/a"], id="x")
        self.assertEqual(first, again)
        self.assertEqual((4, 1), (self.page.epoch, self.control.head().sequence))
        self.assertEqual(1, self.purger.accepted[PurgeMode.REVALIDATE])

    def test_the_same_id_for_something_else_is_refused_and_does_nothing(self) -> None:
        self.purge(urls=["/a"], id="x")
        self.assertEqual("x", self.refused(PurgeConflict, urls=["/b"], id="x").id)
        self.refused(PurgeConflict, urls=["/a"], mode="delete", id="x")
        self.assertEqual(2, self.page.epoch)

    def test_an_unknown_id_has_no_state(self) -> None:
        self.assertIsNone(self.purger.state("never"))

    def test_the_newest_purges_come_first(self) -> None:
        for number in range(5):
            self.purge(urls=["/a"], id=str(number))
        self.assertEqual(["4", "3", "2"], [answer.entry.purge_id for answer in self.purger.recent(3)])

    def test_an_entry_of_another_release_hides_no_others(self) -> None:
        self.purge(urls=["/a"], id="old")
        self.successResultOf(self.control.append(b'{"version": 9}', "newer", []))
        self.purge(urls=["/a"], id="new")
        self.assertEqual(["new", "old"], [answer.entry.purge_id for answer in self.purger.recent()])

    def test_each_purge_is_logged_with_who_and_what(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.purge(urls=["/a"], id="x")
        self.purge(urls=["/a"], id="x")
        audited = [event for event in events if "by" in event]
        self.assertEqual([("x", "tester", "url /a", 2)], [(e["id"], e["by"], e["first"], e["count"]) for e in audited])


class RefusalTests(PurgerCase):
    def test_what_cannot_be_understood_is_named(self) -> None:
        for document, named in (
            ({"urls": ["/a", 5]}, "5"),
            ({"urls": ["relative"]}, "relative"),
            ({"prefixes": ["/a"]}, "/a"),
            ({"prefixes": ["/a" * 17 + "/"]}, "/a/a"),
            ({"mode": "hard", "all": True}, "hard"),
            ({"url": ["/a"]}, "url"),
            ({}, "urls"),
            ({"all": "yes"}, "yes"),
            ({"serials": {"x": "many"}}, "many"),
        ):
            self.assertIn(named, self.refused(PurgeInvalid, **document).problem)
        self.assertEqual(0, self.control.head().sequence)

    def test_more_selectors_than_configured_are_refused(self) -> None:
        self.shut()
        self.purger = self.open(PurgeSettings(selectors=4))
        self.purge(urls=["/a", "/b"])
        self.refused(PurgeInvalid, urls=["/a", "/b", "/c"])

    def test_a_storm_is_slowed_down(self) -> None:
        self.shut()
        self.purger = self.open(PurgeSettings(per_second=1.0))
        for _ in range(5):
            self.purge(all=True)
        self.assertEqual(1.0, self.refused(TooManyPurges, all=True).retry_after)
        self.clock.advance(1.0)
        self.purge(all=True)

    def test_what_could_not_be_written_is_not_said_to_be_done(self) -> None:
        self.successResultOf(self.control.close())
        self.refused(ControlFailed, urls=["/a"])
        self.assertEqual(0, self.purger.accepted[PurgeMode.REVALIDATE])


class SpreadingTests(PurgerCase):
    """DESIGN 9: what is answered, and when, in a fleet of three."""

    def open(self, *arguments: Any, **more: Any) -> Purger:
        self.fleet = HandFleet(self.wall)
        spread: Spread = self.fleet
        return super().open(*arguments, spread=spread, **more)

    def reached(self, answer: PurgeAnswer, wanted: PurgeState, timeout: float = 5.0) -> Deferred[PurgeAnswer]:
        return Deferred.fromCoroutine(self.purger.reached(answer, wanted, timeout))

    def test_a_purge_is_given_to_the_fleet_once_it_is_published_and_once_only(self) -> None:
        epochs: list[int] = []
        self.fleet.hears = lambda entry: epochs.append(self.page.epoch)
        self.purge(urls=["/a"], id="x")
        self.purge(urls=["/a"], id="x")
        self.assertEqual([2], epochs)

    def test_the_answer_names_who_has_it_and_who_has_not(self) -> None:
        answer = self.purge(urls=["/a"], id="x")
        self.assertEqual(Spreading(PurgeState.LOCAL, ("eu-1",), ("us-1", "ap-1")), answer.spreading)
        self.fleet.apply("us-1", "x")
        durable = self.purger.state("x")
        assert durable is not None
        self.assertEqual(
            Spreading(PurgeState.DURABLE, ("eu-1", "us-1"), ("ap-1",), NOW + LEASE_SECONDS), durable.spreading
        )

    def test_each_state_is_waited_for_and_no_longer(self) -> None:
        answer = self.purge(urls=["/a"], id="x")
        durable, effective, complete = (
            self.reached(answer, state, 60.0)
            for state in (PurgeState.DURABLE, PurgeState.EFFECTIVE, PurgeState.COMPLETE)
        )
        self.assertNoResult(durable)
        self.fleet.apply("us-1", "x")
        self.assertEqual(PurgeState.DURABLE, self.successResultOf(durable).state)
        self.assertNoResult(effective)
        self.clock.advance(LEASE_SECONDS)
        self.assertEqual(PurgeState.EFFECTIVE, self.successResultOf(effective).state)
        self.assertNoResult(complete)
        self.fleet.apply("ap-1", "x")
        self.assertEqual(PurgeState.COMPLETE, self.successResultOf(complete).state)
        self.assertEqual((0, []), (self.fleet.waiting("x"), self.clock.getDelayedCalls()))

    def test_a_timeout_answers_with_the_state_reached(self) -> None:
        answer = self.purge(urls=["/a"], id="x")
        waiting = self.reached(answer, PurgeState.COMPLETE, 5.0)
        self.clock.advance(4.9)
        self.fleet.apply("us-1", "x")
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(("us-1",), self.successResultOf(waiting).spreading.applied[1:])
        self.assertEqual((0, []), (self.fleet.waiting("x"), self.clock.getDelayedCalls()))

    def test_no_timeout_waits_for_nothing(self) -> None:
        answer = self.purge(urls=["/a"])
        waited = self.successResultOf(self.reached(answer, PurgeState.COMPLETE, 0.0))
        self.assertEqual(PurgeState.LOCAL, waited.state)

    def test_one_who_waits_and_leaves_disturbs_nobody(self) -> None:
        answer = self.purge(urls=["/a"], id="x")
        leaves, stays = self.reached(answer, PurgeState.DURABLE), self.reached(answer, PurgeState.DURABLE)
        leaves.cancel()
        self.failureResultOf(leaves, CancelledError)
        self.assertEqual(1, self.fleet.waiting("x"))
        self.fleet.apply("us-1", "x")
        self.assertEqual(PurgeState.DURABLE, self.successResultOf(stays).state)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_joining_node_accepts_nothing(self) -> None:
        self.fleet.joining = "This node is joining."
        self.assertEqual("This node is joining.", self.refused(NotAdmitted, all=True).reason)
        self.assertEqual(0, self.control.head().sequence)

    def test_a_client_that_leaves_before_its_purge_is_on_disk_loses_nothing(self) -> None:
        self.shut()
        commits: list[Any] = []

        def held(work: Any, *arguments: Any) -> Deferred[Any]:
            done: Deferred[Any] = Deferred()
            commits.append(lambda: done.callback(work(*arguments)))
            return done

        self.purger = self.open(in_thread=held)
        told: list[tuple[str, bool]] = []
        asked = Deferred.fromCoroutine(
            self.purger.accept({"urls": ["/a"], "id": "x"}, "ci", lambda a, new: told.append((a.entry.purge_id, new)))
        )
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(([], []), (told, self.fleet.told))
        commits[0]()
        self.assertEqual(([("x", True)], ["x"]), (told, [entry.purge_id for entry in self.fleet.told]))
        self.assertEqual(2, self.page.epoch)


class PaceTests(PurgerCase):
    def open(self, *arguments: Any, **more: Any) -> Purger:
        return super().open(PurgeSettings(per_second=3.0, token_per_second=1.0), **more)

    def by(self, token: str) -> None:
        self.wait(self.purger.accept({"all": True}, token))

    def slowed(self, token: str) -> TooManyPurges:
        return self.failureResultOf(
            Deferred.fromCoroutine(self.purger.accept({"all": True}, token)), TooManyPurges
        ).value  # type: ignore[return-value]

    def test_one_token_that_runs_away_leaves_room_for_the_others(self) -> None:
        for _ in range(5):
            self.by("runaway")
        for _ in range(100):
            self.assertEqual("token_per_second", self.slowed("runaway").setting)
        self.by("calm")

    def test_all_tokens_together_have_a_pace_too(self) -> None:
        for number in range(15):
            self.by(str(number))
        self.assertEqual("per_second", self.slowed("another").setting)


class ConfigurationTests(PurgerCase):
    def test_a_site_that_comes_later_is_not_selected_by_older_purges_of_paths(self) -> None:
        self.purge(urls=["/a"])
        later = SiteSettings(name="later", profile=Profile.PLAIN, origins=("http://x.example",))
        self.sites = Sites(evolve(CONFIG, sites=(*CONFIG.sites, later)))
        self.assertIsNone(self.since(2, b"/a"))
