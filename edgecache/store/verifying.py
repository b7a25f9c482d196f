"""
Looking through the whole store: is everything still what was written (``edgecache verify``, DESIGN 7, 11)?

Every record and every chunk is read and its checksum compared; where a digest was demanded, the content is hashed. What
is damaged is dropped as if it had been evicted, so that the next request fetches it anew.
"""

# Note [changed meanwhile]
#
# Workers store, and the collector evicts, while this goes on. So what cannot be read is damaged only if its
# record is still there with the same content: the transaction that removes it compares.

from __future__ import annotations

import hashlib
from typing import Any

import lmdb
from attrs import define, field, frozen

from edgecache.store import layout
from edgecache.store.environment import DAMAGE, Environment
from edgecache.store.environments import Environments
from edgecache.store.layout import CHUNK
from edgecache.store.reading import StoreReader
from edgecache.store.record import Damaged, unpack
from edgecache.store.small import SmallTransaction
from edgecache.words.errors import ContentMissing
from edgecache.words.stored import Flag, Stored

MOST_TOLD = 1000
"""Damaged responses that are named; more are only counted."""

_CHUNKS_AT_ONCE = 4
_RECORD_OCTETS = 1024
"""What looking at a record counts, besides its content."""


@frozen
class Found:
    """
    Something that was not what had been written.

    :ivar key: the cache key; ``b""`` where the record itself cannot be read.
    :ivar why: for people.
    """

    key_hash: bytes
    key: bytes
    why: str


@define(eq=False, repr=False)
class Verified:
    """
    How far a pass is; only grows.

    :ivar octets: of content that was read and compared.
    :ivar hashed: contents whose sha256 was compared.
    :ivar damaged: responses that were dropped.
    :ivar found: the first of them.
    :ivar changed: responses that were replaced or evicted just while they were looked at.
    :ivar failed: why the pass ended before the end.
    """

    records: int = 0
    octets: int = 0
    hashed: int = 0
    damaged: int = 0
    changed: int = 0
    found: list[Found] = field(factory=list)
    failed: str = ""


@define(eq=False, repr=False)
class _Content:
    """One with chunks, of which some were looked at."""

    key_hash: bytes
    stored: Stored
    index: int = 0
    digest: Any = None


class _Quiet:
    """Nothing is pinned or counted: a content that goes while it is read is not damaged."""

    full_small = full_blobs = True

    def add(self, counter: int, n: int = 1) -> None:
        pass

    def pin(self, content_id: bytes) -> None:
        return None

    def unpin(self, slot: int) -> None:
        pass


