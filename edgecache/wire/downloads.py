"""
Events of downloads: one line per file that a client got, written at the end of the loop's turn (DESIGN 10).

Each worker appends to files of its own below ``DATA/downloads``; the node process folds them into counts
(:mod:`edgecache.store.folding`) and removes what it has folded. A file is locked as long as somebody may append
to it, so that the end of its writer, also by SIGKILL, is no secret.
"""

# Note [what a kill loses]
#
# One write at the end of each turn: what finished in earlier turns is in the kernel and survives SIGKILL; what
# finished in this one is lost. A kill in the middle of the write leaves a line without its end, which is not
# read. The sync each second is for power cuts.

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgecache.index.distributions import is_distribution
from edgecache.index.downloads import HEADER, SUFFIX, Kind, common, sent_range
from edgecache.rules.asking import Asked
from edgecache.rules.presenting import REMEMBERED_OCTETS
from edgecache.syncing import sync_directory
from edgecache.words.counters import Counter
from edgecache.words.messages import Request, field_values
from edgecache.words.ports import Counts, Timer, Timers

_log = Logger()

SYNC_SECONDS = 1.0

FILE_OCTETS = 4 << 20
"""Above this a new file is begun, so that the old one can go."""

COMPLAINT_SECONDS = 60.0
"""Losses are logged once in so long."""

_RETRY_SECONDS = 1.0


