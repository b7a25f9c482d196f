"""
The ordinary fill, by plain calls: no coroutine and no Deferred between a request and its response (decision 291).

Nothing is decided here. What there is to decide, :class:`~edgecache.fills.fill.Fill` does; whatever takes longer than a
call, and whatever goes wrong, is left to its coroutine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from edgecache.rules.allowance import Ticket
from edgecache.rules.outbound import outbound
from edgecache.upstream.responses import Response
from edgecache.words.messages import Outbound

if TYPE_CHECKING:
    from edgecache.fills.fill import Fill


def is_ordinary(fill: Fill) -> bool:
    """
    Is there nothing to do but to ask the site's origins, and nobody else?

    A page may have to come sooner than others, and be of a later serial; a file that a page names is sought first; of
    what was kept the rest is asked for; whoever was wrong lately is avoided; who cannot be joined may leave.
    """
    asked, fills = fill.leader, fill.fills
    return (
        fill.registered is not None
        and asked.page is None
        and asked.artifact is None
        and fills.attempts.lone
        and not fills.keep.has(fill.registered)
        and not fills.parts.has(fill.registered, asked.key)
        and fills.doubts.of(asked.key_hash) is None
    )


@define(eq=False, repr=False)
class Plainly:
    """
    One such fill, until it has its response.

    :ivar _requested_at: wall time, seconds.
    """

    _fill: Fill
    _outbound: Outbound = field(init=False)
    _ticket: Ticket = field(init=False)
    _requested_at: float = field(init=False)

    def begin(self) -> None:
        """Ask. Whatever is wrong, somebody hears of it: who has come already waits, and who comes next would join."""
        fill, attempts = self._fill, self._fill.fills.attempts
        self._ticket = attempts.ticket()
        try:
            self._outbound = outbound(fill.leader, fill.forward)
            self._requested_at = fill.fills.clock()
            quest = attempts.search(
                fill.leader.site, self._outbound, fill.interim, fill.until, fill.tried.avoid, self._ticket
            )
            quest.begin(self._answered, self._failed)
        except Exception as error:  # noqa: BLE001 - nobody to ask, or a defect of ours: both are told as always
            self._failed(error)

    def _answered(self, response: Response) -> None:
        fill = self._fill
        try:
            response = fill.fills.attempts.usable(fill.leader.site, self._outbound, response, self._ticket)
            left = fill.followed(response, fill.told(response), self._requested_at)
        except Exception as error:  # noqa: BLE001 - a defect of ours: whoever waits is told, and it is logged, as always
            fill.go(fill.came_to_nothing(error))
            return
        if left is None:
            fill.end()
        else:
            fill.go(left)

    def _failed(self, error: BaseException) -> None:
        self._ticket.close()
        self._fill.go(self._fill.came_to_nothing(error))
