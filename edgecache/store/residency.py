"""
Which values of an environment are in memory, found out without touching them.

Reading a value that is not there makes the thread wait for the disk: in a worker's loop, all clients wait with it. So
whoever reads in the loop asks first, and has a thread read what is absent.
"""

# Note [where a value lies]
#
# LMDB gives a value's octets only together with a read of them. But a key is given as a view of the leaf page that it
# stands in, and there (0.9 format) the number of the value's first page follows the key, the page's own number stands
# at its begin, and so the begin of the map is known, hence the value's address, and mincore(2) says the rest. What
# does not look as expected is taken for present: reading it is then what it would be without all this.

from __future__ import annotations

import ctypes
import resource
import struct
from typing import Any, Final

import lmdb
from attrs import define, field

from edgecache.store.layout import PAGE

# Before the key: octets of the value (low half, high half), flags, octets of the key.
_NODE: Final = struct.Struct("=HHHH")
_NUMBER: Final = struct.Struct("=Q")
_BIG: Final = 1
"""Flag of a node: the value has pages of its own."""
_VALUE_AT: Final = 16
"""Octets of LMDB's own before the value, in the first of its pages."""

_MOST_PAGES: Final = 1024


class _Buffer(ctypes.Structure):
    """CPython's ``Py_buffer``."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.POINTER(_Buffer),)
_release.restype = None
_libc = ctypes.CDLL(None)
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_madvise.restype = ctypes.c_int
_WILLNEED: Final = 3
_mincore = _libc.mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_mincore.restype = ctypes.c_int


def waits() -> int:
    """:return: how often this thread has waited for the disk because of memory that was not there."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt


@define(eq=False, repr=False)
class Residency:
    """Used by one thread, but for :meth:`read`."""

    _environment: lmdb.Environment
    _buffer: _Buffer = field(factory=_Buffer)
    _pages: Any = field(factory=lambda: ctypes.create_string_buffer(_MOST_PAGES))

    def leading(self, database: lmdb._Database, keys: list[bytes]) -> int:
        """
        :param keys: of values that are read in this order and most likely lie one behind the other.
        :return: how many of the first ones are wholly in memory.
        :raises lmdb.Error: the environment cannot be read.
        """
        # db, parent, write, buffers
        txn = self._environment.begin(None, None, False, True)
        try:
            return self._leading(txn.cursor(database), keys)
        finally:
            txn.abort()

    def read(self, database: lmdb._Database, keys: list[bytes]) -> bool:
        """
        Wait for the disk until all these values, and what leads to them, are in memory, in any thread.

        :return: did it take a wait?
        :raises lmdb.Error: the environment cannot be read.
        """
        own = Residency(self._environment)
        before, absent = waits(), False
        txn = self._environment.begin(None, None, False, True)
        try:
            cursor: Any = txn.cursor(database)
            # All reads are asked for before one is waited for.
            for key in keys:
                place = own._place(cursor, key)
                if place is not None and own._present(place[0], place[1] // PAGE) * PAGE < place[1]:
                    absent = True
                    _madvise(*place, _WILLNEED)
            for key in keys:
                if cursor.set_key(key):
                    # The binding reads each page, without the interpreter's lock.
                    cursor.value()
        finally:
            txn.abort()
        return absent or waits() != before

    def _leading(self, cursor: Any, keys: list[bytes]) -> int:
        """Halves until what is left lies together: few values do not."""
        first = self._place(cursor, keys[0])
        if len(keys) == 1:
            return int(first is None or self._present(first[0], first[1] // PAGE) * PAGE == first[1])
        last = self._place(cursor, keys[-1])
        if first is not None and last is not None:
            pages, each = (last[0] + last[1] - first[0]) // PAGE, first[1] // PAGE
            if pages == each * len(keys) <= _MOST_PAGES:
                return self._present(first[0], pages) // each
        half = len(keys) // 2
        there = self._leading(cursor, keys[:half])
        return there if there < half else half + self._leading(cursor, keys[half:])

    def _place(self, cursor: Any, key: bytes) -> tuple[int, int] | None:
        return _place(cursor, key, self._buffer)

    def _present(self, address: int, pages: int) -> int:
        """:return: how many pages from ``address`` on are in memory without a gap; all, if the kernel does not tell."""
        if _mincore(address, pages * PAGE, self._pages):
            return pages
        # The other bits are the kernel's own.
        absent = self._pages.raw[:pages].translate(_LOWEST).find(b"\0")
        return pages if absent < 0 else absent


_LOWEST: Final = bytes(number & 1 for number in range(256))


def _place(cursor: Any, key: bytes, buffer: _Buffer) -> tuple[int, int] | None:
    """
    See Note [where a value lies].

    :return: address of the first of the value's own pages and octets of all of them; ``None``: it has none, or is not
        there.
    """
    if not cursor.set_key(key):
        return None
    _get_buffer(cursor.key(), buffer, 0)
    at: int = buffer.buf
    _release(buffer)
    node = ctypes.string_at(at - _NODE.size, _NODE.size + len(key) + _NUMBER.size)
    low, high, flags, key_octets = _NODE.unpack_from(node)
    if not flags & _BIG or key_octets != len(key) or node[_NODE.size : -_NUMBER.size] != key:
        return None
    leaf = at & -PAGE
    (number,) = _NUMBER.unpack_from(node, _NODE.size + key_octets)
    (own,) = _NUMBER.unpack(ctypes.string_at(leaf, _NUMBER.size))
    octets = low | high << 16
    return leaf + (number - own) * PAGE, -(-(_VALUE_AT + octets) // PAGE) * PAGE
