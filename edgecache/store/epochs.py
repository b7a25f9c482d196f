"""What has been purged since a record was known good: the published epoch, the table, and control behind it."""

from __future__ import annotations

from typing import Protocol

from attrs import define

from edgecache.rules.purges import PurgeTable
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Stored


class ControlRows(Protocol):
    """What is read of the control environment (:class:`edgecache.store.control.ControlReader`)."""

    def rows_since(self, epoch: int) -> list[tuple[int, int, int]]:
        """:return: (epoch, selector hash, mode) of every later epoch that is still kept, in order."""

    def last(self, selector: int) -> dict[PurgeMode, int]:
        """:return: the last epoch of each mode that named ``selector``."""


class Published(Protocol):
    """What is read of the mapped page."""

    @property
    def epoch(self) -> int:
        """The newest epoch that a hit must see."""

    @property
    def trimmed(self) -> int:
        """Floors below it cannot be judged any more."""


@define(eq=False)
class Epochs:
    """One process's view of the purges of its node."""

    _page: Published
    _control: ControlRows
    _table: PurgeTable

    def current(self) -> int:
        """:return: the floor for a fill that starts now (before it contacts anybody)."""
        return self._page.epoch

    def since(self, stored: Stored) -> PurgeMode | None:
        """:return: the strictest purge that selects ``stored`` and is later than its floor."""
        return self.matching(stored.selectors, stored.floor)

    def matching(self, selectors: tuple[int, ...], floor: int) -> PurgeMode | None:
        """:return: the strictest purge of any of ``selectors`` later than ``floor``."""
        epoch = self._page.epoch
        if floor >= epoch:
            return None
        table = self._table
        if table.epoch < epoch:
            table.extend(self._control.rows_since(table.epoch))
        if floor >= table.window_start:
            return table.since(selectors, floor)
        if floor < self._page.trimmed:
            return PurgeMode.REVALIDATE
        strictest: PurgeMode | None = None
        for selector in selectors:
            for mode, last in self._control.last(selector).items():
                if last > floor and (strictest is None or mode > strictest):
                    strictest = mode
        return strictest

    def is_old(self, stored: Stored) -> bool:
        """Must ``stored`` be looked up in control on every hit, so that raising its floor pays?"""
        return stored.floor < self._table.window_start
