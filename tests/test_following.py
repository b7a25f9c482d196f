"""The follower: what changed on an origin's list is invalidated here, and for how long that can be relied on."""

from __future__ import annotations

import os
from typing import Any

import orjson
from attrs import define, field
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache import following
from edgecache.following import ACCEPT, Follower
from edgecache.rules.indexpaths import project_tag
from edgecache.rules.purges import PurgeTable
from edgecache.rules.selectors import selectors_of_target, tag_selector
from edgecache.rules.sites import Sites
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.pagewriter import PageWriter
from edgecache.upstream.addresses import Address, parse_origin
from edgecache.upstream.client import Client
from edgecache.upstream.polling import Poller
from edgecache.words.config import MIB, Config, NodeSettings, Profile, SiteSettings, StoreSettings, UpstreamSettings
from edgecache.words.purging import Demanded
from edgecache.words.reasons import PurgeMode
from tests.characters import Character, Dripping, Good, Silent, Stage
from tests.quickdisk import quick_directory

WALL = 1_763_000_000.0
JSON = (b"Content-Type", b"application/vnd.pypi.simple.v1+json")


@define(eq=False)
class Lister(Good):
    """An origin with a list of projects."""

    projects: dict[str, Any] = field(factory=dict)

    def say(self, **projects: Any) -> None:
        """From now on it lists these."""
        self.projects = projects
        listed = [{"name": name, "_last-serial": serial} for name, serial in projects.items()]
        self.content = orjson.dumps({"meta": {"api-version": "1.3"}, "projects": listed})
        self.etag = b'"%d"' % hash(self.content)
        self.fields = (JSON,)


class FollowerCase(SynchronousTestCase):
    settings = SiteSettings(
        "main", Profile.INDEX, ("http://origin.example/root",), follow_seconds=30.0, follow_fetch_seconds=8.0
    )

    def setUp(self) -> None:
        self.stage = Stage()
        self.clock = self.stage.clock
        self.began = self.clock.seconds()
        data = quick_directory(self)
        self.environments = Environments.open(data, StoreSettings(size=64 * MIB), node_process=True)
        self.addCleanup(self.environments.close)
        self.page = PageWriter.create(os.path.join(data, "page"), 1)
        self.addCleanup(self.page.close)
        self.worker = Page.open(self.page.path, 0)
        self.addCleanup(self.worker.close)
        self.control = Control.open(
            self.environments.control,
            self.page,
            maybeDeferred,
            node_id="eu-1",
            incarnation=self.environments.incarnation,
        )
        self.origin = Lister()
        self.addresses: list[Address] = [self.play("192.0.2.1", self.origin)]
        (self.site,) = Sites(Config(NodeSettings("eu-1"), (self.settings,))).all
        client = Client(self.stage, self.clock, UpstreamSettings())
        origins = [parse_origin(self.settings.origins[0])]
        poller = Poller(client, origins, lambda _: self.addresses, b"/simple/", ACCEPT, 20_000)
        self.follower = Follower(
            self.site,
            poller,
            self.control,
            self.page.publish_followed,
            self.clock,
            self.clock.seconds,
            lambda: WALL + self.clock.seconds() - self.began,
            maybeDeferred,
        )

        def quiet() -> None:
            self.follower.stop()
            client.stop()
            # The origins' own.
            self.pass_time(1.0)
            self.assertEqual([], self.clock.getDelayedCalls())

        self.addCleanup(quiet)

    def play(self, host: str, character: Character) -> Address:
        return self.stage.play(host, character, self.settings.origins[0])

    def start(self, **projects: Any) -> None:
        self.origin.say(**projects)
        self.follower.start()
        self.stage.settle()

    def pass_time(self, seconds: float) -> None:
        """Second by second, as everything arrives meanwhile."""
        while seconds > 0.0:
            step = min(1.0, seconds)
            self.clock.advance(step)
            self.stage.settle()
            seconds -= step

    def purged(self, target: str, floor: int, project: str = "") -> PurgeMode | None:
        """:return: what a page of that URL, known good up to ``floor``, is found to be."""
        table = PurgeTable()
        table.extend(self.control.read.rows_since(0))
        selectors = selectors_of_target(self.site.id, target.encode())
        if project:
            selectors = (*selectors, self.tag(project))
        return table.since(selectors, floor)

    def tag(self, project: str) -> int:
        return tag_selector(self.site.id, project_tag(project.encode()))

    def stale(self, project: str, floor: int) -> bool:
        return self.purged(f"/simple/{project}/", floor, project) is not None

    @property
    def followed_for(self) -> float:
        """What a worker reads."""
        return self.worker.followed_until(0) - self.clock.seconds()


