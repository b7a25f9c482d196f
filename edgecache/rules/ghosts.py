"""
Keys that were evicted not long ago (S3-FIFO's ghost queue), in a buffer of fixed size.

A key is found by a fingerprint in a bucket, beside the time at which it was evicted; time is octets evicted. So
nothing has to be queued, or deleted when it is too old, and a full bucket forgets its oldest. A buffer can be a mapped
file that several processes use at once: whatever they do to each other, a key is known wrongly, or not known, and that
is all.
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import define, field

_WAYS: Final = 8
_BUCKET: Final = struct.Struct(f"<{2 * _WAYS}I")
_ENTRY: Final = struct.Struct("<II")
_CLOCK: Final = struct.Struct("<Q")
HEADER: Final = _BUCKET.size
"""Octets at the start of the buffer: the clock."""

_TICK: Final = 12
# Of the key: its low bits are the counter's slot (edgecache.store.popularity).
_BUCKET_AT, _FINGERPRINT_AT = 8, 16
_U32: Final = 0xFFFFFFFF


def octets_for(entries: int) -> int:
    """:return: octets of a buffer for about so many keys: a power of two of buckets."""
    buckets = 1
    while buckets * _WAYS < entries:
        buckets *= 2
    return HEADER + buckets * _BUCKET.size


@define(eq=False)
class Ghosts:
    """
    Over a buffer of :func:`octets_for`, zeros at first.

    One process calls :meth:`add`, any may :meth:`take`.
    """

    _buffer: memoryview
    _buckets: int = field(init=False)

    @_buckets.default
    def _whole_ones(self) -> int:
        return (len(self._buffer) - HEADER) // _BUCKET.size

    @property
    def clock(self) -> int:
        """Octets of all that was ever added."""
        octets: int = _CLOCK.unpack_from(self._buffer)[0]
        return octets

    def add(self, key: bytes, octets: int) -> None:
        """
        ``key`` is evicted.

        :param key: a hash of 32 octets.
        """
        clock = self.clock + octets
        _CLOCK.pack_into(self._buffer, 0, clock)
        now = clock >> _TICK & _U32
        at, fingerprint, entries = self._find(key)
        oldest, place = -1, 0
        for way in range(_WAYS):
            mark, time = entries[2 * way], entries[2 * way + 1]
            age = _U32 + 1 if mark in (0, fingerprint) else now - time & _U32
            if age > oldest:
                oldest, place = age, way
        _ENTRY.pack_into(self._buffer, at + place * _ENTRY.size, fingerprint, now)

    def take(self, key: bytes, within: int) -> bool:
        """
        ``key`` is stored again; from now on it is not known any more.

        :param within: octets that may have been added since it was.
        """
        at, fingerprint, entries = self._find(key)
        for way in range(_WAYS):
            if entries[2 * way] == fingerprint:
                _ENTRY.pack_into(self._buffer, at + way * _ENTRY.size, 0, 0)
                age = (self.clock >> _TICK) - entries[2 * way + 1] & _U32
                return age << _TICK < within
        return False

    def _find(self, key: bytes) -> tuple[int, int, tuple[int, ...]]:
        """:return: where its bucket begins, its fingerprint, marks and times of the bucket."""
        bucket = int.from_bytes(key[_BUCKET_AT : _BUCKET_AT + 8], "little") & self._buckets - 1
        at = HEADER + bucket * _BUCKET.size
        fingerprint = int.from_bytes(key[_FINGERPRINT_AT : _FINGERPRINT_AT + 4], "little") or 1
        return at, fingerprint, _BUCKET.unpack_from(self._buffer, at)
