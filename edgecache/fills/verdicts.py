"""What is told of the addresses that a content comes from: good, failed, or nothing."""

from __future__ import annotations

from typing import Protocol

from attrs import define

from edgecache.upstream.addresses import Address
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import UpstreamFailed
from edgecache.words.ports import Counts
from edgecache.words.reasons import Outcome


class Told(Protocol):
    """Who hears how exchanges end (:class:`edgecache.upstream.standing.Standing`)."""

    def good(self, address: Address) -> None:
        """Its content is complete, or enough of it has come."""

    def failed(self, address: Address, outcome: Outcome | None, target: bytes | None = None) -> None:
        """It failed, and ``target`` may show whether it is well again."""


@define(eq=False, repr=False)
class Verdicts:
    """
    Of one content.

    :ivar praised: the address of now was called good.
    """

    _told: Told
    _counts: Counts
    _target: bytes | None
    praised: bool = False

    def praise(self, response: Response) -> None:
        """It is good; once."""
        # A 5xx that is complete is still no sign of health.
        if not self.praised and response.head.status < 500:
            self.praised = True
            self._told.good(response.address)

    def blame(self, failure: UpstreamFailed, response: Response) -> None:
        """It failed, by its own fault."""
        self._counts.add(Counter.UPSTREAM_FAILURES)
        self._told.failed(response.address, failure.outcome, self._target)
