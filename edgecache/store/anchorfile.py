"""
The anchor's file (Note [the anchor] in :mod:`edgecache.store.anchoring`): what it says, and what a start makes of that.

It has two slots, written in turn, so that a write which is cut off spoils none that counts.
"""

from __future__ import annotations

import errno
import os
import struct

from attrs import frozen
from xxhash import xxh3_64_intdigest

from edgecache.store.aside import condemn
from edgecache.store.layout import PAGE
from edgecache.syncing import sync_directory

NAME = "anchor"
"""Of the file, in the directory of its environment."""

HEAD_OCTETS = 136
# Of LMDB's data format 1 (0.9) on machines of 64 bits: where a head lies in each of the first two pages, and where in
# it is the number of its transaction, which the anchor compares with what LMDB says.
_HEAD_AT, _NUMBER_AT = 16, 128
_NUMBER = struct.Struct("<Q")

_SLOT = struct.Struct("<8sQQ64s136s")
_MAGIC = b"anchor\0\2"
_CHECKSUM = struct.Struct("<Q")


def place_of_head(page: int) -> int:
    """:return: where in LMDB's file is the head of page 0 or 1."""
    return page * PAGE + _HEAD_AT


def number_of(head: bytes) -> int:
    """:return: of the last transaction in that state."""
    number: int = _NUMBER.unpack_from(head, _NUMBER_AT)[0]
    return number


@frozen
class Slot:
    """
    :ivar count: how many were written before it.
    :ivar holder: the process that has the reader.
    :ivar cache: of the kernel that had what was written later (:func:`edgecache.store.disk.cache`).
    :ivar head: as it lies in LMDB's file.
    """

    count: int
    holder: int
    cache: str
    head: bytes

    @property
    def transaction(self) -> int:
        """The number of the last transaction in this state."""
        return number_of(self.head)

    def packed(self) -> bytes:
        """:return: a page."""
        octets = _SLOT.pack(_MAGIC, self.count, self.holder, self.cache.encode(), self.head)
        return (octets + _CHECKSUM.pack(xxh3_64_intdigest(octets))).ljust(PAGE, b"\0")


def latest(directory: str) -> Slot | None:
    """
    :return: what the anchor of the environment in ``directory`` holds; ``None`` where that cannot be told.
    :raises OSError: there is no such file, or it cannot be read.
    """
    with open(os.path.join(directory, NAME), "rb") as file:
        pages = file.read(PAGE), file.read(PAGE)
    return max(filter(None, map(_unpacked, pages)), key=lambda slot: slot.count, default=None)


def recover(directory: str, cache: str) -> None:
    """
    Before the environment in ``directory`` is opened: have its heads be good ones. Harmless without an anchor.

    :param cache: :func:`edgecache.store.disk.cache` of now.
    :raises OSError: it cannot be done. Where the disk itself failed, or no state is certain, the environment is
        condemned instead.
    """
    try:
        _recover(directory, cache)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # The kernel says so once: the next start would take what it finds for good.
        condemn(directory, f"the disk has not kept it: {error}")


def _recover(directory: str, cache: str) -> None:
    file = os.path.join(directory, "data.mdb")
    try:
        slot = latest(directory)
        if slot is None:
            condemn(directory, "its anchor is not one of ours")
            return
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not cache or cache != slot.cache:
            for page in (0, 1):
                os.pwrite(descriptor, slot.head, place_of_head(page))
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            # Of whichever kind: what the last life wrote is lost.
            raise OSError(errno.EIO, str(error)) from error
    finally:
        os.close(descriptor)
    # From here on, until there is another, commits sync what they write.
    os.unlink(os.path.join(directory, NAME))
    sync_directory(directory)


def _unpacked(page: bytes) -> Slot | None:
    octets = page[: _SLOT.size]
    if page[_SLOT.size : _SLOT.size + _CHECKSUM.size] != _CHECKSUM.pack(xxh3_64_intdigest(octets)):
        return None
    magic, count, holder, cache, head = _SLOT.unpack(octets)
    return Slot(count, holder, cache.rstrip(b"\0").decode(), head) if magic == _MAGIC else None
