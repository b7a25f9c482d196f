"""
Whatever an answer needs of the store is read by a thread first, if only the disk has it: the loop would wait, and with
it all clients.

Large content beyond its begin is :mod:`edgecache.store.ahead`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import lmdb
from attrs import define, field, frozen
from twisted.logger import Logger

from edgecache.fills.deriving import Derivations
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Part
from edgecache.rules.pages import PAGE
from edgecache.rules.partrecords import Place, as_whole, part_hash
from edgecache.rules.parts import answers
from edgecache.rules.presenting import present
from edgecache.rules.representations import SOURCE
from edgecache.rules.resuming import overlap
from edgecache.rules.varying import variant_hash, variant_of
from edgecache.store import layout
from edgecache.store.ahead import READ
from edgecache.store.environments import Environments
from edgecache.store.layout import CHUNK
from edgecache.store.reading import StoreReader
from edgecache.store.residency import Residency, waits
from edgecache.store.threads import InThread
from edgecache.words.stored import Stored, Variants

_log = Logger()

LOOKS = 5
"""
Base record, record of a form or variant, those of parts, chunks, pieces: there is nothing more to read before an answer
begins.
"""

CAREFUL = 256
"""Requests in a row that are read by a thread unseen, once something had to be waited for."""

BELIEVED_SECONDS = 60.0
"""How long what was in memory is believed to stay there."""

_SLOTS = 1 << 20


@frozen(eq=False, repr=False)
class Absent:
    """Values of one database that only the disk has."""

    residency: Residency
    database: lmdb._Database
    keys: list[bytes]


@define(eq=False, repr=False)
class Warming:
    """
    Of one worker.

    What was found in memory is believed to stay there for a while: a mark for each request, by a hash, so that one of
    them costs nothing the second time.

    Whether a value is in memory can be seen without touching it, but not the pages of the tree that lead to it. So
    after a start, and whenever something had to be waited for, the next requests without a mark are left to a thread
    unseen: a hop to it costs less than a tenth of a millisecond. As long as nobody waits, only values are looked at.
    """

    _reader: StoreReader
    _derivations: Derivations
    _environments: Environments
    _in_thread: InThread
    _seconds: Callable[[], float]
    _small: Residency = field(init=False)
    _blobs: Residency = field(init=False)
    _marks: bytearray = field(factory=lambda: bytearray(_SLOTS))
    _believed_until: float = 0.0
    _careful: int = CAREFUL
    _read_already: int = 0

    def __attrs_post_init__(self) -> None:
        self._small = Residency(self._environments.small.env)
        self._blobs = Residency(self._environments.blobs.env)

    def absent(self, asked: Asked, looks: int = 0) -> Absent | None:
        """
        To be called outside of a read transaction.

        :param looks: how often something was read for this request already.
        :return: what has to be read first; ``None``: the store can be asked.
        """
        now = self._seconds()
        if now >= self._believed_until:
            self._marks, self._believed_until = bytearray(_SLOTS), now + BELIEVED_SECONDS
        part = None if asked.range is None else (asked.range.first, asked.range.last)
        slot = (int.from_bytes(asked.key_hash[:4], "little") ^ hash((asked.representation, part))) & _SLOTS - 1
        if self._marks[slot] or looks >= LOOKS:
            return None
        self._read_already = looks
        before = waits()
        try:
            found = self._absent(asked)
        except lmdb.Error:
            # Whoever reads it will say what is wrong.
            return None
        finally:
            self._reader.done()
        if waits() != before:
            self._careful = CAREFUL
        if found is None:
            self._careful = max(0, self._careful - 1)
            self._marks[slot] = 1
        return found

    async def read(self, absent: Absent) -> None:
        """Done when a thread has read it, or could not."""
        try:
            if await self._in_thread(absent.residency.read, absent.database, absent.keys):
                self._careful = CAREFUL
        except lmdb.Error:
            # As above.
            return
        except Exception:  # noqa: BLE001  # no thread, no memory: whoever waits for this is answered all the same
            _log.failure("store: reading before an answer failed")

    def _absent(self, asked: Asked) -> Absent | None:
        key_hash = asked.key_hash
        if absent := self._record(key_hash):
            return absent
        found = self._reader.look_up(key_hash, asked.key)
        if isinstance(found, Variants):
            for names in found.nominated:
                key_hash = variant_hash(asked.key_hash, variant_of(asked, names))
                if absent := self._record(key_hash):
                    return absent
                stored = self._reader.look_up(key_hash, asked.key)
                if isinstance(stored, Stored):
                    return self._content(asked, stored)
            # As a look-up has it: where the first of them would lie.
            variant = variant_of(asked, found.nominated[0]) if found.nominated else b""
            return self._parts(asked, variant_hash(asked.key_hash, variant))
        if found is not None and found.flags & PAGE and asked.representation is not SOURCE:
            view = self._derivations.view(asked, found)
            if absent := self._record(view.record_hash):
                return absent
            derived = self._reader.look_up(view.record_hash, view.key)
            found = derived if isinstance(derived, Stored) else None
            return None if found is None else self._content(asked, found)
        return self._parts(asked, key_hash) if found is None else self._content(asked, found)

    def _parts(self, asked: Asked, record_hash: bytes) -> Absent | None:
        """What is looked for where nothing whole is: a part that answers a range, a beginning that is gone on with."""
        if not asked.fills or asked.page is not None:
            return None
        places = (Place.BEGINNING,) if asked.range is None else tuple(Place)
        lies = [part_hash(record_hash, place) for place in places]
        if absent := self._some(self._small, self._environments.small.databases[layout.RECORDS], lies):
            return absent
        tail = None
        for each in lies:
            part = self._reader.look_up(each, asked.key)
            found = as_whole(part) if isinstance(part, Stored) else None
            if not isinstance(part, Stored) or found is None:
                continue
            whole, span = found
            wanted = present(asked, whole)
            if isinstance(wanted, Part) and answers(span, wanted):
                return self._octets(part, wanted.start - span.start, wanted.stop - span.start)
            if not span.start:
                tail = part
        # The rest is compared with its last octets.
        return None if tail is None else self._octets(tail, tail.size - overlap(tail.size), tail.size)

    def _record(self, key_hash: bytes) -> Absent | None:
        return self._some(self._small, self._environments.small.databases[layout.RECORDS], [key_hash])

    def _content(self, asked: Asked, stored: Stored) -> Absent | None:
        """The begin of what is sent of it, or all if it is small; inline content is its record's."""
        if asked.head or not stored.size:
            return None
        start, stop = 0, stored.size
        part = None if asked.range is None else present(asked, stored)
        if isinstance(part, Part):
            start, stop = part.start, part.stop
        return self._octets(stored, start, stop)

    def _octets(self, stored: Stored, start: int, stop: int) -> Absent | None:
        size, content_id = stored.size, stored.content_id
        full = size // CHUNK
        first = start // CHUNK
        last = min(full, first + READ, -(-stop // CHUNK))
        if first < last:
            chunks = [layout.place(content_id, index) for index in range(first, last)]
            absent = self._some(self._blobs, self._environments.blobs.databases[layout.CHUNKS], chunks)
            if absent or stop > last * CHUNK < full * CHUNK:
                return absent
        if stop <= full * CHUNK:
            return None
        pieces = [layout.place(content_id, index) for index in range(layout.pieces_of(size))]
        return self._some(self._small, self._environments.small.databases[layout.CONTENTS], pieces)

    def _some(self, residency: Residency, database: lmdb._Database, keys: list[bytes]) -> Absent | None:
        """:return: those of ``keys`` from the first one on that is not in memory, or may not be."""
        if not keys:
            return None
        if self._read_already:
            self._read_already -= 1
            return None
        there = 0 if self._careful else residency.leading(database, keys)
        return None if there == len(keys) else Absent(residency, database, keys[there:])
