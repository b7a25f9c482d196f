"""Pushes on their way to disk: put in order, and answered when they are durable (DESIGN 9)."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from attrs import define, field, frozen

from edgecache.words.purging import Entry, LogName

_MOST_EARLY = 1000
"""Entries of one log that are kept until those before them come. Lost ones are pulled."""


@frozen
class Owed:
    """
    A push that is to be answered.

    :ivar sequence: of its last entry.
    :ivar since: when it came.
    """

    log: LogName
    to: str
    request: Hashable | None
    sequence: int
    since: float


@define(eq=False, repr=False)
class Receiving:
    """What has been pushed here and is not durable yet."""

    _early: dict[LogName, dict[int, Entry]] = field(factory=dict)
    _owed: list[Owed] = field(factory=list)

    def add(self, entries: list[Entry], owed: Owed) -> None:
        """A push came."""
        self._owed.append(owed)
        early = self._early.setdefault(owed.log, {})
        for entry in entries[: _MOST_EARLY - len(early)]:
            early[entry.sequence] = entry

    def following(self, log: LogName, sequence: int) -> list[Entry]:
        """:return: the entries that follow ``sequence`` without a gap; none of them is kept."""
        early = self._early.get(log)
        if not early:
            return []
        found: list[Entry] = []
        while (entry := early.get(sequence + len(found) + 1)) is not None:
            found.append(entry)
        kept = {number: entry for number, entry in early.items() if number > sequence + len(found)}
        if kept:
            self._early[log] = kept
        else:
            del self._early[log]
        return found

    def take(self, due: Callable[[Owed], bool]) -> list[Owed]:
        """:return: those that are due; they are owed no more."""
        if not self._owed:
            return []
        taken = [each for each in self._owed if due(each)]
        self._owed = [each for each in self._owed if not due(each)]
        return taken

    def forget_entries(self) -> None:
        """They will be pulled."""
        self._early.clear()
