"""Contents that are asked for often: read into memory once, sent from there, let go when others are asked for more."""

from __future__ import annotations

import os
import socket

from edgecache.store import hot as module
from edgecache.store import layout
from edgecache.store.hot import ENOUGH, SMALLEST, Hot, Kept
from edgecache.store.layout import CHUNK, PAGE
from edgecache.words.errors import ContentMissing
from edgecache.words.stored import Stored
from tests.store.rooms import StoreTestCase, hash_of, octets, response

ROOM = 1 << 20


class HotTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        hot = Hot.of(ROOM)
        assert hot is not None
        self.hot = hot
        self.addCleanup(hot.close)

    def ask(self, key: bytes = b"key", times: int = 1) -> Kept | None:
        """Answer it so often; what the last answer was sent from."""
        kept = None
        for _ in range(times):
            try:
                stored = self.reader.look_up(hash_of(key), key)
                assert isinstance(stored, Stored)
                kept = self.hot.find(self.reader, hash_of(key), stored)
            finally:
                self.reader.done()
        return kept

    def kept(self, key: bytes = b"key") -> Kept:
        kept = self.ask(key, ENOUGH)
        assert kept is not None
        return kept

    def keep_many(self, size: int) -> list[bytes]:
        """Keep as many contents as there is room for; their keys, the first kept first."""
        keys = []
        while self.hot.held + size <= ROOM:
            keys.append(b"%d" % len(keys))
            self.store(octets(size, len(keys)), response(keys[-1]))
            self.kept(keys[-1])
        return keys

    def occupied(self) -> int:
        """Octets of memory that the file has."""
        return os.fstat(self.hot._file.descriptor).st_blocks * 512


