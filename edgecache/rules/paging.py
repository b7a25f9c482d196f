"""Answering a pull: as many of the missing entries as one message may carry (DESIGN 9)."""

from __future__ import annotations

from typing import Protocol

from attrs import evolve

from edgecache.words.purging import Entry, LogName, Position, Positions, TooOld
from edgecache.words.spreading import Pulled

PAGE_OCTETS = 1 << 20
"""Content of one page of entries, or a single larger entry."""

# Entries can be large: no more of them are in memory than needed.
_READ_AT_ONCE = 32


class Logs(Protocol):
    """Reading the logs that are here: :class:`edgecache.store.control.Control`."""

    def read_from(self, position: Position, most: int = ...) -> list[Entry] | TooOld:
        """:return: up to ``most`` entries after ``position``."""


def page(answer: Pulled, known: Positions, logs: Logs, octets: int = PAGE_OCTETS) -> Pulled:
    """
    :param answer: with the positions of this node.
    :param known: those of the asker.
    :return: the answer with what lies between, as far as it fits.
    """
    entries: list[Entry] = []
    too_old: dict[LogName, int] = {}
    for log, here in answer.positions.items():
        after = known.get(log, 0)
        while after < here:
            found = logs.read_from(Position(log, after), _READ_AT_ONCE)
            if isinstance(found, TooOld):
                after = too_old[log] = found.oldest.sequence
                continue
            if not found:
                break
            for entry in found:
                # What was committed this moment: the answer's positions do not name it.
                if entry.sequence > here:
                    break
                octets -= len(entry.content)
                if entries and octets < 0:
                    return evolve(answer, entries=tuple(entries), too_old=too_old, more=True)
                entries.append(entry)
            after = found[-1].sequence
    return evolve(answer, entries=tuple(entries), too_old=too_old)
