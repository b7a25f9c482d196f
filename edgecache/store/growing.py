"""The chunk that is not full yet, in memory into which the network may be read."""

from __future__ import annotations

from attrs import define, field
from xxhash import xxh3_64_intdigest

from edgecache.store import layout
from edgecache.store.layout import CHUNK

SPARE_CHUNKS = 384
"""Kept for the next ones: taking 64 KiB from the system anew costs more than filling it."""

ROOM_CHUNKS = 16
"""Offered at once: one read of the network is worth a turn of the loop."""


@define(eq=False, repr=False)
class Spares:
    """
    Memory for chunks, of all fills of a worker: between two reads, what is not filled belongs to nobody.

    Each piece has the octets of a value in blobs: a chunk and its checksum.
    """

    _spare: list[bytearray] = field(factory=list)

    def offer(self, count: int) -> list[bytearray]:
        """:return: those that the next calls of :meth:`take` give, in their order."""
        spare = self._spare
        while len(spare) < count:
            spare.append(bytearray(layout.CHUNK_VALUE))
        return spare[: -count - 1 : -1]

    def take(self) -> bytearray:
        """:return: the caller's from now on."""
        return self._spare.pop() if self._spare else bytearray(layout.CHUNK_VALUE)

    def give(self, chunk: bytearray) -> None:
        """``chunk`` is on disk. Whoever still looks at it, as a digest that is being computed does, keeps it."""
        if len(self._spare) < SPARE_CHUNKS:
            try:
                # Its size cannot change while anybody looks at it.
                chunk.append(chunk.pop())
            except BufferError:
                return
            self._spare.append(chunk)


@define(eq=False, repr=False)
class Growing:
    """
    Octets of one content become full chunks, in order; what is read into :meth:`room` is copied nowhere.

    :ivar filled: octets of the chunk that is not full.
    """

    _content_id: bytes
    _spares: Spares
    filled: int = 0
    _index: int = 0
    _chunk: bytearray | None = None

    def put(self, data: bytes | memoryview) -> list[bytearray]:
        """
        More octets, each copied once.

        :return: the chunks that are full now, with their checksums.
        """
        full: list[bytearray] = []
        view = memoryview(data)
        while view:
            room = self._room()
            octets = min(len(room), len(view))
            room[:octets] = view[:octets]
            view = view[octets:]
            full += self.take(octets)
        return full

    def room(self, octets: int) -> list[memoryview]:
        """
        :return: where the next octets may be written, at most so many, up to the ends of chunks; valid until
            anything else is called, here or of another fill.
        """
        rooms: list[memoryview] = []
        first = self._room()
        left = octets - len(first)
        if left >= 0:
            rooms.append(first)
            rooms += [memoryview(each)[:CHUNK] for each in self._spares.offer(min(left // CHUNK, ROOM_CHUNKS - 1))]
        return rooms

    def take(self, octets: int) -> list[bytearray]:
        """
        So many octets were written into :meth:`room`.

        :return: the chunks that are full now, with their checksums.
        """
        full: list[bytearray] = []
        self.filled += octets
        while self.filled >= CHUNK:
            chunk = self._spares.take() if self._chunk is None else self._chunk
            self._chunk = None
            checksum = xxh3_64_intdigest(memoryview(chunk)[:CHUNK], layout.seed(self._content_id, self._index))
            layout.CHECKSUM_FIELD.pack_into(chunk, CHUNK, checksum)
            full.append(chunk)
            self._index += 1
            self.filled -= CHUNK
        if self.filled and self._chunk is None:
            self._chunk = self._spares.take()
        return full

    def view(self) -> memoryview:
        """:return: what is in the chunk that is not full."""
        return memoryview(b"" if self._chunk is None else self._chunk)[: self.filled]

    def _room(self) -> memoryview:
        if self._chunk is None:
            self._chunk = self._spares.take()
        return memoryview(self._chunk)[self.filled : CHUNK]
