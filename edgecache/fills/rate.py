"""Whether a content has been too slow for too long (FIELD 1, rule 2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field

from edgecache.words.config import UpstreamSettings
from edgecache.words.ports import Timer, Timers

LOOKS = 10
"""Looks at the rate within ``slow_window_seconds``; the window slides by one of them."""


@define(eq=False, repr=False)
class RateWatch:
    """
    Looks at how much has come, ten times a window; only a whole window in which it was read counts.

    :ivar octets: that have come so far from where they come now.
    :ivar flowing: is it read just now?
    :ivar slow: called at each look at the end of a window that brought too little.
    """

    _timers: Timers
    _settings: UpstreamSettings
    _octets: Callable[[], int]
    _flowing: Callable[[], bool]
    _slow: Callable[[], None]
    _timer: Timer | None = None
    _looks: deque[int] = field(factory=lambda: deque(maxlen=LOOKS + 1))
    _throughout: bool = True

    def start(self) -> None:
        """From now on; harmless where no rate is demanded."""
        if self._settings.slow_octets_per_second:
            self._looks.append(self._octets())
            self._later()

    def interrupted(self) -> None:
        """It paused, went on, or comes from elsewhere: the window begins anew."""
        self._throughout = False

    def stop(self) -> None:
        """It is over."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _later(self) -> None:
        self._timer = self._timers.callLater(self._settings.slow_window_seconds / LOOKS, self._look)

    def _look(self) -> None:
        self._later()
        if not self._throughout:
            self._looks.clear()
            self._throughout = self._flowing()
        self._looks.append(self._octets())
        least = self._settings.slow_octets_per_second * self._settings.slow_window_seconds
        if len(self._looks) > LOOKS and self._looks[-1] - self._looks[0] < least:
            self._slow()
