"""What has been purged since a record was known good: the published epoch, the table, and control behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from attrs import define
from twisted.logger import Logger

from edgecache.rules.purges import PurgeTable
from edgecache.words.errors import ControlFailed
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Stored

_log = Logger()

WINDOW = 100_000
"""So many of the newest epochs are kept in memory; older floors are looked up in control."""


class ControlRows(Protocol):
    """What is read of the control environment (:class:`edgecache.store.controlreading.ControlReader`)."""

    def rows_since(self, epoch: int) -> list[tuple[int, int, int]]:
        """:return: (epoch, selector hash, mode) of every later epoch that is still kept, in order."""

    def since(self, selectors: Iterable[int], floor: int) -> PurgeMode | None:
        """:return: the strictest purge of any of ``selectors`` later than ``floor``, forgotten ones included."""


class Published(Protocol):
    """What is read of the mapped page."""

    @property
    def epoch(self) -> int:
        """The newest epoch that a hit must see."""

    @property
    def trimmed(self) -> int:
        """Floors below it cannot be judged any more."""


@define(eq=False, repr=False)
class Epochs:
    """One process's view of the purges of its node."""

    _page: Published
    _control: ControlRows
    _table: PurgeTable
    _failing: bool = False

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
        try:
            return self._looked_up(selectors, floor, epoch)
        except ControlFailed as failure:
            # What cannot be read cannot be vouched for.
            if not self._failing:
                _log.error("purges cannot be read, so everything is validated: {why}", why=failure)
            self._failing = True
            return PurgeMode.REVALIDATE

    def _looked_up(self, selectors: tuple[int, ...], floor: int, epoch: int) -> PurgeMode | None:
        table = self._table
        if table.epoch < epoch:
            table.extend(self._control.rows_since(table.epoch))
            self._failing = False
        # After the rows were read: those of forgotten epochs are not among them.
        if floor < self._page.trimmed:
            return PurgeMode.REVALIDATE
        if floor >= table.window_start:
            return table.since(selectors, floor)
        return self._control.since(selectors, floor)

    def lately(self, selectors: tuple[int, ...]) -> PurgeMode | None:
        """:return: the strictest purge of any of ``selectors`` among the epochs in memory."""
        return self.matching(selectors, max(self._table.window_start, self._page.trimmed))

    def is_old(self, stored: Stored) -> bool:
        """Must ``stored`` be looked up in control on every hit, so that raising its floor pays?"""
        return stored.floor < self._table.window_start
