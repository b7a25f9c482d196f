"""
From events of downloads to counts and log lines, in a thread of the node process (DESIGN 10).

Workers append events to files (:mod:`edgecache.wire.downloads`). A turn here reads what is new, up to the last
whole line, writes the log, and counts it in one synced transaction together with how far each file was read. A
file that nobody appends to any more, and that is counted to its end, is removed.
"""

# Note [once]
#
# Counts and the read positions are one transaction: whatever is killed, an event is in the counts if and only if
# it is before its file's position. The log is written before that transaction, which notes its length; a turn
# that finds the log longer than noted cuts what a turn before it had written and not counted. The row of a file
# goes only when its removal is on disk: a file that a power cut brought back would be counted again.

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from operator import attrgetter
from typing import BinaryIO, TypeVar

import lmdb
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.index.downloads import DIRECTORY, SUFFIX, Event, Reader, log_line
from edgecache.index.tabulating import Query, Row, tabulated
from edgecache.rules.sites import site_id
from edgecache.store.counts import Batch, DownloadCounts
from edgecache.store.environment import DAMAGE
from edgecache.store.threads import InThread
from edgecache.syncing import sync_directory
from edgecache.words.config import Config
from edgecache.words.errors import EdgeError
from edgecache.words.ports import Timer, Timers

_log = Logger()

T = TypeVar("T")

TURN_SECONDS = 1.0
BATCH_OCTETS = 1 << 20
"""Of one file, in one transaction."""

COMPLAINT_SECONDS = 60.0
_TRIM_SECONDS = 3600.0
_TURNS, _TURNS_BEFORE_AN_ANSWER = 16, 64


@define(eq=False, repr=False)
class CountsUnread(EdgeError):
    """The counts cannot be read, or not now."""

    reason: str


@define(eq=False, repr=False)
class Folded:
    """Since the start of the node; only grows."""

    downloads: int = 0
    damaged_lines: int = 0
    log_lines_lost: int = 0
    failures: int = 0


