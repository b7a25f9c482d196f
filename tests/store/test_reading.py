"""Look-ups and content: verified, copied within their transaction, and a miss where anything is wrong."""

from __future__ import annotations

import gc
import itertools
import socket

import attrs

from edgecache.store import layout, reading
from edgecache.store.layout import CHUNK, PIECE
from edgecache.store.reading import AT_ONCE, StoreReader
from edgecache.store.record import pack
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentMissing
from edgecache.words.stored import Stored
from tests.store.rooms import StoreTestCase, hash_of, octets, response


class LookingUpTests(StoreTestCase):
    def test_what_was_never_stored_is_a_miss(self) -> None:
        self.assertIsNone(self.find())

    def test_a_record_of_another_key_under_the_same_hash_is_a_miss(self) -> None:
        self.store(b"x")
        self.assertIsNone(self.reader.look_up(hash_of(b"key"), b"another key"))

    def test_it_follows_every_change(self) -> None:
        """See Note [memo of records]: the memo never answers what LMDB no longer has."""
        stored = self.store(octets(100))
        key_hash = hash_of(b"key")
        self.assertEqual(1, self.find().floor)  # type: ignore[union-attr]
        self.writer.raise_floor(key_hash, stored.content_id, 5)
        self.flush()
        self.assertEqual(5, self.find().floor)  # type: ignore[union-attr]
        self.loop.result(self.writer.put(key_hash, attrs.evolve(stored, floor=6, head=b"other")))
        self.assertEqual((6, b"other"), (self.find().floor, self.find().head))  # type: ignore[union-attr]
        self.store(octets(100, 1), response(floor=6, head=b"other"))
        self.assertEqual(octets(100, 1), self.content())
        self.writer.remove(key_hash, self.find().content_id)  # type: ignore[union-attr]
        self.flush()
        self.assertIsNone(self.find())

    def test_unchanged_it_is_the_same_value_on_every_hit(self) -> None:
        self.store(octets(100))
        self.assertIs(self.find(), self.find())

    def test_what_is_remembered_is_bounded(self) -> None:
        self.patch(reading, "MEMO_RECORDS", 3)
        for number in range(6):
            self.store(b"%d" % number, response(b"%d" % number))
        self.store(b"large", response(b"large", head=b"h" * 5000))
        for _ in range(2):
            for number in range(6):
                self.assertEqual(b"%d" % number, self.content(b"%d" % number))
            self.assertEqual(b"large", self.content(b"large"))
        self.assertEqual([hash_of(b"%d" % number) for number in (3, 4, 5)], list(self.reader._memo))

    def test_record_and_content_are_of_one_moment(self) -> None:
        """A commit between look-up and content changes nothing for whoever looked up."""
        for size in (100, 3 * PIECE):
            self.store(octets(size))
            found = self.reader.look_up(hash_of(b"key"), b"key")
            assert isinstance(found, Stored)
            self.store(octets(size, 1))
            self.assertEqual(octets(size), self.reader.content(found))
            self.reader.done()
            self.assertEqual(octets(size, 1), self.content())

    def test_content_is_read_only_of_what_was_just_found(self) -> None:
        first = self.store(b"x")
        self.assertRaises(ContentMissing, self.reader.content, first)
        self.store(b"y")
        self.reader.look_up(hash_of(b"key"), b"key")
        self.assertRaises(ContentMissing, self.reader.content, first)
        self.reader.done()
        self.assertRaises(ContentMissing, self.reader.whole, first)

    def test_another_head_of_the_same_content_may_ask_for_it(self) -> None:
        for size in (100, 3 * PIECE, CHUNK + 1):
            stored = self.store(octets(size))
            self.reader.look_up(hash_of(b"key"), b"key")
            self.assertEqual(octets(size), b"".join(self.reader.whole(attrs.evolve(stored, head=b"new"))))
            self.reader.done()

    def test_every_size_up_to_the_bound_is_read_whole(self) -> None:
        for size in (0, 1, PIECE, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + PIECE + 1, AT_ONCE):
            key = b"%d" % size
            self.store(octets(size), response(key))
            found = self.reader.look_up(hash_of(key), key)
            assert isinstance(found, Stored)
            self.assertEqual(octets(size), b"".join(self.reader.whole(found)))
            self.reader.done()

    def test_full_chunks_and_what_follows_them_can_be_read_by_themselves(self) -> None:
        stored = self.store(octets(2 * CHUNK + 5))
        content = octets(2 * CHUNK + 5)
        self.assertEqual(content[CHUNK : 2 * CHUNK], self.reader.chunks(b"", stored.content_id, 1, 1))
        self.assertEqual(content[2 * CHUNK :], self.reader.tail(b"", stored.content_id, stored.size))
        self.assertRaises(ContentMissing, self.reader.chunks, b"", bytes(16), 0, 1)
        self.assertRaises(ContentMissing, self.reader.tail, b"", bytes(16), 5)

    def test_any_part_can_be_read(self) -> None:
        size = 3 * CHUNK + PIECE + 7
        stored, content = self.store(octets(size)), octets(size)
        edges = [edge + by for edge in (0, CHUNK, 3 * CHUNK, 3 * CHUNK + PIECE, size) for by in (-1, 0, 1)]
        for start, stop in itertools.combinations([edge for edge in edges if 0 <= edge <= size], 2):
            part = self.reader.part(hash_of(b"key"), stored.content_id, size, start, stop)
            self.assertEqual(content[start:stop], part, (start, stop))

    def test_no_read_transaction_stays_open(self) -> None:
        """An open one keeps every page that is freed meanwhile (FIELD 7)."""
        self.store(octets(3 * CHUNK + 5))
        self.store(b"small", response(b"small"))
        self.find(b"nothing")
        self.content(b"small")
        self.content()
        self.assertRaises(ContentMissing, self.reader.chunks, b"", bytes(16), 0, 1)
        for environment in (self.environments.small, self.environments.blobs):
            lines = environment.env.readers().splitlines()[1:]
            self.assertEqual(["-"] * len(lines), [line.split()[-1] for line in lines])


