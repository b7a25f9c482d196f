"""One address, asked once, by a quest that may ask others beside it (Note [races] in :mod:`edgecache.fills.quest`)."""

from __future__ import annotations

import enum
from typing import Protocol

from attrs import define

from edgecache.upstream.addresses import Address
from edgecache.upstream.exchange import Exchange
from edgecache.upstream.responses import Response
from edgecache.words.ports import Timer


class Phase(enum.Enum):
    """How far an attempt is."""

    CONNECTING = "connecting"
    ASKED = "asked"
    """The request was sent, or is being sent."""
    OUTRUN = "outrun"
    """Another one connected first: only how this ends is of interest."""


class Race(Protocol):
    """Who is told: :class:`edgecache.fills.quest.Quest`."""

    def connected(self, attempt: Attempt) -> None:
        """``attempt`` has a connection."""

    def answered(self, response: Response, attempt: Attempt) -> None:
        """``attempt`` has a head."""

    def failed(self, error: BaseException, attempt: Attempt) -> None:
        """``attempt`` has come to nothing."""


@define(eq=False, repr=False)
class Attempt:
    """
    One address, asked once: an :class:`~edgecache.upstream.parties.Asker`.

    :ivar charged: that it has brought no head in time was told already.
    :ivar over: it was answered, has failed, or is of no interest any more.
    """

    _race: Race
    address: Address
    phase: Phase = Phase.CONNECTING
    asked_at: float = 0.0
    exchange: Exchange | None = None
    timer: Timer | None = None
    charged: bool = False
    over: bool = False

    def connected(self) -> None:
        """See :meth:`edgecache.upstream.parties.Asker.connected`."""
        self._race.connected(self)

    def answered(self, response: Response) -> None:
        """See :meth:`edgecache.upstream.parties.Asker.answered`."""
        self._race.answered(response, self)

    def failed(self, error: BaseException) -> None:
        """See :meth:`edgecache.upstream.parties.Asker.failed`."""
        self._race.failed(error, self)

    def waited(self, now: float) -> float:
        """:return: seconds from asking until ``now``; 0.0 before."""
        return now - self.asked_at if self.asked_at else 0.0

    def outrun(self) -> None:
        """Another one connected first."""
        self.rest()
        self.phase = Phase.OUTRUN

    def end(self) -> None:
        """It is over."""
        self.rest()
        self.over, self.exchange = True, None

    def rest(self) -> None:
        """No timer of it runs any longer."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
