"""Fills, commits, freshening, floors, removals: what is on disk afterwards, and what everybody reads meanwhile."""

from __future__ import annotations

import socket
import threading

import attrs

from edgecache.store import layout
from edgecache.store.filling import UNCOMMITTED, ContentWriter
from edgecache.store.layout import CHUNK, PIECE
from edgecache.store.record import pack
from edgecache.words.errors import StoreFull
from edgecache.words.stored import Flag, Variants
from tests.store.rooms import SPAWN, StoreTestCase, hash_of, octets, response

BOUNDARIES = sorted(
    {
        0,
        1,
        *(base + delta for base in (PIECE, 2 * PIECE, 4 * PIECE, CHUNK, 2 * CHUNK, 4 * CHUNK) for delta in (-1, 0, 1)),
        CHUNK + PIECE,
        CHUNK + PIECE + 1,
        2 * CHUNK - 1,
        20 * CHUNK + 17,
    }
)


class StoringTests(StoreTestCase):
    def test_without_a_thread_to_write_it_is_refused_and_the_next_one_finds_one(self) -> None:
        def full(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        undo = self.patch(threading.Thread, "start", full)
        writer = self.fill(octets(3 * CHUNK + 5))
        self.assertFalse(self.commit(writer, response()))
        writer.finished()
        undo.restore()
        self.store(octets(3 * CHUNK + 5), response())
        self.assertEqual(octets(3 * CHUNK + 5), self.content())

    def test_content_of_any_size_is_read_as_it_was_written(self) -> None:
        for size in BOUNDARIES:
            key = b"size %d" % size
            self.store(octets(size, size), response(key))
            self.assertEqual(octets(size, size), self.content(key), size)
        self.check()
        self.assertEqual({}, self.rows(layout.ORPHANS))

    def test_content_next_to_its_record_is_read_up_to_where_it_just_fits(self) -> None:
        room = layout.PIECE_VALUE - len(b"".join(pack(response(b"fits"), 1)))
        for size, pieces in ((room, 0), (room + 1, 1)):
            key = b"fits" if size == room else b"none"
            self.store(octets(size), response(key))
            self.assertEqual(octets(size), self.content(key))
            self.assertEqual(pieces, len(self.rows(layout.CONTENTS)))

    def test_how_it_came_in_parts_makes_no_difference(self) -> None:
        for step in (1, 4095, PIECE, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK):
            size = 20_000 if step == 1 else 3 * CHUNK + 5
            key = b"step %d" % step
            writer = self.fill(octets(size), step)
            self.assertTrue(self.commit(writer, response(key)))
            writer.finished()
            self.assertEqual(octets(size), self.content(key), step)

    def test_what_is_read_into_its_memory_is_stored_and_readable_all_the_while(self) -> None:
        content = octets(12 * CHUNK + 5)
        for step in (4095, CHUNK, 3 * CHUNK + 1):
            key = b"memory %d" % step
            writer = self.writer.begin()
            # What came with the head, and what comes last, comes as octets.
            writer.write(content[:100])
            while room := writer.room(len(content) - 7 - writer.written):
                came, filled = writer.written, 0
                for view in room:
                    part = content[came + filled : came + min(filled + len(view), step)]
                    view[: len(part)] = part
                    filled += len(part)
                writer.filled(filled)
                read = writer.read(came, filled)
                self.assertTrue(read and content.startswith(read, came), came)
            writer.write(content[writer.written :])
            self.assertTrue(self.commit(writer, response(key)))
            writer.finished()
            self.assertEqual(content, self.content(key), step)
        self.check()

    def test_a_client_is_written_to_from_memory_and_from_blobs(self) -> None:
        content = octets(9 * CHUNK + 5)
        writer = self.fill(content)
        self.assertEqual(content, self.written_to(writer))
        self.assertTrue(self.commit(writer, response()))
        self.assertEqual(content, self.written_to(writer), "all but the tail is in blobs now")
        writer.finished()

    def written_to(self, writer: ContentWriter) -> bytes:
        """What a client gets past its transport, a head of two octets included, which is taken off."""
        ours, client = socket.socketpair()
        ours.setblocking(False)
        got = bytearray()
        with ours, client:
            before, position = b"ok", 3
            while position < writer.written:
                octets = writer.write_to(ours.fileno(), before, position, 5 * CHUNK)
                self.assertGreater(octets, 0)
                position += octets - len(before)
                before = b""
                while octets:
                    got += (piece := client.recv(octets))
                    octets -= len(piece)
            self.assertEqual(0, writer.write_to(ours.fileno(), b"", position, 100))
        self.assertEqual(b"ok", got[:2])
        return writer.read(0, 3) + bytes(got[2:])

    def test_what_was_committed_is_there_after_a_restart(self) -> None:
        self.store(octets(3 * CHUNK + 5))
        self.restart()
        self.assertEqual(octets(3 * CHUNK + 5), self.content())

    def test_nothing_is_visible_before_the_commit(self) -> None:
        writer = self.fill(octets(2 * CHUNK))
        self.flush()
        self.assertIsNone(self.find())
        self.assertTrue(self.commit(writer, response()))
        self.assertIsNotNone(self.find())

    def test_all_fields_of_the_record_are_kept(self) -> None:
        stored = response(
            b"k" * 5000,
            etag=b"e" * 300,
            variant=b"v" * 70,
            digest=b"d" * 32,
            selectors=tuple(range(90)),
            last_modified=5.5,
        )
        self.store(b"content", stored)
        found = self.find(stored.key, stored.variant)
        assert found is not None
        self.assertEqual(attrs.asdict(stored), attrs.asdict(found))

    def test_another_response_for_the_key_replaces_it_and_frees_its_content(self) -> None:
        for old in (0, 100, 5 * PIECE - 50, 3 * CHUNK + 5):
            for new in (0, 200, 4 * PIECE, 2 * CHUNK + 7):
                first = self.store(octets(old))
                self.collect()
                self.store(octets(new, 1))
                self.assertEqual(octets(new, 1), self.content(), (old, new))
                if old >= CHUNK:
                    self.assertEqual(
                        {first.content_id: layout.ORPHAN_ROW.pack(layout.NOBODY, old // CHUNK * CHUNK)},
                        self.rows(layout.ORPHANS),
                    )
                self.check()

    def collect(self) -> None:
        """What the collector does with orphans."""
        for content_id in self.rows(layout.ORPHANS):
            for name in (layout.CHUNKS, layout.CONTENTS, layout.ORPHANS):
                environment = self.environments.blobs if name == layout.CHUNKS else self.environments.small
                for key in self.rows(name):
                    if key.startswith(content_id):
                        with environment.env.begin(write=True) as txn:
                            txn.delete(key, db=environment.databases[name])

    def test_a_record_of_a_higher_floor_is_never_replaced(self) -> None:
        """DESIGN 9: content fetched before a purge can never be taken for fresh after it."""
        self.store(octets(100), response(floor=8))
        for size in (200, 2 * CHUNK + 1):
            writer = self.fill(octets(size, 1))
            self.assertFalse(self.commit(writer, response(floor=7)))
            self.assertEqual(octets(size, 1)[:50], writer.read(0, 50))
            self.assertIsNone(writer.failed)
            writer.abandon()
            self.flush()
            self.assertEqual(octets(100), self.content())
            self.check()
        self.store(octets(300, 2), response(floor=8))
        self.assertEqual(octets(300, 2), self.content())

    def test_a_response_that_came_later_is_not_replaced_by_one_that_took_longer(self) -> None:
        """RFC 9111 §4: of several the most recent. Not where clocks were set back, nor what a fallback has said."""
        came = response().validated_at
        for later, flags, kept in ((0.0, 0, False), (1.0, 0, True), (60.0, 0, False), (1.0, int(Flag.FALLBACK), False)):
            self.store(octets(100), response(floor=8, validated_at=came + later, flags=flags))
            writer = self.fill(octets(200, 1))
            self.assertEqual(not kept, self.commit(writer, response(floor=8)), (later, flags))
            if kept:
                writer.abandon()
                self.flush()
            self.store(octets(50, 2), response(floor=8, validated_at=came + 120.0))

    def test_the_queue_has_the_oldest_first_and_one_row_per_record(self) -> None:
        for key in (b"a", b"b", b"c", b"a"):
            self.store(octets(10), response(key))
        rows = [layout.QUEUE_ROW.unpack_from(row) for _, row in sorted(self.rows(layout.QUEUE).items())]
        self.assertEqual([hash_of(key) for key in (b"b", b"c", b"a")], [row[0] for row in rows])
        self.assertEqual({10}, {row[2] for row in rows})

    def test_sequences_go_on_after_a_restart_and_after_the_last_row_went(self) -> None:
        stored = self.store(b"x")
        before = max(self.rows(layout.QUEUE))
        self.writer.remove(hash_of(b"key"), stored.content_id)
        self.restart()
        self.store(b"y")
        self.assertGreater(max(self.rows(layout.QUEUE)), before)


class VariantsTests(StoreTestCase):
    """RFC 9111 §4.1: a record per variant, and one under the primary key that says what to look at."""

    def nominated(self) -> list[tuple[bytes, ...]]:
        found = self.reader.look_up(hash_of(b"key"), b"key")
        self.reader.done()
        assert isinstance(found, Variants)
        return found.nominated

    def put_variant(self, variant: bytes, names: tuple[bytes, ...], floor: int = 1) -> bool:
        writer = self.fill(b"as " + variant)
        primary = (hash_of(b"key"), Variants(b"key", [names]))
        stored = response(variant=variant, floor=floor)
        done = self.commit(writer, stored, primary)
        writer.finished()
        return done

    def test_the_newest_nomination_comes_first_and_none_is_forgotten(self) -> None:
        self.put_variant(b"one", (b"accept",))
        self.put_variant(b"two", (b"accept", b"accept-encoding"))
        self.assertEqual([(b"accept", b"accept-encoding"), (b"accept",)], self.nominated())
        self.put_variant(b"three", (b"accept",))
        self.assertEqual([(b"accept",), (b"accept", b"accept-encoding")], self.nominated())
        self.assertEqual(b"as one", self.content(variant=b"one"))
        self.assertEqual(b"as two", self.content(variant=b"two"))
        self.check()

    def test_an_origin_that_nominates_something_else_each_time_does_not_grow_it(self) -> None:
        for number in range(20):
            self.put_variant(b"v%d" % number, (b"x-%d" % number,))
        self.assertEqual([(b"x-%d" % number,) for number in (19, 18, 17, 16)], self.nominated())

    def test_it_is_younger_in_the_queue_than_each_of_its_variants(self) -> None:
        for variant in (b"one", b"two"):
            self.put_variant(variant, (b"accept",))
        rows = [layout.QUEUE_ROW.unpack_from(row) for _, row in sorted(self.rows(layout.QUEUE).items())]
        self.assertEqual(hash_of(b"key"), rows[-1][0])
        self.assertEqual(3, len(rows))

    def test_it_replaces_a_response_that_did_not_vary_and_the_other_way_round(self) -> None:
        self.store(octets(2 * CHUNK))
        self.assertTrue(self.put_variant(b"one", (b"accept",)))
        self.assertEqual([(b"accept",)], self.nominated())
        self.check()
        self.store(b"plain again")
        self.assertEqual(b"plain again", self.content())
        self.check()

    def test_it_does_not_replace_a_response_of_a_higher_floor(self) -> None:
        self.store(b"newer", response(floor=9))
        self.assertFalse(self.put_variant(b"one", (b"accept",), floor=8))
        self.assertEqual(b"newer", self.content())
        self.assertIsNone(self.find(variant=b"one"))


class FresheningTests(StoreTestCase):
    """RFC 9111 §4.3.4: other fields and numbers, the same content."""

    def test_the_head_changes_and_the_content_stays_wherever_it_lies(self) -> None:
        for size in (0, 100, 3 * PIECE, 2 * CHUNK + 9):
            key = b"%d" % size
            stored = self.store(octets(size), response(key))
            newer = attrs.evolve(stored, head=b"HTTP/1.1 200 Fine\r\nX: y\r\n" * 9, fresh_until=5.0, floor=3)
            self.assertTrue(self.loop.result(self.writer.put(hash_of(key), newer)))
            found = self.find(key)
            assert found is not None
            self.assertEqual(attrs.asdict(newer), attrs.asdict(found))
            self.assertEqual(octets(size), self.content(key))
            self.check()

    def test_it_keeps_its_place_in_the_queue(self) -> None:
        stored = self.store(b"x")
        before = self.rows(layout.QUEUE)
        self.loop.result(self.writer.put(hash_of(b"key"), attrs.evolve(stored, floor=2)))
        self.assertEqual(before, self.rows(layout.QUEUE))

    def test_nothing_is_written_when_the_content_was_replaced_or_has_gone(self) -> None:
        """A record without its content must not rise again."""
        stored = self.store(octets(100))
        self.store(octets(200, 1))
        self.assertFalse(self.loop.result(self.writer.put(hash_of(b"key"), stored)))
        self.assertEqual(octets(200, 1), self.content())
        newer = self.find()
        assert newer is not None
        self.writer.remove(hash_of(b"key"), newer.content_id)
        self.assertFalse(self.loop.result(self.writer.put(hash_of(b"key"), newer)))
        self.assertIsNone(self.find())

    def test_a_lower_floor_does_not_come_back(self) -> None:
        stored = self.store(b"x", response(floor=9))
        self.assertFalse(self.loop.result(self.writer.put(hash_of(b"key"), attrs.evolve(stored, floor=8))))

    def test_a_floor_is_raised_but_never_lowered_and_only_on_the_same_content(self) -> None:
        for size in (0, 100, 2 * PIECE, 2 * CHUNK + 9):
            key = b"%d" % size
            stored = self.store(octets(size), response(key, floor=5))
            for content_id, floor, expected in (
                (stored.content_id, 4, 5),
                (bytes(16), 9, 5),
                (stored.content_id, 8, 8),
                (stored.content_id, 7, 8),
            ):
                self.writer.raise_floor(hash_of(key), content_id, floor)
                self.flush()
                found = self.find(key)
                assert found is not None
                self.assertEqual(expected, found.floor)
            self.assertEqual(attrs.asdict(attrs.evolve(stored, floor=8)), attrs.asdict(found))
            self.assertEqual(octets(size), self.content(key))
        self.check()


class RemovingTests(StoreTestCase):
    def test_a_removed_record_is_a_miss_and_its_content_is_freed_or_an_orphan(self) -> None:
        for size in (0, 100, 4 * PIECE, 3 * CHUNK + 1):
            stored = self.store(octets(size))
            self.writer.remove(hash_of(b"key"), stored.content_id)
            self.flush()
            self.assertIsNone(self.find())
            self.check()
            self.assertEqual({}, self.rows(layout.QUEUE))
        self.assertEqual([stored.content_id], list(self.rows(layout.ORPHANS)))

    def test_a_replaced_one_is_not_removed(self) -> None:
        first = self.store(b"x")
        self.store(b"y")
        self.writer.remove(hash_of(b"key"), first.content_id)
        self.writer.remove(hash_of(b"nothing"), first.content_id)
        self.flush()
        self.assertEqual(b"y", self.content())


class FillingTests(StoreTestCase):
    """DESIGN 5 and 7: waiters stream from octet 0 while content grows; chunks are known before they are there."""

    def test_every_position_is_readable_at_every_moment(self) -> None:
        content = octets(6 * CHUNK + 1000)
        writer = self.writer.begin()
        moments = 0
        for start in range(0, len(content), 50_000):
            writer.write(content[start : start + 50_000])
            for position in (0, start, CHUNK - 1, CHUNK, writer.written - 1, writer.written):
                if position <= writer.written:
                    data = writer.read(position, 70_000)
                    self.assertEqual(content[position : position + len(data)], data)
                    self.assertEqual(position < writer.written, bool(data))
                    self.assertLessEqual(len(data), 70_000)
                    moments += 1
            self.flush()
        self.assertGreater(moments, 40)
        self.assertEqual(content, self.read_all(writer))
        self.assertTrue(self.commit(writer, response()))
        self.assertEqual(content, self.read_all(writer))
        self.assertEqual(content, self.read_all(writer, 7_001))
        self.assertEqual(content, self.read_all(writer, 200_000))
        writer.finished()

    def read_all(self, writer, limit: int = 65536) -> bytes:  # type: ignore[no-untyped-def]
        got = b""
        while len(got) < writer.written:
            got += writer.read(len(got), limit)
        return got

    def test_a_piece_is_handed_on_as_it_came(self) -> None:
        writer = self.writer.begin()
        data = octets(9000)
        writer.write(data)
        self.assertIs(data, writer.read(0, 65536))

    def test_the_orphan_row_is_there_before_the_first_chunk(self) -> None:
        writer = self.fill(octets(3 * CHUNK))
        self.loop.until(lambda: self.rows(layout.ORPHANS))
        self.assertEqual({writer.content_id: layout.ORPHAN_ROW.pack(SPAWN, 0)}, self.rows(layout.ORPHANS))
        self.loop.until(lambda: self.rows(layout.CHUNKS))
        self.assertIn(writer.content_id, self.rows(layout.ORPHANS))

    def test_chunks_leave_memory_when_blobs_has_them(self) -> None:
        writer = self.fill(octets(40 * CHUNK))
        self.assertEqual(40 * CHUNK, writer._shared.budget.held)
        self.loop.until(lambda: len(self.rows(layout.CHUNKS)) == 40 and not writer._shared.budget.held)
        self.assertEqual({}, writer._chunks)

    def test_small_content_leaves_no_orphan_and_no_chunk(self) -> None:
        self.store(octets(CHUNK - 1))
        self.assertEqual(({}, {}), (self.rows(layout.ORPHANS), self.rows(layout.CHUNKS)))

    def test_an_abandoned_fill_becomes_nobodys_orphan_after_its_last_chunk(self) -> None:
        writer = self.fill(octets(30 * CHUNK + 5))
        self.loop.until(lambda: self.rows(layout.ORPHANS))
        writer.abandon()

        def owner() -> int:
            spawn: int = layout.ORPHAN_ROW.unpack(self.rows(layout.ORPHANS)[writer.content_id])[0]
            return spawn

        # That the row is there was perhaps not told yet: then nothing is on its way, and it is given up a turn later.
        self.loop.until(lambda: owner() == layout.NOBODY)
        self.assertFalse(writer._shared.budget.held)
        chunks = self.rows(layout.CHUNKS)
        self.flush()
        self.assertEqual(chunks, self.rows(layout.CHUNKS))

    def test_abandoned_before_its_orphan_row_was_there_it_leaves_nothing_behind(self) -> None:
        writer = self.fill(octets(3 * CHUNK))
        writer.abandon()
        self.flush()
        self.flush()
        self.assertEqual({}, self.rows(layout.CHUNKS))
        self.assertEqual(
            {writer.content_id: layout.ORPHAN_ROW.pack(layout.NOBODY, 3 * CHUNK)}, self.rows(layout.ORPHANS)
        )

    def test_abandoned_before_a_full_chunk_it_leaves_nothing_behind(self) -> None:
        self.fill(octets(1000)).abandon()
        self.flush()
        self.assertEqual({}, self.rows(layout.ORPHANS))

    def test_given_up_while_its_commit_waits_it_is_not_committed(self) -> None:
        writer = self.fill(octets(3 * CHUNK))
        outcome = writer.commit(hash_of(b"key"), response())
        writer.abandon()
        self.assertFalse(self.loop.result(outcome))
        self.flush()
        self.assertIsNone(self.find())
        self.check()

    def test_a_waiter_reads_on_from_content_that_was_replaced_and_it_stays_pinned_until_then(self) -> None:
        content = octets(5 * CHUNK + 3)
        writer = self.fill(content)
        self.assertTrue(self.commit(writer, response()))
        self.assertEqual({writer.content_id}, self.node_page.pins())
        self.store(b"another")
        self.assertEqual(content, self.read_all(writer))
        writer.finished()
        self.assertEqual(set(), self.node_page.pins())

    def test_more_than_two_groups_that_wait_for_blobs_are_congestion(self) -> None:
        writer = self.writer.begin()
        woken: list[bool] = []
        writer.attach(_Waker(lambda: woken.append(writer.congested)))
        while not writer.congested:
            writer.write(octets(CHUNK))
        self.assertGreater(writer.written, UNCOMMITTED)
        self.assertLess(writer.written, UNCOMMITTED + 2 * CHUNK)
        self.loop.until(lambda: woken)
        self.assertEqual([False], woken)

    def test_all_fills_together_are_bounded_too_and_woken_when_there_is_room(self) -> None:
        writers = [self.writer.begin() for _ in range(8)]
        woken: set[int] = set()
        for number, writer in enumerate(writers):
            writer.attach(_Waker(lambda number=number: woken.add(number)))  # type: ignore[misc]
        while not writers[0]._shared.budget.exceeded:
            for writer in writers:
                writer.write(octets(CHUNK))
        self.assertEqual([True] * 8, [writer.congested for writer in writers])
        self.loop.until(lambda: len(woken) == 8)
        self.assertEqual([False] * 8, [writer.congested for writer in writers])


class _Waker:
    def __init__(self, wake) -> None:  # type: ignore[no-untyped-def]
        self.wake = wake


class FullTests(StoreTestCase):
    """A full map or disk never takes the node down: it is served, not stored."""

    def test_above_its_share_blobs_takes_no_new_content_which_stays_readable(self) -> None:
        self.node_page.set_full(False, True)
        content = octets(5 * CHUNK + 5)
        writer = self.fill(content)
        self.assertIsInstance(writer.failed, StoreFull)
        self.assertEqual(content[CHUNK - 5 : CHUNK], writer.read(CHUNK - 5, 100))
        self.assertFalse(self.commit(writer, response()))
        self.assertEqual(content[5 * CHUNK :], writer.read(5 * CHUNK, 100))
        writer.abandon()
        self.flush()
        self.assertEqual(({}, {}), (self.rows(layout.ORPHANS), self.rows(layout.CHUNKS)))

    def test_above_its_share_small_takes_nothing_but_changes_what_it_has(self) -> None:
        stored = self.store(b"x", response(b"old"))
        self.node_page.set_full(True, False)
        writer = self.fill(b"new")
        self.assertFalse(self.commit(writer, response()))
        self.assertIsInstance(writer.failed, StoreFull)
        self.assertEqual(b"new", writer.read(0, 10))
        self.assertTrue(self.loop.result(self.writer.put(hash_of(b"old"), attrs.evolve(stored, floor=2))))

    def test_once_failed_the_slowest_reader_decides_what_is_kept(self) -> None:
        self.node_page.set_full(False, True)
        writer = self.fill(octets(5 * CHUNK + 5))
        writer.discard(3 * CHUNK + 1)
        self.assertEqual({3, 4}, set(writer._chunks))
        self.assertEqual(octets(5 * CHUNK + 5)[3 * CHUNK + 1 : 4 * CHUNK], writer.read(3 * CHUNK + 1, CHUNK))
        writer.discard(5 * CHUNK + 5)
        self.assertEqual(octets(5 * CHUNK + 5)[5 * CHUNK :], writer.read(5 * CHUNK, 10))

    def test_a_full_map_fails_the_fill_and_the_others_go_on(self) -> None:
        """64 MiB of store: its maps are full before any collector would notice here."""
        failed = []
        for number in range(16):
            key = b"%d" % number
            writer = self.fill(octets(4 << 20, number), 1 << 20)
            if self.commit(writer, response(key)):
                writer.finished()
                self.assertEqual(octets(4 << 20, number), self.content(key))
                continue
            failed.append(number)
            self.assertIsInstance(writer.failed, StoreFull)
            position = 0
            while position < writer.written:
                data = writer.read(position, 65536)
                self.assertEqual(octets(4 << 20, number)[position : position + len(data)], data)
                position += len(data)
            writer.abandon()
        self.assertGreaterEqual(len(failed), 2)
        self.store(b"small is not full", response(b"small"))
        self.assertEqual(b"small is not full", self.content(b"small"))
        self.check()

    def test_a_full_map_of_small_refuses_only_what_does_not_fit(self) -> None:
        outcomes = [self.writer.begin() for _ in range(3000)]
        results = []
        for number, writer in enumerate(outcomes):
            writer.write(octets(12_000, number))
            results.append(writer.commit(hash_of(b"%d" % number), response(b"%d" % number)))
        stored = [self.loop.result(result) for result in results]
        self.assertIn(False, stored)
        self.assertGreater(stored.count(True), 500)
        for number, done in enumerate(stored):
            self.assertEqual(octets(12_000, number) if done else None, self.content(b"%d" % number))
        self.check()


class ClosingTests(StoreTestCase):
    def test_what_was_asked_for_before_closing_is_on_disk_and_nothing_after_it(self) -> None:
        from twisted.internet.defer import Deferred

        early, late = self.fill(b"early"), self.fill(octets(2 * CHUNK))
        outcome = early.commit(hash_of(b"early"), response(b"early"))
        closing = Deferred.fromCoroutine(self.writer.close())
        self.loop.result(closing)
        self.assertTrue(self.successResultOf(outcome))
        self.assertFalse(self.successResultOf(late.commit(hash_of(b"late"), response(b"late"))))
        self.assertIsInstance(late.failed, StoreFull)
        self.assertFalse(self.successResultOf(self.writer.put(hash_of(b"early"), response(b"early"))))
        self.assertEqual(b"early", self.content(b"early"))
        late.abandon()

    def test_a_fill_that_gives_up_at_the_first_refused_chunk_is_not_asked_for_the_others(self) -> None:
        from twisted.internet.defer import Deferred

        class GivesUp:
            def wake(self) -> None:
                late.abandon()

        late = self.fill(octets(3 * CHUNK))
        late.attach(GivesUp())
        self.loop.result(Deferred.fromCoroutine(self.writer.close()))
        self.assertIsInstance(late.failed, StoreFull)
        self.assertEqual([], self.flushLoggedErrors())

    def flush(self) -> None:
        """Nothing is flushed once closed."""

    def test_the_place_of_content_is_a_flag_of_the_record(self) -> None:
        self.assertFalse(self.store(octets(CHUNK - 1), response(flags=Flag.IN_BLOBS)).flags & Flag.IN_BLOBS)
        self.assertTrue(self.store(octets(CHUNK), response(flags=Flag.HEURISTIC)).flags & Flag.IN_BLOBS)
