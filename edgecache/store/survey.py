"""
What the biggest stored responses are, without a look at all of them at once.

Records lie in the order of a hash, so any stretch of them is a fair sample. Each turn looks at the next stretch; once
around, it has seen all.
"""

from __future__ import annotations

import heapq
import struct
from typing import Any

from attrs import define, field, frozen

from edgecache.store import layout
from edgecache.store.environments import Environments
from edgecache.store.record import Damaged, unpack
from edgecache.words.stored import Stored

ROWS = 20_000
"""That one turn looks at; about a tenth of a second of a thread."""

# Records that only a slow disk has may take 10 ms each: so long, pages that others free are kept.
_PER_TRANSACTION = 200
_KEPT = 100

# Where a record has its size (:mod:`edgecache.store.record`).
_SIZE = struct.Struct("<80xQ")
_SIZE_AT = layout.RECORD_PREFIX.size


@frozen
class Surveyed:
    """
    :ivar biggest: records that are still there, the biggest content first.
    :ivar examined: records of this round so far; of the whole last one once there was one.
    :ivar records: that there are.
    :ivar rounds: how often all have been seen.
    """

    biggest: list[Stored]
    examined: int
    records: int
    rounds: int


@define(eq=False, repr=False)
class Survey:
    """One thread at a time."""

    _environments: Environments
    _at: bytes = b""
    _examined: int = 0
    _last_round: int = 0
    _rounds: int = 0
    # Of this round, and of the one before as long as this one is not over: size, key hash.
    _found: list[tuple[int, bytes]] = field(factory=list)
    _before: list[tuple[int, bytes]] = field(factory=list)

    def turn(self, rows: int = ROWS) -> Surveyed:
        """
        Look at the next ``rows`` records.

        :raises lmdb.Error: the store cannot be read.
        """
        while rows > 0:
            looked = min(rows, _PER_TRANSACTION)
            rows -= looked
            if self._look(looked) < looked:
                self._rounds += 1
                self._last_round, self._examined = self._examined, 0
                self._before, self._found, self._at = self._found, [], b""
                break
        return self._result()

    def _look(self, rows: int) -> int:
        """:return: how many there were."""
        small = self._environments.small
        count = 0
        key = self._at
        # No view may outlive the transaction.
        with small.env.begin(buffers=True) as txn, txn.cursor(small.databases[layout.RECORDS]) as cursor:
            found = cursor.set_range(key) if key else cursor.first()
            while found and count < rows:
                value: Any = cursor.value()
                count += 1
                if value[1] == layout.KIND_STORED and len(value) >= _SIZE_AT + _SIZE.size:
                    size = _SIZE.unpack_from(value, _SIZE_AT)[0]
                    if len(self._found) < _KEPT:
                        heapq.heappush(self._found, (size, bytes(cursor.key())))
                    elif size > self._found[0][0]:
                        heapq.heapreplace(self._found, (size, bytes(cursor.key())))
                found = cursor.next()
            # From the first that was not looked at.
            self._at = bytes(cursor.key()) if found else b""
        self._examined += count
        return count

    def _result(self) -> Surveyed:
        small = self._environments.small
        biggest: list[Stored] = []
        with small.env.begin() as txn:
            records = small.databases[layout.RECORDS]
            for _, key_hash in sorted({*self._found, *self._before}, reverse=True)[:_KEPT]:
                value: Any = txn.get(key_hash, db=records)
                if value is not None and (stored := _stored(value)) is not None:
                    biggest.append(stored)
            count = txn.stat(records)["entries"]
        biggest.sort(key=lambda stored: -stored.size)
        return Surveyed(biggest, max(self._examined, self._last_round), count, self._rounds)


def _stored(value: bytes) -> Stored | None:
    try:
        found = unpack(value)[0]
    except Damaged:
        return None
    return found if isinstance(found, Stored) else None
