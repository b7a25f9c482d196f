"""
Local invalidations that control cannot write now: nothing of this node is fresh until it can (RFC 9111 §4.4).

An origin has taken an unsafe request, and what is stored of its target must not be reused; or a page tells that its
project has moved on, and its other documents are too old. Where the disk is full, that cannot be written down for all
workers; that nothing can be vouched for is a word in the page, which needs no disk. A node that is killed meanwhile
finds in its ledger what it owes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.store.ledger import Ledger
from edgecache.store.threads import InThread
from edgecache.words.errors import ControlFailed
from edgecache.words.ports import Timers
from edgecache.words.purging import Row

_log = Logger()

RETRY_SECONDS = 1.0

MOST = 10_000
"""Rows that are remembered; whoever brings more is refused, and hears of it."""


class Fence(Protocol):
    """What is needed of :class:`~edgecache.store.pagewriter.PageWriter`."""

    def hold(self, held: bool) -> None: ...


@define(eq=False, repr=False)
class Owed:
    """
    :ivar in_thread: the one that control is written by, or any other single one.
    :ivar everything: rows that invalidate all that is stored.
    :ivar ledger: where it is kept; ``None``: nowhere.
    :ivar write: see :meth:`edgecache.store.control.Control.local`.
    :ivar fence: is held as long as anything is owed.
    """

    _write: Callable[[Sequence[Row]], Deferred[int]]
    _fence: Fence
    _timers: Timers
    _in_thread: InThread
    _everything: Sequence[Row] = ()
    _ledger: Ledger | None = None
    _rows: dict[Row, None] = field(factory=dict)
    _stopped: bool = False

    def start(self) -> None:
        """Write what the last life of the node has owed; until then nothing is fresh."""
        rows = self._found()
        if rows:
            _log.warn("{count} invalidations could not be written before the node ended", count=len(rows))
            self._fence.hold(True)
            self._rows.update(dict.fromkeys(rows))
            self._again()

    def _found(self) -> Sequence[Row]:
        """:return: what the ledger has; everything, where it cannot be read: one that has that takes its place."""
        if self._ledger is None:
            return ()
        try:
            return self._ledger.rows()
        except OSError as error:
            _log.error("what was owed cannot be read, so everything is validated: {error}", error=error)
        self._ledger = self._ledger.replaced(self._everything)
        return self._everything

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
            if self._ledger is not None:
                await self._in_thread(self._keep, self._ledger, rows)

    def stop(self) -> None:
        """What is still owed is the next life's, as far as it is kept."""
        self._stopped = True
        if self._rows:
            _log.error("{count} invalidations are not written yet", count=len(self._rows))

    def close(self) -> None:
        """After :meth:`stop`, once the thread has ended."""
        if self._ledger is not None:
            self._ledger.close()

    def _again(self) -> None:
        if not self._stopped:
            rows = list(self._rows)
            _ = self._write(rows).addCallbacks(self._written, self._refused, callbackArgs=(rows,))

    def _written(self, epoch: int, rows: Sequence[Row]) -> None:
        for row in rows:
            del self._rows[row]
        if self._rows:
            self._again()
            return
        self._fence.hold(False)
        if self._ledger is not None:
            _ = self._in_thread(self._clear, self._ledger)
        _log.info("invalidations are written again; what is fresh is served")

    @staticmethod
    def _keep(ledger: Ledger, rows: Sequence[Row]) -> None:
        """In the thread."""
        try:
            ledger.add(rows)
        except OSError as error:
            count = len(rows)
            _log.error(
                "if the node is killed now, {count} invalidations are forgotten: {error}", count=count, error=error
            )

    @staticmethod
    def _clear(ledger: Ledger) -> None:
        """In the thread."""
        try:
            ledger.clear()
        except OSError as error:
            _log.error("what is written will be written once more at the next start: {error}", error=error)

    def _refused(self, failure: Failure) -> None:
        failure.trap(ControlFailed)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._timers.callLater(RETRY_SECONDS, self._again)
