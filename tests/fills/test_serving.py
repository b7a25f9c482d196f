"""The route on real sockets: what is stored is what is sent, and the origin is asked once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import orjson
from attrs import evolve
from twisted.internet.defer import Deferred

from edgecache import node
from edgecache.fills import fills, warming
from edgecache.fills.fill import Phase
from edgecache.rules.asking import Asked
from edgecache.rules.health import FAILING_WORD
from edgecache.rules.selectors import Selector
from edgecache.rules.sites import Sites
from edgecache.store.layout import CHUNKS
from edgecache.store.pagelayout import FENCED
from edgecache.words.config import Profile
from edgecache.words.counters import Counter
from tests.fills.rig import PATIENT, Exchange, RigCase

FRESH = "Cache-Control: max-age=60"
JSON = "Content-Type: application/vnd.pypi.simple.v1+json"


def content_of(octets: int) -> bytes:
    return random.Random(octets).randbytes(octets)


def page_of(*files: str) -> bytes:
    """A page of an index in JSON (PEP 691)."""
    entries = [{"filename": name, "url": f"/f/{name}", "hashes": {"sha256": "0" * 64}} for name in files]
    return orjson.dumps({"meta": {"api-version": "1.0"}, "files": entries})


def serves(content: bytes, *fields: str, status: str = "200 OK"):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(content, *fields, status=status)

    return script


class HitTests(RigCase):
    """DESIGN 5"""

    def test_what_was_stored_is_what_is_sent(self):
        async def test():
            for octets in (0, 1, 8192, 65511, 65512, 65513, 200_000, 1_000_000, 3_000_000):
                content = content_of(octets)
                target = f"/{octets}"
                self.origin.scripts[target] = serves(content, FRESH, 'ETag: "a"')
                first = await self.ask(target)
                self.assertEqual((200, content, True), (first.status, first.content, first.complete))
                self.assertIn("fwd=uri-miss", first.cache_status)
                second = await self.hit(target)
                self.assertEqual((200, content, True), (second.status, second.content, second.complete))
                self.assertEqual(1, self.origin.count(target))

        return self.run_async(test())

    def test_a_client_that_reads_slowly_gets_the_rest_of_a_large_hit_and_the_next_answer(self):
        async def test():
            content = content_of(1_000_000)
            self.origin.scripts["/large"] = serves(content, FRESH)
            await self.ask("/large")
            await self.hit("/large")
            client = await self.client(receive_octets=4096)
            for first, fields in ((0, ()), (70_000, ("Range: bytes=70000-",))):
                client.send("/large", *fields)
                client.send("/large", "Range: bytes=0-9")
                # Nothing is read before the node has written what the socket takes.
                answers = self.counter(Counter.HITS) + 1
                await self.until(lambda answers=answers: self.counter(Counter.HITS) >= answers)
                self.assertEqual(content[first:], (await client.receive()).content)
                self.assertEqual(content[:10], (await client.receive()).content)
            self.assertEqual(set(), self._page.pins())
            self.assertEqual(1, self.origin.count("/large"))

        return self.run_async(test())

    def test_a_large_hit_whose_content_is_damaged_is_a_miss(self):
        async def test():
            content = content_of(1_000_000)
            self.origin.scripts["/large"] = serves(content, FRESH)
            await self.ask("/large")
            await self.hit("/large")
            blobs = self._environments.blobs
            with blobs.env.begin(write=True) as txn, txn.cursor(db=blobs.databases[CHUNKS]) as cursor:
                assert cursor.last()
                cursor.put(cursor.key(), bytes(len(cursor.value())))
            answer = await self.ask("/large")
            self.assertEqual((200, content, False), (answer.status, answer.content, answer.hit))
            self.assertEqual(2, self.origin.count("/large"))

        return self.run_async(test())

    def test_content_without_a_length_is_stored_with_one(self):
        async def test():
            content = content_of(150_000)

            async def chunked(exchange: Exchange):
                await exchange.answer(b"", FRESH, "Transfer-Encoding: chunked", length=False)
                await exchange.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))

            self.origin.scripts["/chunked"] = chunked
            self.assertEqual(content, (await self.ask("/chunked")).content)
            answer = await self.hit("/chunked")
            self.assertEqual((content, "150000"), (answer.content, answer.fields["content-length"]))

        return self.run_async(test())

    def test_content_ended_by_the_connection_is_passed_on_and_not_stored(self):
        """DESIGN 8"""

        async def test():
            async def close_delimited(exchange: Exchange):
                await exchange.answer(b"abc", FRESH, length=False)
                exchange.cut()

            self.origin.scripts["/close"] = close_delimited
            self.assertEqual(b"abc", (await self.ask("/close")).content)
            self.assertEqual(b"abc", (await self.ask("/close")).content)
            self.assertEqual(2, self.origin.count("/close"))

        return self.run_async(test())

    def test_ranges_conditions_and_head_come_from_stored_content(self):
        async def test():
            content = content_of(500_000)
            self.origin.scripts["/a"] = serves(content, FRESH, 'ETag: "a"')
            await self.ask("/a")
            await self.hit("/a")
            part = await self.ask("/a", "Range: bytes=100-400000")
            self.assertEqual((206, content[100:400001]), (part.status, part.content))
            self.assertEqual("bytes 100-400000/500000", part.fields["content-range"])
            tail = await self.ask("/a", "Range: bytes=-10")
            self.assertEqual((206, content[-10:]), (tail.status, tail.content))
            self.assertEqual(304, (await self.ask("/a", 'If-None-Match: "a"')).status)
            self.assertEqual(416, (await self.ask("/a", "Range: bytes=500000-")).status)
            self.assertEqual(1, self.counter(Counter.NOT_MODIFIED))
            head = await self.ask("/a", method="HEAD")
            self.assertEqual((200, "500000", b""), (head.status, head.fields["content-length"], head.content))
            self.assertEqual(1, self.origin.count("/a"))

        return self.run_async(test())

    def test_what_was_in_memory_is_believed_to_stay_there_for_a_while_only(self):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(b"content", "Cache-Control: max-age=60")

        async def test():
            looks: list[str] = []
            absent = warming.Warming.absent

            def look(one: warming.Warming, asked: Asked, looked: int = 0) -> warming.Absent | None:
                looks.append(asked.target.decode())
                return absent(one, asked, looked)

            self.patch(warming.Warming, "absent", look)
            self.origin.scripts["/a"] = script
            await self.hit("/a")
            looks.clear()
            await self.hit("/a")
            self.assertEqual([], looks)
            self.patch(node, "BELIEVED_SECONDS", 0.0)
            self.origin.scripts["/b"] = script
            await self.hit("/b")
            looks.clear()
            await self.hit("/b")
            self.assertEqual(["/b"], looks)

        return self.run_async(test())

    def test_stale_content_is_validated_and_served_again(self):
        async def test():
            async def validates(exchange: Exchange):
                if exchange.fields.get("if-none-match") == '"a"':
                    await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nCache-Control: max-age=60\r\n\r\n')
                else:
                    await exchange.answer(b"abc", "Cache-Control: max-age=0", 'ETag: "a"')

            self.origin.scripts["/a"] = validates
            await self.ask("/a")
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            answer = await self.ask("/a")
            self.assertEqual((200, b"abc"), (answer.status, answer.content))
            self.assertEqual(b"abc", (await self.hit("/a")).content)
            self.assertEqual(2, self.origin.count("/a"))

        return self.run_async(test())


class VaryTests(RigCase):
    """RFC 9111 §4.1"""

    def test_each_variant_is_stored_and_selected(self):
        async def test():
            async def by_language(exchange: Exchange):
                await exchange.answer(exchange.fields["accept-language"].encode(), FRESH, "Vary: Accept-Language")

            self.origin.scripts["/v"] = by_language
            for language in ("de", "en", "fr"):
                self.assertEqual(language.encode(), (await self.ask("/v", f"Accept-Language: {language}")).content)
                await self.hit("/v", f"Accept-Language: {language}")
            for language in ("de", "en", "fr"):
                answer = await self.ask("/v", f"Accept-Language: {language}")
                self.assertEqual((True, language.encode()), (answer.hit, answer.content))
            self.assertEqual(3, self.origin.count("/v"))

        return self.run_async(test())

    def test_of_each_variant_those_who_wait_are_served_by_one_request(self):
        async def test():
            going = asyncio.Event()

            async def by_language(exchange: Exchange):
                await going.wait()
                await exchange.answer(exchange.fields["accept-language"].encode(), FRESH, "Vary: Accept-Language")

            self.origin.scripts["/v"] = by_language
            languages = ["de", "en", "fr"] * 4
            clients = [await self.client() for _ in languages]
            for client, language in zip(clients, languages, strict=True):
                client.send("/v", f"Accept-Language: {language}")
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 11)
            going.set()
            answers = [(await client.receive()).content.decode() for client in clients]
            self.assertEqual((languages, 3), (answers, self.origin.count("/v")))

        return self.run_async(test())

    def test_and_so_are_those_who_come_while_another_variant_is_on_its_way(self):
        async def test():
            going = asyncio.Event()

            async def by_language(exchange: Exchange):
                language = exchange.fields["accept-language"].encode()
                head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nVary: Accept-Language\r\nContent-Length: 4\r\n"
                await exchange.send(head + b"\r\n" + language)
                await going.wait()
                await exchange.send(language)

            self.origin.scripts["/v"] = by_language
            languages = ["de", "en"] * 4
            clients = [await self.client() for _ in languages]
            for client, language in zip(clients, languages, strict=True):
                client.send("/v", f"Accept-Language: {language}")
                await client.head()
            going.set()
            answers = [(await client.reader.readexactly(4)).decode() for client in clients]
            self.assertEqual((["dede", "enen"] * 4, 2), (answers, self.origin.count("/v")))

        return self.run_async(test())

    def test_a_variant_on_its_way_is_found_also_once_another_one_is_stored(self):
        async def test():
            going = asyncio.Event()

            async def by_language(exchange: Exchange):
                language = exchange.fields["accept-language"].encode()
                head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nVary: Accept-Language\r\nContent-Length: 4\r\n"
                await exchange.send(head + b"\r\n" + language)
                if language == b"de":
                    await going.wait()
                await exchange.send(language)

            self.origin.scripts["/v"] = by_language
            clients = [await self.client() for _ in range(3)]
            clients[0].send("/v", "Accept-Language: de")
            await clients[0].head()
            await self.hit("/v", "Accept-Language: en")
            for client in clients[1:]:
                client.send("/v", "Accept-Language: de")
                await client.head()
            going.set()
            answers = [(await client.reader.readexactly(4)).decode() for client in clients]
            self.assertEqual((["dede"] * 3, 2), (answers, self.origin.count("/v")))

        return self.run_async(test())

    def test_what_is_stored_serves_while_another_variant_takes_its_place(self):
        async def test():
            async def plain(exchange: Exchange):
                await exchange.answer(b"old", "Cache-Control: max-age=0, stale-if-error=600", 'ETag: "old"')

            async def by_language(exchange: Exchange):
                if exchange.fields["accept-language"] == "de":
                    await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nVary: Accept-Language\r\n")
                    await exchange.send(b"Content-Length: 1000000\r\n\r\nde")
                    await exchange.wait_closed()
                else:
                    exchange.cut()

            self.origin.scripts["/v"] = plain
            await self.ask("/v")
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            self.origin.scripts["/v"] = by_language
            other = await self.client()
            other.send("/v", "Accept-Language: de")
            await other.head()
            answer = await self.ask("/v", "Accept-Language: en")
            other.leave()
            self.assertEqual((200, b"old"), (answer.status, answer.content))

        return self.run_async(test())


class CollapseTests(RigCase):
    """RFC 9111 §4, DESIGN 5"""

    workers = 2

    def test_many_clients_of_both_workers_cause_one_request(self):
        async def test():
            content = content_of(2_000_000)
            half = asyncio.Event()

            async def slowly(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2000000\r\n\r\n")
                await exchange.send(content[:1_000_000])
                await half.wait()
                await exchange.send(content[1_000_000:])

            self.origin.scripts["/big"] = slowly
            clients = [await self.client(index % 2) for index in range(10)]
            for client in clients[:6]:
                client.send("/big")
            heads = [await client.head() for client in clients[:6]]
            self.assertEqual({"2000000"}, {head.fields["content-length"] for head in heads})
            for client in clients[6:]:
                client.send("/big")  # these join a fill that is half done
            late = [await client.head() for client in clients[6:]]
            self.assertTrue(all("collapsed" in head.cache_status for head in late))
            half.set()
            for client in clients:
                self.assertEqual(content, await client.reader.readexactly(2_000_000))
            self.assertEqual(1, self.origin.count("/big"))
            self.assertGreater(self.counter(Counter.OWNER_HOPS, 0) + self.counter(Counter.OWNER_HOPS, 1), 0)

        return self.run_async(test())

    def test_clients_that_each_want_the_newest_share_what_was_asked_for_them(self):
        """
        A farm that installs with ``uv --refresh``: two validations. What the origin was asked before somebody came, it
        may have answered from before that, and before the upload after which they came.
        """

        async def test():
            going = asyncio.Event()

            async def script(exchange: Exchange):
                content = b"%d" % self.origin.count(exchange.target)
                await going.wait()
                await exchange.answer(content, FRESH)

            self.origin.scripts["/a"] = self.origin.scripts["/b"] = script
            for target, first in (("/a", ()), ("/b", ("Cache-Control: no-cache",))):
                going.clear()
                before = self.counter(Counter.COLLAPSED, 0) + self.counter(Counter.COLLAPSED, 1)
                clients = [await self.client(index % 2) for index in range(6)]
                clients[0].send(target, *first)
                await self.until(lambda target=target: self.origin.count(target) == 1)
                for client in clients[1:]:
                    client.send(target, "Cache-Control: no-cache")
                await self.until(
                    lambda before=before: (
                        self.counter(Counter.COLLAPSED, 0) + self.counter(Counter.COLLAPSED, 1) == before + 5
                    )
                )
                going.set()
                self.assertEqual([b"1", *[b"2"] * 5], [(await client.receive()).content for client in clients])

        return self.run_async(test())

    def test_what_was_asked_for_earlier_and_takes_longer_does_not_take_the_place_of_newer_content(self):
        """Of several suitable responses the most recent is used (RFC 9111 §4)."""

        async def test():
            going = asyncio.Event()

            async def script(exchange: Exchange):
                if self.origin.count("/a") > 1:
                    return await exchange.answer(b"new", FRESH)
                await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 400000\r\n\r\n")
                await going.wait()
                await exchange.send(content_of(400_000))

            self.origin.scripts["/a"] = script
            first = await self.client()
            first.send("/a")
            await first.head()
            fill = self.running
            self.assertEqual(b"new", (await self.ask("/a", "Cache-Control: no-cache")).content)
            await self.hit("/a")
            going.set()
            self.assertEqual(content_of(400_000), await first.reader.readexactly(400_000))
            await self.until(lambda: fill.phase is Phase.ENDED)
            self.assertEqual(b"new", (await self.hit("/a")).content)
            self.assertEqual([1, 0], [self.count(one) for one in (Counter.STORED, Counter.STORE_FAILURES)])

        return self.run_async(test())

    def test_nor_does_what_was_asked_for_before_a_purge(self):
        async def test():
            going = asyncio.Event()

            async def script(exchange: Exchange):
                if self.origin.count("/a") > 1:
                    return await exchange.answer(b"new", FRESH)
                await going.wait()
                await exchange.answer(b"old", FRESH)

            self.origin.scripts["/a"] = script
            first = await self.client()
            first.send("/a")
            await self.until(lambda: self.origin.count("/a") == 1)
            fill = self.running
            await self.purge(Selector("url", Sites(self.config).all[0].id, b"/a"))
            await self.hit("/a")
            going.set()
            self.assertEqual(b"old", (await first.receive()).content)
            await self.until(lambda: fill.phase is Phase.ENDED)
            self.assertEqual(b"new", (await self.hit("/a")).content)
            self.assertEqual([1, 0], [self.count(one) for one in (Counter.STORED, Counter.STORE_FAILURES)])

        return self.run_async(test())

    @property
    def running(self) -> Any:
        """The only fill."""
        [fill] = {fill for worker in self._workers for fill in worker.pages._fills._running.values()}
        return fill

    def count(self, counter: int) -> int:
        return sum(self.counter(counter, worker) for worker in range(self.workers))

    def test_a_client_that_leaves_disturbs_nobody(self):
        async def test():
            content = content_of(1_000_000)
            going = asyncio.Event()

            async def slowly(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000000\r\n\r\n")
                await exchange.send(content[:300_000])
                await going.wait()
                await exchange.send(content[300_000:])

            self.origin.scripts["/big"] = slowly
            leader, other = await self.client(0), await self.client(1)
            leader.send("/big")
            await leader.head()
            other.send("/big")
            await other.head()
            leader.leave()
            going.set()
            self.assertEqual(content, await other.reader.readexactly(1_000_000))
            self.assertEqual(content, (await self.hit("/big")).content)
            self.assertEqual(1, self.origin.count("/big"))

        return self.run_async(test())

    def test_private_responses_are_shared_with_nobody(self):
        async def test():
            answered = 0

            async def private(exchange: Exchange):
                nonlocal answered
                answered += 1
                await exchange.answer(exchange.fields["cookie"].encode(), "Cache-Control: private, max-age=60")

            self.origin.scripts["/me"] = private
            clients = [await self.client(index % 2) for index in range(6)]
            for number, client in enumerate(clients):
                client.send("/me", f"Cookie: {number}")
            contents = [(await client.receive()).content for client in clients]
            self.assertEqual([b"0", b"1", b"2", b"3", b"4", b"5"], contents)
            self.assertEqual(6, answered)

        return self.run_async(test())


class NamelessTests(RigCase):
    """RFC 9112 §3.2: HTTP/1.0 may leave Host out."""

    workers = 2
    site = {"preserve_host": True}

    def test_the_origin_is_told_its_own_name_whichever_worker_owns_the_key(self):
        async def test():
            for number in range(12):
                self.origin.scripts[f"/{number}"] = serves(b"x", FRESH)
                client = await self.client(number % 2)
                client.writer.write(f"GET /{number} HTTP/1.0\r\n\r\n".encode())
                await client.receive()
            self.assertEqual({f"127.0.0.1:{self.origin.port}"}, {one.fields["host"] for one in self.origin.seen})

        return self.run_async(test())


class BrokenContentTests(RigCase):
    """DESIGN 7, 8"""

    def test_a_short_body_is_broken_off_and_not_stored(self):
        async def test():
            async def short(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nabc")
                exchange.cut()

            self.origin.scripts["/short"] = short
            first, second = await self.ask("/short"), await self.ask("/short")
            self.assertEqual([False, False], [first.complete, second.complete])
            self.assertEqual(2, self.origin.count("/short"))

        return self.run_async(test())

    def test_nothing_answers_and_nothing_is_stored(self):
        async def test():
            await self.origin.stop()
            answer = await self.ask("/gone")
            self.assertEqual(503, answer.status)
            self.assertIn("retry-after", answer.fields)
            self.assertIn("error=connection_refused", answer.fields["proxy-status"])

        return self.run_async(test())

    def test_stale_content_is_served_when_the_origin_is_gone(self):
        async def test():
            self.origin.scripts["/a"] = serves(b"abc", "Cache-Control: max-age=0", 'ETag: "a"')
            await self.ask("/a")
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            await self.origin.stop()
            answer = await self.ask("/a")
            self.assertEqual((200, b"abc"), (answer.status, answer.content))
            self.assertEqual(1, self.counter(Counter.STALE_HITS))

        return self.run_async(test())


class PurgeTests(RigCase):
    """DESIGN 9"""

    workers = 2

    def test_after_a_purge_every_worker_asks_again(self):
        async def test():
            version = b"1"

            async def current(exchange: Exchange):
                await exchange.answer(version, FRESH, "Surrogate-Key: page")

            self.origin.scripts["/a/b"] = current
            await self.ask("/a/b")
            await self.hit("/a/b")

            site = Sites(self.config).all[0].id
            version = b"2"
            await self.purge(Selector("tag", site, b"page"))
            for worker in (0, 1):
                self.assertEqual(b"2", (await self.ask("/a/b", worker=worker)).content)

        return self.run_async(test())


class FillAndPurgeTests(RigCase):
    """DESIGN 9: whoever comes after a purge does not get what was fetched before it."""

    async def asks_twice_around(self, *selectors: Selector) -> list[bytes]:
        """:return: what a client before the purge and one after it are given; the origin holds the first head."""
        going = asyncio.Event()

        async def held(exchange: Exchange):
            number = self.origin.count("/a/b")
            if number == 1:
                await going.wait()
            await exchange.answer(b"%d" % number, FRESH, "Surrogate-Key: page")

        self.origin.scripts["/a/b"] = held
        before, after = await self.client(), await self.client()
        before.send("/a/b")
        await self.until(lambda: self.origin.count("/a/b") == 1)
        await self.purge(*selectors)
        after.send("/a/b")
        if self.expected_requests == 2:
            await self.until(lambda: self.origin.count("/a/b") == 2)
        else:
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 1)
        going.set()
        return [(await client.receive()).content for client in (before, after)]

    expected_requests = 2

    def named(self, kind: str, value: bytes) -> Selector:
        return Selector(kind, Sites(self.config).all[0].id, value)

    def test_a_url_that_was_purged_before_its_head_came(self):
        async def test():
            self.assertEqual([b"1", b"2"], await self.asks_twice_around(self.named("url", b"/a/b")))

        return self.run_async(test())

    def test_any_tag_that_was_purged_before_the_head_came(self):
        async def test():
            self.assertEqual([b"1", b"2"], await self.asks_twice_around(self.named("tag", b"page")))

        return self.run_async(test())

    def test_a_purge_of_something_else_splits_no_fill(self):
        async def test():
            self.expected_requests = 1
            self.assertEqual([b"1", b"1"], await self.asks_twice_around(self.named("url", b"/a/c")))

        return self.run_async(test())


class HeadTests(RigCase):
    """A HEAD starts no fill; one that is running answers it, at whichever worker it arrives."""

    workers = 2

    def test_a_head_is_answered_by_the_running_fill(self):
        async def test():
            going = asyncio.Event()

            async def slowly(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nabc")
                await going.wait()
                await exchange.send(b"def")

            self.origin.scripts["/h"] = slowly
            client = await self.client()
            client.send("/h")
            await client.head()
            for worker in (0, 1):
                answer = await self.ask("/h", worker=worker, method="HEAD")
                self.assertEqual((200, "6"), (answer.status, answer.fields["content-length"]))
            going.set()
            self.assertEqual(b"abcdef", await client.reader.readexactly(6))
            self.assertEqual(1, self.origin.count("/h"))

        return self.run_async(test())


class FencedTests(RigCase):
    """DESIGN 9: a node that is cut off does not know what was purged since a fill began."""

    def joined(self, *, fenced: bool, old: bool) -> Any:
        async def test():
            going = asyncio.Event()

            async def slowly(exchange: Exchange):
                old_one = len(self.origin.seen) == 1
                await going.wait()
                await exchange.answer(b"old" if old_one else b"new", FRESH)

            self.origin.scripts["/page"] = slowly
            first, second = await self.client(), await self.client()
            first.send("/page")
            await self.until(lambda: self.origin.count("/page") == 1)
            if fenced:
                self._page.publish_fresh_until(FENCED)
            if old:
                self.patch(fills, "FENCED_JOIN_SECONDS", -1.0)
            second.send("/page")
            expected = 2 if fenced and old else 1
            await self.until(lambda: self.counter(Counter.FORWARDED) == 2 and self.origin.count("/page") == expected)
            going.set()
            self.assertEqual(b"old", (await first.receive()).content)
            self.assertEqual(b"new" if fenced and old else b"old", (await second.receive()).content)

        return self.run_async(test())

    def test_an_old_fill_is_not_joined(self):
        return self.joined(fenced=True, old=True)

    def test_one_that_has_just_begun_is(self):
        return self.joined(fenced=True, old=False)

    def test_with_a_lease_every_fill_is(self):
        return self.joined(fenced=False, old=True)


class DyingOwnerTests(RigCase):
    """DESIGN 4: if the owner dies, the asker goes on as after any upstream failure."""

    workers = 2

    def test_content_goes_on_from_the_origin_when_the_owner_dies_in_the_middle_of_it(self):
        async def test():
            content = content_of(1_000_000)

            async def stalling(exchange: Exchange):
                if "range" in exchange.fields:
                    start = int(exchange.fields["range"].removeprefix("bytes=").rstrip("-"))
                    fields = (f"Content-Range: bytes {start}-999999/1000000", 'ETag: "a"')
                    await exchange.answer(content[start:], *fields, status="206 Partial Content")
                else:
                    head = (
                        b'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: "a"\r\nContent-Length: 1000000\r\n\r\n'
                    )
                    await exchange.send(head + content[:300_000])

            for number in range(20):
                target = f"/dies-{number}"
                self.origin.scripts[target] = stalling
                client = await self.client(0)
                client.send(target)
                answer = await client.head()
                if self.counter(Counter.OWNER_HOPS, 0):
                    break
            got = await client.reader.readexactly(200_000)
            await Deferred.fromCoroutine(self._workers[1].stop()).asFuture(self._loop)
            got += await client.reader.readexactly(800_000)
            self.assertEqual((200, content), (answer.status, got))
            self.assertEqual(["bytes"], [one.fields["range"][:5] for one in self.origin.seen if "range" in one.fields])

        return self.run_async(test())

    def test_what_the_owner_gives_up_is_given_up(self):
        """Each client of the asker would otherwise ask the origins for what the owner has found out already."""

        async def test():
            async def changing(exchange: Exchange):
                if "range" in exchange.fields:
                    await exchange.answer(b"another one", 'ETag: "b"')
                else:
                    head = b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 1000000\r\n\r\n'
                    await exchange.send(head + bytes(300_000))
                    exchange.cut()

            for number in range(20):
                target = f"/given-up-{number}"
                self.origin.scripts[target] = changing
                hops = self.counter(Counter.OWNER_HOPS, 0)
                client = await self.client(0)
                client.send(target)
                answer = await client.head()
                self.assertEqual((200, bytes(300_000)), (answer.status, await client.reader.read(-1)))
                self.assertEqual(2, self.origin.count(target), target)
                if self.counter(Counter.OWNER_HOPS, 0) > hops:
                    return
            raise AssertionError("worker 0 owned every key")

        return self.run_async(test())


class PurgedTests(RigCase):
    def test_what_was_purged_and_is_all_there_is_is_fresh_for_nobody_downstream(self):
        async def test():
            self.origin.scripts["/p"] = serves(b"old", "Cache-Control: public, max-age=600, immutable")
            await self.ask("/p")
            await self.hit("/p")
            await self.purge(Selector("url", Sites(self.config).all[0].id, b"/p"))
            await self.origin.stop()
            answer = await self.ask("/p")
            self.assertEqual(
                (200, b"old", "public, max-age=0"), (answer.status, answer.content, answer.fields["cache-control"])
            )
            self.assertEqual("3", answer.fields["content-length"])

        return self.run_async(test())


class StaleFirstTests(RigCase):
    """DESIGN 8: an index serves stale first while the only address fails."""

    profile = Profile.INDEX
    page_seconds = 0.0
    target = "/simple/one/"

    async def stored(self) -> None:
        self.origin.scripts[self.target] = serves(page_of("one-1.0.tar.gz"), 'ETag: "a"', JSON)
        await self.ask(self.target)
        await self.until(lambda: self.counter(Counter.STORED) == 1)

    def test_the_stored_page_at_once_and_a_validation_behind(self):
        async def test():
            await self.stored()
            asked, well = asyncio.Event(), asyncio.Event()

            async def hanging(exchange: Exchange):
                asked.set()
                await well.wait()
                await exchange.answer(b"", status="304 Not Modified", length=False)

            self.origin.scripts[self.target] = hanging
            self._page.set_health(0, FAILING_WORD)
            for _ in range(2):
                answer = await self.ask(self.target)
                self.assertEqual((200, True), (answer.status, answer.hit))
                self.assertIn(b"one-1.0.tar.gz", answer.content)
                self.assertIn("error=destination_unavailable", answer.fields["proxy-status"])
            await asked.wait()
            self.assertEqual(2, self.origin.count(self.target), "one validation, however many ask")
            well.set()
            await self.until(lambda: self.counter(Counter.FRESHENED) == 1)

        return self.run_async(test())

    def test_not_what_was_purged(self):
        async def test():
            await self.stored()
            self.origin.scripts[self.target] = serves(page_of("one-2.0.tar.gz"), JSON)
            self._page.set_health(0, FAILING_WORD)
            await self.purge(Selector("url", Sites(self.config).all[0].id, self.target.encode()))
            self.assertIn(b"one-2.0.tar.gz", (await self.ask(self.target)).content)

        return self.run_async(test())


class UnsafeMethodTests(RigCase):
    """RFC 9111 §4.4, RFC 9110 §9.2.1"""

    workers = 2

    def test_content_goes_up_and_the_stored_response_is_invalidated_everywhere(self):
        async def test():
            version = b"1"

            async def resource(exchange: Exchange):
                nonlocal version
                if exchange.method == "POST":
                    version = exchange.content
                    await exchange.answer(b"done")
                else:
                    await exchange.answer(version, FRESH)

            self.origin.scripts["/a"] = resource
            await self.ask("/a")
            await self.hit("/a")
            posted = await self.ask("/a", method="POST", content=b"2")
            self.assertEqual(b"done", posted.content)
            for worker in (0, 1):
                self.assertEqual(b"2", (await self.ask("/a", worker=worker)).content)

        return self.run_async(test())


class InterimTests(RigCase):
    """RFC 9110 §15.2"""

    def test_interim_responses_are_passed_on(self):
        async def test():
            async def early(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                await exchange.answer(b"abc")

            self.origin.scripts["/a"] = early
            client = await self.client()
            client.send("/a")
            self.assertEqual((103, "</a>"), ((head := await client.head()).status, head.fields["link"]))
            self.assertEqual(b"abc", (await client.receive()).content)

        return self.run_async(test())


class IndexInterimTests(RigCase):
    """FIELD 3: installers take any 1xx for the final answer."""

    profile = Profile.INDEX

    def test_an_index_passes_no_interim_response(self):
        async def test():
            async def early(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
                await exchange.answer(page_of("a-1.tar.gz"), JSON)

            self.origin.scripts["/simple/a/"] = early
            answer = await self.ask("/simple/a/")
            self.assertEqual((200, True), (answer.status, b"a-1.tar.gz" in answer.content))

        return self.run_async(test())


class IndexContentTests(RigCase):
    """DESIGN 12: an index takes no content."""

    profile = Profile.INDEX

    def test_who_sends_some_is_told_so_before_it_is_here(self):
        async def test():
            client = await self.client()
            client.send("/simple/a/", "Content-Length: 5", method="POST")
            client.writer.write(b"he")
            # Whoever waited for the rest would find that it broke off.
            client.writer.write_eof()
            self.assertEqual(405, (await client.receive()).status)

        return self.run_async(test())


class LeavingTests(RigCase):
    """FIELD 1: a fill belongs to no client; an exchange that nobody can join belongs to its only one."""

    upstream = evolve(PATIENT, slow_window_seconds=0.2)

    def test_an_exchange_of_one_client_ends_with_it(self):
        async def test():
            closed = asyncio.Event()

            async def silent(exchange: Exchange):
                await exchange.wait_closed()
                closed.set()

            self.origin.scripts["/slow"] = silent
            client = await self.client()
            client.send("/slow", method="POST", content=b"x")
            await self.until(lambda: self.origin.count("/slow") == 1)
            client.leave()
            await closed.wait()

        return self.run_async(test())

    def test_a_content_that_drips_for_nobody_is_given_up_however_small_it_is(self):
        async def test():
            over = asyncio.Event()

            async def dripping(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000000\r\n\r\n")
                while not over.is_set():
                    await exchange.send(b"x")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(exchange.wait_closed(), 0.01)
                        over.set()

            self.origin.scripts["/drip"] = dripping
            client = await self.client()
            client.send("/drip")
            await client.head()
            self.assertFalse(over.is_set())
            client.leave()
            await over.wait()

        return self.run_async(test())

    def test_a_refusal_that_says_so_closes_the_connection(self):
        async def test():
            client = await self.client()
            answer = await client.ask("/a", method="PURGE")
            self.assertEqual((405, "close"), (answer.status, answer.fields["connection"]))
            self.assertEqual(b"", await client.reader.read())

        return self.run_async(test())


class SharedHeadTests(RigCase):
    """Requests with the same octets are one parsed value; that makes nobody the leader of another's fill."""

    def test_a_response_that_demands_validation_is_not_handed_to_who_joined(self):
        async def test():
            going = asyncio.Event()

            async def slow(exchange: Exchange):
                await going.wait()
                await exchange.answer(b"%d" % self.origin.count("/n"), "Cache-Control: no-cache", 'ETag: "x"')

            self.origin.scripts["/n"] = slow
            clients = [await self.client() for _ in range(3)]
            for client in clients:
                client.send("/n")
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 2)
            going.set()
            for client in clients:
                self.assertEqual(200, (await client.receive()).status)
            self.assertEqual(3, self.origin.count("/n"))

        return self.run_async(test())


