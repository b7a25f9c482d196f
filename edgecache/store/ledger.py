"""
Invalidations that control cannot write now, kept all the same: in a file whose room was taken while there was some.

``DATA/owed`` has one size from the first start on. What is written there is written in place, so that a full disk
takes it (but for a file system that never writes in place), and what is there at a start was never in control.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import Final

from attrs import define
from twisted.logger import Logger
from xxhash import xxh3_64_intdigest

from edgecache.syncing import sync_directory
from edgecache.words.purging import Row

_log = Logger()

NAME: Final = "owed"
OCTETS: Final = 1 << 20

_RECORD: Final = struct.Struct("<IQ")
"""Octets that follow, their checksum. The first record that is none is the end."""
_ROW: Final = struct.Struct("<HQB")
"""Octets of the canonical selector, which follows; its hash; mode."""


@define(eq=False, repr=False)
class Ledger:
    """One thread at a time."""

    _data: str
    _descriptor: int
    _end: int = 0

    @classmethod
    def open(cls, data: str) -> Ledger:
        """
        Make the file below ``data`` if it is not there.

        :raises OSError: it cannot be.
        """
        path = os.path.join(data, NAME)
        if not os.path.exists(path):
            _make(path)
            sync_directory(data)
        return cls(data, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    @classmethod
    def opened(cls, data: str) -> Ledger | None:
        """:meth:`open`; where there is no room for it, a node serves without one, and says so."""
        try:
            return cls.open(data)
        except OSError as error:
            _log.error("there is no room for what control may not be able to write later: {error}", error=error)
            return None

    def replaced(self, rows: Sequence[Row]) -> Ledger | None:
        """
        :return: one in place of this, in which ``rows`` are from the beginning; ``None``, where it cannot be made: then
            this one's file stays for the next start.
        """
        self.close()
        record = _record(rows)
        try:
            _make(os.path.join(self._data, NAME), record)
            sync_directory(self._data)
            new = self.open(self._data)
        except OSError as error:
            _log.error("what control may not be able to write later cannot be kept: {error}", error=error)
            return None
        new._end = len(record)
        return new

    def rows(self) -> list[Row]:
        """
        :return: what is there; :meth:`add` goes on behind it.
        :raises OSError: it cannot be read, or is not whole.
        """
        octets = os.pread(self._descriptor, OCTETS, 0)
        if len(octets) < OCTETS:
            raise OSError(errno.EIO, f"{OCTETS - len(octets)} octets are missing")
        found: list[Row] = []
        self._end = 0
        while self._end + _RECORD.size <= len(octets):
            length, checksum = _RECORD.unpack_from(octets, self._end)
            start = self._end + _RECORD.size
            content = octets[start : start + length]
            if not length or len(content) < length or xxh3_64_intdigest(content) != checksum:
                break
            found += _unpacked(content)
            self._end = start + length
        return found

    def add(self, rows: Sequence[Row]) -> None:
        """
        They are on disk after this.

        :raises OSError: they are not; there is only so much room.
        """
        record = _record(rows)
        _check(self._end + len(record))
        os.pwrite(self._descriptor, record, self._end)
        os.fdatasync(self._descriptor)
        self._end += len(record)

    def clear(self) -> None:
        """
        Control has all of them. (Later ones take their places. Should one of them end where an old one began, that is
        invalidated once more.)

        :raises OSError: they may still be there.
        """
        self._end = 0
        os.pwrite(self._descriptor, bytes(_RECORD.size), 0)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Nothing may be asked of it any more."""
        os.close(self._descriptor)


def _record(rows: Sequence[Row]) -> bytes:
    content = b"".join(_ROW.pack(len(canonical), key, mode) + canonical for canonical, key, mode in rows)
    return _RECORD.pack(len(content), xxh3_64_intdigest(content)) + content


def _check(end: int) -> None:
    """:raises OSError: there is only so much room."""
    if end > OCTETS:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _make(path: str, record: bytes = b"") -> None:
    _check(len(record))
    with open(path + ".new", "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(record.ljust(OCTETS, b"\0"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def _unpacked(content: bytes) -> list[Row]:
    rows: list[Row] = []
    at = 0
    while at < len(content):
        length, key, mode = _ROW.unpack_from(content, at)
        at += _ROW.size + length
        rows.append((content[at - length : at], key, mode))
    return rows
