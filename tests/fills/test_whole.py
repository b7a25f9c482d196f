"""A small content that comes with its head: nothing is left that could break off, and nothing is built for that."""

from __future__ import annotations

import asyncio
import gc

from edgecache.fills import sending, storing, waiting
from tests.fills.rig import Exchange, RigCase

FRESH = "Cache-Control: max-age=60"
OCTETS = b"0123456789" * 800
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (OCTETS[:5000], OCTETS[5000:])) + b"0\r\n\r\n"


class WholeTests(RigCase):
    """DESIGN 5"""

    def test_one_without_a_length_has_one_for_its_first_client_already(self):
        async def chunked(exchange: Exchange) -> None:
            await exchange.answer(CHUNKS, FRESH, "Transfer-Encoding: chunked", length=False)

        async def test():
            self.origin.scripts["/a"] = self.origin.scripts["/part"] = chunked
            answer = await self.ask("/a")
            self.assertEqual((OCTETS, str(len(OCTETS))), (answer.content, answer.fields["content-length"]))
            part = await self.ask("/part", "Range: bytes=10-19")
            self.assertEqual((206, OCTETS[10:20]), (part.status, part.content))
            self.assertEqual(OCTETS, (await self.hit("/part")).content)

        return self.run_async(test())

    def test_who_comes_before_the_commit_gets_it_from_memory(self):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(OCTETS, FRESH, 'ETag: "a"', 'Cache-Control: no-cache="set-cookie"', "Set-Cookie: a=b")

        async def test():
            self.origin.scripts["/a"] = script
            with self._environments.small.writing:
                first = await self.ask("/a")
                joined = await self.ask("/a")
                part = await self.ask("/a", "Range: bytes=-10")
                unchanged = await self.ask("/a", 'If-None-Match: "a"')
            self.assertEqual((OCTETS, "a=b"), (first.content, first.fields["set-cookie"]))
            self.assertEqual(OCTETS, joined.content)
            self.assertIn("collapsed", joined.cache_status)
            self.assertNotIn("set-cookie", joined.fields)
            self.assertEqual((206, OCTETS[-10:], 304), (part.status, part.content, unchanged.status))
            self.assertEqual(OCTETS, (await self.hit("/a")).content)
            self.assertEqual(1, self.origin.count("/a"))

        return self.run_async(test())

    def test_one_that_the_store_has_no_room_for_is_sent_all_the_same(self):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(OCTETS, FRESH)

        async def test():
            self.origin.scripts["/a"] = script
            self._page.set_full(small=True, blobs=False)
            for _ in range(2):
                self.assertEqual(OCTETS, (await self.ask("/a")).content)
            self.assertEqual(2, self.origin.count("/a"))

        return self.run_async(test())


class LettingGoTests(RigCase):
    """What a fill held would else wait for the collector, contents and all."""

    def test_nothing_of_a_fill_refers_to_itself_once_it_is_over(self):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(b"x" * int(exchange.target[1:]), FRESH, 'ETag: "a"')

        async def test():
            gc.collect()
            gc.disable()
            try:
                for size in (100, 300_000):
                    self.origin.scripts[f"/{size}"] = script
                    await self.ask(f"/{size}")
                    await self.hit(f"/{size}")
                await asyncio.sleep(0)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                ours = {type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("edgecache.")}
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            self.assertEqual(set(), ours)

        return self.run_async(test())


class DefectTests(RigCase):
    """What goes wrong in this node while a response is taken."""

    def defect(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError

    async def script(self, exchange: Exchange) -> None:
        await exchange.answer(b"x" * int(exchange.target[1:]), FRESH)

    def test_who_cannot_be_answered_is_told_so_and_the_fill_goes_on(self):
        async def test():
            for size, module in ((100, sending), (300_000, waiting)):
                self.origin.scripts[f"/{size}"] = self.script
                patched = self.patch(module, "head_of", self.defect)
                self.assertEqual(500, (await self.ask(f"/{size}")).status)
                patched.restore()
                self.assertEqual(size, len((await self.ask(f"/{size}")).content))
                self.assertEqual(1, self.origin.count(f"/{size}"))
            self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))

        return self.run_async(test())

    def test_a_fill_that_failed_is_joined_by_nobody(self):
        async def test():
            for size, part in ((100, "_store_whole"), (300_000, "Storing")):
                self.origin.scripts[f"/{size}"] = self.script
                patched = self.patch(storing, part, self.defect)
                self.assertEqual(500, (await self.ask(f"/{size}")).status)
                patched.restore()
                self.assertEqual(size, len((await self.ask(f"/{size}")).content))
                self.assertEqual(2, self.origin.count(f"/{size}"))
            self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))

        return self.run_async(test())
