"""What a power cut leaves of blobs: the state that the anchor holds, whatever else is on the disk."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import lmdb
from attrs import define
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store import anchorfile, anchoring, disk, layout
from edgecache.store.anchorfile import Slot, latest, place_of_head, recover
from edgecache.store.anchoring import AHEAD, LOOK_SECONDS, Anchor, Anchoring, Lead
from edgecache.store.collecting import Collector
from edgecache.store.disk import Disk
from edgecache.store.environment import Environment
from edgecache.store.environments import Environments
from edgecache.store.pagewriter import PageWriter
from edgecache.words.config import GIB, MIB, StoreSettings

SETTINGS = StoreSettings(size=64 * MIB)
LOCAL = Disk(0xEF53, 100 * GIB)

Chunks = dict[bytes, bytes]


class AnchorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        self.data = os.path.join(self.root, "data")
        self.environments = self.open()
        self.environments.lower_anchor()

    def open(self, cache: str = "another") -> Environments:
        """:param cache: of the kernel; by default it was started anew."""
        found = Disk(0xEF53, 100 * GIB, cache)
        environments = Environments.open(self.data, SETTINGS, node_process=True, inspect=lambda _: found)
        self.addCleanup(environments.close)
        return environments

    def commit(self, turn: int) -> None:
        """Some chunks come, take others' places, or go."""
        blobs = self.environments.blobs
        with blobs.env.begin(write=True) as txn:
            for index in range(6):
                place = layout.place(b"content of %8d" % (index % 3), turn * 3 % 7 + index)
                if turn % 4 == 3:
                    txn.delete(place, db=blobs.databases[layout.CHUNKS])
                else:
                    txn.put(place, b"%d" % turn * 65519, db=blobs.databases[layout.CHUNKS])

    def chunks(self, environments: Environments) -> Chunks:
        blobs = environments.blobs
        with blobs.env.begin() as txn, txn.cursor(db=blobs.databases[layout.CHUNKS]) as cursor:
            return dict(cursor)

    @property
    def anchor(self) -> Anchor:
        anchor = self.environments.anchor
        assert anchor is not None
        return anchor

    def slot(self) -> Slot:
        slot = latest(os.path.join(self.data, "blobs"))
        assert slot is not None
        return slot

    @contextmanager
    def patch_of(self, where: object, name: str, instead: object) -> Iterator[None]:
        patch = self.patch(where, name, instead)
        try:
            yield
        finally:
            patch.restore()

    def image(self) -> bytes:
        with open(os.path.join(self.data, "blobs", "data.mdb"), "rb") as file:
            return file.read()


def failing(descriptor: int) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def cut(held: bytes, now: bytes, chance: random.Random) -> bytes:
    """:return: of each page that was written since it was ``held``, either may be there, or both, torn."""
    left = bytearray(now)
    for at in range(0, len(now), layout.PAGE):
        was, came = held[at : at + layout.PAGE].ljust(layout.PAGE, b"\0"), now[at : at + layout.PAGE]
        left[at : at + layout.PAGE] = chance.choice((was, came, was[:512] + came[512:]))
    return bytes(left)


