"""Pull rounds: who has answered which, and what follows once their purges are here (DESIGN 9)."""

# Note [what a round proves]
#
# A sibling's first answer in a round names everything that it had, at some moment after the
# round began. Once we have all of that, we have whatever it had on disk when the round
# began. If a quorum for leases has answered so, we have every purge that was durable then:
# what we serve until the round's beginning plus the lease is no older. The time of the
# answer would not do, it may have been on its way for long.

from __future__ import annotations

from attrs import define, field

from edgecache.rules.membership import Membership
from edgecache.words.purging import LogName, Positions


@define(eq=False, repr=False)
class _Round:
    """
    :ivar started: CLOCK_BOOTTIME seconds.
    :ivar offset: of wall time against that, at the start.
    :ivar answers: first answer of each sibling, and whether it was joining.
    :ivar applied: siblings of whose answers all is here; that stays so.
    """

    started: float
    offset: float
    answers: dict[str, tuple[Positions, bool]] = field(factory=dict)
    applied: set[str] = field(factory=set)

    def settle(self, have: Positions) -> None:
        """See who has become one of :attr:`applied`."""
        for peer, (positions, _) in self.answers.items():
            if peer not in self.applied and covers(have, positions):
                self.applied.add(peer)

    def of(self, *, joining: bool) -> set[str]:
        """:return: of those that are applied, the ones that were joining, or were not."""
        return {peer for peer in self.applied if self.answers[peer][1] is joining}


@define(eq=False, repr=False)
class Rounds:
    """
    The rounds of one life of a node that can still matter.

    :ivar life: of this process, unlike any other's: an answer to an earlier life must not count in this one.
    """

    life: str
    _count: int = 0
    _running: dict[str, _Round] = field(factory=dict)

    def begin(self, now: float, offset: float) -> str:
        """:return: the new round's name."""
        self._count += 1
        name = f"{self.life}.{self._count}"
        self._running[name] = _Round(now, offset)
        return name

    def answered(self, name: str, peer: str, positions: Positions, joining: bool) -> None:
        """A sibling has answered; only its first answer counts. See Note [what a round proves]."""
        found = self._running.get(name)
        if found is not None:
            found.answers.setdefault(peer, (positions, joining))

    def forget(self, before: float | None = None) -> None:
        """:param before: rounds that began earlier are dropped; ``None``: all."""
        for name in [name for name, each in self._running.items() if before is None or each.started < before]:
            del self._running[name]

    def leased(self, have: Positions, membership: Membership) -> tuple[float, float] | None:
        """
        :param have: what is on our disk.
        :return: start and offset of the latest round that gives a lease.
        """
        for each in reversed(self._running.values()):
            each.settle(have)
            if membership.leased(each.of(joining=False)):
                return each.started, each.offset
        return None

    def admits(self, own: LogName, have: Positions, membership: Membership) -> bool:
        """Does some round prove that we know all that was durable before our control was made?"""
        for each in self._running.values():
            each.settle(have)
            # Only those that had our log written down: see Note [lost controls] in rules.evidence.
            knowing = {peer for peer in each.applied if own in each.answers[peer][0]}
            if membership.admits(knowing & each.of(joining=False), knowing & each.of(joining=True)):
                return True
        return False


def covers(have: Positions, wanted: Positions) -> bool:
    """
    :return: all that is before ``wanted`` is before ``have``, and no log of it is unknown.
    """
    # -1: a log that has no entries yet must be known all the same.
    return all(have.get(log, -1) >= sequence for log, sequence in wanted.items())
