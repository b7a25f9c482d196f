"""Writing: new content, other heads, raised floors, removals. The loop hands over, threads commit."""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from edgecache.store import layout
from edgecache.store.committing import LARGE_GROUP_OCTETS, Committer, Outcome
from edgecache.store.environments import Environments
from edgecache.store.filling import ContentWriter
from edgecache.store.held import BlobsTransaction, Shared
from edgecache.store.reading import Pins, StoreReader
from edgecache.store.small import Primary, SmallTransaction
from edgecache.words.errors import StoreFull
from edgecache.words.stored import Flag, Serial, Stored

# IntFlag's operators cost a microsecond each.
_IN_BLOBS = int(Flag.IN_BLOBS)


@define(eq=False, repr=False)
class StoreWriter:
    """
    Writes of one process, a thread per environment (started with its first write).

    Nothing here blocks, and nothing fails: what the store cannot take is answered ``False``.
    """

    _environments: Environments
    _pins: Pins
    _spawn: int
    _reactor: IReactorFromThreads
    _shared: Shared = field(init=False)

    def __attrs_post_init__(self) -> None:
        call = self._reactor.callFromThread
        popularity = self._environments.popularity
        small: Committer[SmallTransaction] = Committer(
            self._environments.small, lambda txn, databases: SmallTransaction(txn, databases, popularity), call
        )
        blobs: Committer[BlobsTransaction] = Committer(
            self._environments.blobs, BlobsTransaction, call, LARGE_GROUP_OCTETS
        )
        # Its own reader: what a fill reads back must not disturb a look-up's transaction.
        reader = StoreReader(self._environments, self._pins, self.damaged)
        self._shared = Shared(reader, self._pins, self._spawn, small, blobs)

    def begin(self) -> ContentWriter:
        """:return: a writer for content that will be new."""
        return ContentWriter(self._shared, os.urandom(layout.CONTENT_ID_OCTETS))

    def store(
        self,
        key_hash: bytes,
        stored: Stored,
        content: bytes,
        primary: Primary | None,
        done: Callable[[Outcome], None],
    ) -> None:
        """
        Store a response whose content is in memory, less than a chunk of it.

        :param stored: its ``content_id``, ``size`` and place are set here.
        :param primary: as for :meth:`ContentWriter.commit`.
        :param done: called with ``True`` once the record is on disk, with ``False`` if there is a newer one, or with
            why the store does not take it.
        """
        stored.content_id = os.urandom(layout.CONTENT_ID_OCTETS)
        stored.size = len(content)
        stored.flags &= ~_IN_BLOBS
        if self._pins.full_small:
            done(StoreFull("small", "above its share"))
            return
        self._shared.small.submit(
            len(content) + len(stored.head) + len(stored.key),
            lambda txn: txn.store(key_hash, stored, [content], primary),
            done,
            grows=True,
        )

    def put(self, key_hash: bytes, stored: Stored, *, serial: Serial | None = None) -> Deferred[bool]:
        """
        Replace a record and keep its content (RFC 9111 §3.2, §4.3.4).

        :param serial: of a page; kept for ever, and never lowered.
        :return: fires with ``True`` once it is on disk; ``False`` if that content is gone or was replaced, the
            record there has a higher floor, a higher serial is known, or the store cannot write. Never fails.
        """
        outcome: Deferred[bool] = Deferred()
        self._shared.small.submit(
            len(stored.head) + len(stored.key) + 512,
            lambda txn: txn.freshen(key_hash, stored, serial),
            lambda result: outcome.callback(result is True),
            grows=True,
        )
        return outcome

    def raise_serial(self, serial: Serial, floor: int) -> Deferred[bool]:
        """
        A project is known to have come so far, whatever is stored of it.

        :param floor: the epoch before this was learnt.
        :return: fires with ``True`` once it is on disk, ``False`` if more is known, or the store cannot write.
        """
        outcome: Deferred[bool] = Deferred()
        self._shared.small.submit(
            512, lambda txn: txn.raise_serial(serial, floor), lambda result: outcome.callback(result is True)
        )
        return outcome

    def raise_floor(self, key_hash: bytes, content_id: bytes, floor: int) -> None:
        """The record was found good up to epoch ``floor``. Best effort: it is only asked for again otherwise."""
        self._shared.small.submit(512, lambda txn: txn.raise_floor(key_hash, content_id, floor), _ignore)

    def remove(self, key_hash: bytes, content_id: bytes) -> None:
        """Remove the record if it still has this content. Best effort."""
        self._shared.small.submit(512, lambda txn: txn.remove(key_hash, content_id), _ignore)

    def damaged(self, key_hash: bytes, content_id: bytes | None) -> None:
        """A :data:`~edgecache.store.unreadable.OnDamage`: remove what cannot be served, if it is still the same."""
        self._shared.small.submit(512, lambda txn: txn.remove(key_hash, content_id), _ignore)

    async def close(self) -> None:
        """Everything asked for so far is on disk, or was refused; both threads have ended."""
        # In this order: a commit in small may wait for its last chunk.
        await self._shared.blobs.close()
        await self._shared.small.close()


def _ignore(result: Outcome) -> None:
    """Best effort."""


__all__ = ["ContentWriter", "StoreWriter"]
