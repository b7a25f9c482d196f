"""An upload on its way to the origin (DESIGN 10): what it begins with is kept, for that names the project."""

from __future__ import annotations

from attrs import define, field

from edgecache.words.ports import Reader, Source

KEPT_OCTETS = 64 << 10
"""Of a form: publishers send a project's metadata before its file."""


@define(eq=False, repr=False)
class Form:
    """
    A client's content as it came, in order and once.

    :ivar begin: its first :data:`KEPT_OCTETS`.
    """

    _source: Source
    begin: bytearray = field(factory=bytearray)

    @property
    def length(self) -> int | None:
        """Of all of it."""
        return self._source.length

    @property
    def failed(self) -> Exception | None:
        """Why no more will come."""
        return self._source.failed

    def read(self, position: int, limit: int) -> bytes:
        """See :meth:`edgecache.words.ports.Source.read`."""
        octets = self._source.read(position, limit)
        if position == len(self.begin) < KEPT_OCTETS:
            self.begin += octets[: KEPT_OCTETS - position]
        return octets

    def ended(self, position: int) -> bool:
        """See :meth:`edgecache.words.ports.Source.ended`."""
        return self._source.ended(position)

    def attach(self, reader: Reader) -> None:
        """See :meth:`edgecache.words.ports.Source.attach`."""
        self._source.attach(reader)

    def detach(self, reader: Reader) -> None:
        """See :meth:`edgecache.words.ports.Source.detach`."""
        self._source.detach(reader)
