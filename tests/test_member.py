"""What every member does between its start and its end, whatever it is."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from edgecache.member import BEGINS_SECONDS, MOST_BEGINS_SECONDS, MemberService
from edgecache.preparing import Prepared, prepare
from edgecache.store.disk import first_in
from edgecache.words.config import Config, ListenSettings, NodeSettings


class _Renewing(MemberService):
    """It begins its store anew as soon as it has started, and that takes a while."""

    ended = False

    def open(self) -> None:
        pass

    async def run(self) -> None:
        self.moving: Deferred[None] = Deferred()
        self.reloads.between(self._renew)

    async def _renew(self) -> None:
        self._staying = None
        # As what a thread does.
        await self.moving
        os.rename(self.prepared.lock.path, self.prepared.lock.path + ".aside")

    async def take_over(self, config: Config) -> None:
        pass

    def spent(self) -> None:
        pass

    def _give_up(self, error: Exception, what: str = "cannot start") -> None:
        self.ended = True


class SpentTests(SynchronousTestCase):
    def test_a_node_ends_by_itself_once_a_minute_at_most_and_where_that_is_no_use_ever_more_seldom(self) -> None:
        path, now = self.mktemp(), 1_700_000_000.0

        def first(at: float) -> bool:
            return first_in(path, BEGINS_SECONDS, MOST_BEGINS_SECONDS, now + at)

        ends = [at for at in range(0, 20_000, 20) if first(at)]
        self.assertEqual([0, 60, 180, 420, 900, 1860, 3780, 7380, 10_980, 14_580, 18_180], ends)
        later = ends[-1] + 2 * MOST_BEGINS_SECONDS
        self.assertEqual([True, False, True], [first(later), first(later + 59), first(later + 60)], "it was of use")
        self.assertTrue(first(-3600), "a clock that was set back keeps nobody")
        Path(path).write_bytes(b"\xff" * 100)
        self.assertTrue(first(later + 10_000), "nor what nobody can read")
        self.assertFalse(
            first_in(path + "/x", BEGINS_SECONDS, MOST_BEGINS_SECONDS, now), "what cannot be remembered would be again"
        )


class DataTests(TestCase):
    async def test_what_is_moved_on_purpose_while_it_starts_ends_nobody(self) -> None:
        data = Path(self.mktemp())
        prepared: Prepared = prepare(Config(NodeSettings("n", data=str(data), workers=0), (), ListenSettings((), ())))
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        service = _Renewing(prepared, cast(Any, reactor), loop, lambda: prepared.config)
        service.running = True
        await service._run()
        self.addCleanup(service._thread.stop)
        service.moving.callback(None)
        service._watch_data()
        self.assertFalse(service.ended)

    def test_what_no_worker_can_be_started_without_is_to_stay(self) -> None:
        data = self.mktemp()
        prepared = prepare(Config(NodeSettings("n", data=data, workers=2), (), ListenSettings((), ())))
        self.addCleanup(prepared.owners.close)
        names = ("lock", "run/page", "popularity", "run/owner-1.sock", "control/data.mdb")
        for name in names:
            path = Path(data, name)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        for name in names:
            service = _Renewing(prepared, cast(Any, reactor), cast(Any, None), lambda: prepared.config)
            service.running = True
            service._note_files()
            os.rename(os.path.join(data, name), os.path.join(data, "elsewhere"))
            service._watch_data()
            self.assertTrue(service.ended, name)
            os.rename(os.path.join(data, "elsewhere"), os.path.join(data, name))
