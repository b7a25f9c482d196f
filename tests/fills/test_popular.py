"""FIELD 6: what answers from the store is counted, once a request, up to three."""

from __future__ import annotations

from edgecache.store.popularity import SLOTS
from tests.fills.rig import Exchange, RigCase
from tests.fills.test_serving import FRESH, content_of, serves


class CountingTests(RigCase):
    def counts(self) -> list[int]:
        """Counters that are not 0, the lowest first."""
        hits = self._environments.popularity.hits.tobytes()
        return sorted(hits.replace(b"\0", b""))

    def test_a_miss_does_not_count_and_hits_do_up_to_three(self):
        async def test():
            for octets in (8192, 3_000_000):
                before = self.counts()
                self.origin.scripts[f"/{octets}"] = serves(content_of(octets), FRESH)
                await self.ask(f"/{octets}")
                self.assertEqual(before, self.counts())
                for expected in (1, 2, 3, 3):
                    await self.hit(f"/{octets}")
                    self.assertEqual([expected, *before], self.counts())
            self.assertEqual(SLOTS, len(self._environments.popularity.hits))

        return self.run_async(test())

    def test_parts_and_answers_without_content_count(self):
        async def test():
            self.origin.scripts["/a"] = serves(content_of(200_000), FRESH, 'ETag: "a"')
            await self.ask("/a")
            await self.hit("/a")
            await self.ask("/a", "Range: bytes=100-400")
            self.assertEqual([2], self.counts())
            self.assertEqual(304, (await self.ask("/a", 'If-None-Match: "a"')).status)
            self.assertEqual([3], self.counts())

        return self.run_async(test())

    def test_with_a_variant_its_nominated_fields_count(self):
        async def test():
            async def vary(exchange: Exchange) -> None:
                await exchange.answer(b"x", FRESH, "Vary: Accept-Language")

            self.origin.scripts["/v"] = vary
            await self.ask("/v", "Accept-Language: en")
            self.assertEqual([], self.counts())
            await self.hit("/v", "Accept-Language: en")
            self.assertEqual([1, 1], self.counts())

        return self.run_async(test())
