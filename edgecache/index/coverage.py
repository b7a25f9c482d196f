"""
How often a client has got each octet of a file: from ranges to whole downloads.

A step function over the octets. Its minimum is the number of downloads, whatever the order in which ranges
came, however they overlap, and also when two clients behind one address take the same file in parts.
"""

from __future__ import annotations

from bisect import bisect_left

from attrs import define, field

MOST_STEPS = 1024
"""A file in more parts than this is no longer followed: what comes then is not counted."""


@define
class Coverage:
    """
    :ivar total: octets of the file, at least 1.
    :ivar starts: where each step begins; the first is 0, the last ends at ``total``.
    :ivar depths: how often its octets were sent.
    """

    total: int
    starts: list[int] = field(factory=lambda: [0])
    depths: list[int] = field(factory=lambda: [0])

    def add(self, first: int, stop: int) -> None:
        """Octets from ``first`` up to ``stop`` were sent."""
        first, stop = max(0, first), min(stop, self.total)
        if first >= stop or len(self.starts) + 2 > MOST_STEPS:
            return
        begin, end = self._cut(first), self._cut(stop)
        for place in range(begin, end):
            self.depths[place] += 1
        self._join()

    def take(self) -> int:
        """:return: how often all octets were sent since the last call; so often they count as not sent."""
        least = min(self.depths)
        if least:
            self.depths = [depth - least for depth in self.depths]
        return least

    @property
    def empty(self) -> bool:
        """Nothing was sent that :meth:`take` has not had."""
        return not any(self.depths)

    def _cut(self, position: int) -> int:
        """:return: the step that begins at ``position``; one past the last for the end."""
        place = bisect_left(self.starts, position)
        if position < self.total and (place == len(self.starts) or self.starts[place] != position):
            self.starts.insert(place, position)
            self.depths.insert(place, self.depths[place - 1])
        return place

    def _join(self) -> None:
        kept = [place for place in range(len(self.starts)) if not place or self.depths[place] != self.depths[place - 1]]
        self.starts = [self.starts[place] for place in kept]
        self.depths = [self.depths[place] for place in kept]
