"""SIGHUP: one reload after the other, and none once the node goes down."""

from __future__ import annotations

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.reloading import Reloads
from edgecache.words.config import Config, NodeSettings


class ReloadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.config = Config(NodeSettings("n", "/nowhere"), ())
        self.taken: list[Deferred[None]] = []
        self.reloads = Reloads(lambda: self.config, lambda: self.config, self.take, maybeDeferred, lambda: 1.0)

    async def take(self, config: Config) -> None:
        self.taken.append(Deferred())
        await self.taken[-1]

    def test_what_is_asked_for_meanwhile_is_done_once_after_it(self) -> None:
        self.reloads.ask()
        self.assertEqual([], self.taken)
        self.reloads.ready()
        self.reloads.ask()
        self.reloads.ask()
        self.assertEqual(1, len(self.taken))
        self.taken[0].callback(None)
        self.assertEqual(2, len(self.taken))
        self.taken[1].callback(None)
        self.assertEqual(2, len(self.taken))

    def test_who_stops_waits_for_the_one_that_runs_and_there_is_no_other(self) -> None:
        self.reloads.ready()
        self.reloads.ask()
        self.reloads.ask()
        stopped = Deferred.fromCoroutine(self.reloads.stop())
        self.assertNoResult(stopped)
        self.taken[0].callback(None)
        self.successResultOf(stopped)
        self.reloads.ask()
        self.assertEqual(1, len(self.taken))

    def test_one_that_fails_by_a_defect_is_shown_and_the_next_one_is_done(self) -> None:
        self.reloads.ready()
        self.reloads.ask()
        self.taken[0].errback(ZeroDivisionError("a defect"))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        assert self.reloads.last is not None
        self.assertIn("a defect", self.reloads.last.detail)
        self.reloads.ask()
        self.taken[1].callback(None)
        self.assertEqual("", self.reloads.last.detail)

    def test_without_one_there_is_nothing_to_wait_for_also_before_the_node_is_ready(self) -> None:
        self.reloads.ask()
        self.successResultOf(Deferred.fromCoroutine(self.reloads.stop()))
        self.reloads.ready()
        self.assertEqual([], self.taken)
