"""What a node has once, while its settings change."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.common import Common
from edgecache.preparing import make_data
from edgecache.words.config import MIB, Config, NodeSettings, Profile, SiteSettings, StoreSettings
from edgecache.words.errors import ControlFailed
from tests.quickdisk import quick_directory


def site(name: str) -> SiteSettings:
    return SiteSettings(name, Profile.PLAIN, (f"http://{name}.example/",), hosts=(f"{name}.example",))


class FollowTests(SynchronousTestCase):
    def test_where_control_cannot_be_written_all_stays_as_it_was(self) -> None:
        """A reload that is refused says so: nothing of it may have been taken over."""
        data = quick_directory(self)
        make_data(f"{data}/run")
        config = Config(NodeSettings("n", data=data), (site("one"),), store=StoreSettings(size=64 * MIB))
        common = Common.open(
            config,
            reactor,
            Clock(),
            cast(Any, None),
            spawns=set,
            workers=list,
            reloaded=lambda: None,
            tell=lambda op, **payload: None,
        )
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(common.stop())))
        groups = common._roster.groups
        # As on a full disk: it takes nothing more.
        self.successResultOf(common.control.close())
        other = evolve(config, sites=(site("one"), site("two")))
        self.failureResultOf(Deferred.fromCoroutine(common.follow(other, config)), ControlFailed)
        self.assertEqual((groups, config), (common._roster.groups, common.config))
