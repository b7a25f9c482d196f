"""What was said lately and need not be said again: somebody who fails each second fills no log."""

from __future__ import annotations

from collections.abc import Hashable

from attrs import define, field

SAY_AGAIN_SECONDS = 60.0
_MOST = 1000


@define(eq=False, repr=False)
class Lately:
    """:ivar seconds: after so long a thing is news again."""

    seconds: float = SAY_AGAIN_SECONDS
    _said: dict[Hashable, float] = field(factory=dict)

    def news(self, what: Hashable, now: float) -> bool:
        """
        :param now: seconds of a clock that never goes back.
        :return: was ``what`` not said within :attr:`seconds`? Then it counts as said now.
        """
        last = self._said.get(what)
        if last is not None and now - last < self.seconds:
            return False
        if len(self._said) >= _MOST:
            # Said twice is better than remembered for ever.
            self._said.clear()
        self._said[what] = now
        return True
