"""What may go wrong between a page, those who wait for it and the store (DESIGN 9, 10)."""

from __future__ import annotations

import asyncio
import gzip
import time
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import orjson
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail

from edgecache.fills.catalogues import AT_ONCE, Catalogues
from edgecache.fills.pages import FoundPage
from edgecache.index.catalogue import Catalogue
from edgecache.rules.asking import ask
from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Forward
from edgecache.rules.selectors import Selector
from edgecache.rules.sites import Sites
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.reasons import ForwardReason
from tests.fills.rig import PATIENT, Answer, Exchange
from tests.fills.test_paging import JSON, PAGE, SHA, PageCase, file_of, files_in, page_of, sends


class FullStoreTests(PageCase):
    page_seconds = 0.0

    def test_a_page_that_cannot_be_kept_is_sent_and_not_the_one_that_it_was_to_replace(self):
        async def test():
            self.page("six-1.0.tar.gz", fields=('ETag: "1"',))
            await self.json()
            self._page.set_full(True, True)
            self.page("six-2.0.tar.gz", fields=('ETag: "2"',))
            self.assertEqual(["six-2.0.tar.gz"], files_in(await self.json()))

        return self.run_async(test())

    def test_and_its_files_can_be_had(self):
        async def test():
            self.page("six-1.0.tar.gz", fields=('ETag: "1"',))
            await self.json()
            self._page.set_full(True, True)
            entry = {**file_of("six-2.0.tar.gz"), "hashes": {}}
            page = orjson.dumps({"meta": {"api-version": "1.1"}, "name": "six", "files": [entry]})
            self.origin.scripts[PAGE] = sends(page, 'ETag: "2"')
            self.origin.scripts["/packages/six-2.0.tar.gz"] = sends(b"two", kind="application/octet-stream")
            self.assertEqual(b"two", (await self.ask("/files/six/-/six-2.0.tar.gz")).content)

        return self.run_async(test())


class UnkeptSerialTests(PageCase):
    """Whoever has seen a serial is shown no lower one, also where the page that told it was not stored."""

    page_seconds = 0.0

    async def lagging(self, *fields: str) -> None:
        self.page("six-2.0.tar.gz", serial=7, fields=fields)
        self.assertEqual(["six-2.0.tar.gz"], files_in(await self.json()))
        self.page("six-1.0.tar.gz", serial=6, fields=fields)
        self.assertEqual(503, (await self.json()).status)
        self.assertEqual(1, self.counter(Counter.OLD_PAGES))

    def test_for_want_of_room(self):
        async def test():
            self._page.set_full(True, True)
            await self.lagging()

        return self.run_async(test())

    def test_because_it_must_not_be(self):
        return self.run_async(self.lagging("Cache-Control: no-store"))


class UnknownFileTests(PageCase):
    page_octets = 16 << 20

    def validates(self, *names: str) -> None:
        async def script(exchange: Exchange) -> None:
            if exchange.fields.get("if-none-match") == '"a"':
                await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n')
            else:
                await exchange.answer(page_of(*names), f"Content-Type: {JSON}", 'ETag: "a"')

        self.origin.scripts[PAGE] = script

    def test_a_name_that_the_page_does_not_have_costs_a_validation_and_no_look_at_the_whole_page(self):
        async def test():
            self.validates(*(f"six-{n}.tar.gz" for n in range(20_000)))
            for number in range(3):
                self.assertEqual(404, (await self.ask(f"/files/six/-/no-{number}.tar.gz")).status)
                self.assertEqual(number + 1, self.origin.count(PAGE))
            for more in ({}, {"validated_since": time.time()}):
                self.assertIsNone((await DocumentTests.found(self, **more)).document)

        return self.run_async(test())


class UnknownFileOfAnOldPageTests(UnknownFileTests):
    page_seconds = 0.0


class DateTests(PageCase):
    """RFC 9110 §8.8.2.2"""

    def test_a_date_that_two_pages_may_have_validates_none(self):
        async def test():
            now = int(time.time())
            for since, sent in ((now, False), (now - 60, True)):
                date = format_date(since).decode()
                self.page("six-1.0.tar.gz", fields=(f"Last-Modified: {date}", f"Date: {format_date(now).decode()}"))
                await self.json()
                await self.purged()
                await self.json()
                self.assertEqual(sent, "if-modified-since" in self.origin.seen[-1].fields)
                await self.purged(3)

        return self.run_async(test())