class PowerCutTests(AnchorCase):
    def test_what_the_anchor_holds_is_there_whatever_else_is_on_the_disk(self) -> None:
        chance = random.Random(9)
        for turn in range(40):
            if turn % 5 == 0:
                self.environments.hold()
                held, there = self.image(), self.chunks(self.environments)
            self.commit(turn)
            place = os.path.join(self.root, "cut")
            shutil.copytree(os.path.join(self.data, "blobs"), place)
            with open(os.path.join(place, "data.mdb"), "wb") as file:
                file.write(cut(held, self.image(), chance))
            recover(place, "another")
            with lmdb.open(place, max_dbs=16) as env:
                chunks = env.open_db(layout.CHUNKS, create=False)
                with env.begin() as txn, txn.cursor(db=chunks) as cursor:
                    self.assertTrue(there == dict(cursor), f"turn {turn}")
            shutil.rmtree(place)

    def test_the_next_start_goes_back_to_it_and_goes_on_from_there(self) -> None:
        self.commit(0)
        self.environments.hold()
        there = self.chunks(self.environments)
        self.commit(1)
        shutil.copytree(self.data, os.path.join(self.root, "left"))
        self.environments.close()
        self.data = os.path.join(self.root, "left")
        self.environments = self.open()
        self.assertTrue(there == self.chunks(self.environments))
        self.commit(2)
        there = self.chunks(self.environments)
        self.environments.close()
        # What was not held by any anchor was synced by the node process itself.
        self.assertTrue(there == self.chunks(self.open()))

    def test_a_start_under_the_same_kernel_takes_nothing_back(self) -> None:
        self.commit(0)
        self.environments.hold()
        self.commit(1)
        there = self.chunks(self.environments)
        shutil.copytree(self.data, os.path.join(self.root, "left"))
        self.data = os.path.join(self.root, "left")
        self.assertTrue(there == self.chunks(self.open(disk.cache(self.data))))

    def test_a_kernel_that_does_not_say_whether_it_is_the_same_may_be_another(self) -> None:
        self.commit(0)
        there = self.chunks(self.environments)
        self.environments.hold()
        self.commit(1)
        shutil.copytree(self.data, os.path.join(self.root, "left"))
        self.data = os.path.join(self.root, "left")
        self.assertTrue(there == self.chunks(self.open("")))

    def test_an_orderly_end_holds_all(self) -> None:
        self.commit(0)
        there = self.chunks(self.environments)
        self.environments.close()
        self.assertTrue(there == self.chunks(self.open()))

    def test_an_orderly_end_leaves_no_anchor_that_another_version_would_not_move(self) -> None:
        self.environments.close()
        self.assertFalse(os.path.exists(os.path.join(self.data, "blobs", anchorfile.NAME)))

    def test_an_end_that_cannot_hold_all_is_one_nevertheless_and_leaves_the_anchor(self) -> None:
        self.commit(0)
        self.patch(anchoring, "_TRIES", 0)
        self.environments.close()
        self.assertTrue(os.path.exists(os.path.join(self.data, "blobs", anchorfile.NAME)))

    def test_what_the_last_life_wrote_and_the_disk_did_not_keep_is_moved_aside(self) -> None:
        shutil.copytree(self.data, os.path.join(self.root, "left"))
        self.data = os.path.join(self.root, "left")
        with self.patch_of(os, "fdatasync", failing):
            recover(os.path.join(self.data, "blobs"), "another")
        self.open()
        self.assertTrue(os.path.exists(os.path.join(self.data, "aside", "blobs")))

    def test_where_an_anchor_does_not_say_what_is_certain_nothing_is(self) -> None:
        """Another version's, or its file is damaged: LMDB's heads may speak of what was never written."""
        self.environments.close()
        with open(os.path.join(self.data, "blobs", anchorfile.NAME), "wb") as file:
            file.write(b"anchor of another kind".ljust(2 * layout.PAGE))
        self.open()
        self.assertTrue(os.path.exists(os.path.join(self.data, "aside", "blobs")))

    def test_a_slot_that_was_cut_off_counts_for_nothing(self) -> None:
        self.environments.hold()
        directory = os.path.join(self.data, "blobs")
        last = latest(directory)
        assert last is not None
        with open(os.path.join(directory, anchorfile.NAME), "r+b") as file:
            file.seek(last.count % 2 * layout.PAGE + 100)
            file.write(b"torn")
        before = latest(directory)
        assert before is not None
        self.assertEqual(last.count - 1, before.count)


