"""A trace's requests answered by the store itself, LMDB, collector and all, one after the other."""

from __future__ import annotations

import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from attrs import define
from traces import Trace
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from edgecache.store import layout
from edgecache.store.collecting import Collector
from edgecache.store.environment import Environment
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.pagewriter import PageWriter
from edgecache.store.queues import read_standing, weights
from edgecache.store.reading import StoreReader
from edgecache.store.small import SmallTransaction
from edgecache.words.config import MIB, StoreSettings
from edgecache.words.stored import Flag, Stored

ENVIRONMENTS = ("small", "blobs")

_MOST_CHUNKS = 40
_CHUNK = os.urandom(layout.CHUNK_VALUE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n".ljust(500, b"x") + b"\r\n"


def fitted(trace: Trace, environment: str) -> Trace:
    """:return: the same requests, for things so small that a store of some 100 MiB will do: all in one environment."""
    if environment == "blobs":
        sizes = [max(1, min(_MOST_CHUNKS, size // 40_000)) * layout.CHUNK for size in trace.sizes]
    else:
        sizes = [300 + size % 60_000 for size in trace.sizes]
    return Trace(trace.name, trace.keys, array("Q", sizes))


def weighed(trace: Trace, environment: str) -> Trace:
    """:return: the same, with the sizes that the collector counts."""
    in_blobs = environment == "blobs"
    return Trace(trace.name, trace.keys, array("Q", [weights(size, in_blobs)[in_blobs] for size in trace.sizes]))


@define(eq=False)
class Through:
    """
    A cache as :mod:`replay` knows them.

    :ivar peak: the highest share of the map that was ever used.
    """

    _environments: Environments
    _collector: Collector
    _reader: StoreReader
    _in_blobs: bool
    peak: float = 0.0

    def __call__(self, key: int, octets: int) -> bool:
        name = b"%d" % key
        key_hash = blake2b(name, digest_size=32).digest()
        found = self._reader.look_up(key_hash, name)
        if found is not None:
            self._reader.hit()
        self._reader.done()
        if found is not None:
            return True
        content_id = os.urandom(layout.CONTENT_ID_OCTETS)
        if self._in_blobs:
            with _writing(self._environments.blobs) as (txn, databases):
                for index in range(layout.chunks_of(octets)):
                    txn.put(layout.place(content_id, index), _CHUNK, db=databases[layout.CHUNKS])
        with _writing(self._environments.small) as (txn, databases):
            records = SmallTransaction(txn, databases, self._environments.popularity)
            tail = [_CHUNK[: octets % layout.CHUNK]] if octets % layout.CHUNK else []
            records.store(key_hash, self._record(name, octets, content_id), tail, None)
            records.finish()
        while self._collector.turn(0.0):
            pass
        self.peak = max(self.peak, self._collector.fills()[self._in_blobs].share)
        return False

    @property
    def capacity(self) -> int:
        """As the collector counts: how much fits."""
        fill = self._collector.fills()[self._in_blobs]
        small = self._environments.small
        with small.env.begin() as txn:
            standing = read_standing(txn, small.databases)[self._in_blobs]
        return int(standing.octets * fill.size * StoreSettings().evict_share / fill.used)

    def _record(self, key: bytes, size: int, content_id: bytes) -> Stored:
        flags = int(Flag.IN_BLOBS) if self._in_blobs else 0
        return Stored(
            *(1, key, 200, flags, 1, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, None, b'"e"', size, content_id, (1, 2, 3), _HEAD)
        )


@contextmanager
def _writing(environment: Environment) -> Iterator[tuple[Any, dict[bytes, Any]]]:
    with environment.env.begin(write=True) as txn:
        yield txn, environment.databases


@contextmanager
def through(environment: str, octets: int) -> Iterator[Through]:
    """:return: a new store of which ``environment`` holds about so many octets; in memory where there is room."""
    share = 0.75 if environment == "blobs" else 0.25
    shared = "/dev/shm"
    settings = StoreSettings(size=max(64 * MIB, int(octets / share)))
    roomy = os.path.isdir(shared) and shutil.disk_usage(shared).free > 2 * settings.size
    directory = tempfile.mkdtemp(dir=shared if roomy else None)
    environments = Environments.open(directory, settings, node_process=True)
    writer = PageWriter.create(os.path.join(directory, "page"), 1)
    page = Page.open(writer.path, 0)
    collector = Collector(environments, writer, settings, set, Clock(), maybeDeferred)
    try:
        yield Through(environments, collector, StoreReader(environments, page), environment == "blobs")
    finally:
        environments.close()
        page.close()
        writer.close()
        shutil.rmtree(directory)
