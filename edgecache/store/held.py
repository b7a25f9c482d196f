"""Content that grows: what of it is in memory, and reading it from octet 0, wherever it is by now."""

from __future__ import annotations

import os
from collections.abc import Sequence

import lmdb
from attrs import define, field

from edgecache.store import layout
from edgecache.store.budget import Budget
from edgecache.store.committing import Committer
from edgecache.store.growing import Growing, Spares
from edgecache.store.layout import CHUNK
from edgecache.store.reading import Pins, StoreReader
from edgecache.store.small import SmallTransaction
from edgecache.words.errors import ContentMissing

# Smaller parts than this are joined, so that an upstream that drips costs no object per octet.
_PART = 4096


@define(eq=False, repr=False)
class BlobsTransaction:
    """One write transaction of blobs."""

    _txn: lmdb.Transaction
    _databases: dict[bytes, lmdb._Database]

    def put(self, content_id: bytes, indices: Sequence[int], values: Sequence[bytearray]) -> bool:
        """Chunks, their checksums included."""
        chunks = self._databases[layout.CHUNKS]
        for index, value in zip(indices, values, strict=True):
            self._txn.put(layout.place(content_id, index), value, db=chunks)
        return True

    def finish(self) -> None:
        """Nothing is left to do."""


@define(eq=False, repr=False)
class Shared:
    """What all content writers of a worker have in common."""

    reader: StoreReader
    pins: Pins
    spawn: int
    small: Committer[SmallTransaction]
    blobs: Committer[BlobsTransaction]
    budget: Budget = field(factory=Budget)
    spares: Spares = field(factory=Spares)


@define(eq=False, repr=False)
class Held:
    """
    The reading half of a :class:`~edgecache.store.filling.ContentWriter`.

    :ivar content_id: 16 random octets, never used before.
    :ivar written: octets that came so far.
    """

    _shared: Shared
    content_id: bytes
    written: int = 0
    # Full chunks that are not in blobs (yet), with their checksums, by index; how many there were in all.
    _chunks: dict[int, bytearray] = field(factory=dict)
    _full: int = 0
    # What came of content that has no full chunk yet, in parts, and how much that is; then what grows.
    _parts: list[bytes] = field(factory=list)
    _octets: int = 0
    _growing: Growing | None = None
    _discarded: int = 0
    # Where the record is, once there is one.
    _key_hash: bytes = b""
    # The chunk last read back of which only a part was wanted: the next read is likely the rest.
    _index: int = -1
    _chunk: bytes = b""

    @property
    def held_from(self) -> int:
        """The first octet that is still to be had; more than 0 only where nothing is stored."""
        return self._discarded

    def read(self, position: int, limit: int) -> bytes:
        """
        :return: what came from ``position`` on, at most ``limit`` octets; ``b""`` if nothing yet.
        :raises ContentMissing: it was discarded, or blobs has lost it.
        """
        if position >= self.written:
            return b""
        index, offset = divmod(position, CHUNK)
        value = self._chunks.get(index)
        if value is not None:
            return bytes(memoryview(value)[offset : min(offset + limit, CHUNK)])
        if index == self._full:
            return self._newest(offset, limit)
        if position < self._discarded:
            raise ContentMissing(self.content_id, index)
        if not offset and limit >= CHUNK:
            return self._shared.reader.chunks(self._key_hash, self.content_id, index, self._in_blobs(index, limit))
        if index != self._index:
            self._chunk = self._shared.reader.chunks(self._key_hash, self.content_id, index, 1)
            self._index = index
        return self._chunk[offset : offset + limit]

    def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
        """
        See :data:`edgecache.words.ports.WriteTo`.

        :raises ContentMissing: as :meth:`read`.
        """
        stop = min(position + limit, self.written)
        views: list[memoryview] = []
        at = position
        while at < stop:
            index, offset = divmod(at, CHUNK)
            value = self._chunks.get(index)
            if value is not None:
                view = memoryview(value)[offset:CHUNK]
            elif index == self._full and self._growing is not None:
                view = self._growing.view()[offset:]
            else:
                break
            views.append(view[: stop - at])
            at += len(views[-1])
        if views or at >= stop:
            return written_now(descriptor, [before, *views])
        index, offset = divmod(position, CHUNK)
        if index >= self._full:
            return 0
        if position < self._discarded:
            raise ContentMissing(self.content_id, index)
        stop = min(stop, (index + self._in_blobs(index, offset + limit)) * CHUNK)
        whole = self._full * CHUNK
        return self._shared.reader.write_to(
            self._key_hash, self.content_id, whole, descriptor=descriptor, before=before, start=position, stop=stop
        )

    def _append(self, data: bytes) -> None:
        if not data:
            return
        parts = self._parts
        if parts and len(parts[-1]) < _PART:
            parts[-1] += data
        else:
            parts.append(data)
        self._octets += len(data)

    def _grown(self) -> Growing:
        """It will have full chunks: from now on it is gathered in memory of their size."""
        growing = self._growing
        if growing is None:
            growing = self._growing = Growing(self.content_id, self._shared.spares)
            parts, self._parts = self._parts, []
            for part in parts:
                growing.put(part)
        return growing

    def _newest(self, offset: int, limit: int) -> bytes:
        """What came after the last full chunk."""
        if self._growing is not None:
            return bytes(self._growing.view()[offset : offset + limit])
        for part in self._parts:
            if offset < len(part):
                return part if not offset and len(part) <= limit else part[offset : offset + limit]
            offset -= len(part)
        return b""

    def _in_blobs(self, index: int, limit: int) -> int:
        """:return: how many chunks from ``index`` on can be read there at once."""
        count = 1
        while (count + 1) * CHUNK <= limit and index + count < self._full and index + count not in self._chunks:
            count += 1
        return count


def written_now(descriptor: int, pieces: list[bytes | memoryview]) -> int:
    """:return: octets that a non-blocking socket took; 0 also when it is broken, which its transport finds out."""
    try:
        return os.writev(descriptor, pieces)
    except OSError:
        return 0
