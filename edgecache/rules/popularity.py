"""
What is asked for most, in bounded memory: counters of the kind called Space-Saving (Metwally and others, 2005).

Whatever is more than a ``capacity``-th of all that was seen is surely among them; a count is too high by at most what
the least of all was when that one came.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T", bound=Hashable)

CAPACITY = 1024


@define(eq=False, repr=False)
class Popular(Generic[T]):
    """:ivar capacity: things that are counted at a time."""

    capacity: int = CAPACITY
    _counts: dict[T, int] = field(factory=dict)

    def saw(self, thing: T) -> None:
        """It was asked for once more."""
        counts = self._counts
        if thing in counts:
            counts[thing] += 1
            return
        least = 0
        if len(counts) >= self.capacity:
            victim = min(counts, key=counts.__getitem__)
            least = counts.pop(victim)
        counts[thing] = least + 1

    def halve(self) -> None:
        """What was long ago counts less and less."""
        self._counts = {thing: count // 2 for thing, count in self._counts.items() if count > 1}

    def top(self, most: int) -> list[tuple[T, int]]:
        """:return: the things with the highest counts, these first."""
        return sorted(self._counts.items(), key=lambda item: -item[1])[:most]
