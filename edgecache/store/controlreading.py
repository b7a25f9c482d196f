"""Reading control, in the node process and in its workers (DESIGN 7, 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import lmdb
from attrs import define

from edgecache.rules.indexpaths import project_tag
from edgecache.rules.selectors import all_selector, tag_selector
from edgecache.store.controlrows import ODD, Purges, Rows
from edgecache.store.environment import DAMAGE, Environment
from edgecache.words.errors import ControlFailed
from edgecache.words.purging import Demanded, Entry, LogName, Position, Token, TooOld
from edgecache.words.reasons import PurgeMode


@define(eq=False, repr=False)
class ControlReader:
    """
    Control as every process reads it. Each method is one transaction of its own.

    All of them raise :class:`~edgecache.words.errors.ControlFailed` when control cannot be read.
    """

    _environment: Environment
    # Snapshot, epoch and positions: each look-up at a sibling needs them, few commits change them.
    _applied: tuple[int, int, dict[LogName, int]] = (-1, 0, {})

    @classmethod
    def of(cls, environment: Environment) -> ControlReader:
        """:param environment: control, open in this process."""
        return cls(environment)

    def purges(self) -> Purges:
        """:return: the last epoch and the last trimmed one, as committed."""
        with self._rows() as rows:
            return rows.purges()

    def rows_since(self, epoch: int) -> list[tuple[int, int, int]]:
        """
        What to extend a purge table with. To be called after the page's epoch was read.

        :return: (epoch, selector hash, mode) of every later epoch, ascending. It lacks those that are
            forgotten: after the call, no floor below the page's ``trimmed`` may be judged by a table.
        """
        with self._rows() as rows:
            return rows.rows_since(epoch)

    def last(self, selector: int) -> dict[PurgeMode, int]:
        """:return: the last epoch of each mode that ``selector`` was purged with, as far as known."""
        with self._rows() as rows:
            return rows.last(selector)

    def since(self, selectors: Iterable[int], floor: int) -> PurgeMode | None:
        """
        :return: the strictest mode of any purge of ``selectors`` later than ``floor``, however old;
            :attr:`PurgeMode.REVALIDATE` when it cannot be told any more.
        """
        with self._rows() as rows:
            # In the same transaction: the page may show the new mark only after our look.
            found = [PurgeMode.REVALIDATE] if floor < rows.purges().trimmed else []
            for selector in selectors:
                found.extend(mode for mode, epoch in rows.last(selector).items() if epoch > floor)
        return max(found, default=None)

    def by_id(self, purge_id: str) -> Entry | None:
        """:return: the purge of this id, from any log that is here."""
        with self._rows() as rows:
            return rows.entry_by_id(purge_id)

    def head(self, name: LogName) -> Position:
        """:return: the position after the newest entry of a log that is here."""
        with self._rows() as rows:
            return Position(name, rows.log(name).head)

    def heads(self) -> list[Position]:
        """:return: :meth:`head` of every log."""
        with self._rows() as rows:
            return [Position(state.name, state.head) for state in rows.logs()]

    def applied(self) -> tuple[int, dict[LogName, int]]:
        """:return: the last epoch, and up to where each log is applied by then: the same dict while nothing changes."""
        with self._rows() as rows:
            snapshot = rows.snapshot()
            if snapshot != self._applied[0]:
                positions = {state.name: state.head for state in rows.logs()}
                self._applied = snapshot, rows.purges().epoch, positions
        return self._applied[1:]

    def demanded(self, site_id: int, project: bytes) -> Demanded:
        """:return: what purges demand of the serials of a project. :param project: its normalised name."""
        with self._rows() as rows:
            return rows.demanded(tag_selector(site_id, project_tag(project)), all_selector(site_id))

    def sites(self) -> frozenset[int] | None:
        """:return: see :meth:`Rows.sites`."""
        with self._rows() as rows:
            return rows.sites()

    def admitted(self) -> bool:
        """:return: this node is not joining."""
        with self._rows() as rows:
            return rows.admitted()

    def read_from(self, position: Position, most: int = 1000) -> list[Entry] | TooOld:
        """:return: up to ``most`` entries after ``position``; :class:`TooOld` when some of them are gone."""
        with self._rows() as rows:
            state = rows.log(position.log)
            if position.sequence < state.oldest:
                return TooOld(Position(position.log, state.oldest))
            return rows.entries(position.log, position.sequence, most)

    def recent(self, name: LogName, most: int = 50) -> list[Entry]:
        """:return: the newest entries of a log, newest first."""
        with self._rows() as rows:
            state = rows.log(name)
            return rows.entries(name, max(state.oldest, state.head - most), most)[::-1]

    def tokens(self) -> list[Token]:
        """All tokens, as digests."""
        with self._rows() as rows:
            return rows.tokens()

    @contextmanager
    def _rows(self) -> Iterator[Rows]:
        try:
            with self._environment.env.begin() as txn:
                yield Rows(txn, self._environment.databases)
        except ODD as error:
            raise ControlFailed(f"a row is not what was written: {error}") from error
        except DAMAGE as error:
            self._environment.condemn(str(error))
            raise ControlFailed(f"damaged: {error}") from error
        except lmdb.Error as error:
            raise ControlFailed(str(error)) from error
