"""A client waits ``first_byte_seconds`` for its first octet, whatever is tried for it meanwhile (DESIGN 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred

from edgecache.rules.selectors import Selector
from edgecache.rules.sites import site_id
from edgecache.words.config import UpstreamSettings
from edgecache.words.counters import Counter
from tests.fills.clocked import STEP, ClockedCase
from tests.fills.rig import Answer, Client, Exchange
from tests.fills.test_breaking import FRESH, TAG, breaks, content_of

SECONDS = UpstreamSettings().first_byte_seconds
FIRST = 10.0
"""Seconds that the first try takes, which comes to nothing."""


class BudgetCase(ClockedCase):
    # Longer than everything here: what ends a wait is the client's time.
    upstream = UpstreamSettings(head_seconds=60.0)

    def in_vain(self, target: str, first: Callable[[Exchange], Awaitable[None]], others: int = 0) -> None:
        """
        The origin has ``first`` for whoever asks first, as late as that, and then nothing.

        :param others: that have joined before any time passes.
        """
        joined = self.counter(Counter.COLLAPSED) + others

        async def script(exchange: Exchange) -> None:
            if self.origin.count(target) == 1:
                await self.until(lambda: self.counter(Counter.COLLAPSED) == joined)
                await self.seconds(FIRST)
                await first(exchange)
            else:
                await exchange.wait_closed()

        self.origin.seen.clear()
        self.origin.scripts[target] = script

    async def waited(self, target: str, client: Client, tries: int = 2) -> Answer:
        """:return: what the client is told, which has to come when its time is over, and not before."""
        await self.until(lambda: self.origin.count(target) == tries)
        answer = asyncio.ensure_future(client.receive())
        await self.seconds(SECONDS - FIRST - STEP)
        self.assertFalse(answer.done())
        await self.seconds(2 * STEP)
        await self.until(answer.done)
        return answer.result()


class BudgetTests(BudgetCase):
    def test_asked_with_another_question(self) -> Deferred[None]:
        async def about_another(exchange: Exchange) -> None:
            await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "another"\r\n\r\n')

        async def test() -> None:
            async def stored(exchange: Exchange) -> None:
                modified = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"
                await exchange.answer(b"good", FRESH + ", must-revalidate", TAG, modified)

            self.origin.scripts["/a"] = stored
            await self.hit("/a")
            self.in_vain("/a", about_another)
            client = await self.client()
            client.send("/a", "Cache-Control: no-cache")
            self.assertEqual(503, (await self.waited("/a", client)).status)

        return self.run_async(test())

    def test_forwarded_alone_after_a_response_that_is_another_s(self) -> Deferred[None]:
        async def private(exchange: Exchange) -> None:
            await exchange.answer(b"yours", "Cache-Control: private")

        async def test() -> None:
            self.in_vain("/a", private, others=1)
            first, second = await self.client(), await self.client()
            first.send("/a")
            await self.until(lambda: self.origin.count("/a") == 1)
            second.send("/a")
            self.assertEqual(b"yours", (await first.receive()).content)
            self.assertEqual(503, (await self.waited("/a", second)).status)

        return self.run_async(test())

    def test_asked_elsewhere_after_a_wrong_content(self) -> Deferred[None]:
        async def wrong(exchange: Exchange) -> None:
            digest = "Repr-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
            await exchange.answer(b"other", FRESH, digest)

        async def test() -> None:
            self.in_vain("/a", wrong)
            client = await self.client()
            client.send("/a")
            self.assertEqual(503, (await self.waited("/a", client)).status)

        return self.run_async(test())

    def test_asked_for_the_whole_after_a_rest_that_is_none(self) -> Deferred[None]:
        async def no_rest(exchange: Exchange) -> None:
            await exchange.answer(b"", "Content-Range: bytes */5", status="416 Range Not Satisfiable")

        async def test() -> None:
            self.origin.scripts["/a"] = breaks(content_of(1_000_000), 100_000, FRESH, TAG)
            self.assertFalse((await self.ask("/a")).complete)
            self.in_vain("/a", no_rest)
            client = await self.client()
            client.send("/a")
            self.assertEqual(503, (await self.waited("/a", client)).status)
            self.assertIn("range", self.origin.seen[0].fields)

        return self.run_async(test())


class YoungerTests(BudgetCase):
    def test_parted_to_a_fill_that_began_later(self) -> Deferred[None]:
        """It runs on for whoever it began for."""

        async def test() -> None:
            purged = asyncio.Event()

            async def script(exchange: Exchange) -> None:
                if self.origin.count("/a") == 1:
                    await purged.wait()
                    await exchange.answer(b"one", FRESH)
                else:
                    await exchange.wait_closed()

            self.origin.scripts["/a"] = script
            first, parted, later = [await self.client() for _ in range(3)]
            first.send("/a")
            await self.until(lambda: self.origin.count("/a") == 1)
            parted.send("/a", "Cache-Control: no-cache")
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 1)
            await self.seconds(FIRST)
            await self.purge(Selector("url", site_id("main"), b"/a"))
            later.send("/a")
            await self.until(lambda: self.origin.count("/a") == 2)
            purged.set()
            self.assertEqual(200, (await first.receive()).status)
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 2)
            answers = [asyncio.ensure_future(one.receive()) for one in (parted, later)]
            await self.seconds(SECONDS - FIRST - STEP)
            self.assertFalse(answers[0].done())
            await self.seconds(2 * STEP)
            await self.until(answers[0].done)
            self.assertEqual(503, answers[0].result().status)
            self.assertFalse(answers[1].done())
            await self.seconds(FIRST)
            self.assertEqual(503, (await answers[1]).status)
            self.assertEqual(2, self.origin.count("/a"))

        return self.run_async(test())


class NewcomerTests(BudgetCase):
    """Who joins a fill that began for somebody with little time left."""

    async def joined(self, then: Callable[[Exchange], Awaitable[None]]) -> tuple[Client, Client]:
        """
        :param then: what the origin does when it is asked for the third time.
        :return: one for whom a fill has begun that has 2 s, and one who has just joined that.
        """

        async def script(exchange: Exchange) -> None:
            asked = self.origin.count("/a")
            if asked == 1:
                await self.until(lambda: self.counter(Counter.COLLAPSED) == 1)
                await self.seconds(FIRST)
                await exchange.answer(b"eins", FRESH, "Vary: Accept-Language")
            elif asked == 2:
                await exchange.wait_closed()
            else:
                await then(exchange)

        self.origin.scripts["/a"] = script
        german, parted, newcomer = [await self.client() for _ in range(3)]
        german.send("/a", "Accept-Language: de")
        await self.until(lambda: self.origin.count("/a") == 1)
        parted.send("/a", "Accept-Language: en")
        self.assertEqual(b"eins", (await german.receive()).content)
        await self.until(lambda: self.origin.count("/a") == 2)
        await self.hit("/a", "Accept-Language: de")
        newcomer.send("/a", "Accept-Language: en")
        await self.until(lambda: self.counter(Counter.COLLAPSED) == 2)
        return parted, newcomer

    def test_has_the_time_that_is_its_own(self) -> Deferred[None]:
        async def late(exchange: Exchange) -> None:
            await exchange.answer(b"one", FRESH, "Vary: Accept-Language")

        async def test() -> None:
            parted, newcomer = await self.joined(late)
            await self.seconds(SECONDS - FIRST)
            self.assertEqual(503, (await parted.receive()).status)
            answer = await newcomer.receive()
            self.assertEqual((200, b"one"), (answer.status, answer.content))
            self.assertEqual(3, self.origin.count("/a"))

        return self.run_async(test())

    def test_is_told_once_that_is_over_and_nobody_is_asked_again_for_it(self) -> Deferred[None]:
        async def test() -> None:
            parted, newcomer = await self.joined(Exchange.wait_closed)
            await self.seconds(SECONDS - FIRST)
            self.assertEqual(503, (await parted.receive()).status)
            await self.until(lambda: self.origin.count("/a") == 3)
            last = await self.client()
            last.send("/a", "Accept-Language: en")
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 3)
            answer = asyncio.ensure_future(newcomer.receive())
            await self.seconds(FIRST - STEP)
            self.assertFalse(answer.done())
            await self.seconds(2 * STEP)
            self.assertEqual(503, (await answer).status)
            # Its fill has had time enough: whoever has joined that hears the same.
            self.assertEqual(503, (await last.receive()).status)
            self.assertEqual(3, self.origin.count("/a"))

        return self.run_async(test())


class OwnerBudgetTests(BudgetCase):
    workers = 2

    def test_asked_for_at_last_by_itself_as_the_owner_has_died(self) -> Deferred[None]:
        async def dies(exchange: Exchange) -> None:
            await self._workers[1]._listeners[1].stop().asFuture(self._loop)

        async def test() -> None:
            target = await self.owned_elsewhere()
            self.in_vain(target, dies)
            client = await self.client()
            client.send(target)
            self.assertEqual(503, (await self.waited(target, client)).status)

        return self.run_async(test())

    async def owned_elsewhere(self) -> str:
        """:return: what the first worker asks the second one for."""

        async def passed(exchange: Exchange) -> None:
            await exchange.answer(b"", "Cache-Control: no-store")

        for number in range(100):
            target = f"/{number}"
            self.origin.scripts[target] = passed
            await self.ask(target)
            if self.counter(Counter.OWNER_HOPS):
                return target
        raise AssertionError("it owns all")
