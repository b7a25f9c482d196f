"""A project's documents tell one serial: whoever was given a higher one by one of them is given no lower by another."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from twisted.internet.defer import fail

from edgecache.rules.selectors import Selector
from edgecache.rules.sites import Sites
from edgecache.store.control import Control
from edgecache.words.counters import Counter
from edgecache.words.errors import ControlFailed
from tests.fills.rig import Answer, Exchange, Script
from tests.fills.test_paging import JSON, PAGE, PageCase, page_of, sends

RELEASES = "/pypi/six/json"
LIST = "/simple/"


class OvertakingTests(PageCase):
    """DESIGN 10: ``X-PyPI-Last-Serial`` never goes back, per project."""

    page_seconds = 600.0

    def moves_on_to(self, serial: int) -> None:
        """The origin's documents."""
        self.origin.scripts[PAGE] = sends(page_of("six-1.0.tar.gz", serial=serial), f'ETag: "p{serial}"')
        releases: dict[str, Any] = {"info": {"version": "1.0"}, "last_serial": serial, "urls": [], "releases": {}}
        fields = (f'ETag: "r{serial}"', f"X-PyPI-Last-Serial: {serial}")
        self.origin.scripts[RELEASES] = sends(orjson.dumps(releases), *fields, kind="application/json")
        projects = [{"name": "six", "_last-serial": serial}]
        listed = {"meta": {"api-version": "1.1", "_last-serial": serial}, "projects": projects}
        self.origin.scripts[LIST] = sends(orjson.dumps(listed), f'ETag: "l{serial}"')

    async def purge_url(self, target: str) -> None:
        await self.purge(Selector("url", Sites(self.config).all[0].id, target.encode()))

    def serial(self, answer: Answer) -> int:
        self.assertEqual(200, answer.status)
        return int(answer.fields["x-pypi-last-serial"])

    async def both(self) -> tuple[int, int]:
        return self.serial(await self.ask(PAGE, f"Accept: {JSON}")), self.serial(await self.ask(RELEASES))

    def test_the_page_is_no_older_than_the_releases_that_were_shown(self):
        async def test():
            self.moves_on_to(6)
            self.assertEqual((6, 6), await self.both())
            self.moves_on_to(8)
            await self.purge_url(RELEASES)
            self.assertEqual(8, self.serial(await self.ask(RELEASES)))
            self.assertEqual((8, 8), await self.both())

        return self.run_async(test())

    def test_the_releases_are_no_older_than_the_page_that_was_shown(self):
        async def test():
            self.moves_on_to(6)
            version = RELEASES.replace("/json", "/1.0/json")
            self.origin.scripts[version] = self.origin.scripts[RELEASES]
            self.assertEqual(6, self.serial(await self.ask(version)))
            self.assertEqual((6, 6), await self.both())
            self.moves_on_to(8)
            self.origin.scripts[version] = self.origin.scripts[RELEASES]
            await self.purge_url(PAGE)
            self.assertEqual((8, 8), await self.both())
            self.assertEqual(8, self.serial(await self.ask(version)))

        return self.run_async(test())

    def test_where_that_cannot_be_written_the_page_is_served_and_nothing_older_is_fresh(self):
        """A full disk takes no invalidation. The origin has moved on all the same, and clients can have it."""

        async def test():
            self.moves_on_to(6)
            self.assertEqual((6, 6), await self.both())
            self.moves_on_to(8)
            await self.purge_url(PAGE)
            self.patch(Control, "local", lambda _, rows: fail(ControlFailed("No space left on device")))
            self.assertEqual((8, 8), await self.both())
            self.flushLoggedErrors()

        return self.run_async(test())

    def test_the_page_is_no_older_than_the_list_though_the_releases_are_as_new(self):
        """Found in a history of a real fleet: the list's serial was known already, from the releases."""

        async def test():
            self.moves_on_to(6)
            self.assertEqual((6, 6), await self.both())
            self.moves_on_to(8)
            await self.purge_url(RELEASES)
            self.serial(await self.ask(RELEASES))
            (project,) = orjson.loads((await self.ask(LIST, f"Accept: {JSON}")).content)["projects"]
            self.assertEqual(8, project["_last-serial"])
            self.assertEqual((8, 8), await self.both())

        return self.run_async(test())

    async def overtaken(self, then: Script) -> Answer:
        """Of a page with serial 8, while releases tell 9. :param then: what the origin answers from then on."""
        self.moves_on_to(6)
        await self.both()
        rest = asyncio.Event()
        content = page_of("six-1.0.tar.gz", serial=8)

        async def slow(exchange: Exchange) -> None:
            fields = (f"Content-Type: {JSON}", f"Content-Length: {len(content)}")
            await exchange.answer(content[:9], *fields, length=False)
            await rest.wait()
            await exchange.send(content[9:])

        self.origin.scripts[PAGE] = slow
        await self.purge_url(PAGE)
        asking = asyncio.ensure_future(self.ask(PAGE, f"Accept: {JSON}"))
        await self.until(lambda: self.origin.count(PAGE) == 2)
        self.moves_on_to(9)
        self.origin.scripts[PAGE] = then
        await self.purge_url(RELEASES)
        self.assertEqual(9, self.serial(await self.ask(RELEASES)))
        rest.set()
        return await asking

    def test_a_page_that_is_overtaken_on_its_way_is_asked_for_again(self):
        """Found in a history of a real fleet: the only origin had a newer one, and the client was told 503."""

        async def test():
            self.assertEqual(9, self.serial(await self.overtaken(sends(page_of("six-1.0.tar.gz", serial=9)))))
            self.assertEqual((3, 0), (self.origin.count(PAGE), self.counter(Counter.UPSTREAM_FAILURES)))

        return self.run_async(test())

    def test_and_if_nothing_comes_then_what_is_older_is_not_served_as_stale(self):
        async def test():
            self.assertEqual(500, (await self.overtaken(sends(b"broken", status="500 no"))).status)

        return self.run_async(test())

    def test_an_origin_that_goes_on_telling_less_than_was_known_is_asked_no_more(self):
        async def test():
            self.moves_on_to(6)
            await self.both()
            self.moves_on_to(5)
            await self.purged()
            # What is stored is better than what came.
            self.assertEqual(6, self.serial(await self.ask(PAGE, f"Accept: {JSON}")))
            self.assertEqual(2, self.origin.count(PAGE))

        return self.run_async(test())

    def test_what_a_purge_of_the_project_covers_is_asked_for_once(self):
        async def test():
            self.moves_on_to(6)
            await self.both()
            self.moves_on_to(8)
            await self.purged()
            before = len(self.origin.seen)
            for _ in range(2):
                self.assertEqual((8, 8), await self.both())
            self.assertEqual(before + 2, len(self.origin.seen))

        return self.run_async(test())
