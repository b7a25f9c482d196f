"""Groups that an origin invalidates: spread as a purge at a bounded pace, and held here in any case (RFC 9875 §3)."""

from __future__ import annotations

from typing import Any

from twisted.logger import globalLogPublisher

from edgecache.rules.selectors import Selector
from edgecache.siblings.groups import BY, LOG_SECONDS, Groups, GroupSharing
from edgecache.siblings.pace import BURST_SECONDS, Pace
from edgecache.siblings.purger import PurgeAnswer
from edgecache.words.purging import PurgeState
from edgecache.words.reasons import PurgeMode
from tests.siblings.spreads import HandFleet
from tests.siblings.test_purger import PurgerCase


class GroupSharingTests(PurgerCase):
    def share(self, *groups: str, site: int = 1) -> None:
        selectors = [Selector("tag", self.sites.all[site].id, group.encode()).canonical for group in groups]
        self.wait(self.groups.share(selectors))

    def prepare(self, per_second: float = 10.0, **more: Any) -> None:
        self.shut()
        self.fleet = HandFleet(self.wall)
        self.purger = self.open(spread=self.fleet, **more)
        self.told: list[PurgeAnswer] = []
        self.groups = GroupSharing(
            self.control, self.purger, self.clock, Pace(per_second), lambda answer, new: self.told.append(answer)
        )
        self.warnings: list[Any] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)

    def hear(self, event: Any) -> None:
        if event["log_namespace"].endswith("siblings.groups"):
            self.warnings.append((event["count"], event["reason"]))

    def held_here(self, *groups: str) -> None:
        for group in groups:
            self.assertEqual(PurgeMode.DELETE, self.since(1, b"/a", group.encode()), group)

    def test_they_are_a_purge_of_those_tags_that_no_sibling_is_waited_for(self) -> None:
        self.prepare()
        self.share("news", "sport")
        self.held_here("news", "sport")
        self.assertIsNone(self.since(0, b"/a", b"news"), "another site's group of that name is another group")
        self.assertIsNone(self.since(1, b"/a", b"other"))
        (entry,) = self.fleet.told
        (answer,) = self.told
        self.assertEqual((entry, BY, PurgeState.LOCAL), (answer.entry, answer.purge.by, answer.state))
        self.assertEqual((PurgeMode.DELETE, 2), (answer.purge.mode, len(answer.purge.selectors)))
        self.assertEqual(1, self.groups.counts[Groups.SPREAD])
        self.assertEqual([], self.warnings)

    def test_above_the_pace_they_stay_here_counted_and_told_once_per_interval(self) -> None:
        self.prepare(per_second=2.0)
        burst = int(2.0 * BURST_SECONDS)
        for number in range(burst + 3):
            self.share(f"g{number}")
        self.held_here(*(f"g{number}" for number in range(burst + 3)))
        self.assertEqual(burst, len(self.fleet.told))
        self.assertEqual((burst, 3), (self.groups.counts[Groups.SPREAD], self.groups.counts[Groups.PACE]))
        self.assertEqual([(1, "pace")], self.warnings)
        self.clock.advance(LOG_SECONDS)
        for number in range(burst + 1):
            self.share(f"later{number}")
        self.assertEqual(2 * burst, len(self.fleet.told))
        self.assertEqual([(1, "pace"), (3, "pace")], self.warnings)

    def test_each_group_of_an_answer_counts(self) -> None:
        self.prepare(per_second=2.0)
        many = [f"g{number}" for number in range(int(2.0 * BURST_SECONDS) + 1)]
        self.share(*many)
        self.held_here(*many)
        self.assertEqual([], self.fleet.told)
        self.share(*many[1:])
        self.assertEqual(1, len(self.fleet.told))

    def test_a_node_that_takes_no_purges_keeps_them_to_itself(self) -> None:
        self.prepare()
        self.fleet.joining = "not yet"
        self.share("news")
        self.held_here("news")
        self.assertEqual(([], [], 1), (self.fleet.told, self.told, self.groups.counts[Groups.JOINING]))

    def test_what_siblings_could_not_be_sent_stays_here(self) -> None:
        self.prepare(entry_octets=200)
        self.share("n" * 300)
        self.held_here("n" * 300)
        self.assertEqual(([], 1), (self.fleet.told, self.groups.counts[Groups.SIZE]))
