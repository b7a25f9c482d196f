"""
How popular what is stored is: a counter per slot, written by hits, and keys that were evicted not long ago.

One mapped file, ``DATA/popularity``, that outlives the node: a store that starts again knows what it is asked for.
Nothing of it is synced, and nothing depends on it but what is evicted first.
"""

# Note [counters]
#
# A key's slot is the low bits of its hash. Two keys with one slot share a counter, which can only prolong a life; so
# nobody allocates or frees, and a hit stores one octet. A worker may overwrite what the collector has just set, and the
# other way round: a hit more or less.

from __future__ import annotations

import mmap
import os
from typing import Final

from attrs import define

from edgecache.rules.ghosts import Ghosts, octets_for
from edgecache.words.errors import StartError

NAME: Final = "popularity"

SLOTS: Final = 1 << 22
_SLOT_OCTETS: Final = 3
"""Low octets of a key hash that :data:`SLOTS` needs."""

GHOSTS: Final = 1 << 20
"""Keys that each environment remembers, about."""

MAGIC: Final = b"edgecache popularity 1\n"
_HEADER: Final = 4096
_GHOSTS: Final = octets_for(GHOSTS)
_SIZE: Final = _HEADER + SLOTS + 2 * _GHOSTS


def slot_of(key_hash: bytes) -> int:
    """:return: where the counter of a key is."""
    return int.from_bytes(key_hash[:_SLOT_OCTETS], "little") & SLOTS - 1


@define(eq=False, repr=False)
class Popularity:
    """
    :ivar hits: an octet per slot (:func:`slot_of`), at most :data:`~edgecache.rules.eviction.HITS`.
    :ivar small: what was evicted that lay in small alone.
    :ivar blobs: what was evicted that had chunks in blobs.
    """

    hits: memoryview
    small: Ghosts
    blobs: Ghosts
    _views: list[memoryview]
    _map: mmap.mmap | None = None

    @classmethod
    def in_memory(cls) -> Popularity:
        """One that nobody shares."""
        return cls._of(memoryview(bytearray(_SIZE)), None)

    @classmethod
    def open(cls, data: str, *, node_process: bool) -> Popularity:
        """
        Map the file below ``data``; the node process makes it anew if it is not one of this release.

        :raises StartError: it cannot be made, or (worker) there is none.
        """
        path = os.path.join(data, NAME)
        try:
            if node_process and not _is_one(path):
                _make(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if node_process:
                    # A power cut, or a copy that spares zeros, may have left holes in it.
                    os.posix_fallocate(descriptor, 0, _SIZE)
                mapped = mmap.mmap(descriptor, _SIZE)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise StartError(f"cannot map {path}: {error}") from error
        return cls._of(memoryview(mapped), mapped)

    @classmethod
    def _of(cls, octets: memoryview, mapped: mmap.mmap | None) -> Popularity:
        hits, end = octets[_HEADER : _HEADER + SLOTS], _HEADER + SLOTS
        ghosts = [octets[at : at + _GHOSTS] for at in (end, end + _GHOSTS)]
        return cls(hits, Ghosts(ghosts[0]), Ghosts(ghosts[1]), [*ghosts, hits, octets], mapped)

    def close(self) -> None:
        """Unmap it."""
        for view in self._views:
            view.release()
        if self._map is not None:
            self._map.close()


def _is_one(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size == _SIZE and file.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        return False


def _make(path: str) -> None:
    unfinished = f"{path}.new"
    with open(unfinished, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        # All of it is written now: a full disk must show here, not as SIGBUS on a hit; and of blocks that are only
        # allocated, the first write to a page takes twice as long.
        file.write(MAGIC.ljust(_SIZE, b"\0"))
    os.replace(unfinished, path)
