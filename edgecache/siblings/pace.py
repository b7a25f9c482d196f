"""How often something may happen: a bucket that fills steadily."""

from __future__ import annotations

from attrs import define, field

BURST_SECONDS = 5.0
"""After a quiet time this many seconds' worth may come at once: one release purges hundreds of pages."""


@define(eq=False, repr=False)
class Pace:
    """
    :ivar per_second: how often in the long run.
    """

    per_second: float
    _left: float = field(init=False)
    _at: float | None = None

    @_left.default
    def _all(self) -> float:
        return self._most

    @property
    def _most(self) -> float:
        return max(1.0, self.per_second * BURST_SECONDS)

    def take(self, now: float, amount: float = 1.0) -> float:
        """
        :param now: monotonic seconds.
        :param amount: how many of it; more than a burst may never happen.
        :return: 0.0 when it may happen now; else seconds until it may, and nothing is taken.
        """
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._left = min(self._most, self._left + passed * self.per_second)
        if self._left >= amount:
            self._left -= amount
            return 0.0
        return (amount - self._left) / self.per_second
