"""The mapped page: one writer for the common part, one per block, all of it in 8-byte slots."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.store.page import Page
from edgecache.store.pagelayout import FENCED, FOLLOWED, FREE, PINS
from edgecache.store.pagewriter import PageWriter
from edgecache.words.counters import SLOTS, Counter
from edgecache.words.errors import StartError


class PageCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def make(self, workers: int = 2, addresses: int = 8) -> PageWriter:
        writer = PageWriter.create(str(self.directory / "page"), workers, addresses)
        self.addCleanup(writer.close)
        return writer

    def open(self, writer: PageWriter, worker: int = 0) -> Page:
        page = Page.open(writer.path, worker)
        self.addCleanup(page.close)
        return page


class CommonPartTests(PageCase):
    def test_a_new_page_is_fenced_and_at_epoch_zero(self) -> None:
        page = self.open(self.make())
        self.assertEqual((FENCED, 0), page.lease())
        self.assertEqual((0, False, False, False), (page.trimmed, page.draining, page.full_small, page.full_blobs))

    def test_what_is_published_is_seen_by_every_worker(self) -> None:
        writer = self.make()
        pages = [self.open(writer, worker) for worker in (0, 1)]
        writer.publish_epoch(2**40 + 1)
        writer.publish_fresh_until(12345.5)
        writer.publish_trimmed(17)
        writer.set_draining(True)
        writer.set_full(small=False, blobs=True)
        for page in pages:
            self.assertEqual((12345.5, 2**40 + 1), page.lease())
            self.assertEqual((12345.5, 2**40 + 1), (page.fresh_until, page.epoch))
            self.assertEqual((17, True, False, True), (page.trimmed, page.draining, page.full_small, page.full_blobs))
        self.assertEqual((17, 12345.5), (writer.trimmed, writer.fresh_until))
        self.assertEqual((True, (False, True)), (writer.draining, writer.full))

    def test_a_lease_without_siblings_never_ends(self) -> None:
        writer = self.make()
        writer.publish_fresh_until(FREE)
        self.assertTrue(self.open(writer).fresh_until > 1e300)

    def test_health_is_published_by_slot(self) -> None:
        writer = self.make(addresses=3)
        page = self.open(writer)
        writer.set_health(2, 7)
        self.assertEqual([0, 0, 7], [page.health(slot) for slot in range(3)])
        self.assertEqual(7, writer.health(2))
        for slot in (-1, 3):
            self.assertRaises(IndexError, writer.set_health, slot, 1)
        self.assertRaises(IndexError, page.health, 3)

    def test_health_of_the_last_address_touches_no_counter(self) -> None:
        writer = self.make(addresses=3)
        writer.set_health(2, -1)
        self.assertEqual([0] * SLOTS, writer.counters(0))

    def test_a_new_page_replaces_the_old_one_and_leaves_its_mapping_alone(self) -> None:
        writer = self.make()
        writer.publish_epoch(5)
        page = self.open(writer)
        successor = PageWriter.create(writer.path, 1)
        self.addCleanup(successor.close)
        self.assertEqual(5, page.epoch)
        self.assertEqual(0, self.open(successor).epoch)

    def test_closing_fences_workers_that_are_still_there(self) -> None:
        writer = PageWriter.create(str(self.directory / "other"), 1)
        page = self.open(writer)
        writer.publish_fresh_until(FREE)
        writer.close()
        self.assertEqual(FENCED, page.fresh_until)

    def test_only_its_owner_may_read_the_file(self) -> None:
        self.assertEqual(0o600, os.stat(self.make().path).st_mode & 0o777)

    def test_an_unfinished_page_of_a_killed_node_is_no_obstacle(self) -> None:
        path = str(self.directory / "other")
        Path(f"{path}.new").write_bytes(b"half")
        writer = PageWriter.create(path, 1)
        self.addCleanup(writer.close)
        self.assertEqual(0, self.open(writer).epoch)


class OpeningTests(PageCase):
    def test_what_is_no_page_is_refused(self) -> None:
        missing = str(self.directory / "other")
        self.assertRaises(StartError, Page.open, missing, 0)
        for content in (b"", b"short", b"x" * 65536, bytes(65536)):
            Path(missing).write_bytes(content)
            self.assertRaises(StartError, Page.open, missing, 0)

    def test_a_truncated_page_is_refused(self) -> None:
        writer = self.make()
        copy = str(self.directory / "other")
        Path(copy).write_bytes(Path(writer.path).read_bytes()[:-8])
        self.assertRaises(StartError, Page.open, copy, 0)

    def test_a_worker_without_a_block_is_refused(self) -> None:
        writer = self.make(workers=2)
        for block in (-1, 4):
            self.assertRaises(StartError, Page.open, writer.path, block)

    def test_no_workers_have_one_block_all_the_same(self) -> None:
        self.assertEqual(0, self.open(self.make(workers=0)).get(Counter.HITS))


class CounterTests(PageCase):
    def test_each_worker_counts_for_itself_and_the_node_adds_up(self) -> None:
        writer = self.make()
        first, second = self.open(writer, 0), self.open(writer, 1)
        first.add(Counter.HITS)
        first.add(Counter.BYTES_SENT, 2**40)
        second.add(Counter.HITS, 2)
        self.assertEqual(1, first.get(Counter.HITS))
        self.assertEqual(2**40, writer.counters(0)[Counter.BYTES_SENT])
        self.assertEqual((3, 2**40), (writer.totals()[Counter.HITS], writer.totals()[Counter.BYTES_SENT]))

    def test_the_last_counter_and_the_heartbeat_are_apart(self) -> None:
        writer = self.make()
        page = self.open(writer)
        page.add(SLOTS - 1, 5)
        page.beat(99.5)
        self.assertEqual((5, 99.5), (writer.counters(0)[SLOTS - 1], writer.beat(0)))
        self.assertEqual(set(), writer.pins())

    def test_a_restarted_worker_goes_on_counting_with_nothing_open(self) -> None:
        writer = self.make()
        page = self.open(writer)
        page.add(Counter.REQUESTS, 10)
        page.add(Counter.CONNECTIONS_OPEN, 3)
        page.add(Counter.FILLS_RUNNING, 1)
        page.beat(1.0)
        writer.clear(0)
        successor = self.open(writer)
        successor.add(Counter.REQUESTS, 1)
        counts = writer.counters(0)
        self.assertEqual(
            (11, 0, 0), (counts[Counter.REQUESTS], counts[Counter.CONNECTIONS_OPEN], counts[Counter.FILLS_RUNNING])
        )
        self.assertEqual((1, 0.0), (successor.get(Counter.REQUESTS), writer.beat(0)))

    def test_what_a_worker_and_its_successor_count_meanwhile_is_one_worker_s(self) -> None:
        """There are two of one place while it is being replaced; each has pins of its own."""
        writer = self.make(workers=2)
        going, come = self.open(writer, 1), self.open(writer, 3)
        for page, content in ((going, b"a" * 16), (come, b"b" * 16)):
            page.add(Counter.REQUESTS, 5)
            page.pin(content)
        self.assertEqual({b"a" * 16, b"b" * 16}, writer.pins())
        writer.clear(1)
        self.assertEqual((0, 10), tuple(writer.counters(at)[Counter.REQUESTS] for at in (0, 1)))
        self.assertEqual(({b"b" * 16}, 10), (writer.pins(), writer.totals()[Counter.REQUESTS]))
        self.assertRaises(IndexError, writer.counters, 2)

    def test_another_process_counts_into_the_same_page(self) -> None:
        writer = self.make()
        code = (
            "import sys; from edgecache.store.page import Page; page = Page.open(sys.argv[1], 1);"
            "page.add(3, 7); page.pin(b'0123456789abcdef')"
        )
        subprocess.run([sys.executable, "-c", code, writer.path], check=True)
        self.assertEqual(7, writer.counters(1)[3])
        self.assertEqual({b"0123456789abcdef"}, writer.pins())
        writer.clear(1)
        self.assertEqual(set(), writer.pins())


class PinTests(PageCase):
    def test_a_pin_is_seen_until_it_is_undone(self) -> None:
        writer = self.make()
        pages = [self.open(writer, worker) for worker in (0, 1)]
        ids = [bytes([number]) * 16 for number in (1, 2)]
        slots = [page.pin(content_id) for page, content_id in zip(pages, ids, strict=True)]
        self.assertEqual(set(ids), writer.pins())
        assert slots[0] is not None
        pages[0].unpin(slots[0])
        self.assertEqual({ids[1]}, writer.pins())

    def test_content_sent_twice_stays_pinned_until_the_last_is_done(self) -> None:
        writer = self.make()
        page = self.open(writer)
        first, second = page.pin(b"a" * 16), page.pin(b"a" * 16)
        assert first is not None and second is not None
        page.unpin(first)
        self.assertEqual({b"a" * 16}, writer.pins())
        page.unpin(second)
        self.assertEqual(set(), writer.pins())
        self.assertRaises(KeyError, page.unpin, first)
        page.pin(b"a" * 16)
        self.assertEqual({b"a" * 16}, writer.pins())

    def test_an_id_with_high_bits_and_zeros_comes_back_as_it_was(self) -> None:
        writer = self.make()
        page = self.open(writer)
        ids = {b"\xff" * 16, bytes(15) + b"\x01", b"\x80" + bytes(15)}
        for content_id in ids:
            page.pin(content_id)
        self.assertEqual(ids, writer.pins())

    def test_when_no_slot_is_left_there_is_no_pin(self) -> None:
        writer = self.make()
        page = self.open(writer)
        slots = [page.pin(number.to_bytes(16, "big")) for number in range(1, PINS + 1)]
        self.assertEqual(PINS, len(set(slots)))
        self.assertIsNone(page.pin(b"z" * 16))
        self.assertIsNotNone(page.pin((1).to_bytes(16, "big")))
        assert slots[5] is not None
        page.unpin(slots[5])
        self.assertEqual(slots[5], page.pin(b"z" * 16))
        self.assertEqual(PINS, len(writer.pins()))


class FollowedTests(PageCase):
    """A word for each site whose project list is followed."""

    def test_a_worker_reads_what_was_published_for_the_site(self) -> None:
        writer = PageWriter.create(str(self.directory / "page"), 1)
        page = self.open(writer)
        self.assertEqual(0.0, page.followed_until(3))
        writer.publish_followed(3, 17.5)
        self.assertEqual((17.5, 0.0), (page.followed_until(3), page.followed_until(4)))
        writer.close()
        self.assertEqual(0.0, page.followed_until(3))

    def test_there_is_a_word_for_so_many_sites(self) -> None:
        writer = self.make()
        writer.publish_followed(FOLLOWED - 1, 1.0)
        self.assertRaises(IndexError, writer.publish_followed, FOLLOWED, 1.0)
        self.assertRaises(IndexError, writer.publish_followed, -1, 1.0)
