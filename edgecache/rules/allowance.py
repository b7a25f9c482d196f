"""How many requests upstream there may be beyond one for each fill (DESIGN 8): retries must not become the outage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field

HEDGES_SAVED = 10.0
"""Hedges that may be saved up while none is needed."""


@define(eq=False, repr=False)
class Allowance:
    """
    Of one worker.

    :ivar attempt_share: hedges and further attempts that wait for a head, as a share of the running fills.
    :ivar attempt_least: but so many at any time.
    :ivar hedge_share: hedges as a share of all fills.
    """

    attempt_share: float
    attempt_least: int
    hedge_share: float
    running: int = 0
    extra: int = 0
    _saved: float = 1.0
    _waiting: deque[Ticket] = field(factory=deque)

    def ticket(self) -> Ticket:
        """One more fill runs, until :meth:`Ticket.close`."""
        self.running += 1
        self._saved = min(self._saved + self.hedge_share, HEDGES_SAVED)
        return Ticket(self)

    @property
    def _room(self) -> bool:
        return self.extra < max(self.attempt_least, self.attempt_share * self.running)

    def _take(self) -> bool:
        if not self._room:
            return False
        self.extra += 1
        return True

    def _give(self) -> None:
        self.extra -= 1
        while self._waiting and self._room:
            self._waiting.popleft()._admitted()


@define(eq=False, repr=False)
class Ticket:
    """What one fill may do beyond its first request: one move or resume is free, the rest is :class:`Allowance`'s."""

    _allowance: Allowance
    _free: bool = True
    _held: int = 0
    _proceed: Callable[[], None] | None = None
    _closed: bool = False

    def hedge(self) -> bool:
        """May the request be sent to another address as well, now? If so, :meth:`settle` later."""
        allowance = self._allowance
        # A rounding error must not cost the hedge that was saved up.
        if allowance._saved < 1.0 - 1e-9 or not allowance._take():
            return False
        allowance._saved -= 1.0
        self._held += 1
        return True

    def move(self, proceed: Callable[[], None]) -> None:
        """
        Call ``proceed`` once the fill may ask another address: at once, or when others are done.

        It waits for one move at a time: asked again meanwhile, the last ``proceed`` counts.
        """
        if self._proceed is not None:
            self._proceed = proceed
        elif self._free:
            self._free = False
            proceed()
        elif self._allowance._take():
            self._held += 1
            proceed()
        else:
            self._proceed = proceed
            self._allowance._waiting.append(self)

    def stay(self) -> None:
        """What :meth:`move` was asked for is not wanted any more."""
        if self._proceed is not None:
            self._proceed = None
            self._allowance._waiting.remove(self)

    def settle(self) -> None:
        """No head is awaited any longer: what was taken is free for others."""
        while self._held:
            self._held -= 1
            self._allowance._give()

    def close(self) -> None:
        """The fill is over. Harmless twice."""
        if not self._closed:
            self._closed = True
            self.stay()
            self.settle()
            self._allowance.running -= 1

    def _admitted(self) -> None:
        proceed, self._proceed = self._proceed, None
        assert proceed is not None
        self._allowance.extra += 1
        self._held += 1
        proceed()