class UnderivableTests(PageCase):
    """No client waits for ever for what could not be made."""

    def break_threads(self) -> None:
        def no_thread(*args: Any) -> Deferred[Any]:
            return fail(RuntimeError("can't start new thread"))

        self._workers[0].pages._fills.derivations.in_thread = no_thread

    def test_whoever_waits_for_a_form_of_a_stored_page_is_told(self):
        async def test():
            self.page("six-1.0.tar.gz")
            await self.json()
            self.break_threads()
            self.assertEqual(500, (await self.ask(PAGE, "Accept: text/html")).status)
            self.assertNotEqual([], self.flushLoggedErrors(RuntimeError))

        return self.run_async(test())

    def test_and_of_one_that_is_not_stored(self):
        async def test():
            self.page("six-1.0.tar.gz", fields=("Cache-Control: no-store",))
            self.break_threads()
            self.assertEqual(500, (await self.json()).status)
            self.assertNotEqual([], self.flushLoggedErrors(RuntimeError))

        return self.run_async(test())


class LateTests(PageCase):
    upstream = evolve(PATIENT, first_byte_seconds=0.4)

    def test_nor_is_anybody_kept_waiting_for_a_dripping_page_that_is_not_stored(self):
        async def test():
            async def dripping(exchange: Exchange) -> None:
                fields = (f"Content-Type: {JSON}", "Content-Length: 999", "Cache-Control: no-store")
                await exchange.answer(b"{", *fields, length=False)
                await exchange.wait_closed()

            self.origin.scripts[PAGE] = dripping
            self.assertEqual(503, (await self.json()).status)
            self.assertEqual(1, self.counter(Counter.LATE_PAGES))

        return self.run_async(test())


class LatePagesTests(PageCase):
    """An origin that drips gets no connection for each client that asks meanwhile, and not for ever."""

    upstream = evolve(PATIENT, first_byte_seconds=0.5)
    origins = 2

    def drip(self) -> list[Exchange]:
        """:return: the exchanges that never end."""
        running: list[Exchange] = []

        async def dripping(exchange: Exchange) -> None:
            running.append(exchange)
            await exchange.answer(b"{", f"Content-Type: {JSON}", "Content-Length: 999", length=False)
            await exchange.wait_closed()
            running.remove(exchange)

        for server in (self.origin, *self.others):
            server.scripts[PAGE] = dripping
        return running

    def asked(self) -> int:
        return sum(server.count(PAGE) for server in (self.origin, *self.others))

    async def in_time(self) -> Answer:
        """The page: on a busy machine it may be late, too."""
        while (answer := await self.json()).status == 503:
            continue
        return answer

    def test_whoever_else_has_it_is_asked_once_and_then_nobody_until_it_is_given_up(self):
        async def test():
            running = self.drip()
            for count in (1, 2, 2, 2):
                self.assertEqual(503, (await self.json()).status)
                await self.until(lambda count=count: self.asked() >= count)
                self.assertEqual(count, self.asked())
            await self.until(lambda: len(running) == 1)
            self.assertEqual(2, self.counter(Counter.LATE_PAGES))
            await self.until(lambda: not running and self.counter(Counter.FILLS_RUNNING) == 0)
            self.page("six-1.0.tar.gz")
            self.page("six-1.0.tar.gz", origin=1)
            self.assertEqual(["six-1.0.tar.gz"], files_in(await self.in_time()))

        return self.run_async(test())

    def test_one_that_was_purged_meanwhile_keeps_nobody_from_asking(self):
        async def test():
            running = self.drip()
            for _ in range(3):
                await self.json()
            await self.purged()
            self.page("six-1.0.tar.gz")
            self.page("six-1.0.tar.gz", origin=1)
            self.assertEqual(["six-1.0.tar.gz"], files_in(await self.in_time()))
            running[0].cut()
            await self.until(lambda: self.counter(Counter.FILLS_RUNNING) == 0)

        return self.run_async(test())


RELEASES = "/pypi/six/json"


