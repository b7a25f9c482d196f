"""Large content that only the disk has: the loop reads none of it before a thread has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store.ahead import BELIEVED_SECONDS, CAREFUL, CHECKED, READ, Ahead, Disk
from edgecache.store.layout import CHUNK
from tests.store.rooms import StoreTestCase, octets

T = TypeVar("T")
CONTENT = bytes(16)


@define(eq=False)
class Slow:
    """A disk: chunks are in memory once a thread has read them; threads go on when the test says so."""

    memory: set[int] = field(factory=set)
    looks: int = 0
    broken: bool = False
    believed: set[bytes] = field(factory=set)
    waiting: list[Callable[[], None]] = field(factory=list)

    def leading(self, content_id: bytes, size: int, index: int, stop: int) -> int:
        self.looks += 1
        return next((part - index for part in range(index, stop) if part not in self.memory), stop - index)

    def read(self, content_id: bytes, size: int, index: int, stop: int) -> tuple[int, bool]:
        if self.broken:
            raise OSError("no disk")
        self.memory.update(range(index, min(index + READ, stop)))
        return self.leading(content_id, size, index, stop), True

    def told(self, waited: bool) -> None:
        assert waited

    def in_thread(self, function: Callable[..., T], /, *args: Any) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self.waiting.append(lambda: maybeDeferred(function, *args).chainDeferred(done))
        return done

    def believe(self, content_id: bytes) -> None:
        self.believed.add(content_id)

    def go(self) -> None:
        self.waiting.pop(0)()


class Woken:
    count = 0

    def wake(self) -> None:
        self.count += 1


class DiskTests(StoreTestCase):
    def test_what_was_in_memory_is_believed_to_be_for_a_minute(self) -> None:
        now = 1000.0
        unused: Any = None
        disk = Disk(self.environments, unused, lambda: now)
        self.assertIsNotNone(disk.ahead(CONTENT, 3))
        disk.believe(CONTENT)
        self.assertIsNone(disk.ahead(CONTENT, 3))
        now += BELIEVED_SECONDS
        self.assertIsNotNone(disk.ahead(CONTENT, 3))

    def test_parts_are_chunks_and_the_tail_and_after_a_start_a_thread_looks(self) -> None:
        size = 70 * CHUNK + 20_000
        content_id = self.store(octets(size)).content_id
        unused: Any = None
        disk = Disk(self.environments, unused, lambda: 0.0)
        self.assertEqual(0, disk.leading(content_id, size, 0, 64), "a thread had better look")
        self.assertEqual((64, False), disk.read(content_id, size, 0, 64))
        self.assertEqual((7, False), disk.read(content_id, size, 64, 71))
        for _ in range(CAREFUL):
            disk.told(False)
        self.assertEqual((64, 7), (disk.leading(content_id, size, 0, 64), disk.leading(content_id, size, 64, 71)))
        disk.told(True)
        self.assertEqual(0, disk.leading(content_id, size, 0, 64))


class AheadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk, self.reader = Slow(), Woken()

    def ahead(self, chunks: int) -> Ahead:
        ahead = Ahead(self.disk, CONTENT, chunks * CHUNK)  # type: ignore[arg-type]  # what it uses of a disk
        ahead.attach(self.reader)
        return ahead

    def test_what_is_in_memory_is_sent_at_once_with_few_looks(self) -> None:
        self.disk.memory = set(range(1000))
        ahead = self.ahead(1000)
        self.assertTrue(all(ahead.there(index) for index in range(1000)))
        self.assertEqual([], self.disk.waiting)
        self.assertLessEqual(self.disk.looks, 1000 // CHECKED + 1)
        self.assertEqual({CONTENT}, self.disk.believed)

    def test_a_part_says_nothing_of_the_whole(self) -> None:
        self.disk.memory = set(range(1000))
        ahead = self.ahead(1000)
        self.assertTrue(all(ahead.there(index) for index in range(1, 1000)))
        self.assertEqual(set(), self.disk.believed)

    def test_what_is_not_is_read_by_a_thread_and_then_the_reader_is_woken_once(self) -> None:
        ahead = self.ahead(1000)
        self.assertEqual((0, 0), (ahead.there(0), ahead.there(0)))
        self.assertEqual(1, len(self.disk.waiting))
        self.disk.go()
        self.assertEqual(1, self.reader.count)
        self.assertEqual(READ, ahead.there(0))

    def test_the_next_part_is_read_while_this_one_is_sent(self) -> None:
        ahead = self.ahead(1000)
        ahead.there(0)
        self.disk.go()
        self.assertTrue(ahead.there(READ - 1))
        self.disk.go()
        self.assertEqual(1, self.reader.count, "nobody waited for it")
        self.assertEqual(READ, ahead.there(READ))

    def test_only_what_is_there_of_a_part_is_read(self) -> None:
        self.disk.memory = {7, 8}
        ahead = self.ahead(20)
        self.assertEqual((2, 1), (ahead.there(7), ahead.there(8)))
        self.disk.go()
        self.assertEqual({7, 8, *range(9, 20)}, self.disk.memory)
        self.assertEqual(13, ahead.there(7))

    def test_a_jump_is_waited_for_as_the_first_part_was(self) -> None:
        ahead = self.ahead(1000)
        ahead.there(0)
        self.assertEqual(0, ahead.there(500))
        self.disk.go()
        self.assertEqual((1, 0), (self.reader.count, ahead.there(500)))
        self.disk.go()
        self.assertEqual((2, READ), (self.reader.count, ahead.there(500)))

    def test_a_read_that_fails_leaves_the_word_to_the_one_who_reads_next(self) -> None:
        self.disk.broken = True
        ahead = self.ahead(1000)
        ahead.there(0)
        self.disk.go()
        self.assertEqual((1, CHECKED), (self.reader.count, ahead.there(0)))
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))

    def test_nobody_is_woken_who_has_left(self) -> None:
        ahead = self.ahead(1000)
        ahead.there(0)
        ahead.detach(self.reader)
        self.disk.go()
        self.assertEqual(0, self.reader.count)
