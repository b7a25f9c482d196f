"""
Looking at one request now and then: how long a hit takes, and what is asked for most.

A look at the clock costs a fiftieth of a hit, so not every hit is timed. Some moments after one request was looked at,
the next one is: often while there are many, and a worker that nobody asks wakes up once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from edgecache.rules.asking import Asked
from edgecache.rules.popularity import Popular
from edgecache.words.latency import HITS
from edgecache.words.messages import Request
from edgecache.words.ports import Counts, Timer, Timers

SAMPLE_SECONDS = 0.05
IDLE_SECONDS = 1.0
TELL_SECONDS = 10.0
HALVE_SECONDS = 600.0
"""What was asked for so long ago counts half."""

TOLD = 256
"""Rows that the node process is told of."""

_TARGET_OCTETS = 1024
"""A longer one is not worth carrying around."""

Row = tuple[str, str, str]
"""Site, authority, target, as the client has named them."""


class Looked(Protocol):
    """The listener whose requests are looked at."""

    sampling: Sampling | None


@define(eq=False, repr=False)
class Sampling:
    """
    Of one worker's public listener.

    :ivar tell: of the rows with the highest counts, now and then.
    """

    _listener: Looked
    _counts: Counts
    _timers: Timers
    _tell: Callable[[list[tuple[Row, int]]], None]
    popular: Popular[Row] = field(factory=Popular)
    _timer: Timer | None = None
    _told_at: float = 0.0
    _halved_at: float = 0.0
    _news: bool = False

    def start(self) -> None:
        """Look at the next request, and go on until :meth:`stop`."""
        self._told_at = self._halved_at = self._timers.seconds()
        self._again()

    def stop(self) -> None:
        """Look at nothing more."""
        self._listener.sampling = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def saw(self, request: Request, seconds: float | None) -> None:
        """
        The request that was looked at.

        :param seconds: until it was answered; ``None``: it is not yet.
        """
        if seconds is not None:
            HITS.count(self._counts, seconds)
        asked = request.asked
        if isinstance(asked, Asked) and asked.joinable and len(request.target) <= _TARGET_OCTETS:
            self._news = True
            row = (asked.site.settings.name, request.authority.decode("latin-1"), request.target.decode("latin-1"))
            self.popular.saw(row)

    def _again(self) -> None:
        now = self._timers.seconds()
        idle = self._listener.sampling is not None
        self._listener.sampling = self
        self._timer = self._timers.callLater(IDLE_SECONDS if idle else SAMPLE_SECONDS, self._again)
        if now - self._halved_at >= HALVE_SECONDS:
            self._halved_at = now
            self.popular.halve()
        if self._news and now - self._told_at >= TELL_SECONDS:
            self._news, self._told_at = False, now
            self._tell(self.popular.top(TOLD))
