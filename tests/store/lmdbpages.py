"""Pages of an LMDB file, and what each of them is: so that a test can damage the one that it means."""

from __future__ import annotations

import struct
from pathlib import Path

from attrs import define, field

PAGE = 4096
BRANCH, LEAF, OVERFLOW, REST = "branch", "leaf", "overflow", "rest"
"""Kinds; an overflow page is the first of a long value's, the others have no head."""

# Number, padding, flags, then the bounds of what is free.
_HEAD = struct.Struct("<QHHHH")
_NODE = struct.Struct("<HHHH")
_DATABASE = struct.Struct("<IHHQQQQQ")
_IS_BRANCH, _BIG, _SUB = 1, 1, 2
_NONE = 0xFFFFFFFFFFFFFFFF


@define
class Tree:
    """
    :ivar pages: of the newest state: database and kind by number. ``main`` has the databases, ``free`` the free pages.
    :ivar roots: of the databases.
    """

    octets: bytes
    pages: dict[int, tuple[str, str]] = field(factory=dict)
    roots: dict[str, int] = field(factory=dict)

    @classmethod
    def of(cls, file: Path) -> Tree:
        tree = cls(file.read_bytes())
        head = max((0, 1), key=lambda number: struct.unpack_from("<Q", tree.octets, number * PAGE + 144)[0])
        for number, name in enumerate(("free", "main")):
            at = head * PAGE + 16 + 24 + number * _DATABASE.size
            tree._walk(name, _DATABASE.unpack_from(tree.octets, at)[-1], root=True)
        return tree

    def some(self, database: str, kind: str) -> list[int]:
        """:return: numbers, ascending."""
        return sorted(number for number, what in self.pages.items() if what == (database, kind))

    def _walk(self, database: str, page: int, *, root: bool = False) -> None:
        if page == _NONE:
            return
        if root:
            self.roots[database] = page
        at = page * PAGE
        _, _, flags, lower, _ = _HEAD.unpack_from(self.octets, at)
        self.pages[page] = database, BRANCH if flags & _IS_BRANCH else LEAF
        for index in range((lower - _HEAD.size) // 2):
            node = at + struct.unpack_from("<H", self.octets, at + _HEAD.size + 2 * index)[0]
            low, high, bits, key_octets = _NODE.unpack_from(self.octets, node)
            key, data = self.octets[node + 8 : node + 8 + key_octets], node + 8 + key_octets
            if flags & _IS_BRANCH:
                self._walk(database, low | high << 16 | bits << 32)
            elif bits & _BIG:
                first = struct.unpack_from("<Q", self.octets, data)[0]
                count = struct.unpack_from("<I", self.octets, first * PAGE + 12)[0]
                self.pages[first] = database, OVERFLOW
                self.pages.update(dict.fromkeys(range(first + 1, first + count), (database, REST)))
            elif bits & _SUB:
                self._walk(key.decode(), _DATABASE.unpack_from(self.octets, data)[-1], root=True)


def alone(page: bytes) -> bytes:
    """:return: a branch page that has one key left: LMDB's own assertion ends whoever meets it."""
    number, padding, flags, _, upper = _HEAD.unpack_from(page)
    return _HEAD.pack(number, padding, flags, _HEAD.size + 2, upper) + page[_HEAD.size :]