class HostTests(PageCase):
    """Clients can make up hosts; that costs no form of a page for each."""

    site: ClassVar = {"hosts": ("edge.test", "*")}

    def releases(self) -> None:
        url = {"filename": "six-1.0.tar.gz", "url": "https://files.test/six-1.0.tar.gz", "digests": {"sha256": SHA}}
        odd = 'no link: "url":"\x01", \\"url\\":\\"\x01'
        document = orjson.dumps({"info": {"description": odd}, "urls": [url], "releases": {"1": [url]}})
        self.origin.scripts[RELEASES] = sends(document, kind="application/json")

    async def under(self, host: str, *fields: str) -> Answer:
        client = await self.client()
        return await client.ask(RELEASES, f"Host: {host}", *fields)

    def test_one_form_does_for_all_that_are_not_configured(self):
        async def test():
            self.releases()
            tags = set()
            for number in range(6):
                answer = await self.under(f"x{number}.test", "Accept-Encoding: gzip")
                document = orjson.loads(answer.content)
                start = f"http://x{number}.test/packages/files/six/"
                for one in (*document["urls"], *document["releases"]["1"]):
                    self.assertEqual(f"{start}{SHA}/six-1.0.tar.gz", one["url"])
                self.assertIn('"url":"\x01"', document["info"]["description"])
                tag = answer.fields["etag"]
                tags.add(tag)
                self.assertEqual(304, (await self.under(f"x{number}.test", f"If-None-Match: {tag}")).status)
            self.assertEqual(6, len(tags))
            self.assertIn(b"http://edge.test:81/packages/", (await self.under("edge.test:81")).content)
            self.assertEqual((1, 1), (self.counter(Counter.DERIVED), self.origin.count(RELEASES)))
            named = await self.under("edge.test", "Accept-Encoding: gzip")
            self.assertIn(b'"http://edge.test/packages/', gzip.decompress(named.content))
            self.assertEqual(2, self.counter(Counter.DERIVED))

        return self.run_async(test())


class BusyTests(PageCase):
    def test_no_more_is_queued_than_can_be_done_in_time(self):
        async def test():
            self.page("six-1.0.tar.gz")
            await self.json()
            derivations = self._workers[0].pages._fills.derivations
            in_thread, turn = derivations.in_thread, Deferred()

            async def later(*args: Any) -> Any:
                await turn
                return await in_thread(*args)

            derivations.in_thread = lambda *args: Deferred.fromCoroutine(later(*args))
            derivations.most = 1
            first = asyncio.ensure_future(self.ask(PAGE))
            await self.until(lambda: derivations._queued > 0)
            answer = await self.json("Accept-Encoding: gzip")
            self.assertEqual((503, "5"), (answer.status, answer.fields["retry-after"]))
            self.page("seven-1.0.tar.gz", target="/simple/seven/", fields=("Cache-Control: no-store",))
            self.assertEqual(503, (await self.json(target="/simple/seven/")).status)
            turn.callback(None)
            self.assertEqual(200, (await first).status)
            self.assertEqual(200, (await self.json("Accept-Encoding: gzip")).status)

        return self.run_async(test())


class GoneTests(PageCase):
    """A project that is gone takes its files along, however that comes out."""

    async def moved(self) -> int:
        """:return: epochs that it cost to be told that there is no page."""
        self.origin.scripts[PAGE] = sends(b"no", status="404 Not Found")
        before = self._page.epoch
        self.assertEqual(404, (await self.json()).status)
        return self._page.epoch - before

    def test_also_when_its_page_alone_was_deleted(self):
        async def test():
            self.page("six-1.0.tar.gz")
            await self.json()
            await self.purge(Selector("url", Sites(self.config).all[0].id, PAGE.encode()), mode=3)
            self.assertGreater(await self.moved(), 0)

        return self.run_async(test())

    def test_who_comes_while_that_is_made_known_gets_no_old_page(self):
        async def test():
            self.page("six-1.0.tar.gz")
            await self.json()
            fills = self._workers[0].pages._fills
            invalidate, published = fills.node_process.invalidate_here, asyncio.Event()
            answers = []

            def fails(exchange: Exchange) -> Any:
                exchange.cut()
                return asyncio.sleep(0)

            async def slowly(*args: Any) -> None:
                answers.append(asyncio.ensure_future(self.json("Cache-Control: no-cache")))
                await Deferred.fromFuture(
                    asyncio.ensure_future(self.until(lambda: self.counter(Counter.COLLAPSED) == 1))
                )
                self.origin.scripts[PAGE] = fails
                await invalidate(*args)
                published.set()

            fills.node_process = SimpleNamespace(invalidate_here=slowly)
            self.origin.scripts[PAGE] = sends(b"no", status="404 Not Found")
            first = await self.json("Cache-Control: no-cache")
            await published.wait()
            (second,) = await asyncio.gather(*answers)
            self.assertEqual((503, 503), (first.status, second.status))

        return self.run_async(test())

    def test_nor_does_a_sibling_give_them_that_has_not_heard_of_it(self):
        async def test():
            fills = self._workers[0].pages._fills
            fills.attempts = Asking()
            path = b"/files/six/" + SHA.encode() + b"/six-1.0.tar.gz"
            asked = ask(Request(b"GET", path, b"edge.test", []), Sites(self.config))
            miss = Forward(ForwardReason.URI_MISS)
            self.assertEqual("look-up", fills.siblings(asked, miss))
            await self.purged(2)
            self.assertEqual("look-up", fills.siblings(asked, miss), "whose page is good, they may")
            await self.purged(3)
            self.assertIsNone(fills.siblings(asked, miss))

        return self.run_async(test())


