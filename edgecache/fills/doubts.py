"""Keys whose content was found wrong at its end: whose fault it was, and who may still have the begin of it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen

from edgecache.rules.presenting import DOUBT_SECONDS
from edgecache.upstream.addresses import Address
from edgecache.words.errors import WrongDigest

_MOST = 10_000


@frozen(eq=False, repr=False)
class Doubt:
    """
    :ivar until: monotonic seconds.
    :ivar avoid: who has sent it; asked only when nobody else is left.
    :ivar mixed: it came from several, and nobody knows who was wrong: it is to be fetched whole from one.
    """

    until: float
    avoid: frozenset[Address] = frozenset()
    mixed: bool = False


@define(eq=False, repr=False)
class Doubts:
    """Those of one worker, by key, the oldest first."""

    _seconds: Callable[[], float]
    _known: dict[bytes, Doubt] = field(factory=dict)

    def add(self, key_hash: bytes, failure: WrongDigest, address: Address) -> None:
        """:param address: who has sent it, if it came from one alone."""
        before = self.of(key_hash) or Doubt(0.0)
        avoid = before.avoid if failure.resumed else before.avoid | {address}
        self._known.pop(key_hash, None)
        until = self._seconds() + DOUBT_SECONDS
        self._known[key_hash] = Doubt(until, avoid, before.mixed or failure.resumed)
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]

    def of(self, key_hash: bytes) -> Doubt | None:
        """:return: what there is against content for this key."""
        found = self._known.get(key_hash)
        if found is not None and found.until <= self._seconds():
            del self._known[key_hash]
            return None
        return found