class SourceTests(StoreTestCase):
    """:class:`StoredSource`: any position, any step, pinned as long as somebody reads."""

    def test_whether_it_begins_can_be_asked_before_anything_is_sent(self) -> None:
        stored = self.store(octets(3 * CHUNK))
        self.alter(layout.CHUNKS, layout.place(stored.content_id, 1), lambda value: value.__setitem__(0, value[0] ^ 1))
        source = self.reader.open_source(hash_of(b"key"), stored)
        assert source is not None
        self.assertEqual([True, False, True], [source.begins(index * CHUNK + 5) for index in range(3)])
        source.close()

    def opened(self, key: bytes = b"key"):  # type: ignore[no-untyped-def]
        found = self.reader.look_up(hash_of(key), key)
        assert isinstance(found, Stored)
        source = self.reader.open_source(hash_of(key), found)
        assert source is not None
        return source

    def test_any_position_in_any_step_gives_the_same_octets(self) -> None:
        content = octets(5 * CHUNK + 2 * PIECE + 7)
        self.store(content)
        source = self.opened()
        for step in (1000, 16384, CHUNK - 1, CHUNK, CHUNK + 1, 65536, 262144, 1 << 30):
            for start in (0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5, 5 * CHUNK, len(content) - 1, len(content)):
                position = start
                while not source.ended(position):
                    data = source.read(position, step)
                    self.assertLessEqual(1, len(data))
                    self.assertLessEqual(len(data), step)
                    self.assertEqual(content[position : position + len(data)], data)
                    position += len(data)
                    if step == 1000 and position > start + 3 * CHUNK // 2:
                        break
        self.assertEqual(b"", source.read(len(content), 10))
        self.assertEqual(len(content), source.length)

    def test_it_is_pinned_until_the_last_reader_leaves(self) -> None:
        stored = self.store(octets(2 * CHUNK))
        source = self.opened()
        readers = [object(), object()]
        for reader in readers:
            source.attach(reader)
        self.assertEqual({stored.content_id}, self.node_page.pins())
        source.detach(readers[0])
        self.assertEqual({stored.content_id}, self.node_page.pins())
        source.detach(readers[1])
        self.assertEqual(set(), self.node_page.pins())
        source.detach(readers[1])

    def test_never_attached_it_is_unpinned_when_it_is_forgotten(self) -> None:
        """A client that has gone attaches nothing."""
        self.store(octets(2 * CHUNK))
        source = self.opened()
        self.assertEqual(1, len(self.node_page.pins()))
        del source
        gc.collect()
        self.assertEqual(set(), self.node_page.pins())

    def test_content_that_was_replaced_after_the_look_up_is_not_opened(self) -> None:
        self.store(octets(2 * CHUNK))
        found = self.find()
        assert found is not None
        self.store(octets(2 * CHUNK, 1))
        self.assertIsNone(self.reader.open_source(hash_of(b"key"), found))
        self.assertEqual(set(), self.node_page.pins())
        newer = self.find()
        assert newer is not None
        self.writer.remove(hash_of(b"key"), newer.content_id)
        self.flush()
        self.assertIsNone(self.reader.open_source(hash_of(b"key"), newer))
        self.assertEqual(set(), self.node_page.pins())

    def test_replaced_while_it_is_sent_it_is_still_read_to_its_end_tail_included(self) -> None:
        """See Note [who frees content]."""
        content = octets(2 * CHUNK + 3 * PIECE)
        stored = self.store(content)
        source = self.opened()
        self.assertEqual(content[:CHUNK], source.read(0, 65536))
        self.store(b"another")
        self.flush()
        got = b""
        while not source.ended(len(got)):
            got += source.read(len(got), 65536)
        self.assertEqual(content, got)
        self.assertEqual({stored.content_id}, self.node_page.pins())
        source.close()

    def test_without_a_free_pin_it_is_read_all_the_same(self) -> None:
        self.store(octets(2 * CHUNK))
        slots = []
        while (slot := self.page.pin(len(slots).to_bytes(16, "big"))) is not None:
            slots.append(slot)
        self.assertEqual(octets(2 * CHUNK), self.content())
        for slot in slots:
            self.page.unpin(slot)

    def test_a_chunk_that_is_gone_is_a_failure_not_an_exception(self) -> None:
        stored = self.store(octets(3 * CHUNK))
        source = self.opened()
        with self.environments.blobs.env.begin(write=True) as txn:
            txn.delete(layout.place(stored.content_id, 1), db=self.environments.blobs.databases[layout.CHUNKS])
        self.assertEqual(octets(3 * CHUNK)[:CHUNK], source.read(0, 65536))
        self.assertEqual(b"", source.read(CHUNK, 65536))
        assert isinstance(source.failed, ContentMissing)
        self.assertEqual((stored.content_id, 1), (source.failed.content_id, source.failed.index))
        self.assertEqual(b"", source.read(0, 65536))


