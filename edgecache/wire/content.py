"""A client's content on its way to whoever reads it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from edgecache.words.ports import Reader

HIGH = 64 << 10
"""Above this many unread octets the client's connection is not read."""


@define(eq=False, repr=False)
class RequestContent:
    """
    A :class:`~edgecache.words.ports.Source` that forgets what was read: a read at a
    position drops everything before it.

    :ivar length: ``None`` when the client sent it chunked.
    :ivar received: octets that have come so far.
    """

    length: int | None
    _drained: Callable[[], None]
    """Called when there is room again."""
    failed: Exception | None = None
    received: int = 0
    complete: bool = False
    _start: int = 0
    _octets: bytearray = field(factory=bytearray)
    _reader: Reader | None = None

    @property
    def full(self) -> bool:
        """No more should come now."""
        return len(self._octets) >= HIGH

    def read(self, position: int, limit: int) -> bytes:
        if self.failed is not None:
            return b""
        if position < self._start:
            raise ValueError(f"octets before {self._start} were read and dropped")
        was_full = self.full
        del self._octets[: position - self._start]
        self._start = position
        piece = bytes(self._octets[:limit])
        if was_full and not self.full:
            self._drained()
        return piece

    def ended(self, position: int) -> bool:
        return self.complete and self.failed is None and position == self.received

    def attach(self, reader: Reader) -> None:
        self._reader = reader

    def detach(self, reader: Reader) -> None:
        if self._reader is reader:
            self._reader = None

    def add(self, octets: bytes, *, last: bool) -> None:
        """The wire's side: more content; ``last`` when nothing follows."""
        self._octets += octets
        self.received += len(octets)
        self.complete = last
        self._wake()

    def fail(self, why: Exception) -> None:
        """The wire's side: no more will come. Harmless after the end."""
        if not self.complete and self.failed is None:
            self.failed = why
            self._octets.clear()
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None:
            self._reader.wake()
