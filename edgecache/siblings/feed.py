"""
The change feed (DESIGN 10): purges of all nodes in the order of their logs, each once it is effective everywhere.

Whoever has read of a purge here gets nothing older than it from any node.
"""

# Note [effective]
#
# A purge is given out when every member has applied it, or may serve nothing purgeable as fresh without asking the
# origin. Of others' logs this node knows it as it knows it of its own: by what all have said that they have. So after
# a start it gives out nothing until it has heard of everybody, or for as long as a lease can last.
#
# Note [pace of readers]
#
# Each reader costs a tenth of a millisecond whenever all are woken, and a storm of purges would wake them with each.
# So they are woken at once if that was not done just now, and a moment later otherwise: then for all that came.

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from edgecache.rules.cursors import cursor_of, log_number, places_of
from edgecache.siblings.entries import BadEntry, PurgeEntry
from edgecache.siblings.purger import Spread
from edgecache.store.control import Control
from edgecache.words.errors import EdgeError
from edgecache.words.ports import Timer, Timers
from edgecache.words.purging import Entry, Position, Spreading, TooOld

PACE_SECONDS = 0.05
"""See Note [pace of readers]."""

MOST_EVENTS = 500
MOST_OCTETS = 1 << 20
"""Of the entries in one page; the first may be larger."""


@define(eq=False, repr=False)
class BadCursor(EdgeError):
    """What was given is no cursor."""


@frozen
class Change:
    """
    A purge that is effective.

    :ivar purge: ``None``: another release wrote it, and everything was validated for it.
    :ivar cursor: the place after it.
    """

    entry: Entry
    purge: PurgeEntry | None
    spreading: Spreading
    cursor: str


@frozen
class Reset:
    """
    What came after the reader's place is not here any more: everything may have changed.

    :ivar logs: ids of the nodes whose purges are missing; empty if not even that is known.
    :ivar cursor: from where on nothing is missing.
    """

    logs: tuple[str, ...]
    cursor: str


@frozen
class Page:
    """
    :ivar cursor: the place after all of ``events``.
    :ivar more: there are others already.
    """

    events: tuple[Change | Reset, ...]
    cursor: str
    more: bool = False


@define(eq=False, repr=False)
class Feed:
    """
    :ivar listeners: who waits for changes now.
    :ivar given: changes that were given out since the start.
    :ivar resets: times that somebody was told that something is missing.
    """

    _control: Control
    _spread: Spread
    _timers: Timers
    listeners: int = 0
    given: int = 0
    resets: int = 0
    _waiting: list[Deferred[None]] = field(factory=list)
    _hearing: bool = False
    _timer: Timer | None = None
    _woken_at: float = -PACE_SECONDS

    def now(self) -> str:
        """
        :return: the place after all that is effective.
        :raises ControlFailed: control cannot be read.
        """
        return cursor_of({log: self._until(head) for log, head in self._heads().items()})

    def read(self, cursor: str) -> Page:
        """
        :return: what has become effective after ``cursor``, oldest first in each log.
        :raises BadCursor: it is none.
        :raises ControlFailed: control cannot be read.
        """
        places = places_of(cursor)
        if places is None:
            raise BadCursor
        heads = self._heads()
        missing = self._missing(places, heads)
        if missing is not None:
            self.resets += 1
            return Page((missing,), missing.cursor)
        events: list[Change | Reset] = []
        octets = 0
        for log, head in heads.items():
            places.setdefault(log, 0)
            for entry in self._effective(head, places[log], MOST_EVENTS - len(events)):
                octets += len(entry.content)
                if events and octets > MOST_OCTETS:
                    break
                places[log] = entry.sequence
                events.append(self._change(entry, cursor_of(places)))
        self.given += len(events)
        more = any(self._until(head) > places[log] for log, head in heads.items())
        return Page(tuple(events), cursor_of(places), more)

    def changed(self) -> Deferred[None]:
        """:return: fires when more may have become effective; cancelling it only takes it back."""
        if not self._hearing:
            self._hearing = True
            self._spread.when_settled(self._settled)
        waiting: Deferred[None] = Deferred(self._waiting_no_more)
        self._waiting.append(waiting)
        return waiting

    def _waiting_no_more(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _settled(self) -> None:
        """See Note [pace of readers]."""
        if self._timer is None and self._waiting:
            after = self._woken_at + PACE_SECONDS - self._timers.seconds()
            self._timer = self._timers.callLater(max(0.0, after), self._wake)

    def _wake(self) -> None:
        self._timer, self._woken_at = None, self._timers.seconds()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            # While some are woken, they may take back what others wait for.
            if not each.called:
                each.callback(None)

    def _heads(self) -> dict[int, Position]:
        # This node's own log is not listed before its first entry, but others know of it.
        heads = [Position(self._control.name, 0), *self._control.read.heads()]
        return {log_number(head.log): head for head in heads}

    def _missing(self, places: dict[int, int], heads: dict[int, Position]) -> Reset | None:
        """See :class:`Reset`. A log that is not known here may be that of a control that was lost."""
        trimmed = {log: head for log, head in heads.items() if self._is_trimmed(head, places.get(log, 0))}
        unknown = [log for log, place in places.items() if place and log not in heads]
        if not trimmed and not unknown:
            return None
        on = {log: self._until(head) if log in trimmed else places.get(log, 0) for log, head in heads.items()}
        return Reset(tuple(sorted({head.log.id for head in trimmed.values()})), cursor_of(on))

    def _is_trimmed(self, head: Position, place: int) -> bool:
        return isinstance(self._control.read.read_from(_at(head, place), 0), TooOld)

    def _until(self, head: Position) -> int:
        """:return: up to where a log is effective, and no entry before it can still be asked for in vain."""
        found = self._control.read.read_from(_at(head, 0), 0)
        oldest = found.oldest.sequence if isinstance(found, TooOld) else 0
        return max(oldest, int(min(head.sequence, self._spread.settled(head.log))))

    def _effective(self, head: Position, place: int, most: int) -> Iterator[Entry]:
        until = self._until(head)
        if until <= place or most <= 0:
            return
        found = self._control.read.read_from(_at(head, place), min(most, until - place))
        # Trimmed since it was looked at: the next page tells.
        if not isinstance(found, TooOld):
            yield from (entry for entry in found if entry.sequence <= until)

    def _change(self, entry: Entry, cursor: str) -> Change:
        try:
            purge = PurgeEntry.unpack(entry.content)
        except BadEntry:
            # Whoever applied it has said so in the log.
            purge = None
        return Change(entry, purge, self._spread.state(entry), cursor)


def _at(head: Position, sequence: int) -> Position:
    return Position(head.log, sequence)
