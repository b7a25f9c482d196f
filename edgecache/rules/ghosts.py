"""
Keys that were evicted not long ago (S3-FIFO's ghost queue), in a buffer of fixed size.

A key is found by a mark in a bucket, beside the time at which it was evicted; time is octets evicted. So
nothing has to be queued, or deleted when it is too old, and a full bucket forgets its oldest. A buffer can be a mapped
file that several processes use at once: whatever they do to each other, a key is known wrongly, or not known, and that
is all.
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import define, field

_WAYS: Final = 8
_ROW: Final = struct.Struct(f"<{_WAYS}I")
_BUCKET_OCTETS: Final = 2 * _ROW.size
_U32_AT: Final = struct.Struct("<I")
_CLOCK: Final = struct.Struct("<Q")
HEADER: Final = _BUCKET_OCTETS
"""Octets at the start of the buffer: the clock."""

_TICK: Final = 12
# Of the key: its low bits are the counter's slot (edgecache.store.popularity).
_OF_KEY: Final = struct.Struct("<QI")
_BUCKET_AT: Final = 8
_U32: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFFFFFFFFFF


def octets_for(entries: int) -> int:
    """:return: octets of a buffer for about so many keys: a power of two of buckets."""
    buckets = 1
    while buckets * _WAYS < entries:
        buckets *= 2
    return HEADER + buckets * _BUCKET_OCTETS


@define(eq=False, repr=False)
class Ghosts:
    """
    Over a buffer of :func:`octets_for`, zeros at first.

    One process calls :meth:`add`, any may :meth:`take`.
    """

    _buffer: memoryview
    _buckets: int = field(init=False)

    @_buckets.default
    def _whole_ones(self) -> int:
        return (len(self._buffer) - HEADER) // _BUCKET_OCTETS

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
        # A file that a power cut left with anything in it must not end eviction.
        clock = self.clock + octets & _U64
        _CLOCK.pack_into(self._buffer, 0, clock)
        now = clock >> _TICK & _U32
        at, mark = self._find(key)
        marks = _ROW.unpack_from(self._buffer, at)
        if mark in marks:
            way = marks.index(mark)
        elif 0 in marks:
            way = marks.index(0)
        else:
            times = _ROW.unpack_from(self._buffer, at + _ROW.size)
            way = max(range(_WAYS), key=lambda each: now - times[each] & _U32)
        _U32_AT.pack_into(self._buffer, at + way * _U32_AT.size, mark)
        _U32_AT.pack_into(self._buffer, at + _ROW.size + way * _U32_AT.size, now)

    def take(self, key: bytes, within: int) -> bool:
        """
        ``key`` is stored again; from now on it is not known any more.

        :param within: octets that may have been added since it was.
        """
        at, mark = self._find(key)
        marks = _ROW.unpack_from(self._buffer, at)
        if mark not in marks:
            return False
        at += marks.index(mark) * _U32_AT.size
        _U32_AT.pack_into(self._buffer, at, 0)
        (time,) = _U32_AT.unpack_from(self._buffer, at + _ROW.size)
        age: int = (self.clock >> _TICK) - time & _U32
        return age << _TICK < within

    def _find(self, key: bytes) -> tuple[int, int]:
        """:return: where its bucket begins (a row of marks, then one of times), and its mark."""
        number, mark = _OF_KEY.unpack_from(key, _BUCKET_AT)
        return HEADER + (number & self._buckets - 1) * _BUCKET_OCTETS, mark or 1
