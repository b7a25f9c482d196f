"""Taking the chunked coding off a request's content, strictly (RFC 9112 §7.1)."""

from __future__ import annotations

import enum
import re

from attrs import define, field

from edgecache.wire.fieldlines import FIELD_LINE, TOKEN, RequestRefused

_EXTENSION = rb"(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb'|"[^"\\\x00-\x08\x0a-\x1f\x7f]*"))?)*'
# Fifteen digits never overflow 64 bits. No "bad white space", no escapes in quotes: nobody sends them honestly.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(" + _EXTENSION + rb")\r\n")
_SIZE_DIGITS = 15


class _Stage(enum.Enum):
    SIZE = 1
    DATA = 2
    DATA_END = 3
    TRAILERS = 4
    DONE = 5


# A member of an enum costs a tenth of a microsecond each time it is named.
_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = _Stage


@define(eq=False, repr=False)
class Dechunker:
    """
    Incremental decoder; extensions and trailers are checked, counted and dropped.

    :ivar rest: what followed the end, once :attr:`done`.
    """

    _room: int
    """Octets that extensions and trailers may still take."""
    _fields: int
    """Trailer lines that may still come."""
    rest: bytes = b""
    _stage: _Stage = _SIZE
    _left: int = 0
    _line: bytearray = field(factory=bytearray)

    @property
    def done(self) -> bool:
        """The last chunk and the trailers were read."""
        return self._stage is _DONE

    def feed(self, data: bytes) -> bytes:
        """
        :return: content octets in ``data``.
        :raise RequestRefused: the coding is broken, or its overhead too large.
        """
        pieces = []
        position, size = 0, len(data)
        while position < size and self._stage is not _DONE:
            if self._stage is _DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._stage = _DATA_END
                continue
            end = data.find(b"\n", position) + 1
            self._line += data[position : end or size]
            position = end or size
            self._check_room()
            if end:
                line = bytes(self._line)
                self._line.clear()
                self._take(line)
        if self._stage is _DONE:
            self.rest = data[position:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_room(self) -> None:
        """The same answer for a line, whether it is here as a whole or in part."""
        size = len(self._line)
        if self._stage is _DATA_END:
            if not b"\r\n".startswith(self._line):
                raise RequestRefused(400, "chunk longer than its size")
        elif self._stage is _SIZE:
            if size > self._room + _SIZE_DIGITS + 2:
                raise RequestRefused(400, "chunk extension too large")
        elif size > self._room + 2:
            raise RequestRefused(431, "trailer section too large")

    def _take(self, line: bytes) -> None:
        if self._stage is _DATA_END:
            self._stage = _SIZE
        elif self._stage is _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise RequestRefused(400, "malformed chunk size")
            self._spend(len(match[2]), 400)
            self._left = int(match[1], 16)
            self._stage = _DATA if self._left else _TRAILERS
        elif line == b"\r\n":
            self._stage = _DONE
        else:
            self._spend(len(line), 431)
            self._fields -= 1
            if self._fields < 0:
                raise RequestRefused(431, "too many trailer fields")
            if not FIELD_LINE.fullmatch(line):
                raise RequestRefused(400, "malformed trailer field")

    def _spend(self, octets: int, status: int) -> None:
        self._room -= octets
        if self._room < 0:
            raise RequestRefused(status, "chunk extensions and trailers too large")
