"""Contents that broke off for good: what came of them is kept for the next try (FIELD 1, rule 8)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from edgecache.fills.continuing import Continuing
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Store
from edgecache.rules.resuming import Broken
from edgecache.rules.varying import variant_hash, variant_of
from edgecache.store.epochs import Epochs
from edgecache.store.writing import ContentWriter, StoreWriter
from edgecache.words.ports import Timer, Timers
from edgecache.words.stored import Flag

KEPT_SECONDS = 60.0
"""So long a next try goes on with what came where it left off. Installers try again within seconds; after a minute,
hardly ever, and then it is partial content in the store (:mod:`edgecache.fills.parts`)."""

KEPT_CONTENTS = 64
"""Kept at most by one worker. Each holds up to one chunk in memory."""

KEPT_OCTETS = 256 << 20
"""Kept at most by one worker, where the store is not small: on disk, out of the collector's reach."""

_SHARE = 32
"""Of the store, at most one part in so many is kept by all workers together."""


def kept_octets(size: int, workers: int) -> int:
    """:return: octets that each of ``workers`` may keep in a store of ``size`` octets."""
    return min(KEPT_OCTETS, size // (_SHARE * workers))


@define(eq=False, repr=False)
class Kept:
    """
    What came of one content.

    :ivar plan: how it was to be stored; its floor is that of the octets that came.
    :ivar writer: has exactly these. Whoever has the whole either goes on with it or abandons it.
    :ivar key_hash: of what was asked for.
    :ivar until: monotonic seconds; so long it is kept.
    """

    plan: Store
    broken: Broken
    writer: ContentWriter
    key_hash: bytes = b""
    until: float = 0.0

    def go_on(self, writer: StoreWriter, response: Continuing) -> tuple[ContentWriter, Continuing]:
        """:return: what takes the whole content, and has this of it; and what brings the others."""
        return self.writer, response

    def give_back(self, keep: Keep, key: bytes) -> None:
        """Nothing came of it this time."""
        keep.put_back(key, self)

    def give_up(self) -> None:
        """It is of no use."""
        self.writer.abandon()


@define(eq=False, repr=False)
class Keep:
    """
    What one worker keeps, by the key under which its fills are found.

    :ivar spill: takes what is not kept any longer, and may be of use all the same.
    :ivar limit: octets in all.
    :ivar octets: kept at present.
    """

    _epochs: Epochs
    _timers: Timers
    spill: Callable[[Kept], None] = Kept.give_up
    limit: int = KEPT_OCTETS
    octets: int = 0
    _kept: dict[bytes, tuple[Kept, Timer]] = field(factory=dict)
    _closed: bool = False

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep it from now on, instead of what is kept under ``key``; others make room, the oldest first."""
        kept.until = self._timers.seconds() + KEPT_SECONDS
        self.put_back(key, kept)

    def put_back(self, key: bytes, kept: Kept) -> None:
        """Like :meth:`put`, but only for what is left of its time."""
        left = kept.until - self._timers.seconds()
        if left <= 0 or self._closed or kept.broken.received > self.limit:
            self.spill(kept)
            return
        self._expire(key, Kept.give_up)
        self._kept[key] = kept, self._timers.callLater(left, self._expired, key)
        self.octets += kept.broken.received
        while len(self._kept) > KEPT_CONTENTS or self.octets > self.limit:
            self._expire(min(self._kept, key=lambda other: self._kept[other][0].until), self.spill)

    def has(self, key: bytes) -> bool:
        """Is anything kept under ``key``?"""
        return key in self._kept

    def take(self, key: bytes, asked: Asked) -> Kept | None:
        """
        :return: what came of the response that ``asked`` would have as well: the caller's from now on. ``None``
            if nothing did, or a purge has named it since.
        """
        if key not in self._kept:
            return None
        kept, timer = self._kept[key]
        plan = kept.plan
        purged = self._epochs.matching(plan.stored.selectors, plan.stored.floor) is not None
        if purged or kept.writer.failed is not None:
            self._expire(key, Kept.give_up)
            return None
        if variant_hash(asked.key_hash, variant_of(asked, plan.nominated or ())) != plan.record_hash:
            return None
        if asked.directives.no_store or (asked.authorized and not plan.stored.flags & Flag.AUTHORIZED):
            # Its response is likely its own, and then it would be asked for twice.
            return None
        timer.cancel()
        return self._removed(key)

    def close(self) -> None:
        """Keep nothing any longer, and what comes later not at all."""
        self._closed = True
        for key in list(self._kept):
            self._expire(key, self.spill)

    def _expire(self, key: bytes, to: Callable[[Kept], None]) -> None:
        if key in self._kept:
            self._kept[key][1].cancel()
            to(self._removed(key))

    def _expired(self, key: bytes) -> None:
        self.spill(self._removed(key))

    def _removed(self, key: bytes) -> Kept:
        kept, _ = self._kept.pop(key)
        self.octets -= kept.broken.received
        return kept