class ChangesTests(FollowerCase):
    def test_with_the_first_list_all_pages_are_validated_for_nobody_looked_before(self) -> None:
        self.start(six=1)
        for target in ("/simple/six/", "/simple/", "/pypi/six/json"):
            self.assertIs(PurgeMode.REVALIDATE, self.purged(target, 0), target)
        self.assertIsNone(self.purged("/files/six/-/six-1.0.tar.gz", 0))
        self.assertEqual(Demanded(), self.control.read.demanded(self.site.id, b"six"))

    def test_a_project_with_another_serial_is_invalidated_and_older_pages_are_not_taken_any_more(self) -> None:
        self.start(six=1, Other_Name=5)
        before = self.page.epoch
        self.origin.say(six=2, Other_Name=5)
        self.pass_time(30.0)
        self.assertTrue(self.stale("six", before))
        self.assertFalse(self.stale("other-name", before))
        self.assertEqual(Demanded(2), self.control.read.demanded(self.site.id, b"six"))
        self.assertEqual(Demanded(), self.control.read.demanded(self.site.id, b"other-name"))
        # The list itself is another one too.
        self.assertIsNotNone(self.purged("/simple/", before))

    def test_a_project_that_has_vanished_is_invalidated(self) -> None:
        self.start(six=1, gone=5)
        before = self.page.epoch
        self.origin.say(six=1)
        self.pass_time(30.0)
        self.assertTrue(self.stale("gone", before))
        self.assertFalse(self.stale("six", before))

    def test_a_serial_that_went_back_is_looked_at_but_demands_nothing(self) -> None:
        self.start(six=7)
        before = self.page.epoch
        self.origin.say(six=3)
        self.pass_time(30.0)
        self.assertTrue(self.stale("six", before))
        self.origin.say(six=9)
        self.pass_time(30.0)
        self.origin.say(six=8)
        self.pass_time(30.0)
        self.assertEqual(Demanded(9), self.control.read.demanded(self.site.id, b"six"))

    def test_a_running_fill_of_a_page_whose_tags_are_not_known_yet_is_not_joined(self) -> None:
        self.start(six=1)
        before = self.page.epoch
        self.origin.say(six=2)
        self.pass_time(30.0)
        table = PurgeTable()
        table.extend(self.control.read.rows_since(0))
        self.assertIsNotNone(table.since((tag_selector(self.site.id, b""),), before))

    def test_a_list_that_did_not_change_costs_the_origin_a_304_and_invalidates_nothing(self) -> None:
        self.start(six=1)
        before = self.page.epoch
        self.pass_time(60.0)
        self.assertEqual(3, len(self.origin.asked))
        self.assertEqual(self.origin.etag, self.origin.asked[-1].fields[b"if-none-match"])
        self.assertEqual((before, 2), (self.page.epoch, self.follower.counts.unchanged))

    def test_half_of_the_index_does_not_vanish_at_once(self) -> None:
        self.start(**{f"p{number}": number for number in range(300)})
        before = self.page.epoch
        self.origin.say(p1=1)
        self.pass_time(30.0)
        self.assertEqual((before, "failing"), (self.page.epoch, self.follower.view().state))
        self.assertIn("299 of 300 projects have vanished", self.follower.view().detail)

    def test_after_very_many_changes_all_pages_are_validated(self) -> None:
        self.patch(following, "_MOST_NAMED", 3)
        self.start(a=1, b=1, c=1, d=1)
        before = self.page.epoch
        self.origin.say(a=2, b=2, c=2, d=2)
        self.pass_time(30.0)
        self.assertEqual(2, self.page.epoch - before)
        self.assertTrue(self.stale("a", before))
        self.assertEqual(Demanded(2), self.control.read.demanded(self.site.id, b"d"))


class HurryTests(FollowerCase):
    """Whoever is given a newer list must not find older pages for long."""

    def test_when_a_client_is_about_to_get_the_list_it_is_looked_at_here_too(self) -> None:
        self.start(six=1)
        self.pass_time(5.0)
        self.origin.say(six=2)
        before = self.page.epoch
        self.follower.hurry()
        self.stage.settle()
        self.assertTrue(self.stale("six", before))
        self.assertEqual(38.0, self.followed_for)
        self.pass_time(30.0)
        self.assertEqual(3, self.follower.counts.polls)

    def test_it_is_not_looked_at_more_than_once_a_second(self) -> None:
        self.start(six=1)
        for _ in range(4):
            self.pass_time(0.25)
            self.follower.hurry()
            self.follower.hurry()
        self.stage.settle()
        self.assertEqual(2, self.follower.counts.polls)

    def test_one_that_runs_is_left_alone(self) -> None:
        self.addresses[:] = [self.play("192.0.2.2", Silent())]
        self.start(six=1)
        self.pass_time(2.0)
        self.follower.hurry()
        self.assertEqual(1, self.follower.counts.polls)


