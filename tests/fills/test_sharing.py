"""What one client asked for never reaches another, and what one sends spoils nothing for others (FIELD 8)."""

from __future__ import annotations

import asyncio

from edgecache.words.counters import Counter
from tests.fills.rig import Exchange, RigCase
from tests.fills.test_paging import PAGE, PIP, PageCase, page_of, sends

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

    def total(self, counter: int) -> int:
        return sum(self.counter(counter, worker) for worker in range(self.workers))

    async def after_leaving(self, mine: str, yours: str, *fields: str, status: str = "200 OK") -> bytes:
        """:return: what the second client gets when the first one, whose request went upstream, has left."""
        target = f"/account/{len(self.origin.scripts)}"
        held = self.origin.scripts[target] = Held(*fields, status=status)
        joined = self.total(Counter.COLLAPSED)
        first, second = await self.client(), await self.client(self.workers - 1)
        first.send(target, mine)
        await held.asked.wait()
        second.send(target, yours)
        await self.until(lambda: self.total(Counter.COLLAPSED) > joined)
        open_now = self.total(Counter.CONNECTIONS_OPEN)
        first.leave()
        await self.until(lambda: self.total(Counter.CONNECTIONS_OPEN) < open_now)
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

    def test_who_sends_credentials_keeps_nobody_waiting_who_has_none(self):
        async def test():
            held = self.origin.scripts["/slow"] = Held(FRESH)
            first = await self.client()
            first.send("/slow", "Authorization: alice")
            await held.asked.wait()
            self.assertEqual(b"for nobody", (await self.hit("/slow")).content)
            held.may.set()
            self.assertEqual(b"for alice", (await first.receive()).content)

        return self.run_async(test())


class WorkersTests(SharingTests):
    """The same where one of the two, or both, are another worker's clients than the key's owner's."""

    workers = 2


class OddRequestTests(RigCase):
    """One request that is answered otherwise keeps nobody else from the store."""

    def test_what_comes_for_others_is_stored_all_the_same(self):
        async def test():
            async def script(exchange: Exchange) -> None:
                if "cookie" in exchange.fields:
                    await exchange.answer(b"mine", "Cache-Control: private")
                elif len(exchange.fields.get("x-large", "")) > 4000:
                    await exchange.answer(b"no", status="400 Bad Request")
                else:
                    await exchange.answer(b"for all", FRESH)

            for target, odd in (("/a", "Cookie: a=b"), ("/b", "Authorization: x"), ("/c", "X-Large: " + "x" * 5000)):
                self.origin.scripts[target] = script
                await self.ask(target, odd)
                self.assertEqual(b"for all", (await self.hit(target)).content)

        return self.run_async(test())

    def test_conditions_and_ranges_of_what_cannot_be_shared_go_along(self):
        async def test():
            self.origin.scripts["/a"] = private
            await self.ask("/a")
            await self.ask("/a", "Range: bytes=0-1")
            self.assertEqual("bytes=0-1", self.origin.seen[-1].fields.get("range"))

        return self.run_async(test())

    def test_connection_names_a_field_away_from_the_origin_and_from_the_variant(self):
        async def test():
            async def script(exchange: Exchange) -> None:
                language = exchange.fields.get("accept-language", "none")
                await exchange.answer(language.encode(), FRESH, "Vary: Accept-Language")

            self.origin.scripts["/a"] = script
            await self.ask("/a", "Connection: Accept-Language", "Accept-Language: de")
            self.assertEqual(b"de", (await self.ask("/a", "Accept-Language: de")).content)
            self.assertEqual(b"none", (await self.hit("/a")).content)

        return self.run_async(test())

    def test_credentials_of_one_leave_no_trace_in_what_others_get(self):
        async def test():
            async def script(exchange: Exchange) -> None:
                mine = ("Set-Cookie: sid=alice",) if "authorization" in exchange.fields else ()
                if "if-none-match" in exchange.fields:
                    await exchange.answer(b"", 'ETag: "a"', *mine, status="304 Not Modified", length=False)
                else:
                    await exchange.answer(b"content", FRESH, 'ETag: "a"', *mine)

            self.origin.scripts["/a"] = script
            await self.hit("/a")
            secret = await self.ask("/a", "Authorization: alice", "Cache-Control: no-cache")
            self.assertEqual((200, "sid=alice"), (secret.status, secret.fields.get("set-cookie")))
            for fields in ((), ("Cache-Control: no-cache",)):
                other = await self.ask("/a", *fields)
                self.assertEqual((b"content", None), (other.content, other.fields.get("set-cookie")))

        return self.run_async(test())


class DemandTests(PageCase):
    def test_a_serial_that_nobody_has_costs_the_origin_no_request_for_each_who_demands_it(self):
        async def test():
            may = asyncio.Event()
            answers = sends(page_of("six-1.0.tar.gz", serial=7))

            async def script(exchange: Exchange) -> None:
                await may.wait()
                await answers(exchange)

            self.origin.scripts[PAGE] = script
            clients = [await self.client() for _ in range(20)]
            for client in clients:
                client.send(PAGE, PIP, "Edgecache-Min-Serial: " + "9" * 17)
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 19)
            may.set()
            found = [await client.receive() for client in clients]
            self.assertEqual({(503, "7")}, {(one.status, one.fields["x-pypi-last-serial"]) for one in found})
            self.assertEqual(2, self.origin.count(PAGE))
            self.assertEqual(200, (await self.ask(PAGE, PIP)).status)

        return self.run_async(test())


async def private(exchange: Exchange) -> None:
    await exchange.answer(b"mine", "Cache-Control: private")