@define(eq=False, repr=False)
class Downloads:
    """
    Folds events, and answers what was counted.

    :ivar sites: names by the ids that events have.
    :ivar log: path of the index's own log; ``""`` for none.
    :ivar days: for which counts are kept.
    """

    _directory: str
    _sites: dict[bytes, str]
    _log_path: str
    _days: int
    _timers: Timers
    _in_thread: InThread
    _wall: Callable[[], float] = time.time
    folded: Folded = field(factory=Folded)
    _counts: DownloadCounts | None = None
    _timer: Timer | None = None
    _stopped: bool = True
    _complain_at: float = 0.0
    _trim_at: float = 0.0
    # Of the thread.
    _removed: set[str] = field(factory=set)
    _readers: dict[str, tuple[int, Reader]] = field(factory=dict)

    @classmethod
    def of(cls, config: Config, timers: Timers, in_thread: InThread) -> Downloads:
        """:return: those of a node; nothing happens yet."""
        directory = os.path.join(config.node.data, DIRECTORY)
        return cls(directory, _names(config), config.index.download_log, config.index.downloads_days, timers, in_thread)

    def configured(self, config: Config) -> None:
        """The sites are others now; where and how long is decided at the start."""
        self._sites = _names(config)

    def start(self) -> None:
        """Fold now, and each second from now on. No worker may be running yet."""
        self._stopped = False
        self._again(self._tidy)

    async def stop(self) -> None:
        """Fold what is there, and end."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # After a turn that runs now: the thread does one after the other.
        await self._in_thread(self._close)

    def ask(self, query: Query, shape: Callable[[Answer], T]) -> Deferred[T]:
        """
        :param shape: called in the thread.
        :return: of everything that finished before this call, but for what a turn of a worker's loop still holds.
        :raises CountsUnread: they cannot be had now.
        """
        return self._in_thread(self._answer, query, shape)

    def _again(self, first: Callable[[], None] | None = None) -> None:
        self._timer = None
        _ = self._in_thread(self._turn_safely, first).addBoth(self._turned)

    def _turned(self, outcome: Failure | None) -> None:
        if outcome is not None:
            _log.failure("downloads: counting failed", outcome)
        if not self._stopped:
            self._timer = self._timers.callLater(TURN_SECONDS, self._again)

    # In the thread.

    def _turn_safely(self, first: Callable[[], None] | None) -> None:
        """Serving goes on whatever happens here, and so does counting, later."""
        try:
            if first is not None:
                first()
            for _ in range(_TURNS):
                if not self.turn():
                    break
            now = self._wall()
            if now >= self._trim_at:
                self._trim_at = now + _TRIM_SECONDS
                self._opened().trim(int(now // 86400) - self._days)
        except (OSError, lmdb.Error) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.folded.failures += 1
        if isinstance(error, DAMAGE) and self._counts is not None:
            counts, self._counts = self._counts, None
            counts.condemn(str(error))
            return
        if isinstance(error, lmdb.PanicError) and self._counts is not None:
            # Until it is opened anew; what is on disk is whole.
            self._counts.close()
            self._counts = None
        if isinstance(error, lmdb.MapFullError) and self._counts is not None:
            oldest = self._counts.days()[:1]
            _log.error("downloads: the counts are full; the oldest day goes")
            self._counts.trim(oldest[0] + 1 if oldest else 0)
            return
        now = self._wall()
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINT_SECONDS
            _log.error("downloads: events stay uncounted for now: {error}", error=error)

    def _tidy(self) -> None:
        """What a killed worker had not named yet; and the directory as it is must be on disk (Note [once])."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        for name in os.listdir(self._directory):
            if name.endswith(SUFFIX + ".new"):
                os.unlink(os.path.join(self._directory, name))
        sync_directory(os.path.dirname(self._directory))
        sync_directory(self._directory)
        self._removed.update(set(self._opened().segments()).difference(os.listdir(self._directory)))

    def _opened(self) -> DownloadCounts:
        if self._counts is None:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self._counts = DownloadCounts.open(self._directory)
        return self._counts

    def _close(self) -> None:
        self._turn_safely(None)
        if self._counts is not None:
            self._counts.close()
            self._counts = None

    def _answer(self, query: Query, shape: Callable[[Answer], T]) -> T:
        behind = True
        try:
            for _ in range(_TURNS_BEFORE_AN_ANSWER):
                if not self.turn():
                    behind = False
                    break
        except (OSError, lmdb.Error) as error:
            self._failed(error)
        try:
            counts = self._opened()
            rows = tabulated(counts.rows(query.first, query.last, clients=query.of_clients), query)
        except (OSError, lmdb.Error) as error:
            raise CountsUnread(str(error)) from error
        return shape(Answer(counts.life, rows, behind, self.folded))

    def turn(self) -> bool:
        """
        Read, count, remove.

        :return: is there more than one batch could take?
        :raises OSError, lmdb.Error: nothing of it is counted.
        """
        counts = self._opened()
        before = counts.segments()
        names = sorted(name for name in os.listdir(self._directory) if name.endswith(SUFFIX))
        pieces = [self._read(name, before.get(name, 0)) for name in names]
        gone = [name for name in before if name in self._removed and name not in names]
        news = [piece for piece in pieces if piece.position > before.get(piece.name, 0)]
        if news or gone:
            self._count(counts, news, gone)
            self._removed.difference_update(gone)
        ended = [piece.name for piece in pieces if piece.ended]
        for name in ended:
            os.unlink(os.path.join(self._directory, name))
        if ended:
            sync_directory(self._directory)
            self._removed.update(ended)
            for name in ended:
                del self._readers[name]
        return any(piece.more for piece in pieces)

    def _count(self, counts: DownloadCounts, news: list[_Piece], gone: list[str]) -> None:
        """See Note [once]."""
        damaged = sum(piece.damaged for piece in news)
        batch = counts.begin(self._sites, int(self._wall() * 1000), logged=bool(self._log_path))
        try:
            batch.add(sorted((event for piece in news for event in piece.events), key=attrgetter("time")))
            for piece in news:
                batch.note(piece.name, piece.position)
            for name in gone:
                batch.forget(name)
            if batch.lines:
                self._write_log(counts, batch)
        except BaseException:
            batch.abort()
            raise
        try:
            batch.commit()
        except BaseException:
            counts.forget_labels()
            raise
        self.folded.downloads += batch.downloads
        if damaged:
            self.folded.damaged_lines += damaged
            _log.warn("downloads: {count} lines are no events", count=damaged)

    def _read(self, name: str, position: int) -> _Piece:
        """:return: what is new in one file, up to the last whole line."""
        path = os.path.join(self._directory, name)
        with open(path, "rb") as file:
            # Asked first: whatever is appended by somebody who holds it comes before it is let go.
            held = _is_held(file.fileno())
            reader = self._reader(name, position, file)
            file.seek(position)
            content = file.read(BATCH_OCTETS)
            size = os.fstat(file.fileno()).st_size
        whole = content.rfind(b"\n") + 1
        more = position + len(content) < size
        reader.damaged = 0
        events = [event for line in content[:whole].split(b"\n")[:-1] if (event := reader.read(line)) is not None]
        damaged = reader.damaged
        if more and not whole:
            # No line of ours is so long: skipped, so that the next can be read.
            whole, damaged = len(content), 1
        self._readers[name] = position + whole, reader
        # The begin of a line, at the end of a file without a writer, was cut by a kill.
        return _Piece(name, position + whole, events, damaged, more, ended=not held and not more)

    def _reader(self, name: str, position: int, file: BinaryIO) -> Reader:
        """:return: one that has read all before ``position``."""
        reached, reader = self._readers.get(name, (0, Reader()))
        if reached != position:
            # After a start, or when the last turn was given up.
            reader = Reader()
            for line in file.read(position).split(b"\n"):
                reader.read(line)
        return reader

    def _write_log(self, counts: DownloadCounts, batch: Batch) -> None:
        lines = [log_line(event, file) for event, file in batch.lines]
        try:
            batch.place_log(_append(self._log_path, b"".join(lines), counts.log_place()))
        except OSError as error:
            self.folded.log_lines_lost += len(lines)
            now = self._wall()
            if now >= self._complain_at:
                self._complain_at = now + COMPLAINT_SECONDS
                reason = error.strerror
                _log.error("downloads: {count} log lines lost: {reason}", count=len(lines), reason=reason)


