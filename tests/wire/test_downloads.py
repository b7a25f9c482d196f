"""Events of downloads: what has a line, and what happens when it cannot be written."""

from __future__ import annotations

import os
import resource
import signal
import ssl
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.downloads import HEADER, SUFFIX, Event, Kind, Reader
from edgecache.rules.asking import ask
from edgecache.rules.sites import Sites
from edgecache.wire import downloads
from edgecache.wire.downloads import FILE_OCTETS, DownloadEvents
from edgecache.wire.tls import tls_context
from edgecache.words.config import Profile
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream
from tests.rules.build import INDEX, PLAIN, sites
from tests.wire.rig import Client, Given, Rig
from tests.wire.test_listening import Sockets, certificate, read_all

FILE = "/files/six/-/six-1.0.tar.gz"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"
PART = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-4/5\r\ncontent-length: 3\r\n"


class DownloadEventsTests(SynchronousTestCase):
    """Over a listener in memory; the routes answer what a test says."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.answer: tuple[bytes, bytes | Given] = (OK, b"12345")
        self.sites: Sites = INDEX
        self.rig = Rig(route=self.route)
        self.events = self.recorder(pages=False)
        self.complaints: list[LogEvent] = []
        globalLogPublisher.addObserver(self.heard)
        self.addCleanup(globalLogPublisher.removeObserver, self.heard)

    def heard(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "edgecache.wire.downloads":
            self.complaints.append(event)

    def recorder(self, *, pages: bool) -> DownloadEvents:
        rig = self.rig
        events = DownloadEvents(
            str(self.directory),
            "n1",
            pages,
            rig.counters,
            rig.network.clock,
            lambda call: rig.network.clock.callLater(0, call),
            maybeDeferred,
            rig.network.clock.seconds,
        )
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(events.close())))
        rig.listener.downloads = events
        return events

    def route(self, request: Request, downstream: Downstream) -> None:
        request.asked = ask(request, self.sites)
        head, content = self.answer
        if isinstance(content, Given):
            downstream.send_from(head, content, 0, content.length)
        else:
            downstream.send(head, content)

    def get(self, target: str, method: str = "GET", client: Client | None = None) -> Client:
        head = f"{method} {target} HTTP/1.1\r\nHost: edge.test\r\nUser-Agent: pip/24.0\r\n\r\n"
        return self.rig.say(head.encode(), client)

    def turn(self) -> None:
        self.rig.network.clock.advance(0)

    def lines(self) -> list[bytes]:
        self.turn()
        found = []
        for path in sorted(self.directory.glob("*" + SUFFIX)):
            header, *lines = path.read_bytes().splitlines()
            self.assertEqual(HEADER + b"n1", header)
            found += [line for line in lines if not line.startswith(b"=")]
        return found

    def told(self) -> list[Event]:
        self.turn()
        found = []
        for path in sorted(self.directory.glob("*" + SUFFIX)):
            reader = Reader()
            found += [event for line in path.read_bytes().splitlines() if (event := reader.read(line))]
            self.assertEqual(0, reader.damaged)
        return found

    def test_a_file_of_a_site_below_a_path_is_known_by_what_is_below_it(self) -> None:
        self.sites = sites(profile=Profile.INDEX, path="/team-a")
        self.get("/team-a" + FILE)
        self.assertEqual([FILE.encode()], [event.path for event in self.told()])

    def test_a_whole_file(self) -> None:
        self.get(FILE)
        (event,) = self.told()
        self.assertEqual(
            (b"192.0.2.1", b"", b"", 5, None), (event.client, event.tls, event.cipher, event.octets, event.part)
        )
        expected = (Kind.FILE, b"%016x" % INDEX.all[0].id, FILE.encode(), b"pip/24.0", 1_700_000_000_000)
        self.assertEqual(expected, (event.kind, event.site, event.path, event.user_agent, event.time))

    def test_a_part_of_a_file(self) -> None:
        self.answer = (PART, b"345")
        self.get(FILE + "?x=1")
        self.assertEqual(
            [((2, 5, 5), False, FILE.encode())], [(each.part, each.begun, each.path) for each in self.told()]
        )

    def test_each_answer_to_one_head_of_a_request_is_told_as_what_it_was(self) -> None:
        """What is remembered of the last one is good for the very same answer, in the very same file, only."""
        other = PART.replace(b"2-4/5", b"0-2/5")
        for answer in ((PART, b"345"), (PART, b"345"), (other, b"123"), (OK, b"12345"), (OK, b"12345"), (PART, b"345")):
            self.answer = answer
            self.get(FILE)
        self.assertEqual([(2, 5, 5)] * 2 + [(0, 3, 5), None, None, (2, 5, 5)], [each.part for each in self.told()])
        self.patch(downloads, "FILE_OCTETS", 1)
        self.get(FILE)
        self.assertEqual([FILE.encode()] * 7, [each.path for each in self.told()])

    def test_of_a_large_head_nothing_is_kept(self) -> None:
        """What is remembered is there once for each of thousands of requests' heads."""
        large = OK + b"x: " + b"y" * 60_000 + b"\r\n"
        for answer, kept in ((OK, OK), (large, OK)):
            self.answer = (answer, b"12345")
            self.get(FILE)
            self.turn()
            self.assertEqual(kept, self.rig.requests[-1].told.head)
        self.assertEqual([5, 5], [each.octets for each in self.told()])

    def test_an_answer_that_broke_off_first_in_a_file_does_not_bring_back_a_number_of_the_file_before(self) -> None:
        whole, other = self.answer, "/files/six/-/six-2.0.tar.gz"
        self.get(FILE)
        self.get(other)
        self.turn()
        self.rig.seconds(1)
        self.events._octets = FILE_OCTETS
        self.get(other)
        self.answer = (whole[0], given := Given(length=5))
        self.get(FILE)
        given.give(b"123")
        self.rig.network.settle()
        self.rig.link.cut()
        self.answer = whole
        self.get(FILE)
        paths = [FILE, other, other, FILE, FILE]
        self.assertEqual(paths, [each.path.decode() for each in self.told()])

    def test_a_client_that_leaves_in_the_middle_has_what_it_was_sent(self) -> None:
        given = Given(length=5)
        self.answer = (OK, given)
        self.get(FILE)
        given.give(b"123")
        self.rig.network.settle()
        self.rig.link.cut()
        self.assertEqual([((0, 3, 5), True)], [(each.part, each.begun) for each in self.told()])

    def test_a_large_file_is_one_when_the_kernel_has_all_of_it(self) -> None:
        """What is still in our own buffer would not survive a kill."""
        content = b"x" * 90_000
        self.answer = (b"HTTP/1.1 200 OK\r\ncontent-length: 90000\r\n", Given(90_000, content, True))
        client = self.rig.connect()
        link = self.rig.link
        client.transport.write(f"GET {FILE} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode())
        # All but the last 20,000 octets are taken.
        while len(client.received) < 70_000:
            link.pump(10_000)
            self.turn()
        self.assertEqual([], self.lines())
        self.rig.network.settle()
        self.assertEqual([90_000], [event.octets for event in self.told()])
        self.assertTrue(client.received.endswith(content))

    def test_what_is_no_download(self) -> None:
        self.get(FILE, "HEAD")
        for target in (FILE + ".metadata", FILE + ".asc", "/simple/six/", "/pypi/six/json"):
            self.get(target)
        for status in (b"304 Not Modified", b"404 Not Found", b"503 No", b"416 Not There"):
            self.answer = (b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n", b"")
            self.get(FILE)
        self.sites = PLAIN
        self.answer = (OK, b"12345")
        self.get(FILE + "?plain")
        self.assertEqual([], self.lines())

    def test_pages_where_they_are_logged_also_when_the_client_has_them(self) -> None:
        self.recorder(pages=True)
        self.get("/simple/six/")
        self.answer = (b"HTTP/1.1 304 Not Modified\r\n", b"")
        self.get("/simple/six/?again")
        self.answer = (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n", b"")
        self.get("/simple/none/")
        self.assertEqual([(Kind.PAGE, b"/simple/six/")] * 2, [(each.kind, each.path) for each in self.told()])

    def test_a_turn_of_the_loop_is_one_write(self) -> None:
        head = f"GET {FILE} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode()
        client = self.rig.connect()
        before = len(self.rig.network.clock.getDelayedCalls())
        for _ in range(3):
            self.rig.say(head, client)
        self.assertEqual(1, len(self.rig.network.clock.getDelayedCalls()) - before)
        self.assertEqual(3, len(self.lines()))

    def test_a_full_file_is_followed_by_another_one(self) -> None:
        self.get(FILE)
        self.turn()
        self.events._octets = FILE_OCTETS
        self.get(FILE)
        self.assertEqual((2, 2), (len(self.told()), len(list(self.directory.iterdir()))))

    def test_what_requests_have_in_common_is_written_once(self) -> None:
        for _ in range(5):
            self.get(FILE)
        self.assertEqual(5, len(self.told()))
        (path,) = self.directory.iterdir()
        self.assertEqual(1, path.read_bytes().count(FILE.encode()))

    def test_what_cannot_be_written_is_counted_and_said_once_and_serving_goes_on(self) -> None:
        self.directory.write_text("in the way")
        for _ in range(3):
            client = self.get(FILE)
            self.turn()
            self.assertTrue(client.received.endswith(b"12345"))
        self.assertEqual(3, self.rig.counters.get(Counter.DOWNLOADS_LOST))
        self.assertEqual(1, len(self.complaints))
        self.directory.unlink()
        self.rig.seconds(2)
        self.get(FILE)
        self.assertEqual(1, len(self.lines()))

    def test_on_a_full_disk_whole_lines_stay_and_no_half_one(self) -> None:
        """The limit on a file's size stands for the disk."""
        self.get(FILE)
        (line,) = self.lines()
        (path,) = self.directory.iterdir()
        room = path.stat().st_size + 2 * (len(line) + 1) + 10
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            for _ in range(2):
                for _ in range(4):
                    self.get(FILE)
                self.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        # Whatever was lost, the next ones can be read.
        self.get(FILE)
        self.assertEqual(4, len(self.told()))
        self.assertEqual(6, self.rig.counters.get(Counter.DOWNLOADS_LOST))

    def test_the_sync_is_a_second_later_and_the_end_leaves_no_timer(self) -> None:
        self.get(FILE)
        self.turn()
        (call,) = [call for call in self.rig.network.clock.getDelayedCalls() if call.func == self.events._sync]
        self.assertEqual(1.0, call.getTime() - self.rig.network.clock.seconds())
        self.successResultOf(Deferred.fromCoroutine(self.events.close()))
        self.assertNotIn(call, self.rig.network.clock.getDelayedCalls())


class TLSTests(Sockets):
    """On real sockets: what events say of TLS."""

    def ask(self, version: ssl.TLSVersion) -> Deferred[bytes]:
        os.makedirs(directory := self.mktemp())
        settings = certificate(directory)
        client = ssl.create_default_context(cafile=settings.certificate)
        client.maximum_version = version

        def route(request: Request, downstream: Downstream) -> None:
            request.asked = ask(request, INDEX)
            downstream.send(OK, b"12345")

        listener = self.listen(route, tls=tls_context(settings))
        events = DownloadEvents(
            directory, "n1", False, self.counters, listener.timers, listener.soon, maybeDeferred, lambda: 1.0
        )
        listener.downloads = events
        request = f"GET {FILE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()

        def get() -> None:
            with client.wrap_socket(self.connect(), server_hostname="localhost") as sock:
                sock.sendall(request)
                read_all(sock)

        async def done() -> bytes:
            await deferToThread(get)
            await events.close()
            (path,) = Path(directory).glob("*" + SUFFIX)
            return path.read_bytes().splitlines()[-1]

        return Deferred.fromCoroutine(done())

    async def test_protocol_and_cipher(self) -> None:
        line = await self.ask(ssl.TLSVersion.TLSv1_3)
        self.assertRegex(line, rb"^1000\t127\.0\.0\.1\tTLSv1\.3\tTLS_[A-Z0-9_]+\t5\t\t1$")

    async def test_protocol_and_cipher_of_an_older_client(self) -> None:
        line = await self.ask(ssl.TLSVersion.TLSv1_2)
        self.assertRegex(line, rb"^1000\t127\.0\.0\.1\tTLSv1\.2\tECDHE-[A-Z0-9-]+\t5\t\t1$")
