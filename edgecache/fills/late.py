"""Pages that clients were no longer kept waiting for, and that still come: one of each at most, and not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.fills.paging import ReadPage
from edgecache.upstream.addresses import Address
from edgecache.words.errors import ContentStalled
from edgecache.words.ports import Timer

if TYPE_CHECKING:
    from edgecache.fills.fill import Fill

PATIENCE = 10
"""A page may take so many times as long as clients wait for it. An origin that drips may never come to an end."""


@define(eq=False, repr=False)
class LatePage:
    """
    One of them.

    :ivar fill: it takes nobody any longer.
    :ivar address: where it comes from.
    """

    fill: Fill
    address: Address
    _reading: Deferred[ReadPage]
    _end: Timer | None = None

    @property
    def avoid(self) -> frozenset[Address]:
        """Who is too slow, as far as is known."""
        return self.fill.tried.avoid | {self.address}

    @property
    def good(self) -> bool:
        """Was nothing purged since that would make it worthless?"""
        plan = self.fill.plan
        return plan is not None and self.fill.fills.epochs.matching(plan.stored.selectors, self.fill.floor) is None

    @property
    def failure(self) -> ContentStalled:
        """What whoever would like to have it is told."""
        return ContentStalled(self.address.name, self.fill.fills.timers.seconds() - self.fill.began)

    def wait(self, seconds: float) -> None:
        """It has so long to come to its end."""
        self._end = self.fill.fills.timers.callLater(seconds, self._expire)

    def cut(self) -> None:
        """It is not waited for any longer."""
        self.over()
        self._reading.cancel()

    def over(self) -> None:
        """It need not be ended any more."""
        end, self._end = self._end, None
        if end is not None:
            end.cancel()

    def _expire(self) -> None:
        self._end = None
        self._reading.cancel()


@define(eq=False, repr=False)
class LatePages:
    """Those of one worker."""

    _coming: dict[bytes, LatePage] = field(factory=dict)

    def of(self, record_hash: bytes) -> LatePage | None:
        """:return: the one that will be stored there, and is worth it."""
        late = self._coming.get(record_hash)
        return late if late is not None and late.good else None

    def begin(self, fill: Fill, reading: Deferred[ReadPage], address: Address) -> None:
        """
        ``fill`` is late. If another one of that page was, that is given up.

        :param reading: the page; cancelled if it takes too long.
        :param address: where it comes from.
        """
        before = self._coming.get(fill.record_hash)
        late = self._coming[fill.record_hash] = LatePage(fill, address, reading)
        fills = fill.fills
        late.wait(max(fill.began + PATIENCE * fills.first_byte_seconds - fills.timers.seconds(), 0.0))
        if before is not None:
            before.cut()

    def end(self, fill: Fill) -> None:
        """``fill`` has come to its end, late or not."""
        late = self._coming.get(fill.record_hash)
        if late is not None and late.fill is fill:
            del self._coming[fill.record_hash]
            late.over()
