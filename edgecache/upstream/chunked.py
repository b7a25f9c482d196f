"""
The chunked transfer coding of a response (RFC 9112 §7.1), decoded strictly.

Not left to httptools: it counts neither extensions nor trailers, and does not
tell where the content ended when more octets follow in the same read.
"""

from __future__ import annotations

import re

from edgecache.upstream.heads import FramingError

LINE_OCTETS = 4096
"""Longest line with a chunk's size and its extensions."""
TRAILER_OCTETS = 16 << 10
"""All trailer fields together."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")


class ChunkedDecoder:
    """
    Content out of chunks.

    :ivar ended: the last chunk and the trailer section are complete.
    :ivar excess: octets followed the end.
    """

    __slots__ = ("_left", "_line", "_next", "_trailers", "ended", "excess")

    def __init__(self) -> None:
        self.ended = False
        self.excess = False
        self._left = 0
        self._line = b""
        self._next = self._size
        self._trailers = 0

    def feed(self, data: bytes, pieces: list[bytes]) -> None:
        """
        Append the content in ``data`` to ``pieces``.

        :raises FramingError: these are no chunks; what ``pieces`` has got by then is good.
        """
        position, stop = 0, len(data)
        while position < stop:
            if self.ended:
                self.excess = True
                return
            if self._left:
                take = stop - position
                if position == 0 and take <= self._left:
                    pieces.append(data)
                    position = stop
                else:
                    take = min(take, self._left)
                    pieces.append(data[position : position + take])
                    position += take
                self._left -= take
                continue
            end = data.find(b"\n", position) + 1
            self._line += data[position : end or stop]
            if not end:
                self._unfinished()
                return
            line, self._line = self._line, b""
            position = end
            self._next(line)

    def _unfinished(self) -> None:
        """Refuse what can no longer become a line that we accept, so that it needs no deadline."""
        if len(self._line) > LINE_OCTETS:
            raise FramingError("line of a chunk is too long")
        if self._next == self._after and self._line != b"\r":
            raise FramingError("chunk is longer than its size")

    def _size(self, line: bytes) -> None:
        matched = _SIZE.fullmatch(line)
        if matched is None or len(line) > LINE_OCTETS:
            raise FramingError("malformed size of a chunk")
        self._left = int(matched[1], 16)
        self._next = self._after if self._left else self._trailer

    def _after(self, line: bytes) -> None:
        if line != b"\r\n":
            raise FramingError("chunk is longer than its size")
        self._next = self._size

    def _trailer(self, line: bytes) -> None:
        """Trailer fields are checked, counted and dropped."""
        if line == b"\r\n":
            self.ended = True
            return
        self._trailers += len(line)
        if _TRAILER.fullmatch(line) is None or self._trailers > TRAILER_OCTETS or len(line) > LINE_OCTETS:
            raise FramingError("malformed or too many trailer fields")
