"""kill -9 in the middle of fills and commits; readers in other processes; a disk that is full."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from edgecache.store import layout
from edgecache.store.layout import CHUNK
from edgecache.words.stored import Stored
from tests.store.rooms import StoreTestCase, hash_of, octets, response

ROOT = Path(__file__).parents[2]

_WRITER = """
import random, sys
from edgecache.words.config import MIB, StoreSettings
from tests.store.rooms import LOCAL, Loop, hash_of, octets, response
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.writing import StoreWriter
data, page, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
environments = Environments.open(data, StoreSettings(size=256 * MIB), node_process=True, inspect=lambda _: LOCAL)
loop = Loop()
writer = StoreWriter(environments, Page.open(page, 0), seed, loop)
chance = random.Random(seed)
print("ready", flush=True)
number = 0
pending = []
while True:
    number += 1
    size = chance.choice([10, 5000, 40_000, 65_512, 150_000, 700_000])
    salt = seed * 100_000 + number
    key = b"%d" % chance.randrange(12)
    fill = writer.begin()
    content = octets(size, salt)
    for start in range(0, size, 60_000):
        fill.write(content[start : start + 60_000])
    if chance.random() < 0.1:
        fill.abandon()
        continue
    outcome = fill.commit(hash_of(key), response(key, floor=salt, etag=b"%d %d" % (size, salt)))
    def told(done, key=key, size=size, salt=salt, fill=fill):
        fill.finished()
        pending.remove(fill)
        print(key.decode(), size, salt, done, flush=True)
    pending.append(fill)
    outcome.addCallback(told)
    loop.until(lambda: len(pending) < 4)
"""

_READER = """
import random, sys
from edgecache.store.environments import Environments
from edgecache.store.layout import CHUNK
from edgecache.store.page import Page
from edgecache.store.reading import StoreReader
from edgecache.words.config import StoreSettings
from tests.store.rooms import hash_of, octets
environments = Environments.open(sys.argv[1], StoreSettings(), node_process=False)
reader = StoreReader(environments, Page.open(sys.argv[2], int(sys.argv[3])))
chance = random.Random(int(sys.argv[3]))
print("ready", flush=True)
hits = 0
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    key = b"%d" % chance.randrange(6)
    found = reader.look_up(hash_of(key), key)
    try:
        if found is None:
            continue
        size, salt = map(int, found.etag.split())
        if found.size < CHUNK:
            content = reader.content(found)
        else:
            source = reader.open_source(hash_of(key), found)
            if source is None:
                continue
            content = b""
            while not source.ended(len(content)):
                content += source.read(len(content), 65536)
                if source.failed is not None:
                    raise source.failed
            source.close()
    finally:
        reader.done()
    assert content == octets(size, salt), (key, size, salt)
    hits += 1
print(hits, flush=True)
"""

_LIMITED = """
import resource, signal, sys
from edgecache.words.config import MIB, StoreSettings
from tests.store.rooms import LOCAL, Loop, hash_of, octets, response
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.reading import StoreReader
from edgecache.store.writing import StoreWriter
environments = Environments.open(sys.argv[1], StoreSettings(size=256 * MIB), node_process=True, inspect=lambda _: LOCAL)
page = Page.open(sys.argv[2], 0)
loop = Loop()
writer, reader = StoreWriter(environments, page, 1, loop), StoreReader(environments, page)
def store(key, size):
    fill = writer.begin()
    for start in range(0, size, 60_000):
        fill.write(octets(size)[start : start + 60_000])
    done = loop.result(fill.commit(hash_of(key), response(key)))
    position = 0
    while position < fill.written:
        data = fill.read(position, 65536)
        assert data == octets(size)[position : position + len(data)]
        position += len(data)
    fill.abandon()
    return done, fill.failed
assert store(b"before", 200_000) == (True, None)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
done, failed = store(b"large", 2_000_000)
assert not done and failed.where == "blobs", (done, failed)
done = [store(b"%d" % number, 10_000)[0] for number in range(120)]
assert False in done, done
def content(key):
    found = reader.look_up(hash_of(key), key)
    got = found and b"".join(reader.whole(found))
    reader.done()
    return got
