"""Stored content as a :class:`~edgecache.words.ports.Source`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from edgecache.store.ahead import Ahead
from edgecache.store.layout import CHUNK
from edgecache.words.errors import ContentMissing
from edgecache.words.ports import Reader

if TYPE_CHECKING:
    from edgecache.store.reading import Pins, StoreReader


@define(eq=False, repr=False)
class StoredSource:
    """
    Complete content in blobs, pinned while anybody may read it.

    Everything is there, on disk: :meth:`read` answers nothing at the end, once a chunk turned out to be missing, and
    while a thread reads what is not in memory (:mod:`edgecache.store.ahead`).

    :ivar length: octets in all.
    """

    _store: StoreReader
    _pins: Pins
    _key_hash: bytes
    _content_id: bytes
    length: int | None
    _slot: int | None
    # What of it is in memory; without it all is believed to be.
    _ahead: Ahead | None = None
    failed: Exception | None = None
    _readers: int = 0
    # A chunk of which a part was read: whoever reads in small steps does not verify it anew each time.
    _index: int = -1
    _chunk: bytes = b""

    def read(self, position: int, limit: int) -> bytes:
        """As many full chunks as ``limit`` allows at once, or up to the end of the one at ``position``."""
        length = self.length
        assert length is not None
        if position >= length or self.failed is not None:
            return b""
        index, offset = divmod(position, CHUNK)
        if self._ahead is not None:
            there = self._ahead.there(index)
            if not there:
                return b""
            limit = min(limit, there * CHUNK - offset)
        try:
            if not offset and limit >= CHUNK:
                count = min(limit, length - position) // CHUNK
                if count:
                    return self._store.chunks(self._key_hash, self._content_id, index, count)
            if index != self._index:
                if index < length // CHUNK:
                    self._chunk = self._store.chunks(self._key_hash, self._content_id, index, 1)
                else:
                    self._chunk = self._store.tail(self._key_hash, self._content_id, length)
                self._index = index
        except ContentMissing as missing:
            # Its traceback would hold this frame, which holds this source: a cycle that keeps the pin.
            self.failed = missing.with_traceback(None)
            return b""
        data = self._chunk[offset : offset + limit]
        if offset + len(data) == len(self._chunk):
            self._index, self._chunk = -1, b""
        return data

    def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
        """See :data:`edgecache.words.ports.WriteTo`."""
        length = self.length
        assert length is not None
        stop = min(position + limit, length)
        if self.failed is not None or position >= stop:
            return 0
        index = position // CHUNK
        if self._ahead is not None:
            there = self._ahead.there(index)
            if not there:
                return 0
            stop = min(stop, (index + there) * CHUNK)
        try:
            return self._store.write_to(self._key_hash, self._content_id, length, descriptor, before, position, stop)
        except ContentMissing as missing:
            self.failed = missing.with_traceback(None)
            return 0

    def begins(self, position: int) -> bool:
        """
        Is there what is at ``position``? To be asked before a head is sent: then all can still be fetched anew.

        What an answer begins with was read by a thread, if only the disk had it (:mod:`edgecache.fills.warming`).
        """
        assert self.length is not None
        try:
            self._store.part(self._key_hash, self._content_id, self.length, position, position + 1)
        except ContentMissing:
            return False
        return True

    def ended(self, position: int) -> bool:
        return position == self.length

    def attach(self, reader: Reader) -> None:
        self._readers += 1
        if self._ahead is not None:
            self._ahead.attach(reader)

    def detach(self, reader: Reader) -> None:
        if self._ahead is not None:
            self._ahead.detach(reader)
        if self._readers:
            self._readers -= 1
            if not self._readers:
                self.close()

    def close(self) -> None:
        """Nobody will read: let the content go if the collector wants it."""
        self._index, self._chunk = -1, b""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._pins.unpin(slot)

    def __del__(self) -> None:
        # Handed to a client that had gone already, it is never attached, hence never detached.
        self.close()
