"""What origins serve: content that is known by name and position, so that no copy of it has to be kept."""

from __future__ import annotations

import hashlib
import random
from typing import Protocol

from attrs import frozen

# Prime, so that no piece size divides it: pieces that are swapped, repeated or shifted differ from what is due.
PERIOD = 1_048_573
_PATTERN = random.Random("edgecache").randbytes(PERIOD)
_TWICE = _PATTERN + _PATTERN

PIECE = 1 << 18
"""How much is generated, sent and compared at a time."""


class Content(Protocol):
    """Octets with a length."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, length: int) -> bytes:
        """At most ``length`` octets from ``start``, at most :data:`PIECE` at a time."""
        ...


@frozen
class Octets:
    """Content that is at hand."""

    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    def read(self, start: int, length: int) -> bytes:
        return self.octets[start : start + min(length, PIECE)]


@frozen
class Artifact:
    """
    Content of any size, given by its name; two names never have the same content, from 16 octets on.

    >>> wheel = Artifact("x", 3 * PERIOD)
    >>> wheel.read(PERIOD - 5, 9) == Artifact("x", 3 * PERIOD).read(2 * PERIOD - 5, 9)
    True
    """

    name: str
    size: int

    def _offset(self) -> int:
        return int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "big") % PERIOD

    def read(self, start: int, length: int) -> bytes:
        length = max(0, min(length, PIECE, self.size - start))
        first = (self._offset() + start) % PERIOD
        return _TWICE[first : first + length]

    def whole(self) -> bytes:
        """All of it; for small ones."""
        return b"".join(self.read(start, PIECE) for start in range(0, self.size, PIECE))


def first_difference(content: Content, start: int, got: bytes) -> int | None:
    """The position in ``content`` of the first octet of ``got`` (which begins at ``start``) that is wrong, or None."""
    done = 0
    while done < len(got):
        due = content.read(start + done, len(got) - done)
        piece = got[done : done + max(len(due), 1)]
        if due != piece:
            same = next((i for i, (a, b) in enumerate(zip(due, piece, strict=False)) if a != b), len(due))
            return start + done + same
        done += len(due)
    return None
