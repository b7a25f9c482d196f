"""Origins, and the addresses that their names have at the moment."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor  # noqa: TID251  (tests run on the reactor itself)
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from edgecache.upstream.addresses import Address, AddressBook, Origin, parse_origin, unix_address
from edgecache.upstream.resolving import SLOTS, Resolver, thread_look_up
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
ORIGIN = parse_origin("https://origin.example/root")
OTHER = parse_origin("http://other.example:8080")


class OriginTests(SynchronousTestCase):
    """Scheme and authority, a path prefix at most (DESIGN 11)."""

    def test_what_a_url_says(self) -> None:
        for url, scheme, host, port, prefix, authority in (
            ("http://a.example", "http", "a.example", 80, b"", b"a.example"),
            ("https://A.Example/", "https", "a.example", 443, b"", b"a.example"),
            ("https://a.example:443", "https", "a.example", 443, b"", b"a.example"),
            ("http://a.example:443/x/y//", "http", "a.example", 443, b"/x/y", b"a.example:443"),
            ("http://[::1]:8080/simple/", "http", "::1", 8080, b"/simple", b"[::1]:8080"),
            ("http://192.0.2.1", "http", "192.0.2.1", 80, b"", b"192.0.2.1"),
            ("http://u:p@a.example", "http", "a.example", 80, b"", b"a.example"),
        ):
            expected = (scheme, host, port, prefix, authority)
            origin = parse_origin(url)
            self.assertEqual(expected, (origin.scheme, origin.host, origin.port, origin.prefix, origin.authority), url)

    def test_what_cannot_be_an_origin(self) -> None:
        for url in (
            "",
            "a.example",
            "//a.example",
            "ftp://a.example",
            "http://",
            "http://:80",
            "http://a.example:0",
            "http://a.example:port",
            "http://a.example:70000",
            "http://a.example/?q",
            "http://a.example/?",
            "http://a.example/#f",
            "http://a.example/\u00e9",
            "http://a.example/a b",
            "http://a b.example/",
            "http://\u00e9.example/",
            "http://[::1/",
        ):
            self.assertRaises(ConfigError, parse_origin, url)

    def test_a_refusal_shows_no_credentials(self) -> None:
        for url in (
            "ftp://user:secret@a.example",
            "http://user:secret@a.example/?q",
            "http://user:secret@:80",
            "http://user:secret/x@a.example",
        ):
            self.assertNotIn("secret", str(self.assertRaises(ConfigError, parse_origin, url)))

    @settings(max_examples=100)
    @given(st.text(max_size=30))
    def test_any_text_is_an_origin_or_refused_and_never_more_than_one_line(self, text: str) -> None:
        for url in (text, "http://" + text, "http://a.example" + text):
            try:
                origin = parse_origin(url)
            except ConfigError:
                continue
            self.assertNotRegex(origin.authority + origin.prefix, rb"[\x00-\x20\x7f-\xff]")


class Unknown(dict[str, Deferred[list[str]]]):
    """No name is known."""

    def __missing__(self, host: str) -> Deferred[list[str]]:
        return fail(socket.gaierror(-2, "unknown"))


class ResolverTests(SynchronousTestCase):
    """The last good set of addresses stays; workers are told what changes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: dict[str, Deferred[list[str]]] = {}
        self.asked: list[str] = []
        self.published: list[dict[str, Any]] = []

    def resolver(self, *origins: Origin) -> Resolver:
        def look_up(host: str, port: int) -> Deferred[list[str]]:
            self.asked.append(host)
            return self.answers[host]

        resolver = Resolver(origins, self.clock, UpstreamSettings(), look_up, self.published.append)
        self.addCleanup(lambda: self.assertEqual([], self.clock.getDelayedCalls()))
        self.addCleanup(resolver.stop)
        return resolver

    def test_every_address_is_published_with_a_slot_of_its_own(self) -> None:
        self.answers = {
            "origin.example": succeed(["192.0.2.1", "2001:db8::1"]),
            "other.example": succeed(["192.0.2.1"]),
        }
        resolver = self.resolver(ORIGIN, OTHER)
        self.successResultOf(resolver.start())
        expected = {
            "https://origin.example": [["192.0.2.1", 443, 0], ["2001:db8::1", 443, 1]],
            "http://other.example:8080": [["192.0.2.1", 8080, 2]],
        }
        self.assertEqual({"origins": expected}, self.published[-1])
        self.assertEqual(self.published[-1], resolver.document)

    def test_an_address_in_the_url_needs_no_look_up(self) -> None:
        resolver = self.resolver(parse_origin("http://[2001:db8::1]:81"))
        self.successResultOf(resolver.start())
        self.assertEqual({"origins": {"http://[2001:db8::1]:81": [["2001:db8::1", 81, 0]]}}, resolver.document)
        self.assertEqual([], self.asked)

    def test_start_waits_until_every_name_was_tried(self) -> None:
        slow: Deferred[list[str]] = Deferred()
        self.answers = {"origin.example": fail(socket.gaierror(-2, "unknown")), "other.example": slow}
        started = self.resolver(ORIGIN, OTHER).start()
        self.assertNoResult(started)
        slow.callback(["192.0.2.1"])
        self.successResultOf(started)

    def test_names_are_resolved_again_every_thirty_seconds(self) -> None:
        self.answers = {"origin.example": succeed(["192.0.2.1"])}
        self.successResultOf(self.resolver(ORIGIN).start())
        self.answers = {"origin.example": succeed(["192.0.2.2"])}
        self.clock.advance(29)
        self.assertEqual(1, len(self.published))
        self.clock.advance(1)
        self.assertEqual([["192.0.2.2", 443, 1]], self.published[-1]["origins"]["https://origin.example"])

    def test_the_last_good_set_is_kept_and_the_failure_logged_once(self) -> None:
        self.answers = {"origin.example": succeed(["192.0.2.1"])}
        resolver = self.resolver(ORIGIN)
        self.successResultOf(resolver.start())
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        for _ in range(5):
            self.answers = {"origin.example": fail(socket.gaierror(-3, "try again"))}
            self.clock.advance(30)
        self.assertEqual([["192.0.2.1", 443, 0]], resolver.document["origins"]["https://origin.example"])
        self.assertEqual(1, len(logged))

    def test_a_name_without_any_address_is_looked_up_again_soon_and_less_and_less_often(self) -> None:
        self.answers = Unknown()
        self.resolver(ORIGIN).start()
        at = []
        for second in range(1, 61):
            before = len(self.asked)
            self.clock.advance(1)
            at += [second] * (len(self.asked) - before)
        # With every round, too.
        self.assertEqual([1, 3, 7, 15, 30, 31, 60], at)

    def test_once_it_has_one_it_is_left_to_the_rounds(self) -> None:
        self.answers = {"origin.example": fail(socket.gaierror(-2, "unknown"))}
        self.resolver(ORIGIN).start()
        self.answers = {"origin.example": succeed(["192.0.2.1"])}
        self.clock.advance(1)
        self.assertEqual((1, 2), (len(self.published), len(self.asked)))
        self.clock.advance(28)
        self.assertEqual(2, len(self.asked))

    def test_an_empty_answer_is_no_answer(self) -> None:
        self.answers = {"origin.example": succeed(["192.0.2.1"])}
        resolver = self.resolver(ORIGIN)
        self.successResultOf(resolver.start())
        self.answers = {"origin.example": succeed([])}
        self.clock.advance(30)
        self.assertEqual([["192.0.2.1", 443, 0]], resolver.document["origins"]["https://origin.example"])

    def test_another_order_is_no_change(self) -> None:
        for addresses in (["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]):
            self.answers = {"origin.example": succeed(addresses)}
            if not self.published:
                self.successResultOf(self.resolver(ORIGIN).start())
            else:
                self.clock.advance(30)
        self.assertEqual((1, 2), (len(self.published), len(self.asked)))

    def test_a_look_up_that_hangs_is_not_asked_again_meanwhile(self) -> None:
        hung: Deferred[list[str]] = Deferred()
        self.answers = {"origin.example": hung, "other.example": succeed(["192.0.2.1"])}
        started = self.resolver(ORIGIN, OTHER).start()
        self.clock.advance(30)
        self.clock.advance(30)
        self.assertEqual(1, self.asked.count("origin.example"))
        self.assertEqual(3, self.asked.count("other.example"))
        hung.callback(["192.0.2.2"])
        self.successResultOf(started)
        self.clock.advance(30)
        self.assertEqual(2, self.asked.count("origin.example"))

    def test_after_stop_nothing_is_published(self) -> None:
        late: Deferred[list[str]] = Deferred()
        self.answers = {"origin.example": late}
        resolver = self.resolver(ORIGIN)
        started = resolver.start()
        resolver.stop()
        self.successResultOf(started)
        late.callback(["192.0.2.1"])
        self.assertEqual([], self.published)

    @settings(max_examples=20)
    @given(st.lists(st.lists(st.integers(0, 300), unique=True, max_size=290), max_size=6))
    def test_slots_are_never_shared_and_kept_while_an_address_is(self, rounds: list[list[int]]) -> None:
        clock, answer = Clock(), [["192.0.2.1"]]
        resolver = Resolver([ORIGIN], clock, UpstreamSettings(), lambda *_: succeed(answer[0]), lambda _: None)
        self.successResultOf(resolver.start())
        before: dict[str, int] = {}
        for numbers in rounds:
            answer[0] = [f"2001:db8::{number:x}" for number in numbers]
            clock.advance(30)
            if not numbers:
                continue
            rows = resolver.document["origins"]["https://origin.example"]
            slots = {host: slot for host, _port, slot in rows if slot >= 0}
            self.assertEqual(min(len(rows), SLOTS), len(slots))
            self.assertEqual(len(slots), len(set(slots.values())))
            self.assertLessEqual(set(slots.values()), set(range(SLOTS)))
            for host, slot in before.items():
                if host in slots:
                    self.assertEqual(slot, slots[host])
            before = slots
        resolver.stop()


class AddressBookTests(SynchronousTestCase):
    """What workers make of the document, after it was JSON."""

    def test_each_origin_finds_its_own(self) -> None:
        same = parse_origin("https://origin.example/elsewhere")
        document = {"origins": {ORIGIN.name: [["192.0.2.1", 443, 3], ["2001:db8::1", 443, 4]]}}
        book = AddressBook()
        self.assertEqual((), book.of(ORIGIN))
        book.update(json.loads(json.dumps(document)), [ORIGIN, same, OTHER])
        for origin in (ORIGIN, same):
            first, second = book.of(origin)
            self.assertEqual((origin, "192.0.2.1", 443, 3), (first.origin, first.host, first.port, first.slot))
            self.assertEqual(("2001:db8::1", 4), (second.host, second.slot))
        self.assertEqual((), book.of(OTHER))

    def test_what_is_not_named_any_more_stays(self) -> None:
        book = AddressBook()
        book.update({"origins": {ORIGIN.name: [["192.0.2.1", 443, 3]]}}, [ORIGIN])
        book.update({"origins": {}}, [ORIGIN])
        self.assertEqual(1, len(book.of(ORIGIN)))

    def test_a_unix_address_is_another_for_each_path(self) -> None:
        self.assertEqual(unix_address("/a"), unix_address("/a"))
        self.assertNotEqual(unix_address("/a"), unix_address("/b"))
        self.assertNotEqual(unix_address("/a"), Address(unix_address("/a").origin, "192.0.2.1", 80))


class ThreadTests(TestCase):
    """``getaddrinfo`` in a thread."""

    def setUp(self) -> None:
        self.pool = ThreadPool(0, 2)
        self.pool.start()
        self.addCleanup(self.pool.stop)

    async def test_a_name_of_this_machine(self) -> None:
        found = await thread_look_up(reactor, self.pool)("localhost", 80)
        self.assertLessEqual(set(found), {"127.0.0.1", "::1"})
        self.assertEqual(len(found), len(set(found)))
        self.assertTrue(found)


class HostsFileTests(SynchronousTestCase):
    """
    Names of the hosts file, A and AAAA, by the resolver of this system: the whole program in a mount namespace.

    No address is lost, a name that is not found any more keeps what it had, and is asked for again and again.
    """

    def setUp(self) -> None:
        for flags in ("-m", "-rm"):
            if (
                shutil.which("unshare")
                and not subprocess.run(["unshare", flags, "true"], capture_output=True).returncode
            ):
                self.flags = flags
                return
        raise SkipTest("needs a mount namespace of its own: root, or user namespaces")

    def run_program(self, kind: str) -> list[dict[str, Any]]:
        directory = Path(self.mktemp())
        directory.mkdir()
        hosts = directory / "hosts"
        hosts.touch()
        # Only files: no name server is asked, so that what is not in them is unknown at once.
        (directory / "nsswitch.conf").write_text("hosts: files\n")
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        script = """
            for name in hosts nsswitch.conf resolv.conf; do
                test ! -e /etc/$name || mount --bind "$0/$name" /etc/$name || exit 70
            done
            exec "$1" -m tests.upstream.hosts_program "$0/hosts" "$2"
        """
        done = subprocess.run(
            ["unshare", self.flags, "sh", "-c", script, str(directory.absolute()), sys.executable, kind],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode == 70:
            raise SkipTest(f"may not mount here: {done.stderr}")
        self.assertEqual(0, done.returncode, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_all_addresses_the_last_good_set_and_the_next_one(self) -> None:
        first, failing, last = self.run_program("direct")
        self.assertEqual(
            {("192.0.2.1", 81), ("192.0.2.2", 81), ("2001:db8::1", 81), ("2001:db8::2", 81)},
            {(host, port) for host, port, _ in first["rows"]},
        )
        self.assertEqual((4, {0, 1, 2, 3}), (len(first["rows"]), {slot for _, _, slot in first["rows"]}))
        self.assertEqual((first["rows"], 1, 1), (failing["rows"], failing["failures"], failing["published"]))
        self.assertEqual({"192.0.2.3", "2001:db8::1"}, {host for host, _, _ in last["rows"]})
        kept = {host: slot for host, _, slot in first["rows"]}["2001:db8::1"]
        self.assertIn(["2001:db8::1", 81, kept], last["rows"])

    def test_with_a_proxy_the_same_of_its_name(self) -> None:
        first, failing, last = self.run_program("proxied")
        self.assertEqual({3128}, {port for _, port, _ in first["rows"] + last["rows"]})
        self.assertEqual((4, first["rows"], 2), (len(first["rows"]), failing["rows"], len(last["rows"])))
