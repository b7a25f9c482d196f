"""
Writing control: purges, local invalidations, tokens (DESIGN 4, 7, 9). Only the node process does.

Every change is on disk and its epoch published before its Deferred fires.
"""

# Note [commit, publish, answer]
#
# The thread that commits also publishes the epoch, before anybody hears of it: an
# answered purge is both durable and seen by every hit. Between commit and
# publication a kill loses only the answer; the next start publishes first of all.
#
# Note [group commit]
#
# A sync costs 0.3 to 5 ms whatever it carries. All changes that arrive while one
# group is being synced make up the next.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import lmdb
from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from edgecache.store.controlreading import ControlReader
from edgecache.store.controlrows import DIGEST_OCTETS, ODD, TOKENS, Purges, Rows, trimmed_log
from edgecache.store.environment import DAMAGE, Environment
from edgecache.store.threads import InThread
from edgecache.words.errors import ControlFailed
from edgecache.words.purging import Entry, LogName, Position, Row, SerialDemand, Token, TooOld
from edgecache.words.reasons import PurgeMode

__all__ = ["Appended", "Control", "ControlReader", "Gap", "Publisher"]

T = TypeVar("T")

KEEP = 4_000_000
"""Epochs that are kept; a record with an older floor is validated."""

# Of control's map: copy-on-write, the free list and one large purge need the rest.
_FULL_SHARE = 0.7
# Changes wait in memory while one group is synced. Beyond this the disk does not keep up.
_MOST_WAITING_ROWS = 200_000
_MOST_ROWS_PER_GROUP = 20_000
# Each group forgets at least this many epochs when there are too many, and twice what it adds.
_TRIM_AT_LEAST = 64


class Publisher(Protocol):
    """What control needs of :class:`~edgecache.store.pagewriter.PageWriter`."""

    def publish_epoch(self, epoch: int) -> None: ...
    def publish_trimmed(self, trimmed: int) -> None: ...


@frozen
class Appended:
    """
    A purge that is in its log.

    :ivar new: it was appended just now; else its id was there already, and ``entry`` is what it means.
    """

    entry: Entry
    new: bool


@frozen
class Gap:
    """An entry that does not follow the ones that are here. :ivar head: where to read on from."""

    head: Position


@define(eq=False, repr=False)
class _Change:
    """:ivar write: what to do in the transaction. :ivar weight: rows that it writes, about."""

    write: Callable[[Rows], Any]
    weight: int
    done: Deferred[Any] = field(factory=Deferred)


