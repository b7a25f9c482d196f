"""Up to where the copies of all logs have come on this node (DESIGN 9)."""

# Note [what is on disk]
#
# A member claims only what its control has on disk and published. So it knows two
# positions of each log: what is durable here (`here`), which it tells others, counts and
# gives leases by, and what control has been asked to copy (`asked`), from which on
# it takes more entries. Control does things in the order in which it was asked.

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, field

from edgecache.words.purging import Entry, LogName, Positions


@define(eq=False, repr=False)
class Copies:
    """See Note [what is on disk]."""

    here: dict[LogName, int]
    asked: dict[LogName, int] = field(init=False)

    @asked.default
    def _nothing_more(self) -> dict[LogName, int]:
        return dict(self.here)

    def lacks(self, log: LogName, sequence: int) -> bool:
        """Was control not asked for that entry?"""
        return self.asked.get(log, 0) < sequence

    def begun(self, logs: Iterable[LogName]) -> dict[LogName, int]:
        """:return: those of which nothing was known until now, at their beginning; from now on they are copied."""
        unknown = {log: 0 for log in logs if log not in self.asked}
        self.asked.update(unknown)
        return unknown

    def skipped(self, oldest: Mapping[LogName, int]) -> dict[LogName, int]:
        """
        :param oldest: before these, there is nothing left that could be copied.
        :return: where that leaves a gap; from now on what follows is copied.
        """
        gaps = {log: sequence for log, sequence in oldest.items() if self.lacks(log, sequence)}
        self.asked.update(gaps)
        return gaps

    def following(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """:return: those that follow, without a gap, what control was asked for: from now on they are, too."""
        found = []
        for entry in entries:
            if entry.sequence == self.asked.get(entry.log, 0) + 1:
                self.asked[entry.log] = entry.sequence
                found.append(entry)
        return tuple(found)

    def stored(self, positions: Positions) -> None:
        """Control has them on disk and published."""
        for known in (self.here, self.asked):
            known.update({log: at for log, at in positions.items() if known.get(log, -1) < at})

    def failed(self) -> None:
        """Control could not do something; what it was asked for after that may still succeed."""
        self.asked = dict(self.here)

    @property
    def settled(self) -> bool:
        """Has control done all that it was asked for?"""
        return all(self.here.get(log, -1) >= asked for log, asked in self.asked.items())
