"""
One state of blobs that is on disk for certain, so that workers need not wait for the disk with each of their commits.

Note [the anchor]: LMDB knows two heads, and writes them in turn. What it lets a commit do without a sync is only safe
if a power cut cannot leave a head whose pages were never written. So a worker's commits sync nothing, and the node
process, again and again, (1) opens a reader on the state of now, which keeps every page of it from being used for
anything else, (2) syncs the file, (3) writes that state's head into a file of its own, ``DATA/blobs/anchor``, and syncs
it, (4) only then closes the reader of the state before. After a power cut the heads in LMDB's file may be anything:
the next start writes the anchor's over both. What was committed later is missing then, and reading finds that
(Note [who syncs what] in :mod:`edgecache.store.environments`). Where the kernel lives, and the file system is still
mounted, all that was written is there: it is synced then, and no head is touched. An orderly end syncs all and leaves
no anchor: one that is found later, when somebody else has written to the file, would be worse than none.

Commits go on while it is moved; what they are ahead is bounded (:class:`Lead`): the reader keeps few pages from being
used again, and a purge's sync does not wait behind much that is still to be written.

Note [the holder's death]: where a writer dies within its transaction, LMDB removes the readers of dead processes. With
the node process goes the anchor's: whoever is next may use the anchored pages for something else, while that anchor is
still what the next start may go back to. Workers end with the node process, but a moment later. So each write
transaction of theirs looks first whether that reader is still there.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress

import lmdb
from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.store import disk
from edgecache.store.anchorfile import HEAD_OCTETS, NAME, Slot, latest, number_of, place_of_head
from edgecache.store.environment import Environment
from edgecache.store.layout import PAGE
from edgecache.store.threads import InThread
from edgecache.syncing import sync_directory
from edgecache.words.ports import Timer, Timers

_log = Logger()

AHEAD = 4
"""Commits of all workers that the anchor need not have reached when another begins; of blobs one has at most 8 MiB."""

LOOK_SECONDS = 0.05
_AFTER_FAILURE_SECONDS = 5.0

_TRIES = 20


class NoAnchor(Exception):
    """What LMDB's file holds is not understood; the text says why."""


@define(eq=False, repr=False)
class Anchor:
    """
    The node process's side. See Note [the anchor].

    :ivar transaction: the number of the last one that is on disk for certain.
    """

    _environment: Environment
    _cache: str
    _data: int
    _file: int
    transaction: int = 0
    _count: int = 0
    _held: lmdb.Transaction | None = None
    _open: bool = True
    _moving: threading.Lock = field(factory=threading.Lock)

    @classmethod
    def lower(cls, environment: Environment) -> Anchor:
        """
        :return: one that holds the state of now.
        :raises OSError: there is none, and nobody may rely on one.
        :raises NoAnchor: likewise.
        """
        if environment.env.stat()["psize"] != PAGE:
            raise NoAnchor(f"{environment.name} has pages of another size")
        path = os.path.join(environment.path, NAME)
        new = path + ".new"
        data = os.open(os.path.join(environment.path, "data.mdb"), os.O_RDWR | os.O_CLOEXEC)
        try:
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            os.close(data)
            raise
        anchor = cls(environment, disk.cache(environment.path), data, file)
        try:
            os.pwrite(file, bytes(2 * PAGE), 0)
            anchor._hold()
            # Where there is one of this name, it holds something.
            os.rename(new, path)
            sync_directory(environment.path)
        except BaseException:
            anchor.close()
            for each in (new, path):
                with suppress(FileNotFoundError):
                    os.unlink(each)
            raise
        return anchor

    @property
    def behind(self) -> bool:
        """Is anything committed that a power cut could take back, and can that be helped?"""
        if self._environment.condemned:
            return False
        try:
            # What readers are given, not the newest head: see `_newest`.
            with self._environment.env.begin() as now:
                return bool(now.id() != self.transaction)
        except lmdb.Error:
            # `hold` says why.
            return True

    def hold(self) -> None:
        """
        All that was committed before this call is on disk for certain when it returns. From any thread.

        :raises OSError: it is not. If the disk itself did not keep it, the environment is condemned.
        """
        with self._moving:
            if self._open:
                self._hold()

    def weigh(self) -> None:
        """
        An orderly end, when nobody writes any more: all is on disk, and no anchor is left.

        Where it is not, the anchor stays, and says what is certain.
        """
        if not self._open:
            return
        try:
            self.hold()
            os.unlink(os.path.join(self._environment.path, NAME))
            sync_directory(self._environment.path)
        except (OSError, lmdb.Error, NoAnchor) as error:
            _log.warn("store: the last commits of blobs may not be on disk: {error}", error=error)
        self.close()

    def close(self) -> None:
        """Hold nothing any more. The file stays: it says what is certain until the next start."""
        with self._moving:
            if self._open:
                self._open = False
                self._let_go()
                os.close(self._data)
                os.close(self._file)

    def _hold(self) -> None:
        if self._environment.condemned:
            # What a sync says the second time means nothing: the state that is held is the last certain one.
            raise OSError(errno.EIO, f"{self._environment.name} is damaged")
        reader, head = self._newest()
        try:
            self._sync(self._data)
            page = Slot(self._count, os.getpid(), self._cache, head).packed()
            if os.pwrite(self._file, page, self._count % 2 * PAGE) != PAGE:
                raise OSError(errno.ENOSPC, "the anchor was written in part")
            self._sync(self._file)
        except BaseException:
            reader.abort()
            raise
        self._count += 1
        self._let_go()
        self._held, self.transaction = reader, number_of(head)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            # The kernel says so once. What of the pages is lost, or which of the slots is there, nobody can tell.
            self._environment.condemn(f"the disk does not keep it: {error}")
            raise

    def _newest(self) -> tuple[lmdb.Transaction, bytes]:
        """
        :return: a reader on the state of now, and that state's head.

        LMDB writes over a head only when readers are given the state after it. A newer head may be there before: a
        writer may stand still between its head and its word.
        """
        begin = self._environment.env.begin
        for _ in range(_TRIES):
            reader = begin()
            number = reader.id()
            head = os.pread(self._data, HEAD_OCTETS, place_of_head(number % 2))
            with begin() as later:
                if number_of(head) == number == later.id():
                    return reader, head
            reader.abort()
        raise NoAnchor(f"the heads of {self._environment.name} are not where they were looked for")

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.abort()