@define(eq=False, repr=False)
class Answer:
    """
    What was counted.

    :ivar life: of the counts; see :class:`~edgecache.store.counts.DownloadCounts`.
    :ivar behind: there are events that are not counted yet.
    """

    life: str
    rows: list[Row]
    behind: bool
    folded: Folded


@define(eq=False, repr=False)
class _Piece:
    """What one turn reads of one file; ``ended``: nothing will follow, and all of it was read."""

    name: str
    position: int
    events: list[Event]
    damaged: int
    more: bool
    ended: bool


def _is_held(descriptor: int) -> bool:
    """Does its writer live?"""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _append(path: str, content: bytes, place: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """
    :param place: device, inode and length as counted.
    :return: the same with ``content``, which is on disk then.
    :raises OSError: it is as before.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        found = os.fstat(descriptor)
        length = found.st_size
        if place is not None and (found.st_dev, found.st_ino) == tuple(place[:2]) and length > place[2]:
            # Note [once]: written by a turn that was killed before it had counted.
            os.ftruncate(descriptor, place[2])
            length = place[2]
        try:
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, length)
            raise
        return found.st_dev, found.st_ino, length + len(content)
    finally:
        os.close(descriptor)


def _names(config: Config) -> dict[bytes, str]:
    """:return: of sites, by the ids that events have."""
    return {b"%016x" % site_id(site.name): site.name for site in config.sites}
