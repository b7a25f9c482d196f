"""What a node has once, while its settings change."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.common import Common
from edgecache.preparing import make_data
from edgecache.rules.selectors import everything
from edgecache.rules.sites import Sites
from edgecache.words.config import MIB, Config, NodeSettings, Profile, SiteSettings, StoreSettings
from edgecache.words.errors import ControlFailed
from edgecache.words.siblingsettings import SiblingSettings
from tests.quickdisk import quick_directory
from tests.siblings.fleet import Certificates


def site(name: str) -> SiteSettings:
    return SiteSettings(name, Profile.PLAIN, (f"http://{name}.example/",), hosts=(f"{name}.example",))


class FollowTests(SynchronousTestCase):
    """Control takes nothing more, as on a full disk."""

    def setUp(self) -> None:
        data = quick_directory(self)
        make_data(f"{data}/run")
        self.one = Config(NodeSettings("n", data=data), (site("one"),), store=StoreSettings(size=64 * MIB))
        self.both = evolve(self.one, sites=(site("one"), site("two")))
        self.clock = Clock()

    def open(self, config: Config) -> Common:
        common = Common.open(
            config,
            reactor,
            self.clock,
            cast(Any, None),
            spawns=set,
            workers=list,
            reloaded=lambda: None,
            tell=lambda op, **payload: None,
        )
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(common.stop())))
        self.successResultOf(common.control.close())
        return common

    def test_what_cannot_be_written_down_is_refused_and_all_stays_as_it_was(self) -> None:
        """Whoever asked for the reload is told so: nothing of it may have been taken over."""
        common = self.open(self.one)
        groups = common._roster.groups
        self.failureResultOf(Deferred.fromCoroutine(common.follow(self.both, self.one)), ControlFailed)
        self.assertEqual((groups, self.one), (common._roster.groups, common.config))

    def test_what_is_taken_over_already_is_gone_on_with_and_purges_name_who_has_left(self) -> None:
        """Else nobody would follow indexes any more; and who has left may come back with what is stored."""
        common = self.open(self.both)
        following = Deferred.fromCoroutine(common.follow(self.one))
        self.clock.advance(10)
        self.successResultOf(following)
        self.assertEqual(self.one, common.config)
        self.assertEqual(
            {each.name for each in self.both.sites}, {each.settings.name for each in common._purger._sites.all}
        )

    def test_siblings_purges_that_nobody_can_name_any_more_are_of_who_has_left_as_well(self) -> None:
        keys = Certificates(Path(quick_directory(self)))
        keys.issue("n")
        siblings = keys.settings("n")
        other = SiblingSettings("m", "https://127.0.0.1:1", "https://127.0.0.1:2")
        both, one = (evolve(each, siblings=siblings, others=(other,)) for each in (self.both, self.one))
        common = self.open(both)
        assert common._fleet is not None
        following = Deferred.fromCoroutine(common.follow(one))
        self.clock.advance(10)
        self.successResultOf(following)
        self.assertEqual(everything(Sites(both)), common._fleet.mesh._everything)