def lowered(environment: Environment) -> Anchor | None:
    """:return: an anchor that holds the state of now; ``None`` where none can be had, which is said."""
    try:
        return Anchor.lower(environment)
    except (OSError, lmdb.Error, NoAnchor) as error:
        _log.warn("store: every commit of blobs waits for the disk, for there is no anchor: {error}", error=error)
        return None


@define(eq=False, repr=False)
class Lead:
    """A worker's side: it relies on the anchor's reader, and does not get far ahead of it."""

    _environment: Environment
    # Commits that the anchor did not hold when the last transaction began.
    _ahead: int = 0

    def held(self) -> bool:
        """In each write transaction, before it changes anything. See Note [the holder's death]."""
        try:
            slot = latest(self._environment.path)
        except OSError:
            return False
        if slot is None:
            return False
        env = self._environment.env
        self._ahead = env.info()["last_txnid"] - slot.transaction
        # A line each; the process, in ten columns, comes first.
        return f"{slot.holder:10d} " in env.readers()

    def committed(self) -> None:
        """After its commit, in the writer's thread: waits for the disk where that was behind."""
        if self._ahead <= AHEAD:
            return
        try:
            self._environment.env.sync(True)
        except lmdb.Error as error:
            # The kernel may have said so to us alone: had the node process died by now, no start would hear of it.
            self._environment.condemn(f"the disk does not keep it: {error}")


@define(eq=False, repr=False)
class Anchoring:
    """Has the anchor follow the commits. ``hold`` is called in the thread."""

    _anchor: Callable[[], Anchor | None]
    _hold: Callable[[], None]
    _timers: Timers
    _in_thread: InThread
    _timer: Timer | None = None
    _stopped: bool = True
    _holding: bool = False
    _idle: list[Deferred[None]] = field(factory=list)

    def start(self) -> None:
        """Look at once, and again and again until :meth:`stop`."""
        self._stopped = False
        self._look()

    def stop(self) -> Deferred[None]:
        """:return: fires when it is not being moved any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._holding:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _look(self) -> None:
        self._timer = None
        anchor = self._anchor()
        if anchor is None or not anchor.behind:
            self._again(LOOK_SECONDS)
            return
        self._holding = True
        _ = self._in_thread(self._hold).addCallbacks(lambda _: self._held(0.0), self._failed)

    def _failed(self, failure: Failure) -> None:
        _log.failure("store: what is on disk for certain cannot be told", failure)
        self._held(_AFTER_FAILURE_SECONDS)

    def _held(self, seconds: float) -> None:
        self._holding = False
        self._again(seconds)
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)

    def _again(self, seconds: float) -> None:
        if not self._stopped:
            self._timer = self._timers.callLater(seconds, self._look)
