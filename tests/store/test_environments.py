"""Opening the three environments: new, again, damaged, too large, where they must not be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lmdb
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store import disk, layout, opening
from edgecache.store.disk import FUSE, Disk, inspect
from edgecache.store.environment import Environment
from edgecache.store.environments import Environments
from edgecache.store.sizes import map_sizes
from edgecache.store.small import SmallTransaction
from edgecache.words.config import GIB, MIB, StoreSettings
from edgecache.words.errors import StartError
from edgecache.words.stored import Serial
from tests.store.rooms import given

SETTINGS = StoreSettings(size=64 * MIB)
EXT4 = 0xEF53
LOCAL = Disk(EXT4, 100 * GIB)


class EnvironmentsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.data = os.path.join(directory, "data")

    def open(self, settings: StoreSettings = SETTINGS, disk: Disk = LOCAL) -> Environments:
        environments = Environments.open(self.data, settings, node_process=True, inspect=lambda _: disk)
        self.addCleanup(environments.close)
        return environments

    def put(self, environments: Environments) -> None:
        """Something in small and in blobs."""
        for one, name in ((environments.small, layout.RECORDS), (environments.blobs, layout.CHUNKS)):
            with one.env.begin(write=True) as txn:
                txn.put(b"k" * 20, b"v" * 5000, db=one.databases[name])

    def kept(self, environments: Environments) -> list[bool]:
        found = []
        for one, name in ((environments.small, layout.RECORDS), (environments.blobs, layout.CHUNKS)):
            with one.env.begin() as txn:
                found.append(txn.get(b"k" * 20, db=one.databases[name]) is not None)
        return found

    def path(self, *names: str) -> str:
        return os.path.join(self.data, *names)


class OpeningTests(EnvironmentsTestCase):
    def test_what_was_committed_is_there_when_opened_again(self) -> None:
        first = self.open()
        self.put(first)
        first.close()
        second = self.open()
        self.assertEqual([True, True], self.kept(second))
        self.assertEqual(first.incarnation, second.incarnation)
        self.assertEqual((True, False), (first.created, second.created))

    def test_maps_leave_room_above_the_share_at_which_eviction_starts(self) -> None:
        environments = self.open()
        small, blobs = environments.small.env.info()["map_size"], environments.blobs.env.info()["map_size"]
        self.assertEqual((small, blobs), map_sizes(SETTINGS))
        self.assertLessEqual(abs(small * 0.85 - 16 * MIB), layout.PAGE)
        self.assertLessEqual(abs(blobs * 0.85 - 48 * MIB), layout.PAGE)

    def test_files_are_for_their_owner_only(self) -> None:
        self.open()
        for name in ("control", "small", "blobs"):
            self.assertEqual(0o700, os.stat(self.path(name)).st_mode & 0o777)
            self.assertEqual(0o600, os.stat(self.path(name, "data.mdb")).st_mode & 0o777)

    def test_a_larger_size_makes_the_maps_larger_and_a_smaller_one_never_below_what_is_used(self) -> None:
        first = self.open()
        with first.blobs.env.begin(write=True) as txn:
            for index in range(200):
                txn.put(bytes(16) + index.to_bytes(4, "big"), bytes(65520), db=first.blobs.databases[layout.CHUNKS])
        first.close()
        larger = self.open(StoreSettings(size=256 * MIB))
        self.assertEqual(map_sizes(StoreSettings(size=256 * MIB))[1], larger.blobs.env.info()["map_size"])
        larger.close()
        again = self.open(StoreSettings(size=64 * MIB))
        with again.blobs.env.begin() as txn:
            self.assertEqual(200, txn.stat(again.blobs.databases[layout.CHUNKS])["entries"])

    def test_a_size_beyond_the_free_disk_is_reduced(self) -> None:
        environments = self.open(StoreSettings(size=20 * GIB), Disk(EXT4, 1 * GIB))
        maps = environments.small.env.info()["map_size"] + environments.blobs.env.info()["map_size"]
        self.assertLess(maps, 1 * GIB)
        self.assertGreater(maps, 0.9 * GIB)

    def test_what_the_store_has_already_counts_as_free(self) -> None:
        first = self.open(StoreSettings(size=100 * MIB))
        self.put(first)
        first.close()
        used = sum(os.stat(self.path(n, "data.mdb")).st_blocks * 512 for n in ("small", "blobs"))
        size = 120 * MIB
        enough = Disk(EXT4, int(size / 0.85 / 0.95) + 4096 - used)
        self.assertEqual(
            map_sizes(StoreSettings(size=size))[0],
            self.open(StoreSettings(size=size), enough).small.env.info()["map_size"],
        )

    def test_a_network_file_system_is_refused_by_name(self) -> None:
        with self.assertRaises(StartError) as caught:
            self.open(disk=Disk(0x6969, 100 * GIB))
        self.assertIn("NFS", str(caught.exception))
        self.assertFalse(os.path.exists(self.path("control")))

    def test_fuse_is_taken_because_it_may_be_local(self) -> None:
        self.open(disk=Disk(FUSE, 100 * GIB))

    def test_the_kernel_is_asked_about_the_directory(self) -> None:
        os.makedirs(self.data)
        found = inspect(self.data)
        self.assertIsNone(found.network)
        self.assertGreater(found.magic, 0)
        status = os.statvfs(self.data)
        self.assertLess(abs(found.free - status.f_bavail * status.f_frsize), GIB)
        self.assertEqual(0x9FA0, inspect("/proc").magic)

    def test_a_directory_that_is_not_there_is_a_start_error(self) -> None:
        self.assertRaises(StartError, inspect, self.path("nowhere"))

    def test_a_file_in_the_way_is_a_start_error_and_stays(self) -> None:
        os.makedirs(self.data)
        with open(self.path("small"), "w") as file:
            file.write("precious")
        self.assertRaises(StartError, self.open)
        with open(self.path("small")) as file:
            self.assertEqual("precious", file.read())


class MovingAsideTests(EnvironmentsTestCase):
    """DESIGN 7: small and blobs together; without control every record is void."""

    def made(self) -> Environments:
        environments = self.open()
        self.put(environments)
        environments.close()
        return environments

    def test_a_damaged_small_takes_blobs_with_it(self) -> None:
        self.made()
        with open(self.path("small", "data.mdb"), "r+b") as file:
            file.write(os.urandom(8192))
        self.assertEqual([False, False], self.kept(self.open()))
        self.assertTrue(os.path.exists(self.path("aside", "small", "data.mdb")))
        self.assertTrue(os.path.exists(self.path("aside", "blobs", "data.mdb")))

    def test_a_damaged_blobs_takes_small_with_it(self) -> None:
        self.made()
        with open(self.path("blobs", "data.mdb"), "r+b") as file:
            file.write(os.urandom(8192))
        self.assertEqual([False, False], self.kept(self.open()))

    def test_one_of_the_two_missing_voids_the_other(self) -> None:
        for name in ("small", "blobs"):
            self.made()
            shutil.rmtree(self.path(name))
            environments = self.open()
            self.assertEqual([False, False], self.kept(environments), name)
            environments.close()

    def test_a_lost_control_voids_every_record(self) -> None:
        first = self.made()
        shutil.rmtree(self.path("control"))
        second = self.open()
        self.assertNotEqual(first.incarnation, second.incarnation)
        self.assertTrue(second.created)
        self.assertEqual([False, False], self.kept(second))

    def test_a_control_that_is_an_older_copy_is_as_good_as_lost(self) -> None:
        """It gives epochs again that records are good up to: what is purged then would stay fresh."""
        first = self.open()
        self.put(first)
        shutil.copytree(self.path("control"), self.path("backup"))
        with first.small.env.begin(write=True) as txn:
            small = SmallTransaction(txn, first.small.databases)
            small.raise_serial(Serial(1, b"p", 1), 7)
            small.finish()
        given(first, 7)
        first.close()
        second = self.open()
        self.assertEqual([True, True], self.kept(second))
        second.close()
        shutil.rmtree(self.path("control"))
        shutil.copytree(self.path("backup"), self.path("control"))
        third = self.open()
        self.assertEqual([False, False], self.kept(third))
        self.assertNotEqual(first.incarnation, third.incarnation)
        third.close()
        self.assertEqual(third.incarnation, self.open().incarnation)

    def test_a_disk_that_fails_for_a_moment_costs_nothing(self) -> None:
        self.made()
        failures = [lmdb.Error("mdb_txn_commit: Input/output error")]
        for fails, kept in ((1, True), (2, False)):
            left = failures * fails

            def committed(environment: Environment, left: list[lmdb.Error] = left) -> None:
                if environment.name == "control" and left:
                    raise left.pop()

            self.patch(opening, "_commit_size", committed)
            environments = self.open()
            self.assertEqual([kept, kept], self.kept(environments), "what fails again is damaged")
            environments.close()

    def test_a_start_on_a_disk_that_takes_nothing_moves_nothing(self) -> None:
        self.made()

        def fails(environment: Environment) -> None:
            raise lmdb.Error("mdb_txn_commit: Input/output error")

        self.patch(opening, "_commit_size", fails)
        self.patch(disk, "takes_writes", lambda path: False)
        self.assertRaises(StartError, self.open)
        self.assertFalse(os.path.exists(self.path("aside")))

    def test_a_damaged_control_is_kept_for_whoever_wants_to_look(self) -> None:
        self.made()
        with open(self.path("control", "data.mdb"), "r+b") as file:
            file.write(os.urandom(8192))
        self.assertEqual([False, False], self.kept(self.open()))
        self.assertTrue(os.path.exists(self.path("aside", "control", "data.mdb")))

    def test_a_control_of_which_only_its_last_epoch_is_damaged_is_moved_aside_as_well(self) -> None:
        """Else no start would ever succeed: it is read at each."""

        def damage_page(file: Path, where: int) -> None:
            octets = bytearray(file.read_bytes())
            at = where // layout.PAGE * layout.PAGE
            octets[at : at + layout.PAGE] = bytes(layout.PAGE)
            file.write_bytes(octets)

        def cut_row(file: Path, where: int) -> None:
            octets = bytearray(file.read_bytes())
            # The size of its value, before its flags and the size of its key.
            octets[where - 8 : where - 6] = (3).to_bytes(2, "little")
            file.write_bytes(octets)

        for damage in (damage_page, cut_row):
            first = self.open()
            self.put(first)
            meta = first.control.databases[layout.META]
            with first.control.env.begin(write=True) as txn:
                # What else is in the same database fills pages before and behind.
                for number in range(100):
                    txn.put(b"pa%d" % number, bytes(500), db=meta)
                    txn.put(b"q%d" % number, bytes(500), db=meta)
            given(first, 1234)
            with first.control.env.begin() as txn:
                row = b"purges" + txn.get(b"purges", db=meta)
            first.close()
            file = Path(self.path("control", "data.mdb"))
            damage(file, file.read_bytes().index(row))
            again = self.open()
            self.assertEqual([False, False], self.kept(again), damage.__name__)
            again.close()

    def test_only_the_latest_is_kept_aside(self) -> None:
        for _ in range(3):
            self.made()
            with open(self.path("small", "data.mdb"), "r+b") as file:
                file.write(os.urandom(8192))
        self.open()
        self.assertEqual(["blobs", "small"], sorted(os.listdir(self.path("aside"))))

    def test_another_layout_is_moved_aside(self) -> None:
        first = self.open()
        self.put(first)
        with first.small.env.begin(write=True) as txn:
            txn.put(layout.META_LAYOUT, b"\xff", db=first.small.databases[layout.META])
        first.close()
        self.assertEqual([False, False], self.kept(self.open()))

    def test_what_was_condemned_in_use_is_moved_aside_at_the_next_start_and_only_once(self) -> None:
        first = self.open()
        self.put(first)
        first.blobs.condemn("a page of type 0x00")
        first.close()
        self.flushLoggedErrors()
        second = self.open()
        self.assertEqual([False, False], self.kept(second))
        self.put(second)
        second.close()
        self.assertEqual([True, True], self.kept(self.open()))

    def test_what_is_begun_anew_has_room_beside_what_was_moved_aside(self) -> None:
        settings, little = StoreSettings(size=GIB), Disk(EXT4, 200 * MIB)
        environments = self.open(settings)
        environments.renew(settings, lambda _: little)
        self.assertLess(environments.blobs.env.info()["map_size"], little.free)
        environments.close()
        with open(self.path("small.damaged"), "w"):
            pass
        disks = iter((LOCAL, little))
        again = Environments.open(self.data, settings, node_process=True, inspect=lambda _: next(disks))
        self.addCleanup(again.close)
        self.assertLess(again.blobs.env.info()["map_size"], little.free)

    def test_what_cannot_be_begun_anew_is_tried_again(self) -> None:
        environments = self.open()
        environments.blobs.condemn("a page of type 0x00")
        self.flushLoggedErrors()

        def full(_: str) -> Disk:
            raise OSError(28, "No space left on device")

        self.assertRaises(StartError, environments.renew, SETTINGS, full)
        self.assertTrue(environments.damaged)
        environments.renew(SETTINGS)
        self.assertFalse(environments.damaged)
        self.put(environments)
        self.assertEqual([True, True], self.kept(environments))

    def test_a_truncated_file_does_not_kill_the_process(self) -> None:
        """Reading a map beyond the end of its file is SIGBUS: tried in a child."""
        first = self.open()
        with first.blobs.env.begin(write=True) as txn:
            for index in range(50):
                txn.put(bytes(16) + index.to_bytes(4, "big"), bytes(65520), db=first.blobs.databases[layout.CHUNKS])
        first.close()
        for octets in (8192, 12288, 100_000, 1_000_000, 3_000_000):
            copy = f"{self.data}-{octets}"
            shutil.copytree(self.data, copy)
            os.truncate(os.path.join(copy, "blobs", "data.mdb"), octets)
            child = subprocess.run(
                [sys.executable, "-c", _READ_ALL, copy], capture_output=True, text=True, timeout=60, check=False
            )
            self.assertEqual(0, child.returncode, child.stderr)


_READ_ALL = """
import sys
import lmdb
from edgecache.store import layout
from edgecache.store.environments import Environments
from edgecache.words.config import MIB, StoreSettings
environments = Environments.open(sys.argv[1], StoreSettings(size=64 * MIB), node_process=True)
with environments.blobs.env.begin() as txn:
    for index in range(50):
        try:
            txn.get(bytes(16) + index.to_bytes(4, "big"), db=environments.blobs.databases[layout.CHUNKS])
        except lmdb.Error:
            pass
