"""Counters of hits and what was evicted, in one file that all processes of a node share."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from edgecache.store.popularity import NAME, SLOTS, Popularity, slot_of
from edgecache.words.errors import StartError
from tests.quickdisk import quick_directory


class PopularityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = quick_directory(self)

    def open(self, *, node_process: bool = True) -> Popularity:
        popularity = Popularity.open(self.data, node_process=node_process)
        self.addCleanup(popularity.close)
        return popularity

    def test_what_a_worker_writes_the_node_process_reads_and_the_other_way_round(self) -> None:
        node, worker = self.open(), self.open(node_process=False)
        worker.hits[slot_of(b"a" * 32)] = 2
        node.blobs.add(b"b" * 32, 5000)
        self.assertEqual(2, node.hits[slot_of(b"a" * 32)])
        self.assertEqual((False, True), (worker.small.take(b"b" * 32, 9999), worker.blobs.take(b"b" * 32, 9999)))

    def test_it_outlives_the_node(self) -> None:
        first = self.open()
        first.hits[SLOTS - 1] = 3
        first.small.add(b"b" * 32, 5000)
        first.close()
        second = self.open()
        self.assertEqual(3, second.hits[SLOTS - 1])
        self.assertTrue(second.small.take(b"b" * 32, 9999))

    def test_a_file_of_another_kind_or_length_is_made_anew(self) -> None:
        path = os.path.join(self.data, NAME)
        self.open().hits[0] = 3
        for octets in (b"", b"x" * os.stat(path).st_size):
            with open(path, "wb") as file:
                file.write(octets)
            self.assertEqual(0, self.open().hits[0])

    def test_whatever_a_power_cut_left_in_it_evicting_goes_on(self) -> None:
        path = os.path.join(self.data, NAME)
        self.open().close()
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (os.stat(path).st_size - 4096))
        popularity = self.open()
        for ghosts in (popularity.small, popularity.blobs):
            ghosts.add(b"b" * 32, 5000)
            self.assertTrue(ghosts.take(b"b" * 32, 9999))

    def test_all_of_it_is_on_disk_from_the_start(self) -> None:
        self.open()
        status = os.stat(os.path.join(self.data, NAME))
        self.assertEqual((0o100600, True), (status.st_mode, status.st_blocks * 512 >= status.st_size))

    def test_holes_that_a_power_cut_or_a_copy_left_in_it_are_filled_for_a_full_disk_would_end_who_counts(self) -> None:
        path = os.path.join(self.data, NAME)
        self.open().close()
        with open(path, "r+b") as file:
            size = os.stat(path).st_size
            file.truncate(4096)
            file.truncate(size)
        self.open()
        status = os.stat(path)
        self.assertGreaterEqual(status.st_blocks * 512, status.st_size)

    def test_a_worker_finds_it_or_does_not_start(self) -> None:
        self.assertRaises(StartError, Popularity.open, self.data, node_process=False)

    def test_slots_are_the_low_bits_of_the_key_and_all_of_them_are_there(self) -> None:
        key = (0xABCDEF).to_bytes(3, "little") + bytes(29)
        self.assertEqual(0xABCDEF & SLOTS - 1, slot_of(key))
        self.open().hits[slot_of(b"\xff" * 32)] = 1
