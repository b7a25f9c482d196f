"""Fetching as warm does it: what fails is told and holds nothing up."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
from packaging.specifiers import SpecifierSet
from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from edgecache.admin import fetching
from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.fetching import Fetcher
from edgecache.admin.objects import Objects
from edgecache.admin.progress import Progress
from edgecache.admin.requirements import Read, Wanted
from edgecache.admin.site import admin_site
from edgecache.admin.warming import Warming, hottest, index_site
from tests.admin.harness import AdminCase

PAGE = {"files": [{"filename": "a-1.tar.gz", "url": "../../files/a/-/a-1.tar.gz", "hashes": {}, "core-metadata": True}]}


class Public(Protocol):
    """A public listener with a few things on it."""

    def dataReceived(self, data: bytes) -> None:
        factory: Any = self.factory
        target = data.split(b" ")[1]
        factory.asked.append((target.decode(), data))
        content, head, cut = b"octets", b"200 OK\r\nCache-Status: eu-1; hit; ttl=9", 0
        if target == b"/simple/a/":
            content, head = gzip.compress(orjson.dumps(PAGE)), head + b"\r\nContent-Encoding: gzip"
        elif target == b"/simple/html/":
            content = b"<html>"
        elif target == b"/missing":
            head = b"404 Not Found"
        elif target == b"/cdn":
            head = b"200 OK\r\nCache-Status: cdn; hit\r\nCache-Status: eu-1; fwd=uri-miss; stored"
        elif target == b"/cut":
            cut = 3
        elif target == b"/silent":
            return
        self.transport.write(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(content), content[: len(content) - cut])
        )
        if cut:
            self.transport.loseConnection()


class FetchingTests(TestCase):
    def setUp(self) -> None:
        factory = self.factory = Factory.forProtocol(Public)
        factory.asked = []
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.fetcher = Fetcher.of(reactor, f"http://127.0.0.1:{port.getHost().port}/", at_a_time=2)
        self.addCleanup(lambda: self.fetcher._agent._pool.closeCachedConnections())

    def warming(self) -> Warming:
        return Warming(self.fetcher, Progress(None))

    async def test_what_comes_and_what_does_not(self) -> None:
        warming = self.warming()
        await warming.targets([(path, "") for path in ("/x", "/x", "/missing", "/cut", "/ü?a=b c")])
        warmed = warming.warmed
        self.assertEqual((4, 4, 2), (warmed.asked, warmed.done, warmed.hits))
        self.assertEqual({"/missing", "/cut"}, {one["what"] for one in warmed.failed})
        self.assertIn("status 404", [one["why"] for one in warmed.failed])
        self.assertIn("/%C3%BC?a=b%20c", [target for target, _ in self.factory.asked])

    async def test_what_a_cache_behind_the_node_had_was_not_there(self) -> None:
        warming = self.warming()
        await warming.targets([("/cdn", "")])
        self.assertEqual((1, 0), (warming.warmed.done, warming.warmed.hits))

    async def test_one_that_says_nothing_is_given_up(self) -> None:
        self.patch(fetching, "STALL_SECONDS", 0.05)
        fetched = await self.fetcher.get("/silent")
        self.assertEqual((0, True), (fetched.status, bool(fetched.problem)))

    async def test_a_requirement_is_its_page_as_pip_asks_for_it_then_metadata_and_file(self) -> None:
        warming = self.warming()
        await warming.requirements(Read([Wanted("a", SpecifierSet("==1"))], [("-e .", "no")]))
        warmed = warming.warmed
        self.assertEqual(([], 3, [{"what": "-e .", "why": "no"}]), (warmed.failed, warmed.done, warmed.skipped))
        asked = dict(self.factory.asked)
        self.assertEqual({"/simple/a/", "/files/a/-/a-1.tar.gz", "/files/a/-/a-1.tar.gz.metadata"}, set(asked))
        self.assertIn(b"application/vnd.pypi.simple.v1+json", asked["/simple/a/"])
        self.assertIn(b"Accept-Encoding: identity", asked["/files/a/-/a-1.tar.gz"])

    async def test_what_cannot_be_had_is_told(self) -> None:
        warming = self.warming()
        wanted = [Wanted("a", SpecifierSet("==2")), Wanted("html", SpecifierSet())]
        await warming.requirements(Read(wanted))
        self.assertEqual({"a==2", "/simple/html/"}, {one["what"] for one in warming.warmed.failed})

    async def test_a_node_that_is_not_there_is_a_failure_of_each(self) -> None:
        warming = Warming(Fetcher.of(reactor, "http://127.0.0.1:1"), Progress(None))
        await warming.targets([("/a", ""), ("/b", "")])
        self.assertEqual(2, len(warming.warmed.failed))

    async def test_a_site_is_asked_for_by_its_host(self) -> None:
        await self.warming().targets([("/x", "files.example")])
        self.assertIn(b"Host: files.example\r\n", self.factory.asked[0][1])

    def test_certificates_that_cannot_be_read_are_an_error(self) -> None:
        self.assertRaises(AdminFailed, Fetcher.of, reactor, "https://a.example", authorities="/nowhere/ca.pem")


class HottestTests(TestCase, AdminCase):
    def setUp(self) -> None:
        AdminCase.setUp(self)
        port = reactor.listenTCP(0, admin_site(self.parts, reactor), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.where = AdminAddress(f"http://127.0.0.1:{port.getHost().port}", self.token)
        self.parts.objects = Objects(None, None, self.clock)

    async def test_what_others_ask_for_most_is_asked_for_by_our_hosts(self) -> None:
        rows = [
            [["index", "eu.example", "/simple/a/"], 9],
            [["files", "eu.example", "/x"], 5],
            [["gone", "h", "/y"], 4],
        ]
        self.parts.objects.popular(0, rows)
        sites = self.ask("GET", "/status").json["sites"]
        found = await hottest(reactor, self.where, 10, sites)
        self.assertEqual([("/simple/a/", ""), ("/x", "f.example")], found)

    def test_requirements_are_for_an_index(self) -> None:
        status = self.ask("GET", "/status").json
        self.assertEqual([("", ""), ("", "f.example")], [index_site(status, name) for name in (None, "files")])
        self.assertRaises(AdminFailed, index_site, status, "other")
