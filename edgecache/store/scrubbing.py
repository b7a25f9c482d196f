"""Verifying the store at a bounded rate, one pass at a time (:mod:`edgecache.store.verifying`)."""

from __future__ import annotations

import enum
from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.store.environments import Environments
from edgecache.store.threads import InThread
from edgecache.store.verifying import Verified, Verifier, totals
from edgecache.words.config import MIB
from edgecache.words.errors import EdgeError
from edgecache.words.ports import Timer, Timers

_log = Logger()

RATE = 64 * MIB
"""Octets a second, where nothing is said: a pass must not take the disk from those who fetch."""

LEAST_RATE = MIB
SLICE_SECONDS = 0.1
"""A turn of the thread reads what this is worth."""

MOST_SLICE = 16 * MIB
"""However fast it may go: other questions wait for the same thread, and so does the end of the node."""

_LEAST_SLICE = 256 << 10


class Pass(enum.Enum):
    """What becomes of a pass."""

    NONE = "none"
    """There was none since the start."""
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@define(eq=False, repr=False)
class AlreadyRunning(EdgeError):
    """There is a pass, and one at a time is enough."""


@define(eq=False, repr=False)
class Scrubbing:
    """
    :ivar state: of the last pass.
    :ivar verified: what it has found so far.
    :ivar records: that were to be looked at when it began.
    :ivar octets: likewise; about.
    :ivar rate: octets a second, at most.
    :ivar began_at: wall time.
    :ivar ended_at: ``None`` while it runs.
    """

    _environments: Environments
    _timers: Timers
    _wall: Callable[[], float]
    _in_thread: InThread
    state: Pass = Pass.NONE
    verified: Verified = field(factory=Verified)
    records: int = 0
    octets: int = 0
    rate: int = RATE
    began_at: float | None = None
    ended_at: float | None = None
    _verifier: Verifier | None = None
    _timer: Timer | None = None

    def start(self, rate: int = RATE) -> None:
        """
        Begin a pass.

        :raises AlreadyRunning: there is one.
        :raises lmdb.Error: the store cannot be read.
        """
        if self.state is Pass.RUNNING:
            raise AlreadyRunning
        self.records, self.octets = totals(self._environments)
        verifier = self._verifier = Verifier(self._environments)
        self.state, self.verified, self.rate = Pass.RUNNING, verifier.verified, max(rate, LEAST_RATE)
        self.began_at, self.ended_at = self._wall(), None
        _log.info("verify: a pass begins, {records} records", records=self.records)
        self._turn()

    def cancel(self) -> bool:
        """:return: was there one? It ends now, and what it found stays known."""
        if self.state is not Pass.RUNNING:
            return False
        self._end(Pass.CANCELLED)
        return True

    def _turn(self) -> None:
        self._timer = None
        verifier = self._verifier
        assert verifier is not None
        began = self._timers.seconds()
        slice_octets = min(max(_LEAST_SLICE, int(self.rate * SLICE_SECONDS)), MOST_SLICE)
        _ = self._in_thread(verifier.turn, slice_octets).addCallbacks(
            self._turned, self._broken, callbackArgs=(verifier, began), errbackArgs=(verifier,)
        )

    def _turned(self, octets: int, verifier: Verifier, began: float) -> None:
        if self.state is not Pass.RUNNING or verifier is not self._verifier:
            return
        if verifier.verified.failed:
            self._end(Pass.FAILED)
        elif not octets:
            self._end(Pass.DONE)
        else:
            taken = self._timers.seconds() - began
            self._timer = self._timers.callLater(max(0.0, octets / self.rate - taken), self._turn)

    def _broken(self, failure: Failure, verifier: Verifier) -> None:
        _log.failure("verify: the pass failed", failure)
        if verifier is self._verifier and self.state is Pass.RUNNING:
            self.verified.failed = failure.getErrorMessage()
            self._end(Pass.FAILED)

    def _end(self, state: Pass) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.state, self.ended_at, self._verifier = state, self._wall(), None
        found = self.verified
        _log.info(
            "verify: {state}: {records} records and {octets} octets looked at, {damaged} damaged and dropped {failed}",
            state=state.value,
            records=found.records,
            octets=found.octets,
            damaged=found.damaged,
            failed=found.failed,
        )
