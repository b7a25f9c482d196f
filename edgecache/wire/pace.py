"""Is a client too slow? One question for content in either direction (DESIGN 12)."""

from __future__ import annotations

from attrs import define, field

from edgecache.words.config import LimitSettings


@define(eq=False, repr=False)
class Pace:
    """
    Progress of one transfer, asked at each sweep while the client is what it waits for.

    :ivar moved: octets at the last progress.
    :ivar moved_at: when that was seen; monotonic seconds.
    """

    moved: int
    moved_at: float
    _window_moved: int = field(init=False)
    _window_began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._window_moved, self._window_began = self.moved, self.moved_at

    def too_slow(self, moved: int, now: float, limits: LimitSettings) -> bool:
        """
        :param moved: octets in all that have passed by now.
        :return: nothing has passed for ``stall_seconds``, or too little in a whole window.
        """
        if moved > self.moved:
            self.moved, self.moved_at = moved, now
        elif now - self.moved_at >= limits.stall_seconds:
            return True
        if now - self._window_began >= limits.slow_window_seconds:
            least = limits.slow_octets_per_second * (now - self._window_began)
            if moved - self._window_moved < least:
                return True
            self._window_moved, self._window_began = moved, now
        return False
