"""A fleet in which members apply purges when the test says so: a :class:`~edgecache.siblings.purger.Spread`."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.words.purging import Entry, LogName, PurgeState, Spreading

LEASE_SECONDS = 10.0


@define(eq=False)
class HandFleet:
    """
    Three members, of which the first is this node.

    :ivar told: own purges that were given to it.
    :ivar hears: called with each of them.
    :ivar joining: why no purge is accepted.
    """

    wall: Callable[[], float]
    members: tuple[str, ...] = ("eu-1", "us-1", "ap-1")
    told: list[Entry] = field(factory=list)
    hears: Callable[[Entry], object] = lambda entry: None
    joining: str | None = None
    settled_to: dict[LogName, int] = field(factory=dict)
    _settling: list[Callable[[], None]] = field(factory=list)
    _applied: dict[str, set[str]] = field(factory=dict)
    _durable_at: dict[str, float] = field(factory=dict)
    _waiting: dict[str, list[Deferred[None]]] = field(factory=dict)

    def refuses(self) -> str | None:
        return self.joining

    def durable(self, entry: Entry) -> None:
        self.told.append(entry)
        self.hears(entry)

    def state(self, entry: Entry) -> Spreading:
        applied = {entry.log.id} | self._applied.get(entry.purge_id, set())
        pending = tuple(member for member in self.members if member not in applied)
        listed = tuple(member for member in self.members if member in applied)
        if not pending:
            return Spreading(PurgeState.COMPLETE, listed)
        if 2 * len(applied) <= len(self.members):
            return Spreading(PurgeState.LOCAL, listed, pending)
        effective_by = self._durable_at[entry.purge_id] + LEASE_SECONDS
        if self.wall() >= effective_by:
            return Spreading(PurgeState.EFFECTIVE, listed, pending)
        return Spreading(PurgeState.DURABLE, listed, pending, effective_by)

    def changed(self, purge_id: str) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(lambda gone: self._waiting[purge_id].remove(gone))
        self._waiting.setdefault(purge_id, []).append(waiting)
        return waiting

    def apply(self, member: str, purge_id: str) -> None:
        """A member has applied it and has said so."""
        self._applied.setdefault(purge_id, set()).add(member)
        self._durable_at.setdefault(purge_id, self.wall())
        waiting, self._waiting[purge_id] = self._waiting.get(purge_id, []), []
        for each in waiting:
            each.callback(None)

    def settled(self, log: LogName) -> float:
        return self.settled_to.get(log, 0)

    def when_settled(self, told: Callable[[], None]) -> None:
        self._settling.append(told)

    def settle(self, log: LogName, sequence: int) -> None:
        """Up to here a log's purges are effective."""
        self.settled_to[log] = sequence
        for told in self._settling:
            told()

    def waiting(self, purge_id: str) -> int:
        """:return: how many wait for it."""
        return len(self._waiting.get(purge_id, []))