class KeepingTests(HotTestCase):
    def test_what_was_asked_for_often_enough_is_kept_whatever_it_is_made_of(self) -> None:
        for size in (SMALLEST + 1, CHUNK, CHUNK + 24, 100_000):
            self.store(octets(size))
            self.assertIsNone(self.ask(times=ENOUGH - 1))
            kept = self.ask()
            assert kept is not None
            self.assertEqual(octets(size), kept.read(0, size))
            self.assertEqual(octets(size)[-100:], kept.read(size - 100, size))

    def test_what_is_small_or_large_is_not(self) -> None:
        for size in (SMALLEST, ROOM // module.SHARE + 1):
            self.store(octets(size))
            self.assertIsNone(self.ask(times=3 * ENOUGH))
        self.assertEqual(0, self.hot.held)

    def test_other_content_under_the_same_key_is_another_content(self) -> None:
        self.store(octets(70_000))
        self.kept()
        self.store(octets(70_000, 1), response(floor=2))
        self.assertIsNone(self.ask())
        self.assertEqual(octets(70_000, 1), self.kept().read(0, 70_000))

    def test_damaged_content_is_not_kept_and_its_reader_is_told(self) -> None:
        stored = self.store(octets(70_000))
        self.alter(layout.CHUNKS, layout.place(stored.content_id, 0), lambda value: value.__setitem__(5, value[5] ^ 1))
        self.assertIsNone(self.ask(times=ENOUGH - 1))
        self.assertRaises(ContentMissing, self.ask)
        self.assertEqual((0, 0), (self.hot.held, self.occupied()))

    def test_without_room_for_any_there_is_none(self) -> None:
        self.assertIsNone(Hot.of(0))
        self.assertIsNone(Hot.of(SMALLEST))

    def huge_pages(self, says: str) -> None:
        """The kernel's file."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(says)
        self.patch(module, "_HUGE_PAGES", path)

    def test_in_huge_pages_nothing_is_kept(self) -> None:
        """The kernel zeroes a part of one where it is when it is punched out, also under a socket that holds it."""
        for number, says in enumerate(("[always] never", "always [within_size] never", "never deny [force]")):
            self.huge_pages("always [never] force")
            self.store(octets(20_000, number))
            hot = self.hot = Hot.of(ROOM) or self.fail("there is none")
            self.assertIsNone(self.ask(times=ENOUGH - 1))
            self.huge_pages(says)
            self.assertIsNone(Hot.of(ROOM))
            self.assertIsNone(self.ask(times=2 * ENOUGH))
            self.assertEqual((0, 0), (hot.held, self.occupied()))
        self.flushLoggedErrors()

    def test_after_a_write_that_fails_nothing_more_is_kept_and_what_is_there_is_used(self) -> None:
        self.store(octets(20_000), response(b"a"))
        self.store(octets(20_000, 1), response(b"b"))
        kept = self.kept(b"a")
        right, self.hot._file = self.hot._file, module._File(os.open(os.devnull, os.O_RDONLY))
        self.assertIsNone(self.ask(b"b", ENOUGH))
        self.hot._file = right
        self.assertIsNone(self.ask(b"b", 2 * ENOUGH))
        self.assertIs(kept, self.ask(b"a"))
        self.flushLoggedErrors()


class LettingGoTests(HotTestCase):
    def test_memory_is_bounded_and_given_back(self) -> None:
        keys = self.keep_many(100_000)
        self.assertLessEqual(self.occupied(), ROOM)
        for salt in range(100, 100 + 2 * len(keys)):
            key = b"new %d" % salt
            self.store(octets(100_000, salt), response(key))
            while self.ask(key) is None:
                pass
            self.assertLessEqual(self.hot.held, ROOM)
            self.assertEqual(self.hot.held, self.occupied())

    def test_nobody_goes_for_a_newcomer_that_then_has_to_wait(self) -> None:
        keys = self.keep_many(ROOM // module.SHARE // 2)
        self.ask(keys[1], 20 * ENOUGH)
        # It would take the places of two, of which the second one is asked for more.
        self.store(octets(ROOM // module.SHARE, 99), response(b"new"))
        held = self.hot.held
        self.assertIsNone(self.ask(b"new", ENOUGH))
        self.assertEqual(held, self.hot.held)
        self.assertIsNotNone(self.ask(keys[0]))

    def test_what_is_asked_for_more_often_stays(self) -> None:
        first, second, *_ = self.keep_many(100_000)
        self.ask(first, 20 * ENOUGH)
        self.store(octets(100_000, 99), response(b"new"))
        for _ in range(2 * ENOUGH):
            self.ask(b"new")
        self.assertIsNotNone(self.ask(first))
        self.assertIsNone(self.ask(second))
        self.assertIsNotNone(self.ask(b"new"))

    def test_what_is_not_asked_for_any_more_goes_however_often_it_was(self) -> None:
        keys = self.keep_many(100_000)
        for key in keys:
            self.ask(key, 100)
        self.store(octets(100_000, 99), response(b"new"))
        for _ in range(10 * ENOUGH * len(keys)):
            if self.ask(b"new") is not None:
                return
        self.fail("never kept")

    def test_what_somebody_still_reads_stays(self) -> None:
        keys = self.keep_many(100_000)
        sources = [self.kept(key).source() for key in keys]
        self.store(octets(100_000, 99), response(b"new"))
        self.assertIsNone(self.ask(b"new", 30 * ENOUGH))
        for source in sources:
            source.close()
        self.assertIsNotNone(self.ask(b"new", 30 * ENOUGH))

    def test_a_source_that_is_never_attached_lets_go(self) -> None:
        self.store(octets(70_000))
        kept = self.kept()
        source = kept.source()
        self.assertEqual(1, kept.readers)
        del source
        self.assertEqual(0, kept.readers)

    def test_who_still_reads_when_it_is_closed_reads_the_same_content(self) -> None:
        self.store(octets(70_000))
        source = self.kept().source()
        self.hot.close()
        with open(os.devnull, "rb"), open(os.devnull, "rb"):
            self.assertEqual(octets(70_000)[:100], source.read(0, 100))

    def test_what_is_remembered_of_others_is_bounded(self) -> None:
        self.patch(module, "COUNTED", 3)
        for number in range(5):
            self.store(octets(20_000, number), response(b"%d" % number))
            self.ask(b"%d" % number)
        self.assertEqual(2, len(self.hot._asked))


class SendingTests(HotTestCase):
    def setUp(self) -> None:
        super().setUp()
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        self.ours = socket.create_connection(listening.getsockname())
        self.ours.setblocking(False)
        self.addCleanup(self.ours.close)
        self.client, _ = listening.accept()
        self.client.settimeout(60)
        self.addCleanup(self.client.close)

    def received(self, count: int) -> bytes:
        pieces = b""
        while len(pieces) < count:
            pieces += self.client.recv(count - len(pieces))
        return pieces

    def test_head_and_part_arrive_as_they_are(self) -> None:
        self.store(octets(70_000))
        written = self.kept().write_to(self.ours.fileno(), b"head", 100, 50_000)
        self.assertEqual(4 + 49_900, written)
        self.assertEqual(b"head" + octets(70_000)[100:50_000], self.received(written))

    def test_octets_that_a_socket_holds_stay_what_they_are_when_the_content_goes(self) -> None:
        """See Note [memory that is used once]."""
        keys = self.keep_many(4 * PAGE * 6)
        written = self.kept(keys[0]).write_to(self.ours.fileno(), b"", 0, 4 * PAGE * 6)
        for salt in range(100, 100 + 2 * len(keys)):
            key = b"new %d" % salt
            self.store(octets(4 * PAGE * 6, salt), response(key))
            while self.ask(key) is None:
                pass
        self.assertIsNone(self.ask(keys[0]))
        self.assertEqual(octets(4 * PAGE * 6, 1)[:written], self.received(written))

    def test_a_socket_that_is_full_takes_what_it_can_and_a_broken_one_nothing(self) -> None:
        self.store(octets(100_000))
        kept, taken = self.kept(), 0
        while written := kept.write_to(self.ours.fileno(), b"", 0, 100_000):
            taken += written
        self.assertGreater(taken, 0)
        self.assertEqual(0, kept.write_to(self.ours.fileno(), b"head", 0, 100_000))
        source = kept.source()
        self.assertEqual(0, source.write_to(self.ours.fileno(), b"", 0, 100_000))
        self.assertEqual(octets(100_000)[5:105], source.read(5, 100))
        self.assertEqual((b"", True), (source.read(100_000, 1), source.ended(100_000)))
        source.close()
        self.ours.shutdown(socket.SHUT_RDWR)
        self.assertEqual(0, kept.write_to(self.ours.fileno(), b"head", 0, 100_000))
