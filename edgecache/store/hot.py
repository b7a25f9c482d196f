"""Contents that are asked for again and again, in memory of their own: verified once, and sent without a copy."""

# Note [memory that is used once]
#
# What sendfile(2) gives to a socket are pages, not copies: they are sent, and sent again, until the client's side has
# them. So nothing is sent that way from LMDB's map, whose pages are written anew (decision 50). Here every content
# has a place of its own in a file in memory, which has no end, and no place is ever used again. A content that has to
# go is punched out of the file: a page that a socket still holds stays what it was until the socket lets go of it.
# Not so a part of a huge page: the kernel fills that with zeros where it is, and clients would be sent them. So where
# memory of files is in huge pages (the kernel's default is that it never is), nothing is kept here.
#
# Nothing here decides what is stored: contents are found by their ids, which the record says that LMDB found just now.

from __future__ import annotations

import ctypes
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.logger import Logger

from edgecache.store.layout import PAGE, PIECE
from edgecache.words.ports import Reader
from edgecache.words.stored import Stored

if TYPE_CHECKING:
    from edgecache.store.reading import StoreReader

_log = Logger()

SMALLEST: Final = PIECE
"""Contents up to this lie in their records, as a rule: one read has both."""

LARGEST: Final = 1 << 20
"""Reading so much into memory takes as long as answering two or three requests."""

SHARE: Final = 8
"""One content may have this part of all: a few large ones must not be everything."""

ENOUGH: Final = 8
"""So often a content was asked for before it is read into memory, which costs what is saved by two to four answers."""

COUNTED: Final = 4096
"""Contents of which it is known how often they were asked for lately."""

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int
_PUNCH_HOLE_KEEP_SIZE: Final = 3

_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
_IN_HUGE_PAGES: Final = ("[always]", "[within_size]", "[force]")


@define(eq=False, repr=False)
class _File:
    """The file in memory, closed when the last who may read it has gone: its number would be another file's."""

    descriptor: int

    def __del__(self) -> None:
        os.close(self.descriptor)


@define(eq=False, repr=False)
class Kept:
    """
    One content in memory: a :class:`~edgecache.words.ports.HotContent`.

    :ivar at: where it begins in the file.
    :ivar uses: answers since somebody wanted its place.
    :ivar readers: who sends what a socket did not take at once.
    """

    _file: _File
    at: int
    size: int
    uses: int = 1
    readers: int = 0

    def write_to(self, descriptor: int, before: bytes, start: int, stop: int) -> int:
        try:
            written = os.write(descriptor, before) if before else 0
        except OSError:
            return 0
        if written < len(before):
            return written
        try:
            return written + os.sendfile(descriptor, self._file.descriptor, self.at + start, stop - start)
        except OSError:
            return written

    def read(self, start: int, stop: int) -> bytes:
        return os.pread(self._file.descriptor, stop - start, self.at + start)

    def source(self) -> HotSource:
        self.readers += 1
        return HotSource(self, self.size)


