"""The newest purges by selector, in memory of each process (DESIGN 9)."""

from __future__ import annotations

from collections.abc import Iterable

from edgecache.words.reasons import PurgeMode


class PurgeTable:
    """
    Selectors of the newest ``capacity`` epochs.

    :ivar epoch: the newest epoch known here.
    :ivar window_start: every purge later than this epoch is known here; a record with an older floor must be
        looked up in control's table.
    """

    epoch: int
    window_start: int

    def __init__(self, epoch: int = 0, capacity: int = 100_000) -> None:
        """:param epoch: where to begin: earlier purges are not known here."""
        raise NotImplementedError

    def extend(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """:param rows: (epoch, selector hash, mode) in ascending order of epochs, without gaps."""
        raise NotImplementedError

    def since(self, selectors: tuple[int, ...], floor: int) -> PurgeMode | None:
        """:return: the strictest mode of any later purge of any of ``selectors``; ``None`` if there is none."""
        raise NotImplementedError
