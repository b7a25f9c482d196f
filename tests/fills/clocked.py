"""Workers whose deadlines run on a clock that the test moves; sockets, store and origins are real."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import define
from twisted.internet.task import Clock

from tests.fills.rig import RigCase

EPOCH = 1_700_000_000
STEP = 0.25
"""Seconds, which add up without rounding: all that is due within one happens at its end."""


@define(eq=False)
class ClockedLoop:
    """A loop but for its time: that is the clock's, and what waits for it is called when a test advances it."""

    _loop: asyncio.AbstractEventLoop
    _clock: Clock

    def time(self) -> float:
        return float(self._clock.seconds())

    def call_later(self, delay: float, callback: Any, *arguments: Any) -> Any:
        return self._clock.callLater(delay, callback, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class ClockedCase(RigCase):
    """:ivar clock: of all workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(EPOCH)

    async def _start_worker(self, index: int, paths: list[str], loop: asyncio.AbstractEventLoop) -> None:
        clocked: Any = ClockedLoop(loop, self.clock)
        await super()._start_worker(index, paths, clocked)

    async def seconds(self, seconds: float) -> None:
        """Let time pass, the loop turning after each step."""
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)
            for _ in range(5):
                await asyncio.sleep(0)
