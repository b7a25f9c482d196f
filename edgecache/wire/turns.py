"""
What one turn of the loop may cost, whoever asks for how much at once.

Nobody is answered before the turn is over that others are in. So of what takes long only so much is done in one turn;
the rest waits for the next ones, in the order in which it came, and what is quickly done goes on meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field


@define(eq=False, repr=False)
class Turns:
    """
    One kind of work.

    :ivar most: of it in one turn, in a unit of its own; the last piece may go beyond.
    """

    _soon: Callable[[Callable[[], None]], Any]
    most: int
    _left: int = field(init=False)
    _ends: bool = field(default=False, init=False)
    _waiting: deque[Callable[[], None]] = field(factory=deque, init=False)

    @_left.default
    def _all(self) -> int:
        return self.most

    @property
    def open(self) -> bool:
        """May more be done in this turn?"""
        return self._left > 0

    def spend(self, cost: int) -> None:
        """So much is done in this turn."""
        self._left -= cost
        self._until_it_ends()

    def take(self, cost: int, call: Callable[[], None]) -> None:
        """``call``, which costs so much: at once, or in the next turn that is open."""
        if self.open:
            self.spend(cost)
            call()
        else:
            self.wait(lambda: self.take(cost, call))

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` in a turn that is open. It spends, or waits again, as it likes."""
        self._waiting.append(go_on)
        self._until_it_ends()

    def _until_it_ends(self) -> None:
        if not self._ends:
            self._ends = True
            self._soon(self._next)

    def _next(self) -> None:
        """A new turn. Who waits again in it waits for the one after."""
        self._ends = False
        self._left = self.most
        waiting = self._waiting
        if waiting:
            self._until_it_ends()
        for _ in range(len(waiting)):
            if self._left <= 0:
                break
            waiting.popleft()()
