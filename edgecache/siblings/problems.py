"""Who was refused by a listener of TLS, and why."""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger

from edgecache.rules.lately import Lately
from edgecache.words.ports import Timers

_log = Logger()


@define(eq=False, repr=False)
class Problems:
    """Refused connections as log lines. :ivar leg: of which listener."""

    _timers: Timers
    leg: str = "siblings"
    _lately: Lately = field(factory=Lately)

    def tell(self, host: str, problem: str) -> None:
        """Log it, unless that was done lately."""
        if self._lately.news((host, problem), self._timers.seconds()):
            _log.warn(
                "{leg}: a connection from {host} was refused: {problem}", leg=self.leg, host=host, problem=problem
            )