"""


class WorkerTests(EnvironmentsTestCase):
    """What another process opens; here a child, for LMDB opens a file once per process."""

    def child(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _WORKER, self.data], capture_output=True, text=True, timeout=60, check=False
        )

    def test_it_sees_what_the_node_process_made_with_its_map_sizes_and_cannot_write_control(self) -> None:
        environments = self.open()
        child = self.child()
        self.assertEqual(
            f"{environments.incarnation.hex()} {map_sizes(SETTINGS)} ReadonlyError\n", child.stdout, child.stderr
        )

    def test_without_a_store_it_fails_in_one_line_and_makes_nothing(self) -> None:
        os.makedirs(self.data)
        self.assertIn("StartError", self.child().stderr)
        self.assertEqual([], os.listdir(self.data))

    def test_a_pair_of_another_incarnation_is_refused(self) -> None:
        environments = self.open()
        with environments.small.env.begin(write=True) as txn:
            txn.put(layout.META_INCARNATION, bytes(16), db=environments.small.databases[layout.META])
        self.assertIn("another incarnation", self.child().stderr)

    def test_slots_of_dead_readers_are_freed(self) -> None:
        environments = self.open()
        child = subprocess.run(
            [sys.executable, "-c", _WORKER + "\nimport os\nt = e.small.env.begin()\nos._exit(0)", self.data],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(0, child.returncode, child.stderr)
        self.assertEqual(1, environments.reader_check() and 1)
        self.assertEqual(0, environments.reader_check())

    def test_a_map_made_larger_elsewhere_is_adopted(self) -> None:
        environments = self.open()
        child = subprocess.run(
            [sys.executable, "-c", _ENLARGE, self.data], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(0, child.returncode, child.stderr)
        self.assertTrue(environments.small.adopt_size())
        self.assertEqual(256 * MIB, environments.small.env.info()["map_size"])
        with environments.small.writing:
            self.assertFalse(environments.small.adopt_size())


_WORKER = """
import sys
import lmdb
from edgecache.store import layout
from edgecache.store.environments import Environments
from edgecache.words.config import MIB, StoreSettings
e = Environments.open(sys.argv[1], StoreSettings(size=1024 * MIB), node_process=False)
try:
    e.control.env.begin(write=True)
