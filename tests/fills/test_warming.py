"""What a request needs of the store, and a thread reads before it is answered: the real store, no thread."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from edgecache.fills.warming import BELIEVED_SECONDS, CAREFUL, Absent, Warming
from edgecache.rules.asking import Asked, ask
from edgecache.rules.partrecords import Place, as_part, part_hash
from edgecache.rules.sites import Site, Sites
from edgecache.rules.spans import Span
from edgecache.store import layout
from edgecache.store.layout import CHUNK, PIECE
from edgecache.words.config import Config, NodeSettings, Profile, SiteSettings
from edgecache.words.messages import Request
from tests.store.rooms import StoreTestCase, octets, response

CONFIG = Config(NodeSettings(id="a", data=".", workers=1), (SiteSettings("main", Profile.PLAIN, ("http://o.test",)),))
SIZES = {"little": 300, "pieces": 2 * PIECE + 5, "chunks": 3 * CHUNK + PIECE, "large": 20 * CHUNK + 5}


class WarmingTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sites, self.now = Sites(CONFIG), 1000.0
        unused: Any = None
        self.warming = Warming(self.reader, unused, self.environments, maybeDeferred, lambda: self.now)
        for name, size in SIZES.items():
            asked = self.asked(name)
            writer = self.fill(octets(size))
            self.assertTrue(self.loop.result(writer.commit(asked.key_hash, response(asked.key))))
            writer.finished()

    def asked(self, name: str, method: bytes = b"GET", *fields: tuple[bytes, bytes]) -> Asked:
        asked = ask(Request(method, b"/" + name.encode(), b"edge.test", [*fields]), self.sites)
        assert isinstance(asked, Asked) and isinstance(asked.site, Site)
        return asked

    def reads(self, name: str, method: bytes = b"GET", *fields: tuple[bytes, bytes]) -> list[tuple[bytes, int]]:
        """Which databases are read, and how many values, before the request can be answered."""
        databases = {id(one): kind for kind, one in self.environments.small.databases.items()}
        databases |= {id(one): kind for kind, one in self.environments.blobs.databases.items()}
        asked, found = self.asked(name, method, *fields), list[tuple[bytes, int]]()
        while absent := self.warming.absent(asked, len(found)):
            found.append((databases[id(absent.database)], len(absent.keys)))
            self.successResultOf(Deferred.fromCoroutine(self.warming.read(absent)))
        return found

    def be_sure(self) -> None:
        """Nothing has to be waited for in a long row."""
        for number in range(CAREFUL):
            self.reads(f"missing-{number}")

    def test_after_a_start_everything_that_an_answer_begins_with_is_read_once(self) -> None:
        records, contents, chunks = (layout.RECORDS, 1), layout.CONTENTS, layout.CHUNKS
        self.assertEqual([records, (contents, 1)], self.reads("little"))
        self.assertEqual([records, (contents, 3)], self.reads("pieces"))
        self.assertEqual([records, (chunks, 3), (contents, 1)], self.reads("chunks"))
        self.assertEqual([records, (chunks, 16)], self.reads("large"))
        for name in SIZES:
            self.assertEqual([], self.reads(name))
        self.now += BELIEVED_SECONDS
        self.assertEqual([records, (chunks, 16)], self.reads("large"))

    def test_a_head_needs_no_content_and_a_miss_only_the_looks_for_it_and_its_parts(self) -> None:
        records = (layout.RECORDS, 1)
        self.assertEqual([records], self.reads("large", b"HEAD"))
        self.assertEqual([records], self.reads("absent", b"HEAD"))
        self.assertEqual([records, records], self.reads("missing"))
        self.assertEqual([records, (layout.RECORDS, 2)], self.reads("missing", b"GET", (b"range", b"bytes=0-0")))

    def test_of_a_stored_beginning_what_answers_or_what_the_rest_is_compared_with(self) -> None:
        """The head of a whole, of which the first 20 chunks and some octets have come"""
        size = SIZES["large"]
        whole = response(self.asked("begun").key, head=b"HTTP/1.1 200 OK\r\n", size=2 * size)
        place = part_hash(self.asked("begun").key_hash, Place.BEGINNING)
        writer = self.fill(octets(size))
        self.assertTrue(self.loop.result(writer.commit(place, as_part(whole, Span(0, size, 2 * size)))))
        writer.finished()
        records, contents, chunks = (layout.RECORDS, 1), layout.CONTENTS, layout.CHUNKS
        self.assertEqual([records, records, (chunks, 1), (contents, 1)], self.reads("begun"))
        for part, wanted in (
            (b"%d-%d" % (CHUNK - 1, CHUNK), [(chunks, 2)]),
            (b"%d-%d" % (18 * CHUNK, size - 1), [(chunks, 2), (contents, 1)]),
            # It has not come: a fill goes on.
            (b"-5", [(chunks, 1), (contents, 1)]),
        ):
            field = (b"range", b"bytes=" + part)
            self.assertEqual([records, (layout.RECORDS, 2), *wanted], self.reads("begun", b"GET", field), part)

    def test_of_a_part_what_it_touches_is_read_wherever_it_is(self) -> None:
        records, contents, chunks = (layout.RECORDS, 1), layout.CONTENTS, layout.CHUNKS
        for part, wanted in (
            (b"-5", [(contents, 1)]),
            (b"-6", [(chunks, 1), (contents, 1)]),
            (b"%d-%d" % (CHUNK - 1, CHUNK), [(chunks, 2)]),
            (b"%d-" % CHUNK, [(chunks, 16)]),
            (b"%d-" % (18 * CHUNK), [(chunks, 2), (contents, 1)]),
        ):
            field = (b"range", b"bytes=" + part)
            self.assertEqual([records, *wanted], self.reads("large", b"GET", field), part)
            self.assertEqual([], self.reads("large", b"GET", field), part)

    def test_once_nothing_had_to_be_waited_for_what_is_in_memory_is_believed_to_be(self) -> None:
        self.be_sure()
        self.assertEqual([], [read for name in SIZES for read in self.reads(name)])

    def test_whoever_waits_for_a_read_is_answered_however_that_ends(self) -> None:
        class Dying:
            def read(self, database: Any, keys: list[bytes]) -> bool:
                raise MemoryError

        residency: Any = Dying()
        absent = Absent(residency, self.environments.small.databases[layout.RECORDS], [b"x"])
        self.successResultOf(Deferred.fromCoroutine(self.warming.read(absent)))
        self.assertEqual(1, len(self.flushLoggedErrors(MemoryError)))

    def test_a_wait_for_the_disk_makes_it_careful_again(self) -> None:
        self.be_sure()

        class Waited:
            def read(self, database: Any, keys: list[bytes]) -> bool:
                return True

        residency: Any = Waited()
        absent = Absent(residency, self.environments.small.databases[layout.RECORDS], [b"x"])
        self.successResultOf(Deferred.fromCoroutine(self.warming.read(absent)))
        self.assertEqual([(layout.RECORDS, 1), (layout.CHUNKS, 16)], self.reads("large"))
