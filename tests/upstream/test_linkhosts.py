"""Hosts that pages link to are resolved, watched and forgotten like origins, and only some may be asked (DESIGN 10)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.upstream.addresses import AddressBook, parse_origin
from edgecache.upstream.linkhosts import (
    ANNOUNCE_SECONDS,
    FORGET_SECONDS,
    LINK_SLOTS,
    MOST,
    LinkHosts,
    LinksFollowed,
    link_origin,
)
from edgecache.upstream.resolving import Resolver
from edgecache.upstream.roster import Roster
from edgecache.words.config import Profile, SiteSettings, UpstreamSettings
from edgecache.words.errors import LinkRefused

ORIGIN = parse_origin("https://index.example")
FILES = parse_origin("https://files.example")


def site(*file_hosts: str) -> SiteSettings:
    return SiteSettings("main", Profile.INDEX, ("https://index.example",), file_hosts=file_hosts)


class LinkHostsCase(SynchronousTestCase):
    """
    :ivar names: what the resolver finds; other names have no address.
    :ivar waiting: look-ups of ``slow.example``, which end when the test says so.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.names = {"files.example": ["8.8.8.8"]}
        self.waiting: list[Deferred[list[str]]] = []
        self.published: list[dict[str, Any]] = []
        self.book = AddressBook()
        self.roster = Roster((site(),), UpstreamSettings())
        resolver = Resolver((), self.clock, UpstreamSettings(), self.look_up, self.publish, LINK_SLOTS)
        self.hosts = LinkHosts(frozenset({ORIGIN.name}), resolver, self.roster, self.clock)
        self.successResultOf(self.hosts.start())
        self.addCleanup(self.hosts.stop)

    def look_up(self, host: str, port: int) -> Deferred[list[str]]:
        if host == "slow.example":
            self.waiting.append(Deferred())
            return self.waiting[-1]
        found = self.names.get(host)
        return fail(OSError("no such name")) if found is None else succeed(found)

    def publish(self, document: dict[str, Any]) -> None:
        self.published.append(document)
        self.roster.follow(document, self.clock.seconds())
        self.book.update(document, ())

    def announce(self, url: str) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.hosts.announce(url)))


class NodeTests(LinkHostsCase):
    """The node process's side."""

    def test_who_is_announced_is_resolved_and_watched(self) -> None:
        self.announce("https://files.example")
        (address,) = self.book.of(FILES)
        self.assertEqual(("8.8.8.8", 443), (address.host, address.port))
        self.assertIn(address.slot, LINK_SLOTS)
        self.assertEqual("https://files.example (8.8.8.8)", self.roster.members[address.slot].name)
        # It is the last of its own, whatever the origins of the site are.
        self.assertTrue(self.roster.last(self.roster.members[address.slot]))

    def test_the_answer_comes_once_the_name_was_tried(self) -> None:
        announced = Deferred.fromCoroutine(self.hosts.announce("http://slow.example"))
        self.assertNoResult(announced)
        self.waiting.pop().callback(["8.8.4.4"])
        self.successResultOf(announced)
        self.assertEqual(1, len(self.book.of(parse_origin("http://slow.example"))))

    def test_two_who_need_it_make_one_look_up(self) -> None:
        first = Deferred.fromCoroutine(self.hosts.announce("http://slow.example"))
        second = Deferred.fromCoroutine(self.hosts.announce("http://slow.example"))
        self.waiting.pop().errback(OSError("no such name"))
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual([], self.waiting)

    def test_a_name_without_addresses_is_tried_again_when_it_is_needed_again(self) -> None:
        self.announce("https://late.example")
        self.names["late.example"] = ["8.8.8.8"]
        self.announce("https://late.example")
        self.assertEqual(1, len(self.book.of(parse_origin("https://late.example"))))

    def test_whom_nobody_needs_any_more_is_forgotten(self) -> None:
        self.announce("https://files.example")
        self.clock.pump([30.0] * int(FORGET_SECONDS / 30 - 1))
        self.assertEqual(["https://files.example"], self.hosts.names)
        self.clock.pump([30.0] * 4)
        self.assertEqual([], self.hosts.names)
        self.assertEqual((), self.book.of(FILES))
        self.assertEqual({}, self.roster.members)

    def test_there_are_never_more_than_some(self) -> None:
        self.announce("https://files.example")
        for number in range(MOST):
            self.announce(f"http://8.8.8.8:{number + 1}")
        self.assertEqual(MOST, len(self.hosts.names))
        self.assertNotIn("https://files.example", self.hosts.names)
        self.assertLessEqual(len(self.roster.members), MOST)

    def test_a_configured_origin_is_none_of_them(self) -> None:
        self.announce("https://index.example")
        self.assertEqual([], self.hosts.names)


