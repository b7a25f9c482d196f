"""A store in a temporary directory, with the loop's side of it in the test's own hands."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.eviction import PROBATION, Queue, Standing
from edgecache.store import layout
from edgecache.store.controlrows import Purges, Rows
from edgecache.store.disk import Disk
from edgecache.store.environments import Environments
from edgecache.store.filling import ContentWriter
from edgecache.store.page import Page
from edgecache.store.pagewriter import PageWriter
from edgecache.store.queues import read_standing, weights
from edgecache.store.reading import StoreReader
from edgecache.store.writing import StoreWriter
from edgecache.words.config import GIB, MIB, StoreSettings
from edgecache.words.stored import Stored, Variants

T = TypeVar("T")

SPAWN = 7
LOCAL = Disk(0xEF53, 100 * GIB)
SETTINGS = StoreSettings(size=64 * MIB)


def hash_of(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=32).digest()


def response(key: bytes = b"key", *, floor: int = 1, head: bytes = b"HTTP/1.1 200 OK\r\n", **others: Any) -> Stored:
    """A stored response without content, as a fill prepares it."""
    values: dict[str, Any] = {
        "site": 5,
        "key": key,
        "status": 200,
        "flags": 0,
        "floor": floor,
        "generated_at": 1_700_000_000.0,
        "fresh_until": 1_700_000_060.0,
        "stale_while_revalidate_until": 1_700_000_090.0,
        "stale_if_error_until": float("inf"),
        "validated_at": 1_700_000_000.5,
        "date": 1_700_000_000.0,
        "last_modified": None,
        "etag": b'"e"',
        "size": 0,
        "content_id": bytes(16),
        "selectors": (1, 2, 3),
        "head": head,
    }
    return Stored(**(values | others))


@functools.lru_cache(maxsize=16)
def octets(size: int, salt: int = 0) -> bytes:
    """Content in which every place differs from its neighbours, and from that of another salt."""
    return hashlib.shake_128(salt.to_bytes(4, "big")).digest(size)


def given(environments: Environments, epoch: int) -> None:
    """Its control has given all epochs up to this one."""
    control = environments.control
    with control.env.begin(write=True) as txn:
        Purges(epoch).put(Rows(txn, control.databases))


class Loop:
    """The loop's side of ``callFromThread``: calls happen when the test says so."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        self.calls.put((function, arguments))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for calls, and make them, until ``condition`` holds. A minute without any is a failure."""
        while not condition():
            function, arguments = self.calls.get(timeout=60)
            function(*arguments)

    def result(self, deferred: Deferred[T]) -> T:
        results: list[T] = []
        deferred.addBoth(results.append)
        self.until(lambda: results)
        return results[0]


