"""What was purged since a record was known good (DESIGN 9)."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.purges import PurgeTable
from edgecache.store.epochs import Epochs
from edgecache.words.errors import ControlFailed
from edgecache.words.reasons import PurgeMode

SOFT, REVALIDATE, DELETE = PurgeMode


@define
class Board:
    """The published numbers."""

    epoch: int = 0
    trimmed: int = 0


@define
class Remembering:
    """A control that has everything from ``trimmed`` on; it counts who had to ask it."""

    rows: list[tuple[int, int, int]] = field(factory=list)
    asked: int = 0

    def rows_since(self, epoch: int) -> list[tuple[int, int, int]]:
        return [row for row in self.rows if row[0] > epoch]

    def since(self, selectors: Iterable[int], floor: int) -> PurgeMode | None:
        self.asked += 1
        wanted = set(selectors)
        return max((PurgeMode(mode) for epoch, one, mode in self.rows if epoch > floor and one in wanted), default=None)


class Unreadable:
    """A control on a disk that has gone bad."""

    def rows_since(self, epoch: int) -> list[tuple[int, int, int]]:
        raise ControlFailed("damaged")

    def since(self, selectors: Iterable[int], floor: int) -> PurgeMode | None:
        raise ControlFailed("damaged")


class EpochsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.board, self.control = Board(), Remembering()
        self.epochs = Epochs(self.board, self.control, PurgeTable(0, 4))

    def purge(self, selector: int, mode: PurgeMode = REVALIDATE) -> None:
        self.control.rows.append((self.board.epoch + 1, selector, mode))
        self.board.epoch += 1

    def test_a_purge_counts_as_soon_as_it_is_published(self) -> None:
        self.assertIsNone(self.epochs.matching((1, 2), 0))
        self.purge(2)
        self.assertEqual(REVALIDATE, self.epochs.matching((1, 2), 0))
        self.assertIsNone(self.epochs.matching((1, 3), 0))

    def test_content_fetched_after_a_purge_is_untouched_by_it(self) -> None:
        self.purge(2)
        self.assertIsNone(self.epochs.matching((2,), self.epochs.current()))

    def test_the_strictest_mode_counts(self) -> None:
        self.purge(1, DELETE)
        self.purge(2, SOFT)
        self.assertEqual(DELETE, self.epochs.matching((1, 2), 0))
        self.assertEqual(SOFT, self.epochs.matching((1, 2), 1))

    def test_an_old_floor_is_looked_up_in_control(self) -> None:
        for selector in range(10):
            self.purge(selector)
        self.assertEqual(REVALIDATE, self.epochs.matching((0,), 0))
        self.assertEqual(1, self.control.asked)
        self.assertIsNone(self.epochs.matching((9,), 10))
        self.assertEqual(REVALIDATE, self.epochs.matching((9,), 9))
        self.assertEqual(1, self.control.asked)

    def test_what_control_has_forgotten_is_validated(self) -> None:
        for selector in range(3):
            self.purge(selector)
        self.board.trimmed = 2
        self.assertEqual(REVALIDATE, self.epochs.matching((77,), 1))
        self.assertIsNone(self.epochs.matching((77,), 2))

    def test_a_control_that_cannot_be_read_vouches_for_nothing(self) -> None:
        epochs = Epochs(Board(epoch=5), Unreadable(), PurgeTable(0, 4))
        self.assertEqual(REVALIDATE, epochs.matching((1,), 4))
        self.assertIsNone(epochs.matching((1,), 5))
