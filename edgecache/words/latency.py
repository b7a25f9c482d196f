"""
How long answers take: histograms in a worker's block of the mapped page.

Each has one slot per bucket, and one for the sum. A bucket counts what is above the bound before its own and
not above its own; the last one has no bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from attrs import frozen

from edgecache.words.ports import Counts


@frozen
class Histogram:
    """
    :ivar first: slot of the lowest bucket.
    :ivar bounds: upper ones, seconds, ascending.
    """

    first: int
    bounds: tuple[float, ...]

    @property
    def sum_slot(self) -> int:
        """Where the sum is, in whole microseconds."""
        return self.first + len(self.bounds) + 1

    def count(self, counts: Counts, seconds: float) -> None:
        """One answer took so long."""
        counts.add(self.first + bisect_left(self.bounds, seconds))
        counts.add(self.sum_slot, int(seconds * 1e6))

    def buckets(self, slots: Sequence[int]) -> list[int]:
        """
        :param slots: of one worker, or of all added up.
        :return: what each bucket has, that without a bound last.
        """
        return list(slots[self.first : self.sum_slot])

    def seconds(self, slots: Sequence[int]) -> float:
        """:return: the sum."""
        return slots[self.sum_slot] / 1e6

    def quantile(self, share: float, buckets: Sequence[int]) -> float | None:
        """
        :param share: 0.99 for the 99th percentile.
        :param buckets: as :meth:`buckets` has them, or a difference of two such.
        :return: the bound of the bucket in which it is, seconds; the last bound for all above; ``None`` of nothing.

        >>> HITS.quantile(0.5, [0, 9, 1] + [0] * 10)
        0.00025
        """
        left = share * sum(buckets)
        if left <= 0.0:
            return None
        for bound, count in zip(self.bounds, buckets, strict=False):
            left -= count
            if left <= 0.0:
                return bound
        return self.bounds[-1]


HITS = Histogram(64, (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0))
"""From the request to its answer's head, of sampled requests that were answered at once: mostly the store."""

MISSES = Histogram(78, (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0))
"""The same, of every request whose answer had to be waited for: mostly for an upstream."""
