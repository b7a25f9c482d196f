"""
Unfinished downloads: what clients have of files that they get in parts, until they have all of it.

Two databases of the counts (:mod:`edgecache.store.counts`)::

  partials  hash (16)                    -> JSON: what a client has of a file so far
  expiry    milliseconds (u64) + hash    -> b"": which of them is the oldest
"""

from __future__ import annotations

import hashlib

import lmdb
import orjson
from attrs import define, field

from edgecache.index.coverage import Coverage
from edgecache.index.downloads import Event
from edgecache.store.formats import Format, from_json, odd

WINDOW_MILLISECONDS = 3600_000
"""Ranges of one client's one file, each so long after the one before, are one download's."""

MOST_PARTIALS = 100_000
"""Unfinished downloads that are remembered; the oldest go first."""

_EXPIRY = Format(">Q16s")


@define(eq=False, repr=False)
class Partial:
    """
    What one client has got of one file in parts.

    :ivar time: of the newest part, milliseconds since the epoch.
    :ivar begun: some of it came as the begin of a whole response.
    :ivar spare: downloads by ranges alone that were counted; the whole response that follows one is the same download.
    """

    time: int
    coverage: Coverage
    begun: bool = False
    spare: int = 0

    def dump(self) -> bytes:
        """:return: for :meth:`load`."""
        coverage = self.coverage
        return orjson.dumps([self.time, self.begun, self.spare, coverage.total, coverage.starts, coverage.depths])

    @classmethod
    def load(cls, octets: bytes) -> Partial:
        """
        :return: what was dumped.
        :raises lmdb.CorruptedError: this was not.
        """
        try:
            time, begun, spare, total, starts, depths = from_json(octets)
        except (TypeError, ValueError) as error:
            raise odd(error) from error
        return cls(time, Coverage(total, starts, depths), begun, spare)


@define(eq=False, repr=False)
class Partials:
    """All of them, within one transaction."""

    _txn: lmdb.Transaction
    _partials: lmdb._Database
    _expiry: lmdb._Database
    # At least so many, if any.
    _held: int = field(init=False)

    @_held.default
    def _how_many(self) -> int:
        return int(self._txn.stat(self._partials)["entries"])

    def add(self, event: Event) -> int:
        """:param event: of a part of a file. :return: how many downloads it completes."""
        assert event.part is not None
        first, stop, total = event.part
        key, partial = self._partial(event)
        if partial is None or partial.coverage.total != total:
            partial = Partial(event.time, Coverage(total))
        partial.coverage.add(first, stop)
        partial.begun = partial.begun or event.begun
        done = partial.coverage.take()
        if done and not partial.begun:
            partial.spare += done
        if done:
            partial.begun = False
        self._keep(key, partial, event.time)
        return done

    def spares(self, event: Event) -> bool:
        """Was the whole response counted already, when the client had read all of it by ranges?"""
        if not self._held:
            return False
        key, partial = self._partial(event)
        if partial is None or not partial.spare or partial.coverage.total != event.octets:
            return False
        partial.spare -= 1
        self._keep(key, partial, event.time)
        return True

    def expire(self, now: int) -> None:
        """Forget those that nothing can be added to any more, and the oldest of too many. :param now: milliseconds."""
        before = now - WINDOW_MILLISECONDS
        cursor = self._txn.cursor(self._expiry)
        left = self._txn.stat(self._expiry)["entries"]
        while cursor.first():
            time, key = _EXPIRY.unpack(cursor.key())
            if time >= before and left <= MOST_PARTIALS:
                return
            if not self._txn.delete(cursor.key(), db=self._expiry):
                raise lmdb.CorruptedError("a row is not where it is")
            self._txn.delete(key, db=self._partials)
            left -= 1

    def _partial(self, event: Event) -> tuple[bytes, Partial | None]:
        fields = (event.client, event.user_agent, event.site, event.path)
        key = hashlib.blake2b(b"\n".join(fields), digest_size=16).digest()
        found = self._txn.get(key, db=self._partials)
        if found is None:
            return key, None
        partial = Partial.load(bytes(found))
        if event.time - partial.time > WINDOW_MILLISECONDS:
            self._txn.delete(_EXPIRY.pack(partial.time, key), db=self._expiry)
            self._txn.delete(key, db=self._partials)
            return key, None
        return key, partial

    def _keep(self, key: bytes, partial: Partial, now: int) -> None:
        self._txn.delete(_EXPIRY.pack(partial.time, key), db=self._expiry)
        if partial.coverage.empty and not partial.spare:
            self._txn.delete(key, db=self._partials)
            return
        partial.time = max(partial.time, now)
        self._held += 1
        self._txn.put(key, partial.dump(), db=self._partials)
        self._txn.put(_EXPIRY.pack(partial.time, key), b"", db=self._expiry)