@define(eq=False, repr=False)
class Hot:
    """
    Of one worker, used by its loop alone.

    :ivar held: octets in memory.
    """

    _octets: int
    _file: _File
    _largest: int = field(init=False)
    # What was asked for least recently looked at comes first.
    _kept: OrderedDict[bytes, Kept] = field(factory=OrderedDict)
    _asked: dict[bytes, int] = field(factory=dict)
    _end: int = 0
    held: int = 0

    @_largest.default
    def _part_of_all(self) -> int:
        return min(LARGEST, self._octets // SHARE)

    @classmethod
    def of(cls, octets: int) -> Hot | None:
        """
        :param octets: that contents may have together, rounded up to pages each.
        :return: ``None`` without any, or where the system has no such memory. See Note [memory that is used once].
        """
        if octets // SHARE <= SMALLEST:
            return None
        if _in_huge_pages():
            _log.warn("store: no memory for hot contents, as {path} says that it is in huge pages", path=_HUGE_PAGES)
            return None
        try:
            return cls(octets, _File(os.memfd_create("edgecache-hot")))
        except OSError as error:
            _log.warn("store: no memory for hot contents: {error}", error=error)
            return None

    def find(self, reader: StoreReader, key_hash: bytes, stored: Stored) -> Kept | None:
        """
        :param stored: what the last look-up of ``reader`` found; it answers a request.
        :return: its content; ``None``: it is to be read from the store.
        :raises ContentMissing: it was to be read into memory, and cannot be.
        """
        kept = self._kept.get(stored.content_id)
        if kept is not None:
            kept.uses += 1
            return kept
        if not SMALLEST < stored.size <= self._largest:
            return None
        asked, content_id = self._asked, stored.content_id
        times = asked.get(content_id, 0) + 1
        if times >= ENOUGH and self._has_room(stored.size, times):
            return self._keep(reader, key_hash, stored)
        if len(asked) >= COUNTED and times == 1:
            asked.clear()
        asked[content_id] = times
        return None

    def close(self) -> None:
        """Nothing is found any more; who still sends something may do so."""
        self._octets = self._largest = 0
        self._kept.clear()

    def _has_room(self, size: int, times: int) -> bool:
        """Is there, or can it be made for a content that was asked for so often?"""
        needed = self.held + _rounded(size) - self._octets
        leaving: list[bytes] = []
        for content_id, oldest in self._kept.items():
            if needed <= 0:
                break
            if oldest.readers or oldest.uses >= times:
                # It has to be asked for as often again. Nobody has gone for a newcomer that has to wait.
                oldest.uses >>= 1
                self._kept.move_to_end(content_id)
                return False
            leaving.append(content_id)
            needed -= _rounded(oldest.size)
        for content_id in leaving:
            self._punch(self._kept.pop(content_id))
        return needed <= 0

    def _keep(self, reader: StoreReader, key_hash: bytes, stored: Stored) -> Kept | None:
        self._asked.pop(stored.content_id, None)
        if _in_huge_pages():
            # Somebody has changed that since.
            self._give_up(f"{_HUGE_PAGES} says that it is in huge pages")
            return None
        kept = Kept(self._file, self._end, stored.size)
        self._end += _rounded(stored.size)
        self.held += _rounded(stored.size)
        try:
            written = reader.copy_to(key_hash, stored, self._file.descriptor, kept.at)
        except OSError as error:
            self._give_up(error.strerror or str(error))
            written = -1
        except BaseException:
            self._punch(kept)
            raise
        if written != stored.size:
            self._punch(kept)
            return None
        self._kept[stored.content_id] = kept
        return kept

    def _punch(self, kept: Kept) -> None:
        """See Note [memory that is used once]."""
        octets = _rounded(kept.size)
        if _fallocate(self._file.descriptor, _PUNCH_HOLE_KEEP_SIZE, kept.at, octets):
            self._give_up(os.strerror(ctypes.get_errno()))
        else:
            self.held -= octets

    def _give_up(self, why: str) -> None:
        """What is there goes on being used."""
        if self._largest:
            self._largest = 0
            _log.error("store: no further contents are kept in memory: {why}", why=why)


def _in_huge_pages() -> bool:
    """Is what is written to a file in memory from now on? It costs some microseconds."""
    try:
        with open(_HUGE_PAGES) as file:
            chosen = file.read()
    except OSError:
        return False  # a kernel that has none
    return any(word in chosen for word in _IN_HUGE_PAGES)


def _rounded(octets: int) -> int:
    return -(-octets // PAGE) * PAGE


@define(eq=False, repr=False)
class HotSource:
    """
    A content in memory as a :class:`~edgecache.words.ports.Source`, for what a socket did not take at once.

    It is kept as long as anybody may read it.
    """

    _kept: Kept
    length: int | None
    failed: Exception | None = None
    _attached: int = 0
    _open: bool = True

    def read(self, position: int, limit: int) -> bytes:
        return self._kept.read(position, min(position + limit, self._kept.size))

    def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
        """See :data:`edgecache.words.ports.WriteTo`."""
        return self._kept.write_to(descriptor, before, position, min(position + limit, self._kept.size))

    def ended(self, position: int) -> bool:
        return position == self._kept.size

    def attach(self, reader: Reader) -> None:
        self._attached += 1

    def detach(self, reader: Reader) -> None:
        self._attached -= 1
        if not self._attached:
            self.close()

    def close(self) -> None:
        """Nobody will read."""
        if self._open:
            self._open = False
            self._kept.readers -= 1

    def __del__(self) -> None:
        # Handed to a client that had gone already, it is never attached, hence never detached.
        self.close()
