"""The highest serial of each project, beside its pages and outside eviction (DESIGN 10)."""

from __future__ import annotations

from edgecache.store import layout
from edgecache.store.serials import StoredSerials
from edgecache.words.stored import Flag, Serial
from tests.store.rooms import StoreTestCase, hash_of, octets, response

SITE = 5


def of(serial: int, project: bytes = b"six", since: int = 0) -> Serial:
    return Serial(SITE, project, serial, since)


class SerialTests(StoreTestCase):
    def known(self, project: bytes = b"six") -> tuple[int, int] | None:
        return StoredSerials(self.environments, self.reader.unreadable).of(SITE, project)

    def stores(self, serial: Serial | None, *, floor: int = 1, content: bytes = b"page") -> bool:
        writer = self.writer.begin()
        writer.write(content)
        page = response(b"page", floor=floor, flags=int(Flag.PAGE))
        stored = self.loop.result(writer.commit(hash_of(b"page"), page, None, serial))
        writer.finished()
        return stored

    def freshens(self, serial: int, *, floor: int) -> bool:
        found = self.reader.look_up(hash_of(b"page"), b"page")
        self.reader.done()
        page = response(b"page", floor=floor, flags=int(Flag.PAGE), content_id=found.content_id, size=found.size)
        return self.loop.result(self.writer.put(hash_of(b"page"), page, serial=of(serial)))

    def test_a_page_leaves_its_serial_and_none_below_it_is_stored_any_more(self) -> None:
        self.assertIsNone(self.known())
        self.assertTrue(self.stores(of(100), floor=3))
        self.assertEqual((100, 3), self.known())
        self.assertFalse(self.stores(of(99), floor=3, content=b"older"))
        self.assertEqual((100, 3), self.known())
        self.assertTrue(self.stores(of(100), floor=4))
        self.assertTrue(self.stores(of(101), floor=4))
        self.assertEqual((101, 4), self.known())

    def test_nor_does_validating_go_back(self) -> None:
        self.assertTrue(self.stores(of(100)))
        self.assertTrue(self.freshens(102, floor=2))
        self.assertFalse(self.freshens(101, floor=3))
        self.assertEqual((102, 2), self.known())

    def test_what_is_not_stored_leaves_none(self) -> None:
        self.assertTrue(self.stores(of(1), floor=9))
        self.assertFalse(self.stores(of(2), floor=8))
        self.assertEqual((1, 9), self.known())

    def test_it_outlives_its_page(self) -> None:
        self.assertTrue(self.stores(of(100)))
        found = self.reader.look_up(hash_of(b"page"), b"page")
        self.reader.done()
        self.writer.remove(hash_of(b"page"), found.content_id)
        self.assertTrue(self.loop.result(self.writer.raise_serial(of(5, b"other"), 1)))
        self.assertIsNone(self.reader.look_up(hash_of(b"page"), b"page"))
        self.reader.done()
        self.assertFalse(self.stores(of(99)))

    def test_after_what_made_it_void_any_serial_is_good(self) -> None:
        self.assertTrue(self.stores(of(100), floor=3))
        self.assertFalse(self.stores(of(7, since=3), floor=4))
        self.assertTrue(self.stores(of(7, since=4), floor=4))
        self.assertEqual((7, 4), self.known())

    def test_nor_does_what_was_fetched_before_that_make_it_count_again(self) -> None:
        """A fill that a delete has overtaken ends after the first one that knows better; or a list tells of it."""
        self.assertTrue(self.stores(of(7, since=4), floor=4))
        self.assertTrue(self.loop.result(self.writer.raise_serial(of(100, since=4), 3)))
        self.assertEqual((7, 4), self.known())
        self.assertTrue(self.stores(of(8, since=4), floor=4))

    def test_it_can_be_raised_without_a_page(self) -> None:
        self.assertTrue(self.loop.result(self.writer.raise_serial(of(50), 2)))
        self.assertFalse(self.loop.result(self.writer.raise_serial(of(49), 3)))
        self.assertEqual((50, 2), self.known())

    def test_projects_are_told_apart_however_long_their_names(self) -> None:
        names = [b"", b"six", b"six-", b"x" * 400, b"x" * 399, b"x" * 128]
        for number, name in enumerate(names):
            self.assertTrue(self.loop.result(self.writer.raise_serial(of(number + 1, name), 1)))
        self.assertEqual([1, 2, 3, 4, 5, 6], [(self.known(name) or (0, 0))[0] for name in names])

    def test_a_page_is_never_inline(self) -> None:
        self.assertTrue(self.stores(of(1), content=octets(5000)))
        with self.environments.small.env.begin() as txn:
            value = txn.get(hash_of(b"page"), db=self.environments.small.databases[layout.RECORDS])
        self.assertLess(len(value), 1000)
        found = self.reader.look_up(hash_of(b"page"), b"page")
        self.assertEqual(octets(5000), self.reader.content(found))
        self.reader.done()


class OlderStoreTests(StoreTestCase):
    def test_a_store_from_before_there_were_serials_keeps_what_it_has(self) -> None:
        self.store(b"content")
        with self.environments.small.env.begin(write=True) as txn:
            txn.drop(self.environments.small.databases[layout.SERIALS], delete=True)
        self.stop()
        self.start()
        self.assertEqual(b"content", self.content())
        self.assertIsNone(StoredSerials(self.environments, self.reader.unreadable).of(SITE, b"six"))
