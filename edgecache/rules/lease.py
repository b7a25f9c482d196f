"""Until when this node may serve what is purgeable as fresh, and when its clock is not to be trusted (DESIGN 9)."""

from __future__ import annotations

from attrs import define

from edgecache.words.spreading import FENCED, FREE, Effect, Publish

WALL_JUMP_SECONDS = 1.0
"""A jump of wall time against CLOCK_BOOTTIME beyond this: a machine that was paused, perhaps, and did not notice."""


@define(eq=False, repr=False)
class Lease:
    """
    The lease, and what wall time was when the round that gave it began.

    :ivar fresh_until: what was published last.
    :ivar offset: of wall time against CLOCK_BOOTTIME when we last looked; ``None`` before.
    """

    fresh_until: float = FENCED
    offset: float | None = None
    _given: float = 0.0

    def until(self, fresh_until: float, offset: float) -> list[Effect]:
        """
        A lease, unless there is a longer one.

        :param offset: that of the round's beginning.
        """
        if fresh_until <= self.fresh_until:
            return []
        self.fresh_until, self._given = fresh_until, offset
        return [Publish(fresh_until)]

    def shorten(self, fresh_until: float) -> list[Effect]:
        """No later than this."""
        if fresh_until >= self.fresh_until:
            return []
        self.fresh_until = fresh_until
        return [Publish(fresh_until)]

    def drop(self) -> list[Effect]:
        """It is over."""
        return self.shorten(FENCED)

    def jumped(self, now: float, wall: float) -> bool:
        """
        Look at the clocks.

        :return: whether wall time jumped since the last look, or bit by bit since the lease was given.
        """
        before, self.offset = self.offset, wall - now
        if before is None:
            return False
        since = [before] if self.fresh_until in (FENCED, FREE) else [before, self._given]
        return any(abs(self.offset - each) > WALL_JUMP_SECONDS for each in since)