@define(eq=False, repr=False)
class Control:
    """
    This node's control: its own log, its copies of others', and the epochs.

    :ivar name: of this node's own log.
    :ivar read: the reading side, which costs microseconds and may be used on the loop.
    :ivar keep: epochs that are kept.
    """

    name: LogName
    read: ControlReader
    keep: int
    _environment: Environment
    _page: Publisher
    _in_thread: InThread
    _waiting: list[_Change] = field(factory=list)
    _waiting_rows: int = 0
    _committing: bool = False
    _closed: bool = False
    _idle: list[Deferred[None]] = field(factory=list)

    @classmethod
    def open(
        cls,
        environment: Environment,
        page: Publisher,
        in_thread: InThread,
        *,
        node_id: str,
        incarnation: bytes,
        keep: int = KEEP,
    ) -> Control:
        """
        Publish where this node stands, and be ready. No worker may be running yet.

        :param in_thread: one thread of its own: commits must not overtake one another.
        :raises ControlFailed: control cannot be read.
        """
        control = cls(LogName(node_id, incarnation), ControlReader.of(environment), keep, environment, page, in_thread)
        purges = control.read.purges()
        page.publish_trimmed(purges.trimmed)
        page.publish_epoch(purges.epoch)
        return control

    def append(
        self,
        content: bytes,
        purge_id: str,
        rows: Sequence[Row],
        digest: bytes = b"",
        demands: Sequence[SerialDemand] = (),
    ) -> Deferred[Appended]:
        """
        Number a purge, log and apply it, in one synced transaction.

        :param content: octets for the entry; siblings get them as they are.
        :param purge_id: if it is in any log already, nothing is done.
        :param digest: at most 16 octets that tell purges of one id apart.
        :param demands: what it says about serials.
        :return: fires once the purge is durable here and published; fails with
            :class:`~edgecache.words.errors.ControlFailed` when it is not.
        :raises ValueError: a row cannot be written.
        """
        _check(rows)

        def write(under: Rows) -> Appended:
            known = under.entry_by_id(purge_id)
            if known is not None:
                return Appended(known, new=False)
            return Appended(self._add(under, self.name, purge_id, digest, content, rows, demands), new=True)

        return self._change(write, len(rows) + len(demands) + 1)

    def copy(self, entry: Entry, rows: Sequence[Row], demands: Sequence[SerialDemand] = ()) -> Deferred[Appended | Gap]:
        """
        Take an entry of another node's log over, and apply it here.

        :param entry: its epochs are the other node's; the copy gets ours.
        :return: fires with ``new=False`` for one that is here, with :class:`Gap` for one that does not follow.
        :raises ValueError: a row cannot be written.
        """
        _check(rows)

        def write(under: Rows) -> Appended | Gap:
            state = under.log(entry.log)
            if entry.sequence <= state.head:
                known = under.entry(entry.log, entry.sequence)
                return Appended(entry if known is None else known, new=False)
            if entry.sequence > state.head + 1:
                return Gap(Position(entry.log, state.head))
            added = self._add(under, entry.log, entry.purge_id, entry.digest, entry.content, rows, demands)
            return Appended(added, new=True)

        return self._change(write, len(rows) + len(demands) + 1)

    def adopt(self, positions: Mapping[LogName, int], rows: Sequence[Row]) -> Deferred[None]:
        """
        Know these logs from these positions on, as if all before had been here and was forgotten.

        :param rows: what to invalidate for that, in the same transaction.
        :raises ValueError: a row cannot be written.
        """
        _check(rows)

        def write(under: Rows) -> None:
            for log, sequence in positions.items():
                under.adopt(log, sequence)
            self._apply(under, rows)

        return self._change(write, len(rows) + len(positions))

    def admit(self) -> Deferred[None]:
        """Keep for ever that this node is not joining any more."""
        return self._change(Rows.admit, 1)

    def local(self, rows: Sequence[Row], demands: Sequence[SerialDemand] = ()) -> Deferred[int]:
        """
        Invalidate here only; it is in no log.

        :return: fires with the epoch, once that is durable and published.
        :raises ValueError: a row cannot be written.
        """
        _check(rows)
        return self._change(lambda under: self._apply(under, rows, demands), len(rows) + len(demands))

    async def serve(self, sites: Mapping[int, Sequence[Row]]) -> None:
        """
        Purges are for these sites from now on. What was purged while one of them was not among them named nothing of
        it: what is stored of that is invalidated first.

        :param sites: by id, the rows that invalidate all of it.
        :raises ControlFailed: it could not be written; nothing has changed.
        """

        def write(under: Rows) -> None:
            known = under.sites()
            if known is not None:
                self._apply(under, [row for site, rows in sites.items() if site not in known for row in rows])
            under.put_sites(sites)

        if self.read.sites() != frozenset(sites):
            await self._change(write, 1 + sum(map(len, sites.values())))

    def by_id(self, purge_id: str) -> Entry | None:
        """:return: the purge of this id, ``None`` when there is none, or no longer."""
        return self.read.by_id(purge_id)

    def head(self) -> Position:
        """:return: the position after the newest entry of this node's own log."""
        return self.read.head(self.name)

    def read_from(self, position: Position, most: int = 1000) -> list[Entry] | TooOld:
        """:return: up to ``most`` entries after ``position`` of any log that is here."""
        return self.read.read_from(position, most)

    def put_token(self, token: Token) -> Deferred[None]:
        """Add a token, in place of one of the same name."""
        return self._change(lambda under: under.put_token(token), 1)

    def remove_token(self, name: str) -> Deferred[bool]:
        """:return: fires with whether there was one."""
        return self._change(lambda under: under.delete(TOKENS, name.encode()), 1)

    def close(self) -> Deferred[None]:
        """Take no more changes. :return: fires when those taken are done."""
        self._closed = True
        if not self._committing:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        return done

    def _change(self, write: Callable[[Rows], T], weight: int) -> Deferred[T]:
        if self._closed:
            return fail(ControlFailed("the node is going down"))
        if self._waiting_rows + weight > _MOST_WAITING_ROWS:
            return fail(ControlFailed("too many changes wait for the disk"))
        change = _Change(write, weight)
        self._waiting.append(change)
        self._waiting_rows += weight
        self._pump()
        return change.done

    def _pump(self) -> None:
        """Commit what waits, unless a commit is under way: then it is called again after it."""
        if self._committing or not self._waiting:
            return
        group, rows = 0, 0
        while group < len(self._waiting) and (group == 0 or rows + self._waiting[group].weight <= _MOST_ROWS_PER_GROUP):
            rows += self._waiting[group].weight
            group += 1
        changes, self._waiting = self._waiting[:group], self._waiting[group:]
        self._waiting_rows -= rows
        self._committing = True
        committed = maybeDeferred(self._in_thread, self._commit, changes)
        _ = committed.addBoth(self._committed, changes)

    def _committed(self, results: list[Any] | Failure, changes: list[_Change]) -> None:
        self._committing = False
        # The next group is synced while this one is answered.
        self._pump()
        for number, change in enumerate(changes):
            if isinstance(results, Failure):
                change.done.errback(results)
            else:
                change.done.callback(results[number])
        if not self._committing:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)

    def _commit(self, changes: Sequence[_Change]) -> list[Any]:
        """In the thread: one transaction for all. See Note [commit, publish, answer]."""
        if not self._environment.is_there():
            raise ControlFailed("its file was removed")
        try:
            results, purges = self._written(changes)
        except DAMAGE as error:
            self._environment.condemn(str(error))
            raise ControlFailed(f"damaged: {error}") from error
        except lmdb.Error as error:
            raise ControlFailed(str(error)) from error
        except ODD as error:
            raise ControlFailed(f"a row is not what was written: {error}") from error
        self._page.publish_epoch(purges.epoch)
        return results

    def _written(self, changes: Sequence[_Change]) -> tuple[list[Any], Purges]:
        weight = sum(change.weight for change in changes)
        while True:
            try:
                with self._environment.env.begin(write=True) as txn:
                    rows = Rows(txn, self._environment.databases)
                    self._trim(rows, weight)
                    written = [change.write(rows) for change in changes], rows.purges()
                return written
            except lmdb.MapFullError:
                if not self._make_room(2 * weight + _TRIM_AT_LEAST):
                    raise

    def _make_room(self, most: int) -> bool:
        """
        Forget so many epochs, or as many as one transaction can: those of a large purge lie in many pages, and what a
        transaction gives back is another one's.

        :return: was anything forgotten?
        """
        while True:
            try:
                with self._environment.env.begin(write=True) as txn:
                    rows = Rows(txn, self._environment.databases)
                    purges = rows.purges()
                    few = min(most, purges.epoch - purges.trimmed)
                    if few:
                        self._forget(rows, purges, few)
            except lmdb.MapFullError:
                if most == 1:
                    raise
                most //= 2
            else:
                return few > 0

    def _add(
        self,
        under: Rows,
        log: LogName,
        purge_id: str,
        digest: bytes,
        content: bytes,
        rows: Sequence[Row],
        demands: Sequence[SerialDemand],
    ) -> Entry:
        state = under.log(log)
        first = under.purges().epoch
        last = self._apply(under, rows, demands)
        padded = digest[:DIGEST_OCTETS].ljust(DIGEST_OCTETS, b"\0")
        entry = Entry(log, state.head + 1, first, last, purge_id, padded, content)
        under.add_entry(entry)
        evolve(state, head=entry.sequence).put(under)
        return entry

    def _apply(self, under: Rows, rows: Sequence[Row], demands: Sequence[SerialDemand] = ()) -> int:
        purges = under.purges()
        for epoch, row in enumerate(rows, purges.epoch + 1):
            under.apply(epoch, row)
        if rows:
            purges = evolve(purges, epoch=purges.epoch + len(rows))
            purges.put(under)
        for demand in demands:
            under.demand(purges.epoch, demand)
        return purges.epoch

    def _trim(self, under: Rows, weight: int) -> None:
        """Forget the oldest epochs when there are too many, a few with each group."""
        purges = under.purges()
        known = purges.epoch - purges.trimmed
        excess = known + weight - self.keep
        info = self._environment.env.info()
        if under.pages() * self._environment.env.stat()["psize"] > _FULL_SHARE * info["map_size"]:
            excess = max(excess, 2 * weight + _TRIM_AT_LEAST)
        excess = min(excess, known, 2 * weight + _TRIM_AT_LEAST)
        if excess > 0:
            self._forget(under, purges, excess)

    def _forget(self, under: Rows, purges: Purges, excess: int) -> None:
        trimmed = purges.trimmed + excess
        # Before the rows go: a reader that misses a row must find the mark raised.
        self._page.publish_trimmed(trimmed)
        for epoch in range(purges.trimmed + 1, trimmed + 1):
            under.forget(epoch)
        evolve(purges, trimmed=trimmed).put(under)
        for state in under.logs():
            trimmed_log(under, state, trimmed, excess + _TRIM_AT_LEAST)


def _check(rows: Sequence[Row]) -> None:
    """Before they join a group: one that cannot be written must not fail its neighbours."""
    for _, selector, mode in rows:
        PurgeMode(mode)
        if not 0 <= selector < 1 << 64:
            raise ValueError(f"{selector} is no 64-bit hash")