class Thread(Protocol):
    """Runs a function elsewhere, one after the other."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]: ...


@define(eq=False, repr=False)
class Told:
    """
    What all requests of one head have in common, and under which number the file of events has it.

    :ivar common: ``b""`` when nobody is told about such requests.
    :ivar known: since when (:attr:`DownloadEvents._known`) the number is good; -1: never yet.
    :ivar head: of the last response that was complete, and not large: what is popular is answered with the same octets
        for a second,
    :ivar octets: ... with so many of content, and
    :ivar end: ... its line ended so.
    """

    common: bytes
    page: bool = False
    known: int = -1
    number: int = 0
    head: bytes = b""
    octets: int = -1
    end: bytes = b""


NOT_TOLD = Told(b"")


@define(eq=False, repr=False)
class DownloadEvents:
    """
    What one worker tells of downloads.

    :ivar pages: page requests are told as well.
    :ivar soon: ``loop.call_soon``.
    :ivar thread: for syncs.
    """

    _directory: str
    _node_id: str
    _pages: bool
    _counts: Counts
    _timers: Timers
    _soon: Callable[[Callable[[], None]], Any]
    _thread: Thread
    _wall: Callable[[], float] = time.time
    _descriptor: int = -1
    _octets: int = 0
    _rows: list[tuple[Told, bytes, bytes, int, bool]] = field(factory=list)
    # What is learned about heads is good in one file, and only while nothing of it is lost.
    _known: int = 0
    _numbers: int = 0
    _timer: Timer | None = None
    _retry_at: float = 0.0
    _why: str = ""
    _lost: int = 0
    _complain_at: float = 0.0

    def done(self, request: Request, head: bytes, octets: int, complete: bool, client: bytes) -> None:
        """
        One exchange has ended.

        :param head: of the response, as the route gave it.
        :param octets: of content handed to the transport.
        :param complete: that was all of it.
        :param client: :func:`client_label` of the connection.
        """
        told = request.told
        if told is None:
            told = request.told = self._told(request)
        # Without content only an empty file is a download, and a page was looked at.
        if told is not NOT_TOLD and (octets or told.page or head[9:12] == b"200"):
            if not self._rows:
                self._soon(self._write)
            self._rows.append((told, client, head, octets, complete))

    def _told(self, request: Request) -> Told:
        """:return: what is told of requests with this head; :data:`NOT_TOLD` when nothing is."""
        asked = request.asked
        if not isinstance(asked, Asked) or not asked.site.index or request.method != b"GET":
            return NOT_TOLD
        path = asked.target.partition(b"?")[0]
        if is_distribution(path):
            kind = Kind.FILE
        elif self._pages and asked.page is not None and b"/simple/" in path:
            kind = Kind.PAGE
        else:
            return NOT_TOLD
        agent = b" ".join(field_values(request.fields, b"user-agent"))
        return Told(common(kind, asked.site.id, path, agent), kind is Kind.PAGE)

    def _write(self) -> None:
        """At the end of the turn; there may be nothing any more."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            self._prepare()
        except OSError as error:
            self._lose(len(rows), error.strerror or str(error))
            return
        known = self._known
        stamp = b"%d\t" % (self._wall() * 1000)
        lines: list[bytes] = []
        for told, client, head, octets, complete in rows:
            if octets != told.octets or head != told.head or not complete or told.known != known:
                part = b"" if complete and head[9:12] == b"200" else _part_of(told, head, octets, complete)
                if part is None:
                    continue
                if told.known != known:
                    self._numbers += 1
                    # The line that is remembered names it by the number before.
                    told.known, told.number, told.octets = known, self._numbers, -1
                    lines.append(b"=%d\t%b\n" % (told.number, told.common))
                end = b"\t%d\t%b\t%d\n" % (octets, part, told.number)
                if complete and len(head) <= REMEMBERED_OCTETS:
                    told.head, told.octets, told.end = head, octets, end
            else:
                end = told.end
            lines += (stamp, client, end)
        if lines:
            self._append(b"".join(lines))

    def _append(self, content: bytes) -> None:
        """See Note [what a kill loses]."""
        try:
            written = os.write(self._descriptor, content)
        except OSError as error:
            self._lose(_events_in(content), error.strerror or str(error))
            return
        if written < len(content):
            # The disk is full. Lines that are there may have been read already, the begin of one never is.
            whole = content.rfind(b"\n", 0, written) + 1
            os.ftruncate(self._descriptor, self._octets + whole)
            self._lose(_events_in(content[whole:]), "no space left on the disk")
            written = whole
        self._octets += written
        if self._timer is None:
            self._timer = self._timers.callLater(SYNC_SECONDS, self._sync)

    def _prepare(self) -> None:
        """:raises OSError: there is no file to append to."""
        if self._descriptor >= 0 and self._octets < FILE_OCTETS:
            return
        now = self._timers.seconds()
        if now >= self._retry_at:
            self._retry_at = now + _RETRY_SECONDS
            try:
                self._open()
            except OSError as error:
                self._why = error.strerror or str(error)
        # One that is too long is better than none.
        if self._descriptor < 0:
            raise OSError(errno.EIO, self._why)

    def _open(self) -> None:
        """
        Begin a file; the one before is synced and closed.

        :raises OSError: it cannot be made.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        name = f"{int(self._wall() * 1000):013d}-{secrets.token_hex(8)}"
        path = os.path.join(self._directory, name + SUFFIX)
        descriptor = os.open(path + ".new", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has the name by which it is found: nobody takes it for finished.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            header = HEADER + self._node_id.encode() + b"\n"
            if os.write(descriptor, header) < len(header):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.rename(path + ".new", path)
        except OSError:
            os.close(descriptor)
            raise
        if self._descriptor >= 0:
            _ = self._thread(_sync_and_close, self._descriptor)
        # Whatever is synced in it later: without its name that is lost.
        _ = self._thread(_sync_names, self._directory)
        self._descriptor, self._octets, self._retry_at = descriptor, len(header), 0.0
        self._known += 1

    def _sync(self) -> None:
        self._timer = None
        if self._descriptor >= 0:
            _ = self._thread(_sync, self._descriptor)

    def _lose(self, lines: int, why: str) -> None:
        self._known += 1
        self._counts.add(Counter.DOWNLOADS_LOST, lines)
        self._lost += lines
        now = self._timers.seconds()
        if now >= self._complain_at:
            _log.error("downloads: {count} events lost: {why}; serving goes on", count=self._lost, why=why)
            self._lost, self._complain_at = 0, now + COMPLAINT_SECONDS

    async def close(self) -> None:
        """Write what is left, sync and close."""
        if self._rows:
            self._write()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            await self._thread(_sync_and_close, descriptor)


def _part_of(told: Told, head: bytes, octets: int, complete: bool) -> bytes | None:
    """:return: the range of a response that was not whole; ``None`` when it is not told."""
    if told.page:
        # The client has that page: somebody looked at it all the same.
        return b"" if complete and head[9:12] == b"304" else None
    return sent_range(head, octets)


def _events_in(content: bytes) -> int:
    return sum(not line.startswith(b"=") for line in content.split(b"\n")[:-1])


def client_label(peer: bytes, protocol: bytes, cipher: bytes) -> bytes:
    """:return: what events say of a connection: address, TLS protocol and cipher (empty without TLS)."""
    return b"%b\t%b\t%b" % (peer, protocol, cipher)


def _sync(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        _log.error("downloads: events could not be synced: {why}", why=error.strerror)


def _sync_names(directory: str) -> None:
    try:
        sync_directory(directory)
    except OSError as error:
        _log.error("downloads: the name of a file of events could not be synced: {why}", why=error.strerror)


def _sync_and_close(descriptor: int) -> None:
    _sync(descriptor)
    os.close(descriptor)