except lmdb.Error as error:
    refused = type(error).__name__
print(e.incarnation.hex(), (e.small.env.info()["map_size"], e.blobs.env.info()["map_size"]), refused)
"""

_ENLARGE = """
import sys
from edgecache.store import layout
from edgecache.store.environments import Environments
from edgecache.words.config import MIB, StoreSettings
e = Environments.open(sys.argv[1], StoreSettings(), node_process=False)
e.small.env.set_mapsize(256 * MIB)
with e.small.env.begin(write=True) as txn:
    txn.put(b"x", b"y", db=e.small.databases[layout.RECORDS])
"""


class SyncingTests(EnvironmentsTestCase):
    """Note [who syncs what]"""

    def test_heads_that_workers_write_to_blobs_wait_for_the_next_commit(self) -> None:
        environments = self.open()
        self.assertEqual([True, True], self.syncing(environments))
        environments.close()
        worker = Environments.open(self.data, SETTINGS, node_process=False)
        self.assertEqual([True, False], self.syncing(worker))
        self.assertTrue(worker.blobs.env.flags()["sync"])
        worker.close()

    @staticmethod
    def syncing(environments: Environments) -> list[bool]:
        """:return: of small and of blobs: is each commit, with its head, on disk when it returns?"""
        both = (environments.small.env.flags(), environments.blobs.env.flags())
        return [flags["sync"] and flags["metasync"] for flags in both]