class Asking:
    def look_up(self, asked: Any, forward: Any) -> str:
        return "look-up"


class Lent:
    """Content that is let go only by whoever it was handed to."""

    length, failed = 9, None
    readers = 0

    def attach(self, reader: Any) -> None:
        self.readers += 1

    def detach(self, reader: Any) -> None:
        self.readers -= 1

    def read(self, position: int, limit: int) -> bytes:
        return b""

    def ended(self, position: int) -> bool:
        return False


class DocumentTests(PageCase):
    async def found(self, **more: Any) -> FoundPage:
        request = Request(b"GET", b"/files/six/-/a.tar.gz", b"edge.test", [])
        asked = ask(request, Sites(self.config))
        outcome = self._workers[0].pages.document(asked, b"six", 0, time.monotonic() + 9, **more)
        return await outcome.asFuture(self._loop)

    def test_what_is_said_of_a_page_is_said_of_that_one_though_another_has_come_meanwhile(self):
        async def test():
            self.page("six-1.0.tar.gz")
            pages = self._workers[0].pages
            first = await self.found()
            await self.purged()
            self.page("six-2.0.tar.gz")
            second = await self.found()
            self.assertEqual(first.stored.size, second.stored.size)

            def before(request, downstream):
                downstream.send(b"HTTP/1.1 200 OK\r\n", first.document)

            pages.answer = before
            odd = await self.found()
            self.assertEqual((first.document, first.stored.digest), (odd.document, odd.stored.digest))

        return self.run_async(test())

    def test_what_comes_once_nobody_waits_for_it_any_longer_is_let_go(self):
        async def test():
            pages, clients, lent = self._workers[0].pages, [], Lent()
            pages.answer = lambda request, downstream: clients.append(downstream)
            request = Request(b"GET", b"/files/six/-/a.tar.gz", b"edge.test", [])
            asked = ask(request, Sites(self.config))
            outcome = pages.document(asked, b"six", 0, time.monotonic() + 9)
            outcome.addErrback(lambda failure: failure.trap(CancelledError))
            outcome.cancel()
            self.assertTrue(clients[0].gone)
            clients[0].send_from(b"HTTP/1.1 200 OK\r\n", lent, 0, 9)
            self.assertEqual(0, lent.readers)
            outcome = pages.document(asked, b"six", 0, time.monotonic() + 9)
            outcome.addErrback(lambda failure: failure.trap(CancelledError))
            clients[1].send_from(b"HTTP/1.1 200 OK\r\n", lent, 0, 9)
            self.assertEqual(1, lent.readers)
            outcome.cancel()
            self.assertEqual(0, lent.readers)

        return self.run_async(test())

    def test_a_page_that_must_be_newer_than_the_request_comes_from_the_origin(self):
        """A sibling's may be as old, and would be taken for one that was validated just now."""

        async def test():
            self.page("six-1.0.tar.gz")
            pages, needed = self._workers[0].pages, []
            answer = pages.answer

            def seen(request, downstream):
                needed.append(request.asked.needed)
                answer(request, downstream)

            pages.answer = seen
            await self.found()
            await self.found(validated_since=time.time())
            self.assertEqual([False, True], [one.at_origin for one in needed])

        return self.run_async(test())


class CatalogueTests(PageCase):
    def test_a_page_is_parsed_once_for_all_who_ask_meanwhile(self):
        async def test():
            self.page(*(f"six-{n}.tar.gz" for n in range(AT_ONCE // 50)))
            found = await DocumentTests.found(self)
            self.assertGreater(len(found.document), AT_ONCE)
            parsing: list[Any] = []

            def in_thread(parse, *arguments):
                parsing.append((partial(parse, *arguments), Deferred()))
                return parsing[-1][1]

            catalogues = Catalogues(in_thread)
            asking = [Deferred.fromCoroutine(catalogues.of(found)) for _ in range(3)]
            self.assertEqual(1, len(parsing))
            parse, parsed = parsing[0]
            parsed.callback(parse())
            for one in asking:
                self.assertIsInstance(await one.asFuture(self._loop), Catalogue)
            self.assertEqual(1, len(parsing))

        return self.run_async(test())
