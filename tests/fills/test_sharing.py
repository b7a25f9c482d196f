"""What one client asked for never reaches another, and what one sends spoils nothing for others (FIELD 8)."""

from __future__ import annotations

import asyncio

from edgecache.words.counters import Counter
from tests.fills.rig import Exchange, RigCase

FRESH = "Cache-Control: max-age=60"


class Held:
    """An origin that answers the first request only when it may, and tells whom each answer was for."""

    def __init__(self, *fields: str, status: str = "200 OK") -> None:
        self.fields = fields
        self.status = status
        self.may = asyncio.Event()
        self.asked = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if not self.asked.is_set():
            self.asked.set()
            await self.may.wait()
        whose = exchange.fields.get("cookie") or exchange.fields.get("authorization") or "nobody"
        await exchange.answer(f"for {whose}".encode(), *self.fields, status=self.status)


class SharingTests(RigCase):
    """A fill's response that is not stored is its own client's (DESIGN 5), whoever else has joined meanwhile."""

    async def after_leaving(self, mine: str, yours: str, *fields: str, status: str = "200 OK") -> bytes:
        """:return: what the second client gets when the first one, whose request went upstream, has left."""
        target = f"/account/{len(self.origin.scripts)}"
        held = self.origin.scripts[target] = Held(*fields, status=status)
        joined = self.counter(Counter.COLLAPSED)
        first, second = await self.client(), await self.client()
        first.send(target, mine)
        await held.asked.wait()
        second.send(target, yours)
        await self.until(lambda: self.counter(Counter.COLLAPSED) > joined)
        open_now = self.counter(Counter.CONNECTIONS_OPEN)
        first.leave()
        await self.until(lambda: self.counter(Counter.CONNECTIONS_OPEN) < open_now)
        held.may.set()
        answer = await second.receive()
        second.leave()
        return answer.content

    def test_who_has_left_before_the_answer_leaves_it_to_nobody(self):
        async def test():
            for fields, status in (
                (("Cache-Control: private, max-age=60",), "200 OK"),
                (("Cache-Control: no-store",), "200 OK"),
                ((FRESH, "Vary: *"), "200 OK"),
                ((FRESH, "Set-Cookie: a=b", "Vary: Cookie"), "200 OK"),
                (("Location: /yours",), "302 Found"),
                ((), "403 Forbidden"),
            ):
                got = await self.after_leaving("Cookie: alice", "Cookie: bob", *fields, status=status)
                self.assertEqual(b"for bob", got, fields)

        return self.run_async(test())

    def test_nor_one_that_was_for_credentials(self):
        async def test():
            self.assertEqual(b"for bob", await self.after_leaving("Authorization: alice", "Authorization: bob", FRESH))

        return self.run_async(test())