class PromiseTests(FollowerCase):
    """Pages live long until the time that is published."""

    def test_it_is_the_seconds_between_polls_and_those_of_one_fetch_from_when_the_poll_began(self) -> None:
        self.start(six=1)
        self.assertEqual(38.0, self.followed_for)
        self.pass_time(29.0)
        self.assertEqual(9.0, self.followed_for)
        self.pass_time(1.0)
        self.assertEqual(38.0, self.followed_for)
        view = self.follower.view()
        self.assertEqual(("following", "", 1, 38.0), (view.state, view.detail, view.projects, view.bound_seconds))
        self.assertEqual((WALL + 30.0, 38.0), (view.polled_at, view.followed_for))

    def test_it_is_published_only_when_what_changed_is(self) -> None:
        published: list[tuple[float, int]] = []
        self.follower._publish = lambda site, until: published.append((until, self.page.epoch))
        self.start(six=1)
        self.origin.say(six=2)
        self.pass_time(30.0)
        (_, first), (_, second) = published
        self.assertGreater(second, first)
        self.assertEqual(second, self.page.epoch)

    def test_while_polls_fail_it_ends_by_itself_and_they_go_on_sooner(self) -> None:
        self.start(six=1)
        self.addresses[:] = [self.play("192.0.2.2", Silent())]
        self.pass_time(38.0)
        self.assertEqual(0.0, self.followed_for)
        view = self.follower.view()
        self.assertEqual(("failing", 0.0), (view.state, view.followed_for))
        self.assertEqual(1, view.counts.failures)
        self.addresses[:] = [self.play("192.0.2.3", self.origin)]
        self.pass_time(7.0)
        self.assertEqual("following", self.follower.view().state)
        self.assertGreater(self.followed_for, 0.0)

    def test_what_changed_while_polls_failed_is_invalidated_with_the_next_list(self) -> None:
        self.start(six=1)
        before = self.page.epoch
        self.addresses.clear()
        self.origin.say(six=2)
        self.pass_time(60.0)
        self.assertFalse(self.stale("six", before))
        self.addresses[:] = [self.play("192.0.2.3", self.origin)]
        self.pass_time(10.0)
        self.assertTrue(self.stale("six", before))

    def test_a_list_that_takes_longer_than_a_fetch_may_is_given_up(self) -> None:
        slow = Dripping(content=b" " * 9000, fields=(JSON,), timers=self.clock, at_once=200)
        self.addresses[:] = [self.play("192.0.2.2", slow)]
        self.start(six=1)
        self.pass_time(8.0)
        self.assertIn("did not come within 8 s", self.follower.view().detail)

    def test_a_list_that_is_too_large_or_none_is_no_list(self) -> None:
        for character, why in (
            (Good(content=b"x" * 20_001, fields=(JSON,)), "more than 20000 octets"),
            (Good(content=b"{}", fields=(JSON,)), "no list of projects"),
            (Good(status=b"500 Oops"), "answered 500"),
            (Good(fields=(JSON, (b"Content-Encoding", b"gzip"))), "in the coding gzip"),
        ):
            self.addresses[:] = [self.play(f"192.0.3.{len(why)}", character)]
            if not self.origin.projects:
                self.start(six=1)
            else:
                self.pass_time(10.0)
            self.assertIn(why, self.follower.view().detail)
        self.assertLessEqual(self.followed_for, 0.0)

    def test_another_address_is_asked_when_one_fails(self) -> None:
        self.addresses.insert(0, self.play("192.0.2.2", Good(status=b"503 Busy")))
        self.start(six=1)
        self.assertEqual("following", self.follower.view().state)

    def test_stopping_takes_it_back(self) -> None:
        self.start(six=1)
        self.follower.stop()
        self.assertLess(self.followed_for, 0.0)


class NoSerialsTests(FollowerCase):
    """Such a list does not tell which pages have changed, so nothing is promised."""

    def test_a_list_in_html_only_tells_that_it_is_another_one(self) -> None:
        html = Good(content=b"<a>six</a>", fields=((b"Content-Type", b"text/html"),))
        self.addresses[:] = [self.play("192.0.2.2", html)]
        self.start()
        first = self.page.epoch
        self.assertIsNotNone(self.purged("/simple/", 0))
        self.pass_time(30.0)
        self.assertEqual(first, self.page.epoch)
        html.content, html.etag = b"<a>seven</a>", b'"two"'
        self.pass_time(30.0)
        self.assertIsNotNone(self.purged("/simple/", first))
        self.assertIsNone(self.purged("/simple/six/", first, "six"))
        view = self.follower.view()
        self.assertEqual(("no-serials", 0.0), (view.state, view.followed_for))
        self.assertLess(self.followed_for, 0.0)

    def test_one_project_without_a_serial_is_enough(self) -> None:
        self.start(six=1)
        before = self.page.epoch
        self.origin.say(six=2, other=None)
        self.pass_time(30.0)
        self.assertEqual("1 of 2 projects are listed without a serial", self.follower.view().detail)
        self.assertLess(self.followed_for, 0.0)
        self.assertTrue(self.stale("six", before))
        self.origin.say(six=2, other=4)
        self.pass_time(30.0)
        self.assertEqual("following", self.follower.view().state)
