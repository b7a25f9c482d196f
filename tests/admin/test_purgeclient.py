"""``edgecache purge`` against a real admin listener of a fleet whose acknowledgements the test gives."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.purgeclient import purge, purge_state
from edgecache.admin.site import admin_site
from edgecache.rules.sites import Sites
from tests.admin.harness import NOW, AdminCase, with_purge
from tests.siblings.spreads import HandFleet


class PurgeClientTests(TestCase, AdminCase):
    config = with_purge(token_per_second=10.0)

    def make_spread(self) -> HandFleet:
        self.fleet = HandFleet(lambda: NOW)
        return self.fleet

    def setUp(self) -> None:
        AdminCase.setUp(self)
        # Nobody advances the parts' own clock: what the node waits for ends when the client goes.
        port = reactor.listenTCP(0, admin_site(self.parts, reactor), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.where = AdminAddress(f"http://127.0.0.1:{port.getHost().port}", self.token)
        self.lines: list[str] = []
        self.progress: list[str] = []

    def applying(self, *members: str) -> None:
        """As soon as the purge is there, each of these applies it, one after the other."""

        def apply(entry: Any) -> None:
            for number, member in enumerate(members):
                reactor.callLater(0.02 * (number + 1), self.fleet.apply, member, entry.purge_id)

        self.fleet.hears = apply

    def purge(self, **options: Any) -> Any:
        return purge(reactor, self.where, {"urls": ["/a"]}, self.lines.append, progress=self.progress.append, **options)

    async def test_it_waits_for_what_is_asked_and_says_so(self) -> None:
        self.applying("us-1", "ap-1")
        self.assertEqual(0, await self.purge(wait="complete", timeout=30.0))
        self.assertTrue(self.lines[0].endswith(": complete (revalidate, 2 selectors)"), self.lines)

    async def test_one_that_names_nothing_here_says_so(self) -> None:
        self.applying("us-1", "ap-1")
        nobody = {"urls": ["http://nobody.example/a"]}
        named = [evolve(site, hosts=(f"{site.name}.example",)) for site in self.parts.config.sites]
        self.parts.purger.configured(Sites(evolve(self.parts.config, sites=tuple(named))), self.parts.config.purge)
        self.assertEqual(0, await purge(reactor, self.where, nobody, self.lines.append, timeout=30.0))
        self.assertIn("names nothing", self.lines[1])

    async def test_a_refusal_for_a_while_is_waited_out_with_the_same_id(self) -> None:
        self.applying("us-1")
        self.fleet.joining = "This node is joining."
        reactor.callLater(0.3, setattr, self.fleet, "joining", None)
        self.assertEqual(0, await self.purge(timeout=30.0))
        self.assertIn("joining (503)", self.progress[0])
        self.assertEqual(1, self.control.head().sequence)

    async def test_what_is_wrong_is_not_tried_again(self) -> None:
        with self.assertRaises(AdminFailed) as caught:
            await purge(reactor, self.where, {"urls": ["nowhere"]}, self.lines.append, timeout=60.0)
        self.assertFalse(caught.exception.again)

    async def test_nobody_there_is_told_when_the_time_is_up(self) -> None:
        where = AdminAddress("http://127.0.0.1:1", "token")
        with self.assertRaises(AdminFailed) as caught:
            await purge(reactor, where, {"urls": ["/a"]}, self.lines.append, timeout=0.3)
        self.assertIn("no answer", str(caught.exception))

    async def test_too_few_in_time_is_exit_status_1_and_names_who_is_missing(self) -> None:
        # The node's own clock, by which it waits, has to pass.
        ticking = LoopingCall(self.clock.advance, 0.1)
        stopped = ticking.start(0.01)
        self.assertEqual(1, await self.purge(timeout=1.0))
        ticking.stop()
        await stopped
        self.assertIn(": local (", self.lines[0])
        self.assertIn("us-1, ap-1", self.lines[1])
        self.assertIn("local: 1 of 3 nodes have applied it, pending: us-1, ap-1", self.progress)

    async def test_the_state_of_one_that_is_local_is_exit_status_1(self) -> None:
        self.applying("us-1")
        await self.purge(timeout=30.0)
        purge_id = self.fleet.told[0].purge_id
        self.assertEqual(0, await purge_state(reactor, self.where, purge_id, self.lines.append))