class UnshareableTests(RigCase):
    """FIELD 1"""

    def test_what_cannot_be_shared_is_asked_for_with_the_client_s_own_condition(self):
        async def test():
            async def private(exchange: Exchange):
                if exchange.fields.get("if-none-match") == '"p"':
                    await exchange.send(b"HTTP/1.1 304 Not Modified\r\n\r\n")
                else:
                    await exchange.answer(b"abc", "Cache-Control: private", 'ETag: "p"')

            self.origin.scripts["/p"] = private
            self.assertEqual(200, (await self.ask("/p")).status)
            self.assertEqual(304, (await self.ask("/p", 'If-None-Match: "p"')).status)

        return self.run_async(test())


class FullStoreTests(RigCase):
    """DESIGN 7: what the store cannot take is served all the same."""

    workers = 2

    def test_content_is_exact_for_all_and_nothing_is_stored(self):
        async def test():
            self._page.set_full(True, True)
            content = content_of(6_000_000)
            self.origin.scripts["/big"] = serves(content, FRESH)
            clients = [await self.client(index % 2) for index in range(4)]
            for client in clients:
                client.send("/big")
            # The slowest sets the pace here, so they read side by side.
            for answer in await asyncio.gather(*(client.receive() for client in clients)):
                self.assertEqual((True, content), (answer.complete, answer.content))
            again = await self.ask("/big")
            self.assertEqual((False, True, content), (again.hit, again.complete, again.content))

        return self.run_async(test())

    def test_who_comes_when_the_beginning_is_gone_has_a_fetch_of_its_own_and_harms_nobody(self):
        async def test():
            self._page.set_full(True, True)
            content = content_of(6_000_000)
            go_on = asyncio.Event()

            async def pausing(exchange: Exchange):
                await exchange.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6000000\r\n\r\n")
                await exchange.send(content[:4_000_000])
                if self.origin.count("/big") == 1:
                    await go_on.wait()
                await exchange.send(content[4_000_000:])

            self.origin.scripts["/big"] = pausing
            first, late = await self.client(0), await self.client(1)
            first.send("/big")
            early = asyncio.ensure_future(first.receive())
            await self.until(lambda: self.counter(Counter.BYTES_FETCHED) >= 4_000_000)
            late.send("/big")
            answer = await late.receive()
            self.assertEqual((True, content), (answer.complete, answer.content))
            go_on.set()
            answer = await early
            self.assertEqual((True, content), (answer.complete, answer.content))
            self.assertEqual(2, self.origin.count("/big"))

        return self.run_async(test())

    def test_it_is_stored_again_once_there_is_room(self):
        async def test():
            self.origin.scripts["/a"] = serves(b"abc", FRESH)
            self._page.set_full(True, True)
            self.assertEqual(b"abc", (await self.ask("/a")).content)
            self._page.set_full(False, False)
            self.assertEqual(b"abc", (await self.hit("/a")).content)

        return self.run_async(test())
