"""
Reading ahead of whoever sends a large content, so that the loop never waits for the disk.

What is in memory is read by the loop, as ever; what is not is first read by a thread, and the sender is woken.
"""

from __future__ import annotations

from collections.abc import Callable

import lmdb
from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.store import layout
from edgecache.store.environments import Environments
from edgecache.store.residency import Residency, waits
from edgecache.store.threads import InThread
from edgecache.words.ports import Reader

_log = Logger()

CHECKED = 64
"""Parts that are looked at together: 4 MiB; a look takes some microseconds."""

READ = 16
"""Parts that a thread reads at a time: 1 MiB is a few milliseconds of a slow disk, and more than its read-ahead."""

BELIEVED_SECONDS = 60.0
"""How long a content that was in memory is believed to stay there."""

CAREFUL = 64
"""Looks in a row that are left to a thread once one of them had to wait: the tree that leads to a value may be absent,
too, and that cannot be seen without touching it."""

_MOST_BELIEVED = 4096


@define(eq=False, repr=False)
class Disk:
    """
    What a worker reads ahead with.

    :ivar in_thread: several threads: readers of a slow disk must not wait for each other.
    """

    _environments: Environments
    in_thread: InThread
    _seconds: Callable[[], float]
    _small: Residency = field(init=False)
    _blobs: Residency = field(init=False)
    _believed: set[bytes] = field(factory=set)
    _believed_until: float = 0.0
    _careful: int = CAREFUL

    def __attrs_post_init__(self) -> None:
        self._small = Residency(self._environments.small.env)
        self._blobs = Residency(self._environments.blobs.env)

    def ahead(self, content_id: bytes, size: int) -> Ahead | None:
        """:return: ``None`` for a content that was in memory a moment ago."""
        now = self._seconds()
        if now >= self._believed_until:
            self._believed.clear()
            self._believed_until = now + BELIEVED_SECONDS
        return None if content_id in self._believed else Ahead(self, content_id, size)

    def believe(self, content_id: bytes) -> None:
        """All of it is in memory."""
        if len(self._believed) < _MOST_BELIEVED:
            self._believed.add(content_id)

    def leading(self, content_id: bytes, size: int, index: int, stop: int) -> int:
        """:return: how many parts from ``index`` up to ``stop`` are in memory; 0 if a thread had better look."""
        if self._careful:
            return 0
        before = waits()
        there = self._leading(self._small, self._blobs, content_id, size, index, stop)
        if waits() != before:
            self._careful = CAREFUL
        return there

    def read(self, content_id: bytes, size: int, index: int, stop: int) -> tuple[int, bool]:
        """
        In a thread: wait for the first parts from ``index`` on.

        :return: how many are in memory now, and whether that took a wait.
        """
        small, blobs = Residency(self._environments.small.env), Residency(self._environments.blobs.env)
        waited, enough = False, min(index + READ, stop)
        chunks, pieces = _keys(content_id, size, index, enough)
        if chunks:
            waited = blobs.read(self._chunks, chunks)
        if pieces:
            waited = small.read(self._contents, pieces) or waited
        more = self._leading(small, blobs, content_id, size, enough, stop) if enough < stop else 0
        return enough - index + more, waited

    def told(self, waited: bool) -> None:
        """What came of :meth:`read`."""
        self._careful = CAREFUL if waited else max(0, self._careful - 1)

    def _leading(self, small: Residency, blobs: Residency, content_id: bytes, size: int, index: int, stop: int) -> int:
        chunks, pieces = _keys(content_id, size, index, stop)
        try:
            there = blobs.leading(self._chunks, chunks) if chunks else 0
            if there == len(chunks) and pieces and small.leading(self._contents, pieces) == len(pieces):
                there += 1
        except lmdb.Error:
            # Whoever reads them will say what is wrong.
            return stop - index
        return there

    @property
    def _chunks(self) -> lmdb._Database:
        return self._environments.blobs.databases[layout.CHUNKS]

    @property
    def _contents(self) -> lmdb._Database:
        return self._environments.small.databases[layout.CONTENTS]


def _keys(content_id: bytes, size: int, index: int, stop: int) -> tuple[list[bytes], list[bytes]]:
    """:return: those of the chunks among these parts, and of the pieces of the tail if that is one of them."""
    full = layout.chunks_of(size)
    chunks = [layout.place(content_id, number) for number in range(index, min(stop, full))]
    pieces = layout.pieces_of(size) if stop > full else 0
    return chunks, [layout.place(content_id, number) for number in range(pieces)]


@define(eq=False, repr=False)
class Ahead:
    """
    Of one content that is being sent. It holds whom it wakes, but not the source, whose end frees the pin.

    Its parts are its chunks and, as the last one, its tail.
    """

    _disk: Disk
    _content_id: bytes
    _size: int
    _parts: int = field(init=False)
    _readers: dict[Reader, None] = field(factory=dict)
    # Parts that are known to be in memory; whether a thread reads what follows; whether anybody waits for it.
    _first: int = 0
    _end: int = 0
    _reading: bool = False
    _wanted: bool = False

    @_parts.default
    def _all(self) -> int:
        return -(-self._size // layout.CHUNK)

    def attach(self, reader: Reader) -> None:
        """Wake ``reader`` when there is more."""
        self._readers[reader] = None

    def detach(self, reader: Reader) -> None:
        """It needs no more."""
        self._readers.pop(reader, None)

    def there(self, index: int) -> int:
        """
        :param index: of a part of the content.
        :return: how many from there on can be read without waiting for the disk; 0: readers will be woken.
        """
        if not self._first <= index < self._end:
            if not self._reading:
                if index != self._end:
                    self._first = self._end = index
                self._look()
            if not self._first <= index < self._end:
                self._wanted = True
                return 0
        elif not self._reading and self._end - index <= READ and self._end < self._parts:
            self._look()
        return self._end - index

    def _look(self) -> None:
        """What follows is in memory, or a thread begins to read it."""
        index = self._end
        stop = min(index + CHECKED, self._parts)
        self._take(self._disk.leading(self._content_id, self._size, index, stop))
        if self._end == index:
            self._reading = True
            reading = self._disk.in_thread(self._disk.read, self._content_id, self._size, index, stop)
            _ = reading.addCallbacks(self._was_read, self._failed, callbackArgs=(), errbackArgs=(stop - index,))

    def _take(self, parts: int) -> None:
        self._end += parts
        if self._first == 0 and self._end == self._parts:
            self._disk.believe(self._content_id)

    def _was_read(self, result: tuple[int, bool]) -> None:
        parts, waited = result
        self._disk.told(waited)
        self._go_on(parts)

    def _failed(self, failure: Failure, parts: int) -> None:
        # Whoever reads these parts now says what is wrong.
        _log.failure("store: reading ahead failed", failure)
        self._go_on(parts)

    def _go_on(self, parts: int) -> None:
        self._reading = False
        self._take(parts)
        wanted, self._wanted = self._wanted, False
        if wanted:
            for reader in list(self._readers):
                reader.wake()
