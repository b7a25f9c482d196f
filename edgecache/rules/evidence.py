"""
What members have said that they have on disk, and how far each purge has come by that (DESIGN 9).

All clocks are CLOCK_BOOTTIME seconds of this node.
"""

# Note [lost controls]
#
# What a member said before it lost its control is no longer true after. Its new log has
# another name, and its siblings write that name down before they vouch for it to have
# caught up; from then on their positions name it. So a member is believed only if its own
# positions name all of its logs that anybody has named: the old life cannot name the new
# one, and the new one learns of the old ones from its siblings.

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator

from attrs import define, field

from edgecache.rules.membership import Membership
from edgecache.words.purging import LogName, Positions, PurgeState, Spreading
from edgecache.words.spreading import Changed, Sender


@define(eq=False, repr=False)
class Marks:
    """
    How far the entries of one log have come. Each mark is a sequence, and only grows.

    :ivar durable: a quorum has all up to here.
    :ivar effective: these have been durable for longer than any lease.
    :ivar complete: every member has all up to here.
    """

    durable: int = 0
    effective: int = 0
    complete: int = 0
    _since: deque[tuple[int, float]] = field(factory=deque)

    def durable_at(self, sequence: int) -> float:
        """:return: when ``sequence``, which is not effective yet, was found durable."""
        found = bisect_left(self._since, sequence, key=lambda each: each[0])
        return self._since[found][1]

    def became_durable(self, sequence: int, now: float) -> None:
        self.durable = sequence
        self._since.append((sequence, now))

    def passed(self, until: float) -> bool:
        """What was durable at ``until`` is effective. :return: whether that is news."""
        before = self.effective
        while self._since and self._since[0][1] <= until:
            self.effective = self._since.popleft()[0]
        return self.effective > before


@define(eq=False, repr=False)
class _Told:
    """The last that a member said of itself."""

    log: LogName
    positions: dict[LogName, int]
    members: frozenset[str]


@define(eq=False, repr=False)
class Evidence:
    """What this node knows of where every member stands, itself included."""

    _membership: Membership
    _told: dict[str, _Told] = field(factory=dict)
    _named: dict[str, set[LogName]] = field(factory=dict)
    _known: set[LogName] = field(factory=set)
    _everyone: frozenset[str] | None = None
    _marks: dict[LogName, Marks] = field(factory=dict)

    def heard(self, sender: Sender, positions: Positions, now: float) -> Iterator[Changed]:
        """
        A member has all of ``positions`` on disk and published.

        :return: what has moved by that; it must be exhausted.
        """
        news = self.named(positions)
        told = self._told.get(sender.log.id)
        if told is None or told.log != sender.log:
            told = self._told[sender.log.id] = _Told(sender.log, {}, frozenset())
        if told.members != sender.members:
            told.members = sender.members
            self._everyone = None
        have = told.positions
        moved = [log for log, sequence in positions.items() if have.get(log, -1) < sequence]
        for log in moved:
            have[log] = positions[log]
        # A name that was missing can make somebody believed, or not, for every log.
        yield from self._judge(self._marks.keys() | have.keys() if news else moved, now)

    def named(self, logs: Collection[LogName]) -> bool:
        """Somebody has named these logs. See Note [lost controls]. :return: one of them was not known."""
        if self._known.issuperset(logs):
            return False
        new = set(logs) - self._known
        for log in new:
            self._named.setdefault(log.id, set()).add(log)
        self._known |= new
        return True

    def configured(self, membership: Membership, now: float) -> Iterator[Changed]:
        """The members are others now."""
        self._membership, self._everyone = membership, None
        for gone in self._told.keys() - membership.everyone:
            del self._told[gone]
        yield from self._judge(set(self._marks), now)

    def passed(self, now: float) -> Iterator[Changed]:
        """:return: what has become effective with time."""
        until = now - self._membership.bound_seconds
        for log, marks in self._marks.items():
            if marks.passed(until) and marks.effective > marks.complete:
                yield Changed(log, marks.effective, PurgeState.EFFECTIVE)

    def state(self, log: LogName, sequence: int, now: float, wall: float) -> Spreading:
        """
        :param wall: wall time at ``now``.
        :return: how far an entry has come, as far as this node knows; it knows little in its first second.
        """
        everyone = self.everyone
        marks = self._marks.get(log, Marks())
        if sequence <= marks.complete:
            return Spreading(PurgeState.COMPLETE, tuple(sorted(everyone)))
        applied = {each for each in everyone if self._has(each, log) >= sequence}
        named = tuple(sorted(applied)), tuple(sorted(everyone - applied))
        if sequence > marks.durable:
            return Spreading(PurgeState.LOCAL, *named)
        if sequence <= marks.effective:
            return Spreading(PurgeState.EFFECTIVE, *named)
        left = marks.durable_at(sequence) + self._membership.bound_seconds - now
        if left <= 0:
            return Spreading(PurgeState.EFFECTIVE, *named)
        return Spreading(PurgeState.DURABLE, *named, effective_by=wall + left)

    def settled(self, log: LogName) -> int:
        """:return: the sequence up to which entries are effective or complete, as far as known by the last tick."""
        marks = self._marks.get(log, Marks())
        return max(marks.effective, marks.complete)

    @property
    def everyone(self) -> frozenset[str]:
        """
        Ids of all that must apply a purge.

        While members change, some siblings know the new ones before we do, and may have given them a lease.
        """
        if self._everyone is None:
            self._everyone = self._membership.everyone.union(*(told.members for told in self._told.values()))
        return self._everyone

    def lacking(self, member: str, here: Positions) -> int:
        """:return: how many entries of ``here`` it has not said that it has."""
        return sum(max(0, sequence - self._has(member, log)) for log, sequence in here.items())

    def positions(self, member: str, here: Positions) -> tuple[tuple[LogName, int], ...]:
        """:return: how much of each log of ``here`` it has said that it has."""
        return tuple((log, self._has(member, log)) for log in here)

    def _has(self, member: str, log: LogName) -> int:
        """:return: the sequence up to which ``member`` has ``log``; 0 unless it can be believed."""
        told = self._told.get(member)
        if told is None or not self._named.get(member, set()) <= told.positions.keys():
            return 0
        return told.positions.get(log, 0)

    def _judge(self, logs: Iterable[LogName], now: float) -> Iterator[Changed]:
        everyone = self.everyone
        for log in logs:
            has = {each: self._has(each, log) for each in everyone}
            marks = self._marks.get(log)
            if marks is None:
                marks = self._marks[log] = Marks()
            durable = self._membership.durable(has)
            if durable > marks.durable:
                marks.became_durable(durable, now)
                yield Changed(log, durable, PurgeState.DURABLE)
            complete = min(has.values())
            if complete > marks.complete:
                marks.complete = complete
                yield Changed(log, complete, PurgeState.COMPLETE)
