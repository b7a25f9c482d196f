"""Contents that break off or are wrong, on real sockets: what clients get, what is stored, who is asked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random

from attrs import evolve

from edgecache.fills.storing import RESTARTS
from edgecache.words.config import Policy
from edgecache.words.counters import Counter
from tests.fills.rig import PATIENT, Exchange, RigCase, Script

FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "one"'


def content_of(octets: int) -> bytes:
    return random.Random(octets).randbytes(octets)


def digest_of(content: bytes) -> str:
    return f"Repr-Digest: sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def wrong(content: bytes, at: int = 0) -> bytes:
    """``content`` with another octet."""
    return content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]


def serves(content: bytes, *fields: str) -> Script:
    """Whole, or the range asked for."""

    async def script(exchange: Exchange) -> None:
        asked = exchange.fields.get("range")
        if asked is None:
            await exchange.answer(content, *fields)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        place = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
        await exchange.answer(content[start:], place, *fields, status="206 Partial Content")

    return script


def breaks(content: bytes, after: int, *fields: str, chunked: bool = False) -> Script:
    """Some of it, then a closed connection."""

    async def script(exchange: Exchange) -> None:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}"
        await exchange.answer(b"", *fields, framing, length=False)
        await exchange.send(b"%x\r\n%b\r\n" % (after, content[:after]) if chunked else content[:after])
        exchange.cut()

    return script


class BreakingCase(RigCase):
    origins = 2
    policy = Policy.ORDERED

    def play(self, target: str, *scripts: Script) -> None:
        """The origins' parts, in the order in which they are asked."""
        for origin, script in zip([self.origin, *self.others], scripts, strict=True):
            origin.scripts[target] = script

    def asked(self, target: str) -> list[int]:
        return [origin.count(target) for origin in (self.origin, *self.others)]


class ResumedTests(BreakingCase):
    # Far longer than a good origin needs, however busy the machine is.
    upstream = evolve(PATIENT, stall_seconds=1.0)

    def test_all_clients_of_a_content_that_stalls_get_exact_octets_for_one_range_request(self):
        """Must show 2, as far as one worker goes"""

        async def test():
            content = content_of(1_000_000)

            async def stalls(exchange: Exchange):
                await exchange.answer(b"", FRESH, TAG, f"Content-Length: {len(content)}", length=False)
                await exchange.send(content[:100_000])
                await exchange.wait_closed()

            self.play("/a", stalls, serves(content, FRESH, TAG))
            answers = await asyncio.gather(*[self.ask("/a") for _ in range(4)])
            self.assertEqual([True] * 4, [answer.complete and answer.content == content for answer in answers])
            self.assertEqual([1, 1], self.asked("/a"))
            [rest] = self.others[0].seen
            self.assertEqual(("bytes=95904-", '"one"'), (rest.fields.get("range"), rest.fields.get("if-range")))
            self.assertEqual(content, (await self.hit("/a")).content)
            self.assertEqual((1, 1), (self.counter(Counter.RESUMES), self.counter(Counter.RESUMED)))

        return self.run_async(test())

    def test_with_another_entity_tag_elsewhere_it_breaks_off_and_nothing_is_stored(self):
        """Must show 3, rule 8"""

        async def test():
            content = content_of(1_000_000)
            self.play("/a", breaks(content, 100_000, FRESH, TAG), serves(content, FRESH, 'ETag: "two"'))
            answer = await self.ask("/a")
            self.assertFalse(answer.complete)
            self.assertTrue(content.startswith(answer.content))
            # The first is asked for the rest as well, and breaks off again: of its content, not as a range.
            self.assertEqual([2, 1], self.asked("/a"))
            self.assertEqual(0, self.counter(Counter.STORED))
            self.play("/a", serves(content, FRESH, TAG), serves(content, FRESH, TAG))
            again = await self.ask("/a")
            self.assertEqual((False, True, content), (again.hit, again.complete, again.content))

        return self.run_async(test())

    def test_with_a_digest_it_goes_on_elsewhere_and_is_verified(self):
        """Must show 3, rule 6"""

        async def test():
            content = content_of(3_000_000)
            fields = FRESH, digest_of(content)
            self.play("/a", breaks(content, 100_000, TAG, *fields), serves(content, 'ETag: "two"', *fields))
            answer = await self.ask("/a")
            self.assertEqual((True, content), (answer.complete, answer.content))
            self.assertEqual([1, 1], self.asked("/a"))
            self.assertNotIn("if-range", self.others[0].seen[0].fields)
            self.assertEqual(content, (await self.hit("/a")).content)

        return self.run_async(test())

    def test_chunks_that_break_off_have_no_last_chunk(self):
        """Rule 8"""

        async def test():
            content = content_of(200_000)
            script = breaks(content, 50_000, FRESH, chunked=True)
            self.play("/a", script, script)
            answer = await self.ask("/a")
            self.assertEqual((False, content[:50_000]), (answer.complete, answer.content))
            self.assertEqual(([1, 0], 0), (self.asked("/a"), self.counter(Counter.STORED)))

        return self.run_async(test())

    def test_what_is_not_stored_goes_on_as_well(self):
        async def test():
            content = content_of(1_000_000)
            fields = "Cache-Control: no-store", TAG
            self.play("/a", breaks(content, 100_000, *fields), serves(content, *fields))
            answer = await self.ask("/a")
            self.assertEqual((True, content), (answer.complete, answer.content))

        return self.run_async(test())


