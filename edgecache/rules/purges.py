"""The newest purges by selector, in memory of each process (DESIGN 9)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from edgecache.words.reasons import PurgeMode

_MODES = tuple(sorted(PurgeMode, reverse=True))


class PurgeTable:
    """
    Selectors of the newest ``capacity`` epochs.

    :ivar epoch: the newest epoch known here.
    :ivar window_start: every purge later than this epoch is known here; a record with an older floor must be
        looked up in control's table.
    """

    __slots__ = ("_by_mode", "_capacity", "_last", "_order", "epoch", "window_start")

    def __init__(self, epoch: int = 0, capacity: int = 100_000) -> None:
        """:param epoch: where to begin: earlier purges are not known here."""
        self.epoch = epoch
        self.window_start = epoch
        self._capacity = capacity
        self._order: deque[tuple[int, int, int]] = deque()
        self._last: dict[int, int] = {}
        # Per mode only what that mode's last epoch is: a soft purge must not hide an earlier delete.
        self._by_mode: dict[int, dict[int, int]] = {mode: {} for mode in _MODES}

    def extend(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """:param rows: (epoch, selector hash, mode) in ascending order of epochs; known ones are skipped."""
        for row in rows:
            epoch, selector, mode = row
            if epoch <= self.epoch:
                continue
            self._order.append(row)
            self._last[selector] = epoch
            self._by_mode[mode][selector] = epoch
            self.epoch = epoch
            if len(self._order) > self._capacity:
                self._forget()

    def _forget(self) -> None:
        epoch, selector, mode = self._order.popleft()
        if self._by_mode[mode].get(selector) == epoch:
            del self._by_mode[mode][selector]
        if self._last.get(selector) == epoch:
            del self._last[selector]
        self.window_start = epoch

    def since(self, selectors: tuple[int, ...], floor: int) -> PurgeMode | None:
        """:return: the strictest mode of any later purge of any of ``selectors``; ``None`` if there is none."""
        if floor >= self.epoch or self._last.keys().isdisjoint(selectors):
            return None
        for mode in _MODES:
            last = self._by_mode[mode]
            for selector in selectors:
                if last.get(selector, 0) > floor:
                    return mode
        return None
