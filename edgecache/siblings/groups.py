"""Groups that an origin's answer to an unsafe request invalidates (RFC 9875 §3), where siblings are told (DESIGN 9)."""

# Note [an origin is no operator]
#
# Whoever may POST to the origin can make it name groups, and many of them. So what spreads has a pace of its
# own, and what is beyond it still holds on this node, as it would without siblings. Nobody is refused anything.

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import define, field
from twisted.logger import Logger

from edgecache.rules.purging import PurgeAsked
from edgecache.rules.selectors import Selector, rows_of
from edgecache.siblings.pace import Pace
from edgecache.siblings.purger import NotAdmitted, PurgeInvalid, Purger, Told
from edgecache.store.control import Control
from edgecache.words.ports import Timers
from edgecache.words.reasons import PurgeMode

_log = Logger()

BY = "(Cache-Group-Invalidation)"
"""In the place of the name of a token; no token can have it."""

LOG_SECONDS = 60.0
"""From one line about what was not spread to the next."""


class Groups(enum.Enum):
    """What became of the groups of one answer."""

    SPREAD = "spread"
    """They are a purge, of which all siblings are told."""
    PACE = "pace"
    """They stayed on this node: more than ``[purge] shared_groups_per_second``."""
    JOINING = "joining"
    """They stayed on this node, which takes no purges yet."""
    SIZE = "size"
    """They stayed on this node: siblings could not be sent so many at once."""


@define(eq=False, repr=False)
class GroupSharing:
    """
    :ivar pace: of what spreads.
    :ivar told: hears of each purge that was made.
    :ivar counts: answers since the start, by what became of their groups.
    """

    _control: Control
    _purger: Purger
    _timers: Timers
    pace: Pace
    told: Told = lambda answer, new: None
    counts: dict[Groups, int] = field(factory=lambda: dict.fromkeys(Groups, 0))
    _untold: int = 0
    _quiet_until: float = float("-inf")

    async def share(self, selectors: Sequence[bytes]) -> None:
        """
        Invalidate tags here, and have the siblings do the same. See Note [an origin is no operator].

        :param selectors: canonical octets of tags, at least one.
        :return: once they are on disk and published on this node; no sibling is waited for.
        :raises ControlFailed: they could not be written.
        """
        outcome = await self._spread(selectors)
        self.counts[outcome] += 1
        if outcome is not Groups.SPREAD:
            self._tell(outcome)
            await self._control.local(rows_of(selectors, PurgeMode.DELETE))

    async def _spread(self, selectors: Sequence[bytes]) -> Groups:
        if self.pace.take(self._timers.seconds(), len(selectors)) > 0.0:
            return Groups.PACE
        asked = PurgeAsked(tuple(Selector.of(one) for one in selectors), PurgeMode.DELETE, {}, "")
        try:
            _ = await self._purger.take(asked, BY, self.told)
        except NotAdmitted:
            return Groups.JOINING
        except PurgeInvalid:
            return Groups.SIZE
        return Groups.SPREAD

    def _tell(self, outcome: Groups) -> None:
        self._untold += 1
        now = self._timers.seconds()
        if now < self._quiet_until:
            return
        self._quiet_until = now + LOG_SECONDS
        _log.warn(
            "{count} answers with Cache-Group-Invalidation held on this node alone since the last such line; "
            "the last one: {reason}",
            count=self._untold,
            reason=outcome.value,
        )
        self._untold = 0