class StoreTestCase(SynchronousTestCase):
    """An open store, a page, one reader, one writer."""

    settings = SETTINGS
    workers = 1
    running = False

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.data = os.path.join(self.directory, "data")
        self.node_page = PageWriter.create(os.path.join(self.directory, "page"), self.workers)
        self.addCleanup(self.node_page.close)
        self.page = Page.open(self.node_page.path, 0)
        self.addCleanup(self.page.close)
        self.start()
        self.addCleanup(self.stop)

    def start(self) -> None:
        self.environments = Environments.open(self.data, self.settings, node_process=True, inspect=lambda _: LOCAL)
        given(self.environments, 1 << 40)
        self.loop = Loop()
        self.writer = StoreWriter(self.environments, self.page, SPAWN, self.loop)  # type: ignore[arg-type]  # what it uses of a reactor
        self.reader = StoreReader(self.environments, self.page, self.writer.damaged)

        self.running = True

    def stop(self) -> None:
        if not self.running:
            return
        self.running = False
        self.reader.done()
        self.flush()
        self.loop.result(Deferred.fromCoroutine(self.writer.close()))
        self.environments.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def flush(self) -> None:
        """Everything asked of small so far is on disk."""
        self.loop.result(self.writer.put(hash_of(b"nothing"), response(b"nothing")))

    # What a fill does

    def fill(self, content: bytes, step: int = 100_000) -> ContentWriter:
        writer = self.writer.begin()
        for start in range(0, len(content), step):
            writer.write(content[start : start + step])
        return writer

    def commit(self, writer: ContentWriter, stored: Stored, primary: tuple[bytes, Variants] | None = None) -> bool:
        return self.loop.result(writer.commit(hash_of(stored.key + stored.variant), stored, primary))

    def store(self, content: bytes, stored: Stored | None = None) -> Stored:
        """Fill, commit, done."""
        stored = response() if stored is None else stored
        writer = self.fill(content)
        self.assertTrue(self.commit(writer, stored))
        writer.finished()
        return stored

    # What a hit does

    def find(self, key: bytes = b"key", variant: bytes = b"") -> Stored | None:
        found = self.reader.look_up(hash_of(key + variant), key)
        self.reader.done()
        assert not isinstance(found, Variants)
        return found

    def content(self, key: bytes = b"key", variant: bytes = b"") -> bytes | None:
        """The content as a client would get it, ``None`` for a miss."""
        key_hash = hash_of(key + variant)
        found = self.reader.look_up(key_hash, key)
        try:
            if not isinstance(found, Stored):
                return None
            if found.size < layout.CHUNK:
                return self.reader.content(found)
            source = self.reader.open_source(key_hash, found)
            if source is None:
                return None
        finally:
            self.reader.done()
        got = bytearray()
        while not source.ended(len(got)):
            data = source.read(len(got), 65536)
            if source.failed is not None:
                source.close()
                raise source.failed
            got += data
        source.close()
        return bytes(got)

    # What lies on disk

    def rows(self, name: bytes) -> dict[bytes, bytes]:
        environment = self.environments.blobs if name == layout.CHUNKS else self.environments.small
        with environment.env.begin() as txn, txn.cursor(db=environment.databases[name]) as cursor:
            return dict(cursor)

    def alter(self, name: bytes, key: bytes, change: Callable[[bytearray], None]) -> None:
        """Damage one value, as a disk would."""
        environment = self.environments.blobs if name == layout.CHUNKS else self.environments.small
        with environment.env.begin(write=True) as txn:
            value = bytearray(txn.get(key, db=environment.databases[name]))
            change(value)
            txn.put(key, bytes(value), db=environment.databases[name])

    def check(self) -> None:
        """What holds for every committed state (the notes in :mod:`edgecache.store.layout`)."""
        records, queue, contents = self.rows(layout.RECORDS), self.rows(layout.QUEUE), self.rows(layout.CONTENTS)
        orphans, chunks = self.rows(layout.ORPHANS), self.rows(layout.CHUNKS)
        rows = {key: layout.QUEUE_ROW.unpack_from(value) for key, value in queue.items()}
        self.assertEqual(
            {(key_hash, layout.sequence_of(record)) for key_hash, record in records.items()},
            {(row[0], layout.U64_KEY.unpack(key)[0]) for key, row in rows.items()},
        )
        ids = [row[1] for row in rows.values() if row[1] != layout.NO_CONTENT]
        self.assertEqual(len(ids), len(set(ids)), "two rows with one content")
        owned = {row[1] for row in rows.values()}
        in_blobs = {row[1] for row in rows.values() if row[3] & layout.ROW_IN_BLOBS}
        self.assertEqual(set(), in_blobs & set(orphans))
        self.check_queues(queue)
        self.assertLessEqual({key[:16] for key in contents}, owned | set(orphans))
        self.assertLessEqual({key[:16] for key in chunks}, in_blobs | set(orphans))

    def check_queues(self, queue: dict[bytes, bytes]) -> None:
        """Who has a place is there, every place has its row, and the sums are right."""
        places = self.rows(layout.PLACES)
        self.assertEqual({place: key for key, row in queue.items() if (place := row[layout.QUEUE_ROW.size :])}, places)
        small, blobs = Standing(), Standing()
        for row in queue.values():
            place = row[layout.QUEUE_ROW.size :]
            _, _, size, flags = layout.QUEUE_ROW.unpack_from(row)
            if place:
                self.assertEqual(bool(flags & layout.ROW_IN_BLOBS), bool(place[1]))
            for standing, octets in zip((small, blobs), weights(size, flags), strict=True):
                standing.add(Queue(place[0]) if place else PROBATION, octets)
        with self.environments.small.env.begin() as txn:
            found = read_standing(txn, self.environments.small.databases)
        for standing, kept in zip((small, blobs), found, strict=True):
            standing.evicting = kept.evicting
            self.assertEqual(standing, kept)