@define(eq=False, repr=False)
class Verifier:
    """
    One pass through the store, in a thread.

    :ivar verified: how far it is; others may read it.
    """

    _environments: Environments
    verified: Verified = field(factory=Verified)
    _at: bytes = b""
    _content: _Content | None = None

    def turn(self, octets: int) -> int:
        """
        Go on for about so many octets.

        :return: octets that were read; 0: all has been seen.
        """
        # A new one: it keeps what it has parsed, and here nothing is met twice.
        reader = StoreReader(self._environments, _Quiet())
        before = left = octets
        try:
            while left > 0:
                content = self._content
                if content is not None:
                    left -= self._chunks(reader, content)
                    continue
                record = self._next()
                if record is None:
                    break
                self.verified.records += 1
                left -= _RECORD_OCTETS + self._record(reader, *record)
        except lmdb.Error as error:
            if isinstance(error, DAMAGE):
                self._environments.small.condemn(str(error))
            self.verified.failed = str(error)
            return 0
        finally:
            reader.done()
        condemned = [one.name for one in (self._environments.small, self._environments.blobs) if one.condemned]
        if condemned:
            self.verified.failed = f"{' and '.join(condemned)}: damaged; moved aside, and begun anew"
            return 0
        return before - left

    def _next(self) -> tuple[bytes, bytes] | None:
        """:return: the next record and where it lies."""
        small = self._environments.small
        with small.env.begin() as txn, txn.cursor(small.databases[layout.RECORDS]) as cursor:
            if not cursor.set_range(self._at):
                return None
            key_hash, value = bytes(cursor.key()), bytes(cursor.value())
        if key_hash < self._at:
            # A page of something else: the pass would go round for ever.
            small.condemn("records are not in their order")
            return None
        # The first that can follow it.
        self._at = key_hash + b"\0"
        return key_hash, value

    def _record(self, reader: StoreReader, key_hash: bytes, value: bytes) -> int:
        """:return: octets of content that were looked at."""
        try:
            stored = unpack(value)[0]
        except Damaged as damage:
            self._drop(key_hash, None, b"", f"record: {damage.why}")
            return 0
        if not isinstance(stored, Stored):
            return 0
        if stored.flags & Flag.IN_BLOBS:
            self._content = _Content(key_hash, stored, 0, hashlib.sha256() if _is_hashed(stored) else None)
            return 0
        return self._small(reader, key_hash, stored)

    def _small(self, reader: StoreReader, key_hash: bytes, stored: Stored) -> int:
        found = reader.look_up(key_hash, stored.key)
        try:
            if not isinstance(found, Stored) or found.content_id != stored.content_id:
                self.verified.changed += 1
                return 0
            content = reader.content(found)
        except ContentMissing as missing:
            self._drop(key_hash, stored.content_id, stored.key, f"content: {_why(missing, 'chunk')}")
            return 0
        finally:
            reader.done()
        self.verified.octets += len(content)
        if _is_hashed(stored):
            self._compare(key_hash, stored, hashlib.sha256(content))
        return len(content)

    def _chunks(self, reader: StoreReader, content: _Content) -> int:
        """Some more of a content. :return: octets."""
        stored, index = content.stored, content.index
        full = stored.size // CHUNK
        count = min(_CHUNKS_AT_ONCE, full - index)
        try:
            if count:
                octets = reader.chunks(content.key_hash, stored.content_id, index, count)
            else:
                octets = reader.tail(content.key_hash, stored.content_id, stored.size) if stored.size % CHUNK else b""
        except ContentMissing as missing:
            self._content = None
            self._drop(content.key_hash, stored.content_id, stored.key, f"content: {_why(missing, 'piece')}")
            return 0
        if content.digest is not None:
            content.digest.update(octets)
        content.index += count
        self.verified.octets += len(octets)
        if not count:
            self._content = None
            if content.digest is not None:
                self._compare(content.key_hash, stored, content.digest)
        return len(octets)

    def _compare(self, key_hash: bytes, stored: Stored, digest: Any) -> None:
        self.verified.hashed += 1
        if digest.digest() != stored.digest:
            self._drop(key_hash, stored.content_id, stored.key, "content: its sha256 is another one")

    def _drop(self, key_hash: bytes, content_id: bytes | None, key: bytes, why: str) -> None:
        """See Note [changed meanwhile]."""
        small = self._environments.small
        with small.writing:
            try:
                with small.env.begin(write=True) as txn:
                    transaction = SmallTransaction(txn, small.databases)
                    removed = transaction.remove(key_hash, content_id)
                    transaction.finish()
            except DAMAGE as error:
                small.condemn(str(error))
                raise
        if not removed:
            self.verified.changed += 1
            return
        self.verified.damaged += 1
        if len(self.verified.found) < MOST_TOLD:
            self.verified.found.append(Found(key_hash, key, why))


def _is_hashed(stored: Stored) -> bool:
    """Has its content to be what its digest names? (A part has the digest of the whole.)"""
    return bool(stored.digest) and stored.status != 206


def _why(missing: ContentMissing, part: str) -> str:
    """:raises lmdb.Error: it could not be looked for, and may be as it was."""
    if isinstance(missing.__cause__, lmdb.Error):
        raise missing.__cause__
    return f"{part} {missing.index} is missing or damaged"


def totals(environments: Environments) -> tuple[int, int]:
    """:return: about how many records and octets of content there are to look at; costs microseconds."""
    small, blobs = environments.small, environments.blobs
    records = _entries(small, layout.RECORDS)
    octets = _entries(blobs, layout.CHUNKS) * CHUNK
    with small.env.begin() as txn:
        stats = [txn.stat(small.databases[name]) for name in (layout.RECORDS, layout.CONTENTS)]
    pages = sum(one["leaf_pages"] + one["overflow_pages"] for one in stats)
    return records, octets + pages * layout.PAGE


def _entries(environment: Environment, database: bytes) -> int:
    with environment.env.begin() as txn:
        return int(txn.stat(environment.databases[database])["entries"])