assert content(b"before") == octets(200_000)
for number, stored in enumerate(done):
    assert content(b"%d" % number) == (octets(10_000) if stored else None)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
assert store(b"after", 2_000_000) == (True, None)
assert store(b"small", 10_000) == (True, None)
print("served")
"""


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


class CrashTests(StoreTestCase):
    def test_killed_at_any_point_it_keeps_what_was_committed_and_shows_nothing_else(self) -> None:
        self.stop()
        chance = random.Random(2026)
        committed: dict[str, tuple[int, int]] = {}
        for life in range(1, 5):
            process = child(_WRITER, self.data, self.node_page.path, str(life))
            assert process.stdout is not None
            self.assertEqual("ready\n", process.stdout.readline())
            for _ in range(chance.randrange(2, 60)):
                self.note(committed, process.stdout.readline())
            process.kill()
            for line in process.stdout.read().splitlines(keepends=True):
                self.note(committed, line)
            process.communicate()
            self.start()
            self.compare(committed)
            self.check()
            self.stop()

    def note(self, committed: dict[str, tuple[int, int]], line: str) -> None:
        if line.endswith("True\n"):
            key, size, salt, _ = line.split()
            committed[key] = max(committed.get(key, (0, 0)), (int(salt), int(size)))

    def compare(self, committed: dict[str, tuple[int, int]]) -> None:
        for number in range(12):
            found = self.find(b"%d" % number)
            salt, _ = committed.get(str(number), (0, 0))
            if found is None:
                self.assertEqual(0, salt, "a committed record is gone")
                continue
            got_size, got_salt = map(int, found.etag.split())
            self.assertGreaterEqual(got_salt, salt, "an older record came back")
            self.assertEqual(octets(got_size, got_salt), self.content(b"%d" % number))
            committed[str(number)] = (got_salt, got_size)


class ManyProcessesTests(StoreTestCase):
    workers = 3

    def test_readers_elsewhere_get_exact_octets_while_one_writes_removes_and_frees(self) -> None:
        """Nothing that is pinned is freed, and nothing is read that is not the content (DESIGN 7)."""
        readers = [child(_READER, self.data, self.node_page.path, str(index)) for index in (1, 2)]
        for reader in readers:
            assert reader.stdout is not None
            self.assertEqual("ready\n", reader.stdout.readline())
        chance = random.Random(7)
        for salt in range(1, 80):
            key = b"%d" % chance.randrange(6)
            size = chance.choice([10, 9000, 40_000, CHUNK, 2 * CHUNK + 20_000, 8 * CHUNK + 5])
            self.store(octets(size, salt), response(key, etag=b"%d %d" % (size, salt)))
            if chance.random() < 0.3:
                found = self.find(key)
                assert isinstance(found, Stored)
                self.writer.remove(hash_of(key), found.content_id)
            self.free()
        hits = []
        for reader in readers:
            output, _ = reader.communicate("stop\n", timeout=60)
            self.assertEqual(0, reader.returncode)
            hits.append(int(output))
        self.assertTrue(all(hits), hits)

    def free(self) -> None:
        """As the collector: read the rows, then the pins, then delete chunks, then tail and row."""
        rows = self.rows(layout.ORPHANS)
        pins = self.node_page.pins()
        for content_id, row in rows.items():
            spawn, size = layout.ORPHAN_ROW.unpack(row)
            if spawn != layout.NOBODY or content_id in pins:
                continue
            blobs, small = self.environments.blobs, self.environments.small
            with blobs.env.begin(write=True) as txn:
                for index in range(layout.chunks_of(size)):
                    txn.delete(layout.place(content_id, index), db=blobs.databases[layout.CHUNKS])
            with small.env.begin(write=True) as txn:
                for index in range(5):
                    txn.delete(layout.place(content_id, index), db=small.databases[layout.CONTENTS])
                txn.delete(content_id, db=small.databases[layout.ORPHANS])


class FullDiskTests(StoreTestCase):
    def test_a_full_disk_is_served_through_and_forgotten_once_there_is_room(self) -> None:
        """The limit on a file's size stands for the disk: the same commit fails at the same place."""
        self.stop()
        process = child(_LIMITED, self.data, self.node_page.path)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(("served\n", 0), (output, process.returncode))
        self.start()
        self.check()