class DirectTests(StoreTestCase):
    """:meth:`StoredSource.write_to`: from the map to a socket, never more than was verified."""

    def setUp(self) -> None:
        super().setUp()
        self.near, self.far = socket.socketpair()
        for end in (self.near, self.far):
            self.addCleanup(end.close)
        self.near.setblocking(False)

    def opened(self):  # type: ignore[no-untyped-def]
        found = self.find()
        assert found is not None
        source = self.reader.open_source(hash_of(b"key"), found)
        assert source is not None
        self.addCleanup(source.close)
        return source

    def test_whatever_the_socket_takes_is_exact_from_any_position(self) -> None:
        content = octets(9 * CHUNK + 100)
        self.store(content)
        source = self.opened()
        for position in (0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 77):
            taken = source.write_to(self.near.fileno(), b"head", position, 1 << 30)
            self.assertGreater(taken, 4)
            got = b""
            while len(got) < taken:
                got += self.far.recv(1 << 20)
            self.assertEqual((b"head" + content[position:])[:taken], got)

    def test_any_part_is_written_exactly_tail_included(self) -> None:
        content = octets(2 * CHUNK + 100)
        self.store(content)
        source = self.opened()
        edges = sorted({0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, len(content)})
        for start, stop in itertools.combinations(edges, 2):
            taken = source.write_to(self.near.fileno(), b"head", start, stop - start)
            self.assertEqual(4 + stop - start, taken)
            got = b""
            while len(got) < taken:
                got += self.far.recv(1 << 20)
            self.assertEqual(b"head" + content[start:stop], got, (start, stop))
        self.assertEqual(0, source.write_to(self.near.fileno(), b"", len(content), 1 << 30))
        self.assertIsNone(source.failed)

    def test_a_socket_that_is_full_or_broken_takes_nothing(self) -> None:
        self.store(octets(9 * CHUNK))
        source = self.opened()
        while source.write_to(self.near.fileno(), b"", 0, 1 << 30):
            pass
        self.far.close()
        self.assertEqual(0, source.write_to(self.near.fileno(), b"", 0, 1 << 30))
        self.assertIsNone(source.failed)

    def test_a_damaged_chunk_is_a_failure_and_nothing_of_it_is_written(self) -> None:
        stored = self.store(octets(3 * CHUNK))
        self.alter(layout.CHUNKS, layout.place(stored.content_id, 1), lambda value: value.reverse())
        source = self.opened()
        self.assertEqual(0, source.write_to(self.near.fileno(), b"head", 0, 1 << 30))
        self.assertIsInstance(source.failed, ContentMissing)
        self.far.setblocking(False)
        self.assertRaises(BlockingIOError, self.far.recv, 1)


