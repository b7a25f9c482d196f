"""
The last octets that came of a content, and whether a rest begins with the same ones (rules 3 and 4 of FIELD 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from edgecache.rules.resuming import OVERLAP


@define(eq=False, repr=False)
class Overlap:
    """
    Of one content.

    :ivar tail: the last octets that came, at most :data:`~edgecache.rules.resuming.OVERLAP`.
    :ivar repeated: so many octets of the response of now have come before, and are still to be compared.
    """

    tail: bytes = b""
    repeated: int = 0

    def came(self, data: bytes) -> None:
        """The next octets."""
        self.tail = data[-OVERLAP:] if len(data) >= OVERLAP else (self.tail + data)[-OVERLAP:]

    def came_in(self, views: Sequence[memoryview]) -> None:
        """The next octets, where they lie."""
        wanted, last = OVERLAP, list[memoryview]()
        for view in (*reversed(views), memoryview(self.tail)):
            last.append(view[-wanted:])
            wanted -= len(last[-1])
            if not wanted:
                break
        self.tail = b"".join(reversed(last))

    def new_of(self, data: bytes) -> bytes | None:
        """:return: ``data`` without what we have; ``None`` if that is not the same."""
        first = len(self.tail) - self.repeated  # where ``data`` begins in the tail; negative before it
        repeated = min(len(data), self.repeated)
        self.repeated -= repeated
        if data[max(0, -first) : repeated] != self.tail[max(0, first) : max(0, first + repeated)]:
            return None
        return data[repeated:]


def first_of(room: Sequence[memoryview], octets: int) -> list[memoryview]:
    """:return: what of ``room`` the first ``octets`` fill."""
    came = []
    for view in room:
        came.append(view[:octets])
        octets -= len(came[-1])
        if not octets:
            break
    return came
