"""Pages of an index through a worker: one is stored, all that clients get is derived from it (DESIGN 10, FIELD 3)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import random
import time
from typing import Any

import orjson
import zstandard
from attrs import evolve

from edgecache.fills.pages import FoundPage, NoPage, Unobtainable
from edgecache.rules.asking import ask
from edgecache.rules.indexpaths import project_tag
from edgecache.rules.selectors import Selector, all_selector, rows_of
from edgecache.rules.sites import Sites
from edgecache.words.config import Profile
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.purging import SerialDemand
from edgecache.words.reasons import PurgeMode
from tests.fills.rig import PATIENT, Answer, Exchange, RigCase

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PIP = f"Accept: {JSON}, {HTML}; q=0.1, text/html; q=0.01"
HTML_ONLY = f"Accept: {HTML}"
PAGE = "/simple/six/"
UNZSTD = zstandard.ZstdDecompressor()
SHA = "ab" * 32


def file_of(name: str, **more: Any) -> dict[str, Any]:
    return {"filename": name, "url": f"../../packages/{name}", "hashes": {"sha256": SHA}, **more}


def page_of(*names: str, serial: int | None = None, status: str = "") -> bytes:
    meta: dict[str, Any] = {"api-version": "1.1"}
    if serial is not None:
        meta["_last-serial"] = serial
    page: dict[str, Any] = {"meta": meta, "name": "six", "files": [file_of(name) for name in names]}
    if status:
        page["project-status"] = {"status": status}
    return orjson.dumps(page)


def sends(content: bytes, *fields: str, kind: str = JSON, status: str = "200 OK"):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(content, f"Content-Type: {kind}", *fields, status=status)

    return script


def in_two(first: int, rest: asyncio.Event):
    """A page whose first octets come at once, and the others when they may."""

    async def script(exchange: Exchange) -> None:
        content = page_of("six-1.0.tar.gz")
        await exchange.answer(content[:first], f"Content-Type: {JSON}", f"Content-Length: {len(content)}", length=False)
        await rest.wait()
        await exchange.send(content[first:])

    return script


def files_in(answer: Answer) -> list[str]:
    return [file["filename"] for file in orjson.loads(answer.content)["files"]]


class PageCase(RigCase):
    profile = Profile.INDEX

    def page(self, *names: str, target: str = PAGE, origin: int = 0, **more: Any) -> None:
        fields = more.pop("fields", ())
        [self.origin, *self.others][origin].scripts[target] = sends(page_of(*names, **more), *fields)

    async def json(self, *fields: str, target: str = PAGE) -> Answer:
        return await self.ask(target, PIP, *fields)

    async def purged(self, mode: int = 2) -> None:
        site = Sites(self.config).all[0].id
        await self.purge(Selector("tag", site, project_tag(b"six")), mode=mode)


class FormTests(PageCase):
    def test_one_page_is_fetched_and_every_client_gets_its_form_of_it(self):
        async def test():
            self.page("six-1.0.tar.gz", serial=7, fields=('ETag: "theirs"', "Cache-Control: max-age=600", "X: y"))
            first = await self.json()
            self.assertEqual((200, JSON), (first.status, first.fields["content-type"]))
            self.assertEqual(f"../../files/six/{SHA}/six-1.0.tar.gz", orjson.loads(first.content)["files"][0]["url"])
            tags = {first.fields["etag"]}
            for accept, kind in (("text/html", "text/html; charset=utf-8"), (HTML, HTML), ("*/*", None)):
                answer = await self.ask(PAGE, f"Accept: {accept}")
                self.assertIn(b'<a href="../../files/six/', answer.content)
                self.assertEqual(kind or "text/html; charset=utf-8", answer.fields["content-type"])
                tags.add(answer.fields["etag"])
            packed = await self.json("Accept-Encoding: gzip")
            self.assertEqual(first.content, gzip.decompress(packed.content))
            small = await self.json("Accept-Encoding: zstd, gzip")
            self.assertEqual(first.content, zstandard.ZstdDecompressor().decompress(small.content, 1 << 20))
            for answer, coding in ((packed, "gzip"), (small, "zstd")):
                self.assertEqual(coding, answer.fields["content-encoding"])
                tags.add(answer.fields["etag"])
            self.assertEqual(5, len(tags), "a strong tag for each form")
            for answer in (first, packed, small):
                self.assertEqual("max-age=0", answer.fields["cache-control"])
                self.assertEqual("accept, accept-encoding", answer.fields["vary"])
                self.assertEqual(("7", "y"), (answer.fields["x-pypi-last-serial"], answer.fields["x"]))
                self.assertEqual(str(len(answer.content)), answer.fields["content-length"])
            self.assertEqual(1, self.origin.count(PAGE))
            self.assertEqual("identity", self.origin.seen[0].fields["accept-encoding"])

        return self.run_async(test())

    def test_an_origin_that_has_only_html_will_do(self):
        async def test():
            html = f'<!DOCTYPE html><a href="../../p/six-1.0.tar.gz#sha256={SHA}" data-requires-python="&gt;=3">six</a>'
            self.origin.scripts[PAGE] = sends(html.encode(), kind="text/html")
            answer = await self.json()
            self.assertEqual(["six-1.0.tar.gz"], files_in(answer))
            self.assertNotIn("x-pypi-last-serial", answer.fields)

        return self.run_async(test())

    def test_releases_have_absolute_links_to_where_the_client_is(self):
        async def test():
            urls = [
                {"filename": "six-1.0.tar.gz", "url": "https://files.test/six-1.0.tar.gz", "digests": {"sha256": SHA}}
            ]
            document = orjson.dumps({"info": {}, "urls": urls, "last_serial": 9})
            self.origin.scripts["/pypi/six/json"] = sends(document, kind="application/json")
            answer = await self.ask("/pypi/six/json")
            self.assertEqual("application/json", answer.fields["content-type"])
            expected = f"http://edge.test/packages/files/six/{SHA}/six-1.0.tar.gz"
            self.assertEqual(expected, orjson.loads(answer.content)["urls"][0]["url"])
            self.assertEqual(("9", "accept-encoding"), (answer.fields["x-pypi-last-serial"], answer.fields["vary"]))

        return self.run_async(test())

    def test_conditions_ranges_and_head_are_about_the_form_that_is_sent(self):
        async def test():
            self.page("six-1.0.tar.gz", serial=7, fields=('ETag: "theirs"',))
            head = await self.ask(PAGE, PIP, method="HEAD")
            answer = await self.json()
            self.assertEqual(str(len(answer.content)), head.fields["content-length"])
            tag = answer.fields["etag"]
            same = await self.json(f"If-None-Match: {tag}")
            self.assertEqual(304, same.status)
            for name in ("etag", "cache-control", "vary", "x-pypi-last-serial", "date", "via"):
                self.assertEqual(answer.fields[name], same.fields[name], name)
            self.assertEqual(200, (await self.json(f"If-None-Match: {tag}", "Accept-Encoding: gzip")).status)
            self.assertEqual(200, (await self.json('If-None-Match: "theirs"')).status)
            part = await self.json("Range: bytes=2-5")
            self.assertEqual((206, answer.content[2:6]), (part.status, part.content))
            self.assertEqual(1, self.origin.count(PAGE))
            self.assertEqual("GET", self.origin.seen[0].method)

        return self.run_async(test())

    def test_large_pages_too(self):
        async def test():
            names = [f"six-1.{number}.tar.gz" for number in range(5000)]
            self.page(*names)
            for _ in range(3):
                answer = await self.json()
                self.assertEqual((names, True), (files_in(answer), answer.complete))
            self.assertEqual(
                b"x" * 0 + answer.content[100_000:700_000], (await self.json("Range: bytes=100000-699999")).content
            )
            self.assertEqual(names, files_in(await self.hit_json()))
            self.assertEqual(1, self.origin.count(PAGE))

        return self.run_async(test())

    async def hit_json(self) -> Answer:
        return await self.hit(PAGE, PIP)

    def test_many_who_come_at_once_cost_one_fetch(self):
        async def test():
            whole = asyncio.Event()

            self.origin.scripts[PAGE] = in_two(40, whole)
            asking = [asyncio.ensure_future(self.ask(PAGE, line)) for line in (PIP, PIP, "Accept: text/html", "X: y")]
            await self.until(lambda: self.counter(Counter.COLLAPSED) == 3)
            whole.set()
            answers = await asyncio.gather(*asking)
            self.assertEqual([200] * 4, [answer.status for answer in answers])
            self.assertEqual(answers[0].content, answers[1].content)
            self.assertEqual(1, self.origin.count(PAGE))
            self.assertEqual(2, self.counter(Counter.DERIVED), "once for each form")

        return self.run_async(test())

    def test_a_validated_page_is_derived_no_second_time(self):
        async def test():
            async def validates(exchange: Exchange) -> None:
                if exchange.fields.get("if-none-match") == '"a"':
                    await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nVary: Accept\r\n\r\n')
                else:
                    await exchange.answer(page_of("six-1.0.tar.gz", serial=3), f"Content-Type: {JSON}", 'ETag: "a"')

            self.origin.scripts[PAGE] = validates
            first = await self.json()
            await self.purged()
            again = await self.json()
            self.assertIn("fwd-status=304", again.cache_status)
            self.assertEqual((first.content, first.fields["etag"]), (again.content, again.fields["etag"]))
            self.assertEqual("3", again.fields["x-pypi-last-serial"])
            self.assertEqual(1, self.counter(Counter.DERIVED))

        return self.run_async(test())

    def test_asked_with_another_question_nobody_has_more_time(self):
        """Clients wait ``first_byte_seconds`` for a page, however often it is asked for (DESIGN 8)."""

        async def test():
            untils: list[float] = []

            async def about_another(exchange: Exchange) -> None:
                untils.extend(fill.until for fill in self._workers[0].pages._fills._running.values())
                if "if-none-match" in exchange.fields:
                    await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "another"\r\n\r\n')
                else:
                    await exchange.answer(page_of("six-2.0.tar.gz"), f"Content-Type: {JSON}")

            self.page("six-1.0.tar.gz", fields=('ETag: "a"', "Last-Modified: Thu, 01 Oct 2026 08:00:00 GMT"))
            await self.json()
            self.origin.scripts[PAGE] = about_another
            self.assertEqual(["six-2.0.tar.gz"], files_in(await self.json("Cache-Control: no-cache")))
            self.assertEqual((2, 1), (len(untils), len(set(untils))))

        return self.run_async(test())

    def test_what_must_not_be_stored_is_derived_all_the_same(self):
        async def test():
            self.page("six-1.0.tar.gz", fields=("Cache-Control: private",))
            for count in (1, 2):
                answer = await self.json()
                self.assertEqual((["six-1.0.tar.gz"], "no-store"), (files_in(answer), answer.fields["cache-control"]))
                self.assertIn(b"../../files/six/", answer.content)
                self.assertEqual(count, self.origin.count(PAGE))

        return self.run_async(test())


class OwnerTests(PageCase):
    workers = 2

    def test_every_worker_gives_the_client_its_own_form(self):
        async def test():
            self.page("six-1.0.tar.gz")
            for worker in (0, 1):
                answer = await self.ask(PAGE, PIP, worker=worker)
                self.assertEqual(JSON, answer.fields["content-type"])
                text = await self.ask(PAGE, worker=worker)
                self.assertIn("text/html", text.fields["content-type"])
                packed = await self.ask(PAGE, PIP, "Accept-Encoding: gzip", worker=worker)
                self.assertEqual(answer.content, gzip.decompress(packed.content))
            self.assertEqual(1, self.origin.count(PAGE))
            self.assertEqual(3, sum(self.counter(Counter.DERIVED, worker) for worker in (0, 1)))

        return self.run_async(test())


class UnusableTests(PageCase):
    origins = 2

    def test_what_is_no_page_is_asked_for_elsewhere(self):
        async def test():
            for bad in (
                sends(b"<html>Please log in</html><a href='/x'>x</a>", kind="text/html"),
                sends(b'{"files": 1}'),
            ):
                self.origin.scripts[PAGE], self.others[0].scripts[PAGE] = bad, bad
                answer = await self.json()
                self.assertEqual((503, "5"), (answer.status, answer.fields["retry-after"]))
                self.assertIn("error=http_protocol_error", answer.fields["proxy-status"])
                self.page("six-1.0.tar.gz", origin=1)
                for _ in range(2):
                    self.assertEqual(["six-1.0.tar.gz"], files_in(await self.json()))
                    await self.purged(3)
            self.assertEqual([], self.told, "it says nothing about the address")

        return self.run_async(test())

    def test_with_nothing_better_the_stored_page_is_shown(self):
        async def test():
            self.page("six-1.0.tar.gz")
            self.page("six-1.0.tar.gz", origin=1)
            await self.json()
            bad = sends(b"oops")
            self.origin.scripts[PAGE], self.others[0].scripts[PAGE] = bad, bad
            await self.purged()
            answer = await self.json()
            self.assertEqual(["six-1.0.tar.gz"], files_in(answer))
            self.assertIn("http_protocol_error", answer.fields["proxy-status"])
            self.assertEqual(2, self.counter(Counter.BAD_PAGES))

        return self.run_async(test())

    def test_one_that_breaks_off_reaches_nobody(self):
        async def test():
            async def cut(exchange: Exchange) -> None:
                content = page_of("six-1.0.tar.gz")
                await exchange.answer(
                    content[:50], f"Content-Type: {JSON}", f"Content-Length: {len(content)}", length=False
                )
                exchange.cut()

            self.origin.scripts[PAGE] = cut
            self.page("six-2.0.tar.gz", origin=1)
            for _ in range(4):
                self.assertEqual(["six-2.0.tar.gz"], files_in(await self.json()))
                await self.purged(3)

        return self.run_async(test())

    def test_without_a_length_only_what_is_surely_whole(self):
        async def test():
            def until_close(content: bytes, kind: str):
                async def script(exchange: Exchange) -> None:
                    await exchange.answer(content, f"Content-Type: {kind}", length=False)
                    exchange.cut()

                return script

            link = b'<html><a href="six-1.0.tar.gz">six-1.0.tar.gz</a>'
            for content, kind, good in (
                (page_of("six-1.0.tar.gz"), JSON, True),
                (page_of("six-1.0.tar.gz")[:-1], JSON, False),
                (link + b"</html>\n", "text/html", True),
                (link, "text/html", False),
            ):
                for server in (self.origin, *self.others):
                    server.scripts[PAGE] = until_close(content, kind)
                self.assertEqual(200 if good else 503, (await self.json()).status, content)
                await self.purged(3)

        return self.run_async(test())


class BoundTests(PageCase):
    page_octets = 64 << 10

    def test_too_large_or_packed_so_is_refused_and_gzip_that_was_not_asked_for_is_unpacked(self):
        async def test():
            large = page_of(*(f"six-1.{number}.tar.gz" for number in range(2000)))
            small = page_of("six-1.0.tar.gz")
            for content, fields, status in (
                (large, (), 503),
                (gzip.compress(large), ("Content-Encoding: gzip",), 503),
                (gzip.compress(small), ("Content-Encoding: gzip",), 200),
                (gzip.compress(small)[:-9], ("Content-Encoding: gzip",), 503),
                (small, ("Content-Encoding: br",), 503),
            ):
                self.origin.scripts[PAGE] = sends(content, *fields)
                self.assertEqual(status, (await self.json()).status)
                await self.purged(3)

        return self.run_async(test())


class SerialTests(PageCase):
    origins = 2
    page_seconds = 0.0

    def both(self, serial: int | None, name: str = "six-1.0.tar.gz") -> None:
        for origin in (0, 1):
            self.page(name, serial=serial, origin=origin)

    def page(self, *names: str, **more: Any) -> None:
        more["fields"] = (*more.get("fields", ()), f'ETag: "{names}"')
        super().page(*names, **more)

    async def serial(self, *fields: str) -> tuple[int, str | None]:
        answer = await self.json(*fields)
        return answer.status, answer.fields.get("x-pypi-last-serial")

    def test_a_lower_one_is_asked_for_elsewhere(self):
        async def test():
            self.both(100)
            self.assertEqual((200, "100"), await self.serial())
            self.page("old.tar.gz", serial=99, origin=0)
            self.page("six-2.0.tar.gz", serial=101, origin=1)
            for _ in range(4):
                self.assertEqual((200, "101"), await self.serial())
            self.assertGreater(self.counter(Counter.OLD_PAGES), 0)
            self.assertEqual([], self.told)

        return self.run_async(test())

    def test_with_nobody_better_the_stored_page_is_shown_as_stale(self):
        async def test():
            self.both(100)
            await self.serial()
            self.both(99, "old.tar.gz")
            answer = await self.json()
            self.assertEqual(["six-1.0.tar.gz"], files_in(answer))
            self.assertIn("http_protocol_error", answer.fields["proxy-status"])

        return self.run_async(test())

    def test_it_outlives_the_page(self):
        async def test():
            self.both(100)
            await self.serial()
            found = self._environments.small
            with found.env.begin(write=True) as txn:
                txn.drop(found.databases[b"records"], delete=False)
            self.both(99)
            self.assertEqual((503, None), await self.serial())

        return self.run_async(test())

    def test_the_head_counts_as_well_and_the_lower_of_both(self):
        async def test():
            self.page("a.tar.gz", fields=("X-PyPI-Last-Serial: 50",))
            self.page("a.tar.gz", fields=("X-PyPI-Last-Serial: 50",), origin=1)
            self.assertEqual((200, "50"), await self.serial())
            for origin in (0, 1):
                self.page("a.tar.gz", serial=49, fields=("X-PyPI-Last-Serial: 51",), origin=origin)
            self.assertIn("http_protocol_error", (await self.json()).fields["proxy-status"])

        return self.run_async(test())

    def test_whoever_demands_a_serial_gets_it_or_is_told_which_one_is_here(self):
        async def test():
            self.both(100)
            await self.serial()
            self.assertEqual((200, "100"), await self.serial("Edgecache-Min-Serial: 100"))
            before = len(self.origin.seen) + len(self.others[0].seen)
            answer = await self.json("Edgecache-Min-Serial: 101")
            self.assertEqual(
                (503, "100", "5"), (answer.status, answer.fields["x-pypi-last-serial"], answer.fields["retry-after"])
            )
            self.assertEqual(before + 1, len(self.origin.seen) + len(self.others[0].seen))
            self.both(101)
            self.assertEqual((200, "101"), await self.serial("Edgecache-Min-Serial: 101"))

        return self.run_async(test())

    async def demand(self, serial: int = 0, *, forget: bool = False) -> None:
        tag = Selector("tag", Sites(self.config).all[0].id, project_tag(b"six"))
        rows = rows_of((tag.canonical,), PurgeMode.DELETE if forget else PurgeMode.REVALIDATE)
        demand = SerialDemand(selector=tag.hash, site=all_selector(tag.site), serial=serial, forget=forget)
        await self._control.local(rows, [demand]).asFuture(self._loop)

    def test_what_a_purge_demands_counts_also_for_what_is_stored(self):
        async def test():
            self.both(100)
            await self.serial()
            await self.demand(101)
            self.assertEqual(503, (await self.serial())[0], "neither from an upstream nor as stale")
            self.both(101)
            self.assertEqual((200, "101"), await self.serial())

        return self.run_async(test())

    def test_after_a_delete_any_serial_is_good(self):
        """Origins are restored from backups."""

        async def test():
            self.both(100)
            await self.serial()
            await self.demand(forget=True)
            self.both(7)
            self.assertEqual((200, "7"), await self.serial())
            self.both(6)
            self.assertEqual((200, "7"), await self.serial())

        return self.run_async(test())


class AloneTests(PageCase):
    """No form of a page goes stale alone, whichever worker sends it."""

    workers = 2

    def test_after_a_purge_no_form_is_older_than_it(self):
        async def test():
            draw = random.Random(5)
            forms = ((PIP,), (PIP, "Accept-Encoding: gzip"), (HTML_ONLY,), (HTML_ONLY, "Accept-Encoding: zstd"))
            for version in range(1, 13):
                self.page(f"six-{version}.0.tar.gz", serial=version)
                await self.purged(draw.choice((2, 3)))
                asking = [self.ask(PAGE, *draw.choice(forms), worker=draw.randrange(2)) for _ in range(6)]
                for answer in await asyncio.gather(*asking):
                    self.assertEqual(str(version), answer.fields["x-pypi-last-serial"])
                    coding = answer.fields.get("content-encoding", "")
                    unpack = {"gzip": gzip.decompress, "zstd": lambda some: UNZSTD.decompress(some, 1 << 20)}
                    content = unpack.get(coding, bytes)(answer.content)
                    self.assertIn(f"six-{version}.0.tar.gz".encode(), content)

        return self.run_async(test())


class DocumentTests(PageCase):
    """What a file's fill asks of its project's page."""

    workers = 2

    def test_it_is_as_new_as_it_has_to_be_whoever_owns_it(self):
        async def test():
            self.page("six-1.0.tar.gz", serial=1)
            for worker in self._workers:
                pages = worker.pages
                request = Request(b"GET", b"/files/six/-/a.tar.gz", b"edge.test", [])
                asked = ask(request, Sites(self.config))
                until = time.monotonic() + 9

                async def found(since=0, validated_since=0.0, pages=pages, asked=asked, until=until):
                    outcome = pages.document(asked, b"six", since, until, validated_since)
                    return await outcome.asFuture(self._loop)

                first = await found()
                self.assertIsInstance(first, FoundPage)
                self.assertTrue(first.current)
                self.assertEqual("six-1.0.tar.gz", orjson.loads(first.document)["files"][0]["filename"])
                self.assertEqual(hashlib.sha256(first.document).digest(), first.stored.digest)
                count = self.origin.count(PAGE)
                await found()
                self.assertEqual(count, self.origin.count(PAGE))
                epoch = await self.purge(Selector("url", Sites(self.config).all[0].id, b"/elsewhere"))
                self.assertGreaterEqual((await found(since=epoch)).stored.floor, epoch)
                self.assertEqual(count + 1, self.origin.count(PAGE))
                self.assertTrue((await found(validated_since=time.time())).current)
                self.assertEqual(count + 2, self.origin.count(PAGE))
                await self.origin.stop()
                late = await found(validated_since=time.time())
                self.assertEqual((True, False), (isinstance(late, FoundPage), late.current))
                await self.purged(3)
                self.assertEqual(Unobtainable("connection_refused"), await found())
                await self.origin.start()
                self.origin.scripts[PAGE] = sends(b"no", status="404 Not Found")
                self.assertEqual(NoPage(404), await found())
                self.page("six-1.0.tar.gz", serial=1)
                await self.purged(3)

        return self.run_async(test())


class GoneTests(PageCase):
    file = "/files/six/-/six-1.0.tar.gz"

    async def file_epoch_moves(self) -> None:
        before = self._page.epoch
        await self.json()
        self.assertGreater(self._page.epoch, before)

    def test_when_a_page_turns_404_its_files_are_invalidated_once(self):
        async def test():
            self.page("six-1.0.tar.gz", serial=1)
            await self.json()
            epoch = self._page.epoch
            self.origin.scripts[PAGE] = sends(b"no", status="404 Not Found")
            await self.purged()
            answer = await self.json()
            self.assertEqual((404, b"no"), (answer.status, answer.content))
            # The purge, and then what the page's end has made of it.
            moved = self._page.epoch - epoch
            self.assertGreater(moved, 2)
            self.assertEqual(404, (await self.hit(PAGE, PIP)).status)
            self.assertEqual(404, (await self.ask(PAGE, "Cache-Control: no-cache")).status)
            self.assertEqual(moved, self._page.epoch - epoch)

        return self.run_async(test())

    def test_when_it_is_quarantined_likewise_and_it_is_shown(self):
        async def test():
            self.page("six-1.0.tar.gz")
            await self.json()
            epoch = self._page.epoch
            self.page("six-1.0.tar.gz", status="quarantined")
            await self.purged(3)
            purge = self._page.epoch
            answer = await self.json()
            self.assertEqual((200, []), (answer.status, files_in(answer)))
            self.assertGreater(self._page.epoch, purge)
            moved = self._page.epoch
            self.assertTrue((await self.hit(PAGE, PIP)).hit)
            self.assertEqual(moved, self._page.epoch)
            self.assertGreater(moved, epoch)

        return self.run_async(test())

    def test_names_that_never_were_cost_no_epoch(self):
        async def test():
            self.origin.scripts["/simple/nothing/"] = sends(b"no", status="404 Not Found")
            epoch = self._page.epoch
            self.assertEqual(404, (await self.json(target="/simple/nothing/")).status)
            self.assertTrue((await self.hit("/simple/nothing/")).hit)
            self.assertEqual(epoch, self._page.epoch)

        return self.run_async(test())


class ListTests(PageCase):
    page_seconds = 60.0

    def listed(self, serial: int) -> None:
        projects = [{"name": "Six", "_last-serial": serial}, {"name": "other", "_last-serial": 1}]
        self.origin.scripts["/simple/"] = sends(
            orjson.dumps({"meta": {"api-version": "1.1", "_last-serial": serial}, "projects": projects})
        )

    def test_no_page_is_older_than_the_list_says(self):
        """A mirror reads the list, then every page that it says has changed (FIELD 3)."""

        async def test():
            self.page("six-1.0.tar.gz", serial=10)
            self.listed(10)
            await self.json()
            await self.json(target="/simple/")
            self.assertTrue((await self.hit(PAGE, PIP)).hit)
            self.listed(11)
            self.page("six-2.0.tar.gz", serial=11)
            answer = await self.json("Cache-Control: no-cache", target="/simple/")
            self.assertEqual("11", answer.fields["x-pypi-last-serial"])
            self.assertEqual(["six-2.0.tar.gz"], files_in(await self.json()))

        return self.run_async(test())

    def test_not_even_while_nobody_has_a_newer_one(self):
        async def test():
            self.page("six-1.0.tar.gz", serial=10)
            await self.json()
            self.listed(11)
            await self.json(target="/simple/")
            self.assertEqual(503, (await self.json()).status)

        return self.run_async(test())


class LateTests(PageCase):
    upstream = evolve(PATIENT, first_byte_seconds=0.4)

    def test_clients_are_not_kept_waiting_for_a_page_that_drips_and_it_is_stored_all_the_same(self):
        async def test():
            going = asyncio.Event()

            self.origin.scripts[PAGE] = in_two(9, going)
            self.assertEqual(503, (await self.json()).status)
            going.set()
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            self.assertEqual(["six-1.0.tar.gz"], files_in(await self.json()))
            self.assertEqual(1, self.origin.count(PAGE))

        return self.run_async(test())


class FileTests(PageCase):
    """What a page links to can be had, wherever it is at the origin."""

    workers = 2

    def test_by_the_link_of_the_page_and_verified(self):
        async def test():
            content = b"wheel" * 1000
            sha = hashlib.sha256(content).hexdigest()
            entry = {**file_of("six-1.0.tar.gz"), "hashes": {"sha256": sha}}
            page = orjson.dumps({"meta": {"api-version": "1.0"}, "name": "six", "files": [entry]})
            self.origin.scripts[PAGE] = sends(page)
            self.origin.scripts["/packages/six-1.0.tar.gz"] = sends(content, kind="application/octet-stream")
            for worker in (0, 1):
                answer = await self.ask(f"/files/six/{sha}/six-1.0.tar.gz", worker=worker)
                self.assertEqual((200, content), (answer.status, answer.content))
                self.assertEqual(404, (await self.ask("/files/six/-/nothing.tar.gz", worker=worker)).status)
            self.assertEqual(1, self.origin.count("/packages/six-1.0.tar.gz"))

        return self.run_async(test())