class WorkerTests(LinkHostsCase):
    """A worker's side."""

    def followed(self, *, proxied: bool = False) -> LinksFollowed:
        self.calls: list[str] = []

        def call(op: str, origin: str) -> Deferred[dict[str, Any]]:
            self.assertEqual("link", op)
            self.calls.append(origin)
            return Deferred.fromCoroutine(self.hosts.announce(origin)).addCallback(lambda _: {})

        return LinksFollowed(self.book, call, lambda op, origin: self.calls.append(origin), self.clock, proxied)

    def known(self, followed: LinksFollowed) -> None:
        until = self.clock.seconds() + 12
        self.successResultOf(Deferred.fromCoroutine(followed.known(FILES, until)))

    def test_it_waits_for_a_name_that_nobody_knows_yet_and_says_now_and_then_that_it_needs_it(self) -> None:
        followed = self.followed()
        self.known(followed)
        self.known(followed)
        self.assertEqual((1, [FILES.name]), (len(self.book.of(FILES)), self.calls))
        self.clock.advance(ANNOUNCE_SECONDS)
        self.known(followed)
        self.assertEqual([FILES.name] * 2, self.calls)

    def test_it_waits_no_longer_than_its_client(self) -> None:
        followed = self.followed()
        waiting = Deferred.fromCoroutine(followed.known(parse_origin("http://slow.example"), self.clock.seconds() + 5))
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.successResultOf(waiting)

    def test_who_may_be_asked(self) -> None:
        self.book.update({"origins": {ORIGIN.name: [["10.0.0.1", 443, 0]], FILES.name: [["127.0.0.1", 443, 1]]}}, ())
        followed = self.followed()
        self.assertIsInstance(followed.refused(site(), (ORIGIN,), FILES), LinkRefused)
        for named in ("files.example", "files.example:443"):
            self.assertIsNone(followed.refused(site(named), (ORIGIN,), FILES), named)
        self.book.update({"origins": {ORIGIN.name: [["10.0.0.1", 443, 0]], FILES.name: [["10.0.0.2", 443, 1]]}}, ())
        self.assertIsNone(followed.refused(site(), (ORIGIN,), FILES))

    def test_an_address_in_a_link_is_judged_before_it_is_looked_up(self) -> None:
        refused = self.followed().refused(site(), (ORIGIN,), parse_origin("http://169.254.169.254"))
        self.assertIsInstance(refused, LinkRefused)

    def test_behind_a_proxy_nobody_knows_where_a_name_leads(self) -> None:
        self.book.update({"origins": {FILES.name: [["8.8.8.8", 3128, 1]]}}, ())
        followed = self.followed(proxied=True)
        self.assertIsInstance(followed.refused(site(), (ORIGIN,), FILES), LinkRefused)
        self.assertIsNone(followed.refused(site("files.example"), (ORIGIN,), FILES))
        self.assertIsNone(followed.refused(site(), (ORIGIN,), parse_origin("http://8.8.8.8")))


class URLTests(SynchronousTestCase):
    """What a page says is a URL, by whoever has written the page."""

    def test_where_it_is_and_what_to_ask_for(self) -> None:
        for url, name, target in (
            (b"https://files.example/a/b.whl", "https://files.example", b"/a/b.whl"),
            (b"HTTP://Files.example:80/a?sig=%41#sha256=1", "http://files.example", b"/a?sig=%41"),
            (b"http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080", b"/"),
        ):
            found = link_origin(url)
            assert found is not None
            self.assertEqual((name, target), (found[0].name, found[1]))

    def test_what_is_none(self) -> None:
        for url in (
            b"ftp://files.example/a",
            b"file:///etc/passwd",
            b"//files.example/a",
            b"/a",
            b"",
            b"http://",
            b"http:///a",
            b"http://files.example/a b",
            b"http://files.example/a\r\nHost: b",
            b"http://files.example/\xc3\xa9",
            b"http://files.example:99999/",
            b"javascript:alert(1)",
        ):
            self.assertIsNone(link_origin(url), url)
