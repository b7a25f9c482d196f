"""Which octets of a content a part has: Content-Range (RFC 9110 §14.4)."""

from __future__ import annotations

import re

from attrs import frozen

# More digits than these are no length.
_CONTENT_RANGE = re.compile(rb"bytes +([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)


@frozen
class Span:
    """
    One part of a content.

    :ivar start: its first octet, ``stop`` the one after its last.
    :ivar complete: octets of the whole; ``None`` where they are unknown.
    """

    start: int
    stop: int
    complete: int | None

    @property
    def octets(self) -> int:
        """How many it has."""
        return self.stop - self.start

    @property
    def consistent(self) -> bool:
        """Has it an octet, and none beyond the end?"""
        return self.start < self.stop and (self.complete is None or self.stop <= self.complete)

    @property
    def field(self) -> bytes:
        """Value of Content-Range."""
        complete = b"*" if self.complete is None else b"%d" % self.complete
        return b"bytes %d-%d/%b" % (self.start, self.stop - 1, complete)


def span_of(value: bytes | None) -> Span | None:
    """:param value: of Content-Range. :return: ``None`` if it names no range; see :attr:`Span.consistent`."""
    found = None if value is None else _CONTENT_RANGE.fullmatch(value)
    if found is None:
        return None
    return Span(int(found[1]), int(found[2]) + 1, None if found[3] == b"*" else int(found[3]))