class DamageTests(StoreTestCase):
    """DESIGN 7: a damaged record or chunk never takes the node down, and is never served."""

    def flip(self, at: int):  # type: ignore[no-untyped-def]
        def change(value: bytearray) -> None:
            value[at] ^= 1

        return change

    def damaged(self) -> int:
        return self.page.get(Counter.DAMAGED)

    def test_a_damaged_record_is_a_miss_and_removed(self) -> None:
        for at in (0, 1, 8, 30, 200):
            self.store(octets(100))
            self.alter(layout.RECORDS, hash_of(b"key"), self.flip(at))
            before = self.damaged()
            self.assertIsNone(self.find())
            self.assertEqual(before + 1, self.damaged())
            self.flush()
            self.assertEqual({}, self.rows(layout.RECORDS), at)

    def test_a_damaged_record_can_be_overwritten_before_anybody_noticed(self) -> None:
        self.store(octets(100))
        self.alter(layout.RECORDS, hash_of(b"key"), self.flip(30))
        self.store(octets(100, 1))
        self.assertEqual(octets(100, 1), self.content())

    def test_one_that_was_replaced_meanwhile_is_not_removed(self) -> None:
        self.store(octets(100))
        self.alter(layout.RECORDS, hash_of(b"key"), self.flip(30))
        self.assertIsNone(self.find())
        self.store(octets(100, 1))
        self.flush()
        self.assertEqual(octets(100, 1), self.content())

    def test_damaged_content_next_to_its_record_is_missing_and_removed(self) -> None:
        for at in (-1, -100, -50):
            self.store(octets(100))
            self.alter(layout.RECORDS, hash_of(b"key"), self.flip(at))
            self.assertRaises(ContentMissing, self.content)
            self.flush()
            self.assertIsNone(self.find())
            self.check()

    def test_inline_content_cut_or_grown_is_missing(self) -> None:
        for change in (lambda value: value.pop(), lambda value: value.append(0)):
            self.store(octets(100))
            self.alter(layout.RECORDS, hash_of(b"key"), change)
            self.assertRaises(ContentMissing, self.content)
            self.flush()
            self.assertIsNone(self.find())

    def test_a_damaged_or_missing_piece_is_missing_content_and_the_record_goes(self) -> None:
        for size in (3 * PIECE, 2 * CHUNK + 2 * PIECE):
            for change in (self.flip(5), self.flip(-1), lambda value: value.pop()):
                stored = self.store(octets(size))
                self.alter(layout.CONTENTS, layout.place(stored.content_id, 1), change)
                self.assertRaises(ContentMissing, self.content)
                self.flush()
                self.assertIsNone(self.find())
                self.check()

    def test_a_damaged_chunk_is_missing_content_and_the_record_goes(self) -> None:
        for change in (self.flip(5), self.flip(-1), lambda value: value.pop()):
            stored = self.store(octets(3 * CHUNK + 1))
            self.alter(layout.CHUNKS, layout.place(stored.content_id, 2), change)
            self.assertRaises(ContentMissing, self.content)
            self.flush()
            self.assertIsNone(self.find())
            self.check()
            self.assertIn(stored.content_id, self.rows(layout.ORPHANS))

    def test_an_intact_chunk_of_other_content_is_not_taken_for_this(self) -> None:
        """A write that the disk lost leaves an older page, checksum and all."""
        one = self.store(octets(2 * CHUNK + 5), response(b"one"))
        two = self.store(octets(2 * CHUNK + 5, 1), response(b"two"))
        older = self.rows(layout.CHUNKS)[layout.place(one.content_id, 0)]

        def replace(value: bytearray) -> None:
            value[:] = older

        for index in (0, 1):
            self.alter(layout.CHUNKS, layout.place(two.content_id, index), replace)
            self.assertRaises(ContentMissing, self.reader.chunks, b"", two.content_id, index, 1)
        self.alter(layout.CHUNKS, layout.place(one.content_id, 1), replace)
        self.assertRaises(ContentMissing, self.reader.chunks, b"", one.content_id, 1, 1)

    def test_a_record_of_a_later_version_is_a_miss(self) -> None:
        value = bytearray(b"".join(pack(response(), 1)))
        value[0] = layout.RECORD_VERSION + 1
        with self.environments.small.env.begin(write=True) as txn:
            txn.put(hash_of(b"key"), bytes(value), db=self.environments.small.databases[layout.RECORDS])
        self.assertIsNone(self.find())

    def test_a_fill_reports_a_chunk_that_it_cannot_read_back(self) -> None:
        writer = self.fill(octets(3 * CHUNK + 5))
        self.loop.until(lambda: not writer._chunks)
        self.alter(layout.CHUNKS, layout.place(writer.content_id, 1), self.flip(7))
        self.assertEqual(CHUNK, len(writer.read(0, 65536)))
        self.assertRaises(ContentMissing, writer.read, CHUNK, 65536)
        writer.abandon()

    def test_without_anybody_to_tell_it_is_still_a_miss(self) -> None:
        reader = StoreReader(self.environments, self.page)
        self.store(octets(100))
        self.alter(layout.RECORDS, hash_of(b"key"), self.flip(30))
        self.assertIsNone(reader.look_up(hash_of(b"key"), b"key"))
        reader.done()