class HoldingTests(AnchorCase):
    def test_rows_of_freed_chunks_stay_until_that_is_held(self) -> None:
        content_id = b"c" * 16
        small, blobs = self.environments.small, self.environments.blobs
        with small.env.begin(write=True) as txn:
            row = layout.ORPHAN_ROW.pack(layout.NOBODY, layout.CHUNK)
            txn.put(content_id, row, db=small.databases[layout.ORPHANS])
        with blobs.env.begin(write=True) as txn:
            txn.put(layout.place(content_id, 0), b"x" * layout.CHUNK_VALUE, db=blobs.databases[layout.CHUNKS])
        page = PageWriter.create(os.path.join(self.root, "page"), 1)
        self.addCleanup(page.close)
        collector = Collector(self.environments, page, SETTINGS, set, Clock(), maybeDeferred)
        anchor = self.anchor
        was = os.dup(anchor._file)
        self.addCleanup(os.close, was)
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        os.dup2(full, anchor._file)
        self.assertRaises(OSError, collector.turn, 0.0)
        self.assertEqual(1, self.orphans())
        os.dup2(was, anchor._file)
        while collector.turn(0.0):
            pass
        self.assertEqual(0, self.orphans())

    def test_what_the_disk_did_not_keep_is_not_used_any_more(self) -> None:
        # Of a pipe no sync succeeds.
        for descriptor in (pipe := os.pipe()):
            self.addCleanup(os.close, descriptor)
        self.assertRaises(OSError, self.anchor._sync, pipe[0])
        self.assertTrue(self.environments.blobs.condemned)

    def test_a_later_sync_that_succeeds_says_nothing_of_what_was_lost_before(self) -> None:
        before = self.slot()
        self.environments.blobs.condemn("test")
        self.commit(0)
        self.assertRaises(OSError, self.environments.hold)
        self.assertEqual(before, self.slot())
        self.assertFalse(self.anchor.behind)

    def test_a_head_that_is_written_while_it_is_read_is_not_taken(self) -> None:
        read, turns = os.pread, list(range(6))

        def torn(descriptor: int, octets: int, at: int) -> bytes:
            begun = read(descriptor, 100, at)
            for turn in turns[:2]:
                turns.remove(turn)
                self.commit(turn)
            return begun + read(descriptor, octets - 100, at + 100)

        with self.patch_of(os, "pread", torn):
            self.environments.hold()
        slot = self.slot()
        at = place_of_head(slot.transaction % 2)
        self.assertEqual(self.image()[at:][: len(slot.head)], slot.head)

    def test_a_writer_that_stands_still_before_its_state_is_to_be_read_holds_nothing_up(self) -> None:
        number = self.anchor.transaction + 1
        head = self.slot().head[: anchorfile._NUMBER_AT] + number.to_bytes(8, "little")
        os.pwrite(self.anchor._data, head, place_of_head(number % 2))
        self.assertEqual(number, self.environments.blobs.env.info()["last_txnid"])
        self.environments.hold()
        # And it is not tried without end.
        self.assertFalse(self.anchor.behind)

    def test_a_slot_that_was_written_in_part_is_none(self) -> None:
        write, before = os.pwrite, self.slot()
        self.commit(0)
        with self.patch_of(os, "pwrite", lambda file, octets, at: write(file, octets[:100], at)):
            self.assertRaises(OSError, self.environments.hold)
        self.assertEqual(before, self.slot())
        self.assertEqual(before.transaction, self.anchor.transaction)
        self.assertTrue(self.anchor.behind)

    def test_where_pages_are_of_another_size_there_is_none(self) -> None:
        self.anchor.weigh()
        self.patch(anchoring, "PAGE", 2 * layout.PAGE)
        # Either page may have the newer head.
        for turn in range(2):
            self.environments.lower_anchor()
            self.assertIsNone(self.environments.anchor)
            self.assertEqual({"data.mdb", "lock.mdb"}, set(os.listdir(os.path.join(self.data, "blobs"))))
            self.commit(turn)

    def orphans(self) -> int:
        small = self.environments.small
        with small.env.begin() as txn:
            entries: int = txn.stat(small.databases[layout.ORPHANS])["entries"]
            return entries

    def test_what_is_begun_anew_has_one_too(self) -> None:
        self.environments.blobs.condemn("test")
        self.environments.renew(SETTINGS, lambda _: LOCAL)
        self.commit(0)
        self.assertTrue(self.anchor.behind)
        self.environments.hold()
        self.assertFalse(self.anchor.behind)
        slot = latest(os.path.join(self.data, "blobs"))
        assert slot is not None
        self.assertEqual(self.environments.blobs.env.info()["last_txnid"], slot.transaction)

    def test_it_follows_the_commits_and_rests_while_there_are_none(self) -> None:
        clock, held = Clock(), []

        def hold() -> None:
            self.environments.hold()
            held.append(clock.seconds())

        following = Anchoring(lambda: self.environments.anchor, hold, clock, maybeDeferred)
        following.start()
        self.assertEqual([], held)
        self.commit(0)
        clock.advance(LOOK_SECONDS)
        clock.advance(10.0)
        self.assertEqual([LOOK_SECONDS], held)
        _ = following.stop()
        self.assertEqual([], clock.getDelayedCalls())

    def test_after_a_failure_it_is_tried_again(self) -> None:
        clock, tried = Clock(), []

        def fail() -> None:
            tried.append(clock.seconds())
            raise OSError("no")

        following = Anchoring(lambda: self.environments.anchor, fail, clock, maybeDeferred)
        self.commit(0)
        following.start()
        clock.advance(1.0)
        self.assertEqual([0.0], tried)
        clock.advance(4.0)
        self.assertEqual([0.0, 5.0], tried)
        self.assertEqual(2, len(self.flushLoggedErrors(OSError)))
        _ = following.stop()


