"""When a head takes so long that another address is asked as well (DESIGN 8, FIELD 1)."""

from __future__ import annotations

from math import ceil, log2

from attrs import define, field

SLICES = 5
"""Parts of the window; the oldest is forgotten as a whole."""

LEAST_SAMPLES = 20
"""Fewer say nothing about a 95th percentile."""

_PER_OCTAVE = 8
_UNIT = 0.001
_BUCKETS = 17 * _PER_OCTAVE  # up to two minutes


@define(eq=False, repr=False)
class Latencies:
    """
    How long heads took, as counts in buckets of a ninth: 95 % are known to within that.

    :ivar window: seconds that count.
    """

    _window: float
    _slices: list[list[int]] = field(factory=lambda: [[0] * _BUCKETS for _ in range(SLICES)])
    _current: int = 0
    _number: int = 0
    _cached: tuple[int, float | None] = (-1, None)

    def record(self, seconds: float, now: float) -> None:
        """One head came ``seconds`` after its request. :param now: monotonic seconds."""
        self._advance(now)
        octaves = log2(max(seconds, _UNIT) / _UNIT)
        self._slices[self._current][min(ceil(octaves * _PER_OCTAVE), _BUCKETS - 1)] += 1

    def p95(self, now: float) -> float | None:
        """:return: seconds within which 95 % of the heads came; ``None`` while there were too few."""
        self._advance(now)
        # It changes slowly, once it is known; a hundred requests a second need not add the buckets up each time.
        second = int(now)
        if self._cached[0] != second or self._cached[1] is None:
            self._cached = second, self._percentile()
        return self._cached[1]

    def _percentile(self) -> float | None:
        counts = [sum(column) for column in zip(*self._slices, strict=True)]
        total = sum(counts)
        if total < LEAST_SAMPLES:
            return None
        left = 0.95 * total
        for bucket, count in enumerate(counts):
            left -= count
            if left <= 0:
                return float(_UNIT * 2 ** (bucket / _PER_OCTAVE))
        raise AssertionError("the counts of all buckets are the total")

    def _advance(self, now: float) -> None:
        number = int(now * SLICES / self._window)
        for _ in range(min(number - self._number, SLICES)):
            self._current = (self._current + 1) % SLICES
            self._slices[self._current] = [0] * _BUCKETS
        self._number = max(number, self._number)
