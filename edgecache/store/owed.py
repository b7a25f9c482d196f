"""
Local invalidations that control cannot write now: nothing of this node is fresh until it can (RFC 9111 §4.4).

An origin has taken an unsafe request, and what is stored of its target must not be reused; or a page tells that its
project has moved on, and its other documents are too old. Where the disk is full, that cannot be written down for all
workers; that nothing can be vouched for is a word in the page, which needs no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.words.errors import ControlFailed
from edgecache.words.ports import Timers
from edgecache.words.purging import Row

_log = Logger()

RETRY_SECONDS = 1.0

MOST = 10_000
"""Rows that are remembered; whoever brings more is refused, and hears of it."""


class Fence(Protocol):
    """What is needed of :class:`~edgecache.store.page.PageWriter`."""

    def hold(self, held: bool) -> None: ...


@define(eq=False)
class Owed:
    """
    :ivar write: see :meth:`edgecache.store.control.Control.local`.
    :ivar fence: is held as long as anything is owed.
    """

    _write: Callable[[Sequence[Row]], Deferred[int]]
    _fence: Fence
    _timers: Timers
    _rows: dict[Row, None] = field(factory=dict)
    _stopped: bool = False

    async def local(self, rows: Sequence[Row]) -> None:
        """
        Done once these are invalidated, or nothing is fresh until they are.

        :raises ControlFailed: neither can be.
        """
        try:
            await self._write(rows)
        except ControlFailed as error:
            if len(self._rows) + len(rows) > MOST:
                raise
            self._fence.hold(True)
            waits = bool(self._rows)
            self._rows.update(dict.fromkeys(rows))
            if not waits:
                _log.error("an invalidation cannot be written, all is validated until it can: {error}", error=error)
                self._timers.callLater(RETRY_SECONDS, self._again)

    def stop(self) -> None:
        """What is still owed is lost with this life of the node, which its log says."""
        self._stopped = True
        if self._rows:
            _log.error("{count} invalidations were never written", count=len(self._rows))

    def _again(self) -> None:
        if not self._stopped:
            rows = list(self._rows)
            _ = self._write(rows).addCallbacks(self._written, self._refused, callbackArgs=(rows,))

    def _written(self, _: int, rows: Sequence[Row]) -> None:
        for row in rows:
            del self._rows[row]
        if self._rows:
            self._again()
            return
        self._fence.hold(False)
        _log.info("invalidations are written again; what is fresh is served")

    def _refused(self, failure: Failure) -> None:
        failure.trap(ControlFailed)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._timers.callLater(RETRY_SECONDS, self._again)