_OPEN = """
import sys
from edgecache.store.environments import Environments
from edgecache.words.config import MIB, StoreSettings
environments = Environments.open(sys.argv[1], StoreSettings(size=64 * MIB), node_process=%s)
"""

_DIE = """
print("open", flush=True)
sys.stdin.readline()
txn = environments.blobs.env.begin(write=True)
print("within", flush=True)
sys.stdin.readline()
"""

_NODE = _OPEN % True + "environments.lower_anchor()" + _DIE

_DYING = _OPEN % False + _DIE

_WORKER = """
import sys
from queue import SimpleQueue
from edgecache.store import layout
from edgecache.store.committing import Committer
from edgecache.store.environments import Environments
from edgecache.words.config import StoreSettings
environments = Environments.open(sys.argv[1], StoreSettings(), node_process=False)
told = SimpleQueue()
put = lambda txn: txn.put(layout.place(b"content", 0), b"x", db=environments.blobs.databases[layout.CHUNKS])
class Group:
    def __init__(self, txn, databases): self.put = txn.put
    def finish(self): pass
committer = Committer(environments.blobs, Group, lambda call, *arguments: call(*arguments))
print("open", flush=True)
while sys.stdin.readline():
    committer.submit(1, put, told.put)
    print(told.get(), flush=True)
"""


class Other:
    """A process with the store open."""

    def __init__(self, program: str, data: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


class HoldersDeathTests(SynchronousTestCase):
    """Note [the holder's death]"""

    def test_a_worker_commits_nothing_once_lmdb_has_let_go_of_what_the_anchor_holds(self) -> None:
        root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, root)
        data = os.path.join(root, "data")
        node = Other(_NODE, data)
        self.addCleanup(node.kill)
        worker = Other(_WORKER, data)
        self.addCleanup(worker.kill)
        self.assertEqual("True", worker.go_on())
        self.assertEqual("within", node.go_on())
        node.kill()
        self.assertIn("nobody holds its anchor", worker.go_on())

    def test_a_workers_death_leaves_the_reader_where_it_is(self) -> None:
        root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, root)
        data = os.path.join(root, "data")
        processes = [Other(program, data) for program in (_NODE, _DYING, _WORKER)]
        for process in processes:
            self.addCleanup(process.kill)
        _, dying, worker = processes
        self.assertEqual("within", dying.go_on())
        dying.kill()
        self.assertEqual("True", worker.go_on())


@define(eq=False)
class Slow:
    """An LMDB whose commits are so many, and whose disk may fail; it counts how often somebody waits for that."""

    last: int
    fails: bool = False
    waited: int = 0

    def info(self) -> dict[str, int]:
        return {"last_txnid": self.last}

    def readers(self) -> str:
        return f"{os.getpid():10d} 7f 1\n"

    def sync(self, force: bool) -> None:
        self.waited += force
        if self.fails:
            raise lmdb.Error("Input/output error")


class LeadTests(AnchorCase):
    def lead(self, ahead: int, fails: bool = False) -> tuple[Slow, Environment]:
        """:return: what a worker that is so many commits ahead has open, once it has made another one."""
        env = Slow(self.slot().transaction + ahead, fails)
        blobs = Environment("blobs", self.environments.blobs.path, env, {})  # type: ignore[arg-type]  # what it uses
        lead = Lead(blobs)
        self.assertTrue(lead.held())
        lead.committed()
        return env, blobs

    def test_a_worker_waits_for_the_disk_where_it_is_too_far_ahead(self) -> None:
        for ahead, waits in ((1, 0), (AHEAD, 0), (AHEAD + 1, 1)):
            self.assertEqual(waits, self.lead(ahead)[0].waited, ahead)

    def test_what_a_worker_is_told_that_the_disk_did_not_keep_is_not_used_any_more(self) -> None:
        """The kernel says it once, and the node process may be killed before it asks."""
        _, blobs = self.lead(AHEAD + 1, fails=True)
        self.assertTrue(blobs.condemned)
        self.assertTrue(self.environments.damaged)

    def test_without_an_anchor_it_commits_nothing(self) -> None:
        path = os.path.join(self.data, "blobs", anchorfile.NAME)
        with open(path, "wb"):
            pass
        self.assertFalse(Lead(self.environments.blobs).held())
        os.unlink(path)
        self.assertFalse(Lead(self.environments.blobs).held())
