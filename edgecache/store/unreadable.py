"""What is found damaged when it is read: counted, logged, and told to whoever removes it."""

from __future__ import annotations

from collections.abc import Callable

import lmdb
from attrs import define
from twisted.logger import Logger

from edgecache.store.environment import DAMAGE, Environment
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentMissing
from edgecache.words.ports import Counts

_log = Logger()

OnDamage = Callable[[bytes, bytes | None], None]
"""Told the key hash of a record that cannot be served, and its content id if that is known."""


@define(eq=False, repr=False)
class Unreadable:
    """Of one reader."""

    _counts: Counts
    _on_damage: OnDamage | None = None
    _failing: bool = False

    def chunk(self, key_hash: bytes, content_id: bytes, index: int, why: str) -> ContentMissing:
        """
        A chunk of a content, or its tail, is damaged or missing.

        :param key_hash: where the record is; ``b""`` if there is none yet.
        :return: to be raised.
        """
        self.record(key_hash, content_id, f"chunk {index}: {why}")
        return ContentMissing(content_id, index)

    def record(self, key_hash: bytes, content_id: bytes | None, why: str) -> None:
        """A record cannot be served."""
        self._counts.add(Counter.DAMAGED)
        _log.warn("store: record {key_hash} cannot be served: {why}", key_hash=key_hash.hex(), why=why)
        if self._on_damage is not None and key_hash:
            self._on_damage(key_hash, content_id)

    def environment(self, environment: Environment, error: lmdb.Error) -> None:
        """LMDB itself says no: serve as if nothing were stored."""
        if isinstance(error, DAMAGE):
            environment.condemn(str(error))
        elif isinstance(error, lmdb.MapResizedError) and environment.adopt_size():
            return
        elif not self._failing:
            # Once: if it does not pass, it comes with each request.
            self._failing = True
            _log.error(
                "store: {name} cannot be read, nothing is found there: {error}", name=environment.name, error=error
            )
