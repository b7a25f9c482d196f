"""Content that goes straight on to one client; a part that may be stored is, as it passes."""

from __future__ import annotations

from collections import deque
from itertools import islice

from attrs import define, field

from edgecache.fills.parts import Aside
from edgecache.rules.digests import showable
from edgecache.store.held import written_now
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import UpstreamFailed
from edgecache.words.ports import Counts, Reader

PASS_HIGH, PASS_LOW = 256 << 10, 64 << 10
"""Octets held between upstream and client: stop and go."""

PIECES = 64
"""Written in one call at most, where an upstream drips; a call takes no more than some."""


@define(eq=False, repr=False)
class Passing:
    """
    A :class:`~edgecache.words.ports.Source`: content from upstream to one client.

    It can be read once, in order. A client that leaves ends the exchange upstream.
    """

    _response: Response
    _counts: Counts
    length: int | None
    # Stores it, too.
    _aside: Aside | None = None
    failed: Exception | None = None
    _pieces: deque[bytes | memoryview] = field(factory=deque)
    _held: int = 0
    _position: int = 0
    _complete: bool = False
    _paused: bool = False
    _busy: bool = False
    _reader: Reader | None = None

    def data(self, data: bytes) -> None:
        self._counts.add(Counter.BYTES_FETCHED, len(data))
        if self._aside is not None:
            self._aside.data(data)
        self._pieces.append(data)
        self._held += len(data)
        if self._readable > PASS_HIGH and not self._paused:
            self._paused = True
            self._response.pause()
        self._wake()

    def end(self) -> None:
        self._complete = True
        self._end_aside()
        self._wake()

    def fail(self, failure: UpstreamFailed) -> None:
        self.failed = failure
        self._end_aside()
        self._wake()

    def read(self, position: int, limit: int) -> bytes:
        limit = self._allowed(position, limit)
        if not limit:
            return b""
        data = bytes(self._pieces[0][:limit])
        self._taken(len(data))
        return data

    def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
        """See :data:`edgecache.words.ports.WriteTo`."""
        limit = self._allowed(position, limit)
        views: list[memoryview] = []
        for piece in islice(self._pieces, PIECES):
            if not limit:
                break
            views.append(memoryview(piece)[:limit])
            limit -= len(views[-1])
        octets = written_now(descriptor, [before, *views])
        if octets > len(before):
            self._taken(octets - len(before))
        return octets

    def _allowed(self, position: int, limit: int) -> int:
        if position != self._position:
            raise ValueError(f"content passed through can be read once: at {self._position}, not at {position}")
        return min(limit, self._readable)

    def _taken(self, octets: int) -> None:
        """So many are the client's now."""
        self._held -= octets
        self._position += octets
        while octets:
            piece = self._pieces.popleft()
            if len(piece) > octets:
                # A view: what is left of a large piece is not copied once for each part that is taken.
                self._pieces.appendleft(memoryview(piece)[octets:])
                break
            octets -= len(piece)
        if self._paused and self._readable < PASS_LOW:
            self._paused = False
            self._busy = True  # See Note [no wake within a read] of fills.contents
            try:
                self._response.resume()
            finally:
                self._busy = False

    def ended(self, position: int) -> bool:
        return self._complete and not self._pieces and position == self._position

    def attach(self, reader: Reader) -> None:
        self._reader = reader
        self._response.attach(self)

    def detach(self, reader: Reader) -> None:
        self._reader = None
        self._response.cancel()
        self._end_aside()

    def _end_aside(self) -> None:
        aside, self._aside = self._aside, None
        if aside is not None:
            aside.ended()

    @property
    def _readable(self) -> int:
        """Octets held that may be shown, see Note [content with a digest] of fills.contents."""
        if self._complete or self._response.digest is None:
            return self._held
        return max(0, showable(self.length, self._position + self._held) - self._position)

    def _wake(self) -> None:
        if self._reader is not None and not self._busy:
            self._reader.wake()