class WithheldTests(BreakingCase):
    """Rule 7: up to 1 MiB"""

    def test_not_even_a_head_is_sent_before_the_digest_is_right(self):
        async def test():
            content = content_of(1 << 20)
            proceed = asyncio.Event()

            async def halting(exchange: Exchange):
                await exchange.answer(b"", FRESH, digest_of(content), f"Content-Length: {len(content)}", length=False)
                await exchange.send(content[:-1])
                await proceed.wait()
                await exchange.send(content[-1:])

            self.play("/a", halting, halting)
            self.play("/other", serves(b"other"), serves(b"other"))
            clients = [await self.client() for _ in range(2)]
            for client in clients:
                client.send("/a")
            await self.until(lambda: self.counter(Counter.BYTES_FETCHED) >= len(content) - 1)
            clients.append(await self.client())
            clients[-1].send("/a")
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 2)
            await self.ask("/other")
            self.assertEqual([b""] * 3, [bytes(client.reader._buffer) for client in clients])
            proceed.set()
            answers = [await client.receive() for client in clients]
            self.assertEqual([(200, True)] * 3, [(answer.status, answer.content == content) for answer in answers])
            self.assertEqual([1, 0], self.asked("/a"))
            self.assertEqual(content, (await self.hit("/a")).content)

        return self.run_async(test())

    def test_wrong_content_is_asked_for_anew_elsewhere_and_no_client_notices(self):
        async def test():
            for octets in (1, 100_000, 1 << 20):
                content, target = content_of(octets), f"/{octets}"
                fields = FRESH, digest_of(content)
                self.play(target, serves(wrong(content), *fields), serves(content, *fields))
                answers = await asyncio.gather(*[self.ask(target) for _ in range(3)])
                self.assertEqual([(200, True)] * 3, [(one.status, one.content == content) for one in answers])
                self.assertEqual([1, 1], self.asked(target))
                self.assertEqual(content, (await self.hit(target)).content)

        return self.run_async(test())

    def test_wrong_content_everywhere_is_an_error_and_never_stored(self):
        async def test():
            content = content_of(100_000)
            script = serves(wrong(content), FRESH, digest_of(content))
            self.play("/a", script, script)
            answer = await self.ask("/a")
            self.assertEqual((503, True), (answer.status, answer.complete))
            self.assertIn("http_protocol_error", answer.fields["proxy-status"])
            self.assertIn("retry-after", answer.fields)
            self.assertEqual(1 + RESTARTS, sum(self.asked("/a")))
            self.assertEqual(0, self.counter(Counter.STORED))

        return self.run_async(test())

    def test_what_breaks_off_unseen_with_no_way_on_is_an_error_too(self):
        async def test():
            content = content_of(100_000)
            script = breaks(content, 50_000, FRESH, digest_of(content))
            self.play("/a", script, script)
            answer = await self.ask("/a")
            self.assertEqual((503, True), (answer.status, answer.complete))
            self.assertIn("connection_terminated", answer.fields["proxy-status"])

        return self.run_async(test())

    def test_stale_content_is_better_than_wrong_content(self):
        async def test():
            content = content_of(50_000)
            self.play("/a", *[serves(content, "Cache-Control: max-age=0, stale-if-error=60", TAG)] * 2)
            await self.ask("/a")
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            self.play("/a", *[serves(wrong(content), FRESH, digest_of(content))] * 2)
            answer = await self.ask("/a")
            self.assertEqual((200, content, True), (answer.status, answer.content, answer.hit))

        return self.run_async(test())

    def test_content_without_a_length_waits_for_its_digest(self):
        async def test():
            content = content_of(100_000)

            def chunked(content: bytes, right: bytes) -> Script:
                async def script(exchange: Exchange):
                    fields = FRESH, digest_of(right), "Transfer-Encoding: chunked"
                    await exchange.answer(b"", *fields, length=False)
                    await exchange.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))

                return script

            self.play("/a", chunked(wrong(content), content), chunked(content, content))
            self.assertEqual(content, (await self.ask("/a")).content)
            self.assertEqual([1, 1], self.asked("/a"))

        return self.run_async(test())

    def test_who_wants_a_small_part_of_it_waits_too(self):
        async def test():
            content = content_of(100_000)
            fields = FRESH, digest_of(content)
            self.play("/a", serves(wrong(content), *fields), serves(content, *fields))
            part, whole = await asyncio.gather(self.ask("/a", "Range: bytes=0-9"), self.ask("/a"))
            self.assertEqual((206, content[:10]), (part.status, part.content))
            self.assertEqual(content, whole.content)

        return self.run_async(test())


