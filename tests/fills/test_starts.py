"""However many misses come at once, few fills begin in one turn of the loop: hits wait for no more than those."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher

from edgecache.fills.fills import STARTS
from edgecache.rules.allowance import Allowance, Ticket
from edgecache.wire.turns import Turns
from edgecache.words.counters import Counter
from tests.fills.rig import Exchange, RigCase

CROWD = 60


class Defective:
    """:class:`~edgecache.fills.attempts.Attempts` with a bug."""

    lone = True

    def ticket(self) -> Ticket:
        return Allowance(1.0, 1, 1.0).ticket()

    def search(self, *_: object) -> None:
        raise ZeroDivisionError


class StartsTests(RigCase):
    def test_a_crowd_of_misses_begins_a_few_in_each_turn_and_all_are_answered(self) -> Deferred[None]:
        begun: list[int] = []

        async def test() -> None:
            async def script(exchange: Exchange) -> None:
                await exchange.answer(exchange.target.encode(), "Cache-Control: no-store")

            clients = [await self.client() for _ in range(CROWD)]
            ticking = True

            def turn() -> None:
                begun.append(self.counter(Counter.FILLS))
                if ticking:
                    self._loop.call_soon(turn)

            turn()
            for number, client in enumerate(clients):
                self.origin.scripts[f"/{number}"] = script
                client.send(f"/{number}")
            for number, client in enumerate(clients):
                self.assertEqual(f"/{number}".encode(), (await client.receive()).content)
            ticking = False

        def few(_: None) -> None:
            self.assertEqual(CROWD, begun[-1] - begun[0])
            # A turn of ours may have the end of one of theirs and the beginning of the next.
            self.assertLessEqual(max(b - a for a, b in itertools.pairwise(begun)), 2 * STARTS)

        return self.run_async(test()).addCallback(few)

    def test_who_leaves_before_its_turn_is_not_sent_to_the_origin(self) -> Deferred[None]:
        """What changes something at the origin, and was not begun yet, had better not be: its client may try again."""

        async def test() -> None:
            soon: list[Callable[[], None]] = []
            self._workers[0].pages._fills.starts = turns = Turns(soon.append, 1)
            turns.spend(1)
            client = await self.client()
            client.send("/form", method="POST", content=b"x")
            await self.until(lambda: self.counter(Counter.REQUESTS) == 1)
            client.leave()
            await self.until(lambda: self.counter(Counter.CONNECTIONS_OPEN) == 0)
            soon.pop()()
            self.assertEqual((0, []), (self.counter(Counter.FILLS), self.origin.seen))

        return self.run_async(test())

    def test_a_defect_before_anybody_was_asked_is_told_and_nobody_joins_it_later(self) -> Deferred[None]:
        async def test() -> None:
            async def script(exchange: Exchange) -> None:
                await exchange.answer(b"x", "Cache-Control: max-age=60")

            self.origin.scripts["/x"] = script
            fills: Any = self._workers[0].pages._fills
            attempts, fills.attempts = fills.attempts, Defective()
            self.assertEqual(500, (await self.ask("/x")).status)
            fills.attempts = attempts
            self.assertEqual(200, (await self.ask("/x")).status)
            self.assertEqual(0, self.counter(Counter.FILLS_RUNNING))
            self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

        return self.run_async(test())


class LogTests(RigCase):
    def test_an_upstream_that_fails_again_and_again_is_not_logged_each_time(self) -> Deferred[None]:
        logged: list[LogEvent] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)

        async def test() -> None:
            self._workers[0].pages._fills.lately.seconds = 3600.0
            await self.origin.stop()
            for number in range(5):
                self.assertGreaterEqual((await self.ask(f"/{number}", method="POST", content=b"x")).status, 502)
            failures = [type(event["failure"]) for event in logged if "failure" in event]
            self.assertGreater(len(failures), 0)
            self.assertEqual(len(set(failures)), len(failures))

        return self.run_async(test())
