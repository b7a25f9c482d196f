"""The last hour in steps of ten seconds: what dashboards draw."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from attrs import define, field

from edgecache.words.counters import Counter
from edgecache.words.latency import HITS, MISSES, Histogram
from edgecache.words.ports import Timer, Timers

STEP_SECONDS = 10.0
STEPS = 360

RECENT_SECONDS = 300.0
"""What latencies are told of besides those since the start."""

_SERIES = {
    "requests": Counter.REQUESTS,
    "hits": Counter.HITS,
    "stale_hits": Counter.STALE_HITS,
    "forwarded": Counter.FORWARDED,
    "refused": Counter.REFUSED,
    "sent_bytes": Counter.BYTES_SENT,
    "fetched_bytes": Counter.BYTES_FETCHED,
}


@define(eq=False, repr=False)
class History:
    """
    :ivar totals: all workers' slots of the mapped page, added up.
    :ivar wall: seconds since the epoch.
    """

    _totals: Callable[[], list[int]]
    _timers: Timers
    _wall: Callable[[], float]
    # One more than the steps between them: when, and what was counted by then.
    _seen: deque[tuple[float, list[int]]] = field(factory=lambda: deque(maxlen=STEPS + 1))
    _timer: Timer | None = None

    def start(self) -> None:
        """Look now, and every ten seconds until :meth:`stop`."""
        self._timer = self._timers.callLater(STEP_SECONDS, self.start)
        self._seen.append((self._wall(), self._totals()))

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def document(self) -> dict[str, Any]:
        """:return: each step's end, and what was counted in it, as one list per series."""
        seen = list(self._seen)
        pairs = list(pairwise(seen))
        series: dict[str, Any] = {
            name: [max(0, after[1][slot] - before[1][slot]) for before, after in pairs]
            for name, slot in _SERIES.items()
        }
        return {"step_seconds": STEP_SECONDS, "times": [after[0] for _, after in pairs], **series}

    def latency(self) -> dict[str, Any]:
        """
        :return: how long hits (a sample of them) and misses took until their heads, since the start and lately.
            The last bucket has no bound.
        """
        now = self._totals()
        recently = int(RECENT_SECONDS // STEP_SECONDS)
        before = self._seen[-min(recently, len(self._seen))][1] if self._seen else [0] * len(now)
        return {
            "recent_seconds": RECENT_SECONDS,
            "hits": _histogram(HITS, now, before),
            "misses": _histogram(MISSES, now, before),
        }


def _histogram(histogram: Histogram, now: list[int], before: list[int]) -> dict[str, Any]:
    whole = histogram.buckets(now)
    recent = [max(0, new - old) for new, old in zip(whole, histogram.buckets(before), strict=True)]
    return {
        "bounds": list(histogram.bounds),
        "counts": whole,
        "recent": recent,
        **{f"p{share:g}": histogram.quantile(share / 100, recent) for share in (50, 95, 99)},
    }