class HeldBackTests(BreakingCase):
    """Rule 7: more than 1 MiB"""

    def test_it_streams_but_for_its_last_64_kib(self):
        async def test():
            content = content_of(3_000_000)
            proceed = asyncio.Event()

            async def halting(exchange: Exchange):
                await exchange.answer(b"", FRESH, digest_of(content), f"Content-Length: {len(content)}", length=False)
                await exchange.send(content[:-1])
                await proceed.wait()
                await exchange.send(content[-1:])

            self.play("/a", halting, halting)
            client = await self.client()
            client.send("/a")
            await client.head()
            shown = len(content) - (64 << 10)
            self.assertEqual(content[:shown], await client.reader.readexactly(shown))
            await self.until(lambda: self.counter(Counter.BYTES_FETCHED) == len(content) - 1)
            self.assertEqual(b"", bytes(client.reader._buffer))
            proceed.set()
            self.assertEqual(content[shown:], await client.reader.readexactly(64 << 10))

        return self.run_async(test())

    def test_a_corrupt_one_is_never_complete_and_never_stored(self):
        async def test():
            for directives in (FRESH, "Cache-Control: no-store"):
                for octets in ((1 << 20) + 1, 3_000_000):
                    content, target = content_of(octets), f"/{octets}/{directives[-3:]}"
                    script = serves(wrong(content, octets - 1), directives, digest_of(content))
                    self.play(target, script, script)
                    answers = await asyncio.gather(self.ask(target), self.ask(target))
                    for answer in answers:
                        self.assertFalse(answer.complete)
                        self.assertLessEqual(len(answer.content), octets - (64 << 10))
            self.assertEqual(0, self.counter(Counter.STORED))

        return self.run_async(test())


class UnstorableTests(BreakingCase):
    def test_what_the_store_does_not_take_waits_in_memory_for_its_digest(self):
        async def test():
            self._page.set_full(True, True)
            for octets in (1000, 1 << 20, 3_000_000):
                content = content_of(octets)
                fields = FRESH, digest_of(content)
                self.play(f"/{octets}", *[serves(content, *fields)] * 2)
                answer = await self.ask(f"/{octets}")
                self.assertEqual((True, True), (answer.complete, answer.content == content))
            self.assertEqual(0, self.counter(Counter.STORED))

        return self.run_async(test())


class PassedTests(BreakingCase):
    """Rule 7 where nothing is stored: to one client, with its head at once."""

    NO_STORE = "Cache-Control: no-store"

    def test_right_content_of_any_size_comes_whole(self):
        async def test():
            for octets in (1, 500_000, 1 << 20, (1 << 20) + 1, 3_000_000):
                content = content_of(octets)
                self.play(f"/{octets}", *[serves(content, self.NO_STORE, digest_of(content))] * 2)
                answer = await self.ask(f"/{octets}")
                self.assertEqual((True, True), (answer.complete, answer.content == content), octets)

        return self.run_async(test())

    def test_of_small_wrong_content_not_an_octet_is_sent(self):
        async def test():
            content = content_of(500_000)
            self.play("/a", *[serves(wrong(content), self.NO_STORE, digest_of(content))] * 2)
            answer = await self.ask("/a")
            self.assertEqual((False, b""), (answer.complete, answer.content))

        return self.run_async(test())

    def test_without_a_length_too(self):
        async def test():
            for octets in (1000, 3_000_000):
                content = content_of(octets)

                async def chunked(exchange: Exchange, content: bytes = content):
                    fields = self.NO_STORE, digest_of(content), "Transfer-Encoding: chunked"
                    await exchange.answer(b"", *fields, length=False)
                    await exchange.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))

                self.play(f"/{octets}", chunked, chunked)
                answer = await self.ask(f"/{octets}")
                self.assertEqual((True, True), (answer.complete, answer.content == content))

        return self.run_async(test())
