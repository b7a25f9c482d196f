"""The :class:`~edgecache.words.ports.Timers` port over a real event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from attrs import frozen

from edgecache.words.ports import Timer


@frozen(eq=False, repr=False)
class LoopTimers:
    """
    The loop's own monotonic clock.

    Twisted's reactor shows wall time as its seconds; a step of the system clock must not move a deadline.
    """

    loop: asyncio.AbstractEventLoop

    def seconds(self) -> float:
        """:return: monotonic seconds, never the same clock as another machine's."""
        return self.loop.time()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Timer:
        """Call ``callable(*args)`` once; it must not raise."""
        return self.loop.call_later(delay, callable, *args)


def boot_clock() -> float:
    """Seconds that no step of the wall clock moves and that count while the machine sleeps (DESIGN 9)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
